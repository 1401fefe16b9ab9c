"""Texts in pieces: what the run's context may have supplied, and what stands between.

Invariant: joined, the pieces of a text are the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from functools import cache, lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from .clock import NAMES, PHRASE

LITERAL, PATH, NETLOC, UUID, HEX, PHRASE_, NUMBER = "literal", "path", "netloc", "uuid", "hex", "phrase", "number"
OPAQUE = "opaque"
"""A picture or a sound in base64: long, and nothing in it is what it looks like."""
WORD = "word"
"""A word, or a quoted character, that can be nothing else: passed over in one step, and not tried at each letter."""

_HEX = "[0-9A-Fa-f]"
# In a URL, what is quoted is followed by what is not part of it.
_QUOTED = rf"(?<=%{_HEX}{{2}})"
_NO_HEX_BEFORE, _NO_DIGIT_BEFORE = rf"(?:{_QUOTED}|(?<!{_HEX}))", rf"(?:{_QUOTED}|(?<!\d))"
# Most numbers are nothing but numbers, and all that a date could be takes long to try.
_GOES_WITH_MORE = r"(?=(?:19|20)\d\d|\d{1,2}(?:st|nd|rd|th|\s?[-/.:%APap]|\.?\s+[A-Za-z]))"
_SHAPES = (
    (NETLOC, r"(?<![\w.])(?:localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0|\[::1?\]):\d{1,5}(?!\d)"),
    (
        UUID,
        rf"{_NO_HEX_BEFORE}(?:{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}(?!{_HEX})|(?<!{_HEX}-){_HEX}{{32}}(?!-?{_HEX}))",
    ),
    # A uuid that was cut off; if no letter is left in it, it is a number.
    (HEX, rf"{_NO_HEX_BEFORE}(?=\d*[A-Fa-f]){_HEX}{{8,31}}(?![0-9A-Za-z])"),
    (PHRASE_, rf"(?:(?:{_QUOTED}|(?<![A-Za-z]))(?=[A-Z])|{_NO_DIGIT_BEFORE}{_GOES_WITH_MORE})(?:{PHRASE})(?!\d)"),
    (NUMBER, rf"{_NO_DIGIT_BEFORE}\d+(?:\.\d+)?(?!\d)"),
)
_SKIPPED = (
    (OPAQUE, r"(?<![\w+/=\-])[\w+/=\-]{256,}"),
    (WORD, rf"%{_HEX}{{2}}|(?<!\w)(?!(?:{NAMES})(?![A-Za-z])|localhost|{_HEX}{{8}})[A-Za-z]{{2,}}(?![\w\-+/=])"),
)
_PATHLIKE = r"(?:(?:[A-Za-z]:)?[/\\]|%2[Ff])[^\s\"'<>|;,()\[\]{}]*"
# Not the beginning of a longer name, and not the end of another path.
_BEGINNING = re.compile(rf"(?:{_QUOTED}|(?<![\w.\-~]))(?:(?:[A-Za-z]:)?[/\\]|%2[Ff])")
_GOES_ON = re.compile(r"[\w\-]|\.\w")
_QUOTED_SLASH = re.compile(r"%2[Ff]")


class Piece(NamedTuple):
    """A part of a text.

    Args:
        shape: ``literal``, or what it could be.
        text: the part.
    """

    shape: str
    text: str


def pieces(text: str, *, paths: Set[str] = frozenset()) -> list[Piece]:
    """A text in pieces.

    Args:
        text: the text.
        paths: directories and files that are pieces of their own, where they stand in it as such.
    """
    found: list[Piece] = []
    position = 0
    for start, end in known_paths(text, paths):
        found.extend(_pieces(text, position, start))
        found.append(Piece(PATH, text[start:end]))
        position = end
    return [*found, *_pieces(text, position, len(text))]


def coarse(text: str) -> str:
    """The text with nothing left of what a run's context could have supplied: equal for all that can be equal."""
    return _coarse_pattern().sub(lambda found: found[0] if found.lastgroup in (OPAQUE, WORD) else "#", text)


@lru_cache(maxsize=128)  # a prompt is said again in every request
def _pieces(text: str, start: int, end: int) -> tuple[Piece, ...]:
    return tuple(_split(text, start, end))


def _split(text: str, start: int, end: int) -> Iterator[Piece]:
    position = start
    for found in _pattern().finditer(text, start, end):
        if found.lastgroup in (OPAQUE, WORD):
            continue
        if found.start() > position:
            yield Piece(LITERAL, text[position : found.start()])
        yield Piece(found.lastgroup or LITERAL, found.group())
        position = found.end()
    if position < end:
        yield Piece(LITERAL, text[position:end])


def known_paths(text: str, paths: Set[str]) -> Iterator[tuple[int, int]]:
    """Where known paths begin and end, the longest where several begin; also where a URL quotes them.

    Args:
        text: the text.
        paths: the paths. It is their lengths that are tried, of which there are few.
    """
    lengths: list[int] = []
    position = 0
    for found in _BEGINNING.finditer(text) if paths and any(mark in text for mark in "/\\%") else ():
        start = found.start()
        if start < position:
            continue
        lengths = lengths or sorted({len(path) for path in paths}, reverse=True)
        if (end := _end(text, start, paths, lengths)) is not None:
            yield start, end
            position = end


def plain_path(text: str) -> str:
    """A path as it is, however it is written."""
    return unquote(text) if _QUOTED_SLASH.match(text) else text


def _end(text: str, start: int, paths: Set[str], lengths: list[int]) -> int | None:
    """Where the longest path that begins there ends."""
    if _QUOTED_SLASH.match(text, start):
        stop = start + 3 * lengths[0]
        ends = [match.start() for match in _STOP.finditer(text, start + 3, min(stop, len(text)))]
        ends = [*ends, min(stop, len(text))]
        known = (end for end in reversed(ends) if unquote(text[start:end]) in paths)
    else:
        known = (start + length for length in lengths if text[start : start + length] in paths)
    return next((end for end in known if not _GOES_ON.match(text, end)), None)


_STOP = re.compile(r"%2[Ff]|[^\w%.\-~]")


@cache
def _pattern() -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in (*_SKIPPED, *_SHAPES)))


@cache
def _coarse_pattern() -> re.Pattern[str]:
    others = (_SHAPES[0][1], _PATHLIKE, *(pattern for _, pattern in _SHAPES[1:]))
    return re.compile("|".join((*(f"(?P<{name}>{pattern})" for name, pattern in _SKIPPED), *others)))
