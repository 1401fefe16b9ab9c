"""What a child did, joined to one tree: the exchanges that passed the gateway, and the spans that it told of itself.

An exporter tells of a span when it has ended, children first, and of a request's own span after the request. So an
exchange begins below the nearest span that is known then, and all are put in their places when the gateway closes.

Invariants:

* Order among siblings is that of their starts, in the child's time and ours, which is one clock; those whose times
  overlap ran side by side.
* Whatever a child says of parents, every span has a way to the root.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable

from .. import _strands
from .._capture import Capture, OpenSpan
from ._otlp import RemoteSpan

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-([0-9a-f]{16})-[0-9a-f]{2}")


class Family:
    """The spans of one gateway's children. Safe to call from any thread.

    Args:
        capture: of the run.
        parent: what they hang below: the span that was current when the gateway was opened.
    """

    def __init__(self, capture: Capture, *, parent: OpenSpan) -> None:
        self._capture = capture
        self._parent = parent
        self._lock = threading.Lock()
        self._parents: list[tuple[OpenSpan, int]] = []
        self._told: dict[int, RemoteSpan] = {}

    @property
    def traceparent(self) -> str:
        """What tells a child whom its spans belong to."""
        return f"00-{self._capture.trace_id:032x}-{self._parent.span_id:016x}-01"

    def parent_of(self, traceparent: str) -> OpenSpan:
        """The span below which a request with this header begins."""
        return self._capture.known(_span_id(traceparent)) or self._parent

    def met(self, span: OpenSpan, traceparent: str) -> None:
        """An exchange has begun."""
        with self._lock:
            self._parents.append((span, _span_id(traceparent)))

    def told(self, spans: Iterable[RemoteSpan]) -> list[str]:
        """A child tells of spans; one that it tells of again is the same.

        Returns:
            What is wrong with them.
        """
        wrong = []
        with self._lock:
            for span in spans:
                if self._capture.known(span.span_id) is not None:
                    wrong.append(f"span {span.name!r} that a child told of has the id of another one: it is left out")
                else:
                    self._told.setdefault(span.span_id, span)
        return wrong

    def join(self, strand: _strands.Strand) -> None:
        """Put all of them where they belong.

        Args:
            strand: of the gateway: their order is below its place.
        """
        with self._lock:
            passed = self._capture.done_by(strand)
            opened = [self._opened(span) for span in self._told.values()]
            for span, parent in self._parents:
                if parent in self._told:
                    span.parent_id = parent
            for span in sorted([*passed, *opened], key=lambda span: span.start_ns):
                span.strand = _strands.Strand(strand, strand.step(), span.start_ns, span.end_ns or time.time_ns())
                span.place = (*span.strand.place, 0)

    def _opened(self, told: RemoteSpan) -> OpenSpan:
        return self._capture.take_in(
            told.name,
            span_id=told.span_id,
            parent_id=self._rooted(told),
            span_kind=told.span_kind,
            scope=told.scope,
            start_ns=told.start_ns,
            end_ns=max(told.start_ns, told.end_ns),
            attributes=told.attributes,
            events=told.events,
            status=(told.status, told.status_message),
        )

    def _rooted(self, told: RemoteSpan) -> int:
        """The parent, if there is one that leads to the root."""
        seen, step = {told.span_id}, told.parent_id
        while step in self._told and step not in seen:
            seen.add(step)
            step = self._told[step].parent_id
        circles = step in seen
        known = told.parent_id in self._told or self._capture.known(told.parent_id) is not None
        return told.parent_id if known and not circles else self._parent.span_id


def _span_id(traceparent: str) -> int:
    found = _TRACEPARENT.fullmatch(traceparent.strip().lower())
    return int(found[1], 16) if found else 0
