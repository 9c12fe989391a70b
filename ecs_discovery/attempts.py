"""Attempts: what a caller's function is handed, and how connecting is judged and reported.

Shared by both drivers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_ITERABLE_COROUTINE, isawaitable
from typing import Any, TypeVar

from ecs_discovery.core.doubt import Doubt
from ecs_discovery.core.node import Node, Outcome
from ecs_discovery.core.retry import Call, Failure
from ecs_discovery.core.service import Service
from ecs_discovery.errors import (
    AttemptReport,
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    DiscoveryError,
    RequestError,
    ResolutionError,
    combined,
)
from ecs_discovery.foreign_text import foreign
from ecs_discovery.judging import GOOD, Judgement
from ecs_discovery.models import Endpoint
from ecs_discovery.sockets import Watch, is_ours

__all__ = [
    "SILENT",
    "AsyncAttempt",
    "Attempt",
    "Trail",
    "Vanished",
    "as_os_error",
    "check_fetch",
    "hint_of",
    "judge_connect",
    "no_connection",
    "noted",
    "perform",
    "verified_name",
]

T = TypeVar("T")

SILENT = Judgement(Outcome.CONNECT, Failure.CLOSED, "silent")


class Attempt:
    """One try of a call on one endpoint."""

    __slots__ = ("_call", "_clock", "endpoint", "number")

    def __init__(self, endpoint: Endpoint, call: Call, clock: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self.number = call.number
        """1 for the first."""
        self._call = call
        self._clock = clock

    @property
    def host(self) -> str:
        """The endpoint's address."""
        return self.endpoint.host

    @property
    def port(self) -> int:
        """The endpoint's port."""
        return self.endpoint.port

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(0.0, self._call.deadline - self._clock())

    def __repr__(self) -> str:
        return f"<Attempt {self.number} on {self.endpoint}>"


class Vanished(ConnectionAbortedError):
    """The task fell silent: its network interface is gone."""


class AsyncAttempt(Attempt):
    """One try of a call on one endpoint, under asyncio."""

    __slots__ = ("_ack_timeout", "_doubt", "_node", "_patience", "_service", "_watches")

    def __init__(
        self,
        node: Node,
        call: Call,
        clock: Callable[[], float],
        ack_timeout: float,
        service: Service,
    ) -> None:
        super().__init__(node.endpoint, call, clock)
        self._doubt = Doubt(node, clock(), ack_timeout)
        self._node = node
        self._service = service
        self._ack_timeout = ack_timeout
        self._patience = asyncio.timeout(None)
        self._watches: list[Watch] = []

    def watch(self, connection: asyncio.BaseTransport | asyncio.StreamWriter | socket.socket) -> None:
        """Give this attempt up should the task behind `connection` vanish, as `wrap_session` does.

        If the peer's kernel leaves sent bytes unacknowledged for `ConnectionPolicy.ack_timeout` seconds, or the
        endpoint is found to be gone, `fetch` is cancelled, the endpoint is set aside and the call goes on with another
        one. A slow handler is left alone: its kernel acknowledges. Ends with the attempt. Does nothing for a call that
        is not idempotent; Linux only (`TCP_INFO`), elsewhere only what others meet is noticed.
        """
        if self._call.idempotent:
            given = connection if isinstance(connection, socket.socket) else connection.get_extra_info("socket")
            self._watches.append(Watch(given, self._ack_timeout, self._clock, self._gone, self._give_up))
            self._service.watch(self._node, 1)

    def _gone(self) -> bool:
        if self._doubt.due(self._clock()):
            for watch in self._watches:
                watch.probe_soon()
        return self._doubt.gone

    def _give_up(self) -> None:
        if not self._patience.expired():  # one of several connections may have said so already
            self._patience.reschedule(asyncio.get_running_loop().time())


def check_fetch(fetch: Any, *, asynchronous: bool) -> None:
    """Raises `ConfigurationError` for what cannot be called, and for a function of the wrong kind, before it is called.

    A plain function may give an awaitable: of that nothing is known before.
    """
    inner = fetch
    while isinstance(inner, partial):
        inner = inner.func
    if not hasattr(inner, "__code__") and callable(inner) and not isinstance(inner, type):
        inner = type(inner).__call__  # a bound method has the code of its function
    flags = getattr(getattr(inner, "__code__", None), "co_flags", 0)
    if not isinstance(flags, int):  # an object that has every attribute
        flags = 0
    if asynchronous:
        wrong = flags & CO_ASYNC_GENERATOR or (flags & (CO_GENERATOR | CO_ITERABLE_COROUTINE)) == CO_GENERATOR
    else:
        wrong = flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)
    if wrong or not callable(fetch):
        need = (
            "a coroutine function (async def); Discovery takes plain functions"
            if asynchronous
            else "a plain function; AsyncDiscovery takes coroutine functions"
        )
        raise ConfigurationError("fetch", fetch, need)


