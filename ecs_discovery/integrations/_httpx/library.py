"""httpx or httpx2: the modules of one of them, and what its exceptions say of a request."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib.util import find_spec
from ssl import SSLCertVerificationError, SSLEOFError, SSLError, SSLZeroReturnError
from typing import Any

from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.integrations._libraries import served_by
from ecs_discovery.integrations.http.failure_table import FailureTable, Row, by_the_kernel, of_this_side
from ecs_discovery.integrations.http.liveness import PeerSilentError, PeerUncertainError

__all__ = [
    "Library",
    "SharedConnectionError",
    "check_library",
    "is_installed",
    "library",
    "library_of",
    "not_a_client",
]

_CORES = {"httpx": "httpcore", "httpx2": "httpcore2"}
_REFUSED_STREAM = 7  # RFC 9113, section 7
_CUT = "peer closed connection"  # how h11 says that a body is not complete
_ENDED = "Server disconnected"


class SharedConnectionError(ConnectionError):
    """The connection was broken by the end of another request on it (HTTP/2)."""


class Library:
    """One of the two. `client` is its module, `core` the module of its connections."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client: Any = importlib.import_module(name)
        self.core: Any = importlib.import_module(_CORES[name])
        self.table = _table(self.client, self.core)

    def __repr__(self) -> str:
        return f"<Library {self.name}>"


@cache
def library(name: str) -> Library:
    """The library of that name. Raises `ImportError` where it is not installed."""
    return Library(name)


def is_installed() -> bool:
    """Is there one of the two, imported or not?"""
    for name in _CORES:
        if sys.modules.get(name) is not None or (name not in sys.modules and find_spec(name) is not None):
            return True
    return False


def library_of(thing: object) -> Library | None:
    """The library that an object's class comes from; None if it is of neither."""
    # By the class: httpx2 can put itself in the place of httpx in `sys.modules`.
    for each in type(thing).__mro__:
        name = each.__module__.partition(".")[0]
        if name in _CORES:
            return library(name)
    return None


def _refused_stream(error: BaseException) -> bool:
    """HTTP/2: the server says that it has not looked at the request."""
    return any(getattr(each, "error_code", None) == _REFUSED_STREAM for each in error.args)


def _cut(error: BaseException) -> bool:
    return str(error).startswith(_CUT)


def _ended(error: BaseException) -> bool:
    return str(error).startswith(_ENDED) or any(not isinstance(each, str) for each in error.args)


def _table(client: Any, core: Any) -> FailureTable:
    wrong = (client.LocalProtocolError, client.UnsupportedProtocol)
    return FailureTable(
        unsent=(
            Row(Fault.NOT_OURS, wrong),
            Row(Fault.OWN, (client.PoolTimeout, SharedConnectionError)),
            Row(Fault.OWN, (OSError,), of_this_side),
            Row(Fault.CERTIFICATE, (SSLCertVerificationError,)),
            Row(Fault.CONNECT, (SSLEOFError, SSLZeroReturnError, ConnectionError)),
            Row(Fault.TLS, (SSLError,)),
            Row(Fault.CONNECT_TIMEOUT, (client.TimeoutException, TimeoutError)),
            Row(Fault.CONNECT, (client.NetworkError, client.RemoteProtocolError, OSError)),
        ),
        sent=(
            Row(Fault.NOT_OURS, wrong),
            Row(Fault.CLOSED, (SharedConnectionError,)),
            Row(Fault.REFUSED_STREAM, (core.RemoteProtocolError,), _refused_stream),
            Row(Fault.SILENT, (OSError,), by_the_kernel),
            Row(Fault.DOUBTED, (PeerUncertainError,)),
            Row(Fault.SILENT, (PeerSilentError,)),  # before the timeout that asyncio ends the wait with
            Row(Fault.READ_TIMEOUT, (client.TimeoutException, TimeoutError)),
            Row(Fault.CUT, (client.RemoteProtocolError,), _cut),
            Row(Fault.CLOSED, (core.RemoteProtocolError,), _ended),
            Row(Fault.CLOSED, (client.NetworkError, ConnectionError)),
            Row(Fault.BAD_ANSWER, (client.RemoteProtocolError,)),
        ),
    )


def check_library(client: object) -> Library:
    """The library of a client. Raises `ConfigurationError` if it is of neither."""
    found = library_of(client)
    if found is None:
        raise not_a_client(client)
    return found


def not_a_client(thing: object) -> ConfigurationError:
    """The error for what is no client of the two libraries."""
    return ConfigurationError(
        "client", thing, f"a Client or AsyncClient of httpx or httpx2; {served_by(thing, 'wrap_client')}"
    )
