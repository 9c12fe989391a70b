"""Which servers are asked, in which order, and what is said when none of them answered."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from ecs_discovery.errors import ResolutionError, ResolutionTimeout, foreign
from ecs_discovery.models import Question, is_address, parse_host_port
from ecs_discovery.resolvers.files import read_text
from ecs_discovery.resolvers.records import Reply

__all__ = ["WINDOW", "Allowance", "BadAnswer", "Outcome", "Server", "Tries", "configured_servers", "first_replies"]

Outcome = Reply | ResolutionError
"""What became of one question."""

_RESOLV_CONF = "/etc/resolv.conf"
_MAX_BYTES = 65_536  # of resolv.conf; what follows is ignored
_DNS_PORT = 53
_MAX_SYSTEM_SERVERS = 3  # glibc's MAXNS
WINDOW = 16
"""Questions of one look-up in flight: an SRV answer with 1,000 targets must not become a burst of 2,000 packets."""


MAX_QUERIES = 256
"""Queries that one look-up sends at most, with its follow-up questions and all retransmissions."""
PAUSE = 0.02  # seconds between looks whether another question may be asked


class Allowance:
    """What one look-up may still ask: an answer must not make us flood a server, however many targets it names.

    `may_ask` is asked before each question but the first, whose right was taken before the look-up began.
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
        """Take the right to send another query; False if the look-up has sent all that it may."""
        self._left -= 1
        return self._left >= 0


class BadAnswer(Exception):
    """A server answered and the answer is of no use (SERVFAIL, REFUSED, garbage, …): ask the next one."""


@dataclass(frozen=True, slots=True)
class Server:
    """A DNS server."""

    host: str
    port: int = _DNS_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def configured_servers(question: Question, nameservers: Sequence[str]) -> tuple[Server, ...]:
    """The given servers, or else the system's as it names them at this moment.

    Raises `ResolutionError` if there are none.
    """
    if nameservers:
        return tuple(Server(*parse_host_port("nameserver", text, _DNS_PORT)) for text in nameservers)
    cause: OSError | None = None
    try:
        servers = _registry_servers() if sys.platform == "win32" else system_servers(_RESOLV_CONF)
    except OSError as exc:
        servers, cause = (), exc
    if servers:
        return servers
    raise ResolutionError(
        f"no nameserver is configured in {_RESOLV_CONF}",
        target=str(question),
        hint="set DnsPolicy(nameservers=…) or ECS_DISCOVERY_DNS_NAMESERVERS",
    ) from cause


def system_servers(path: str) -> tuple[Server, ...]:
    """The servers a resolv.conf names, the first three as for glibc. Raises `OSError` if it cannot be read."""
    found: list[Server] = []
    for line in read_text(path, _MAX_BYTES).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and is_address(words[1]) and words[1].isprintable():
            found.append(Server(words[1]))
    return tuple(found[:_MAX_SYSTEM_SERVERS])


def _registry_servers() -> tuple[Server, ...]:
    from ecs_discovery.resolvers.dns import registry_servers

    return tuple(map(Server, registry_servers()))


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


async def first_replies(
    questions: Sequence[Question],
    servers: Sequence[Server],
    ask: Callable[[Question, Server], Awaitable[Reply]],
    *,
    query_timeout: float,
    seconds: float,
    allowance: Allowance,
) -> Mapping[Question, Outcome]:
    """What became of each question after at most `seconds`: asked side by side, each with its own tries."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    window = asyncio.Semaphore(WINDOW)

    async def outcome(question: Question) -> Outcome:
        tries = Tries(question, servers)
        try:
            async with asyncio.timeout_at(until), window:
                while not allowance.question():
                    await asyncio.sleep(PAUSE)
                return await _first_reply(tries, lambda server: ask(question, server), query_timeout, allowance)
        except TimeoutError:
            return tries.error(seconds)

    if len(questions) == 1:
        return {questions[0]: await outcome(questions[0])}
    tasks = [asyncio.ensure_future(outcome(question)) for question in questions]
    try:
        return dict(zip(questions, await asyncio.gather(*tasks), strict=True))
    finally:
        await _cancelled(tasks)


async def _first_reply(
    tries: Tries, ask: Callable[[Server], Awaitable[Reply]], query_timeout: float, allowance: Allowance
) -> Reply:
    running: dict[asyncio.Future[Reply], Server] = {}
    try:
        while True:
            server = tries.next_server() if allowance.query() else None
            if server is not None:
                running[asyncio.ensure_future(ask(server))] = server
            elif not running:
                raise TimeoutError
            done, _ = await asyncio.wait(
                running, timeout=query_timeout if server else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                server = running.pop(task)
                problem = task.exception()
                if problem is None:
                    return task.result()
                if not isinstance(problem, (BadAnswer, OSError)):
                    raise problem
                tries.drop(server, problem)
    finally:
        await _cancelled(list(running))


async def _cancelled(tasks: Sequence[asyncio.Future[Reply]] | Sequence[asyncio.Future[Outcome]]) -> None:
    """End what is still running, and look at every result: asyncio complains about failures nobody saw."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)
