"""No waits: for tests in which something fails on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ecs_discovery.client.engine import Engine, attach_everywhere, detach_everywhere
from ecs_discovery.config.policies import RetryPolicy, TimeoutPolicy
from ecs_discovery.config.settings import ServiceConfig, Settings
from ecs_discovery.core.service import Service

__all__ = ["no_waits"]

CONNECT, DEADLINE = 0.2, 2.0  # seconds


@contextmanager
def no_waits(*, connect: float = CONNECT, deadline: float = DEADLINE) -> Iterator[None]:
    """In the block no retry of any discovery of the process waits, and time limits are short.

    `connect` and `deadline` are seconds. They take the place of longer times in every `TimeoutPolicy`.
    The block changes the discoveries that are there, and the discoveries that are made in it. At its end the former are
    as before.
    A `tenacity` policy of the application's keeps its own waits.
    """
    quick = _Quick(TimeoutPolicy(connect=connect, deadline=deadline))
    attach_everywhere(quick)
    try:
        yield
    finally:
        detach_everywhere(quick)
        quick.undo()


class _Quick:
    def __init__(self, timeout: TimeoutPolicy) -> None:
        self._timeout = timeout
        self._engines: list[tuple[Engine, Settings]] = []
        self._services: list[tuple[Service, RetryPolicy, TimeoutPolicy]] = []

    def attach(self, engine: Engine) -> None:
        """Called for each engine of the process."""
        directory = engine.directory
        old = directory.settings
        self._engines.append((engine, old))
        for service in directory.services():
            self._services.append((service, service.retry, service.timeout))
            service.retry, service.timeout = _without_pause(service.retry), self._shorter(service.timeout)
        directory.settings = replace(
            old,
            retry=_without_pause(old.retry),
            timeout=self._shorter(old.timeout),
            services=tuple((name, self._config(config)) for name, config in old.services),
        )

    def undo(self) -> None:
        for service, retry, timeout in self._services:
            service.retry, service.timeout = retry, timeout
        known = {id(service) for service, _, _ in self._services}
        for engine, settings in self._engines:
            engine.directory.settings = settings
            for service in engine.directory.services():
                if id(service) not in known:  # made in the block
                    config = next((each for name, each in settings.services if name == service.target), None)
                    service.retry = (config and config.retry) or settings.retry
                    service.timeout = (config and config.timeout) or settings.timeout

    def _shorter(self, timeout: TimeoutPolicy) -> TimeoutPolicy:
        return TimeoutPolicy(
            connect=min(timeout.connect, self._timeout.connect), deadline=min(timeout.deadline, self._timeout.deadline)
        )

    def _config(self, config: ServiceConfig) -> ServiceConfig:
        return ServiceConfig(
            config.sources,
            tls_name=config.tls_name,
            balancing=config.balancing,
            outlier=config.outlier,
            retry=config.retry and _without_pause(config.retry),
            timeout=config.timeout and self._shorter(config.timeout),
            zone=config.zone,
            hedge=config.hedge,
            health_check=config.health_check,
        )


def _without_pause(retry: RetryPolicy) -> RetryPolicy:
    return replace(retry, backoff_min=0.0, backoff_max=0.0)
