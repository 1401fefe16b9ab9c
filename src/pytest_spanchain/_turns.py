"""Turns: calls that were recorded side by side end in replay in the order in which they had ended.

What an agent does next may depend on who was ready first, and replay has everything ready at once. Calls that follow
each other keep their order by themselves, so only those of one crowd (``_model.CONCURRENT``) wait for one another.

Invariants:

* Nobody waits for a call that is over, runs for real, or is below one that is served.
* Nobody waits for long. Where nothing happens any more although somebody waits, the order cannot be repeated: a call
  was dropped, or a pool has fewer threads here. From then on nobody waits in this run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ._model import CONCURRENT, Span, SpanTree

QUIET_SECONDS = 0.3
"""Nothing happens any more if for so long no call begins or ends, and the process has hardly anything to do."""

_IDLE = 0.1
_MOST_AHEAD = 0.01


@dataclass(eq=False)
class _Crowd:
    """Recorded calls that were made side by side.

    Args:
        order: ids of their spans, as they ended.
        next: how many of them are over, from the first on without a gap.
        ended_ns: when the last one ended.
    """

    order: list[str] = field(default_factory=list)
    next: int = 0
    ended_ns: int = 0


class Turns:
    """Who of one replayed run is to end next; safe to use from any thread.

    Args:
        tree: the golden one.
    """

    def __init__(self, tree: SpanTree) -> None:
        self.given_up = False
        """Whether the recorded order could not be repeated."""
        self._lock = threading.Lock()
        self._crowds, self._ahead = _crowds(tree)
        self._over: set[str] = set()
        self._bells: dict[str, Callable[[], object]] = {}
        self._last = 0.0, 0
        self._events = 0
        self._watched = False

    def of(self, span: Span) -> Turn | None:
        """The turn of a recorded call that is being served; ``None`` if it waits for nobody."""
        self._events += 1
        if span.span_id not in self._crowds:
            return None
        return Turn(self, span.span_id, self._ahead.get(span.span_id, 0.0))

    def over(self, span: Span) -> None:
        """A recorded call was served to its end, or is not to be waited for."""
        self._events += 1
        if span.span_id not in self._crowds:
            return
        with self._lock:
            self._last = time.monotonic(), threading.get_ident()
            self._over.add(span.span_id)
            for crowd in self._crowds[span.span_id]:
                while crowd.next < len(crowd.order) and crowd.order[crowd.next] in self._over:
                    crowd.next += 1
            nexts = {crowd.order[crowd.next] for crowd in self._crowds[span.span_id] if crowd.next < len(crowd.order)}
            bells = [self._bells.pop(one) for one in nexts if one in self._bells and not self._waits(one)]
        for ring in bells:
            ring()

    def release(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._crowds = {}
            bells, self._bells = list(self._bells.values()), {}
        for ring in bells:
            ring()

    def wait(self, span_id: str, ring: Callable[[], object]) -> bool:
        """See ``Turn.waits``."""
        with self._lock:
            if not self._waits(span_id):
                return False
            self._bells[span_id] = ring
            starts, self._watched = not self._watched, True
        if starts:
            threading.Thread(target=self._watch, name="spanchain-turns", daemon=True).start()
        return True

    def rest(self, ahead: float) -> float:
        """See ``Turn.rest``."""
        ended, thread = self._last
        if thread in (0, threading.get_ident()):
            return 0.0
        return max(0.0, min(ahead, ended + ahead - time.monotonic()))  # also where a test stops the clock

    def _waits(self, span_id: str) -> bool:
        return any(
            crowd.next < len(crowd.order) and crowd.order[crowd.next] != span_id
            for crowd in self._crowds.get(span_id, ())
        )

    def _watch(self) -> None:
        """Release everybody when nothing happens any more; to the end of the waiting."""
        never = threading.Event()  # tests stop clocks, and patch ``sleep``
        while True:
            events, busy = self._events, time.process_time()
            never.wait(QUIET_SECONDS)
            with self._lock:
                if not self._bells:
                    self._watched = False
                    return
            if events == self._events and time.process_time() - busy < QUIET_SECONDS * _IDLE:
                self.given_up = True
                self.release()


@dataclass(frozen=True)
class Turn:
    """The turn of one call to end.

    Args:
        ahead: so many seconds another had ended before it; not more than are worth waiting for, 0 if it was the first.
    """

    _turns: Turns
    _span_id: str
    ahead: float

    def rest(self) -> float:
        """So many seconds are left to another thread, to go on with what it got last: nobody can see when it has."""
        return self._turns.rest(self.ahead)

    def waits(self, ring: Callable[[], object]) -> bool:
        """Whether another call is to end first; if so, ``ring`` is called, by any thread, when none is any more."""
        return self._turns.wait(self._span_id, ring)


def _crowds(tree: SpanTree) -> tuple[dict[str, list[_Crowd]], dict[str, float]]:
    """The crowds of each recorded call that is served as such, and the seconds between its end and the one before."""
    found: dict[str, list[_Crowd]] = {}
    ahead: dict[str, float] = {}
    if not any(CONCURRENT in span.attributes for span in tree):
        return found, ahead
    crowds: dict[tuple[str | None, object], _Crowd] = {}
    above: dict[str | None, list[_Crowd]] = {None: []}
    calls: list[Span] = []
    for span in tree:
        if span.parent_span_id not in above:
            continue  # below a call
        inside = above[span.parent_span_id]
        if CONCURRENT in span.attributes:
            key = span.parent_span_id, span.attributes[CONCURRENT]
            inside = [*inside, crowds.setdefault(key, _Crowd())]
        if span.exchange is None:
            above[span.span_id] = inside
        elif inside:
            found[span.span_id] = inside
            calls.append(span)
    for span in sorted(calls, key=lambda span: span.end_ns):
        for crowd in found[span.span_id]:
            if crowd.order:
                before = ahead.get(span.span_id, _MOST_AHEAD)
                ahead[span.span_id] = min(before, (span.end_ns - crowd.ended_ns) / 1e9)
            crowd.order.append(span.span_id)
            crowd.ended_ns = span.end_ns
    return found, ahead
