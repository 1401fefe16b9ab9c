"""The span tree that opens a cassette file, for the person who reviews it.

Invariants: it is derived from the document alone; it is the same on every platform and Python version; no character
of the data can end a line, move the cursor or reorder what the reader sees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._model import EXCHANGE_KINDS

WIDTH = 100
"""Longest name that is shown whole."""

_USAGE = tuple((f"gen_ai.usage.{way}_tokens", way) for way in ("input", "output"))
_MOST_TOKENS = 10**15

# Ranges are spelt out: str.isprintable() and unicodedata follow the Unicode version of the Python at hand, and a
# summary written by one Python must be accepted by the next. Controls, soft hyphen, joiners and marks of direction,
# line and paragraph separator, BOM, annotations, non-characters, tags.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\uffff\U000e0000-\U000e0fff\\\\]"
)


def visible(text: str) -> str:
    """The text with every character that could deceive a reader written as an escape; a backslash is doubled."""
    return _INVISIBLE.sub(_escape, text)


def same(found: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether two summaries say the same. White space is levelled: formatters change it, and it carries nothing."""
    return tuple(found) == tuple(expected) or [" ".join(line.split()) for line in found if line.strip()] == [
        " ".join(line.split()) for line in expected if line.strip()
    ]


def lines(document: Mapping[str, Any]) -> list[str]:
    """One line of heading, one of totals, then one per span, drawn as a tree.

    Args:
        document: a plain document whose entries are without fault (see ``_ledger``), whatever tree they make.
    """
    entries = document["entries"]
    spans = [entry for entry in entries if entry["kind"] != "close"]
    closes = [entry for entry in entries if entry["kind"] == "close"]
    outcome = closes[-1]["payload"]["outcome"] if closes else "no close entry"
    kinds = ", ".join(_by_kind(spans))
    totals = f"{_plural(len(spans), 'span')}{f' ({kinds})' if kinds else ''}; {_short(outcome)}"
    return [_short(document["header"]["nodeid"], limit=4 * WIDTH), totals, *_tree(spans)]


def _tree(spans: list[Mapping[str, Any]]) -> list[str]:
    children: dict[str | None, list[Mapping[str, Any]]] = {}
    for span in spans:
        children.setdefault(span["parent_span_id"], []).append(span)
    drawn: list[str] = []
    # A stack, not recursion: the depth of a trace is the agent's to choose. Items: entry, lead of its line, of its own.
    stack = [(root, "", "") for root in reversed(children.get(None, []))]
    while stack:
        span, lead, below = stack.pop()
        drawn.append(lead + _line(span))
        # Taken out: what is no tree is refused after it was written down, and must come to an end here.
        inner = children.pop(span["span_id"], [])
        for position, child in reversed(list(enumerate(inner))):
            last = position == len(inner) - 1
            stack.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))
    return drawn


def _line(span: Mapping[str, Any]) -> str:
    payload = span["payload"]
    parts = [_short(payload["name"]) or "(no name)"]
    if span["kind"] != "span":
        parts.append(f"[{span['kind']}]")
    tokens = _tokens(payload["attributes"])
    if tokens:
        parts.append(tokens)
    if payload["status"]["code"] == "error":
        message = _short(payload["status"]["message"])
        parts.append(f"ERROR: {message}" if message else "ERROR")
    return "  ".join(parts)


def _tokens(attributes: Mapping[str, Any]) -> str:
    said = []
    for name, way in _USAGE:
        count = attributes.get(name)
        if type(count) is int and abs(count) < _MOST_TOKENS:
            said.append(f"{count} {way} tokens")
    return ", ".join(said)


def _by_kind(spans: list[Mapping[str, Any]]) -> list[str]:
    kinds = [span["kind"] for span in spans]
    return [f"{kinds.count(kind)} {kind}" for kind in EXCHANGE_KINDS if kind in kinds]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _short(text: str, *, limit: int = WIDTH) -> str:
    # Cut before escaping: an escape cut in half would read as something else.
    return visible(text) if len(text) <= limit else visible(text[: limit - 1]) + "…"


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    code = ord(char)
    if char == "\\":
        return "\\\\"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
