"""The test suites of client libraries and of the packages around them, run through ours.

`python -m tests.conformance.run FOLDER` makes a virtual environment in FOLDER, fetches the pinned source
distributions, and runs each suite. A test that fails must stand in `expected.json`, with a reason, or fail plain too.
A suite proves nothing, and fails, if none of its requests went our way or far fewer of its tests pass than are known
to.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COMMON = ["pytest==8.4.2", "pytest-timeout==2.4.0"]
MOST = 600  # seconds of one run of one suite
AGAIN = 3  # times that a test with a new difference is run alone
MANY = 10  # new differences: so many tests are not run alone
ENOUGH = 0.97  # of the tests that are known to pass: some depend on the machine
PASSING = {  # how many tests are known to pass through ours
    "requests": 600,
    "responses": 233,
    "requests-mock": 144,
    "vcrpy": 38,
    "opentelemetry-instrumentation-requests": 80,
    "httpx": 1383,
    "httpx2": 294,
    "urllib3": 223,
    "aiohttp": 332,
}


@dataclass(frozen=True)
class Suite:
    """One package's tests."""

    source: str
    """The pinned source distribution."""
    needs: tuple[str, ...]
    tests: tuple[str, ...]
    trusts_httpbin: bool = False
    names: str = ""
    """Hosts that the suite's fake sockets know."""
    all_ours: bool = False
    """Every host name is ours, not only `localhost`: for suites that mock other hosts."""
    plugin: str = "ours"
    options: tuple[str, ...] = ()
    """Arguments of pytest."""
    apart: bool = False
    """Its tests run in a folder without its sources: what is installed is compiled."""
    port: int = 0
    """A port that its tests listen on: two such suites run one after the other."""
    title: str = ""
    """Its name where the package has another suite already."""

    @property
    def package(self) -> str:
        return self.source.partition("==")[0]

    @property
    def name(self) -> str:
        return self.title or self.package


_FOR_HTTPX = (
    "uvicorn==0.54.0",
    "trustme==1.2.1",
    "trio==0.35.0",
    "zstandard==0.25.0",
    "chardet==7.7.0",
    "brotli==1.2.1",
    "h2==4.4.1",
    "socksio==1.0.0",
    "click==8.5.1",
    "rich==15.0.0",
    "pygments==2.21.0",
)
SUITES = (
    Suite(
        "requests==2.34.2",
        ("pytest-httpbin==2.1.0", "httpbin==0.10.4", "pytest-mock==3.15.1", "trustme==1.2.1", "PySocks==1.7.1"),
        ("tests",),
    ),
    Suite(
        "responses==0.26.3",
        ("pytest-asyncio==1.2.0", "pytest-httpserver==1.1.3", "tomli-w==1.2.0"),
        ("responses/tests",),
        all_ours=True,
    ),
    Suite("requests-mock==1.12.1", ("fixtures==4.2.6", "testtools==2.7.2", "purl==1.6"), ("tests",), all_ours=True),
    Suite(
        "vcrpy==9.4.2",
        ("pytest-httpbin==2.1.0", "httpbin==0.10.4"),
        ("tests/integration/test_requests.py",),
        trusts_httpbin=True,
        all_ours=True,
    ),
    Suite(
        "opentelemetry-instrumentation-requests==0.66b2",
        ("opentelemetry-test-utils==0.66b2", "httpretty==1.1.4", "mocket==3.13.11"),
        ("tests",),
        names="mock localhost examplehost",
    ),
    Suite(
        "httpx==0.28.1",
        _FOR_HTTPX,
        ("tests",),
        plugin="ours_httpx",
        port=8000,
        options=("-p", "no:asyncio", "-o", "addopts=", "-o", "filterwarnings="),
    ),
    Suite(
        "urllib3==2.8.0",
        (
            "anyio==4.16.0",
            "h2==4.4.1",
            "httpx==0.28.1",
            "hypercorn==0.18.0",
            "PySocks==1.7.1",
            "pytest-socket==0.8.1",
            "quart==0.22.0",
            "quart-trio==0.12.0",
            "trio==0.35.0",
            "trustme==1.2.1",
        ),
        (
            "test/with_dummyserver/test_poolmanager.py",
            "test/with_dummyserver/test_connectionpool.py",
            "test/with_dummyserver/test_chunked_transfer.py",
            "test/test_poolmanager.py",
        ),
        plugin="ours_urllib3",
        options=("-o", "addopts=", "-o", "filterwarnings="),
    ),
    Suite(
        "aiohttp==3.14.5",
        (
            "blockbuster==1.5.29",
            "brotli==1.2.1",
            "trustme==1.2.1",
            "proxy.py==2.4.10",
            "freezegun==1.5.5",
            "re-assert==1.1.0",
            "isal==1.9.1",
            "zlib-ng==1.1.0",
            "pytest-mock==3.15.1",
            "pytest-codspeed==5.0.4",
            "python-on-whales==0.81.0",
        ),
        ("tests/test_client_functional.py",),
        plugin="ours_aiohttp",
        options=("-p", "aiohttp.pytest_plugin", "-p", "no:asyncio", "-o", "addopts=", "-o", "filterwarnings="),
        apart=True,
    ),
    Suite(
        "httpx==0.28.1",
        (*_FOR_HTTPX, "httpx2==2.16.2"),
        ("tests/client", "tests/test_api.py", "tests/test_exceptions.py", "tests/test_timeouts.py"),  # what sends
        plugin="ours_httpx2",
        options=("-p", "no:asyncio", "-o", "addopts=", "-o", "filterwarnings="),
        title="httpx2",
        port=8000,
    ),
)


