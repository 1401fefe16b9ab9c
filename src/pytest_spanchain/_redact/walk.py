"""Credentials in a plain value: by the key they stand under, in pairs of name and value, in lists, in packed bytes.

Invariants:

* What holds no credential is returned as the same object.
* Packed bytes stay packed: what is taken out of them is taken out of the bytes, never out of their base64.
* A mapping under a credential's name is no credential itself (it may describe one); what looks like one in it is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from . import secrets as _secrets
from .text import PLACEHOLDER, Learnt, Matcher

PACKED = frozenset({"base64", "$bytes", "$bytearray"})
"""Keys of a body and of a value under which base64 stands."""

_COLLECTIONS = frozenset({"$tuple", "$list", "$set", "$frozenset", "$deque", "$esc", "$map", "$ordereddict"})
_PAIRS = frozenset({"$map", "$ordereddict"})
_NAMES = ("name", "key", "header")
_SCHEMA_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


_Known = TypeVar("_Known", set[str], dict[str, str])


class Clean:
    """What was found to hold no credential: items of lists, by their text, and short texts. Any thread may use it.

    Agents send their history with every request, and their tools: what was looked through once is known by then.
    """

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._words: set[str] = set()
        self.urls: dict[str, str] = {}
        """Addresses that hold none, as they are written down."""

    def text(self, item: Any) -> str:
        """What an item is known by; empty if by nothing."""
        try:
            return _text_of(item) if type(item) is dict else ""
        except (TypeError, ValueError, RecursionError):
            return ""

    def __contains__(self, text: str) -> bool:
        return text in self._texts

    def add(self, text: str) -> None:
        """An item holds no credential."""
        if text:
            _roomy(self._texts).add(text)

    def knows(self, words: str) -> bool:
        """Whether a short text, such as a name or a header's value, was found to hold no credential."""
        return words in self._words

    def add_words(self, words: str) -> None:
        """A text holds no credential; it is remembered if it is short."""
        if len(words) <= _SHORT:
            _roomy(self._words).add(words)

    def add_url(self, url: str, written: str) -> None:
        """An address holds no credential, and is written down so; it is remembered if it is short."""
        if len(url) <= _SHORT:
            _roomy(self.urls)[url] = written


_text_of = json.JSONEncoder(ensure_ascii=False).encode
_MOST_CLEAN = 4096
_SHORT = 200


def _roomy(known: _Known) -> _Known:
    """What is known, from the beginning if it has become too much."""
    if len(known) >= _MOST_CLEAN:
        known.clear()
    return known


