"""What the status of an RPC says."""

from __future__ import annotations

import pytest

from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.failure_kinds import FailureKind
from ecs_discovery.core.calls.grpc import asked_wait, judge_code, pushback

HERE = "ipv4:10.0.0.1:50051"
UNCONNECTED = "failed to connect to all addresses; last error: UNKNOWN: {}: {}"


@pytest.mark.parametrize(
    ("text", "label", "outcome"),
    [
        ("Failed to connect to remote host: Connection refused", "connect", Outcome.CONNECT),
        ("Failed to connect to remote host: connect() timed out", "connect timeout", Outcome.UNANSWERED),
        ("Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "certificate", Outcome.NEUTRAL),
        ("Ssl handshake failed (TSI_PROTOCOL_FAILURE): WRONG_VERSION_NUMBER", "tls", Outcome.NEUTRAL),
    ],
)
def test_what_was_not_connected_was_not_sent(text: str, label: str, outcome: Outcome):
    found = judge_code("UNAVAILABLE", UNCONNECTED.format(HERE, text), HERE)
    assert found == (outcome, FailureKind.NOT_SENT, label, None)


def test_a_server_that_passes_on_its_own_failure_to_connect_was_sent_the_rpc():
    text = UNCONNECTED.format("ipv4:10.0.0.9:80", "Connection refused")
    assert judge_code("UNAVAILABLE", text, HERE).failure is FailureKind.CLOSED


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED"])
def test_failures_that_are_not_repeated_count(code: str):
    assert judge_code(code, "", HERE)[:2] == (Outcome.FAILURE, FailureKind.OTHER)


@pytest.mark.parametrize("code", ["NOT_FOUND", "ABORTED", "UNIMPLEMENTED", "UNAUTHENTICATED", "CANCELLED"])
def test_other_statuses_are_answers(code: str):
    assert judge_code(code, "", HERE)[:2] == (Outcome.SUCCESS, None)


def test_a_stream_that_the_server_cut_is_a_connection_closed_and_a_status_of_its_application_is_an_answer():
    reset = "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))"
    for details in ("CANCELLED", reset):
        found = judge_code("CANCELLED", details, HERE)
        assert found == (Outcome.NEUTRAL, FailureKind.CLOSED, "cancelled by the server", None)
    assert judge_code("CANCELLED", "the order was withdrawn", HERE)[:2] == (Outcome.SUCCESS, None)


def test_what_this_side_made_says_nothing_of_the_endpoint():
    for code, text in (
        ("RESOURCE_EXHAUSTED", "Received message larger than max (5 vs. 4)"),
        ("UNKNOWN", "Exception iterating requests!"),
        ("INTERNAL", "Exception deserializing response!"),
    ):
        assert judge_code(code, text, HERE)[:2] == (Outcome.NEUTRAL, FailureKind.OTHER)


def test_an_asked_wait_counts_where_no_other_endpoint_is_left():
    assert judge_code("RESOURCE_EXHAUSTED", "", HERE, asked=2.0).retry_after is None
    assert judge_code("RESOURCE_EXHAUSTED", "", HERE, asked=2.0, alone=True).retry_after == 2.0
    assert judge_code("UNAVAILABLE", "", HERE, asked=-1.0).failure is FailureKind.OTHER


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("1500", 1.5), (b"0", 0.0), ("-1", -1.0), ("soon", -1.0), ("9" * 5000, -1.0)]
)
def test_a_pushback_is_a_number_of_milliseconds(text: str | bytes | None, seconds: float | None):
    assert asked_wait(text) == seconds


def test_an_endpoint_is_spared_if_it_is_exhausted_or_says_so():
    policy = BalancingPolicy(pushback=7)
    assert pushback("RESOURCE_EXHAUSTED", None, policy) == 7
    assert pushback("RESOURCE_EXHAUSTED", 1.5, policy) == 1.5
    assert pushback("UNAVAILABLE", 9999.0, policy) == 300
    assert pushback("UNAVAILABLE", None, policy) is None
    assert pushback("UNAVAILABLE", -1.0, policy) is None
