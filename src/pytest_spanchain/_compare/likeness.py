"""What counts as the same: strict equality of plain values, and keys that tell how alike two spans are.

Invariants:

* ``same`` separates ``1``, ``1.0`` and ``True``, ``0.0`` and ``-0.0``, as the canonical text does; Python's ``==``
  alone does not. What matches no recorded request is therefore never the same as one.
* How the bytes of an answer were laid out on the wire (``layout``, ``chunks``) is no content.
* Ids and times are in no key. ``full`` keys of two subtrees are equal only if nothing in them deviates.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._model import CONCURRENT, CONNECTION, HTTP_KINDS, UNASKED, Span, SpanTree, operation_of

DEFAULT_IGNORED_ATTRIBUTES = frozenset(
    {
        "code.*",
        CONCURRENT,
        CONNECTION,
        UNASKED,
        "exception.stacktrace",
        "gen_ai.conversation.id",
        "gen_ai.response.id",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.server.time_per_output_token",
        "gen_ai.server.time_to_first_token",
        "mcp.session.id",
        "network.local.*",
        "network.peer.*",
        "process.pid",
        "session.id",
        "thread.id",
        "thread.name",
    }
)
"""Attributes that carry ids, times, places in the source or in the network. A final ``*`` stands for any ending."""

_WIRE_ONLY = ("layout", "chunks")


def same(golden: Any, live: Any) -> bool:
    """Tell whether two plain values are equal in content and in type, all the way down."""
    if golden is live:
        return True
    if type(golden) is not type(live) or golden != live:
        return False
    if type(golden) is float:
        return repr(golden) == repr(live)
    todo = [(golden, live)]
    while todo:
        one, other = todo.pop()
        pairs: Iterable[tuple[Any, Any]]
        if type(one) is dict:
            pairs = ((value, other[key]) for key, value in one.items())
        elif type(one) is list:
            pairs = zip(one, other, strict=True)
        else:
            continue
        for left, right in pairs:
            if left is right:
                continue
            kind = type(left)
            if kind is not type(right) or (kind is float and repr(left) != repr(right)):
                return False
            if kind is dict or kind is list:
                todo.append((left, right))
    return True


def content(message: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a response without what only describes its bytes on the wire, and what a server said to nobody."""
    if message is not None and "arrived" in message and "stderr" in message:
        return {key: value for key, value in message.items() if key != "stderr"}
    body = message.get("body") if message else None
    if message is None or not isinstance(body, dict) or not any(key in body for key in _WIRE_ONLY):
        return message
    return {**message, "body": {key: value for key, value in body.items() if key not in _WIRE_ONLY}}


def same_content(golden: Mapping[str, Any] | None, live: Mapping[str, Any] | None) -> bool:
    """``same``, after ``content`` where the plain values differ."""
    return same(golden, live) or same(content(golden), content(live))


