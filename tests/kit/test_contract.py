"""`ResolverContract`: our own resolvers keep it, and one that does not is found out."""

from __future__ import annotations

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import SkipTest

import pytest

from ecs_discovery import CloudMapPolicy, Endpoint, NoEndpoints, Question, Resolution, ResolutionError, TargetNotFound
from ecs_discovery.resolvers.cloud_map.aio import AsyncCloudMapResolver
from ecs_discovery.resolvers.cloud_map.sync import CloudMapResolver
from ecs_discovery.testing import ResolverContract, contract
from ecs_discovery.testing.lab import Lab


class JsonFile:
    """As in the documentation."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def resolve(self, question: Question, timeout: float) -> Resolution:
        try:
            names = json.loads(self._path.read_text())
        except (OSError, ValueError) as error:
            raise ResolutionError(f"{self._path} cannot be read", target=str(question)) from error
        if question.name not in names:
            raise TargetNotFound("not in the file", target=str(question))
        found = dict.fromkeys(map(tuple, names[question.name]))
        if not found:
            raise NoEndpoints("nothing behind it now", target=str(question))
        return Resolution(tuple(Endpoint(host, port) for host, port in found), ttl=1, source="file")


class AsyncJsonFile(JsonFile):
    async def resolve(self, question: Question, timeout: float) -> Resolution:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().resolve(question, timeout)


class TestAFile(ResolverContract):
    scheme = "json"
    kind: type[JsonFile] = JsonFile

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "names.json"

    def make(self):
        return self.kind(self.path)

    def answer(self, *endpoints: Endpoint) -> None:
        self.path.write_text(json.dumps({self.name: [(each.host, each.port) for each in endpoints]}))

    def fail(self) -> None:
        self.path.write_text("{")


class TestAFileForAsyncio(TestAFile):
    kind = AsyncJsonFile


class TestCloudMap(ResolverContract):
    scheme = "cloudmap"
    name = "prod.local/orders"

    @pytest.fixture(autouse=True)
    def _lab(self, monkeypatch: pytest.MonkeyPatch):
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "eu-west-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        with Lab(namespace="prod.local", seed=1) as self.lab:
            self.lab.service("orders", tasks=0)
            self.known: list[str] = []
            yield

    def make(self):
        return CloudMapResolver(CloudMapPolicy(endpoint_url=self.lab.cloud_map.endpoint_url, timeout=5))

    def answer(self, *endpoints: Endpoint) -> None:
        for instance in self.known:
            self.lab.cloud_map.remove("orders", instance)
        self.known = []
        for each in dict.fromkeys(endpoints):
            instance = f"i-{each.host.replace('.', '-').replace(':', '-')}"
            kind = "AWS_INSTANCE_IPV6" if ":" in each.host else "AWS_INSTANCE_IPV4"
            self.lab.cloud_map.add("orders", instance, {kind: each.host, "AWS_INSTANCE_PORT": str(each.port)})
            self.known.append(instance)

    def fail(self) -> None:
        self.lab.cloud_map.fault = "denied"

    def hang(self) -> None:
        self.lab.cloud_map.fault = "silence"

    # An answer of the API has 1,000 instances at most.
    test_it_answers_with_thousands_of_endpoints = None  # type: ignore[assignment]


class TestCloudMapForAsyncio(TestCloudMap):
    def make(self):
        return AsyncCloudMapResolver(share=super().make())


class Forgetful:
    """Says "there is none" when its source fails, answers with doubles, and keeps the first answer."""

    def __init__(self) -> None:
        self.source: list[Endpoint] | None = []
        self.first: Resolution | None = None

    def resolve(self, question: Question, timeout: float) -> Resolution:
        if self.source is None:
            raise NoEndpoints("nothing there")
        self.first = self.first or Resolution(tuple(self.source), 5, "own")
        return self.first


class Broken(ResolverContract):
    def make(self):
        self.made = Forgetful()
        return self.made

    def answer(self, *endpoints: Endpoint) -> None:
        self.made.source = list(endpoints)

    def fail(self) -> None:
        self.made.source = None


@pytest.mark.parametrize(
    "broken",
    [
        "test_it_names_each_endpoint_once",
        "test_it_keeps_no_answers",
        "test_a_name_with_nothing_behind_it_is_an_error_that_says_so",
        "test_a_name_that_its_source_does_not_know_is_an_error_that_says_so",
        "test_a_source_that_cannot_be_asked_is_never_taken_for_an_empty_one",
    ],
)
def test_a_resolver_that_breaks_the_contract_is_found_out(broken):
    with pytest.raises(AssertionError):
        getattr(Broken(), broken)()


class Pooled:
    """Asks in a thread of its own, which the child of a fork does not have. May overstay its time limit."""

    def __init__(self, over: float = 0.0) -> None:
        self.over = over
        self.well = True
        self.source: list[Endpoint] = []
        self.pool = ThreadPoolExecutor(1)

    def resolve(self, question: Question, timeout: float) -> Resolution:
        return self.pool.submit(self._answer, question, timeout).result()

    def _answer(self, question: Question, timeout: float) -> Resolution:
        if self.well:
            return Resolution(tuple(self.source), 5, "own")
        time.sleep(timeout + self.over)
        raise ResolutionError("no answer", target=str(question))


class Late(ResolverContract):
    over = 0.0

    def make(self):
        self.made = Pooled(self.over)
        return self.made

    def answer(self, *endpoints: Endpoint) -> None:
        self.made.source = list(endpoints)

    def fail(self) -> None:
        self.made.well = False


class LateInSilence(Late):
    def hang(self) -> None:
        self.fail()


def test_a_resolver_that_hangs_in_the_child_of_a_fork_is_found_out_in_seconds(monkeypatch):
    monkeypatch.setattr(contract, "_CHILD", 0.5)
    began = time.monotonic()
    with pytest.raises(AssertionError, match="its child does not answer: a lock or a thread of the parent's"):
        Late().test_it_works_in_the_child_of_a_fork()
    assert time.monotonic() - began < 10
    with pytest.raises(ChildProcessError):  # no child is left behind
        os.waitpid(-1, os.WNOHANG)


def test_a_resolver_that_overstays_its_time_limit_is_found_out():
    late = LateInSilence()
    late.over = 1.5
    with pytest.raises(AssertionError, match=r"with a time limit of 0\.2 s it took \d"):
        late.test_it_ends_within_its_time_limit()
    with pytest.raises(AssertionError, match=r"with a time limit of 0\.2 s it took \d"):
        late.test_it_gives_up_in_time_a_source_that_does_not_answer()
    LateInSilence().test_it_ends_within_its_time_limit()
    LateInSilence().test_it_gives_up_in_time_a_source_that_does_not_answer()


def test_silence_is_tested_only_where_it_is_said_how():
    with pytest.raises(SkipTest, match="keeps silent"):
        Late().test_it_gives_up_in_time_a_source_that_does_not_answer()


def test_a_contract_that_was_not_filled_in_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="how the resolver is made"):
        ResolverContract().test_it_keeps_no_answers()
