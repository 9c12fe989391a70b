"""Source selection: what the lookups of a target's questions add up to.

It settles on the kind of record that answers, remembers it, and says what to ask next. It keeps no
endpoints: whether an answer is believed is the service's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from operator import is_

from ecs_discovery.core.resolution.cache import Freshness, Look
from ecs_discovery.core.resolution.membership import EMPTY_APART
from ecs_discovery.core.resolution.questions import Group, Ported
from ecs_discovery.errors import NoEndpoints, ResolutionError, TargetNotFound
from ecs_discovery.models import REGISTRIES, Endpoint, Question, Resolution, Value, replace

__all__ = ["Due", "Evaluation", "Looks", "SourceSelection"]

_NONE = (TargetNotFound, NoEndpoints)  # "there is none", as opposed to "could not be asked"

_PORT_HINT = "name it: 'orders:8080', 'dns://orders:8080' or 'cloudmap://prod.local/orders?port=8080'"

_FRESH, _EXPIRED = Freshness.FRESH, Freshness.EXPIRED  # looking a member up takes longer than comparing (Python 3.11)

Looks = Mapping[Question, Look[Resolution]]


class Due(Value):
    """What a driver must do before the service can be used."""

    ask: tuple[Question, ...] = ()
    """Start lookups of these; no caller need wait."""
    wait: tuple[Question, ...] = ()
    """Start lookups of these and wait for them."""
    error: ResolutionError | None = None
    """Nothing to wait for: it cannot be used, because of this."""
    again: bool = False
    """What is wanted or known has changed meanwhile: judge again with it."""


class Evaluation(Value):
    """What one look at the cache came to."""

    refresh_at: float
    """When to look again."""
    ask: tuple[Question, ...] = ()
    """Due for a lookup that no caller need wait for."""
    wait: tuple[Question, ...] = ()
    """Due for a lookup that must be waited for."""
    again: bool = False
    """Other questions matter now: look at them."""
    answer: Resolution | None = None
    """The endpoints, with their ports."""
    error: Exception | None = None
    """Without an answer, why; with one, why it could not be refreshed."""
    empty: bool = False
    """Every source says that there is none."""
    agreed: bool = False
    """A registry, asked itself, is among those who say so: it is the truth at once."""
    notice: str = ""
    """Something to tell once."""


class SourceSelection:
    """Guarded by its service's lock."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        self.questions: tuple[Question, ...] = tuple(dict.fromkeys(q for group in groups for q in group.questions))
        self._chosen: int | None = None  # the group that answers
        self._narrowed: tuple[Question, ...] = ()  # those of its questions that have an answer
        self._serials: dict[Question, int] = {}
        self._surprised = False
        self._held: dict[Question, tuple[Resolution, float | None]] = {}  # last answers, and since when they are gone
        self._gone_since: float | None = None  # since when the known kind of record is gone
        self._ported: list[Ported] = [{} for _ in self.groups]
        self._joined: tuple[int, tuple[Resolution, ...], tuple[Endpoint, ...]] = (-1, (), ())  # a group's last answers
        self._answer: tuple[object, Resolution | None] = (None, None)  # the last, and what was joined for it

    @property
    def wanted(self) -> tuple[Question, ...]:
        """The questions whose answers matter now."""
        return self.questions if self._chosen is None else self._narrowed

    @property
    def default_port(self) -> int | None:
        """The scheme's port, if the endpoints have it because no record and no caller has named another."""
        group = self.groups[self._chosen] if self._chosen is not None else None
        return group.port if group is not None and group.is_default else None

    def adopt(self, looks: Looks) -> tuple[Resolution, ...] | None:
        """The answers that are news; None if these were read before a report that was taken over since."""
        # Serial 0: the cache has dropped it since, which is no report.
        if any(0 < look.serial < self._serials.get(question, 0) for question, look in looks.items()):
            return None
        fresh = [
            look.value
            for question, look in looks.items()
            if look.value is not None and look.error is None and look.serial != self._serials.get(question)
        ]
        self._serials.update((question, look.serial) for question, look in looks.items())
        return tuple(fresh)

    def evaluate(self, looks: Looks, now: float, *, known: bool) -> Evaluation:
        """What the lookups of `wanted` add up to. With `known` endpoints there is nothing to wait for."""
        indexes = range(len(self.groups)) if self._chosen is None else (self._chosen,)
        failed: Exception | None = None
        absent: list[Exception] = []
        partial: Evaluation | None = None
        for index in indexes:
            if partial is not None and not self._is_registry(index):
                continue  # only the registry itself completes an answer: another source may be another service
            mine = self._with_last_answers({q: looks[q] for q in self.groups[index].questions if q in looks}, now)
            if any(look.value is not None for look in mine.values()):
                evaluation = self._found(index, mine)
                if evaluation.answer is not None and evaluation.answer.partial and self._registry_follows(index):
                    partial = partial or evaluation  # the next source may know all of them
                    continue
                if partial is not None and (evaluation.answer is None or evaluation.answer.partial):
                    return partial
                # After a failed source this one is not settled on: the first is asked again when that is due.
                if failed is None:
                    self._choose_group(index, mine)
                return evaluation
            if any(look.freshness is Freshness.MISSING for look in mine.values()):
                # Nothing of this group is known: everything that may be needed is asked at once.
                cold = tuple(q for q, look in looks.items() if look.freshness is Freshness.MISSING)
                if partial is not None:
                    return replace(partial, ask=(*partial.ask, *cold))
                return Evaluation(now, ask=cold if known else (), wait=() if known else cold)
            errors = [look.error for look in mine.values() if look.error is not None]
            trouble = next((error for error in errors if not isinstance(error, _NONE)), None)
            if trouble is None:
                absent += errors
                continue
            failed = failed or trouble
            if not self._has_other_source(index):
                break  # SERVFAIL is never "there is none": the next kind of record would be a guess
        if partial is not None:
            return partial
        if self._chosen is not None and failed is None and self._gone_for_good(self._chosen, now):
            self._chosen, self._narrowed = None, ()  # look at everything again
            return Evaluation(now, again=True)
        refresh_at = min((look.changes_at for look in looks.values()), default=now)
        # Of "no such name" and "no such record" the second says more: the name is there.
        absent.sort(key=lambda error: not isinstance(error, NoEndpoints))
        agreed = any(question.scheme in REGISTRIES for question in looks)
        return Evaluation(
            refresh_at, error=failed or next(iter(absent), None), empty=failed is None, agreed=failed is None and agreed
        )

    def _choose_group(self, index: int, looks: Looks) -> None:
        self._chosen = index
        self._narrowed = tuple(q for q, look in looks.items() if not _absent(look))

    def _found(self, index: int, looks: Looks) -> Evaluation:
        answered = [look for look in looks.values() if look.value is not None]
        values = tuple([look.value for look in answered if look.value is not None])
        endpoints = self._endpoints(index, values)
        wait = tuple([q for q, look in looks.items() if look.freshness is _EXPIRED])
        ask = tuple([q for q, look in looks.items() if look.refresh and q not in wait])
        refresh_at = min([look.changes_at for look in looks.values() if not _absent(look)])
        if not endpoints:
            return Evaluation(refresh_at, ask, wait, error=NoEndpoints("its answers carry no port", hint=_PORT_HINT))
        notice = "" if self._surprised else self.groups[index].surprise
        self._surprised = self._surprised or bool(notice)
        stale = any(look.freshness is not _FRESH for look in answered)
        refused = tuple(dict.fromkeys([host for look in looks.values() for host in _refused(look)]))
        of, answer = self._answer
        if answer is None or of is not self._joined or answer.stale is not stale or answer.refused != refused:
            partial = any(value.partial for value in values)
            answer = Resolution(
                endpoints,
                min([value.ttl for value in values]),
                "+".join(dict.fromkeys([value.source for value in values])),
                partial,
                max([value.estimate for value in values if value.estimate is not None], default=None),
                frozenset().union(*[value.hosts for value in values]) if partial else None,
                stale,
                refused,
            )
            self._answer = self._joined, answer
        error = next((look.error for look in answered if look.error is not None), None)
        return Evaluation(refresh_at, ask, wait, answer=answer, error=error, notice=notice)

    def _endpoints(self, index: int, values: tuple[Resolution, ...]) -> tuple[Endpoint, ...]:
        """The endpoints of a group's answers: the very same tuple for the very same answers, which are looked at more
        often than they change."""
        known, of, endpoints = self._joined
        if known == index and len(of) == len(values) and all(map(is_, of, values)):
            return endpoints
        found: Iterable[Endpoint] = values[0].endpoints
        if len(values) > 1:
            # Families take turns, so that a reader of the first few sees both (RFC 8305, section 4).
            rows = zip_longest(*(value.endpoints for value in values))
            found = [each for row in rows for each in row if each is not None]
        endpoints = self.groups[index].endpoints(found, self._ported[index])
        self._joined = (index, values, endpoints)
        return endpoints

    def _with_last_answers(self, looks: Looks, now: float) -> Looks:
        """The group's lookups, with the last answer in place of a newly empty one while others of the group answer.

        One family that goes empty for a moment must not take its endpoints with it.
        """
        if all(look.value is None for look in looks.values()):
            return looks
        self._gone_since = None
        held = dict(looks)
        for question, look in looks.items():
            if look.value is not None:
                self._held[question] = (look.value, None)
            elif _absent(look) and question in self._held:
                value, since = self._held[question]
                since = now if since is None else since
                if now - since < EMPTY_APART:
                    self._held[question] = (value, since)
                    held[question] = look._replace(freshness=Freshness.STALE, value=value, error=None)
                else:
                    del self._held[question]
        return held

    def _gone_for_good(self, index: int, now: float) -> bool:
        """May the other kinds of record be looked at, now that the known kind is gone?

        At once if they belong to another source; else, as one empty answer is no truth, after 30 s.
        """
        if self._gone_since is None:
            self._gone_since = now
        others = any(group.source != self.groups[index].source for group in self.groups)
        return others or now - self._gone_since >= EMPTY_APART

    def _is_registry(self, index: int) -> bool:
        return any(question.scheme in REGISTRIES for question in self.groups[index].questions)

    def _registry_follows(self, index: int) -> bool:
        return any(self._is_registry(later) for later in range(index + 1, len(self.groups)))

    def _has_other_source(self, index: int) -> bool:
        return any(group.source != self.groups[index].source for group in self.groups[index + 1 :])


def without_wait(look: Look[Resolution]) -> Look[Resolution]:
    """A lookup that was just made, as a lookup that no caller need wait for again."""
    if look.freshness is Freshness.EXPIRED:
        return look._replace(freshness=Freshness.STALE, refresh=False)
    if look.freshness is Freshness.MISSING and look.error is not None:
        return look._replace(freshness=Freshness.NEGATIVE, refresh=False)
    return look


def _refused(look: Look[Resolution]) -> tuple[str, ...]:
    """The hosts that were refused: of an answer some, or all of them where the others of its group answer."""
    if look.value is not None:
        return look.value.refused
    return look.error.refused if isinstance(look.error, ResolutionError) else ()


def _absent(look: Look[Resolution]) -> bool:
    """Is the answer that there is none?"""
    return look.value is None and isinstance(look.error, _NONE)
