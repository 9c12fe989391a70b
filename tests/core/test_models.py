"""Frozen values whose methods are written once."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import pickle
import pprint
from typing import Any, ClassVar

import pytest

from ecs_discovery.events import LookupRecovered, Notice, PanicChanged
from ecs_discovery.models import Endpoint, Question, Resolution, replace


def test_a_value_is_a_frozen_dataclass():
    first = Notice("orders", "look here")
    assert first == Notice(target="orders", text="look here") == pickle.loads(pickle.dumps(first))
    assert hash(first) == hash(Notice("orders", "look here"))
    assert repr(first) == "Notice(target='orders', text='look here')"
    assert dataclasses.replace(first, text="there").text == "there"
    assert list(inspect.signature(Notice).parameters) == ["target", "text"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.text = "there"  # type: ignore[misc]


def test_the_functions_of_dataclasses_take_a_value():
    task = Endpoint("10.0.0.1", 80, zone="a")
    assert dataclasses.is_dataclass(task)
    assert dataclasses.is_dataclass(Endpoint)
    assert [field.name for field in dataclasses.fields(Endpoint)] == list(Endpoint.__match_args__)
    assert dataclasses.fields(Endpoint)[3].default == task.weight == 1
    assert dataclasses.asdict(task) == dataclasses.asdict(Endpoint("10.0.0.1", 80)) | {"zone": "a"}
    assert dataclasses.replace(task, weight=3) == task.__replace__(weight=3) == replace(task, weight=3)
    assert pprint.pformat(task) == repr(task)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del task.zone  # type: ignore[misc]


def test_a_value_is_matched_by_the_places_of_its_fields():
    match Question("srv", "orders.local"):
        case Question("srv", name):
            assert name == "orders.local"
        case _:
            pytest.fail("a question is not matched")


def test_a_kind_derived_from_a_value_has_the_fields_of_both():
    class Named(Endpoint):
        name: str = "none"

    class Plain(Endpoint):
        pass

    Endpoint("10.0.0.1", 80)  # its own initialiser is there now
    assert Named("10.0.0.1", 80, name="a").name == "a"
    assert Named("10.0.0.1", 80) != Endpoint("10.0.0.1", 80)  # as with dataclasses
    assert [field.name for field in dataclasses.fields(Named)] == [*Endpoint.__match_args__, "name"]
    assert Plain("10.0.0.1", 80) == Plain("10.0.0.1", 80, 0)
    assert list(inspect.signature(Plain).parameters) == list(inspect.signature(Endpoint).parameters)


def test_a_kind_may_have_an_initialiser_and_a_comparison_of_its_own():
    class Port(Question):
        def __init__(self, port: int) -> None:
            super().__init__("srv", f"_{port}._tcp.local")

    class Anywhere(Endpoint):
        note: str = ""

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Anywhere)

        def __hash__(self) -> int:
            return 0

    assert [Port(80).name, Port(81).name] == ["_80._tcp.local", "_81._tcp.local"]
    assert Question("a", "orders").name == "orders"
    assert Anywhere("10.0.0.1", 80) == Anywhere("10.0.0.2", 81)


def test_a_kind_may_have_a_mixin_before_it_and_facts_that_are_no_fields():
    class Mixin:
        where = "here"

    class Rack(Mixin, Endpoint):
        RACKS: ClassVar[int] = 4

        @functools.cached_property
        def text(self) -> str:
            return str(self)

    rack = Rack("10.0.0.1", 80)
    assert copy.copy(rack) == rack == Rack("10.0.0.1", 80)
    assert (rack.where, rack.RACKS, rack.text) == ("here", 4, "10.0.0.1:80")
    with pytest.raises(TypeError, match="RACKS"):
        Rack("10.0.0.1", 80, RACKS=5)  # type: ignore[call-arg]


UNQUOTED = """
from typing import Any, ClassVar
from ecs_discovery.models import Endpoint

class Rack(Endpoint):
    RACKS: ClassVar[int] = 4
    colour: str = "red"
    owner: Elsewhere = None
"""


def test_a_module_that_does_not_import_annotations_may_derive_values_too():
    space: dict[str, Any] = {"Elsewhere": str}
    exec(compile(UNQUOTED, "racks", "exec", dont_inherit=True), space)
    rack = space["Rack"]("10.0.0.1", 80, colour="blue")
    assert (rack.colour, rack.owner, rack.RACKS) == ("blue", None, 4)
    with pytest.raises(TypeError, match="RACKS"):
        space["Rack"]("10.0.0.1", 80, RACKS=5)


def test_values_of_two_kinds_are_never_equal():
    assert PanicChanged("orders", True) != Notice("orders", True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "named", "text"),
    [
        ((), {}, "missing 1 required positional argument: 'target'"),
        (("a", "b"), {}, "takes 2 positional arguments but 3 were given"),
        (("a",), {"target": "b"}, "multiple values for argument 'target'"),
        (("a",), {"tarjet": "b"}, "unexpected keyword argument 'tarjet'"),
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