class Ignored:
    """The default set of attribute names, and further ones; some end in ``*``."""

    def __init__(self, further: frozenset[str] = frozenset()) -> None:
        names = DEFAULT_IGNORED_ATTRIBUTES | further
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))

    def without(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the attributes that are not ignored."""
        if not attributes or not any(self._holds(name) for name in attributes):
            return attributes
        return {name: value for name, value in attributes.items() if not self._holds(name)}

    def events(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the events as plain values without their times and without ignored attributes."""
        return [
            {"name": event.get("name", ""), "attributes": dict(self.without(event.get("attributes") or {}))}
            for event in events
        ]

    def _holds(self, name: str) -> bool:
        return name in self._exact or name.startswith(self._prefixes)


@dataclass(eq=False)
class Member:
    """A span in its tree, with keys from exact to loose; equal keys of one ``Printer`` mean alike.

    Args:
        span: the span.
        children: its children in start order.
        full: everything but ids and times, with everything below.
        deep: name, kind, scope and request, with the same of everything below in any order.
        own: name, kind, scope and request of the span alone.
        weak: name, kind and scope.
        loose: kind, scope and operation (first word of the name) of a model or HTTP call; else like ``weak``.
        text: the request as JSON, or the attributes of a span without exchange.
        size: number of spans in the subtree.
        known: whether one of the siblings that it is compared with bears its name.
    """

    span: Span
    children: list[Member] = field(default_factory=list)
    full: int = 0
    deep: int = 0
    own: int = 0
    weak: int = 0
    loose: int = 0
    text: str = ""
    size: int = 1
    known: bool = False


class Printer:
    """Makes the members of trees that are to be compared with each other."""

    def __init__(self, ignored: Ignored) -> None:
        self._ignored = ignored
        self._numbers: dict[tuple[Any, ...], int] = {}

    def members(self, tree: SpanTree) -> Member | None:
        """Return the root of ``tree`` with everything below it, or ``None`` if the tree is empty.

        A span whose parent is not listed before it is taken as a child of the root: out of place, but not out of
        the comparison.
        """
        if not tree.spans:
            return None
        found = [Member(span) for span in tree.spans]
        root, seen = found[0], {tree.spans[0].span_id: found[0]}
        for member in found[1:]:
            seen.get(member.span.parent_span_id or "", root).children.append(member)
            seen[member.span.span_id] = member
        for member in reversed(found):
            self._imprint(member, name="" if member is root else member.span.name)
        return root

    def _imprint(self, member: Member, *, name: str) -> None:
        span, children = member.span, member.children
        exchange = span.exchange
        attributes = _text(self._ignored.without(span.attributes))
        request = _text(exchange.request) if exchange else ""
        member.text = request if exchange else attributes
        member.weak = self._number("weak", name, span.kind, span.scope)
        member.own = self._number("own", member.weak, request)
        operation = name.split(" ", 1)[0]
        called = span.kind in HTTP_KINDS or operation_of(span.kind, name) != name
        member.loose = self._number("loose", span.kind, span.scope, operation) if called else member.weak
        member.deep = self._number("deep", member.own, *sorted(child.deep for child in children))
        member.size = 1 + sum(child.size for child in children)
        member.full = self._number(
            "full",
            member.own,
            _text(content(exchange.response)) if exchange else "",
            attributes,
            _text(self._ignored.events(span.events)) if span.events else "",
            (span.span_kind, span.status, span.status_message),
            *(child.full for child in children),
        )

    def _number(self, *key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))


def likeness(golden: Member, live: Member) -> float:
    """Say how alike two members are, from 0 to 1, cheaply: shared ends of their texts, shared children."""
    if golden.own == live.own and golden.span.exchange:
        return 1.0
    texts = _shared_ends(golden.text, live.text)
    if golden.span.exchange:
        return texts
    return (texts + _shared_children(golden, live)) / 2


def renamed(golden: Member, live: Member) -> bool:
    """Tell whether two members of different names are likely to be one step under two names.

    A model is part of the name of a model call, so for calls the operation is enough. Another tool is another step,
    unless it is asked the very same under a name that is new; an agent is known by what it does.
    """
    one, other = golden.span, live.span
    if one.kind != other.kind or one.scope != other.scope:
        return False
    if one.exchange and other.exchange:
        if golden.loose == live.loose:
            return True
        return not live.known and same(one.exchange.request, other.exchange.request)
    operation = one.name.split(" ", 1)[0] == other.name.split(" ", 1)[0]
    if not golden.children and not live.children:
        return operation
    return _shared_children(golden, live) >= (0.5 if operation else 0.99)


def _shared_children(golden: Member, live: Member) -> float:
    most = max(len(golden.children), len(live.children))
    if not most:
        return 1.0
    deep = Counter(child.deep for child in golden.children) & Counter(child.deep for child in live.children)
    weak = Counter(child.weak for child in golden.children) & Counter(child.weak for child in live.children)
    return (deep.total() + weak.total()) / (2 * most)


def _shared_ends(golden: str, live: str) -> float:
    if golden == live:
        return 1.0
    head = shared_prefix(golden, live)
    tail = min(shared_prefix(golden[::-1], live[::-1]), min(len(golden), len(live)) - head)
    return (head + tail) / max(len(golden), len(live))


def shared_prefix(golden: str, live: str) -> int:
    """Length of the common start of two texts, found by halving."""
    low, high = 0, min(len(golden), len(live))
    while low < high:
        middle = (low + high + 1) // 2
        if golden[low:middle] == live[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _text(value: Any) -> str:
    """JSON with sorted keys: as telling as the canonical text, but made by C code and never refused."""
    # Most spans have no attributes: an empty value need not wake the encoder.
    return _ENCODER.encode(value) if value else repr(value)


def _foreign(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else repr(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_foreign)
