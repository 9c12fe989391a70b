"""One request of a `DiscoveryPoolManager`: the pool of a service, and what is urllib3's own of an exchange."""

from __future__ import annotations

from types import NoneType
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    HostChangedError,
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.poolmanager import PoolKey
from urllib3.response import HTTPResponse
from urllib3.util import Retry, Timeout
from urllib3.util.request import rewind_body, set_file_position

from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import FailureKind
from ecs_discovery.errors import (
    ConfigurationError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    ResolutionTimeout,
)
from ecs_discovery.integrations._urllib3_exchange import PoolExchange, raw_error
from ecs_discovery.integrations._urllib3_pool import PoolUse
from ecs_discovery.integrations._urllib3_routes import PoolRoute
from ecs_discovery.integrations.http.errors import as_class, of_call
from ecs_discovery.runtime import fork

__all__ = ["ANSWERED", "HttpServicePool", "HttpsServicePool", "RetriesEnded", "ServicePool", "class_of"]

ANSWERED = "ecs_discovery_answered"
"""The option of `urlopen` under which an answer is that was given already."""
_REPEATABLE = (bytes, str, NoneType, bytearray, memoryview, list, tuple)


class RetriesEnded(MaxRetryError):
    """`urllib3.exceptions.MaxRetryError` with the attributes of any."""

    reason: Exception | None

    @property
    def pool(self) -> Any:  # type: ignore[override]
        """The service's pool."""
        # Some of the errors that this is combined with have a property of the same name, which warns.
        return self.__dict__.get("pool")


class ServicePool(HTTPConnectionPool):
    """What urllib3's manager keeps for one service of ours: the pools of its endpoints, under the service's name.

    `options` are those of urllib3's pools.
    """

    pinned: Node | None = None
    reads_body = False  # urllib3's own pools do

    def __init__(self, route: PoolRoute, options: dict[str, Any]) -> None:
        super().__init__(route.host, route.port, **options)
        self.route = route
        self.key: PoolKey | None = None
        """What a manager finds it by."""
        self._options = options
        fork.track(self)

    def tls(self) -> object:
        """What distinguishes connections to one endpoint; None without TLS. A pool verifies in one way."""
        return None

    def options(self) -> dict[str, Any]:
        """What the pools of the endpoints are made with."""
        return self._options.copy()

    def urlopen(  # type: ignore[override]
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        retries: Retry | bool | int | None = None,
        redirect: bool = True,
        assert_same_host: bool = True,
        timeout: Any = Timeout.DEFAULT_TIMEOUT,
        **options: Any,
    ) -> HTTPResponse:
        """As urllib3's, but sent to an endpoint of the service, and to others where that is harmless and may help.

        `retries` says how many redirects to follow, and whether to try again at all: with False or 0 the request is
        sent once.
        """
        if options and (answered := options.pop(ANSWERED, None)):
            return answered.pop()  # type: ignore[no-any-return]
        if not isinstance(retries, Retry):
            retries = Retry.from_int(retries, redirect=redirect, default=self.retries)
        if assert_same_host and not self.is_same_host(url):
            raise HostChangedError(self, url, retries)
        if self.pool is None:
            raise ClosedPoolError(self, "Pool is closed.")
        if timeout is Timeout.DEFAULT_TIMEOUT:
            timeout = self.timeout
        if headers is None:
            headers = self.headers
        position = set_file_position(body, options.pop("body_pos", None)) if body is not None or options else None
        kind = _Exchange if _repeats(retries) else _SingleExchange
        response = kind(self, method, url, body, position, headers, timeout, retries, options).run()
        if not redirect or not response.get_redirect_location():
            return response
        if response.status == 303:
            body = position = None  # it is not sent any more: it need not be one that can be
        # A caller without a manager. Where it leads to, and what is not to be sent there, is urllib3's to say.
        options |= {"body_pos": position, ANSWERED: [response]}
        return super().urlopen(  # type: ignore[return-value]
            method, url, body, headers, retries, redirect, assert_same_host, timeout, **options
        )

    def _make_request(self, conn: Any, *args: Any, **options: Any) -> Any:
        answered = options.pop(ANSWERED, None)
        if not answered:
            return super()._make_request(conn, *args, **options)
        if options.get("response_conn") is not None:  # urllib3 leaves it to the response to put it back
            self._put_conn(conn)
        return answered.pop()

    @property
    def num_connections(self) -> int:
        """Connections that were opened to the endpoints that there are now."""
        return sum(each.num_connections for each in self.route.pools)

    @num_connections.setter
    def num_connections(self, value: int) -> None:
        """urllib3 begins to count at 0."""

    @property
    def num_requests(self) -> int:
        """Requests that were sent, or begun, to the endpoints that there are now."""
        return sum(each.num_requests for each in self.route.pools)

    @num_requests.setter
    def num_requests(self, value: int) -> None:
        """urllib3 begins to count at 0."""

    def close(self) -> None:
        """Close the connections; those in use close when they are free. No request may follow."""
        self.route.close()
        super().close()

    def after_fork(self) -> None:
        """In the child of a fork: the connections are the parent's."""
        self.route.forget()


