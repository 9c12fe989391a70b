"""Frozen values whose methods are written once."""

from __future__ import annotations

import dataclasses
import inspect
import pickle

import pytest

from ecs_discovery.events import LookupRecovered, Notice, PanicChanged
from ecs_discovery.models import Endpoint, Resolution


def test_a_value_is_a_frozen_dataclass():
    first = Notice("orders", "look here")
    assert first == Notice(target="orders", text="look here") == pickle.loads(pickle.dumps(first))
    assert hash(first) == hash(Notice("orders", "look here"))
    assert repr(first) == "Notice(target='orders', text='look here')"
    assert dataclasses.replace(first, text="there").text == "there"
    assert list(inspect.signature(Notice).parameters) == ["target", "text"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.text = "there"  # type: ignore[misc]


def test_values_of_two_kinds_are_never_equal():
    assert PanicChanged("orders", True) != Notice("orders", True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "named", "text"),
    [
        ((), {}, "needs 'target'"),
        (("a", "b"), {}, "takes 1 values"),
        (("a",), {"target": "b"}, "each once"),
        (("a",), {"tarjet": "b"}, "has no 'tarjet'"),
    ],
)
def test_a_value_is_given_each_field_once(row: tuple[str, ...], named: dict[str, str], text: str):
    with pytest.raises(TypeError, match=text):
        LookupRecovered(*row, **named)


@pytest.mark.parametrize(
    ("partial", "estimate", "coverage"), [(False, None, 1.0), (True, None, None), (True, 4, 0.5), (True, 1, 1.0)]
)
def test_the_coverage_of_an_answer_is_its_share_of_the_endpoints(
    partial: bool, estimate: int | None, coverage: float | None
):
    two = (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80))
    assert Resolution(two, 10.0, "dns", partial, estimate).coverage == coverage
