"""The life of a wrapped session: wrapping, copies, pickles, closing, settings."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import requests
from requests.adapters import HTTPAdapter
from tenacity import Retrying

from ecs_discovery import (
    ConfigurationError,
    Discovery,
    unwrap_session,
    wrap_session,
)
from ecs_discovery.integrations.requests import DiscoveryAdapter
from ecs_discovery.testing.lab import Lab
from tests.integrations.requests.support import discovery_of


def test_wrapping_twice_is_once_and_unwrapping_restores(lab: Lab):
    session = requests.Session()
    before = dict(session.adapters)
    wrap_session(session, namespace="prod.local")
    mounted = dict(session.adapters)
    assert wrap_session(session) is session
    assert dict(session.adapters) == mounted
    wrap_session(session, namespace="other.local")
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, DiscoveryAdapter)
    assert adapter.settings.namespace == "other.local"
    assert adapter.original is before["http://"]
    unwrap_session(session)
    assert dict(session.adapters) == before
    assert unwrap_session(session) is session


def test_equal_settings_share_a_discovery_and_others_do_not():
    one = discovery_of(wrap_session(requests.Session(), namespace="shared.local"))
    assert discovery_of(wrap_session(requests.Session(), namespace="shared.local")) is one
    assert discovery_of(wrap_session(requests.Session(), namespace="else.local")) is not one
    one.close()
    assert discovery_of(wrap_session(requests.Session(), namespace="shared.local")) is not one


def test_default_discoveries_that_no_session_uses_any_more_are_let_go():
    kept = wrap_session(requests.Session(), namespace="kept.local")
    mine = discovery_of(kept)
    made = [
        weakref.ref(discovery_of(wrap_session(requests.Session(), namespace="shared.local", retry=Retrying())))
        for _ in range(100)
    ]
    gc.collect()
    assert sum(each() is not None for each in made) <= 32
    assert made[-1]() is not None  # for a session per call
    assert discovery_of(wrap_session(requests.Session(), namespace="kept.local")) is mine


def test_a_wrapped_session_works_after_close_and_never_closes_the_discovery(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    session.get(url, timeout=10)
    session.close()
    assert session.get(url, timeout=10).status_code == 200
    assert not discovery_of(session)._driver.engine.closed


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_wrapped_session_pickles_and_copies_by_its_settings(lab: Lab, wrap, how: str):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    session.headers["X-Mine"] = "1"
    session.get(url, timeout=10)
    twin = pickle.loads(pickle.dumps(session)) if how == "pickle" else copy.deepcopy(session)
    assert twin.headers["X-Mine"] == "1"
    assert twin.get(url, timeout=10).status_code == 200
    assert (discovery_of(twin) is discovery_of(session)) is (how == "deepcopy")
    twin.close()


def test_without_namespace_and_service_wrapping_says_what_to_set():
    with pytest.raises(ConfigurationError, match="ECS_DISCOVERY_NAMESPACE"):
        wrap_session(requests.Session())
    with pytest.raises(ConfigurationError, match="session"):
        wrap_session("session", namespace="prod.local")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="discovery"):
        wrap_session(requests.Session(), "discovery")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not both"):
        wrap_session(requests.Session(), Discovery(), namespace="prod.local")


def test_the_environment_gives_the_namespace_the_redirect_and_the_off_switch(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    service = lab.service("orders", tasks=1)
    task = service.tasks[0]
    monkeypatch.setenv("ECS_DISCOVERY_NAMESPACE", "prod.local")
    monkeypatch.setenv("ECS_DISCOVERY_SERVICES", f"orders=static://{task.address}:{task.port}")
    session = wrap_session(requests.Session())
    assert session.get("http://orders/", timeout=10).json()["host"] == "orders"
    assert session.get("http://orders.prod.local/", timeout=10).status_code == 200
    session.close()
    assert lab.dns.total == 0
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "1")
    session = requests.Session()
    before = dict(session.adapters)
    assert wrap_session(session).adapters == before
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "perhaps")
    with pytest.raises(ConfigurationError, match="ECS_DISCOVERY_DISABLED"):
        wrap_session(requests.Session())


def test_what_the_application_set_on_its_own_adapter_holds_for_ours(lab: Lab):
    lab_service = lab.service("orders", tasks=1)
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_block=True, max_retries=3))
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        wrap_session(session, discovery)
        assert session.get(f"http://orders:{lab_service.port}/", timeout=10).status_code == 200
        session.close()


def test_an_adapter_the_application_mounts_for_one_of_our_hosts_wins(lab: Lab, wrap):
    session = wrap()

    class Mine(HTTPAdapter):
        def send(self, request, **kwargs):
            raise requests.ConnectionError("mine")

    session.mount("http://orders", Mine())
    with pytest.raises(requests.ConnectionError, match="mine"):
        session.get("http://orders/", timeout=3)
