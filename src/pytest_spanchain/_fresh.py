"""What this process knows of itself, for volatile values: the uuids it made, its paths, its number and its ports.

Nothing is asked of the values: a uuid is fresh because this process was seen to make it. Only so many are remembered
that a process which makes them all day does not grow.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._forks import renewed
from ._observe import observe

if TYPE_CHECKING:
    from ._volatile import Clock, Context

_STARTED = time.time_ns(), time.monotonic_ns()
_REMEMBERED = {"uuid": 100_000, "tmp": 10_000, "port": 10_000, "cwd": 1_000}
_OLD_NS = 200_000_000
"""How long what is known of the clock serves again; far below what a clock is allowed to be off."""
_LOOPBACK = r"(?:localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0|\[::1?\]):(\d{1,5})(?!\d)"
_WATCHED = "_spanchain_watched"

_TRUE = {"steps": time.monotonic_ns}
"""Out of the sight of those who stop the clocks of modules (freezegun)."""
_MOVES = 16
"""So many moves of the clock are remembered of one run."""

_lock = renewed(threading.RLock())  # what is collected meanwhile may make a uuid itself
_seen: dict[str, dict[str, None]] = {kind: {} for kind in _REMEMBERED}
_latest: Context | None = None
_asked_at = 0
_hooked = False


class _Move(NamedTuple):
    """A clock that the tests have stopped or moved: from when until when it showed what, and when that was by steps."""

    start_ns: int
    end_ns: int
    steps: int

    def goes_on(self, wall: int, steps: int) -> bool:
        """Whether it is this one that is read again: it stands, or it has gone on as time has."""
        return wall == self.end_ns or abs((wall - self.end_ns) - (steps - self.steps)) < _OLD_NS


_moves: list[_Move] = []
_run_began = _STARTED[1]


def saw(kind: str, text: str) -> None:
    """Remember a value.

    Args:
        kind: ``uuid``, ``tmp``, ``port`` or ``cwd``.
        text: the value; of a uuid, as ``str`` gives it.
    """
    global _latest
    # Paths as they are written and as they are.
    texts = {text, os.path.realpath(text)} if kind in ("tmp", "cwd") else {text}
    with _lock:
        known = _seen[kind]
        for one in texts:
            if one not in known:
                _latest = None
                known[one] = None
        while len(known) > _REMEMBERED[kind]:
            del known[next(iter(known))]


def saw_fixture(name: str, value: Any) -> None:
    """Remember the temporary directories that pytest makes; a plan makes none (``--setup-plan``)."""
    if name == "tmp_path_factory" and hasattr(value, "getbasetemp"):
        value = value.getbasetemp()
    if name in ("tmp_path", "tmpdir", "tmp_path_factory") and isinstance(value, os.PathLike):
        saw("tmp", str(os.fspath(value)))


def watch() -> None:
    """Notice from now on which temporary files are made, and where the process is; also all of ``watch_makers``.

    A run starts: of the clocks that were moved before, only one that still is matters to it.
    """
    global _hooked, _run_began
    steps = look_at_clock()
    with _lock:
        del _moves[: -1 if _moves and _moves[-1].steps == steps else None]
        _run_began = steps
    for path in _working_directory():
        saw("cwd", path)
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hear)
    watch_makers()


def watch_makers() -> None:
    """Notice from now on which uuids are made, and where servers listen: modules and fixtures do so before any run.

    It is done before it is known whether there will be one, so it costs next to nothing.
    """
    for name in ("uuid1", "uuid4", "uuid6", "uuid7"):
        make = getattr(uuid, name, None)
        if isinstance(make, FunctionType):
            observe(make, lambda made: saw("uuid", str(made)))
    for name in ("bind", "listen"):  # a free port that is looked for, for a server elsewhere, is only bound
        if not hasattr(getattr(socket.socket, name), _WATCHED):
            setattr(socket.socket, name, _telling_its_port(getattr(socket.socket, name)))


def _telling_its_port(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def seen(self: socket.socket, *args: Any) -> Any:
        made = make(self, *args)
        if self.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                saw("port", str(self.getsockname()[1]))
        return made

    setattr(seen, _WATCHED, True)
    return seen


def look_at_clock() -> int:
    """Notice a clock that is stopped or moved just now; some are only while the test's body runs.

    Returns:
        The steps of a clock that nobody moves, in nanoseconds.
    """
    global _latest
    wall, steps = time.time_ns(), _TRUE["steps"]()
    if _is_moved(wall):
        with _lock:
            if not (_moves and _moves[-1].goes_on(wall, steps)):
                # It may have been read before we look at it, but not before the run.
                _moves.append(_Move(wall - (steps - _run_began), wall, steps))
                _latest = None
            _moves[-1] = _moves[-1]._replace(end_ns=wall, steps=steps)
            del _moves[:-_MOVES]
    return steps


def _is_moved(wall: int) -> bool:
    """Whether the clock is not the machine's: whoever moves clocks leaves ``ctime`` alone."""
    shown = time.ctime()
    return all(time.ctime(wall // 10**9 + beside) != shown for beside in (0, -1, 1))


def context() -> Context:
    """What is known now."""
    global _latest, _asked_at
    settled = frozenset(port for value in list(os.environ.values()) for port in re.findall(_LOOPBACK, value))
    for port in settled:
        saw("port", port)
    for path in _working_directory():
        saw("cwd", path)
    latest, steps = _latest, look_at_clock()
    if latest is None or _latest is None or latest.settled != settled or steps - _asked_at >= _OLD_NS:
        latest, _asked_at = _context(settled), steps
        _latest = latest
    return latest


def _context(settled: frozenset[str]) -> Context:
    from ._volatile import Context

    home = os.path.expanduser("~")
    temporary = tempfile.gettempdir()
    with _lock:
        known = {kind: set(texts) for kind, texts in _seen.items()}
    known["tmp"] |= {temporary, os.path.realpath(temporary)}
    paths = {"cwd": known["cwd"], "tmp": known["tmp"], "home": {home, os.path.realpath(home)}}
    values = {"uuid": known["uuid"], "port": known["port"], "pid": {str(os.getpid())}}
    values |= {kind: set(filter(_tells, found)) for kind, found in paths.items()}
    return Context(_clocks(), {kind: frozenset(found) for kind, found in values.items()}, settled)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event in ("tempfile.mkdtemp", "tempfile.mkstemp") and isinstance(args[0], str):
        saw("tmp", args[0])


def _clocks() -> tuple[Clock, ...]:
    """The machine's from the start of the process until now; of one that was set meanwhile, only as long as it took.

    Two where the local time was changed meanwhile, as it is in spring and in autumn. What tests have moved comes after
    it: a date that their author chose is not the machine's.
    """
    from ._volatile import Clock

    now, by_steps = time.time_ns(), _TRUE["steps"]() - _STARTED[1]
    if _is_moved(now):
        now = _STARTED[0] + by_steps
    by_wall = now - _STARTED[0]
    start = now - (min(by_wall, by_steps) if by_wall > 0 else by_steps)
    offsets = dict.fromkeys(map(_offset, (now, start)))
    with _lock:
        moved = [Clock(one.start_ns, one.end_ns, _offset(one.end_ns), moved=True) for one in _moves]
    return (*(Clock(start, now, offset) for offset in offsets), *moved)


def _offset(moment: int) -> int:
    return time.localtime(moment / 1e9).tm_gmtoff


def _working_directory() -> list[str]:
    try:
        return [os.getcwd()]
    except OSError:  # it is gone
        return []


def _tells(path: str) -> bool:
    """Whether a path tells anything: not the root of everything, and not what has no place."""
    return os.path.isabs(path) and os.path.dirname(path) != path
