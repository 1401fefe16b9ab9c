"""A child process that runs for real: its input and its output pass through pipes of ours and are written down.

Invariants:

* Nothing is held back: what comes is handed on before more is read, and a reader that is slow slows the child.
* Input is written down before the child has it, and output before the agent has it: what caused what stays in order.
* The call ends before the agent can know that the child is over.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Mapping

from ...._run import Call, Run
from ... import _wait
from .._descriptors import written
from . import _exits
from . import _pids as pids
from ._command import Command
from ._input import Input
from ._pipes import SIZE, STDERR, STDOUT, Inlet, body_of, has_room, is_broken, is_pipe, left_in, unread
from ._turns import Turns

_SETTLE_SECONDS = 5.0
_TICK = 0.0005
_QUIET_TICKS = 100
_SAID_ALL_SECONDS = 0.01
"""An agent that was quiet for so long when the child stopped reading had said all; of another it is not known."""
_MARKS = {STDOUT: ("<", "o"), STDERR: ("!", "e")}


class Recording:
    """One recorded child; safe to call from any thread.

    Args:
        run: whose it is.
        call: the crossing.
        command: what is started.
        env: the variables that were chosen for it.
        before_end: called before the call is finished.
    """

    def __init__(
        self, run: Run, call: Call, command: Command, env: Mapping[str, str], *, before_end: Callable[[], None]
    ) -> None:
        self.own_group = command.own_group
        self._run = run
        self._call = call
        self._command = command
        self._env = env
        self._before_end = before_end
        self._lock = threading.RLock()
        self._turns = Turns()
        self._input = Input()
        self._feeding = threading.Lock()
        self._hearing = threading.Lock()
        self._source = self._sink = -1
        self._is_own = False
        self._heard_at = time.monotonic()
        self._outputs: dict[str, Inlet] = {}
        self._started: list[Callable[[], None]] = []
        self._ours: list[int] = []
        self._exit: int | None = None
        self._pid = 0
        self._over = self._is_told = False
        call.at_close = self._left

    def takes_input(self, source: int, *, is_own: bool) -> int:
        """Stand between the child and where its input comes from. Gives what the child is to read.

        Args:
            source: where it comes from.
            is_own: whether it is a pipe of the agent's that nobody else writes to.
        """
        self._source, self._is_own = self._kept(os.dup(source)), is_own
        theirs, sink = os.pipe()
        self._sink = self._kept(sink)
        self._started.append(self._pour_in)
        return theirs

    def means(self, data: bytes) -> None:
        """The agent is about to write something; perhaps to a child that is over, of which it has yet to hear."""
        with self._hearing, self._lock:
            self._input.means(data, on_its_way=0 if self._source == -1 else unread(self._source))
            if self._is_told:
                self._run.tried(self._tell)

    def gives(self, name: str, sink: int) -> int:
        """Stand between the child and where its output goes. Gives what the child is to write to."""
        ours = self._kept(os.dup(sink))
        source, theirs = os.pipe()
        output = self._outputs[name] = Inlet(name, self._kept(source), ours)
        self._started.append(lambda: self._pour_out(output))
        return theirs

    def _kept(self, number: int) -> int:
        self._ours.append(number)
        return number

    def started(self, pid: int) -> None:
        """The child runs."""
        self._pid = pid
        pids.know(pid, self)
        for number, work in enumerate(self._started):
            threading.Thread(target=work, name=f"spanchain-process-{pid}-{number}", daemon=True).start()

    def failed(self, error: BaseException) -> None:
        """It could not be started."""
        for number in self._ours:
            os.close(number)
        self._over = True
        response = {"exit": None, STDOUT: None, STDERR: None, "turns": "", "end": "error"}
        said = {"type": type(error).__name__, "message": str(error)}
        self._run.tried(lambda: self._call.finish({**response, "error": said}))

    def signalled(self, number: int) -> None:
        """The agent sends it a signal."""
        with self._lock:
            if self._exit is None:
                self._turns.add(f"k{number}")

    def reaped(self, code: int) -> None:
        """The agent is about to learn the exit code."""
        with self._lock:
            if self._exit is not None:
                return
        pids.forget(self._pid)
        self._settle()
        with self._lock:
            if self._exit is None:
                self._exit = code
                self._turns.add("x")
        self._end(left=False)

    def wait(self, timeout: float | None) -> int | None:
        """Nobody asks: the kernel knows."""
        raise AssertionError("a recorded child is waited for by its own number")

    def exit_file(self) -> int:
        """The same."""
        return self.wait(0) or 0

    def _pour_out(self, output: Inlet) -> None:
        data_mark, end_mark = _MARKS[output.name]
        watch = select.poll()
        watch.register(output.source, select.POLLIN)
        try:
            while True:
                watch.poll()
                with output.lock:
                    data = os.read(output.source, SIZE)
                    output.writing = bool(data)
                if not data:
                    break
                with self._lock:
                    output.chunks.append(data)
                    self._turns.add(data_mark)
                if not written(output.sink, data):
                    break
                output.writing = False
        finally:
            with self._lock:
                self._turns.add(end_mark)
                output.over = True
            self._end(left=False)
            os.close(output.source)
            os.close(output.sink)

    def _pour_in(self) -> None:
        watch = select.poll()
        watch.register(self._source, select.POLLIN)
        watch.register(self._sink, 0)
        try:
            while True:
                if self._sink in dict(watch.poll()):
                    self._stopped_reading()
                    break
                data = self._heard()
                if not data:
                    break
                if not written(self._sink, data):
                    self._stopped_reading()
                    break
        finally:
            with self._hearing, self._feeding:
                os.close(self._source)
                os.close(self._sink)
                self._source = self._sink = -1

    def _heard(self) -> bytes:
        with self._hearing:
            data = os.read(self._source, SIZE)
            with self._lock:
                if self._exit is not None:
                    pass  # nobody reads it
                elif data:
                    self._took(data)
                else:
                    self._turns.add("|")
        return data

    def _took(self, data: bytes) -> None:
        self._input.arrived += data
        self._turns.input(data)
        self._heard_at = time.monotonic()

    def _stopped_reading(self) -> None:
        with self._hearing, self._lock:
            if self._exit is not None:
                return
            said_all = self._is_own and time.monotonic() - self._heard_at > _SAID_ALL_SECONDS
            # What the agent has put into the pipe it has written, for all it knows.
            left = left_in(self._source)
            if left:
                self._took(left)
            self._turns.add("s" if said_all and not left else "c")

    def _settle(self) -> None:
        """Wait until what the child left behind is where it belongs, unless a child of its own still holds the pipe."""
        quiet = 0

        def settled() -> bool:
            nonlocal quiet
            with self._feeding:  # what was written before the exit is known counts, and that nobody reads it
                busy, quiet = self._sink != -1 and is_broken(self._sink), quiet + 1
            for output in list(self._outputs.values()):
                if output.over:
                    continue
                with output.lock:
                    if output.over or (output.writing and is_pipe(output.sink) and not has_room(output.sink)):
                        continue
                    busy = True
                    if output.writing or unread(output.source):
                        quiet = 0
            return not busy or quiet > _QUIET_TICKS

        _wait.until(settled, seconds=_SETTLE_SECONDS, tick=_TICK)

    def _left(self) -> None:
        """The run ends, and the agent has not waited for the child: it may be over all the same."""
        if self._exit is None and self._pid and (code := _exits.code_of(self._pid)) is not None:
            self.reaped(code)
        self._end(left=True)

    def _end(self, *, left: bool) -> None:
        with self._lock:
            done = self._exit is not None and all(output.over for output in self._outputs.values())
            if self._over or not (left or done):
                return
            self._over = True
        if left:
            pids.forget(self._pid)
        self._run.tried(self._before_end)
        with self._lock:
            self._run.tried(lambda: self._tell(ends=True))
            self._is_told = not left

    def _tell(self, *, ends: bool = False) -> None:
        """Say what was asked and answered, as far as it is known."""
        if self._input.is_told:
            self._turns.all_is_known()
        refused = self._input.refused()
        if refused:
            self._took(refused)
        chunks = {name: list(output.chunks) for name, output in self._outputs.items()}
        response = {
            "exit": self._exit,
            STDOUT: body_of(chunks.get(STDOUT, [])),
            STDERR: body_of(chunks.get(STDERR, [])),
            "turns": self._turns.text(),
            "end": "closed" if self._exit is None else "complete",
            "error": None,
        }
        span = self._call.span
        joined, span.graft = span.graft, None  # what a child has told is nothing that this was asked before
        self._call.asked(self._command.request(self._env, bytes(self._input.arrived)))
        span.graft = joined
        if ends:
            _exits.tell(self._call, self._exit)
            self._call.finish(response)
        else:
            self._call.amend(response)
