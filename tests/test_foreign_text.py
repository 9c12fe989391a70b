"""Foreign text: what others say cannot forge a log line, steer a terminal or fill a disk."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery import CachePolicy, CloudMapPolicy, Discovery, Endpoint, Resolution, RetryPolicy
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.budget import RetryBudget
from ecs_discovery.core.calls.call import Call
from ecs_discovery.errors import (
    LINE,
    LONGEST,
    ClosedError,
    ConfigurationError,
    DiscoveryError,
    ResolutionError,
    foreign,
    line,
    plain,
)
from ecs_discovery.models import Question
from ecs_discovery.resolvers import CloudMapResolver
from tests.cloud_map import FakeClient, client_error
from tests.fuzz.bounds import unhurried
from tests.worlds import Worlds, world

__all__ = ["world"]

FORGED = "gone\n2026-01-01 00:00:00 CRITICAL root disk full\x1b[2J\x1b]0;owned\x07\u202e\u2028 http://u:secret@x/"
PARTS = ("\n", "\r", "\x1b", "\x07", "\u202e", "\u2028", "secret")


def is_fit(text: str, longest: int) -> bool:
    return len(text) <= longest and text.isprintable() and not any(part in text for part in PARTS)


@unhurried
@given(st.text(st.characters()), st.integers(10, 400))
def test_whatever_is_said_comes_out_printable_and_short(text: str, longest: int):
    assert foreign(text, longest).isprintable()
    assert len(foreign(text, longest)) <= longest
    assert plain(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, größer", "plain text, größer"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u2028b\u202ec\ud800", "a\\u2028b\\u202ec\\ud800"),
        ("x" * 201, "x" * 199 + "…"),
        ("GET http://user:pw@orders/a@b", "GET http://…@orders/a@b"),
        ("http://orders/?mail=a@b", "http://orders/?mail=a@b"),
        (5, "5"),
    ],
)
def test_control_characters_are_escaped_and_passwords_left_out(text: object, shown: str):
    assert foreign(text) == shown


def test_an_exception_without_a_text_has_its_name():
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert foreign(Broken()) == "<Broken without a text>"


def test_a_text_of_twenty_megabytes_takes_no_time():
    assert len(foreign("\n" * 20_000_000)) <= LONGEST
    assert len(line("x" * 20_000_000)) <= LINE


def test_the_report_of_an_attempt_holds_the_others_text_in_short():
    call = Call("orders", RetryPolicy(), RetryBudget(RetryPolicy(), 0), 1.0, 1.0, True)
    call.report(Node(Endpoint("10.0.0.1", 80)), "closed", "closed", 0.0, 0.1, OSError(FORGED * 1000))
    assert is_fit(call.reports[0].error, LONGEST)


@pytest.mark.parametrize("operation", ["instances", "revision"])
@pytest.mark.parametrize("code", ["AccessDeniedException", "InternalFailure\n\x1b[2J" * 100, "ThrottlingException", ""])
def test_what_cloud_map_says_forges_no_line(operation: str, code: str, world: Worlds, caplog):
    error = client_error(code)
    error.args = (FORGED * 10_000,)
    client = FakeClient({"InstanceId": "t1", "Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1"}})
    setattr(client, operation, error)
    resolver = CloudMapResolver(CloudMapPolicy(poll=0.1), client=client)
    resolver._revisions._full_after = 1e9  # polls ask for the revision
    caplog.set_level(logging.DEBUG, "ecs_discovery")

    async def scenario(w):
        found = await w.many(1, lambda: w.resolve("cloudmap://prod/orders?port=80"))
        w.discovery._driver.background.ask(Question("cloudmap", "prod/orders"), force=False)
        await w.pause(0.05)
        for each in found:
            if isinstance(each, Exception):
                assert isinstance(each, ResolutionError)
                assert is_fit(str(each), 1500)
                assert is_fit(pickle.loads(pickle.dumps(each)).cause_text, 1500)

    world.run(scenario, resolvers={"cloudmap": resolver})
    assert all(is_fit(record.getMessage(), LINE) for record in caplog.records)


@pytest.mark.parametrize(
    "outcome",
    [ValueError(FORGED * 10_000), ResolutionError(FORGED * 10_000), [FORGED * 10_000], Resolution((), 1, "x")],
)
def test_what_a_resolver_of_an_other_package_says_forges_no_line(outcome: Any, world: Worlds, caplog):
    class Foreign:
        def __init__(self) -> None:
            self.outcomes = [Resolution((Endpoint("10.0.0.1", 80),), 0.0, "foreign"), outcome]

        def resolve(self, question: Question, timeout: float) -> Any:
            found = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
            if isinstance(found, Exception):
                raise found
            return found

    caplog.set_level(logging.DEBUG, "ecs_discovery")
    events: list[Any] = []

    async def scenario(w):
        await w.resolve("foreign://orders")
        w.discovery._driver.background.ask(Question("foreign", "orders"), force=True)
        for _ in range(500):
            if any("lookup failed" in str(event) for event in events):
                break
            await w.pause(0.01)
        assert any("lookup failed" in str(event) for event in events)

    world.run(
        scenario, resolvers={"foreign": Foreign()}, on_event=events.append, cache=CachePolicy(min_ttl=0.0, jitter=0.0)
    )
    assert all(is_fit(record.getMessage(), LINE) for record in caplog.records)


def test_an_endpoint_of_a_resolver_reaches_no_terminal_as_it_is():
    class Foreign:
        def resolve(self, question: Question, timeout: float) -> Resolution:
            return Resolution((Endpoint(FORGED, 80),), 60.0, "foreign")

    with Discovery(resolvers={"foreign": Foreign()}) as discovery:
        discovery.resolve("foreign://orders")
        snapshot = discovery.snapshot("foreign://orders")
    assert all(part.isprintable() for part in str(snapshot).split("\n"))


def test_a_configuration_error_repeats_no_password_and_no_megabyte():
    with pytest.raises(ConfigurationError) as caught, Discovery() as discovery:
        discovery.resolve("https://user:secret@orders/" + "x" * 1_000_000)
    assert is_fit(str(caught.value), 1500)
    assert is_fit(str(ClosedError("closed", target="http://u:secret@x\n")), 1500)


def test_a_hook_that_fails_makes_one_short_line(caplog):
    def hook(event: object) -> None:
        raise RuntimeError("the hook's own")

    targets = ",".join(f"10.0.{n // 250}.{n % 250 + 1}:80" for n in range(1000))
    with Discovery(on_event=hook) as discovery:
        discovery.resolve(f"static://{targets}")
        discovery._driver.engine.emit(discovery._driver.engine.service(f"static://{targets}"))
    assert all(len(record.getMessage()) <= LINE for record in caplog.records)


def test_every_error_of_ours_is_one_printable_line():
    assert is_fit(str(DiscoveryError(FORGED * 1000, target=FORGED, hint=FORGED)), 1500)
