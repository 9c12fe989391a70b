"""How the documentation is built: `python -m sphinx -W -n -b html docs docs/_build/html`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from ecs_discovery import __version__  # noqa: E402  # the path comes first

project = "ecs_discovery"
author = "the ecs_discovery contributors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "policy_tables"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = f"ecs_discovery {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings put names into single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}

# The documentation is built without a network, so that names of the standard library lead nowhere.
nitpick_ignore_regex = [
    (r"py:.*", r"(asyncio|collections|concurrent|random|socket|ssl|threading|types|typing|pathlib|enum)\..*"),
    (r"py:.*", r"ssl_module\..*"),  # `ssl`, under the name that leaves an argument `ssl` its own
    (r"py:.*", r"(aiohttp|dns|grpc|httpx|httpx2|opentelemetry|requests|urllib3)\..*"),
    (r"py:.*", r"ecs_discovery\.integrations\.(.*Options|_.*)"),  # what a library's own classes take
    (r"py:.*", r"(Any|Callable|Mapping|Sequence|Random|Self|C|T|P|Retrying|OSError|ValueError|TimeoutError|Exception)"),
    # What is public only as the type of an attribute or argument, and described where it is used.
    (r"py:.*", r"ecs_discovery\.(core|client\.(engine|failures|sync|aio|lease_scope)|runtime\.single_flight)\..*"),
    (r"py:.*", r"ecs_discovery\.(config\.(fields\.Policy|targets\.Target)|models\.Value)"),
    (r"py:.*", r"(ecs_discovery\.config\.settings\.)?Policies"),
    (
        r"py:.*",
        r"ecs_discovery\.testing\.lab\.(tasks|service|zone|faults|nameserver|ecs|loop|replies|connection|cloud_map|registry)\..*",
    ),
    (r"py:.*", r"(Service|Telemetry|A|U|R)"),
]

# Files outside of this folder are links on a Git host. Here they are files to download, and the changelog is a page.
_OUTSIDE = re.compile(r"\[([^\]]*)\]\((\.\./[^)#]+)(?:#[^)]*)?\)")


def _inside(_app: Any, docname: str, source: list[str]) -> None:
    if docname == "changelog":
        source[0] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    elif "/" not in docname:
        source[0] = _OUTSIDE.sub(r"{download}`\1 <\2>`", source[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _inside)
