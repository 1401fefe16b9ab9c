"""Instances of classes, taken apart into sections of named values and put together again without ``__init__``.

Invariants:

* ``put_together`` makes an instance of exactly the class it is given; no name in the data can change the class, reach
  a dunder attribute, or run code of the class (a registered ``from_plain`` excepted).
* What has hidden state (C types, secrets) is not taken apart: ``None``, never a husk.

Sections: ``fields`` (attributes), ``base`` (content of a builtin that the class extends), ``args`` (of an exception),
``extra``, ``private`` and ``set`` (pydantic), ``name`` or ``value`` (enum), ``plain`` (what ``to_plain`` gave).
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum, Flag
from functools import cached_property
from typing import Any

from . import trust as _trust

NAMED_SECTIONS = frozenset({"fields", "extra", "private"})
"""Sections that hold a mapping of names to values; every other section holds one value."""

# Py_TPFLAGS_HEAPTYPE: made at run time. Of those made by C, most are immutable or cannot be instantiated
# (Py_TPFLAGS_IMMUTABLETYPE, Py_TPFLAGS_DISALLOW_INSTANTIATION); ``object.__new__`` refuses the rest.
_HEAP_TYPE, _C_HEAP_TYPE = 1 << 9, 1 << 8 | 1 << 7
_IMMUTABLE = (str, int, float, bytes, tuple, frozenset)
_MUTABLE = (list, dict, set)
_READ: dict[Any, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}


class ConverterError(Exception):
    """A registered converter failed."""


@dataclass(frozen=True)
class Parts:
    """An instance, taken apart.

    Args:
        tag: ``$enum``, ``$exception`` or ``$object``.
        type: its class as ``module:qualname``.
        sections: raw Python values by section.
    """

    tag: str
    type: str
    sections: Mapping[str, Any]


def is_transparent(cls: type) -> bool:
    """Whether a class declares its data (dataclass, model, enum, registered, ...), so that an argument can be shown."""
    return (
        _trust.registered(cls) is not None
        or is_dataclass(cls)
        or hasattr(cls, "__attrs_attrs__")
        or is_model(cls)
        or issubclass(cls, (Enum, BaseException))
        or solid_base(cls) in _IMMUTABLE + _MUTABLE
    )


def uncompared(cls: type) -> set[str]:
    """The fields of a dataclass or attrs class whose author takes them out of comparisons."""
    if is_dataclass(cls):
        return {one.name for one in fields(cls) if not one.compare}
    return {one.name for one in getattr(cls, "__attrs_attrs__", ()) if one.eq is False}


def take_apart(value: Any, *, private: bool = True) -> Parts | None:
    """The parts of an instance, or ``None`` if it has no faithful parts.

    Args:
        value: an instance of a class.
        private: whether a model's private attributes count.

    Raises:
        ConverterError: its class's ``to_plain`` failed.
        Exception: whatever the instance's own code raises.
    """
    cls = type(value)
    name = _trust.type_name(cls)
    converter = _trust.registered(cls)
    if converter is not None and converter.to_plain is not None:
        try:
            return Parts("$object", name, {"plain": converter.to_plain(value)})
        except Exception as error:
            raise ConverterError(f"cannot be recorded: its to_plain raised {message_of(error)}") from error
    if isinstance(value, Enum):
        named = not isinstance(value, Flag)
        return Parts("$enum", name, {"name": value.name} if named else {"value": value.value})
    if isinstance(value, type) or hasattr(cls, "get_secret_value"):
        return None
    if is_model(cls):
        return Parts("$object", name, _model_sections(value, private=private))
    base = solid_base(cls)
    if issubclass(base, BaseException):
        return Parts("$exception", name, _exception_sections(value, base)) if isinstance(value, Exception) else None
    if base is tuple and hasattr(cls, "_fields"):
        return Parts("$object", name, {"fields": dict(zip(cls._fields, value, strict=True))})
    if base is object:
        return Parts("$object", name, {"fields": state_of(value)}) if cls is not object else None
    if base in _IMMUTABLE + _MUTABLE and base is not cls:
        state = state_of(value)
        return Parts("$object", name, {"base": _bare(base, value), **({"fields": state} if state else {})})
    return None


def put_together(cls: Any, parts: Parts) -> Any:
    """The instance that ``take_apart`` took apart.

    Raises:
        TypeError, ValueError, LookupError, AttributeError: the parts do not fit the class.
        Exception: whatever the class's own code raises.
    """
    sections = dict(parts.sections)
    converter = _trust.registered(cls)
    if converter is not None and converter.from_plain is not None and parts.tag == "$object":
        return converter.from_plain(_only(sections, "plain"))
    if parts.tag == "$enum":
        return _enum_member(cls, sections)
    base: Any = solid_base(cls)
    if (parts.tag == "$exception") != issubclass(base, BaseException) or issubclass(cls, Enum):
        raise TypeError(f"{parts.tag} does not describe a {parts.type}")
    if is_model(cls):
        return _model(cls, sections)
    if base is tuple and hasattr(cls, "_fields"):
        named = _only(sections, "fields")
        if sorted(named) != sorted(cls._fields):
            raise ValueError(f"fields {sorted(named)} are not {sorted(cls._fields)}")
        return tuple.__new__(cls, [named[name] for name in cls._fields])
    attributes = sections.pop("fields", {})
    if base is object:
        made = object.__new__(cls)
    elif issubclass(cls, Exception):
        arguments = _only(sections, "args")
        made = base.__new__(cls, *arguments)
        base.__init__(made, *arguments)
        sections = {}
    elif base in _IMMUTABLE:
        made, sections = base.__new__(cls, _content(base, _only(sections, "base"))), {}
    elif base in _MUTABLE:
        made = base.__new__(cls)
        base.__init__(made, _content(base, _only(sections, "base")))
        sections = {}
    else:
        raise TypeError(f"{parts.type} extends {base.__qualname__}, which has no plain form")
    _refuse_rest(sections)
    _set_state(made, attributes)
    return made


def text_of(error: BaseException) -> str:
    """Text of an exception that can be written, even if its ``__str__`` fails."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a broken ``__str__`` must not change what the agent sees
        return ""
    return text.encode("utf-8", "replace").decode("utf-8")


