"""What requests' and urllib3's values and errors are taken to mean."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.client import BadStatusLine, RemoteDisconnected
from math import inf
from typing import Any

import pytest
import requests
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import Timeout
from urllib3.util.ssl_match_hostname import CertificateError

from ecs_discovery.config.policies import ConnectionPolicy
from ecs_discovery.core.calls.failure_kinds import FailureKind
from ecs_discovery.core.calls.http import asked_wait, keep_alive_timeout
from ecs_discovery.errors import DiscoveryError, NoEndpoints
from ecs_discovery.integrations._requests_errors import FailedRequest, as_requests_error
from ecs_discovery.integrations._urllib3_exchange import parts_of
from ecs_discovery.integrations._urllib3_pool import HttpEndpointPool, PoolUse, UseTimeout
from ecs_discovery.integrations._urllib3_table import TABLE
from ecs_discovery.integrations.http.errors import reason_of
from ecs_discovery.integrations.http.liveness import PeerSilentError
from ecs_discovery.models import Endpoint

POOL: Any = HttpEndpointPool(Endpoint("127.0.0.1", 1), ConnectionPolicy(), "orders", 80)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "failure", "label"),
    [
        (NewConnectionError(POOL, "refused"), FailureKind.NOT_SENT, "connect"),
        (MaxRetryError(POOL, "/", NewConnectionError(POOL, "refused")), FailureKind.NOT_SENT, "connect"),
        (MaxRetryError(POOL, "/", ConnectTimeoutError(POOL, "slow")), FailureKind.NOT_SENT, "connect timeout"),
        (SSLError("certificate"), FailureKind.NOT_SENT, "tls"),
        (caused(SSLError("tls"), CertificateError("another name")), FailureKind.NOT_SENT, "certificate"),
        (ClosedPoolError(POOL, "closed"), FailureKind.NOT_SENT, "own"),
        (OSError(24, "too many open files"), FailureKind.NOT_SENT, "own"),
        (ReadTimeoutError(POOL, "/", "in the handshake"), FailureKind.NOT_SENT, "connect timeout"),
        (KeyError("a bug"), None, None),
    ],
)
def test_before_anything_was_sent(error: Exception, failure: FailureKind | None, label: str | None):
    fault = TABLE.fault(error, sent=False)
    assert (fault and fault.kind, fault and fault.label) == (failure, label)


@pytest.mark.parametrize(
    ("error", "failure", "label"),
    [
        (RemoteDisconnected("closed"), FailureKind.CLOSED, "closed"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), FailureKind.CLOSED, "closed"),
        (BrokenPipeError(errno.EPIPE, "pipe"), FailureKind.CLOSED, "closed"),
        (PeerSilentError("no ack"), FailureKind.CLOSED, "silent"),
        (TimeoutError(errno.ETIMEDOUT, "keep-alive"), FailureKind.CLOSED, "silent"),
        (TimeoutError("timed out"), FailureKind.OTHER, "read timeout"),
        (ReadTimeoutError(POOL, "/", "read"), FailureKind.OTHER, "read timeout"),
        (BadStatusLine("nonsense"), FailureKind.OTHER, "bad answer"),
        (KeyError("a bug"), None, None),
    ],
)
def test_after_something_was_sent(error: Exception, failure: FailureKind | None, label: str | None):
    outer = ProtocolError("Connection aborted.", error)
    outer.__cause__ = error
    fault = TABLE.fault(outer, sent=True)
    assert (fault and fault.kind, fault and fault.label) == (failure, label)


def test_an_error_that_causes_itself_does_not_loop():
    first, second = KeyError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    assert TABLE.fault(first, sent=True) is None


def test_a_timeout_keeps_its_use_when_urllib3_copies_it():
    made = PoolUse(None, True)  # type: ignore[arg-type]  # no lease is needed to copy it
    twin = UseTimeout(1.0, made).clone()
    assert twin.use is made
    assert (twin.connect_timeout, twin.read_timeout) == (None, 1.0)


@pytest.mark.parametrize(
    ("timeout", "parts"),
    [
        (None, (None, None)),
        (3, (3, 3)),
        (Timeout(connect=1, read=2), (1, 2)),
        (Timeout(), (None, None)),
    ],
    ids=str,
)
def test_timeouts_part_by_part(timeout: Any, parts: tuple[Any, Any]):
    connect, read = parts_of(timeout)
    assert connect == parts[0]
    if not isinstance(timeout, Timeout) or parts[1] is not None:
        assert read == parts[1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1e9", None),
        ("9" * 400, 999999999),
        (f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +999999999999999", None),
    ],
)
def test_retry_after_in_seconds(text: str, seconds: float | None):
    assert asked_wait(text, 0.0) == seconds


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [
        ("timeout=5, max=100", 4.0),
        ("max=3,Timeout=60", 59.0),
        ('timeout="5"', 4.0),
        ("timeout=1", 0.5),
        ("timeout=0", 0.0),
        (None, inf),
        ("", inf),
        ("max=3", inf),
        ("timeout=-5", inf),
        ("timeout=٣", inf),
        ("x" * 100_000 + ",timeout=5", inf),
    ],
)
def test_how_long_a_server_says_it_keeps_a_connection(hint: str | None, seconds: float):
    assert keep_alive_timeout(hint) == seconds


def test_retry_after_as_a_date():
    now = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    assert asked_wait(format_datetime(now + timedelta(seconds=60), usegmt=True), now.timestamp()) == 60
    assert asked_wait("Wed, 21 Oct 2015 07:28:00 -0000", now.timestamp()) == 0


def test_the_text_of_an_error_is_what_went_wrong_without_the_layers():
    inner = NewConnectionError(POOL, "127.0.0.1:1: refused")
    assert "refused" in reason_of(requests.ConnectionError(MaxRetryError(POOL, "/", inner)))
    assert "Max retries" not in reason_of(requests.ConnectionError(MaxRetryError(POOL, "/", inner)))


def as_requests_sees(ours: DiscoveryError) -> requests.RequestException:
    """The error that requests makes of urllib3's, which carries ours."""
    theirs = MaxRetryError(POOL, "/", NewConnectionError(POOL, str(ours)))
    theirs.ecs_discovery = FailedRequest(ours)  # type: ignore[attr-defined]
    return requests.ConnectionError(theirs)


def test_errors_become_requests_own_once():
    request = requests.PreparedRequest()
    seen = as_requests_sees(NoEndpoints("none", target="orders"))
    made = as_requests_error(seen, request)
    assert isinstance(made, NoEndpoints)
    assert isinstance(made, requests.ConnectionError)
    assert str(made) == "orders: none"
    assert made.request is request
    assert isinstance(made.args[0], MaxRetryError)  # as with a plain session
    assert as_requests_error(made, request) is made
    own = requests.ConnectionError("the caller's")
    assert as_requests_error(own, request) is own
