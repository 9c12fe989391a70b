"""What `call` makes of the errors of real client libraries. The table of the documentation is written from this."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery import AsyncDiscovery, Discovery, DiscoveryError, NotSent, OutlierPolicy, RequestError
from ecs_discovery.client.failures import failure_of, judge_exception
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.failure_kinds import FailureKind

CALM = OutlierPolicy(connect_min=30)
FAULTS = ["refused", "reset", "end of stream", "timeout"]
LIMIT = 0.5  # seconds that a client waits


class Bad:
    """Listens and does the same bad thing to whoever sends something."""

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._kept: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        if fault == "refused":
            self.listener.close()
        else:
            self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            if self._fault == "timeout":
                self._kept.append(connection)
                continue
            connection.settimeout(2)
            try:
                connection.recv(65536)
            except OSError:
                pass
            if self._fault == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    def close(self) -> None:
        if self._fault != "refused":
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self._thread.join(5)
        for connection in self._kept:
            connection.close()


# One request with each library


def use_httpx(host: str, port: int) -> None:
    import httpx

    with httpx.Client(trust_env=False, timeout=LIMIT) as client:
        client.get(f"http://{host}:{port}/")


async def use_httpx_async(host: str, port: int) -> None:
    import httpx

    async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as client:
        await client.get(f"http://{host}:{port}/")


def use_requests(host: str, port: int) -> None:
    import requests

    with requests.Session() as session:
        session.get(f"http://{host}:{port}/", timeout=LIMIT)


def use_urllib3(host: str, port: int) -> None:
    import urllib3

    with urllib3.PoolManager(retries=False, timeout=LIMIT) as pool:
        pool.request("GET", f"http://{host}:{port}/")


def use_urllib3_with_retries(host: str, port: int) -> None:
    import urllib3

    with urllib3.PoolManager(retries=urllib3.Retry(1, backoff_factor=0), timeout=LIMIT) as pool:
        pool.request("GET", f"http://{host}:{port}/")


async def use_aiohttp(host: str, port: int) -> None:
    import aiohttp

    limits = aiohttp.ClientTimeout(sock_connect=LIMIT, sock_read=LIMIT)
    async with aiohttp.ClientSession(timeout=limits) as session, session.post(f"http://{host}:{port}/") as response:
        await response.read()


def use_http_client(host: str, port: int) -> None:
    from http.client import HTTPConnection

    connection = HTTPConnection(host, port, timeout=LIMIT)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    finally:
        connection.close()


def use_redis(host: str, port: int) -> None:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with redis.Redis(host, port, socket_timeout=LIMIT, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()


async def use_redis_async(host: str, port: int) -> None:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    async with redis.asyncio.Redis(host=host, port=port, socket_timeout=LIMIT, retry=Retry(NoBackoff(), 0)) as client:
        await client.ping()


def use_psycopg(host: str, port: int) -> None:
    import psycopg

    psycopg.connect(host=host, port=port, connect_timeout=2, sslmode="disable", dbname="d", user="u").close()


async def use_psycopg_async(host: str, port: int) -> None:
    import psycopg

    connection = await psycopg.AsyncConnection.connect(
        host=host, port=port, connect_timeout=2, sslmode="disable", dbname="d", user="u"
    )
    await connection.close()


async def use_asyncpg(host: str, port: int) -> None:
    import asyncpg

    connection = await asyncpg.connect(host=host, port=port, timeout=LIMIT, ssl=False, database="d", user="u")
    await connection.close()


def use_grpc(host: str, port: int) -> None:
    import grpc

    with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        channel.unary_unary("/s/m")(b"", timeout=LIMIT)


async def use_grpc_async(host: str, port: int) -> None:
    import grpc

    async with grpc.aio.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        await channel.unary_unary("/s/m")(b"", timeout=LIMIT)


LIBRARIES: dict[str, Callable[[str, int], Any]] = {
    "aiohttp": use_aiohttp,
    "asyncpg": use_asyncpg,
    "gRPC": use_grpc,
    "gRPC (asyncio)": use_grpc_async,
    "http.client": use_http_client,
    "httpx": use_httpx,
    "httpx (asyncio)": use_httpx_async,
    "psycopg": use_psycopg,
    "psycopg (asyncio)": use_psycopg_async,
    "redis": use_redis,
    "redis (asyncio)": use_redis_async,
    "requests": use_requests,
    "urllib3": use_urllib3,
    "urllib3 with Retry": use_urllib3_with_retries,
}


@pytest.fixture
def bad() -> Iterator[Callable[[str], Bad]]:
    made: list[Bad] = []

    def make(fault: str) -> Bad:
        made.append(Bad(fault))
        return made[-1]

    yield make
    for each in made:
        each.close()


def outcome(use: Callable[[str, int], Any], servers: list[Bad], idempotent: bool) -> tuple[bool, bool]:
    """Was the call retried on the other endpoint, and was the first endpoint set aside?"""
    target = "static://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
    tried: list[int] = []

    def once(attempt: Any) -> Any:
        tried.append(attempt.port)
        return use(attempt.host, attempt.port)

    if not asyncio.iscoroutinefunction(use):
        with Discovery(outlier=CALM) as discovery:
            with pytest.raises(Exception) as caught:  # noqa: PT011  # of any library
                discovery.call(target, once, idempotent=idempotent)
            nodes = discovery.snapshot(target).nodes
    else:

        async def main() -> Any:
            async with AsyncDiscovery(outlier=CALM) as discovery:

                async def once_async(attempt: Any) -> Any:
                    return await once(attempt)

                with pytest.raises(Exception) as caught:  # noqa: PT011
                    await discovery.call(target, once_async, idempotent=idempotent)
                await asyncio.sleep(0)
                return caught, discovery.snapshot(target).nodes

        caught, nodes = asyncio.run(main())
    del caught
    down = {int(node.endpoint.rpartition(":")[2]) for node in nodes if node.health == "down"}
    return len(set(tried)) == 2, tried[0] in down


found: dict[str, dict[str, tuple[bool, bool, bool]]] = {}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_refused_connection_is_retried_elsewhere_and_any_other_failure_if_idempotent(
    bad: Callable[[str], Bad], library: str, fault: str
):
    servers = [bad(fault), bad(fault)]
    always, down = outcome(LIBRARIES[library], servers, idempotent=False)
    repeated, also_down = outcome(LIBRARIES[library], servers, idempotent=True)
    found.setdefault(library, {})[fault] = (always, repeated, down)
    assert (always, repeated) == (fault == "refused", True)
    assert down is also_down is (fault == "refused")


def table() -> str:
    lines = [
        "| Client library | refused | reset | end of stream | timeout |",
        "|---|---|---|---|---|",
    ]
    for library, row in found.items():
        cells = []
        for fault in FAULTS:
            always, repeated, down = row[fault]
            when = "retried" if always else "retried if idempotent" if repeated else "not retried"
            cells.append(f"{when}{', set aside' if down else ''}")
        lines.append(f"| {library} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_table_of_the_documentation_is_what_was_seen():
    """`UPDATE_TABLES=1` writes it."""
    if len(found) < len(LIBRARIES) or any(len(row) < len(FAULTS) for row in found.values()):
        pytest.skip("the other tests of this file did not all run before")
    page = Path(__file__).resolve().parents[2] / "docs" / "retries-and-time.md"
    text = page.read_text(encoding="utf-8")
    begin, end = "<!-- client libraries: begin -->\n", "\n<!-- client libraries: end -->"
    before, _, rest = text.partition(begin)
    old, _, after = rest.partition(end)
    if os.environ.get("UPDATE_TABLES"):
        page.write_text(before + begin + table() + end + after, encoding="utf-8")
        old = table()
    assert old == table()


# A server that speaks, and refuses


class Postgres:
    """A server of PostgreSQL that answers each attempt to connect with one error."""

    def __init__(self, state: str, text: str, severity: str = "FATAL") -> None:
        fields = f"S{severity}\0VFATAL\0C{state}\0M{text}\0\0".encode()
        self._error = b"E" + struct.pack("!I", len(fields) + 4) + fields
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                if connection.recv(1000):
                    connection.sendall(self._error)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


DRIVERS = {name: LIBRARIES[name] for name in ("asyncpg", "psycopg", "psycopg (asyncio)")}
FOR_NOW = [("57P03", "the database system is starting up"), ("53300", "sorry, too many clients already")]
FOR_GOOD = [("28P01", 'password authentication failed for user "u"'), ("3D000", 'database "d" does not exist')]


@pytest.fixture
def postgres() -> Iterator[Callable[..., list[Any]]]:
    made: list[Postgres] = []

    def make(*answer: str) -> list[Any]:
        made.extend(Postgres(*answer) for _ in range(2))
        return list(made)

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("answer", FOR_NOW, ids=lambda answer: answer[0])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_database_that_takes_no_connection_now_is_passed_over(
    postgres: Callable[..., list[Any]], driver: str, answer: tuple[str, str], idempotent: bool
):
    assert outcome(DRIVERS[driver], postgres(*answer), idempotent) == (True, False)


@pytest.mark.parametrize("answer", FOR_GOOD, ids=lambda answer: answer[0])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_wrong_password_is_not_tried_on_another_database(
    postgres: Callable[..., list[Any]], driver: str, answer: tuple[str, str]
):
    assert outcome(DRIVERS[driver], postgres(*answer), idempotent=True) == (False, False)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg (asyncio)"])
def test_what_a_database_says_in_another_language_is_not_taken_for_a_refused_connection(
    postgres: Callable[..., list[Any]], driver: str
):
    answer = ("28P01", "пользователь не прошёл проверку подлинности", "ВАЖНО")
    assert outcome(DRIVERS[driver], postgres(*answer), idempotent=True) == (False, False)


@pytest.mark.parametrize("name", ["AuthenticationError", "AuthorizationError", "MaxConnectionsError"])
def test_an_error_of_redis_that_no_other_endpoint_would_cure_is_not_repeated(name: str):
    redis = pytest.importorskip("redis")
    assert failure_of(getattr(redis.exceptions, name)("no")) is FailureKind.OTHER
    assert failure_of(redis.exceptions.BusyLoadingError("loading")) is FailureKind.CLOSED


@pytest.mark.parametrize("name", ["PoolTimeout", "PoolClosed", "TooManyRequests"])
def test_a_pool_of_this_process_that_is_full_is_no_failure_of_an_endpoint(name: str):
    pool = pytest.importorskip("psycopg_pool")
    assert failure_of(getattr(pool, name)("no")) is FailureKind.OTHER


def test_a_database_that_shuts_down_is_told_alike_by_both_drivers():
    psycopg, asyncpg = pytest.importorskip("psycopg"), pytest.importorskip("asyncpg")
    for error in (psycopg.errors.AdminShutdown("bye"), asyncpg.AdminShutdownError("bye")):
        assert failure_of(error) is FailureKind.CLOSED


# Rules


class Wrapped(Exception):
    """What a library of nobody's raises."""


