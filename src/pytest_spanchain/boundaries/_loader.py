"""Tells that a module has been imported, right after its code has run and before anybody can use it."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Watcher(importlib.abc.MetaPathFinder):
    """Finds modules like everybody else, and tells of those that are wanted.

    Args:
        wants: whether a module of that name may be wanted; asked before it is looked for.
        has: whether it is, by its spec.
        told: told of it.
    """

    def __init__(
        self,
        *,
        wants: Callable[[str], bool],
        told: Callable[[str, ModuleType], None],
        has: Callable[[ModuleSpec], bool] = lambda spec: True,
    ) -> None:
        self._wants = wants
        self._has = has
        self._told = told
        self._looking = threading.local()

    def start(self) -> None:
        """Watch from now on."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Watch no more; safe to call twice."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        if getattr(self._looking, "now", False) or not self._wants(fullname):
            return None
        self._looking.now = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking.now = False
        if spec is not None and spec.loader is not None and self._has(spec):
            spec.loader = _TellingLoader(spec.loader, self._told)
        return spec


class _TellingLoader(importlib.abc.Loader):
    def __init__(self, loader: Any, told: Callable[[str, ModuleType], None]) -> None:
        self._loader = loader
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # where its sources and its data are

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._told(spec.name, module)
