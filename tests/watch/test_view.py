"""The picture: it fits its terminal, whatever is in it, and says what it left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ecs_discovery.cli.watch import view
from ecs_discovery.cli.watch.document import Count, EndpointSeen
from ecs_discovery.cli.watch.frame import Frame
from ecs_discovery.cli.watch.merge import Program
from tests.watch.scripted import AT, LOG, frame, service
from tests.watch.support import ROOT

SIZES = [(80, 24), (120, 40)]

AT_80 = """\
watch orders                                                            12:00:10

orders:8080  gunicorn, 2 processes (12, 13)
12 endpoints from dns: 10 healthy, 1 ejected, 1 down; 80% of about 15 known
TTL 10 s; answer 6.8 s old; asked again in 3.2 s
lookups of all names: 80 ok, 2 not answered
70 picks/s; retries 24; denied 6 (4 budget, 2 not idempotent); 8.5 retries left
hedges 8, won 4; ejections 6 (4 consecutive failures, 2 connect)
endpoint       state    share in flight  latency     cost failed ejected
10.0.2.9:8080  down        0%         0  17.5 ms  19.0 ms      4       0
    connect refused, again in 0.8 s
10.0.2.4:8080  ejected     0%         2  12.5 ms  14.0 ms     14       2
    5 failures in a row, again in 3.2 s
10.0.2.1:8080  healthy    11%         2   9.5 ms  11.0 ms      0       0
10.0.2.2:8080  healthy     9%         4  10.5 ms  12.0 ms      0       0
10.0.2.3:8080  healthy    11%         0  11.5 ms  13.0 ms      0       0
10.0.2.5:8080  healthy    11%         4  13.5 ms  15.0 ms      0       0
10.0.2.6:8080  healthy     9%         0  14.5 ms  16.0 ms      0       0
5 more rows: 5 healthy

12:00:01 gunicorn: 2 processes (12, 13)
12:00:01 orders:8080: 12 endpoints from dns: 12 healthy
12:00:07 orders:8080: 10.0.2.4:8080 is ejected: 5 failures in a row
12:00:09 orders:8080: 10.0.2.9:8080 is down: connect refused"""

AT_120 = """\
watch orders                                                                                                    12:00:10

orders:8080  gunicorn, 2 processes (12, 13)
4 endpoints from dns: 3 healthy, 1 ejected; 80% of about 15 known
TTL 10 s; answer 6.8 s old; asked again in 3.2 s; lookups of all names: 80 ok, 2 not answered
22 picks/s; retries 24; denied 6 (4 budget, 2 not idempotent); 8.5 retries left; hedges 8, won 4
ejections 6 (4 consecutive failures, 2 connect)
endpoint      state    share in flight  latency     cost failed ejected why
10.0.2.4:8080 ejected     0%         2  12.5 ms  14.0 ms     14       2 5 failures in a row, again in 3.2 s
10.0.2.1:8080 healthy    36%         2   9.5 ms  11.0 ms      0       0
10.0.2.2:8080 healthy    27%         4  10.5 ms  12.0 ms      0       0
10.0.2.3:8080 healthy    36%         0  11.5 ms  13.0 ms      0       0

12:00:01 gunicorn: 2 processes (12, 13)
12:00:01 orders:8080: 12 endpoints from dns: 12 healthy
12:00:07 orders:8080: 10.0.2.4:8080 is ejected: 5 failures in a row
12:00:09 orders:8080: 10.0.2.9:8080 is down: connect refused"""


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day is that of no time zone."""
    monkeypatch.setattr(view.time, "strftime", lambda form, at: "12:00:10")


def texts(found: Frame, width: int, height: int, log: list[str] = LOG) -> list[str]:
    return [line.text for line in view.screen(found, log, width, height)]


def fits(lines: list[str], width: int, height: int) -> bool:
    return len(lines) <= height and all(len(line) <= width and line.isprintable() for line in lines)


def test_the_picture_at_80_columns_and_24_lines():
    found = frame(service(12), later=(service(12, ticks=5),))
    assert "\n".join(texts(found, 80, 24)) == AT_80


def test_the_picture_at_120_columns_and_40_lines_has_reasons_in_the_row():
    found = frame(service(4), later=(service(4, ticks=5),))
    assert "\n".join(texts(found, 120, 40)) == AT_120


