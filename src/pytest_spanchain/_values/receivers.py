"""What the receiver of a method shows of itself: who it is, never what state it is in.

In replay no method of a tool runs, so whatever methods change in ``self`` (a balance, a counter, a cache) is another
value there, and comparing it would blame an agent that did not change. A receiver shows its class, and of the
arguments it was made with those that stayed as they were:

* parameters of ``__init__`` (fields of a dataclass or model) kept under their name, or that with an underscore before;
* that no other code of the class assigns, by its bytecode;
* whose values cannot change (text, numbers, booleans, ``None``, enum members, tuples of these);
* that do not depend on the machine or the day: not made by a default factory, no URL or absolute path, no UUID, and
  not called like a credential or an address (``api_key``, ``port``, ...).

A receiver that is immutable data itself (an enum member, a named tuple, a text) shows it. Of a ``classmethod`` the
class is shown.
"""

from __future__ import annotations

import dis
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any

from .objects import Parts, is_model, solid_base, state_of, uncompared
from .trust import type_name

_MAKERS = frozenset(
    {"__init__", "__new__", "__post_init__", "__attrs_init__", "__attrs_post_init__", "model_post_init", "__setstate__"}
)
_PLAIN = (str, int, float, bool, type(None), bytes, Decimal)
_CREDENTIALS = {"key", "keys", "token", "tokens", "secret", "secrets", "password", "passwd", "credentials", "auth"}
_PLACES = {"url", "uri", "host", "hostname", "endpoint", "port", "address", "pid", "path", "dir", "directory", "root"}
_MACHINE_NAMES = _CREDENTIALS | _PLACES | {"credential", "home", "timeout", "version"}
_MACHINE_TEXT = re.compile(r"\A(?:/|~|[A-Za-z]:[\\/]|\\\\)|://|\A[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\Z", re.I)

BodyOf = Callable[[Any], Any]
_kept: weakref.WeakKeyDictionary[type, dict[BodyOf, tuple[str, ...]]] = weakref.WeakKeyDictionary()


def _itself(function: Any) -> Any:
    return function


@dataclass(frozen=True)
class Receiver:
    """Tells the encoder that a value is the receiver of a method.

    Args:
        of: the first argument of the method.
        body_of: gives the function that runs behind one that is patched.
    """

    of: Any
    body_of: BodyOf = _itself

    @property
    def is_whole(self) -> bool:
        """Whether it cannot change, so that it is shown as an argument is: a class, or immutable data."""
        return issubclass(type(self.of), (type, Enum)) or solid_base(type(self.of)) in (tuple, str, int, float, bytes)

    def parts(self) -> Parts | None:
        """The parts that take part in matching; ``None`` if only its type does."""
        cls = type(self.of)
        state = state_of(self.of)
        shown = {name: state[name] for name in _lasting(cls, self.body_of) if name in state and _lasts(state[name])}
        return Parts("$object", type_name(cls), {"fields": shown}) if shown else None


def _lasts(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_lasts, value))
    if type(value) is str:
        return _MACHINE_TEXT.search(value) is None
    return type(value) in _PLAIN or issubclass(type(value), Enum)


def _lasting(cls: type, body_of: BodyOf) -> tuple[str, ...]:
    """Names of the attributes that say who an instance is; the same for all, so found once."""
    known = _kept.setdefault(cls, {})
    if body_of not in known:
        stored: set[str] = set()
        made_with: set[str] = set()
        sure = True
        for layer in cls.__mro__:
            for name, member in list(vars(layer).items()):
                for code in _codes(member, body_of):
                    if code is None:
                        sure = False
                    elif name not in _MAKERS:
                        stored.update(_stores(code))
                    elif name == "__init__":
                        made_with.update(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
        made_with = (made_with | _model_fields(cls)) - _generated(cls)
        names = {name for one in made_with if not _names_machine(one) for name in (one, f"_{one}")}
        known[body_of] = tuple(sorted(names - stored)) if sure else ()
    return known[body_of]


def _names_machine(name: str) -> bool:
    return not _MACHINE_NAMES.isdisjoint(name.lower().split("_"))


def _model_fields(cls: Any) -> set[str]:
    return set(cls.__pydantic_fields__) if is_model(cls) else set()


def _generated(cls: Any) -> set[str]:
    """Fields that a factory fills, or whose author takes them out of comparisons."""
    found = uncompared(cls)
    if is_dataclass(cls):
        found |= {one.name for one in fields(cls) if one.default_factory is not MISSING}
    if is_model(cls):
        found |= {name for name, one in cls.__pydantic_fields__.items() if one.default_factory is not None}
    if "attr" in sys.modules:
        factory = sys.modules["attr"].Factory
        for one in getattr(cls, "__attrs_attrs__", ()):
            if isinstance(one.default, factory) or one.name in found:
                found |= {one.name, one.name.lstrip("_")}
    return found


def _codes(member: Any, body_of: BodyOf, depth: int = 8) -> Iterator[types.CodeType | None]:
    """The code behind an attribute of a class, through decorators; ``None`` for code that a patch hides."""
    if depth == 0:
        return
    kind = type(member)  # ``isinstance`` would ask the member itself, which may be a proxy
    if issubclass(kind, (staticmethod, classmethod, types.MethodType)):
        yield from _codes(member.__func__, body_of, depth - 1)
    elif issubclass(kind, property):
        for part in (member.fget, member.fset, member.fdel):
            yield from _codes(part, body_of, depth - 1)
    elif issubclass(kind, cached_property):
        yield from _codes(member.func, body_of, depth - 1)
    elif kind is types.FunctionType:
        function = body_of(member)
        wrapped = vars(function).get("__wrapped__")
        # Only a patch puts a live object among the constants of a function.
        hidden = wrapped is None and any(callable(constant) for constant in function.__code__.co_consts)
        yield None if hidden else function.__code__
        behind = [wrapped, *map(_content, function.__closure__ or ())]
        for inner in behind:
            if type(inner) is types.FunctionType:
                yield from _codes(inner, body_of, depth - 1)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _stores(code: types.CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _stores(constant)
