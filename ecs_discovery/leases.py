"""Leases as an application sees them: `with discovery.lease("cache:6379") as lease:`, in both worlds."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from ecs_discovery.context import check_key, current_options
from ecs_discovery.core.node import Node, Outcome, Use
from ecs_discovery.core.retry import Failure
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ClosedError, ConfigurationError, Overloaded
from ecs_discovery.judging import failure_of, judge_exception
from ecs_discovery.models import Endpoint

if TYPE_CHECKING:
    from ecs_discovery.aio import AsyncDiscovery
    from ecs_discovery.client import Discovery

__all__ = ["AsyncLeaseContext", "LeaseContext"]


_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)


class _LeaseContext(Use):
    """An endpoint in use. Ends with its block; how it went is recorded then."""

    __slots__ = ("_began", "_discovery", "_epoch", "_failed", "_key", "_service")

    def __init__(self, discovery: Discovery | AsyncDiscovery, service: Service, key: str | bytes | None) -> None:
        self._discovery = discovery
        self._service = service
        self._key = key
        self.open = False
        check_key("key", key)

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

    def fail(self) -> None:
        """Count this use as the endpoint's failure, although no exception leaves the block.

        Raises `ClosedError` outside the block.
        """
        _ = self.endpoint
        self._failed = True

    def _begin(self, now: float) -> None:
        if self.open:
            raise ConfigurationError("lease", self, "one block at a time: ask for another lease")
        service = self._service
        key = self._key if self._key is not None else current_options().key
        self._failed = False
        self._began = now
        self._epoch = service.epoch
        if service.pick(now, (), key, self) is None:
            raise service.unusable()
        if service.work_due:
            self._discovery.background.work(service)

    def _begin_now(self) -> None:
        self._begin(self._discovery.engine.clock())

    def _end(self, error: BaseException | None) -> None:
        service = self._service
        if not self.open or self._epoch != service.epoch:
            self.open = False
            return
        node, engine = self.node, self._discovery.engine
        try:
            outcome = _SUCCESS if error is None and not self._failed else self._judge(node, error)
        except BaseException:  # of the application's own `is_failure`
            service.release(node, self)
            raise
        now = engine.clock()
        if service.finish(node, outcome, now, now - self._began, self):
            engine.tell(service)

    def __del__(self) -> None:
        if self.open and self._epoch == self._service.epoch:  # entered, and dropped without an end
            self._service.abandon(self)

    def _judge(self, node: Node, error: BaseException | None) -> Outcome:
        if error is None:
            return Outcome.FAILURE
        if not isinstance(error, Exception):
            return Outcome.NEUTRAL  # cancelled or interrupted: not the endpoint's doing
        if failure_of(error) is Failure.NOT_SENT:
            self._discovery.background.suspect(self._service, node)
        return judge_exception(error, self._service.outlier.is_failure, accepts=True).outcome


class LeaseContext(_LeaseContext):
    """What `Discovery.lease` returns: enter it to get an endpoint."""

    __slots__ = ()
    _discovery: Discovery

    def __enter__(self) -> Self:
        service = self._service
        now = self._discovery.engine.clock()
        if now >= service.fresh_until:
            self._discovery.background.ready(service, now + service.timeout.connect)
        if not service.room.crowded:
            try:
                self._begin(now)
                return self
            except Overloaded:
                pass
        self._discovery.background.room(service, now + service.timeout.connect, self._begin_now)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end(error)


class AsyncLeaseContext(_LeaseContext):
    """What `AsyncDiscovery.lease` returns: enter it with `async with` to get an endpoint."""

    __slots__ = ()
    _discovery: AsyncDiscovery

    async def __aenter__(self) -> Self:
        service = self._service
        now = self._discovery.engine.clock()
        if now >= service.fresh_until:
            await self._discovery.background.ready(service, now + service.timeout.connect)
        if not service.room.crowded:
            try:
                self._begin(now)
                return self
            except Overloaded:
                pass
        await self._discovery.background.room(service, now + service.timeout.connect, self._begin_now)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._end(error)
