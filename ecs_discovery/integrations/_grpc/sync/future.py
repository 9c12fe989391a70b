"""An RPC with one response as a future, for threads.

Its first attempt begins in the caller's thread, and takes none of its own. What follows a failure, or waits for a
lookup, is played in a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Condition
from typing import Any

import grpc

from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._grpc.channels import SubChannel
from ecs_discovery.integrations._grpc.errors import status_of, sync_error
from ecs_discovery.integrations._grpc.multi import MultiCallable
from ecs_discovery.integrations._grpc.replay import Replay
from ecs_discovery.integrations._grpc.rpc import Patience, Rpc
from ecs_discovery.integrations._grpc.sync.route import Route

__all__ = ["FutureCall"]

_SUCCESS = Outcome.SUCCESS


class _Ended(Exception):
    """The application cancelled the RPC."""


class FutureCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]  # not generic when the program runs
    """An RPC over its attempts, as gRPC's futures are."""

    def __init__(
        self, multi: MultiCallable[Route], request: Any, timeout: float | None, wait: bool | None, rest: tuple[Any, ...]
    ) -> None:
        self._multi = multi
        self._request = request
        self._rest = rest
        self._replay = Replay(request) if multi.streams else None
        self._changed = Condition()
        self._done = False
        self._cancelled = False
        self._result: Any = None
        self._error: Exception | None = None
        self._callbacks: list[Callable[[Any], object]] = []
        self._inner: Any = None
        self._given_up: Any = None
        route = multi.route
        engine = route.engine
        now = engine.clock()
        self._deadline_at = None if timeout is None else now + timeout
        lease = None if wait else multi.quick_lease(now, timeout)
        if lease is not None:
            try:
                inner = self._start(None, lease, timeout)
            except BaseException:  # interrupted too: no other code knows of the lease
                lease.release()
                raise
            inner.add_done_callback(partial(self._first_done, lease, timeout, now))
            return
        route.check_open()
        patience = Patience(engine, timeout) if wait else None
        rpc = multi.rpc(timeout, now, self._replay)  # here, where the application's options hold
        self._in_worker(partial(self._play, rpc, patience))

    # The attempts

    def _start(self, rpc: Rpc | None, lease: Lease, timeout: float | None) -> Any:
        """Begin an attempt: gRPC's future."""
        multi = self._multi
        route = multi.route
        watched = rpc.may_end() if rpc is not None else multi.idempotent and not multi.streams
        while True:
            sub = route.find(lease.node, False)
            if route.begin(sub, lease, self._give_up if watched else None):
                break
        try:
            request = self._request if self._replay is None else self._replay.attempt()
            inner = multi.at(sub).future(request, timeout, *self._rest)
        except BaseException:  # interrupted too: no call of gRPC's will end the use
            route.end(sub, lease)
            raise
        with self._changed:
            self._inner = inner
            cancelled = self._cancelled
        inner.add_done_callback(partial(_ended, route, sub, lease))
        if cancelled:
            inner.cancel()
        return inner

    def _give_up(self) -> None:
        """The endpoint of the attempt in flight seems to be gone."""
        self._given_up = inner = self._inner
        inner.cancel()

    def _first_done(self, lease: Lease, timeout: float | None, began: float, inner: Any) -> None:
        """The attempt that the caller's thread began has ended. Runs in a thread of gRPC's."""
        multi = self._multi
        route = multi.route
        service, engine = route.service, route.engine
        if self._cancelled:
            lease.release()
            return
        error = _error_of(inner)
        if error is None:
            if lease.finish(_SUCCESS, engine.clock()):
                engine.emit(service)
            service.budget.deposit()
            self._finish(inner.result(), None)
            return
        try:
            rpc = multi.rpc(timeout, began, self._replay)
            rpc.lease, rpc.given_up = lease, self._given_up is inner
            rpc.call.start_attempt(lease.node)
        except Exception as wrong:  # noqa: BLE001  # handed to the caller
            lease.release()
            self._finish(None, wrong)
            return
        attempt = partial(self._attempt, rpc)
        self._in_worker(
            partial(
                self._settle, rpc, partial(route.driver.resume, service, rpc.call, lease, error, attempt, rpc.judge)
            )
        )

    def _attempt(self, rpc: Rpc, lease: Lease) -> Any:
        """One attempt of those that are played in a worker."""
        rpc.lease, rpc.given_up = lease, False
        if self._cancelled:
            raise _Ended
        observed = rpc.call.observed
        inner = self._start(rpc, lease, rpc.timeout())
        if observed is None:
            return self._wait(rpc, inner)
        with observed.attempt(lease):
            return self._wait(rpc, inner)

    def _wait(self, rpc: Rpc, inner: Any) -> Any:
        error = inner.exception() if not inner.cancelled() else None
        if inner.cancelled() or error is not None:
            rpc.given_up = self._given_up is inner
            if self._cancelled:
                raise _Ended
            raise _error_of(inner) or inner
        return inner.result()

    def _play(self, rpc: Rpc, patience: Patience | None) -> None:
        """The whole RPC."""
        route = self._multi.route
        while True:
            rpc.observe()
            call = rpc.call
            ready_by = call.deadline_at if call.hard else call.connect_deadline_at
            run = partial(
                route.driver.run, route.service, call, partial(self._attempt, rpc), rpc.judge, ready_by, kind="grpc"
            )
            if patience is None:
                self._settle(rpc, run)
                return
            failed = self._outcome(rpc, run)
            if failed is None:
                return
            try:
                pause = patience.pause(failed)
            except Exception as error:  # noqa: BLE001  # handed to the caller
                self._finish(None, sync_error(error, None))
                return
            with self._changed:
                self._changed.wait_for(lambda: self._cancelled, pause)
            if self._cancelled:
                return
            rpc = self._multi.rpc(patience.timeout(), route.engine.clock(), self._replay)

    def _settle(self, rpc: Rpc, play: Callable[[], Any]) -> None:
        failed = self._outcome(rpc, play)
        if failed is not None:
            self._finish(None, failed)

    def _outcome(self, rpc: Rpc, play: Callable[[], Any]) -> Exception | None:
        """Play it: the error, or None if it is done."""
        try:
            result = play()
        except _Ended as error:
            rpc.over(error)
            return None
        except Exception as error:  # noqa: BLE001  # handed to the caller
            failed = error if rpc.answered else sync_error(error, rpc.tried())
            rpc.over(failed)
            return failed
        rpc.over(None)
        self._finish(result, None)
        return None

    def _in_worker(self, job: Callable[[], object]) -> None:
        if not self._multi.route.driver.background.attempts.spawn(job):
            job()  # the discovery is closed: the job finds that out

    def _finish(self, result: Any, error: Exception | None) -> None:
        with self._changed:
            if self._done:
                return
            self._result, self._error, self._done = result, error, True
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            callback(self)

    # A future

    def cancel(self) -> bool:
        with self._changed:
            if self._done:
                return False
            self._cancelled = True
            inner = self._inner
        if inner is not None:
            inner.cancel()
        self._finish(None, None)
        return True

    def cancelled(self) -> bool:
        return self._cancelled and self._done and self._error is None and self._result is None

    def running(self) -> bool:
        return not self._done

    def done(self) -> bool:
        return self._done

    def result(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._result

    def exception(self, timeout: float | None = None) -> Exception | None:
        self._wait_done(timeout)
        if self.cancelled():
            raise grpc.FutureCancelledError
        return self._error

    def traceback(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        return error.__traceback__ if error is not None else None

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        with self._changed:
            if not self._done:
                self._callbacks.append(fn)
                return
        fn(self)

    def _wait_done(self, timeout: float | None) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._done, timeout):
                raise grpc.FutureTimeoutError

    # A call

    def is_active(self) -> bool:
        return not self._done

    def time_remaining(self) -> Any:
        return None if self._deadline_at is None else max(0.0, self._deadline_at - self._multi.route.engine.clock())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._changed:
            if self._done:
                return False
            self._callbacks.append(lambda _: callback())
            return True

    def code(self) -> grpc.StatusCode:
        return self._told("code", grpc.StatusCode.CANCELLED)  # type: ignore[no-any-return]

    def details(self) -> str:
        return self._told("details", "Locally cancelled by application!")  # type: ignore[no-any-return]

    def initial_metadata(self) -> Any:
        return self._told("initial_metadata", ())

    def trailing_metadata(self) -> Any:
        return self._told("trailing_metadata", ())

    def _told(self, name: str, cancelled: Any) -> Any:
        self._wait_done(None)
        if self.cancelled():
            return cancelled
        if self._error is not None:
            return getattr(status_of(self._error), name)
        return getattr(self._inner, name)()


def _ended(route: Route, sub: SubChannel, lease: Lease, _: Any) -> None:
    route.end(sub, lease)


def _error_of(inner: Any) -> Exception | None:
    """The error of a future of gRPC's that is done."""
    if inner.cancelled():
        return inner if isinstance(inner, grpc.RpcError) else None
    error: Exception | None = inner.exception()
    return error
