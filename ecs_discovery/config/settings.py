"""Settings: everything a discovery is made from, as one frozen value.

Equal settings share one default discovery; a wrapped session pickles by them. What the environment
says is read once, when settings are made, and checked there.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ecs_discovery.config.fields import is_tenacity, variables
from ecs_discovery.config.policies import (
    BalancingPolicy,
    CachePolicy,
    CloudMapPolicy,
    ConnectionPolicy,
    DnsPolicy,
    HealthCheckPolicy,
    HedgePolicy,
    OutlierPolicy,
    RetryPolicy,
    TimeoutPolicy,
    ZonePolicy,
    from_environment,
)
from ecs_discovery.config.targets import Target, check_name, is_address, parse_target
from ecs_discovery.errors import ConfigurationError, unknown_setting
from ecs_discovery.models import Value, replace

if TYPE_CHECKING:
    from tenacity import BaseRetrying as Retrying

__all__ = ["Policies", "ServiceConfig", "Settings", "disabled", "inspection_directory"]

_POLICIES: dict[str, type[Any]] = {
    "cache": CachePolicy,
    "dns": DnsPolicy,
    "cloud_map": CloudMapPolicy,
    "balancing": BalancingPolicy,
    "outlier": OutlierPolicy,
    "retry": RetryPolicy,
    "timeout": TimeoutPolicy,
    "connection": ConnectionPolicy,
    "zone": ZonePolicy,
    "hedge": HedgePolicy,
    "health_check": HealthCheckPolicy,
}

_EXAMPLES = {
    "cache": "max_ttl=30",
    "dns": "timeout=2",
    "cloud_map": "poll=10",
    "balancing": "picker='round_robin'",
    "outlier": "consecutive_failures=3",
    "retry": "attempts=2",
    "timeout": "connect=5",
    "connection": "race_limit=2",
    "zone": "prefer=True",
    "hedge": "enabled=True",
    "health_check": "kind='tcp'",
}

_PREFIX = "ECS_DISCOVERY_"
_VARIABLES = frozenset(
    _PREFIX + name for name in ("NAMESPACE", "NAMESERVERS", "SERVICES", "DISABLED", "INSPECT", "INSTALL")
).union(*map(variables, _POLICIES.values()))


class Policies(TypedDict, total=False):
    """The policies of a discovery, by name."""

    cache: CachePolicy | None
    dns: DnsPolicy | None
    cloud_map: CloudMapPolicy | None
    balancing: BalancingPolicy | None
    outlier: OutlierPolicy | None
    retry: RetryPolicy | Retrying | None
    timeout: TimeoutPolicy | None
    connection: ConnectionPolicy | None
    zone: ZonePolicy | None
    hedge: HedgePolicy | None
    health_check: HealthCheckPolicy | None


class ServiceConfig(Value):
    """Where one service is found and how it is treated.

    `sources` is a target or a row of them: `srv://…`, `dns://…`, `cloudmap://…`, `static://…` or a plain name. When
    one fails or has no such name, the next is asked. `tls_name` is the name in its certificate, if that is not its
    fully qualified name. Policies given here replace the discovery's for this service.
    Raises `ConfigurationError` for a source that is no target.
    """

    sources: tuple[str, ...]
    tls_name: str | None = None
    balancing: BalancingPolicy | None = None
    outlier: OutlierPolicy | None = None
    retry: RetryPolicy | None = None
    timeout: TimeoutPolicy | None = None
    zone: ZonePolicy | None = None
    hedge: HedgePolicy | None = None
    health_check: HealthCheckPolicy | None = None

    def __init__(
        self,
        sources: str | Sequence[str],
        *,
        tls_name: str | None = None,
        balancing: BalancingPolicy | None = None,
        outlier: OutlierPolicy | None = None,
        retry: RetryPolicy | Retrying | None = None,
        timeout: TimeoutPolicy | None = None,
        zone: ZonePolicy | None = None,
        hedge: HedgePolicy | None = None,
        health_check: HealthCheckPolicy | None = None,
    ) -> None:
        if not isinstance(sources, (str, list, tuple)):
            raise ConfigurationError(
                "ServiceConfig.sources", sources, "a target such as 'srv://orders', or a list of targets"
            )
        row = (sources,) if isinstance(sources, str) else tuple(sources)
        if not row:
            raise ConfigurationError("ServiceConfig.sources", sources, "at least one target")
        for source in row:
            parse_target(source)
        set_ = object.__setattr__
        set_(self, "sources", row)
        set_(self, "tls_name", None if tls_name is None else check_name("ServiceConfig.tls_name", tls_name))
        for name, kind, value in (
            ("balancing", BalancingPolicy, balancing),
            ("outlier", OutlierPolicy, outlier),
            ("retry", RetryPolicy, RetryPolicy(tenacity=retry) if is_tenacity(retry) else retry),
            ("timeout", TimeoutPolicy, timeout),
            ("zone", ZonePolicy, zone),
            ("hedge", HedgePolicy, hedge),
            ("health_check", HealthCheckPolicy, health_check),
        ):
            if value is not None and not isinstance(value, kind):
                raise ConfigurationError(f"ServiceConfig.{name}", value, f"a {kind.__name__} or None: {_example(name)}")
            set_(self, name, value)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The sources, taken apart."""
        return tuple(map(parse_target, self.sources))


