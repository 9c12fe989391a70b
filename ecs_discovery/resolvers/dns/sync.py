"""DNS lookups for threads.

Messages and sockets are ours (`wire`, `udp_client`). dnspython takes seconds to read some answers and
measures time with the wall clock. It misses an answer that comes later than the first wait. It is asked only what
Windows is set to use.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import ResolutionError
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.dns.blocking import Sockets
from ecs_discovery.resolvers.dns.replies import _Query
from ecs_discovery.resolvers.dns.search import steps_for
from ecs_discovery.resolvers.dns.servers import Allowance, QueryResult
from ecs_discovery.resolvers.dns.steps import normal, told
from ecs_discovery.resolvers.dns.system import configured_servers
from ecs_discovery.resolvers.dns.udp_client import RunningLookup, UdpClient, random_id
from ecs_discovery.resolvers.hosts import HostsFile

__all__ = ["DnsResolver", "Lookups"]


class DnsResolver:
    """Asks DNS for `a`, `aaaa` and `srv` questions, with blocking sockets.

    Names are absolute unless `DnsPolicy(search=True)`; for addresses the hosts file comes first. Addresses come without
    a port (0). SRV targets that came without an address are looked up too. Nothing is kept between
    lookups but the parsed hosts file, so that any number of threads and forked children may share one.
    """

    def __init__(
        self,
        policy: DnsPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        may_ask: Callable[[], bool] | None = None,
        next_id: Callable[[], int] = random_id,
        on_reply: Callable[[Question, QueryResult, float], object] | None = None,
    ) -> None:
        """`may_ask` says whether a question that follows from an answer may be asked now; False: a moment later.
        `next_id` gives ids of queries: any number below 65,536 that cannot be guessed. `on_reply` is told what became
        of each question to a server, and after how many seconds."""
        self._policy = policy
        self._may_ask = may_ask
        self._clock = clock
        self._next_id = next_id
        self._on_reply = on_reply
        self._hosts = HostsFile.shared(policy.hosts_file) if policy.hosts_file else None

    def __repr__(self) -> str:
        return f"<DnsResolver {', '.join(self._policy.nameservers) or 'system nameservers'}>"

    def lookups(self) -> Lookups:
        """For a thread that makes several lookups at once and may leave them to another."""
        return Lookups(self)

    def resolve(self, question: Question, timeout: float) -> Resolution:
        """See `Resolver.resolve`. Raises `ConfigurationError` for any other kind of question."""
        lookups = Lookups(self)
        try:
            lookups.add(question, timeout)
            while not (ended := lookups.run(timeout + 1)):
                pass
        finally:
            lookups.close()
        outcome = ended.pop()[1]
        if isinstance(outcome, Resolution):
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # else the error's frames would keep it, and it them


class Lookups:
    """Lookups that one thread drives together, over the same sockets: `add` some, then `run` until none is left.

    Another thread may take over where one has left off.
    """

    def __init__(self, resolver: DnsResolver) -> None:
        self._resolver = resolver
        self._sockets = Sockets()
        self._client: UdpClient | None = None
        self._lookups: dict[Question, RunningLookup] = {}
        self._ended: list[tuple[Question, Resolution | Exception]] = []

    def __len__(self) -> int:
        """How many are in flight."""
        return len(self._lookups) + len(self._ended)

    @property
    def broken(self) -> bool:
        """True in the child of a fork: what was in flight is the parent's."""
        return self._client is not None and self._client.broken

    def add(self, question: Question, timeout: float) -> None:
        """Begin a lookup that takes `timeout` seconds at most. Raises `ConfigurationError` for a question that is none
        of DNS."""
        resolver = self._resolver
        asked, plain = question, normal(question)
        try:
            local = resolver._hosts.lookup(plain) if resolver._hosts else None
            if local is not None:
                self._ended.append((question, local))
                return
            client = self._client
            if client is None:
                client = self._client = UdpClient(
                    configured_servers(plain, resolver._policy.nameservers),
                    _Query,
                    self._sockets,
                    query_timeout=resolver._policy.query_timeout,
                    clock=resolver._clock,
                    next_id=resolver._next_id,
                )
            steps = steps_for(asked, resolver._policy)
            if resolver._on_reply is not None:
                steps = told(steps, resolver._on_reply, resolver._clock)
        except ResolutionError as error:
            self._ended.append((question, error))
        else:
            self._lookups[question] = client.add(steps, resolver._clock() + timeout, Allowance(resolver._may_ask))

    @property
    def pending(self) -> bool:
        """Is there a lookup that has not ended, or an outcome that was not taken?"""
        return bool(self._lookups or self._ended)

    def run(self, seconds: float) -> list[tuple[Question, Resolution | Exception]]:
        """Wait until something has ended, `seconds` at most: the questions that have, each with its outcome."""
        client, clock = self._client, self._resolver._clock
        deadline_at = clock() + seconds
        ready = self._sockets.wait(0.0)  # what came while no thread looked, before anything is given up
        while client is not None and self._lookups:
            for descriptor in ready:
                client.receive(descriptor)
            due = client.proceed()
            self._collect()
            now = clock()
            if self._ended or client.broken or now >= deadline_at:
                break
            ready = self._sockets.wait(min(due, deadline_at) - now)
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Let go of the sockets. What is in flight is given up."""
        if self._client is not None:
            self._client.close()
        self._lookups = {}

    def _collect(self) -> None:
        for question, lookup in [each for each in self._lookups.items() if each[1].done]:
            del self._lookups[question]
            try:
                self._ended.append((question, lookup.result()))
            except Exception as error:  # noqa: BLE001  # it is an outcome too
                self._ended.append((question, error))
