"""When served calls end: those that were recorded side by side end in replay in the order in which they had ended.

What an agent does next may depend on who was ready first, and replay has everything ready at once. Calls that follow
each other keep their order by themselves, so only those of one crowd (``_model.CONCURRENT``) wait for one another.

Invariants:

* A call of a crowd ends after all that had ended before it, and all that had begun. One outside of crowds ends after
  those in flight that had ended before it. Nobody waits for a call that runs for real, or is below one that is served.
* Nobody waits for long. Where nothing happens any more although somebody waits, the order cannot be repeated: a call
  was dropped, or a pool has fewer threads here. Then whoever waits first goes on, and the others keep their order.
* Nobody is rung under our lock, which the collector may ask for in its own thread: it closes generators that were
  served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ._model import CONCURRENT, Span, SpanTree

QUIET_SECONDS = 0.3
"""If for so long no call begins or ends, and the process has hardly anything to do, nothing happens any more."""

_IDLE = 0.1
"""Share of one processor below which it has hardly anything to do."""
_MOST_PAUSE = 1.0
"""Seconds that an agent's own pause before a call, as it was recorded, is waited for besides."""
_MOST_QUIET = 5
"""So many times ``QUIET_SECONDS`` are waited where the process is busy, or who is waited for has begun."""
_MOST_STALLS = 2
"""After so many, a crowd is let go: a pool that is too small would stall at each of its calls."""
_MOST_AHEAD = 0.02
"""Seconds that are left to other threads before an end; see ``Ends.rest``."""
_MOST_REST = 0.5
"""Seconds of that in a run."""


@dataclass(eq=False)
class _Crowd:
    """Recorded calls that were made side by side.

    Args:
        events: the beginnings and ends of their spans, in order: id of the span, whether it is the end, and seconds
            since the one before.
        next: how many of them have come about, from the first on without a gap.
        stalls: how often nothing happened any more.
    """

    events: list[tuple[str, bool, float]] = field(default_factory=list)
    next: int = 0
    stalls: int = 0

    def waits_for(self, span_id: str) -> bool:
        """Whether something is to come about before that call ends."""
        return self.next < len(self.events) and self.events[self.next][:2] != (span_id, True)

    def advance(self, begun: Container[str], over: Container[str]) -> str | None:
        """Go on to the first event that has not come about; gives whose it is."""
        at = self.next
        while at < len(self.events) and self.events[at][0] in (over if self.events[at][1] else begun):
            at += 1
        self.next = max(at, self.next)
        return self.events[at][0] if at < len(self.events) else None

    def stall(self, waiting: Container[str]) -> None:
        """Go on to the first end that is waited with."""
        self.stalls += 1
        while self.next < len(self.events):
            span_id, is_end, _ = self.events[self.next]
            if self.stalls <= _MOST_STALLS and is_end and span_id in waiting:
                break
            self.next += 1


