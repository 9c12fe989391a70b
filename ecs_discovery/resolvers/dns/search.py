"""Search lists as glibc has them (resolv.conf(5), `res_search`): under which names a relative name is asked for.

The plan is pure, as `steps` is; only `system_configuration` looks at the system.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Generator, Iterable, Mapping, Sequence

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import NoEndpoints, ResolutionError, ResolutionTimeout, TargetNotFound
from ecs_discovery.models import Question, Value, replace
from ecs_discovery.resolvers.dns.records import Reply, plain_name
from ecs_discovery.resolvers.dns.servers import QueryResult
from ecs_discovery.resolvers.dns.steps import NO_DATA_HINT, NO_NAME_HINT, Asking, Steps, lookup_steps, normal, read
from ecs_discovery.runtime.files import read_text

__all__ = ["SearchConfiguration", "candidates", "parse", "search", "steps_for", "system_configuration"]

_RESOLV_CONF = "/etc/resolv.conf"
_MAX_NDOTS = 15  # glibc's RES_MAXNDOTS
_MAX_DOMAINS = 32  # glibc had room for 6 of 256 characters
_MAX_NAME = 253
_LABEL = re.compile(r"[!-\[\]-~]{1,63}")  # no backslash: DNS libraries read escapes
_LIST_HINT = "the names come from the search list: resolv.conf, LOCALDOMAIN and RES_OPTIONS"


class SearchConfiguration(Value):
    """What resolv.conf and the environment say about relative names."""

    domains: tuple[str, ...] = ()
    """The search list in its order; the empty name is the root."""
    ndots: int = 1
    """A name with this many dots or more is tried as it is before the list."""
    bare: bool = True
    """False if a name without a dot is never tried as it is once the list was (`options no-tld-query`)."""


def system_configuration() -> SearchConfiguration:
    """The system's as it is at this moment. A file that cannot be read counts as empty, as for glibc."""
    text = ""
    try:
        text = read_text(_RESOLV_CONF, 65_536)
    except OSError:
        pass
    return parse(text, os.environ, socket.gethostname())


def parse(text: str, environ: Mapping[str, str], hostname: str = "") -> SearchConfiguration:
    """The text of a resolv.conf with what the environment changes.

    The last `search` or `domain` line counts and `LOCALDOMAIN` overrides it; without any of them the domain of
    `hostname` is the list. `RES_OPTIONS` comes after the file's options.
    """
    override = environ.get("LOCALDOMAIN")
    domains: Sequence[str] = ()
    options: list[str] = []
    for line in text.split("\n"):
        # A keyword counts at the very beginning of a line only, and there are no comments behind it.
        keyword, blank, rest = line.replace("\t", " ").partition(" ")
        words = rest.split() if blank else []
        if keyword == "options":
            options += words
        elif keyword in ("search", "domain") and words:
            domains = words if keyword == "search" else words[:1]
    if override is not None:
        # "" is a list of the root alone: names are tried as they are.
        domains = re.split(r"[ \t]+", override.partition("\n")[0].rstrip(" \t"))
    elif not domains and "." in hostname:
        domains = (hostname.partition(".")[2],)
    return _with_options(SearchConfiguration(tuple(domains)), [*options, *environ.get("RES_OPTIONS", "").split()])


def _with_options(configuration: SearchConfiguration, options: Iterable[str]) -> SearchConfiguration:
    for option in options:
        if option.startswith("ndots:"):
            number = re.match(r"\d*", option.removeprefix("ndots:"), re.ASCII)
            digits = number[0][:9] if number else ""
            configuration = replace(configuration, ndots=min(int(digits or 0), _MAX_NDOTS))
        elif option.startswith("no-tld-query"):
            configuration = replace(configuration, bare=False)
    return configuration


def candidates(name: str, configuration: SearchConfiguration) -> tuple[str, ...]:
    """The names to ask for in their order, in lower case and absolute, each once. A trailing dot means absolute.

    A domain that makes no name with `name` (too long, an empty label) is left out.
    """
    plain = plain_name(name)
    if name.endswith("."):
        return (plain,)
    dots = plain.count(".")
    domains = [plain_name(domain.removeprefix(".")) for domain in configuration.domains]
    listed = [f"{plain}.{domain}" if domain else plain for domain in domains]
    found = [each for each in listed[:_MAX_DOMAINS] if each == plain or _is_name(each)]
    if dots >= configuration.ndots:
        found.insert(0, plain)
    elif dots or configuration.bare or not found:
        found.append(plain)
    return tuple(dict.fromkeys(found))


