"""Programs to be looked at, and a client that does no more than the protocol says."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(str(path))
    return sock


def received(sock: socket.socket) -> bytes:
    found = b""
    while part := sock.recv(65536):
        found += part
    return found


def told(path: Path, asked: str = "orders") -> dict[str, Any]:
    """What the process behind this socket says."""
    with connected(path) as sock:
        sock.sendall(asked.encode() + b"\n")
        found: dict[str, Any] = json.loads(received(sock))
    return found


def only(home: Path) -> Path:
    """The one socket there is."""
    (found,) = home.iterdir()
    return found


@contextmanager
def program(code: str, home: Path, *arguments: str, until: str = "ready") -> Iterator[subprocess.Popen[str]]:
    """A Python program that is open to inspection, once it has said that it is ready. Ended with its input."""
    running = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "ECS_DISCOVERY_INSPECT": str(home), "PYTHONPATH": str(ROOT)},
    )
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        assert running.stdout.readline().strip() == until
        yield running
    finally:
        running.stdin.close()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(20)
        running.stdout.close()