def message_of(error: BaseException) -> str:
    """Type and text of an exception."""
    return ": ".join(filter(None, (type(error).__name__, text_of(error))))


def _enum_member(cls: type, sections: dict[str, Any]) -> Any:
    if not issubclass(cls, Enum):
        raise TypeError(f"{_trust.type_name(cls)} is no enum")
    return cls(_only(sections, "value")) if issubclass(cls, Flag) else cls[_only(sections, "name")]


def solid_base(cls: Any) -> Any:
    """The nearest class that was not made by a ``class`` statement: it owns the memory of the instance."""
    return next(layer for layer in cls.__mro__ if not _is_python(layer))


def _is_python(cls: type) -> bool:
    return bool(cls.__flags__ & _HEAP_TYPE) and not cls.__flags__ & _C_HEAP_TYPE


def _bare(base: Any, value: Any) -> Any:
    # Asked of the builtin itself: an overridden ``__str__`` or ``__iter__`` must not speak for the content.
    if base is bytes:
        return bytes.__getitem__(value, slice(None))
    if base in _READ:
        return _READ[base](value)
    return dict(dict.items(value)) if base is dict else base(base.__iter__(value))


def _content(base: type, value: Any) -> Any:
    if type(value) is not base:
        raise TypeError(f"the content is a {type(value).__qualname__}, not a {base.__qualname__}")
    return value


