"""One changed field as lines: its path, what was golden, what is live.

Invariants:

* Two different values never look alike: what only differs in invisible ways is shown as ASCII.
* Texts are cut around their first difference, so that it is on the screen.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from .._compare.fields import declared_name
from .._compare.likeness import shared_prefix
from .._model import MISSING, FieldChange
from .terminal import Line, escape

_MOST_LINES = 400
"""Lines of a differing middle that are aligned; above that a window has to do."""

_CHARACTERS = 100_000
"""Characters of one value that are shown even when everything is asked for."""


def change_lines(change: FieldChange, *, width: int, full: bool = False, owner: str = "") -> list[Line]:
    """Describe one changed field.

    Args:
        change: the field.
        width: columns.
        full: whole values instead of a window around the first difference.
        owner: name of the span, put before the path.
    """
    lines = [_path_line(change, full=full, owner=owner)]
    golden, live = change.golden, change.live
    if isinstance(golden, str) and isinstance(live, str) and ("\n" in golden or "\n" in live):
        diff = _line_diff(golden.splitlines(True), live.splitlines(True), width=width - 4, full=full)
        if diff is not None:
            return lines + diff
    room = _CHARACTERS if full else width - 4
    one, other = _windows(golden, live, room)
    return [*lines, Line(f"  - {one}", "-", whole=full), Line(f"  + {other}", "+", whole=full)]


def offer_lines(change: FieldChange, *, full: bool = False, owner: str = "") -> list[Line]:
    """Describe a tool that a request no longer offers to the model, or now does; nothing if it is another change.

    Args:
        change: the field.
        full: also the declaration.
        owner: name of the span, put before the path.
    """
    if (change.golden is MISSING) == (change.live is MISSING):
        return []
    gone = change.live is MISSING
    declared = change.golden if gone else change.live
    name = declared_name(change.path, declared)
    if not name:
        return []
    mark, what = ("-", "is no longer offered") if gone else ("+", "is now offered")
    lines = [_path_line(change, full=full, owner=owner), Line(f"  {mark} tool {name} {what} to the model", mark)]
    return [*lines, Line(f"  {mark} {value_text(declared)[:_CHARACTERS]}", mark, whole=True)] if full else lines


def _path_line(change: FieldChange, *, full: bool, owner: str) -> Line:
    return Line(f"  {owner}: {change.path}" if owner else f"  {change.path}", "path", whole=full)


def value_text(value: Any, *, ascii_only: bool = False) -> str:
    """Return a plain value as JSON on one line; ``(absent)`` for a missing field."""
    if value is MISSING:
        return "(absent)"
    return json.dumps(value, ensure_ascii=ascii_only, default=repr)


def _windows(golden: Any, live: Any, room: int) -> tuple[str, str]:
    """Both values as JSON, cut to the same stretch around their first difference."""
    ascii_only = _look_alike(value_text(golden), value_text(live))
    if isinstance(golden, str) and isinstance(live, str):
        # Cut before quoting, so that no escape is cut in two.
        return _slices(golden, live, room - 4, ascii_only=ascii_only)
    one, other = value_text(golden, ascii_only=ascii_only), value_text(live, ascii_only=ascii_only)
    start = _window_start(one, other, room)
    return _from(one, start, room), _from(other, start, room)


def _slices(golden: str, live: str, room: int, *, ascii_only: bool) -> tuple[str, str]:
    start = _window_start(golden, live, room)
    texts = []
    for text in (golden, live):
        piece = text[start : start + room]
        quoted = value_text(piece, ascii_only=ascii_only)[1:-1]
        texts.append('"' + ("…" if start else "") + quoted + ("…" if start + room < len(text) else "") + '"')
    return texts[0], texts[1]


def _window_start(golden: str, live: str, room: int) -> int:
    if max(len(golden), len(live)) <= room:
        return 0
    return max(0, shared_prefix(golden, live) - room // 3)


def _from(text: str, start: int, room: int) -> str:
    return ("…" if start else "") + text[start : start + room] + ("…" if start + room < len(text) else "")


def _look_alike(golden: str, live: str) -> bool:
    return escape(unicodedata.normalize("NFKC", golden)) == escape(unicodedata.normalize("NFKC", live))


def _line_diff(golden: list[str], live: list[str], *, width: int, full: bool) -> list[Line] | None:
    """A small unified diff with one line of context; ``None`` if there is too much to align."""
    head = _shared_head(golden, live)
    tail = _shared_head(golden[head:][::-1], live[head:][::-1])
    one, other = golden[head : len(golden) - tail], live[head : len(live) - tail]
    if max(len(one), len(other)) > _MOST_LINES:
        return None
    lines = [Line(f"  @@ line {head + 1} @@", "dim")] if head > 1 else []
    if head:
        lines.append(Line(f"    {_shown(golden[head - 1])}", "dim", whole=full))
    for tag, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += _context(one[a:b], whole=full)
        else:
            lines += _replaced(one[a:b], other[c:d], width=width, full=full)
    if tail:
        lines.append(Line(f"    {_shown(golden[len(golden) - tail])}", "dim", whole=full))
    return lines


def _context(texts: list[str], *, whole: bool) -> list[Line]:
    lines = [Line(f"    {_shown(text)}", "dim", whole=whole) for text in texts]
    if len(lines) <= 3:
        return lines
    return [lines[0], Line(f"    … {len(lines) - 2} equal lines", "dim"), lines[-1]]


def _replaced(golden: list[str], live: list[str], *, width: int, full: bool) -> Iterator[Line]:
    removed, added = [_shown(text) for text in golden], [_shown(text) for text in live]
    if not full:
        for index, (one, other) in enumerate(zip(removed, added, strict=False)):
            start = _window_start(one, other, width)
            removed[index], added[index] = _from(one, start, width), _from(other, start, width)
    for index, (one, other) in enumerate(zip(removed, added, strict=False)):
        if _look_alike(one, other):
            removed[index] = value_text(golden[index], ascii_only=True)
            added[index] = value_text(live[index], ascii_only=True)
    yield from (Line(f"  - {text}", "-", whole=full) for text in removed)
    yield from (Line(f"  + {text}", "+", whole=full) for text in added)


def _shown(line: str) -> str:
    """A line without its end if that is a plain newline; trailing blanks made visible."""
    text = line[:-1] if line.endswith("\n") and not line.endswith("\r\n") else line
    bare = text.rstrip(" ")
    return bare + "\\x20" * (len(text) - len(bare))


def _shared_head(golden: list[str], live: list[str]) -> int:
    count = 0
    for one, other in zip(golden, live, strict=False):
        if one != other:
            break
        count += 1
    return count
