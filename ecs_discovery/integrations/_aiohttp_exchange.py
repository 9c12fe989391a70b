"""One request of an aiohttp session to a host of ours: what is aiohttp's own of an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from weakref import WeakSet

from aiohttp import ClientRequest, ClientResponse, ClientTimeout, hdrs
from aiohttp.client import DEFAULT_TIMEOUT
from aiohttp.payload import BytesPayload, IOBasePayload

from ecs_discovery.client.aio.driver import AsyncDriver
from ecs_discovery.client.engine import Engine
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.connections import ConnectionState
from ecs_discovery.core.calls.failure_kinds import Decision, Fault
from ecs_discovery.core.calls.http import keep_alive_timeout
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import DeadlineExceeded, DiscoveryError
from ecs_discovery.integrations._aiohttp_errors import as_aiohttp_error, out_of_time
from ecs_discovery.integrations._aiohttp_table import TABLE
from ecs_discovery.integrations.http.aio import AsyncExchange, AsyncUse
from ecs_discovery.integrations.http.exchange import add_fields, remove_fields
from ecs_discovery.integrations.http.short_bodies import PATIENCE, SHORT
from ecs_discovery.runtime.sockets import ready_check
from ecs_discovery.runtime.tcp_info import first_look

__all__ = ["AiohttpExchange", "AiohttpUse", "ConnectionExchange", "FirstLooks", "PooledState"]

_BYTES: tuple[type[Any], ...] = (bytes, BytesPayload)


class PooledState(ConnectionState):
    """What the connector remembers of a connection."""

    __slots__ = ("__weakref__", "clock", "is_ready", "sent_at", "transport", "use")

    def __init__(self, transport: asyncio.Transport, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.opened(clock())
        self.transport = transport
        self.sent_at = 0.0
        """When the latest request went out that may go elsewhere."""
        self.is_ready = ready_check(transport.get_extra_info("socket"))
        """Is there something to read within so many milliseconds?"""
        self.use: AiohttpUse | None = None
        """The use that the connection serves now. It ends when aiohttp lets the connection go."""

    def is_fit(self, engine: Engine, now: float, replayable: bool) -> bool:
        """Idle as it is, can it be relied on?"""
        if self.must_close(engine.settings.connection, now, engine.rng, replayable):
            return False
        return not self.is_ready(0)  # something that the loop has not read yet is its end, nearly always


class AiohttpUse(AsyncUse):
    """One request's use of an endpoint, on its way to the connector."""

    __slots__ = ("exchange", "fields", "state")

    def __init__(self, lease: Lease, replayable: bool, exchange: AiohttpExchange) -> None:
        AsyncUse.__init__(self, lease, replayable)
        self.exchange: AiohttpExchange | None = exchange
        self.state: PooledState | None = None
        self.fields: tuple[Mapping[str, str], set[str]] | None = None
        """See `carry`."""


