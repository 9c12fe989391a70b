"""A stub: names and their addresses, for tests that send no DNS query."""

from __future__ import annotations

from collections.abc import Sequence

from ecs_discovery.client.engine import engines
from ecs_discovery.config.targets import check_name, is_address, parse_target
from ecs_discovery.errors import NoEndpoints, TargetNotFound
from ecs_discovery.integrations.http import origins
from ecs_discovery.models import Endpoint, Question, Resolution
from ecs_discovery.resolvers import registry

__all__ = ["NotStubbed", "Stub"]


class NotStubbed(AssertionError):
    """The application asked for a name that the test has not stubbed."""


class Stub:
    """Stands in for DNS and Cloud Map of the whole process, for sessions and clients too that were wrapped before.

    A context manager; `close()` ends it too. When it begins, and when it ends, every discovery forgets what it knew.
    """

    def __init__(self, *, ttl: float = 10.0) -> None:
        self.ttl = ttl
        """Seconds that an answer holds."""
        self.asked: list[str] = []
        """The short names that the application asked for, each once, in that order. Mocked requests count."""
        self.missing: list[str] = []
        """The names in `asked` that were not stubbed."""
        self._services: dict[str, tuple[Endpoint, ...]] = {}
        registry.standing_in.append(self)  # first: a lookup that begins after this is answered here
        origins.listening.append(self._seen)
        self._start_over()

    def __repr__(self) -> str:
        return f"<Stub {sorted(self._services)}>"

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def services(self) -> dict[str, str]:
        """The names as `services=` of a `Discovery` takes them, for a discovery without a namespace."""
        return {name: f"srv://{name}" for name in self._services}

    def service(self, name: str, addresses: Sequence[str]) -> None:
        """From now on `name` is found at these addresses, such as `10.0.0.1:8080`; with none it has no tasks.

        A short name stands for that name in every namespace. Given again, what was known of all services is forgotten,
        health included. To have health outlive a change, use a clock and let the TTL end. Raises
        `ConfigurationError` for what is no name or no address.
        """
        known = name in self._services
        self.update(name, addresses)
        if known:
            self._start_over()

    def update(self, name: str, addresses: Sequence[str]) -> None:
        """The same, seen when the TTL of the last answer ends: nothing is forgotten."""
        found = tuple(each for address in addresses for each in parse_target(f"static://{address}").addresses)
        self._services[check_name("service", name)] = found

    def resolve(self, question: Question, timeout: float) -> Resolution:
        """As a resolver: IPv4 for `a`, IPv6 for `aaaa`, all of them for other kinds."""
        name = self._name(question)
        self._note(name)
        found = self._services.get(name)
        if found is None:
            raise TargetNotFound(_advice(name), target=str(question))
        if question.scheme in ("a", "aaaa"):
            found = tuple(each for each in found if (":" in each.host) is (question.scheme == "aaaa"))
        if not found:
            raise NoEndpoints("stubbed without such an address", target=str(question))
        return Resolution(found, self.ttl, "stub")

    def check(self) -> None:
        """Raise `NotStubbed`, by name, if a name was asked for that was not stubbed."""
        if self.missing:
            raise NotStubbed("; ".join(map(_advice, self.missing)))

    def close(self) -> None:
        """End it. Twice is once."""
        if self not in registry.standing_in:
            return
        registry.standing_in.remove(self)
        origins.listening.remove(self._seen)
        self._start_over()

    def _seen(self, host: str) -> None:
        """A request goes to this host, mocked or not."""
        plain = host.removesuffix(".").lower()
        if is_address(plain):
            return
        name = plain if plain in self._services else plain.partition(".")[0]
        self._note(name)
        if name not in self._services:
            raise NotStubbed(_advice(name))

    def _name(self, question: Question) -> str:
        plain = question.name.partition("?")[0].rpartition("/")[2]
        return plain if plain in self._services else plain.partition(".")[0]

    def _note(self, name: str) -> None:
        if name not in self.asked:
            self.asked.append(name)
        if name not in self._services and name not in self.missing:
            self.missing.append(name)

    def _start_over(self) -> None:
        for engine in engines():
            engine.start_over()


def _advice(name: str) -> str:
    return f"{name!r} was not stubbed: ecs_stub.service({name!r}, ['10.0.0.1:8080'])"
