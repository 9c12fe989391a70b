"""A wrapped request beside a plain one, in one run: the ratio is the result.

The server runs in a process of its own, so that its work does not hide behind this one's lock. Rounds
of both kinds alternate; the median of the rounds' ratios is what noise disturbs least.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest
import requests

from ecs_discovery import Discovery, wrap_session

pytestmark = pytest.mark.benchmark

ROUNDS, REQUESTS = 30, 150


@pytest.fixture(scope="module")
def lab() -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "ecs_discovery.testing.lab", "--tasks", "3", "--seconds", "300"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()
        process.wait(10)


def per_request(send: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(REQUESTS):
        send()
    return (time.perf_counter() - wall) / REQUESTS, (time.process_time() - cpu) / REQUESTS


def compare(name: str, wrapped: Callable[[], object], plain: Callable[[], object], capsys: Any) -> None:
    per_request(wrapped), per_request(plain)
    rounds = []
    for number in range(ROUNDS):
        pair = (per_request(wrapped), per_request(plain)) if number % 2 else (per_request(plain), per_request(wrapped))
        rounds.append(pair if number % 2 else pair[::-1])
    wall = median(w[0] / p[0] for w, p in rounds)
    cpu = median(w[1] / p[1] for w, p in rounds)
    micros = [median(values) * 1e6 for values in zip(*((w[0], p[0]) for w, p in rounds), strict=True)]
    with capsys.disabled():
        print(f"\n{name}: wrapped {micros[0]:.0f} us, plain {micros[1]:.0f} us")
        print(f"{name}: ratio {wall:.3f} of time, {cpu:.3f} of CPU")


def test_a_wrapped_keep_alive_get(lab: dict[str, Any], capsys: Any):
    with Discovery(namespace=lab["namespace"], nameservers=[lab["nameserver"]]) as discovery:
        wrapped, plain = wrap_session(requests.Session(), discovery), requests.Session()
        compare(
            "keep-alive GET",
            lambda: wrapped.get(lab["url"]),
            lambda: plain.get(f"http://{lab['tasks'][0]}/"),
            capsys,
        )
        wrapped.close()
        plain.close()


def test_a_wrapped_get_without_environment_look_ups(lab: dict[str, Any], capsys: Any):
    """The same with `trust_env` off, where requests itself does least."""
    with Discovery(namespace=lab["namespace"], nameservers=[lab["nameserver"]]) as discovery:
        wrapped, plain = wrap_session(requests.Session(), discovery), requests.Session()
        wrapped.trust_env = plain.trust_env = False
        compare(
            "keep-alive GET, trust_env off",
            lambda: wrapped.get(lab["url"]),
            lambda: plain.get(f"http://{lab['tasks'][0]}/"),
            capsys,
        )
        wrapped.close()
        plain.close()
