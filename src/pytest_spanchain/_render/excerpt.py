"""The part of two aligned trees that a reader needs: deviating spans, their ancestors, their neighbours.

Invariants:

* A span is on one line, with one mark: ``-`` removed, ``+`` added, ``>`` moved, ``~`` changed.
* What is left out is counted, and said to be unchanged only if it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .._compare.align import Node, align
from .._compare.likeness import Ignored
from .._model import Deviation, DeviationKind, SpanTree
from .terminal import Line

_MARKS = {DeviationKind.SPAN_REMOVED: "-", DeviationKind.SPAN_ADDED: "+", DeviationKind.SPAN_MOVED: ">"}

_DEEPEST_INDENT = 15

_NEIGHBOURS = 2


@dataclass
class _Places:
    """Spans by id, on either side, with everything above them."""

    golden: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)

    def hold(self, node: Node) -> bool:
        return bool(
            (node.golden and node.golden.span.span_id in self.golden)
            or (node.live and node.live.span.span_id in self.live)
        )


class Excerpt:
    """Draws excerpts of two trees.

    Args:
        deviations: all of them.
        golden: the recorded tree.
        live: the observed tree.
        ignored: attributes that the comparison left out; with others, the trees would be aligned in another way.
    """

    def __init__(self, deviations: Sequence[Deviation], *, golden: SpanTree, live: SpanTree, ignored: Ignored) -> None:
        self._trees = golden, live
        self._root = align(golden, live, ignored=ignored)
        self._at: dict[tuple[str, str], list[Deviation]] = defaultdict(list)
        for deviation in deviations:
            self._at[_key(deviation)].append(deviation)
        self._differing = self._places(deviations)
        self._children: dict[Node, list[Node]] = {}

    def fit(self, causes: Sequence[Deviation], *, most: int | None) -> tuple[list[Line], int]:
        """Draw ``causes`` on at most ``most`` lines.

        Returns:
            The lines, and how many of the causes they show: neighbours are left out first, causes last.
        """
        if most is None:
            return self.draw(causes, neighbours=_NEIGHBOURS), len(causes)
        for shown in dict.fromkeys(min(count, len(causes)) for count in (len(causes), 5, 4, 3, 2)):
            for neighbours in range(_NEIGHBOURS, -1, -1):
                # Each cause takes a line of its own at least.
                if shown <= most:
                    lines = self.draw(causes[:shown], neighbours=neighbours)
                    if len(lines) <= most:
                        return lines, shown
        lines = self.draw(causes[:1], neighbours=0)
        if len(lines) <= most:
            return lines, 1
        point = next((index for index, line in enumerate(lines) if line.style in "+-~>" and line.style), 0)
        last = max(point, most - 1)
        return [lines[0], Line("    … more levels …", "dim"), *lines[last - most + 3 : last + 1]], 1

    def draw(self, causes: Sequence[Deviation], *, neighbours: int) -> list[Line]:
        """Draw the deviating spans with everything above them and some unchanged siblings to either side."""
        needed = self._places(causes)
        lines: list[Line] = []
        todo: list[tuple[Node | Line, int]] = [(self._root, 0)] if self._root else []
        while todo:
            step, depth = todo.pop()
            if isinstance(step, Line):
                lines.append(step)
                continue
            inside = needed.hold(step) and step.golden is not None and step.live is not None
            below = [child for child in self._below(step) if inside]
            keep = _near([index for index, child in enumerate(below) if needed.hold(child)], neighbours, len(below))
            lines.append(self._line(step, depth, folded=0 if keep else step.either.size - 1))
            if keep:
                todo += reversed(self._listed(below, keep, depth + 1))
        return lines

    def _listed(self, nodes: list[Node], keep: set[int], depth: int) -> list[tuple[Node | Line, int]]:
        listed: list[tuple[Node | Line, int]] = []
        run: list[Node] = []
        for index, node in enumerate(nodes):
            if index not in keep:
                run.append(node)
            if run and (index in keep or index == len(nodes) - 1):
                alone = len(run) == 1 and run[0].either.size == 1
                listed.append((run[0] if alone else self._elided(run, depth), depth))
                run = []
            if index in keep:
                listed.append((node, depth))
        return listed

    def _elided(self, run: list[Node], depth: int) -> Line:
        count = sum(node.either.size for node in run)
        differing = sum(self._differing.hold(node) for node in run)
        text = f"{count} more spans, with differences in {differing}" if differing else f"{count} unchanged spans"
        return Line(f"  {_indent(depth)}… {text}", "dim")

    def _line(self, node: Node, depth: int, *, folded: int) -> Line:
        name = node.either.span.name
        if node.golden and node.live and node.parent and node.live.span.name != name:
            name = f"{name} → {node.live.span.name}"
        here = self._at.get(("g", node.golden.span.span_id), []) if node.golden else []
        # A user's hook may add a deviation that names the live span alone.
        here = here + (self._at.get(("l", node.live.span.span_id), []) if node.live else [])
        if not here:
            below = f"  (+{folded} below)" if folded else ""
            return Line(f"  {_indent(depth)}{name}", "", below)
        mark = next((_MARKS[d.kind] for d in here if d.kind in _MARKS), "~")
        words = ", ".join(dict.fromkeys(d.kind.value for d in here))
        notes = "; ".join(dict.fromkeys(d.note for d in here if d.note))
        tail = f"  {words}" + (f" ({notes})" if notes else "")
        if any(d.deviation_point for d in here):
            tail += "  ◀ deviation point"
        elif all(d.consequence for d in here):
            tail += "  (follows)"
        return Line(f"{mark} {_indent(depth)}{name}", mark if any(d.failing for d in here) else "dim", tail)

    def _below(self, node: Node) -> list[Node]:
        if node not in self._children:
            self._children[node] = node.children()
        return self._children[node]

    def _places(self, deviations: Sequence[Deviation]) -> _Places:
        places = _Places()
        for deviation in deviations:
            side, span_id = _key(deviation)
            tree, held = (self._trees[0], places.golden) if side == "g" else (self._trees[1], places.live)
            step: str | None = span_id
            while step is not None and step in tree.by_id and step not in held:
                held.add(step)
                step = tree.by_id[step].parent_span_id
        return places


def _key(deviation: Deviation) -> tuple[str, str]:
    if deviation.golden:
        return "g", deviation.golden.span_id
    assert deviation.live is not None, "a deviation has at least one side"
    return "l", deviation.live.span_id


def _near(needed: list[int], neighbours: int, count: int) -> set[int]:
    keep: set[int] = set()
    for index in needed:
        keep.update(range(max(0, index - neighbours), min(count, index + neighbours + 1)))
    return keep


def _indent(depth: int) -> str:
    return "  " * min(depth, _DEEPEST_INDENT)
