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

import codecs
import functools
import re
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring as json_text
from typing import NamedTuple

from ..._ledger import ENTRY_KEYS, HEADER_KEYS
from ...errors import Unrecordable
from ..limits import MAX_NODES, MAX_TEXT
from ._inline import Doubt, Part, is_verbatim, real, unescaped
from ._lines import (
    ALIASED,
    APART,
    ENDED,
    NOTHING,
    STEP,
    Block,
    Lead,
    Mark,
    State,
    depth_at,
    joined,
    lead_of,
    parted,
    scalar,
    summed,
    up_to_hole,
)
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
_REQUEST, _RESPONSE, _SCOPE = (f',"{key}":' for key in APART)

_ANCHORED = re.compile(r"&([a-z0-9-]+)(?: (.+))?")
_LITERALS = {f"|{explicit}{end}": (bool(explicit), end) for explicit in ("", "2") for end in ("", "-", "+")}
"""Whether they begin with a blank or a line end, and what is said of the line ends behind them."""
_PIECE = 2**20
_SMALL = 1_500
"""Characters of a payload up to which nothing is kept apart: it is built at once, which costs less."""


class Entry(NamedTuple):
    """An entry as it stands in the file.

    Args:
        line: its 1-based line.
        text: canonical text of the entry without its ``sha256_hash``.
        apart: where the payload's request and response are in there, by key: first byte, and the first behind.
        sha256_hash: as found.
    """

    line: int
    text: bytes
    apart: dict[str, tuple[int, int]]
    sha256_hash: str

    @property
    def rest(self) -> bytes:
        """The text without these."""
        if not self.apart:
            return self.text
        return self.text[: self.apart["request"][0] - len(_REQUEST)] + self.text[self.apart["response"][1] :]


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
        # Piece by piece: the text itself, of up to four bytes a character, is not needed.
        decode = codecs.getincrementaldecoder("utf-8")().decode
        for start in range(0, len(data), _PIECE):
            decode(data[start : start + _PIECE], final=start + _PIECE >= len(data))
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
        self._out: list[Part] = []
        self._marks: list[Mark] = []
        """Of the block that ended last."""
        self._nodes = 0
        self._expanded = len(text)

    def header(self) -> str:
        """Canonical text of the header, whose keys stand in their own order, and of nothing but the header."""
        self._nodes += 5 + len(HEADER_KEYS)  # the document, its keys, the list of entries, and the header
        values = {}
        for expected in HEADER_KEYS:
            line = self._line()
            lead, colon, rest = line.partition(":")
            if lead != " " * STEP + expected or not colon:
                raise Doubt
            self._out = []
            self._behind(_after_colon(rest), 2 * STEP, depth_at(STEP))
            values[expected], nodes, _ = joined(self._out)
            self._nodes += nodes
        return "{" + ",".join([f'"{key}":{values[key]}' for key in sorted(values)]) + "}"

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
        start = self._at = head.end()
        self._out, self._marks = [], []
        self._behind(rest, _PAYLOAD, depth_at(STEP))
        tail = _TAIL.match(self._text, self._at)
        if tail is None:
            raise Doubt
        texts, nodes, _ = summed(self._out)
        self._nodes += nodes + 2 * len(ENTRY_KEYS)
        if self._nodes > MAX_NODES:
            raise Doubt
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
        if apart is None:
            return Entry(line, f"{opening}{''.join(texts)}{closing}".encode("latin-1"), {}, sha256_hash)
        before, request, response, after = apart
        asked = len(opening) + len(before) + len(_REQUEST)
        answered = asked + len(request) + len(_RESPONSE)
        places = {"request": (asked, asked + len(request)), "response": (answered, answered + len(response))}
        text = f"{opening}{before}{_REQUEST}{request}{_RESPONSE}{response}{after}{closing}"
        return Entry(line, text.encode("latin-1"), places, sha256_hash)

    def _apart(self, texts: Sequence[str]) -> tuple[str, str, str, str] | None:
        """A payload, of which these were put out: what stands before its request, request and response, the rest."""
        if tuple([key for key, _ in self._marks]) != APART:
            return None
        (_, asked), (_, answered), (_, scope) = self._marks
        # The text that ends with a key ends what is before that, too.
        before = "".join(texts[: asked + 1]).removesuffix(_REQUEST)
        request = "".join(texts[asked + 1 : answered + 1]).removesuffix(_RESPONSE)
        response = "".join(texts[answered + 1 : scope + 1]).removesuffix(_SCOPE)
        return before, request, response, f"{_SCOPE}{''.join(texts[scope + 1 :])}"

    def _line(self) -> str:
        """The line here, and on to the next."""
        start = self._at
        end = self._text.find("\n", start)
        if end < 0:
            raise Doubt
        self._at = end + 1
        return self._text[start:end]

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
                elif is_verbatim(rest):  # not kept: a number or an id seldom comes again, and is soon told
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
        deeper = _lines_from(column + 1).match(self._text, self._at)
        return not self._text.startswith(" " * column, self._at if deeper is None else deeper.end())

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
            text = self._literal(rest, column) if first == "|" else self._quoted_lines(rest, column)
            self._out.append((text, 1, 0))

    def _aliases(self, name: str, depth: int, state: State) -> None:
        """An alias, and where it is an item of a list, those that follow as its next items."""
        names = [name]
        if state.blocks and state.blocks[-1].key is None:
            lead = " " * state.blocks[-1].column + ALIASED
            if self._text.startswith(lead, self._at):
                more = _lines_like(lead).match(self._text, self._at)
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
        # Before it is written out: a kilobyte of aliases can stand for gigabytes, and anchors in each other for much.
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

    def _literal(self, lead: str, column: int) -> str:
        shape = _LITERALS.get(lead)
        if shape is None:
            raise Doubt
        explicit, end = shape
        lines = _lines_from(column).match(self._text, self._at)
        if lines is None:
            raise Doubt
        self._at = lines.end()
        text = f"\n{lines[0][:-1]}".replace("\n" + " " * column, "\n")[1:]
        # Blanks before a line end are for quotes: the writer puts none here.
        if not text or " \n" in text or "\t\n" in text or text[-1] in " \t":
            raise Doubt
        if (text[0] in " \n") is not explicit or text[0] == "\t":
            raise Doubt
        if (text[-1] == "\n") is not (end == "+") or not text.strip("\n"):
            raise Doubt
        return json_text(text if end == "-" else f"{text}\n")

    def _quoted_lines(self, lead: str, column: int) -> str:
        lines = _lines_from(column).match(self._text, self._at)
        if lines is None or lead[0] != '"':
            raise Doubt
        self._at = lines.end()
        text = f"{lead[1:]}\n{lines[0][:-1]}"
        first, *others = parts = text.split("\\\n" + " " * column)
        # A quote that is not the last one is no JSON; a line end that is none of these is none.
        if text[-1] != '"' or len(parts) <= text.count("\n") or any(part[:1] in ("", " ", "\t") for part in others):
            raise Doubt
        # An escape cannot be cut by the line end: what is left of one is no JSON, or ends the text.
        if any(_ends_within_escape(part) for part in parts):
            raise Doubt
        return unescaped('"' + first + "".join([part[part.startswith("\\ ") :] for part in others]))


@functools.cache
def _lines_from(column: int) -> re.Pattern[str]:
    """Lines that begin in a column or behind it, and empty ones; one at least."""
    return re.compile(rf"(?: {{{column}}}[^\n]*\n|\n)+")


@functools.cache
def _lines_like(lead: str) -> re.Pattern[str]:
    """Lines that begin like this and go on."""
    return re.compile(rf"(?:{re.escape(lead)}[^\n]+\n)+")


def _after_colon(text: str) -> str:
    if text and (text[0] != " " or len(text) == 1):
        raise Doubt
    return text[1:]


def _ends_within_escape(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1
