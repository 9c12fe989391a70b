"""Looking: at the programs that are open to inspection, or else at what the name resolves to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from ecs_discovery.cli.watch.ask import ask, directories, sockets
from ecs_discovery.cli.watch.document import Process, read
from ecs_discovery.cli.watch.frame import Frame, Shares
from ecs_discovery.cli.watch.merge import Program, merge
from ecs_discovery.client.inspection import document
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.errors import DiscoveryError, foreign

__all__ = ["NONE_FOUND", "Gone", "Watcher"]

_ANSWER = 1.5  # seconds that all programs together have for their answers
_RESOLVE = 2.0  # seconds that a first lookup may take
NONE_FOUND = "no program with ECS_DISCOVERY_INSPECT=1 was found: this is what the name resolves to"


class Gone(Exception):
    """The process that was asked for cannot be looked at."""


class Watcher:
    """Looks again and again. `directory` is where programs have their sockets; "" for the usual places."""

    def __init__(
        self,
        name: str,
        pid: int | None,
        directory: str,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._pid = pid
        self._directory = directory
        self._clock = clock
        self._wall_clock = wall_clock
        self._environ = environ
        self._discovery = Discovery(settings=settings)
        self._shares = Shares()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._discovery.close()

    def look(self) -> Frame:
        """What is to be seen now. Raises `Gone`."""
        processes, notices = self._processes()
        programs = self._shares.add(merge(processes), self._clock())
        own, error = None, ""
        if self._pid is None and not any(program.services for program in programs):
            own, error = self._resolved()
            if not programs:
                notices.insert(0, NONE_FOUND)
        return Frame(self._wall_clock(), self._name, programs, own, error, tuple(notices))

    def _processes(self) -> tuple[list[Process], list[str]]:
        if not hasattr(os, "getuid"):
            return [], []
        found, refused = sockets(directories(self._directory, self._environ, os.geteuid()))
        notices = [f"not looked at: {foreign(each)}" for each in refused[:3]]
        if self._pid is not None:
            found = tuple(each for each in found if each.pid == self._pid)
        asked = ask(found, self._name, _ANSWER)
        processes = []
        for pid, text in asked.documents:
            try:
                processes.append(read(text, pid))
            except ValueError as error:
                notices.append(f"process {pid}: what it says of itself is of no use: {foreign(error)}")
        if asked.silent:
            notices.append(f"no answer from process {', '.join(map(str, asked.silent[:8]))}")
        if self._pid is not None and not processes and not asked.silent and not asked.documents:
            raise Gone(f"process {self._pid} is not open to inspection: was it started with ECS_DISCOVERY_INSPECT=1?")
        return processes, notices

    def _resolved(self) -> tuple[Program | None, str]:
        error = ""
        try:
            self._discovery.resolve(self._name, timeout=_RESOLVE)
        except DiscoveryError as failed:
            error = str(failed)
        text = document([self._discovery._engine], self._name)
        (found,) = merge([read(text, os.getpid())])
        services = found.services
        if error:  # which says the same, and in full
            services = tuple(replace(each, seen=replace(each.seen, error="")) for each in services)
        return Program("", "", (), services, found.lookups), error
