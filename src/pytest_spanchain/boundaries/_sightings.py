"""Where the user's functions are met: in modules, in what the running code holds, and, at last, anywhere in memory.

Invariants:

* No code of the user's runs: no property, no ``__getattr__``, no ``__eq__``. Objects are looked into, not asked.
* Things that are not the user's are looked into, and what they hold is not; nor are large containers.
* The order is that of the program, not of addresses.
"""

from __future__ import annotations

import functools
import gc
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any

from .._genai import ToolDeclaration
from . import _index, _own, _targets
from ._fit import Fit, Names, fit

_LARGE = 1000
_MOST = 20_000
_METHODS = ("__call__", "run", "execute", "invoke", "call", "forward", "handle", "_run", "arun", "ainvoke", "_arun")
_LEAVES = frozenset(
    {
        *(str, bytes, bytearray, int, float, complex, bool, type(None), type(...), range, slice, object),
        *(CodeType, FrameType, ModuleType, BuiltinFunctionType, MethodWrapperType, GetSetDescriptorType),
    }
)
_SEQUENCES = (list, tuple, set, frozenset, deque)
_CALLABLE = (FunctionType, MethodType, functools.partial)


@dataclass(frozen=True)
class Sighting:
    """A function that can be a tool.

    Args:
        function: the function.
        name: the declared name.
        bound: whether its first parameter is a receiver.
        fit: how sure that is.
    """

    function: FunctionType
    name: str
    bound: bool
    fit: Fit


