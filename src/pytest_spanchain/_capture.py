"""The live spans of one run: ours, and whatever the process emits through OpenTelemetry.

Our spans are not emitted through anybody's tracer: they live here, and are made *current* in OpenTelemetry's context,
so that foreign spans become their children and the other way round. Ids are real OpenTelemetry ids while the run lasts;
``tree`` replaces them with ids derived from the node id and the position, so that a re-recording keeps them.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import _strands
from ._hosts import is_loopback
from ._model import CONCURRENT, OWN_SCOPE, Exchange, Span, SpanTree

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

HIDDEN_SCOPES = frozenset({"pytest-opentelemetry", "pytest_opentelemetry", "pytest-otel"})
"""Scopes of plugins that trace the tests themselves; their spans are spliced out of the tree."""

VOLATILE_ATTRIBUTES = frozenset(
    {
        "thread.id",
        "thread.name",
        "code.filepath",
        "code.file.path",
        "code.lineno",
        "code.line.number",
        "process.pid",
        "exception.stacktrace",
        "network.local.port",
        "network.peer.port",
        "client.port",
        "logfire.span_type",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
        "gen_ai.server.request.duration",
        "gen_ai.event.start_time",  # strands, and the next three
        "gen_ai.event.end_time",
        "event_loop.cycle_id",
        "event_loop.parent_cycle_id",
        "gcp.vertex.agent.associated_event_ids",  # google-adk, and the next two
        "gcp.vertex.agent.event_id",
        "gcp.vertex.agent.invocation_id",
    }
)
"""Attributes that differ between machines and runs by nature; they are not recorded."""

UNFINISHED = "spanchain.unfinished"
"""Set on spans that were still open when the run ended."""

_NEAREST = "spanchain-span"
"""In OpenTelemetry's context: the span of ours that is nearest, for what starts below a span that nobody reports."""

_HOST_AND_PORT = (("server.address", "server.port"), ("net.peer.name", "net.peer.port"))