class FirstLooks:
    """Looks at the connections of a connector on which an answer takes long.

    One timer serves all: what a request would have to set up for itself, most requests would never use.
    """

    __slots__ = ("_clock", "_delay", "_loop", "states", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
        self.states: WeakSet[PooledState] = WeakSet()
        """Of the connections that there are."""
        self.timer: asyncio.TimerHandle | None = None
        self._loop = loop
        self._clock = engine.clock
        self._delay = first_look(engine.settings.connection.ack_timeout, None)

    def start(self) -> None:
        """A request was sent that may go elsewhere."""
        self.timer = self._loop.call_later(self._delay, self._look)

    def _look(self) -> None:
        self.timer = None
        now = self._clock()
        for state in list(self.states):
            use = state.use
            exchange = use.exchange if use is not None and use.replayable and not use.watched else None
            if use is None or exchange is None:
                continue
            if now - state.sent_at >= self._delay / 2:
                exchange.look_at(use, state.transport, state.sent_at)
            elif self.timer is None:
                self.start()


class RouteOfOrigin(Protocol):
    """What an exchange needs to know of the origin of its request."""

    driver: AsyncDriver
    service: Service
    target: str
    is_tls: bool
    verified: set[Any]
    uses: dict[ClientRequest, Any]

    def key(self, node: Node, request: ClientRequest) -> Any: ...


class AiohttpExchange(AsyncExchange[Any, AiohttpUse]):
    """`request` over its attempts, each sent by `handler`, which is aiohttp's own way to connect and send."""

    __slots__ = ("handler", "limits", "request", "route")

    table = TABLE
    aborts = True

    def __init__(self, route: RouteOfOrigin, request: ClientRequest, handler: Callable[[Any], Awaitable[Any]]) -> None:
        AsyncExchange.__init__(self, route.driver, route.service, route.target, request.method)
        self.route = route
        self.request = request
        self.handler = handler
        self.limits: ClientTimeout | None = None
        """The request's time limits, which aiohttp tells the connector alone."""

    def make_use(self, lease: Lease) -> AiohttpUse:
        return AiohttpUse(lease, self.idempotent and (not self.request.body or self._is_plain()), self)

    # Time limits

    @property
    def connect(self) -> float | None:
        timeout = self.limits
        if timeout is None or timeout is DEFAULT_TIMEOUT:  # aiohttp's own word, not the application's
            return None
        return min((each for each in (timeout.sock_connect, timeout.connect) if each), default=None)

    @property
    def read(self) -> float | None:
        timeout = self.limits
        if timeout is None:
            return None
        return min((each for each in (timeout.sock_read, timeout.total) if each), default=None)

    def limit_call(self) -> None:
        """The request's time limits have become known. They hold for the call too, if there is one already."""
        call, connect = self._call, self.connect
        if call is not None and connect is not None:
            call.connect_deadline_at = min(call.deadline_at, self.engine.clock() + connect)

    # Sending

    def send(self, use: AiohttpUse) -> Awaitable[Any]:
        request = self.request
        if self._call is not None:  # an attempt may have come before
            return self._send_again(use)
        self.route.uses[request] = use  # the connector takes it
        return self.handler(request)

    async def _send_again(self, use: AiohttpUse) -> Any:
        request = self.request
        await request.close()  # its body is being written, if the attempt before ended early
        if hdrs.EXPECT in request.headers:
            request.update_expect_continue()
        self.route.uses[request] = use
        return await self.handler(request)

    async def read_more(self, response: Any, use: AiohttpUse) -> None:
        if use.replayable and _is_short(response):
            use.in_body = True
            await _wait_for_body(response)

    def ended(self, use: AiohttpUse) -> None:
        use.exchange = None  # else the two would keep each other until the collector comes
        if not use.sent:
            self.route.uses.pop(self.request, None)
        if use.watched:
            self._end_watch(use)

    async def discard(self, response: ClientResponse) -> None:
        response.release()

    # The body

    def replayable(self) -> bool:
        body: Any = self.request.body
        consumed = getattr(body, "consumed", None)
        return isinstance(body, _BYTES) if consumed is None else not consumed  # aiohttp 3.12.0 has no such word

    def concurrent(self) -> bool:
        return isinstance(self.request.body, _BYTES) and getattr(self.request, "_upload_tracker", None) is None

    def _is_plain(self) -> bool:
        """Can the body be sent again, as far as can be told before it is sent?"""
        body: Any = self.request.body
        return isinstance(body, _BYTES) or (isinstance(body, IOBasePayload) and self.replayable())

    def has_key(self) -> bool:
        return "Idempotency-Key" in self.request.headers

    def url(self) -> str:
        return str(self.request.url)

    def carry(self, fields: Mapping[str, str], added: set[str], use: AiohttpUse) -> None:
        use.fields = fields, added

    def has_connection(self, use: AiohttpUse) -> None:
        """The request is about to be written to the use's connection. Only a trace hook of the application's may wait
        before that: while it does, another attempt may change the fields."""
        if use.fields is not None:
            fields, added = use.fields
            add_fields(fields, self.request.headers, added)

    def put_down(self, added: set[str]) -> None:
        remove_fields(self.request.headers, added)

    # The answer

    def status(self, response: Any) -> int:
        return response.status  # type: ignore[no-any-return]

    def field(self, response: Any, name: str) -> str | None:
        return response.headers.get(name)  # type: ignore[no-any-return]

    def keep(self, response: Any, use: AiohttpUse) -> None:
        if self.route.is_tls:
            self.route.verified.add((self.request.ssl, self.request.server_hostname))
        state = use.state
        if state is not None and state.keep_alive_timeout is None:
            state.keep_alive_timeout = keep_alive_timeout(response.headers.get("Keep-Alive"))
        response.ecs_discovery = use.history

    # Errors

    @property
    def verified(self) -> bool:  # type: ignore[override]
        return (self.request.ssl, self.request.server_hostname) in self.route.verified

    def is_of_connection(self, error: Exception) -> bool:
        return isinstance(error, OSError) or type(error).__module__.startswith("aiohttp")

    def as_error(self, told: DiscoveryError | Call, error: Exception, use: AiohttpUse | None) -> Exception:
        return as_aiohttp_error(told, self.request, error, self.last_fault)

    def cancelled(self, error: asyncio.CancelledError) -> Exception | None:
        """The timer of `ClientTimeout(total=)` cancels the task. aiohttp says so above, where no attempts are known."""
        timer: Any = self.request._timer
        task = asyncio.current_task()
        if task is None or not getattr(timer, "_cancelled", False):
            return None
        if task.cancelling() - 1 > getattr(timer, "_cancelling", 0):
            return None  # the application has cancelled it as well
        task.uncancel()
        return self._out_of_time(error)

    def _out_of_time(self, error: BaseException) -> DeadlineExceeded:
        use, call = self._use, self.call
        if use is not None and not use.recorded:
            fault, now = Fault.OUT_OF_TIME, self.engine.clock()
            call.report(use.lease.node, fault.label, fault.kind.value, use.lease.started_at, now, "no answer by then")
            if call.observed is not None:
                call.observed.attempt_ended(use.lease, fault.kind.value, fault.label)
        return out_of_time(call, error)


class ConnectionExchange(AiohttpExchange):
    """A connection for a request that comes without our middleware. What becomes of the request is not known here."""

    __slots__ = ()

    is_request = False

    def make_use(self, lease: Lease) -> AiohttpUse:
        return AiohttpUse(lease, False, self)

    def send(self, use: AiohttpUse) -> Awaitable[Any]:
        return self.handler(use)

    def may_hedge(self) -> bool:
        return False

    def answered(self, response: Any, use: AiohttpUse) -> Decision | None:
        use.recorded = True
        return None


def _is_short(response: ClientResponse) -> bool:
    """Is the body such that it can lie in aiohttp's buffer until the application reads it?"""
    headers = response.headers
    length = headers.get(hdrs.CONTENT_LENGTH, "")
    if not length.isdecimal() or len(length) > 5 or hdrs.CONTENT_ENCODING in headers:
        return False
    # A redirect is followed even if its body breaks off.
    return int(length) <= min(SHORT, response.content.get_read_buffer_limits()[1]) and not 300 <= response.status < 400


async def _wait_for_body(response: ClientResponse) -> None:
    """Wait until the body is there. It is left for the application to read.

    A server may send it late, or when the application has acted on the head: then the application waits for it.
    """
    try:
        async with asyncio.timeout(PATIENCE) as limit:
            await response.content.wait_eof()
    except TimeoutError:
        if not limit.expired():
            response.close()
            raise
    except BaseException:  # cancelled too
        response.close()
        raise
