"""The kinds of failure of an attempt: what each says about repeating the call."""

from __future__ import annotations

from enum import Enum

__all__ = ["NOT_REPEATED", "Failure"]

NOT_REPEATED = "this kind of failure is not retried"


class Failure(Enum):
    """What an attempt's failure says about repeating it."""

    NOT_SENT = "connect"
    """Nothing of the request was sent: any request may go elsewhere."""
    CLOSED = "closed"
    """The connection ended, or the peer's kernel fell silent, before a byte of the answer."""
    STATUS = "status"
    """An answer that asks to try again (429, 502, 503, 504)."""
    OTHER = "error"
    """Anything else: it may have been processed, or trying again would not help."""
