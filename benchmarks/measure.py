"""Fair turns, and rows of a table of ratios.

Whatever is compared takes turns in one process, or in processes started one after the other, so that what slows the
machine down slows all. Time is CPU time. The first turn of each is not counted.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        what: is measured.
        corpus: on which exchanges, and how many.
        against: what it is compared with.
        ours: median of our turns, in milliseconds (or bytes).
        theirs: median of the others'; ``None`` if they refuse to do it.
        ratio: median of the ratios within a round; ``None``, too, then.
        low: first quartile of these.
        high: third quartile.
        target: what the ratio should be at most; ``None`` if nothing is aimed at.
        instead: why there is no ratio.
    """

    what: str
    corpus: str
    against: str
    ours: float
    theirs: float | None
    ratio: float | None
    low: float | None
    high: float | None
    target: float | None = None
    instead: str = ""


def row(
    what: str,
    corpus: str,
    against: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    target: float | None = None,
) -> Row:
    """A row of the turns of both, round by round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    return Row(what, corpus, against, median(ours), median(theirs), median(ratios), low, high, target)


def without(what: str, corpus: str, against: str, ours: Sequence[float], *, instead: str) -> Row:
    """A row of what the other side does not do, and why."""
    return Row(what, corpus, against, median(ours), None, None, None, None, instead=instead)


def in_turns(sides: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU of each side, round by round."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, turn in sides.items():
            gc.collect()
            start = time.process_time()
            turn()
            spent = time.process_time() - start
            if number:
                taken[name].append(1e3 * spent)
    return taken
