"""Services: a registry that DNS lags behind, and deployments that do not wait for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from ecs_discovery.testing.lab.faults import Vanish
from ecs_discovery.testing.lab.loop import LoopThread
from ecs_discovery.testing.lab.registry import Listing
from ecs_discovery.testing.lab.tasks import LabTask, TaskState
from ecs_discovery.testing.lab.zone import Instance, RecordKind, Routing, ServiceRecords, Zone

__all__ = ["Deployment", "LabService", "StopHow"]

StopHow = Literal["kill", "drain", "vanish"]


class Deployment:
    """A deployment in flight."""

    def __init__(self, future: concurrent.futures.Future[None]) -> None:
        self._future = future

    def __repr__(self) -> str:
        return f"<Deployment {'done' if self.done else 'in flight'}>"

    @property
    def done(self) -> bool:
        """True once every old task is replaced and stopped."""
        return self._future.done()

    def wait(self, timeout: float | None = None) -> None:
        """Return when it is done; what went wrong in it is raised here. Raises `TimeoutError`."""
        self._future.result(timeout)


class LabService:
    """A service: its tasks, their registrations, and what DNS shows of them.

    Made by `Lab.service`. Methods may be called from any thread.
    """

    def __init__(
        self,
        thread: LoopThread,
        zone: Zone,
        name: str,
        *,
        records: RecordKind,
        port: int,
        dynamic_ports: bool,
        ttl: float,
        routing: Routing,
        registration_lag: float,
        deregistration_lag: float,
        make_task: Callable[[str | None, int], LabTask],
        can_vanish: bool,
        listing: Listing,
        health_lag: Callable[[], float],
    ) -> None:
        if records not in ("A", "SRV", "A+SRV"):
            raise ValueError(f"records must be 'A', 'SRV' or 'A+SRV', got {records!r}")
        if routing not in ("MULTIVALUE", "WEIGHTED"):
            raise ValueError(f"routing must be 'MULTIVALUE' or 'WEIGHTED', got {routing!r}")
        if dynamic_ports and port:
            raise ValueError(f"tasks cannot have ports of their own and all listen on {port!r}")
        self.name = name
        self.fqdn = f"{name}.{zone.namespace}"
        self.registration_lag = registration_lag
        """Seconds until DNS shows a registration."""
        self.deregistration_lag = deregistration_lag
        """Seconds until DNS no longer shows a deregistered task."""
        self.visible = ServiceRecords(self.fqdn, records, ttl, routing)
        """What DNS answers from now."""
        self.listing = listing
        """What the Cloud Map API answers from now."""
        self._health_lag = health_lag
        self._thread = thread
        self._port = port
        self._dynamic_ports = dynamic_ports
        self._make_task = make_task
        self._can_vanish = can_vanish
        self._tasks: tuple[LabTask, ...] = ()
        self._registry: dict[str, Instance] = {}
        self._pending: dict[str, asyncio.TimerHandle] = {}
        self._background: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        in_dns = len(self.visible.instances)
        return f"<LabService {self.fqdn} {self.visible.kind} {len(self.tasks)} tasks, {in_dns} in DNS>"

    @property
    def tasks(self) -> tuple[LabTask, ...]:
        """The tasks that have not stopped, oldest first."""
        return tuple(task for task in self._tasks if task.state is not TaskState.STOPPED)

    @property
    def all_tasks(self) -> tuple[LabTask, ...]:
        """Every task there ever was, oldest first: their counters outlive them."""
        return self._tasks

    @property
    def requests(self) -> int:
        """Requests that all tasks there ever were have received."""
        return sum(task.requests for task in self._tasks)

    @property
    def port(self) -> int | None:
        """The port of all tasks; None if each has its own, or there was none yet."""
        return None if self._dynamic_ports else self._port or None

    @property
    def ttl(self) -> float:
        """The TTL of the service's records."""
        return self.visible.ttl

    @ttl.setter
    def ttl(self, seconds: float) -> None:
        self.visible.ttl = seconds

    def url(self, path: str = "/", *, scheme: str = "http") -> str:
        """The service's URL: with its port if DNS has addresses, without if the port is for SRV to say."""
        port = f":{self.port}" if self.port and "A" in self.visible.kind else ""
        return f"{scheme}://{self.fqdn}{port}{path}"

    def add_task(self, *, register: bool = True, boot: float = 0.0, address: str | None = None) -> LabTask:
        """Start a task and register it. It refuses connections for the first `boot` seconds, registered or not,
        as tasks without a container health check do. `address` is for taking over the address of a stopped task."""
        return self._thread.call(lambda: self.start_task(register=register, boot=boot, address=address))

    def register(self, task: LabTask) -> None:
        """Tell the registry of a task; DNS shows it after `registration_lag`."""
        self._thread.call(lambda: self._register(task))

    def deregister(self, task: LabTask) -> None:
        """Take a task out of the registry; DNS shows it for `deregistration_lag` more."""
        self._thread.call(lambda: self._deregister(task))

    def set_health(self, task: LabTask, healthy: bool) -> None:
        """Set a task's custom health status. DNS follows with the lag of a registration or deregistration, the
        Cloud Map API after its `health_lag`."""

        def change() -> None:
            self._registry[task.id] = dataclasses.replace(self._registry[task.id], healthy=healthy)
            self._show_later(task.id, self.registration_lag if healthy else self.deregistration_lag)
            self.listing.set_health(task.id, healthy, self._health_lag())

        self._thread.call(change)

    def flush(self) -> None:
        """Have DNS and the Cloud Map API show the registry as it is, without the lag."""
        self._thread.call(self.apply_pending)

    def kill(self, task: LabTask) -> None:
        """The task's process dies and ECS deregisters it. Nothing takes its place."""
        self._thread.call(lambda: self._retire(task, "kill", 0.0))

    def scale(self, tasks: int, *, stop: StopHow = "drain", grace: float = 5.0) -> None:
        """Start or stop tasks until there are that many; the oldest stop first. Does not wait for draining tasks."""

        def change() -> None:
            live = [task for task in self.tasks if task.state is not TaskState.STOPPING]
            for _ in range(tasks - len(live)):
                self.start_task()
            for task in live[: max(len(live) - tasks, 0)]:
                self._retire(task, stop, grace)

        self._thread.call(change)

    def deploy(
        self,
        *,
        batch: int = 1,
        interval: float = 0.5,
        stop: StopHow = "kill",
        grace: float = 5.0,
        boot: float = 0.0,
        background: bool = False,
    ) -> Deployment:
        """Replace all tasks as ECS does: start new tasks, wait `interval`, deregister and stop the old, go on.

        A task is stopped at the moment it is deregistered, whatever its records' TTL. It is stopped by `kill`, by
        `drain` (in-flight requests have `grace` seconds) or by `vanish`: its interface is gone, for good. Returns when
        done, or with `background` at once."""
        if batch < 1:
            raise ValueError(f"batch must be 1 or more, got {batch!r}")
        if stop not in ("kill", "drain", "vanish"):
            raise ValueError(f"stop must be 'kill', 'drain' or 'vanish', got {stop!r}")
        deployment = Deployment(self._thread.spawn(self._replace(batch, interval, stop, grace, boot)))
        if not background:
            deployment.wait()
        return deployment

    def snapshot(self) -> dict[str, Any]:
        """Its tasks and what DNS shows, as plain values for display."""
        return {
            "name": self.fqdn,
            "records": self.visible.kind,
            "ttl": self.ttl,
            "in_dns": list(self.visible.instances),
            "tasks": [
                {
                    "id": task.id,
                    "address": task.address,
                    "port": task.port,
                    "state": task.state.value,
                    "faults": [repr(fault) for fault in task.faults],
                    "requests": task.requests,
                    "open_connections": task.open_connections,
                    "in_flight": task.in_flight,
                }
                for task in self.tasks
            ],
        }

    # What follows runs in the loop's thread.

    def start_task(self, *, register: bool = True, boot: float = 0.0, address: str | None = None) -> LabTask:
        """What `add_task` says."""
        task = self._make_task(address, 0 if self._dynamic_ports else self._port)
        if not self._dynamic_ports:
            self._port = task.port
        self._tasks = (*self._tasks, task)
        if boot > 0:
            asyncio.get_running_loop().call_later(boot, task.start)
        else:
            task.start()
        if register:
            self._register(task)
        return task

    def apply_pending(self) -> None:
        """What `flush` says."""
        for task_id in list(self._pending):
            self._show(task_id)
        self.listing.flush()

    def end(self) -> None:
        """Stop everything, for good."""
        for timer in self._pending.values():
            timer.cancel()
        self._pending.clear()
        self.listing.end()
        for task in self.tasks:
            task.end()

    def _register(self, task: LabTask) -> None:
        self._registry[task.id] = Instance(task.id, task.address, task.port)
        self._show_later(task.id, self.registration_lag)

    def _deregister(self, task: LabTask) -> None:
        if self._registry.pop(task.id, None) is not None:
            self.listing.drop(task.id)
            self._show_later(task.id, self.deregistration_lag)

    def _show_later(self, task_id: str, lag: float) -> None:
        if task_id in self._pending:
            self._pending.pop(task_id).cancel()
        if lag > 0:
            self._pending[task_id] = asyncio.get_running_loop().call_later(lag, self._show, task_id)
        else:
            self._show(task_id)

    def _show(self, task_id: str) -> None:
        timer = self._pending.pop(task_id, None)
        if timer is not None:
            timer.cancel()
        instance = self._registry.get(task_id)
        if instance is None:
            self.visible.instances.pop(task_id, None)
        else:
            self.visible.instances[task_id] = instance
            self.listing.show(instance)

    def _retire(self, task: LabTask, stop: StopHow, grace: float) -> asyncio.Task[None] | None:
        self._deregister(task)
        if task.state is TaskState.STOPPED:
            return None
        if stop == "drain":
            draining = asyncio.get_running_loop().create_task(task.wind_down(grace))
            self._background.add(draining)
            draining.add_done_callback(self._background.discard)
            return draining
        if stop == "vanish":
            task.put_in_force((Vanish(approximate=not self._can_vanish),))
        task.end()
        return None

    async def _replace(self, batch: int, interval: float, stop: StopHow, grace: float, boot: float) -> None:
        old = [task for task in self.tasks if task.state is not TaskState.STOPPING]
        draining: list[asyncio.Task[None]] = []
        for start in range(0, len(old), batch):
            group = old[start : start + batch]
            for _ in group:
                self.start_task(boot=boot)
            await asyncio.sleep(interval)
            for task in group:
                ended = self._retire(task, stop, grace)
                if ended is not None:
                    draining.append(ended)
        await asyncio.gather(*draining)