class Ends:
    """The ends of the served calls of one run; safe to use from any thread.

    Args:
        tree: the golden one; empty if nothing is served.
    """

    def __init__(self, tree: SpanTree) -> None:
        self.out_of_order = False
        """Whether the recorded order could not be repeated."""
        self.ordered_ns: int | None = None
        """When the first of the calls that had an order to keep had ended in the recording."""
        self._lock = threading.RLock()
        self._tree = tree
        self._crowds = _crowds(tree)
        self._ahead = _ahead(self._crowds)
        self._ended_ns = {span.span_id: span.end_ns for span in tree} if self._crowds else {}
        self._begun: set[str] = set()
        self._over: set[str] = set()
        self._in_flight: set[str] = set()
        """Of crowds."""
        self._bells: dict[str, Callable[[], object]] = {}
        self._last: tuple[float, int] | None = None
        """When something came about last, and in which thread."""
        self._rested = 0.0
        self._happened = 0
        self._watcher: threading.Thread | None = None
        self._nobody = threading.Event()
        """Whether nobody waits."""

    def begin(self, span: Span) -> End | None:
        """A recorded call begins to be served: its end, or ``None`` if that waits for nobody."""
        # Where it is served a second time, it was lent to another request, which has its place.
        is_first = span.span_id not in self._begun
        self._note(span.span_id, begun=True)
        return End(self, span.span_id) if self._ended_ns and is_first else None

    def over(self, span: Span) -> None:
        """A recorded call was served to its end, or is not to be waited for."""
        self._note(span.span_id)

    def precede(self, span: Span | None) -> bool:
        """Whether a recorded call began after calls had ended that had an order to keep."""
        return span is not None and self.ordered_ns is not None and span.start_ns >= self.ordered_ns

    def release(self) -> None:
        """Nobody waits any more: the run ends."""
        with self._lock:
            self._crowds, self._ended_ns = {}, {}
            bells, self._bells = list(self._bells.values()), {}
            watcher = self._watcher
            self._nobody.set()
        for ring in bells:
            ring()
        if watcher is not None:
            watcher.join(QUIET_SECONDS)

    def wait(self, span_id: str, ring: Callable[[], object]) -> bool:
        """Whether another call is to end before that one; if so, ``ring`` is called when none is any more.

        Args:
            span_id: of the recorded call.
            ring: called by any thread, once.
        """
        with self._lock:
            ended_ns = self._ended_ns.get(span_id)
            if ended_ns is not None and (self.ordered_ns is None or ended_ns < self.ordered_ns):
                self.ordered_ns = ended_ns
            self._bells[span_id] = ring  # first: what the collector ends meanwhile rings it
            if not self._waits(span_id):
                self._bells.pop(span_id, None)
                return False
            self._nobody.clear()
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="spanchain-ends", daemon=True)
                self._watcher.start()
        return True

    def ahead(self, span_id: str) -> float:
        """Seconds between that end and what came about before it in the recording, ``_MOST_AHEAD`` at most."""
        return self._ahead.get(span_id, 0.0)

    def rest(self, span_id: str, *, in_a_loop: bool) -> float:
        """Seconds still to wait, so that other threads can act first on what came about last.

        Nobody can see when they have. They are given no more than they had in the recording, and all of them together
        no more than ``_MOST_REST``.

        Args:
            span_id: of the recorded call that is to end.
            in_a_loop: whether an event loop waits: what came about in its own thread, its tasks have acted on.
        """
        with self._lock:
            if self._last is None or (in_a_loop and self._last[1] == threading.get_ident()):
                return 0.0
            ahead = self.ahead(span_id)
            # Where a test stops the clock, all of it.
            left = min(ahead, self._last[0] + ahead - time.monotonic(), _MOST_REST - self._rested)
            self._rested += max(left, 0.0)
        return max(left, 0.0)

    def _note(self, span_id: str, *, begun: bool = False) -> None:
        with self._lock:
            self._happened += 1
            crowds = self._crowds.get(span_id, ())
            self._begun.add(span_id)
            if crowds:
                self._last = time.monotonic(), threading.get_ident()
                (self._in_flight.add if begun else self._in_flight.discard)(span_id)
                if not begun:
                    self._over.add(span_id)
            firsts = {crowd.advance(self._begun, self._over) for crowd in crowds}
            outside = self._bells.keys() - self._crowds.keys()
            bells = self._rung({one for one in firsts if one is not None} | outside)
        for ring in bells:
            ring()

    def _waits(self, span_id: str) -> bool:
        if span_id in self._crowds:
            return any(crowd.waits_for(span_id) for crowd in self._crowds[span_id])
        ended_ns = self._ended_ns.get(span_id, 0)
        return any(self._ended_ns[other] < ended_ns for other in self._in_flight)

    def _rung(self, waiting: AbstractSet[str]) -> list[Callable[[], object]]:
        """The bells of those of these who wait for nobody any more."""
        free = [span_id for span_id in waiting if span_id in self._bells and not self._waits(span_id)]
        bells = [bell for span_id in free if (bell := self._bells.pop(span_id, None)) is not None]
        if not self._bells:
            self._nobody.set()
        return bells

    def _watch(self) -> None:
        """Let somebody go where nothing happens any more, for as long as somebody waits."""
        quiet = 0
        while True:
            happened, busy = self._happened, time.process_time()
            self._nobody.wait(QUIET_SECONDS)  # a real wait: tests stop clocks, and patch ``sleep``
            idle = time.process_time() - busy < QUIET_SECONDS * _IDLE
            with self._lock:
                if not self._bells:
                    self._watcher = None
                    return
                quiet = quiet + 1 if happened == self._happened else 0
                bells = self._stalled(quiet, idle=idle) if quiet else []
                quiet = 0 if bells else quiet
            for ring in bells:
                ring()

    def _stalled(self, quiet: int, *, idle: bool) -> list[Callable[[], object]]:
        """Whom to let go after so many times in which nothing happened."""
        long = quiet >= _MOST_QUIET
        for crowd in {crowd for span_id in self._bells for crowd in self._crowds.get(span_id, ())}:
            if crowd.next == len(crowd.events):
                continue
            awaited, _, pause = crowd.events[crowd.next]
            patience = QUIET_SECONDS + min(pause, _MOST_PAUSE)
            may_come = awaited in self._begun and not self._was_left(awaited)
            if long or (idle and not may_come and quiet * QUIET_SECONDS >= patience):
                self.out_of_order = True
                crowd.stall(self._bells)
        if long:
            self._in_flight.clear()
        return self._rung(self._bells.keys())

    def _was_left(self, span_id: str) -> bool:
        """Whether the reader of a call's answer went away, which the collector may tell of at any time."""
        exchange = self._tree.by_id[span_id].exchange
        response = exchange.response if exchange is not None else None
        return response is not None and response.get("end") == "closed" and not response.get("error")


