"""What arrives in parts, put together: the rules that the streams of several APIs share.

Invariants:

* Any JSON that arrives is accepted: parts of an unexpected type are passed over, never raised about.
* Positions sent by the server are keys, never list indexes, so a wild ``index`` costs nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

BLOB = 512
"""Characters of base64 that a reader is still shown."""

_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]+")


def short(value: Any) -> Any:
    """A long base64 text as a note that tells it from others: for messages, which are for the reader only."""
    if not isinstance(value, str) or len(value) <= BLOB or not _BASE64.fullmatch(value):
        return value
    return f"({len(value)} characters of base64, sha256 {hashlib.sha256(value.encode('ascii')).hexdigest()[:16]})"


def position(value: Any, *, default: int | None = 0) -> int | None:
    """A position as the server sent it; anything else is the default."""
    return value if type(value) is int else default


def in_order(entries: Mapping[Any, Any]) -> list[Any]:
    """The entries by their positions."""
    return [entries[key] for key in sorted(entries, key=_order)]


def extend(target: dict[str, Any], name: str, text: Any) -> None:
    """Add to a text; what is none is passed over."""
    if isinstance(text, str):
        old = target.get(name)
        target[name] = (old if isinstance(old, str) else "") + text


def present(source: Mapping[str, Any]) -> dict[str, Any]:
    """What is not null: a later event that leaves a field empty does not take it back."""
    return {key: value for key, value in source.items() if value is not None}


def dicts(values: Iterable[Any]) -> list[dict[str, Any]]:
    """The objects among some values."""
    return [value for value in values if isinstance(value, dict)]


def copy(value: Any) -> Any:
    """A copy of a JSON value that shares no list or object with it."""
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy(item) for item in value]
    return value


def _order(key: Any) -> int:
    return key if type(key) is int else -1
