"""DNS lookups for asyncio: the client of the threads, with an event loop that waits for its sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from weakref import WeakKeyDictionary

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import ResolutionTimeout
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.dns.replies import _Query
from ecs_discovery.resolvers.dns.search import steps_for
from ecs_discovery.resolvers.dns.servers import Allowance, Server
from ecs_discovery.resolvers.dns.steps import Steps, normal
from ecs_discovery.resolvers.dns.system import configured_servers
from ecs_discovery.resolvers.dns.udp_client import RunningLookup, UdpClient, random_id
from ecs_discovery.resolvers.hosts import HostsFile

__all__ = ["AsyncDnsResolver"]

_log = logging.getLogger("ecs_discovery")

_loops_without_readers: set[type] = set()
"""Kinds of event loops that turned out not to watch sockets. Only ever grows, by a few."""
_MAX_LOOKUPS = 64
"""Lookups of one event loop in flight. Where servers are silent, each holds its descriptors for seconds."""


class AsyncDnsResolver:
    """Asks DNS for `a`, `aaaa` and `srv` questions, as `DnsResolver` does.

    Where an event loop cannot watch sockets (Windows has such a one), it asks over the loop's own transports; then one
    line in the log says so.
    """

    def __init__(
        self,
        policy: DnsPolicy,
        *,
        may_ask: Callable[[], bool] | None = None,
        next_id: Callable[[], int] = random_id,
    ) -> None:
        """See `DnsResolver` for `may_ask` and `next_id`."""
        self._policy = policy
        self._may_ask = may_ask
        self._next_id = next_id
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
        self._hosts = HostsFile.shared(policy.hosts_file) if policy.hosts_file else None

    def __repr__(self) -> str:
        return f"<AsyncDnsResolver {', '.join(self._policy.nameservers) or 'system nameservers'}>"

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        """See `AsyncResolver.resolve`. Raises `ConfigurationError` for any other kind of question."""
        found = await self.resolve_in_turn(question, timeout, lambda: True)
        assert found is not None  # it has begun
        return found

    async def resolve_in_turn(self, question: Question, timeout: float, begin: Callable[[], bool]) -> Resolution | None:
        """See `Queueing.resolve_in_turn`."""
        loop = asyncio.get_running_loop()
        asked, question = question, normal(question)
        local = self._hosts.lookup(question) if self._hosts else None
        if local is not None:
            return local
        servers = configured_servers(question, self._policy.nameservers)
        turns = self._turns.get(loop)
        if turns is None:
            turns = self._turns[loop] = _Turns(_MAX_LOOKUPS)
        if not turns.acquire_now():
            try:
                async with asyncio.timeout(timeout):
                    await turns.acquire()
            except TimeoutError as exc:
                raise ResolutionTimeout(
                    f"not asked within {timeout:.3g} s: {_MAX_LOOKUPS} other lookups of this event loop are in flight",
                    target=str(question),
                    hint="is the DNS server reachable?",
                ) from exc
        try:
            return await self._ask(asked, servers, loop.time() + timeout) if begin() else None
        finally:
            turns.give()

    async def _ask(self, asked: Question, servers: Sequence[Server], deadline: float) -> Resolution:
        steps = steps_for(asked, self._policy)
        allowance = Allowance(self._may_ask)
        if _can_watch(asyncio.get_running_loop()):
            driver = _Driver(servers, self._policy.query_timeout, self._next_id)
            return await driver.run(steps, deadline, allowance)
        return await self._ask_over_transports(steps, servers, deadline, allowance)

    async def _ask_over_transports(
        self, steps: Steps, servers: Sequence[Server], deadline: float, allowance: Allowance
    ) -> Resolution:
        from ecs_discovery.resolvers.dns.aio_queries import first_replies
        from ecs_discovery.resolvers.dns.aio_transport import ask_with_asyncio

        loop, wait = asyncio.get_running_loop(), self._policy.query_timeout
        asking = next(steps)
        while True:
            left = deadline - loop.time()
            outcomes = await first_replies(
                asking.questions,
                servers,
                partial(ask_with_asyncio, next_id=self._next_id),
                query_timeout=wait,
                seconds=min(left, wait) if asking.brief else left,
                allowance=allowance,
            )
            try:
                asking = steps.send(outcomes)
            except StopIteration as end:
                resolution: Resolution = end.value
                return resolution


class _Driver:
    """One lookup's client in its event loop."""

    def __init__(self, servers: Sequence[Server], query_timeout: float, next_id: Callable[[], int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = UdpClient(
            servers, _Query, self, query_timeout=query_timeout, clock=self._loop.time, next_id=next_id
        )
        self._lookup: RunningLookup | None = None
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, steps: Steps, deadline: float, allowance: Allowance) -> Resolution:
        try:
            self._lookup = self._client.add(steps, deadline, allowance)
            self._proceed()
            await self._done
            return self._lookup.result()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._client.close()

    def watch(self, sock: socket.socket, *, write: bool = False) -> None:
        """See `Watcher.watch`."""
        descriptor = sock.fileno()
        if write:
            self._loop.add_writer(descriptor, self._ready, descriptor)
        else:
            self._loop.add_reader(descriptor, self._ready, descriptor)

    def unwatch(self, sock: socket.socket, *, write: bool = False) -> None:
        """See `Watcher.unwatch`."""
        if write:
            self._loop.remove_writer(sock.fileno())
        else:
            self._loop.remove_reader(sock.fileno())

    def _ready(self, descriptor: int) -> None:
        if self._done.done():
            return
        try:
            self._client.receive(descriptor)
        except Exception as error:  # noqa: BLE001  # a fault of ours belongs to who waits, not to the loop
            self._done.set_exception(error)
        else:
            self._proceed()

    def _proceed(self) -> None:
        assert self._lookup is not None
        if self._done.done():
            return
        try:
            due = self._client.proceed()
        except Exception as error:  # noqa: BLE001
            self._done.set_exception(error)
            return
        if self._lookup.done:
            self._done.set_result(None)
        elif self._timer is None or self._timer.when() != due or self._timer.when() <= self._loop.time():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._proceed)


class _Turns:
    """So many at a time; of those who wait, the newest is next: a caller still waits for it, as for threads."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: list[asyncio.Future[None]] = []

    def acquire_now(self) -> bool:
        """Take a turn, which `give` ends, if there is one."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def acquire(self) -> None:
        """Wait for a turn, which `give` ends."""
        if self.acquire_now():
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except BaseException:  # cancelled, mostly: a turn that was given to this caller must go to the next one
            if mine.done() and not mine.cancelled():
                self.give()  # it was given a turn that it does not take
            elif mine in self._waiting:
                self._waiting.remove(mine)
            raise

    def give(self) -> None:
        """A turn is over: the next one begins."""
        while self._waiting:
            mine = self._waiting.pop()
            if not mine.done():
                mine.set_result(None)
                return
        self._free += 1


def _can_watch(loop: asyncio.AbstractEventLoop) -> bool:
    """Can this event loop watch a socket? That of Windows cannot, unless told to be the other kind."""
    kind = type(loop)
    if kind in _loops_without_readers:
        return False
    try:
        loop.remove_reader(-1)  # watches nothing, and says whether it could
    except ValueError:
        return True
    except Exception:  # noqa: BLE001  # the loop cannot watch sockets: each says so by another exception
        _loops_without_readers.add(kind)
        _log.info("%s cannot watch sockets: asking DNS over its own transports instead", kind.__name__)
        return False
    return True
