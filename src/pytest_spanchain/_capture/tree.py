"""The finished tree of a run's spans.

Invariants: parents come first, siblings as the program came to them (see ``_strands``); an id tells of the position
alone, so that a re-recording keeps it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from .. import _strands
from .._model import CONCURRENT, Span, SpanTree
from .spans import OpenSpan, attributes_of

UNFINISHED = "spanchain.unfinished"
"""Set on spans that were still open when the run ended."""


def grown(root: OpenSpan, shown: Iterable[tuple[int, OpenSpan]], *, root_id: str) -> SpanTree:
    """The tree, with the recorded children of what was served.

    Args:
        root: the run's own span.
        shown: the other spans, each with the id of its nearest visible ancestor.
        root_id: of the root in the tree.
    """
    now = time.time_ns()
    children: dict[int, list[OpenSpan]] = {}
    for parent, span in shown:
        children.setdefault(parent, []).append(span)
    built: list[Span] = []
    crowds: dict[int, int] = {}
    pending: list[tuple[OpenSpan, str, str | None]] = [(root, root_id, None)]
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


def _finished(span: OpenSpan, *, span_id: str, parent_id: str | None, now: int, crowds: dict[int, int]) -> Span:
    attributes = dict(span.attributes) if span.foreign is None else attributes_of(span.foreign)
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


def scopes_below(golden: SpanTree, span: Span) -> set[str]:
    """The instrumentation scopes of a recorded span's descendants."""
    below = list(golden.children(span))
    for child in below:
        below.extend(golden.children(child))
    return {child.scope for child in below}


def _child_ids(parent_id: str, names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    ids = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        ids.append(derived_id(f"{parent_id}\n{name}\n{seen[name]}"))
    return ids


def derived_id(text: str) -> str:
    """A span id that a re-recording keeps: of the node id for the root, below it of the position."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
