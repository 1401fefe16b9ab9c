"""What lines of block YAML come to, as canonical text: worked out once for each place where they may stand.

What a line comes to depends on the blocks that are open around it, and on nothing else. Such a place is a ``State``; it
remembers its lines.
"""

from __future__ import annotations

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
_KEYED = re.compile(r'(?P<key>[A-Za-z_][A-Za-z0-9_./-]*|"[^"\\\t]*"):(?: (?P<rest>.+))?')
_MOST_REMEMBERED = 20_000
_MOST_STRETCHES = 4
"""In one state: each of them is tried."""
_LONGEST_STRETCH = 20_000
COLON = ": "
APART = ("request", "response", "scope")
"""Keys of a payload, one after the other: what stands between them is kept apart, so no other line goes over them."""

K = TypeVar("K")
T = TypeVar("T")


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


class State(dict[str, "Move"]):
    """What a line means where these blocks are open: of each line that was met here, its move.

    Args:
        blocks: from the outermost on.
    """

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        super().__init__()
        self.blocks = blocks
        self.margin = " " * blocks[0].column if blocks else ""
        self.closing = "".join([block.close for block in reversed(blocks)])
        """What ends these blocks in JSON."""
        self.leads: dict[str, Lead] = {}
        """The same of beginnings of lines, up to a key."""
        self.stretches: list[Stretch] = []
        """The same of several lines that came one after the other."""


Move: TypeAlias = tuple[str, State, int, int]
"""What lines come to: canonical text, the state after them, scalars and collections, depth that they reach.

Values that are put out on their own have the same form; after them, nobody asks for the state.
"""


class Lead(NamedTuple):
    """What the beginning of a line comes to, up to its value.

    Args:
        text: canonical text.
        state: after the value.
        column: of the lines that belong to the value.
        nodes: keys and collections.
        depth: of the collection that holds the value.
        certain: whether every such beginning in this state comes to the same.
        key: if it is one of the outermost block; else empty.
    """

    text: str
    state: State
    column: int
    nodes: int
    depth: int
    certain: bool
    key: str


class Stretch(NamedTuple):
    """Lines that came one after the other, and the beginning of the next, whose value is another each time.

    Args:
        text: of these.
        length: of the text.
        move: what they come to, as one.
        column: of lines that belong to the value; 0 if it ends with a line.
        depth: of the collection that holds the value.
    """

    text: str
    length: int
    move: Move
    column: int
    depth: int


