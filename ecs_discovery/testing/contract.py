"""What every resolver must do, as tests to inherit."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
import time
from typing import Any
from unittest import SkipTest

from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.errors import NoEndpoints, ResolutionError, TargetNotFound
from ecs_discovery.models import Endpoint, Question, Resolution
from ecs_discovery.testing.clock import Clock

__all__ = ["ResolverContract"]

_A, _B, _C = (Endpoint(f"10.0.0.{number}", 8080) for number in (1, 2, 3))
_MANY = 2000  # no answer is used beyond that
_SHORT = 0.2  # seconds: the time limit that a lookup is given
_OVER = 1.0  # seconds that it may take beyond its limit: the machine may be busy
_CHILD = 10.0  # seconds for the child of a fork; its lookup has a limit of 5 s
_NONE = (TargetNotFound, NoEndpoints)


class ResolverContract:
    """Inherit, say how to make the resolver and what its source answers, and pytest finds the tests.

        class TestConsul(ResolverContract):
            scheme = "consul"

            def make(self):
                self.source = FakeConsul()
                return ConsulResolver(self.source)

            def answer(self, *endpoints):
                self.source.put("orders", endpoints)

            def fail(self):
                self.source.stop()

            def hang(self):  # may be left out
                self.source.pause()

    The resolver may be for threads or for asyncio. Each test calls `make` first, and has an object of its own.
    """

    scheme = "own"
    """The scheme of its questions."""
    name = "orders"
    """The name that is asked for, and that `answer` is about."""

    def make(self) -> Any:
        """A resolver whose source can be reached, and knows nothing yet."""
        raise NotImplementedError("say how the resolver is made")

    def answer(self, *endpoints: Endpoint) -> None:
        """From now on its source names these behind `name`; with none there is nothing behind it."""
        raise NotImplementedError("say how its source is told what to answer")

    def fail(self) -> None:
        """From now on its source cannot be asked."""
        raise NotImplementedError("say how its source fails")

    def hang(self) -> None:
        """From now on its source takes questions and does not answer. Where this is left out its test is skipped."""
        raise SkipTest("hang() does not say how its source keeps silent")

    def test_it_answers_with_the_endpoints_of_its_source(self) -> None:
        resolver = self._with(_A, _B)
        assert _addresses(self._resolve(resolver)) == [("10.0.0.1", 8080), ("10.0.0.2", 8080)]

    def test_its_answer_is_a_resolution_with_a_ttl_and_a_source(self) -> None:
        found = self._resolve(self._with(_A))
        assert isinstance(found, Resolution)
        assert found.ttl >= 0
        assert found.source
        assert isinstance(found.endpoints, tuple)

    def test_it_names_each_endpoint_once(self) -> None:
        found = _addresses(self._resolve(self._with(_A, _B, _A)))
        assert len(found) == len(set(found)) == 2

    def test_it_keeps_no_answers(self) -> None:
        """How long an answer holds is decided by who asks."""
        resolver = self._with(_A)
        self._resolve(resolver)
        self.answer(_C)
        if hasattr(resolver, "forget"):  # it answers from memory while its source says "unchanged"
            resolver.forget(self._question())
        assert _addresses(self._resolve(resolver)) == [("10.0.0.3", 8080)]

    def test_a_name_with_nothing_behind_it_is_an_error_that_says_so(self) -> None:
        resolver = self._with()
        assert isinstance(self._error(resolver), _NONE)

    def test_a_name_that_its_source_does_not_know_is_an_error_that_says_so(self) -> None:
        resolver = self._with(_A)
        assert isinstance(self._error(resolver, f"{self.name}-that-is-not-there"), _NONE)

    def test_a_source_that_cannot_be_asked_is_never_taken_for_an_empty_one(self) -> None:
        """ "There is none" lets known endpoints go; a failure keeps them."""
        resolver = self._with(_A)
        self.fail()
        assert not isinstance(self._error(resolver), _NONE)

    def test_its_errors_name_what_was_asked(self) -> None:
        resolver = self._with(_A)
        self.fail()
        error = self._error(resolver)
        assert not isinstance(error, ResolutionError) or error.target

    def test_it_ends_within_its_time_limit(self) -> None:
        """A second more is tolerated."""
        resolver = self._with(_A)
        self.fail()
        self._ends_in_time(resolver)

    def test_it_gives_up_in_time_a_source_that_does_not_answer(self) -> None:
        """As above. Silence is never taken for "there is none"."""
        resolver = self._with(_A)
        self.hang()
        assert not isinstance(self._ends_in_time(resolver), _NONE)

    def test_it_answers_with_ipv6(self) -> None:
        found = self._resolve(self._with(Endpoint("fd00::1", 8080)))
        assert _addresses(found) == [("fd00::1", 8080)]

    def test_it_answers_with_thousands_of_endpoints(self) -> None:
        many = [Endpoint(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}", 8080) for n in range(1, _MANY + 1)]
        resolver = self._with(*many)
        assert len(self._resolve(resolver, timeout=30.0).endpoints) == _MANY

    def test_many_callers_at_once_get_the_same_answer(self) -> None:
        resolver = self._with(_A, _B)
        found: list[list[tuple[str, int]]] = []

        def ask() -> None:
            found.extend(_addresses(self._resolve(resolver)) for _ in range(5))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 40
        assert all(each == found[0] for each in found)

    def test_a_discovery_finds_the_service_through_it(self) -> None:
        resolver = self._with(_A)
        target = f"{self.scheme}://{self.name}"
        assert _addresses(self._discovered(resolver, target)) == [("10.0.0.1", 8080)]

    def test_a_discovery_keeps_what_it_knows_when_the_source_fails(self) -> None:
        resolver = self._with(_A)
        target, clock, given = f"{self.scheme}://{self.name}", Clock(), {self.scheme: resolver}
        if inspect.iscoroutinefunction(resolver.resolve):

            async def twice() -> Resolution:
                async with AsyncDiscovery(namespace="test", resolvers=given, clock=clock) as discovery:
                    await discovery.resolve(target)
                    self.fail()
                    clock.advance(3600)
                    return await discovery.resolve(target)

            kept = asyncio.run(twice())
        else:
            with Discovery(namespace="test", resolvers=given, clock=clock) as discovery:
                discovery.resolve(target)
                self.fail()
                clock.advance(3600)
                kept = discovery.resolve(target)
        assert _addresses(kept) == [("10.0.0.1", 8080)]

    def test_it_works_in_the_child_of_a_fork(self) -> None:
        resolver = self._with(_A)
        self._resolve(resolver)
        if not hasattr(os, "fork"):
            return
        child = os.fork()
        if child == 0:
            good = False
            try:
                good = _addresses(self._resolve(resolver)) == [("10.0.0.1", 8080)]
            finally:
                os._exit(0 if good else 1)
        until = time.monotonic() + _CHILD
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended and time.monotonic() < until:
            time.sleep(0.02)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("its child does not answer: a lock or a thread of the parent's was inherited")
        assert status == 0, "the child of a fork did not get the answer"

    # How

    def _question(self, name: str | None = None) -> Question:
        return Question(self.scheme, name or self.name)

    def _with(self, *endpoints: Endpoint) -> Any:
        resolver = self.make()
        self.answer(*endpoints)
        return resolver

    def _resolve(self, resolver: Any, name: str | None = None, timeout: float = 5.0) -> Resolution:
        found = resolver.resolve(self._question(name), timeout)
        if inspect.iscoroutine(found):
            found = asyncio.run(found)
        return found  # type: ignore[no-any-return]  # a test looks at what it is

    def _error(self, resolver: Any, name: str | None = None, timeout: float = 2.0) -> Exception:
        try:
            found = self._resolve(resolver, name, timeout)
        except Exception as error:  # noqa: BLE001  # a test looks at what it is
            return error
        raise AssertionError(f"no error, but {found}")

    def _ends_in_time(self, resolver: Any) -> Exception:
        began = time.monotonic()
        error = self._error(resolver, timeout=_SHORT)
        took = time.monotonic() - began
        assert took < _SHORT + _OVER, f"with a time limit of {_SHORT} s it took {took:.2f} s"
        return error

    def _discovered(self, resolver: Any, target: str) -> Resolution:
        if inspect.iscoroutinefunction(resolver.resolve):

            async def once() -> Resolution:
                async with AsyncDiscovery(namespace="test", resolvers={self.scheme: resolver}) as discovery:
                    return await discovery.resolve(target)

            return asyncio.run(once())
        with Discovery(namespace="test", resolvers={self.scheme: resolver}) as discovery:
            return discovery.resolve(target)


def _addresses(resolution: Resolution) -> list[tuple[str, int]]:
    return sorted((endpoint.host, endpoint.port) for endpoint in resolution.endpoints)
