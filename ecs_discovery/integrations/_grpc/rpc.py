"""One RPC over its attempts: what the two worlds have in common.

The first attempt needs none of this. It is made when something failed, or when there is more to look at than a choice.
"""

from __future__ import annotations

import re
from math import inf
from typing import Any

import grpc

from ecs_discovery.client.engine import Engine
from ecs_discovery.config.options import check_seconds, current_options
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import GOOD, FailureKind, Fault, Judgement
from ecs_discovery.core.calls.grpc import asked_wait, is_cut, judge_code, pushback
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConnectError, DeadlineExceeded, DiscoveryError, ResolutionError, foreign
from ecs_discovery.integrations._grpc.errors import status_of
from ecs_discovery.integrations._grpc.route import address_of
from ecs_discovery.models import replace

__all__ = ["Patience", "Rpc", "is_unready"]

_PLAIN = Judgement(*GOOD)  # as good, and not the one that is met nearly always
_CANCELLED = Judgement(Outcome.NEUTRAL, None, "cancelled")
_DOUBTED = Judgement(Fault.DOUBTED.outcome, Fault.DOUBTED.kind, Fault.DOUBTED.label)
_PUSHBACK = "grpc-retry-pushback-ms"
_RECEIVED = "received from peer"  # in the debug text of a status that the server sent
_ENDED_HERE = ("Channel closed!", "Locally cancelled by application!", "Cancelled upon garbage collection!")
_NOT_CONNECTED = re.compile(r"^.{0,200}?last error: \w{0,40}: ipv[46]:[][:%.0-9a-fA-F]{1,80}: ")
_PAUSES = (0.05, 1.0)  # seconds between rounds of an RPC that waits for an endpoint: the first pause, and the longest


class Rpc:
    """`timeout` is the application's, in seconds. Raises `ConfigurationError` for what is no number of seconds."""

    __slots__ = ("_engine", "_service", "_texts", "answered", "call", "given_up", "lease", "method", "replays")

    def __init__(
        self,
        engine: Engine,
        service: Service,
        target: str,
        method: str,
        idempotent: bool,
        timeout: float | None,
        now: float,
        replays: Any = None,
    ) -> None:
        if timeout is not None:
            timeout = check_seconds("timeout", timeout)
            chosen = current_options().deadline
            if chosen is not None:
                timeout = min(timeout, chosen)
        self._engine = engine
        self._service = service
        self.method = method
        self.call: Call = engine.call(service, repeatable=idempotent, deadline=timeout, now=now, target=target)
        self.replays = replays
        """The stream of requests; None where there is one request."""
        self.lease: Lease | None = None
        """Of the attempt in flight."""
        self.given_up = False
        """The attempt in flight was ended because its endpoint seems to be gone."""
        self.answered = False
        """The last attempt ended in an answer that is the caller's, whatever its status."""
        self._texts: list[str] = []  # what to say of the attempts that failed: gRPC's own is for its developers

    def observe(self) -> None:
        """The RPC begins: tell the observers."""
        call = self.call
        call.observed = self._engine.observed("grpc", call.target, call.started_at, self.method)

    def over(self, error: BaseException | None) -> None:
        """It is over, and this is raised, if anything."""
        if self.call.observed is not None:
            self.call.observed.ended(error, self.call.deadline_at if self.call.hard else None)

    def timeout(self) -> float | None:
        """Seconds that the attempt just begun may take; None if the caller sets no limit."""
        call = self.call
        return max(0.0, call.deadline_at - self._engine.clock()) if call.hard else None

    def may_end(self) -> bool:
        """May the attempt just begun be ended where its endpoint seems to be gone, and go elsewhere?"""
        call = self.call
        return (
            call.idempotent
            and self.replays is None
            and call.own_policy is None
            and call.number < self._service.retry.attempts
            and self._service.untried(call.tried) > 0
        )

    def tried(self) -> Call:
        """The call, with what became of its attempts in words."""
        call = self.call
        call.reports = tuple(
            replace(report, error=foreign(text)) for report, text in zip(call.reports, self._texts, strict=False)
        )
        return call

    def judge(self, result: object, error: Exception | None) -> Judgement:
        """What the end of an attempt says."""
        judgement = self._judge(error)
        if judgement.failure is not None:
            self._texts.append(_said(error, judgement))
        return judgement

    def _judge(self, error: Exception | None) -> Judgement:
        call = self.call
        self.answered = False
        if error is None:
            self.answered = True
            return GOOD if call.observed is None else _PLAIN
        if self.given_up:
            return _DOUBTED
        if not isinstance(error, grpc.RpcError):
            return Judgement(Outcome.NEUTRAL, FailureKind.OTHER, type(error).__name__)
        status, lease = status_of(error), self.lease
        assert lease is not None  # what failed is an attempt
        code = status.code.name
        received = _RECEIVED in status.debug or is_cut(status.details)
        if code == "CANCELLED" and (not received or status.details in _ENDED_HERE):
            self.answered = True
            return _CANCELLED
        asked = asked_wait(_field(status.trailing_metadata, _PUSHBACK))
        address = address_of(lease.node.endpoint)
        judgement = judge_code(code, status.details, address, asked=asked, alone=not self._service.untried(call.tried))
        spared = pushback(code, asked, self._service.balancing) if judgement.outcome is not Outcome.NEUTRAL else None
        if spared is not None and self._service.push_back(lease.node, self._engine.clock(), spared):
            self._engine.emit(self._service)
        self.answered = judgement.failure is None
        return self._with_stream(self._counted(judgement, error))

    def _counted(self, judgement: Judgement, error: Exception) -> Judgement:
        is_failure = self._service.outlier.is_failure
        if judgement.outcome is not Outcome.FAILURE or is_failure is None or is_failure(error):
            return judgement
        return judgement._replace(outcome=Outcome.SUCCESS)

    def _with_stream(self, judgement: Judgement) -> Judgement:
        """A stream of requests is sent again only where nothing of it was."""
        if self.replays is None or judgement.failure is None:
            return judgement
        unsent = judgement.failure is FailureKind.NOT_SENT and self.replays.is_whole()
        self.call.replayable = unsent
        if unsent or judgement.failure is not FailureKind.NOT_SENT:
            return judgement
        return judgement._replace(failure=FailureKind.CLOSED)


