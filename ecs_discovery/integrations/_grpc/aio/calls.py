"""RPCs over their attempts, for asyncio: what `grpc.aio` calls a call."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Any
from weakref import ref

import grpc
import grpc.aio
from grpc.aio import EOF, AioRpcError, UsageError

from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._grpc.aio.route import AsyncRoute
from ecs_discovery.integrations._grpc.channels import SubChannel
from ecs_discovery.integrations._grpc.errors import async_error, status_of
from ecs_discovery.integrations._grpc.multi import MultiCallable
from ecs_discovery.integrations._grpc.replay import AsyncReplay
from ecs_discovery.integrations._grpc.rpc import Patience, Rpc

__all__ = ["AsyncMultiCallable", "StreamStreamCall", "StreamUnaryCall", "UnaryStreamCall", "UnaryUnaryCall"]

_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)
_CANCELLED = "Locally cancelled by application!"
_MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."


class AsyncMultiCallable(MultiCallable[AsyncRoute]):
    """One method: calling it begins an RPC."""

    call_class: type[_Call]

    def __call__(
        self,
        request: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        more = {"metadata": metadata, "credentials": credentials, "compression": compression}
        return self.call_class(self, request, timeout, wait_for_ready, more)


class _Writes:
    """The requests that an application writes, as a stream. A write is done when the next request is asked for."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[None] | None]] = asyncio.Queue()
        self._written: asyncio.Future[None] | None = None
        self.ended = False

    def __aiter__(self) -> _Writes:
        return self

    async def __anext__(self) -> Any:
        written, self._written = self._written, None
        if written is not None and not written.done():
            written.set_result(None)
        request, self._written = await self._waiting.get()
        if self._written is None:
            raise StopAsyncIteration
        return request

    def put(self, request: Any) -> asyncio.Future[None]:
        """The future of a write."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((request, written))
        return written

    def end(self) -> None:
        """There are no more."""
        if not self.ended:
            self.ended = True
            self._waiting.put_nowait((None, None))


class _Call(ABC):
    """One RPC. Its first attempt begins at once where that takes no more than a choice; all else is in `_task`."""

    def __init__(
        self, multi: AsyncMultiCallable, request: Any, timeout: float | None, wait: bool | None, more: dict[str, Any]
    ) -> None:
        self._multi = multi
        self._request = request
        self._timeout = timeout
        self._more = more
        self._writes: _Writes | None = None
        self._replay: AsyncReplay | None = None
        if multi.streams:
            if request is None:
                self._writes = request = _Writes()
            self._replay = AsyncReplay(request)
        self._inner: Any = None
        self._given_up: Any = None
        self._rpc: Rpc | None = None
        self._cancelled = False
        self._done = False
        self._error: Exception | None = None
        self._callbacks: list[Callable[[Any], object]] = []
        self._task: asyncio.Task[Any] | None = None
        route = multi.route
        self._began = now = route.engine.clock()
        lease = None if wait else multi.quick_lease(now, timeout)
        if lease is not None:
            try:
                inner = self._start(None, lease, timeout)
            except BaseException:  # interrupted too: no other code knows of the lease
                lease.release()
                raise
            self._began_with(lease, inner)
            return
        route.check_open()
        patience = Patience(route.engine, timeout) if wait else None
        rpc = self._rpc = multi.rpc(timeout, now, self._replay)
        self._task = asyncio.get_running_loop().create_task(self._play(rpc, patience))

    # What a kind of RPC has of its own

    @abstractmethod
    async def _await_attempt(self, inner: Any, lease: Lease) -> Any:
        """Wait until an attempt is as good as any other: its result."""

    @abstractmethod
    def _began_with(self, lease: Lease, inner: Any) -> None:
        """The first attempt began at once."""

    # The attempts

    def _start(self, rpc: Rpc | None, lease: Lease, timeout: float | None) -> Any:
        """Begin an attempt: gRPC's call."""
        multi = self._multi
        route = multi.route
        watched = rpc.may_end() if rpc is not None else multi.idempotent and not multi.streams
        while True:
            sub = route.find(lease.node, False)
            if route.begin(sub, lease, self._give_up if watched else None):
                break
        try:
            request = self._request if self._replay is None else self._replay.attempt()
            inner = self._inner = multi.at(sub)(request, timeout=timeout, **self._more)
        except BaseException:  # interrupted too: no call of gRPC's will end the use
            route.end(sub, lease)
            raise
        inner.add_done_callback(partial(_ended, route, sub, lease))
        return inner

    def _give_up(self) -> None:
        """The endpoint of the attempt in flight seems to be gone."""
        self._given_up = inner = self._inner
        inner.cancel()

    async def _attempt(self, rpc: Rpc, lease: Lease) -> Any:
        rpc.lease, rpc.given_up = lease, False
        observed = rpc.call.observed
        if observed is None:
            return await self._result_of(rpc, self._start(rpc, lease, rpc.timeout()), lease)
        with observed.attempt(lease):
            return await self._result_of(rpc, self._start(rpc, lease, rpc.timeout()), lease)

    async def _result_of(self, rpc: Rpc | None, inner: Any, lease: Lease) -> Any:
        try:
            return await self._await_attempt(inner, lease)
        except asyncio.CancelledError:
            if self._given_up is not inner or self._cancelled:
                inner.cancel()
                raise
        if rpc is not None:
            rpc.given_up = True
        raise AioRpcError(grpc.StatusCode.UNAVAILABLE, details="no answer, and a test connect met silence")

    async def _settle(self, lease: Lease, inner: Any) -> Any:
        """What follows the first attempt, which began at once."""
        multi = self._multi
        try:
            return await self._result_of(None, inner, lease)
        except Exception as error:  # noqa: BLE001  # raised when no attempt follows
            failed = error
        except asyncio.CancelledError:
            lease.release()
            raise
        rpc = self._state(lease)
        rpc.given_up = self._given_up is inner
        route = multi.route
        play = [
            partial(route.driver.resume, route.service, rpc.call, lease, failed, partial(self._attempt, rpc), rpc.judge)
        ]
        del failed
        return await self._told(rpc, play.pop())

    def _state(self, lease: Lease) -> Rpc:
        rpc = self._rpc
        if rpc is None:
            rpc = self._rpc = self._multi.rpc(self._timeout, self._began, self._replay)
            rpc.call.start_attempt(lease.node)
        rpc.lease = lease
        return rpc

    async def _play(self, rpc: Rpc, patience: Patience | None) -> Any:
        """The whole RPC."""
        route = self._multi.route
        while True:
            rpc.observe()
            call = rpc.call
            ready_by = call.deadline_at if call.hard else call.connect_deadline_at
            run = partial(
                route.driver.run, route.service, call, partial(self._attempt, rpc), rpc.judge, ready_by, kind="grpc"
            )
            try:
                return await self._told(rpc, run)
            except Exception as error:
                if patience is None:
                    raise
                try:
                    pause = patience.pause(error)
                except Exception as final:  # noqa: BLE001
                    raise async_error(final, None) from final.__cause__
            await route.driver.sleep(pause)
            rpc = self._rpc = self._multi.rpc(patience.timeout(), route.engine.clock(), self._replay)

    async def _told(self, rpc: Rpc, play: Callable[[], Any]) -> Any:
        """What `play` gives. Raises errors that say what was tried."""
        try:
            result = await play()
        except Exception as error:  # noqa: BLE001  # raised below, with what was tried
            failed = error
        except BaseException as error:  # cancelled
            rpc.over(error)
            raise
        else:
            rpc.over(None)
            return result
        finally:
            del play
        try:
            failed = failed if rpc.answered else async_error(failed, rpc.tried())
            rpc.over(failed)
            raise failed
        finally:
            del failed

    async def _wait(self) -> Any:
        """What `_task` gives. Who is cancelled meanwhile cancels the RPC, as with gRPC's own."""
        task = self._task
        assert task is not None
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _finish(self, error: BaseException | None) -> None:
        if self._done:
            return
        self._done = True
        if isinstance(error, Exception):
            self._error = error
        if self._replay is not None:
            self._replay.close()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    # A call

    def cancel(self) -> bool:
        if self.done():
            return False
        self._cancelled = True
        if self._inner is not None:
            self._inner.cancel()
        if self._task is not None:
            self._task.cancel()
        return True

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._done

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        if self._done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        if self._timeout is None:
            return None
        return max(0.0, self._began + self._timeout - self._multi.route.engine.clock())

    @abstractmethod
    async def _end(self) -> None:
        """Wait until it is over, however it ends."""

    async def _field(self, name: str, of_status: str | None = None, cancelled: Any = None) -> Any:
        await self._end()
        if self._error is not None:
            return getattr(status_of(self._error), of_status or name)
        if self._cancelled or self._inner is None:
            return cancelled
        return await getattr(self._inner, name)()

    async def code(self) -> grpc.StatusCode:
        return await self._field("code", cancelled=grpc.StatusCode.CANCELLED)  # type: ignore[no-any-return]

    async def details(self) -> str:
        return await self._field("details", cancelled=_CANCELLED)  # type: ignore[no-any-return]

    async def trailing_metadata(self) -> Any:
        return await self._field("trailing_metadata", cancelled=grpc.aio.Metadata())

    async def initial_metadata(self) -> Any:
        return await self._field("initial_metadata", cancelled=grpc.aio.Metadata())

    async def debug_error_string(self) -> str:
        return str(await self._field("debug_error_string", "debug", ""))

    async def wait_for_connection(self) -> None:
        while self._inner is None and self._task is not None and not self._task.done():
            await asyncio.wait((self._task,), timeout=0.01)
        if self._inner is not None:
            try:
                await self._inner.wait_for_connection()
            except AioRpcError:
                await self._end()
        if self._error is not None:
            raise self._error

    # Writing

    async def write(self, request: Any) -> None:
        writes = self._writes
        if writes is None:
            raise UsageError(_MIXED)
        if self.done():
            raise asyncio.InvalidStateError("RPC already finished.")
        if writes.ended:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        written = writes.put(request)

        def give_up(_: Any) -> None:
            if not written.done():
                written.set_result(None)

        self.add_done_callback(give_up)
        try:
            await written
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._error is not None:
            raise self._error

    async def done_writing(self) -> None:
        if self._writes is None:
            raise UsageError(_MIXED)
        self._writes.end()