def raised(*errors: BaseException, hidden: bool = False) -> BaseException:
    """The last error, raised while each one before it was handled."""
    current: BaseException | None = None
    for error in errors:
        error.__context__ = current
        error.__suppress_context__ = hidden
        current = error
    assert current is not None
    return current


@pytest.mark.parametrize("hidden", [False, True])
def test_a_refusal_is_found_behind_any_error_that_was_made_of_it(hidden: bool):
    error = raised(ConnectionRefusedError(111, "refused"), OSError("library"), Wrapped("library"), hidden=hidden)
    assert failure_of(error) is FailureKind.NOT_SENT


def test_a_reset_that_came_after_a_refusal_outweighs_it():
    """A function may try one server, be refused, and send to another. What was sent is not sent again."""
    error = raised(ConnectionRefusedError(111, "refused"), ConnectionResetError(104, "reset"), Wrapped("library"))
    assert failure_of(error) is FailureKind.CLOSED


def test_what_the_caller_was_handling_led_to_nothing():
    handled = ConnectionRefusedError(111, "of another call")
    error = raised(handled, Wrapped("a mistake"))
    assert failure_of(error) is FailureKind.NOT_SENT
    assert failure_of(error, handled) is FailureKind.OTHER


def test_the_failure_of_a_call_inside_a_call_is_not_repeated_once_more():
    inner = RequestError("failed", target="users")
    assert failure_of(raised(ConnectionResetError(), inner, Wrapped())) is FailureKind.OTHER


