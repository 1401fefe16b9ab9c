"""Judgement: a golden and a live span tree in, the ordered deviations out.

Invariants:

* Pure: no I/O, no clock, nothing remembered.
* Ids, times and durations never make a failing deviation; neither does the order of concurrent siblings.
* Requests that have not one canonical text deviate: what is matched by its digest is compared as strictly.
* Deviations come in causal order: what a span was asked at its start, then its children, then what it answered.
* Spans below an added or removed span are counted in its note and not listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .._model import Deviation, DeviationKind, FieldChange, Span, SpanTree
from .align import Node, align
from .blame import Blame
from .fields import MOST_CHANGES, field_changes
from .likeness import Ignored, content, same, same_content

_ASKED = (
    "gen_ai.agent.",
    "gen_ai.input.messages",
    "gen_ai.request.",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.definitions",
    "gen_ai.tool.name",
    "input.value",
)
"""Attributes (or their beginnings) that say what a span was asked: a difference is in its input."""

_ANSWERED = ("gen_ai.output.messages", "gen_ai.tool.call.result", "output.value")
"""Attributes that say what a span answered: a difference is in its output."""

_SLOWER = 0.2

_THOROUGH = 3
"""Deviations whose fields are compared down to the leaves, causes first: deepdiff takes its time."""

_ASKS, _ANSWERS, _TELLS = range(3)


@dataclass(frozen=True)
class _Part:
    """Two differing values at one place of a span."""

    path: str
    golden: Any
    live: Any


@dataclass(frozen=True)
class _Finding:
    kind: DeviationKind
    node: Node
    parts: tuple[_Part, ...] = ()


def compare(
    golden: SpanTree,
    live: SpanTree,
    *,
    ignored_attributes: frozenset[str] = frozenset(),
    durations: bool = False,
) -> tuple[Deviation, ...]:
    """List how ``live`` deviates from ``golden``, in causal order; empty if it does not.

    Args:
        golden: the recorded tree; volatile values replaced.
        live: the observed tree, treated alike.
        ignored_attributes: further names of attributes that are not compared; a final ``*`` stands for any ending.
        durations: also tell durations that differ by more than 20 %; these never fail a test.
    """
    ignored = Ignored(ignored_attributes)
    if not durations and _is_equal(golden, live, ignored):
        return ()
    root = align(golden, live, ignored=ignored)
    findings = list(_findings(root, ignored, durations=durations)) if root else []
    blame = Blame()
    judged = [
        (False, False) if finding.kind is DeviationKind.DURATION_CHANGED else blame.judge(finding.node)
        for finding in findings
    ]
    in_detail = set(sorted(range(len(findings)), key=lambda k: (judged[k][0], k))[:_THOROUGH])
    return tuple(
        _deviation(finding, follows, point, thorough=k in in_detail)
        for k, (finding, (follows, point)) in enumerate(zip(findings, judged, strict=True))
    )


def pairs(
    golden: SpanTree, live: SpanTree, *, ignored_attributes: frozenset[str] = frozenset()
) -> Iterator[tuple[Span, Span]]:
    """The golden and live spans that ``compare`` would compare with each other, parents first.

    Args:
        golden: the recorded tree.
        live: the observed tree.
        ignored_attributes: as of ``compare``.
    """
    root = align(golden, live, ignored=Ignored(ignored_attributes))
    todo = [root] if root else []
    while todo:
        node = todo.pop()
        if node.golden is not None and node.live is not None:
            yield node.golden.span, node.live.span
            todo += reversed(node.children())


def _is_equal(golden: SpanTree, live: SpanTree, ignored: Ignored) -> bool:
    """Tell in one pass over both trees, without keys or alignment, that nothing differs; order included."""
    if len(golden) != len(live):
        return False
    places: dict[str | None, int] = {}
    live_places: dict[str | None, int] = {}
    for place, (one, other) in enumerate(zip(golden, live, strict=True)):
        if places.get(one.parent_span_id) != live_places.get(other.parent_span_id):
            return False
        if place and (one.name != other.name or one.scope != other.scope):
            return False
        if one.kind != other.kind or next(_parts(one, other, ignored), None):
            return False
        places[one.span_id] = live_places[other.span_id] = place
    return True


def _findings(root: Node, ignored: Ignored, *, durations: bool) -> Iterator[_Finding]:
    """Walk the aligned trees, on a stack of our own: agents may nest deeper than Python's."""
    todo: list[Node | _Finding] = [root]
    while todo:
        step = todo.pop()
        if isinstance(step, _Finding):
            yield step
            continue
        if step.golden is None:
            yield _Finding(DeviationKind.SPAN_ADDED, step)
            continue
        if step.live is None:
            yield _Finding(DeviationKind.SPAN_REMOVED, step)
            continue
        before, after = _at(step, ignored)
        if durations:
            after += _duration(step)
        yield from before
        todo += reversed(after)
        if durations or not step.equal:
            todo += reversed(step.children())


