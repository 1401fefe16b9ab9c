"""What a worker knows of the run that started it, and how it tells that run of its calls."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple
from weakref import ref

from ...._model import Attempt
from ...._run import Run
from ...._settings import OFF, RecordMode, Settings

BADGE = "_spanchain_badge"
"""Under this name a process object, and what is told to a spawned interpreter, take a badge along."""

ELSEWHERE = "in a process that multiprocessing started"
ADVICE = "let threads do it (ThreadPoolExecutor)"
STARTING = threading.local()
"""``badge``: that of what the calling thread is about to start, or of the interpreter that it was started in."""

_HOME = tempfile.gettempdir()  # a test may change what this is later, and take that away


class Badge(NamedTuple):
    """What a worker knows of the run that started it.

    Args:
        folder: where it tells of its calls, in a file of its own.
        nodeid: the run's.
        path: the run's cassette.
        refuses: whether its calls are refused.
        settings: what its own run goes by.
    """

    folder: str
    nodeid: str
    path: Path
    refuses: bool
    settings: Settings

    def __reduce__(self) -> tuple[Any, ...]:
        # Tools in words: functions may have no way into another interpreter.
        return arrived, (*self[:-1], self.settings._replace(tools=tuple(map(_named, self.settings.tools))))


@dataclass(frozen=True)
class Told:
    """One thing that a worker did: a call of a boundary (``what``), or what else was about to leave (``host``)."""

    what: str = ""
    host: str = ""
    port: int | None = None
    site: str = ""


class Office:
    """Where the workers of one run tell of their calls.

    Args:
        run: whose workers they are.
    """

    def __init__(self, run: Run) -> None:
        self._run = ref(run)
        self._folder = Path(tempfile.mkdtemp(prefix="spanchain-", dir=_HOME))
        self.badge = badge_of(run, folder=str(self._folder))
        run.before_end.append(self.close)

    def close(self) -> None:
        """Say what was told. Once, when the run ends."""
        run = self._run()
        assert run is not None
        told: Counter[Told] = Counter()
        try:
            for path in sorted(self._folder.iterdir()):
                for line in path.read_text(encoding="utf-8").splitlines():
                    told[Told(**json.loads(line))] += 1
        except (OSError, ValueError, TypeError) as error:
            run.note_error(f"what processes of multiprocessing told of their calls cannot be read: {error!r}")
        shutil.rmtree(self._folder, ignore_errors=True)
        for one, times in told.items():
            if not one.what:
                run.guard.refuse(Attempt(one.host, one.port, one.site))
                continue
            often = "" if times == 1 else f" {times} times"
            run.note_error(
                f"{one.what} was called{often} at {one.site} {ELSEWHERE}, which can neither be recorded nor replayed:"
                f" {ADVICE}"
            )


def badge_of(run: Run, *, folder: str) -> Badge:
    settings = run.settings
    return Badge(
        folder=folder,
        nodeid=run.nodeid,
        path=run.path,
        refuses=not run.records,
        # What goes out is only watched: nothing that a run without an end records is ever written.
        settings=Settings(
            mode=RecordMode.REWRITE,
            tools=(*settings.listed_tools, *(() if settings.finds_tools else (OFF,))),
            allow_hosts=settings.allow_hosts,
            commands=settings.commands,
            eval_id="worker",
        ),
    )


def _named(tool: Any) -> Any:
    return f"{tool.__module__}:{tool.__qualname__}" if isinstance(tool, FunctionType) else tool


def arrived(*badge: Any) -> Badge:
    """A badge in a new interpreter, before the process begins."""
    from .... import boundaries

    boundaries.install()
    STARTING.badge = Badge(*badge)
    return Badge(*badge)


def tell(badge: Badge, told: Told) -> None:
    line = json.dumps(vars(told)) + "\n"
    try:
        at = os.open(f"{badge.folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return  # the run is over, and nobody hears it any more
    try:
        os.write(at, line.encode())
    finally:
        os.close(at)
