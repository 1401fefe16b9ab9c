"""The player: finds the recorded answer for a request.

Each recorded exchange answers once. Equal requests are told apart by branch first and recorded order next, so parallel
callers get their own answers whatever the schedule. A request that was never recorded may *borrow* the nearest
unplayed exchange of its operation, of its branch if there is one, so that one run shows the whole difference; borrowing
never takes an answer away from the request that it was recorded for. Requests that differ only in what the two runs'
own contexts supplied (``_volatile``) are equal. Nobody has to say so: requests that are not equal
here are not equal to the comparator either (``_compare`` keeps that as an invariant), and the run fails.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from os.path import commonprefix
from typing import Any

from ._canonical import canonical, digest, digest_of_plain
from ._compare.likeness import same
from ._genai.attributes import TOOL_NAME
from ._model import CONNECTION, Cassette, Span, SpanTree, operation_of
from ._volatile import Volatile, coarse

_DOMAIN = "spanchain/request/v1"
_NEXT = 4
"""Among equals but for volatile values, the next ones in order are nearly always meant."""

ANY_BRANCH = "\n"
"""Stands where a branch would: no span name is a bare newline."""

Normalise = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]


def request_digest(kind: str, name: str, request: Any, *, strict: bool = True) -> str:
    """What a request is matched by: a digest of its kind, operation and normalised content.

    Args:
        kind: of the exchange.
        name: of its span.
        request: redacted and normalised.
        strict: whether to refuse what is not plain, as what hooks of users return may be.
    """
    return (digest if strict else digest_of_plain)(_DOMAIN, [kind, operation_of(kind, name), request])


class Player:
    """Serves the exchanges of one verified cassette; safe to call from any thread.

    Args:
        cassette: verified.
        normalise: makes requests comparable.
        volatile: translates what the run's own context supplied.
        strict: whether requests may hold what is not plain; see ``request_digest``.
    """

    def __init__(self, cassette: Cassette, *, normalise: Normalise, volatile: Volatile, strict: bool = True) -> None:
        self.cassette = cassette
        self._normalise = normalise
        self._strict = strict
        self._volatile = volatile
        self._by_shape: dict[str, list[Span]] | None = None
        self._coarse: dict[str, str] = {}
        self._masks: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._branches = _branches(cassette.tree)
        self._borrowed: set[str] = set()
        self._unplayed = {span.span_id: span for span in cassette.tree if span.exchange is not None}
        self._order = deque(self._unplayed)
        # What hooks make of the golden requests may be refused: at the start, not in the midst of the agent's work.
        self._queues = self._index() if strict else None
        self._by_operation: dict[tuple[str, str], list[Span]] = {}
        for span in self._unplayed.values():
            self._by_operation.setdefault((span.kind, operation_of(span.kind, span.name)), []).append(span)

    def find(
        self,
        kind: str,
        name: str,
        request: Mapping[str, Any],
        *,
        branch: tuple[str, ...],
        borrow: bool = True,
        whole: bool = True,
        connection: int | None = None,
    ) -> Span | None:
        """The golden span whose exchange answers a request, or ``None`` for a miss.

        Args:
            kind: ``model``, ``tool`` or ``http``.
            name: span name of the request.
            request: redacted and normalised request.
            branch: names of the ancestors of the request's span, below the root.
            borrow: whether the nearest exchange may answer if none is equal.
            whole: whether the request is all there; if it still comes, the next exchange of its operation answers.
            connection: over which it is sent, where there are several to one server; among equals, its own come first.
        """
        with self._lock:
            if not whole:
                return self._first(kind, name, request, branch)
            span = self._in_order(kind, name, request, branch)
            if span is not None:
                return span
            key = request_digest(kind, name, request, strict=self._strict)
            span = self._next((key, *branch), kind, connection) or self._next((key, ANY_BRANCH), kind, connection)
            span = span or self._equivalent(kind, name, request, branch)
            if span is not None:
                return span
            if not borrow:
                return None
            near = self._nearest(kind, name, request, branch)
            if near is None:
                return None
            self._borrowed.add(near.span_id)
            return near

    def tools(self, *, unplayed: bool) -> frozenset[str]:
        """Names of the tools that were recorded, or of those whose calls have yet to be served."""
        with self._lock:
            spans = list(self._unplayed.values()) if unplayed else list(self.cassette.tree)
        spans = [span for span in spans if TOOL_NAME in span.attributes and span.kind != "mcp"]
        return frozenset(str(span.attributes[TOOL_NAME]) for span in spans)

    def skip_below(self, span: Span) -> None:
        """The exchanges below a served span will not be asked for: what made them did not run."""
        pending = list(self.cassette.tree.children(span))
        with self._lock:
            while pending:
                child = pending.pop()
                pending.extend(self.cassette.tree.children(child))
                self._unplayed.pop(child.span_id, None)

    def _in_order(self, kind: str, name: str, request: Mapping[str, Any], branch: tuple[str, ...]) -> Span | None:
        """The very next exchange, if this is its request: an agent that does one thing after the other needs no index.

        It is the one that the queues would give: nothing before it is left, and it is of the same branch. Once there
        are queues, they are asked alone.
        """
        if self._queues is not None or kind == "mcp":
            return None
        while self._order and self._order[0] not in self._unplayed:
            self._order.popleft()
        if not self._order:
            return None
        span = self._unplayed[self._order[0]]
        known = span.kind == kind and operation_of(kind, span.name) == operation_of(kind, name)
        if not known or self._branches[span.span_id] != branch or not same(self._request_of(span), request):
            return None
        return self._unplayed.pop(span.span_id)

    def _index(self) -> dict[tuple[str, ...], deque[str]]:
        """Span ids by digest and branch, in order; made for the first request that is not the next one."""
        queues: dict[tuple[str, ...], deque[str]] = {}
        for span_id, span in self._unplayed.items():
            key = request_digest(span.kind, span.name, self._request_of(span), strict=self._strict)
            # Two queues hold each exchange; whoever takes it from one leaves a stale id in the other, skipped later.
            queues.setdefault((key, *self._branches[span_id]), deque()).append(span_id)
            queues.setdefault((key, ANY_BRANCH), deque()).append(span_id)
        return queues

    def _next(self, key: tuple[str, ...], kind: str, connection: int | None) -> Span | None:
        if self._queues is None:
            self._queues = self._index()
        queue = self._queues.get(key)
        while queue and queue[0] not in self._unplayed:
            queue.popleft()
        if kind == "mcp":
            waiting = (self._unplayed.get(span_id) for span_id in queue or ())
            own = (span for span in waiting if span is not None and span.attributes.get(CONNECTION) == connection)
            found = next(own, None)
            if found is not None:
                return self._unplayed.pop(found.span_id)
        while queue:
            span = self._unplayed.pop(queue.popleft(), None)
            if span is not None:
                return span
        return None

    def _equivalent(self, kind: str, name: str, request: Mapping[str, Any], branch: tuple[str, ...]) -> Span | None:
        """The first unplayed exchange that differs only in volatile values, of the same branch if there is one."""
        if self._by_shape is None:  # from the first request that is not equal to a recorded one
            self._by_shape = {}
            for (of_kind, operation), spans in self._by_operation.items():
                for span in spans:
                    shape = self._shape(of_kind, operation, self._request_of(span))
                    self._by_shape.setdefault(shape, []).append(span)
        found = self._by_shape.get(self._shape(kind, name, request), [])
        found[:] = [span for span in found if span.span_id in self._unplayed]
        found.sort(key=lambda span: self._branches[span.span_id] != branch)
        for span in self._likely(found, request):
            golden = self._request_of(span)
            if canonical(self._volatile.translated(golden, request)) == canonical(golden):
                self._volatile.claim(golden, request)
                return self._unplayed.pop(span.span_id)
        return None

    def _likely(self, candidates: list[Span], request: Mapping[str, Any]) -> Iterator[Span]:
        """What is worth a closer look: the next ones, and those that say the same besides what is volatile."""
        yield from candidates[:_NEXT]
        if len(candidates) > _NEXT:
            mask = canonical(self._volatile.masked(request))
            yield from (span for span in candidates[_NEXT:] if self._mask_of(span) == mask)

    def _mask_of(self, span: Span) -> bytes:
        if span.span_id not in self._masks:
            self._masks[span.span_id] = canonical(self._volatile.masked(self._request_of(span)))
        return self._masks[span.span_id]

    def _shape(self, kind: str, name: str, request: Mapping[str, Any]) -> str:
        # The name of an HTTP request is part of its URL.
        operation = coarse(name, known=self._coarse) if kind == "http" else name
        return request_digest(kind, operation, coarse(request, known=self._coarse), strict=self._strict)

    def _request_of(self, span: Span) -> Mapping[str, Any]:
        assert span.exchange is not None
        return self._normalise(span.exchange.kind, span.name, span.exchange.request)

    def _first(self, kind: str, name: str, request: Mapping[str, Any], branch: tuple[str, ...]) -> Span | None:
        """The next exchange of the operation, before others one that says the same in all that is there already."""
        candidates = self._candidates(kind, name, branch)
        same = (span for span in candidates if len(candidates) > 1 and self._opens(span, request))
        found = next(same, candidates[0] if candidates else None)
        return self._unplayed.pop(found.span_id) if found is not None else None

    def _opens(self, span: Span, request: Mapping[str, Any]) -> bool:
        known = {key: value for key, value in request.items() if value is not None}
        golden = {key: value for key, value in self._request_of(span).items() if key in known}
        return canonical(self._volatile.translated(golden, known)) == canonical(golden)

    def _candidates(self, kind: str, name: str, branch: tuple[str, ...]) -> list[Span]:
        candidates = [
            span
            for span in self._by_operation.get((kind, operation_of(kind, name)), [])
            if span.span_id in self._unplayed and span.span_id not in self._borrowed
        ]
        # Another branch is better than none: an instrumentation that only one run had adds ancestors.
        return [span for span in candidates if self._branches[span.span_id] == branch] or candidates

    def _nearest(self, kind: str, name: str, request: Mapping[str, Any], branch: tuple[str, ...]) -> Span | None:
        candidates = self._candidates(kind, name, branch)
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        wanted = canonical(request)
        return max(candidates, key=lambda span: self._likeness(wanted, span))

    def _likeness(self, wanted: bytes, span: Span) -> float:
        text = canonical(self._request_of(span))
        shared = _common(wanted, text) + _common(wanted[::-1], text[::-1])
        return shared / max(len(wanted), len(text), 1)


def _common(one: bytes, other: bytes) -> int:
    return len(commonprefix([one, other]))  # noqa: RUF071 - byte by byte is what is wanted


def _branches(tree: SpanTree) -> dict[str, tuple[str, ...]]:
    branches: dict[str, tuple[str, ...]] = {}
    for span in tree:
        parent = tree.by_id.get(span.parent_span_id or "")
        if parent is None or parent.parent_span_id is None:
            branches[span.span_id] = ()
        else:
            branches[span.span_id] = (*branches[parent.span_id], parent.name)
    return branches