@dataclass(eq=False)
class OpenSpan:
    """A span while the run lasts.

    ``graft`` is the golden span whose recorded children stand for ours; ``seam`` says that a framework made the call,
    so that the function of the same name which it runs is no call of its own; ``lasting``, that what it started goes on
    after its end: a connection's tasks are inside of it for as long as they live.
    """

    span_id: int
    parent_id: int | None
    name: str
    span_kind: str
    scope: str
    start_ns: int
    strand: _strands.Strand
    place: _strands.Place
    attributes: dict[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    status: str = "unset"
    status_message: str = ""
    end_ns: int | None = None
    exchange: Exchange | None = None
    graft: tuple[SpanTree, Span] | None = None
    hidden: bool = False
    seam: bool = False
    lasting: bool = False


class Capture:
    """Collects the spans of one run; safe to call from any thread."""

    def __init__(self, *, name: str) -> None:
        self._lock = threading.Lock()
        self._random = random.SystemRandom()
        self._spans: dict[int, OpenSpan] = {}
        self.trace_id = self._random.getrandbits(128) | 1
        self.root = self._add(None, name=name, span_kind="internal", scope=OWN_SCOPE, start_ns=time.time_ns())

    @property
    def scopes(self) -> frozenset[str]:
        """Foreign instrumentation scopes seen so far, those of recorded children that stand for ours included."""
        with self._lock:
            spans = list(self._spans.values())
        live = {span.scope for span in spans if not span.hidden}
        return frozenset(live.union(*(_scopes_below(*span.graft) for span in spans if span.graft))) - {OWN_SCOPE}

    def open(self, name: str, *, span_kind: str) -> OpenSpan:
        """Open one of our spans below the span that is current in the calling context."""
        return self._add(
            self._parent(_current_span_id()), name=name, span_kind=span_kind, scope=OWN_SCOPE, start_ns=time.time_ns()
        )

    def close(self, span: OpenSpan) -> None:
        """End one of our spans now."""
        span.end_ns = time.time_ns()
        span.strand.step_over(span.end_ns)

    def foreign_started(self, span: ReadableSpan, *, context: Any = None) -> None:
        """Take in a span that another tracer has started, in an OpenTelemetry context (``None``: the current one)."""
        parent = span.parent
        if span.context is None:
            return
        scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
        own = self._add(
            self._parent(parent.span_id if parent else None, context),
            name=_recordable(span.name),
            span_kind=span.kind.name.lower(),
            scope=scope,
            start_ns=span.start_time or time.time_ns(),
            span_id=span.context.span_id,
            hidden=scope in HIDDEN_SCOPES,
        )
        own.attributes = _attributes(span.attributes)  # all that is known of a span that never ends

    def foreign_ended(self, span: ReadableSpan) -> None:
        """Take over what a foreign span says at its end."""
        own = self._spans.get(span.context.span_id) if span.context else None
        if own is None:
            return
        own.name = _recordable(span.name)
        own.attributes = _attributes(span.attributes)
        own.status = span.status.status_code.name.lower()
        own.status_message = _recordable(span.status.description or "")
        own.events = tuple(
            {
                "name": _recordable(event.name),
                "offset_ns": max(0, event.timestamp - own.start_ns),
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        )
        own.end_ns = span.end_time or time.time_ns()
        own.strand.step_over(own.end_ns)

    def known(self, span_id: int) -> OpenSpan | None:
        """The span of that id, ours or a foreign one."""
        return self._spans.get(span_id)

    def nearest(self) -> OpenSpan:
        """The span below which one would be opened in the calling context."""
        return self._spans[self._parent(_current_span_id())]

    def spared(self, kinds: Collection[str]) -> bool:
        """Whether the cassette stood for any call of these kinds, so that what is below it was not done."""
        with self._lock:
            spans = list(self._spans.values())
        served = [span.exchange for span in spans if span.graft and span.graft[1].parent_span_id is not None]
        return any(exchange is not None and exchange.kind in kinds for exchange in served)

    def done_by(self, strand: _strands.Strand) -> list[OpenSpan]:
        """What a strand has opened, and the strands that it led to."""
        with self._lock:
            spans = list(self._spans.values())
        return [span for span in spans if any(one is strand for one in span.strand.lineage())]

    def take_in(
        self,
        name: str,
        *,
        span_id: int,
        parent_id: int,
        span_kind: str,
        scope: str,
        start_ns: int,
        end_ns: int,
        attributes: Mapping[str, Any],
        events: Sequence[tuple[str, int, Mapping[str, Any]]],
        status: tuple[str, str],
    ) -> OpenSpan:
        """A span that another process has told of.

        Args:
            name, span_id, span_kind, scope, start_ns, end_ns, attributes: its own.
            parent_id: of a span of this run that is known, or will be before its tree is asked for.
            events: name, nanoseconds since the epoch, attributes.
            status: with its message.
        """
        span = self._add(
            parent_id,
            name=_recordable(name),
            span_kind=span_kind,
            scope=scope,
            start_ns=start_ns,
            span_id=span_id,
            hidden=scope in HIDDEN_SCOPES,
        )
        span.attributes, span.end_ns = _attributes(attributes), end_ns
        span.status, span.status_message = status[0], _recordable(status[1])
        span.events = tuple(
            {"name": _recordable(one), "offset_ns": max(0, at - start_ns), "attributes": _attributes(said)}
            for one, at, said in events
        )
        return span

    def branch(self, span: OpenSpan) -> tuple[str, ...]:
        """Names of the span's visible ancestors below the root, outermost first."""
        names: list[str] = []
        parent = self._spans.get(span.parent_id or 0)
        while parent is not None and parent is not self.root:
            if not parent.hidden:
                names.append(parent.name)
            parent = self._spans.get(parent.parent_id or 0)
        return tuple(reversed(names))

    def enclosing(self) -> OpenSpan | None:
        """The nearest call, still open or lasting, that the calling context is inside of."""
        span = self._spans.get(_current_span_id() or 0)
        while span is not None and (span.exchange is None or (span.end_ns is not None and not span.lasting)):
            span = self._spans.get(span.parent_id or 0)
        return span

    @contextmanager
    def current(self, span: OpenSpan) -> Iterator[None]:
        """Make a span of ours the parent of whatever is started in the calling context."""
        from opentelemetry import context as otel_context

        token = otel_context.attach(self.context_of(span))
        try:
            yield
        finally:
            otel_context.detach(token)

    def context_of(self, span: OpenSpan) -> Any:
        """OpenTelemetry context in which ``span`` is current."""
        from opentelemetry import context as otel_context
        from opentelemetry import trace

        span_context = trace.SpanContext(
            trace_id=self.trace_id, span_id=span.span_id, is_remote=False, trace_flags=trace.TraceFlags(1)
        )
        context = otel_context.set_value(_NEAREST, span.span_id)
        return trace.set_span_in_context(trace.NonRecordingSpan(span_context), context)

    def tree(self, nodeid: str) -> SpanTree:
        """The finished tree: derived ids, parents first, siblings as the program came to them (see ``_strands``)."""
        with self._lock:
            spans = list(self._spans.values())
        now = time.time_ns()
        children: dict[int, list[OpenSpan]] = {}
        for span in spans:
            if span is not self.root and not span.hidden:
                children.setdefault(self._visible_parent(span), []).append(span)
        built: list[Span] = []
        crowds: dict[int, int] = {}
        root_id = _hash(nodeid)
        pending: list[tuple[OpenSpan, str, str | None]] = [(self.root, root_id, None)]
        while pending:
            span, span_id, parent_id = pending.pop()
            built.append(_finished(span, span_id=span_id, parent_id=parent_id, now=now, crowds=crowds))
            below = sorted(children.get(span.span_id, []), key=lambda child: child.place)
            concurrent = _strands.side_by_side([child.strand for child in below], now=now)
            crowds.update((below[index].span_id, crowd) for index, crowd in concurrent.items())
            told: tuple[Span, ...] = ()
            # A recorded call's children stand for ours; what a process of this run has told is beside them.
            if span.graft is not None and (not below or span.graft[1].parent_span_id is None):
                told = span.graft[0].children(span.graft[1])
                built.extend(_grafted(*span.graft, under=span_id))
                below = [child for child in below if not _is_told(child, span.graft[0])]
            names = [*(child.name for child in told), *(child.name for child in below)]
            ids = _child_ids(span_id, names)[len(told) :]
            pending.extend(reversed([(child, id_, span_id) for child, id_ in zip(below, ids, strict=True)]))
        return SpanTree(tuple(built))

    def _add(
        self,
        parent_id: int | None,
        *,
        name: str,
        span_kind: str,
        scope: str,
        start_ns: int,
        span_id: int | None = None,
        hidden: bool = False,
    ) -> OpenSpan:
        strand = _strands.current()
        with self._lock:
            span = OpenSpan(
                span_id=span_id or self._random.getrandbits(64) | 1,
                parent_id=parent_id,
                name=name,
                span_kind=span_kind,
                scope=scope,
                start_ns=start_ns,
                strand=strand,
                place=strand.step(),
                hidden=hidden,
            )
            self._spans[span.span_id] = span
        return span

    def _parent(self, span_id: int | None, context: Any = None) -> int:
        """The span of that id; where its provider does not report it, the nearest of ours, else the root."""
        if span_id in self._spans:
            return span_id
        from opentelemetry import context as otel_context

        nearest = otel_context.get_value(_NEAREST, context)
        return nearest if isinstance(nearest, int) and nearest in self._spans else self.root.span_id

    def _visible_parent(self, span: OpenSpan) -> int:
        parent = self._spans[span.parent_id or 0]
        while parent.hidden:
            parent = self._spans[parent.parent_id or 0]
        return parent.span_id


def _current_span_id() -> int | None:
    from opentelemetry import trace

    return trace.get_current_span().get_span_context().span_id or None


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    if not attributes:
        return {}
    # The SDK's own mappings are six times faster to copy as a whole than item by item.
    found = dict(attributes.copy() if hasattr(attributes, "copy") else attributes)
    for host, port in _HOST_AND_PORT:
        if host in found and is_loopback(str(found[host])):
            found.pop(port, None)  # given anew in every run
    return {key: _recordable(value) for key, value in found.items() if key not in VOLATILE_ATTRIBUTES}


def _recordable(value: Any) -> Any:
    """An attribute's value in a form that a cassette can hold: telemetry is not worth losing a recording for."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return [_recordable(item) for item in value] if isinstance(value, (tuple, list)) else value


def _finished(span: OpenSpan, *, span_id: str, parent_id: str | None, now: int, crowds: dict[int, int]) -> Span:
    attributes = dict(span.attributes)
    if span.span_id in crowds:
        attributes[CONCURRENT] = crowds[span.span_id]
    if span.end_ns is None and parent_id is not None:
        attributes[UNFINISHED] = True
    return Span(
        span_id=span_id,
        parent_span_id=parent_id,
        name=span.name,
        span_kind=span.span_kind,
        scope=span.scope,
        attributes=attributes,
        events=span.events,
        status=span.status,
        status_message=span.status_message,
        start_ns=span.start_ns,
        duration_ns=max(0, (span.end_ns or now) - span.start_ns),
        exchange=span.exchange,
    )


def _is_told(span: OpenSpan, told: SpanTree) -> bool:
    """Whether a process has told of a call that was also seen from outside, as by a gateway."""
    return span.exchange is not None and any(
        one.exchange is not None
        and one.name == span.name
        and one.start_ns <= span.start_ns <= one.start_ns + one.duration_ns
        for one in told
    )


def _grafted(golden: SpanTree, span: Span, *, under: str) -> Iterator[Span]:
    below = golden.children(span)
    for child, span_id in zip(below, _child_ids(under, [child.name for child in below]), strict=True):
        yield replace(child, span_id=span_id, parent_span_id=under)
        yield from _grafted(golden, child, under=span_id)


def _scopes_below(golden: SpanTree, span: Span) -> set[str]:
    below = list(golden.children(span))
    for child in below:
        below.extend(golden.children(child))
    return {child.scope for child in below}


def _child_ids(parent_id: str, names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    ids = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        ids.append(_hash(f"{parent_id}\n{name}\n{seen[name]}"))
    return ids


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
