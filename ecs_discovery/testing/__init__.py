"""Tools to test applications that use ecs_discovery, and this package itself.

With pytest the fixtures are there as soon as the package is installed: `ecs_stub`, `ecs_lab`, `ecs_clock`, `ecs_events`
and `ecs_world`. Without pytest the same things are classes here.

`lab`: real sockets, real time. `simulation`: no sockets, virtual time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecs_discovery.testing.checks import assert_attempts as assert_attempts
    from ecs_discovery.testing.checks import assert_spread as assert_spread
    from ecs_discovery.testing.clock import Clock as Clock
    from ecs_discovery.testing.contract import ResolverContract as ResolverContract
    from ecs_discovery.testing.lab.chaos import Chaos as Chaos
    from ecs_discovery.testing.lab.chaos import chaos as chaos
    from ecs_discovery.testing.quick import no_waits as no_waits
    from ecs_discovery.testing.recorder import EventLog as EventLog
    from ecs_discovery.testing.recorder import Recorder as Recorder
    from ecs_discovery.testing.simulation.report import Report as Report
    from ecs_discovery.testing.simulation.tasks import lognormal as lognormal
    from ecs_discovery.testing.simulation.tasks import steady as steady
    from ecs_discovery.testing.simulation.world import World as World
    from ecs_discovery.testing.stub import NotStubbed as NotStubbed
    from ecs_discovery.testing.stub import Stub as Stub

_HOMES = {
    "checks": ("assert_attempts", "assert_spread"),
    "clock": ("Clock",),
    "contract": ("ResolverContract",),
    "lab.chaos": ("Chaos", "chaos"),
    "quick": ("no_waits",),
    "recorder": ("EventLog", "Recorder"),
    "simulation.report": ("Report",),
    "simulation.tasks": ("lognormal", "steady"),
    "simulation.world": ("World",),
    "stub": ("NotStubbed", "Stub"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME)]  # the table above says it once


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
