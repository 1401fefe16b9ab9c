"""Texts of a cassette that take several lines: literal blocks, and quotes that go on."""

from __future__ import annotations

import functools
import re
from json.encoder import encode_basestring as json_text

from ._inline import Doubt, unescaped

_LITERALS = {f"|{explicit}{end}": (bool(explicit), end) for explicit in ("", "2") for end in ("", "-", "+")}
"""Whether they begin with a blank or a line end, and what is said of the line ends behind them."""


def text_of(lead: str, text: str, at: int, column: int) -> tuple[str, int]:
    """Canonical text of a text, and where it ends.

    Args:
        lead: what of it stands on the line of its key or dash.
        text: of the file.
        at: where the lines below that begin.
        column: in which those start.

    Raises:
        Doubt: the writer does not write it so.
    """
    if lead[0] != '"' and lead not in _LITERALS:
        raise Doubt
    end = end_of_lines(text, at, column)
    if end == at:
        raise Doubt
    below = text[at:end]
    return (_quoted if lead[0] == '"' else _literal)(lead, below, column), end


def _literal(lead: str, below: str, column: int) -> str:
    explicit, end = _LITERALS[lead]
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
    text = f"{lead[1:]}\n{below[:-1]}"
    first, *others = parts = text.split("\\\n" + " " * column)
    # A quote that is not the last one is no JSON; a line end that is none of these is none.
    if text[-1] != '"' or len(parts) <= text.count("\n") or any(part[:1] in ("", " ", "\t") for part in others):
        raise Doubt
    # An escape cannot be cut by the line end: what is left of one is no JSON, or ends the text.
    if any(_ends_within_escape(part) for part in parts):
        raise Doubt
    return unescaped('"' + first + "".join([part[part.startswith("\\ ") :] for part in others]))


def end_of_lines(text: str, at: int, column: int) -> int:
    """Where lines end that begin in a column or behind it, and empty ones; ``at`` if there is none.

    Args:
        text: of whole lines.
        at: where the first one begins.
        column: of theirs.
    """
    if not (text.startswith("\n", at) or text.startswith(" " * column, at)):
        return at
    found = _before_others(column).search(text, at)
    assert found is not None, "the last line has an end, and nothing behind it"
    return found.end()


@functools.cache
def _before_others(column: int) -> re.Pattern[str]:
    # A pattern of the lines themselves would keep something of each.
    return re.compile(rf"\n(?!\n| {{{column}}})")


@functools.cache
def lines_like(lead: str) -> re.Pattern[str]:
    """Lines that begin like this and go on."""
    return re.compile(rf"(?:{re.escape(lead)}[^\n]+\n)+")


def _ends_within_escape(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1
