"""A plain document as YAML text, for people to read and to diff.

Invariants: the strict reader gives back an equal document; the same document gives the same text; the text stays
within ``limits``. How each value is written:

* collections of up to ``WIDTH`` columns without text that needs an escape, and lists of numbers: one line, JSON;
* other collections: blocks, keys sorted, but header and entries in their readable order;
* identifiers and the like: plain; other text: quoted as in JSON;
* text with line ends, quotes or backslashes: a literal block where that is exact, else quoted over several lines;
* inside payloads, what was already written in this file (from ``SHARED`` bytes up): an alias to its first place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .._ledger import ENTRY_KEYS, HEADER_KEYS
from ..errors import Unrecordable
from .limits import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_TEXT
from .scalars import INDENT, NEEDS_ESCAPE, flow_key, is_plain, key_text, number_or_word, quoted, text_lines

WIDTH = 120
SHARED = 48
STEP = " " * INDENT


class _Node(NamedTuple):
    """A value with what the choice of its form needs.

    ``identity`` is equal for equal values only; ``flow`` is the one-line form, ``None`` where it is not wanted;
    ``size`` estimates the bytes of that form; ``items`` are pairs of a written key (empty in a list) and a node;
    ``height`` is how many collections are nested in it, itself included.
    """

    value: Any
    identity: int
    size: int
    flow: str | None
    items: tuple[tuple[str, _Node], ...] = ()
    height: int = 0


def emit(document: Mapping[str, Any]) -> str:
    """The YAML text of a document, without the opening comments.

    Args:
        document: ``header`` (a mapping) and ``entries`` (a list of mappings); anything plain below.

    Raises:
        Unrecordable: a value is not plain, or the text would exceed a bound of ``limits``; it names the place.
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
        self._texts: dict[str, _Node] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        self._items: dict[str, tuple[_Node, int, int]] = {}
        # The document, its two keys and the list of entries.
        self._count = 4
        self._text = len("headerentries")

    def build(self, value: Any, *, path: str, depth: int, order: Sequence[str] = ()) -> _Node:
        """The node of a value.

        Args:
            value: anything plain.
            path: its place, for messages.
            depth: collections around and including it, if it is one.
            order: keys that come first, in this order.
        """
        self._counted(1, path)
        kind = type(value)
        if kind is str:
            node = self._texts.get(value)
            if node is None:
                flow = quoted(value, path)
                shown = None if NEEDS_ESCAPE.search(value) else flow
                node = self._texts[value] = _Node(value, self._identify(value), len(flow), shown)
            self._spend(node.size)
            return node
        if kind is dict or kind is list:
            if depth > MAX_DEPTH:
                raise Unrecordable(f"{path}: nested deeper than {MAX_DEPTH} levels")
            return self._mapping(value, path, depth, order) if kind is dict else self._list(value, path, depth)
        text = number_or_word(value, path)
        self._spend(len(text))
        # repr keeps 1, 1.0, True and -0.0 apart, which are equal or hash alike.
        return _Node(value, self._identify((kind, repr(value))), len(text), text)

    def _mapping(self, value: dict[Any, Any], path: str, depth: int, order: Sequence[str]) -> _Node:
        items, leads = [], []
        self._counted(len(value), path)
        for key in _sorted_keys(value, path, order):
            written, lead = self._keys.get(key) or self._key(key, path)
            self._spend(len(written))
            node = self.build(value[key], path=f"{path}.{key}", depth=depth + 1)
            items.append((written, node))
            leads.append(lead)
        token = ("map", *[(key, node.identity) for key, node in items])
        return self._collection(value, token, items, leads, "{}")

    def _key(self, key: str, path: str) -> tuple[str, str]:
        """A key as it is written, and as it is on one line with its value."""
        written = key_text(key, path)
        self._keys[key] = written, f"{flow_key(written)}: "
        return self._keys[key]

    def _list(self, value: list[Any], path: str, depth: int) -> _Node:
        items = [("", self._item(item, f"{path}[{index}]", depth + 1)) for index, item in enumerate(value)]
        token = ("list", *[node.identity for _, node in items])
        return self._collection(value, token, items, [""] * len(items), "[]")

    def _item(self, value: Any, path: str, depth: int) -> _Node:
        """An item of a list. Agents send their history with every request: what was built once is built."""
        text = _text_of(value) if type(value) is dict else ""
        node, count, characters = self._items.get(text, (None, 0, 0)) if text else (None, 0, 0)
        if node is not None and depth + node.height <= MAX_DEPTH + 1:
            self._counted(count, path)
            self._spend(characters)
            return node
        before = self._count, self._text
        node = self.build(value, path=path, depth=depth)
        if text:
            self._items[text] = node, self._count - before[0], self._text - before[1]
        return node

    def _collection(
        self, value: Any, token: object, items: list[tuple[str, _Node]], leads: list[str], brackets: str
    ) -> _Node:
        size, width, height = 2, 0, 0
        flows: list[str] = []
        for (key, node), lead in zip(items, leads, strict=True):
            size += len(key) + node.size + 4
            height = max(height, node.height)
            if node.flow is not None:
                width += len(key) + len(node.flow)
                flows.append(lead + node.flow)
        flow = None
        if len(flows) == len(items) and (width <= WIDTH or _are_numbers(value)):
            flow = f"{brackets[0]}{', '.join(flows)}{brackets[1]}"
        return _Node(value, self._identify(token), size, flow, tuple(items), height + 1)

    def _identify(self, token: object) -> int:
        return self._identities.setdefault(token, len(self._identities))

    def _counted(self, values: int, path: str) -> None:
        self._count += values
        if self._count > MAX_NODES:
            raise Unrecordable(f"{path}: the cassette would hold more than {MAX_NODES} values")

    def _spend(self, characters: int) -> None:
        self._text += characters
        if self._text > MAX_TEXT:
            raise Unrecordable(f"the cassette would hold more than {MAX_TEXT // 2**20} Mi characters of text")


