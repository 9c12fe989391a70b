"""How the documentation is built: `python -m sphinx -W -n -b html docs docs/_build/html`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ecs_discovery import __version__  # noqa: E402  # the path comes first

project = "ecs_discovery"
author = "the ecs_discovery contributors"
release = version = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ecs_discovery {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_static_path = ["static"]
html_css_files = ["tables.css"]

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
