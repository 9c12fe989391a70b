"""Traces of requests through each client library, beside its real instrumentation and without one."""

from __future__ import annotations

import json
from contextlib import nullcontext
from importlib import import_module
from typing import Any, ClassVar

import pytest
import requests
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from ecs_discovery import AsyncDiscovery, Discovery, RetryPolicy, wrap_client, wrap_session
from ecs_discovery.telemetry.opentelemetry import OpenTelemetry
from ecs_discovery.testing.lab import Lab
from tests.integrations.clients import ClientUnderTest
from tests.integrations.playing import Play, complete, kind, lab, play, url_of
from tests.spans import Spans, spans

__all__ = ["kind", "lab", "play", "spans"]

INSTRUMENTORS = {
    "requests": ("requests", "RequestsInstrumentor"),
    "urllib3": ("urllib3", "URLLib3Instrumentor"),
    "httpx": ("httpx", "HTTPXClientInstrumentor"),
    "httpx2": ("httpx", "HTTPX2ClientInstrumentor"),
    "aiohttp": ("aiohttp_client", "AioHttpClientInstrumentor"),
}
AROUND_EACH_ATTEMPT = ("httpx", "httpx2", "urllib3")
"""What their instrumentations would make is an attempt's span: ours takes its place."""
QUICK = RetryPolicy(backoff_min=0.001, backoff_max=0.002)


def instrumented(spans: Spans, kind: type[ClientUnderTest]) -> Any:
    module, name = INSTRUMENTORS[kind.name]
    found = getattr(import_module(f"opentelemetry.instrumentation.{module}"), name, None)
    if found is None:
        pytest.skip("OpenTelemetry has no instrumentation for it here")
    return spans.of(found())


def played(lab: Lab, play: Play, spans: Spans, around: Any = None, *, fails: int = 2) -> tuple[int, Any]:
    """A request whose first answers are 503; the port of the service, and what the last task saw of its headers."""
    service = lab.service("orders", tasks=fails + 1)
    for task in service.tasks[:fails]:
        task.errors(503)
    seen: list[Any] = []

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        with spans.tracer.start_as_current_span("checkout"):
            answer = await client.send("GET", url_of(service, "/v1?sig=secret"))
        assert answer.status == 200
        seen.append(json.loads(answer.body)["headers"])

    with around or nullcontext():
        play(scenario, retry=QUICK, telemetry=OpenTelemetry(tracer_provider=spans.provider, durations=False))
    return service.port, seen[0]


@complete
def test_without_an_instrumentation_each_attempt_is_a_client_span_and_carries_the_trace(
    lab: Lab, play: Play, spans: Spans, kind: type[ClientUnderTest]
):
    port, headers = played(lab, play, spans)
    *clients, parent = spans.finished()
    assert parent.name == "checkout"
    assert 1 < len(clients) <= 3
    for number, span in enumerate(clients):
        assert (span.name, span.kind) == ("GET", SpanKind.CLIENT)
        assert span.parent.span_id == parent.context.span_id
        assert span.attributes.get("http.request.resend_count", 0) == number
        assert span.attributes["server.address"] == "orders.prod.local"
        assert span.attributes["server.port"] == port
        assert span.attributes["network.peer.address"].startswith("127.")
        assert span.attributes["url.full"] == f"http://orders.prod.local:{port}/v1?sig=REDACTED"
        assert not span.events
    assert [span.attributes["http.response.status_code"] for span in clients] == [503] * (len(clients) - 1) + [200]
    assert [span.status.status_code for span in clients] == [StatusCode.ERROR] * (len(clients) - 1) + [StatusCode.UNSET]
    assert len({span.attributes["network.peer.address"] for span in clients}) == len(clients)
    assert trace.format_span_id(clients[-1].context.span_id) in headers["traceparent"]


@complete
def test_beside_its_instrumentation_a_request_has_one_client_span_for_each_attempt_at_most(
    lab: Lab, play: Play, spans: Spans, kind: type[ClientUnderTest]
):
    _, headers = played(lab, play, spans, instrumented(spans, kind))
    found = spans.finished()
    clients = [span for span in found if span.kind is SpanKind.CLIENT]
    children = [span for span in found if span.name == "ecs_discovery.attempt"]
    if kind.name in AROUND_EACH_ATTEMPT:
        assert children == []
        assert [span.attributes.get("http.request.resend_count", 0) for span in clients] == list(range(len(clients)))
    else:
        (logical,) = clients
        assert logical.status.status_code is not StatusCode.ERROR
        assert logical.attributes["ecs_discovery.attempts"] == len(children) > 1
        assert all(child.parent.span_id == logical.context.span_id for child in children)
        assert logical.attributes["network.peer.address"] == children[-1].attributes["network.peer.address"]
        assert [child.attributes["http.response.status_code"] for child in children][-2:] == [503, 200]
        assert all(logical.start_time <= child.start_time <= child.end_time <= logical.end_time for child in children)
    assert trace.format_span_id(clients[-1].context.span_id) in headers["traceparent"]


