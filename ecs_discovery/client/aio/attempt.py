"""One try of a call on one endpoint, under asyncio: it ends early if the task behind it vanishes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

from ecs_discovery.client.attempt import Attempt
from ecs_discovery.core.balancing.node import Node, Outcome
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import FailureKind, Judgement
from ecs_discovery.core.calls.liveness import LivenessTimer
from ecs_discovery.core.service import Service
from ecs_discovery.errors import (
    ConfigurationError,
    RequestError,
    combined,
)
from ecs_discovery.runtime.tcp_info import Watch

__all__ = ["SILENT", "AsyncAttempt", "Vanished", "perform"]

T = TypeVar("T")

SILENT = Judgement(Outcome.CONNECT, FailureKind.CLOSED, "silent")


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
        self._doubt = LivenessTimer(node, clock(), ack_timeout)
        self._node = node
        self._service = service
        self._ack_timeout = ack_timeout
        self._patience = asyncio.timeout(None)
        self._watches: list[Watch] = []

    def watch(self, connection: asyncio.BaseTransport | asyncio.StreamWriter | socket.socket) -> None:
        """Give this attempt up should the task behind `connection` vanish, as `wrap_session` does.

        The task has vanished if the peer's kernel leaves sent bytes unacknowledged for
        `ConnectionPolicy.ack_timeout` seconds, or if the endpoint is found to be gone. Then `fetch` is cancelled, the
        endpoint is set aside, and the call goes on with another endpoint. A slow handler is left alone: its kernel
        acknowledges.

        Ends with the attempt. Works for idempotent calls only. Acknowledgements are seen on Linux only (`TCP_INFO`);
        elsewhere only what other calls meet is noticed.
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
