"""The house rules, checked: who may import what, and that the two drivers are alike."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import ecs_discovery
from ecs_discovery import AsyncDiscovery, Discovery
from ecs_discovery.client.aio.asking import AsyncAsker
from ecs_discovery.client.aio.background import AsyncBackground
from ecs_discovery.client.aio.probing import AsyncProber
from ecs_discovery.client.sync.asking import Asker
from ecs_discovery.client.sync.background import Background
from ecs_discovery.client.sync.probing import Prober
from ecs_discovery.core.balancing.node import Node

ROOT = Path(ecs_discovery.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Layers from the ground up: a module imports its own layer and those before it, typing imports included.
LAYERS = [
    {"models"},
    {"errors"},
    {"events"},
    {"config"},
    {"core", "runtime"},
    {"resolvers"},
    {"client"},
    {"integrations", "telemetry"},
    {"cli", "__main__"},
]
BESIDE = "testing"  # may use anything, and only the demo uses it
ROOMS = 13
HOMES = {
    "dns": {"resolvers.dns.dnspython", "testing.lab", "cli.demo", "cli.commands"},
    "aiodns": set(),
    "pycares": set(),
    "boto3": {"resolvers.cloud_map"},
    "botocore": {"resolvers.cloud_map"},
    "tenacity": {"client.retry", "client.sync.retry", "client.aio.retry", "config.settings"},
    "requests": {"integrations", "cli"},
    "urllib3": {"integrations"},
    "aiohttp": {"integrations"},
    "yarl": {"integrations"},
    "grpc": {"integrations"},
    "opentelemetry": {"telemetry"},
    "h11": {"testing.lab", "cli"},
    "click": {"cli"},
    "rich": {"cli"},
}
CORE_MAY = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "email",
    "enum",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "threading",
    "typing",
}

SLOTS = {slot for kind in Node.__mro__ for slot in getattr(kind, "__slots__", ())} - {"__weakref__"}
AT_FIRST = {"seen"}  # made with the node, and changed in place
# What has attributes of the same names, and is no node.
NO_NODES = {
    "client.retry": {"call"},
    "core.balancing.health_checks": {"checked"},
    "core.resolution.cache": {"entry"},
    "runtime.single_flight": {"known"},
}

# Where asyncio joins the state of threads.
JOINS = {("client.aio.discovery", "client.sync.discovery"), ("client.aio.shared", "client.sync.shared")}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path) for path in FILES}


def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in it and for whatever purpose."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            module = node.module or ""
            inside = module.removeprefix("ecs_discovery").removeprefix(".")
            for alias in node.names:
                named = f"{inside}.{alias.name}".removeprefix(".")
                found.append(
                    f"{module}.{alias.name}" if module.startswith("ecs_discovery") and named in MODULES else module
                )
    return sorted(set(found))


def inside(path: Path) -> list[str]:
    """The modules of this package that a file imports."""
    return [module.removeprefix("ecs_discovery.") for module in imports(path) if module.startswith("ecs_discovery.")]


def layer(module: str) -> int:
    top = module.split(".")[0]
    return next(index for index, names in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path: Path):
    name = name_of(path)
    if not name or name.startswith(BESIDE):
        return
    for other in inside(path):
        if other.startswith(BESIDE):
            assert name.startswith("cli.demo"), f"{name} imports {other}"
        else:
            assert layer(other) <= layer(name), f"{name} imports {other}"


def test_no_module_leads_back_to_itself():
    arrows = {name_of(path): inside(path) for path in FILES if name_of(path)}
    ends: set[str] = set()  # modules whose imports were all followed, without a way back
    for start in arrows:
        trail: list[tuple[str, list[str]]] = [(start, list(arrows[start]))]
        while trail:
            module, left = trail[-1]
            if not left:
                ends.add(module)
                trail.pop()
                continue
            following = left.pop()
            if following in ends or following not in arrows:
                continue
            circle = [each for each, _ in trail]
            assert following not in circle, f"a circle: {circle[circle.index(following) :]}"
            trail.append((following, list(arrows[following])))


def test_the_package_has_no_more_rooms_than_a_reader_can_keep_in_mind():
    entries = {path.name for path in ROOT.iterdir()} - {"py.typed", "__main__.py", "__pycache__"}
    assert len(entries) <= ROOMS, sorted(entries)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_both_worlds_need_imports_neither_of_them(path: Path):
    name = name_of(path)
    for other in inside(path):
        if ".aio" in other and ".aio" not in name:
            assert not name.startswith(("client", "resolvers.dns", "resolvers.cloud_map")), f"{name} imports {other}"
        if name.startswith("client.") and ".sync" not in name and other.startswith("client.sync"):
            assert (name, other) in JOINS, f"{name} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_third_party_package_has_one_home(path: Path):
    name = name_of(path)
    for module in imports(path):
        homes = HOMES.get(module.split(".")[0])
        if homes is not None:
            assert any(name == home or name.startswith(f"{home}.") for home in homes), f"{name} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "core").rglob("*.py")), ids=name_of)
def test_the_core_does_no_io_and_has_no_clock_or_dice_of_its_own(path: Path):
    for module in imports(path):
        top = module.split(".")[0]
        assert top in CORE_MAY or module.startswith("ecs_discovery."), f"{path.name} imports {module}"
        if top == "threading":
            tree = ast.parse(path.read_text())
            names = [
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "threading"
                for alias in node.names
            ]
            assert names in (["Lock"], ["RLock"])


def assigned_slots(path: Path) -> set[str]:
    """The slots of a node that a file assigns to, by whatever name it knows the node."""
    others = {"self", *NO_NODES.get(name_of(path), ())}
    return {
        part.attr
        for part in ast.walk(ast.parse(path.read_text()))
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, (ast.Store, ast.Del)) and part.attr in SLOTS
        if ast.unparse(part.value) not in others
    }


def test_each_slot_of_a_node_is_assigned_in_one_module():
    writers: dict[str, set[str]] = {}
    for path in FILES:
        if not name_of(path).startswith((BESIDE, "cli.demo")):
            for slot in assigned_slots(path):
                writers.setdefault(slot, set()).add(name_of(path))
    assert not {slot: names for slot, names in writers.items() if len(names) > 1}
    assert writers.keys() | AT_FIRST == SLOTS
    health = {slot for slot, names in writers.items() if names == {"core.balancing.health"}}
    assert {"health", "state_ends_at", "ejection_ends_at", "reason", "ejections", "probe", "failed_checks"} <= health


def test_nobody_sets_an_attribute_of_a_node_by_its_name():
    for path in (ROOT / "core").rglob("*.py"):
        assert "setattr" not in path.read_text(), path


MACHINE = ("runtime", "testing", "cli")
"""Rooms with a clock and random numbers of their own."""
SOURCES = {"time": {"monotonic", "time", "perf_counter", "monotonic_ns", "time_ns"}, "datetime": {"now", "utcnow"}}
OWN = {
    ("client.engine", "random.Random"): "what its parameter `rng` is without one",
    ("integrations.aiohttp", "time.monotonic"): "when a connection came back, as aiohttp's own connector notes it",
    ("resolvers.dns.udp_client", "os.urandom"): "the ids of DNS queries; passed in as `next_id` with that default",
}


def called(path: Path) -> set[str]:
    """The full names of what a module calls, as far as its imports tell; default values of parameters are no calls."""
    tree = ast.parse(path.read_text())
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known.update({each.asname or each.name.split(".")[0]: each.name for each in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module:
            known.update({each.asname or each.name: f"{node.module}.{each.name}" for each in node.names})
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            if first in known:
                found.add(f"{known[first]}.{rest}" if rest else known[first])
    return found


def is_source(name: str) -> bool:
    module, _, rest = name.partition(".")
    return module in ("random", "secrets") or name == "os.urandom" or rest.split(".")[-1] in SOURCES.get(module, ())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_clocks_and_random_numbers_are_passed_in(path: Path):
    name = name_of(path)
    if name.split(".")[0] not in MACHINE:
        for each in filter(is_source, called(path)):
            assert (name, each) in OWN, f"{name} calls {each}(): take it as a parameter with that default"


def parameters(function: object) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("protocol_factory", "share")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("threads", "tasks"), [(Background, AsyncBackground), (Asker, AsyncAsker), (Prober, AsyncProber)]
)
def test_their_two_backgrounds_have_the_same_methods_with_the_same_parameters(threads: type, tasks: type):
    public = {name for name in vars(threads) if not name.startswith("_")} - {"close", "after_fork"}
    assert public == {name for name in vars(tasks) if not name.startswith("_")} - {"close", "aclose"}
    for name in public:
        assert parameters(getattr(threads, name)) == parameters(getattr(tasks, name)), name


def test_the_two_drivers_have_the_same_methods_with_the_same_parameters():
    renamed = {"aclose": "close", "open_connection": "connect"}
    only_async = {"create_connection"}
    public = {name for name in vars(Discovery) if not name.startswith("_") and hasattr(Discovery, name)}
    twins = {
        renamed.get(name, name): name
        for name in vars(AsyncDiscovery)
        if not name.startswith("_") and name not in only_async and hasattr(AsyncDiscovery, name)
    }
    assert public == set(twins)
    for name in public:
        mine = parameters(getattr(Discovery, name))
        other = [each for each in parameters(getattr(AsyncDiscovery, twins[name])) if each != "stream_options"]
        assert mine == other, name
    assert set(parameters(Discovery)) == set(parameters(AsyncDiscovery))
