"""What stands for a call of gRPC's core in replay: it takes batches of operations, and tells of them as events.

Invariants:

* An event is told only when all of its batch is done, and a status only when the recorded call came to it.
* Nobody is told under our lock: whoever is told has locks of his own.
* Every wait is bounded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ... import _wait
from . import _wire as wire
from ._call import UNANSWERED, WAIT, Playback

Batch = tuple[Sequence[Any], Any]
"""Operations, and who is told when all of them are done; nobody, if the caller asks for events itself."""


@dataclass(frozen=True)
class _Done:
    """An operation that is done, as gRPC reads it."""

    kind: int
    metadata: wire.Metadata = ()
    content: bytes | None = None
    status: tuple[int, str, str] = (0, "", "")

    def type(self) -> int:
        return self.kind

    def initial_metadata(self) -> wire.Metadata:
        return self.metadata

    def trailing_metadata(self) -> wire.Metadata:
        return self.metadata

    def message(self) -> bytes | None:
        return self.content

    def code(self) -> int:
        return self.status[0]

    def details(self) -> str:
        return self.status[1]

    def error_string(self) -> str:
        return self.status[2]


@dataclass(frozen=True)
class _Event:
    """A batch that is done."""

    batch_operations: tuple[_Done, ...]
    success: bool = True


@dataclass(eq=False)
class _Started:
    """A batch that is not done yet."""

    left: deque[int]
    tag: Any
    done: list[_Done] = field(default_factory=list)


class Replayed:
    """What stands for a call of the core's in replay."""

    def __init__(self, playback: Playback, batches: Sequence[Batch], cygrpc: Any) -> None:
        self._playback = playback
        self._types = cygrpc.OperationType
        self._initial = tuple(cygrpc._Metadatum(*pair) for pair in playback.initial)
        self._trailing = tuple(cygrpc._Metadatum(*pair) for pair in playback.trailing)
        self._condition = threading.Condition(threading.RLock())
        self._started: list[_Started] = []
        self._events: deque[_Event] = deque()
        self._ended: tuple[int, str, str] | None = None
        self._timer: threading.Timer | None = None
        playback.at_close(self._left)
        self._start(batches)

    def operate(self, operations: Sequence[Any], tag: Any) -> bool:
        """Start a batch."""
        for operation in operations:
            if operation.type() == self._types.send_message:
                self._playback.sent(operation._message)
            elif operation.type() == self._types.send_close_from_client:
                self._playback.closed()
        self._start([(operations, tag)])
        return True

    def next_event(self) -> _Event:
        """Wait for the next event.

        Raises:
            MissError: it does not come.
        """
        with self._condition:
            while not self._events:
                # Not ``wait_for``, which asks a clock that a test may have stopped.
                if not self._condition.wait(_wait.HOLD_SECONDS):
                    raise self._playback.waited()
            return self._events.popleft()

    def cancel(self, code: int, details: Any) -> None:
        """End the call."""
        self._playback.over()
        self._end(code, wire.text(details), "")

    def _left(self) -> None:
        # Whoever still waits for it would wait for ever: nothing else will come.
        self._playback.over()
        self._end(wire.code_number("CANCELLED"), "the run has ended", "")

    def _end(self, code: int, details: str, debug: str) -> None:
        with self._condition:
            if self._ended is None:
                self._ended = (code, details, debug)
        self._go()

    def _start(self, batches: Sequence[Batch]) -> None:
        with self._condition:
            for operations, tag in batches:
                self._started.append(_Started(deque(operation.type() for operation in operations), tag))
        self._go()

    def _go(self) -> None:
        """Do what can be done, and tell of it. Nobody is told under our lock: they have locks of their own."""
        finished = []
        with self._condition:
            for batch in list(self._started):
                while batch.left and (done := self._done(batch.left[0])) is not None:
                    batch.done.append(done)
                    batch.left.popleft()
                if not batch.left:
                    self._started.remove(batch)
                    finished.append(batch)
            self._bound_the_wait()
        for batch in finished:
            self._tell(batch)

    def _tell(self, batch: _Started) -> None:
        event = _Event(tuple(batch.done))
        if batch.tag is None:
            with self._condition:
                self._events.append(event)
                self._condition.notify_all()
        elif any(done.kind == self._types.receive_status_on_client for done in batch.done):
            # It runs the caller's callbacks, which may wait for somebody whom the calling thread keeps waiting.
            threading.Thread(target=batch.tag, args=(event,), daemon=True).start()
        else:
            batch.tag(event)

    def _done(self, kind: int) -> _Done | None:
        if kind == self._types.receive_initial_metadata:
            answers = self._ended is not None or self._playback.answers()
            return _Done(kind, metadata=self._initial) if answers else None
        if kind == self._types.receive_message:
            step = None if self._ended is not None else self._playback.step()
            return None if step is WAIT or step is UNANSWERED else _Done(kind, content=step)
        if kind == self._types.receive_status_on_client:
            return self._status(kind)
        return _Done(kind)

    def _status(self, kind: int) -> _Done | None:
        played = self._playback
        if self._ended is not None:
            return _Done(kind, status=self._ended)
        if not played.is_over():
            return None
        played.over()
        self._ended = (wire.code_number(played.code), played.details, played.debug)
        return _Done(kind, metadata=self._trailing, status=self._ended)

    def _bound_the_wait(self) -> None:
        waits = any(batch.tag is not None and self._types.receive_message in batch.left for batch in self._started)
        if waits and self._timer is None:
            self._timer = threading.Timer(_wait.HOLD_SECONDS, self._give_up)
            self._timer.daemon = True
            self._timer.start()
        elif not waits and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._end(wire.code_number("CANCELLED"), str(self._playback.waited()), "")
