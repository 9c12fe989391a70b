"""Bodies that are read before the caller reads them, and put back as if they were not."""

from __future__ import annotations

from io import BytesIO

from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

__all__ = ["ReadBody", "put_back", "read_whole"]

_PIECE = 1 << 20  # bytes of a body read at once


class ReadBody:
    """The body of an answer that was read already, as the source of a response that looks unread.

    It ends as the connection's own file does, with the `error` that cut it short if there was one.
    """

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        self._data = BytesIO(data)
        self._left = len(data)
        self._error = error

    @property
    def fp(self) -> BytesIO | None:
        """None once all was read, like http.client's."""
        return None if self.isclosed() else self._data

    @property
    def closed(self) -> bool:
        """Has all been read?"""
        return self.isclosed()

    def isclosed(self) -> bool:
        """Has all been read?"""
        return not self._left and self._error is None

    def read(self, amt: int | None = None) -> bytes:
        """The next bytes, all that are left without a number. Raises the error where the body broke off."""
        data = self._data.read(amt)
        self._left -= len(data)
        if self._error is not None and (amt is None or not data):
            error, self._error = self._error, None
            raise error
        return data

    read1 = read

    def close(self) -> None:
        """Let go of what was not read."""
        self._data, self._left, self._error = BytesIO(), 0, None

    def flush(self) -> None:
        """There is nothing to write."""


def read_whole(response: HTTPResponse, *, keep_error: bool = False) -> bytes | None:
    """The body of a response as it came. The response's connection is free then, and the response has been read.

    Raises urllib3's error for a body cut short. With `keep_error` that is put back for the next reader, and the
    result is None.
    """
    pieces: list[bytes] = []
    try:
        while piece := response.read(_PIECE, decode_content=False):
            pieces.append(piece)
            if response.length_remaining == 0 and response.connection is None:
                break
    except HTTPError as broken:
        if not keep_error:
            raise
        put_back(response, b"".join(pieces), broken)
        return None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def put_back(response: HTTPResponse, data: bytes, error: Exception | None = None) -> None:
    """Leave a response that was read as if it had not been: with this body, and the error that ends it."""
    # urllib3 has no way to say this. What is set here is what reading has changed.
    response._fp = ReadBody(data, error)  # type: ignore[assignment]
    response._fp_bytes_read = 0
    response.chunked = False
    if response.length_remaining is not None:
        response.length_remaining = len(data)