def _ended(route: AsyncRoute, sub: SubChannel, lease: Lease, _: Any) -> None:
    route.end(sub, lease)


class _UnaryResponse(_Call):
    """An RPC with one response."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self._task is not None:
            self._task.add_done_callback(self._task_done)

    async def _await_attempt(self, inner: Any, lease: Lease) -> Any:
        return await inner

    def _began_with(self, lease: Lease, inner: Any) -> None:
        inner.add_done_callback(partial(self._first_done, lease))

    def _first_done(self, lease: Lease, inner: Any) -> None:
        """The first attempt has ended."""
        own = getattr(inner, "_cython_call", None)  # an intercepted call has none, and takes a task to find out
        if own is not None and own.is_ok():
            route = self._multi.route
            if lease.finish(_SUCCESS, route.engine.clock()):
                route.engine.emit(route.service)
            route.service.budget.deposit()
            self._finish(None)
        elif self._cancelled and self._given_up is not inner:
            lease.release()
            self._finish(None)
        elif self._task is None:
            task = inner_loop(inner).create_task(self._settle_first(lease, inner))
            task.add_done_callback(self._task_done)
            self._task = task

    async def _settle_first(self, lease: Lease, inner: Any) -> Any:
        result = await self._settle(lease, inner)
        route = self._multi.route
        if lease.finish(_SUCCESS, route.engine.clock()):  # else another attempt's is the result
            route.engine.emit(route.service)
            route.service.budget.deposit()
        return result

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._finish(None if task.cancelled() else task.exception())

    def __await__(self) -> Generator[Any, None, Any]:
        if self._task is None:
            inner = self._inner
            try:
                return (yield from inner.__await__())
            except AioRpcError:
                if self._task is None:
                    raise
            except asyncio.CancelledError:
                if self._given_up is not inner or self._cancelled:
                    self.cancel()
                    raise
        return (yield from self._wait().__await__())

    async def _end(self) -> None:
        if self._task is None and self._inner is not None:
            await self._inner.code()
        if self._task is not None:
            await asyncio.wait((self._task,))


def inner_loop(inner: Any) -> asyncio.AbstractEventLoop:
    """The event loop that a call of gRPC's belongs to: a done callback may come from another place."""
    loop: asyncio.AbstractEventLoop | None = getattr(inner, "_loop", None)
    return loop if loop is not None else asyncio.get_event_loop()


