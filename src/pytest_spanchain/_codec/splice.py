"""What our own writer wrote, spliced into canonical JSON line by line, without a YAML parser.

The strict reader (``reader``) says what a cassette means; this is a faster way to the same values for the one spelling
that ``writer`` emits. Invariants:

* what is accepted here, the strict reader accepts, too, and reads to the value of which this is the canonical text
  (``tests/test_splice.py`` holds both to that on what is written and on what becomes of it by mutation);
* whatever is not certain is a ``_Doubt``, and the answer ``None``: the strict reader then decides, and says what is
  wrong. There is no error here, and nothing is repaired;
* the bounds of ``limits`` are kept while aliases are written out, not after.

Canonical text is that of ``_canonical``: floats, large integers and mappings that pose as tags are lifted.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as _json_text
from typing import TypeVar

from .._canonical import canonical
from .._ledger import ENTRY_KEYS, HEADER_KEYS
from ..errors import Unrecordable
from .limits import MAX_DEPTH, MAX_KEY, MAX_NODES, MAX_TEXT
from .scalars import is_plain

_STEP = 2
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
    r"  payload:(?: (?P<payload>[^\n]+))?\n"
)
_TAIL = re.compile(r'  prev_hash: (?P<prev_hash>"[0-9a-f]{64}")\n  sha256_hash: (?P<sha256_hash>"[0-9a-f]{64}")\n')
_TAIL_LENGTH = len('  prev_hash: ""\n  sha256_hash: ""\n') + 2 * 64
_HASHED = tuple(sorted(key for key in ENTRY_KEYS if key != "sha256_hash"))

_LEAD = re.compile(r'( *)([A-Za-z_][A-Za-z0-9_./-]*|"[^"\\\t]*")')
_KEYED = re.compile(r'(?:[A-Za-z_][A-Za-z0-9_./-]*|"[^"\\\t]*"):(?: .+)?')
_INTEGER = re.compile(r"-?[1-9][0-9]{0,14}|0")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,30})\.[0-9]{1,30}(?:e[-+][0-9]{2,3})?")
_WORDS = frozenset({"null", "true", "false"})
_ANCHORED = re.compile(r"&(?P<anchor>[a-z0-9-]+)(?: (?P<value>.+))?")
_LITERAL = re.compile(r"\|(?P<explicit>2?)(?P<end>[-+]?)")
_PLAIN_ITEM = r'(?:"[^"\\\t]*"|-?[1-9][0-9]{0,14}|0|null|true|false)'
_FLAT = re.compile(
    rf'\[(?:{_PLAIN_ITEM}(?:, {_PLAIN_ITEM})*)?\]|\{{(?:"[\x20-\x21\x23-\x5b\x5d-\x7e]*": {_PLAIN_ITEM}'
    rf'(?:, "[\x20-\x21\x23-\x5b\x5d-\x7e]*": {_PLAIN_ITEM})*)?\}}'
)
_PAIR = re.compile(rf'"([^"]*)": {_PLAIN_ITEM}')
_NUMBERS = re.compile(r"\[[-+0-9.e, ]*\]")
# What JSON's writer leaves of a float that YAML 1.1 would take for text; and more digits than the strict reader takes.
_SHORT_FLOAT = re.compile(r"(?<=[\[ ])(-?[0-9])(?=e[-+])e")
_LONG_NUMBER = re.compile(r"[0-9]{4000}")
# What canonical text says otherwise than compact JSON with sorted keys.
_LIFTED = re.compile(r'[0-9]\.[0-9]|"\$|[0-9]{16}')
_spelt = json.JSONEncoder(ensure_ascii=False).encode
_sorted = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
_MEMORABLE = 160
"""Characters up to which a value or a line is remembered: short ones come again."""


class _Doubt(Exception):
    """This may not be what the writer wrote."""


@dataclass(frozen=True)
class Entry:
    """An entry as it stands in the file.

    Args:
        line: its 1-based line.
        texts: canonical text by key.
    """

    line: int
    texts: dict[str, str]

    def hashed(self) -> str:
        """Canonical text of the entry without its ``sha256_hash``."""
        return _mapping_of(self.texts, _HASHED)


@dataclass(frozen=True)
class Spliced:
    """A cassette as canonical text.

    Args:
        opening: what stands before the data: comments.
        header: canonical text of the header.
        entries: in order.
    """

    opening: str
    header: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class _Part:
    """A finished value: its canonical text, how many scalars and collections it is, how deep it is nested."""

    text: str
    nodes: int = 1
    height: int = 0


@dataclass(frozen=True)
class _Lead:
    """The beginning of a line: blanks and a key.

    Args:
        column: of the key; -1 if it is none.
        key: itself.
        first: its canonical text with the colon.
        following: the same with a comma before it.
    """

    column: int = -1
    key: str = ""
    first: str = ""
    following: str = ""


def splice(data: bytes) -> Spliced | None:
    """The canonical text of a cassette.

    Args:
        data: of the file.

    Returns:
        ``None`` if it is not certain that this is what our writer wrote.
    """
    try:
        return _spliced(data)
    except (_Doubt, Unrecordable, ValueError, IndexError, RecursionError):
        return None


def _spliced(data: bytes) -> Spliced:
    if _ODD.search(data.translate(None, _USUAL)):
        raise _Doubt
    text = data.decode("utf-8")
    opening, found, body = text.partition("\nheader:\n")
    if not found or any(line and not line.startswith("#") for line in opening.split("\n")):
        raise _Doubt
    head, found, body = body.partition("\nentries:\n")
    if not found or not body.startswith("- "):
        raise _Doubt
    splicer = _Splicer()
    header = splicer.header(head + "\n")
    line = opening.count("\n") + head.count("\n") + 5
    entries = []
    for chunk in _chunks(body):
        entries.append(splicer.entry(chunk, line))
        line += chunk.count("\n")
    return Spliced(opening, header, tuple(entries))


def _chunks(body: str) -> Iterator[str]:
    start = 0
    while start < len(body):
        end = body.find("\n- ", start) + 1 or len(body)
        yield body[start:end]
        start = end


class _Splicer:
    """Reads the blocks of one file, in order: an alias means what was finished before it."""

    def __init__(self) -> None:
        self._anchors: dict[str, _Part] = {}
        self._lines: list[str] = []
        self._at = 0
        self._out: list[str] = []
        self._nodes = 0
        self._text = 0
        self._depth = 0
        self._deepest = 0

    def header(self, block: str) -> str:
        """Canonical text of the header, whose keys stand in their own order."""
        self._start(block, depth=2)
        self._nodes += 3 + 2 * len(HEADER_KEYS)
        values = {}
        for expected in HEADER_KEYS:
            lead, colon, rest = self._lines[self._at].partition(":")
            if lead != " " * _STEP + expected or not colon or rest[:1] not in ("", " "):
                raise _Doubt
            self._at += 1
            self._value(rest[1:], 2 * _STEP)
            values[expected] = "".join(self._out)
            self._out.clear()
        self._end()
        return _mapping_of(values, sorted(values))

    def entry(self, chunk: str, line: int) -> Entry:
        """One entry, from its dash to the line before the next."""
        head = _HEAD.match(chunk)
        tail = _TAIL.fullmatch(chunk, len(chunk) - _TAIL_LENGTH)
        if head is None or tail is None:
            raise _Doubt
        envelope: dict[str, str] = {**head.groupdict(), **tail.groupdict()}
        envelope["kind"] = self._scalar(envelope["kind"]).text
        envelope["eval_id"] = self._scalar(envelope["eval_id"]).text
        self._nodes += 2 * len(ENTRY_KEYS)
        self._start(chunk[head.end() : tail.start()], depth=3)
        if (rest := head["payload"]) is None:
            self._mapping(_PAYLOAD)
        else:
            self._take(self._scalar(rest))
        self._end()
        envelope["payload"] = "".join(self._out)
        self._out.clear()
        return Entry(line, envelope)

    def _start(self, block: str, *, depth: int) -> None:
        self._lines = block.split("\n")
        self._at = 0
        self._depth = self._deepest = depth

    def _end(self) -> None:
        # What follows the last line end.
        if self._at != len(self._lines) - 1 or self._lines[self._at] or self._nodes > MAX_NODES:
            raise _Doubt

    def _take(self, part: _Part) -> None:
        self._out.append(part.text)
        self._nodes += part.nodes
        if part.height:
            self._reach(self._depth + part.height)

    def _reach(self, depth: int) -> None:
        if depth > self._deepest:
            self._deepest = depth
            if depth > MAX_DEPTH:
                raise _Doubt

    def _mapping(self, column: int) -> None:
        self._depth += 1
        self._reach(self._depth)
        lines, leads, values, out = self._lines, _leads, _values, self._out
        start, before, count = len(out), "", 0
        out.append("{")
        while True:
            line = lines[self._at]
            text, colon, rest = line.partition(": ")
            if not colon:
                if line[-1:] != ":":
                    break
                text = line[:-1]
            lead = leads.get(text) or _lead(text)
            if lead.column != column:
                break
            self._at += 1
            if not count:
                out.append(lead.first)
            elif lead.key > before:
                out.append(lead.following)
            else:
                raise _Doubt
            before = lead.key
            count += 1
            part = values.get(rest)
            if part is None:
                self._value(rest, column + _STEP)
            else:
                out.append(part.text)
                self._nodes += part.nodes
                if part.height:
                    self._reach(self._depth + part.height)
        if not count:
            raise _Doubt
        out.append("}")
        if count == 1 and before.startswith("$"):
            out[start] = '{"$esc":{'
            out.append("}")
        self._nodes += 1 + count
        self._depth -= 1

    def _list(self, column: int) -> None:
        self._depth += 1
        self._reach(self._depth)
        self._nodes += 1
        out, lead = self._out, " " * column + "- "
        separator = "["
        while self._lines[self._at].startswith(lead):
            out.append(separator)
            separator = ","
            self._item(self._lines[self._at][column + _STEP :], column + _STEP)
        if separator == "[":
            raise _Doubt
        out.append("]")
        self._depth -= 1

    def _item(self, rest: str, column: int) -> None:
        """An item whose text starts in a column, which its blocks share."""
        if rest[0] in '-"{[&*|' or not _KEYED.fullmatch(rest):
            if rest.startswith("- "):
                self._lines[self._at] = " " * column + rest
                self._list(column)
                return
            if rest[0] != '"' or not _KEYED.fullmatch(rest):
                self._at += 1
                self._value(rest, column)
                return
        self._lines[self._at] = " " * column + rest
        self._mapping(column)

    def _value(self, rest: str, column: int) -> None:
        """What follows a key or a dash, the lines below it included."""
        if not rest:
            if self._lines[self._at].startswith(" " * column + "- "):
                self._list(column)
            else:
                self._mapping(column)
        elif rest[0] == "*":
            part = self._anchors.get(rest[1:])
            if part is None:
                raise _Doubt
            # Before it is written out: a kilobyte of aliases can stand for gigabytes.
            self._text += len(part.text)
            if self._text > MAX_TEXT or self._nodes + part.nodes > MAX_NODES:
                raise _Doubt
            self._take(part)
        elif rest[0] == "&":
            self._anchored(rest, column)
        elif rest[0] == "|":
            self._nodes += 1
            self._out.append(self._literal(rest, column))
        elif rest[0] == '"' and rest[-1] == "\\":
            self._nodes += 1
            self._out.append(self._quoted_lines(rest, column))
        else:
            self._take(self._scalar(rest))

    def _anchored(self, rest: str, column: int) -> None:
        match = _ANCHORED.fullmatch(rest)
        name = match["anchor"] if match else ""
        if match is None or name in self._anchors or (match["value"] or "")[:1] in ("&", "*"):
            raise _Doubt
        start, nodes, deepest = len(self._out), self._nodes, self._deepest
        self._deepest = self._depth
        self._value(match["value"] or "", column)
        text = "".join(self._out[start:])
        self._out[start:] = [text]
        self._anchors[name] = _Part(text, self._nodes - nodes, self._deepest - self._depth)
        self._deepest = max(deepest, self._deepest)

    def _scalar(self, text: str) -> _Part:
        """A scalar or a collection on one line."""
        part = _values.get(text)
        if part is None:
            part = _one_line(text)
            if len(text) <= _MEMORABLE:
                _remember(_values, text, part)
        return part

    def _literal(self, lead: str, column: int) -> str:
        match = _LITERAL.fullmatch(lead)
        if match is None:
            raise _Doubt
        lines, margin = self._lines, " " * column
        start = end = self._at
        while lines[end].startswith(margin) or (not lines[end] and end < len(lines) - 1):
            end += 1
        self._at = end
        text = "\n".join(lines[start:end])
        text = f"\n{text}".replace("\n" + margin, "\n")[1:]
        # Blanks before a line end are for quotes: the writer puts none here.
        if not text or " \n" in text or "\t\n" in text or text[-1] in " \t":
            raise _Doubt
        if (text[0] in " \n") != bool(match["explicit"]) or text[0] == "\t":
            raise _Doubt
        body = text.rstrip("\n")
        if not body or (len(body) != len(text)) != (match["end"] == "+"):
            raise _Doubt
        return _json_text(text if match["end"] == "-" else text + "\n")

    def _quoted_lines(self, lead: str, column: int) -> str:
        parts, margin = [lead[1:-1]], " " * column
        while True:
            line = self._lines[self._at]
            self._at += 1
            inner = line[column:]
            if not line.startswith(margin) or inner[0] in " \t":
                raise _Doubt
            if inner.startswith("\\ "):
                inner = inner[1:]
            if inner[-1] == '"':
                parts.append(inner[:-1])
                break
            if inner[-1] != "\\":
                raise _Doubt
            parts.append(inner[:-1])
        # An escape cannot be cut by the line end: what is left of one is no JSON, or ends the text.
        if any(_ends_within_escape(part) for part in parts):
            raise _Doubt
        return _unescaped(f'"{"".join(parts)}"')


def _mapping_of(texts: Mapping[str, str], keys: Iterable[str]) -> str:
    """Canonical text of a mapping of plain keys, given in order."""
    return "{" + ",".join([f'"{key}":{texts[key]}' for key in keys]) + "}"


# What one file holds, the next one holds again: both say the same for every file.
_leads: dict[str, _Lead] = {}
_values: dict[str, _Part] = {}
_MOST_REMEMBERED = 20_000

T = TypeVar("T")


def _remember(known: dict[str, T], text: str, found: T) -> None:
    if len(known) >= _MOST_REMEMBERED:
        known.clear()
    known[text] = found


def _lead(text: str) -> _Lead:
    lead = _read_lead(text)
    if len(text) <= _MEMORABLE:
        _remember(_leads, text, lead)
    return lead


def _read_lead(text: str) -> _Lead:
    match = _LEAD.fullmatch(text)
    if match is None:
        return _Lead()
    indent, written = match.groups()
    key = written[1:-1] if written.startswith('"') else written
    # No plain key is quoted. One that is not ASCII has to have the same place by code points, as here, and by UTF-16.
    if is_plain(key) == (key is not written) or len(key) >= MAX_KEY - 1 or not (key.isascii() or max(key) < "\ud800"):
        raise _Doubt
    return _Lead(len(indent), key, f'"{key}":', f',"{key}":')


def _ends_within_escape(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _one_line(text: str) -> _Part:
    first = text[0]
    if first == '"':
        simple = text[-1] == '"' and "\\" not in text and "\t" not in text and text.count('"') == 2
        return _Part(text if simple else _unescaped(text))
    if first in "{[":
        return _flow(text)
    if _INTEGER.fullmatch(text):
        return _Part(text)
    if _FLOAT.fullmatch(text):
        return _Part(canonical(float(text)).decode("ascii"))
    if text in _WORDS:
        return _Part(text)
    if is_plain(text):
        return _Part(f'"{text}"')
    raise _Doubt


def _unescaped(text: str) -> str:
    """Canonical text of a JSON string that has escapes; YAML has the same ones, but for halves of astral characters."""
    if "\\ud" in text or "\\uD" in text or "\t" in text:
        raise _Doubt
    value = json.loads(text)
    if type(value) is not str:
        raise _Doubt
    return _json_text(value)


def _flow(text: str) -> _Part:
    if (part := _flat(text)) is not None:
        return part
    if len(text) > MAX_KEY and not _NUMBERS.fullmatch(text):
        raise _Doubt
    value = json.loads(text)
    # The writer's spelling and no other; so a key that stands there twice is seen, too.
    if _SHORT_FLOAT.sub(r"\1.0e", _spelt(value)) != text or _LONG_NUMBER.search(text):
        raise _Doubt
    lifted = not text.isascii() or _LIFTED.search(text) is not None
    # Counted from above, by the signs before each of them: words may hold these, too.
    nodes, height = 1 + 2 * text.count(",") + sum(map(text.count, ":[{")), sum(map(text.count, "[{"))
    return _Part(canonical(value).decode("utf-8") if lifted else _sorted(value), nodes, height)


def _flat(text: str) -> _Part | None:
    """A list or a mapping of scalars without escapes: the usual, told from its text alone."""
    if len(text) > _MEMORABLE or _FLAT.fullmatch(text) is None:
        return None
    keys = _PAIR.findall(text) if text[0] == "{" else ()
    if not all(map(operator.lt, keys, keys[1:])) or (len(keys) == 1 and keys[0].startswith("$")):
        return None
    pieces = text.split('"')
    pieces[::2] = [piece.replace(" ", "") for piece in pieces[::2]]  # what is outside of quotes
    return _Part('"'.join(pieces), 1 + len(pieces) + text.count(","), 1)
