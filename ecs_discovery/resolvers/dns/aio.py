"""DNS lookups for asyncio, and the only module that knows aiodns.

c-ares caches answers in every channel, and no switch of aiodns or pycares turns that off. So each
lookup makes its own channels and closes them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import ResolutionTimeout, foreign
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.dns.aio_queries import first_replies
from ecs_discovery.resolvers.dns.aio_transport import ask_with_asyncio
from ecs_discovery.resolvers.dns.records import (
    AddressRecord,
    AliasRecord,
    Record,
    Reply,
    SrvRecord,
    plain_name,
    wire_ttl,
)
from ecs_discovery.resolvers.dns.search import steps_for
from ecs_discovery.resolvers.dns.servers import Allowance, BadAnswer, Server
from ecs_discovery.resolvers.dns.steps import normal
from ecs_discovery.resolvers.dns.system import configured_servers
from ecs_discovery.resolvers.hosts import HostsFile

if TYPE_CHECKING:
    import aiodns
    import pycares

__all__ = ["AsyncDnsResolver"]

_log = logging.getLogger("ecs_discovery")
_Ask = Callable[[Question, Server], Awaitable[Reply]]

_loops_without_aiodns: set[type] = set()
"""Kinds of event loops on which aiodns turned out not to work. Only ever grows, by a few."""
_MAX_CHANNELS = 64
"""Channels of one event loop at a time. Each costs a thread, an inotify instance (128 a user by default) and
four descriptors; lookups beyond this many are asked over the loop's own transports, which takes one descriptor."""
_open_channels: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
_TRUSTED = 60.0  # seconds for which a server is believed after an answer with records
_LOOK, _LOOKS = 0.005, 20  # seconds between looks whether such an answer comes, and how many
_MAX_SERVERS = 64
_MAX_LOOK_UPS = 64
"""Lookups of one event loop in flight. Where servers are silent, each holds its descriptors for seconds."""


class AsyncDnsResolver:
    """Asks DNS for `a`, `aaaa` and `srv` questions, as `DnsResolver` does.

    Asks through aiodns, or where that cannot work (not installed, an event loop it does not know)
    over asyncio's own transports; then one line in the log says so. What c-ares takes for "there is none" is asked for
    again there, unless the server has just shown that it can answer; then that comes without a TTL, because c-ares
    drops the SOA record.
    """

    def __init__(self, policy: DnsPolicy, *, may_ask: Callable[[], bool] | None = None) -> None:
        """See `DnsResolver` for `may_ask`."""
        self._policy = policy
        self._may_ask = may_ask
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
        self._trust = _Trust()
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
            turns = self._turns[loop] = _Turns(_MAX_LOOK_UPS)
        try:
            async with asyncio.timeout(timeout):
                await turns.acquire()
        except TimeoutError as exc:
            raise ResolutionTimeout(
                f"not asked within {timeout:.3g} s: {_MAX_LOOK_UPS} other lookups of this event loop are in flight",
                target=str(question),
                hint="is the DNS server reachable?",
            ) from exc
        try:
            return await self._ask(asked, servers, loop.time() + timeout) if begin() else None
        finally:
            turns.give()

    async def _ask(self, asked: Question, servers: Sequence[Server], deadline: float) -> Resolution:
        loop = asyncio.get_running_loop()
        allowance = Allowance(self._may_ask)
        wait = self._policy.query_timeout
        steps = steps_for(asked, self._policy)
        channels = _channels_to(servers[0], deadline - loop.time())
        ask = self._trust.wrapped(channels.ask, allowance) if channels else ask_with_asyncio
        try:
            asking = next(steps)
            while True:
                left = deadline - loop.time()
                outcomes = await first_replies(
                    asking.questions,
                    servers,
                    ask,
                    query_timeout=wait,
                    seconds=min(left, wait) if asking.brief else left,
                    allowance=allowance,
                )
                try:
                    asking = steps.send(outcomes)
                except StopIteration as end:
                    resolution: Resolution = end.value
                    return resolution
        finally:
            if channels:
                await channels.close()


