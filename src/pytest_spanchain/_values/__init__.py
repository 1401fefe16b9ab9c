"""Python values as plain ones and back, with their types, without pickle.

Invariants:

* ``encode`` is faithful or it raises ``Unrecordable``; ``decode(encode(v))`` equals ``v`` in type and content. Only
  with ``opaque=True`` does it stand in ``{"$opaque": type}`` for what has no plain form, and ``decode`` refuses those.
* ``decode`` builds builtins, and classes that ``_trust`` vouches for. It imports nothing that a cassette names.
* Key order is not this module's: mappings keep the order they have in memory, and ``_layout.order_of`` writes it down.

JSON's own values stand for themselves; everything else is a *tag*, a mapping of one key that starts with ``$``. A real
mapping of that form is wrapped in ``{"$esc": ...}``; one whose keys are not all text becomes
``{"$map": [[key, value], ..]}``.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from .._canonical import canonical
from ..errors import CassetteBroken, Unrecordable, UsageError
from .leaves import is_text, leaves, read_no_number, read_surrogates, to_base64, typed
from .objects import NAMED_SECTIONS, Parts, is_transparent, put_together, take_apart
from .trust import register_type as register_type
from .trust import resolve, type_name
from .trust import trusted_types as trusted_types

MAX_DEPTH = 100

_FACTORIES: dict[str, Callable[[], Any]] = {
    "list": list,
    "dict": dict,
    "set": set,
    "int": int,
    "float": float,
    "str": str,
    "tuple": tuple,
    "bool": bool,
}


def encode(value: Any, *, opaque: bool = False) -> Any:
    """Make a plain value of ``value``.

    Args:
        value: anything.
        opaque: for arguments. What has no plain form (clients, contexts, callables, cycles) becomes
            ``{"$opaque": "module:qualname"}``, so that a request stays the same from run to run. An object shows its
            fields only if its class declares them (dataclass, model, enum, ...) and all of them have a plain form;
            otherwise it is opaque as a whole.

    Raises:
        Unrecordable: not with ``opaque``; it names the place, the type and what to do.
    """
    return _Encoder(opaque=opaque).encode(value, "$")


def decode(plain: Any, *, types: Mapping[str, type]) -> Any:
    """Make the value again that ``encode`` got.

    Args:
        plain: what ``encode`` returned.
        types: classes by ``module:qualname``, from ``trusted_types``; registered ones are known anyway.

    Raises:
        UsageError: a class is named that nobody vouches for; it says how to register it.
        CassetteBroken: a tag is unknown, malformed, or does not fit its class.
    """
    return _Decoder(types).decode(plain, "$")


def check_round_trip(plain: Any, *, types: Mapping[str, type]) -> None:
    """Make sure, while recording, that a replay will be able to rebuild what ``encode`` wrote.

    Raises:
        Unrecordable: it will not.
    """
    try:
        again = encode(decode(plain, types=types))
    except (UsageError, CassetteBroken) as error:
        raise Unrecordable(str(error)) from error
    if canonical(again) != canonical(plain):
        raise Unrecordable("the value does not survive being written and read; register a converter for its class")


class _Encoder:
    def __init__(self, *, opaque: bool) -> None:
        self._arguments = opaque
        self._opaque = opaque
        self._open: set[int] = set()

    def encode(self, value: Any, path: str) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is int:
            return value
        if kind is str:
            return value if is_text(value) else {"$str": to_base64(value.encode("utf-8", "surrogatepass"))}
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if kind in _LEAVES:
            leaf = _LEAVES[kind]
            return {leaf[0]: self.encode(leaf[1](value), path)}
        if id(value) in self._open or len(self._open) >= MAX_DEPTH:
            return self._without_form(
                value, path, "contains itself" if id(value) in self._open else "is nested too deep"
            )
        self._open.add(id(value))
        try:
            if kind is dict:
                return self._mapping(value, path)
            if kind in _CONTAINERS:
                return self._container(_CONTAINERS[kind], value, path)
            return self._object(value, path)
        finally:
            self._open.discard(id(value))

    def _items(self, values: Any, path: str) -> list[Any]:
        return [self.encode(item, f"{path}[{index}]") for index, item in enumerate(values)]

    def _pairs(self, value: Mapping[Any, Any], path: str) -> list[Any]:
        return [
            [self.encode(key, f"{path} key"), self.encode(item, f"{path}[{_brief(key)}]")]
            for key, item in value.items()
        ]

    def _mapping(self, value: dict[Any, Any], path: str) -> Any:
        if not all(type(key) is str and is_text(key) for key in value):
            return {"$map": self._pairs(value, path)}
        plain = {key: self.encode(item, f"{path}.{key}") for key, item in value.items()}
        return {"$esc": plain} if _is_tag(plain) else plain

    def _container(self, tag: str, value: Any, path: str) -> Any:
        if tag in ("$set", "$frozenset"):
            return {tag: sorted(self._items(value, path), key=canonical)}
        if tag in ("$ordereddict", "$counter"):
            return {tag: self._pairs(value, path)}
        if tag == "$deque":
            return {tag: {"items": self._items(value, path), "maxlen": value.maxlen}}
        if tag == "$defaultdict":
            factory = getattr(value.default_factory, "__name__", None)
            if value.default_factory is not None and _FACTORIES.get(str(factory)) is not value.default_factory:
                return self._without_form(value, path, "makes defaults with a function that cannot be written down")
            return {tag: {"factory": factory, "items": self._pairs(value, path)}}
        return self._items(value, path) if tag == "$list" else {tag: self._items(value, path)}

    def _object(self, value: Any, path: str) -> Any:
        if self._arguments and not is_transparent(type(value)):
            return self._without_form(value, path, "does not declare its fields")
        # In arguments too the fields are encoded strictly: one client inside makes a context of the whole object.
        outer, self._opaque = self._opaque, False
        try:
            parts = take_apart(value, private=not self._arguments)
            if parts is None:
                return self._without_form(value, path, "has no plain form")
            return {parts.tag: {"type": parts.type, **self._sections(parts, path)}}
        except Unrecordable:
            if not outer:
                raise
            return {"$opaque": type_name(type(value))}
        finally:
            self._opaque = outer

    def _sections(self, parts: Parts, path: str) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for section, content in parts.sections.items():
            if section not in NAMED_SECTIONS:
                plain[section] = self.encode(content, f"{path}.{section}")
                continue
            if not all(type(name) is str and is_text(name) for name in content):
                raise Unrecordable(f"{path}: {parts.type} has attributes whose names are not text")
            plain[section] = {name: self.encode(item, f"{path}.{name}") for name, item in content.items()}
        return plain

    def _without_form(self, value: Any, path: str, why: str) -> Any:
        name = type_name(type(value))
        if self._opaque:
            return {"$opaque": name}
        raise Unrecordable(
            f"{path}: {name} {why}; return plain data, or give its class converters with "
            f"spanchain.register_type({type(value).__qualname__}, to_plain=..., from_plain=...)"
        )


class _Decoder:
    def __init__(self, types: Mapping[str, type]) -> None:
        self._types = types

    def decode(self, plain: Any, path: str) -> Any:
        if type(plain) is list:
            return self._items(plain, path)
        if type(plain) is not dict:
            return plain
        if not _is_tag(plain):
            return {key: self.decode(item, f"{path}.{key}") for key, item in plain.items()}
        ((tag, content),) = plain.items()
        try:
            return self._tagged(tag, content, path)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise CassetteBroken(f"{tag} cannot be rebuilt: {error}", field=path, remedy=_REMEDY) from error

    def _items(self, plain: Any, path: str) -> list[Any]:
        return [self.decode(item, f"{path}[{index}]") for index, item in enumerate(typed(plain, list))]

    def _pairs(self, plain: Any, path: str) -> list[tuple[Any, Any]]:
        pairs = [(self.decode(key, path), self.decode(item, path)) for key, item in typed(plain, list)]
        if len({key for key, _ in pairs}) != len(pairs) and not any(key != key for key, _ in pairs):  # NaN
            raise ValueError("a key occurs twice")
        return pairs

    def _tagged(self, tag: str, content: Any, path: str) -> Any:
        if tag in _READERS:
            return _READERS[tag](self.decode(content, path))
        if tag in _FROM_ITEMS:
            return _FROM_ITEMS[tag](self._items(content, path))
        if tag == "$esc":
            inner = typed(content, dict)
            if not _is_tag(inner):
                raise ValueError("there is nothing to escape")
            return {key: self.decode(item, f"{path}.{key}") for key, item in inner.items()}
        if tag in ("$map", "$ordereddict"):
            return {"$map": dict, "$ordereddict": OrderedDict}[tag](self._pairs(content, path))
        if tag == "$counter":
            return Counter(dict(self._pairs(content, path)))
        if tag == "$deque":
            return deque(self._items(content["items"], path), _exact(content, "items", "maxlen")["maxlen"])
        if tag == "$defaultdict":
            name = _exact(content, "factory", "items")["factory"]
            return defaultdict(None if name is None else _FACTORIES[name], self._pairs(content["items"], path))
        if tag in ("$object", "$enum", "$exception"):
            return self._object(tag, content, path)
        if tag == "$opaque":
            raise ValueError(f"{content} had no plain form when it was recorded")
        raise ValueError("the tag is unknown")

    def _object(self, tag: str, content: Any, path: str) -> Any:
        name = typed(typed(content, dict)["type"], str)
        cls = resolve(name, self._types)
        if cls is None:
            raise UsageError(
                f"{path}: the recorded value is a {name}, a class that neither the annotations nor the module of the "
                f"tool name; call spanchain.register_type({name.rpartition(':')[2]}) where the class is defined"
            )
        sections = {
            section: {key: self.decode(part, f"{path}.{key}") for key, part in typed(item, dict).items()}
            if section in NAMED_SECTIONS
            else self.decode(item, f"{path}.{section}")
            for section, item in content.items()
            if section != "type"
        }
        return put_together(cls, Parts(tag, name, sections))


_REMEDY = "The value was changed by hand or its class has changed since: record it again."


def _is_tag(plain: Mapping[str, Any]) -> bool:
    return len(plain) == 1 and next(iter(plain)).startswith("$")


def _brief(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "..."


def _exact(content: Any, *keys: str) -> dict[str, Any]:
    if sorted(typed(content, dict)) != sorted(keys):
        raise ValueError(f"keys are {', '.join(sorted(content))}, expected {', '.join(keys)}")
    return dict(content)


_LEAVES = {kind: (tag, write) for kind, tag, write, _ in leaves()}
_READERS: dict[str, Callable[[Any], Any]] = {
    "$float": read_no_number,
    "$str": read_surrogates,
    **{tag: read for _, tag, _, read in leaves()},
}
_FROM_ITEMS: dict[str, Callable[[list[Any]], Any]] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
_CONTAINERS: dict[type, str] = {
    list: "$list",
    tuple: "$tuple",
    set: "$set",
    frozenset: "$frozenset",
    OrderedDict: "$ordereddict",
    Counter: "$counter",
    defaultdict: "$defaultdict",
    deque: "$deque",
}
