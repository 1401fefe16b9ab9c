"""Which processes this one has started, as the interpreter's audit events tell."""

from __future__ import annotations

import sys

STARTED: list[str] = []
"""An event and what it was given, for each start since a test cleared it."""

_EVENTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "os.system", "os.spawn")


def _note(event: str, given: tuple[object, ...]) -> None:
    if event in _EVENTS:
        STARTED.append(f"{event} {given}")


sys.addaudithook(_note)
