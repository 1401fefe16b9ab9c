"""The golden trace's judgement of a run: both trees made comparable, compared, and the user's hook heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._compare import compare
from ._model import Cassette, Deviation, SpanTree
from ._normalise import Normaliser, without_scopes

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
        if self._hook is not None:
            deviations = self._hook(deviations)
        return Judgement(golden, live, deviations, left_out=tuple(sorted(one_sided)))
