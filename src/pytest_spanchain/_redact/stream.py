"""Credentials in an event stream, those that arrive in pieces included, as edits of its text.

A *channel* is what a reader of the stream would join: the same field of the same kind of event with the same index.
Its pieces are searched as one text; the first event that holds a part of a credential gets the placeholder, the
others lose their part.

Invariant: everything outside the edited JSON strings stays as it was, byte for byte, and so does every chunk border
outside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .. import _sse
from .text import PLACEHOLDER, Learnt, Matcher, Span

# What tells one channel from another beside the place of the field. Not ``id``: a tool call has it in one event only.
_INDEXES = ("index", "output_index", "content_index", "summary_index", "item_id")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"(?P<colon>\s*:)?')


class Edit(NamedTuple):
    """Replace the text from ``start`` to ``end``."""

    start: int
    end: int
    text: str


class Search(NamedTuple):
    """What came of looking through a stream.

    Args:
        edits: what has to change, in order.
        joined: the joined texts of its channels, as ``joined`` gives them.
    """

    edits: Sequence[Edit]
    joined: Sequence[str]


class _Piece(NamedTuple):
    """A decoded text: the n-th string value of an event's JSON, or (``leaf`` is ``None``) the event's data itself."""

    event: _sse.Event
    leaf: int | None
    text: str
    credential: bool = False
    key: str = ""


def joined(text: str) -> list[str]:
    """The joined texts of the channels, if the text is a stream of events."""
    return [_whole(pieces) for pieces in _channels(text, None).values() if len(pieces) > 1]


def search(text: str, matcher: Matcher, learnt: Learnt | None = None) -> Search:
    """Look for credentials. What is found by its name is noted in ``learnt``."""
    changes: list[Edit] = []
    wholes: list[str] = []
    channels = _channels(text, matcher)
    for pieces in channels.values():
        whole = _whole(pieces)
        if len(pieces) > 1:
            wholes.append(whole)
        spans = matcher.spans(whole, learnt) if matcher.may_hit(whole) else []
        offset = 0
        for piece in pieces:
            if piece.credential:
                matcher.learn(piece.key, piece.text, learnt)
            new = PLACEHOLDER if piece.credential else _cut(piece.text, offset, spans)
            if new != piece.text:
                changes += _edit(piece, new)
            offset += len(piece.text)
    # What no channel holds (comments, event ids, mapping keys) is searched where it stands.
    beside = matcher.values(text) if channels else matcher.spans(text, learnt)
    taken = [(edit.start, edit.end) for edit in changes]
    changes += [
        Edit(start, end, PLACEHOLDER)
        for start, end in beside
        if not any(start < taken_end and taken_start < end for taken_start, taken_end in taken)
    ]
    return Search(sorted(changes, key=lambda edit: edit.start), wholes)


def apply(text: str, changes: Sequence[Edit]) -> str:
    """The edited text."""
    parts, position = [], 0
    for edit in changes:
        parts += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join([*parts, text[position:]])


def recount(text: str, changes: Sequence[Edit], chunks: Sequence[int]) -> list[int]:
    """Byte counts of the chunks of the edited text; a border inside an edit stays inside it, or moves to its end."""
    moves: list[tuple[int, int, int]] = []  # start, old size, new size
    position = size = 0
    for edit in changes:
        size += _size(text[position : edit.start])
        moves.append((size, _size(text[edit.start : edit.end]), _size(edit.text)))
        size, position = size + moves[-1][1], edit.end
    counts = []
    border = last = done = shift = 0
    for chunk in chunks:
        border += chunk
        while done < len(moves) and moves[done][0] + moves[done][1] <= border:
            shift += moves[done][2] - moves[done][1]
            done += 1
        moved = border + shift
        if done < len(moves) and moves[done][0] < border:
            start, _, new = moves[done]
            moved = shift + start + min(border - start, new)
        counts.append(moved - last)
        last = moved
    return [count for count in counts if count]


def _whole(pieces: Sequence[_Piece]) -> str:
    return "".join([piece.text for piece in pieces])


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _cut(text: str, offset: int, spans: Sequence[Span]) -> str:
    """A piece of a joined text without the spans; the placeholder stands where a span starts."""
    for start, end in reversed(spans):
        if start < offset + len(text) and offset < end:
            new = PLACEHOLDER if start >= offset else ""
            text = text[: max(0, start - offset)] + new + text[end - offset :]
    return text


def _edit(piece: _Piece, new: str) -> Iterator[Edit]:
    if piece.leaf is None:
        # The lines of plain data: all of the text goes into the first one, so that no line is left open.
        for number, (start, line) in enumerate(piece.event.pieces):
            yield Edit(start, start + len(line), new.replace("\n", " ") if number == 0 else "")
        return
    token = _values(piece.event.data)[piece.leaf]
    start = piece.event.offset(token.start())
    ascii_only = token.group().isascii()
    yield Edit(start, start + len(token.group()), json.dumps(new, ensure_ascii=ascii_only))


def _values(data: str) -> list[re.Match[str]]:
    """The string values of a JSON text in order: the texts that are no keys."""
    return [found for found in _TEXT.finditer(data) if found["colon"] is None]


def _channels(text: str, matcher: Matcher | None) -> dict[Any, list[_Piece]]:
    channels: dict[Any, list[_Piece]] = {}
    for event in _events(text):
        value = _sse.parse(event.data)
        colons = _TEXT.findall(event.data)  # of each text; where there is one, it is a key
        if isinstance(value, (dict, list)) and len(colons) - colons.count("") != _keys(value):
            value = _sse.parse(event.data, members=True)  # a key is there twice
        kind = value.get("type") if isinstance(value, dict) else None
        leaves = [*_leaves(value, (), matcher)] if isinstance(value, (dict, list)) else []
        if not isinstance(value, (dict, list)) or len(leaves) != colons.count(""):
            # Not JSON, or cut: judged as the text that it is.
            channels.setdefault((event.name, "data"), []).append(_Piece(event, None, event.data))
            continue
        for number, (place, leaf, credential) in enumerate(leaves):
            channel = (kind if isinstance(kind, str) else event.name, place)
            channels.setdefault(channel, []).append(
                _Piece(event, number, leaf, credential, str(place[-1]) if place else "")
            )
    return channels


def _keys(value: Any) -> int:
    """How many keys a JSON value has."""
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


def _events(text: str) -> Iterator[_sse.Event]:
    """Events of a stream, or the lines of JSON lines."""
    if "data:" in text:
        yield from _sse.events(text)
        return
    if not text.startswith("{") or "\n" not in text:
        return
    position = 0
    for line in text.split("\n"):
        if line.strip():
            yield _sse.Event("", line, ((position, line),), complete=True)
        position += len(line) + 1


def _leaves(value: Any, place: tuple[Any, ...], matcher: Matcher | None) -> Iterator[tuple[Any, str, bool]]:
    """Channel place and text of every string value in document order, and whether its key says credential."""
    if isinstance(value, str):
        yield place, value, False
    elif isinstance(value, list):
        for index, item in enumerate(value):
            # An entry that names its own index may stand anywhere in the list.
            named = isinstance(item, dict) and isinstance(item.get("index"), int)
            yield from _leaves(item, place if named else (*place, index), matcher)
    elif isinstance(value, dict):
        own = tuple((name, value[name]) for name in _INDEXES if isinstance(value.get(name), (int, str)))
        for key, item in value.items():
            if isinstance(item, str):
                credential = matcher is not None and matcher.is_credential(key, item, value)
                yield (*place, *own, key), item, credential
            else:
                yield from _leaves(item, (*place, *own, key), matcher)
