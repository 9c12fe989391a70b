"""requests: `wrap_session` puts the choice of an endpoint below the session's own adapters.

Each mounted `HTTPAdapter` is replaced by an object of its own class that shares its state. Only the
place where it gets a connection pool is ours. So the adapter's methods see every request once, and
what they answer or wait for touches no endpoint. The URL stays as it is written.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack
from weakref import ref

from ecs_discovery.integrations._libraries import needs, served_by

with needs("requests"):
    import requests
    from requests.sessions import merge_setting

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.settings import Policies, ServiceConfig
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.events import Event
from ecs_discovery.integrations._requests_adapters import Adapters, DiscoveryAdapter
from ecs_discovery.integrations._settings import choose
from ecs_discovery.integrations._urllib3_exchange import check_urllib3
from ecs_discovery.resolvers.base import Resolver

__all__ = ["DiscoveryAdapter", "unwrap_session", "wrap_session"]


def wrap_session(
    session: requests.Session,
    discovery: Discovery | None = None,
    *,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    resolvers: Mapping[str, Resolver] | None = None,
    on_event: Callable[[Event], object] | None = None,
    **policies: Unpack[Policies],
) -> requests.Session:
    """Make `session` find services by itself: in place, and returned for convenience.

    The arguments are the same as for `Discovery`; `discovery` takes the place of all of them. Sessions with equal
    settings share one default discovery. With `resolvers` or `on_event` the session has a discovery of its own.
    Adapters that are mounted, now or later, keep their class and settings, and serve our hosts too. Hosts that the
    discovery does not handle are untouched. Wrapping again replaces the discovery; with nothing given it changes
    nothing. With `ECS_DISCOVERY_DISABLED=1` the session stays as it is.

    Raises `ConfigurationError` for settings that cannot be used, and when there is neither a namespace nor a service.
    """
    if not isinstance(session, requests.Session):
        raise ConfigurationError("session", session, f"a requests.Session; {served_by(session, 'wrap_session')}")
    check_urllib3()
    given: dict[str, Any] = {"namespace": namespace, "services": services, "nameservers": nameservers, **policies}
    given |= {"resolvers": resolvers, "on_event": on_event}
    already = isinstance(session.adapters, Adapters)
    if already and discovery is None and not any(value is not None for value in given.values()):
        return session
    chosen = choose(Discovery, discovery, given)
    if chosen is None:
        return session
    if already:
        unwrap_session(session)
    plain = session.adapters
    adapters = session.adapters = Adapters(chosen.settings, chosen.discovery)
    for prefix, adapter in plain.items():
        adapters[prefix] = adapter
    _merge_in_place(session, adapters)
    return session


def unwrap_session(session: requests.Session) -> requests.Session:
    """Undo `wrap_session`. Does nothing to a session that is not wrapped."""
    wrapped = session.adapters
    if isinstance(wrapped, Adapters):
        vars(session).pop("merge_environment_settings", None)
        session.adapters = OrderedDict()
        for prefix, adapter in wrapped.items():
            if isinstance(adapter, DiscoveryAdapter):
                adapter.close_pools()
                adapter = adapter.original
            session.adapters[prefix] = adapter
    return session


_MERGE = requests.Session.merge_environment_settings
_merged: Any = merge_setting


def _merge_in_place(session: requests.Session, adapters: Adapters) -> None:
    """Spare requests to our hosts the search for proxies in the environment.

    They are never sent to a proxy, and the search takes a fifth of the instructions of a plain request. A copy or a
    pickled session goes without.

    A session's class that has a method of its own for it keeps that.
    """
    here = ref(session)

    def merge(url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        there: Any = here()
        theirs = type(there).merge_environment_settings
        if theirs is not _MERGE or there.adapters is not adapters or not adapters.own(url):
            return theirs(there, url, proxies, stream, verify, cert)
        if there.trust_env and (verify is True or verify is None):
            verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or verify
        # As requests' `merge_setting`, which takes its time over what is no mapping.
        return {
            "proxies": _merged(proxies, there.proxies) if proxies or there.proxies else {},
            "stream": there.stream if stream is None else stream,
            "verify": there.verify if verify is None else verify,
            "cert": there.cert if cert is None else cert,
        }

    if type(session).merge_environment_settings is _MERGE:
        vars(session)["merge_environment_settings"] = merge
