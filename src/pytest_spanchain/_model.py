"""The nouns: spans, exchanges, trees, headers, cassettes, deviations. Frozen data, no behaviour beyond lookups.

Shapes of an exchange's ``request`` and ``response`` (plain values, see ``_canonical``; ``_shape`` insists on them):

* ``model`` and ``http``::

      request   {"method", "url", "headers": {..}, "body": BODY}
      response  {"status", "headers": {..}, "body": BODY, "end": END, "error": ERROR}
      BODY      null | {"json": value, "layout": text} | {"text": str} | {"base64": str}
                the body of a request is only compared and has no "layout"
                a streamed body carries "chunks": [byte count, ..] beside "text"/"base64", and "message": the
                assembled answer for the reader (null if unknown); documents may hold its "text" folded, as "events"
      END       "complete" | "closed" by the reader | "cancelled" while the reader waited for more | "error"
      ERROR     null | {"type": name, "message": text}
      A request that failed before any answer has "status": null, "body": null, "end": "error".

* ``tool``::

      request   {"arguments": {name: value}}
      response  {"result": value}, and where it applies
                "items": [value, ..] that a generator yielded, "sent": [[item, "send"|"throw", value], ..] what went in
                "end": "complete"|"closed"|"error"
                "error": ERROR with the exception itself as "value"
                "returned": "awaitable"|"generator"|"async_generator" that a plain function returned
                "order": key order of the mappings inside, where it is not ascending (see ``_layout``)

* ``mcp``, what was asked of a peer that answers in messages::

      request   {"server": text, "method": text, "params": mapping or null}
      response  {"result": value or null, "error": REFUSAL, "end": END, "arrived": [MESSAGE, ..]}
                "arrived": what the peer sent meanwhile, in order; "order" as of a tool
      REFUSAL   null | {"code": integer, "message": text, "data": value} | ERROR
      MESSAGE   {"method": text, "params": mapping or null}, with "asks": true if it wanted an answer (a ``callback``),
                "withdrawn": true if nobody waited for that, and "late": true if it came after the answer
      The response to "connect" may have "stderr": {"text", "bytes"}, the beginning of what a child that serves over
      stdio wrote there, and how much that was; it is not compared

* ``callback``, what a peer asked of the agent, who answered::

      request   {"method": text, "params": mapping or null}
      response  {"result": value or null, "error": REFUSAL}

* ``process``, a child process::

      request   {"argv": [text, ..], "cwd": text or null, "env": {name: text}, "stdin": BODY}
      response  {"exit": integer or null, "stdout": BODY, "stderr": BODY, "turns": text, "end": END, "error": ERROR}
                chunks that carry no meaning to a reader are kept all the same; "turns": who did what when
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

OWN_SCOPE = "pytest_spanchain"
"""Instrumentation scope of the spans that this package opens."""

CONCURRENT = "spanchain.concurrent"
"""Attribute of spans that ran beside a sibling: among neighbours of one number, order means nothing."""

CONNECTION = "spanchain.connection"
"""Attribute of what is said over a connection that is not the first to its server: its number, from 1."""

UNASKED = "spanchain.unasked"
"""Attribute of the root: functions that could be a tool, and ran unrecorded while the model waited for that tool."""

FORMAT = "spanchain/1"

EXCHANGE_KINDS = ("model", "tool", "http", "mcp", "process", "callback", "agent")

HTTP_KINDS = ("model", "http")
"""The exchanges that are HTTP's."""

ANSWERED_LIVE = ("tool", "callback")
"""The exchanges whose response may be made by the agent's own code in replay, too: it is compared."""


def operation_of(kind: str, name: str) -> str:
    """The part of a span name that says what is done, and not with whom.

    ``chat`` of ``chat gpt-4o``, whichever the model; ``connect`` of a connection, whichever the server.
    """
    connects = kind == "mcp" and name.startswith("connect ")
    return name.partition(" ")[0] if kind == "model" or connects else name


_PARTS = frozenset({"request", "response"})


