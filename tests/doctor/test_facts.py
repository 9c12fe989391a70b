"""A file with facts was written elsewhere: it is bounded, and refused if it is something else."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery import ConfigurationError
from ecs_discovery.cli.doctor.checks import judge
from ecs_discovery.cli.doctor.facts import FORMAT, Facts, as_plain, load
from ecs_discovery.cli.doctor.show import report
from tests.doctor.support import HEALTHY
from tests.fuzz.bounds import unhurried

PLAIN = json.loads(json.dumps(as_plain(HEALTHY)))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The facts with another value somewhere: `task.zone`."""
    copy = json.loads(json.dumps(PLAIN))
    *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place = copy
    for part in way:
        place = place[part]
    place[last] = value
    return copy  # type: ignore[no-any-return]


def test_facts_come_back_from_json_as_they_were():
    assert load(PLAIN) == HEALTHY


def test_the_whole_output_of_the_command_is_facts_too():
    assert load({"findings": [], "facts": PLAIN}) == HEALTHY


def test_what_an_older_file_does_not_have_and_a_newer_one_has_more_is_no_matter():
    older = {name: value for name, value in PLAIN.items() if name not in ("machine", "stop_timeout")}
    assert load({**older, "weather": "fine"}).machine == Facts().machine


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        "facts",
        {"format": "1"},
        {"format": FORMAT + 1},
        {"format": 0},
        changed("task.zone", 5),
        changed("settings", []),
        changed("servers", "x"),
        changed("servers", [None]),
        changed("targets.0.port", True),
        changed("targets.0.connects.0.seconds", "soon"),
        changed("targets.0.connects.0.port", 10**400),
        changed("answers.0.seconds", 10**400),
        changed("answers.0.seconds", float("nan")),
        changed("answers.0", {"name": "without a server"}),
        changed("answers", [PLAIN["answers"][0]] * 2_001),
        changed("zones", ["prod.local"] * 33),
        changed("targets.0.hosts", ["10.0.0.1"] * 201),
    ],
)
def test_what_is_no_facts_is_refused(value: Any):
    with pytest.raises(ConfigurationError) as caught:
        load(value)
    assert len(str(caught.value)) < 1000


def test_texts_of_a_file_are_cut_and_cannot_steer_a_terminal():
    text = "\x1b[2Jorders\n" * 10_000
    for path in ("task.cluster", "servers.0.address", "targets.0.asked", "answers.0.zone", "process.name"):
        facts = load(changed(path, text))
        for line in report(facts, judge(facts)):
            assert line.isprintable()
            assert len(line) < 1200


def test_a_huge_file_is_judged_in_bounded_time():
    value = changed("answers", PLAIN["answers"] * 200)
    value["targets"] *= 64
    value["servers"] = [{**PLAIN["servers"][0], "used": False}, *PLAIN["servers"] * 15]
    value["zones"] = [f"zone-{number}.local" for number in range(32)]
    began = time.thread_time()
    judge(load(value))
    assert time.thread_time() - began < 10


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(PLAIN)), inner, max_size=4),
    max_leaves=20,
)


@unhurried
@given(st.sampled_from(sorted(PLAIN)), VALUES)
def test_whatever_stands_in_a_field_is_judged_or_refused(name: str, value: Any):
    try:
        facts = load({**PLAIN, name: value})
    except ConfigurationError:
        return
    findings = judge(facts)
    assert all(line.isprintable() for line in report(facts, findings))
