"""Bodies: which are sent again, which answers are read within their attempt, and how long a deadline holds."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from ecs_discovery import AsyncDiscovery, DeadlineExceeded, Discovery, DiscoveryError, options, wrap_client
from ecs_discovery.testing.lab import Lab


@pytest.fixture
def discovery(lab: Lab) -> Iterator[Discovery]:
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver], rng=Random(7)) as discovery:
        yield discovery


def test_a_plain_iterator_is_not_sent_again_as_an_empty_body(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.reset()
    again = pytest.raises(library.TransportError, match="its body cannot be sent again")
    with wrap_client(library.Client(), discovery) as client, again:
        client.put(service.url("/echo"), content=iter([b"on", b"ce"]))
    assert service.requests == 1


def test_a_form_with_files_is_sent_again_whole(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()
    with wrap_client(library.Client(), discovery) as client:
        for _ in range(4):
            found = client.put(service.url("/echo"), files={"file": ("a", io.BytesIO(b"whole"))}, data={"k": "v"})
            assert b"whole" in found.content


def test_a_form_with_a_file_that_cannot_seek_is_sent_once(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.reset()

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    again = pytest.raises(library.TransportError, match="its body cannot be sent again")
    with wrap_client(library.Client(), discovery) as client, again:
        client.put(service.url("/echo"), files={"file": ("a", Pipe(b"once"))})
    assert service.requests == 1


def test_a_long_answer_that_is_cut_is_an_error_of_both_and_counts(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)
    service.tasks[0].reset(after_bytes=100_000)
    with wrap_client(library.Client(), discovery) as client:
        with pytest.raises(library.TransportError) as caught:
            client.get(service.url("/bytes/300000"))
        assert isinstance(caught.value, DiscoveryError)
        assert len(caught.value.attempts) == 1
    (node,) = discovery.snapshot(service.url().split("/")[2]).nodes
    assert (node.failures, node.pending) == (1, 0)


def test_a_deadline_holds_for_a_body_that_is_read_later(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)
    with wrap_client(library.Client(), discovery) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught, options(deadline=0.5):
            client.get(service.url("/stream/100000"), timeout=10)
        assert isinstance(caught.value, library.TimeoutException)
        assert time.monotonic() - began < 5


def test_a_deadline_holds_for_a_body_that_is_read_later_in_a_task(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)

    async def main() -> None:
        async with wrap_client(library.AsyncClient(), AsyncDiscovery(share=discovery)) as client:
            with pytest.raises(DeadlineExceeded) as caught, options(deadline=0.5):
                await client.get(service.url("/stream/100000"), timeout=10)
            assert isinstance(caught.value, library.TimeoutException)

    asyncio.run(main())


def test_an_upload_to_a_task_that_reads_slowly_is_sent_whole(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)
    body = b"x" * 5_000_000

    async def main() -> None:
        async with wrap_client(library.AsyncClient(), discovery) as client:
            assert (await client.post(service.url("/echo"), content=body)).content == body

    with wrap_client(library.Client(), discovery) as client:
        assert client.post(service.url("/echo"), content=body).content == body
    asyncio.run(main())