@dataclass(frozen=True)
class Exchange:
    """A request that crossed a boundary and what came back.

    Args:
        kind: one of ``EXCHANGE_KINDS``.
        request: what went out, redacted, as a plain mapping (shapes in the module docstring).
        response: what came back; ``None`` while nothing has.
    """

    kind: str
    request: Mapping[str, Any]
    response: Mapping[str, Any] | None

    @classmethod
    def built_later(cls, kind: str, there: Mapping[str, Any], make: Callable[[str], Any]) -> Exchange:
        """An exchange whose request, or response, or both, are made when they are first asked for.

        Args:
            kind: as above.
            there: what need not be made, by its name.
            make: makes what is named; what it raises comes out where that is asked for.
        """
        found = cls.__new__(cls)
        vars(found).update(there, kind=kind, _make=make)
        return found

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Reached for what is not there: two threads may both make a part, and both get the same whole one.
            own = vars(self)
            make = own.get("_make") if name in _PARTS else None
            if make is not None:
                own.setdefault(name, make(name))
                if own.keys() >= _PARTS:
                    own.pop("_make", None)  # what it makes them of is let go
            if name in own:
                return own[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[type[Exchange], tuple[Any, ...]]:
        # A copy is whole: what makes parts later is of this process.
        return type(self), (self.kind, self.request, self.response)


@dataclass(frozen=True)
class Span:
    """One span, as OpenTelemetry means it.

    Args:
        span_id: 16 hex digits.
        parent_span_id: 16 hex digits of a span of the same tree, or ``None`` for the root.
        name: span name.
        span_kind: ``internal``, ``client``, ``server``, ``producer`` or ``consumer``.
        scope: name of the instrumentation scope that opened it; ``OWN_SCOPE`` for ours.
        attributes: plain values by attribute name.
        events: mappings of ``name``, ``offset_ns`` (from the span's start) and ``attributes``.
        status: ``unset``, ``ok`` or ``error``.
        status_message: description of an error status, else empty.
        start_ns: nanoseconds since the epoch.
        duration_ns: nanoseconds.
        exchange: the exchange that the span carries, if it is a boundary's.
    """

    span_id: str
    parent_span_id: str | None
    name: str
    span_kind: str = "internal"
    scope: str = OWN_SCOPE
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    status: str = "unset"
    status_message: str = ""
    start_ns: int = 0
    duration_ns: int = 0
    exchange: Exchange | None = None

    @property
    def end_ns(self) -> int:
        """End of the span, nanoseconds since the epoch."""
        return self.start_ns + self.duration_ns

    @property
    def kind(self) -> str:
        """The entry kind: that of the exchange, or ``span`` if none is carried."""
        return self.exchange.kind if self.exchange else "span"


@dataclass(frozen=True)
class SpanTree:
    """Spans with parents before children; siblings in start order. The first span is the root, if there is any."""

    spans: tuple[Span, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[str, Span]:
        """Spans by ``span_id``."""
        return {span.span_id: span for span in self.spans}

    @cached_property
    def _children(self) -> Mapping[str | None, tuple[Span, ...]]:
        found: dict[str | None, list[Span]] = {}
        for span in self.spans:
            found.setdefault(span.parent_span_id, []).append(span)
        return {parent: tuple(spans) for parent, spans in found.items()}

    @property
    def roots(self) -> tuple[Span, ...]:
        """Spans without a parent."""
        return self._children.get(None, ())

    def children(self, span: Span) -> tuple[Span, ...]:
        """Direct children in order."""
        return self._children.get(span.span_id, ())

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)


@dataclass(frozen=True)
class Header:
    """What a cassette says of itself; its hash is the genesis of the chain.

    Args:
        nodeid: pytest node id of the test, or the name given to ``use_cassette``.
        eval_id: groups runs of one evaluation.
        recorded_at: RFC 3339 UTC time, as claimed by the recorder.
        recorder: versions of plugin, Python, SDKs (``packages``) and the active instrumentation scopes (``scopes``).
        redaction: rule set id and digest.
        provenance: how the content came to be, e.g. ``{"source": "live", "mode": "once"}``.
        supersedes: head of the cassette that this one replaced, or ``None``.
    """

    nodeid: str
    eval_id: str
    recorded_at: str
    recorder: Mapping[str, Any]
    redaction: Mapping[str, Any]
    provenance: Mapping[str, Any]
    supersedes: str | None = None


@dataclass(frozen=True)
class Cassette:
    """A verified cassette. Only ``_chain.judge`` makes one.

    Args:
        path: the file as shown to the user; empty if it never was a file.
        header: its header.
        tree: the golden span tree.
        trace_id: 32 hex digits.
        head: last hash of the chain.
        outcome: outcome that the close entry declares.
    """

    path: str
    header: Header
    tree: SpanTree
    trace_id: str
    head: str
    outcome: str

    def build(self, *, responses: bool = True) -> None:
        """Build what is built later: every request, and every response if these are wanted, too.

        Raises:
            CassetteBroken: a part does not have the shape of its kind.
        """
        for span in self.tree:
            if span.exchange is not None:
                _ = span.exchange.request
                _ = span.exchange.response if responses else None


class DeviationKind(str, Enum):
    """The ways in which a live tree differs from the golden one."""

    SPAN_ADDED = "span_added"
    SPAN_REMOVED = "span_removed"
    SPAN_MOVED = "span_moved"
    INPUT_CHANGED = "input_changed"
    OUTPUT_CHANGED = "output_changed"
    ATTRIBUTE_CHANGED = "attribute_changed"
    STATUS_CHANGED = "status_changed"
    DURATION_CHANGED = "duration_changed"

    __str__ = str.__str__


@dataclass(frozen=True)
class FieldChange:
    """One differing field.

    Args:
        path: dotted and indexed path, e.g. ``request.body.json.messages[0].content``.
        golden: recorded value; ``MISSING`` if the field is new.
        live: observed value; ``MISSING`` if the field is gone.
    """

    path: str
    golden: Any
    live: Any


@dataclass(frozen=True)
class Deviation:
    """One difference between golden and live.

    Args:
        kind: what sort of difference.
        golden: the recorded span, ``None`` if added.
        live: the observed span, ``None`` if removed.
        path: names of the ancestors and of the span itself, root first.
        changes: differing fields; empty for added, removed and moved spans.
        deviation_point: whether it is the first of its root branch.
        consequence: whether it follows from an earlier deviation of its branch.
        failing: whether it fails the test; hooks may re-grade it.
        note: extra words for the reader, e.g. of a miss.
    """

    kind: DeviationKind
    golden: Span | None
    live: Span | None
    path: tuple[str, ...]
    changes: tuple[FieldChange, ...] = ()
    deviation_point: bool = False
    consequence: bool = False
    failing: bool = True
    note: str = ""


@dataclass(frozen=True)
class Attempt:
    """An attempt to leave the process.

    Args:
        host: name or address, or what else is known of the destination.
        port: its port, if it has one.
        site: ``file:line in function`` of the calling code.
    """

    host: str
    port: int | None
    site: str

    @property
    def target(self) -> str:
        """``host:port``, as shown."""
        return self.host if self.port is None else f"{self.host}:{self.port}"


class _Missing:
    """Sentinel for a field that one side lacks; survives pickling as itself."""

    def __repr__(self) -> str:
        return "<absent>"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = _Missing()
