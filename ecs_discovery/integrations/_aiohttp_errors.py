"""The errors of an aiohttp session that discovers: ours, and aiohttp's own class at once."""

from __future__ import annotations

from aiohttp import (
    ClientConnectionError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientRequest,
    ConnectionTimeoutError,
    InvalidURL,
    ServerTimeoutError,
    SocketTimeoutError,
)

from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.errors import (
    ClosedError,
    ConfigurationError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    ResolutionError,
    ResolutionTimeout,
)
from ecs_discovery.integrations.http.errors import as_class, of_call

__all__ = ["as_aiohttp_error", "out_of_time"]


def as_aiohttp_error(
    told: DiscoveryError | Call, request: ClientRequest, error: Exception, fault: Fault | None
) -> Exception:
    """What a session raises: an error of ours, or of a call of which `error` was the last, as aiohttp's own class."""
    if isinstance(told, DiscoveryError):
        made = as_class(told, _class_of(told))
        error = told
    elif fault is Fault.NOT_OURS:
        return error  # a body that the application could not give, or its own closing of the connector
    elif fault is Fault.OUT_OF_TIME:
        return out_of_time(told, error)
    else:
        made = of_call(told, fault, _class_in(fault, error), timed_out=fault is Fault.CONNECT_TIMEOUT)
        made.__cause__ = error
        for name, value in vars(error).items():  # what aiohttp's class has besides: status, headers, os_error
            made.__dict__.setdefault(name, value)
    if isinstance(made, OSError) and isinstance(error, OSError):
        made.errno, made.strerror = error.errno, error.strerror
    if isinstance(made, ClientConnectorError):
        key, cause = request.connection_key, error if isinstance(error, OSError) else OSError(None, str(error))
        made.__dict__.setdefault("_conn_key", key)
        made.__dict__.setdefault("_os_error", cause)
    elif isinstance(made, InvalidURL):
        made.__dict__.update(_url=request.url, _description=str(error))
    return made


def out_of_time(call: Call, error: BaseException | None) -> DeadlineExceeded:
    """The error of a request that ran into the session's own limit for all of it. aiohttp has no class for that."""
    made = DeadlineExceeded("not done within the total of its ClientTimeout", target=call.target, attempts=call.reports)
    made.__cause__ = error
    return made


def _class_in(fault: Fault | None, error: Exception) -> type[BaseException]:
    if fault is Fault.CONNECT_TIMEOUT:
        return ConnectionTimeoutError
    if fault is Fault.READ_TIMEOUT:
        return SocketTimeoutError
    if isinstance(error, ClientError):
        return type(error)
    return ClientOSError if isinstance(error, OSError) else ClientConnectionError


def _class_of(told: DiscoveryError) -> type[BaseException]:
    if isinstance(told, ConfigurationError):
        return InvalidURL
    if isinstance(told, DeadlineExceeded):
        return ServerTimeoutError
    if isinstance(told, (ResolutionTimeout, ConnectTimeout)):
        return ConnectionTimeoutError
    if isinstance(told, ClosedError):
        return ClientConnectionError
    return ClientConnectorDNSError if isinstance(told, ResolutionError) else ClientConnectorError
