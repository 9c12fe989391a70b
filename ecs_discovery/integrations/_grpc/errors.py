"""Errors of RPCs: ours, and gRPC's own class with status, details and metadata."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from grpc.aio import AioRpcError, Metadata

from ecs_discovery.client.errors import hint_of
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import FailureKind
from ecs_discovery.errors import (
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    Overloaded,
    RequestError,
    combined,
)
from ecs_discovery.integrations.http.errors import as_class

__all__ = ["AsyncCallError", "CallError", "Status", "async_error", "status_of", "sync_error"]


class Status(NamedTuple):
    """How an RPC ended, as gRPC tells it."""

    code: grpc.StatusCode
    details: str
    initial_metadata: Any = ()
    trailing_metadata: Any = ()
    debug: str = ""

    def __reduce__(self) -> Any:
        initial, trailing = map(_picklable, (self.initial_metadata, self.trailing_metadata))
        return Status, (self.code, self.details, initial, trailing, self.debug)


def _picklable(metadata: Any) -> Any:
    """The pairs of gRPC's threads are of a class that pickle does not find."""
    return tuple((key, value) for key, value in metadata) if isinstance(metadata, tuple) else metadata


def status_of(error: BaseException) -> Status:
    """What an error of gRPC's says; of another, what it would be to gRPC."""
    if isinstance(error, grpc.RpcError):
        told: Any = error
        # The method waits for what never comes where this side ended the RPC; the state has it at once.
        state = getattr(told, "_state", None)
        debug = getattr(told, "debug_error_string", None) if state is None else (lambda: state.debug_error_string)
        initial = getattr(told, "initial_metadata", None)
        return Status(
            told.code() or grpc.StatusCode.UNKNOWN,
            told.details() or "",
            initial() if initial is not None else (),
            told.trailing_metadata(),
            (debug() or "") if debug is not None else "",
        )
    code = grpc.StatusCode.UNAVAILABLE
    if isinstance(error, DeadlineExceeded):
        code = grpc.StatusCode.DEADLINE_EXCEEDED
    elif isinstance(error, Overloaded):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return Status(code, error.message if isinstance(error, DiscoveryError) else str(error))


class _Told(grpc.RpcError):
    """`status` is gRPC's own; `message` and the text are ours."""

    status: Status

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def code(self) -> grpc.StatusCode:
        return self.status.code

    def details(self) -> str:
        return self.status.details

    def initial_metadata(self) -> Any:
        return self.status.initial_metadata

    def trailing_metadata(self) -> Any:
        return self.status.trailing_metadata

    def debug_error_string(self) -> str:
        return self.status.debug


class CallError(_Told, grpc.Call, grpc.Future):  # type: ignore[type-arg]  # it is not generic when the program runs
    """A failed RPC as gRPC's threads know it: an error that is the RPC, and its future, as well."""

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        raise self

    def exception(self, timeout: float | None = None) -> Exception:
        return self

    def traceback(self, timeout: float | None = None) -> Any:
        return self.__traceback__

    def add_callback(self, callback: Any) -> bool:
        return False

    def add_done_callback(self, fn: Any) -> None:
        fn(self)


class AsyncCallError(_Told, AioRpcError):
    """A failed RPC as `grpc.aio` knows it."""

    def initial_metadata(self) -> Any:
        return self.status.initial_metadata or Metadata()

    def trailing_metadata(self) -> Any:
        return self.status.trailing_metadata or Metadata()


def sync_error(error: Exception, call: Call | None) -> Exception:
    """The error for the caller of an RPC that failed in this way."""
    return _error(error, call, CallError)


def async_error(error: Exception, call: Call | None) -> Exception:
    """The same for asyncio."""
    return _error(error, call, AsyncCallError)


def _error(error: Exception, call: Call | None, theirs: type[_Told]) -> Exception:
    if isinstance(error, _Told):
        return error
    if isinstance(error, DiscoveryError):
        if isinstance(error, ValueError):
            return error  # bad input
        made = as_class(error, theirs)
        made.status = status_of(error)  # type: ignore[attr-defined]
        return made
    if not isinstance(error, grpc.RpcError) or call is None or not call.reports:
        return error  # of the application's, or a status that is an answer like any other
    status, last = status_of(error), call.reports[-1]
    ours: type[DiscoveryError] = RequestError
    if status.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        ours = DeadlineExceeded
    elif call.failure is FailureKind.NOT_SENT:
        ours = ConnectTimeout if last.outcome == "connect timeout" else ConnectError
    made = combined(ours, theirs)(
        f"failed after {call.number} attempt{'s' if call.number > 1 else ''}: {last.error}",
        target=call.target,
        attempts=call.reports,
        hint=hint_of(call),
        status=status,
    )
    made.__cause__ = error
    error.__traceback__ = None  # the frames of an attempt hold all that it held
    return made
