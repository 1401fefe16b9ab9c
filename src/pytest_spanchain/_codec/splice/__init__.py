"""What our own writer wrote, spliced into canonical JSON line by line, without a YAML parser.

The strict reader (``reader``) says what a cassette means; this is a faster way to the same values for the one spelling
that ``writer`` emits. Invariants:

* what is accepted here, the strict reader accepts, too, and reads to the value of which this is the canonical text
  (``tests/test_splice.py`` holds both to that on what is written and on what becomes of it by mutation);
* whatever is not certain is a ``Doubt``, and the answer ``None``: the strict reader then decides, and says what is
  wrong. There is no error here, and nothing is repaired;
* the bounds of ``limits`` are kept while aliases are written out, not after.

Canonical text is that of ``_canonical``: floats, large integers and mappings that pose as tags are lifted.

All text is seen here as its bytes of UTF-8, a character for each: so it need not be taken for what it says where it is
only handed on, and takes the room that it takes in the file.

``_lines`` knows what lines come to, ``_inline`` what values in them; here are the blocks and the entries.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..._ledger import ENTRY_KEYS, HEADER_KEYS
from ...errors import Unrecordable
from ..limits import MAX_NODES, MAX_TEXT
from ._inline import MEMORABLE, Doubt, Part, real, unescaped
from ._lines import APART, COLON, ENDED, STEP, Block, Draft, Lead, Move, State, depth_at, joined, parted, scalar, summed
from ._lines import memory as memory

_PAYLOAD = 4
"""Columns of the keys in a payload."""

_USUAL = bytes([9, 10, *range(32, 127)])
# Controls, and in UTF-8 what ends lines in YAML, or is no character there.
_ODD = re.compile(rb"[\x00-\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef(?:\xbb\xbf|\xbf[\xbe\xbf])")
_HEAD = re.compile(
    r"- seq: (?P<seq>0|[1-9][0-9]{0,6})\n"
    r"  kind: (?P<kind>[a-z]+)\n"
    r"  span_id: (?P<span_id>\"[0-9a-f]{16}\"|null)\n"
    r"  parent_span_id: (?P<parent_span_id>\"[0-9a-f]{16}\"|null)\n"
    r"  trace_id: (?P<trace_id>\"[0-9a-f]{32}\")\n"
    r"  eval_id: (?P<eval_id>[^\n]*)\n"
    r"  timestamp_ns: (?P<timestamp_ns>\"[0-9]{1,20}\")\n"
    r"  payload:(?: (?P<rest>[^\n]+))?\n"
)
_TAIL = re.compile(r'  prev_hash: (?P<prev_hash>"[0-9a-f]{64}")\n  sha256_hash: "(?P<sha256_hash>[0-9a-f]{64})"\n')
_HEADER, _ENTRIES = "\nheader:\n", "entries:\n"

_ANCHORED = re.compile(r"&(?P<anchor>[a-z0-9-]+)(?: (?P<value>.+))?")
_LITERAL = re.compile(r"\|(?P<explicit>2?)(?P<end>[-+]?)")
_SMALL = 1_500
"""Characters of a payload up to which nothing is kept apart: it is built at once, which costs less."""


class Entry(NamedTuple):
    """An entry as it stands in the file.

    Args:
        line: its 1-based line.
        text: canonical text of the entry without its ``sha256_hash``.
        rest: the same without the payload's request and response, if it has them.
        apart: where these are in ``text``, by key: first byte, and the first behind.
        sha256_hash: as found.
    """

    line: int
    text: bytes
    rest: bytes
    apart: dict[str, tuple[int, int]]
    sha256_hash: str


class Spliced(NamedTuple):
    """A cassette as canonical text.

    Args:
        opening: what stands before the data: comments.
        header: canonical text of the header.
        entries: in order.
    """

    opening: str
    header: bytes
    entries: tuple[Entry, ...]


def splice(data: bytes) -> Spliced | None:
    """The canonical text of a cassette.

    Args:
        data: of the file.

    Returns:
        ``None`` if it is not certain that this is what our writer wrote.
    """
    try:
        return _spliced(data)
    except (Doubt, Unrecordable, ValueError, IndexError, RecursionError):
        return None


def _spliced(data: bytes) -> Spliced:
    if _ODD.search(data.translate(None, _USUAL)):
        raise Doubt
    if not data.isascii():
        data.decode("utf-8")
    text = data.decode("latin-1")
    begin = text.find(_HEADER)
    opening = text[:begin]
    if begin < 0 or text[-1] != "\n" or any(line and line[0] != "#" for line in opening.split("\n")):
        raise Doubt
    memory.clear_if_full()
    splicer = _Splicer(text, begin + len(_HEADER))
    return Spliced(real(opening), splicer.header().encode("latin-1"), tuple(splicer.entries()))


class _Splicer:
    """Reads the blocks of one file, in order: an alias means what was finished before it.

    Args:
        text: of the file.
        at: where its header begins.
    """

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self._at = at
        self._anchors: dict[str, Part] = {}
        self._out: list[Move] = []
        self._marks: list[tuple[str, int]] = []
        """Keys of the outermost block that are not like any other, and where in what was put out they are."""
        self._nodes = 0
        self._expanded = len(text)

    def header(self) -> str:
        """Canonical text of the header, whose keys stand in their own order, and of nothing but the header."""
        self._nodes += 3 + 2 * len(HEADER_KEYS)
        values = {}
        for expected in HEADER_KEYS:
            line = self._line()
            lead, colon, rest = line.partition(":")
            if lead != " " * STEP + expected or not colon:
                raise Doubt
            self._out = []
            self._value(_after_colon(rest), 2 * STEP, depth_at(STEP))
            text, _, nodes, _ = self._whole(0)
            values[expected] = text
            self._nodes += nodes
        return _mapping_of(values, sorted(values))

    def entries(self) -> Iterator[Entry]:
        """The entries, up to the end of the file."""
        if not self._text.startswith(_ENTRIES, self._at):
            raise Doubt
        line = self._text.count("\n", 0, self._at) + 2
        self._at += len(_ENTRIES)
        while True:
            start = self._at
            yield self._entry(line)
            if self._at == len(self._text):
                return
            line += self._text.count("\n", start, self._at)

    def _entry(self, line: int) -> Entry:
        head = _HEAD.match(self._text, self._at)
        if head is None:
            raise Doubt
        seq, kind, span_id, parent_span_id, trace_id, eval_id, timestamp_ns, rest = head.groups()
        self._at = start = head.end()
        self._nodes += 2 * len(ENTRY_KEYS)
        self._out, self._marks = [], []
        self._value(rest or "", _PAYLOAD, depth_at(STEP))
        tail = _TAIL.match(self._text, self._at)
        if tail is None:
            raise Doubt
        texts, _, nodes, _ = summed(self._out)
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise Doubt
        payload = "".join(texts)
        apart = self._apart(texts) if self._at - start > _SMALL else None
        self._at = tail.end()
        prev_hash, sha256_hash = tail.groups()
        opening = (
            f'{{"eval_id":{scalar(eval_id)[0]},"kind":{scalar(kind)[0]},"parent_span_id":{parent_span_id},"payload":'
        )
        closing = (
            f',"prev_hash":{prev_hash},"seq":{seq},"span_id":{span_id},'
            f'"timestamp_ns":{timestamp_ns},"trace_id":{trace_id}}}'
        )
        text = f"{opening}{payload}{closing}".encode("latin-1")
        if apart is None:
            return Entry(line, text, text, {}, sha256_hash)
        before, request, response, after = apart
        asked = len(opening) + len(before) + len(',"request":')
        answered = asked + len(request) + len(',"response":')
        places = {"request": (asked, asked + len(request)), "response": (answered, answered + len(response))}
        return Entry(line, text, f"{opening}{before}{after}{closing}".encode("latin-1"), places, sha256_hash)

    def _apart(self, texts: Sequence[str]) -> tuple[str, str, str, str] | None:
        """A payload, of which these were put out: what stands before its request, request and response, the rest."""
        if tuple([key for key, _ in self._marks]) != APART:
            return None
        parts, start = [], 0
        for key, at in self._marks:
            # The text of the line that begins with the key ends what is before, too.
            ended, key_text = texts[at].rsplit(",", 1)
            if key_text != f'"{key}":':
                raise Doubt
            parts.append("".join(texts[start:at]) + ended)
            start = at + 1
        return parts[0], parts[1], parts[2], f',"scope":{"".join(texts[start:])}'

    def _line(self) -> str:
        """The line here, and on to the next."""
        start = self._at
        end = self._text.find("\n", start)
        if end < 0:
            raise Doubt
        self._at = end + 1
        return self._text[start:end]

    def _whole(self, start: int) -> Move:
        """What was put out since, as one."""
        return joined(self._out[start:])

    def _block(self, column: int) -> None:
        """A block whose first line stands in a column, up to a line that stands before it."""
        text, out, at, known, state = self._text, self._out, self._at, memory.values.get, memory.state(Block(column))
        while state is not ENDED:
            for stretch in state.stretches:
                if text.startswith(stretch[0], at):
                    break
            else:
                self._at = at
                state = self._lines(state)
                at = self._at
                continue
            _, length, move, column, depth = stretch
            out.append(move)
            state = move[1]
            at += length
            if column:
                rest = text[at : text.find("\n", at)]
                at += len(rest) + 1
                part = known(rest)
                if part is not None:
                    out.append((part[0], state, part[1], depth + part[2]))
                elif rest:
                    self._at = at
                    self._value(rest, column, depth)
                    at = self._at
                else:
                    raise Doubt

    def _lines(self, state: State) -> State:
        """Lines up to one that has no move yet, and it with what belongs to it; ``ENDED`` if it is not of the block."""
        text, out, first, begin = self._text, self._out, state, self._at
        at = begin
        while (move := state.get(text[at : (end := text.find("\n", at))])) is not None:
            out.append(move)
            state, at = move[1], end + 1
        if not text.startswith(state.margin, at):
            if not state.blocks[-1].close:
                raise Doubt
            out.append((state.closing, ENDED, 0, 0))
            memory.keep_stretch(first, text[begin:at])
            self._at = at
            return ENDED
        line = text[at:end]
        beginning, rest = parted(line)
        lead = state.leads.get(beginning)
        self._at = end + 1
        if lead is None:
            draft = Draft(state.blocks, self._is_alone)
            draft.read(line)
            lead = draft.lead()
            if lead.certain and draft.rest == rest:
                memory.keep(state.leads, beginning, lead)
            return self._move(state, lead, line, draft.rest)
        # The lead has come before. If its value has, too, the line will have a move; if not, the stretch ends there.
        if lead.key in APART:
            memory.keep_stretch(first, text[begin:at])
        elif rest not in memory.values:
            value = end - len(rest)
            memory.keep_stretch(first, text[begin : value if rest and text[value - 2 : value] == COLON else at])
        return self._move(state, lead, line, rest)

    def _move(self, state: State, lead: Lead, line: str, rest: str) -> State:
        """The move of a line of which the lead is known, and what belongs to it."""
        lead_text, following, column, nodes, depth, certain, key = lead
        part = memory.values.get(rest)
        if key in APART:
            # One that follows another key than the one before it here is not marked, and nothing is kept apart.
            follows = key == APART[0] or state.blocks[0].key == APART[APART.index(key) - 1]
            marks = [*self._marks, (key, len(self._out))] if follows else self._marks
            self._out.append((lead_text, following, nodes, depth))
            self._value(rest, column, depth)
            self._marks = marks  # without those of blocks within
            return following
        if part is not None or not rest:
            if part is None:
                move = (lead_text, memory.state(*following.blocks, Block(column)), nodes, depth)
            else:
                # Its value has come before, so the line may come again.
                move = (lead_text + part[0], following, nodes + part[1], depth + part[2])
            self._out.append(move)
            if certain and len(line) <= MEMORABLE:
                memory.keep(state, line, move)
            return move[1]
        self._out.append((lead_text, following, nodes, depth))
        if rest[:1] == "*" and following is state:  # as after an item of a list
            self._items(line, rest, depth)
        else:
            self._value(rest, column, depth)
        return following

    def _items(self, line: str, rest: str, depth: int) -> None:
        """A list's item that is an alias, but not the list's first, and the items like it that follow."""
        lead = line[: 1 - len(rest)]
        more = _lines_like(len(lead) - 1 - STEP).match(self._text, self._at)
        names = [rest[1:]]
        if more is not None:
            names += more[0][len(lead) : -1].split("\n" + lead)
            self._at = more.end()
        parts = [self._anchors.get(name) for name in names]
        if None in parts:
            raise Doubt
        texts, nodes, heights = zip(*parts, strict=True)
        self._expand(sum(map(len, texts)))
        self._out.append((",".join(texts), ENDED, sum(nodes), depth + max(heights)))

    def _expand(self, length: int) -> None:
        # Before it is written out: a kilobyte of aliases can stand for gigabytes.
        self._expanded += length
        if self._expanded > MAX_TEXT:
            raise Doubt

    def _is_alone(self, column: int) -> bool:
        """Whether the key in the line before stands alone in the mapping of its column."""
        text, at, deeper = self._text, self._at, " " * (column + 1)
        while text.startswith(deeper, at) or text.startswith("\n", at):
            at = text.index("\n", at) + 1
        return not text.startswith(" " * column, at)

    def _value(self, rest: str, column: int, depth: int) -> None:
        """What follows a key or a dash, the lines below it included.

        Args:
            rest: of the line.
            column: in which the lines below it start.
            depth: of the collection that holds it.
        """
        if not rest:
            self._block(column)
        elif rest[0] == "&":
            self._anchored(rest, column, depth)
        else:
            text, nodes, height = self._part(rest, column) if rest[0] in "*|" or rest[-1] == "\\" else scalar(rest)
            self._out.append((text, ENDED, nodes, depth + height))

    def _part(self, rest: str, column: int) -> Part:
        """What does not say all on its own line."""
        if rest[0] == "*":
            part = self._anchors.get(rest[1:])
            if part is None:
                raise Doubt
            self._expand(len(part[0]))
            return part
        if rest[0] == "|":
            return (self._literal(rest, column), 1, 0)
        if rest[0] == '"':
            return (self._quoted_lines(rest, column), 1, 0)
        raise Doubt

    def _anchored(self, rest: str, column: int, depth: int) -> None:
        match = _ANCHORED.fullmatch(rest)
        if match is None:
            raise Doubt
        name, value = match["anchor"], match["value"] or ""
        if value[:1] in ("&", "*"):
            raise Doubt
        start = len(self._out)
        self._value(value, column, depth)
        if name in self._anchors:  # within itself
            raise Doubt
        whole = self._whole(start)
        self._out[start:] = [whole]
        self._marks = [mark for mark in self._marks if mark[1] < start]  # the others are in what is one now
        self._anchors[name] = (whole[0], whole[2], whole[3] - depth)

    def _literal(self, lead: str, column: int) -> str:
        match = _LITERAL.fullmatch(lead)
        if match is None:
            raise Doubt
        margin = " " * column
        lines = _lines_from(column).match(self._text, self._at)
        text = "" if lines is None else lines[0]
        self._at += len(text)
        text = f"\n{text[:-1]}".replace("\n" + margin, "\n")[1:]
        # Blanks before a line end are for quotes: the writer puts none here.
        if not text or " \n" in text or "\t\n" in text or text[-1] in " \t":
            raise Doubt
        if (text[0] in " \n") != bool(match["explicit"]) or text[0] == "\t":
            raise Doubt
        body = text.rstrip("\n")
        if not body or (len(body) != len(text)) != (match["end"] == "+"):
            raise Doubt
        text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{text}"' if match["end"] == "-" else f'"{text}\\n"'

    def _quoted_lines(self, lead: str, column: int) -> str:
        parts, margin, inner = [lead[1:-1]], " " * column, ""
        while inner[-1:] != '"':
            line = self._line()
            inner = line[column:]
            if not line.startswith(margin) or inner[0] in " \t" or inner[-1] not in '\\"':
                raise Doubt
            parts.append(inner[1:-1] if inner.startswith("\\ ") else inner[:-1])
        # An escape cannot be cut by the line end: what is left of one is no JSON, or ends the text.
        if any(_ends_within_escape(part) for part in parts):
            raise Doubt
        return unescaped(f'"{"".join(parts)}"')


@functools.cache
def _lines_from(column: int) -> re.Pattern[str]:
    """Lines that begin in a column or behind it, and empty ones; perhaps none."""
    return re.compile(rf"(?: {{{column}}}[^\n]*\n|\n)*")


@functools.cache
def _lines_like(column: int) -> re.Pattern[str]:
    """Lines that are aliases as items of a list whose dashes stand in a column."""
    return re.compile(rf"(?: {{{column}}}- \*[^\n]+\n)+")


def _mapping_of(texts: Mapping[str, str], keys: Iterable[str]) -> str:
    """Canonical text of a mapping of plain keys, given in order."""
    return "{" + ",".join([f'"{key}":{texts[key]}' for key in keys]) + "}"


def _after_colon(text: str) -> str:
    if text and (text[0] != " " or len(text) == 1):
        raise Doubt
    return text[1:]


def _ends_within_escape(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1
