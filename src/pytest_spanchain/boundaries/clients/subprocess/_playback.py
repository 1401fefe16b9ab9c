"""A child process that does not run: its recording is played to real pipes, by one thread.

Invariants:

* Nothing comes out before the agent has done what preceded it when it was recorded, and then chunk by chunk.
* Input is always taken, so that no agent waits for a child that does not read.
* A child that stopped reading does so after the agent has said all, however fast what it answers is played.
* A wait that cannot end is ended, and the run says for what it was.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

from ...._run import Call, Run
from ... import _wait
from . import _exits
from . import _pids as pids
from . import _turns as turns
from ._command import Command
from ._heard import Heard
from ._pipes import SIZE, Outlet, is_ready, left_in, unread
from ._script import Script

_TICK = 1
_DEAF = ("s", "c")
_CLOSING_SECONDS = 1.0
"""The most that an agent is held for the end of its input; the thread that closes it needs a moment."""
_DEADLY = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT)


class Playback:
    """One served child; safe to call from any thread.

    Args:
        run: whose it is.
        call: the crossing, which brings the recording.
        command: what would have been started.
        env: the variables that were chosen for it.
        source: where its input comes from, ``None`` if it is not looked at; it is ours to close.
        sinks: where its output goes; ours to close.
    """

    def __init__(
        self,
        run: Run,
        call: Call,
        command: Command,
        env: Mapping[str, str],
        *,
        source: int | None,
        sinks: Mapping[str, int],
    ) -> None:
        assert call.recorded is not None
        self.pid = pids.draw()
        self.own_group = command.own_group
        self._run, self._call, self._command, self._env = run, call, command, env
        self._recorded = call.recorded
        self._played = turns.read(str(self._recorded.get("turns", "")))
        self._lock, self._hearing = threading.RLock(), threading.Lock()
        self._wake = os.pipe()
        self._source = source
        self._heard = Heard(self._played, closed=source is None)
        self._now = self._moved_at = 0.0
        self._killed: int | None = None
        self._exit = _exits.Exit()
        self._reaped = self._over = self._stopped = False
        self._is_left = self._is_told = self._is_past = False
        self._deaf = threading.Event()
        self._script = Script(self._recorded, self._played, sinks)
        call.at_close, call.at_next = self._left, self._gone_on
        pids.know(self.pid, self)
        # Now, and not in the thread: a child that has nothing to wait for is over as soon as it can be.
        threading.Thread(target=self._play, name=f"spanchain-served-{self.pid}", daemon=True).start()

    def signalled(self, number: int) -> None:
        """The agent sends a signal."""
        with self._lock:
            if self._exit.came:
                return
            place = len(self._heard.signals)
            expected = self._played.all.signals
            self._heard.signals.append(number)
            if place < len(expected) and (number == expected[place] or number != signal.SIGKILL):
                pass  # what it did then is played
            elif number in _DEADLY and not self._ends_by_itself():
                self._killed = number
        self._poke()

    def means(self, data: bytes) -> None:
        """The agent is about to write something; perhaps to a child that is over, of which it has yet to hear."""
        with self._hearing, self._lock:
            self._heard.input.means(data, on_its_way=0 if self._source is None else unread(self._source))
            if self._is_told:
                self._run.tried(lambda: self._call.asked(self._request()))

    def wait(self, timeout: float | None) -> int | None:
        """The exit code; ``None`` if it still runs then."""
        if timeout is None:
            self._gone_on()
        if timeout is None and self._recorded.get("exit") is None and not self._exit.wait(_wait.HOLD_SECONDS):
            self._give_up(f"its exit, which did not come when it was recorded; waited {_wait.HOLD_SECONDS:g} s")
        return self._exit.code if self._exit.wait(timeout) else None

    def hurry(self) -> None:
        """Somebody waits for the exit, or asks after it, and reads nothing meanwhile."""
        for output in self._script.outputs.values():
            output.hurried = True

    def reaped(self, code: int) -> None:
        """The agent is about to learn the exit code."""
        pids.forget(self.pid)
        with self._lock:
            self._reaped = True
            if any(output.queue and output.is_open for output in self._script.outputs.values()):
                return  # whoever reads the rest comes to its end
        self._finish()

    def exit_file(self) -> int:
        """A file descriptor, the caller's to close, that is readable after the exit."""
        return self._exit.file()

    # --- the thread

    def _play(self) -> None:
        try:
            while not self._stopped:
                pause = self._advance()
                if pause is None:
                    break
                self._listen(pause)
        except Exception as error:  # noqa: BLE001  # nobody else would hear of it
            self._run.note_error(f"the process {self._command.name} could not be served: {error!r}")
        finally:
            self._close()

    def _advance(self) -> float | None:
        """Do all that is due. Gives how long to wait for something to happen; ``None`` if nothing can."""
        while True:
            with self._lock:
                if self._killed is not None:
                    self._die(-self._killed)
                    return None
                found = [(output.queue[0][0], output) for output in self._script.outputs.values() if output.queue]
                step = self._script.rest[0] if self._script.rest else None
                stop = self._stop()
                if stop is not None and self._is_past:
                    self._do(stop[2])
                    continue
                due = sorted(
                    (place, id(one), one)
                    for place, one in found
                    if self._heard.has(one.queue[0][2]) and (stop is None or place < stop[0])
                )
            blocked = late = False
            for _, _, output in due:
                state = output.state(self._now)
                if state == "ready":
                    self._put(output)
                    break
                if state == "patient":
                    return _TICK / 1000
                late = late or state == "late"
                blocked = True
            else:
                with self._lock:
                    waits = min((place for place, one in found), default=None)
                    is_next = blocked or waits is None or (step is not None and step[0] < waits)
                    # Whoever stops reading waits for no reader.
                    late = late and stop is None
                    if step is not None and is_next and not late and self._heard.has(step[1]):
                        if step[2] == "s" and not self._heard.is_quiet(now=self._now):
                            return _TICK / 1000
                        self._do(step[2])
                        continue
                    if step is None and not found:
                        # One that was left running goes on until it is killed, or the run ends.
                        return None if self._exit.came else _wait.HOLD_SECONDS
                return _TICK / 1000 if late else _TICK * 5 / 1000 if blocked else self._patience()

    def _patience(self) -> float:
        """How long to wait for the agent, of whom something is missing."""
        with self._lock:
            needs = self._missing()
            if needs is None:
                return _wait.HOLD_SECONDS
            rest = self._heard.rests(needs, now=self._now)
            if rest is not None:
                return rest
            if self._now - self._moved_at < _wait.HOLD_SECONDS:
                return self._moved_at - self._now + _wait.HOLD_SECONDS
            lacks = self._heard.lacks(needs)
        self._give_up(lacks)
        return 0

    def _give_up(self, waited_for: str) -> None:
        self._run.note_error(f"{self._call.span.name}: the child process waits for {waited_for}")
        self._killed = signal.SIGKILL
        self._poke()

    def _missing(self) -> turns.Needs | None:
        return next((needs for needs in self._script.waits_for() if not self._heard.has(needs)), None)

    def _listen(self, pause: float) -> None:
        watch = select.poll()
        watch.register(self._wake[0], select.POLLIN)
        if self._source is not None:
            watch.register(self._source, select.POLLIN)
        began = time.monotonic()
        ready = dict(watch.poll(max(0, int(pause * 1000 + 0.5))))
        # A pause that came to its end counts whatever the clock says, which tests stop or move.
        self._now += min(pause, max(0.0, time.monotonic() - began)) if ready else pause
        if self._wake[0] in ready:
            os.read(self._wake[0], SIZE)
        if self._source is not None and self._source in ready:
            self._hear()

    def _hear(self) -> None:
        with self._hearing:
            if self._source is None or not is_ready(self._source):
                return  # another thread has heard it meanwhile
            data = os.read(self._source, SIZE)
            with self._lock:
                self._take(data)
                if not data:
                    self._deafen()

    def _hear_rest(self) -> None:
        """What is on its way, without waiting for more."""
        rest = b"" if self._source is None else left_in(self._source)
        if rest:
            self._take(rest)

    def _take(self, data: bytes) -> None:
        self._heard.take(data, now=self._now)
        self._moved_at = self._now

    def _deafen(self) -> None:
        if self._source is not None:
            os.close(self._source)
            self._source, self._heard.closed = None, True
        self._deaf.set()

    def _put(self, output: Outlet) -> None:
        if output.queue[0][1] is not None:
            output.put(self._now)
            self._moved_at = self._now
            return
        with self._lock:
            output.queue.clear()
            last = self._reaped and not self._script.has_output
        if last:
            self._finish()
        output.shut()

    def _gone_on(self) -> None:
        """The agent does something else: if the child stops reading then, there is no more to come."""
        with self._hearing, self._lock:
            stop = self._stop()
            if stop is None or self._source is None:
                return
            self._hear_rest()
            self._poke()  # what was heard here, the thread will not find
            if not self._heard.has(stop[1]):
                return
            self._is_past = True
        # Closing is the thread's: while it polls a file, nobody else's closing ends it.
        self._deaf.wait(_CLOSING_SECONDS)

    def _stop(self) -> tuple[int, turns.Needs, str] | None:
        """The step with which the child stops reading, if that is next."""
        return self._script.rest[0] if self._script.rest and self._script.rest[0][2] in _DEAF else None

    def _do(self, word: str) -> None:
        self._script.rest.popleft()
        if word in _DEAF:
            if word == "s":
                self._hear_rest()
            self._deafen()
        elif word == "x":
            self._leave(self._recorded.get("exit"))

    def _die(self, code: int) -> None:
        self._script.drop()
        self._leave(code)

    def _leave(self, code: int | None) -> None:
        self._deafen()
        self._exit.come(code)

    def _close(self) -> None:
        with self._lock:
            self._stopped = True
            self._script.shut()
            if not self._exit.came:
                self._leave(-signal.SIGKILL)
            self._deafen()
            for number in self._wake:
                os.close(number)
            self._wake = (-1, -1)

    def _ends_by_itself(self) -> bool:
        """Whether a child that was not killed then has all that it waited for."""
        return any(step.word == "x" for step in self._played.steps) and self._missing() is None

    def _request(self) -> dict[str, Any]:
        return self._command.request(self._env, self._heard.all())

    def _poke(self) -> None:
        with self._lock:
            if self._wake[1] >= 0:
                os.write(self._wake[1], b"x")

    def _left(self) -> None:
        """The run ends, and the agent has not waited for it."""
        self._is_left = True
        self._finish()
        with self._lock:
            self._stopped = True
        self._poke()

    def _finish(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            # When a child is noticed that nobody waits for is chance: at the end all count that could be over by then.
            by_itself = self._killed is None and self._ends_by_itself()
            code = self._exit.code if self._reaped else self._recorded.get("exit") if by_itself else None

        def finish() -> None:
            self._call.asked(self._request())
            _exits.tell(self._call, code)
            same = code == self._recorded.get("exit")
            self._call.finish(self._recorded if same else {**self._recorded, "exit": code, "end": "closed"})

        with self._lock:
            self._run.tried(finish)
            self._is_told = not self._is_left
