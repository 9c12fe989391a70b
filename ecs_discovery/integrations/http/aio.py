"""One request over its attempts, for asyncio. It stands in the same order as `sync.py`; the two differ in awaits."""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from collections.abc import Awaitable
from functools import partial
from typing import Any, TypeVar

from ecs_discovery.client.aio.driver import AsyncDriver
from ecs_discovery.client.aio.hedging import Trial, duel
from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.client.engine import Engine
from ecs_discovery.client.failures import forget
from ecs_discovery.client.hedge import Hedge
from ecs_discovery.core.calls.liveness import LivenessTimer
from ecs_discovery.core.lease import Lease
from ecs_discovery.errors import DeadlineExceeded
from ecs_discovery.integrations.http.errors import without_frames
from ecs_discovery.integrations.http.exchange import AttemptUse, Exchange, R
from ecs_discovery.integrations.http.liveness import PeerSilentError
from ecs_discovery.runtime.tcp_info import Watch, first_look

__all__ = ["AsyncExchange", "AsyncUse"]


Connection = asyncio.BaseTransport | socket.socket


class AsyncUse(AttemptUse):
    """One attempt's use of an endpoint, in a task.

    What belongs to a watch has a value once it is `watched`: most uses are over before.
    """

    __slots__ = ("cancelling", "gone", "task", "waits_in", "watches")

    task: asyncio.Task[Any] | None
    """What sends it and waits for its answer, if it may go elsewhere. None where `aborts` is true."""
    waits_in: dict[AsyncUse, Any] | None
    """Where it waits, or has waited, for the first look at its connection."""
    watches: tuple[_Watched, ...]
    gone: bool
    """Its host was found to be gone."""
    cancelling: int
    """How often its task had been cancelled by then."""


A = TypeVar("A", bound=AsyncUse)


