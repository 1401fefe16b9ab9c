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
from pathlib import Path
from typing import Any

from ..._run import OWNERSHIP
from . import _process_command as commands

_WAYS = {
    "os.system": lambda args: commands.text_of(args[0]),
    "os.posix_spawn": lambda args: _joined(args[1]),
    "os.exec": lambda args: _joined(args[1]),
}
_STANDARD = tuple(path for key, path in sysconfig.get_paths().items() if key in ("stdlib", "platstdlib"))
_LIBRARIES = tuple(path for key, path in sysconfig.get_paths().items() if key in ("purelib", "platlib"))
_LAYERS = ("anyio", "trio", "pytest_spanchain")
GATEWAY = "SPANCHAIN_GATEWAY"
"""Names the gateway in the environment of its children."""
_LONGEST = 80
_hooked = False


def install() -> None:
    """Listen for processes that are not started by ``Popen``; once, for the life of the process."""
    global _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)


def started(command: str, *, env: Mapping[Any, Any] | None = None) -> None:
    """A process is about to be started that nothing records.

    Args:
        command: its command line.
        env: its environment, if it is given one; what a gateway has made is meant to run in replay.
    """
    run = OWNERSHIP.peek()
    if env is not None and GATEWAY in env:
        return
    if run is None or not run.records or run.capture.enclosing() is not None:
        return
    site = _starter()
    if site is None:
        return
    words = command.split()
    name = words[0] if words else command
    shown = command if len(command) <= _LONGEST else f"{command[: _LONGEST - 1]}…"
    run.note(
        f"process {shown!r} was started at {site} and is not recorded: replay starts it again; record it with"
        f" commands=['{os.path.basename(name)} *']"
    )


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event not in _WAYS or not OWNERSHIP.active or sys._getframe(1).f_code.co_name == "_posix_spawn":
        return
    try:
        command = _WAYS[event](args)
    except (TypeError, IndexError):
        return  # it fails by itself
    run = OWNERSHIP.peek()
    if run is not None and commands.matches((command,), run.settings.commands) and not run.capture.enclosing():
        run.note_error(f"process {command!r} is started by {event}, which cannot be recorded: start it by subprocess")
        return
    started(command)


def _joined(words: Any) -> str:
    return shlex.join(map(commands.text_of, words))


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
            return f"{_shown(name)}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return "an unknown place" if layered else None


def _shown(filename: str) -> str:
    try:
        return str(Path(filename).resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):  # not below the working directory, or that is gone
        return filename