def _at(node: Node, ignored: Ignored) -> tuple[list[_Finding], list[_Finding]]:
    """What deviates at the start and at the end of one pair."""
    assert node.golden is not None, "only pairs are compared"
    assert node.live is not None, "only pairs are compared"
    golden, live = node.golden.span, node.live.span
    before = [_Finding(DeviationKind.SPAN_MOVED, node)] if node.places else []
    parts: dict[DeviationKind, list[_Part]] = {
        DeviationKind.INPUT_CHANGED: [],
        DeviationKind.OUTPUT_CHANGED: [],
        DeviationKind.STATUS_CHANGED: [],
        DeviationKind.ATTRIBUTE_CHANGED: [],
    }
    if not node.equal:
        for kind, part in _parts(golden, live, ignored):
            parts[kind].append(part)
    asked = parts.pop(DeviationKind.INPUT_CHANGED)
    # A model is part of its call's name: the request says it better.
    if node.parent is not None and golden.name != live.name and not any(p.path == "request" for p in asked):
        asked.append(_Part("name", golden.name, live.name))
    if asked:
        before.append(_Finding(DeviationKind.INPUT_CHANGED, node, tuple(asked)))
    return before, [_Finding(kind, node, tuple(found)) for kind, found in parts.items() if found]


def _parts(golden: Span, live: Span, ignored: Ignored) -> Iterator[tuple[DeviationKind, _Part]]:
    """Differing parts of two spans of one kind; names and scopes are the aligner's business."""
    one, other = golden.exchange, live.exchange
    if one and other:
        if not same(one.request, other.request):
            yield DeviationKind.INPUT_CHANGED, _Part("request", one.request, other.request)
        if not same_content(one.response, other.response):
            yield DeviationKind.OUTPUT_CHANGED, _Part("response", content(one.response), content(other.response))
    if not same(golden.attributes, live.attributes):
        yield from _attributes(ignored.without(golden.attributes), ignored.without(live.attributes))
    if golden.status != live.status:
        yield DeviationKind.STATUS_CHANGED, _Part("status", golden.status, live.status)
    if golden.status_message != live.status_message:
        yield (
            DeviationKind.STATUS_CHANGED,
            _Part("status_message", golden.status_message, live.status_message),
        )
    if golden.span_kind != live.span_kind:
        yield DeviationKind.ATTRIBUTE_CHANGED, _Part("span_kind", golden.span_kind, live.span_kind)
    if golden.events or live.events:
        events, live_events = ignored.events(golden.events), ignored.events(live.events)
        if not same(events, live_events):
            yield DeviationKind.ATTRIBUTE_CHANGED, _Part("events", events, live_events)


def _attributes(golden: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[tuple[DeviationKind, _Part]]:
    kinds = (DeviationKind.INPUT_CHANGED, DeviationKind.OUTPUT_CHANGED, DeviationKind.ATTRIBUTE_CHANGED)
    for kind, wanted in zip(kinds, (_ASKS, _ANSWERS, _TELLS), strict=True):
        one = {name: value for name, value in golden.items() if _role(name) == wanted}
        other = {name: value for name, value in live.items() if _role(name) == wanted}
        if not same(one, other):
            yield kind, _Part("attributes", one, other)


def _role(attribute: str) -> int:
    if attribute.startswith(_ASKED):
        return _ASKS
    return _ANSWERS if attribute.startswith(_ANSWERED) else _TELLS


def _duration(node: Node) -> list[_Finding]:
    assert node.golden is not None, "only pairs are compared"
    assert node.live is not None, "only pairs are compared"
    golden, live = node.golden.span.duration_ns, node.live.span.duration_ns
    if abs(live - golden) <= _SLOWER * golden:
        return []
    return [_Finding(DeviationKind.DURATION_CHANGED, node, (_Part("duration_ns", golden, live),))]


def _deviation(finding: _Finding, follows: bool, point: bool, *, thorough: bool) -> Deviation:
    node = finding.node
    changes = [
        change
        for part in finding.parts
        for change in field_changes(part.golden, part.live, path=part.path, thorough=thorough)
    ]
    return Deviation(
        kind=finding.kind,
        golden=node.golden.span if node.golden else None,
        live=node.live.span if node.live else None,
        path=_path(node),
        changes=tuple(_readable_first(changes)[:MOST_CHANGES]),
        deviation_point=point,
        consequence=follows,
        failing=finding.kind is not DeviationKind.DURATION_CHANGED,
        note=_note(finding, len(changes)),
    )


def _readable_first(changes: list[FieldChange]) -> list[FieldChange]:
    """The message assembled from a stream before the stream's text, which says the same less readably."""
    return sorted(changes, key=lambda change: not change.path.startswith("response.body.message"))


def _note(finding: _Finding, changes: int) -> str:
    node = finding.node
    if finding.kind is DeviationKind.SPAN_MOVED and node.places:
        return f"place {node.places[0] + 1} among its siblings, now {node.places[1] + 1}"
    if (node.golden is None or node.live is None) and (below := node.either.size - 1):
        return f"and {below} span{'s' if below > 1 else ''} below it"
    return "more fields differ than are listed" if changes > MOST_CHANGES else ""


def _path(node: Node) -> tuple[str, ...]:
    names: list[str] = []
    step: Node | None = node
    while step is not None:
        names.append(step.either.span.name)
        step = step.parent
    return tuple(reversed(names))
