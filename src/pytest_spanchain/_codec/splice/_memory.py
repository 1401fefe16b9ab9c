"""What lines and values of a cassette have come to, so that they need not be worked out again.

What a line comes to depends on the blocks that are open around it, and on nothing else. Such a place is a ``State``. It
remembers its lines, the beginnings of lines up to their value, and stretches of lines that came one after the other.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, TypeVar

from ._inline import MEMORABLE, Doubt, Part, joined, one_line

_MOST_REMEMBERED = 20_000
_MOST_STRETCHES = 4
"""In one state: each of them is tried."""
_LONGEST_STRETCH = 20_000
_COLON = ": "
ALIASED = "- *"
NOTHING: Part = ("", 0, 0)
"""The value of a line that a block follows."""

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
        key: before it, if that is one of ``_leads.APART`` in its place; else empty.
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


memory = Memory()


def scalar(text: str) -> Part:
    """A value on one line, which is remembered if it is short."""
    part = memory.values.get(text)
    if part is None:
        part = one_line(text)
        if len(text) <= MEMORABLE:
            memory.keep(memory.values, text, part)
    return part
