"""What a run finds on its way: what fails it whatever the agent does, and what its reader should know.

Whoever refuses something to the agent says so here first, so that an agent that swallows every exception still cannot
pass. Safe to use from any thread, also when the run is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from ._model import Attempt, Deviation
from .errors import LiveCallError, MissError, RunClosedError, SpanchainError


class Findings:
    """What one run finds.

    Args:
        cassette: name of the cassette's file.
        shown: makes a text fit to be shown: without secrets.
    """

    def __init__(self, *, cassette: str, shown: Callable[[str], str]) -> None:
        self._cassette = cassette
        self._shown = shown
        self._lock = threading.Lock()
        self._notes: dict[str, None] = {}
        self._errors: list[str] = []
        self._misses: list[str] = []
        self._attempts: list[Attempt] = []
        self._unrecorded: dict[str, Attempt] = {}
        self.late: list[str] = []
        """What was refused after the end, whatever became of the error."""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What was refused because it would have left the process."""
        with self._lock:
            return tuple(self._attempts)

    def note(self, text: str) -> None:
        """Remember what the reader should know, whatever becomes of the run; each thing once."""
        with self._lock:
            self._notes[self._shown(text)] = None

    def note_error(self, text: str) -> None:
        """Remember what fails the run whatever the agent does."""
        with self._lock:
            self._errors.append(self._shown(text))

    def tried(self, step: Callable[[], None]) -> None:
        """Do a step of the end; if it fails, the run does, and what is left is still done."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing that was recorded may be lost by it
            self.note_error(str(error) if isinstance(error, SpanchainError) else repr(error))

    def miss(self, message: str) -> MissError:
        """Remember that replay had nothing to serve, and make the error for the agent."""
        with self._lock:
            self._misses.append(message)
        return MissError(f"{message} (cassette {self._cassette}; the test will fail whatever the agent does with this)")

    def too_late(self, text: str) -> RunClosedError:
        """Remember what was refused after the end, and make the error for whoever asked."""
        self.late.append(text)
        return RunClosedError(text)

    def refused(self, attempt: Attempt, *, counts: bool) -> LiveCallError:
        """Remember what replay does not let out, and make the error for whoever tried.

        Args:
            attempt: what it was.
            counts: whether it fails the run.
        """
        if counts:
            with self._lock:
                self._attempts.append(attempt)
        return LiveCallError(
            f"replay does not let anything out: {attempt.target} was contacted at {attempt.site}. Make the function"
            f" that does it one of the tools, and it is recorded; or let it out with allow_hosts=[{attempt.host!r}]"
        )

    def unrecorded(self, attempt: Attempt) -> None:
        """Remember what left the process elsewhere than at a boundary: replay will refuse it."""
        # Once for each function: a line that sends on a connection says no more than the one that made it.
        file, _, rest = attempt.site.rpartition(":")
        with self._lock:
            self._unrecorded.setdefault(f"{attempt.target} {file} {rest.partition(' ')[2]}", attempt)

    def errors(self, deviations: Iterable[Deviation]) -> Iterator[str]:
        """What fails the run besides attempts.

        Args:
            deviations: what the comparison came to.
        """
        yield from self._errors
        if not any(deviation.failing for deviation in deviations):
            yield from self._misses  # no deviation shows them: they fail the run in their own words

    def notes(self) -> Iterator[str]:
        """What the reader should know."""
        yield from self._notes
        for attempt in self._unrecorded.values():
            yield (
                f"{attempt.target} was contacted at {attempt.site}, which was not recorded: replay will refuse it,"
                f" unless the function that does it is one of the tools, or with allow_hosts=[{attempt.host!r}]"
            )
