"""A plain document as YAML text, for people to read and to diff.

Invariants: the strict reader gives back an equal document; the same document gives the same text; the text stays
within ``_yaml_limits``. How each value is written:

* collections of up to ``WIDTH`` columns without text that needs an escape, and lists of numbers: one line, JSON;
* other collections: blocks, keys sorted, but header and entries in their readable order;
* identifiers and the like: plain; other text: quoted as in JSON;
* text with line ends, quotes or backslashes: a literal block where that is exact, else quoted over several lines;
* inside payloads, what was already written in this file (from ``SHARED`` bytes up): an alias to its first place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._ledger import ENTRY_KEYS, HEADER_KEYS
from ._yaml_limits import MAX_BYTES, MAX_DEPTH, MAX_DIGITS, MAX_KEY, MAX_NODES, MAX_TEXT
from .errors import Unrecordable

WIDTH = 120
SHARED = 48
STEP = "  "

# Text that every YAML reader, of 1.1 and 1.2, takes for text. Hex runs are left out: a hash that starts with a letter
# should look like one that starts with a digit.
_PLAIN = re.compile(r"(?![0-9a-f]{16,}\Z)[A-Za-z_][A-Za-z0-9_]*(?:[./-][A-Za-z0-9_]+)*")
_TYPED_WORDS = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null"})

# Legal in JSON text, but not (or not verbatim) in YAML: DEL, C1 with NEL, line and paragraph separator, BOM,
# non-characters. C0 is escaped by JSON itself.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_NEEDS_ESCAPE = re.compile('["\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]')

# A literal block cannot hold these; a blank before a line end it can, but editors and hooks strip it.
_NOT_LITERAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|[ \t](?=\n|\\Z)")
_BITS_PER_DIGIT = math.log2(10)


@dataclass(frozen=True)
class _Node:
    """A value with what the choice of its form needs.

    ``identity`` is equal for equal values only; ``flow`` is the one-line form, ``None`` where it is not wanted;
    ``size`` estimates the bytes of that form; ``items`` are pairs of a written key (empty in a list) and a node.
    """

    value: Any
    identity: int
    size: int
    flow: str | None
    items: tuple[tuple[str, _Node], ...] = ()


def emit(document: Mapping[str, Any]) -> str:
    """The YAML text of a document, without the opening comments.

    Args:
        document: ``header`` (a mapping) and ``entries`` (a list of mappings); anything plain below.

    Raises:
        Unrecordable: a value is not plain, or the text would exceed a bound of ``_yaml_limits``; it names the place.
    """
    nodes = _Nodes()
    header = nodes.build(document["header"], path="header", depth=2, order=HEADER_KEYS)
    entries = [
        nodes.build(entry, path=f"entries[{seq}]", depth=3, order=ENTRY_KEYS)
        for seq, entry in enumerate(document["entries"])
    ]
    shared = _repeated(entries)
    lines = ["header:" if header.items else "header: {}", *_Writer(shared, prefix="h").block(header, indent=1)]
    lines.append("entries:" if entries else "entries: []")
    written: dict[int, str] = {}
    for seq, entry in enumerate(entries):
        body = _Writer(shared, prefix=f"e{seq}", written=written).block(entry, indent=1, payload_only=True)
        first, *rest = body or ["{}"]
        lines += [f"- {first.removeprefix(STEP)}", *rest]
    text = "\n".join(lines) + "\n"
    if len(text) > MAX_BYTES or len(text.encode("utf-8")) > MAX_BYTES:
        raise Unrecordable(f"the cassette would be larger than {MAX_BYTES // 2**20} MiB")
    return text


class _Nodes:
    """Builds nodes bottom-up, gives equal values one identity, and keeps the bounds."""

    def __init__(self) -> None:
        self._identities: dict[object, int] = {}
        self._count = 0
        self._text = 0

    def build(self, value: Any, *, path: str, depth: int, order: Sequence[str] = ()) -> _Node:
        """The node of a value.

        Args:
            value: anything plain.
            path: its place, for messages.
            depth: collections around and including it, if it is one.
            order: keys that come first, in this order.
        """
        self._count += 1
        if self._count > MAX_NODES:
            raise Unrecordable(f"{path}: the cassette would hold more than {MAX_NODES} values")
        kind = type(value)
        if kind is str:
            return self._scalar(value, _string(value, path), flowing=not _NEEDS_ESCAPE.search(value))
        if kind is dict or kind is list:
            if depth > MAX_DEPTH:
                raise Unrecordable(f"{path}: nested deeper than {MAX_DEPTH} levels")
            return self._mapping(value, path, depth, order) if kind is dict else self._list(value, path, depth)
        return self._scalar(value, _number_or_word(value, path))

    def _scalar(self, value: Any, text: str, *, flowing: bool = True) -> _Node:
        self._spend(len(text))
        # repr keeps 1, 1.0, True and -0.0 apart, which are equal or hash alike.
        identity = self._identify(value if type(value) is str else (type(value), repr(value)))
        return _Node(value, identity, len(text), text if flowing else None)

    def _mapping(self, value: dict[Any, Any], path: str, depth: int, order: Sequence[str]) -> _Node:
        items = []
        for key in _sorted_keys(value, path, order):
            written = _key(key, path)
            self._spend(len(written))
            items.append((written, self.build(value[key], path=f"{path}.{key}", depth=depth + 1)))
        flow = self._flow(items, lambda pair: f"{_flow_key(pair[0])}: {pair[1].flow}", "{}")
        return self._collection(value, ("map", *((key, node.identity) for key, node in items)), items, flow)

    def _list(self, value: list[Any], path: str, depth: int) -> _Node:
        items = [("", self.build(item, path=f"{path}[{index}]", depth=depth + 1)) for index, item in enumerate(value)]
        numbers = all(type(item) in (int, float) for item in value)
        flow = self._flow(items, lambda pair: str(pair[1].flow), "[]", unbounded=numbers)
        return self._collection(value, ("list", *(node.identity for _, node in items)), items, flow)

    def _collection(self, value: Any, token: object, items: list[tuple[str, _Node]], flow: str | None) -> _Node:
        size = 2 + sum(len(key) + node.size + 4 for key, node in items)
        return _Node(value, self._identify(token), size, flow, tuple(items))

    def _flow(
        self,
        items: list[tuple[str, _Node]],
        write: Callable[[tuple[str, _Node]], str],
        brackets: str,
        *,
        unbounded: bool = False,
    ) -> str | None:
        if any(node.flow is None for _, node in items):
            return None
        if not unbounded and sum(len(key) + len(node.flow or "") for key, node in items) > WIDTH:
            return None
        return brackets[0] + ", ".join(map(write, items)) + brackets[1]

    def _identify(self, token: object) -> int:
        return self._identities.setdefault(token, len(self._identities))

    def _spend(self, characters: int) -> None:
        self._text += characters
        if self._text > MAX_TEXT:
            raise Unrecordable(f"the cassette would hold more than {MAX_TEXT // 2**20} Mi characters of text")


def _repeated(entries: list[_Node]) -> frozenset[int]:
    """Identities that are met again in payloads, in the order of writing, when what is met again is not entered."""
    seen: set[int] = set()
    again: set[int] = set()
    stack = [node for entry in reversed(entries) for key, node in entry.items if key == "payload"]
    while stack:
        node = stack.pop()
        if node.size >= SHARED:
            if node.identity in seen:
                again.add(node.identity)
                continue
            seen.add(node.identity)
        stack.extend(child for _, child in reversed(node.items))
    return frozenset(again)


class _Writer:
    """Writes the nodes of one entry; ``written`` holds the anchors of the file so far."""

    def __init__(self, shared: frozenset[int], *, prefix: str, written: dict[int, str] | None = None) -> None:
        self._shared = shared
        self._prefix = prefix
        self._written = {} if written is None else written
        self._own = 0
        self._sharing = False

    def block(self, node: _Node, *, indent: int, payload_only: bool = False) -> list[str]:
        """Lines of a mapping in block form; aliases are used inside its ``payload`` only."""
        lines: list[str] = []
        for key, child in node.items:
            self._sharing = payload_only and key == "payload"
            lines.extend(self._under(STEP * indent + key + ":", child, indent))
        return lines

    def _under(self, lead: str, node: _Node, indent: int) -> Iterator[str]:
        """A node after its key; ``lead`` is the text so far, ``indent`` that of the key."""
        anchor = ""
        if self._sharing and node.size >= SHARED and node.identity in self._shared:
            alias = self._written.get(node.identity)
            if alias is not None:
                yield f"{lead} *{alias}"
                return
            self._own += 1
            anchor = f"{self._prefix}-{self._own}"
            lead += f" &{anchor}"
        yield from self._content(lead, node, indent)
        if anchor:
            self._written[node.identity] = anchor

    def _content(self, lead: str, node: _Node, indent: int) -> Iterator[str]:
        flow = self._one_line(node, len(lead) + 1)
        if flow is not None:
            yield f"{lead} {flow}"
        elif type(node.value) is str:
            yield from _text(lead, node.value, indent + 1)
        elif type(node.value) is dict:
            yield lead
            for key, child in node.items:
                yield from self._under(STEP * (indent + 1) + key + ":", child, indent + 1)
        else:
            yield lead
            dash = STEP * (indent + 1) + "-"
            for _, child in node.items:
                first, *rest = self._under(dash, child, indent + 1)
                if first == dash:  # a block without an anchor starts on the line of its dash
                    first = f"{dash} {rest.pop(0).lstrip()}"
                yield first
                yield from rest

    def _one_line(self, node: _Node, column: int) -> str | None:
        if type(node.value) is str:
            return _plain_or_flow(node)
        if node.flow is None or not node.items:
            return node.flow
        if type(node.value) is list and all(type(item) in (int, float) for item in node.value):
            return node.flow
        if column + len(node.flow) > WIDTH or (self._sharing and self._holds_shared(node)):
            return None
        return node.flow

    def _holds_shared(self, node: _Node) -> bool:
        return any(
            child.size >= SHARED and (child.identity in self._shared or self._holds_shared(child))
            for _, child in node.items
        )


def _plain_or_flow(node: _Node) -> str | None:
    return node.value if is_plain(node.value) else node.flow


def is_plain(text: str) -> bool:
    """Whether text is written without quotes."""
    return _PLAIN.fullmatch(text) is not None and text.lower() not in _TYPED_WORDS


def _text(lead: str, text: str, indent: int) -> Iterator[str]:
    """Text that needs escapes in JSON: a literal block if that is exact and safe from editors, else quoted lines."""
    margin = STEP * indent
    body = text.rstrip("\n")
    if not body or body.startswith("\t") or _NOT_LITERAL.search(text):
        yield from _quoted_lines(lead, text, margin)
        return
    tail = len(text) - len(body)
    explicit = str(len(STEP)) if body[0] in " \n" else ""
    yield f"{lead} |{explicit}{'-' if tail == 0 else '' if tail == 1 else '+'}"
    for line in (text[:-1] if tail else text).split("\n"):
        yield margin + line if line else ""


def _quoted_lines(lead: str, text: str, margin: str) -> Iterator[str]:
    """Double quotes, one line of text per line; a backslash before the line end keeps every blank."""
    first, *rest = re.findall(r"[^\n]*\n|[^\n]+", text)
    if not rest:
        yield f"{lead} {_quote(first)}"
        return
    yield f'{lead} "{_quote(first)[1:-1]}\\'
    for position, line in enumerate(rest):
        inner = _quote(line)[1:-1]
        # A blank that starts a continued line would be skipped.
        inner = "\\" + inner if inner.startswith(" ") else inner
        yield margin + inner + ('"' if position == len(rest) - 1 else "\\")


def _quote(text: str) -> str:
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(text, ensure_ascii=False))


def _string(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Unrecordable(f"{path}: text holds a lone surrogate") from None
    return _quote(value)


def _number_or_word(value: Any, path: str) -> str:
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if type(value) is int:
        if value.bit_length() > (MAX_DIGITS - 1) * _BITS_PER_DIGIT:
            raise Unrecordable(f"{path}: an integer of more than {MAX_DIGITS} digits")
        return str(value)
    if type(value) is float and math.isfinite(value):
        return _float(value)
    raise Unrecordable(f"{path}: {type(value).__qualname__} has no plain form here")


def _float(value: float) -> str:
    """Shortest digits that give the same number, in the form that YAML 1.1, YAML 1.2 and JSON all read as a float."""
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"


def _sorted_keys(value: dict[Any, Any], path: str, order: Sequence[str]) -> list[str]:
    for key in value:
        if type(key) is not str:
            raise Unrecordable(f"{path}: mapping key {key!r} is not text")
    first = [key for key in order if key in value]
    return first + sorted(value.keys() - set(first))


def _key(key: str, path: str) -> str:
    written = key if is_plain(key) else _string(key, path)
    if len(written) > MAX_KEY:
        raise Unrecordable(f"{path}: a mapping key of more than {MAX_KEY} characters")
    return written


def _flow_key(written: str) -> str:
    return written if written.startswith('"') else f'"{written}"'
