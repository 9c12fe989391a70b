"""What a task says to a request: its path chooses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Identity", "Reply", "Request", "reply_to"]

Headers = tuple[tuple[str, str], ...]

_KIB = 1024
_BLOCK = 64 * _KIB
_STREAM_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class Request:
    """A request, read to its end."""

    method: str
    target: str
    headers: Headers
    body: bytes

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header; `name` in lower case."""
        return next((value for key, value in self.headers if key == name), default)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how it is sent. With `blocks` the body is what they yield, sent block by block."""

    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    blocks: Callable[[], Iterator[bytes]] | None = None
    length: int | None = None
    """The length of all blocks; None: unknown, so that the answer is chunked."""
    pause: float = 0.0
    """Seconds between two blocks."""
    after: float = 0.0
    """Seconds to wait before the first byte."""
    cut_after: int | None = None
    """Reset the connection after that many bytes, head included."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers."""

    task: str
    address: str
    port: int


def reply_to(request: Request, who: Identity) -> Reply:
    """The answer of a healthy task.

    `/status/503`, `/slow/2.5`, `/redirect?to=URL&status=302`, `/cookie/name/value`, `/stream/N`, `/bytes/N` and `/echo`
    do what they say. `/keep-alive/N` sends the header with that timeout. Any other path answers with what was asked, as
    JSON. A path that makes no sense gets a 400."""
    url = urlsplit(request.target)
    parts = [unquote(part) for part in url.path.split("/")[1:]]
    try:
        match parts:
            case ["status", code] if 200 <= int(code) <= 599:
                return _described(request, who, status=int(code))
            case ["slow", seconds] if float(seconds) >= 0:
                return _described(request, who, after=float(seconds))
            case ["redirect"]:
                query = parse_qs(url.query)
                status = int(query.get("status", ["302"])[0])
                return _described(request, who, status=status, headers=(("Location", query["to"][0]),))
            case ["cookie", name, value]:
                return _described(request, who, headers=(("Set-Cookie", f"{name}={value}; Path=/"),))
            case ["keep-alive", seconds] if int(seconds) >= 0:
                return _described(request, who, headers=(("Keep-Alive", f"timeout={seconds}, max=100"),))
            case ["stream", count] if int(count) >= 0:
                return Reply(headers=_headers(who), blocks=_stream(int(count)), pause=_STREAM_PAUSE)
            case ["bytes", count] if int(count) >= 0:
                return Reply(headers=_headers(who), blocks=_bytes(int(count)), length=int(count))
            case ["echo"]:
                kind = request.header("content-type", "application/octet-stream")
                return Reply(headers=_headers(who, kind), body=request.body)
            case ["status" | "slow" | "cookie" | "keep-alive" | "stream" | "bytes", *_]:
                return _described(request, who, status=400)
    except (ValueError, KeyError):
        return _described(request, who, status=400)
    return _described(request, who)


def _headers(who: Identity, kind: str = "application/octet-stream") -> Headers:
    return (("X-Task", who.task), ("Content-Type", kind))


def _described(request: Request, who: Identity, status: int = 200, headers: Headers = (), after: float = 0.0) -> Reply:
    facts = {
        "task": who.task,
        "address": who.address,
        "port": who.port,
        "method": request.method,
        "path": request.target,
        "host": request.header("host"),
        "body_length": len(request.body),
        "headers": dict(request.headers),
    }
    body = json.dumps(facts).encode()
    return Reply(status, (*_headers(who, "application/json"), *headers), body, after=after)


def _stream(count: int) -> Callable[[], Iterator[bytes]]:
    return lambda: (bytes([65 + i % 26]) * _KIB for i in range(count))


def _bytes(count: int) -> Callable[[], Iterator[bytes]]:
    return lambda: (b"x" * min(_BLOCK, count - start) for start in range(0, count, _BLOCK))