@dataclass
class End:
    """The end of one call that is being served.

    Args:
        waiting: whether somebody waits with it now.
    """

    _ends: Ends
    _span_id: str
    waiting: bool = False

    def wait(self, ring: Callable[[], object]) -> bool:
        """See ``Ends.wait``."""
        return self._ends.wait(self._span_id, ring)

    def ahead(self) -> float:
        """See ``Ends.ahead``."""
        return self._ends.ahead(self._span_id)

    def rest(self, *, in_a_loop: bool) -> float:
        """See ``Ends.rest``."""
        return self._ends.rest(self._span_id, in_a_loop=in_a_loop)


def _crowds(tree: SpanTree) -> dict[str, list[_Crowd]]:
    """The crowds of each recorded call that is served as such, by the id of its span."""
    found: dict[str, list[_Crowd]] = {}
    if not any(CONCURRENT in span.attributes for span in tree):
        return found
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
    # What came about at the same nanosecond, as where a test stops the clock, stands as the program came to it.
    begins = [(span.start_ns, number, False) for number, span in enumerate(calls)]
    ends = [(span.end_ns, number, True) for number, span in enumerate(calls)]
    latest: dict[_Crowd, int] = {}
    for at, number, is_end in sorted([*begins, *ends]):
        span_id = calls[number].span_id
        for crowd in found[span_id]:
            crowd.events.append((span_id, is_end, (at - latest.get(crowd, at)) / 1e9))
            latest[crowd] = at
    return found


def _ahead(crowds: dict[str, list[_Crowd]]) -> dict[str, float]:
    """How long before the end of each call nothing else came about."""
    found: dict[str, float] = {}
    for crowd in {crowd for inside in crowds.values() for crowd in inside}:
        for span_id, is_end, between in crowd.events:
            if is_end:
                found[span_id] = min(between, found.get(span_id, _MOST_AHEAD))
    return found