class Settings(Value):
    """All that distinguishes one discovery from another. Make them with `Settings.make`."""

    namespace: str | None
    services: tuple[tuple[str, ServiceConfig], ...]
    cache: CachePolicy
    dns: DnsPolicy
    cloud_map: CloudMapPolicy
    balancing: BalancingPolicy
    outlier: OutlierPolicy
    retry: RetryPolicy
    timeout: TimeoutPolicy
    connection: ConnectionPolicy
    zone: ZonePolicy
    hedge: HedgePolicy
    health_check: HealthCheckPolicy
    disabled: bool = False

    @classmethod
    def make(
        cls,
        *,
        namespace: str | None = None,
        services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
        nameservers: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        ready: Settings | None = None,
        **policies: Unpack[Policies],
    ) -> Settings:
        """Settings from arguments, then from `ECS_DISCOVERY_…` variables, then defaults; or `ready` settings, alone.

        Only `ECS_DISCOVERY_SERVICES` goes before the arguments: it redirects a service for local work.
        Raises `ConfigurationError` naming the field or variable, and warns of variables that mean nothing.
        """
        if ready is not None:
            if any(value is not None for value in (namespace, services, nameservers, *policies.values())):
                raise ConfigurationError("settings", ready, "Settings, and then no namespace, services or policies")
            return ready
        env = os.environ if environ is None else environ
        for variable in [each for each in env if each.startswith(_PREFIX) and each not in _VARIABLES]:
            _warn_of(variable)
        field_name = "namespace"
        if namespace is None and env.get("ECS_DISCOVERY_NAMESPACE"):
            namespace, field_name = env["ECS_DISCOVERY_NAMESPACE"], "ECS_DISCOVERY_NAMESPACE"
        chosen: dict[str, Any] = {}
        named: dict[str, Any] = {**policies}
        for name, kind in _POLICIES.items():
            given = named.pop(name, None)
            if kind is RetryPolicy and is_tenacity(given):
                given = replace(from_environment(RetryPolicy, env), tenacity=given)
            if given is not None and not isinstance(given, kind):
                raise ConfigurationError(name, given, f"a {kind.__name__}: {_example(name)}")
            chosen[name] = given if given is not None else from_environment(kind, env)
        if named:
            name, value = next(iter(named.items()))
            raise unknown_setting(name, value, ("namespace", "services", "nameservers", *_POLICIES))
        if isinstance(nameservers, str):
            raise ConfigurationError("nameservers", nameservers, "a list of them: ['10.0.0.2', '127.0.0.1:5353']")
        servers, source, written = nameservers, "nameservers", nameservers
        if servers is None and not chosen["dns"].nameservers and env.get("ECS_DISCOVERY_NAMESERVERS"):
            source = "ECS_DISCOVERY_NAMESERVERS"
            written = env[source]
            servers = [item.strip() for item in written.split(",") if item.strip()]
        if servers is not None:
            try:
                chosen["dns"] = replace(chosen["dns"], nameservers=tuple(servers))
            except (ConfigurationError, TypeError) as error:
                allowed = error.allowed if isinstance(error, ConfigurationError) else "a list of them: ['10.0.0.2']"
                raise ConfigurationError(source, written, allowed) from None
        return cls(
            namespace=None if namespace is None else check_name(field_name, namespace),
            services=_services(services or {}, env),
            disabled=disabled(env),
            **chosen,
        )

    def check_for_threads(self) -> None:
        """Raises `ConfigurationError` for what only asyncio can use."""
        for policy in (self.retry, *(config.retry for _, config in self.services)):
            if policy is None or policy.tenacity is None:
                continue
            from inspect import iscoroutinefunction  # not before it is needed

            if iscoroutinefunction(getattr(policy.tenacity, "iter", None)):
                raise ConfigurationError(
                    "retry", policy.tenacity, "a tenacity.Retrying: an AsyncRetrying is for AsyncDiscovery"
                )

    def config(self, name: str) -> ServiceConfig | None:
        """The declared service of this name, or None."""
        return dict(self.services).get(name)

    def qualified(self, name: str) -> str:
        """A short name with the namespace, any other as it is."""
        return f"{name}.{self.namespace}" if self.namespace and "." not in name else name

    def short(self, name: str) -> str:
        """A name in the namespace without it, any other as it is."""
        return name.removesuffix(f".{self.namespace}") if self.namespace else name

    def owns(self, host: str) -> bool:
        """Does the discovery handle this host of a URL?

        A declared service, a name in the namespace (on a label boundary) or, with a namespace set,
        a single label other than `localhost`. Never an IP literal.
        """
        name = host.removesuffix(".").lower()
        if is_address(name):
            return False
        if any(name in (declared, self.qualified(declared)) for declared, _ in self.services):
            return True
        if self.namespace is None:
            return False
        return name.endswith(f".{self.namespace}") or ("." not in name and name not in ("", "localhost"))

    def may_own(self, beginning: str) -> bool:
        """Can a handled host begin like this?"""
        begun = beginning.lower()
        names = [each for declared, _ in self.services for each in (declared, self.qualified(declared))]
        if self.owns(begun) or any(name.startswith(begun) for name in names):
            return True
        end = f".{self.namespace}" if self.namespace else ""
        return any(end.startswith(begun[at:]) for at in range(len(begun)) if begun[at] == ".") if end else False


