"""A directive that writes the table of every policy field from the dataclasses, so that it cannot go stale."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

from ecs_discovery.config import policies
from ecs_discovery.config.fields import unreadable

_HEAD = ("Field", "Default", "Allowed", "Variable", "Meaning")


def rows(policy: type[Any]) -> list[tuple[str, ...]]:
    """One row per field: its name, default, what is allowed, its variable, its meaning."""
    docs = ModuleAnalyzer.for_module(policies.__name__).find_attr_docs()
    prefix = "ECS_DISCOVERY_" + policy.__name__.removesuffix("Policy").upper()
    found = []
    for item in fields(policy):
        rule = item.metadata["rule"]
        words = rule.words
        variable = "in code only" if rule.read is unreadable else f"`{prefix}_{item.name.upper()}`"
        meaning = " ".join(docs[policy.__name__, item.name]).strip()
        found.append((f"`{item.name}`", f"`{item.default!r}`", words, variable, meaning))
    return found


class PolicyTables(Directive):
    """`{policy-tables}` in a Markdown page: a section with a table for every policy."""

    def run(self) -> list[nodes.Node]:
        written: list[nodes.Node] = []
        for name in policies.__all__:
            policy = getattr(policies, name)
            if not inspect.isclass(policy):
                continue
            section = nodes.section(ids=[nodes.make_id(name)], names=[name.lower()])
            section += nodes.title(text=name)
            table = [_HEAD, ("---",) * len(_HEAD), *rows(policy)]
            lines = [inspect.getdoc(policy) or "", "", *(f"| {' | '.join(row)} |" for row in table)]
            self.state.nested_parse(StringList(lines, source=f"policies.{name}"), 0, section)
            if not list(section.findall(nodes.table)):
                raise self.error(f"the fields of {name} did not become a table")
            written.append(section)
        return written


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("policy-tables", PolicyTables)
    return {"version": "1", "parallel_read_safe": True}