@complete
def test_a_request_that_succeeds_at_once_has_no_further_span(
    lab: Lab, play: Play, spans: Spans, kind: type[ClientUnderTest]
):
    played(lab, play, spans, instrumented(spans, kind), fails=0)
    client, parent = spans.finished()
    assert (client.kind, parent.name) == (SpanKind.CLIENT, "checkout")
    assert client.attributes["network.peer.address"].startswith("127.")


@complete
def test_a_trace_that_the_application_carries_itself_is_left_alone(lab: Lab, play: Play, spans: Spans):
    service = lab.service("orders", tasks=1)
    own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        answer = await client.send("GET", url_of(service), headers={"Traceparent": own})
        assert json.loads(answer.body)["headers"]["traceparent"] == own

    play(scenario, telemetry=OpenTelemetry(tracer_provider=spans.provider, durations=False))


class Odd:
    """An observer whose header fields are none."""

    headers: ClassVar[Any] = {"x-none": None, "x-split": "1\r\nx-forged: 2", "": "empty", "x-good": "1"}

    def call_started(self, call: Any) -> Any:
        return self

    def attempt_started(self, attempt: Any) -> Any:
        return self

    def left(self) -> None: ...

    def ended(self, end: Any) -> None: ...


@complete
def test_header_fields_of_an_observer_that_are_none_break_no_request(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        w.engine.observe(Odd())
        answer = await client.send("GET", url_of(service))
        seen = json.loads(answer.body)["headers"]
        assert seen["x-good"] == "1"
        assert not {"x-none", "x-split", "x-forged"} & set(seen)

    play(scenario)


@complete
def test_the_trace_does_not_go_along_with_a_redirect_to_another_host(lab: Lab, play: Play, spans: Spans):
    service = lab.service("orders", tasks=1)
    task = lab.service("elsewhere", tasks=1).tasks[0]
    there = f"http://{task.address}:{task.port}/"

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        answer = await client.send("GET", url_of(service, f"/redirect?to={there}"))
        assert "traceparent" not in json.loads(answer.body)["headers"]

    play(scenario, telemetry=OpenTelemetry(tracer_provider=spans.provider, durations=False))


def test_a_request_of_httpx_that_is_sent_twice_carries_a_trace_of_its_own_each_time(lab: Lab, spans: Spans):
    import httpx

    service = lab.service("orders", tasks=1)
    telemetry = OpenTelemetry(tracer_provider=spans.provider, durations=False)
    with (
        Discovery(namespace="prod.local", nameservers=[lab.nameserver], telemetry=telemetry) as discovery,
        wrap_client(httpx.Client(), discovery=discovery) as client,
    ):
        request = client.build_request("GET", url_of(service))
        traces = [client.send(request).json()["headers"]["traceparent"] for _ in range(2)]
        assert "traceparent" not in request.headers
    assert len(set(traces)) == 2


def test_a_connection_of_aiohttp_without_our_middleware_is_no_attempt(lab: Lab, spans: Spans):
    import asyncio

    import aiohttp

    from ecs_discovery.integrations.aiohttp import DiscoveryConnector

    service = lab.service("orders", tasks=1)

    async def main() -> None:
        telemetry = OpenTelemetry(tracer_provider=spans.provider, durations=False)
        settings: Any = {"namespace": "prod.local", "nameservers": [lab.nameserver], "telemetry": telemetry}
        async with (
            AsyncDiscovery(**settings) as discovery,
            aiohttp.ClientSession(connector=DiscoveryConnector(discovery)) as session,
            session.get(url_of(service)) as response,
        ):
            assert response.status == 200

    asyncio.run(main())
    assert spans.finished() == []


def test_a_client_span_of_something_else_is_left_as_it_is(lab: Lab, spans: Spans):
    with Discovery(
        namespace="prod.local",
        nameservers=[lab.nameserver],
        telemetry=OpenTelemetry(tracer_provider=spans.provider, durations=False),
    ) as discovery:
        service = lab.service("orders", tasks=1)
        session = wrap_session(requests.Session(), discovery=discovery)
        with spans.tracer.start_as_current_span("SQS.Send", kind=SpanKind.CLIENT):
            assert session.get(url_of(service), timeout=5).status_code == 200
    ours, theirs = spans.finished()
    assert (ours.name, theirs.name) == ("GET", "SQS.Send")
    assert "network.peer.address" not in theirs.attributes
