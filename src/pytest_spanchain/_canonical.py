"""The one canonical text of a plain value, and its digests.

Invariants:

* ``canonical`` is injective on plain values: two values share a text only if they are equal in type and content.
* What cannot be written so (NaN, infinities, lone surrogates, foreign types) is refused, never approximated.

*Plain* means what JSON can say: ``None``, ``bool``, ``int`` of any size, finite ``float``, ``str``, ``list`` and
``dict`` with string keys. Source: RFC 8785 (JSON Canonicalization Scheme), applied to a *lifted* value, because RFC
8785 alone takes ``1.0`` for ``1`` and cannot write integers beyond 2**53 - 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, Union

from .errors import Unrecordable

Plain = Union[None, bool, int, float, str, "list[Plain]", "dict[str, Plain]"]
"""A JSON value. Recursive; ``Any`` is used where mypy cannot follow."""

MAX_SAFE_INTEGER = 2**53 - 1


# One encoder for all: json.dumps makes a new one for every call with options.
_text_of = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_sorted_text_of = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode

LIFTED = re.compile(r'[0-9](?:\.[0-9]|e[-+][0-9])|"\$|[0-9]{16}')
"""What is in sorted JSON text where canonical text may say it otherwise: floats, tags, large integers."""
_OF_FLOATS = frozenset("+-.0123456789e")
_POSING_OR_LARGE = re.compile(r'\{"\$(?:esc|int)":')
# From here on, the order by code points is not that by UTF-16.
_BEYOND = re.compile("[\ue000-\U0010ffff]")


def lift(value: Any) -> Any:
    """Make a plain value injective under RFC 8785.

    Floats become ``{"$float": repr}``, integers beyond ±(2**53 - 1) ``{"$int": decimal}``, and a mapping of one key
    that starts with ``$`` is wrapped in ``{"$esc": ...}`` so that no value can pose as a tag. Mappings come out in
    RFC 8785's order of keys: one walk does both.

    Raises:
        Unrecordable: for NaN, infinities, lone surrogates, non-string keys and foreign types; it names the path.
    """
    try:
        return _lift(value)
    except _Refusal as refusal:
        raise Unrecordable(f"${''.join(reversed(refusal.steps))}: {refusal.reason}") from None


def canonical(value: Any) -> bytes:
    """RFC 8785 text of the lifted value, as UTF-8.

    After the lift only safe integers, strings, booleans, nulls, lists and string-keyed mappings are left, for which
    RFC 8785 is: keys ordered by UTF-16 code units, no white space, the short string escapes.
    """
    return _text_of(lift(value)).encode("utf-8")


def digest(domain: str, value: Any) -> str:
    """Lower-case hex SHA-256 of ``domain``, a newline and the canonical text.

    The domain keeps hashes of one purpose from serving another; canonical JSON holds no raw newline, so the join is
    injective.
    """
    return digest_of(domain, canonical(value))


def digest_of_plain(domain: str, value: Any) -> str:
    """The digest of a value that is known to be plain, as what was parsed or screened is: nothing looks at each part.

    It is that of ``digest`` for every plain value; what is not plain may be taken for something that is.
    """
    try:
        text = _sorted_text_of(value)
        if LIFTED.search(text) is None and (text.isascii() or _BEYOND.search(text) is None):
            return digest_of(domain, text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError):
        pass  # what is wrong with it is for ``digest`` to say
    return digest(domain, value)


def digest_of(domain: str, text: bytes) -> str:
    """The digest of a value whose canonical text is known."""
    return hashlib.sha256(domain.encode("ascii") + b"\n" + text).hexdigest()


class _Refusal(Exception):
    """A value without canonical form; the steps to it are collected on the way up, so that good values pay nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []


def value_of(text: str) -> Any:
    """The value of which this is the canonical text.

    Raises:
        ValueError: it is not JSON.
    """
    if "$" not in text:
        return json.loads(text)
    if _POSING_OR_LARGE.search(text):
        return _lowered(json.loads(text))
    # A quote that is not escaped is never inside of a string: what this parts are mappings that begin like tags.
    first, *others = text.split('{"$float":"')
    parts = [first]
    for other in others:
        number, end, rest = other.partition('"}')
        if not end or not _OF_FLOATS.issuperset(number):  # it has more keys
            return _lowered(json.loads(text))
        parts += number, rest
    return json.loads("".join(parts))


def _lowered(value: Any) -> Any:
    if type(value) is list:
        return [_lowered(item) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key == "$float":
            return float(inner)
        if key == "$int":
            return int(inner)
        if key == "$esc":
            value = inner
    return {key: _lowered(item) for key, item in value.items()}


def _lift(value: Any) -> Any:
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is dict:
        return _lift_mapping(value)
    if kind is list:
        return _lift_list(value)
    if kind is int:
        return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else {"$int": str(value)}
    if kind is float:
        if not math.isfinite(value):
            raise _Refusal(f"{value!r} has no JSON form")
        return {"$float": repr(value)}
    raise _Refusal(f"{kind.__module__}.{kind.__qualname__} is not a plain value")


def _lift_mapping(value: dict[Any, Any]) -> dict[str, Any]:
    keys = _in_order(value)
    lifted: dict[str, Any] = {}
    key = ""
    try:
        for key in keys:
            lifted[key] = _lift(value[key])
    except _Refusal as refusal:
        refusal.steps.append(f".{key}")
        raise
    if len(lifted) == 1 and next(iter(lifted)).startswith("$"):
        return {"$esc": lifted}
    return lifted


def _lift_list(value: list[Any]) -> list[Any]:
    lifted: list[Any] = []
    try:
        for item in value:
            lifted.append(_lift(item))
    except _Refusal as refusal:
        refusal.steps.append(f"[{len(lifted)}]")
        raise
    return lifted


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _Refusal("text holds a lone surrogate") from None
    return value


def _in_order(keys: dict[Any, Any]) -> list[str]:
    ascii_only = True
    key: Any = None
    try:
        for key in keys:
            if type(key) is not str:
                raise _Refusal(f"mapping key {key!r} is not a string")
            if not key.isascii():
                _text(key)
                ascii_only = False
    except _Refusal as refusal:
        refusal.steps.append(f".{key}")
        raise
    # UTF-16 order differs from code point order only for astral keys; the encoded form sorts both right.
    return sorted(keys) if ascii_only else sorted(keys, key=_utf16)


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")
