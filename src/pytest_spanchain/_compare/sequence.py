"""Sequences of keys: what two have in common, and what of one is in order.

Both are of the order n log n: where keys repeat a lot, the common subsequence is near the longest, not surely it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

_MATCHES = 200_000
"""Equal pairs up to which the common subsequence is exact."""

_WINDOW = 8
"""Places to either side in which an equal key is looked for when there are more than ``_MATCHES``."""


def longest_rise(values: Sequence[int]) -> list[int]:
    """Indices of a longest non-decreasing subsequence."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        at = bisect_right(tails, value)
        before.append(ends[at - 1] if at else -1)
        tails[at : at + 1] = [value]
        ends[at : at + 1] = [index]
    found: list[int] = []
    last = ends[-1] if ends else -1
    while last >= 0:
        found.append(last)
        last = before[last]
    return found[::-1]


def common(golden: Sequence[int], live: Sequence[int]) -> list[tuple[int, int]]:
    """Longest common subsequence as index pairs (Hunt and Szymanski, 1977); near it where keys repeat a lot."""
    where: dict[int, list[int]] = defaultdict(list)
    for j, key in enumerate(live):
        where[key].append(j)
    often = Counter(golden)
    crowded = sum(count * len(where.get(key, ())) for key, count in often.items()) > _MATCHES
    seen: Counter[int] = Counter()
    tails: list[int] = []
    chains: list[tuple[int, int, Any]] = []
    for i, key in enumerate(golden):
        places = where.get(key, [])
        if crowded and len(places) > 4 * _WINDOW:
            places = _window(places, seen[key], len(places) - often[key])
        seen[key] += 1
        for j in reversed(places):
            at = bisect_left(tails, j)
            if at < len(tails) and tails[at] == j:
                continue
            chain = (i, j, chains[at - 1] if at else None)
            tails[at : at + 1] = [j]
            chains[at : at + 1] = [chain]
    found: list[tuple[int, int]] = []
    link: Any = chains[-1] if chains else None
    while link is not None:
        i, j, link = link
        found.append((i, j))
    return found[::-1]


def _window(places: list[int], ordinal: int, surplus: int) -> list[int]:
    """The places around the same ordinal counted from the front, and around the same counted from the back."""
    near: set[int] = set()
    for middle in (ordinal, ordinal + surplus):
        near.update(range(max(0, middle - _WINDOW), min(len(places), middle + _WINDOW + 1)))
    return [places[k] for k in sorted(near)]
