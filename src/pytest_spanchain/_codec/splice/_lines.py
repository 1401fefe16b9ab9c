"""What lines of block YAML come to, as canonical text: worked out once for each place where they may stand.

What a line comes to depends on the blocks that are open around it, and on nothing else. Such a place is a ``State``; it
remembers its lines.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from ..limits import MAX_DEPTH, MAX_KEY
from ..scalars import is_plain
from ._inline import MEMORABLE, Doubt, Part, one_line

STEP = 2
"""Columns of a level."""

_BEYOND = "\xee"
"""With this byte and those above, UTF-8 begins characters whose order by code points is not that by UTF-16."""
_KEYED = re.compile(r'([A-Za-z_][A-Za-z0-9_./-]*|"[^"\\\t]*"):(?: (.+))?')
_MOST_REMEMBERED = 20_000
_MOST_STRETCHES = 4
"""In one state: each of them is tried."""
_LONGEST_STRETCH = 20_000
_COLON = ": "
ALIASED = "- *"
APART = ("request", "response", "scope")
"""Keys of a payload, one after the other: what stands between them is kept apart, so no stretch goes over them."""
_APART_PAIRS = frozenset(itertools.pairwise(APART))
NOTHING: Part = ("", 0, 0)
"""The value of a line that a block follows."""

K = TypeVar("K")
T = TypeVar("T")
Mark: TypeAlias = tuple[str, int]
"""A key of ``APART``, and which of what was put out ends with it."""


class Block(NamedTuple):
    """A block of lines that is open.

    Args:
        column: of its keys, or of its dashes.
        key: the last one; ``None`` in a list.
        close: what ends it in JSON; empty if it has to begin with the next line.
    """

    column: int
    key: str | None = None
    close: str = ""


class State:
    """What lines mean where these blocks are open.

    Args:
        blocks: from the outermost on.
    """

    __slots__ = ("blocks", "leads", "steps", "stretches")

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self.blocks = blocks
        self.steps: dict[str, Step] = {}
        """Of whole lines that came more than once."""
        self.leads: dict[str, Lead] = {}
        """Of beginnings of lines, up to their value."""
        self.stretches: list[Stretch] = []
        """Of several lines that came one after the other."""

    def closing(self) -> str:
        """What ends these blocks in JSON.

        Raises:
            Doubt: one of them has not begun.
        """
        if not self.blocks[-1].close:
            raise Doubt
        return "".join([block.close for block in reversed(self.blocks)])


Step: TypeAlias = tuple[Part, State]
"""What a line comes to, and the state after it. The height of the part is the depth that the line reaches."""


class Hole(NamedTuple):
    """The place of a value.

    Args:
        column: of the lines that belong to it.
        depth: of the collection that holds it.
        key: before it, if that is one of ``APART`` in its place; else empty.
    """

    column: int
    depth: int
    key: str = ""


_NO_HOLE = Hole(0, 0)


class Lead(NamedTuple):
    """What the beginning of a line comes to, up to its value.

    Args:
        part: put out.
        state: after the value.
        hole: of the value.
        is_certain: whether every such beginning in this state comes to the same.
    """

    part: Part
    state: State
    hole: Hole
    is_certain: bool

    def opened(self) -> State:
        """The state after the line if its value is the block that follows."""
        return memory.state((*self.state.blocks, Block(self.hole.column)))


class Stretch(NamedTuple):
    """Lines that came one after the other, and the beginning of the next, whose value is another each time.

    Args:
        text: of these.
        length: of the text, but for the sign of an alias, which belongs to the value.
        part: what they come to, as one.
        state: after them, and the value.
        hole: that is left for the value; its column is 0 if none is.
    """

    text: str
    length: int
    part: Part
    state: State
    hole: Hole


ENDED = State(())
"""Nothing may follow; another says where what does belongs."""


def depth_at(column: int) -> int:
    """How deep the collection is whose keys or dashes stand in a column."""
    # Each level is a step to the right; below the entries there are two collections that are none. For the header it
    # is one too much.
    return column // STEP + 2


class Memory:
    """What lines and values come to, for all files: what one holds, the next one holds again."""

    def __init__(self) -> None:
        self.states: dict[tuple[Block, ...], State] = {}
        self.values: dict[str, Part] = {}
        self.keys: dict[str, str] = {}
        self._room = _MOST_REMEMBERED

    def clear_if_full(self) -> None:
        """Begin anew. Whoever is reading goes on with what was known."""
        if self._room <= 0:
            self.clear()

    def clear(self) -> None:
        """Begin anew now."""
        for known in (self.states, self.values, self.keys):
            known.clear()
        self._room = _MOST_REMEMBERED

    def state(self, blocks: tuple[Block, ...]) -> State:
        """The state of these blocks."""
        state = self.states.get(blocks)
        if state is None:
            state = State(blocks)
            self.keep(self.states, blocks, state)
        return state

    def keep(self, where: dict[K, T], key: K, found: T) -> None:
        """Remember something, while there is room."""
        if self._room > 0:
            self._room -= 1
            where[key] = found

    def step(self, state: State, line: str, lead: Lead, value: Part) -> Step:
        """The step of a line of which both parts have come before, so it may come again."""
        text, nodes, depth = lead.part
        part = (text + value[0], nodes + value[1], depth + value[2])
        step = (part, lead.opened() if value is NOTHING else lead.state)
        if len(line) <= MEMORABLE:
            self.keep(state.steps, line, step)
        return step

    def keep_stretch(self, state: State, text: str) -> None:
        """Remember lines that have steps, and after them the beginning of one that has a lead, as one.

        Where this and another stretch of the state part at a value, that becomes the end of both.
        """
        if not text or len(text) > _LONGEST_STRETCH or self._room <= 0:
            return
        for at, known in enumerate(state.stretches):
            shared = _shared(known.text, text)
            if shared and (stretch := _stretch(state, shared)):
                state.stretches[at] = stretch
                return
        if len(state.stretches) < _MOST_STRETCHES and (stretch := _stretch(state, text)):
            self._room -= 1 + len(text) // MEMORABLE
            state.stretches.append(stretch)


def _stretch(state: State, text: str) -> Stretch | None:
    """The stretch of a text; ``None`` if a line in it has no step, or its end is no lead."""
    *lines, last = text.split("\n")
    parts, hole = [], _NO_HOLE
    for number, line in enumerate(lines, 1):
        step = state.steps.get(line)
        if step is None:
            # Perhaps that of a key that is kept apart, before a block: the last one.
            lead = state.leads.get(parted(line)[0])
            if lead is None or not lead.hole.key or number < len(lines):
                return None
            hole = _NO_HOLE._replace(key=lead.hole.key)
            step = lead.part, lead.opened()
        parts.append(step[0])
        state = step[1]
    is_alias = last.endswith(ALIASED)
    if last:
        lead = state.leads.get(parted(last)[0] if is_alias else last[: -len(_COLON)])
        if lead is None:
            return None
        parts.append(lead.part)
        state, hole = lead.state, lead.hole
    return Stretch(text, len(text) - is_alias, joined(parts), state, hole)


def _shared(one: str, other: str) -> str:
    """What two stretches have in common, if they part at the value of the same key, and up to there; else nothing."""
    lines = zip(one.split("\n"), other.split("\n"), strict=False)
    start = 0
    for line, different in lines:
        if line != different:
            beginning, colon, _ = line.partition(_COLON)
            if colon and different.partition(_COLON)[0] == beginning:
                return one[:start] + beginning + colon
            break
        start += len(line) + 1
    return ""


def up_to_hole(line: str, rest: str) -> str:
    """What stands before a value that is another each time; nothing where a value need not be one.

    Args:
        line: whose lead is known.
        rest: the value.
    """
    lead = line[: len(line) - len(rest)]
    if lead.endswith(_COLON):
        return lead
    # Behind a dash another list or a mapping may begin, but not in an alias.
    return f"{lead}*" if rest[:1] == "*" else ""


def parted(line: str) -> tuple[str, str]:
    """A line before and after what is likely to be where its value starts."""
    start, colon, rest = line.partition(_COLON)
    if colon:
        if not rest:
            raise Doubt
        return start, rest
    # What is returned as the beginning here can never be one of the above, which hold no colon with a blank.
    if line[-1:] == ":":
        return f"{line} ", ""
    start, dash, rest = line.partition("- ")
    if dash and not rest:
        raise Doubt
    return (f"{start}- : -", rest) if dash and not rest.startswith("- ") else ("", line)


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


def summed(parts: Sequence[Part]) -> tuple[Sequence[str], int, int]:
    """The texts of some parts, their nodes together, and how deep or high they reach.

    Raises:
        Doubt: deeper than a cassette may.
    """
    texts, nodes, reaches = zip(*parts, strict=True)
    reach = max(reaches)
    if reach > MAX_DEPTH:
        raise Doubt
    return texts, sum(nodes), reach


def joined(parts: Sequence[Part]) -> Part:
    """Some parts as one.

    Raises:
        Doubt: they reach deeper than a cassette may.
    """
    texts, nodes, reach = summed(parts)
    return "".join(texts), nodes, reach


memory = Memory()


def scalar(text: str) -> Part:
    """A value on one line, which is remembered if it is short."""
    part = memory.values.get(text)
    if part is None:
        part = one_line(text)
        if len(text) <= MEMORABLE:
            memory.keep(memory.values, text, part)
    return part
