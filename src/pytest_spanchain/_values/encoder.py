"""From Python values to plain ones; see the package for the form."""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from .._canonical import canonical
from .._layout import MAX_DEPTH
from ..errors import Unrecordable
from .leaves import FACTORIES, is_tag, is_text, leaves, to_base64
from .objects import NAMED_SECTIONS, ConverterError, Parts, is_transparent, message_of, take_apart
from .receivers import Receiver
from .shown import look_at
from .trust import type_name

ROOM = MAX_DEPTH - 4
"""Collections inside each other, tags included. What is opened on the last level may need three more (a ``defaultdict``
is four), and what is sent into a generator lies one deeper in a cassette than a body."""

MAX_BITS = 13_000
"""Of an integer: a cassette holds 4,000 digits, and Python refuses to write many more."""


MAX_OBJECTS = 5_000
"""Objects that one argument shows; a graph of shared ones would be written without end."""


def encode(value: Any, *, opaque: bool = False) -> Any:
    """Make a plain value of ``value``.

    Args:
        value: anything.
        opaque: for arguments, which are compared and never rebuilt. They show more (see ``shown``), and what still
            has no plain form (clients, locks, iterators, cycles) becomes ``{"$opaque": "module:qualname"}``, it alone.
            In an object that holds such machinery (a context), times and UUIDs are marked too: they are made anew in
            every run.

    Raises:
        Unrecordable: it names the place, the type and what to do. With ``opaque`` only if a registered converter
            fails: its author meant the value to be recorded.
    """
    try:
        return _Encoder(opaque=opaque).encode(value, ROOM)
    except _Refusal as refusal:
        raise Unrecordable(f"${''.join(reversed(refusal.steps))}: {refusal.reason}") from refusal.__cause__


def mark(value: Any) -> dict[str, Any]:
    """What stands for a value that has no plain form."""
    return {"$opaque": type_name(type(value.of if type(value) is Receiver else value))}


class _Refusal(Exception):
    """A value without plain form; the steps to it are collected on the way up, so that good values pay nothing.

    Args:
        reason: why, and what to do.
        final: whether not even a mark may stand for it.
    """

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.steps: list[str] = []


