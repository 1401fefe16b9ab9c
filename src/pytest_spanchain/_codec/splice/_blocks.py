"""The blocks of a cassette: line by line, by what has been worked out before or for the first time."""

from __future__ import annotations

import re
from typing import TypeAlias

from ..limits import MAX_TEXT
from ._inline import Doubt, Part, is_verbatim, joined, summed
from ._leads import STEP, depth_at, lead_of
from ._memory import (
    ALIASED,
    ENDED,
    NOTHING,
    Block,
    Lead,
    State,
    memory,
    parted,
    scalar,
    up_to_hole,
)
from ._texts import end_of_lines, lines_like, text_of

Mark: TypeAlias = tuple[str, int]
"""A key of ``_leads.APART``, and which of what was put out ends with it."""

_ANCHORED = re.compile(r"&([a-z0-9-]+)(?: (.+))?")


class Blocks:
    """Reads the blocks of one file, in order: an alias means what was finished before it.

    Args:
        text: of the file.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._out: list[Part] = []
        self._marks: list[Mark] = []
        """Of the block that ended last."""
        self._anchors: dict[str, Part] = {}
        self._expanded = len(text)

    def read(self, at: int, rest: str | None, *, column: int) -> tuple[list[Part], list[Mark], int]:
        """What a value comes to, piece by piece; its marks if it is a block; and where it ends.

        Args:
            at: where the line begins that follows its key.
            rest: what of it stands on the line of the key.
            column: in which the lines below it start.
        """
        self._at, self._out, self._marks = at, [], []
        self._behind(rest, column, depth_at(column - STEP))
        return self._out, self._marks, self._at

    def _block(self, column: int) -> None:
        """A block whose first line stands in a column, up to a line that stands before it."""
        text, out, known, margin = self._text, self._out, memory.values.get, " " * column
        at, state = self._at, memory.state((Block(column),))
        marks: list[Mark] = []
        while True:
            for stretch in state.stretches:
                if text.startswith(stretch[0], at):
                    break
            else:
                if not text.startswith(margin, at):
                    break
                self._at = at
                state = self._lines(state, margin, marks)
                at = self._at
                continue
            _, length, part, state, (inner, depth, key) = stretch
            out.append(part)
            at += length
            if key:
                marks.append((key, len(out) - 1))
            if inner:
                end = text.find("\n", at)
                rest = text[at:end]
                at = end + 1
                value = known(rest)
                if value is not None:
                    out.append((value[0], value[1], depth + value[2]) if value[2] else value)
                elif is_verbatim(rest):  # not kept: most of these never come again, and they are soon told
                    out.append((rest, 1, 0))
                else:
                    self._at = at
                    self._value(rest, inner, depth, state)
                    at = self._at
        out.append((state.closing(), 0, 0))
        self._at, self._marks = at, marks

    def _lines(self, state: State, margin: str, marks: list[Mark]) -> State:
        """Lines one by one, up to one where a stretch may begin or that is not of the block; what they say is kept."""
        text, out, at = self._text, self._out, self._at
        first, begin = state, at  # of lines that all were met before
        while True:
            end = text.find("\n", at)
            line = text[at:end]
            step = state.steps.get(line)
            if step is None:
                if not text.startswith(margin, at):
                    memory.keep_stretch(first, text[begin:at])
                    break
                self._at = end + 1
                beginning, rest = parted(line)
                lead = state.leads.get(beginning)
                is_new = lead is None
                if lead is None:
                    lead, rest = self._lead(state, line, beginning, rest)
                value = memory.values.get(rest) if rest else NOTHING
                if is_new or value is None or lead.hole.key:
                    if not is_new:
                        memory.keep_stretch(first, text[begin:at] + (up_to_hole(line, rest) if rest else f"{line}\n"))
                    state = self._open(lead, rest, marks)
                    at = self._at
                    if state.stretches:
                        break
                    first, begin = state, at
                    continue
                step = memory.step(state, line, lead, value)
            out.append(step[0])
            state, at = step[1], end + 1
        self._at = at
        return state

    def _lead(self, state: State, line: str, beginning: str, rest: str) -> tuple[Lead, str]:
        """What a line comes to that begins as none before, and its value."""
        lead, value = lead_of(state.blocks, line, self._is_alone)
        if lead.is_certain and value == rest:
            memory.keep(state.leads, beginning, lead)
        return lead, value

    def _open(self, lead: Lead, rest: str, marks: list[Mark]) -> State:
        """Put out a line, of which this is what stands before its value, with all that belongs to it."""
        self._out.append(lead.part)
        column, depth, key = lead.hole
        if key:
            marks.append((key, len(self._out) - 1))
        if not rest:
            return lead.opened()
        self._value(rest, column, depth, lead.state)
        return lead.state

    def _is_alone(self, column: int) -> bool:
        """Whether the key in the line before stands alone in the mapping of its column."""
        return not self._text.startswith(" " * column, end_of_lines(self._text, self._at, column + 1))

    def _behind(self, rest: str | None, column: int, depth: int) -> None:
        """A value, or a block if nothing of one stands on the line."""
        if rest:
            self._value(rest, column, depth)
        else:
            self._block(column)

    def _value(self, rest: str, column: int, depth: int, state: State = ENDED) -> None:
        """What follows a key or a dash on its line, and what of it stands on the lines below.

        Args:
            rest: of the line; not empty.
            column: in which the lines below it start.
            depth: of the collection that holds it.
            state: after it.
        """
        first = rest[0]
        if first not in "*&|" and rest[-1] != "\\":
            text, nodes, height = scalar(rest)
            self._out.append((text, nodes, depth + height))
        elif first == "*":
            self._aliases(rest[1:], depth, state)
        elif first == "&":
            self._anchored(rest, column, depth)
        else:
            text, self._at = text_of(rest, self._text, self._at, column)
            self._out.append((text, 1, 0))

    def _aliases(self, name: str, depth: int, state: State) -> None:
        """An alias, and where it is an item of a list, those that follow as its next items."""
        names = [name]
        if state.blocks and state.blocks[-1].key is None:
            lead = " " * state.blocks[-1].column + ALIASED
            if self._text.startswith(lead, self._at):
                more = lines_like(lead).match(self._text, self._at)
                if more is None:
                    raise Doubt
                names += more[0][len(lead) : -1].split("\n" + lead)
                self._at = more.end()
        try:
            texts, nodes, height = summed([*map(self._anchors.__getitem__, names)])
        except KeyError:
            raise Doubt from None
        self._expand(sum(map(len, texts)))
        self._out.append((",".join(texts), nodes, depth + height))

    def _expand(self, length: int) -> None:
        # Of aliases before they are written out: a kilobyte can stand for gigabytes. Anchors in each other stand for
        # much, too, but each for no more than is there already.
        self._expanded += length
        if self._expanded > MAX_TEXT:
            raise Doubt

    def _anchored(self, rest: str, column: int, depth: int) -> None:
        match = _ANCHORED.fullmatch(rest)
        if match is None:
            raise Doubt
        name, value = match.groups()
        if value and value[0] in "&*":
            raise Doubt
        start = len(self._out)
        self._behind(value, column, depth)
        if name in self._anchors:  # within itself
            raise Doubt
        text, nodes, reach = joined(self._out[start:])
        self._expand(len(text))
        self._out[start:] = [(text, nodes, reach)]
        self._marks = []  # it is one now
        self._anchors[name] = (text, nodes, max(reach - depth, 0))