def _is_name(text: str) -> bool:
    return len(text) <= _MAX_NAME and all(map(_LABEL.fullmatch, text.split(".")))


def steps_for(question: Question, policy: DnsPolicy) -> Steps:
    """The plan of one lookup, of an absolute name or by the system's search list as it is now."""
    plain = normal(question)
    if not policy.search:
        return lookup_steps(plain, policy)
    return search(plain, candidates(question.name, system_configuration()), policy)


def search(question: Question, names: Sequence[str], policy: DnsPolicy) -> Steps:
    """As `lookup_steps`, under the first of `names` that has records.

    A name is passed over if it does not exist, has no records of the kind, or could not be looked up. Silence ends
    the search. An address question stays with a name that has addresses of the other family, so that A and
    AAAA records come from one name. At the end "could not be asked" outweighs "no records of this kind", and
    that outweighs "no such name".
    """
    if len(names) == 1:
        candidate = Question(question.scheme, names[0])
        return (yield from read(candidate, (yield Asking((candidate,)))[candidate], policy))
    failed = _Failed(question)
    for name in names:
        candidate = Question(question.scheme, name)
        failed.names.append(name)
        outcome = (yield Asking((candidate,)))[candidate]
        if _has_records(outcome) or (yield from _is_there(candidate, outcome, policy.families)):
            return (yield from read(candidate, outcome, policy))
        if failed.add(outcome):
            break
    raise failed.error()


def _has_records(outcome: QueryResult) -> bool:
    # Any record, as for glibc: a CNAME record that leads nowhere ends the search too.
    return isinstance(outcome, Reply) and outcome.exists and bool(outcome.answers)


def _is_there(
    candidate: Question, outcome: QueryResult, families: Sequence[str]
) -> Generator[Asking, Mapping[Question, QueryResult], bool]:
    """True if the name has addresses of another family that we ask for."""
    gone = isinstance(outcome, Reply) and not outcome.exists
    if gone or isinstance(outcome, ResolutionTimeout) or candidate.scheme not in families:
        return False
    others = tuple(Question(family, candidate.name) for family in families if family != candidate.scheme)
    if not others:
        return False
    outcomes = yield Asking(others, brief=True)
    return any(map(_has_records, outcomes.values()))


class _Failed:
    """The names that were tried in vain, and why."""

    def __init__(self, question: Question) -> None:
        self.names: list[str] = []
        self.failures: list[ResolutionError] = []
        self._question = question
        self._empty: Reply | None = None
        self._gone: Reply | None = None
        self._ttls: list[float] = []

    def add(self, outcome: QueryResult) -> bool:
        """Take what became of the last name. True if the search is over."""
        if isinstance(outcome, ResolutionError):
            self.failures.append(outcome)
            return isinstance(outcome, ResolutionTimeout)
        if outcome.negative_ttl is not None:
            self._ttls.append(outcome.negative_ttl)
        if outcome.exists:
            self._empty = self._empty or outcome
        else:
            self._gone = self._gone or outcome
        return False

    def error(self) -> ResolutionError:
        """What to raise when no name had records."""
        target, tried = str(self._question), f"tried {', '.join(self.names)}"
        if self.failures:
            cause = self.failures[0]
            silent = all(isinstance(failure, ResolutionTimeout) for failure in self.failures)
            error = (ResolutionTimeout if silent else ResolutionError)(
                f"{cause.target}: {cause.args[0]}; {tried}", target=target, hint=cause.hint
            )
            error.__cause__ = cause
            return error
        ttl = min(self._ttls, default=None)
        if self._empty is not None:
            kind = self._question.scheme.upper()
            return NoEndpoints(
                f"it has no {kind} records, says {self._empty.server}; {tried}",
                target=target,
                hint=f"{NO_DATA_HINT}; {_LIST_HINT}",
                ttl=ttl,
            )
        server = self._gone.server if self._gone else "nobody"
        return TargetNotFound(
            f"there is no such name, says {server}; {tried}",
            target=target,
            hint=f"{NO_NAME_HINT}; {_LIST_HINT}",
            ttl=ttl,
        )
