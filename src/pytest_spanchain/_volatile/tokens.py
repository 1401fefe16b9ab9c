"""Texts in pieces: what the run's context may have supplied, and what stands between.

Invariant: joined, the pieces of a text are the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from .clock import PHRASE

LITERAL, PATH, NETLOC, UUID, PHRASE_, NUMBER = "literal", "path", "netloc", "uuid", "phrase", "number"
OPAQUE = "opaque"
"""A picture or a sound in base64: long, and nothing in it is what it looks like."""

_HEX = "[0-9A-Fa-f]"
_SHAPES = (
    (NETLOC, r"(?<![\w.])(?:localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0|\[::1?\]):\d{1,5}(?!\d)"),
    (
        UUID,
        rf"(?<!{_HEX})(?<!{_HEX}-)(?:{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}|{_HEX}{{32}})(?!-?{_HEX})",
    ),
    (PHRASE_, rf"(?:(?<![A-Za-z])(?=[A-Z])|(?<!\d)(?=\d))(?:{PHRASE})(?!\d)"),
    (NUMBER, r"(?<!\d)\d+(?:\.\d+)?(?!\d)"),
)
_LONG = (OPAQUE, r"(?<![\w+/=\-])[\w+/=\-]{256,}")
_PATHLIKE = r"(?:[A-Za-z]:)?[/\\][^\s\"'<>|;,()\[\]{}]*"


class Piece(NamedTuple):
    """A part of a text.

    Args:
        shape: ``literal``, or what it could be.
        text: the part.
    """

    shape: str
    text: str


def pieces(text: str, *, paths: Iterable[str] = ()) -> list[Piece]:
    """A text in pieces.

    Args:
        text: the text.
        paths: directories and files that are pieces of their own, where they stand in it as such.
    """
    return list(_pieces(_splitter(tuple(sorted(paths, key=lambda path: (-len(path), path)))), text))


@lru_cache(maxsize=4096)  # histories say everything again in every request
def coarse(text: str) -> str:
    """The text with nothing left of what a run's context could have supplied: equal for all that can be equal."""
    return _coarse_pattern().sub(lambda found: found[0] if found.lastgroup == OPAQUE else "#", text)


def _pieces(splitter: re.Pattern[str], text: str) -> Iterator[Piece]:
    position = 0
    for found in splitter.finditer(text):
        if found.lastgroup == OPAQUE:
            continue
        if found.start() > position:
            yield Piece(LITERAL, text[position : found.start()])
        yield Piece(found.lastgroup or LITERAL, found.group())
        position = found.end()
    if position < len(text):
        yield Piece(LITERAL, text[position:])


@lru_cache(maxsize=32)
def _splitter(paths: tuple[str, ...]) -> re.Pattern[str]:
    known = "|".join(map(re.escape, paths))
    # Not the beginning of a longer name, and not the end of another path.
    shapes = [(PATH, rf"(?<![\w.\-~])(?:{known})(?![\w\-])(?!\.\w)")] if paths else []
    return re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in (_LONG, *shapes, *_SHAPES)))


@cache
def _coarse_pattern() -> re.Pattern[str]:
    others = (_SHAPES[0][1], _PATHLIKE, *(pattern for _, pattern in _SHAPES[1:]))
    return re.compile("|".join((f"(?P<{_LONG[0]}>{_LONG[1]})", *others)))
