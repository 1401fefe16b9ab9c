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

Here are the header and the entries. Their blocks are read by ``_blocks``, which asks ``_leads`` what a line comes to,
``_inline`` and ``_texts`` what a value does, and ``_memory`` what has come before.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..._ledger import ENTRY_KEYS, HEADER_KEYS
from ...errors import Unrecordable
from ..limits import MAX_NODES
from ._blocks import Blocks, Mark
from ._inline import Doubt, joined, real, summed
from ._leads import APART, STEP
from ._memory import memory as memory
from ._memory import scalar

_PAYLOAD = 4
"""Columns of the keys in a payload."""

_USUAL = bytes([9, 10, *range(32, 127)])
# Controls, and in UTF-8 what ends lines in YAML, or is no character there.
_ODD = re.compile(rb"[\x00-\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef(?:\xbb\xbf|\xbf[\xbe\xbf])")
_HEAD = re.compile(
    r"- seq: (0|[1-9][0-9]{0,6})\n"
    r"  kind: ([a-z]+)\n"
    r"  span_id: (\"[0-9a-f]{16}\"|null)\n"
    r"  parent_span_id: (\"[0-9a-f]{16}\"|null)\n"
    r"  trace_id: (\"[0-9a-f]{32}\")\n"
    r"  eval_id: ([^\n]*)\n"
    r"  timestamp_ns: (\"[0-9]{1,20}\")\n"
    r"  payload:(?: ([^\n]+))?\n"
)
_TAIL = re.compile(r'  prev_hash: ("[0-9a-f]{64}")\n  sha256_hash: "([0-9a-f]{64})"\n')
_HEADER, _ENTRIES = "\nheader:\n", "entries:\n"
_REQUEST, _RESPONSE, _SCOPE = (f',"{key}":' for key in APART)

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
    """Reads one file from its header on, in order.

    Args:
        text: of the file.
        at: where its header begins.
    """

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self._at = at
        self._blocks = Blocks(text)
        self._nodes = 0

    def header(self) -> str:
        """Canonical text of the header, whose keys stand in their own order, and of nothing but the header."""
        self._nodes += 5 + len(HEADER_KEYS)  # the document, its keys, the list of entries, and the header
        values = {}
        for expected in HEADER_KEYS:
            line = self._line()
            lead, colon, rest = line.partition(":")
            if lead != " " * STEP + expected or not colon:
                raise Doubt
            parts, _, self._at = self._blocks.read(self._at, _after_colon(rest), column=2 * STEP)
            values[expected], nodes, _ = joined(parts)
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
        start = head.end()
        parts, marks, end = self._blocks.read(start, rest, column=_PAYLOAD)
        tail = _TAIL.match(self._text, end)
        if tail is None:
            raise Doubt
        texts, nodes, _ = summed(parts)
        self._nodes += nodes + 2 * len(ENTRY_KEYS)
        if self._nodes > MAX_NODES:
            raise Doubt
        apart = _apart(texts, marks) if end - start > _SMALL else None
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

    def _line(self) -> str:
        """The line here, and on to the next."""
        start = self._at
        end = self._text.find("\n", start)
        if end < 0:
            raise Doubt
        self._at = end + 1
        return self._text[start:end]


def _apart(texts: Sequence[str], marks: Sequence[Mark]) -> tuple[str, str, str, str] | None:
    """A payload, of which these were put out: what stands before its request, request and response, the rest."""
    if tuple([key for key, _ in marks]) != APART:
        return None
    (_, asked), (_, answered), (_, scope) = marks
    # The text that ends with a key ends what is before that, too.
    before = "".join(texts[: asked + 1]).removesuffix(_REQUEST)
    request = "".join(texts[asked + 1 : answered + 1]).removesuffix(_RESPONSE)
    response = "".join(texts[answered + 1 : scope + 1]).removesuffix(_SCOPE)
    return before, request, response, f"{_SCOPE}{''.join(texts[scope + 1 :])}"


def _after_colon(text: str) -> str:
    if text and (text[0] != " " or len(text) == 1):
        raise Doubt
    return text[1:]
