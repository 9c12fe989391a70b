"""Which servers are asked, in which order, and what is said when none of them answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ecs_discovery.errors import ResolutionError, ResolutionTimeout, foreign
from ecs_discovery.models import Question, Value
from ecs_discovery.resolvers.dns.records import Reply

__all__ = ["WINDOW", "Allowance", "BadAnswer", "QueryResult", "Server", "Tries"]

QueryResult = Reply | ResolutionError
"""What became of one question."""

_DNS_PORT = 53

WINDOW = 16
"""Questions of one lookup in flight: an SRV answer with 1,000 targets must not become a burst of 2,000 packets."""

MAX_QUERIES = 256
"""Queries that one lookup sends at most, with its follow-up questions and all retransmissions."""

PAUSE = 0.02  # seconds between looks whether another question may be asked


class Allowance:
    """What one lookup may still ask: an answer must not make us flood a server, however many targets it names.

    `may_ask` is asked before each question but the first, whose right was taken before the lookup began.
    """

    def __init__(self, may_ask: Callable[[], bool] | None = None) -> None:
        self._may_ask = may_ask
        self._begun = False
        self._left = MAX_QUERIES

    def question(self) -> bool:
        """Take the right to another question; False if that has to wait."""
        begun, self._begun = self._begun, True
        return not begun or self._may_ask is None or self._may_ask()

    def query(self) -> bool:
        """Take the right to send another query; False if the lookup has sent all that it may."""
        self._left -= 1
        return self._left >= 0


class BadAnswer(Exception):
    """A server answered and the answer is of no use (SERVFAIL, REFUSED, garbage, …): ask the next one."""


class Server(Value):
    """A DNS server."""

    host: str
    port: int = _DNS_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Tries:
    """Whom to ask next about one question: the servers in turn, over and over, without those that answered badly.

    Earlier tries stay open while later ones run, so that a slow answer still counts.
    """

    def __init__(self, question: Question, servers: Sequence[Server]) -> None:
        self._question = question
        self._left = deque(servers)
        self._asked: dict[Server, str] = {}
        self._cause: BaseException | None = None

    def next_server(self) -> Server | None:
        """The server of the next try, None if no server is left."""
        if not self._left:
            return None
        server = self._left[0]
        self._left.rotate(-1)
        self._asked.setdefault(server, "")
        return server

    def was_asked(self, server: Server) -> bool:
        """True if a try has gone to `server`."""
        return server in self._asked

    @property
    def open(self) -> bool:
        """True if an answer to some try may still come."""
        return not all(self._asked.values())

    def drop(self, server: Server, problem: BaseException) -> None:
        """Do not ask `server` again about this question."""
        if server in self._left:
            self._left.remove(server)
        self._asked[server] = foreign(problem) or type(problem).__name__
        self._cause = problem

    def error(self, seconds: float) -> ResolutionError:
        """What to raise when no try succeeded in `seconds`."""
        answered = any(self._asked.values())
        told = "; ".join(f"{server} {problem or 'did not answer'}" for server, problem in self._asked.items())
        if answered:
            error = ResolutionError(
                f"no usable answer: {told}",
                target=str(self._question),
                hint="this says nothing about whether the name exists; look at the DNS server",
            )
        else:
            error = ResolutionTimeout(
                f"no answer within {seconds:.3g} s (DnsPolicy.timeout): {told or 'no server was asked in time'}",
                target=str(self._question),
                hint="is its UDP and TCP port open to this task? The VPC resolver drops what exceeds 1,024 packets/s",
            )
        error.__cause__ = self._cause
        return error
