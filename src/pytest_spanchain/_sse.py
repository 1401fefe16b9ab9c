"""Server-sent events as text: where each event is, and what it carries.

Invariants:

* The offsets point into the very text that was given; nothing is normalised, so an edit at an offset keeps every
  other byte.
* An event without its closing blank line is marked incomplete: the standard makes clients discard it, but it is in
  the file and a secret may sit in it.

Source: WHATWG HTML, "Server-sent events", section 9.2.6.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_LINE = re.compile(r"([^\r\n]*)(\r\n|\n|\r|\Z)")


class Event(NamedTuple):
    """One event.

    Args:
        name: value of the last ``event:`` line, else empty.
        data: values of the ``data:`` lines, joined with newlines.
        pieces: for each ``data:`` line the offset of its value in the text and the value.
        complete: whether a blank line closed it.
    """

    name: str
    data: str
    pieces: tuple[tuple[int, str], ...]
    complete: bool

    def offset(self, position: int) -> int:
        """Offset in the text of a position in ``data``."""
        for start, value in self.pieces:
            if position <= len(value):
                return start + position
            position -= len(value) + 1
        raise AssertionError("a position beyond the event's data")


def events(text: str) -> Iterator[Event]:
    """The events that carry data, in order, the unfinished one at the end included."""
    name = ""
    pieces: list[tuple[int, str]] = []
    position = 1 if text.startswith("\ufeff") else 0
    while position < len(text):
        found = _LINE.match(text, position)
        assert found is not None, "the pattern matches the empty line"
        line = found.group(1)
        if not line:
            if pieces:
                yield _event(name, pieces, complete=True)
            name, pieces = "", []
        else:
            field, _, value = line.partition(":")
            start = position + len(field) + 1
            if value.startswith(" "):
                value, start = value[1:], start + 1
            if field == "data":
                pieces.append((min(start, position + len(line)), value))
            elif field == "event":
                name = value
        position = found.end()
    if pieces:
        yield _event(name, pieces, complete=False)


def objects(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and JSON object of each complete event; events that carry anything else are passed over."""
    for event in events(text):
        value = parse(event.data) if event.complete else None
        if isinstance(value, dict):
            yield event.name, value


class Members(dict[str, Any]):
    """A mapping that has all its members, in order, where a key is there twice; as a mapping, it has the last."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__(members)
        self._members = members

    def items(self) -> Any:
        """Every member."""
        return self._members


def parse(text: str, *, members: bool = False) -> Any | None:
    """JSON text as a plain value; ``None`` if it is not JSON, or holds what JSON cannot say (NaN, 1e999).

    Args:
        text: the text.
        members: whether mappings are to be ``Members``.
    """
    try:
        return (_with_members if members else _plainly)(text)
    except (ValueError, RecursionError):
        return None


def _event(name: str, pieces: list[tuple[int, str]], *, complete: bool) -> Event:
    return Event(name, "\n".join(value for _, value in pieces), tuple(pieces), complete)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} has no finite value")
    return value


# One for all: json.loads makes a new one for every call with options.
_plainly = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode
_with_members = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, object_pairs_hook=Members).decode
