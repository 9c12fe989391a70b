"""The house rules, checked: who may import what, and that the two drivers are alike."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import ecs_discovery
from ecs_discovery import AsyncDiscovery, Discovery
from ecs_discovery.background import Background
from ecs_discovery.background_async import AsyncBackground

ROOT = Path(ecs_discovery.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Layers from the ground up: a module imports its own layer and those before it.
LAYERS = [
    {"foreign_text"},
    {"errors"},
    {"models"},
    {"rules"},
    {"policies", "events", "context"},
    {"settings"},
    {"core"},
    {
        *("resolvers", "_fork", "metadata", "judging", "flights", "workers", "retrying", "sockets", "snapshot"),
        *("transports", "telling"),
    },
    {"alarms"},
    {"engine"},
    {"attempts", "checking", "leases", "background", "background_async"},
    {"racing", "hedging", "hedging_async"},
    {"client", "aio"},
    {"defaults"},
    {"integrations"},
    {"cli"},
]
FREE = {"lab"}  # stands beside: a world to run in, which knows nothing of the client
HOMES = {
    "dns": {"resolvers.dns", "lab", "cli"},
    "aiodns": {"resolvers.dns_async"},
    "pycares": {"resolvers.dns_async"},
    "boto3": {"resolvers.cloud_map"},
    "botocore": {"resolvers.cloud_map"},
    "tenacity": {"retrying"},
    "requests": {"integrations.requests", "integrations.requests_errors", "integrations.requests_exchange", "cli"},
    "urllib3": {"integrations"},
    "h11": {"lab", "cli"},
    "click": {"cli"},
    "rich": {"cli"},
}
CORE_MAY = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "threading",
    "typing",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> list[str]:
    """Every module that a file imports at run time, wherever in it."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            module = node.module or ""
            found.extend(f"{module}.{alias.name}" if module == "ecs_discovery" else module for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return sorted(set(found))


def layer(module: str) -> int:
    top = module.split(".")[0]
    return next(index for index, names in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path: Path):
    name = name_of(path)
    top = name.split(".")[0]
    if not name:
        return
    for module in imports(path):
        if not module.startswith("ecs_discovery."):
            continue
        other = module.removeprefix("ecs_discovery.")
        other_top = other.split(".")[0]
        if other_top == "__version__":
            continue
        if top in FREE:
            assert other_top in {*FREE, "models", "errors"}, f"{name} imports {other}"
        elif other_top in FREE:
            assert top == "cli", f"{name} imports {other}"
        else:
            assert layer(other) <= layer(name), f"{name} imports {other}"


def test_the_two_drivers_do_not_import_each_other():
    assert "ecs_discovery.aio" not in imports(ROOT / "client.py")
    assert "ecs_discovery.client" not in imports(ROOT / "aio.py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_third_party_package_has_one_home(path: Path):
    name = name_of(path)
    for module in imports(path):
        homes = HOMES.get(module.split(".")[0])
        if homes is not None:
            assert any(name == home or name.startswith(f"{home}.") for home in homes), f"{name} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "core").glob("*.py")), ids=name_of)
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


def parameters(function: object) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("protocol_factory", "share")]  # type: ignore[arg-type]


def test_their_two_backgrounds_have_the_same_methods_with_the_same_parameters():
    public = {name for name in vars(Background) if not name.startswith("_")} - {"after_fork", "close"}
    assert public == {name for name in vars(AsyncBackground) if not name.startswith("_")} - {"aclose"}
    for name in public:
        assert parameters(getattr(Background, name)) == parameters(getattr(AsyncBackground, name)), name


def test_the_two_drivers_have_the_same_methods_with_the_same_parameters():
    renamed = {"aclose": "close", "open_connection": "connect"}
    only_async = {"create_connection"}
    public = {name for name in vars(Discovery) if not name.startswith("_")}
    twins = {
        renamed.get(name, name): name
        for name in vars(AsyncDiscovery)
        if not name.startswith("_") and name not in only_async
    }
    assert public == set(twins)
    for name in public:
        mine = parameters(getattr(Discovery, name))
        other = [each for each in parameters(getattr(AsyncDiscovery, twins[name])) if each != "stream_options"]
        assert mine == other, name
    assert set(parameters(Discovery)) == set(parameters(AsyncDiscovery))
