"""Waiting for an answer in a thread: is the host of its endpoint still there?

A kernel that lives acknowledges within a fraction of a second, however slow the application behind it. Three signs
tell: data of this request that stays unacknowledged, the FIN of an idle connection to the same endpoint, and the
keep-alive probes of this connection. A connect would prove nothing: a busy task with a full queue for connections
leaves it without an answer too. It is made where there is no idle connection, and moves a request elsewhere only.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from ecs_discovery.config.targets import is_address
from ecs_discovery.core.calls.liveness import LivenessTimer, try_start_probe
from ecs_discovery.core.calls.race import probe_timeout
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations.http.exchange import AttemptUse, Exchange
from ecs_discovery.runtime import sockets, tcp_info
from ecs_discovery.runtime.tcp_info import Farewell

__all__ = ["IdleConnections", "PeerSilentError", "PeerUncertainError", "Suspicion", "wait_for_answer"]

_TESTS_APART = 1.0  # seconds between test connects to one endpoint: each takes a place in its queue
_UNUSUAL = 4  # times the usual latency of an endpoint


class PeerSilentError(ConnectionAbortedError):
    """The peer's kernel did not acknowledge the request: the task's network interface is gone."""


class PeerUncertainError(PeerSilentError):
    """The task may have vanished, or be busy with a full queue for connections: the request goes elsewhere, once."""


class IdleConnections(Protocol):
    """Where idle connections to the same endpoint are."""

    def farewell(self) -> Farewell | None:
        """Close an idle connection, to see whether the host is there. None if no connection is idle."""


class Suspicion:
    """What one request may do about a host that may be gone."""

    __slots__ = ("_exchange", "_moved_on")

    def __init__(self, exchange: Exchange[Any, Any]) -> None:
        self._exchange = exchange
        self._moved_on = False

    def waits(self, lease: Lease, count: int) -> None:
        """So many more, or fewer, requests look whether the host of the lease's endpoint is there."""
        self._exchange.service.watch(lease.node, count)

    def vanished(self, lease: Lease, since: float) -> None:
        """The host of the lease's endpoint has met what was sent with silence since then."""
        self._exchange.engine.vanished(lease.node, since)

    def patience(self) -> float:
        """Seconds within which a host that lives acknowledges something."""
        return probe_timeout(self._exchange.service.connect_time)

    def test(self, lease: Lease) -> socket.socket | None:
        """A connect to the lease's endpoint that was begun as a test; None if it would serve nothing."""
        node, now = lease.node, self._exchange.engine.clock()
        if node.endpoint.proxied or not is_address(node.endpoint.host) or not self._could_move_on(lease, now):
            return None
        if not try_start_probe(node, now, _TESTS_APART):
            return None
        try:
            return sockets.start_connect(node.endpoint)
        except OSError:
            return None

    def may_move_on(self, lease: Lease, waited: float) -> bool:
        """The test met silence. May a request that has waited so long go elsewhere, although that proves nothing?

        Once, and where that is unusual for its endpoint. The endpoint is not judged by it.
        """
        latency = lease.node.latency
        if latency is None or waited < _UNUSUAL * latency:
            return False
        self._moved_on = self._could_move_on(lease, self._exchange.engine.clock())
        return self._moved_on

    def _could_move_on(self, lease: Lease, now: float) -> bool:
        exchange = self._exchange
        service, call = exchange.service, exchange.call
        if self._moved_on or lease.node.latency is None or call.own_policy is not None:
            return False
        others = service.untried(call.tried) and call.number < service.retry.attempts
        return bool(others) and service.budget.balance(now) >= 1


def wait_for_answer(
    use: AttemptUse,
    suspicion: Suspicion | None,
    sock: Any,
    idle: IdleConnections | None,
    limit: float,
    timeout: float | None,
    clock: Callable[[], float],
) -> float:
    """Wait until there is something to read, or `timeout` seconds are over: the seconds that took.

    Raises `PeerSilentError` where the host is gone and the request may be replayed.
    """
    began = clock()
    wait = _Wait(use, suspicion, sock, idle, limit, clock, began)
    try:
        answered = tcp_info.wait_for_answer(sock, limit, timeout, clock, wait.gone)
    finally:
        wait.end()
    if not answered:
        if use.replayable:
            if wait.doubted:
                raise PeerUncertainError("no answer, and a test connect met silence")
            why = "its task has vanished" if wait.vanished else f"nothing was acknowledged within {limit:g} s"
            raise PeerSilentError(why)
        if suspicion is not None:  # the request waits on, but others need not go there
            suspicion.vanished(use.lease, clock() - limit)
    return clock() - began


class _Wait:
    """One wait for an answer. What it costs is paid from the first look on."""

    __slots__ = (
        "_began",
        "_clock",
        "_farewell",
        "_idle",
        "_keep_alive",
        "_limit",
        "_sock",
        "_suspicion",
        "_test",
        "_tested",
        "_timer",
        "_use",
        "doubted",
    )

    def __init__(
        self,
        use: AttemptUse,
        suspicion: Suspicion | None,
        sock: Any,
        idle: IdleConnections | None,
        limit: float,
        clock: Callable[[], float],
        began: float,
    ) -> None:
        self._use = use
        self._suspicion = suspicion
        self._sock = sock
        self._idle = idle
        self._limit = limit
        self._clock = clock
        self._began = began
        self._timer: LivenessTimer | None = None
        self._farewell: Farewell | None = None
        self._keep_alive: int | None = None
        self._test: socket.socket | None = None
        self._tested = 0.0
        self.doubted = False
        """The request goes elsewhere on a suspicion."""

    @property
    def vanished(self) -> bool:
        """Was the host found to be gone, by this request or another?"""
        return self._timer is not None and self._timer.gone

    def gone(self) -> bool:
        """Look. Should a request that may be replayed wait no longer?"""
        use, suspicion, timer = self._use, self._suspicion, self._timer
        if suspicion is None:
            return False
        if timer is None:  # most answers come before the first look
            timer = self._timer = LivenessTimer(use.lease.node, self._began, self._limit)
            suspicion.waits(use.lease, 1)
        now = self._clock()
        if timer.due(now):
            self._keep_alive = tcp_info.probe_soon(self._sock)
            self._farewell = self._idle.farewell() if self._idle is not None else None
            if self._farewell is None and use.replayable:
                self._test, self._tested = suspicion.test(use.lease), now
        farewell = self._farewell
        if farewell is not None:
            acknowledged = farewell.acknowledged
            if acknowledged or now >= farewell.began + suspicion.patience():
                self._end_farewell()
                if not acknowledged:
                    suspicion.vanished(use.lease, farewell.began)
        if self._test is not None and (sockets.connected(self._test) or now >= self._tested + suspicion.patience()):
            silent = not sockets.connected(self._test)
            self._end_test()
            self.doubted = silent and suspicion.may_move_on(use.lease, now - self._began)
        return (timer.gone or self.doubted) and use.replayable

    def end(self) -> None:
        """The wait is over."""
        self._end_farewell()
        self._end_test()
        if self._timer is not None and self._suspicion is not None:
            self._suspicion.waits(self._use.lease, -1)
        if self._keep_alive is not None:
            tcp_info.probe_soon(self._sock, self._keep_alive)

    def _end_test(self) -> None:
        test, self._test = self._test, None
        if test is not None:
            test.close()

    def _end_farewell(self) -> None:
        farewell, self._farewell = self._farewell, None
        if farewell is not None:
            farewell.close()
