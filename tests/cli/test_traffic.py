"""A client under load, and its figures."""

from __future__ import annotations

import threading
from random import Random

import pytest

from ecs_discovery.cli.demo.story import fate
from ecs_discovery.cli.demo.traffic import Answer, Request, Traffic, percentile, summarize
from tests.lab.wire import eventually


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 99, 4.0),
        (range(1, 101), 99, 99),
        (range(1, 201), 99, 198),
        (range(1, 101), 100, 100),
        (range(1, 101), 0, 1),
    ],
)
def test_a_percentile_is_the_nearest_rank(values, percent, expected):
    assert percentile(values, percent) == expected


def good(began, seconds=0.001, path="/", task="t"):
    return Request(path, began, began + seconds, 200, task)


def bad(began, seconds=0.001, path="/", status=None, error=""):
    return Request(path, began, began + seconds, status, None, error)


@pytest.mark.parametrize(
    ("request_", "lost"),
    [
        (good(0), False),
        (bad(0, status=404), False),
        (bad(0, status=500), True),
        (bad(0, status=503), True),
        (bad(0, error="ConnectionError: gone"), True),
        (Request("/", 0.0), False),
    ],
)
def test_exceptions_and_statuses_from_500_are_losses(request_, lost):
    assert request_.lost is lost


def test_the_summary_counts_each_request_once():
    figures = summarize([good(0, 0.010), good(1, 0.020), bad(2, 0.5, status=503), Request("/", 3.0)], held_back=2)
    assert figures.as_dict() == {
        "requests": 4,
        "answered": 2,
        "lost": 1,
        "unanswered": 1,
        "held_back": 2,
        "success_rate": pytest.approx(2 / 3),
        "p50_ms": pytest.approx(20.0),
        "p99_ms": pytest.approx(500.0),
        "max_ms": pytest.approx(500.0),
    }


def test_the_summary_of_nothing_has_no_rate():
    figures = summarize([])
    assert (figures.requests, figures.success_rate, figures.max_ms) == (0, None, None)


AT = 100.0


@pytest.mark.parametrize(
    ("request_", "in_hand", "later"),
    [
        (good(AT - 0.1, 9.1), (1, 1, 0, 0), (0, 0, 0, 0)),
        (bad(AT - 0.1, 15, error="ReadTimeout: x"), (1, 0, 1, 0), (0, 0, 0, 0)),
        (Request("/", AT - 0.1), (1, 0, 0, 1), (0, 0, 0, 0)),
        (good(AT + 0.01, 0.26), (0, 0, 0, 0), (1, 1, 0, 0)),
        (bad(AT + 0.01, 2.0, error="ConnectTimeout: x"), (0, 0, 0, 0), (1, 0, 1, 0)),
        (good(AT - 0.1, 0.15, "/slow/0.15"), (0, 0, 0, 0), (0, 0, 0, 0)),  # its handler is slow, not the network
        (good(AT - 1, 0.3), (0, 0, 0, 0), (0, 0, 0, 0)),  # over before
        (good(AT + 60, 0.3), (0, 0, 0, 0), (0, 0, 0, 0)),  # something else
    ],
)
def test_requests_that_met_a_vanished_task_are_told_by_their_wait(request_, in_hand, later):
    found = fate([good(AT - 0.1), request_], AT, now=AT + 20)
    assert (found.in_hand, found.in_hand_answered, found.in_hand_lost, found.in_hand_unanswered) == in_hand
    assert (found.later, found.later_answered, found.later_lost, found.later_unanswered) == later


def test_traffic_goes_at_its_rate_and_keeps_every_outcome():
    def connect():
        def send(path):
            if path == "/bad":
                raise ConnectionError("gone")
            return Answer(200, "t1")

        return send

    traffic = Traffic("x", connect, rate=100, workers=3, rng=Random(1))
    traffic.start()
    traffic.rush("/bad", 2)
    eventually(lambda: len(traffic.requests) > 20)
    assert traffic.recent(60) == {"t1": 1.0}
    traffic.stop()
    assert traffic.join(5)
    figures = traffic.summary()
    assert figures.lost == 2
    assert figures.answered + figures.lost == figures.requests
    assert [request.complaint for request in traffic.requests if request.lost] == ["ConnectionError: gone"] * 2


def test_what_is_due_while_every_caller_waits_is_counted():
    release = threading.Event()

    def send(path):
        release.wait(10)
        return Answer(200, None)

    traffic = Traffic("x", lambda: send, rate=200, workers=2, rng=Random(1))
    traffic.start()
    eventually(lambda: traffic.held_back > 2)
    assert traffic.waiting == 2
    traffic.stop()
    assert not traffic.join(0.05)
    release.set()
    assert traffic.join(5)
    assert traffic.waiting == 0
