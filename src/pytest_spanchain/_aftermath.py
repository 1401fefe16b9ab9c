"""What a test's own fixtures do after its verdict, while it is being recorded.

The verdict is part of the test and comes before its teardown, so this is in no cassette. It goes out as it always did,
because remote things want to be cleaned up; and the reader is told, because replay refuses the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from . import _guard
from ._model import Attempt
from ._ownership import Nobody
from ._run import OWNERSHIP, Run


class Aftermath:
    """What comes after a recording.

    Args:
        run: the recording, which is over.
    """

    def __init__(self, run: Run) -> None:
        self._calls: dict[str, None] = {}
        self._connections: dict[str, None] = {}
        self._nobody = Nobody(met=self._met)
        self._guard = _guard.Guard(
            refuse=self._notice,
            concerns=lambda: OWNERSHIP.owns(self._nobody),
            owns=lambda: OWNERSHIP.owns(self._nobody),
            allow_hosts=run.settings.allow_hosts,
        )

    @property
    def notes(self) -> list[str]:
        """What replay will refuse."""
        # Of a call that is known, the connection says nothing new: a loop may make it, far from the caller.
        sites = self._calls or self._connections
        return [f"{site}: a call after the verdict is not recorded, and replay will refuse it" for site in sites]

    def entered(self) -> AbstractContextManager[None]:
        """Make the calling context part of it, and what is started there."""
        return OWNERSHIP.own(self._nobody)

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Take note of what happens in the calling context."""
        _guard.arm(self._guard)
        try:
            with self.entered():
                yield
        finally:
            _guard.disarm(self._guard)

    def _met(self) -> None:
        self._calls[_guard.call_site()] = None

    def _notice(self, attempt: Attempt) -> None:
        if not _guard.is_telemetry(attempt.host, attempt.port):
            self._connections[attempt.site] = None
