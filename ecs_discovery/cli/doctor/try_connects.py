"""Connects to endpoints, many at once: what the kernel says of each. Nothing is sent, but for one request if asked."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from errno import EAFNOSUPPORT, ENETUNREACH

from ecs_discovery.errors import foreign
from ecs_discovery.models import Endpoint
from ecs_discovery.runtime.sockets import ConnectResult, finish_connect, sign_of, start_connect

__all__ = ["Outcome", "keep_alive_of", "try_all"]

_WINDOW = 48
_HEAD = 16_384  # bytes of an answer's head
_KEEP_ALIVE = re.compile(rb"\r\nkeep-alive:[^\r\n]*?timeout\s*=\s*([0-9]{1,6})", re.IGNORECASE)

Outcome = tuple[ConnectResult, str, float]
"""What it says of the endpoint, the kernel's words, and how long it took in seconds."""


def try_all(
    endpoints: Iterable[Endpoint], timeout: float, deadline_at: float, *, clock: Callable[[], float] = time.monotonic
) -> dict[Endpoint, Outcome]:
    """Connect to each, `timeout` seconds at most. What had no time is left out."""
    waiting, done = deque(dict.fromkeys(endpoints)), dict[Endpoint, Outcome]()
    running: dict[socket.socket, tuple[Endpoint, float]] = {}

    def end(sock: socket.socket, error: OSError | None) -> None:
        endpoint, began = running.pop(sock)
        selector.unregister(sock)
        sock.close()
        done[endpoint] = (_sign(error), foreign(error) if error else "", round(clock() - began, 4))

    with selectors.DefaultSelector() as selector:
        while (waiting or running) and clock() < deadline_at:
            while waiting and len(running) < _WINDOW:
                endpoint = waiting.popleft()
                try:
                    sock = start_connect(endpoint)
                except OSError as error:
                    done[endpoint] = (_sign(error), foreign(error), 0.0)
                    continue
                running[sock] = (endpoint, clock())
                selector.register(sock, selectors.EVENT_WRITE)
            if not running:
                break  # none could be begun
            due = min(began + timeout for _, began in running.values())
            for key, _ in selector.select(max(0.0, min(due, deadline_at) - clock())):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                try:
                    finish_connect(ready)
                except OSError as failure:
                    end(ready, failure)
                else:
                    end(ready, None)
            for late in [sock for sock, (_, began) in running.items() if clock() >= began + timeout]:
                end(late, TimeoutError("timed out"))
        for sock in list(running):
            end(sock, TimeoutError("timed out"))
    return done


def _sign(error: OSError | None) -> ConnectResult:
    # Without a route to any host of the family nothing was sent: that says nothing of this host.
    if error is not None and error.errno in (ENETUNREACH, EAFNOSUPPORT):
        return ConnectResult.INCONCLUSIVE
    return sign_of(error)


def keep_alive_of(
    endpoint: Endpoint, host: str, path: str, deadline_at: float, *, clock: Callable[[], float] = time.monotonic
) -> float | None:
    """How long the server keeps an idle connection, as its answer to one GET says; None if it does not say."""
    head = bytearray()
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"
    try:
        with socket.create_connection((endpoint.host, endpoint.port), max(0.01, deadline_at - clock())) as sock:
            sock.sendall(request.encode("ascii"))
            while b"\r\n\r\n" not in head and len(head) < _HEAD:
                sock.settimeout(max(0.01, deadline_at - clock()))
                part = sock.recv(_HEAD)
                if not part or clock() >= deadline_at:
                    break
                head += part
    except (OSError, ValueError):
        return None
    found = _KEEP_ALIVE.search(bytes(head.partition(b"\r\n\r\n")[0]))
    return float(found[1]) if found else None
