"""The live spans of one run: ours, and whatever the process emits through OpenTelemetry.

Our spans are not emitted through anybody's tracer: they live here, and are made *current* in OpenTelemetry's context,
so that foreign spans become their children and the other way round. Ids are real OpenTelemetry ids while the run lasts;
``tree`` replaces them with ids derived from the node id and the position, so that a re-recording keeps them.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .. import _strands
from .._model import OWN_SCOPE, SpanTree
from .spans import HIDDEN_SCOPES, attributes_of, copied, recordable
from .spans import OpenSpan as OpenSpan
from .tree import derived_id, grown, scopes_below

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_NEAREST = "spanchain-span"
"""In OpenTelemetry's context: the span of ours that is nearest, for what starts below a span that nobody reports."""


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
        return frozenset(live.union(*(scopes_below(*span.graft) for span in spans if span.graft))) - {OWN_SCOPE}

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
        if span.context is None or span.context.span_id in self._spans:
            return
        scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
        self._add(
            self._parent(parent.span_id if parent else None, context),
            name=recordable(span.name),
            span_kind=span.kind.name.lower(),
            scope=scope,
            start_ns=span.start_time or time.time_ns(),
            span_id=span.context.span_id,
            hidden=scope in HIDDEN_SCOPES,
            foreign=copied(span.attributes),
        )

    def foreign_ended(self, span: ReadableSpan) -> bool:
        """Take over what a foreign span says at its end. Whether it was one of these, and had not ended before."""
        own = self._spans.get(span.context.span_id) if span.context else None
        if own is None or own.foreign is None:
            return False
        own.foreign = None
        own.name = recordable(span.name)
        own.attributes = attributes_of(span.attributes)
        own.status = span.status.status_code.name.lower()
        own.status_message = recordable(span.status.description or "")
        if events := span.events:  # each time a copy
            own.events = tuple(
                {
                    "name": recordable(event.name),
                    "offset_ns": max(0, event.timestamp - own.start_ns),
                    "attributes": attributes_of(event.attributes),
                }
                for event in events
            )
        own.end_ns = span.end_time or time.time_ns()
        own.strand.step_over(own.end_ns)
        return True

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
            name=recordable(name),
            span_kind=span_kind,
            scope=scope,
            start_ns=start_ns,
            span_id=span_id,
            hidden=scope in HIDDEN_SCOPES,
        )
        span.attributes, span.end_ns = attributes_of(attributes), end_ns
        span.status, span.status_message = status[0], recordable(status[1])
        span.events = tuple(
            {"name": recordable(one), "offset_ns": max(0, at - start_ns), "attributes": attributes_of(said)}
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
        shown = [(self._visible_parent(span), span) for span in spans if span is not self.root and not span.hidden]
        return grown(self.root, shown, root_id=derived_id(nodeid))

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
        foreign: Mapping[str, Any] | None = None,
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
                foreign=foreign,
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
