"""Short bodies are read within their attempt, so that a body cut short is repeated: how short, and for how long."""

from __future__ import annotations

__all__ = ["PATIENCE", "SHORT", "arrived"]

SHORT = 65_536
"""Bytes of a body that is waited for within its attempt."""
PATIENCE = 0.5
"""Seconds that it is waited for. A server may send it much later, or when the caller has acted on the head."""
_END_OF_HEAD = b"\r\n\r\n"


def arrived(last: bytes) -> int | None:
    """Bytes of the body in the bytes with which the head of an answer ended (HTTP/1.1); None where that is unknown."""
    end = last.find(_END_OF_HEAD)
    return len(last) - end - len(_END_OF_HEAD) if end >= 0 else None
