"""What a line of block YAML comes to that begins as none before it, up to its value."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from ..limits import MAX_DEPTH, MAX_KEY
from ..scalars import is_plain
from ._inline import MEMORABLE, Doubt
from ._memory import Block, Hole, Lead, memory

STEP = 2
"""Columns of a level."""
APART = ("request", "response", "scope")
"""Keys of a payload, one after the other: what stands between them is kept apart, so no stretch goes over them."""

_APART_PAIRS = frozenset(itertools.pairwise(APART))
_BEYOND = "\xee"
"""With this byte and those above, UTF-8 begins characters whose order by code points is not that by UTF-16."""
_KEYED = re.compile(r'([A-Za-z_][A-Za-z0-9_./-]*|"[^"\\\t]*"):(?: (.+))?')


def depth_at(column: int) -> int:
    """How deep the collection is whose keys or dashes stand in a column."""
    # Each level is a step to the right; below the entries there are two collections that are none. For the header it
    # is one too much.
    return column // STEP + 2


def lead_of(blocks: tuple[Block, ...], line: str, is_alone: Callable[[int], bool]) -> tuple[Lead, str]:
    """What a line comes to that was not met before, and its value as far as it stands there.

    Args:
        blocks: that are open before it; the line is not before the outermost.
        line: without its end.
        is_alone: whether the key in the line, which stands in this column, is the only one of its mapping.
    """
    body = line.lstrip(" ")
    column = len(line) - len(body)
    text, nodes, previous, is_certain = "", 0, None, True
    *outer, inner = blocks
    begins = not inner.close
    if begins:
        if inner.column != column:
            raise Doubt
    else:
        while inner.column > column:
            text += inner.close
            inner = outer.pop()
        if inner.column != column:
            raise Doubt
        text += ","
        if inner.key is None:
            if body[:2] != "- ":
                raise Doubt
            outer.append(inner)
            body, column = body[2:], column + STEP
        previous = inner.key
    if previous is None:
        while body[:2] == "- ":
            _require_shallow(column)
            text += "["
            nodes += 1
            outer.append(Block(column, None, "]"))
            body, column, begins = body[2:], column + STEP, False
    match = _KEYED.fullmatch(body)
    if match is None:
        if not body or begins or previous is not None:
            raise Doubt
        depth = depth_at(outer[-1].column)
        return Lead((text, nodes, depth), memory.state(tuple(outer)), Hole(column, depth), True), body
    _require_shallow(column)
    written, value = match.groups()
    key, close = _key(written), inner.close
    if previous is None:
        text, close = text + "{", "}"
        nodes += 1
        if key[0:1] == "$":
            is_certain = False
            if is_alone(column):  # it could pose as a tag
                text, close = text[:-1] + '{"$esc":{', "}}"
    elif key <= previous:
        raise Doubt
    depth = depth_at(column)
    # With another key than the one that stands before it here, nothing is kept apart.
    is_apart = not outer and previous is not None and (key == APART[0] or (previous, key) in _APART_PAIRS)
    state = memory.state((*outer, Block(column, key, close)))
    hole = Hole(column + STEP, depth, key if is_apart else "")
    return Lead((f'{text}"{key}":', nodes + 1, depth), state, hole, is_certain), value or ""


def _require_shallow(column: int) -> None:
    # Now, and not when the entry ends: each level costs the next one more, and is remembered.
    if depth_at(column) > MAX_DEPTH:
        raise Doubt


def _key(written: str) -> str:
    """A key as it is written in a block."""
    key = memory.keys.get(written)
    if key is None:
        key = written[1:-1] if written[0] == '"' else written
        # No plain key is quoted. One that is not ASCII has to have the same place by code points, as here, and by
        # UTF-16.
        if (
            is_plain(key) == (key is not written)
            or len(key) >= MAX_KEY - 1
            or not (key.isascii() or max(key) < _BEYOND)
        ):
            raise Doubt
        if len(key) <= MEMORABLE:
            memory.keep(memory.keys, written, key)
    return key
