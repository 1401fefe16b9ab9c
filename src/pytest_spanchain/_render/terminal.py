"""Text for a terminal: what must not reach it raw, how wide it is, and its colours.

Invariants:

* ``Line.render`` gives one line of printable characters; escape sequences are in it only if colour was asked for.
* Whatever Python calls unprintable is shown as a visible escape: C0, C1, DEL, bidirectional controls, zero-width and
  tag characters, unusual spaces, lone surrogates.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_STYLES = {"head": "1;31", "good": "1;32", "-": "31", "+": "32", "~": "33", ">": "36", "dim": "2", "path": "1", "": ""}


def escape(text: str) -> str:
    """Replace every unprintable character by its Python escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def columns(text: str) -> int:
    """Columns that escaped text takes; East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Shorten escaped text to ``width`` columns, the last of which is then ``…``."""
    if len(text) * 2 <= width or columns(text) <= width:
        return text
    taken = 0
    for index, char in enumerate(text):
        taken += _columns(char)
        if taken > width - 1:
            return text[:index] + "…"
    return text


@dataclass(frozen=True)
class Line:
    """One line of a report.

    Args:
        text: what it says, unescaped.
        style: ``head``, ``good``, ``path``, ``dim``, a mark (``+ - ~ >``) or nothing.
        tail: further words that are kept when the text has to be cut.
        whole: never cut, because it is to be copied.
    """

    text: str
    style: str = ""
    tail: str = ""
    whole: bool = False

    def render(self, *, color: bool, width: int) -> str:
        """Escape, cut and colour."""
        tail = escape(self.tail)
        text = escape(self.text)
        if not self.whole:
            tail = cut(tail, max(width - 20, 20))
            text = cut(text, max(width - columns(tail), 20))
        shown = (text + tail).rstrip(" ")
        code = _STYLES[self.style]
        return f"\x1b[{code}m{shown}\x1b[0m" if color and code and shown else shown