def test_an_error_that_caused_itself_ends_the_search():
    error = Wrapped()
    error.__cause__ = error.__context__ = error
    assert failure_of(error) is FailureKind.OTHER


def test_not_sent_is_believed_although_the_endpoint_accepts_connections():
    error = Wrapped()
    error.__cause__ = NotSent()
    assert judge_exception(error, None, accepts=True)[:2] == (Outcome.FAILURE, FailureKind.NOT_SENT)
    assert judge_exception(error, None, accepts=False)[:2] == (Outcome.CONNECT, FailureKind.NOT_SENT)


def test_a_function_that_says_that_nothing_was_sent_is_called_again():
    with Discovery() as discovery:
        ports: list[int] = []

        def fetch(attempt: Any) -> str:
            ports.append(attempt.port)
            if len(ports) == 1:
                raise NotSent("the pool was full")
            return "ok"

        assert discovery.call("static://127.0.0.1:1,127.0.0.1:2", fetch) == "ok"
        assert len(set(ports)) == 2


def test_not_sent_reaches_the_caller_in_the_end():
    with Discovery() as discovery:

        def fetch(attempt: Any) -> str:
            raise NotSent

        with pytest.raises(DiscoveryError, match="nothing of the request was sent"):
            discovery.call("static://127.0.0.1:1", fetch)
