"""RPCs with a stream of responses, for threads.

Such an RPC begins when it is called, and goes elsewhere only until its first response. Its use of the endpoint lasts as
long as the stream. How long that is says nothing of the endpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any
from weakref import ref

import grpc

from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.failure_kinds import GOOD
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._grpc.channels import SubChannel
from ecs_discovery.integrations._grpc.errors import status_of, sync_error
from ecs_discovery.integrations._grpc.multi import MultiCallable
from ecs_discovery.integrations._grpc.replay import Replay
from ecs_discovery.integrations._grpc.rpc import Patience, Rpc
from ecs_discovery.integrations._grpc.sync.route import Route

__all__ = ["StreamStream", "UnaryStream"]

_END = object()


class _Use:
    """One attempt's use of an endpoint."""

    __slots__ = ("given_up", "here", "kept", "lease", "over", "route", "sub")

    def __init__(self, route: Route, sub: SubChannel, lease: Lease) -> None:
        self.route = route
        self.sub = sub
        self.lease = lease
        self.here: ref[Any] | None = None
        """gRPC's call. It is ended when the application drops it: nothing that gRPC holds may hold it."""
        self.kept: Lease | None = None
        """The lease of a stream that has begun: it ends with the stream."""
        self.over = False
        """gRPC says that the RPC has ended."""
        self.given_up = False

    def give_up(self) -> None:
        """The endpoint seems to be gone."""
        inner = self.here() if self.here is not None else None
        if inner is not None:
            self.given_up = True
            inner.cancel()

    def keep(self) -> None:
        """The stream has begun."""
        kept = self.lease.hand_over()
        self.kept = kept
        if self.over:
            kept.release()
        elif self.lease in self.sub.active:
            self.sub.active[self.lease] = None  # no longer to be ended by the watch


class StreamCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]  # not generic when the program runs
    """An RPC over its attempts, as gRPC's streams of responses are."""

    def __init__(
        self, multi: MultiCallable[Route], request: Any, timeout: float | None, wait: bool | None, rest: tuple[Any, ...]
    ) -> None:
        self._multi = multi
        self._request = request
        self._timeout = timeout
        self._rest = rest
        self._replay = Replay(request) if multi.streams else None
        self._lock = RLock()
        self._rpc: Rpc | None = None
        self._use: _Use | None = None
        self._inner: Any = None
        self._head: list[Any] = []
        self._has_begun = False
        self._committed = False
        self._cancelled = False
        self._error: Exception | None = None
        self._callbacks: list[Callable[[], object]] = []
        route = multi.route
        self._began = now = route.engine.clock()
        self._patience = Patience(route.engine, timeout) if wait else None
        lease = multi.quick_lease(now, timeout)
        if lease is not None:
            try:
                self._start(lease, timeout)
            except BaseException:  # interrupted too: no other code knows of the lease
                lease.release()
                raise
            return
        route.check_open()
        rpc = self._rpc = multi.rpc(timeout, now, self._replay)
        rpc.observe()
        call = rpc.call
        try:
            background = route.driver.background
            background.ready(route.service, call.deadline_at if call.hard else call.connect_deadline_at)
            lease = background.start_attempt(route.service, call)
            if route.service.work.due:
                background.work(route.service)
            self._begin(rpc, lease)
        except Exception as error:  # noqa: BLE001  # told when the responses are read, as gRPC does
            self._error = sync_error(error, None)
            if self._patience is None:
                rpc.over(self._error)

    # The attempts

    def _start(self, lease: Lease, timeout: float | None) -> _Use:
        """Begin an attempt."""
        multi, rpc = self._multi, self._rpc
        route = multi.route
        watched = rpc.may_end() if rpc is not None else multi.idempotent and not multi.streams
        while True:
            sub = route.find(lease.node, False)
            use = _Use(route, sub, lease)
            if route.begin(sub, lease, use.give_up if watched else None):
                break
        try:
            request = self._request if self._replay is None else self._replay.attempt()
            inner = self._inner = multi.at(sub)(request, timeout, *self._rest)
        except BaseException:  # interrupted too: no call of gRPC's will end the use
            route.end(sub, lease)
            raise
        self._use, use.here = use, ref(inner)
        if not inner.add_callback(partial(_over, ref(self), use, self._callbacks)):
            _over(ref(self), use, self._callbacks)
        if self._cancelled:
            inner.cancel()
        return use

    def _begin(self, rpc: Rpc, lease: Lease) -> _Use:
        rpc.lease, rpc.given_up = lease, False
        if rpc.call.observed is None:
            return self._start(lease, rpc.timeout())
        with rpc.call.observed.attempt(lease):
            return self._start(lease, rpc.timeout())

    def _await_first(self, use: _Use) -> None:
        """Wait for the first response, or the end without one. Raises gRPC's error, which is its call."""
        try:
            self._head = [next(self._inner)]
        except StopIteration:
            self._head = [_END]
        route = self._multi.route
        use.keep()
        if route.service.observe(use.lease.node, Outcome.SUCCESS, route.engine.clock()):
            route.engine.emit(route.service)
        self._has_begun = True

    def _attempt(self, rpc: Rpc, lease: Lease) -> None:
        """One attempt of those that follow the first."""
        use = self._begin(rpc, lease)
        try:
            self._await_first(use)
        finally:
            rpc.given_up = use.given_up

    def _prime(self) -> None:
        """Wait for the first response over all attempts. What stands in its way is in `_error` then."""
        with self._lock:
            while not self._has_begun and (self._error is None or self._patience is not None):
                self._round()
                patience, error = self._patience, self._error
                if error is None or patience is None:
                    return
                try:
                    pause = patience.pause(error)
                    route = self._multi.route
                    route.driver.sleep(pause)
                    self._rpc = self._multi.rpc(patience.timeout(), route.engine.clock(), self._replay)
                    self._error, self._use = None, None
                except Exception as final:  # noqa: BLE001  # told when the responses are read
                    self._patience, self._error = None, sync_error(final, None)

    def _round(self) -> None:
        if self._error is not None:
            return  # it could not begin
        multi, use = self._multi, self._use
        route = multi.route
        rpc = self._rpc
        try:
            if use is None:  # another round
                assert rpc is not None
                call = rpc.call
                ready_by = call.deadline_at if call.hard else call.connect_deadline_at
                route.driver.run(route.service, call, partial(self._attempt, rpc), rpc.judge, ready_by, kind="grpc")
            else:
                try:
                    self._await_first(use)
                except grpc.RpcError as error:
                    failed: Exception = error
                else:
                    if rpc is not None and rpc.call.observed is not None:
                        rpc.call.observed.judged(use.lease, GOOD, None)
                    route.service.budget.deposit()
                    return
                rpc = self._in_words(use)
                if self._committed:
                    rpc.call.replayable = False
                attempt = partial(self._attempt, rpc)
                route.driver.resume(route.service, rpc.call, use.lease, failed, attempt, rpc.judge)
        except Exception as error:  # noqa: BLE001  # told when the responses are read
            assert rpc is not None
            self._error = error if rpc.answered else sync_error(error, rpc.tried())
            rpc.over(self._error)
            self._finish()

    def _in_words(self, use: _Use) -> Rpc:
        """The state of the RPC, made when something first needs it."""
        rpc = self._rpc
        if rpc is None:
            rpc = self._rpc = self._multi.rpc(self._timeout, self._began, self._replay)
            rpc.call.start_attempt(use.lease.node)
        rpc.lease, rpc.given_up = use.lease, use.given_up
        return rpc

    def _broke_off(self, error: Exception) -> Exception:
        """The stream broke off: record it. The error for the caller."""
        use = self._use
        assert use is not None  # it has begun
        rpc, route = self._in_words(use), self._multi.route
        judgement, now = rpc.judge(None, error), route.engine.clock()
        if route.service.observe(use.lease.node, judgement.outcome, now):
            route.engine.emit(route.service)
        if rpc.answered:
            return error
        kind = "" if judgement.failure is None else judgement.failure.value
        rpc.call.report(use.lease.node, judgement.label, kind, use.lease.started_at, now)
        rpc.call.stop("responses had been read")
        return sync_error(error, rpc.tried())

    def _finish(self) -> None:
        """It is over. Those who asked are told."""
        _run(self._callbacks)

    # An iterator

    def __iter__(self) -> StreamCall:
        return self

    def __next__(self) -> Any:
        if not self._has_begun:
            self._prime()
        if self._head:
            first = self._head.pop()
            if first is not _END:
                return first
            self._over(None)
            raise StopIteration
        if self._error is not None:
            raise self._error
        assert self._use is not None
        try:
            return next(self._inner)
        except StopIteration:
            self._over(None)
            raise
        except grpc.RpcError as error:
            failed = error
        self._error = self._broke_off(failed)
        self._over(self._error)
        try:
            raise self._error
        finally:
            del failed

    def next(self) -> Any:
        """As `next()` of it."""
        return self.__next__()

    def _over(self, error: Exception | None) -> None:
        if self._rpc is not None:
            self._rpc.over(error)

    # A call, and a future

    def cancel(self) -> bool:
        self._cancelled = True
        use = self._use
        return bool(self._inner.cancel()) if use is not None else False

    def is_active(self) -> bool:
        use = self._use
        return self._error is None and use is not None and (not use.over or not self._has_begun)

    def time_remaining(self) -> Any:
        if self._timeout is None:
            return None
        return max(0.0, self._began + self._timeout - self._multi.route.engine.clock())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if not self.is_active():
            return False
        self._callbacks.append(callback)
        if not self.is_active():  # it ended just now
            self._finish()
        return True

    def initial_metadata(self) -> Any:
        use = self._use
        if self._error is None and use is not None and not self._has_begun:
            found = self._inner.initial_metadata()
            if found or self._inner.is_active():
                self._committed = True  # what was told of this answer must stay true
                return found
        return self._told("initial_metadata")

    def trailing_metadata(self) -> Any:
        return self._told("trailing_metadata")

    def code(self) -> grpc.StatusCode:
        return self._told("code")  # type: ignore[no-any-return]

    def details(self) -> str:
        return self._told("details")  # type: ignore[no-any-return]

    def debug_error_string(self) -> str:
        return str(self._told("debug_error_string", "debug"))

    def cancelled(self) -> bool:
        use = self._use
        return self._cancelled and (use is None or self._inner.cancelled())

    def running(self) -> bool:
        return self.is_active()

    def done(self) -> bool:
        return not self.is_active()

    def result(self, timeout: float | None = None) -> Any:
        return self._of_future("result", timeout)

    def exception(self, timeout: float | None = None) -> Any:
        if self._error is None:
            self._prime()
        return self._error if self._error is not None else self._of_future("exception", timeout)

    def traceback(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        return None if error is None else error.__traceback__

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        here = ref(self)

        def told() -> None:
            call = here()
            if call is not None:
                fn(call)

        if not self.add_callback(told):
            fn(self)

    def _told(self, name: str, of_status: str | None = None) -> Any:
        self._prime()
        if self._error is not None:
            return getattr(status_of(self._error), of_status or name)
        assert self._use is not None
        return getattr(self._inner, name)()

    def _of_future(self, name: str, timeout: float | None) -> Any:
        self._prime()
        if self._error is not None:
            raise self._error
        assert self._use is not None
        return getattr(self._inner, name)(timeout)


def _over(call: ref[StreamCall], use: _Use, callbacks: list[Callable[[], object]]) -> None:
    """gRPC says that an attempt has ended: in a thread of its own, perhaps after the collector took the call."""
    use.over = True
    use.route.end(use.sub, use.lease)
    owner = call()
    if use.kept is not None:
        use.kept.release()
    elif owner is None or owner._cancelled:
        use.lease.release()
    else:
        return  # whether the RPC is over is known when its responses are read
    _run(callbacks)


def _run(callbacks: list[Callable[[], object]]) -> None:
    while callbacks:
        callbacks.pop(0)()


class _Streaming(MultiCallable[Route]):
    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return StreamCall(self, request, timeout, wait_for_ready, (metadata, credentials, None, compression))


class UnaryStream(_Streaming, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """One request, a stream of responses."""


class StreamStream(_Streaming, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """Streams both ways."""
