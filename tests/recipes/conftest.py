"""Recipes as a reader copies them, and names that point at real servers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from ecs_discovery.testing.lab import Lab
from tests.recipes.programs import Postgres, Program

Recipe = Callable[[str], Any]
PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "drivers.md"
_numbers = count(1)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=1) as made:
        if made.single_address:
            pytest.skip("needs the whole of 127.0.0.0/8")
        yield made


@pytest.fixture
def recipe(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The names that the Python after a line of the page defines. Its discovery asks the lab."""
    monkeypatch.setenv("ECS_DISCOVERY_NAMESERVERS", lab.nameserver)

    def read(line: str) -> Any:
        text = PAGE.read_text(encoding="utf-8")
        match = re.search(rf"^{re.escape(line)}$.*?^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert match is not None, line
        names: dict[str, Any] = {"__name__": "recipe"}
        exec(compile(match[1], str(PAGE), "exec"), names)
        return SimpleNamespace(**names)

    return read


@pytest.fixture
def addresses() -> Callable[[], str]:
    """Loopback addresses that no other test has."""
    return lambda: f"127.12.{os.getpid() % 250 + 1}.{next(_numbers)}"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def certificates(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Files for a name: `ca`, `cert` and `key`."""

    def make(name: str) -> Any:
        directory = tmp_path_factory.mktemp("tls")
        issued = authority.issue_cert(name)
        ca, cert, key = (directory / each for each in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(ca))
        cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return SimpleNamespace(ca=str(ca), cert=str(cert), key=str(key))

    return make


@pytest.fixture
def started() -> Iterator[Callable[[Any], Any]]:
    """Servers that are ended with the test."""
    programs: list[Program] = []

    def add(program: Program) -> Program:
        programs.append(program)
        return program

    yield add
    for program in reversed(programs):
        program.close()


@pytest.fixture
def cluster(lab: Lab, addresses: Callable[[], str], started: Callable[[Any], Any]) -> list[Postgres]:
    """A primary and two standbys. `db` names all three, `db-read` the standbys."""
    primary = started(Postgres(addresses()))
    standbys = [started(Postgres(addresses(), of=primary)) for _ in range(2)]
    lab.dns.add("db.prod.local", "A", primary.address, *(each.address for each in standbys), ttl=1)
    lab.dns.add("db-read.prod.local", "A", *(each.address for each in standbys), ttl=1)
    return [primary, *standbys]
