"""What every stack has to show: recorded once with everything up, it replays with everything down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_spanchain import Deviation
from recording import Outcome, record, replay, run
from servers import CountingListener, ModelServer

REPLAYS = 3


@dataclass(frozen=True)
class Stack:
    """A stack in the matrix of ``docs/matrix.md``: each module of this directory that tests one has it as ``STACK``.

    Args:
        name: as shown.
        dists: distributions whose versions are shown; the first one decides whether the stack is there at all.
        records: what is recorded, and where it is met.
        limits: what does not work, one sentence each.
    """

    name: str
    dists: tuple[str, ...]
    records: str
    limits: tuple[str, ...] = ()


@dataclass
class Proof:
    """One agent: recorded, its servers taken down, replayed, then changed.

    Args:
        cassette: where it is recorded.
        server: the model.
        ledger: the file to which tools append a line for each time that they really run.
        settings: of all its runs, as ``use_cassette`` takes them.
    """

    cassette: Path
    server: ModelServer
    ledger: Path
    settings: dict[str, Any] = field(default_factory=dict)
    tools_run_again: int = 0
    connections: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _listener: CountingListener | None = None

    @property
    def ran(self) -> list[str]:
        """What tools have done, in order."""
        return self.ledger.read_text(encoding="utf-8").splitlines() if self.ledger.exists() else []

    def holds(
        self, agent: Callable[[], Any], *, ran: Sequence[str] = (), in_order: bool = True, notes: Sequence[str] = ()
    ) -> Outcome:
        """Record an agent, take the servers down, and replay it: the same value, no connection, and no tool runs again.

        Args:
            agent: a plain or an async function without arguments; what it returns or raises is compared.
            ran: what its tools do, once.
            in_order: whether they do it in this order.
            notes: how what is said of tools that were not met begins; by default nothing is.
        """
        recorded = record(self.cassette, agent, **self.settings)
        assert recorded.verdict.live_calls > 0
        self._says(recorded, notes)
        kept = self.cassette.read_bytes()
        did = self.ran
        assert (did if in_order else sorted(did)) == (list(ran) if in_order else sorted(ran))
        self.take_down()
        for _ in range(REPLAYS):
            again = replay(self.cassette, agent, **self.settings)
            self.tools_run_again += len(self.ran) - len(did)
            assert self.ran == did, "a tool ran again"
            assert again.value == recorded.value
            assert repr(again.raised) == repr(recorded.raised)
            self._says(again, notes)
        self.stays_untouched()
        assert self.cassette.read_bytes() == kept
        return recorded

    def _says(self, outcome: Outcome, notes: Sequence[str]) -> None:
        said = [note for note in outcome.verdict.notes if " no call of a function of that name was met" in note]
        assert len(said) == len(notes), said
        assert all(note.startswith(wanted) for note, wanted in zip(said, notes, strict=True)), said

    def breaks(self, agent: Callable[[], Any]) -> list[Deviation]:
        """Replay a changed agent: it is red, with nothing contacted and no tool run. Gives what it is blamed for."""
        did = self.ran
        changed = run(self.cassette, agent, **self.settings)
        assert changed.failure is not None, "a changed agent was green"
        assert self.ran == did, "a tool ran again"
        self.stays_untouched()
        return changed.causes

    def take_down(self) -> None:
        """Stop the model, and put a listener that counts on its port."""
        if self._listener is None:
            self.server.close()
            self._listener = self._stack.enter_context(CountingListener(self.server.port))

    def stays_untouched(self) -> None:
        """Nobody has knocked where the model was."""
        assert self._listener is not None
        self.connections = self._listener.connections
        assert self.connections == 0

    def close(self) -> None:
        """Free the port."""
        self._stack.close()
