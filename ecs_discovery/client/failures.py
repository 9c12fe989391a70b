"""Failures: what an attempt's result or exception says of its endpoint, and of trying again."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from traceback import clear_frames
from typing import Any

from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.failure_kinds import GOOD, FailureKind, Judgement
from ecs_discovery.errors import DiscoveryError, NotSent
from ecs_discovery.runtime.sockets import is_ours

__all__ = ["causes", "failure_of", "forget", "judge_connect", "judge_exception"]


_CHAIN = 32  # causes looked at


def causes(error: BaseException, handled: BaseException | None = None) -> list[BaseException]:
    """The exception and all that led to it, nearest first: causes, contexts, and urllib3's reasons.

    Suppressed contexts too: a library that raises `from None` hides from people what decides here. Nothing from
    `handled` on: what the caller was handling when it called did not lead to this.
    """
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < _CHAIN:
        current = waiting.pop(0)
        if current is handled or any(current is each for each in found):
            continue
        found.append(current)
        deeper = (current.__cause__, current.__context__, getattr(current, "reason", None))
        waiting.extend(each for each in deeper if isinstance(each, BaseException))
    return found


def forget(error: BaseException) -> None:
    """Have an exception that no caller will see keep nothing.

    Libraries keep exceptions in the frames that these came through (urllib3 does), and with them all that a request
    holds, until the garbage collector comes.
    """
    for cause in causes(error):
        clear_frames(cause.__traceback__)


# What client libraries raise, by module and class, so that none of them is imported. A subclass that is not named
# itself counts as its nearest base that is.
_NEVER_SENT = frozenset(
    {
        "builtins.ConnectionRefusedError",
        "aiohttp.ClientConnectorError",
        "aiohttp.ConnectionTimeoutError",
        "httpcore.ConnectError",
        "httpcore.ConnectTimeout",
        "httpcore.PoolTimeout",
        "httpx.ConnectError",
        "httpx.ConnectTimeout",
        "httpx.PoolTimeout",
        "psycopg.ConnectionTimeout",
        "requests.ConnectTimeout",
        "urllib3.ConnectTimeoutError",
        "urllib3.NewConnectionError",
    }
)
_CUT = frozenset(  # something may have been sent before, whatever else stands in the chain
    {
        "builtins.BrokenPipeError",
        "builtins.ConnectionAbortedError",
        "builtins.ConnectionResetError",
        "builtins.EOFError",
        "http.HTTPException",
        "aiohttp.ClientPayloadError",
        "aiohttp.ServerDisconnectedError",
        "aiohttp.SocketTimeoutError",
        "asyncpg.AdminShutdownError",
        "asyncpg.CrashShutdownError",
        "asyncpg.PostgresConnectionError",
        "httpcore.NetworkError",
        "httpcore.ProtocolError",
        "httpcore.ReadTimeout",
        "httpcore.WriteTimeout",
        "httpx.NetworkError",
        "httpx.ReadTimeout",
        "httpx.RemoteProtocolError",
        "httpx.WriteTimeout",
        "requests.ChunkedEncodingError",
        "requests.ReadTimeout",
        "urllib3.ReadTimeoutError",
    }
)
_REFUSED = frozenset({"asyncpg.CannotConnectNowError", "asyncpg.TooManyConnectionsError"})
"""The server itself takes no connection now: it starts, ends, or is full. Another may take it."""
_NOT_OURS = frozenset(
    {
        "psycopg_pool.PoolClosed",
        "psycopg_pool.PoolTimeout",
        "psycopg_pool.TooManyRequests",
        "redis.AuthenticationError",
        "redis.AuthorizationError",
        "redis.MaxConnectionsError",
    }
)
"""No other endpoint would do better, whatever class of error these are."""
_REFUSING_STATES = ("57P03", "53300")
_REFUSING_TEXTS = (  # a pattern; compiled when it is used, which is seldom
    # What PostgreSQL says with these states, unless it speaks another language than English: libpq hands on no state.
    r"the database system is (starting up|shutting down|in recovery mode|not (yet )?accepting connections)"
    r"|too many (clients|connections)|remaining connection slots are reserved"
)
_SEVERITY = ":  "
"""What libpq writes between the severity and the text of what a server said, and nowhere else."""
_BROKEN = frozenset({"builtins.OSError", "redis.ConnectionError", "redis.TimeoutError"})
"""The connection failed, and the class does not say when."""


def failure_of(error: BaseException, handled: BaseException | None = None) -> FailureKind:
    """The class of a failure, read off an exception of any library: all that led to it is looked at.

    Of a connection that was refused, by the kernel or by a database, nothing was sent. Another broken connection, an
    early end of the stream and a time-out may be repeated if the call is idempotent. Anything else is not ours to
    repeat. What the caller was handling when the call began (`handled`) led to nothing.
    """
    chain = causes(error, handled)
    if any(isinstance(cause, NotSent) for cause in chain):
        return FailureKind.NOT_SENT
    if any(isinstance(cause, DiscoveryError) for cause in chain):
        return FailureKind.OTHER  # of another call of ours, which has had its retries
    found = {_kind(cause) for cause in chain}
    for kind in (_CUT, _NEVER_SENT, _REFUSED, _BROKEN):
        if kind in found:
            return FailureKind.NOT_SENT if kind in (_NEVER_SENT, _REFUSED) else FailureKind.CLOSED
    return FailureKind.OTHER


def _kind(error: BaseException) -> frozenset[str] | None:
    for each in type(error).__mro__:
        name = f"{each.__module__.partition('.')[0]}.{each.__name__}"
        if name == "grpc.RpcError":
            return _kind_of_grpc(error)
        if name in _NOT_OURS:
            return None
        if name == "psycopg.OperationalError":
            return _kind_of_psycopg(error)
        for kind in (_NEVER_SENT, _CUT, _REFUSED, _BROKEN):
            if name in kind:
                return kind
    return None


def _kind_of_grpc(error: Any) -> frozenset[str] | None:
    """gRPC has one class for all errors: its status tells, and its text where that is not enough."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    status = getattr(code() if callable(code) else None, "name", "")
    if status == "UNAVAILABLE":
        text = str(details() if callable(details) else "")
        return _NEVER_SENT if "failed to connect" in text.lower() else _CUT
    return _CUT if status == "DEADLINE_EXCEEDED" else None