def test_the_picture_of_the_documentation_is_this_one():
    assert AT_80 in (ROOT / "docs" / "watch.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "height"), [*SIZES, (40, 10), (20, 5), (300, 100)])
@pytest.mark.parametrize("count", [0, 1, 12, 200])
def test_it_fits_any_terminal(width: int, height: int, count: int):
    assert fits(texts(frame(service(count)), width, height), width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_rows_that_do_not_fit_are_counted_with_those_that_were_not_told_of(width: int, height: int):
    lines = texts(frame(service(200, total=10_000)), width, height)
    assert fits(lines, width, height)
    shown = sum(line.startswith("10.0.2.") for line in lines)
    (more,) = [line for line in lines if "more row" in line]
    assert more == f"{10_000 - shown} more rows: {200 - shown} healthy, 9800 not told of"
    assert [line.split()[1] for line in lines if line.startswith("10.0.2.")][:3] == ["down", "ejected", "healthy"]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_services_that_do_not_fit_are_named(width: int, height: int):
    found = frame(*(service(12, target=f"orders:{port}") for port in range(1, 9)))
    lines = texts(found, width, height)
    assert fits(lines, width, height)
    shown = sum(line.startswith("orders:") for line in lines)
    (more,) = [line for line in lines if "more not shown" in line]
    assert more.startswith(f"{8 - shown} more not shown: orders:{shown + 1} of gunicorn")


HUGE: dict[str, Any] = {"pending": 2**62, "uses": 2**62, "failures": 2**62, "ejections": 2**62}


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_numbers_and_texts_of_any_size_stay_in_their_columns(width: int, height: int):
    bad = EndpointSeen(
        "x" * 320, "ejected", "y" * 320, 1e300, -1e300, latency=-1e300, cost=1e300, zone="z" * 320, **HUGE
    )
    found = frame(
        service(
            0,
            target="t" * 320,
            source="s" * 320,
            error="e" * 320,
            ttl=1e300,
            age=-1.0,
            fresh_for=1e300,
            coverage=0.5,
            estimate=2**62,
            retries_left=1e300,
            counts=tuple(Count("retries_denied", "k" * 320, 2**62) for _ in range(100)),
        )
    )
    program = found.programs[0]
    mine = program.services[0]
    from ecs_discovery.cli.watch.merge import Endpoint

    full = replace(
        mine, endpoints=tuple(Endpoint(replace(bad, endpoint=f"{'x' * 300}{n}"), 2, 1, 1e9) for n in range(50))
    )
    found = replace(found, programs=(replace(program, name="p" * 320, pids=tuple(range(256)), services=(full,)),))
    lines = texts(found, width, height, ["l" * 500] * 50)
    assert fits(lines, width, height)
    rows = [line for line in lines if "ejected" in line and line.startswith("…")]
    assert {len(row.split(" ")[0]) for row in rows} != set()
    assert len({row.split()[0] for row in rows}) == len(rows)  # by their ends they can be told apart


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_many_notices_do_not_push_it_out_of_the_terminal(width: int, height: int):
    found = frame(service(12), notices=tuple(f"process {pid}: what it says is of no use" for pid in range(100)))
    assert fits(texts(found, width, height), width, height)


def test_without_a_program_it_says_so_and_shows_when_endpoints_were_named():
    own = Program("", "", (), frame(service(2)).programs[0].services, {"ok": 4, "NoEndpoints": 2})
    named = tuple(
        replace(each, seen=replace(each.seen, named=3.0, zone="eu-west-1a")) for each in own.services[0].endpoints
    )
    own = replace(own, services=(replace(own.services[0], endpoints=named),))
    lines = texts(Frame(AT, "orders", (), own, "", ("no program was found: this is it",)), 80, 24)
    assert lines[1] == "no program was found: this is it"
    assert "orders:8080  resolved by this command" in lines
    assert "lookups of all names: 4 ok, 2 without records" in "\n".join(lines)
    assert "10.0.2.1:8080  3.0 s ago eu-west-1a" in lines
    assert "picks" not in "\n".join(lines)


def test_a_program_that_has_not_used_the_name_is_said_to_use_others():
    lines = texts(frame(), 80, 24)
    assert "gunicorn, 2 processes (12, 13): has not used orders; it uses users" in lines


def test_trouble_of_the_service_is_said_in_a_line_of_its_own():
    lines = texts(frame(service(2, panic=True, failing=True, error="no answer")), 80, 24)
    assert "PANIC: health is ignored; lookups fail; no answer" in lines


def test_a_reason_says_in_how_many_workers_it_holds():
    found = frame(service(4))
    mine = found.programs[0].services[0]
    some = tuple(replace(each, troubled_in=min(1, each.troubled_in)) for each in mine.endpoints)
    found = replace(found, programs=(replace(found.programs[0], services=(replace(mine, endpoints=some),)),))
    assert "    5 failures in a row, again in 3.2 s (in 1 of 2 workers)" in texts(found, 80, 24)
