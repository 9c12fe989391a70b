"""RPCs with one response, for threads: blocking, and as futures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._grpc.errors import sync_error
from ecs_discovery.integrations._grpc.multi import MultiCallable
from ecs_discovery.integrations._grpc.replay import Replay
from ecs_discovery.integrations._grpc.rpc import Patience, Rpc
from ecs_discovery.integrations._grpc.sync.future import FutureCall
from ecs_discovery.integrations._grpc.sync.route import Route

__all__ = ["StreamUnary", "UnaryUnary"]

_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)


class _Unary(MultiCallable[Route]):
    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._play(False, request, timeout, wait_for_ready, (metadata, credentials, None, compression))

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._play(True, request, timeout, wait_for_ready, (metadata, credentials, None, compression))

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return FutureCall(self, request, timeout, wait_for_ready, (metadata, credentials, None, compression))

    def _play(self, with_call: bool, request: Any, timeout: float | None, wait: bool | None, rest: Any) -> Any:
        route = self.route
        engine = route.engine
        now = engine.clock()
        lease = None if wait else self.quick_lease(now, timeout)
        replay = Replay(request) if self.streams else None
        if lease is None:
            return self._in_full(with_call, request, timeout, wait, rest, replay)
        try:
            while True:
                sub = route.find(lease.node, self._safe)
                if route.begin(sub, lease, partial(route.shut, sub) if self._safe else None):
                    break
            callable_ = self._found.get(sub) or self.at(sub)
        except BaseException:  # interrupted too: no other code knows of the lease
            lease.release()
            raise
        try:
            if replay is not None:
                request = replay.attempt()
            result = (callable_.with_call if with_call else callable_)(request, timeout, *rest)
        except Exception as error:  # noqa: BLE001  # raised when no attempt follows
            failed = error
            given_up = route.end(sub, lease)
        except BaseException:  # interrupted: the use is over, and says nothing of the endpoint
            route.end(sub, lease)
            lease.release()
            raise
        else:
            route.end(sub, lease)
            if lease.finish(_SUCCESS, engine.clock()):
                engine.emit(route.service)
            route.service.budget.deposit()
            return result
        rpc = self.rpc(timeout, now, replay)
        rpc.lease, rpc.given_up = lease, given_up
        rpc.call.start_attempt(lease.node)
        attempt = partial(self._attempt, rpc, with_call, request, rest)
        play = [partial(route.driver.resume, route.service, rpc.call, lease, failed, attempt, rpc.judge)]
        del failed  # kept in this frame, the error would keep the frame
        return self._told(rpc, play.pop())

    def _in_full(
        self, with_call: bool, request: Any, timeout: float | None, wait: bool | None, rest: Any, replay: Replay | None
    ) -> Any:
        if not wait:
            return self._round(with_call, request, timeout, rest, replay)
        route = self.route
        patience = Patience(route.engine, timeout)
        while True:
            try:
                try:
                    return self._round(with_call, request, patience.timeout(), rest, replay)
                except Exception as error:  # noqa: BLE001  # raised where another round would not help
                    pause = patience.pause(error)
            except Exception as error:  # noqa: BLE001
                failed = sync_error(error, None)
            else:
                route.driver.sleep(pause)
                continue
            raise failed

    def _round(self, with_call: bool, request: Any, timeout: float | None, rest: Any, replay: Replay | None) -> Any:
        route = self.route
        route.check_open()
        rpc = self.rpc(timeout, route.engine.clock(), replay)
        rpc.observe()
        call = rpc.call
        attempt = partial(self._attempt, rpc, with_call, request, rest)
        ready_by = call.deadline_at if call.hard else call.connect_deadline_at
        return self._told(
            rpc, partial(route.driver.run, route.service, call, attempt, rpc.judge, ready_by, kind="grpc")
        )

    def _told(self, rpc: Rpc, play: Callable[[], Any]) -> Any:
        """What `play` gives. Raises errors that say what was tried."""
        try:
            result = play()
        except Exception as error:  # noqa: BLE001  # raised below, with what was tried
            failed = error
        except BaseException as error:  # interrupted
            rpc.over(error)
            raise
        else:
            rpc.over(None)
            return result
        finally:
            del play  # it holds the first attempt's error
        try:
            failed = failed if rpc.answered else sync_error(failed, rpc.tried())
            rpc.over(failed)
            raise failed  # outside of the block: its context is none of the reader's business
        finally:
            del failed  # kept in this frame, the error would keep the frame

    def _attempt(self, rpc: Rpc, with_call: bool, request: Any, rest: Any, lease: Lease) -> Any:
        """One attempt of those that are made in full."""
        rpc.lease, rpc.given_up = lease, False
        observed = rpc.call.observed
        if observed is None:
            return self._send(rpc, with_call, request, rest, lease)
        with observed.attempt(lease):
            return self._send(rpc, with_call, request, rest, lease)

    def _send(self, rpc: Rpc, with_call: bool, request: Any, rest: Any, lease: Lease) -> Any:
        route, safe = self.route, rpc.may_end()
        while True:
            sub = route.find(lease.node, safe)
            if route.begin(sub, lease, partial(route.shut, sub) if safe else None):
                break
        try:
            callable_ = self.at(sub)
            if rpc.replays is not None:
                request = rpc.replays.attempt()
            return (callable_.with_call if with_call else callable_)(request, rpc.timeout(), *rest)
        finally:
            rpc.given_up = route.end(sub, lease)


class UnaryUnary(_Unary, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]  # not generic when the program runs
    """One request, one response."""


class StreamUnary(_Unary, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """A stream of requests, one response."""
