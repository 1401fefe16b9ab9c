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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._ledger import ENTRY_KEYS, HEADER_KEYS
from ..errors import Unrecordable
from .limits import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_TEXT
from .scalars import INDENT, NEEDS_ESCAPE, flow_key, is_plain, key_text, number_or_word, quoted, text_lines

WIDTH = 120
SHARED = 48
STEP = " " * INDENT


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
            return self._scalar(value, quoted(value, path), flowing=not NEEDS_ESCAPE.search(value))
        if kind is dict or kind is list:
            if depth > MAX_DEPTH:
                raise Unrecordable(f"{path}: nested deeper than {MAX_DEPTH} levels")
            return self._mapping(value, path, depth, order) if kind is dict else self._list(value, path, depth)
        return self._scalar(value, number_or_word(value, path))

    def _scalar(self, value: Any, text: str, *, flowing: bool = True) -> _Node:
        self._spend(len(text))
        # repr keeps 1, 1.0, True and -0.0 apart, which are equal or hash alike.
        identity = self._identify(value if type(value) is str else (type(value), repr(value)))
        return _Node(value, identity, len(text), text if flowing else None)

    def _mapping(self, value: dict[Any, Any], path: str, depth: int, order: Sequence[str]) -> _Node:
        items = []
        for key in _sorted_keys(value, path, order):
            written = key_text(key, path)
            self._spend(len(written))
            items.append((written, self.build(value[key], path=f"{path}.{key}", depth=depth + 1)))
        flow = self._flow(items, lambda pair: f"{flow_key(pair[0])}: {pair[1].flow}", "{}")
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
            yield from text_lines(lead, node.value, STEP * (indent + 1))
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


def _sorted_keys(value: dict[Any, Any], path: str, order: Sequence[str]) -> list[str]:
    for key in value:
        if type(key) is not str:
            raise Unrecordable(f"{path}: mapping key {key!r} is not text")
    first = [key for key in order if key in value]
    return first + sorted(value.keys() - set(first))
