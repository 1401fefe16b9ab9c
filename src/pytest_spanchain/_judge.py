"""The golden trace's judgement of a run: both trees made comparable, compared, and the user's hook heard.

Invariant: where there is a difference to report, neither tree holds what a cassette may not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ._compare import compare
from ._model import Cassette, Deviation, Span, SpanTree
from ._normalise import Normaliser, without_scopes
from ._redact.printable import printable

DeviationHook = Callable[[tuple[Deviation, ...]], tuple[Deviation, ...]]


@dataclass(frozen=True)
class Judgement:
    """What the comparison came to.

    Args:
        golden: the recorded tree as compared; ``None`` if there was none.
        live: the observed tree as compared.
        deviations: in causal order.
        left_out: instrumentation scopes that only one of the two runs had; their spans were not compared.
    """

    golden: SpanTree | None
    live: SpanTree
    deviations: tuple[Deviation, ...] = ()
    left_out: tuple[str, ...] = ()


class Judge:
    """Compares what one run does with its cassette.

    Args:
        cassette: the golden trace; ``None``: nothing to compare with.
        normaliser: of the run's requests.
        ignored_attributes: names of attributes that the user does not want to be compared.
        hook: vetoes, adds or re-grades deviations.
    """

    def __init__(
        self,
        cassette: Cassette | None,
        *,
        normaliser: Normaliser,
        ignored_attributes: frozenset[str],
        hook: DeviationHook | None,
    ) -> None:
        self._cassette = cassette
        self._normaliser = normaliser
        self._ignored = ignored_attributes
        self._hook = hook

    def judge(self, observed: SpanTree, *, scopes: frozenset[str]) -> Judgement:
        """Compare a tree, observed while the instrumentation ``scopes`` were active, with the golden one."""
        if self._cassette is None:
            return Judgement(None, observed)
        one_sided = frozenset(self._cassette.header.recorder.get("scopes", ())) ^ scopes
        golden = self._normaliser.tree(without_scopes(self._cassette.tree, one_sided))
        live = self._normaliser.tree(without_scopes(observed, one_sided))
        deviations = compare(golden, live, ignored_attributes=self._ignored)
        if deviations and (shown := _printable(live)) is not live:
            live, deviations = shown, compare(golden, shown, ignored_attributes=self._ignored)
        if self._hook is not None:
            deviations = self._hook(deviations)
        return Judgement(golden, live, deviations, left_out=tuple(sorted(one_sided)))


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
