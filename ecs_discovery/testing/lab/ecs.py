"""The lab: addresses, name server, Cloud Map and services on one loop."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from random import Random
from types import TracebackType
from typing import Any, Self

from ecs_discovery.config.targets import check_name
from ecs_discovery.testing.lab import sockets
from ecs_discovery.testing.lab.cloud_map import CloudMap
from ecs_discovery.testing.lab.loop import LoopThread
from ecs_discovery.testing.lab.nameserver import NameServer
from ecs_discovery.testing.lab.registry import Listing
from ecs_discovery.testing.lab.service import LabService
from ecs_discovery.testing.lab.tasks import LabTask
from ecs_discovery.testing.lab.zone import RecordKind, Routing, Zone

__all__ = ["Lab"]

_ADDRESS_ATTEMPTS = 16
_KEPT = 600.0  # seconds that sockets of a vanished task are held: clients have given up by then


class Lab:
    """An ECS cluster with its namespace on loopback, in one thread of this process.

    Each task has a 127.x.y.z of its own and all tasks of a service listen on one port, as with awsvpc. Where only
    127.0.0.1 can be bound (macOS), ports stand for addresses. Every task is on 127.0.0.1 with a port of its own, and
    services register SRV records only, as in bridge mode. `single_address` asks for that anywhere.
    `packet_filter=False` does without the socket filter that `Vanish` uses on Linux.

    `seed` makes task ids, the records that answers show and drawn errors repeatable. Addresses are chosen afresh each
    time, so that labs in several processes do not meet. Everything here may be called from any thread."""

    def __init__(
        self,
        *,
        namespace: str = "prod.local",
        seed: int | None = None,
        single_address: bool | None = None,
        packet_filter: bool | None = None,
    ) -> None:
        self.namespace = check_name("namespace", namespace)
        self.single_address = not sockets.has_loopback_network() if single_address is None else single_address
        """True if ports stand for addresses."""
        self.can_vanish = sockets.can_drop_packets() if packet_filter is None else packet_filter
        """True if open connections of a task can be silenced."""
        self._rng = Random(seed)
        self._cloud_map_rng = Random(seed)  # of its own: what one side draws does not change the other's answers
        self._addresses = _addresses(self.single_address)
        self._services: dict[str, LabService] = {}
        self._kept: deque[tuple[float, socket.socket]] = deque()  # of vanished tasks: closed, they would be heard of
        self._zone = Zone(self.namespace, self._rng)
        self._thread = LoopThread(f"ecs-lab-{self.namespace}")
        try:
            self.dns = NameServer(self._thread, self._zone, self._rng, next(self._addresses))
            self.cloud_map = CloudMap(self._thread, self.namespace, self._cloud_map_rng, next(self._addresses))
        except BaseException:  # interrupted too: the thread would go on without an owner
            self._thread.close()
            raise

    def __repr__(self) -> str:
        return f"<Lab {self.namespace} dns {self.nameserver} {len(self._services)} services>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def nameserver(self) -> str:
        """Where the name server listens, as `address:port`."""
        return f"{self.dns.address}:{self.dns.port}"

    @property
    def services(self) -> dict[str, LabService]:
        """The services by name."""
        return dict(self._services)

    def service(
        self,
        name: str,
        *,
        tasks: int = 1,
        ttl: float = 10.0,
        records: RecordKind = "A",
        port: int | None = None,
        dynamic_ports: bool = False,
        routing: Routing = "MULTIVALUE",
        registration_lag: float = 0.0,
        deregistration_lag: float = 0.0,
        ssl_context: ssl.SSLContext | None = None,
        cluster: str = "default",
        family: str | None = None,
        instance_port: bool = True,
    ) -> LabService:
        """Create a service with `tasks` running tasks, registered and visible in DNS and Cloud Map at once.

        `port` is the same for all tasks; None or 0: a free port. With `dynamic_ports` each task has another, as in
        bridge mode. DNS shows later changes after `registration_lag` and `deregistration_lag` seconds. With an
        `ssl_context` the tasks speak TLS. `cluster` and `family` (the task definition's; None: the name) are attributes
        in Cloud Map; without `instance_port` there is no `AWS_INSTANCE_PORT`. Raises `ValueError` for a name that is
        taken or settings that make no sense."""
        name = check_name("service", name)
        listing = Listing(
            name, self._cloud_map_rng, cluster=cluster, family=family or name, instance_port=instance_port
        )
        service = LabService(
            self._thread,
            self._zone,
            name,
            records="SRV" if self.single_address else records,
            port=port or 0,
            dynamic_ports=dynamic_ports or self.single_address,
            ttl=ttl,
            routing=routing,
            registration_lag=registration_lag,
            deregistration_lag=deregistration_lag,
            make_task=lambda address, number: self._make_task(address, number, ssl_context),
            can_vanish=self.can_vanish,
            listing=listing,
            health_lag=lambda: self.cloud_map.health_lag,
        )
        self._thread.call(lambda: self._admit(service, tasks))
        return service

    def snapshot(self) -> dict[str, Any]:
        """Services, their tasks and what DNS shows of them now, as plain values for display."""
        return {
            "namespace": self.namespace,
            "nameserver": self.nameserver,
            "queries": self.dns.total,
            "cloud_map": self.cloud_map.endpoint_url,
            "calls": self.cloud_map.total,
            "services": {name: service.snapshot() for name, service in self.services.items()},
        }

    def close(self) -> None:
        """End all tasks and the name server, close every socket and join the thread. Twice is once."""
        self._thread.close(self._end)

    def _admit(self, service: LabService, tasks: int) -> None:
        self._zone.serve(service.visible)
        self.cloud_map.serve(service.listing)
        try:
            for _ in range(tasks):
                service.start_task()
        except OSError:
            service.end()
            self._zone.forget(service.visible)
            self.cloud_map.forget(service.listing)
            raise
        service.apply_pending()
        self._services[service.name] = service

    def _end(self) -> None:
        for service in self._services.values():
            service.end()
        self.dns.end()
        self.cloud_map.end()
        for _, sock in self._kept:
            sockets.reset(sock)
            sock.close()

    def _make_task(self, address: str | None, port: int, ssl_context: ssl.SSLContext | None) -> LabTask:
        return LabTask(
            self._thread,
            self._bind(address, port),
            task_id=f"{self._rng.getrandbits(128):032x}",
            rng=self._rng,
            keep=self._keep,
            ssl_context=ssl_context,
            filtered=self.can_vanish,
        )

    def _keep(self, sock: socket.socket) -> None:
        now = time.monotonic()
        self._kept.append((now, sock))
        while now - self._kept[0][0] > _KEPT:
            self._kept.popleft()[1].close()

    def _bind(self, address: str | None, port: int) -> socket.socket:
        if address is not None:
            return sockets.bind(address, port)
        for _ in range(_ADDRESS_ATTEMPTS - 1):
            with contextlib.suppress(OSError):
                return sockets.bind(next(self._addresses), port)
        try:
            return sockets.bind(next(self._addresses), port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(errno.EADDRINUSE, f"port {port} is in use on every loopback address") from error
            raise


def _addresses(single: bool) -> Iterator[str]:
    """Loopback addresses without end, from a place that is not repeatable on purpose.

    127.0.0.0/16 is left to others, and 127.255.0.0/16 to Service Connect, whose aliases are there.
    """
    if single:
        while True:
            yield "127.0.0.1"
    number = random.SystemRandom().randrange(254 * 256 * 254)
    while True:
        number = (number + 1) % (254 * 256 * 254)
        rest, last = divmod(number, 254)
        second, third = divmod(rest, 256)
        yield f"127.{second + 1}.{third}.{last + 1}"
