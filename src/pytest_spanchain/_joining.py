"""A Python child of a recorded process: it records for the run that started it, and reports to it.

Invariants:

* The child does what it would have done: what goes wrong here is told in the report, and nowhere else.
* What it starts by ``fork`` reports nothing of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from . import boundaries
from ._plan import Plan
from ._run import Run
from ._settings import RecordMode, Settings
from .boundaries.clients.subprocess._joined import LARGEST, MARK, SETTINGS, Report, written

_EVERY_SECONDS = 0.25


def join() -> None:
    """Join the trace that the environment names; whatever hinders it, the child goes on."""
    folder = Path(os.environ[MARK])
    # Tests that pytest runs have runs of their own.
    if not folder.is_dir() or any("pytest" in os.path.basename(word) for word in sys.orig_argv[:4]):
        return
    try:
        _Member(folder).start()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not the child's
        problem = f"it could not join the trace: {error!r}"
        _put(folder, Report((), True, notes=(problem,)))


class _Member:
    """One process that has joined.

    Args:
        folder: where it reports to.
    """

    def __init__(self, folder: Path) -> None:
        said = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings = Settings(
            mode=RecordMode.REWRITE,
            tools=tuple(said["tools"]),
            redact=tuple(said["redact"]),
            allow_hosts=tuple(said["allow_hosts"]),
            eval_id="child",
        )
        self._folder = folder
        self._pid = os.getpid()
        self._run = Run(Plan(nodeid=f"child-{self._pid}", path=folder / "none.yaml", settings=settings))
        self._stack = ExitStack()
        self._over = threading.Event()
        self._telling = threading.Lock()
        self._told = 0

    def start(self) -> None:
        """Record from here on."""
        self._stack.enter_context(boundaries.around(self._run))
        # First: a child that never comes so far again has at least said that it is there.
        self._report(done=False)
        atexit.register(self._end)
        threading.Thread(target=self._watch, name="spanchain-joined", daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            self._report(done=False)

    def _report(self, *, done: bool) -> None:
        if os.getpid() != self._pid:
            return
        # One at a time, and nothing after the last word: two writers would tear the file.
        with self._telling:
            spans, findings = self._run.live.spans, self._run.findings
            if done or (len(spans) != self._told and not self._over.is_set()):
                self._told = len(spans)
                # Not its notes: they speak of a replay, in which it does not run.
                _put(self._folder, Report(spans, done, errors=tuple(findings.errors(()))))

    def _end(self) -> None:
        if os.getpid() != self._pid:
            return
        self._over.set()
        self._run.tried(self._stack.close)
        self._report(done=True)


def _put(folder: Path, report: Report) -> None:
    data = written(report)
    if len(data) > LARGEST:
        note = f"the spans of a child process are {len(data)} bytes, which is too much to tell"
        data = written(Report((), True, notes=(note,)))
    path = folder / f"{os.getpid()}.report"
    unfinished = path.with_suffix(".part")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    except OSError:
        return  # nobody waits for it any more
