"""`getaddrinfo` of the system, as a peer of lookups. It asks the servers of `/etc/resolv.conf`, on port 53.

So a process of its own sees another such file, by a mount namespace (Linux, with the right to make one). The name
server listens on port 53 of a loopback address that nothing else uses.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["ADDRESS", "SystemResolver", "reason_against"]

ADDRESS = "127.77.53.1"
_FAMILIES = {("a",): socket.AF_INET, ("a", "aaaa"): socket.AF_UNSPEC}
_MOUNT = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
_PROGRAM = """
import socket, sys, time
for line in sys.stdin:
    name, family = line.split()
    began = time.perf_counter()
    socket.getaddrinfo(name, 80, int(family), socket.SOCK_STREAM)
    print(time.perf_counter() - began, flush=True)
"""


def reason_against() -> str:
    """Why it cannot be measured here; empty if it can."""
    if shutil.which("unshare") is None:
        return "unshare is not installed (Debian's package util-linux)"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((ADDRESS, 53))
    except OSError as error:
        return f"port 53 of {ADDRESS} is not to be had: {error.strerror}"
    tried = subprocess.run(_in_a_namespace("/etc/hosts", "true"), capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no mount namespace: {tried.stderr.strip()}"
    # A cache daemon, or another source of names, would answer in place of the benchmark's server.
    lines = Path("/etc/nsswitch.conf").read_text().splitlines()
    other = {word for line in lines if line.startswith("hosts:") for word in line.split()[1:]} - {"files", "dns"}
    if other or Path("/run/nscd/socket").exists():
        return f"names come from elsewhere too: {', '.join(sorted(other)) or 'nscd'}"
    return ""


def _in_a_namespace(file: str, *command: str) -> list[str]:
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT, file, *command]


class SystemResolver:
    """A process whose `getaddrinfo` asks the server at `ADDRESS`."""

    def __init__(self, directory: Path) -> None:
        file = directory / "resolv.conf"
        file.write_text(f"nameserver {ADDRESS}\n")
        self._process = subprocess.Popen(
            _in_a_namespace(str(file), sys.executable, "-Ic", _PROGRAM),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def can_ask(self, families: tuple[str, ...], kinds: set[str]) -> bool:
        """Has it a way to ask these questions? It has none for SRV."""
        return families in _FAMILIES and "SRV" not in kinds

    def seconds(self, name: str, families: tuple[str, ...]) -> float:
        """The time of one lookup."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {_FAMILIES[families].value}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())
