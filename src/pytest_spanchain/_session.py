"""What a session of pytest knows that no test carries: its record mode, and what happened beside the runs of tests.

Invariants:

* each process has its own; what an xdist worker knows travels with the reports of its tests;
* what is taken is taken once, so that it is counted once;
* nothing here makes a run or refuses a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ._hosts import is_loopback
from ._options import Said

COUNTED = ("replayed", "recorded", "live", "unverified")
"""What the session line adds up."""


class Session:
    """One session of pytest in this process.

    Args:
        said: what was said about the record mode.
        homes: where the user's project is: the directory that pytest was called in, and its root directory.
    """

    def __init__(self, said: Said, *, homes: tuple[str, ...] = ()) -> None:
        self.said = said
        self.homes = homes
        self.wanted: frozenset[str] = frozenset()
        """Names of the fixtures that marked tests ask for."""
        self.errors: list[BaseException] = []
        """What fixtures that outlive tests raised: pytest raises it again for each test, and it is no test's own."""
        self.alone: Callable[[str], str] = lambda option: f"pytest {option}"
        """What to type, with an option, to run only the test that is being run."""
        self._lock = threading.Lock()
        self._counts: list[dict[str, Any]] = []
        self._fixtures: list[str] = []
        self._calls: dict[str, int] = {}
        self._late: list[tuple[list[str], int]] = []

    def count(self, counts: Mapping[str, Any]) -> None:
        """Remember what a run came to that is no test's."""
        with self._lock:
            self._counts.append(dict(counts))

    def watch(self, late: list[str]) -> None:
        """Remember where a run that is over keeps what it still refuses; what it has refused by now is told."""
        with self._lock:
            self._late.append((late, len(late)))

    def enter(self, fixture: str) -> None:
        """From here on, a fixture that outlives tests is set up or torn down."""
        with self._lock:
            self._fixtures.append(fixture)

    def leave(self, fixture: str) -> None:
        """From here on, it no longer is; safe to call twice."""
        with self._lock:
            if fixture in self._fixtures:
                self._fixtures.remove(fixture)

    def met(self, host: str) -> None:
        """A request goes out that no run owns.

        What a fixture asks of this machine is not counted: fixtures start servers and wait for them.
        """
        if is_loopback(host):
            return
        with self._lock:  # the fixture may be over meanwhile: the call may be a thread's
            if self._fixtures:
                self._calls[self._fixtures[-1]] = self._calls.get(self._fixtures[-1], 0) + 1

    def take(self, *, over: bool = False) -> list[dict[str, Any]]:
        """What has not been told yet, as ``counts``.

        Args:
            over: whether the session is: then also what was refused to what tests had left behind.
        """
        if not (self._counts or self._calls or over):  # nearly always, and asked three times a test
            return []
        with self._lock:
            taken, self._counts = self._counts, []
            calls, self._calls = self._calls, {}
            late = [text for texts, told in self._late for text in texts[told:]] if over else []
            if over:
                self._late.clear()
        taken += [counts(live=count, notes=[_outside(name, count)]) for name, count in calls.items()]
        return taken + [counts(notes=[text]) for text in dict.fromkeys(late)]


def counts(*, live: int = 0, notes: list[str], test: bool = False) -> dict[str, Any]:
    """What the session line counts of something that was neither replayed nor recorded.

    Args:
        live: calls that really happened.
        notes: what the reader should know.
        test: whether the notes are about a test.
    """
    nothing = {"changes": "", "volatile": [], "spans_only": ""}
    return {**dict.fromkeys(COUNTED, 0), **nothing, "live": live, "notes": notes, "test": test}


_open: list[Session] = []


def current() -> Session | None:
    """The session that is going on in this process, the innermost if one runs another."""
    return _open[-1] if _open else None


def begin(said: Said, *, homes: tuple[str, ...] = ()) -> Session:
    """A session begins; the arguments are those of ``Session``."""
    session = Session(said, homes=homes)
    _open.append(session)
    return session


def end(session: Session) -> None:
    """It is over; safe to call twice."""
    if session in _open:
        _open.remove(session)


def _outside(fixture: str, count: int) -> str:
    calls = f"{count} call{'s' if count > 1 else ''}"
    return f"fixture {fixture} made {calls} outside of every cassette: live, in replay as well (see use_cassette)"
