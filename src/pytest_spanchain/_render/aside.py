"""What was not compared, counted: what the runs' own contexts supplied, and what servers drew for their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .._volatile import DRAWN


def aside(kinds: Iterable[str]) -> list[str]:
    """Sentences that count substitutions.

    Args:
        kinds: the kind of each.
    """
    counts = Counter(kinds)
    supplied = [f"{count} {kind}" for kind, count in sorted(counts.items()) if kind not in DRAWN]
    drawn = [f"{counts[kind]} {kind}" for kind in DRAWN if kind in counts]
    said = []
    if supplied:
        said.append(f"not compared, supplied by the runs' own contexts: {', '.join(supplied)}")
    if drawn:
        said.append(f"not compared, given anew with each answer: {', '.join(drawn)}")
    return said