async def perform(attempt: AsyncAttempt, fetch: Callable[[AsyncAttempt], Awaitable[T]]) -> T:
    """What `fetch` gives. Raises what it raises, or `Vanished` if the attempt was given up."""
    try:
        async with attempt._patience:
            found = fetch(attempt)
            if not isawaitable(found):
                raise ConfigurationError(
                    "fetch", fetch, "a coroutine function (async def); Discovery takes plain functions"
                )
            return await found
    except TimeoutError as error:
        if attempt._patience.expired():
            kind = combined(RequestError, Vanished)
            call = attempt._call
            raise kind(f"{attempt.endpoint} has vanished", target=call.target, attempts=call.reports) from error
        raise
    finally:
        for watch in attempt._watches:
            watch.end()
            attempt._service.watch(attempt._node, -1)


class Trail:
    """What became of a request's attempts, on its response: `response.ecs_discovery`."""

    __slots__ = ("_good", "_reports", "_seconds", "endpoint")

    def __init__(self, endpoint: Endpoint, seconds: float, reports: Sequence[AttemptReport], good: bool) -> None:
        self.endpoint = endpoint
        """The endpoint that answered."""
        self._seconds = seconds
        self._reports = reports
        self._good = good

    @property
    def attempts(self) -> tuple[AttemptReport, ...]:
        """Every attempt, the one that this is the answer to last."""
        if not self._good:
            return tuple(self._reports)
        return (*self._reports, AttemptReport(str(self.endpoint), "ok", self._seconds))

    def __repr__(self) -> str:
        return f"<Trail {'; '.join(map(str, self.attempts))}>"


def judge_connect(connection: object, error: Exception | None) -> Judgement:
    """How connecting went. A certificate that does not fit may be the caller's fault as well as the endpoint's."""
    if error is None:
        return GOOD
    if isinstance(error, ssl.SSLCertVerificationError):
        return Judgement(Outcome.NEUTRAL, Failure.NOT_SENT, "certificate")
    if isinstance(error, OSError) and not isinstance(error, DiscoveryError):
        if is_ours(error):
            return Judgement(Outcome.NEUTRAL, Failure.NOT_SENT, "own")
        if isinstance(error, TimeoutError):
            return Judgement(Outcome.UNANSWERED, Failure.NOT_SENT, "connect timeout")
        if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return Judgement(Outcome.NEUTRAL, Failure.NOT_SENT, "tls")  # as likely a port that speaks no TLS
        return Judgement(Outcome.CONNECT, Failure.NOT_SENT, "connect")
    return Judgement(Outcome.NEUTRAL, Failure.OTHER, type(error).__name__)


def verified_name(context: ssl.SSLContext | None, given: str | None, service: Service) -> str | None:
    """The name that a TLS connection is to be verified for. Raises `ConfigurationError` if it needs one."""
    name = given or service.tls_name or None
    if name is None and context is not None and context.check_hostname:
        raise ConfigurationError("server_hostname", given, f"the name in the certificate: {service.target} has no name")
    return name if context is not None else None


def no_connection(call: Call, error: OSError) -> DiscoveryError:
    """The error for a call none of whose endpoints took the connection. `error` is the last one's."""
    if isinstance(error, DiscoveryError):
        return error
    kind: type[DiscoveryError] = ConnectTimeout if isinstance(error, TimeoutError) else ConnectError
    if isinstance(error, (ssl.SSLError, socket.gaierror)):
        kind = combined(kind, type(error))
    return kind(
        f"no connection after {len(call.reports)} connect{'s' if len(call.reports) != 1 else ''}: {foreign(error)}",
        target=call.target,
        attempts=call.reports,
        hint=hint_of(call),
    )


def hint_of(call: Call) -> str | None:
    """What to do about a call that failed, and why it was not retried."""
    parts = []
    if call.reports and "WRONG_VERSION_NUMBER" in call.reports[-1].error:
        parts.append("this port does not seem to speak TLS: use http://, or no ssl=, or the port that does")
    if call.reason:
        parts.append(f"not retried: {call.reason}")
    return "; ".join(parts) or None


def as_os_error(error: ResolutionError) -> DiscoveryError:
    """The same error as one that is also an OSError, for callers who expect a socket's."""
    kind = combined(type(error), OSError)
    if kind is type(error):
        return error
    twin = kind(*error.args)
    twin.__dict__.update(error.__dict__)
    return twin


def noted(error: Exception, call: Call) -> None:
    """Put a note on what was tried onto an exception of the caller's, which is not ours to wrap."""
    if call.reports:
        tried = "; ".join(map(str, call.reports))
        why = f"; not retried: {call.reason}" if call.reason else ""
        error.add_note(f"ecs_discovery: {call.target}: {tried}{why}")
