"""A connection of the Claude Agent SDK with its command line: an exchange of kind ``process``.

Of it the author's part is compared: what the command line is asked to do, where, and with which variables. Where it
lies, and of which release it is, is the machine's affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from .... import _session
from ...._run import Crossing, Run, current_run
from ._talk import Talk, opened

NAME = "claude"
_INSIDE = ("mcp", "process", "agent")
_OUTSIDE = (
    "claude: a client that was connected outside of the test speaks in it, so what is said can neither be recorded nor"
    " served: connect it in the test"
)


class Link:
    """One connection, from the moment it is asked for."""

    def __init__(self, run: Run, argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str]) -> None:
        self._call = run.begin(
            Crossing(
                "process",
                NAME,
                {"argv": list(argv), "cwd": cwd, "env": dict(sorted(env.items())), "stdin": None},
                attributes={"process.executable.name": argv[0]},
            )
        )
        self._call.at_close = lambda: self._call.finish(opened())
        self.served = self._call.recorded is not None
        """Whether nobody is to be at the other end."""
        model = next((after for word, after in pairwise(argv) if word == "--model"), None)
        self.talk = Talk(run, self._call, model=model)
        self.failure: Mapping[str, Any] | None = None
        """The error with which it could not be opened when this was recorded."""
        if self._call.recorded is not None:
            self._call.finish(self._call.recorded)
            if self._call.recorded["end"] == "error":
                self.failure = self._call.recorded["error"]

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Open the real one."""
        try:
            with self._call.active():
                yield
        except Exception as error:
            told = {"type": type(error).__name__, "message": str(error)}
            self._call.finish({**opened(), "end": "error", "error": told})
            raise
        except BaseException:
            self._call.finish({**opened(), "end": "cancelled"})
            raise
        self._call.finish(opened())
        self.talk.opened = True


def link(argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str]) -> Link | None:
    """The connection that is asked for here; ``None`` if nobody watches.

    Raises:
        MissError: replay has no such connection.
    """
    run = current_run()
    if run is None and (session := _session.current()) is not None:
        session.met(argv[0])
    return None if run is None or run.inside(*_INSIDE) else Link(run, argv, cwd=cwd, env=env)


def unheard() -> None:
    """Something is said over a connection that was not opened in a run: if it is said in one, that run has to fail."""
    run = current_run()
    if run is not None and not run.inside(*_INSIDE):
        run.note_error(_OUTSIDE)
