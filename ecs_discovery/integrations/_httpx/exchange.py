"""One request of an httpx client: what is httpx's own of an exchange, the same for threads and asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.errors import (
    ConfigurationError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    ResolutionTimeout,
)
from ecs_discovery.integrations._httpx.library import Library, SharedConnectionError
from ecs_discovery.integrations.http.errors import as_class, of_call
from ecs_discovery.integrations.http.exchange import add_fields
from ecs_discovery.integrations.http.short_bodies import SHORT, TAIL, arrived
from ecs_discovery.runtime.sockets import Tuning

__all__ = ["UPGRADED", "Connected", "HttpxPart", "class_of", "tuning_of"]

UPGRADED = 101
"""The status of an answer after which the connection speaks another protocol."""


_CONTENT_LENGTH = b"content-length"
_LENGTH_OF_NAME = len(_CONTENT_LENGTH)


class Connected(Protocol):
    """What an attempt's use knows of its connection."""

    stream: Any
    connect_by: float
    done: bool


class HttpxPart:
    """What threads and asyncio share of an exchange."""

    __slots__ = ()

    library: Library
    method: str
    request: Any
    sni: str | None
    verified: bool
    last_fault: Fault | None

    # The body

    def replayable(self) -> bool:
        stream = self.request.stream
        return isinstance(stream, self.library.client.ByteStream) or _rewinds(stream)

    def concurrent(self) -> bool:
        return isinstance(self.request.stream, self.library.client.ByteStream)  # two attempts would read one file

    def has_key(self) -> bool:
        return "Idempotency-Key" in self.request.headers

    # The answer

    def url(self) -> str:
        return str(self.request.url)

    def carry(self, fields: Mapping[str, str], added: set[str], use: Any) -> None:
        if fields:
            use.fields = fields

    def request_of(self, use: Any) -> Any:
        """The request as this use sends it. Another attempt may be in flight: each that has fields has its own copy."""
        request = self.request
        if use.fields is not None:
            kind: Any = type(request)
            made = kind.__new__(kind)  # `copy` leaves out the body, which pickle cannot take
            made.__dict__.update(request.__dict__)
            made.headers = request.headers.copy()
            add_fields(use.fields, made.headers, set())
            return made
        return request

    def status(self, response: Any) -> int:
        return response.status_code  # type: ignore[no-any-return]

    def field(self, response: Any, name: str) -> str | None:
        return response.headers.get(name)  # type: ignore[no-any-return]

    def short_length(self, response: Any) -> int | None:
        """The length of a body that is to be read within the attempt; None for any other."""
        if response.status_code == UPGRADED:
            return None  # what follows is another protocol, whatever its head says of a body
        length = None
        for name, value in response.headers.raw:  # to ask for the field by its name takes twice as long
            if len(name) == _LENGTH_OF_NAME and name.lower() == _CONTENT_LENGTH:
                if length is not None or len(value) > 5 or not value.isdigit() or int(value) > SHORT:
                    return None
                length = int(value)
        return length

    def missing(self, response: Any, length: int, use: Connected) -> int:
        """How much of a body of that length has yet to come, as far as that can be told."""
        stream = use.stream
        if stream is None or stream.multiplexed or self.method == "HEAD" or response.status_code in (204, 304):
            return 0
        last = stream.before[-TAIL:] + stream.last
        stream.before = stream.last = b""
        found = arrived(last, length)
        return 0 if found is None else length - found

    # Errors

    def is_of_connection(self, error: Exception) -> bool:
        client = self.library.client
        if isinstance(error, (client.LocalProtocolError, client.UnsupportedProtocol)):
            return False  # the request itself is wrong
        return isinstance(error, (client.TransportError, OSError))

    def is_counted(self, use: Connected) -> bool:
        """Did another request on the same connection count its end against the endpoint?"""
        stream = use.stream
        if stream is None or stream.broken_by is None:
            return False
        counted: bool = stream.counted
        stream.counted = True
        return counted

    def broken_by_another(self, error: Exception, use: Connected) -> Exception | None:
        """The error of an attempt whose connection another request on it broke (HTTP/2); None for any other."""
        client, stream = self.library.client, use.stream
        if not isinstance(error, (client.NetworkError, client.ReadTimeout, client.RemoteProtocolError)):
            return None
        if stream is None:
            if use.connect_by:
                return None  # the connection was opened for this request
        elif stream.broken_by is None or stream.broken_by is use:
            return None
        made: Exception = client.ReadError("the connection ended with another request on it")
        made.__cause__ = SharedConnectionError(str(error))
        return made

    def as_error(self, told: DiscoveryError | Call, error: Exception, use: Any) -> Exception:
        client = self.library.client
        made: Any
        if isinstance(told, DiscoveryError):
            made = as_class(told, class_of(client, told))
        else:
            theirs = type(error) if isinstance(error, client.TransportError) else client.ReadError
            made = of_call(told, self.last_fault, theirs, timed_out=isinstance(error, client.ConnectTimeout))
            made.__cause__ = error
        made._request = self.request
        return made  # type: ignore[no-any-return]


def class_of(client: Any, told: DiscoveryError) -> type[Exception]:
    """The library's class of an error of ours."""
    found: type[Exception] = client.ConnectError
    if isinstance(told, ConfigurationError):
        found = client.InvalidURL
    elif isinstance(told, DeadlineExceeded):
        found = client.ReadTimeout
    elif isinstance(told, (ResolutionTimeout, ConnectTimeout)):
        found = client.ConnectTimeout
    return found


def tuning_of(local_address: str | None, options: Any) -> Tuning | None:
    """What the application wants of its sockets; None if that is nothing."""
    if local_address is None and options is None:
        return None
    source = (local_address, 0) if local_address is not None else None
    return Tuning(source, tuple(options or ()))


def _rewinds(stream: Any) -> bool:
    """A multipart body reads its files from their start each time, if they can be."""
    fields = getattr(stream, "fields", None)
    if type(stream).__name__ != "MultipartStream" or not isinstance(fields, list):
        return False
    files = [each.file for each in fields if hasattr(each, "file")]
    return all(isinstance(each, (str, bytes)) or _can_seek(each) for each in files)


def _can_seek(file: Any) -> bool:
    seekable = getattr(file, "seekable", None)
    try:
        return bool(seekable()) if callable(seekable) else False
    except (OSError, ValueError):
        return False
