"""The line of the user's own code that is at work."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

_KINDS = ("stdlib", "platstdlib", "purelib", "platlib")


def call_site() -> str:
    """``file:line in function`` of the nearest frame of the user's own code.

    Own code is what lies neither in the standard library nor in site-packages; without such a frame (a library's own
    thread), the outermost frame is named.
    """
    frame: Any = sys._getframe(1)
    outermost = frame
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith("<"):
            outermost = frame
            if not _is_library(name):
                break
        frame = frame.f_back
    frame = frame or outermost
    return f"{shown(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"


def _is_library(filename: str) -> bool:
    return filename.startswith(_libraries())


@functools.lru_cache(maxsize=1)
def _libraries() -> tuple[str, ...]:
    import sysconfig  # takes longer than the rest of a run's start

    return (*map(sysconfig.get_path, _KINDS), str(Path(__file__).parent.parent))


def shown(filename: str) -> str:
    """A file's name, from the working directory on if it is below it."""
    try:
        return str(Path(filename).resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):  # not below the working directory, or that is gone
        return filename
