"""Which golden span answers to which live span, level by level from the roots down.

Invariants:

* Every span of both trees is in exactly one node; a node without ``golden`` was added, without ``live`` removed.
* Golden siblings that overlapped in time form a group, and order within a group never counts.
* The number of moved siblings is the least that explains the new order of the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._model import CONCURRENT, SpanTree
from .likeness import Ignored, Member, Printer
from .pairing import pair, unmoved


@dataclass(eq=False)
class Node:
    """A golden span and the live span that answers to it.

    Args:
        golden: the recorded side, ``None`` if added.
        live: the observed side, ``None`` if removed.
        parent: the node above, ``None`` for the root.
        places: for a moved pair, its 0-based places among its golden and its live siblings.
    """

    golden: Member | None
    live: Member | None
    parent: Node | None = None
    places: tuple[int, int] | None = None

    @property
    def equal(self) -> bool:
        """Whether nothing below or in this pair deviates."""
        return bool(self.golden and self.live and self.golden.full == self.live.full)

    @property
    def either(self) -> Member:
        """The golden side if there is one, else the live side."""
        found = self.golden or self.live
        assert found is not None, "a node has at least one side"
        return found

    def children(self) -> list[Node]:
        """Nodes below in the order of their causes: golden order, what was added where it came in."""
        if self.golden is None or self.live is None:
            return [
                Node(child, None, self) if self.live is None else Node(None, child, self)
                for child in self.either.children
            ]
        if self.equal:
            both = zip(self.golden.children, self.live.children, strict=True)
            return [Node(golden, live, self) for golden, live in both]
        return _nodes(self, self.golden.children, self.live.children)


def align(golden: SpanTree, live: SpanTree, *, ignored: Ignored) -> Node | None:
    """Align two trees; ``None`` if both are empty. The roots are paired whatever their names."""
    printer = Printer(ignored)
    sides = printer.members(golden), printer.members(live)
    return Node(*sides) if any(sides) else None


def groups(siblings: Sequence[Member]) -> list[int]:
    """Number the groups of concurrent siblings; in order, one number per sibling.

    Concurrent are siblings that overlapped in time, and neighbours that the recorder marked as concurrent: threads
    that happened to run one after the other when they were recorded. The mark is the number of a crowd; two crowds, one
    after the other, are two groups.
    """
    ranks: list[int] = []
    rank, busy_until, crowd = -1, -1, None
    for member in siblings:
        beside = member.span.attributes.get(CONCURRENT)
        if member.span.start_ns >= busy_until and (beside is None or beside != crowd):
            rank += 1
        busy_until = max(busy_until, member.span.end_ns)
        crowd = beside
        ranks.append(rank)
    return ranks


def _nodes(parent: Node, golden: list[Member], live: list[Member]) -> list[Node]:
    ranks = groups(golden)
    pairs = pair(golden, live, ranks)
    still = unmoved(pairs, ranks)
    golden_at = {j: i for i, j in pairs.items()}
    # A live place is told in golden places: just before the next pair that kept its order.
    slots: list[tuple[int, int, int]] = []
    following = len(golden)
    for j in range(len(live) - 1, -1, -1):
        if (i := golden_at.get(j)) is not None and i in still:
            following = i
        slots.append((following, 0, j))
    slots.reverse()
    reached = -1
    for j, member in enumerate(live):
        if (i := golden_at.get(j)) is not None and i in still:
            reached = i
        elif member.span.exchange and member.span.exchange.response is None:
            # A miss: what was to follow did not because of it, so it is told before what is gone.
            slots[j] = (reached, 2, j)
    placed: list[tuple[tuple[int, int, int], Node]] = []
    for i, member in enumerate(golden):
        if i not in pairs:
            placed.append(((i, 1, 0), Node(member, None, parent)))
        elif i in still:
            placed.append(((i, 1, 0), Node(member, live[pairs[i]], parent)))
        else:
            places = (i, pairs[i])
            placed.append((min((i, 1, 0), slots[pairs[i]]), Node(member, live[pairs[i]], parent, places)))
    placed += [(slots[j], Node(None, member, parent)) for j, member in enumerate(live) if j not in golden_at]
    return [node for _, node in sorted(placed, key=lambda item: item[0])]
