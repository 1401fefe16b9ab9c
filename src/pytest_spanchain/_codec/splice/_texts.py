"""Texts of a cassette that take several lines: literal blocks, and quotes that go on."""

from __future__ import annotations

import functools
import re
from json.encoder import encode_basestring as json_text

from ._inline import Doubt, unescaped

_LITERALS = {f"|{explicit}{end}": (bool(explicit), end) for explicit in ("", "2") for end in ("", "-", "+")}
"""Whether they begin with a blank or a line end, and what is said of the line ends behind them."""


def text_of(lead: str, below: str, column: int) -> str:
    """Canonical text of a text.

    Args:
        lead: what of it stands on the line of its key or dash.
        below: the lines below that, whole.
        column: in which those start.

    Raises:
        Doubt: the writer does not write it so.
    """
    return _literal(lead, below, column) if lead[0] == "|" else _quoted(lead, below, column)


def _literal(lead: str, below: str, column: int) -> str:
    shape = _LITERALS.get(lead)
    if shape is None:
        raise Doubt
    explicit, end = shape
    text = f"\n{below[:-1]}".replace("\n" + " " * column, "\n")[1:]
    # Blanks before a line end are for quotes: the writer puts none here.
    if not text or " \n" in text or "\t\n" in text or text[-1] in " \t":
        raise Doubt
    if (text[0] in " \n") is not explicit or text[0] == "\t":
        raise Doubt
    if (text[-1] == "\n") is not (end == "+") or not text.strip("\n"):
        raise Doubt
    return json_text(text if end == "-" else f"{text}\n")


def _quoted(lead: str, below: str, column: int) -> str:
    if lead[0] != '"':
        raise Doubt
    text = f"{lead[1:]}\n{below[:-1]}"
    first, *others = parts = text.split("\\\n" + " " * column)
    # A quote that is not the last one is no JSON; a line end that is none of these is none.
    if text[-1] != '"' or len(parts) <= text.count("\n") or any(part[:1] in ("", " ", "\t") for part in others):
        raise Doubt
    # An escape cannot be cut by the line end: what is left of one is no JSON, or ends the text.
    if any(_ends_within_escape(part) for part in parts):
        raise Doubt
    return unescaped('"' + first + "".join([part[part.startswith("\\ ") :] for part in others]))


@functools.cache
def lines_from(column: int) -> re.Pattern[str]:
    """Lines that begin in a column or behind it, and empty ones; one at least."""
    return re.compile(rf"(?: {{{column}}}[^\n]*\n|\n)+")


@functools.cache
def lines_like(lead: str) -> re.Pattern[str]:
    """Lines that begin like this and go on."""
    return re.compile(rf"(?:{re.escape(lead)}[^\n]+\n)+")


def _ends_within_escape(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1
