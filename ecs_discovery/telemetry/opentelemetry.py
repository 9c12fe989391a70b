"""OpenTelemetry: metrics of discoveries, through its API alone.

Counts and states are read when they are collected, since a counter of the SDK costs more than a choice of an endpoint.
Only durations are recorded as they happen. Names of targets are the only attributes that grow with the program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import add
from threading import RLock
from typing import Any
from weakref import WeakSet

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        "ecs_discovery.telemetry.opentelemetry needs opentelemetry-api: from a clone, pip install '.[opentelemetry]'",
        name=error.name,
    ) from error

from ecs_discovery.client.engine import Engine, attach_everywhere
from ecs_discovery.config.options import check_flag
from ecs_discovery.config.targets import parse_target
from ecs_discovery.core.balancing.node import Health
from ecs_discovery.core.counters import Counted
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConfigurationError, DiscoveryError
from ecs_discovery.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted
from ecs_discovery.runtime import fork

__all__ = ["Instrumentor", "OpenTelemetry", "instrument"]

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TARGETS = 1000  # whose attributes are kept
_WORD = re.compile(r"[^a-z0-9]+")

Attributes = Mapping[str, str | int]


class OpenTelemetry:
    """Metrics of the discoveries that are made with it: `Discovery(telemetry=OpenTelemetry())`.

    `meter_provider` is the process's own by default. Without `durations` no histogram is recorded, and a request costs
    nothing more: counts and states are only read when the SDK collects them. Every metric has `server.address` and
    `server.port` of the target as it was written, and none has the address of an endpoint.

    Raises `ConfigurationError` for what is no `MeterProvider`.
    """

    def __init__(self, meter_provider: MeterProvider | None = None, *, durations: bool = True) -> None:
        if meter_provider is not None and not hasattr(meter_provider, "get_meter"):
            raise ConfigurationError("meter_provider", meter_provider, "an OpenTelemetry MeterProvider")
        check_flag("durations", durations)
        from ecs_discovery import __version__

        meter = get_meter("ecs_discovery", __version__, meter_provider, SCHEMA)
        self._engines: WeakSet[Engine] = WeakSet()
        self._lock = RLock()
        self._known: dict[str, Attributes] = {}
        self._durations = durations
        for rows, make, join in (
            (_COUNTERS, meter.create_observable_counter, add),
            (_SUMS, meter.create_observable_up_down_counter, add),
            (_GAUGES, meter.create_observable_gauge, max),
        ):
            for name, unit, description, read in rows:
                make(f"ecs_discovery.{name}", [self._reader(read, join)], unit=unit, description=description)
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
        fork.track(self)

    def after_fork(self) -> None:
        """In the child of a fork the lock may be held by a thread that is not there."""
        self._lock = RLock()

    def attach(self, engine: Engine) -> None:
        """Have the metrics of this engine too. A discovery calls it when it is made."""
        with self._lock:
            if engine in self._engines:
                return
            self._engines.add(engine)
        if self._durations:
            engine.observe(self)

    # What is read

    def _services(self) -> Iterator[tuple[Engine, Service]]:
        with self._lock:
            engines = list(self._engines)
        for engine in engines:
            for service in engine.directory.services():
                yield engine, service

    def _reader(
        self, read: Reader, join: Callable[[float, float], float]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            # Two services may be one target, for callers with another default port; one series has one value.
            totals: dict[tuple[tuple[str, str | int], ...], float] = {}
            for engine, service in self._services():
                of_target = self._attributes(service.target)
                for value, more in read(service, engine):
                    key = tuple(sorted({**of_target, **more}.items()))
                    totals[key] = join(totals[key], value) if key in totals else value
            return [Observation(value, dict(key)) for key, value in totals.items()]

        return observe

    def _lookups(self, options: CallbackOptions) -> Iterable[Observation]:
        totals: dict[tuple[str, str], int] = {}
        with self._lock:
            engines = list(self._engines)
        for engine in engines:
            for kind, number in engine.counters.read().get(Counted.LOOKUPS.value, {}).items():
                scheme, _, outcome = kind.partition(" ")
                totals[scheme, outcome] = totals.get((scheme, outcome), 0) + number
        for (scheme, outcome), number in totals.items():
            error: dict[str, str] = {} if outcome == "ok" else {"error.type": outcome or "other"}
            yield Observation(number, {"ecs_discovery.source": scheme, **error})

    def _attributes(self, target: str) -> Attributes:
        found = self._known.get(target)
        if found is None:
            if len(self._known) >= _TARGETS:
                self._known.clear()
            found = self._known[target] = _attributes_of(target)
        return found

    # What is recorded

    def call_started(self, call: CallStarted) -> _Call | None:
        """As `Observer` has it."""
        # Until the program has an SDK, the API's instruments stand for none. The API shows that nowhere else.
        if getattr(self._calls, "_real_instrument", self._calls) is None:
            return None
        return _Call(self, self._attributes(call.target))


class _Call:
    """One call, to whose end its duration is recorded."""

    __slots__ = ("_attributes", "_owner")

    def __init__(self, owner: OpenTelemetry, attributes: Attributes) -> None:
        self._owner = owner
        self._attributes = attributes

    def attempt_started(self, attempt: AttemptStarted) -> _Attempt:
        return _Attempt(self._owner, self._attributes)

    def ended(self, end: CallEnded) -> None:
        attributes = {**self._attributes, "error.type": end.error_type} if end.error_type else self._attributes
        self._owner._calls.record(end.seconds, attributes)


class _Attempt:
    """One attempt, likewise."""

    __slots__ = ("_attributes", "_owner")

    def __init__(self, owner: OpenTelemetry, attributes: Attributes) -> None:
        self._owner = owner
        self._attributes = attributes

    def left(self) -> None:
        """Nothing is done where it ran."""

    def ended(self, end: AttemptEnded) -> None:
        more: dict[str, str | int] = dict(self._attributes)
        if end.status is not None:
            more["http.response.status_code"] = end.status
        if end.kind and end.kind != "overtaken":  # an attempt that was overtaken has not failed
            more["error.type"] = _error_type(end)
        self._owner._attempts.record(end.seconds, more)


def instrument(meter_provider: MeterProvider | None = None, *, durations: bool = True) -> OpenTelemetry:
    """Metrics of every discovery of the process, of those too that are made later or by `wrap_session(namespace=…)`.

    The arguments are those of `OpenTelemetry`. To call it again adds nothing: the first one is returned.
    """
    with _INSTRUMENTING:
        if not _everywhere:
            made = OpenTelemetry(meter_provider, durations=durations)
            attach_everywhere(made)
            _everywhere.append(made)
        return _everywhere[0]


_INSTRUMENTING = RLock()
_everywhere: list[OpenTelemetry] = []


class Instrumentor:
    """What `opentelemetry-instrument` loads: it calls `instrument`."""

    def instrument(self, **options: Any) -> None:
        """`meter_provider` is used if it is given; OpenTelemetry passes other options that mean nothing here."""
        instrument(options.get("meter_provider"))

    def uninstrument(self, **options: Any) -> None:
        """Does nothing: a provider that is shut down reads no more."""


Reader = Callable[[Service, Engine], Iterable[tuple[float, Attributes]]]


def _counted(what: Counted, attribute: str = "") -> Reader:
    """Each kind of what is counted, by this attribute."""

    def read(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
        for kind, number in service.counters.read().get(what.value, {}).items():
            yield number, ({f"ecs_discovery.{attribute}": _word(kind)} if attribute and kind else {})

    return read


def _retries(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    counts = service.counters.read()
    for kind, number in counts.get(Counted.RETRIES.value, {}).items():
        yield number, {"ecs_discovery.retry.reason": kind, "ecs_discovery.retry.unsent": False}
    for number in counts.get(Counted.REPLAYS.value, {}).values():
        yield number, {"ecs_discovery.retry.reason": "connect", "ecs_discovery.retry.unsent": True}


def _connects(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    for kind, number in service.counters.read().get(Counted.CONNECTS.value, {}).items():
        yield number, ({} if kind == "ok" else {"error.type": _word(kind)})


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
    if known is not None and (not known.partial or known.estimate):
        yield (len(known.endpoints) / known.estimate if known.partial and known.estimate else 1.0), {}


def _panic(service: Service, engine: Engine) -> Iterator[tuple[float, Attributes]]:
    yield int(service.facts()["panic"]), {}


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
    ("forced_lookups", "{lookup}", "Lookups before their time", _counted(Counted.FORCED_LOOKUPS)),
    ("panics", "{panic}", "Times that too few endpoints were healthy", _counted(Counted.PANICS)),
)
_SUMS: tuple[tuple[str, str, str, Reader], ...] = (
    ("endpoint.count", "{endpoint}", "Endpoints that are known, by their state", _by_state),
    ("attempt.active", "{attempt}", "Uses of endpoints in flight", _active),
)
_GAUGES: tuple[tuple[str, str, str, Reader], ...] = (
    ("endpoint.coverage", "1", "The share of the endpoints that is known", _coverage),
    ("panic", "1", "1 while health is ignored", _panic),
    ("retry_budget.balance", "{retry}", "Retries that could be made now", _budget),
)


def _attributes_of(target: str) -> Attributes:
    try:
        parsed = parse_target(target)
    except DiscoveryError:
        return {"server.address": target}
    found: dict[str, str | int] = {"server.address": parsed.name or target}
    if parsed.port is not None:
        found["server.port"] = parsed.port
    return found


def _error_type(end: AttemptEnded) -> str:
    """A status as it is, the class of an exception that has no word of ours, else our word (`read_timeout`)."""
    if end.kind == "status" and end.status is not None:
        return str(end.status)
    return end.label if end.label == end.error_type else _word(end.label)


def _word(label: str) -> str:
    """A label for people as a word for machines."""
    return _WORD.sub("_", label.lower()).strip("_") or "error"
