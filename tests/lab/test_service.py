"""The registry knows at once, DNS later, and deployments wait for neither."""

from __future__ import annotations

import socket
import time

import dns.rcode
import pytest

from ecs_discovery.errors import ConfigurationError
from ecs_discovery.testing.lab import TaskState, Vanish
from tests.lab.wire import addresses, ask, dial, eventually, get, records, send

NAME = "orders.prod.local."


def test_dns_shows_a_registration_after_its_lag(lab):
    orders = lab.service("orders", tasks=1, registration_lag=0.3)
    first = orders.tasks[0]
    assert addresses(lab, NAME) == {first.address}
    second = orders.add_task()
    assert addresses(lab, NAME) == {first.address}
    eventually(lambda: addresses(lab, NAME) == {first.address, second.address})


def test_dns_shows_a_deregistered_task_for_the_lag(lab):
    orders = lab.service("orders", tasks=2, deregistration_lag=0.3)
    first, second = orders.tasks
    orders.deregister(first)
    assert addresses(lab, NAME) == {first.address, second.address}
    eventually(lambda: addresses(lab, NAME) == {second.address})
    assert get(first)[0].status == 200


def test_flush_ends_the_lag(lab):
    orders = lab.service("orders", tasks=2, registration_lag=60, deregistration_lag=60)
    first, second = orders.tasks
    orders.deregister(first)
    third = orders.add_task()
    orders.flush()
    assert addresses(lab, NAME) == {second.address, third.address}


def test_a_task_deregistered_before_dns_showed_it_never_appears(lab):
    orders = lab.service("orders", tasks=1, registration_lag=0.05)
    passing = orders.add_task()
    orders.deregister(passing)
    time.sleep(0.1)
    assert passing.address not in addresses(lab, NAME)


def test_a_task_can_be_started_unregistered_and_registered_later(lab):
    orders = lab.service("orders", tasks=1)
    quiet = orders.add_task(register=False)
    assert quiet.address not in addresses(lab, NAME)
    orders.register(quiet)
    assert quiet.address in addresses(lab, NAME)


def test_a_booting_task_is_registered_and_refuses(lab):
    orders = lab.service("orders", tasks=1)
    booting = orders.add_task(boot=0.3)
    assert booting.address in addresses(lab, NAME)
    with pytest.raises(ConnectionRefusedError):
        dial(booting)
    eventually(lambda: booting.state is TaskState.RUNNING)
    assert get(booting)[0].status == 200


def test_a_new_task_can_take_over_an_address(lab):
    orders = lab.service("orders", tasks=1)
    users = lab.service("users", tasks=1, port=orders.port)
    old = orders.tasks[0]
    orders.kill(old)
    new = users.add_task(address=old.address)
    assert (new.address, new.port) == (old.address, old.port)
    assert get(new)[0].headers["X-Task"] == new.id


def test_a_killed_task_leaves_the_registry_and_dns_with_the_lag(lab):
    orders = lab.service("orders", tasks=2, deregistration_lag=60)
    first, second = orders.tasks
    orders.kill(first)
    assert orders.tasks == (second,)
    assert orders.all_tasks == (first, second)
    assert first.address in addresses(lab, NAME)
    orders.flush()
    assert addresses(lab, NAME) == {second.address}


def test_a_task_that_dies_by_itself_stays_registered(lab):
    orders = lab.service("orders", tasks=2)
    orders.tasks[0].kill()
    assert len(records(ask(lab, NAME, "A"))) == 2


@pytest.mark.parametrize("stop", ["kill", "drain", "vanish"])
def test_a_deployment_replaces_every_task_while_dns_lags_behind(lab, stop):
    orders = lab.service("orders", tasks=3, deregistration_lag=60)
    old = orders.tasks
    began = time.monotonic()
    deployment = orders.deploy(interval=0.03, stop=stop)

    assert deployment.done
    assert time.monotonic() - began >= 0.09
    assert len(orders.tasks) == 3
    assert not set(orders.tasks) & set(old)
    assert {task.state for task in old} == {TaskState.STOPPED}
    assert addresses(lab, NAME) == {task.address for task in (*old, *orders.tasks)}
    error = TimeoutError if stop == "vanish" else ConnectionRefusedError
    with pytest.raises(error):
        dial(old[0], timeout=0.1)
    orders.flush()
    assert addresses(lab, NAME) == {task.address for task in orders.tasks}


