"""Metrics of discoveries.

Counts and states are read when they are collected, since a counter of the SDK costs more than a choice of an endpoint.
Only durations are recorded as they happen. Names of targets are the only attributes that grow with the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import add
from threading import RLock
from weakref import WeakKeyDictionary, WeakSet, ref

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter, get_meter_provider

from ecs_discovery.client.engine import Engine
from ecs_discovery.core.balancing.node import Health
from ecs_discovery.core.counters import Counted
from ecs_discovery.core.service import Service
from ecs_discovery.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    ConnectEnded,
    Idle,
    LookupEnded,
)
from ecs_discovery.runtime import fork
from ecs_discovery.telemetry._attributes import SCHEMA, Attributes, attributes_of, error_type, word
from ecs_discovery.telemetry._totals import Totals

__all__ = ["Metrics", "metrics_of"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TARGETS = 1000  # whose attributes are kept
_IDLE = Idle(1.0)
_IN_USE = 60.0  # seconds after its last use that a service counts as used


def metrics_of(version: str, meter_provider: MeterProvider | None) -> Metrics:
    """The metrics of a provider, or of the process's own: one set of instruments, for an SDK reads no second one of the
    same name."""
    own = meter_provider is None or meter_provider is get_meter_provider()
    key = _PROCESS if own else meter_provider
    with _MAKING:
        known = _made.get(key)
        found = known() if known is not None else None
        if found is None:
            found = Metrics(version, meter_provider)
            _made[key] = ref(found)
        return found


class _Process:
    """Stands for the process's own provider, which may be set later."""


_PROCESS = _Process()
_MAKING = RLock()
_made: WeakKeyDictionary[object, ref[Metrics]] = WeakKeyDictionary()
"""The SDK keeps the instruments' callbacks, and with them the metrics, for as long as the provider lives."""