class _StreamResponse(_Call):
    """An RPC with a stream of responses. It goes elsewhere until the first of them."""

    def __init__(self, *args: Any) -> None:
        self._first: list[Any] = []
        self._style: str | None = None
        self._kept: Lease | None = None
        self._read_first = False
        super().__init__(*args)
        if self._task is not None:
            self._task.add_done_callback(self._first_came)

    def _began_with(self, lease: Lease, inner: Any) -> None:
        self._task = asyncio.get_running_loop().create_task(self._settle(lease, inner))

    async def _await_attempt(self, inner: Any, lease: Lease) -> Any:
        message = await inner.read()
        if message is EOF:
            code = await inner.code()
            if code is not grpc.StatusCode.OK:
                raise AioRpcError(
                    code,
                    await inner.initial_metadata(),
                    await inner.trailing_metadata(),
                    await inner.details(),
                    await inner.debug_error_string(),
                )
        route = self._multi.route
        self._kept = kept = lease.hand_over()
        inner.add_done_callback(lambda _: kept.release())
        for sub in route.all():
            if sub.active.get(lease) is not None:
                sub.active[lease] = None  # no longer to be ended by the watch
        if route.service.observe(lease.node, _SUCCESS, route.engine.clock()):
            route.engine.emit(route.service)
        return message

    def _first_came(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._finish(error)
            return
        here = ref(self)  # the RPC ends when the application drops it: nothing that gRPC holds may hold it

        def finish(_: Any) -> None:
            call = here()
            if call is not None:
                call._finish(None)

        self._inner.add_done_callback(finish)

    async def _next(self) -> Any:
        if not self._read_first:
            message = await self._wait()
            if not self._read_first:
                self._read_first = True
                return message
        if self._error is not None:
            raise self._error
        if self._inner.done() and self._cancelled:
            raise asyncio.CancelledError
        try:
            return await self._inner.read()
        except AioRpcError as error:
            failed = error
        except asyncio.CancelledError:
            self.cancel()
            raise
        raise self._broke_off(failed)

    def _broke_off(self, error: AioRpcError) -> Exception:
        route, lease = self._multi.route, self._kept
        assert lease is not None  # it has begun
        rpc = self._state(lease)
        rpc.given_up = False
        judgement, now = rpc.judge(None, error), route.engine.clock()
        if route.service.observe(lease.node, judgement.outcome, now):
            route.engine.emit(route.service)
        if rpc.answered:
            self._error = error
            return error
        kind = "" if judgement.failure is None else judgement.failure.value
        rpc.call.report(lease.node, judgement.label, kind, lease.started_at, now)
        rpc.call.stop("responses had been read")
        self._error = async_error(error, rpc.tried())
        return self._error

    def __aiter__(self) -> AsyncIterator[Any]:
        self._use_style("iterator")
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Any]:
        while True:
            message = await self._next()
            if message is EOF:
                await self._check_end()
                return
            yield message

    async def read(self) -> Any:
        self._use_style("reader")
        message = await self._next()
        if message is EOF:
            await self._check_end()
        return message

    async def _check_end(self) -> None:
        """Raises what the stream ended in, if that is no `OK`."""
        inner = self._inner
        code = await inner.code()
        if self._error is None and code is not grpc.StatusCode.OK:
            if self._cancelled:
                raise asyncio.CancelledError
            raise self._broke_off(
                AioRpcError(
                    code,
                    await inner.initial_metadata(),
                    await inner.trailing_metadata(),
                    await inner.details(),
                    await inner.debug_error_string(),
                )
            )

    def _use_style(self, style: str) -> None:
        if self._style is None:
            self._style = style
        elif self._style != style:
            raise UsageError(_MIXED)

    async def _end(self) -> None:
        assert self._task is not None
        await asyncio.wait((self._task,))
        if self._error is None and not self._cancelled and self._inner is not None:
            await self._inner.code()

    async def initial_metadata(self) -> Any:
        assert self._task is not None
        await asyncio.wait((self._task,))
        if self._error is not None or self._cancelled:
            return await self._field("initial_metadata", cancelled=grpc.aio.Metadata())
        return await self._inner.initial_metadata()

    def __del__(self) -> None:
        inner = getattr(self, "_inner", None)
        if inner is not None and not inner.done():
            inner.cancel()


class UnaryUnaryCall(_UnaryResponse, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """One request, one response."""


class StreamUnaryCall(_UnaryResponse, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """A stream of requests, one response."""


class UnaryStreamCall(_StreamResponse, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One request, a stream of responses."""


class StreamStreamCall(_StreamResponse, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """Streams both ways."""