class AsyncExchange(Exchange[R, A]):
    """See `Exchange`."""

    __slots__ = ()

    driver: AsyncDriver
    aborts: bool = False
    """A connection serves one use at a time: it is closed when its host is gone. Else the use's task is cancelled."""

    # What a library supplies

    @abstractmethod
    def send(self, use: A) -> Awaitable[R]:
        """Send the request to the use's endpoint: the answer, as much of it as is to be part of this attempt."""

    async def read_more(self, response: R, use: A) -> None:
        """The answer is not all there: wait for as much of it as is to be part of this attempt, if `send` has not."""

    def ended(self, use: A) -> None:
        """The use was sent, or was not. The library lets go of what belongs to the exchange."""
        if use.watched:
            self._end_watch(use)

    async def discard(self, response: R) -> None:
        """Let go of an answer that is not wanted."""

    def cancelled(self, error: asyncio.CancelledError) -> Exception | None:
        """What the library means where it cancels its own task; None if the application cancels."""
        return None

    # The attempts

    async def run(self) -> R:
        """The answer. Raises errors that are both the library's and a `DiscoveryError`."""
        try:
            lease = self.begins()
            if lease is not None:
                # Nearly always. It stands here, and not in a coroutine of its own, because that takes longer.
                if self.service.work.due:
                    self.driver.background.work(self.service)
                use = self._use = self.make_use(lease)
                try:
                    use.task = asyncio.current_task() if use.replayable and not self.aborts else None
                    try:
                        response = await self.send(use)
                        if not use.done:
                            await self.read_more(response, use)
                    except BaseException as error:
                        self._raise_if_gone(use, error)
                        raise
                    finally:
                        use.task = None  # it would keep the answer
                        self.ended(use)
                except Exception as error:  # noqa: BLE001  # raised when no attempt follows
                    ended = [self._failed(error)]  # popped below: a variable would keep the error, and it this frame
                except BaseException:  # cancelled: the use is over, and says nothing of the endpoint
                    use.lease.release()
                    raise
                else:
                    decision = self.answered(response, use)
                    if decision is None:
                        return response
                    ended = [AttemptResult(response, None, decision)]
                return await self.driver.go_on(ended.pop(), self.attempt)
            call = self.call
            if not call.hard:
                response = await (self._run() if call.own_policy is None else self.by_own_policy())
                self.over(None)
                return response
            limit = asyncio.timeout(max(0.0, call.deadline_at - self.engine.clock()))
            try:
                async with limit:
                    response = await (self._run() if call.own_policy is None else self.by_own_policy())
                self.over(None)
                return response
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
        except BaseException as error:  # cancelled
            self._drop_held()
            why = self.cancelled(error) if isinstance(error, asyncio.CancelledError) else None
            self.over(why or error)
            if why is not None:
                raise why from error
            raise
        self._drop_held()
        try:
            failed = self.error_for_caller(failed)
            self.over(failed)
            raise failed  # outside of the block: its context is none of the reader's business
        finally:
            del failed  # kept in this frame, the error would keep the frame

    async def by_own_policy(self) -> R:
        """The attempts as the application's tenacity object wants them."""
        return await self.driver.pursue(self.call, self.attempt)

    async def _run(self) -> R:
        return await self.driver.go_on(await self.attempt(), self.attempt)

    async def attempt(self) -> AttemptResult[R]:
        """One attempt, recorded."""
        use = self._use = self.make_use(await self._start())
        try:
            response = await self._hedged(use)
        except Exception as error:  # noqa: BLE001  # raised when no attempt follows
            return self._failed(error)
        except BaseException:  # cancelled: the use is over, and says nothing of the endpoint
            self._use.lease.release()
            raise
        return AttemptResult(response, None, self.answered(response, self._use))

    def watch(self, use: A, connection: Connection) -> None:
        """Give the use up should the host behind `connection` vanish. The library's `send` calls it when it has sent.

        Does nothing where the request must not be sent again; Linux only (`TCP_INFO`)."""
        if not use.replayable:
            return
        loop, here = asyncio.get_running_loop(), self.driver.first_looks
        if here is None or here.loop is not loop:
            here = self.driver.first_looks = _FirstLooks(loop, self.engine)
        self._begin_watch(use)
        waiting = use.waits_in = here.waiting
        waiting[use] = self, connection, self.engine.clock()
        if here.timer is None:
            here.start()

    def look_at(self, use: A, connection: Connection, since: float) -> None:
        """It has waited for some time: look whether the host behind the connection is there, now and again."""
        self._begin_watch(use)
        use.watches = (*use.watches, _Watched(self, use, connection, since))

    async def _watched(self, use: A) -> R:
        try:
            use.task = asyncio.current_task() if use.replayable and not self.aborts else None
            response = await self.send(use)
            if not use.done:
                await self.read_more(response, use)
            return response
        except BaseException as error:
            self._raise_if_gone(use, error)
            raise
        finally:
            use.task = None
            self.ended(use)

    def _raise_if_gone(self, use: A, error: BaseException) -> None:
        if not use.watched or not use.gone:
            return
        task, cancelled = use.task, isinstance(error, asyncio.CancelledError)
        if not cancelled if task is None else cancelled and task.uncancel() <= use.cancelling:
            raise PeerSilentError(f"{use.lease.endpoint} has vanished") from error

    def _begin_watch(self, use: A) -> None:
        if not use.watched:
            use.watched, use.waits_in, use.watches, use.gone = True, None, (), False

    def _end_watch(self, use: A) -> None:
        if use.waits_in is not None:
            use.waits_in.pop(use, None)
        for watch in use.watches:
            watch.end()
        use.watches = ()

    def give_up(self, use: A, connection: Connection) -> None:
        """The host of the use is gone."""
        if use.gone:
            return  # one of several connections has said so already
        task = use.task
        if task is not None:
            use.gone, use.cancelling = True, task.cancelling()
            task.cancel()
        elif self.aborts and isinstance(connection, asyncio.Transport):
            use.gone = True
            connection.abort()

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
        if service.work.due:
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
            return await self._observed(use)
        hedge = Hedge(self.engine, hedging, self.call, use.lease)
        if hedge.delay is None:
            response = await self._observed(use)
            if self.is_wanted(response):
                hedge.won(use.lease)
            return response
        uses: dict[Lease, A] = {}

        def trial(lease: Lease) -> Trial[R]:
            made = uses[lease] = self.make_use(lease)
            return Trial(lease, partial(self._observed, made), drop=self._drop)

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

    async def _observed(self, use: A) -> R:
        observed = self.call.observed
        if observed is None:
            return await self._watched(use)
        with self.observe_attempt(observed, use):
            return await self._watched(use)

    def _drop_held(self) -> None:
        """Let go of an answer that was to be followed by another attempt."""
        response, self._response = self._response, None
        if response is not None:
            self._drop(response)

    def _drop(self, response: R) -> None:
        self.driver.background.tasks.spawn(self.discard(response))


class _FirstLooks:
    """The uses of one event loop that have yet to be looked at for the first time. Most are answered before.

    They share one timer: a timer for each would be the largest part of what a watch costs.
    """

    __slots__ = ("_clock", "_delay", "loop", "timer", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
        self.loop = loop
        self.waiting: dict[AsyncUse, tuple[AsyncExchange[Any, Any], Connection, float]] = {}
        """Each with its exchange, its connection, and since when it waits."""
        self.timer: asyncio.TimerHandle | None = None
        self._clock = engine.clock
        self._delay = first_look(engine.settings.connection.ack_timeout, None)

    def start(self) -> None:
        self.timer = self.loop.call_later(self._delay, self._look)

    def _look(self) -> None:
        self.timer = None
        now = self._clock()
        for use, (exchange, connection, since) in list(self.waiting.items()):
            if now - since >= self._delay / 2:
                del self.waiting[use]
                exchange.look_at(use, connection, since)
        if self.waiting:
            self.start()


class _Watched:
    """A connection that is looked at while its answer is waited for."""

    def __init__(self, exchange: AsyncExchange[Any, Any], use: AsyncUse, connection: Connection, since: float) -> None:
        engine = exchange.engine
        sock = connection if isinstance(connection, socket.socket) else connection.get_extra_info("socket")
        give_up = partial(exchange.give_up, use, connection)
        limit = engine.settings.connection.ack_timeout
        self._service, self._node, self._clock = use.lease.service, use.lease.node, engine.clock
        self._timer = LivenessTimer(self._node, since, limit)
        self._watch: Watch | None = Watch(sock, limit, engine.clock, self._gone, give_up)
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
