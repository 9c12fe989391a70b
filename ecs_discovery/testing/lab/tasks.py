"""Tasks: real HTTP servers on loopback whose faults are switched while they run."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
from collections.abc import Callable
from enum import Enum
from functools import partial
from random import Random

from ecs_discovery.testing.lab import sockets
from ecs_discovery.testing.lab.connection import Connection
from ecs_discovery.testing.lab.faults import Drain, Errors, Fault, Hang, Refuse, Reset, Slow, Vanish
from ecs_discovery.testing.lab.loop import LoopThread
from ecs_discovery.testing.lab.replies import Identity, Reply, Request, reply_to

__all__ = ["Faulty", "LabTask", "TaskState"]


class TaskState(Enum):
    """Where a task is in its life."""

    STARTING = "starting"
    """Its address exists, its process does not listen yet."""
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Faulty:
    """A task with faults, which end where a `with` block ends."""

    def __init__(self, task: LabTask) -> None:
        self.task = task

    def __enter__(self) -> LabTask:
        return self.task

    def __exit__(self, *_: object) -> None:
        self.task.heal()


def _named(name: str) -> Fault:
    kinds: dict[str, type[Fault]] = {
        "refuse": Refuse,
        "reset": Reset,
        "hang": Hang,
        "errors": Errors,
        "drain": Drain,
        "vanish": Vanish,
    }
    if name not in kinds:
        raise ValueError(f"a fault is one of {', '.join(kinds)}, or an object such as Slow(0.5); got {name!r}")
    return kinds[name]()  # type: ignore[call-arg]  # each has defaults but Slow, which is not here


class LabTask:
    """One task of a service: an HTTP server with an address of its own and faults to switch.

    Methods may be called from any thread and have taken effect when they return.
    """

    def __init__(
        self,
        thread: LoopThread,
        listener: socket.socket,
        *,
        task_id: str,
        rng: Random,
        keep: Callable[[socket.socket], None],
        ssl_context: ssl.SSLContext | None = None,
        filtered: bool = True,
    ) -> None:
        self.id = task_id
        """32 hexadecimal digits, like the ids of ECS."""
        self.address: str
        self.port: int
        self.address, self.port = listener.getsockname()
        self.state = TaskState.STARTING
        self.requests = 0
        """Requests received, answered or not."""
        self.connections = 0
        """Connections accepted."""
        self.in_flight = 0
        """Requests received and not yet answered to the end."""
        self.was_well = True
        """It never had a fault."""
        self._thread = thread
        self._listener: socket.socket | None = listener
        self._rng = rng
        self._keep = keep
        self._ssl = ssl_context
        self._filtered = filtered
        self._identity = Identity(self.id, self.address, self.port)
        self._faults: dict[type[Fault], Fault] = {}
        self._open: dict[Connection, asyncio.Task[object]] = {}
        self._fillers: list[socket.socket] = []
        self._filler_addresses: set[tuple[str, int]] = set()

    def __repr__(self) -> str:
        faults = "".join(f" {fault!r}" for fault in self.faults)
        return f"<LabTask {self.id[:8]} {self.address}:{self.port} {self.state.value}{faults}>"

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults in force."""
        return tuple(self._faults.values())

    def fault(self, *faults: Fault | str) -> Faulty:
        """Put these faults in force, and only these. Requests in flight are finished as they were begun.

        A name stands for a fault as it is by default: `refuse`, `reset`, `hang`, `errors`, `drain` or `vanish`. What is
        returned ends the faults where a `with` block ends. Raises `ValueError` for another name.
        """
        found = tuple(_named(each) if isinstance(each, str) else each for each in faults)
        self.was_well = self.was_well and not found
        self._thread.call(lambda: self.put_in_force(found))
        return Faulty(self)

    def heal(self) -> None:
        """End every fault."""
        self.fault()

    def refuse(self, *, cut: bool = False) -> Faulty:
        """As `fault(Refuse(...))`: connecting is refused; with `cut`, open connections are reset."""
        return self.fault(Refuse(cut))

    def reset(self, *, after_bytes: int = 0) -> Faulty:
        """As `fault(Reset(...))`: requests are read, then reset after that many bytes of the answer."""
        return self.fault(Reset(after_bytes))

    def hang(self) -> Faulty:
        """As `fault(Hang())`: requests are read and never answered."""
        return self.fault(Hang())

    def slow(self, seconds: float, *, probability: float = 1.0) -> Faulty:
        """As `fault(Slow(...))`: a share of the answers comes that much later."""
        return self.fault(Slow(seconds, probability))

    def errors(
        self,
        status: int = 503,
        *,
        retry_after: float | None = None,
        probability: float = 1.0,
        path: str | None = None,
    ) -> Faulty:
        """As `fault(Errors(...))`: a share of the requests, all or those for a path, is answered with that status."""
        return self.fault(Errors(status, retry_after, probability, path))

    def drain(self, *, close_idle: bool = False) -> Faulty:
        """As `fault(Drain(...))`: connecting is refused, answers say `Connection: close`."""
        return self.fault(Drain(close_idle))

    def vanish(self, *, approximate: bool = False) -> Faulty:
        """As `fault(Vanish(...))`: packets to the task meet silence."""
        return self.fault(Vanish(approximate))

    def kill(self) -> None:
        """The process dies: nothing listens, every open connection is reset.

        A vanished task dies unheard: connecting still times out, open connections get no FIN or RST for 10
        minutes, or until the lab closes. The registry does not notice; `LabService.kill` tells it.
        """
        self._thread.call(self.end)

    def stop(self, *, grace: float = 5.0) -> None:
        """SIGTERM: idle connections close, requests in flight have `grace` seconds to finish; then as `kill`.

        Returns when the task has stopped.
        """
        self._thread.run(self.wind_down(grace), timeout=grace + 10.0)

    # What follows runs in the loop's thread.

    def start(self) -> None:
        """Begin to listen."""
        if self.state is TaskState.STARTING:
            self.state = TaskState.RUNNING
            self._settle()

    def end(self) -> None:
        """What `kill` says."""
        self.state = TaskState.STOPPED
        vanished = Vanish in self._faults
        for connection, welcome in list(self._open.items()):
            if vanished and connection.sock.fileno() >= 0:
                self._keep(connection.sock.dup())  # a second descriptor: closing the first then sends nothing
                connection.abort()
            else:
                connection.reset()
            welcome.cancel()
        if vanished and self._listener is not None:
            self._stop_accepting()
            self._keep(self._listener)
            self._listener = None
            for filler in self._fillers:
                self._keep(filler)
            self._fillers = []
        self._close_listener()

    async def wind_down(self, grace: float) -> None:
        """What `stop` says."""
        if self.state is TaskState.STOPPED:
            return
        self.state = TaskState.STOPPING
        if Vanish not in self._faults:
            others = (fault for fault in self.faults if not isinstance(fault, Drain))
            self.put_in_force((*others, Drain(close_idle=True)))
        loop = asyncio.get_running_loop()
        limit = loop.time() + grace
        while self._open and loop.time() < limit:
            await asyncio.sleep(0.01)
        self.end()

    @property
    def draining(self) -> bool:
        """True if every answer is to end its connection."""
        return Drain in self._faults

    @property
    def hanging(self) -> bool:
        """True if nothing is said to new requests."""
        return Hang in self._faults

    def answer(self, request: Request) -> Reply | None:
        """The answer to a request under the faults in force; None: there never will be an answer."""
        if self.hanging:
            return None
        reply = reply_to(request, self._identity)
        errors, slow, reset = self._faults.get(Errors), self._faults.get(Slow), self._faults.get(Reset)
        concerned = isinstance(errors, Errors) and errors.path in (None, request.target.partition("?")[0])
        if concerned and isinstance(errors, Errors) and self._rng.random() < errors.probability:
            retry = () if errors.retry_after is None else (("Retry-After", f"{errors.retry_after:g}"),)
            reply = Reply(errors.status, (("X-Task", self.id), ("Content-Type", "text/plain"), *retry), b"fault\n")
        if isinstance(slow, Slow) and self._rng.random() < slow.probability:
            reply = dataclasses.replace(reply, after=reply.after + slow.seconds)
        if isinstance(reset, Reset):
            reply = dataclasses.replace(reply, cut_after=reset.after_bytes)
        return reply

    def ended(self, connection: Connection) -> None:
        """The connection is closed."""
        self._open.pop(connection, None)

    def put_in_force(self, faults: tuple[Fault, ...]) -> None:
        if self.state is TaskState.STOPPED:
            raise RuntimeError(f"task {self.id} has stopped")
        wanted = {type(fault): fault for fault in faults}
        vanish = wanted.get(Vanish)
        if isinstance(vanish, Vanish) and not (self._filtered or vanish.approximate) and self._open:
            raise RuntimeError(
                f"this platform has no socket filter to silence the {len(self._open)} open connections of task "
                f"{self.id}; vanish(approximate=True) stops their answers and leaves their kernel acknowledging"
            )
        had_vanished = Vanish in self._faults
        self._faults = wanted
        if had_vanished and not vanish:
            self._reappear()
        self._settle()
        refuse, drain = wanted.get(Refuse), wanted.get(Drain)
        for connection in list(self._open):
            if isinstance(refuse, Refuse) and refuse.cut:
                connection.reset()
            elif isinstance(drain, Drain) and drain.close_idle and not connection.busy and not connection.has_unread:
                connection.close()

    def _settle(self) -> None:
        """Make listener and connections what the faults say."""
        if self.state is TaskState.STARTING:
            return
        vanished = Vanish in self._faults
        if not vanished and (Refuse in self._faults or Drain in self._faults):
            self._close_listener()
        elif self._listener is None:
            self._listener = sockets.bind(self.address, self.port)
        if vanished:
            self._disappear()
        if self._listener is not None and not self._fillers:
            self._listener.listen(sockets.BACKLOG)
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _disappear(self) -> None:
        if self._listener is not None:
            if self._filtered:
                # A listener made anew gets its filter before it listens, so that no connection slips through.
                sockets.drop_packets(self._listener)
            elif not self._fillers:
                self._stop_accepting()
                self._fillers = sockets.fill_backlog(self._listener)
                self._filler_addresses.update(filler.getsockname() for filler in self._fillers)
        for connection in self._open:
            connection.silence(filtered=self._filtered)

    def _reappear(self) -> None:
        if self._listener is not None and self._filtered:
            sockets.let_packets_in(self._listener)
        for filler in self._fillers:
            filler.close()
        self._fillers = []
        for connection in list(self._open):
            connection.hear(filtered=self._filtered)

    def _stop_accepting(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)

    def _close_listener(self) -> None:
        if self._listener is not None:
            if self.state is not TaskState.STOPPED and self.state is not TaskState.STARTING:
                self._accept()  # who is through the handshake is connected and not refused
            self._stop_accepting()
            sockets.close_listener(self._listener)
            self._listener = None

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            if peer in self._filler_addresses:
                self._filler_addresses.discard(peer)
                sock.close()
                continue
            self.connections += 1
            connection = Connection(self, sock)
            if Vanish in self._faults:
                connection.silence(filtered=self._filtered)
            loop = asyncio.get_running_loop()
            welcome = loop.create_task(loop.connect_accepted_socket(partial(_same, connection), sock, ssl=self._ssl))
            welcome.add_done_callback(partial(self._handshaken, connection))
            self._open[connection] = welcome

    def _handshaken(self, connection: Connection, welcome: asyncio.Task[object]) -> None:
        # Without a connection there is no connection_lost either: cancelled, or the TLS handshake failed.
        if welcome.cancelled() or welcome.exception() is not None:
            connection.sock.close()
            self.ended(connection)


def _same(connection: Connection) -> Connection:
    return connection
