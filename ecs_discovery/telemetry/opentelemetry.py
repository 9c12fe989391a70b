"""OpenTelemetry: metrics and spans of discoveries, through its API alone."""

from __future__ import annotations

from threading import RLock
from typing import Any

try:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        "ecs_discovery.telemetry.opentelemetry needs opentelemetry-api: from a clone, pip install '.[opentelemetry]'",
        name=error.name,
    ) from error

from ecs_discovery.client.engine import Engine, attach_everywhere
from ecs_discovery.config.options import check_flag
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.telemetry._metrics import metrics_of
from ecs_discovery.telemetry._spans import Spans

__all__ = ["Instrumentor", "OpenTelemetry", "instrument"]


class OpenTelemetry:
    """Metrics and spans of the discoveries that are made with it: `Discovery(telemetry=OpenTelemetry())`.

    `meter_provider` and `tracer_provider` are the process's own by default. Without `durations` no histogram is
    recorded, and no request pays for metrics: counts and states are only read when the SDK collects them. Every metric
    has `server.address` and `server.port` of the target as it was written, and none has the address of an endpoint.

    With `spans`, attempts are seen in traces. Where the client library is instrumented, its span gets the address of
    the endpoint that answered. After more than one attempt it gets a child for each attempt. Where it is not, each
    attempt of an HTTP request is a client span, and its request carries the trace's header fields.

    Raises `ConfigurationError` for what is no provider.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        durations: bool = True,
        spans: bool = True,
    ) -> None:
        if meter_provider is not None and not hasattr(meter_provider, "get_meter"):
            raise ConfigurationError("meter_provider", meter_provider, "an OpenTelemetry MeterProvider")
        if tracer_provider is not None and not hasattr(tracer_provider, "get_tracer"):
            raise ConfigurationError("tracer_provider", tracer_provider, "an OpenTelemetry TracerProvider")
        check_flag("durations", durations)
        check_flag("spans", spans)
        from ecs_discovery import __version__

        self._metrics = metrics_of(__version__, meter_provider)
        self._durations = durations
        self._spans = Spans(__version__, tracer_provider) if spans else None

    def attach(self, engine: Engine) -> None:
        """Have the metrics and spans of this engine too. A discovery calls it when it is made."""
        if not self._metrics.add(engine):
            return
        if self._durations:
            engine.observe(self._metrics)
        if self._spans is not None:
            engine.observe(self._spans)


def instrument(
    meter_provider: MeterProvider | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    durations: bool = True,
    spans: bool = True,
) -> OpenTelemetry:
    """Metrics and spans of every discovery of the process.

    They are also of discoveries that are made later, or by `wrap_session(namespace=…)`.

    The arguments are the same as for `OpenTelemetry`. To call it again adds nothing: the first object is returned."""
    with _INSTRUMENTING:
        if not _everywhere:
            made = OpenTelemetry(meter_provider, tracer_provider=tracer_provider, durations=durations, spans=spans)
            attach_everywhere(made)
            _everywhere.append(made)
        return _everywhere[0]


_INSTRUMENTING = RLock()
_everywhere: list[OpenTelemetry] = []


class Instrumentor:
    """What `opentelemetry-instrument` loads: it calls `instrument`."""

    def instrument(self, **options: Any) -> None:
        """Providers are used if they are given; OpenTelemetry passes other options that mean nothing here."""
        instrument(options.get("meter_provider"), tracer_provider=options.get("tracer_provider"))

    def uninstrument(self, **options: Any) -> None:
        """Does nothing: a provider that is shut down reads no more."""