class Walk:
    """One walk through a value.

    Args:
        matcher: what to look for.
        learnt: gets what was found by name, so that it is looked for elsewhere.
        clean: what need not be looked through again.
    """

    def __init__(self, matcher: Matcher, learnt: Learnt, clean: Clean) -> None:
        self._matcher = matcher
        self._learnt = learnt
        self._clean = clean

    def value(self, plain: Any, under: str | None = None) -> Any:
        """The value without credentials; ``under`` is the strong name above it, if there is one."""
        if isinstance(plain, str):
            return self._text(plain, under)
        if isinstance(plain, list):
            return self._list(plain, under)
        return self._mapping(plain, under) if isinstance(plain, dict) else plain

    def _text(self, text: str, under: str | None) -> str:
        if under and text != PLACEHOLDER and not any(map(str.isspace, text)) and _secrets.looks_secret(text):
            return self._taken(under, text)
        return self._matcher.redact(text, self._learnt)

    def _taken(self, key: str, text: str) -> str:
        self._matcher.learn(key, text, self._learnt)
        return PLACEHOLDER

    def _list(self, plain: list[Any], under: str | None, *, pairs: bool = False) -> list[Any]:
        found = [_pair(item) for item in plain]
        named = pairs or None not in found
        items = [
            self._pair(item, pair, sure=pairs) if named and pair is not None else self._item(item, under, len(plain))
            for item, pair in zip(plain, found, strict=True)
        ]
        return plain if all(new is old for new, old in zip(items, plain, strict=True)) else items

    def _item(self, item: Any, under: str | None, count: int) -> Any:
        # One text under Authorization is a header's value; several may be words to choose from.
        if under and count == 1 and self._matcher.is_credential(under, item, {}):
            return self._taken(under, item)
        if under and isinstance(item, str) and _secrets.has_scheme(item):
            return self._taken(under, item)
        if under:
            return self.value(item, under)
        text = self._clean.text(item)
        if text in self._clean:
            return item
        walked = self.value(item)
        if walked is item and _pair(item) is None:  # what a pair is depends on what stands beside it
            self._clean.add(text)
        return walked

    def _pair(self, item: Any, pair: tuple[str, Any], *, sure: bool) -> Any:
        name, value = pair
        if self._matcher.is_credential(name, value, {}) and (
            sure or _secrets.has_scheme(value) or _secrets.looks_secret(value)
        ):
            walked = self._taken(name, value)
        else:
            walked = self.value(value, name if self._matcher.is_strong(name) else None)
        named = self._matcher.redact(name, self._learnt)
        if walked is value and named is name:
            return item
        return [named, walked] if isinstance(item, list) else {next(iter(item)): [named, walked]}

    def _mapping(self, plain: dict[Any, Any], under: str | None) -> dict[Any, Any]:
        under = under if _hands_down(plain) else None
        named = next((plain[name] for name in _NAMES if isinstance(plain.get(name), str)), None)
        walked: dict[Any, Any] = {}
        for key, item in plain.items():
            name = _unused(self._matcher.redact(key, self._learnt), walked) if isinstance(key, str) else key
            says = named if key == "value" and named is not None else key
            walked[name] = self._member(says, item, plain, under, packed=key in PACKED, pairs=key in _PAIRS)
        same = all(old is new for old, new in zip(plain, walked, strict=True))
        return plain if same and all(plain[key] is walked[key] for key in walked) else walked

    def _member(
        self, key: Any, item: Any, siblings: Mapping[Any, Any], under: str | None, *, packed: bool, pairs: bool
    ) -> Any:
        if self._matcher.is_credential(key, item, siblings):
            return self._taken(key, item)
        if packed and isinstance(item, str):
            return self._packed(item, under)
        above = key if self._matcher.is_strong(key) else under
        if isinstance(item, list):
            return self._list(item, above, pairs=pairs)
        return self.value(item, above)

    def _packed(self, text: str, under: str | None) -> str:
        try:
            data = base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
        except (binascii.Error, ValueError):
            return self._text(text, under)
        clean = self._text(data, under)
        return text if clean == data else base64.b64encode(clean.encode("utf-8", "surrogateescape")).decode("ascii")


def suspicious(plain: Any, matcher: Matcher, clean: Clean) -> bool:
    """Whether anything in the value may have to be replaced: one search over all its texts instead of one each."""
    strings: list[str] = []
    pending, looked_at = [plain], []
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            strings.append(item)
            if len(item) <= 64 and matcher.is_name(item):
                return True
        elif isinstance(item, dict):
            for key, value in item.items():
                nested = isinstance(value, (dict, list)) and matcher.is_strong(key)
                if nested or key in PACKED or matcher.is_credential(key, value, item):
                    return True
                strings.append(str(key))
                pending.append(value)
        elif isinstance(item, list):
            texts = [clean.text(inner) for inner in item]
            pending.extend(inner for inner, text in zip(item, texts, strict=True) if text not in clean)
            looked_at.extend(texts)
    found = matcher.may_hit("\x00".join(strings))
    if not found:
        for text in looked_at:
            clean.add(text)
    return found


def _pair(item: Any) -> tuple[str, Any] | None:
    """Name and value, if this is a pair of them: a list of two, or the form of a tuple of two."""
    if isinstance(item, dict) and len(item) == 1:
        item = item.get("$tuple")
    if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str):
        return item[0], item[1]
    return None


def _hands_down(plain: Mapping[Any, Any]) -> bool:
    """Whether the name above a mapping speaks of the texts in it: not if it is a schema or the form of an object."""
    if len(plain) == 1 and str(next(iter(plain))).startswith("$"):
        return next(iter(plain)) in _COLLECTIONS | PACKED
    kind = plain.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    schema = any(isinstance(one, str) and one in _SCHEMA_TYPES for one in kinds)
    return not schema and not any(key in plain for key in ("$ref", "anyOf", "oneOf", "allOf", "enum"))


def _unused(name: str, taken: Mapping[Any, Any]) -> str:
    """Two secret keys must not become one."""
    number, unused = 2, name
    while unused in taken:
        unused, number = f"{name} {number}", number + 1
    return unused
