"""Short bodies are read within their attempt, so that a body cut short is repeated: how short, and for how long."""

from __future__ import annotations

__all__ = ["PATIENCE", "SHORT", "TAIL", "arrived"]

SHORT = 65_536
"""Bytes of a body that is waited for within its attempt."""
PATIENCE = 0.5
"""Seconds that it is waited for. A server may send it much later, or when the caller has acted on the head."""
_END_OF_HEAD = b"\r\n\r\n"
_INTERIM = b"HTTP/1.1 1"
TAIL = len(_END_OF_HEAD) - 1
"""Bytes of an earlier read in which the end of a head may have begun."""


def arrived(last: bytes, length: int) -> int | None:
    """Bytes of a body of `length` in the bytes with which the head of an answer ended (HTTP/1.1); None where that is
    unknown. Interim answers (103) may stand before the head."""
    start = 0
    while (end := last.find(_END_OF_HEAD, start)) >= 0:
        found = len(last) - end - len(_END_OF_HEAD)
        if found <= length and not last.startswith(_INTERIM, start):
            return found
        start = end + len(_END_OF_HEAD)
    return None