class Patience:
    """The rounds of an RPC that waits for an endpoint (`wait_for_ready`), until `deadline_at`."""

    def __init__(self, engine: Engine, timeout: float | None) -> None:
        self._clock = engine.clock
        self._pause = _PAUSES[0]
        self.deadline_at = inf if timeout is None else engine.clock() + check_seconds("timeout", timeout)

    def timeout(self) -> float | None:
        """Seconds that are left; None for any number."""
        return None if self.deadline_at == inf else self.deadline_at - self._clock()

    def pause(self, error: Exception) -> float:
        """Seconds until the next round. Raises `DeadlineExceeded` if there is no time for one, and `error` where
        another round would not help."""
        if not is_unready(error):
            raise error
        pause, self._pause = self._pause, min(2 * self._pause, _PAUSES[1])
        if self._clock() + pause >= self.deadline_at:
            assert isinstance(error, DiscoveryError)
            raise DeadlineExceeded(
                f"no endpoint was ready by the deadline: {error.message}", target=error.target, attempts=error.attempts
            ) from error
        return pause


def is_unready(error: Exception) -> bool:
    """Was nothing sent because there is no endpoint, or none that connects?"""
    return isinstance(error, (ConnectError, ResolutionError)) and not isinstance(error, DeadlineExceeded)


def _said(error: Exception | None, judgement: Judgement) -> str:
    if judgement is _DOUBTED:
        return "no answer, and a test connect met silence"
    if not isinstance(error, grpc.RpcError):
        return f"{type(error).__name__}: {error}"
    status = status_of(error)
    if judgement.failure is FailureKind.NOT_SENT:
        return _NOT_CONNECTED.sub("", status.details)
    return f"{status.code.name}: {status.details}" if status.details else status.code.name


def _field(metadata: Any, name: str) -> Any:
    for key, value in metadata or ():
        if key == name:
            return value
    return None
