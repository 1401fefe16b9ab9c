"""What a tool argument shows of itself: more than can be rebuilt, since arguments are compared and never decoded.

Invariants:

* What is shown is the same in every run and on every machine: no addresses, no ``repr``, no positions in streams.
* Only attributes that are stored are read: no property, no iterator, no method of the value's class runs (a registered
  ``to_plain`` excepted, which its author meant for this).

Shown are declared data (dataclasses, models, enums, ...), instances of plain classes by their public attributes, what
the standard library wraps data in, and callables and classes by name. Not shown is machinery: what can be closed,
entered or iterated once, instances of the standard library's own classes, and secrets. ``None`` stands for these.
"""

from __future__ import annotations

import array
import collections
import functools
import gc
import io
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum, Flag
from typing import Any

from .objects import Parts, is_transparent, solid_base, state_of, take_apart, uncompared
from .receivers import Receiver
from .trust import registered, type_name

_MACHINERY = frozenset(
    {"close", "aclose", "__enter__", "__aenter__", "__del__", "__next__", "__anext__", "get_secret_value"}
)
"""Whoever has one of these holds a resource, a position or a secret: its attributes change from run to run."""


def look_at(value: Any) -> Parts | None:
    """The parts of an argument that are compared; ``None`` if only its type is.

    Args:
        value: an instance of a class that has no form of its own in the encoder.

    Raises:
        ConverterError: its class's ``to_plain`` failed.
        Exception: whatever the instance's own code raises.
    """
    cls = type(value)
    if cls in _WRAPPERS:
        sections = _WRAPPERS[cls](value)
        return None if sections is None else Parts("$object", type_name(cls), sections)
    if issubclass(cls, type):
        return Parts("$object", "builtins:type", {"fields": {"name": type_name(value)}})
    if issubclass(cls, Enum) and not issubclass(cls, Flag) and registered(cls) is None:
        # Results are found again by the name; what a tool is given is the value, too.
        return Parts("$enum", type_name(cls), {"name": value._name_, "value": value._value_})
    if is_transparent(cls):
        parts = take_apart(value, private=False)
        return None if parts is None else Parts(parts.tag, parts.type, _compared(cls, parts.sections))
    if _is_data(cls):
        return Parts("$object", type_name(cls), {"fields": _public(state_of(value))})
    return None


def _is_data(cls: type) -> bool:
    return (
        solid_base(cls) is object
        and cls is not object
        and cls.__module__.partition(".")[0] not in sys.stdlib_module_names
        and not any(_MACHINERY & vars(layer).keys() for layer in cls.__mro__)
    )


def _compared(cls: type, sections: Mapping[str, Any]) -> dict[str, Any]:
    if "fields" not in sections:
        return dict(sections)
    declared = {one.name for one in (*(fields(cls) if is_dataclass(cls) else ()), *getattr(cls, "__attrs_attrs__", ()))}
    declared.update(getattr(cls, "_fields", ()) if issubclass(cls, tuple) else ())
    left_out = uncompared(cls)
    kept = {
        name: item
        for name, item in sections["fields"].items()
        if name not in left_out and (name in declared or not _is_private(name))
    }
    return {**sections, "fields": kept}


def _public(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in state.items() if not _is_private(name)}


def _is_private(name: Any) -> bool:
    # ``__notes__`` of an exception is content.
    return type(name) is str and name.startswith("_") and name != "__notes__"


def _proxied(value: Any) -> dict[str, Any] | None:
    # Asked of the collector: reading through the proxy would run the code of a mapping that is no dict.
    behind = [inner for inner in gc.get_referents(value) if type(inner) in (dict, collections.OrderedDict)]
    return {"base": dict(behind[0])} if len(behind) == 1 else None


def _callable_name(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def _builtin(value: Any) -> dict[str, Any]:
    owner = value.__self__
    fields = {"name": _callable_name(value)}
    # ``len`` belongs to its module, ``[].append`` to its list.
    return {"fields": fields if owner is None or type(owner) is types.ModuleType else {**fields, "of": owner}}


def _listed(value: Any) -> dict[str, Any]:
    return {"base": list(value)}


_WRAPPERS: dict[Any, Callable[[Any], dict[str, Any] | None]] = {
    types.SimpleNamespace: lambda value: {"fields": _public(vars(value))},
    types.MappingProxyType: _proxied,
    type({}.keys()): _listed,
    type({}.values()): _listed,
    type({}.items()): _listed,
    type(collections.OrderedDict().keys()): _listed,
    type(collections.OrderedDict().values()): _listed,
    type(collections.OrderedDict().items()): _listed,
    memoryview: lambda value: {"base": value.tobytes()},
    array.array: lambda value: {"fields": {"typecode": value.typecode, "items": value.tolist()}},
    # Without the position: a tool that reads moves it, and in replay no tool runs.
    io.BytesIO: lambda value: {"base": value.getvalue()},
    io.StringIO: lambda value: {"base": value.getvalue()},
    re.Pattern: lambda value: {"fields": {"pattern": value.pattern, "flags": value.flags}},
    functools.partial: lambda value: {"fields": {"func": value.func, "args": value.args, "keywords": value.keywords}},
    types.FunctionType: lambda value: {"fields": {"name": _callable_name(value)}},
    types.MethodType: lambda value: {
        "fields": {"name": _callable_name(value.__func__), "of": Receiver(value.__self__)}
    },
    types.BuiltinFunctionType: _builtin,
    types.ModuleType: lambda value: {"fields": {"name": value.__name__}},
}
