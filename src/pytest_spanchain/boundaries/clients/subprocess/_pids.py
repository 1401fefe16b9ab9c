"""Numbers of child processes: those of recorded children, and numbers that no kernel gives for served ones.

Whoever waits for a child or signals it does so by its number, at the end: ``Popen``, asyncio's watchers, the agent
itself. The functions of ``os`` that take one are asked here first; for every other number they are what they were.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

FIRST = 1 << 30
"""Linux gives numbers up to 2**22, other systems fewer."""


class Child(Protocol):
    """A recorded or a served child."""

    own_group: bool

    def signalled(self, number: int) -> None:
        """It is sent a signal."""

    def reaped(self, code: int) -> None:
        """Its exit code was taken."""

    def wait(self, timeout: float | None) -> int | None:
        """Wait for the exit code of a served one; ``None`` if it still runs then."""

    def exit_file(self) -> int:
        """A file descriptor that is readable once a served one has exited."""


_numbers = itertools.count(FIRST)
_lock = threading.Lock()
_children: dict[int, Child] = {}
_PATCHED = "_spanchain_pids"


def draw() -> int:
    """A number for a served child."""
    return next(_numbers)


def know(number: int, child: Child) -> None:
    """Watch what is done to a child by its number."""
    with _lock:
        _children[number] = child


def forget(number: int) -> None:
    """It was waited for: its number may be another's from now on."""
    with _lock:
        _children.pop(number, None)


def served(number: int) -> Child | None:
    """The served child of that number."""
    return _known(number) if number >= FIRST else None


def install() -> None:
    """Patch the functions of ``os``, once, for the life of the process."""
    for name, around in (
        ("kill", _kill),
        ("killpg", _killpg),
        ("getpgid", _getpgid),
        ("waitpid", _waitpid),
        ("pidfd_open", _pidfd_open),
    ):
        original = getattr(os, name, None)
        if original is not None and not hasattr(original, _PATCHED):
            patched = functools.wraps(original)(functools.partial(around, original))
            setattr(patched, _PATCHED, True)
            setattr(os, name, patched)


def exit_file(original: Callable[..., int]) -> Callable[..., int]:
    """A ``pidfd_open`` that knows served children, for those who have taken it from ``os`` before."""
    return functools.wraps(original)(functools.partial(_pidfd_open, original))


def _known(number: Any) -> Child | None:
    return _children.get(number) if isinstance(number, int) else None


def _kill(original: Any, pid: int, signal: int, /) -> None:
    child = _known(pid)
    if child is not None and signal:
        child.signalled(int(signal))
    if child is None or pid < FIRST:
        original(pid, signal)


def _killpg(original: Any, pgid: int, signal: int, /) -> None:
    child = _known(pgid)
    if child is not None and child.own_group and signal:
        child.signalled(int(signal))
    if child is None or pgid < FIRST:
        original(pgid, signal)


def _getpgid(original: Any, /, pid: int) -> int:
    child = _known(pid)
    if child is None or pid < FIRST:
        return int(original(pid))
    return pid if child.own_group else os.getpgrp()


def _waitpid(original: Any, pid: int, options: int, /) -> tuple[int, int]:
    child = _known(pid)
    if child is None:
        return original(pid, options)  # type: ignore[no-any-return]
    if pid < FIRST:
        found, status = original(pid, options)
        if found == pid and (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
            child.reaped(os.waitstatus_to_exitcode(status))
        return found, status
    code = child.wait(0 if options & os.WNOHANG else None)
    if code is None:
        return 0, 0
    child.reaped(code)
    return pid, code << 8 if code >= 0 else -code


def _pidfd_open(original: Any, /, pid: int, flags: int = 0) -> int:
    child = _known(pid)
    return int(original(pid, flags)) if child is None or pid < FIRST else child.exit_file()
