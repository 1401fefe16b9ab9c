"""Ends of pipes and files: what can be passed on, how much is unread, and one way out of a served child.

Invariant: no flag of a file that the agent may share is changed; what would block is asked for beforehand.
"""

from __future__ import annotations

import array
import fcntl
import math
import os
import select
import stat
import termios
import threading
from collections import deque
from dataclasses import dataclass, field

from .... import _body
from .._descriptors import writable
from ._turns import Needs

SIZE = 65536
STDOUT, STDERR = "stdout", "stderr"

PATIENCE_SECONDS = 0.5
"""How long the next chunk waits for the one before to be read, so that a reader sees one at a time; once for each time
that nobody reads."""

HURRY_SECONDS = 0.005
"""The same where nobody reads, but waits for the exit; and what is for another reader waits no longer either."""

_STEP = 4096  # so many bytes go at once into a pipe that has room


def is_readable(number: int) -> bool:
    """Whether input that comes from there can be passed on: not that of a terminal, or of a device."""
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def is_kept(number: int) -> bool:
    """Whether output that goes there is kept: not what is thrown away."""
    try:
        found, null = os.fstat(number), os.stat(os.devnull)
    except OSError:
        return False
    return not (stat.S_ISCHR(found.st_mode) and found.st_rdev == null.st_rdev)


def is_pipe(number: int) -> bool:
    """Whether it is a pipe, of which somebody reads the other end."""
    return stat.S_ISFIFO(os.fstat(number).st_mode)


def has_room(number: int) -> bool:
    """Whether something can be written without waiting."""
    return bool(writable(number).poll(0))


def unread(number: int) -> int:
    """How many bytes are in a pipe; either end tells."""
    found = array.array("i", [0])
    fcntl.ioctl(number, termios.FIONREAD, found)
    return int(found[0])


def left_in(number: int) -> bytes:
    """What is in a pipe or socket, without waiting for more; of a file nothing."""
    size = 0 if stat.S_ISREG(os.fstat(number).st_mode) else unread(number)
    return os.read(number, size) if size else b""


def is_ready(number: int) -> bool:
    """Whether reading gives something, if only the end, without waiting."""
    return _tells(number, select.POLLIN)


def is_broken(number: int) -> bool:
    """Whether nobody will read what is written there."""
    return _tells(number, 0)


def _tells(number: int, events: int) -> bool:
    watch = select.poll()
    watch.register(number, events)
    return bool(watch.poll(0))


def body_of(chunks: list[bytes]) -> dict[str, object] | None:
    """The plain form of what came out of a child, chunk by chunk."""
    return _body.body_of(chunks, content_type="" if len(chunks) < 2 else _body.STREAMED_TYPES[1])


@dataclass(eq=False)
class Inlet:
    """One way out of a recorded child.

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


class Outlet:
    """One way out of a served child; used by one thread, but for its queue.

    Its times are its user's, in seconds: tests stop clocks.

    Args:
        sink: where it goes, ours to close; ``None`` if it goes nowhere.
    """

    def __init__(self, sink: int | None) -> None:
        self.queue: deque[tuple[int, bytes | None, Needs]] = deque()
        """Place in the recording, chunk (``None`` for the end) and what it waits for."""
        self.is_open = sink is not None
        self.hurried = False
        """Whether somebody waits for the exit."""
        self._sink = sink
        self._is_pipe = sink is not None and is_pipe(sink)
        self._patient = True
        self._written_at = -math.inf

    def state(self, now: float) -> str:
        """``ready`` for what is next, ``full``, or ``patient``: the reader has yet to read what came before.

        ``late`` is the same after a while: what others are to read need not wait for it.
        """
        if self._sink is None or not self._is_pipe or self.queue[0][1] is None:
            return "ready"
        if not unread(self._sink):
            self._patient = True
            return "ready"
        since = now - self._written_at
        if self._patient and since < (HURRY_SECONDS if self.hurried else PATIENCE_SECONDS):
            return "patient" if since < HURRY_SECONDS else "late"
        self._patient = False
        return "ready" if has_room(self._sink) else "full"

    def put(self, now: float) -> None:
        """Let out what is next, which is no end."""
        place, chunk, needs = self.queue[0]
        assert chunk is not None
        size = len(chunk)
        if self._sink is not None:
            try:
                size = os.write(self._sink, chunk if not self._is_pipe or self._patient else chunk[:_STEP])
            except OSError:  # nobody reads it any more: what is left is its end
                self.queue = deque([entry for entry in self.queue if entry[1] is None])
                return
        self._written_at = now
        if size < len(chunk):
            self.queue[0] = (place, chunk[size:], needs)
        else:
            self.queue.popleft()

    def shut(self) -> None:
        """Nothing more comes out."""
        if self._sink is not None:
            os.close(self._sink)
            self._sink, self.is_open = None, False