class _Turns:
    """So many at a time; of those who wait, the newest is next: somebody still waits for it, as for threads."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: list[asyncio.Future[None]] = []

    async def acquire(self) -> None:
        """Wait for a turn, which `give` ends."""
        if self._free:
            self._free -= 1
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


class _Trust:
    """Which servers are believed when c-ares says that there is none.

    It says so of failures too (an echoed query, truncation over TCP). A server that has given an answer with records
    lately, or does so at the same time, is believed; else the question is asked again where nothing is lost. So a cold
    name with one kind of record costs one query for each kind.
    """

    def __init__(self) -> None:
        self._until: dict[Server, float] = {}

    def wrapped(self, ask: _Ask, allowance: Allowance) -> _Ask:
        """`ask`, with what is empty confirmed."""

        async def confirmed(question: Question, server: Server) -> Reply:
            reply = await ask(question, server)
            if reply.answers:
                if len(self._until) >= _MAX_SERVERS:
                    self._until.clear()
                self._until[server] = time.monotonic() + _TRUSTED
            elif not await self._soon(server):
                if not allowance.query():
                    raise BadAnswer("answered that there is none, which could not be confirmed")
                return await ask_with_asyncio(question, server)
            return reply

        return confirmed

    async def _soon(self, server: Server) -> bool:
        for _ in range(_LOOKS):
            if time.monotonic() < self._until.get(server, 0.0):
                return True
            await asyncio.sleep(_LOOK)
        return False


def _channels_to(server: Server, timeout: float) -> _Channels | None:
    """The channels of one lookup, None where aiodns does not work or has enough to do."""
    loop = asyncio.get_running_loop()
    kind = type(loop)
    if kind in _loops_without_aiodns or _open_channels.get(loop, 0) >= _MAX_CHANNELS:
        return None
    try:
        channels = _Channels(loop, timeout)
        channels.to(server)
    except Exception as exc:  # noqa: BLE001  # no module, no channel, or whatever an exotic loop raises
        _loops_without_aiodns.add(kind)
        _log.info(
            "aiodns does not work on %s (%s): asking DNS over its own transports instead",
            kind.__name__,
            foreign(repr(exc)),
        )
        return None
    return channels


class _Channels:
    """The c-ares channels of one lookup, one for each server that is asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        import aiodns
        import pycares

        _revive_shutdown_thread(pycares)
        self._aiodns = aiodns
        self._flags = pycares.ARES_FLAG_EDNS | pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES
        self._loop = loop
        self._timeout = timeout
        self._open: dict[Server, aiodns.DNSResolver] = {}

    def to(self, server: Server) -> aiodns.DNSResolver:
        """The channel to `server`, made if need be."""
        channel = self._open.get(server)
        if channel is None:
            # One try that lasts as long as the lookup: the tries are ours, so that an answer to an earlier
            # one still counts, and a server that answers SERVFAIL is not asked over and over.
            channel = self._aiodns.DNSResolver([_address(server)], flags=self._flags, timeout=self._timeout, tries=1)
            self._open[server] = channel
            _open_channels[self._loop] = _open_channels.get(self._loop, 0) + 1
        return channel

    async def ask(self, question: Question, server: Server) -> Reply:
        """Ask once. An answer without records is what c-ares takes for that. Raises `BadAnswer`."""
        error = self._aiodns.error
        try:
            # The dot keeps c-ares from taking the name for a relative one.
            result = await self.to(server).query_dns(question.name + ".", question.scheme.upper())
        except error.DNSError as exc:
            code = exc.args[0] if exc.args else None
            if code in (error.ARES_ENOTFOUND, error.ARES_ENODATA):
                return Reply(str(server), exists=code == error.ARES_ENODATA)
            if code == error.ARES_ETIMEOUT:
                # c-ares expects a server that was fast to stay so, and gives up early. The next try is for the
                # caller to time.
                await self._loop.create_future()
            raise BadAnswer(_words(code, exc, error)) from exc
        except UnicodeError as exc:
            raise BadAnswer(f"cannot be asked: {foreign(exc)}") from exc
        if not result.answer:
            raise BadAnswer("answered an unusual response code")
        return Reply(str(server), exists=True, answers=_records(result.answer), additional=_records(result.additional))

    async def close(self) -> None:
        """End all queries and close the channels. Does not wait."""
        for channel in self._open.values():
            await channel.close()
        _open_channels[self._loop] -= len(self._open)


def _address(server: Server) -> str:
    host, percent, interface = server.host.partition("%")
    return f"{Server(host, server.port)}{percent}{interface}"


def _words(code: int | None, problem: Exception, error: Any) -> str:
    rcodes = {
        error.ARES_EFORMERR: "FORMERR",
        error.ARES_ESERVFAIL: "SERVFAIL",
        error.ARES_ENOTIMP: "NOTIMP",
        error.ARES_EREFUSED: "REFUSED",
        error.ARES_EBADRESP: "garbage",
    }
    rcode = rcodes.get(code)
    return f"answered {rcode}" if rcode else f"failed: {foreign(problem.args[-1] if problem.args else repr(problem))}"


def _records(section: list[pycares.DNSRecord]) -> tuple[Record, ...]:
    import pycares

    found: list[Record] = []
    for record in section:
        if record.record_class != pycares.QUERY_CLASS_IN:
            continue
        name, ttl = plain_name(record.name), wire_ttl(record.ttl)
        match record.data:
            case pycares.ARecordData(addr=address):
                found.append(AddressRecord(name, "a", address, ttl))
            case pycares.AAAARecordData(addr=address):
                found.append(AddressRecord(name, "aaaa", address, ttl))
            case pycares.CNAMERecordData(cname=target):
                found.append(AliasRecord(name, plain_name(target), ttl))
            case pycares.SRVRecordData() as data:
                target = plain_name(data.target)
                found.append(SrvRecord(name, data.priority, data.weight, data.port, target, ttl))
    return tuple(found)


def _revive_shutdown_thread(pycares: Any) -> None:
    """Let closed channels be freed in a forked child too.

    pycares frees them in one thread of the process, which a fork does not copy, and does not notice: without
    this, every lookup in a child would leave a thread and its descriptors behind.
    """
    manager: Any = getattr(pycares, "_shutdown_manager", None)
    thread = getattr(manager, "_thread", None)
    if thread is not None and not thread.is_alive():
        pycares._shutdown_manager = manager.__class__()
