"""Calls a function after a module was imported, whenever that is. Imports nothing that a program might patch first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ImportHook"]

After = Callable[[Any], object]


class ImportHook:
    """A finder for `sys.meta_path` that lets the others find, and has `after` called once for each of its modules."""

    def __init__(self, after: Mapping[str, After]) -> None:
        self._after = dict(after)
        self._finding: set[str] = set()

    def begin(self) -> None:
        """Call what belongs to modules that are imported already, and wait for the others."""
        for name in list(self._after):
            module = sys.modules.get(name)
            # A module in the middle of its import is not looked for again: no finder will be asked for it.
            if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
                self._call(name, module)
        if self._after and self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec that the other finders give, whose loader tells us when it has run the module."""
        if name not in self._after or name in self._finding:  # another finder like this one asks back
            return None
        self._finding.add(name)
        try:
            for finder in sys.meta_path:
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec = find(name, path, target) if find is not None else None
                if spec is not None:
                    self._follow(name, spec.loader)
                    return spec
        finally:
            self._finding.discard(name)
        return None

    def _follow(self, name: str, loader: Any) -> None:
        plain = getattr(loader, "exec_module", None)
        if plain is None:
            return

        def exec_module(module: Any) -> None:
            plain(module)
            if getattr(module, "__name__", None) == name:
                vars(loader).pop("exec_module", None)
                self._call(name, module)

        try:
            loader.exec_module = exec_module  # of this loader alone: its class stays what tools expect
        except AttributeError:
            pass

    def _call(self, name: str, module: Any) -> None:
        after = self._after.pop(name, None)
        if after is not None:
            after(module)
