"""What the user's modules call their functions: an index of each module, made anew when the module has changed.

A look into all modules of a project for every test would cost more than the test. So each module is indexed once, and
looked at again only if one of its globals is another object than it was. What was replaced under the very name that is
looked for is seen without it, in modules and in classes.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

from . import _own, _targets
from ._fit import spellings

NAME_FIELDS = ("name", "tool_name")
"""Where objects that are tools keep their names."""

_DEPTH = 4
_CALLABLE = (BuiltinFunctionType, FunctionType, MethodType)
_OPAQUE = (str, bytes, int, float, complex, bool, type(None), ModuleType)


@dataclass(frozen=True)
class Named:
    """A function, and what it goes by.

    Args:
        reference: the function, which the index does not keep alive.
        text: a name under which it stands, or its own.
        bound: whether its first parameter is a receiver.
    """

    reference: weakref.ref[FunctionType]
    text: str
    bound: bool


class Module:
    """The index of one module."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.functions: dict[str, list[Named]] = {}
        self.classes: list[weakref.ref[type]] = []
        self.named: list[weakref.ref[type]] = []
        self.others: list[str] = []
        self.space = space
        for key, value in list(space.items()):
            if isinstance(value, type):
                if value.__module__ == space.get("__name__") and _own.is_users_class(value):
                    self._add_class(value)
            elif type(value) in _OPAQUE or (key.startswith("__") and key.endswith("__")):
                continue
            elif not self._add(key, value, _targets.is_method, _DEPTH) and not _is_dull(value):
                self.others.append(key)
        self._stamp = self._stamped()

    def is_current(self) -> bool:
        """Whether the module is as it was when this index was made."""
        return self._stamp == self._stamped()

    def _stamped(self) -> tuple[int, ...]:
        return tuple(map(id, list(self.space.values())))

    def _add_class(self, cls: type) -> None:
        self.classes.append(weakref.ref(cls))
        members = type.__getattribute__(cls, "__dict__")
        if any(type(members.get(field)) is str for field in NAME_FIELDS):
            self.named.append(weakref.ref(cls))
        for key, member in list(members.items()):
            inner = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
            bound = not isinstance(member, staticmethod)
            if isinstance(inner, type):
                if inner.__module__ == cls.__module__ and inner.__qualname__.startswith(f"{cls.__qualname__}."):
                    self._add_class(inner)
            else:
                self._add(key, inner, lambda function, bound=bound: bound, _DEPTH)

    def _add(self, key: str, value: Any, bound: Any, depth: int) -> bool:
        """Note a function, and what it wraps; says whether there was any."""
        if type(value) is MethodType:
            return self._add(key, value.__func__, lambda function: True, depth)
        wrapped = behind(value)
        if type(value) is FunctionType:
            self._note(key, value, bound(value))
        if depth:
            for inner in wrapped:
                self._add(inner.__name__ if type(inner) is FunctionType else "", inner, bound, depth - 1)
        return type(value) is FunctionType or bool(wrapped)

    def _note(self, key: str, function: FunctionType, bound: bool) -> None:
        if not _own.is_users_file(function.__code__.co_filename):
            return
        reference = weakref.ref(function)
        for text in dict.fromkeys([key, function.__name__]):
            for spelling in spellings(text):
                self.functions.setdefault(spelling, []).append(Named(reference, text, bound))


def _is_dull(value: Any) -> bool:
    """Whether this is a library's class or function, which most of a module's imports are."""
    return isinstance(value, (type, *_CALLABLE)) or type(value).__module__ in ("typing", "types", "__future__", "re")


def behind(value: Any) -> list[Any]:
    """What a function or another callable wraps: by ``__wrapped__``, or in its closure."""
    if type(value) is FunctionType:
        cells = [cell for cell in value.__closure__ or () if type(cell) is CellType]
        found = [vars(value).get("__wrapped__"), *map(content, cells)]
    else:
        # Not ``vars``: it may be anything, of any class.
        found = [getattr(value, "__wrapped__", None)] if type(value).__module__ == "functools" else []
    return [one for one in found if type(one) in (FunctionType, MethodType) or type(one).__module__ == "functools"]


def content(cell: CellType) -> Any:
    """What a closure's cell holds; ``None`` while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


_modules: dict[str, Module] = {}
_imported: tuple[int, str, tuple[str, ...]] = (0, "", ())
_users: list[str] = []


def modules() -> Iterator[Module]:
    """The user's modules, in the order in which they were imported."""
    for name in _names():
        space = space_of(sys.modules.get(name))
        known = _modules.get(name)
        if known is None or known.space is not space or not known.is_current():
            known = _modules[name] = Module(space)
        yield known


def _names() -> list[str]:
    """Names of the user's modules; looked for again when something was imported, which is put at the end."""
    global _imported
    imported = len(sys.modules), next(reversed(sys.modules)), _own.homes()
    if imported != _imported:
        homes = [(name, space_of(module).get("__file__")) for name, module in list(sys.modules.items())]
        _users[:] = [name for name, home in homes if isinstance(home, str) and _own.is_users_file(home)]
        _imported = imported
    return list(_users)


def space_of(module: Any) -> dict[str, Any]:
    """A module's globals, without waking up what loads lazily; some put other things among the modules."""
    return object.__getattribute__(module, "__dict__") if issubclass(type(module), ModuleType) else {}
