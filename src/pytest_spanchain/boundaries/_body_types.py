"""Which classes the result of a framework's tool may hold, told by the body that the framework hands over.

Invariant: what is remembered of a body keeps neither it nor what it holds alive. An object whose method was a tool, and
a class that a test defines, are collected like any other.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any

from .._values import trusted_types
from .._values.trust import LazyTypes

_KEPT = 8
"""How many sets of further classes are remembered of one body; nearly always there is one."""


def body_types(function: Callable[..., Any], *classes: type) -> Mapping[str, type]:
    """``trusted_types`` of what runs behind a partial, a method or an object that is called."""
    body = code_of(function)
    body = body.__func__ if isinstance(body, MethodType) else body
    if not isinstance(body, FunctionType):
        return trusted_types(body, *classes)
    kept = _kept.setdefault(body, {})
    key = tuple(map(weakref.ref, classes))
    if key not in kept and len(kept) >= _KEPT:
        kept.clear()
    return kept.setdefault(key, _weakly_trusted(body, key))


def _weakly_trusted(function: FunctionType, classes: tuple[weakref.ref[type], ...]) -> LazyTypes:
    """``trusted_types`` of a function, which keep neither it nor a class alive.

    While anybody can ask for a function's types it is there itself, and with it the classes that it names.
    """
    body = weakref.ref(function)

    def found() -> Mapping[str, type]:
        function, alive = body(), [cls for one in classes if (cls := one()) is not None]
        return weakref.WeakValueDictionary({} if function is None else trusted_types(function, *alive))

    return LazyTypes(found)


# A framework's calls bring the body anew each time, and to look around its module takes a while.
_kept: weakref.WeakKeyDictionary[FunctionType, dict[Any, LazyTypes]] = weakref.WeakKeyDictionary()


def code_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """What runs when a callable is called, behind partials and in an object that is called."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__
