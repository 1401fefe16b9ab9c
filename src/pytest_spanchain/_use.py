"""The door for scripts and session fixtures: the same engine as a context manager, without pytest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from . import boundaries
from ._report import report
from ._run import open_run
from ._settings import resolve
from ._trace import CassetteHandle
from ._verdict import Verdict
from .boundaries.tools import tool
from .errors import DeviationError, RecordingError


class use_cassette:  # noqa: N801 - reads as a verb, like the context managers of contextlib
    """Record or replay what happens inside a ``with`` or ``async with`` block.

    Args:
        path: the cassette file.
        mode: ``none`` (default), ``once``, ``new_episodes``, ``all`` or ``rewrite``.
        name: what the cassette says it belongs to; the file's name by default.
        tools, run, ignore, ignore_attributes, allow_hosts, redact, exact, eval_id: as in ``@pytest.mark.cassette``.

    Raises:
        CassetteError: at entry, if the cassette is missing, unreadable, broken or incomplete.
        DeviationError: at exit, if the block went well but the live trace is not the golden one.
        RecordingError: at exit, if the recording cannot be written.

    Example::

        with spanchain.use_cassette("run.yaml", mode="once") as cassette:
            answer = agent("Refund order 1412")
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mode: str = "none",
        name: str | None = None,
        tools: Sequence[Any] | str = (),
        run: Sequence[str] = (),
        ignore: Sequence[str] = (),
        ignore_attributes: Sequence[str] = (),
        allow_hosts: Sequence[str] = (),
        redact: Sequence[str] = (),
        exact: Sequence[str] = (),
        eval_id: str | None = None,
    ) -> None:
        self._path = Path(path)
        self._name = name or self._path.name
        given: dict[str, Any] = {
            "mode": mode,
            "tools": tools,
            "run": run,
            "ignore": ignore,
            "ignore_attributes": ignore_attributes,
            "allow_hosts": allow_hosts,
            "redact": redact,
            "exact": exact,
            **({"eval_id": eval_id} if eval_id else {}),
        }
        self._settings = resolve(marker=given, cli_mode=None, fixture={}, ini={}, ci=False)
        self._stack = ExitStack()
        self.verdict: Verdict | None = None

    def __enter__(self) -> CassetteHandle:
        self._run = open_run(nodeid=self._name, path=self._path, settings=self._settings)
        if self._run.refusal is not None:
            raise self._run.refusal
        self._stack.enter_context(boundaries.around(self._run))
        self._stack.enter_context(self._run.entered())
        return CassetteHandle(self._run, tool=tool)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        self.verdict = self._run.close(passed=error is None)
        if error is not None or not self.verdict.failing:
            return
        lines = report(self.verdict, accept="use mode='rewrite' once", closer="cassette.deviations")
        text = "\n".join(lines)
        raise RecordingError(text) if self.verdict.errors and not self.verdict.compared else DeviationError(text)

    async def __aenter__(self) -> CassetteHandle:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
