"""Tasks of a simulated service: how long they take, what can be wrong with them, and how it looks from a client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from random import Random

__all__ = ["ROUND_TRIP", "Closed", "Connection", "Port", "Silent", "Task", "lognormal", "steady"]

ROUND_TRIP = 0.0005
ACKNOWLEDGED_WITHIN = 0.25  # what `ConnectionPolicy.ack_timeout` gives a peer's kernel
KEEP_ALIVE = 1.3  # until a keep-alive probe without an answer tells that the peer has vanished
LOOK = 0.05  # between looks at what became of the peer

ServiceTime = Callable[[Random], float]


class Closed(ConnectionError):
    """The connection ended before a byte of the answer."""


class Silent(TimeoutError):
    """The peer's kernel did not acknowledge the request."""


class Port(Enum):
    """What a connect meets."""

    OPEN = "open"
    CLOSED = "closed"
    """Refused at once: the process is not there, or not there yet."""
    GONE = "gone"
    """The interface is gone: no packet is answered."""


def steady(seconds: float) -> ServiceTime:
    return lambda rng: seconds


def lognormal(median: float, sigma: float, *, pause: float = 0.0, pauses: float = 0.0) -> ServiceTime:
    """Noise as services have it, and with the chance `pauses` a pause besides (a collection of garbage, say)."""

    def draw(rng: Random) -> float:
        seconds = median * rng.lognormvariate(0.0, sigma)
        return seconds + pause if pauses and rng.random() < pauses else seconds

    return draw


class Task:
    """One task at one address. `workers` requests are worked on at once; others queue, or are turned away with 503
    where as many wait already as the `queue` is long."""

    def __init__(
        self,
        host: str,
        rng: Random,
        service_time: ServiceTime,
        *,
        workers: int = 1000,
        queue: int | None = None,
        port: Port = Port.OPEN,
    ) -> None:
        self.host = host
        self.service_time = service_time
        self.status = 200
        self.port = port
        self.life = 0
        """Grows when it stops or vanishes: connections made before are dead."""
        self.served: list[float] = []
        """When requests reached it."""
        self._rng = rng
        self._free = workers
        self._length = queue
        self._queue: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Task {self.host} {self.port.value} {self.status} {len(self.served)} served>"

    def stop(self) -> None:
        """Killed: connects are refused from now on, requests in flight are reset."""
        self._leave(Port.CLOSED)

    def vanish(self) -> None:
        """Its interface is taken away: no client is told."""
        self._leave(Port.GONE)

    def listen(self) -> None:
        self.port = Port.OPEN

    def _leave(self, port: Port) -> None:
        self.port = port
        self.life += 1

    async def connect(self, limit: float) -> Connection:
        """Raises as a socket does."""
        if self.port is Port.GONE:
            await asyncio.sleep(limit)
            raise TimeoutError(f"{self.host}: timed out")
        await asyncio.sleep(min(limit, ROUND_TRIP))
        if self.port is not Port.OPEN:
            raise ConnectionRefusedError(f"{self.host}: refused")
        return Connection(self)

    async def serve(self, gone: Callable[[], bool]) -> int:
        """Take one request, to its status. `gone` is whether the client has found out that it vanished."""
        life = self.life
        self.served.append(asyncio.get_running_loop().time())
        if self._free:
            self._free -= 1
        elif self._length is not None and len(self._queue) >= self._length:
            await asyncio.sleep(ROUND_TRIP)
            return 503
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            await turn
        try:
            await asyncio.sleep(ROUND_TRIP + self.service_time(self._rng))
        finally:
            if self._queue:
                self._queue.popleft().set_result(None)
            else:
                self._free += 1
        if self.life != life:
            if self.port is Port.GONE:
                for _ in range(int(KEEP_ALIVE / LOOK)):  # it was acknowledged: only others, or the probes, tell
                    await asyncio.sleep(LOOK)
                    if gone():
                        break
                raise Silent(f"{self.host}: has vanished")
            raise Closed(f"{self.host}: connection reset")
        return self.status


class Connection:
    """A connection kept by a client."""

    __slots__ = ("_life", "_task", "idle_since")

    def __init__(self, task: Task) -> None:
        self.idle_since = 0.0
        """When its last answer came. The client keeps it."""
        self._task = task
        self._life = task.life

    @property
    def ended(self) -> bool:
        """Did the other side say goodbye? A vanished task does not."""
        return self._task.life != self._life and self._task.port is not Port.GONE

    def close(self) -> None:
        """Nothing is held."""

    async def send(self, gone: Callable[[], bool]) -> int:
        """One request, to its status."""
        if self._task.life != self._life:
            if self._task.port is Port.GONE:
                await asyncio.sleep(ACKNOWLEDGED_WITHIN)
                raise Silent(f"{self._task.host}: nothing acknowledged")
            raise Closed(f"{self._task.host}: connection reset")
        return await self._task.serve(gone)
