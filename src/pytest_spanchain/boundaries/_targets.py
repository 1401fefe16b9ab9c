"""Which functions a user means by ``"shop.tools:refund"``, ``"shop.tools:Shop.refund"`` or ``"shop.tools:*"``."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

from ..errors import UsageError

_WILD = set("*?[")


@dataclass(frozen=True)
class Target:
    """A function to be recorded.

    Args:
        function: the function.
        name: name of the tool; for a method ``Class.method``.
        bound: whether its first argument is the receiver.
    """

    function: FunctionType
    name: str
    bound: bool


def resolve(target: str | Callable[..., Any]) -> list[Target]:
    """The functions that ``target`` names; modules are imported.

    Args:
        target: ``module:path``, where the last part of the path may be a glob (public functions defined in that module
            or class), or a function.

    Raises:
        UsageError: there is no such module or attribute, or it is not a Python function.
    """
    if isinstance(target, MethodType):
        target = target.__func__
    if isinstance(target, FunctionType):
        return [Target(target, tool_name(target), is_method(target))]
    if not isinstance(target, str):
        raise UsageError(f"tool {target!r}: a {type(target).__qualname__} is not a Python function; {_REMEDY}")
    module_name, colon, path = target.partition(":")
    if not colon or not module_name or not path:
        raise UsageError(
            f"tool {target!r}: write it as 'package.module:function', 'package.module:Class.method' or ':*'"
        )
    owner: Any = _module(module_name, target)
    *parents, last = path.split(".")
    for parent in parents:
        owner = _member(owner, parent, target)
    if _WILD & set(last):
        found = list(_matching(owner, last, module_name))
        if not found:
            raise UsageError(f"tool {target!r}: nothing public that is defined there matches {last!r}")
        return found
    return [_target(owner, last, _member(owner, last, target), target)]


def tool_name(function: Any) -> str:
    """The name by which a function is recorded: its own, after its class if it has one."""
    return str(function.__qualname__).rpartition("<locals>.")[2]


def is_method(function: Any) -> bool:
    """Whether a bare function looks like one that is defined in a class and takes its receiver first."""
    parent = str(function.__qualname__).rpartition(".")[0]
    code = inspect.unwrap(function).__code__
    first = code.co_varnames[: min(code.co_argcount, 1)]
    return bool(parent) and not parent.endswith("<locals>") and first[:1] in {("self",), ("cls",), ("mcs",)}


_REMEDY = "decorate it with spanchain.tool where it is defined, or name the function that it calls"


def _module(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise UsageError(f"tool {target!r}: importing {name} failed: {error}") from error
        raise UsageError(f"tool {target!r}: there is no module {name}{_nearest(name, _module_names(name))}") from error
    except Exception as error:
        raise UsageError(f"tool {target!r}: importing {name} failed: {type(error).__name__}: {error}") from error


def _module_names(name: str) -> Iterator[str]:
    yield from list(sys.modules)
    parent, _, _ = name.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    if path is not None or not parent:
        for info in pkgutil.iter_modules(path):
            yield f"{parent}.{info.name}" if parent else info.name


def _member(owner: Any, name: str, target: str) -> Any:
    try:
        return inspect.getattr_static(owner, name)
    except AttributeError:
        names = [known for known in dir(owner) if not known.startswith("__")]
        kind = "class" if isinstance(owner, type) else "module"
        raise UsageError(f"tool {target!r}: {kind} {owner.__name__} has no {name!r}{_nearest(name, names)}") from None


def _nearest(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, [known for known in names if known != name], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _target(owner: Any, name: str, member: Any, target: str) -> Target:
    function = _function(member)
    if function is None:
        kind = type(member)
        raise UsageError(
            f"tool {target!r}: {name} is a {kind.__module__}.{kind.__qualname__}, not a Python function; {_REMEDY}"
        )
    bound = isinstance(owner, type) and not isinstance(member, staticmethod)
    return Target(function, f"{owner.__qualname__}.{name}" if isinstance(owner, type) else tool_name(function), bound)


def _function(member: Any) -> FunctionType | None:
    inner = member.__func__ if isinstance(member, (staticmethod, classmethod, MethodType)) else member
    return inner if isinstance(inner, FunctionType) else None


def _matching(owner: Any, pattern: str, module_name: str) -> Iterator[Target]:
    for name, member in list(vars(owner).items()):
        function = _function(member)
        if function is None or name.startswith("_") or not fnmatch.fnmatchcase(name, pattern):
            continue
        if function.__module__ == module_name:  # imported names belong to the module that defines them
            yield _target(owner, name, member, name)
