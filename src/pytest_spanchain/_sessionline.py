"""The line that adds up a session, and what is said with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _session
from ._items import MARKER
from ._options import DEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

WORKER_KEY = "spanchain_counts"
"""What an xdist worker says at its end."""

CLIENTS = "docs/matrix.md"
"""Which stacks are met, and where."""

_MOST_NAMED = 3


class SessionLine:
    """Adds up the runs of a session, whichever process they ran in, and says so at its end.

    Args:
        config: the pytest config.
        marker: our own line about the marker.
        session: what happens beside the tests of this process.
    """

    def __init__(self, config: pytest.Config, *, marker: str, session: _session.Session) -> None:
        self._config = config
        self._marker = marker
        self._session = session
        self._counts = dict.fromkeys(_session.COUNTED, 0)
        self._changes: list[str] = []
        self._notes: dict[str, int] = {}
        self._remarks: dict[str, None] = {}
        self._volatile: list[tuple[str, str]] = []
        self._spans_only: dict[bool, list[str]] = {True: [], False: []}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once; an attempt that is run again only counts what it cost."""
        for counts in getattr(report, "spanchain", ()):
            self._add(counts, again=str(report.outcome) == "rerun" and counts["test"])

    def add_worker(self, output: Mapping[str, Any]) -> None:
        """Add what an xdist worker had left to say when its last test had been reported."""
        for counts in output.get(WORKER_KEY, ()):
            self._add(counts)

    def _add(self, counts: dict[str, Any], *, again: bool = False) -> None:
        for name in self._counts:
            if name == "live" or not again:
                self._counts[name] += counts[name]
        self._volatile += [] if again else counts["volatile"]
        if counts["spans_only"] and not again:
            self._spans_only[bool(counts["recorded"])].append(counts["spans_only"])
        if counts["changes"]:
            self._changes.append(counts["changes"])
        for note in counts["notes"]:
            if counts["test"]:
                self._notes[note] = self._notes.get(note, 0) + 1
            else:
                self._remarks[note] = None

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What re-recordings changed, who else reacts to our marker, and one line a session."""
        for counts in self._session.take(over=True):
            self._add(counts)
        if not (any(self._counts.values()) or self._remarks):
            for line in self._forgotten():
                terminalreporter.write_line(line)
            return
        for line in (*self._changes, *self._rivals(), *self._once()):
            terminalreporter.write_line(line)
        counted = ", ".join(f"{count} {name}" for name, count in self._counts.items())
        terminalreporter.write_line(f"spanchain: {counted}")

    def _forgotten(self) -> list[str]:
        """Somebody wanted to record, and what went out went unseen."""
        mode = self._config.getoption(DEST, None)
        if mode in (None, "none") or self._config.getoption("collectonly", False):
            return []
        return [f"spanchain: record mode {mode!r}, but no test with @pytest.mark.{MARKER} ran: nothing was recorded"]

    def _once(self) -> list[str]:
        """What the reader should know of tests that passed, and of what happened beside them, each thing once."""
        tests = [f"spanchain: in {count} test{'s' if count > 1 else ''}: {note}" for note, count in self._notes.items()]
        return [*tests, *(f"spanchain: {remark}" for remark in self._remarks), *self._silent(), *self._supplied()]

    def _silent(self) -> list[str]:
        """In which tests nothing crossed a boundary: a recording says so, a replay to whoever wants to see everything.

        An agent may do nothing but emit spans; but whoever uses a client that is not met would think it recorded.
        """
        recorded, replayed = self._spans_only[True], self._spans_only[False]
        said = []
        if recorded:
            said.append(
                f"spanchain: nothing crossed a boundary, so no call is recorded, spans only: {_few(recorded)}. If a"
                f" model or a tool was called: {CLIENTS} has the clients that are met, and tools= names functions"
            )
        if replayed and self._config.get_verbosity() > 1:
            said.append(f"spanchain: spans only are compared, for no call is recorded: {', '.join(replayed)}")
        return said

    def _supplied(self) -> list[str]:
        """Which volatile values were not compared; to whoever wants to see everything, also where."""
        if not self._volatile:
            return []
        from ._render.aside import aside

        said = [f"spanchain: {text}" for text in aside(kind for kind, _ in self._volatile)]
        where = [f"  {kind}: {text}" for kind, text in self._volatile] if self._config.get_verbosity() > 1 else []
        return [*said, *where]

    def _rivals(self) -> list[str]:
        """Here and not at collection, which an xdist controller leaves to its workers."""
        registered = [line for line in self._config.getini("markers") if line != self._marker]
        others = [line for line in registered if line.partition("(")[0].partition(":")[0].strip() == MARKER]
        return [f"spanchain: another plugin (or the ini file) has the marker, too: {line}" for line in others]


def _few(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