def _example(name: str) -> str:
    """A policy as it is written, for messages."""
    return f"{_POLICIES[name].__name__}({_EXAMPLES[name]})"


def _warn_of(variable: str) -> None:
    """A warning and no error: it may be that of another version of this library."""
    from difflib import get_close_matches

    close = get_close_matches(variable, _VARIABLES, n=1, cutoff=0.8)
    meant = f"; is {close[0]} meant?" if close else ""
    warnings.warn(f"the environment variable {variable} means nothing to ecs_discovery{meant}", stacklevel=4)


def disabled(environ: Mapping[str, str] | None = None) -> bool:
    """Does `ECS_DISCOVERY_DISABLED` turn everything off? Raises `ConfigurationError` for a value not understood."""
    text = (os.environ if environ is None else environ).get("ECS_DISCOVERY_DISABLED", "").strip().lower()
    if text in ("", "0", "false", "no", "off"):
        return False
    if text in ("1", "true", "yes", "on"):
        return True
    raise ConfigurationError("ECS_DISCOVERY_DISABLED", text, "1, true, yes, on, 0, false, no or off")


def inspection_directory(environ: Mapping[str, str] | None = None) -> str | None:
    """Where `ECS_DISCOVERY_INSPECT` opens the process to `ecs-discovery watch`: the path of a directory, "" for the
    usual one, None for nowhere. It is a setting of the process and of no discovery.

    Raises `ConfigurationError` for a value not understood.
    """
    text = (os.environ if environ is None else environ).get("ECS_DISCOVERY_INSPECT")
    if text is None:
        return None
    text = text.strip()
    if text.lower() in ("", "0", "false", "no", "off"):
        return None
    if text.lower() in ("1", "true", "yes", "on"):
        return ""
    if text.startswith("/") and "\0" not in text:
        return text
    raise ConfigurationError("ECS_DISCOVERY_INSPECT", text, "1, 0, or the absolute path of a directory for sockets")


def _services(
    given: Mapping[str, str | Sequence[str] | ServiceConfig], environ: Mapping[str, str]
) -> tuple[tuple[str, ServiceConfig], ...]:
    if not isinstance(given, Mapping):
        raise ConfigurationError("services", given, "a mapping of service name to target or ServiceConfig")
    found: dict[str, ServiceConfig] = {}
    for name, value in given.items():
        if not isinstance(value, (str, list, tuple, ServiceConfig)):
            raise ConfigurationError(
                f"services[{name!r}]", value, "a target such as 'srv://orders', or a ServiceConfig"
            )
        config = value if isinstance(value, ServiceConfig) else ServiceConfig(value)
        found[check_name("services", name)] = config
    for item in environ.get("ECS_DISCOVERY_SERVICES", "").replace("\n", ";").split(";"):
        name, equals, target = item.partition("=")
        if not item.strip():
            continue
        if not equals:
            raise ConfigurationError(
                "ECS_DISCOVERY_SERVICES", item, "name=target, several separated by ';' (a target may hold commas)"
            )
        plain = check_name("ECS_DISCOVERY_SERVICES", name.strip())
        old = found.get(plain)
        try:
            found[plain] = ServiceConfig(target.strip(), tls_name=old.tls_name if old else None)
        except ConfigurationError as error:
            more = " (separate services with ';')" if "," in target and "=" in target else ""
            raise ConfigurationError("ECS_DISCOVERY_SERVICES", item.strip(), f"{error.allowed}{more}") from error
    return tuple(sorted(found.items()))
