"""One request over its attempts, for asyncio. It stands in the same order as `sync.py`; the two differ in awaits."""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary, ref

from ecs_discovery.client.aio.driver import AsyncDriver
from ecs_discovery.client.aio.hedging import Trial, duel
from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.client.failures import forget
from ecs_discovery.client.hedge import Hedge
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.liveness import LivenessTimer
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import DeadlineExceeded
from ecs_discovery.integrations.http.errors import without_frames
from ecs_discovery.integrations.http.exchange import AttemptUse, Exchange, R
from ecs_discovery.integrations.http.liveness import PeerSilentError
from ecs_discovery.runtime.tcp_info import Watch, first_look

__all__ = ["AsyncExchange", "AsyncUse"]


class AsyncUse(AttemptUse):
    """One attempt's use of an endpoint, in a task."""

    __slots__ = ("cancelling", "gone", "round", "task", "watches")

    def __init__(self, lease: Lease, replayable: bool) -> None:
        super().__init__(lease, replayable)
        self.round: _Round | None = None
        """Where it waits for the first look at its connection."""
        self.watches: list[_Watched] = []
        self.task: asyncio.Task[Any] | None = None
        """What waits for the answer of a connection that is watched."""
        self.cancelling = 0
        """How often that task had been cancelled when the host was found to be gone."""
        self.gone = False


A = TypeVar("A", bound=AsyncUse)


class AsyncExchange(Exchange[R, A]):
    """See `Exchange`. `pinned` is the endpoint that the first attempt prefers."""

    __slots__ = ("driver", "pinned")

    def __init__(
        self,
        driver: AsyncDriver,
        service: Service,
        target: str,
        method: str,
        connect: object = None,
        read: object = None,
        pinned: Node | None = None,
    ) -> None:
        super().__init__(driver.engine, service, target, method, connect, read)
        self.driver = driver
        self.pinned = pinned

    # What a library supplies

    @abstractmethod
    async def send(self, use: A) -> R:
        """Send the request to the use's endpoint: the answer, as much of it as is to be part of this attempt."""

    async def discard(self, response: R) -> None:
        """Let go of an answer that is not wanted."""

    # The attempts

    async def run(self) -> R:
        """The answer. Raises the library's errors that are ours too."""
        try:
            if self.begins():
                attempted = await self.attempt()
                if attempted.decision is None and attempted.error is None:
                    return attempted.result  # type: ignore[return-value]
                return await self.driver.go_on(attempted, self.attempt)
            call = self.call
            if not call.hard:
                return await (self._run() if call.own_policy is None else self.by_own_policy())
            limit = asyncio.timeout(max(0.0, call.deadline_at - self.engine.clock()))
            try:
                async with limit:
                    return await (self._run() if call.own_policy is None else self.by_own_policy())
            except TimeoutError as error:
                if not limit.expired():
                    raise
                self._drop_held()
                self.ran_out()
                raise DeadlineExceeded(
                    "not done within the deadline", target=call.target, attempts=call.reports
                ) from without_frames(error)
        except Exception as error:  # noqa: BLE001  # raised below, with what was tried
            failed = error
        except BaseException:  # cancelled
            self._drop_held()
            raise
        self._drop_held()
        try:
            raise self.error_for_caller(failed)  # outside of the block: its context is none of the reader's business
        finally:
            del failed  # kept in this frame, the error would keep the frame

    async def by_own_policy(self) -> R:
        """The attempts as the application's tenacity object wants them."""
        return await self.driver.pursue(self.call, self.attempt)

    async def _run(self) -> R:
        return await self.driver.go_on(await self.attempt(), self.attempt)

    async def attempt(self) -> AttemptResult[R]:
        """One attempt, recorded."""
        lease = self.quick_lease() if self.pinned is None else None
        if lease is None:
            lease = await self._start()
        elif self.service.work_due:
            self.driver.background.work(self.service)
        use = self._use = self.make_use(lease)
        try:
            response = await (self._watched(use) if self.service.hedging is None else self._hedged(use))
        except Exception as error:  # noqa: BLE001  # raised when no attempt follows
            return self._failed(error)
        except BaseException:  # cancelled: the use is over, and says nothing of the endpoint
            self._use.lease.release()
            raise
        return AttemptResult(response, None, self.answered(response, self._use))

    def watch(self, use: A, connection: asyncio.BaseTransport | socket.socket) -> None:
        """Give the use up should the host behind `connection` vanish. The library's `send` calls it when it has sent.

        Does nothing where the request may not be repeated; Linux only (`TCP_INFO`).
        """
        if not use.replayable:
            return
        loop = asyncio.get_running_loop()
        here = _Round.latest
        if here is None or here.loop is not loop:
            here = _Round.of(loop)
        use.round = here
        use.task = asyncio.current_task()
        here.add(use, self, connection)

    def look_at(self, use: A, connection: asyncio.BaseTransport | socket.socket, since: float) -> None:
        """It has waited for some time: look whether the host behind the connection is there, now and again."""
        sock = connection if isinstance(connection, socket.socket) else connection.get_extra_info("socket")
        use.watches.append(_Watched(self, use, sock, since))

    async def _watched(self, use: A) -> R:
        try:
            return await self.send(use)
        except asyncio.CancelledError as error:
            task = use.task
            if not use.gone or task is None or task.uncancel() > use.cancelling:
                raise
            raise PeerSilentError(f"{use.lease.endpoint} has vanished") from error
        finally:
            if use.round is not None:
                use.round.remove(use)
                use.round = use.task = None  # they would keep the answer
                for watch in use.watches:
                    watch.end()
                use.watches = []

    def give_up(self, use: A) -> None:
        """The host of the use is gone."""
        task = use.task
        if task is not None and not use.gone:  # one of several connections may have said so already
            use.gone, use.cancelling = True, task.cancelling()
            task.cancel()

    async def _start(self) -> Lease:
        service, background = self.service, self.driver.background
        call = self.call
        if call.own_policy is not None:
            self._recall(call)  # asked of attempts that end in any way
        first = not call.number
        if first and self._started_at >= service.refresh_at:
            await background.ready(service, call.connect_deadline_at)
        if not first:
            if self._response is not None:
                response, self._response = self._response, None
                await self.discard(response)
            self.rewind()
            await background.wait_for_refresh(service, call)
        self._use = None
        lease = await background.start_attempt(service, call, prefer=self.pinned if first else None)
        if service.work_due:
            background.work(service)
        return lease

    def _failed(self, error: Exception) -> AttemptResult[R]:
        assert self._use is not None
        decision, ask = self.failed(error, self._use)
        if ask:
            self.driver.background.force(ask)
        attempted: AttemptResult[R] = AttemptResult(None, error, decision)
        if attempted.goes_on:
            forget(error)
        return attempted

    async def _hedged(self, use: A) -> R:
        """The first attempt, and another beside it when it takes long. `_use` is then that of the one that counts."""
        hedging, background = self.service.hedging, self.driver.background
        if hedging is None or not self.may_hedge():
            return await self._watched(use)
        hedge = Hedge(self.engine, hedging, self.call, use.lease)
        if hedge.delay is None:
            response = await self._watched(use)
            if self.is_wanted(response):
                hedge.won(use.lease)
            return response
        uses: dict[Lease, A] = {}

        def trial(lease: Lease) -> Trial[R]:
            made = uses[lease] = self.make_use(lease)
            return Trial(lease, partial(self._watched, made), drop=self._drop)

        def wanted(trial: Trial[R]) -> bool:
            return trial.result is not None and self.is_wanted(trial.result)

        async def failed(trial: Trial[R]) -> None:
            lost = uses[trial.lease]
            if isinstance(trial.error, Exception):
                background.force(self.failed(trial.error, lost)[1])
            elif trial.result is not None:
                self.answered(trial.result, lost)
                self._response = None
                await self.discard(trial.result)

        winner = await duel(background, hedge, use.lease.hand_over(), trial, wanted, failed)
        self._use = uses[winner.lease]
        return winner.outcome()

    def _drop_held(self) -> None:
        """Let go of an answer that was to be followed by another attempt."""
        response, self._response = self._response, None
        if response is not None:
            self._drop(response)

    def _drop(self, response: R) -> None:
        tasks = self.driver.background.tasks
        task = asyncio.get_running_loop().create_task(self.discard(response))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


