"""DNS lookups for threads.

Messages and sockets are ours (`wire`, `exchange`): dnspython takes seconds to read some answers, measures time with the
wall clock and stops listening for an answer that comes later than the first wait. Only what Windows is set to use is
asked of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.dns.blocking import UdpClient
from ecs_discovery.resolvers.dns.replies import _Query
from ecs_discovery.resolvers.dns.search import steps_for
from ecs_discovery.resolvers.dns.servers import Allowance
from ecs_discovery.resolvers.dns.steps import normal
from ecs_discovery.resolvers.dns.system import configured_servers
from ecs_discovery.resolvers.hosts import HostsFile

__all__ = ["DnsResolver"]


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
    ) -> None:
        """`may_ask` says whether a question that follows from an answer may be asked now; False: a moment later."""
        self._policy = policy
        self._may_ask = may_ask
        self._clock = clock
        self._hosts = HostsFile.shared(policy.hosts_file) if policy.hosts_file else None

    def __repr__(self) -> str:
        return f"<DnsResolver {', '.join(self._policy.nameservers) or 'system nameservers'}>"

    def resolve(self, question: Question, timeout: float) -> Resolution:
        """See `Resolver.resolve`. Raises `ConfigurationError` for any other kind of question."""
        deadline = self._clock() + timeout
        asked, question = question, normal(question)
        local = self._hosts.lookup(question) if self._hosts else None
        if local is not None:
            return local
        servers = configured_servers(question, self._policy.nameservers)
        wait = self._policy.query_timeout
        steps = steps_for(asked, self._policy)
        allowance = Allowance(self._may_ask)
        with UdpClient(servers, _Query, query_timeout=wait, clock=self._clock, allowance=allowance) as exchange:
            asking = next(steps)
            while True:
                limit = min(deadline, self._clock() + wait) if asking.brief else deadline
                outcomes = exchange.ask(asking.questions, limit)
                try:
                    asking = steps.send(outcomes)
                except StopIteration as end:
                    resolution: Resolution = end.value
                    return resolution
