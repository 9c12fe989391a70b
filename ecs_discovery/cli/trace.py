"""What a lookup asked, whom, and what was answered: `ecs-discovery resolve --trace`."""

from __future__ import annotations

import time
from typing import Any

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.targets import Target
from ecs_discovery.errors import foreign
from ecs_discovery.events import CallStarted, Idle, LookupEnded
from ecs_discovery.models import DNS_SCHEMES, Question
from ecs_discovery.resolvers.dns.records import AddressRecord, AliasRecord, Record, Reply
from ecs_discovery.resolvers.dns.servers import QueryResult
from ecs_discovery.resolvers.dns.sync import DnsResolver

__all__ = ["Trace"]

_MOST = 100  # queries that are kept
_ANSWERS = 8  # records of an answer that are shown


class Trace:
    """Keeps what a discovery asks. Give it to a `Discovery` before its first lookup."""

    def __init__(self, discovery: Discovery) -> None:
        self.queries: list[dict[str, Any]] = []
        self._settings = discovery._engine.settings
        self._flights = discovery._engine.flights
        asker = discovery._driver.background.asker
        asker.dns = DnsResolver(self._settings.dns, may_ask=discovery._engine.may_query, on_reply=self._replied)
        discovery._engine.observe(self)

    def wait(self) -> None:
        """Wait for questions in flight, a second at most: an answer of one family may end the resolution."""
        until = time.monotonic() + 1.0
        while len(self._flights) and time.monotonic() < until:
            time.sleep(0.005)

    def names(self, target: Target) -> str:
        """How the target's name was completed, in a sentence."""
        settings = self._settings
        if target.scheme not in ("auto", "dns", "srv"):
            return f"{foreign(target.name)} is asked for as it is: it is no name of DNS"
        full = settings.qualified(target.name)
        if full == target.name:
            why = "it has a dot" if "." in target.name else "no namespace is set"
            return f"{foreign(target.name)} is asked for as it is: {why}"
        return f"{foreign(target.name)} is asked for as {foreign(full)}: the namespace is {foreign(settings.namespace)}"

    def lines(self) -> list[str]:
        """A line for each query."""
        return [
            f"{each['question']} -> {each['server']}: {each['answer']} ({each['milliseconds']:.1f} ms)"
            for each in self.queries
        ]

    def call_started(self, call: CallStarted) -> Idle:
        """As `Observer` has it: calls are of no interest."""
        return Idle(3600.0)

    def lookup_ended(self, end: LookupEnded) -> None:
        """As `Observer` has it. What is no question of DNS has no servers to tell."""
        if end.question.scheme not in DNS_SCHEMES:
            self._add(end.question, end.question.scheme, end.outcome, end.seconds)

    def _replied(self, question: Question, outcome: QueryResult, seconds: float) -> None:
        if isinstance(outcome, Reply):
            self._add(question, outcome.server, _told(outcome), seconds)
        else:
            self._add(question, "no server", f"{type(outcome).__name__}: {outcome.message}", seconds)

    def _add(self, question: Question, server: str, answer: str, seconds: float) -> None:
        if len(self.queries) < _MOST:
            kind, name = question.scheme.upper(), foreign(question.name)
            self.queries.append(
                {
                    "question": f"{kind} {name}",
                    "server": foreign(server),
                    "answer": foreign(answer),
                    "milliseconds": round(seconds * 1000, 3),
                }
            )


def _told(reply: Reply) -> str:
    if not reply.exists:
        return f"no such name{_lifetime(reply)}"
    if not reply.answers:
        return f"no records of this kind{_lifetime(reply)}"
    records = [_record(each) for each in reply.answers[:_ANSWERS]]
    more = len(reply.answers) - len(records)
    ttl = min(each.ttl for each in reply.answers)
    return f"{', '.join(records)}{f' and {more} more' if more > 0 else ''}, TTL {ttl:g} s"


def _lifetime(reply: Reply) -> str:
    return "" if reply.negative_ttl is None else f", for {reply.negative_ttl:g} s"


def _record(record: Record) -> str:
    if isinstance(record, AddressRecord):
        return record.address
    if isinstance(record, AliasRecord):
        return f"alias of {record.target}"
    return f"{record.target}:{record.port} (priority {record.priority}, weight {record.weight})"