class Metrics:
    """The instruments of one meter, and an observer that records durations with them."""

    def __init__(self, version: str, meter_provider: MeterProvider | None) -> None:
        meter = get_meter("ecs_discovery", version, meter_provider, SCHEMA)
        self._engines: WeakSet[Engine] = WeakSet()
        self._lock = RLock()
        self._known: dict[str, Attributes] = {}
        self._totals: list[Totals] = []
        for name, unit, description, read in _COUNTERS:
            meter.create_observable_counter(
                f"ecs_discovery.{name}", [self._counter(read)], unit=unit, description=description
            )
        for rows, make, join in (
            (_SUMS, meter.create_observable_up_down_counter, add),
            (_GAUGES, meter.create_observable_gauge, max),
        ):
            for name, unit, description, read in rows:
                make(f"ecs_discovery.{name}", [self._reader(read, join)], unit=unit, description=description)
        self._all_lookups = self._new_totals()
        meter.create_observable_counter(
            "ecs_discovery.lookups", [self._lookups], unit="{lookup}", description="Lookups that ended"
        )
        self._calls = meter.create_histogram(
            "ecs_discovery.call.duration",
            unit="s",
            description="Calls, with all their attempts",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._attempts = meter.create_histogram(
            "ecs_discovery.attempt.duration",
            unit="s",
            description="Attempts, each on one endpoint",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._connects = meter.create_histogram(
            "ecs_discovery.connect.duration",
            unit="s",
            description="Connects, each to one endpoint",
            explicit_bucket_boundaries_advisory=(0.0005, *_BUCKETS),
        )
        self._lookup_times = meter.create_histogram(
            "ecs_discovery.lookup.duration",
            unit="s",
            description="Lookups, which the cache had no answer for",
            explicit_bucket_boundaries_advisory=(0.0005, *_BUCKETS),
        )
        fork.track(self)

    def after_fork(self) -> None:
        """In the child of a fork the lock may be held by a thread that is not there, and all counts begin at 0."""
        self._lock = RLock()
        for totals in self._totals:
            totals.clear()

    def add(self, engine: Engine) -> bool:
        """Read this engine too. False if it is read already."""
        with self._lock:
            if engine in self._engines:
                return False
            self._engines.add(engine)
            return True

    # What is read

    def _services(self) -> Iterator[tuple[Engine, Service]]:
        with self._lock:
            engines = list(self._engines)
        for engine in engines:
            for service in engine.directory.services():
                yield engine, service

    def _new_totals(self) -> Totals:
        made = Totals()
        self._totals.append(made)
        return made

    def _counter(self, read: Reader) -> Callable[[CallbackOptions], Iterable[Observation]]:
        totals = self._new_totals()

        def observe(options: CallbackOptions) -> Iterable[Observation]:
            found = (
                (service, self._series(service, more), value)
                for engine, service in self._services()
                for value, more in read(service, engine)
            )
            with self._lock:
                return [Observation(value, dict(key)) for key, value in totals.add(found).items()]

        return observe

    def _series(self, service: Service, more: Attributes) -> tuple[tuple[str, str | int], ...]:
        return tuple(sorted({**self._attributes(service.target), **more}.items()))

    def _reader(
        self, read: Reader, join: Callable[[float, float], float]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            # Two services may be one target, for callers with another default port; one series has one value.
            totals: dict[tuple[tuple[str, str | int], ...], float] = {}
            for engine, service in self._services():
                for value, more in read(service, engine):
                    key = self._series(service, more)
                    totals[key] = join(totals[key], value) if key in totals else value
            return [Observation(value, dict(key)) for key, value in totals.items()]

        return observe

    def _lookups(self, options: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            engines = list(self._engines)
            totals = self._all_lookups.add(
                (engine, (scheme, outcome), number)
                for engine in engines
                for kind, number in engine.counters.read().get(Counted.LOOKUPS.value, {}).items()
                for scheme, _, outcome in (kind.partition(" "),)
            )
        for (scheme, outcome), number in totals.items():
            error: dict[str, str] = {} if outcome == "ok" else {"error.type": outcome or "other"}
            yield Observation(number, {"ecs_discovery.source": scheme, **error})

    def _attributes(self, target: str) -> Attributes:
        found = self._known.get(target)
        if found is None:
            if len(self._known) >= _TARGETS:
                self._known.clear()
            found = self._known[target] = attributes_of(target)
        return found

    # What is recorded

    def call_started(self, call: CallStarted) -> _Call | Idle:
        """As `Observer` has it."""
        # Until the program has an SDK, the API's instruments stand for none. The API shows that nowhere else.
        if getattr(self._calls, "_real_instrument", self._calls) is None:
            return _IDLE
        return _Call(self, self._attributes(call.target))

    def connect_ended(self, end: ConnectEnded) -> None:
        """As `Observer` has it."""
        attributes = self._attributes(end.target)
        if end.outcome not in ("ok", "overtaken"):
            attributes = {**attributes, "error.type": word(end.outcome)}
        self._connects.record(end.seconds, attributes)

    def lookup_ended(self, end: LookupEnded) -> None:
        """As `Observer` has it."""
        error = {} if end.outcome == "ok" else {"error.type": end.outcome}
        self._lookup_times.record(end.seconds, {"ecs_discovery.source": end.question.scheme, **error})


class _Call:
    """One call: its duration is recorded at its end, and that of each attempt."""

    __slots__ = ("_attributes", "_owner")

    def __init__(self, owner: Metrics, attributes: Attributes) -> None:
        self._owner = owner
        self._attributes = attributes

    def attempt_started(self, attempt: AttemptStarted) -> _Call:
        return self  # an attempt's end says all

    def left(self) -> None:
        """Nothing is done where an attempt ran."""

    def ended(self, end: AttemptEnded | CallEnded) -> None:
        """An attempt is over, or the call is."""
        attributes = self._attributes
        if isinstance(end, CallEnded):
            if end.error_type:
                attributes = {**attributes, "error.type": end.error_type}
            self._owner._calls.record(end.seconds, attributes)
            return
        if end.status is not None or end.kind:
            more: dict[str, str | int] = {}
            if end.status is not None:
                more["http.response.status_code"] = end.status
            if end.kind and end.kind not in ("cancelled", "overtaken"):  # such an attempt has not failed
                more["error.type"] = error_type(end)
            attributes = {**attributes, **more}
        self._owner._attempts.record(end.seconds, attributes)


Reader = Callable[[Service, Engine], Iterable[tuple[float, Attributes]]]


def _counted(what: Counted, attribute: str = "") -> Reader:
    """Each kind of what is counted, by this attribute."""

    def read(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
        for kind, number in service.counters.read().get(what.value, {}).items():
            yield number, ({f"ecs_discovery.{attribute}": word(kind)} if attribute and kind else {})

    return read


def _retries(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    counts = service.counters.read()
    for kind, number in counts.get(Counted.RETRIES.value, {}).items():
        yield number, {"ecs_discovery.retry.reason": kind, "ecs_discovery.retry.unsent": False}
    for number in counts.get(Counted.REPLAYS.value, {}).values():
        yield number, {"ecs_discovery.retry.reason": "connect", "ecs_discovery.retry.unsent": True}


def _connects(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    for kind, number in service.counters.read().get(Counted.CONNECTS.value, {}).items():
        yield number, ({} if kind == "ok" else {"error.type": word(kind)})


def _by_state(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    counts = dict.fromkeys(Health, 0)
    for node in service.nodes:
        counts[node.health] += 1
    for health, count in counts.items():
        yield count, {"ecs_discovery.endpoint.state": health.value}


def _active(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    yield sum(node.pending for node in service.nodes), {}


def _coverage(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    known = service.resolution
    if known is not None and known.coverage is not None:
        yield known.coverage, {}


def _age(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    now = engine.clock()
    if now - service.used_at > _IN_USE:
        return  # what no request needs is not asked for again, and its age says nothing
    age = engine.directory.age(service, now)
    if age is not None:
        yield age, {}


def _panic(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    yield int(service.facts(picks=False)["panic"]), {}


def _budget(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    yield service.budget.balance(engine.clock()), {}


_COUNTERS: tuple[tuple[str, str, str, Reader], ...] = (
    (
        "endpoint.changes",
        "{endpoint}",
        "Endpoints that came and left",
        _counted(Counted.MEMBERS, "change"),
    ),
    (
        "endpoint.ejections",
        "{ejection}",
        "Endpoints taken out of choice",
        _counted(Counted.EJECTIONS, "ejection.cause"),
    ),
    (
        "endpoint.ejections_withheld",
        "{ejection}",
        "Ejections that the limit on them withheld",
        _counted(Counted.EJECTIONS_WITHHELD, "ejection.cause"),
    ),
    (
        "endpoint.revivals",
        "{revival}",
        "Endpoints that came back",
        _counted(Counted.REVIVALS, "endpoint.was"),
    ),
    ("endpoint.pushbacks", "{pushback}", "Endpoints that said they are overloaded", _counted(Counted.PUSHBACKS)),
    ("retries", "{retry}", "Attempts that followed a failed one", _retries),
    (
        "retries_denied",
        "{retry}",
        "Failed attempts that none followed",
        _counted(Counted.RETRIES_DENIED, "retry.denied_by"),
    ),
    ("hedges", "{hedge}", "Attempts begun beside a slow one", _counted(Counted.HEDGES)),
    ("hedges_won", "{hedge}", "Hedges whose answer counted", _counted(Counted.HEDGES_WON)),
    ("connects", "{connect}", "Connects that ended", _connects),
    (
        "health_checks",
        "{check}",
        "Health checks that ended",
        _counted(Counted.HEALTH_CHECKS, "check.result"),
    ),
    ("forced_lookups", "{lookup}", "Lookups before their time", _counted(Counted.FORCED_LOOKUPS)),
    ("panics", "{panic}", "Times that too few endpoints were healthy", _counted(Counted.PANICS)),
)
_SUMS: tuple[tuple[str, str, str, Reader], ...] = (
    ("endpoint.count", "{endpoint}", "Endpoints that are known, by their state", _by_state),
    ("attempt.active", "{attempt}", "Uses of endpoints in flight", _active),
)
# Prometheus' exporters make another name of a gauge with the unit 1: `_ratio` is added to it, or not.
_GAUGES: tuple[tuple[str, str, str, Reader], ...] = (
    ("endpoint.coverage", "", "The share of the endpoints that is known", _coverage),
    ("resolution.age", "s", "How old the oldest answer is that is believed, while the service is used", _age),
    ("panic", "", "1 while health is ignored", _panic),
    ("retry_budget.balance", "{retry}", "Retries that could be made now", _budget),
)
