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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ...._run import Call, Run
from ... import _wait
from . import _pids as pids
from ._command import Command
from ._pipes import SIZE, STDERR, STDOUT, body_of, has_room, is_pipe, unread, written
from ._turns import Turns

_SETTLE_SECONDS = 5.0
_TICK = 0.0005
_QUIET_TICKS = 100
_MARKS = {STDOUT: ("<", "o"), STDERR: ("!", "e")}


@dataclass(eq=False)
class _Output:
    """One way out of the child.

    Args:
        source: our end of the child's pipe.
        sink: where it would have written without us.
    """

    name: str
    source: int
    sink: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    chunks: list[bytes] = field(default_factory=list)
    writing: bool = False
    over: bool = False


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
        self._input: list[bytes] = []
        self._outputs: dict[str, _Output] = {}
        self._started: list[Callable[[], None]] = []
        self._ours: list[int] = []
        self._exit: int | None = None
        self._pid = 0
        self._over = False
        call.at_close = self._left

    def takes_input(self, source: int) -> int:
        """Stand between the child and where its input comes from. Gives what the child is to read."""
        ours = self._kept(os.dup(source))
        theirs, sink = os.pipe()
        self._kept(sink)
        self._started.append(lambda: self._pour_in(ours, sink))
        return theirs

    def gives(self, name: str, sink: int) -> int:
        """Stand between the child and where its output goes. Gives what the child is to write to."""
        ours = self._kept(os.dup(sink))
        source, theirs = os.pipe()
        output = self._outputs[name] = _Output(name, self._kept(source), ours)
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
        raise AssertionError("a recorded child is waited for by its own number")

    def _pour_out(self, output: _Output) -> None:
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

    def _pour_in(self, source: int, sink: int) -> None:
        watch = select.poll()
        watch.register(source, select.POLLIN)
        watch.register(sink, 0)
        try:
            while True:
                ready = dict(watch.poll())
                if sink in ready:
                    self._stopped_reading()
                    break
                data = os.read(source, SIZE)
                with self._lock:
                    if self._exit is not None:
                        pass  # nobody reads it
                    elif data:
                        self._input.append(data)
                        self._turns.input(data)
                    else:
                        self._turns.add("|")
                if not data:
                    break
                if not written(sink, data):
                    self._stopped_reading()
                    break
        finally:
            os.close(source)
            os.close(sink)

    def _stopped_reading(self) -> None:
        with self._lock:
            if self._exit is None:
                self._turns.add("c")

    def _settle(self) -> None:
        """Wait until what the child left behind is where it belongs, unless a child of its own still holds the pipe."""
        quiet = 0

        def settled() -> bool:
            nonlocal quiet
            busy, quiet = False, quiet + 1
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
        if self._exit is None and self._pid and (code := _exit_code(self._pid)) is not None:
            self.reaped(code)
        self._end(left=True)

    def _end(self, *, left: bool) -> None:
        with self._lock:
            done = self._exit is not None and all(output.over for output in self._outputs.values())
            if self._over or not (left or done):
                return
            self._over = True
            chunks = {name: list(output.chunks) for name, output in self._outputs.items()}
            response = {
                "exit": self._exit,
                STDOUT: body_of(chunks.get(STDOUT, [])),
                STDERR: body_of(chunks.get(STDERR, [])),
                "turns": self._turns.text(),
                "end": "closed" if self._exit is None else "complete",
                "error": None,
            }
            request = self._command.request(self._env, b"".join(self._input))
        if left:
            pids.forget(self._pid)

        def finish() -> None:
            self._call.asked(request)
            self._before_end()
            ended(self._call, self._exit)
            self._call.finish(response)

        self._run.tried(finish)


def ended(call: Call, code: int | None) -> None:
    """Say on the span how the child ended."""
    span = call.span
    if code is not None:
        span.attributes = {**span.attributes, "process.exit.code": code}
    if code:
        span.attributes["error.type"] = str(code)
        span.status = "error"


def _exit_code(pid: int) -> int | None:
    """The exit code of a child that nobody has waited for yet, left where it is for whoever does."""
    if not hasattr(os, "waitid"):
        return None
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