def make_environment(folder: Path) -> Path:
    """The interpreter of a fresh virtual environment with everything in it."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    packages = {each for suite in SUITES for each in (suite.source, *suite.needs)}
    ours = f"{ROOT}[requests,httpx,httpx2,aiohttp,urllib3]"
    subprocess.run([python, "-m", "pip", "install", "-q", ours, *COMMON, *sorted(packages)], check=True)
    return python


def fetch(python: Path, folder: Path, suite: Suite) -> Path:
    """The unpacked source distribution."""
    target = folder / suite.name
    command = [python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", suite.package, "-d", str(target)]
    subprocess.run([*command, suite.source], check=True)
    (archive,) = target.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")
    (found,) = (each for each in target.iterdir() if each.is_dir())
    if suite.apart:
        beside = target / "apart"
        shutil.copytree(found / "tests", beside / "tests")
        return beside
    return found


def outcomes(
    python: Path, where: Path, suite: Suite, *, plain: bool, only: Sequence[str] = ()
) -> tuple[int, dict[str, str]]:
    """How many requests were sent through a wrapped session, and how each test ended."""
    report = where / f"report-{'plain' if plain else 'wrapped'}.json"
    hidden = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "ECS_CONFORMANCE_PLAIN", "ECS_CONFORMANCE_ALL", "COVERAGE_FILE")
    hidden += ("ECS_CONFORMANCE_NAMES",)
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PYTHONPATH": f"{HERE}:.", "ECS_CONFORMANCE_REPORT": str(report)}
    if plain:
        environment["ECS_CONFORMANCE_PLAIN"] = "1"
    if suite.names:
        environment["ECS_CONFORMANCE_NAMES"] = suite.names
    if suite.all_ours:
        environment["ECS_CONFORMANCE_ALL"] = "1"
    if suite.trusts_httpbin:
        found = subprocess.run([python, "-m", "pytest_httpbin.certs"], check=True, capture_output=True, text=True)
        environment["REQUESTS_CA_BUNDLE"] = found.stdout.strip()
    command = [python, "-m", "pytest", "-q", "-p", suite.plugin, "-p", "no:cacheprovider", "--timeout", "60"]
    command += suite.options
    command += list(only) or list(suite.tests)
    with open(where / f"log-{'plain' if plain else 'wrapped'}.txt", "w", encoding="utf-8") as log:
        subprocess.run(command, cwd=where, env=environment, stdout=log, stderr=log, timeout=MOST, check=False)
    told = json.loads(report.read_text(encoding="utf-8"))
    return told["taken"], told["outcomes"]


def check(python: Path, folder: Path, suite: Suite, expected: dict[str, str]) -> bool:
    """Run one suite and say what came of it. False if there is a difference that nobody expects."""
    began = time.monotonic()
    where = fetch(python, folder, suite)
    taken, wrapped = outcomes(python, where, suite, plain=False)
    passed = [name for name, outcome in wrapped.items() if outcome == "passed"]
    lost = [name for name, outcome in wrapped.items() if outcome not in ("passed", "skipped")]
    new = [name for name in lost if name not in expected]
    for _ in range(AGAIN if len(new) < MANY else 0):  # some fail now and then when they run plain, too
        if new:
            _, once_more = outcomes(python, where, suite, plain=False, only=new)
            new = [name for name in new if once_more.get(name) != "passed"]
    if new:  # what this machine cannot do (no network, say) is no difference
        _, plain = outcomes(python, where, suite, plain=True, only=new if len(new) < MANY else ())
        new = [name for name in new if plain.get(name) == "passed"]
    print(
        f"{suite.title or suite.source}: {len(passed)} of {len(wrapped)} pass, {len(lost)} do not ({len(new)} of these "
        f"pass plain and are not expected), {taken} requests through ours, {time.monotonic() - began:.0f} s"
    )
    for name in new:
        print(f"  new difference: {name}")
    for name in sorted(expected.keys() & set(passed)):
        print(f"  no longer different: {name}")
    proof = taken and len(passed) >= ENOUGH * PASSING[suite.name]
    if not proof:
        print(f"  it proves nothing: {PASSING[suite.name]} are known to pass; see {where}")
    return bool(proof and not new)


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    expected = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
    python = make_environment(folder)
    ports = {suite.port: Lock() for suite in SUITES if suite.port}

    def checked(suite: Suite) -> bool:
        with ports.get(suite.port, nullcontext()):
            return check(python, folder, suite, expected.get(suite.name, {}))

    with ThreadPoolExecutor(3) as three:  # most of a suite's time it waits
        results = list(three.map(checked, SUITES))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
