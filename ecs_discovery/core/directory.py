"""The directory: the services of a discovery and the cache behind them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from math import inf
from threading import RLock

from ecs_discovery.config.policies import RetryPolicy, TimeoutPolicy
from ecs_discovery.config.settings import ServiceConfig, Settings
from ecs_discovery.config.targets import Target, parse_target
from ecs_discovery.core.balancing.health_checks import Checks
from ecs_discovery.core.resolution.cache import TtlCache
from ecs_discovery.core.resolution.partial import PartialAnswers
from ecs_discovery.core.resolution.questions import Group, plan
from ecs_discovery.core.resolution.sources import Due
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConfigurationError, NoEndpoints, TargetNotFound
from ecs_discovery.models import Endpoint, Question, Resolution, replace

__all__ = ["Directory"]

_SERVICES = 1000  # services held, unless more are in use: beyond it those go that are not
_MOST = 3000  # services held all the same; beyond it the one that was used longest ago goes
_IN_USE = 300.0  # seconds after its last use that a service counts as in use
_UNKNOWN = 10.0  # the same for one of which there is nothing to lose: it has no endpoints, or was never chosen from
_LOOK = 1.0  # seconds between looks for those to go
_EAGER = 1.0  # seconds: floor on the TTL of partial answers while they still name new endpoints
_NAMES = 4000  # ways of writing them

# Where it is found, its port, the name that certificates are verified for, how it is treated, and the scheme's port.
Key = tuple[tuple[str, ...], int | None, str, ServiceConfig | None, int | None]
Adjust = Callable[[RetryPolicy, TimeoutPolicy], tuple[RetryPolicy, TimeoutPolicy]]


class Directory:
    """Services by what the application calls them. `rng` returns a number in [0, 1).

    `schemes` are those of resolvers besides DNS. `alias` says whether a short name is one of the proxy
    beside the task (ECS Service Connect), which is not completed with the namespace.
    """

    def __init__(
        self,
        settings: Settings,
        rng: Callable[[], float],
        schemes: Collection[str],
        alias: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.settings = settings
        self.cache: TtlCache[Question, Resolution] = TtlCache(settings.cache, rng)
        self.named: dict[str, Service] = {}
        """Services by how they were asked for, without a default port. Read without the lock; replaced at times."""
        self._named_with_port: dict[tuple[str, int], Service] = {}
        """The same, by target and default port."""
        self._rng = rng
        self._schemes = schemes
        self._alias = alias
        self._adjust: Adjust | None = None
        self._services: dict[Key, Service] = {}
        self._made: dict[Key, float] = {}  # when
        self._leaving: list[tuple[float, Key]] = []  # those to go, the first of them last, and when each may
        self._look = -inf  # when to look for those again
        self._looked_full = False  # was the second bound reached at the last look?
        self._dependents: dict[Question, tuple[Service, ...]] = {}
        self._zone: str | None = None
        self._partials: OrderedDict[Question, PartialAnswers] = OrderedDict()
        self._lock = RLock()
        for name, _ in settings.services:  # a wrong declaration is told at construction, not at first use
            parsed = parse_target(name)
            self._groups(self._parts(parsed)[0], parsed.port, None)

    def __repr__(self) -> str:
        return f"<Directory {len(self._services)} services, {self.cache!r}>"

    def service(self, target: str, default_port: int | None, now: float) -> Service:
        """The service of a target. `default_port` is used where neither the target nor an SRV record gives one.

        Raises `ConfigurationError` for what is no target.
        """
        found = self.named.get(target) if default_port is None else self._named_with_port.get((target, default_port))
        return found if found is not None else self._find(target, default_port, now)

    def known(self, target: str, now: float) -> Service:
        """The service of a target as it is in use: with whatever scheme's port, if it was not given one."""
        service = self.service(target, None, now)
        parsed = parse_target(target)
        if parsed.port is None and not service.used:
            key = self._key(parsed, *self._parts(parsed), None)
            with self._lock:
                for other, twin in self._services.items():
                    known = twin.resolution is not None and (twin.used or service.resolution is None)
                    if other[:-1] == key[:-1] and known:
                        return twin
        return service

    def services(self) -> tuple[Service, ...]:
        """Every service there is."""
        with self._lock:
            return tuple(self._services.values())

    def dependents(self, question: Question) -> tuple[Service, ...]:
        """The services that an answer to `question` matters to."""
        return self._dependents.get(question, ())

    def age(self, service: Service, now: float) -> float | None:
        """Seconds since the oldest answer came that the service relies on; None if no resolver was asked."""
        ages = [self.cache.age(question, now) for question in service.wanted()]
        return max((age for age in ages if age is not None), default=None)

    def due(self, service: Service, now: float, *, waited: Collection[Question] = (), claim: float = 0.0) -> Due:
        """Bring the service up to date with the cache and say what is to be asked.

        `waited` are questions that were asked just now: what is known of them has to do. `claim` is
        how long a caller that is told to ask a question has to report.
        """
        due = self._judged(service, now, waited, claim)
        if due.again:  # the kind of record it had is gone: look at the others
            due = self._judged(service, now, waited, claim)
        return due

    def _judged(self, service: Service, now: float, waited: Collection[Question], claim: float) -> Due:
        looks = {
            question: self.cache.lookup(question, now, 0.0 if question in waited else claim)
            for question in service.wanted()
        }
        return service.judge(looks, now, waited=waited)

    def store(self, question: Question, outcome: Resolution | Exception, now: float) -> None:
        """Take over the outcome of a lookup; answers of DNS, which may be partial, joined with earlier ones."""
        if isinstance(outcome, Resolution) and outcome.source != "dns":
            self.cache.store(question, outcome, outcome.ttl, now)
        elif isinstance(outcome, Resolution):
            with self._lock:
                joining = self._partials.get(question)
                if joining is None:
                    if len(self._partials) >= _MOST:
                        self._partials.popitem(last=False)
                    joining = self._partials[question] = PartialAnswers()
                self._partials.move_to_end(question)
                joined = joining.add(outcome, now)
                floor = _EAGER if joining.growing else inf
            self.cache.store(question, joined, outcome.ttl, now, floor=floor)
        elif isinstance(outcome, (TargetNotFound, NoEndpoints)):
            with self._lock:
                self._partials.pop(question, None)
            self.cache.store_negative(question, outcome, outcome.ttl, now)
        else:
            self.cache.store_failure(question, outcome, now)

    def locate(self, zone: str | None, now: float) -> None:
        """The process runs in this zone; None if that cannot be told."""
        self._zone = zone
        for service in self.services():
            service.locate(zone, now)

    def start_over(self, now: float) -> None:
        """Forget every answer and all that was learnt of endpoints."""
        self.cache.clear()
        with self._lock:
            self._partials.clear()
        for service in self.services():
            service.start_over(now)

    def treat(self, adjust: Adjust | None) -> None:
        """Every service has what `adjust` makes of its policies, now and when others come; with None as declared."""
        with self._lock:
            self._adjust = adjust
            for (_, _, _, config, _), service in self._services.items():
                service.retry, service.timeout = self._policies(config)

    def reset_locks(self) -> None:
        """Fresh locks, for the child of a fork."""
        self._lock = RLock()
        self.cache.reset_lock()
        for service in self._services.values():
            service.reset_lock()

    def _find(self, target: str, default_port: int | None, now: float) -> Service:
        parsed = parse_target(target)
        sources, config = self._parts(parsed)
        key = self._key(parsed, sources, config, default_port)
        with self._lock:
            service = self._services.get(key)
            if service is None:
                service = self._make(target, parsed, sources, config, default_port, now)
                if len(self._services) >= _SERVICES:
                    self._make_room_locked(now)
                self._services[key] = service
                self._made[key] = now
                for question in service.questions:
                    self._dependents[question] = (*self._dependents.get(question, ()), service)
            if default_port is None:
                if len(self.named) >= _NAMES:
                    self.named = {}
                self.named[target] = service
            else:
                if len(self._named_with_port) >= _NAMES:
                    self._named_with_port = {}
                self._named_with_port[target, default_port] = service
            return service

    def _key(
        self, parsed: Target, sources: tuple[Target, ...], config: ServiceConfig | None, default_port: int | None
    ) -> Key:
        return (
            tuple(f"{source.scheme}://{source.name}?{source.query}:{source.port}" for source in sources),
            parsed.port,
            self._qualified(parsed),
            config,
            None if parsed.port else default_port,
        )

    def _qualified(self, parsed: Target) -> str:
        """The fully qualified name that a target is known by; "" where it has no name."""
        if parsed.scheme == "cloudmap":
            namespace, _, service = parsed.name.rpartition("/")
            return f"{service}.{namespace}"  # what DNS would call it
        return self.settings.qualified(parsed.name) if parsed.scheme in ("auto", "dns", "srv") else ""

    def _parts(self, parsed: Target) -> tuple[tuple[Target, ...], ServiceConfig | None]:
        """A target's sources in full, and how its service was declared."""
        settings = self.settings
        config = None
        if parsed.scheme == "auto":
            names = (parsed.name, settings.short(parsed.name), settings.qualified(parsed.name))
            config = next((found for found in map(settings.config, names) if found is not None), None)
        row = config.targets if config is not None else (parsed,)
        sources = []
        for source in row:
            if source.scheme in ("auto", "dns", "srv"):
                short = source.scheme == "auto" and "." not in source.name and self._alias(source.name)
                name = source.name if short else settings.qualified(source.name)
                source = Target(source.scheme, name, source.port)
            elif source.scheme == "cloudmap":
                port = source.port or parsed.port or settings.cloud_map.default_port
                source = replace(source, port=port)
            sources.append(source)
        return tuple(sources), config

    def _groups(self, sources: tuple[Target, ...], port: int | None, default_port: int | None) -> tuple[Group, ...]:
        """What is asked for these sources. Raises `ConfigurationError` for a scheme that no resolver has."""
        families = self.settings.dns.families
        return plan(sources, port=port, default_port=default_port, families=families, schemes=self._schemes)

    def _make(
        self,
        text: str,
        parsed: Target,
        sources: tuple[Target, ...],
        config: ServiceConfig | None,
        default_port: int | None,
        now: float,
    ) -> Service:
        settings = self.settings
        # Addresses alone need no lookup; in a row with other sources they are one of the answers.
        only_static = all(source.scheme == "static" for source in sources)
        static: tuple[Endpoint, ...] = sources[0].addresses if only_static else ()
        groups = self._groups(sources, parsed.port, default_port)
        hint = None
        short = parsed.scheme == "auto" and "." not in parsed.name
        if settings.disabled:
            port = parsed.port or default_port
            if not static and port is None:
                raise ConfigurationError("target", text, "a name with a port while ECS_DISCOVERY_DISABLED is set")
            static = static or (Endpoint(parsed.name, port or 0),)
            groups = ()
        elif short and not (config or settings.namespace):
            hint = (
                "no namespace is set, so the short name was asked for as it is: "
                "set namespace='prod.local' or ECS_DISCOVERY_NAMESPACE"
            )
        elif (
            groups
            and all(group.port is None for group in groups)
            and {source.scheme for source in sources} <= {"auto", "dns"}
        ):
            hint = f"without an SRV record the port must be given: '{text}:8080'"
        if static:
            groups = ()
        qualified = self._qualified(parsed)
        retry, timeout = self._policies(config)
        return Service(
            text,
            groups,
            static,
            balancing=(config and config.balancing) or settings.balancing,
            outlier=(config and config.outlier) or settings.outlier,
            retry=retry,
            timeout=timeout,
            zone=(config and config.zone) or settings.zone,
            own_zone=self._zone,
            hedge=(config and config.hedge) or settings.hedge,
            checks=self._checks(config, qualified, parsed.port),
            tls_name=(config and config.tls_name) or qualified,
            hint=hint,
            rng=self._rng,
            now=now,
        )

    def _policies(self, config: ServiceConfig | None) -> tuple[RetryPolicy, TimeoutPolicy]:
        """How calls of a service are treated that was declared so."""
        retry = (config and config.retry) or self.settings.retry
        timeout = (config and config.timeout) or self.settings.timeout
        return (retry, timeout) if self._adjust is None else self._adjust(retry, timeout)

    def _checks(self, config: ServiceConfig | None, name: str, port: int | None) -> Checks | None:
        if self.settings.disabled:
            return None
        policy = (config and config.health_check) or self.settings.health_check
        return Checks(policy, f"{name}:{port}" if name and port not in (None, 80) else name, self._rng)

    def _make_room_locked(self, now: float) -> None:
        """Drop those that are not in use, two at most, so that many newcomers bring the number down to its bound.

        If all are in use, none, up to a second bound: there the one goes that was used longest ago. A service with
        uses in flight stays in any case.
        """
        full = len(self._services) >= _MOST
        if now >= self._look or not self._leaving or (full and not self._looked_full):
            self._look = now + _LOOK
            self._looked_full = full
            found = ((self._may_go_locked(key), key) for key in self._services)
            # Not all of them: services that come after this look may have to go before the last of these.
            soonest = sorted((each for each in found if each[0] < inf), key=lambda each: each[0])
            self._leaving = soonest[: max(1, (_MOST - _SERVICES) // 2)][::-1]
        dropped = 0
        while self._leaving and dropped < 2 and len(self._services) >= _SERVICES:
            due, key = self._leaving[-1]
            if now < due and len(self._services) < _MOST:
                return
            self._leaving.pop()
            if key in self._services and self._may_go_locked(key) == due:  # else it was used since the look
                self._drop_locked(key)
                dropped += 1

    def _may_go_locked(self, key: Key) -> float:
        """From when on it is not in use; inf while uses are in flight. What is used is refreshed; addresses never."""
        service = self._services[key]
        nodes = service.nodes
        if any(node.pending for node in nodes):
            return inf
        used = max(self._made[key], service.used_at, service.refresh_at if service.refresh_at < inf else -inf)
        return used + (_IN_USE if nodes and (service.questions or service.used) else _UNKNOWN)

    def _drop_locked(self, key: Key) -> None:
        service = self._services.pop(key)
        del self._made[key]
        self.named = {name: other for name, other in self.named.items() if other is not service}
        self._named_with_port = {name: other for name, other in self._named_with_port.items() if other is not service}
        for question in service.questions:
            left = tuple(other for other in self._dependents.get(question, ()) if other is not service)
            if left:
                self._dependents[question] = left
            else:
                self._dependents.pop(question, None)