class HttpServicePool(ServicePool):
    """Plain HTTP."""


class HttpsServicePool(ServicePool, HTTPSConnectionPool):
    """TLS."""

    def tls(self) -> object:
        return True


def _repeats(retries: Retry) -> bool:
    """May a request be sent more than once? Redirects that were followed have been taken off the total."""
    total = retries.total
    if total is False or retries.read is False or retries.read == 0:
        return False
    return total is None or total + len(retries.history) > 0


class _Exchange(PoolExchange[ServicePool]):
    """One request over all its attempts."""

    __slots__ = ("_position", "_retries")

    def __init__(
        self,
        pool: ServicePool,
        method: str,
        url: str,
        body: Any,
        position: Any,
        headers: Any,
        timeout: Any,
        retries: Retry,
        options: dict[str, Any],
    ) -> None:
        super().__init__(pool, method, url, body, headers, timeout, options)
        self._position = position
        self._retries = retries

    # The body

    def replayable(self) -> bool:
        return isinstance(self._body, _REPEATABLE) or isinstance(self._position, int)

    def concurrent(self) -> bool:
        return isinstance(self._body, _REPEATABLE)  # two threads would read one file

    def rewind(self) -> None:
        if isinstance(self._position, int):
            rewind_body(self._body, self._position)

    def has_key(self) -> bool:
        return any(name.lower() == "idempotency-key" for name in self._headers)

    # The answer

    def keep(self, response: HTTPResponse, use: PoolUse) -> None:
        if self._variant is not None:
            self.route.verified.add(self._variant)
        response.retries = self._retries
        response.ecs_discovery = use.history  # type: ignore[attr-defined]

    # Errors

    def as_error(self, told: DiscoveryError | Call, error: Exception, use: PoolUse | None) -> Exception:
        pool: Any = self.pool
        made: Any
        outer: tuple[type[Exception], ...] = () if self._retries.total is False else (RetriesEnded,)
        if isinstance(told, DiscoveryError):
            theirs = class_of(told)
            made = as_class(told, *outer, theirs)
            reason: Any = theirs(str(told)) if theirs is LocationValueError else None
            if theirs is ReadTimeoutError:
                reason = ReadTimeoutError(pool, self._url, str(told))
            elif reason is None:
                reason = theirs(pool, str(told))
        else:
            reason = raw_error(error)
            if not isinstance(reason, HTTPError):
                return error
            self.explain(told)
            timed_out = isinstance(reason, ConnectTimeoutError) and not isinstance(reason, NewConnectionError)
            made = of_call(told, self.last_fault, *outer, type(reason), timed_out=timed_out)
            made.__cause__ = reason
        made.__dict__.update(pool=pool, url=self._url, reason=reason)
        if isinstance(reason, NewConnectionError):
            made.conn = reason.conn
        return made  # type: ignore[no-any-return]

    def explain(self, call: Call) -> None:
        """Say why no attempt followed, where the call does not know it."""


class _SingleExchange(_Exchange):
    """A request that is sent once: `retries=False` or 0. Endpoints that it could not be sent to are passed over."""

    __slots__ = ()

    @property
    def idempotent(self) -> bool:
        return False

    @property
    def call(self) -> Call:
        call = super().call
        call.idempotent = False
        return call

    def explain(self, call: Call) -> None:
        if call.failure is not FailureKind.NOT_SENT and call.number:
            call.stop(f"retries={self._retries.total} of the request lets it be sent once")


def class_of(told: DiscoveryError) -> type[HTTPError]:
    """urllib3's class of an error of ours."""
    if isinstance(told, ConfigurationError):
        return LocationValueError
    if isinstance(told, DeadlineExceeded):
        return ReadTimeoutError
    if isinstance(told, (ResolutionTimeout, ConnectTimeout)):
        return ConnectTimeoutError
    return NewConnectionError
