"""An ECS on loopback: tasks with faults to switch, a registry, deployments, DNS as Route 53 answers it, and Cloud Map.

    with Lab(namespace="prod.local", seed=1) as lab:
        orders = lab.service("orders", tasks=3, records="A+SRV")
        orders.tasks[0].slow(0.5)
        orders.deploy(stop="vanish")

The project's demo, tests and benchmarks run on it; it needs no network, no AWS and no special rights.
"""

from __future__ import annotations

try:
    import dns  # noqa: F401
    import h11  # noqa: F401
except ModuleNotFoundError as error:
    missing = "dnspython" if error.name == "dns" else error.name
    raise ImportError(f"the lab needs {missing}: from a clone, pip install '.[lab]'") from error

from ecs_discovery.testing.lab.chaos import Chaos, chaos
from ecs_discovery.testing.lab.cloud_map import CloudMap
from ecs_discovery.testing.lab.ecs import Lab
from ecs_discovery.testing.lab.faults import (
    CloudMapFault,
    DnsFault,
    Drain,
    Errors,
    Fault,
    Hang,
    Refuse,
    Reset,
    Slow,
    Vanish,
)
from ecs_discovery.testing.lab.nameserver import NameServer
from ecs_discovery.testing.lab.service import Deployment, LabService
from ecs_discovery.testing.lab.tasks import LabTask, TaskState

__all__ = [
    "Chaos",
    "CloudMap",
    "CloudMapFault",
    "Deployment",
    "DnsFault",
    "Drain",
    "Errors",
    "Fault",
    "Hang",
    "Lab",
    "LabService",
    "LabTask",
    "NameServer",
    "Refuse",
    "Reset",
    "Slow",
    "TaskState",
    "Vanish",
    "chaos",
]
