"""What the fixtures of the pytest plugin give, beyond the kit itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_discovery.testing.checks import assert_attempts, assert_spread
from ecs_discovery.testing.lab import Lab
from ecs_discovery.testing.recorder import Recorder, short, snapshots

__all__ = ["LabUnderTest", "shown"]


class LabUnderTest(Lab):
    """A lab that keeps the calls of the application, to assert what came of them."""

    def __init__(self, *, namespace: str, seed: int) -> None:
        super().__init__(namespace=namespace, seed=seed)
        self.recorder = Recorder()
        """The calls and attempts of every discovery."""

    def close(self) -> None:
        """As `Lab.close`."""
        self.recorder.close()
        super().close()

    def assert_spread(self, name: str, *, within: float = 0.25) -> None:
        """Assert that each task of a service got its share of the requests, within this share of the mean.

        Tasks count that never had a fault and still run.
        """
        tasks = [task for task in self.services[name].tasks if task.was_well]
        assert_spread({f"{task.address}:{task.port}": task.requests for task in tasks}, within=within)

    def assert_attempts(self, name: str, *, at_most: float) -> None:
        """Assert that the calls of a service took at most so many attempts each, on average.

        Raises `AssertionError` too if there were no calls of a service with this short name.
        """
        called = sorted({short(began.target) for began, _ in self.recorder.calls})
        if name not in called:
            raise AssertionError(f"no calls of {name!r}; calls were of: {', '.join(called) or 'nothing'}")
        assert_attempts(self.recorder.attempts_per_call(name), at_most=at_most)


def shown(fixtures: Mapping[str, Any], seed: int) -> str:
    """What the report of a failed test says."""
    lines = [f"seed {seed} (again with --ecs-seed={seed})"]
    for world in getattr(fixtures.get("ecs_world"), "made", ()):
        lines.append(f"{world!r}: {world.report()!r}")
        lines += [f"  {request}" for request in world.failed[:3]]
    if "ecs_events" in fixtures:
        lines += [f"event: {event}" for event in [*fixtures["ecs_events"]][-10:]]
    if "ecs_lab" in fixtures:
        lines += [repr(service) for service in fixtures["ecs_lab"].services.values()]
        lines += [f"  {task!r}" for service in fixtures["ecs_lab"].services.values() for task in service.tasks]
    return "\n".join((*lines, *snapshots()))
