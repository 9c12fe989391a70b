"""The callers of a soak: threads with requests, and tasks with httpx and aiohttp in one event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any

import aiohttp
import httpx
import requests

from ecs_discovery import AsyncDiscovery, Discovery, wrap_client, wrap_session
from ecs_discovery.errors import DiscoveryError
from ecs_discovery.integrations.aiohttp import client_session

__all__ = ["Callers", "Tally"]

_WAIT = 0.2  # seconds between two requests of a caller, on average
_TIMEOUT = 30.0
_SLOW = "slow/0.2"
_Act = Callable[[str], Awaitable[str]]


class Refused(Exception):
    """An answer with a status of failure."""


class Tally:
    """What became of the requests."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lost: deque[str] = deque(maxlen=20)
        """The newest of those that should not have been lost."""
        self._lock = threading.Lock()

    @property
    def requests(self) -> int:
        return sum(self.counts.values())

    def add(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def lose(self, where: str, error: BaseException) -> None:
        self.lost.append(f"{where}: {type(error).__name__}: {error}")
        self.add("lost")


class Callers:
    """All callers. They share one state: the discovery of asyncio joins the discovery of threads."""

    def __init__(self, facts: dict[str, str], seed: int, *, each: int = 5) -> None:
        self.tally = Tally()
        self.discovery = Discovery(namespace="prod.local", nameservers=[facts["nameserver"]])
        self.tasks_left: list[str] = []
        """Tasks that were there after all clients had been closed."""
        self._orders = facts["orders"]
        self._flaky = facts["flaky"]
        self._rng = Random(seed)
        self._each = each
        self._session = wrap_session(requests.Session(), self.discovery)
        self._going = threading.Event()
        self._over = threading.Event()
        self._busy = 0
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._threads = [
            threading.Thread(target=self._in_a_thread, args=(Random(self._rng.random()),), name=f"caller-{number}")
            for number in range(each)
        ]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._in_a_loop()), name="caller-loop"))

    @property
    def engine(self) -> Any:
        return self.discovery._driver.engine

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        self._started.wait()

    def go(self) -> None:
        self._going.set()

    def pause(self) -> None:
        """Callers end their requests and send no others; `idle` says when."""
        self._going.clear()

    @property
    def idle(self) -> bool:
        return self._busy == 0 and not self._going.is_set()

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._session.close()
        self.discovery.close()

    def in_a_child(self) -> None:
        """What the child of a fork does: a session of its own on the state that it inherited."""
        with wrap_session(requests.Session(), self.discovery) as session:
            session.get(self._orders, timeout=_TIMEOUT).raise_for_status()
        self.discovery.resolve("orders:" + self._orders.rsplit(":", 1)[1].strip("/"), timeout=10)

    def _enter(self) -> bool:
        with self._lock:
            if not self._going.is_set():
                return False
            self._busy += 1
            return True

    def _leave(self) -> None:
        with self._lock:
            self._busy -= 1

    # Threads

    def _in_a_thread(self, rng: Random) -> None:
        acts = (
            *(self._get, self._get, self._get, self._stream, self._give_up, self._lease, self._connect, self._try),
            *(self._own_session, self._own_loop),
        )
        while not self._over.wait(rng.expovariate(1 / _WAIT)):
            if not self._enter():
                continue
            act = rng.choice(acts)
            try:
                self.tally.add(act())
            except Exception as error:  # noqa: BLE001  # whatever leaves a client is a lost request
                self.tally.lose(f"requests{act.__name__}", error)
            finally:
                self._leave()

    def _get(self) -> str:
        self._session.get(self._orders, timeout=_TIMEOUT).raise_for_status()
        return "answered"

    def _stream(self) -> str:
        with self._session.get(f"{self._orders}stream/20", timeout=_TIMEOUT, stream=True) as response:
            response.raise_for_status()
            try:
                next(response.iter_content(100))
            except requests.RequestException:
                return "cut in the body"  # its task ended: what has begun to arrive is not sent again
        return "closed early"

    def _give_up(self) -> str:
        try:
            self._session.get(f"{self._orders}{_SLOW}", timeout=(_TIMEOUT, 0.02))
        except requests.ReadTimeout:
            return "given up"
        return "answered"

    def _own_session(self) -> str:
        """A session for one request, as many programs have it."""
        with wrap_session(requests.Session(), self.discovery) as session:
            session.get(self._orders, timeout=_TIMEOUT).raise_for_status()
        return "answered"

    def _own_loop(self) -> str:
        """An event loop for one request, as in a web application of threads."""

        async def get() -> str:
            client = httpx.AsyncClient(timeout=_TIMEOUT, verify=False)
            async with AsyncDiscovery(share=self.discovery) as discovery, wrap_client(client, discovery):
                return await _httpx_get(client, self._orders)

        return asyncio.run(get())

    def _lease(self) -> str:
        with self.discovery.lease(self._target) as lease:
            assert lease.host
        return "leased"

    def _connect(self) -> str:
        self.discovery.connect(self._target, timeout=_TIMEOUT).close()
        return "connected"

    @property
    def _target(self) -> str:
        return self._orders.removeprefix("http://").strip("/")

    def _try(self) -> str:
        try:
            response = self._session.get(self._flaky, timeout=_TIMEOUT)
        except requests.RequestException as error:
            if not isinstance(error, DiscoveryError):
                raise
            return "refused"
        return _told(response.status_code)

    # Tasks

    async def _in_a_loop(self) -> None:
        discovery = AsyncDiscovery(share=self.discovery)
        client = wrap_client(httpx.AsyncClient(timeout=_TIMEOUT), discovery)
        session = client_session(discovery, timeout=aiohttp.ClientTimeout(total=_TIMEOUT))
        async with session, client:
            kinds: list[tuple[str, _Act, _Act]] = [
                ("httpx", partial(_httpx_get, client), partial(_httpx_stream, client)),
                ("aiohttp", partial(_aiohttp_get, session), partial(_aiohttp_stream, session)),
            ]
            callers = [
                asyncio.create_task(self._in_a_task(name, get, stream, Random(self._rng.random())))
                for name, get, stream in kinds * self._each
            ]
            self._started.set()
            await asyncio.gather(*callers)
        await discovery.aclose()
        await asyncio.sleep(0.1)  # transports close a turn of the loop after they are told to
        self.tasks_left = [repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]

    async def _in_a_task(self, name: str, get: _Act, stream: _Act, rng: Random) -> None:
        acts: dict[str, Callable[[], Awaitable[str]]] = {
            "get": lambda: get(self._orders),
            "get again": lambda: get(self._orders),
            "stream": lambda: stream(f"{self._orders}stream/20"),
            "cancel": lambda: _cancelled(get(f"{self._orders}{rng.choice(('', _SLOW))}"), rng.uniform(0, 0.05)),
            "cancelled stream": lambda: _cancelled(stream(f"{self._orders}stream/20"), rng.uniform(0, 0.05)),
            "time limit": lambda: _limited(get(f"{self._orders}{_SLOW}"), rng.uniform(0, 0.05)),
            "try": lambda: _tried(get(self._flaky)),
        }
        while not self._over.is_set():
            await asyncio.sleep(rng.expovariate(1 / _WAIT))
            if not self._enter():
                continue
            act = rng.choice(tuple(acts))
            try:
                self.tally.add(await acts[act]())
            except Exception as error:  # noqa: BLE001  # whatever leaves a client is a lost request
                self.tally.lose(f"{name} {act}", error)
            finally:
                self._leave()


