"""One lookup as a plan: which questions to ask, and what the replies come to. No I/O.

The thread and the asyncio resolver both drive this; they differ only in how a question is sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import (
    ConfigurationError,
    NoEndpoints,
    ResolutionError,
    ResolutionTimeout,
    TargetNotFound,
    foreign,
)
from ecs_discovery.models import MAX_ENDPOINTS, Endpoint, Question, Resolution, Value
from ecs_discovery.resolvers.addresses import refusal, screened
from ecs_discovery.resolvers.dns.records import (
    AddressRecord,
    AliasLoop,
    Reply,
    SrvRecord,
    endpoints_from_addresses,
    endpoints_from_srv,
    follow_chain,
    plain_name,
)
from ecs_discovery.resolvers.dns.servers import QueryResult

__all__ = ["NO_DATA_HINT", "NO_NAME_HINT", "Asking", "Steps", "lookup_steps", "normal", "read", "told"]

_MAX_FOLLOW_UPS = 240
"""Questions after the addresses of SRV targets: with the first one and some retransmissions a lookup's allowance."""

NO_NAME_HINT = (
    "check the name and its namespace, that the service has a running task and registers it, "
    "and that the zone is associated with this VPC"
)
NO_DATA_HINT = "the name exists; perhaps with records of another kind, or no task is registered now"


class Asking(Value):
    """Questions to ask side by side. `brief`: give up on the silent ones after the wait for a single try."""

    questions: tuple[Question, ...]
    brief: bool = False


Steps = Generator[Asking, Mapping[Question, QueryResult], Resolution]


def normal(question: Question) -> Question:
    """The question as it is sent. Raises `ConfigurationError` if DNS has no such kind of question."""
    if question.scheme not in ("a", "aaaa", "srv"):
        raise ConfigurationError("question.scheme", question.scheme, "a, aaaa or srv")
    return Question(question.scheme, plain_name(question.name))


def told(steps: Steps, tell: Callable[[Question, QueryResult, float], object], clock: Callable[[], float]) -> Steps:
    """The same steps. `tell` gets what became of each question, and after how many seconds."""
    asking = next(steps)
    while True:
        began = clock()
        outcomes = yield asking
        for question, outcome in outcomes.items():
            tell(question, outcome, clock() - began)
        try:
            asking = steps.send(outcomes)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def lookup_steps(question: Question, policy: DnsPolicy) -> Steps:
    """Yields what to ask, takes what became of it, returns the answer or raises a `ResolutionError`."""
    return (yield from read(question, (yield Asking((question,)))[question], policy))


def read(question: Question, outcome: QueryResult, policy: DnsPolicy) -> Steps:
    """The rest of a lookup, once it is known what became of its question."""
    reply = _reply(outcome)
    if not reply.exists:
        raise TargetNotFound(
            f"there is no such name, says {reply.server}",
            target=str(question),
            hint=NO_NAME_HINT,
            ttl=reply.negative_ttl,
        )
    if question.scheme == "srv":
        return (yield from _services(question, reply, policy))
    addresses, _, ttl = _addresses(question, reply)
    # No more than are kept, and one that says so, for each takes its time.
    endpoints = endpoints_from_addresses(addresses[: MAX_ENDPOINTS + 1])
    if not endpoints:
        raise _unusable(question, reply, ttl)
    return _resolution(question, reply, endpoints, ttl, policy)


def _resolution(
    question: Question,
    reply: Reply,
    endpoints: Sequence[Endpoint],
    ttl: float,
    policy: DnsPolicy,
    *,
    partial: bool = False,
) -> Resolution:
    cut = len(endpoints) > MAX_ENDPOINTS
    kept, refused = screened(endpoints[:MAX_ENDPOINTS], policy.allowed_networks)
    if not kept:
        message, hint = refusal(reply.server, refused, "DnsPolicy")
        raise ResolutionError(message, target=str(question), hint=hint, refused=refused)
    return Resolution(kept, ttl, "dns", partial=cut or partial, refused=refused)


def _reply(outcome: QueryResult) -> Reply:
    if isinstance(outcome, ResolutionError):
        raise outcome
    return outcome


def _addresses(question: Question, reply: Reply) -> tuple[list[AddressRecord], str, float]:
    """The address records that answer `question`, the name that owns them, and the smallest TTL that led there."""
    name, ttl = _owner(question, reply)
    found = [
        record
        for record in reply.answers
        if isinstance(record, AddressRecord) and record.name == name and record.family == question.scheme
    ]
    if not found:
        raise _no_data(question, reply, name)
    return found, name, min(ttl, *(record.ttl for record in found))


def _owner(question: Question, reply: Reply) -> tuple[str, float]:
    try:
        return follow_chain(question.name, reply.answers)
    except AliasLoop as exc:
        raise ResolutionError(
            f"{reply.server} answered a circle: {exc}", target=str(question), hint="correct the CNAME records"
        ) from exc


def _no_data(question: Question, reply: Reply, name: str) -> NoEndpoints:
    alias = "" if name == question.name else f" (its CNAME leads to {foreign(name)})"
    return NoEndpoints(
        f"it has no {question.scheme.upper()} records{alias}, says {reply.server}",
        target=str(question),
        hint=NO_DATA_HINT,
        ttl=reply.negative_ttl,
    )


