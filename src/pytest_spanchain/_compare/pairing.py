"""Which golden sibling answers to which live one: from the exactly alike to the merely called alike.

Invariants:

* Each sibling is in one pair at most; order within a group (siblings of one rank) is worth nothing.
* Equal subtrees are paired before changed ones, and equal ones at their place before equal ones elsewhere.
* No step is quadratic in the number of siblings: the costly ones run on small gaps only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from .likeness import Member, likeness, renamed
from .sequence import common, longest_rise

_SMALL = 2_500
"""Pairs (golden times live) up to which a gap is weighed pair by pair."""

Pairs = dict[int, int]
"""Golden index to live index."""

_Key = Callable[[Member], Any]

_FULL: _Key = attrgetter("full")
_DEEP: _Key = attrgetter("deep")
_OWN: _Key = attrgetter("own")
_WEAK: _Key = attrgetter("weak")
_LOOSE: _Key = attrgetter("loose")


def pair(golden: list[Member], live: list[Member], ranks: list[int]) -> Pairs:
    """Pair siblings from the most alike to the least."""
    names = {member.weak for member in golden}
    for member in live:
        member.known = member.weak in names
    head = _shared_head(golden, live)
    tail = _shared_head(golden[head:][::-1], live[head:][::-1])
    end, live_end = len(golden) - tail, len(live) - tail
    pairs = {i: i for i in range(head)} | {end + k: live_end + k for k in range(tail)}
    order = _as_lived(range(head, end), range(head, live_end), golden, live, ranks)
    found = common([golden[i].deep for i in order], [member.deep for member in live[head:live_end]])
    pairs |= {order[a]: head + b for a, b in found}
    _pair_in_place(golden, live, pairs, ranks)
    _pair_anywhere(golden, live, pairs, key=_FULL)
    _pair_anywhere(golden, live, pairs, key=_DEEP)
    _pair_gaps(golden, live, pairs, ranks)
    _pair_in_groups(golden, live, pairs, ranks)
    _pair_anywhere(golden, live, pairs, key=_asked)
    _regroup(golden, live, pairs, ranks)
    return pairs


def _as_lived(
    here: Sequence[int], there: Sequence[int], golden: list[Member], live: list[Member], ranks: list[int]
) -> list[int]:
    """Golden indices with each group in the order in which it was lived, the n-th of a key taken for the n-th."""
    waiting: dict[int, list[int]] = defaultdict(list)
    for j in reversed(there):
        waiting[live[j].deep].append(j)
    expected = {i: waiting[golden[i].deep].pop() if waiting[golden[i].deep] else len(live) for i in here}
    return sorted(here, key=lambda i: (ranks[i], expected[i]))


def _pair_in_place(golden: list[Member], live: list[Member], pairs: Pairs, ranks: list[int]) -> None:
    """Pair what is left of concurrent groups with its like where the group was lived: it has not moved."""
    sizes = Counter(ranks)
    taken = set(pairs.values())
    free: dict[int, list[int]] = defaultdict(list)
    for j, member in enumerate(live):
        if j not in taken:
            free[member.deep].append(j)
    left = [i for i in range(len(golden)) if i not in pairs and sizes[ranks[i]] > 1 and free.get(golden[i].deep)]
    ranges = _ranges(pairs, ranks, len(live)) if left else []
    for i in left:
        there = free[golden[i].deep]
        start, stop = ranges[ranks[i]]
        at = bisect_left(there, start)
        if at < len(there) and there[at] < stop:
            pairs[i] = there.pop(at)


def _shared_head(golden: Sequence[Member], live: Sequence[Member]) -> int:
    count = 0
    for one, other in zip(golden, live, strict=False):
        if one.full != other.full:
            break
        count += 1
    return count


def _pair_anywhere(golden: list[Member], live: list[Member], pairs: Pairs, *, key: _Key) -> None:
    """Pair what is left and has equal keys, wherever it stands; it will count as moved if out of order."""
    taken = set(pairs.values())
    waiting: dict[Any, list[int]] = defaultdict(list)
    for j in range(len(live) - 1, -1, -1):
        if j not in taken and (found := key(live[j])) is not None:
            waiting[found].append(j)
    for i, member in enumerate(golden):
        if i not in pairs and (there := waiting.get(key(member))):
            pairs[i] = there.pop()


def _asked(member: Member) -> int | None:
    """An exchange that asks the same, though other things happen below it."""
    return member.own if member.span.exchange else None


def unmoved(pairs: Pairs, ranks: Sequence[int]) -> set[int]:
    """Golden indices of a largest set of pairs whose groups come in golden order."""
    ordered = sorted(pairs, key=lambda i: pairs[i])
    return {ordered[k] for k in longest_rise([ranks[i] for i in ordered])}


def _ranges(pairs: Pairs, ranks: Sequence[int], live_count: int) -> list[tuple[int, int]]:
    """For each rank, the live places (from, to) that lie between the neighbouring ranks' pairs."""
    count = ranks[-1] + 1 if ranks else 0
    low, high = [-1] * count, [live_count] * count
    for i in unmoved(pairs, ranks):
        low[ranks[i]] = max(low[ranks[i]], pairs[i])
        high[ranks[i]] = min(high[ranks[i]], pairs[i])
    found: list[tuple[int, int]] = []
    reached = -1
    for rank in range(count):
        found.append((reached + 1, live_count))
        reached = max(reached, low[rank])
    reached = live_count
    for rank in range(count - 1, -1, -1):
        found[rank] = (found[rank][0], reached)
        reached = min(reached, high[rank])
    return found


