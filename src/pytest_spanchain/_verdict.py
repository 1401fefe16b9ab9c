"""What a run came to: plain data, for the doors to print and to count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ._model import Attempt, Deviation, SpanTree
from ._settings import RecordMode
from ._volatile import Substitution


@dataclass(frozen=True)
class Verdict:
    """What a run came to.

    Args:
        nodeid: node id of the test.
        path: the cassette.
        mode: record mode of the run.
        golden: the recorded tree as compared, ``None`` if there was none.
        live: the observed tree as compared.
        deviations: differences in causal order; of a re-recording they are what changed, and do not fail.
        attempts: refused attempts to leave the process.
        errors: what else fails the run, e.g. a value that cannot be recorded.
        notes: what the reader should know.
        substitutions: volatile values that differed and were not compared, each with the name of its span.
        replayed: whether recorded answers were served.
        recorded: whether a cassette was written.
        live_calls: exchanges that really happened, and attempts at it.
        aside: where the recording of a failing test was kept.
        ignored_attributes: names of attributes that the comparison left out.
    """

    nodeid: str
    path: Path
    mode: RecordMode
    golden: SpanTree | None
    live: SpanTree
    deviations: tuple[Deviation, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    substitutions: tuple[tuple[str, Substitution], ...] = ()
    replayed: bool = False
    recorded: bool = False
    live_calls: int = 0
    aside: Path | None = None
    ignored_attributes: frozenset[str] = frozenset()

    @property
    def compared(self) -> bool:
        """Whether the golden trace was the judge; not where the rest of it was recorded in this run."""
        return self.replayed and not (self.mode is RecordMode.NEW_EPISODES and self.live_calls)

    @property
    def spans_only(self) -> bool:
        """Whether nothing crossed a boundary; in a replay, in neither of the two runs."""
        return not any(span.exchange for tree in (self.live, self.golden or ()) for span in tree)

    @property
    def drifted(self) -> bool:
        """Whether the golden trace was the judge, and the live one differs in something that fails."""
        return self.compared and any(deviation.failing for deviation in self.deviations)

    @property
    def failing(self) -> bool:
        """Whether the test must fail."""
        return bool(self.drifted or self.attempts or self.errors)
