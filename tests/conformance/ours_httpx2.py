"""The plugin `ours_httpx` with httpx2 in the place of httpx: httpx's own test suite, as far as httpx2 passes it."""

from __future__ import annotations

import httpx2

httpx2.alias_httpx()

from ours_httpx import *  # noqa: E402, F403