class _Encoder:
    """``room`` is how many collections may still lie inside each other."""

    def __init__(self, *, opaque: bool) -> None:
        self._opaque = opaque
        self._in_context = False
        self._marks = 0
        self._objects = 0
        self._open: set[int] = set()

    def encode(self, value: Any, room: int) -> Any:
        kind = type(value)
        if value is None or kind is bool or (kind is int and value.bit_length() <= MAX_BITS):
            return value
        if kind is str:
            if self._in_context and _UUID.fullmatch(value):
                return mark(value)
            return value if is_text(value) else {"$str": to_base64(value.encode("utf-8", "surrogatepass"))}
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if id(value) in self._open:
            return self._without_form(value, "contains itself")
        if room < 1:
            return self._without_form(value, f"is nested deeper than {ROOM} levels", remedy="return something flatter")
        self._open.add(id(value))
        try:
            return self._composed(value, kind, room)
        except _Refusal:
            raise
        except ConverterError as error:
            raise _Refusal(f"{type_name(kind)} {error}", final=True) from error
        except Exception as error:  # noqa: BLE001 - the value's own code runs here
            return self._without_form(value, f"cannot be read ({message_of(error)})")
        finally:
            self._open.discard(id(value))

    def _composed(self, value: Any, kind: type, room: int) -> Any:
        if kind is dict:
            return self._mapping(value, room)
        if kind in _CONTAINERS:
            return self._container(_CONTAINERS[kind], value, room)
        if self._in_context and kind in _GENERATED:
            return mark(value)
        if kind in _LEAVES:
            tag, write = _LEAVES[kind]
            return {tag: self.encode(write(value), room - 1)}
        if kind is Receiver and self._opaque:
            return self._receiver(value, room)
        if kind is int:
            return self._without_form(value, "has too many digits")
        return self._object(value, room)

    def _items(self, values: Any, room: int) -> list[Any]:
        plain: list[Any] = []
        try:
            for item in values:
                plain.append(self.encode(item, room))
        except _Refusal as refusal:
            refusal.steps.append(f"[{len(plain)}]")
            raise
        return plain

    def _named(self, values: Mapping[str, Any], room: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        name = ""
        try:
            for name, item in values.items():
                plain[name] = self.encode(item, room)
        except _Refusal as refusal:
            refusal.steps.append(f".{name}")
            raise
        return plain

    def _pairs(self, values: Mapping[Any, Any], room: int) -> list[Any]:
        plain: list[Any] = []
        key: Any = None
        try:
            for key, item in values.items():
                plain.append([self.encode(key, room), self.encode(item, room)])
        except _Refusal as refusal:
            refusal.steps.append(f"[{_brief(key)}]")
            raise
        return plain

    def _mapping(self, value: dict[Any, Any], room: int) -> Any:
        if not all(type(key) is str and is_text(key) for key in value):
            return {"$map": self._pairs(value, room - 3)}
        plain = self._named(value, room - 1)
        return {"$esc": plain} if is_tag(plain) else plain

    def _container(self, tag: str, value: Any, room: int) -> Any:
        if tag == "$list":
            return self._items(value, room - 1)
        if tag in ("$set", "$frozenset"):
            return {tag: sorted(self._items(value, room - 2), key=canonical)}
        if tag in ("$ordereddict", "$counter"):
            return {tag: self._pairs(value, room - 3)}
        if tag == "$deque":
            return {tag: {"items": self._items(value, room - 3), "maxlen": value.maxlen}}
        if tag == "$defaultdict":
            factory = getattr(value.default_factory, "__name__", None)
            if value.default_factory is not None and FACTORIES.get(str(factory)) is not value.default_factory:
                return self._without_form(value, "makes defaults with a function that cannot be written down")
            return {tag: {"factory": factory, "items": self._pairs(value, room - 4)}}
        return {tag: self._items(value, room - 2)}

    def _object(self, value: Any, room: int) -> Any:
        if self._opaque:
            return self._argument(value, room)
        parts = take_apart(value)
        if parts is None:
            return self._without_form(value, "has no plain form")
        return self._written(parts, room)

    def _argument(self, value: Any, room: int) -> Any:
        self._objects += 1
        parts = look_at(value) if self._objects <= MAX_OBJECTS else None
        if parts is None:
            return self._without_form(value, "has no plain form")
        before = self._marks
        plain = self._written(parts, room)
        if self._marks > before and not self._in_context:
            self._in_context = True
            try:
                plain = self._written(parts, room)
            finally:
                self._in_context = False
        fields = plain[parts.tag].get("fields")
        if not is_transparent(type(value)) and fields is not None and all(map(_is_mark, fields.values())):
            return self._without_form(value, "shows nothing")
        return plain

    def _receiver(self, value: Receiver, room: int) -> Any:
        if value.is_whole:
            return self.encode(value.of, room)
        parts = value.parts()
        return self._without_form(value.of, "is a receiver") if parts is None else self._written(parts, room)

    def _written(self, parts: Parts, room: int) -> dict[str, Any]:
        return {parts.tag: {"type": parts.type, **self._sections(parts, room - 2)}}

    def _sections(self, parts: Parts, room: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for section, content in parts.sections.items():
            if section not in NAMED_SECTIONS:
                plain.update(self._named({section: content}, room))
            elif all(type(name) is str and is_text(name) for name in content):
                plain[section] = self._named(content, room - 1)
            elif self._opaque:
                plain[section] = {"$map": self._pairs(content, room - 3)}
            else:
                raise _Refusal(f"{parts.type} has attributes whose names are not text")
        return plain

    def _without_form(self, value: Any, why: str, *, remedy: str = "") -> Any:
        if self._opaque:
            self._marks += 1
            return mark(value)
        remedy = remedy or (
            "return plain data, or give its class converters with "
            f"spanchain.register_type({type(value).__qualname__}, to_plain=..., from_plain=...)"
        )
        raise _Refusal(f"{type_name(type(value))} {why}; {remedy}")


def _is_mark(plain: Any) -> bool:
    return type(plain) is dict and plain.keys() == {"$opaque"}


def _brief(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001 - the key's own code
        text = type_name(type(key))
    return text if len(text) <= 40 else text[:37] + "..."


_GENERATED = frozenset({datetime.datetime, datetime.date, datetime.time, UUID})
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_LEAVES = {kind: (tag, write) for kind, tag, write, _ in leaves()}
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
