"""`wrap_client` and `unwrap_client`, for the clients of httpx and httpx2, in threads and in asyncio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.settings import Policies, ServiceConfig
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.events import Event
from ecs_discovery.integrations._httpx.library import Library, check_library, is_installed, not_a_client
from ecs_discovery.integrations._httpx.options import options_of
from ecs_discovery.integrations._settings import choose
from ecs_discovery.resolvers.base import AsyncResolver, Resolver
from ecs_discovery.runtime import fork

if TYPE_CHECKING:
    from ecs_discovery.client.aio.discovery import AsyncDiscovery

__all__ = ["is_installed", "unwrap_client", "wrap_client"]

C = TypeVar("C")
_OFFLINE = frozenset({"MockTransport", "ASGITransport", "WSGITransport"})
_HINT = "a client with httpx's own transport; give DiscoveryTransport to the transport that you have, as the one inside"


def wrap_client(
    client: C,
    discovery: Discovery | AsyncDiscovery | None = None,
    *,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    resolvers: Mapping[str, AsyncResolver | Resolver] | None = None,
    on_event: Callable[[Event], object] | None = None,
    **policies: Unpack[Policies],
) -> C:
    """Make a `Client` or `AsyncClient` of httpx or httpx2 find services by itself: in place, and returned.

    The arguments are the same as for `Discovery`; `discovery` takes the place of all of them. An `AsyncClient` takes an
    `AsyncDiscovery`, or a `Discovery` whose state it then shares. Clients with equal settings share one default
    discovery, also with wrapped sessions. With `resolvers` or `on_event` the client has a discovery of its own. Hosts
    that the discovery does not handle go through the client's own transports, proxies included. Transports that send
    nothing (`MockTransport`, `ASGITransport`, `WSGITransport`) stay as they are. Wrapping again replaces the discovery;
    with nothing given it changes nothing. With `ECS_DISCOVERY_DISABLED=1` the client stays as it is.

    Raises `ConfigurationError` for settings that cannot be used, and when there is neither a namespace nor a service.
    Raises it too for a client with a transport of another library: put a `DiscoveryTransport` inside that transport.
    """
    library = check_library(client)
    given = {
        "namespace": namespace,
        "services": services,
        "nameservers": nameservers,
        "resolvers": resolvers,
        "on_event": on_event,
        **policies,
    }
    made: Any = client
    already = hasattr(made._transport, "unwrapped")
    if already and discovery is None and all(value is None for value in given.values()):
        return client
    wrap = _wrapper(library, made, discovery, given)
    if wrap is None:
        return client
    transports = {None: made._transport, **made._mounts}
    plain = {pattern: getattr(each, "original", each) if already else each for pattern, each in transports.items()}
    wrapped = {pattern: None if each is None else wrap(each) for pattern, each in plain.items()}
    if already:
        unwrap_client(made)
    made._transport = wrapped.pop(None)
    made._mounts.update(wrapped)
    return client


def unwrap_client(client: C) -> C:
    """Undo `wrap_client`. Does nothing to a client that is not wrapped.

    The connections to our endpoints close when they are free.
    """
    check_library(client)
    made: Any = client
    if hasattr(made._transport, "unwrapped"):
        made._transport = made._transport.unwrapped()
    for pattern, each in made._mounts.items():
        if hasattr(each, "unwrapped"):
            made._mounts[pattern] = each.unwrapped()
    return client


def _wrapper(library: Library, client: Any, discovery: Any, given: dict[str, Any]) -> Callable[[Any], Any] | None:
    """What makes our transport of one of the client's; None if discovery is switched off."""
    kind: Any = Discovery
    if isinstance(client, library.client.AsyncClient):  # a program of threads does without asyncio
        kind = fork.load("ecs_discovery.client.aio.discovery").AsyncDiscovery
        transport = fork.load("ecs_discovery.integrations._httpx.aio.transport").transport_class(library)
        if isinstance(discovery, Discovery):
            discovery = kind(share=discovery)
    elif isinstance(client, library.client.Client):
        transport = fork.load("ecs_discovery.integrations._httpx.sync.transport").transport_class(library)
    else:
        raise not_a_client(client)
    chosen = choose(kind, discovery, given)
    if chosen is None:
        return None

    def wrap(original: Any) -> Any:
        if type(original).__name__ in _OFFLINE:
            return original
        if options_of(original) is None:
            raise ConfigurationError("client", original, _HINT)
        return transport(library, chosen.settings, chosen.discovery, original)

    return wrap