def _pair_gaps(golden: list[Member], live: list[Member], pairs: Pairs, ranks: list[int]) -> None:
    """Pair runs of unpaired golden siblings with the unpaired live ones at the same place."""
    ranges = _ranges(pairs, ranks, len(live))
    left: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in range(len(golden)):
        if i not in pairs:
            left[ranges[ranks[i]]].append(i)
    taken = set(pairs.values())
    # Ranges of groups overlap those of their neighbours: the narrow ones choose first.
    for (start, stop), here in sorted(left.items(), key=lambda item: (item[0][1] - item[0][0], item[0])):
        there = [j for j in range(start, stop) if j not in taken]
        if there:
            found = _pair_gap(golden, live, here, there)
            pairs |= found
            taken.update(found.values())


def _pair_gap(golden: list[Member], live: list[Member], here: list[int], there: list[int]) -> Pairs:
    """Pair in order within one gap: by weight if it is small, else by ever looser keys."""
    if len(here) * len(there) <= _SMALL:
        return _weigh(golden, live, here, there)
    for key in (_OWN, _WEAK, _LOOSE):
        found = common([key(golden[i]) for i in here], [key(live[j]) for j in there])
        if found:
            break
    else:
        return {}
    pairs: Pairs = {}
    last_a = last_b = 0
    for a, b in [*found, (len(here), len(there))]:
        if a > last_a and b > last_b:
            pairs |= _pair_gap(golden, live, here[last_a:a], there[last_b:b])
        if a < len(here):
            pairs[here[a]] = there[b]
        last_a, last_b = a + 1, b + 1
    return pairs


def _weight(golden: Member, live: Member) -> float:
    """As many pairs of one name as can be, then the most alike; two new names count less than one kept."""
    if golden.weak == live.weak:
        return 2 + likeness(golden, live)
    return 0.5 + 0.4 * likeness(golden, live) if renamed(golden, live) else 0.0


def _weigh(golden: list[Member], live: list[Member], here: list[int], there: list[int]) -> Pairs:
    rows, columns = len(here), len(there)
    weights = [[_weight(golden[i], live[j]) for j in there] for i in here]
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for a in range(rows - 1, -1, -1):
        for b in range(columns - 1, -1, -1):
            paired = weights[a][b] + best[a + 1][b + 1] if weights[a][b] else 0.0
            best[a][b] = max(paired, best[a + 1][b], best[a][b + 1])
    pairs: Pairs = {}
    a = b = 0
    while a < rows and b < columns:
        if weights[a][b] and best[a][b] == weights[a][b] + best[a + 1][b + 1]:
            pairs[here[a]] = there[b]
            a, b = a + 1, b + 1
        elif best[a][b] == best[a + 1][b]:
            a += 1
        else:
            b += 1
    return pairs


def _pair_in_groups(golden: list[Member], live: list[Member], pairs: Pairs, ranks: list[int]) -> None:
    """Pair what is left of concurrent groups, in any order, the most alike first."""
    sizes = Counter(ranks)
    left = [i for i in range(len(golden)) if i not in pairs and sizes[ranks[i]] > 1]
    taken = set(pairs.values())
    free = [j for j in range(len(live)) if j not in taken]
    if not left or not free:
        return
    ranges = _ranges(pairs, ranks, len(live))
    pairs |= _greedy(golden, live, [(i, j) for i, j in _near(left, free) if _within(j, ranges[ranks[i]])])


def _near(left: list[int], free: list[int]) -> list[tuple[int, int]]:
    if len(left) * len(free) <= _SMALL:
        return [(i, j) for i in left for j in free]
    return list(zip(left, free, strict=False))


def _within(place: int, between: tuple[int, int]) -> bool:
    return between[0] <= place < between[1]


def _greedy(golden: list[Member], live: list[Member], candidates: list[tuple[int, int]]) -> Pairs:
    weighed = [(-_weight(golden[i], live[j]), i, j) for i, j in candidates]
    pairs: Pairs = {}
    taken: set[int] = set()
    for weight, i, j in sorted(weighed):
        if weight and i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return pairs


def _regroup(golden: list[Member], live: list[Member], pairs: Pairs, ranks: list[int]) -> None:
    """Within a group, deal the partners of one name again: equal ones first, then the most alike."""
    hands: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, j in pairs.items():
        if golden[i].full != live[j].full and golden[i].weak == live[j].weak:
            hands[ranks[i], golden[i].weak].append(i)
    for hand in hands.values():
        if len(hand) > 1:
            pairs |= _deal(golden, live, sorted(hand), sorted(pairs[i] for i in hand))


def _deal(golden: list[Member], live: list[Member], here: list[int], there: list[int]) -> Pairs:
    dealt: Pairs = {}
    for key in (_FULL, _DEEP, _OWN):
        found: Pairs = {}
        _pair_anywhere([golden[i] for i in here], [live[j] for j in there], found, key=key)
        dealt |= {here[a]: there[b] for a, b in found.items()}
        here, there = _rest(here, there, dealt)
    dealt |= _greedy(golden, live, _near(here, there))
    return dealt | dict(zip(*_rest(here, there, dealt), strict=True))


def _rest(here: list[int], there: list[int], dealt: Pairs) -> tuple[list[int], list[int]]:
    taken = set(dealt.values())
    return [i for i in here if i not in dealt], [j for j in there if j not in taken]
