"""The door for scripts and session fixtures: the same engine as a context manager, without pytest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from . import _session, _testreport, boundaries
from ._options import OPTION, under_ci
from ._plan import make_plan
from ._report import report
from ._run import Run
from ._settings import Settings, resolve
from ._trace import CassetteHandle
from ._verdict import Verdict
from .boundaries.tools import tool
from .errors import DeviationError, RecordingError


class use_cassette:  # noqa: N801 - reads as a verb, like the context managers of contextlib
    """Record or replay what happens inside a ``with`` or ``async with`` block.

    Args:
        path: the cassette file.
        mode: ``none``, ``once``, ``new_episodes``, ``all`` or ``rewrite``. By default, that of the pytest session in
            which this runs: what its command line says, or else its ini file, under CI the command line only; without
            pytest, ``none``.
        name: what the cassette says it belongs to; the file's name by default.
        tools, run, ignore, ignore_attributes, allow_hosts, redact, commands, command_env, exact, eval_id, unfound: as
            in ``@pytest.mark.cassette``.

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
        mode: str | None = None,
        name: str | None = None,
        tools: Sequence[Any] | str = (),
        run: Sequence[str] = (),
        ignore: Sequence[str] = (),
        ignore_attributes: Sequence[str] = (),
        allow_hosts: Sequence[str] = (),
        redact: Sequence[str] = (),
        commands: Sequence[str] = (),
        command_env: Sequence[str] = (),
        exact: Sequence[str] = (),
        eval_id: str | None = None,
        unfound: str | None = None,
    ) -> None:
        self._path = Path(path)
        self._name = name or self._path.name
        given: dict[str, Any] = {
            "tools": tools,
            "run": run,
            "ignore": ignore,
            "ignore_attributes": ignore_attributes,
            "allow_hosts": allow_hosts,
            "redact": redact,
            "commands": commands,
            "command_env": command_env,
            "exact": exact,
            **({"eval_id": eval_id} if eval_id else {}),
            **({"unfound": unfound} if unfound is not None else {}),
        }
        self._session = _session.current()
        self._settings = self._resolved(given, mode)
        self._alone = self._session.alone if mode is None and self._session is not None else None
        self._stack = ExitStack()
        self.verdict: Verdict | None = None

    def _resolved(self, given: dict[str, Any], mode: str | None) -> Settings:
        if mode is not None or self._session is None:
            said = {} if mode is None else {"mode": mode}
            return resolve(marker={**given, **said}, cli_mode=None, fixture={}, ini={}, ci=False)
        typed, committed = self._session.said.typed, self._session.said.committed
        ini = {"mode": committed} if committed else {}
        return resolve(marker=given, cli_mode=typed, fixture={}, ini=ini, ci=under_ci())

    def __enter__(self) -> CassetteHandle:
        __tracebackhide__ = True
        command = self._alone(f"{OPTION}=once") if self._alone else ""
        plan = make_plan(
            nodeid=self._name,
            path=self._path,
            settings=self._settings,
            command=command,
            ci=bool(command) and under_ci(),
        )
        self._run = Run(plan)
        if self._run.refusal is not None:
            self._judge(passed=False)
            raise self._run.refusal.with_traceback(None)  # it was found on our ways, which say nothing to the reader
        self._stack.enter_context(boundaries.around(self._run))
        self._stack.enter_context(self._run.entered())
        return CassetteHandle(self._run, tool=tool)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self._stack.close()
        verdict = self._judge(passed=error is None)
        if error is not None or not verdict.failing:
            return
        text = "\n".join(self._lines(verdict))
        raise RecordingError(text) if verdict.errors and not verdict.compared else DeviationError(text)

    def _judge(self, *, passed: bool) -> Verdict:
        verdict = self.verdict = self._run.close(passed=passed)
        if self._session is not None:
            told = _testreport.counts(verdict, skipped=False, told=lambda: self._lines(verdict))
            self._session.count({**told, "notes": [f"{self._path}: {note}" for note in told["notes"]], "test": False})
            self._session.watch(self._run.late)
        return verdict

    def _lines(self, verdict: Verdict) -> list[str]:
        accept = self._alone(f"{OPTION}=rewrite") if self._alone else "use mode='rewrite' once"
        return report(verdict, accept=accept, closer="cassette.deviations")

    async def __aenter__(self) -> CassetteHandle:
        __tracebackhide__ = True
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self.__exit__(kind, error, traceback)
