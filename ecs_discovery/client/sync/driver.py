"""The driver of a `Discovery`: its engine, its background, and the attempts of a call. For threads.

Integrations get this object; an application never sees it. It stands in the same order as `aio/driver.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ecs_discovery.client.engine import Engine
from ecs_discovery.client.failures import Judgement
from ecs_discovery.client.sync import retry
from ecs_discovery.client.sync.background import Background
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service

__all__ = ["Driver"]

T = TypeVar("T")


class Driver:
    """What plays calls: `engine` decides, `background` does the I/O, `sleep` waits."""

    __slots__ = ("background", "engine", "sleep")

    def __init__(self, engine: Engine, sleep: Callable[[float], None]) -> None:
        self.engine = engine
        self.sleep = sleep
        self.background = Background(engine)

    def run(
        self,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], T],
        judge: Callable[[T | None, Exception | None], Judgement],
    ) -> T:
        """Attempts of one call until one is good or no other is allowed; the last result or exception."""

        def once() -> T:
            call.wait = None  # whatever ends this attempt early ends the call
            self.background.wait_for_refresh(service, call)
            lease = self.background.start_attempt(service, call)
            if service.work_due:
                self.background.work(service)
            try:
                result = attempt(lease)
            except Exception as error:
                self.background.force(self.engine.record_attempt(call, lease, judge(None, error), error))
                raise
            except BaseException:  # cancelled or interrupted: the use is over, and says nothing of the endpoint
                lease.release()
                raise
            judgement = judge(result, None)
            self.background.force(self.engine.record_attempt(call, lease, judgement, judgement.label))
            return result

        return self.pursue(call, once)

    def pursue(self, call: Call, once: Callable[[], T]) -> T:
        """Run `once`, which settles each attempt, until `call` is over."""
        if call.own_policy is not None:
            engine = self.engine
            return retry.by_policy(call.own_policy, call, once, engine.clock, engine.rng, self.sleep)
        failed: list[Exception] = []  # taken out below, for kept in this frame the error would keep the frame
        result: T | None = None
        try:
            result = once()
        except Exception as error:
            if call.wait is None:
                raise
            failed.append(error)
        # Outside of the block: else the first error would be the context of the later ones.
        if call.wait is None:
            return result  # type: ignore[return-value]

        def first() -> T:
            if failed:
                raise failed.pop()
            return result  # type: ignore[return-value]

        return retry.go_on(first, once, lambda: call.wait, self.sleep)
