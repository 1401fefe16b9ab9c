"""Which classes a cassette may name: those that the code under test already names, never one that the file brings.

A recorded value says of its class only ``module:qualname``. That text is a key into mappings built from live code (the
annotations and globals of the recorded function, ``register_type``, the standard library's exceptions); it is never
imported, and never looked up in ``sys.modules``.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import UsageError

_T = TypeVar("_T", bound=type)

STDLIB_EXCEPTIONS = frozenset(
    {
        "asyncio.exceptions:InvalidStateError",
        "asyncio.exceptions:TimeoutError",
        "concurrent.futures._base:TimeoutError",
        "decimal:DivisionByZero",
        "decimal:InvalidOperation",
        "json.decoder:JSONDecodeError",
        "socket:gaierror",
        "sqlite3:IntegrityError",
        "sqlite3:OperationalError",
        "sqlite3:ProgrammingError",
        "subprocess:CalledProcessError",
        "subprocess:TimeoutExpired",
        "urllib.error:URLError",
    }
)
"""Exceptions that tools raise without naming them. Imported on use: the names are ours, not the file's."""


@dataclass(frozen=True)
class Converter:
    """How a registered class is written and read.

    Args:
        cls: the class.
        to_plain: makes a recordable value of an instance; ``None`` if the instance's state is recorded.
        from_plain: its inverse.
    """

    cls: type
    to_plain: Callable[[Any], Any] | None = None
    from_plain: Callable[[Any], Any] | None = None


_INDIRECT = ("__supertype__", "__value__", "__bound__")  # NewType, PEP 695 alias, TypeVar

_registry: dict[str, Converter] = {}


def type_name(cls: type) -> str:
    """The name under which a cassette knows a class: ``module:qualname``."""
    # Past the metaclass, which may answer itself.
    return f"{type.__getattribute__(cls, '__module__')}:{type.__getattribute__(cls, '__qualname__')}"


def register_type(
    cls: _T,
    *,
    to_plain: Callable[[Any], Any] | None = None,
    from_plain: Callable[[Any], Any] | None = None,
) -> _T:
    """Let recorded tool results hold instances of ``cls``. Usable as a class decorator.

    Needed only for classes that neither the annotations nor the module of the tool name. Without converters the
    instance's own state (fields, attributes, slots) is recorded and restored without running ``__init__``.

    Args:
        cls: the class.
        to_plain: makes a recordable value of an instance, for classes that live outside Python (data frames, URLs).
        from_plain: makes an instance of that value again. The two come together.

    Returns:
        ``cls`` itself.

    Raises:
        UsageError: ``cls`` is no class, or only one converter is given.
    """
    if not isinstance(cls, type):
        raise UsageError(f"spanchain.register_type takes a class, not {cls!r}")
    if (to_plain is None) != (from_plain is None):
        raise UsageError(f"spanchain.register_type({type_name(cls)}): to_plain and from_plain come together")
    _registry[type_name(cls)] = Converter(cls, to_plain, from_plain)
    return cls


def registered(cls: type) -> Converter | None:
    """The registration of exactly this class."""
    found = _registry.get(type_name(cls))
    return found if found is not None and found.cls is cls else None


def resolve(name: str, types: Mapping[str, type]) -> type | None:
    """The class that a recorded name stands for, or ``None`` if nobody vouches for it."""
    if name in _registry:
        return _registry[name].cls
    module, _, qualname = name.partition(":")
    if module == "builtins":
        found = getattr(builtins, qualname, None)
        return found if isinstance(found, type) and issubclass(found, Exception) else None
    if name in STDLIB_EXCEPTIONS:
        return typing.cast(type, getattr(importlib.import_module(module), qualname))
    return types.get(name)


def trusted_types(function: Callable[..., Any], *classes: type) -> Mapping[str, type]:
    """The classes that a function's own code names, and ``classes``, by ``module:qualname``.

    These are the classes in its annotations and in its module's globals and closure, and the classes in the
    annotations of those, through generics and unions. Annotations that cannot be resolved are passed over. Nothing is
    looked at before the first lookup.
    """

    def found() -> dict[str, type]:
        types: dict[str, type] = {}
        _collect((*_seeds(function), *classes), types)
        return types

    return LazyTypes(found)


class LazyTypes(Mapping[str, type]):
    """Classes by name, not looked for before the first lookup.

    Scanning a module's globals costs milliseconds, and most results are plain JSON.

    Args:
        find: looks for them; called once.
    """

    def __init__(self, find: Callable[[], Mapping[str, type]]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._found: Mapping[str, type] | None = None

    def _types(self) -> Mapping[str, type]:
        with self._lock:
            if self._found is None:
                self._found = self._find()
            return self._found

    def __getitem__(self, name: str) -> type:
        return self._types()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types())

    def __len__(self) -> int:
        return len(self._types())


def _seeds(function: Callable[..., Any]) -> Iterator[Any]:
    scopes: list[Mapping[str, Any]] = []
    layers: list[Any] = [function]
    while (inner := getattr(layers[-1], "__wrapped__", None)) is not None and inner not in layers:
        layers.append(inner)
    for layer in layers:
        scope: dict[str, Any] = {**getattr(layer, "__globals__", {}), **_closure(layer)}
        scopes.append(scope)
        # Annotations first: where two classes share a name, the annotated one is meant.
        yield from _hints(layer, scope, scope)
    for names in scopes:
        for value in list(names.values()):
            if isinstance(value, type):
                yield value


def _collect(seeds: Iterable[Any], found: dict[str, type]) -> None:
    pending = list(seeds)[::-1]
    visited: set[int] = set()
    keep: list[Any] = []  # ids are only unique among the living
    while pending:
        hint = pending.pop()
        if id(hint) in visited:
            continue
        visited.add(id(hint))
        keep.append(hint)
        pending.extend(typing.get_args(hint))
        pending.extend(filter(None, (typing.get_origin(hint), *(getattr(hint, name, None) for name in _INDIRECT))))
        if isinstance(hint, (list, tuple)):  # the parameters of a Callable
            pending.extend(hint)
        if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and hint.__module__ != "builtins":
            found.setdefault(type_name(hint), hint)
            pending.extend(_hints(hint, _module_scope(hint), dict(vars(hint))))


def _hints(owner: Any, scope: Mapping[str, Any], names: Mapping[str, Any]) -> list[Any]:
    """The resolved annotations of a function, or of a class with its bases; each on its own, so one bad hides none."""
    found: list[Any] = []
    for layer in owner.__mro__ if isinstance(owner, type) else (owner,):
        for name, annotation in _annotations(layer).items():
            holder: Any = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                found += typing.get_type_hints(holder, dict(scope), dict(names), include_extras=True).values()
            except Exception:  # noqa: BLE001  # evaluating foreign annotations can raise anything; the rest still count
                continue
    return found


def _module_scope(cls: type) -> dict[str, Any]:
    # For evaluating the annotations of a class that exists already; what is found is not named by any cassette.
    return vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}


def _annotations(owner: Any) -> Mapping[str, Any]:
    # A class inherits the attribute, so only its own dictionary tells what it declares itself.
    found = vars(owner).get("__annotations__") if isinstance(owner, type) else getattr(owner, "__annotations__", None)
    return found if isinstance(found, Mapping) else {}


def _closure(function: Any) -> dict[str, Any]:
    found = {}
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # the enclosing function has not assigned it yet
            continue
    return found
