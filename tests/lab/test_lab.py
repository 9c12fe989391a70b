"""A lab leaves nothing behind, stands beside others, and can do with one address."""

from __future__ import annotations

import gc
import json
import os
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecs_discovery.testing.lab import Lab
from tests.lab.wire import addresses, ask, dial, eventually, records, said, send

NAME = "orders.prod.local."


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_close_leaves_no_file_and_no_thread_behind():
    gc.collect()
    files, threads = open_files(), set(threading.enumerate())
    with Lab(seed=1) as lab:
        orders = lab.service("orders", tasks=4, records="A+SRV", registration_lag=60, deregistration_lag=60)
        ask(lab, NAME, "A", tcp=True)
        socks = [dial(task) for task in orders.tasks for _ in range(2)]
        for sock in socks:
            send(sock, "/slow/60")
        eventually(lambda: all(task.in_flight == 2 for task in orders.tasks))
        first, second, third, _ = orders.tasks
        first.vanish()
        second.vanish()
        second.kill()
        third.refuse()
        orders.add_task(boot=60)
        orders.deploy(interval=60, background=True)
    for sock in socks:
        sock.close()
    assert open_files() == files
    assert set(threading.enumerate()) == threads


def test_close_twice_is_once_and_a_closed_lab_says_so():
    lab = Lab(seed=1)
    orders = lab.service("orders")
    lab.close()
    lab.close()
    with pytest.raises(RuntimeError, match="closed"):
        orders.add_task()
    with pytest.raises(RuntimeError, match="closed"):
        orders.deploy()


def test_labs_with_one_seed_do_not_meet():
    with Lab(seed=1) as one, Lab(seed=1) as other:
        first = one.service("orders", tasks=3)
        second = other.service("orders", tasks=3, port=first.port)
        assert [task.id for task in first.tasks] == [task.id for task in second.tasks]
        assert addresses(one, NAME).isdisjoint(addresses(other, NAME))


def test_with_a_single_address_ports_stand_for_addresses():
    with Lab(seed=1, single_address=True) as lab:
        orders = lab.service("orders", tasks=3, records="A")
        assert lab.nameserver.startswith("127.0.0.1:")
        assert {task.address for task in orders.tasks} == {"127.0.0.1"}
        assert len({task.port for task in orders.tasks}) == 3
        assert {int(text.split()[2]) for text in records(ask(lab, NAME, "SRV"))} == {task.port for task in orders.tasks}
        assert records(ask(lab, NAME, "A")) == []
        assert orders.url() == "http://orders.prod.local/"
        with pytest.raises(ValueError, match="ports of their own"):
            lab.service("users", port=8080)


def test_many_threads_may_use_one_lab(lab):
    orders = lab.service("orders", tasks=1)
    start = threading.Barrier(8)

    def work() -> int:
        start.wait()
        return sum(said(orders.add_task(), "/x")["path"] == "/x" for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        answered = [pool.submit(work) for _ in range(8)]
    assert [future.result() for future in answered] == [5] * 8
    assert len(orders.tasks) == 41


def test_everything_shows_its_state(lab):
    orders = lab.service("orders", records="A+SRV")
    task = orders.tasks[0]
    task.slow(0.5)
    assert repr(lab) == f"<Lab prod.local dns {lab.nameserver} 1 services>"
    assert repr(orders) == "<LabService orders.prod.local A+SRV 1 tasks, 1 in DNS>"
    assert (
        repr(task) == f"<LabTask {task.id[:8]} {task.address}:{task.port} running Slow(seconds=0.5, probability=1.0)>"
    )
    assert repr(lab.dns) == f"<NameServer {lab.nameserver} 0 queries>"
    shown = json.loads(json.dumps(lab.snapshot()))
    assert shown["services"]["orders"]["tasks"][0]["faults"] == ["Slow(seconds=0.5, probability=1.0)"]


def test_tasks_can_speak_tls(lab, tmp_path):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate(tmp_path))
    client = ssl.create_default_context(cafile=str(certificate(tmp_path)))
    task = lab.service("orders", ssl_context=server).tasks[0]
    with client.wrap_socket(dial(task), server_hostname="orders.prod.local") as sock:
        send(sock)
        assert b" 200 " in sock.recv(4096)
        if lab.can_vanish:
            task.vanish()
            task.kill()
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.recv(1)
    with dial(lab.service("users", ssl_context=server).tasks[0]) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while sock.recv(4096):
            pass


def certificate(folder: Path) -> Path:
    """A key and a certificate of its own for orders.prod.local, in one file."""
    file = folder / "certificate.pem"
    if not file.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=orders.prod.local", "-addext", "subjectAltName=DNS:orders.prod.local"]
        try:
            made = subprocess.run([*command, "-keyout", "-"], capture_output=True, check=True, timeout=20)
        except FileNotFoundError:
            pytest.skip("no openssl to make a certificate")
        file.write_bytes(made.stdout)
    return file


def test_a_lab_runs_in_a_process_of_its_own_and_obeys_its_standard_input():
    command = [
        sys.executable,
        "-m",
        "ecs_discovery.testing.lab",
        "--service",
        "users",
        "--tasks",
        "2",
        "--seconds",
        "20",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout

        def obey(line: str) -> dict[str, object]:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        facts = json.loads(process.stdout.readline())
        assert (facts["namespace"], facts["service"], len(facts["tasks"])) == ("prod.local", "users", 2)
        assert facts["url"] == f"http://users.prod.local:{facts['port']}/"
        assert obey("slow 0 1.5") == {"done": "slow 0 1.5"}
        assert "error" in obey("slow 7 1")
        assert "error" in obey("sing")
        assert obey("heal 0") == {"done": "heal 0"}
        assert obey("scale 3") == {"done": "scale 3"}
        assert obey("deploy interval=0.01 stop=kill") == {"done": "deploy interval=0.01 stop=kill"}
        assert "users" in obey("snapshot")["services"]
        process.stdin.close()
        assert process.wait(5) == 0


def test_the_process_ends_when_its_seconds_are_over():
    command = [sys.executable, "-m", "ecs_discovery.testing.lab", "--seconds", "0.05"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.wait(5) == 0