def _kind_of_psycopg(error: Any) -> frozenset[str] | None:
    """psycopg's errors carry the connection if an attempt to connect failed, and a state if an open one did."""
    state, connection = getattr(error, "sqlstate", None), getattr(error, "pgconn", None)
    if state in _REFUSING_STATES:
        return _REFUSED
    if state or connection is None:
        return _CUT if not state or state.startswith(("08", "57P")) else None  # connection exceptions, shutdown
    if getattr(connection, "needs_password", False):
        return None
    said = str(error).split(_SEVERITY)[1:]  # by each server of several
    if not said:
        return _NEVER_SENT
    return _REFUSED if all(re.search(_REFUSING_TEXTS, text) for text in said) else None


def judge_exception(
    error: Exception,
    is_failure: Callable[[BaseException], bool] | None,
    *,
    accepts: bool = False,
    handled: BaseException | None = None,
) -> Judgement:
    """What an exception of the caller's own code says.

    `accepts` is whether the endpoint was found to accept connections after it. Then another peer refused, or this one
    after its first exchange. Something may have been processed then, unless `NotSent` or a database says otherwise.
    """
    failure = failure_of(error, handled)
    if failure is FailureKind.NOT_SENT:
        if not accepts:
            return Judgement(Outcome.CONNECT, failure, "connect")
        chain = causes(error, handled)
        if not any(isinstance(cause, NotSent) or _kind(cause) is _REFUSED for cause in chain):
            failure = FailureKind.CLOSED
    counts = True if is_failure is None else bool(is_failure(error))
    return Judgement(Outcome.FAILURE if counts else Outcome.SUCCESS, failure, type(error).__name__)


def judge_connect(connection: object, error: Exception | None) -> Judgement:
    """How connecting went. A certificate that does not fit may be the caller's fault as well as the endpoint's."""
    if error is None:
        return GOOD
    ssl: Any = sys.modules.get("ssl")  # without it there are no errors of its
    if ssl is not None and isinstance(error, ssl.SSLCertVerificationError):
        return Judgement(Outcome.NEUTRAL, FailureKind.NOT_SENT, "certificate")
    if isinstance(error, OSError) and not isinstance(error, DiscoveryError):
        if is_ours(error):
            return Judgement(Outcome.NEUTRAL, FailureKind.NOT_SENT, "own")
        if isinstance(error, TimeoutError):
            return Judgement(Outcome.UNANSWERED, FailureKind.NOT_SENT, "connect timeout")
        ended = ssl is not None and isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        if ssl is not None and isinstance(error, ssl.SSLError) and not ended:
            return Judgement(Outcome.NEUTRAL, FailureKind.NOT_SENT, "tls")  # as likely a port that speaks no TLS
        return Judgement(Outcome.CONNECT, FailureKind.NOT_SENT, "connect")
    return Judgement(Outcome.NEUTRAL, FailureKind.OTHER, type(error).__name__)