def _told(status: int) -> str:
    if status < 500:
        return "answered"
    return "refused"


async def _httpx_get(client: httpx.AsyncClient, url: str) -> str:
    response = await client.get(url)
    if response.status_code >= 400:
        raise Refused(response.status_code)
    return "answered"


async def _httpx_stream(client: httpx.AsyncClient, url: str) -> str:
    async with client.stream("GET", url) as response:
        if response.status_code >= 400:
            raise Refused(response.status_code)
        pieces = response.aiter_raw()
        try:
            await anext(pieces)
        except httpx.TransportError:
            return "cut in the body"
    return "closed early"


async def _aiohttp_get(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        if response.status >= 400:
            raise Refused(response.status)
        await response.read()
    return "answered"


async def _aiohttp_stream(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        if response.status >= 400:
            raise Refused(response.status)
        try:
            await response.content.readany()
        except aiohttp.ClientError:
            return "cut in the body"
    return "closed early"


async def _cancelled(work: Awaitable[str], after: float) -> str:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(after)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return "cancelled"


async def _limited(work: Awaitable[str], seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        if isinstance(error, DiscoveryError):
            raise
        return "given up"


async def _tried(work: Awaitable[str]) -> str:
    try:
        return await work
    except (DiscoveryError, Refused):
        return "refused"