def state_of(value: Any) -> dict[str, Any]:
    """Every attribute of the instance itself: slots from the base down, then its dictionary."""
    cls, found = type(value), {}
    for name in _slots(cls):
        try:
            found[name] = object.__getattribute__(value, name)
        except AttributeError:  # an empty slot
            continue
    for name, item in _dictionary(value).items():
        # Derived and recomputed on use; ``__orig_class__`` is left by ``Generic`` for the type checkers.
        if name != "__orig_class__" and not isinstance(getattr(cls, name, None), cached_property):
            found[name] = item
    return found


def _dictionary(value: Any) -> Mapping[str, Any]:
    try:  # not by ``getattr``, which a class may answer itself
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


def _slots(cls: type) -> list[str]:
    return [
        name
        for layer in reversed(cls.__mro__)
        if _is_python(layer)
        for name, attribute in vars(layer).items()
        if isinstance(attribute, types.MemberDescriptorType)
    ]


def _set_state(made: Any, attributes: Mapping[str, Any]) -> None:
    cls = type(made)
    if is_dataclass(cls):
        absent = [field.name for field in fields(cls) if field.name not in attributes and not _is_optional(cls, field)]
        if absent:
            raise ValueError(f"fields are missing: {', '.join(absent)}")
    for name, item in attributes.items():
        if name.startswith("__") and name.endswith("__") and not (name == "__notes__" and isinstance(made, Exception)):
            raise ValueError(f"attribute {name!r} cannot be set by a cassette")
        object.__setattr__(made, name, item)


def _is_optional(cls: type, field: Any) -> bool:
    # ``init=False`` fields may never have been set; defaults of slotless classes can live on the class.
    return not field.init or (field.default is not MISSING and hasattr(cls, field.name))


def _exception_sections(value: Any, base: Any) -> dict[str, Any]:
    # The builtin's own ``__reduce__`` knows what its constructor takes (``OSError`` hides the file name from ``args``).
    reduced = base.__reduce__(value)
    state = dict(reduced[2]) if len(reduced) > 2 and reduced[2] else {}
    state.pop("args", None)
    state.update((name, getattr(value, name)) for name in _slots(type(value)) if hasattr(value, name))
    return {"args": list(reduced[1]), **({"fields": state} if state else {})}


def is_model(cls: type) -> bool:
    """Whether a class is a pydantic model."""
    pydantic = sys.modules.get("pydantic")  # an instance of a model cannot exist before it is imported
    return pydantic is not None and hasattr(cls, "__pydantic_fields_set__") and issubclass(cls, pydantic.BaseModel)


def _model_sections(value: Any, *, private: bool) -> dict[str, Any]:
    declared = type(value).__pydantic_fields__
    named = {name: item for name, item in vars(value).items() if name in declared}
    sections: dict[str, Any] = {"fields": named}
    if value.__pydantic_fields_set__ != set(named):
        sections["set"] = sorted(value.__pydantic_fields_set__)
    if value.__pydantic_extra__ is not None:
        sections["extra"] = dict(value.__pydantic_extra__)
    if private and value.__pydantic_private__ is not None:
        sections["private"] = dict(value.__pydantic_private__)
    return sections


def _model(cls: Any, sections: dict[str, Any]) -> Any:
    named = sections.pop("fields")
    unknown = sorted(set(named) - set(cls.__pydantic_fields__))
    if unknown:
        raise ValueError(f"fields are unknown: {', '.join(unknown)}")
    made = cls.__new__(cls)
    # The model's own way to restore a state; root models keep fewer attributes than the rest.
    made.__setstate__(
        {
            "__dict__": named,
            "__pydantic_fields_set__": set(sections.pop("set", named)),
            "__pydantic_extra__": sections.pop("extra", None),
            "__pydantic_private__": sections.pop("private", None),
        }
    )
    _refuse_rest(sections)
    return made


def _only(sections: dict[str, Any], name: str) -> Any:
    found = sections.pop(name)
    _refuse_rest(sections)
    return found


def _refuse_rest(sections: Mapping[str, Any]) -> None:
    if sections:
        raise ValueError(f"sections are unknown here: {', '.join(sorted(sections))}")
