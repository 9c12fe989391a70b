"""`ecs-discovery demo`, in processes of its own: one to its end, one interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from ecs_discovery.testing.lab import Lab

COMMAND = [sys.executable, "-m", "ecs_discovery.cli", "demo", "--seconds", "10", "--seed", "1"]


@pytest.fixture(scope="module", autouse=True)
def _possible():
    with Lab(seed=1) as lab:
        if lab.single_address or not lab.can_vanish:
            pytest.skip("no tasks with addresses of their own, or no socket filter here")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "report.html"


@pytest.fixture(scope="module")
def ended(page):
    """The run to the end: exit status, standard output, standard error."""
    began = time.monotonic()
    done = subprocess.run([*COMMAND, "--json", "--report", str(page)], capture_output=True, text=True, timeout=55)
    assert time.monotonic() - began < 10 + 9, "it does not wait for answers that come much later"
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def report(ended):
    return json.loads(ended[1])


def test_the_wrapped_session_loses_nothing_and_the_exit_status_says_so(ended, report):
    assert report["wrapped"]["lost_requests"] == []
    assert (report["wrapped"]["lost"], report["wrapped"]["unanswered"]) == (0, 0)
    assert ended[0] == 0
    assert ended[2] == ""


def test_the_plain_sessions_send_as_much_and_the_one_without_retries_loses_some(report):
    assert report["plain"]["lost"] > report["plain_retry"]["lost"]
    for name in ("plain", "plain_retry"):
        assert report[name]["requests"] == pytest.approx(report["wrapped"]["requests"], rel=0.2)


def test_the_report_has_every_figure_of_each(report):
    assert set(report) == {"seconds", "interrupted", "wrapped", "plain", "plain_retry", "vanish", "events"}
    for side in (report["wrapped"], report["plain"], report["plain_retry"]):
        assert side["requests"] == side["answered"] + side["lost"] + side["unanswered"] > 500
        assert 0 < side["p50_ms"] <= side["p99_ms"] <= side["max_ms"]
        assert side["success_rate"] == pytest.approx(side["answered"] / (side["answered"] + side["lost"]))
        assert side["dns_queries"] > 0


def test_a_task_vanished_with_requests_in_flight_and_they_were_answered(report):
    vanish = report["vanish"]
    assert vanish["in_flight"] >= 1
    wrapped = vanish["wrapped"]
    assert wrapped["in_hand"] + wrapped["later"] >= 1
    assert (wrapped["in_hand_lost"], wrapped["in_hand_unanswered"]) == (0, 0)
    assert (wrapped["later_lost"], wrapped["later_unanswered"]) == (0, 0)


def test_the_page_has_the_story_and_its_charts(ended, page):
    text = page.read_text(encoding="utf-8")
    assert "The wrapped session lost none of" in text
    assert "answers 503 to everything" in text
    assert text.count("<svg") == 8  # each chart for wide and for narrow windows
    assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "it needs nothing else"


@pytest.mark.parametrize(
    "event", ["slows down", "is killed", "vanishes with", "answers 503", "a deployment", "the deployment is done"]
)
def test_every_scene_was_played(report, event):
    assert sum(event in line["text"] for line in report["events"]) == 1


def test_what_the_discovery_made_of_it_is_told(report):
    told = [line["text"] for line in report["events"] if line["kind"] == "discovery"]
    assert any("is down" in text for text in told)
    assert any("is overloaded" in text for text in told)


@pytest.fixture(scope="module")
def interrupted():
    """A run that is interrupted after its first event, its output going to a pipe."""
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            first = process.stdout.readline()
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            out = process.stdout.read()  # and not `communicate`, which knows nothing of what a readline left over
            err = process.stderr.read()
            process.wait(20)
        finally:
            process.kill()
    return process.returncode, first + out, err


def test_ctrl_c_ends_it_with_the_summary_so_far(interrupted):
    status, out, err = interrupted
    assert (status, err) == (130, "")
    assert re.search(r"^ +wrapped +plain +plain \+ Retry", out, re.MULTILINE)
    assert re.search(r"lost none of \d+ requests", out)


def test_without_a_terminal_there_is_a_line_per_event_and_no_control_code(interrupted):
    assert re.search(r"^ +\d+\.\d s  4 healthy tasks", interrupted[1], re.MULTILINE)
    assert "\x1b" not in interrupted[1]
    assert "\r" not in interrupted[1]
