"""What starts processes past the recording: said once for each place, where it is the user's own code that does it.

Libraries start processes of their own (``uname -p``, compilers, browsers), about which the user can do nothing: they
are told by the nearest caller that is neither the standard library nor a layer over it.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from collections.abc import Mapping
from typing import Any

from ...._guard.site import shown
from ...._run import OWNERSHIP, Run
from .._variables import GATEWAY
from . import _command as commands

_WAYS = {
    "os.system": lambda args: _command(args[0], shell=True),
    "os.posix_spawn": lambda args: _command(args[1]),
    "os.exec": lambda args: _command(args[1]),
}
_FORKS = ("os.fork", "os.forkpty")
_HEARD = frozenset((*_WAYS, *_FORKS))
_FORKERS = {("os", "_spawnvef"): "args", ("pty", "spawn"): "argv", ("ptyprocess.ptyprocess", "spawn"): "argv"}
"""Functions that fork in order to start a program, and their variable that holds its command line."""
_STANDARD = tuple(path for key, path in sysconfig.get_paths().items() if key in ("stdlib", "platstdlib"))
_LIBRARIES = tuple(path for key, path in sysconfig.get_paths().items() if key in ("purelib", "platlib"))
_LAYERS = ("anyio", "trio", "pexpect", "ptyprocess", "pytest_spanchain")
_LONGEST = 80
_hooked = False


def install() -> None:
    """Listen for processes that are not started by ``Popen``; once, for the life of the process."""
    global _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)


def started(command: commands.Command, *, env: Mapping[Any, Any] | None = None) -> None:
    """A process is about to be started that nothing records.

    Args:
        command: what it is.
        env: its environment, if it is given one; what a gateway has made is meant to run in replay.
    """
    run = OWNERSHIP.peek()
    if env is not None and GATEWAY in env:
        return
    if run is None or run.capture.enclosing() is not None:
        return
    site = _starter()
    if site is None:
        return
    name = next(iter(command.spellings[0].split()), "")
    run.note(
        f"process {_cut(run, command)!r} was started at {site} and is not recorded: replay starts it again; record it"
        f" with commands=['{os.path.basename(name)} *'], or, if it is the agent, start it with env=gateway.env of"
        " cassette.gateway()"
    )


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event not in _HEARD or not OWNERSHIP.active:
        return
    if event in _FORKS:
        _forked(event)
    if event not in _WAYS or sys._getframe(1).f_code.co_name == "_posix_spawn":
        return
    try:
        command = _WAYS[event](args)
    except (TypeError, IndexError):
        return  # it fails by itself
    if command is not None:
        _past(command, event)


def _forked(event: str) -> None:
    """The process is about to be copied: of what is started then, the copy alone would hear."""
    run = OWNERSHIP.peek()
    names = []
    frame: Any = sys._getframe(2)
    while frame is not None:
        home, function = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        variable = _FORKERS.get((home, function))
        command = None if variable is None else _command(frame.f_locals.get(variable))
        if command is not None:
            _past(command, event)
            return
        names.append(home.partition(".")[0])
        if names[-1] not in ("os", "pty", "ptyprocess"):
            break
        frame = frame.f_back
    # What multiprocessing copies is the agent itself.
    if run is None or not run.settings.commands or run.capture.enclosing() or "multiprocessing" in names:
        return
    site = _starter()
    if site is not None:
        run.note_error(f"a process was forked at {site}, which cannot be recorded: start it by subprocess")


def _past(command: commands.Command, event: str) -> None:
    """A program is about to be started past ``Popen``."""
    run = OWNERSHIP.peek()
    if run is None or not commands.matches(command.spellings, run.settings.commands) or run.capture.enclosing():
        started(command)
        return
    way = "a fork" if event in _FORKS else event
    run.note_error(
        f"process {_cut(run, command)!r} is started by {way}, which cannot be recorded: start it by subprocess"
    )


def _command(words: Any, *, shell: bool = False) -> commands.Command | None:
    return commands.command_of({"args": words, "executable": None, "cwd": None, "shell": shell})


def _cut(run: Run, command: commands.Command) -> str:
    """A command line that is short enough to be shown, cut where nothing is left to be redacted."""
    given = command.spellings[0]
    if given in command.argv[2:3]:  # a shell's, which need not be words
        text = " ".join(run.redactor.arguments(given.split()))
    else:
        text = shlex.join(run.redactor.arguments(shlex.split(given)))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _starter() -> str | None:
    """``file:line in function`` of the user's code that starts a process; ``None`` if it is a library's.

    What runs in a worker thread of a layer has no caller that could be told; it is taken for the user's.
    """
    frame: Any = sys._getframe(1)
    layered = False
    while frame is not None:
        name = frame.f_code.co_filename
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in _LAYERS:
            layered = layered or package != "pytest_spanchain"
        elif name.startswith(_LIBRARIES):
            return None
        elif not name.startswith(("<", *_STANDARD)):
            return f"{shown(name)}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return "an unknown place" if layered else None
