"""What a server that is a child process writes to its stderr: passed on at once, and its beginning kept.

Invariants:

* The child never waits for us: a thread of its own reads all that it writes, also when nobody takes it any more.
* Nobody waits for the thread longer than a moment: what children of the child still write is passed on after the end.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .._descriptors import written

KEPT = 65_536
"""How many bytes are recorded, counted from the start."""

_READ = 65_536
_PATIENCE = 1.0


class Errlog:
    """Stands between a child and the place where its author wanted its stderr.

    Args:
        place: descriptor of that place, ours to close; ``None``: nobody wanted it.
    """

    def __init__(self, place: int | None) -> None:
        self._place = place
        self._kept = bytearray()
        self._count = 0
        self._source, write = os.pipe()
        self.end = os.fdopen(write, "w", encoding="utf-8")
        """What the child is given."""
        self._thread = threading.Thread(target=self._relay, name="spanchain-mcp-stderr", daemon=True)
        self._thread.start()

    def given(self) -> None:
        """The child has its end, or there is none: the thread may see the end of what it writes."""
        self.end.close()

    def over(self) -> None:
        """Wait, for a moment, until all that the child has written is here: it has ended."""
        self._thread.join(_PATIENCE)

    @property
    def heard(self) -> Mapping[str, Any] | None:
        """What it has written so far; ``None``: nothing."""
        count, kept = self._count, bytes(self._kept)
        if not count:
            return None
        if count > len(kept):
            # Half a credential would not be recognised as one.
            kept = kept[: max(kept.rfind(b"\n"), kept.rfind(b"\r")) + 1 or kept.rfind(b" ") + 1]
        return {"text": kept.decode("utf-8", "backslashreplace"), "bytes": count}

    def _relay(self) -> None:
        try:
            while chunk := os.read(self._source, _READ):
                self._kept += chunk[: max(0, KEPT - len(self._kept))]
                self._count += len(chunk)
                if self._place is not None and not written(self._place, chunk):
                    os.close(self._place)
                    self._place = None
        finally:
            os.close(self._source)
            if self._place is not None:
                os.close(self._place)


def listen(errlog: Any) -> Errlog | None:
    """Stand before the place that ``stdio_client`` was given; ``None`` if a child could not be given that at all."""
    opened = _opened(errlog)
    return None if opened is None else Errlog(opened())


def play(heard: Mapping[str, Any], errlog: Any) -> None:
    """Write what a child had written to the place that ``stdio_client`` was given."""
    opened = _opened(errlog)
    place = None if opened is None else opened()
    if place is None:
        return
    data = heard["text"].encode("utf-8", "surrogatepass")

    def write() -> None:
        written(place, data)
        os.close(place)

    # The place may be a pipe that nobody reads before the connection stands.
    thread = threading.Thread(target=write, name="spanchain-mcp-stderr", daemon=True)
    thread.start()
    thread.join(_PATIENCE)


def _opened(errlog: Any) -> Callable[[], int | None] | None:
    """Opens what a child would be given for it, as ``subprocess`` reads it."""
    if errlog is None:
        return lambda: os.dup(2)
    if errlog == subprocess.DEVNULL:
        return lambda: None
    try:
        number = errlog if isinstance(errlog, int) else errlog.fileno()
    except (AttributeError, OSError, ValueError):  # the library says so itself
        return None
    return None if number < 0 else lambda: os.dup(number)