def _are_numbers(value: Any) -> bool:
    return type(value) is list and all(type(item) in (int, float) for item in value)


def _text_of(value: Any) -> str:
    """A text that no other plain value has; empty if it cannot be told."""
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError):
        return ""


_encode = json.JSONEncoder(allow_nan=False).encode


def _repeated(entries: list[_Node]) -> frozenset[int]:
    """Identities that are met again in payloads, in the order of writing, when what is met again is not entered."""
    seen: set[int] = set()
    again: set[int] = set()
    payloads = [node for entry in reversed(entries) for key, node in entry.items if key == "payload"]
    stack = [node for node in payloads if node.size >= SHARED]
    while stack:
        node = stack.pop()
        if node.identity in seen:
            again.add(node.identity)
            continue
        seen.add(node.identity)
        # What is smaller holds nothing that is large enough.
        stack.extend([child for _, child in reversed(node.items) if child.size >= SHARED])
    return frozenset(again)


class _Writer:
    """Writes the nodes of one entry; ``written`` holds the anchors of the file so far."""

    def __init__(self, shared: frozenset[int], *, prefix: str, written: dict[int, str] | None = None) -> None:
        self._shared = shared
        self._prefix = prefix
        self._written = {} if written is None else written
        self._own = 0
        self._sharing = False
        self._lines: list[str] = []

    def block(self, node: _Node, *, indent: int, payload_only: bool = False) -> list[str]:
        """Lines of a mapping in block form, to be asked for once; aliases are used inside its ``payload`` only."""
        for key, child in node.items:
            self._sharing = payload_only and key == "payload"
            self._under(STEP * indent + key + ":", child, indent)
        return self._lines

    def _under(self, lead: str, node: _Node, indent: int) -> None:
        """A node after its key; ``lead`` is the text so far, ``indent`` that of the key."""
        anchor = ""
        if self._sharing and node.size >= SHARED and node.identity in self._shared:
            alias = self._written.get(node.identity)
            if alias is not None:
                self._lines.append(f"{lead} *{alias}")
                return
            self._own += 1
            anchor = f"{self._prefix}-{self._own}"
            lead += f" &{anchor}"
        self._content(lead, node, indent)
        if anchor:
            self._written[node.identity] = anchor

    def _content(self, lead: str, node: _Node, indent: int) -> None:
        lines, flow = self._lines, self._one_line(node, len(lead) + 1)
        if flow is not None:
            lines.append(f"{lead} {flow}")
        elif type(node.value) is str:
            lines.extend(text_lines(lead, node.value, STEP * (indent + 1)))
        elif type(node.value) is dict:
            lines.append(lead)
            for key, child in node.items:
                self._under(STEP * (indent + 1) + key + ":", child, indent + 1)
        else:
            lines.append(lead)
            dash = STEP * (indent + 1) + "-"
            for _, child in node.items:
                start = len(lines)
                self._under(dash, child, indent + 1)
                if lines[start] == dash:  # a block without an anchor starts on the line of its dash
                    lines[start : start + 2] = [f"{dash} {lines[start + 1].lstrip()}"]

    def _one_line(self, node: _Node, column: int) -> str | None:
        if type(node.value) is str:
            return _plain_or_flow(node)
        if node.flow is None or not node.items:
            return node.flow
        if _are_numbers(node.value):
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


def _sorted_keys(value: dict[Any, Any], path: str, order: Sequence[str]) -> list[str]:
    for key in value:
        if type(key) is not str:
            raise Unrecordable(f"{path}: mapping key {key!r} is not text")
    first = [key for key in order if key in value]
    return first + sorted(value.keys() - set(first))
