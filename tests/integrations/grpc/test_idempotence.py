"""Which methods may be repeated."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ecs_discovery.integrations._grpc.idempotence import Methods


def test_methods_are_named_one_by_one_or_by_service():
    methods = Methods({"/shop.Orders/Get", "shop.Orders/List", "shop.Users"})
    assert [name for name in ("Get", "List", "Put") if methods.includes(f"/shop.Orders/{name}")] == ["Get", "List"]
    assert methods.includes("/shop.Users/Put")
    assert not Methods(None).includes("/shop.Orders/Get")


@pytest.mark.parametrize("said", [True, False, None])
def test_a_function_has_the_first_word_and_none_leaves_it_to_protobuf(monkeypatch: Any, said: bool | None):
    options = SimpleNamespace(idempotency_level=2)
    method = SimpleNamespace(GetOptions=lambda: options)
    pool = SimpleNamespace(FindServiceByName=lambda name: SimpleNamespace(methods_by_name={"Get": method}))
    monkeypatch.setitem(
        sys.modules,
        "google.protobuf.descriptor_pool",
        SimpleNamespace(Default=lambda: pool),  # type: ignore[arg-type]
    )
    assert Methods(lambda name: said).includes("/shop.Orders/Get") is (said is not False)
    assert not Methods(None).includes("/shop.Orders/Unknown")
    options.idempotency_level = 0
    assert not Methods(None).includes("/shop.Orders/Get")
