"""Streamed text in which much comes again with each event: as cassettes hold it, where that is written once.

Invariants:

* ``unfold(fold(text), size=...) == text``;
* a run is half as long as its events or shorter, and text that a reviewer can read: what the model said, word by word;
* nothing is written out beyond the size that is given: a kilobyte could stand for gigabytes.

A *run* is events, one after the other, that differ in nothing but some JSON words (texts, numbers,
``true``, ``false``, ``null``). It is told as ``{"frame": ..., "rows": ...}``: the event with a ``HOLE`` for each of
these words, and a line for each event with its words, a blank between them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

HOLE = "<*>"
MAX_SIZE = 16 * 2**20
"""Characters of a text that is folded, or written out again."""

_GAIN = 2
"""How many times as long the events of a run have to be: what is short is best read as it came."""
_OVERHEAD = 60
"""Characters that a run costs beside its own."""
_TOO_MUCH = "holds more than its chunks, or more than may be written out"
_ENDS = ("\r\n\r\n", "\n\n", "\n")
"""What ends an event, the first of them that occurs: of server-sent events, of JSON lines."""
WORD = re.compile(
    # A quote behind a backslash begins no text: else each of a text that never ends would be tried.
    r'(?<!\\)"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})[^"\\\x00-\x1f]*)*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|\btrue\b|\bfalse\b|\bnull\b"
)
"""A scalar of JSON."""

Folded: TypeAlias = "list[str | dict[str, str]]"
"""Text as it is, and runs, in order."""


def fold(text: str) -> Folded | None:
    """The same in less; ``None`` if nothing in it comes again."""
    if HOLE in text or len(text) > MAX_SIZE:
        return None
    folded: Folded = []
    plain = ""
    for _, group in itertools.groupby(_events(text), key=lambda event: WORD.sub(HOLE, event)):
        events = list(group)
        run = _run(events) if len(events) > _GAIN else None  # fewer are never a gain
        if run is None:
            plain += "".join(events)
            continue
        folded += [plain, run] if plain else [run]
        plain = ""
    if not folded:
        return None
    return [*folded, plain] if plain else folded


def unfold(folded: Any, *, size: int) -> str:
    """The text that was folded.

    Args:
        folded: anything plain.
        size: bytes that the text has.

    Raises:
        ValueError: this is no folded text, or one of more than the size.
    """
    if type(folded) is not list:
        raise ValueError("must be a list of texts and runs")
    room = min(size, MAX_SIZE)
    texts = []
    for item in folded:
        text = item if type(item) is str else _written_out(item, room)
        room -= len(text)
        if room < 0:
            raise ValueError(_TOO_MUCH)
        texts.append(text)
    return "".join(texts)


def _events(text: str) -> Iterator[str]:
    end = next((end for end in _ENDS if end in text), None)
    if end is None:
        return iter((text,))
    *events, rest = text.split(end)
    return itertools.chain((event + end for event in events), (rest,) if rest else ())


def _run(events: Sequence[str]) -> dict[str, str] | None:
    """Events of one skeleton as a run; ``None`` if that is no gain."""
    words = [WORD.findall(event) for event in events]
    varying = [len(set(column)) > 1 for column in zip(*words, strict=True)]
    if not any(varying):
        return None
    shown = [HOLE if varies else word for varies, word in zip(varying, words[0], strict=True)]
    frame = "".join(itertools.chain(*itertools.zip_longest(WORD.split(events[0]), shown, fillvalue="")))
    rows = "\n".join([" ".join(itertools.compress(row, varying)) for row in words])
    cost = len(frame) + len(rows) + _OVERHEAD
    return {"frame": frame, "rows": rows} if cost < sum(map(len, events)) / _GAIN else None


def _written_out(run: Any, room: int) -> str:
    if type(run) is not dict or run.keys() != {"frame", "rows"} or not all(type(text) is str for text in run.values()):
        raise ValueError("must be a list of texts and of mappings of frame and rows")
    # A hole and a word stand for a character at least: so this is known before they are taken apart.
    if len(run["frame"]) > len(HOLE) * room or len(run["rows"]) > 2 * room:
        raise ValueError(_TOO_MUCH)
    pieces, words = run["frame"].split(HOLE), WORD.findall(run["rows"])
    holes = len(pieces) - 1
    rows = [words[start : start + holes] for start in range(0, len(words), holes or 1)]
    if not words or not holes or "\n".join(map(" ".join, rows)) != run["rows"] or len(rows[-1]) != holes:
        raise ValueError("rows must hold a word for each hole of the frame")
    if sum(map(len, pieces)) * len(rows) + sum(map(len, words)) > room:
        raise ValueError(_TOO_MUCH)
    return "".join([text for row in rows for pair in itertools.zip_longest(pieces, row, fillvalue="") for text in pair])
