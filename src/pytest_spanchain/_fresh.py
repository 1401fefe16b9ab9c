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
import time
import uuid
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ._observe import observe

if TYPE_CHECKING:
    from ._volatile import Clock, Context

_STARTED = time.time_ns(), time.monotonic_ns()
_REMEMBERED = 100_000
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0|\[::1?\]):(\d{1,5})(?!\d)")

_seen: dict[str, dict[str, None]] = {kind: {} for kind in ("uuid", "tmp", "port", "cwd")}
_hooked = False


def saw(kind: str, text: str) -> None:
    """Remember a value.

    Args:
        kind: ``uuid``, ``tmp``, ``port`` or ``cwd``.
        text: the value; of a uuid, as ``str`` gives it.
    """
    known = _seen[kind]
    known[text] = None
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]


def saw_fixture(name: str, value: Any) -> None:
    """Remember the temporary directories that pytest makes."""
    if name in ("tmp_path", "tmpdir"):
        saw("tmp", str(value))
    elif name == "tmp_path_factory":
        saw("tmp", str(value.getbasetemp()))


def watch() -> None:
    """Notice from now on which temporary files are made, and where the process is; also all of ``watch_makers``."""
    global _hooked
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
    listen: Any = socket.socket.listen
    if hasattr(listen, "__wrapped__"):
        return

    @functools.wraps(listen)
    def listen_seen(self: socket.socket, *args: Any) -> None:
        listen(self, *args)
        if self.family in (socket.AF_INET, socket.AF_INET6):
            saw("port", str(self.getsockname()[1]))

    socket.socket.listen = listen_seen  # type: ignore[method-assign, assignment]


def context() -> Context:
    """What is known now."""
    from ._volatile import Context

    for value in os.environ.values():
        for port in _LOOPBACK.findall(value):
            saw("port", port)
    return Context(
        (_clock(),),
        {
            "uuid": _seen["uuid"].keys(),
            "pid": {str(os.getpid())},
            "cwd": set(_spellings([*_seen["cwd"], *_working_directory()])),
            "home": set(_spellings([os.path.expanduser("~")])),
            "tmp": set(_spellings([*_seen["tmp"], tempfile.gettempdir()])),
            "port": _seen["port"].keys(),
        },
    )


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event in ("tempfile.mkdtemp", "tempfile.mkstemp") and isinstance(args[0], str):
        saw("tmp", args[0])


def _clock() -> Clock:
    """From the start of the process until now; of a clock that somebody moved meanwhile, only as long as it took."""
    from ._volatile import Clock

    now = time.time_ns()
    by_wall, by_steps = now - _STARTED[0], time.monotonic_ns() - _STARTED[1]
    lasted = min(by_wall, by_steps) if by_wall > 0 else by_steps
    return Clock(now - lasted, now, time.localtime(now / 1e9).tm_gmtoff)


def _working_directory() -> list[str]:
    try:
        return [os.getcwd()]
    except OSError:  # it is gone
        return []


def _spellings(paths: Iterable[str]) -> Iterator[str]:
    """Paths as they are written and as they are; what is the root of everything tells nothing."""
    for path in paths:
        for spelling in (path, os.path.realpath(path)):
            if os.path.isabs(spelling) and os.path.dirname(spelling) != spelling:
                yield spelling
