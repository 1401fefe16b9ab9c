"""The golden trace's judgement of a run: both trees made comparable, compared, and the user's hook heard.

Invariant: where there is a difference to report, neither tree holds what a cassette may not hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ._canonical import canonical
from ._compare import compare, pairs
from ._model import ANSWERED_LIVE, Cassette, Deviation, Span, SpanTree
from ._normalise import Normaliser, without_scopes
from ._redact.printable import printable
from ._volatile import Drawn, Substitution, Volatile, coarse

DeviationHook = Callable[[tuple[Deviation, ...]], tuple[Deviation, ...]]


@dataclass(frozen=True)
class Judgement:
    """What the comparison came to.

    Args:
        golden: the recorded tree as compared; ``None`` if there was none.
        live: the observed tree as compared.
        deviations: in causal order.
        substitutions: recorded volatile values that stand in for live ones, each with the name of its span.
        left_out: instrumentation scopes that only one of the two runs had; their spans were not compared.
    """

    golden: SpanTree | None
    live: SpanTree
    deviations: tuple[Deviation, ...] = ()
    left_out: tuple[str, ...] = ()
    substitutions: tuple[tuple[str, Substitution], ...] = ()


class Judge:
    """Compares what one run does with its cassette.

    Args:
        cassette: the golden trace; ``None``: nothing to compare with.
        normaliser: of the run's requests.
        volatile: translates what the run's own context supplied.
        ignored_attributes: names of attributes that the user does not want to be compared.
        hook: vetoes, adds or re-grades deviations.
        served: whether answers are the recorded ones; if not, both runs were answered for real, and what servers draw
            anew for each answer is translated, too.
    """

    def __init__(
        self,
        cassette: Cassette | None,
        *,
        normaliser: Normaliser,
        volatile: Volatile,
        ignored_attributes: frozenset[str],
        hook: DeviationHook | None,
        served: bool = True,
    ) -> None:
        self._cassette = cassette
        self._normaliser = normaliser
        self._volatile = volatile
        self._ignored = ignored_attributes
        self._hook = hook
        self._served = served

    def judge(self, observed: SpanTree, *, scopes: frozenset[str], durations: bool = False) -> Judgement:
        """Compare a tree with the golden one.

        Args:
            observed: the tree.
            scopes: instrumentation that was active meanwhile.
            durations: whether to tell durations, too.
        """
        if self._cassette is None:
            return Judgement(None, observed)
        one_sided = frozenset(self._cassette.header.recorder.get("scopes", ())) ^ scopes
        golden = self._normaliser.tree(without_scopes(self._cassette.tree, one_sided))
        made: list[tuple[str, Substitution]] = []
        live = self._normaliser.tree(self._translated(golden, without_scopes(observed, one_sided), made))
        deviations = compare(golden, live, ignored_attributes=self._ignored, durations=durations)
        if deviations and (shown := _printable(live)) is not live:
            live, deviations = shown, compare(golden, shown, ignored_attributes=self._ignored, durations=durations)
        if self._hook is not None:
            deviations = self._hook(deviations)
        return Judgement(golden, live, deviations, left_out=tuple(sorted(one_sided)), substitutions=tuple(made))

    def _translated(self, golden: SpanTree, live: SpanTree, made: list[tuple[str, Substitution]]) -> SpanTree:
        """The live tree with recorded volatile values in it, span by span of one place.

        What was served is translated already; this is for what spans say beside, and for runs that serve nothing.
        """
        volatile = self._volatile.fork()
        if self._served:
            counterparts = _counterparts(golden, live)
            return SpanTree(tuple(_translated(counterparts.get(span.span_id), span, volatile, made) for span in live))
        return self._answered(golden, live, volatile, made)

    def _answered(
        self, golden: SpanTree, live: SpanTree, volatile: Volatile, made: list[tuple[str, Substitution]]
    ) -> SpanTree:
        """The live tree, translated span by span in the order in which answers may have given later ones their ids.

        That is the order in which they began, and where agents run side by side it is not the one of the tree.
        """
        lived = pairs(golden, live, ignored_attributes=self._ignored)  # as the comparison will see it
        counterparts, drawn = {other.span_id: one for one, other in lived}, Drawn()
        answered: dict[str, Span] = {}
        for span in sorted(live, key=lambda one: one.start_ns):
            twin = counterparts.get(span.span_id)
            if twin is None:
                answered[span.span_id] = span
                continue
            followed = _translated(twin, _saying(span, drawn.follow(_said(span))), volatile, made)
            answered[span.span_id] = _with_answer(twin, followed, span, drawn, volatile, made)
            made.extend((span.name, one) for one in drawn.made)
            drawn.made.clear()
        return SpanTree(tuple(answered[span.span_id] for span in live))


def _with_answer(
    golden: Span,
    live: Span,
    observed: Span,
    drawn: Drawn,
    volatile: Volatile,
    made: list[tuple[str, Substitution]],
) -> Span:
    """A live span whose answer says what it would have said with what was drawn and supplied for the recorded one."""
    one, other = golden.exchange, live.exchange
    if one is None or other is None or one.response is None or other.response is None or one.kind != other.kind:
        return live
    response = other.response
    if other.kind == "model" and observed.exchange is not None:
        response = drawn.answer(one.response, response, sent=canonical(observed.exchange.request).decode())
    translated = volatile.claim(one.response, drawn.follow(response))
    made.extend((live.name, replace(found, path=f"response.{found.path}")) for found in translated.made)
    return replace(live, exchange=replace(other, response=translated.value))


def _counterparts(golden: SpanTree, live: SpanTree) -> dict[str, Span]:
    """The golden span of each live one's place, by its id.

    Ids tell of names, and names may hold volatile values, too: of what is left, order and the rest of the name tell.
    """
    found = {span.span_id: golden.by_id[span.span_id] for span in live if span.span_id in golden.by_id}
    if len(found) == len(live.spans):
        return found
    left: dict[tuple[str | None, str], deque[Span]] = {}
    for span in golden:
        if span.span_id not in found:
            left.setdefault((span.parent_span_id, coarse(span.name, known={})), deque()).append(span)
    for span in live:
        parent = found.get(span.parent_span_id or "")
        if span.span_id not in found and parent is not None:
            candidates = left.get((parent.span_id, coarse(span.name, known={})))
            if candidates:
                found[span.span_id] = candidates.popleft()
    return found


def _translated(golden: Span | None, live: Span, volatile: Volatile, made: list[tuple[str, Substitution]]) -> Span:
    if golden is None:
        return live
    said, says = _said(golden), _said(live)
    if said == says:
        return live
    translated = volatile.claim(said, says)
    made.extend((live.name, one) for one in translated.made)
    return _saying(live, translated.value)


def _saying(span: Span, says: dict[str, Any]) -> Span:
    """The span, saying something else; see ``_said``."""
    exchange = span.exchange
    if exchange is not None:
        response = says["result"] if exchange.kind in ANSWERED_LIVE else exchange.response
        exchange = replace(exchange, request=says["request"], response=response)
    return replace(
        span,
        name=says["name"],
        attributes=says["attributes"],
        events=tuple({**event, **said} for event, said in zip(span.events, says["events"], strict=True)),
        status_message=says["status_message"],
        exchange=exchange,
    )


def _said(span: Span) -> dict[str, Any]:
    """What of a span its own run's context may have supplied; of an exchange, what went out.

    Of a tool or a callback also what came back: where its body ran, it was made here.
    """
    return {
        "name": span.name,
        "attributes": span.attributes,
        "events": [{key: value for key, value in event.items() if key != "offset_ns"} for event in span.events],
        "status_message": span.status_message,
        "request": span.exchange.request if span.exchange else None,
        "result": span.exchange.response if span.exchange and span.exchange.kind in ANSWERED_LIVE else None,
    }


def _printable(tree: SpanTree) -> SpanTree:
    """The tree as it may stand in a report; the same one if all of it may. Nothing golden needs this."""
    spans = [_printable_span(span) for span in tree]
    return tree if all(new is old for new, old in zip(spans, tree, strict=True)) else SpanTree(tuple(spans))


def _printable_span(span: Span) -> Span:
    request, response = (span.exchange.request, span.exchange.response) if span.exchange else (None, None)
    parts = (span.name, span.attributes, span.events, span.status_message, request, response)
    shown = tuple(map(printable, parts))
    if all(new is old for new, old in zip(shown, parts, strict=True)):
        return span
    name, attributes, events, message, request, response = shown
    exchange = replace(span.exchange, request=request, response=response) if span.exchange else None
    return replace(span, name=name, attributes=attributes, events=events, status_message=message, exchange=exchange)
