"""subprocess, and all that stands on it (asyncio, anyio, trio, ``os.popen``): met where ``Popen`` starts the child.

Everything before and after that is Popen's own: pipes are real pipes, and who reads, writes, waits and signals does so
as ever. While recording the child runs between pipes of ours; in replay no child is started, and its recording is
played to the same pipes. Only commands that the setting ``commands`` names are met.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ...._run import OWNERSHIP, Call, Crossing, Run, current_run
from ....errors import BoundaryError
from .. import _raised, _variables
from . import _command as commands
from . import _input, _notes, _pids
from ._input import CHILD as _CHILD

_NEEDED = ("args", "executable", "pass_fds", "cwd", "env", "shell")
_HANDLES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def install(lib: ModuleType) -> None:
    """Patch ``subprocess.Popen``.

    Raises:
        BoundaryError: the library looks different.
    """
    if sys.platform == "win32":
        _notes.install()
        return
    try:
        popen = lib.Popen
        start, poll, wait = popen._execute_child, popen._internal_poll, popen._wait
        communicate = _input.communicate(popen.communicate)
        signature = inspect.signature(start)
    except AttributeError as error:
        raise BoundaryError(f"subprocess is not recognised, its processes would not be recorded: {error}") from None
    missing = {*_NEEDED, *_HANDLES} - signature.parameters.keys()
    if missing:
        raise BoundaryError(
            f"subprocess is not recognised, its processes would not be recorded: no {', '.join(sorted(missing))}"
        )

    @functools.wraps(start)
    def execute_child(self: Any, *args: Any, **kwargs: Any) -> None:
        runs = _concerned()
        bound = signature.bind(self, *args, **kwargs) if runs else None
        command = commands.command_of(bound.arguments) if bound is not None else None
        if bound is None or command is None:
            return start(self, *args, **kwargs)  # type: ignore[no-any-return]
        if not any(commands.matches(command.spellings, run.settings.commands) for run in runs):
            _notes.started(command, env=bound.arguments["env"])
            return start(self, *args, **kwargs)  # type: ignore[no-any-return]
        run = current_run()
        # What another recorded call starts is part of it; one that another run names is not this run's.
        if (
            run is None
            or run.inside("mcp", "process")
            or not commands.matches(command.spellings, run.settings.commands)
        ):
            return start(self, *args, **kwargs)  # type: ignore[no-any-return]
        return _Start(self, run, command, bound, start).begin()

    @functools.wraps(poll)
    def internal_poll(self: Any, *args: Any, **kwargs: Any) -> Any:
        child, before = getattr(self, _CHILD, None), self.returncode
        if child is None or before is not None:
            return poll(self, *args, **kwargs)
        if self.pid >= _pids.FIRST:
            child.hurry()
            self.returncode = child.wait(0)
        else:
            poll(self, *args, **kwargs)
        if self.returncode is not None:
            child.reaped(self.returncode)
        return self.returncode

    @functools.wraps(wait)
    def wait_for(self: Any, timeout: float | None) -> Any:
        child, before = getattr(self, _CHILD, None), self.returncode
        if child is None or before is not None:
            return wait(self, timeout=timeout)
        if self.pid < _pids.FIRST:
            wait(self, timeout=timeout)
        else:
            child.hurry()
            code = child.wait(timeout if timeout is None else max(0.0, timeout))
            if code is None:
                raise lib.TimeoutExpired(self.args, timeout)
            self.returncode = code
        child.reaped(self.returncode)
        return self.returncode

    popen._execute_child, popen._internal_poll, popen._wait = execute_child, internal_poll, wait_for
    popen.communicate = communicate
    _pids.install()
    _notes.install()


def _concerned() -> tuple[Run, ...]:
    """The runs whose business a child may be."""
    own = OWNERSHIP.peek() or OWNERSHIP.left_behind()
    return (own,) if own is not None else OWNERSHIP.active


class _Start:
    """One start of one child.

    Args:
        popen: the object that is being made.
        run: whose child it is.
        command: what is started.
        bound: the arguments of ``_execute_child``.
        start: the real thing.
    """

    def __init__(
        self, popen: Any, run: Run, command: commands.Command, bound: inspect.BoundArguments, start: Callable[..., None]
    ) -> None:
        self._popen = popen
        self._run = run
        self._command = command
        self._bound = bound
        self._start = start
        self._given: dict[str, Any] = bound.arguments
        self._env = _variables.chosen(self._given["env"], run.settings.command_env)
        from . import _pipes as pipes

        self._lib = pipes
        source = self._handle("p2cread")
        self._source = source if source is not None and pipes.is_readable(source) else None
        self._sinks = self._ways_out()

    def begin(self) -> None:
        """Record it, or serve it.

        Raises:
            BoundaryError: it is started in a way that cannot be recorded.
            MissError: replay has nothing to serve.
        """
        if tuple(self._given["pass_fds"]):
            text = (
                f"{self._command.spellings[0]} is started with pass_fds, and what passes there cannot be recorded:"
                " take it out of commands, or hand it over on its standard input and output"
            )
            self._run.note_error(text)
            raise BoundaryError(text)
        call = self._run.begin(
            Crossing(
                "process",
                self._command.name,
                self._command.request(self._env, b""),
                attributes={"process.executable.name": self._command.name},
                whole=self._source is None,
            )
        )
        assert call.span.exchange is not None
        shown = call.span.graft[1].exchange if call.span.graft is not None else call.span.exchange
        assert shown is not None
        call.span.attributes["process.command_args"] = list(shown.request["argv"])
        if call.recorded is None:
            self._record(call)
        else:
            self._serve(call)

    def _record(self, call: Call) -> None:
        from . import _joined, _recording

        joined = _joined.invite(self._run, call, self._given["env"])
        child = _recording.Recording(self._run, call, self._command, self._env, before_end=joined.collect)
        theirs = {}
        try:
            if self._source is not None:
                theirs["p2cread"] = child.takes_input(self._source, is_own=self._given["p2cwrite"] != -1)
            for handle, (name, sink) in self._sinks.items():
                theirs[handle] = child.gives(name, sink)
            if "c2pwrite" in theirs and self._is_one_way:
                theirs["errwrite"] = theirs["c2pwrite"]
            before = {name: self._given[name] for name in _HANDLES}
            # Our ends of its pipes are closed here: the real thing would close what it is not given.
            self._given.update(theirs, p2cwrite=-1, c2pread=-1, errread=-1, env=joined.env)
            try:
                self._start(*self._bound.args, **self._bound.kwargs)
            finally:
                if self._popen._closed_child_pipe_fds:
                    _close_theirs(before, getattr(self._popen, "_devnull", None))
        except BaseException as error:
            child.failed(error)
            joined.close()
            raise
        finally:
            for number in {*theirs.values()}:
                os.close(number)
        setattr(self._popen, _CHILD, child)
        child.started(self._popen.pid)

    def _serve(self, call: Call) -> None:
        from . import _playback

        assert call.recorded is not None
        error = call.recorded.get("error")
        if error is not None:
            call.finish(call.recorded)
            raise self._error_of(call, error)
        child = _playback.Playback(
            self._run,
            call,
            self._command,
            self._env,
            source=None if self._source is None else os.dup(self._source),
            sinks={name: os.dup(sink) for name, sink in self._sinks.values()},
        )
        self._popen.pid = child.pid
        self._popen._child_created = True
        setattr(self._popen, _CHILD, child)
        self._popen._close_pipe_fds(*(self._given[name] for name in _HANDLES))

    def _handle(self, name: str) -> int | None:
        number = int(self._given[name])
        return None if number == -1 or number == getattr(self._popen, "_devnull", None) else number

    @property
    def _is_one_way(self) -> bool:
        """Whether errors go where the output goes."""
        return bool(self._given["errwrite"] == self._given["c2pwrite"] != -1)

    def _ways_out(self) -> dict[str, tuple[str, int]]:
        """Where output goes that is kept, by the handle: pipes, files, and what the child would inherit."""
        found = {}
        for handle, name, inherited in (("c2pwrite", self._lib.STDOUT, 1), ("errwrite", self._lib.STDERR, 2)):
            number = inherited if self._given[handle] == -1 else int(self._given[handle])
            if self._lib.is_kept(number) and not (self._is_one_way and handle == "errwrite"):
                found[handle] = (name, number)
        return found

    def _error_of(self, call: Call, error: Mapping[str, Any]) -> Exception:
        """The exception of a child that could not be started, as the live one says it."""
        kind = _raised.kind_of(error["type"], "builtins", "subprocess") or RuntimeError
        said = _raised.numbered(error["message"]) if issubclass(kind, OSError) else None
        if said is None:
            return kind(error["message"])
        words = os.strerror(said.number)
        if said.filename is None:
            return kind(said.number, words)
        assert call.span.graft is not None
        golden = call.span.graft[1].exchange
        assert golden is not None
        of_directory = said.filename == golden.request["cwd"]
        return kind(said.number, words, self._given["cwd"] if of_directory else self._command.program)


def _close_theirs(handles: Mapping[str, Any], devnull: int | None) -> None:
    for theirs, ours in (("p2cread", "p2cwrite"), ("c2pwrite", "c2pread"), ("errwrite", "errread")):
        if handles[theirs] != -1 and handles[ours] != -1 and handles[theirs] != devnull:
            os.close(handles[theirs])
