"""Partial answers: possibly partial answers of DNS, joined over time.

Route 53 answers a MULTIVALUE service with at most eight records drawn at random, and a WEIGHTED
one with a single record. Taken one by one such answers make a client drop live tasks; joined, they
show all of them. How many there are is estimated from how much successive answers overlap
(Schnabel's mark and recapture). A record is dropped after many answers without it: so many that a
live record would hardly ever be missed that often.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import takewhile
from math import ceil, log

from ecs_discovery.models import MAX_ENDPOINTS, Endpoint, Resolution

__all__ = ["PartialAnswers"]

LIMIT = 8  # records in one answer of Route 53
_MISS = 1e-4  # accepted chance that a live endpoint is taken for gone
_FADE = 0.9  # weight of what earlier answers told, per answer: fleets grow and shrink
_GROWING = 3  # answers after the last discovery during which more is expected
_SAME = 3  # equal answers after which the overlap tells nothing
_RECALL = 8  # answers for which a single record is remembered before it is known that there are more

Key = tuple[str, int, str | None]


class PartialAnswers:
    """What the answers to one question add up to. Used by one lookup at a time."""

    def __init__(self) -> None:
        self._members: dict[Key, Endpoint] = {}
        self._ordered: list[Endpoint] = []  # the same, by address and port
        self._places: list[tuple[str, int]] = []  # what that is ordered by
        self._named: dict[Key, int] = {}  # the number of the answer that named each last, the longest unnamed first
        self._answers = 0
        self._recent: dict[Key, int] = {}  # single records: answers since each was seen
        self._last: frozenset[Key] = frozenset()
        self._expires_at = 0.0
        self._marked = self._recaptured = 0.0
        self._same = 0
        self._quiet = 0
        self._joining = False
        self._weighted = False

    @property
    def growing(self) -> bool:
        """Is it worth asking more often, because there are endpoints not seen yet?"""
        if not self._joining or self._same >= _SAME:
            return False
        return self._quiet < _GROWING or len(self._members) < (self.estimate or 0)

    @property
    def estimate(self) -> int | None:
        """How many endpoints there are; None if that cannot be told, as when every answer names the same."""
        if not self._joining or not self._recaptured or self._same >= _SAME:
            return None
        return max(len(self._members), round(self._marked / self._recaptured))

    def add(self, answer: Resolution, now: float) -> Resolution:
        """Take an answer in; what is known with it."""
        keys = frozenset(endpoint.key for endpoint in answer.endpoints)
        if keys == self._last and now < self._expires_at:
            return self._joined(answer) if self._joining else answer  # the same answer from a cache on the way
        same, self._last = keys == self._last, keys
        self._expires_at = now + answer.ttl
        if not self._partial(answer, keys, same):
            self._start_over()
            return answer
        self._same = self._same + 1 if same else 0
        self._count(keys)
        self._answers += 1
        for endpoint in answer.endpoints:
            self._put(endpoint)
        self._drop(keys)
        return self._joined(answer)

    def _partial(self, answer: Resolution, keys: frozenset[Key], same: bool) -> bool:
        """Does this answer leave others out? If not, it stands alone."""
        tasks = len({endpoint.instance_id or endpoint.host for endpoint in answer.endpoints})
        weighted = tasks == 1 and self._drawn(keys, same)
        if tasks != 1:
            self._recent.clear()
        if self._joining and weighted is not self._weighted:
            self._start_over()
        self._weighted = weighted
        self._joining = weighted or tasks == LIMIT
        return self._joining

    def _drawn(self, keys: frozenset[Key], same: bool) -> bool:
        """A single record that was replaced by another and is back: one of several, drawn for each answer."""
        back = not same and any(key in self._recent for key in keys)
        if not same:
            self._recent = {key: age + 1 for key, age in self._recent.items() if age < _RECALL}
        self._recent.update(dict.fromkeys(keys, 0))
        return back or (self._joining and self._weighted)

    def _count(self, keys: frozenset[Key]) -> None:
        known = len(self._members)
        met = sum(key in self._members for key in keys)
        self._quiet = self._quiet + 1 if met == len(keys) else 0
        if known:
            self._marked = self._marked * _FADE + len(keys) * known
            self._recaptured = self._recaptured * _FADE + met

    def _put(self, endpoint: Endpoint) -> None:
        key = endpoint.key
        known = self._members.get(key)
        if known is None:
            at = bisect_right(self._places, key[:2])
            self._places.insert(at, key[:2])
            self._ordered.insert(at, endpoint)
            self._members[key] = endpoint
        elif known is not endpoint and known != endpoint:  # one that is as it was stays the same object
            self._ordered[self._place(known)] = endpoint
            self._members[key] = endpoint
        self._named.pop(key, None)
        self._named[key] = self._answers

    def _drop(self, keys: frozenset[Key]) -> None:
        limit = self._hold(len(keys))
        # A server that names others each time must not fill the memory: the longest unseen go.
        extra = len(self._members) - MAX_ENDPOINTS
        longest_unseen = enumerate(self._named.items())
        gone = takewhile(lambda each: each[0] < extra or self._answers - each[1][1] >= limit, longest_unseen)
        for key in [key for _, (key, _) in gone]:
            at = self._place(self._members.pop(key))
            del self._ordered[at], self._places[at], self._named[key]

    def _place(self, endpoint: Endpoint) -> int:
        """Where it stands in the order."""
        at = bisect_left(self._places, endpoint.key[:2])
        while self._ordered[at] is not endpoint:  # another instance with its address
            at += 1
        return at

    def _hold(self, size: int) -> int:
        """Answers without an endpoint after which it is taken for gone: sized to the estimated number."""
        total = max(len(self._members), self._marked / self._recaptured if self._recaptured else 0.0)
        if total <= size:
            return 1
        return max(2, ceil(log(_MISS) / log(1 - size / total)))

    def _joined(self, answer: Resolution) -> Resolution:
        # `replace` takes three times as long.
        return Resolution(
            tuple(self._ordered),
            answer.ttl,
            answer.source,
            True,
            self.estimate,
            frozenset([endpoint.host for endpoint in answer.endpoints]),
            answer.stale,
            answer.refused,
        )

    def _start_over(self) -> None:
        self._members.clear()
        self._ordered.clear()
        self._places.clear()
        self._named.clear()
        self._marked = self._recaptured = 0.0
        self._same = self._quiet = 0