ENDED = State(())
"""No line follows, or another has to say where it belongs."""


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
        self._room = _MOST_REMEMBERED

    def clear_if_full(self) -> None:
        """Begin anew. Whoever is reading goes on with what was known."""
        if self._room <= 0:
            self.clear()

    def clear(self) -> None:
        """Begin anew now."""
        for known in (self.states, self.values):
            known.clear()
        self._room = _MOST_REMEMBERED

    def state(self, *blocks: Block) -> State:
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

    def keep_stretch(self, state: State, text: str) -> None:
        """Remember lines that have moves, and after them the beginning of one that has a lead, as one.

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
    """The stretch of a text; ``None`` if a line in it has no move, or the last one no lead."""
    *lines, last = text.split("\n")
    moves = []
    for line in lines:
        move = state.get(line)
        if move is None:
            return None
        moves.append(move)
        state = move[1]
    column = depth = 0
    if last:
        lead = state.leads.get(last[: -len(COLON)])
        if lead is None or lead.key in APART:
            return None
        column, depth = lead.column, lead.depth
        moves.append((lead.text, lead.state, lead.nodes, depth))
    return Stretch(text, len(text), joined(moves), column, depth)


def _shared(one: str, other: str) -> str:
    """What two stretches have in common, if they part at the value of the same key, and up to there; else nothing."""
    lines = zip(one.split("\n"), other.split("\n"), strict=False)
    start = 0
    for line, different in lines:
        if line != different:
            beginning, colon, _ = line.partition(COLON)
            if colon and different.partition(COLON)[0] == beginning:
                return one[:start] + beginning + colon
            break
        start += len(line) + 1
    return ""


class Draft:
    """What a line comes to that was not met before where it stands.

    Args:
        blocks: that are open before it.
        is_alone: whether the key in the line, which stands in this column, is the only one of its mapping.
    """

    def __init__(self, blocks: tuple[Block, ...], is_alone: Callable[[int], bool]) -> None:
        self._blocks = list(blocks)
        self._is_alone = is_alone
        self._text = ""
        self._nodes = 0
        self._column = 0
        self.rest = ""
        """The value, as far as it stands in the line."""
        self._certain = True

    def read(self, line: str) -> None:
        """Take a line apart, which is of the innermost block or of one around it."""
        body = line.lstrip(" ")
        column = len(line) - len(body)
        if not self._blocks[-1].close:
            if self._blocks.pop().column != column:
                raise Doubt
            self._begin(body, column)
            return
        while self._blocks[-1].column > column:
            self._text += self._blocks.pop().close
        block = self._blocks[-1]
        if block.column != column:
            raise Doubt
        self._text += ","
        if block.key is not None:
            self._key(body, self._blocks.pop())
        elif body.startswith("- "):
            self._item(body[2:], column + STEP)
        else:
            raise Doubt

    def lead(self) -> Lead:
        """What stands before the value."""
        *outer, inner = self._blocks
        key = "" if outer or inner.key is None else inner.key
        state, depth = memory.state(*self._blocks), depth_at(inner.column)
        return Lead(self._text, state, self._column, self._nodes, depth, self._certain, key)

    def _begin(self, body: str, column: int) -> None:
        self._nodes += 1
        if body.startswith("- "):
            self._text += "["
            self._blocks.append(Block(column, None, "]"))
            self._item(body[2:], column + STEP)
        else:
            self._text += "{"
            self._key(body, Block(column, None, "}"))

    def _item(self, rest: str, column: int) -> None:
        """An item whose text starts in a column, which the lines below share."""
        if rest.startswith("- ") or _KEYED.fullmatch(rest):
            self._begin(rest, column)
        elif rest:
            self.rest, self._column = rest, column
        else:
            raise Doubt

    def _key(self, body: str, block: Block) -> None:
        match = _KEYED.fullmatch(body)
        if match is None:
            raise Doubt
        written = match["key"]
        key = written[1:-1] if written.startswith('"') else written
        # No plain key is quoted. One that is not ASCII has to have the same place by code points, as here, and by
        # UTF-16.
        if (
            is_plain(key) == (key is not written)
            or len(key) >= MAX_KEY - 1
            or not (key.isascii() or max(key) < _BEYOND)
        ):
            raise Doubt
        close = block.close
        if block.key is not None:
            if key <= block.key:
                raise Doubt
        elif key.startswith("$"):
            self._certain = False
            if self._is_alone(block.column):  # it could pose as a tag
                self._text, close = self._text[:-1] + '{"$esc":{', "}}"
        self._text += f'"{key}":'
        self._nodes += 1
        self._blocks.append(Block(block.column, key, close))
        self.rest, self._column = match["rest"] or "", block.column + STEP


def parted(line: str) -> tuple[str, str]:
    """A line before and after what is likely to be where its value starts."""
    start, colon, rest = line.partition(COLON)
    if colon:
        if not rest:
            raise Doubt
        return start, rest
    # What is returned as the beginning here can never be one of the above, which hold no colon with a blank.
    if line[-1:] == ":":
        return f"{line} ", ""
    start, dash, rest = line.partition("- ")
    return (f"{start}- : -", rest) if dash and not rest.startswith("- ") else ("", line)


def summed(moves: Sequence[Move]) -> tuple[Sequence[str], State, int, int]:
    """Some moves as one, its text in pieces.

    Raises:
        Doubt: they reach deeper than a cassette may.
    """
    texts, states, nodes, reaches = zip(*moves, strict=True)
    reach = max(reaches)
    if reach > MAX_DEPTH:
        raise Doubt
    return texts, states[-1], sum(nodes), reach


def joined(moves: Sequence[Move]) -> Move:
    """Some moves as one.

    Raises:
        Doubt: they reach deeper than a cassette may.
    """
    texts, state, nodes, reach = summed(moves)
    return "".join(texts), state, nodes, reach


memory = Memory()


def scalar(text: str) -> Part:
    """A value on one line, which is remembered if it is short."""
    part = memory.values.get(text)
    if part is None:
        part = one_line(text)
        if len(text) <= MEMORABLE:
            memory.keep(memory.values, text, part)
    return part
