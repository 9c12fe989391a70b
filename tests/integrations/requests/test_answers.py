"""Bodies, streams and methods: requests and answers as a plain session has them."""

from __future__ import annotations

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import requests

from ecs_discovery import (
    BalancingPolicy,
)
from ecs_discovery.testing.lab import Lab
from tests.integrations.requests.support import discovery_of
from tests.support import eventually


def test_bodies_streams_and_methods_work_as_ever(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, base = wrap(), f"http://orders:{service.port}"
    assert session.post(f"{base}/echo", data=b"x" * 100_000, timeout=10).content == b"x" * 100_000
    assert session.post(f"{base}/echo", json={"a": 1}, timeout=10).json() == {"a": 1}
    assert session.post(f"{base}/echo", data=(part for part in [b"a", b"b"]), timeout=10).content == b"ab"
    assert session.post(f"{base}/echo", data=io.BytesIO(b"file"), timeout=10).content == b"file"
    assert session.head(f"{base}/", timeout=10).status_code == 200
    with session.get(f"{base}/stream/20", stream=True, timeout=10) as response:
        assert len(b"".join(response.iter_content(1000))) == 20 * 1024
    assert session.get(f"{base}/status/404", timeout=10).status_code == 404
    task = service.tasks[0]
    plain = requests.get(f"http://{task.address}:{task.port}//double/slash", timeout=10).json()["path"]
    assert session.get(f"{base}//double/slash", timeout=10).json()["path"] == plain


def test_a_streamed_answer_counts_as_load_until_it_is_read_closed_or_forgotten(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, target = wrap(), f"orders:{service.port}"

    def pending() -> int:
        return discovery_of(session).snapshot(target).nodes[0].pending

    response = session.get(f"http://{target}/bytes/100000", stream=True, timeout=10)
    assert pending() == 1
    assert len(response.content) == 100_000
    assert pending() == 0

    response = session.get(f"http://{target}/bytes/1000000", stream=True, timeout=10)
    assert pending() == 1
    response.close()
    assert pending() == 0

    response = session.get(f"http://{target}/bytes/1000000", stream=True, timeout=10)
    raw = response.raw
    raw.close()  # what the collector would do to the socket
    del response, raw
    session.get(f"http://{target}/", timeout=10)
    eventually(lambda: session.get(f"http://{target}/", timeout=10) and pending() == 0)


def test_threads_share_one_session(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    # Tasks and callers share a processor here, and what one waits for the other looks like latency of a task.
    session, url = wrap(balancing=BalancingPolicy(least_latency=1)), f"http://orders:{service.port}/"
    with ThreadPoolExecutor(8) as pool:
        counts = Counter(pool.map(lambda _: session.get(url, timeout=10).headers["X-Task"], range(400)))
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 80
    assert all(node.pending == 0 for node in discovery_of(session).snapshot(f"orders:{service.port}").nodes)