def _unusable(question: Question, reply: Reply, ttl: float) -> NoEndpoints:
    return NoEndpoints(
        f"none of the records that {reply.server} answered can be connected to",
        target=str(question),
        hint="they hold unspecified, multicast or broadcast addresses, or port 0",
        ttl=ttl,
    )


def _services(question: Question, reply: Reply, policy: DnsPolicy) -> Steps:
    owner, ttl = _owner(question, reply)
    records = [record for record in reply.answers if isinstance(record, SrvRecord) and record.name == owner]
    if not records:
        raise _no_data(question, reply, owner)
    ttl = min(ttl, *(record.ttl for record in records))
    offered = [record for record in records if record.target]
    if not offered:
        raise NoEndpoints(
            f"the service is declared absent: SRV target '.', says {reply.server}",
            target=str(question),
            hint="RFC 2782: the owner of the name says that there is no such service",
            ttl=ttl,
        )
    usable = [record for record in offered if record.port]
    if not usable:
        raise _unusable(question, reply, ttl)
    hosts = _Hosts(dict.fromkeys(record.target for record in usable[:MAX_ENDPOINTS]), policy.families)
    hosts.accept(reply.additional)
    yield from hosts.ask()
    endpoints = endpoints_from_srv((question.name, owner), usable[:MAX_ENDPOINTS], hosts.addresses)
    if not endpoints:
        raise hosts.error(question, reply, ttl)
    partial = len(usable) > MAX_ENDPOINTS or hosts.lacking
    return _resolution(question, reply, endpoints, min(ttl, hosts.ttl), policy, partial=partial)


class _Hosts:
    """The targets of an SRV answer on the way to their addresses."""

    def __init__(self, names: Iterable[str], families: Sequence[str]) -> None:
        self.addresses: dict[str, list[AddressRecord]] = {name: [] for name in names}
        self.ttl = math.inf
        self.failures: list[ResolutionError] = []
        """What went wrong, other than "there is none"."""
        self._failed: set[str] = set()
        self.negatives: list[TargetNotFound | NoEndpoints] = []
        self._families = families

    @property
    def lacking(self) -> bool:
        """True if a target may have an address that no server could say."""
        return any(not self.addresses[name] for name in self._failed)

    def accept(self, additional: Iterable[object]) -> None:
        """Use the addresses that came along with the answer, of its own targets only."""
        for record in additional:
            if isinstance(record, AddressRecord) and record.family in self._families and record.name in self.addresses:
                self.addresses[record.name].append(record)
                self.ttl = min(self.ttl, record.ttl)

    def ask(self) -> Generator[Asking, Mapping[Question, QueryResult], None]:
        """Look up the targets that came without an address, one family after the other.

        Some broken middleboxes swallow questions about the second family. That costs one try, and not the whole
        lookup, if the first family has given every target an address.
        """
        bare = [name for name, found in self.addresses.items() if not found]
        left = _MAX_FOLLOW_UPS
        for family in self._families if bare else ():
            brief = all(self.addresses.values())
            questions = tuple(Question(family, name) for name in bare[:left])
            left -= len(questions)
            self._leave_out(bare[len(questions) :])
            if not questions:
                break
            outcomes = yield Asking(questions, brief)
            for question in questions:
                self._handle(question, outcomes[question])

    def _leave_out(self, names: Sequence[str]) -> None:
        lost = [name for name in names if not self.addresses[name]]
        if lost:
            self._failed.update(lost)
            told = (
                f"{len(lost)} targets were not asked about: one lookup asks {_MAX_FOLLOW_UPS} questions about targets"
            )
            self.failures.append(ResolutionError(told))

    def _handle(self, question: Question, outcome: QueryResult) -> None:
        try:
            reply = _reply(outcome)
            if not reply.exists:
                raise TargetNotFound("there is no such name", target=str(question), ttl=reply.negative_ttl)
            found, _, ttl = _addresses(question, reply)
        except (TargetNotFound, NoEndpoints) as exc:
            self.negatives.append(exc)
        except ResolutionError as exc:
            self.failures.append(exc)
            self._failed.add(question.name)
        else:
            self.addresses[question.name] += found
            self.ttl = min(self.ttl, ttl)

    def error(self, question: Question, reply: Reply, ttl: float) -> ResolutionError:
        """What to raise when no target has a usable address."""
        if not self.failures:
            known = [negative.ttl for negative in self.negatives if negative.ttl is not None]
            error: ResolutionError = NoEndpoints(
                f"no target of the SRV records that {reply.server} answered has a usable address",
                target=str(question),
                hint=NO_DATA_HINT,
                ttl=min(ttl, self.ttl, *known),
            )
            causes: Sequence[ResolutionError] = self.negatives
        else:
            silent = all(isinstance(failure, ResolutionTimeout) for failure in self.failures)
            error = (ResolutionTimeout if silent else ResolutionError)(
                f"no address of the {len(self.addresses)} targets of its SRV records could be found out: "
                f"{self.failures[0]}",
                target=str(question),
            )
            causes = self.failures
        error.__cause__ = causes[0] if causes else None
        return error
