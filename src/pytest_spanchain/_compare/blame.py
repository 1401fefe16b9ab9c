"""Which deviations are causes and which follow from one.

Invariants:

* A root branch is one span without exchange right under the run's root with everything below it; all exchanges right
  under the root, with the root itself, are one more: the test's own flow. So are the spans that clients' libraries put
  around a single call, which are no agents.
* A deviation follows from an earlier cause of its branch unless the two ran at the same time: seen from their nearest
  common ancestor, the children that hold them overlapped. What holds or is held by a cause follows from it.
* Times are compared on one clock only: the golden one, or the live one where a side is added.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .._model import Span
from .align import Node
from .likeness import Member

FLOW = 0
"""Branch of the test's own flow; other branches go by the identity of their top node."""


@dataclass
class _Clock:
    """Earliest end and latest start of the spans noted; enough to know whether one of them lies apart."""

    earliest_end: int | None = None
    latest_start: int = 0

    def note(self, span: Span) -> None:
        if self.earliest_end is None:
            self.earliest_end, self.latest_start = span.end_ns, span.start_ns
        self.earliest_end = min(self.earliest_end, span.end_ns)
        self.latest_start = max(self.latest_start, span.start_ns)

    def apart(self, span: Span) -> bool:
        if self.earliest_end is None:
            return False
        return self.earliest_end <= span.start_ns or self.latest_start >= span.end_ns


@dataclass
class _Holders:
    """The children of one parent that hold a cause."""

    golden: _Clock = field(default_factory=_Clock)
    live: _Clock = field(default_factory=_Clock)
    added: _Clock = field(default_factory=_Clock)
    removed: bool = False

    def note(self, node: Node) -> None:
        if node.golden:
            self.golden.note(node.golden.span)
        else:
            self.added.note(node.either.span)
        if node.live:
            self.live.note(node.live.span)
        else:
            self.removed = True

    def apart(self, node: Node) -> bool:
        """Tell whether one of them did not run at the same time; without a common clock it did not."""
        if node.golden and node.live:
            return self.golden.apart(node.golden.span) or self.added.apart(node.live.span)
        if node.golden:
            return self.golden.apart(node.golden.span) or self.added.earliest_end is not None
        return self.removed or self.live.apart(node.either.span)


class Blame:
    """Takes deviating nodes in causal order and says of each whether it is a cause."""

    def __init__(self) -> None:
        self._causes: set[Node] = set()
        self._holding: set[Node] = set()
        self._holders: dict[Node, _Holders] = {}
        self._branches: set[int] = set()

    def judge(self, node: Node) -> tuple[bool, bool]:
        """Return whether the next deviation, at ``node``, is a consequence and whether it is a deviation point."""
        branch = branch_of(node)
        if self._follows(node, branch):
            return True, False
        self._causes.add(node)
        step: Node | None = node
        while step is not None:
            self._holding.add(step)
            if step.parent is not None and not _is_top_of_agent(step):
                self._holders.setdefault(step.parent, _Holders()).note(step)
            step = step.parent
        first = branch not in self._branches
        self._branches.add(branch)
        return False, first

    def _follows(self, node: Node, branch: int) -> bool:
        if node in self._holding:
            return True
        step = node
        while step.parent is not None and not _is_top_of_agent(step):
            if step.parent in self._causes:
                return True
            holders = self._holders.get(step.parent)
            if holders and holders.apart(step):
                return True
            step = step.parent
        return False


def branch_of(node: Node) -> int:
    """Return the root branch of a node."""
    while node.parent is not None and node.parent.parent is not None:
        node = node.parent
    return id(node) if _is_top_of_agent(node) else FLOW


def _is_top_of_agent(node: Node) -> bool:
    is_top = node.parent is not None and node.parent.parent is None
    return is_top and not _is_one_call(node.either)


def _is_one_call(member: Member) -> bool:
    while member.span.exchange is None:
        is_agent = member.span.attributes.get("gen_ai.operation.name") == "invoke_agent"
        if len(member.children) != 1 or member.span.span_kind != "client" or is_agent:
            return False
        member = member.children[0]
    return True
