"""Writes the tables of docs/configuration.md and all of docs/reference.md: `python docs/make_reference.py`.

The pages hold what is written, so that they can be read where no documentation is built.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import ecs_discovery  # noqa: E402  # the path comes first
from ecs_discovery import errors, events  # noqa: E402  # the path comes first
from ecs_discovery.config import policies  # noqa: E402
from ecs_discovery.config.fields import unreadable  # noqa: E402

BEGIN, END = "<!-- policies: begin -->", "<!-- policies: end -->"
_DEFAULT = re.compile(r"\s*\bDefault (?:`[^`]*`|[^\s(,;:]*[^\s(,;:.])(?:(?: s)? \((?P<source>[^()]+)\))?\.$")
_SOURCE = re.compile(r"\bDefault [^.]*?(?:\(([^()]+)\)|, as (Route 53) )")
_PROJECT = "ecs_discovery"

# What is shown: a heading, and names as they are imported. After a name: the only members to show, or "-" and the
# members to leave out.
PARTS: list[tuple[str, str, list[str]]] = [
    (
        "Discoveries",
        "",
        [
            "ecs_discovery.Discovery",
            "ecs_discovery.AsyncDiscovery",
            "ecs_discovery.LeaseContext - node open",
            "ecs_discovery.AsyncLeaseContext - node open",
            "ecs_discovery.Attempt host port remaining",
            "ecs_discovery.AsyncAttempt watch",
        ],
    ),
    ("requests", "", ["ecs_discovery.wrap_session", "ecs_discovery.unwrap_session"]),
    (
        "httpx",
        "",
        [
            "ecs_discovery.wrap_client",
            "ecs_discovery.unwrap_client",
            "ecs_discovery.integrations.httpx.DiscoveryTransport =",
            "ecs_discovery.integrations.httpx.AsyncDiscoveryTransport =",
        ],
    ),
    ("urllib3", "", ["ecs_discovery.integrations.urllib3.DiscoveryPoolManager discovery clear"]),
    (
        "aiohttp",
        "",
        [
            "ecs_discovery.integrations.aiohttp.client_session",
            "ecs_discovery.integrations.aiohttp.DiscoveryConnector =",
        ],
    ),
    (
        "gRPC",
        "",
        [
            "ecs_discovery.integrations.grpc.insecure_channel",
            "ecs_discovery.integrations.grpc.secure_channel",
            "ecs_discovery.integrations.grpc.aio.insecure_channel",
            "ecs_discovery.integrations.grpc.aio.secure_channel",
        ],
    ),
    ("Programs as they are", "", ["ecs_discovery.install"]),
    ("Options of one request", "", ["ecs_discovery.options"]),
    (
        "Settings",
        "The policies are on the page [configuration](configuration.md): "
        + ", ".join(f"`ecs_discovery.{name}`" for name in policies.__all__ if name.endswith("Policy"))
        + ".",
        ["ecs_discovery.ServiceConfig =", "ecs_discovery.Settings make owns"],
    ),
    (
        "Values",
        "",
        [
            "ecs_discovery.Endpoint",
            "ecs_discovery.Question",
            "ecs_discovery.Resolution",
            "ecs_discovery.ServiceSnapshot",
            "ecs_discovery.NodeSnapshot",
            "ecs_discovery.CheckSnapshot",
            "ecs_discovery.PickSnapshot",
            "ecs_discovery.CandidateSnapshot",
        ],
    ),
    (
        "The task",
        "",
        ["ecs_discovery.runtime.task_metadata.task_metadata", "ecs_discovery.runtime.task_metadata.TaskMetadata"],
    ),
    (
        "Resolvers",
        "",
        [
            "ecs_discovery.Resolver",
            "ecs_discovery.AsyncResolver",
            "ecs_discovery.resolvers.base.Remembering",
            "ecs_discovery.resolvers.cloud_map.sync.CloudMapResolver - submit after_fork",
            "ecs_discovery.resolvers.cloud_map.aio.AsyncCloudMapResolver",
        ],
    ),
    (
        "Telemetry",
        "",
        [
            "ecs_discovery.telemetry.opentelemetry.OpenTelemetry - after_fork attach call_started",
            "ecs_discovery.telemetry.opentelemetry.instrument",
        ],
    ),
    (
        "Events",
        "`ecs_discovery.Event` is any of these.",
        [f"ecs_discovery.events.{name}" for name in events.__all__ if inspect.isclass(getattr(events, name))],
    ),
    (
        "Errors",
        "[Errors](errors.md) has the tree, and [troubleshooting](troubleshooting.md#error-classes) the causes.",
        [f"ecs_discovery.errors.{name}" for name in errors.__all__ if inspect.isclass(getattr(errors, name))],
    ),
    (
        "The lab",
        "",
        [
            "ecs_discovery.testing.lab.Lab",
            "ecs_discovery.testing.lab.LabService - start_task apply_pending end listing",
            "ecs_discovery.testing.lab.Deployment",
            "ecs_discovery.testing.lab.LabTask - start end put_in_force wind_down draining hanging answer ended",
            "ecs_discovery.testing.lab.NameServer - end datagram_received",
            "ecs_discovery.testing.lab.CloudMap - serve forget end draining hanging ended answer",
        ],
    ),
]

_Found = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


# Policies


def policy_tables() -> str:
    """A section with a table for every policy."""
    return "\n\n".join(_policy(getattr(policies, name)) for name in policies.__all__ if name.endswith("Policy"))


def _policy(policy: type[Any]) -> str:
    prefix = "ECS_DISCOVERY_" + policy.__name__.removesuffix("Policy").upper()
    docs = _attributes(_node(policy))
    lines = [f"### {policy.__name__}", "", inspect.getdoc(policy) or "", ""]
    lines += ["| Field and variable | Default, allowed | Meaning |", "|---|---|---|"]
    for field, rule in policy._rules.items():
        meaning = docs[field]
        match = _DEFAULT.search(meaning)
        source = match["source"] if match else None
        if match:
            meaning = meaning[: match.start()]
        elif said := _SOURCE.search(meaning):
            source = said[1] or said[2]
        variable = "(in code only)" if rule.read is unreadable else f"`{prefix}_{field.upper()}`"
        told = f"Source: {source}." if source else "Source: this project."
        cells = (f"`{field}`<br>{variable}", f"`{policy._defaults[field]!r}`<br>{rule.words}", f"{meaning}<br>{told}")
        lines.append("| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


# API


def reference() -> str:
    """The page."""
    lines = ["# API", "", "Import names shown as `ecs_discovery.X` from the package, all others from their module."]
    for heading, text, names in PARTS:
        lines += ["", f"## {heading}", ""]
        lines += [text, ""] if text else []
        for name in names:
            path, _, members = name.partition(" ")
            lines += [*_entry(path, members.split()), ""]
        lines.pop()
    return "\n".join(lines) + "\n"


def _entry(path: str, members: list[str]) -> Iterator[str]:
    module, _, name = path.rpartition(".")
    found = inspect.unwrap(getattr(importlib.import_module(module), name))
    node = _node(found)
    exported = getattr(ecs_discovery, name, None) is getattr(importlib.import_module(module), name)
    path = f"{_PROJECT}.{name}" if exported else path
    short = path if exported else name
    yield from (f"### {short}", "")
    if path != short:
        yield from (f"In `{module}`.", "")
    if isinstance(node, ast.ClassDef):
        yield from _class(found, node, name, members)
    else:
        yield from (*_signature(node, name), "", *_doc(node))


def _class(found: type[Any], node: ast.ClassDef, name: str, members: list[str]) -> Iterator[str]:
    bases = [
        base.__name__ for base in found.__bases__ if base.__module__.startswith(_PROJECT) or issubclass(base, Exception)
    ]
    if bases == ["Value"]:
        yield from ("Frozen. `dataclasses.replace`, `fields` and `asdict` take it.", "")
    elif bases:
        yield from (f"A `{'`, `'.join(bases)}`.", "")
    init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if init is not None and not issubclass(found, BaseException):
        yield from (*_signature(init, name, method=True), "")
    yield from _doc(node)
    own = members[1:] if members[:1] == ["-"] else []
    only = None if not members or members[0] == "-" else set(members)
    rows = []
    for attribute, text in _attributes(node).items():
        if not attribute.startswith("_") and attribute not in own and (only is None or attribute in only):
            rows.append(f"- `{attribute}`: {_one_line(text)}")
    for each in _methods(found, node):
        if each.name in own or not (only is None or each.name in only):
            continue
        text = _one_line(ast.get_docstring(each) or "")
        if any(getattr(mark, "id", "") == "property" for mark in each.decorator_list):
            rows.append(f"- `{each.name}`: {text}")
        else:
            kind = "async " if isinstance(each, ast.AsyncFunctionDef) else ""
            rows += ["", f"**{kind}{each.name}**", "", *_signature(each, each.name, method=True), "", text]
    if rows:
        yield from ("", *(rows[1:] if rows[0] == "" else rows))


def _methods(found: type[Any], node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public methods, of the bases in this package too."""
    seen = set()
    for kind in found.__mro__:
        if not kind.__module__.startswith(_PROJECT):
            continue
        body = node.body if kind is found else _node(kind).body
        for each in body:
            overload = isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                getattr(mark, "id", getattr(mark, "attr", "")) in ("overload", "setter") for mark in each.decorator_list
            )
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not overload and each.name not in seen:
                seen.add(each.name)
                if not each.name.startswith("_") and ast.get_docstring(each):
                    yield each


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, *, method: bool = False) -> list[str]:
    """The arguments, one a line."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    shown = [_argument(each, default) for each, default in zip(positional, defaults, strict=True)]
    if method and shown and positional[0].arg in ("self", "cls"):
        shown = shown[1:]
    if given.vararg:
        shown.append("*" + _argument(given.vararg, None))
    elif given.kwonlyargs:
        shown.append("*")
    shown += [_argument(each, default) for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        shown.append("**" + _argument(given.kwarg, None))
    answer = f" -> {ast.unparse(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    inside = ["    " + each + "," for each in shown]
    head = [f"{name}(", *inside, f"){answer}"] if shown else [f"{name}(){answer}"]
    return ["```text", *head, "```"]


def _argument(given: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(given.annotation)}" if given.annotation is not None else ""
    return f"{given.arg}{kind}" + (f" = {ast.unparse(default)}" if default is not None else "")


def _doc(node: _Found) -> list[str]:
    return (ast.get_docstring(node) or "").splitlines()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _attributes(node: _Found) -> dict[str, str]:
    """What stands below each attribute of a class, and of its `__init__`."""
    found = {}
    bodies = [node.body]
    bodies += [each.body for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    for body in bodies:
        for before, item in pairwise(body):
            target = getattr(before, "target", None) or next(iter(getattr(before, "targets", [])), None)
            if (
                isinstance(item, ast.Expr)
                and isinstance(item.value, ast.Constant)
                and isinstance(item.value.value, str)
            ):
                name = getattr(target, "id", getattr(target, "attr", ""))
                if name:
                    found[name] = _one_line(item.value.value)
    return found


_trees: dict[str, ast.Module] = {}


def _node(found: Any) -> Any:
    source = inspect.getsourcefile(found)
    assert source is not None
    if source not in _trees:
        _trees[source] = ast.parse(Path(source).read_text(encoding="utf-8"))
    wanted = found.__qualname__.split(".")[-1]
    nodes = [each for each in ast.walk(_trees[source]) if isinstance(each, _Found) and each.name == wanted]
    return next((each for each in nodes if ast.get_docstring(each)), nodes[0])


def made() -> dict[str, str]:
    """The text of each page."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    return {
        "configuration.md": f"{before}{BEGIN}\n\n{policy_tables()}\n\n{END}{rest.partition(END)[2]}",
        "reference.md": reference(),
    }


if __name__ == "__main__":
    for name, text in made().items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")
