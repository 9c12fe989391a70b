"""What an import costs, and what the package says of itself."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

import ecs_discovery
from ecs_discovery.testing.lab import Lab
from tests.resolvers.support import ScriptedDns

ROOT = Path(__file__).resolve().parent.parent


def python(
    code: str, *, blocked: tuple[str, ...] = (), arguments: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which the `blocked` packages cannot be imported."""
    block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", block + code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )


def test_importing_loads_nothing_heavy_starts_no_thread_and_opens_no_socket():
    code = """
import sys, threading, os
before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
loaded = set(sys.modules)
import ecs_discovery
after = set(os.listdir("/proc/self/fd")) if before else set()
heavy = {"dns", "aiodns", "pycares", "tenacity", "requests", "urllib3", "asyncio", "socket", "ssl", "logging"}
print(sorted(heavy & (set(sys.modules) - loaded)), threading.active_count(), len(after) - len(before))
"""
    result = python(code)
    assert result.stderr == ""
    assert result.stdout.split() == ["[]", "1", "0"]


LATER = {"asyncio", "pycares", "aiodns", "dns", "tenacity", "boto3", "botocore", "importlib.metadata"}
"""What a program of threads does without, as long as nothing fails."""
LOADED = """
import sys
before = set(sys.modules)
def loaded(names):
    print(sorted(name for name in names if name in sys.modules and name not in before))
"""


def test_a_discovery_of_threads_loads_nothing_that_it_does_not_need_yet():
    code = f"""
{LOADED}
import ecs_discovery
discovery = ecs_discovery.Discovery()
loaded({LATER | {"ssl", "json", "http.client", "ecs_discovery.client.aio", "ecs_discovery.client.snapshot"}})
"""
    result = python(code)
    assert result.stderr == ""
    assert result.stdout == "[]\n"


def test_a_discovery_of_threads_compiles_no_dataclasses_and_loads_no_openssl():
    code = f"""
{LOADED}
import ecs_discovery
discovery = ecs_discovery.Discovery(services={{"orders": "static://127.0.0.1:1"}})
with discovery.lease("orders"): pass
loaded({{"dataclasses", "inspect", "hashlib"}})
"""
    result = python(code)
    assert result.stderr == ""
    assert result.stdout == "[]\n"


def test_a_first_lookup_of_threads_loads_no_library():
    code = f"""
{LOADED}
import ecs_discovery
with ecs_discovery.Discovery(nameservers=[sys.argv[1]]) as discovery:
    print(len(discovery.resolve("a.prod.local:80").endpoints))
    loaded({LATER | {"ssl", "json", "http.client", "secrets", "ecs_discovery.client.aio"}})
"""
    with ScriptedDns() as server:
        server.on("a://a.prod.local", "a.prod.local 60 A 10.0.0.1")
        result = python(code, arguments=(server.address,))
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["1", "[]"]


def test_a_wrapped_get_loads_nothing_for_failures_or_asyncio():
    code = f"""
import requests
{LOADED}
from ecs_discovery import wrap_session
session = wrap_session(requests.Session(), namespace="prod.local", nameservers=[sys.argv[1]])
print(session.get(sys.argv[2], timeout=10).status_code)
session.close()
loaded({LATER | {"ecs_discovery.client.aio", "ecs_discovery.client.snapshot"}})
"""
    with Lab(namespace="prod.local") as lab:
        result = python(code, arguments=(lab.nameserver, lab.service("orders", tasks=1).url()))
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["200", "[]"]


def test_without_extras_everything_but_the_integration_works_and_that_says_what_to_install():
    code = """
import ecs_discovery
with ecs_discovery.Discovery(services={"orders": "static://127.0.0.1:1"}) as discovery:
    print(discovery.resolve("orders").endpoints[0])
try:
    ecs_discovery.wrap_session
except ImportError as error:
    print(error)
"""
    result = python(code, blocked=("requests", "urllib3", "click", "rich", "h11"))
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "127.0.0.1:1",
        "wrap_session needs requests: from a clone, pip install '.[requests]'",
    ]


@pytest.mark.parametrize(
    ("library", "package"),
    [("aiohttp", "aiohttp"), ("urllib3", "urllib3"), ("httpx", "httpx"), ("httpx2", "httpx2"), ("grpc", "grpcio")],
)
def test_an_integration_without_its_library_says_what_to_install(library: str, package: str):
    code = f"""
try:
    import ecs_discovery.integrations.{library}
except ImportError as error:
    print(error)
"""
    result = python(code, blocked=(library,))
    assert result.stderr == ""
    expected = f"ecs_discovery.integrations.{library} needs {package}: from a clone, pip install '.[{library}]'\n"
    assert result.stdout == expected


def test_wrap_client_needs_either_of_its_libraries():
    code = """
try:
    from ecs_discovery import wrap_client
    print("there")
except ImportError as error:
    print(error)
"""
    assert python(code, blocked=("httpx",)).stdout == "there\n"
    missing = python(code, blocked=("httpx", "httpx2"))
    assert missing.stderr == ""
    assert missing.stdout == "wrap_client needs httpx: from a clone, pip install '.[httpx]' or '.[httpx2]'\n"


@pytest.mark.parametrize(("module", "package"), [("dns", "dnspython"), ("h11", "h11")])
def test_the_lab_without_its_extra_says_what_to_install(module: str, package: str):
    code = """
try:
    import ecs_discovery.testing.lab
except ImportError as error:
    print(error)
"""
    result = python(code, blocked=(module,))
    assert result.stdout == f"the lab needs {package}: from a clone, pip install '.[lab]'\n"


def test_every_public_name_is_there():
    for name in ecs_discovery.__all__:
        assert getattr(ecs_discovery, name) is not None
        assert name in dir(ecs_discovery)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ecs_discovery.nothing  # type: ignore[attr-defined]


def test_using_the_package_leaves_its_functions_under_their_names():
    """A submodule of the same name would hide a function once it is imported."""
    import ecs_discovery.config.options
    import ecs_discovery.integrations.requests

    assert callable(ecs_discovery.options)
    assert callable(ecs_discovery.wrap_session)


def test_the_package_is_typed_and_its_metadata_has_one_home():
    assert (Path(ecs_discovery.__file__).parent / "py.typed").exists()
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == "attr: ecs_discovery.__version__"
    assert "[project]" not in (ROOT / "pyproject.toml").read_text()
