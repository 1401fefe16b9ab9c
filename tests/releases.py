"""Releases of frameworks that there are not: the real code, with one name that is another."""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType, ModuleType
from typing import Any


def _renamed(code: CodeType, name: str) -> CodeType:
    def new(held: Any) -> Any:
        if isinstance(held, CodeType):
            return _renamed(held, name)
        return "other" if held == name and isinstance(held, str) else held

    return code.replace(co_names=tuple(map(new, code.co_names)), co_consts=tuple(map(new, code.co_consts)))


def other(part: Any, name: str, *inherited: str) -> Any:
    """A class or a function in which a name is another. It is to be looked at, not called.

    Args:
        part: the real one.
        name: the name.
        inherited: which of a class's methods that it inherits it has, too; otherwise it has its own.
    """
    if isinstance(part, type):
        held = {key: other(value, name) for key, value in vars(part).items() if callable(value) or _is_method(value)}
        for key in inherited:
            held[key] = other(getattr(part, key), name)
        return type(part.__name__, (), {key: value for key, value in held.items() if key != name})
    if isinstance(part, (classmethod, staticmethod)):
        return other(part.__func__, name)
    getter: Any = part.fget if isinstance(part, property) else part
    function = inspect.unwrap(getter)
    if not isinstance(function, FunctionType):
        return part
    made = FunctionType(
        _renamed(function.__code__, name), {}, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return property(made) if isinstance(part, property) else made


def _is_method(value: Any) -> bool:
    return isinstance(value, (classmethod, staticmethod, property))


def other_release(module: ModuleType, name: str) -> ModuleType:
    """A module as of a release in which a name is another."""
    made = ModuleType(module.__name__)
    for key, value in vars(module).items():
        own = isinstance(value, (type, FunctionType)) and value.__module__ == module.__name__
        if key != name and not key.startswith("__"):
            vars(made)[key] = other(value, name) if own else value
    return made