class Search:
    """Finds the functions that can be the declared tools. Made for one look around.

    Args:
        declared: the tools, by name.
    """

    def __init__(self, declared: Mapping[str, ToolDeclaration]) -> None:
        self._declared = declared
        self._names = Names(declared)
        self._found: dict[tuple[int, str], Sighting] = {}
        self._seen: dict[int, Any] = {}  # the things themselves, too: an address counts as long as they live
        self._todo: deque[Any] = deque()

    @property
    def found(self) -> list[Sighting]:
        """What was found, in order."""
        return list(self._found.values())

    def modules(self) -> Search:
        """Look through the user's modules."""
        exact = self._names.exact
        for module in _index.modules():
            for spelling in self._names.spelt:
                for named in module.functions.get(spelling, ()):
                    if (function := named.reference()) is not None:
                        self._function(function, text=named.text, bound=named.bound)
            for name in exact:
                if name in module.space:
                    self._under(name, module.space[name], most=Fit.NAMED)
            for reference in module.classes:
                cls = reference()
                if cls is not None and not exact.isdisjoint(type.__getattribute__(cls, "__dict__")):
                    self._class(cls)
            self._later(cls for reference in module.named if (cls := reference()) is not None)
            self._later(module.space.get(key) for key in module.others)
        return self._walk()

    def frames(self, frame: FrameType | None) -> Search:
        """Look at what the user's running functions hold, from a frame outwards."""
        while frame is not None:
            if frame.f_code.co_name != "<module>" and _own.is_users_file(frame.f_code.co_filename):
                self._mapping(dict(frame.f_locals), most=Fit.NAMED)
            frame = frame.f_back
        return self._walk()

    def memory(self) -> Search:
        """Look at every function, and every name in a mapping, that the garbage collector knows."""
        for thing in gc.get_objects():
            kind = type(thing)
            if kind is FunctionType:
                if _own.is_users_file(thing.__code__.co_filename):
                    self._function(thing)
            elif kind is dict and thing is not self._declared:
                for name in self._names.exact:
                    if name in thing:
                        self._under(name, thing[name], most=Fit.NAMED)
        return self

    def _walk(self) -> Search:
        while self._todo and len(self._seen) < _MOST:
            self._visit(self._todo.popleft())
        self._todo.clear()
        return self

    def _later(self, things: Iterable[Any]) -> None:
        for thing in things:
            if type(thing) not in _LEAVES and id(thing) not in self._seen:
                self._seen[id(thing)] = thing
                self._todo.append(thing)

    def _visit(self, thing: Any) -> None:
        kind = type(thing)
        if kind is FunctionType:
            self._function(thing)
            self._later(_index.content(cell) for cell in thing.__closure__ or ())
            self._later([*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()])
            self._later(_index.behind(thing))
        elif kind is MethodType:
            self._function(thing.__func__, bound=True)
            self._later([thing.__self__])
        elif issubclass(kind, functools.partial):
            self._later([thing.func, *thing.args])
        elif issubclass(kind, dict):
            # A class of the user's may have methods of its own: what is in it is asked of ``dict``.
            self._mapping(thing if kind is dict else dict.copy(thing))
        elif issubclass(kind, _SEQUENCES):
            self._sequence(thing if kind in _SEQUENCES else gc.get_referents(thing))
        elif issubclass(kind, type):
            if _own.is_users_class(thing):
                self._class(thing)
        elif _own.is_users_class(kind):
            self._later([kind, *gc.get_referents(thing)])
            self._object(state_of(thing), kind)
        elif not _own.is_pytests(kind):
            self._foreign(thing)

    def _mapping(self, mapping: Mapping[Any, Any], *, deep: bool = True, most: Fit = Fit.SURE) -> None:
        for name in self._names.exact:
            if name in mapping:
                self._under(name, mapping[name], most=most)
        values = _values(mapping)
        called: Any = next((mapping[field] for field in _index.NAME_FIELDS if field in mapping), None)
        if type(called) is str and called in self._names.exact:
            for value in values:
                self._under(called, value, most=Fit.ASKED)
        self._later(values if deep else (value for value in values if type(value) in _CALLABLE))

    def _sequence(self, sequence: Any, *, deep: bool = True) -> None:
        things = _values(sequence)
        if 1 < len(things) <= len(_METHODS):
            for text in things:
                if type(text) is str and text in self._names.exact:  # ("refund", function)
                    for other in things:
                        self._under(text, other)
        self._later(things if deep else (thing for thing in things if type(thing) in _CALLABLE))

    def _class(self, cls: type) -> None:
        members = type.__getattribute__(cls, "__dict__")
        for key, member in list(members.items()):
            inner = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
            if type(inner) is FunctionType:
                self._function(inner, text=key, bound=not isinstance(member, staticmethod))
                self._later(_index.behind(inner))
        self._object(members, cls)
        self._later(type.__getattribute__(cls, "__mro__"))

    def _object(self, members: Mapping[str, Any], cls: type) -> None:
        """Something of the user's that may say how it is called."""
        if members:
            for field in _index.NAME_FIELDS:
                if type(name := members.get(field)) is str:
                    self._methods(name, cls)
            if type(members) is dict:
                self._mapping(members)

    def _foreign(self, thing: Any) -> None:
        """Something of a library's: what it holds itself, and no further."""
        for one in (state_of(thing), *gc.get_referents(thing)):
            kind = type(one)
            if kind in _CALLABLE:
                self._later([one])
            elif kind is dict:
                self._mapping(one, deep=False)
                for inner in _values(one):
                    if type(inner) in (list, tuple):
                        self._sequence(inner, deep=False)
                    elif type(inner) is dict:
                        self._mapping(inner, deep=False)
            elif kind in (list, tuple):
                self._sequence(one, deep=False)

    def _under(self, name: str, thing: Any, *, most: Fit = Fit.SURE) -> None:
        """Something stands under a name."""
        if name not in self._names.exact:
            return
        while issubclass(type(thing), functools.partial):
            thing = thing.func
        kind = type(thing)
        if kind is FunctionType and _own.is_users(thing):
            self._sight(thing, name, bound=_targets.is_method(thing), most=most)
        elif kind is FunctionType or kind.__module__ == "functools":  # a library's decorator, a cache
            for inner in _index.behind(thing):
                self._under(name, inner, most=most)
        elif kind is MethodType:
            if type(thing.__func__) is FunctionType:
                self._sight(thing.__func__, name, bound=True, most=most)
        elif kind not in _LEAVES and not issubclass(kind, type) and _own.is_users_class(kind):
            self._methods(name, kind, most=most)

    def _methods(self, name: str, cls: type, *, most: Fit = Fit.SURE) -> None:
        """An object of this class goes by that name: what is called of it is one of these."""
        if name not in self._names.exact:
            return
        for owner in type.__getattribute__(cls, "__mro__"):
            members = type.__getattribute__(owner, "__dict__")
            for method in _METHODS:
                if type(member := members.get(method)) is FunctionType:
                    self._sight(member, name, bound=True, most=most)

    def _function(self, function: Any, *, text: str = "", bound: bool | None = None) -> None:
        """A function is met: what is it called?"""
        if type(function) is not FunctionType:
            return
        for called in dict.fromkeys([text or function.__name__, function.__name__]):
            for name in self._names.meant(called):
                is_bound = _targets.is_method(function) if bound is None else bound
                self._sight(function, name, bound=is_bound, most=Fit.NAMED if name == called else Fit.ASKED)

    def _sight(self, function: FunctionType, name: str, *, bound: bool, most: Fit = Fit.SURE) -> None:
        known = self._found.get((id(function), name))
        if (known is not None and known.fit >= most) or not _own.is_users(function):
            return
        found = min(most, fit(function, self._declared[name], bound=bound))
        if found is not Fit.NONE and (known is None or known.fit < found):
            self._found[id(function), name] = Sighting(function, name, bound, found)


def module_functions() -> Iterator[str]:
    """The user's functions that a setting can name, as ``module:function``."""
    for module in _index.modules():
        for key, value in list(module.space.items()):
            home = module.space.get("__name__")
            if type(value) is FunctionType and value.__module__ == home and _own.is_users(value):
                yield f"{value.__module__}:{key}"


def state_of(thing: Any) -> dict[str, Any]:
    """An object's attributes, past whatever its class has made of ``__dict__``."""
    for owner in type.__getattribute__(type(thing), "__mro__"):
        if "__dict__" in (members := type.__getattribute__(owner, "__dict__")):
            plain = isinstance(members["__dict__"], GetSetDescriptorType)
            found = object.__getattribute__(thing, "__dict__") if plain else None
            return found if type(found) is dict else {}
    return {}


def _values(container: Any) -> list[Any]:
    """What a container holds that is worth a look; nothing if it is large or another thread is writing to it."""
    if len(container) > _LARGE:
        return []
    try:
        things = list(container.values() if isinstance(container, Mapping) else container)
    except RuntimeError:
        return []
    return things if not _LEAVES.issuperset(map(type, things)) or any(type(one) is str for one in things[:1]) else []
