"""Leases as an application sees them: what a `with` block of either world does."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, TypeVar

from ecs_discovery.client.engine import Engine
from ecs_discovery.client.failures import failure_of, judge_exception
from ecs_discovery.config.options import check_key, current_options
from ecs_discovery.core.balancing.node import Node, Outcome, Use
from ecs_discovery.core.calls.failure_kinds import FailureKind
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ClosedError, ConfigurationError
from ecs_discovery.models import Endpoint

__all__ = ["LeaseBackground", "LeaseDriver", "LeaseScope", "lease_scope"]

S = TypeVar("S", bound="LeaseScope")

_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)


class LeaseBackground(Protocol):
    """What a lease needs of the background of either world."""

    def work(self, service: Service) -> None: ...

    def suspect(self, service: Service, node: Node) -> None: ...


class LeaseDriver(Protocol):
    """What a lease needs of the driver of either world."""

    @property
    def engine(self) -> Engine: ...

    @property
    def background(self) -> LeaseBackground: ...


class LeaseScope(Use):
    """An endpoint in use. Ends with its block; how it went is recorded then."""

    __slots__ = ("_began", "_driver", "_epoch", "_failed", "_key", "_service")
    _driver: LeaseDriver
    _service: Service
    _key: str | bytes | None

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint leased. Raises `ClosedError` outside the block."""
        if not self.open:
            raise ClosedError(
                "the lease has no endpoint outside of its block",
                target=self._service.target,
                hint="use it as `with discovery.lease(…) as lease:`",
            )
        return self.node.endpoint

    @property
    def host(self) -> str:
        """Its address."""
        return self.endpoint.host

    @property
    def port(self) -> int:
        """Its port."""
        return self.endpoint.port

    def __repr__(self) -> str:
        where = self.node.endpoint if self.open else "not entered"
        return f"<{type(self).__name__} {self._service.target} {where}>"

    def fail(self) -> None:
        """Count this use as the endpoint's failure, although no exception leaves the block.

        Raises `ClosedError` outside the block.
        """
        _ = self.endpoint
        self._failed = True

    def _start(self, now: float) -> None:
        if self.open:
            raise ConfigurationError("lease", self, "one block at a time: ask for another lease")
        service = self._service
        key = self._key
        if key is None:
            key = current_options().key
        self._failed = False
        self._began = now
        self._epoch = service.epoch
        if service.pick(now, (), key, self) is None:
            raise service.unusable()
        if service.work.due:
            self._driver.background.work(service)

    def _start_now(self) -> None:
        self._start(self._driver.engine.clock())

    def _end(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        service = self._service
        if not self.open or self._epoch != service.epoch:
            self.open = False
            return
        outcome = _SUCCESS if error is None and not self._failed else self._judge(error)
        engine = self._driver.engine
        now = engine.clock()
        if service.finish(self.node, outcome, now, now - self._began, self):
            engine.emit(service)

    def __del__(self) -> None:
        try:
            if not self.open or self._epoch != self._service.epoch:
                return
        except AttributeError:
            return  # an asynchronous exception came before it was made
        self._service.abandon(self)  # entered, and dropped without an end

    def _judge(self, error: BaseException | None) -> Outcome:
        if error is None:
            return Outcome.FAILURE
        if not isinstance(error, Exception):
            return Outcome.NEUTRAL  # cancelled or interrupted: not the endpoint's doing
        service, node = self._service, self.node
        try:
            if failure_of(error) is FailureKind.NOT_SENT:
                self._driver.background.suspect(service, node)
            return judge_exception(error, service.outlier.is_failure, accepts=True).outcome
        except BaseException:  # of the application's own `is_failure`
            service.release(node, self)
            raise


def lease_scope(kind: type[S], driver: LeaseDriver, service: Service, key: str | bytes | None) -> S:
    """A lease that is not entered yet. Raises `ConfigurationError` for a key that is none.

    It stands in the place of `__init__`: a class that has one is made in twice the time (Python 3.11).
    """
    if key is not None:
        check_key("key", key)
    scope = kind()
    scope._driver = driver
    scope._service = service
    scope._key = key
    scope.open = False
    return scope
