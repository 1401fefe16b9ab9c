"""What a served child has had from the agent so far, and whether that is what it waited for when it was recorded.

Invariant: input that was changed is waited for by lines, or else until the agent rests, so that one run shows the whole
difference.
"""

from __future__ import annotations

from ... import _wait
from ._input import Input
from ._turns import Needs, Played

IDLE_SECONDS = 1.0
"""After how long input that was changed, and is shorter than the recorded one, counts as all there."""

QUIET_SECONDS = 0.05
"""After how long an agent has said all to a child that stops reading: it may have to wait for a processor meanwhile."""


class Heard:
    """Input, its end, and signals; its user holds a lock. Its times are its user's, in seconds: tests stop clocks.

    Args:
        played: what the recording says.
        closed: whether no input is looked at.
    """

    def __init__(self, played: Played, *, closed: bool) -> None:
        self.closed = closed
        self.signals: list[int] = []
        self.input = Input()
        self._played = played
        self._lines = 0
        self._credit = (0, 0)
        self._fresh = False
        self._heard_at = 0.0

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return len(self.input.arrived)

    def take(self, data: bytes, *, now: float) -> None:
        """Something arrives; ``b""`` is the end."""
        self._heard_at, self._fresh = now, True
        self.closed = self.closed or not data
        self.input.arrived += data
        self._lines += data.count(b"\n")

    def is_quiet(self, *, now: float) -> bool:
        """Whether the agent has no more to say, as far as one can tell."""
        return self.closed or self.input.is_told or now - self._heard_at >= QUIET_SECONDS

    def all(self) -> bytes:
        """The input, as far as the recording knows what it was then: how much more goes to a child is chance."""
        found = bytes(self.input.arrived) + self.input.refused()
        return found[: self._played.all.size] if self._played.cut else found

    def has(self, needs: Needs) -> bool:
        """Whether the child has all that it waited for."""
        if len(self.signals) < len(needs.signals):
            return False
        if self.closed:
            return True
        if needs.closed:
            return False
        size, lines = self._credit
        if needs.lines is not None:
            return self._lines + lines >= needs.lines
        return self.size + size >= needs.size

    def rests(self, needs: Needs, *, now: float) -> float | None:
        """How long to wait for the agent to go on with what it says; ``None`` if it says nothing."""
        if not self._fresh:
            return None
        if now - self._heard_at < IDLE_SECONDS:
            return IDLE_SECONDS - (now - self._heard_at)
        # It has said something, and means it to be all: give it the answer to what it should have said.
        self._fresh = False
        self._credit = (needs.size - self.size, (needs.lines or 0) - self._lines)
        return 0

    def lacks(self, needs: Needs) -> str:
        """In words, what of it did not come."""
        if len(self.signals) < len(needs.signals):
            what = f"signal {needs.signals[len(self.signals)]}"
        elif needs.closed and not self.closed and self.size >= needs.size:
            what = "the end of its input"
        else:
            what = f"{needs.size} bytes of input, and has got {self.size}"
        return f"{what}, after which it went on when it was recorded; waited {_wait.HOLD_SECONDS:g} s"
