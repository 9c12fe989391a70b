"""Bodies: which are sent again, which answers are read within their attempt, and how long a deadline holds."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"


@contextmanager
def head_first(*before: bytes) -> Iterator[tuple[str, threading.Event]]:
    """A server that sends the head and the first half of a short body, and the rest when the event is set.

    `before` are pieces that it sends apart, in the place of the head.
    """
    go_on = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                for piece in before or (HEAD,):
                    connection.sendall(piece)
                    time.sleep(0.1 if before else 0)
                if not before:
                    connection.sendall(b"half")
                go_on.wait(30)
                connection.sendall(b"rest")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/", go_on
        finally:
            go_on.set()
            thread.join()


@pytest.mark.parametrize(
    "before",
    [
        (),
        (HEAD + b"half",),
        (EARLY + HEAD + b"half",),
        (HEAD[:-2], HEAD[-2:] + b"half"),
        (HEAD[:-1], HEAD[-1:] + b"half"),
    ],
)
def test_a_short_body_that_comes_late_does_not_hold_back_the_head(library: Any, before: tuple[bytes, ...]):
    with (
        head_first(*before) as (url, go_on),
        Discovery(services={"poll": url_to_target(url)}, rng=Random(7)) as discovery,
        wrap_client(library.Client(timeout=20), discovery) as client,
        client.stream("GET", "http://poll/") as response,
    ):
        assert not go_on.is_set()
        assert pending(discovery) == 1
        pieces = response.iter_bytes()
        assert next(pieces) == b"half"
        go_on.set()
        assert b"".join(pieces) == b"rest"
        response.close()
        assert pending(discovery) == 0


def test_a_short_body_that_comes_late_does_not_hold_back_the_head_in_a_task(library: Any):
    async def main(url: str, go_on: threading.Event, discovery: Discovery) -> None:
        async with (
            wrap_client(library.AsyncClient(timeout=20), discovery) as client,
            client.stream("GET", "http://poll/") as response,
        ):
            assert not go_on.is_set()
            assert pending(discovery) == 1
            pieces = response.aiter_bytes()
            assert await anext(pieces) == b"half"
            go_on.set()
            assert b"".join([piece async for piece in pieces]) == b"rest"
            await response.aclose()
            assert pending(discovery) == 0

    with (
        head_first() as (url, go_on),
        Discovery(services={"poll": url_to_target(url)}, rng=Random(7)) as discovery,
    ):
        asyncio.run(main(url, go_on, discovery))


def test_a_body_that_is_read_at_once_is_whole_although_it_comes_late(library: Any):
    with (
        head_first() as (url, go_on),
        Discovery(services={"poll": url_to_target(url)}, rng=Random(7)) as discovery,
        wrap_client(library.Client(timeout=20), discovery) as client,
    ):
        timer = threading.Timer(1.0, go_on.set)
        timer.start()
        assert client.get("http://poll/").content == b"halfrest"
        timer.join()
        assert pending(discovery) == 0


def url_to_target(url: str) -> str:
    return "static://" + url.split("/")[2]


def pending(discovery: Discovery) -> int:
    return sum(node.pending for node in discovery.snapshot("poll").nodes)


@contextmanager
def upgrading() -> Iterator[str]:
    """A server that speaks another protocol after its answer, whose head says that there is no body."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(head)
                connection.sendall(connection.recv(5))

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join()


UPGRADE = {"Upgrade": "echo", "Connection": "Upgrade"}


def test_a_connection_that_was_upgraded_is_the_callers_whatever_its_head_says_of_a_body(library: Any):
    with (
        upgrading() as url,
        Discovery(services={"poll": url_to_target(url)}, rng=Random(7)) as discovery,
        wrap_client(library.Client(), discovery) as client,
        client.stream("GET", "http://poll/", headers=UPGRADE) as response,
    ):
        wire = response.extensions["network_stream"]
        wire.write(b"hello")
        assert wire.read(100, timeout=5) == b"hello"


def test_a_connection_that_was_upgraded_in_a_task_is_the_callers_too(library: Any):
    async def main(url: str, discovery: Discovery) -> None:
        async with (
            wrap_client(library.AsyncClient(), discovery) as client,
            client.stream("GET", "http://poll/", headers=UPGRADE) as response,
        ):
            wire = response.extensions["network_stream"]
            await wire.write(b"hello")
            assert await wire.read(100, timeout=5) == b"hello"

    with upgrading() as url, Discovery(services={"poll": url_to_target(url)}, rng=Random(7)) as discovery:
        asyncio.run(main(url, discovery))