class _Round:
    """The uses of one event loop that have yet to be looked at for the first time. Most are answered before.

    They share one timer: a timer for each would be the largest part of what a watch costs.
    """

    latest: ClassVar[_Round | None] = None
    """The one asked for last: a program seldom has two loops."""
    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _Round]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._waiting: dict[AsyncUse, tuple[AsyncExchange[Any, Any], Any, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop; None once it is gone."""
        return self._loop()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Round:
        found = cls._all.get(loop)
        if found is None:
            found = cls._all.setdefault(loop, cls(loop))
        cls.latest = found
        return found

    def add(self, use: AsyncUse, exchange: AsyncExchange[Any, Any], connection: Any) -> None:
        now = exchange.engine.clock()
        self._waiting[use] = exchange, connection, now
        if self._timer is None:
            self._start(exchange)

    def remove(self, use: AsyncUse) -> None:
        self._waiting.pop(use, None)

    def _start(self, exchange: AsyncExchange[Any, Any]) -> None:
        loop = self._loop()
        if loop is not None:
            first = first_look(exchange.engine.settings.connection.ack_timeout, None)
            self._timer = loop.call_later(first, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = list(self._waiting.items())
        for use, (exchange, connection, since) in waiting:
            if exchange.engine.clock() - since >= first_look(exchange.engine.settings.connection.ack_timeout, None) / 2:
                del self._waiting[use]
                exchange.look_at(use, connection, since)
        if self._waiting:
            self._start(next(iter(self._waiting.values()))[0])


class _Watched:
    """A connection that is looked at while its answer is waited for."""

    def __init__(self, exchange: AsyncExchange[Any, Any], use: AsyncUse, sock: socket.socket, since: float) -> None:
        engine = exchange.engine
        limit = engine.settings.connection.ack_timeout
        self._service, self._node, self._clock = use.lease.service, use.lease.node, engine.clock
        self._timer = LivenessTimer(self._node, since, limit)
        self._watch: Watch | None = Watch(sock, limit, engine.clock, self._gone, partial(exchange.give_up, use))
        self._service.watch(self._node, 1)

    def _gone(self) -> bool:
        if self._timer.due(self._clock()) and self._watch is not None:
            self._watch.probe_soon()
        return self._timer.gone

    def end(self) -> None:
        """The answer has come, or is not waited for any more."""
        watch, self._watch = self._watch, None  # the two would keep each other, and the exchange
        if watch is not None:
            watch.end()
        self._service.watch(self._node, -1)