def test_a_deployment_goes_batch_by_batch_in_the_background(lab):
    orders = lab.service("orders", tasks=4)
    old = orders.tasks
    deployment = orders.deploy(batch=2, interval=0.4, background=True)
    eventually(lambda: len(orders.tasks) == 6)
    assert not deployment.done
    eventually(lambda: old[0] not in orders.tasks)
    assert old[1] not in orders.tasks
    assert old[2] in orders.tasks
    deployment.wait(2)
    assert len(orders.tasks) == 4


def test_a_draining_deployment_lets_requests_finish(lab):
    orders = lab.service("orders", tasks=1)
    old = orders.tasks[0]
    with dial(old) as sock:
        send(sock, "/slow/0.3")
        eventually(lambda: old.in_flight == 1)
        orders.deploy(interval=0, stop="drain")
        assert b" 200 " in sock.recv(4096)


def test_a_vanished_interface_stays_silent_after_its_deployment(lab):
    if not lab.can_vanish:
        pytest.skip("no socket filter here")
    orders = lab.service("orders", tasks=1)
    old = orders.tasks[0]
    with dial(old, timeout=0.1) as sock:
        orders.deploy(interval=0, stop="vanish")
        send(sock)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    assert old.faults == (Vanish(),)


def test_scaling_starts_and_stops_tasks(lab):
    orders = lab.service("orders", tasks=1)
    orders.scale(4)
    assert len(addresses(lab, NAME)) == 4
    youngest = orders.tasks[-1]
    orders.scale(1)
    assert addresses(lab, NAME) == {youngest.address}
    eventually(lambda: orders.tasks == (youngest,))


def test_requests_of_stopped_tasks_still_count(lab):
    orders = lab.service("orders", tasks=1)
    get(orders.tasks[0])
    orders.deploy(interval=0)
    get(orders.tasks[0])
    assert orders.requests == 2


def test_a_url_has_a_port_only_if_dns_has_addresses(lab):
    assert lab.service("a", port=0).url("/x") == f"http://a.prod.local:{lab.services['a'].port}/x"
    assert lab.service("b", records="SRV").url(scheme="https") == "https://b.prod.local/"
    assert lab.service("c", tasks=0).url() == "http://c.prod.local/"


def test_the_ttl_can_be_changed(lab):
    orders = lab.service("orders", ttl=5)
    orders.ttl = 1
    assert ask(lab, NAME, "A").answer[0].ttl == 1


@pytest.mark.parametrize(
    "settings", [{"records": "TXT"}, {"routing": "LATENCY"}, {"port": 8080, "dynamic_ports": True}, {"name": "a b"}]
)
def test_settings_that_make_no_sense_are_value_errors(lab, settings):
    with pytest.raises(ValueError, match=r"must|allowed|cannot"):
        lab.service(**{"name": "orders", **settings})
    assert lab.services == {}


def test_a_name_is_taken_once(lab):
    lab.service("orders")
    with pytest.raises(ValueError, match="already"):
        lab.service("orders")
    with pytest.raises(ConfigurationError):
        lab.service("")


def test_a_service_whose_port_is_taken_leaves_nothing_behind(lab):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use on every loopback address"):
            lab.service("orders", port=taken.getsockname()[1])
    assert lab.services == {}
    assert get(lab.service("orders").tasks[0])[0].status == 200


@pytest.mark.parametrize("settings", [{"batch": 0}, {"stop": "explode"}])
def test_a_deployment_checks_its_settings(lab, settings):
    with pytest.raises(ValueError, match="must be"):
        lab.service("orders").deploy(**settings)


def test_nothing_is_there_before_the_first_task(lab):
    lab.service("orders", tasks=0)
    assert ask(lab, NAME, "A").rcode() == dns.rcode.NXDOMAIN
