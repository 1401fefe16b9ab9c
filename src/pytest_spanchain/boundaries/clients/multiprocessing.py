"""multiprocessing, and the process pools that stand on it: what a worker process does is not recorded, and said so.

A worker is the agent itself in another process. What it is handed and gives back are pickled objects, which no reviewer
could read, and one cassette cannot be played in two processes. What is left is the promise that replay lets nothing
out: a worker has a run of its own that stores nothing, and tells the run that started it of each call. While recording
the calls go out and become a note; in replay they are refused, and fail the test whatever the agent does with that.

Invariants:

* However it is started (fork, fork server, spawn), a worker is met in ``BaseProcess._bootstrap``; one of a pool that is
  older than the run, at the jobs that ``ProcessPoolExecutor`` hands to it.
* A call is told before it goes out or is refused: a worker may be killed at any moment.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from ... import _guard
from ..._model import HTTP_KINDS, Attempt
from ..._plan import Plan
from ..._run import OWNERSHIP, Call, Crossing, Door, Run
from ..._settings import OFF, RecordMode, Settings
from ...errors import BoundaryError, LiveCallError

_BADGE = "_spanchain_badge"
"""The attribute by which a process object takes its badge along."""

_ELSEWHERE = "in a process that multiprocessing started"
_ADVICE = "let threads do it (ThreadPoolExecutor)"

_offices: WeakKeyDictionary[Run, Office] = WeakKeyDictionary()
_opening = threading.Lock()
_worn: str | None = None
"""The folder of the badge that this process goes by, if it is a worker."""


def install(lib: ModuleType) -> None:
    """Patch ``BaseProcess`` of ``multiprocessing.process``, or the pool of ``concurrent.futures.process``.

    Raises:
        BoundaryError: the library looks different.
    """
    try:
        if lib.__name__ == "multiprocessing.process":
            _meet_processes(lib.BaseProcess)
        else:
            _meet_jobs(lib.ProcessPoolExecutor)
    except AttributeError as error:
        raise BoundaryError(f"multiprocessing is not recognised, its processes could call out: {error}") from None


def _meet_processes(process: Any) -> None:
    start, bootstrap = process.start, process._bootstrap

    @functools.wraps(start)
    def start_with_badge(self: Any) -> None:
        badge = _badge()
        if badge is None:
            start(self)
            return
        self.__dict__[_BADGE] = badge
        try:
            start(self)
        finally:
            del self.__dict__[_BADGE]

    @functools.wraps(bootstrap)
    def bootstrap_as_worker(self: Any, *args: Any, **kwargs: Any) -> Any:
        badge: Badge | None = self.__dict__.pop(_BADGE, None)
        if badge is None:
            return bootstrap(self, *args, **kwargs)
        with _at_work(badge):
            return bootstrap(self, *args, **kwargs)

    process.start, process._bootstrap = start_with_badge, bootstrap_as_worker


def _meet_jobs(pool: Any) -> None:
    submit = pool.submit

    @functools.wraps(submit)
    def submit_with_badge(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        badge = _badge()
        return submit(self, fn if badge is None else _Job(badge, fn), *args, **kwargs)

    pool.submit = submit_with_badge


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
        return _arrived, tuple(self)


@dataclass(frozen=True)
class _Job:
    """What a worker is handed that may be older than the run."""

    badge: Badge
    fn: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _worn == self.badge.folder:
            return self.fn(*args, **kwargs)
        with _at_work(self.badge):
            return self.fn(*args, **kwargs)


@dataclass(frozen=True)
class _Told:
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
        self._run = run
        self._folder = Path(tempfile.mkdtemp(prefix="spanchain-"))
        settings = run.settings
        tools = (*map(_named, settings.listed_tools), *(() if settings.finds_tools else (OFF,)))
        self.badge = Badge(
            folder=str(self._folder),
            nodeid=run.nodeid,
            path=run.path,
            refuses=not run.records,
            # What goes out is only watched: nothing that a run without an end records is ever written.
            settings=Settings(
                mode=RecordMode.REWRITE,
                tools=tools,
                allow_hosts=settings.allow_hosts,
                commands=settings.commands,
                eval_id="worker",
            ),
        )
        run.before_end.append(self.close)

    def close(self) -> None:
        """Say what was told. Once, when the run ends."""
        told: Counter[_Told] = Counter()
        for path in sorted(self._folder.iterdir()):
            for line in path.read_text(encoding="utf-8").splitlines():
                told[_Told(**json.loads(line))] += 1
        shutil.rmtree(self._folder, ignore_errors=True)
        for one, times in told.items():
            if one.what:
                self._say(one, times)
            else:
                self._run.guard.refuse(Attempt(one.host, one.port, one.site))

    def _say(self, one: _Told, times: int) -> None:
        often = "" if times == 1 else f" {times} times"
        where = f"{one.what} was called{often} at {one.site} {_ELSEWHERE}"
        if self.badge.refuses:
            self._run.note_error(f"{where}, which can neither be recorded nor replayed: {_ADVICE}")
        else:
            self._run.note(f"{where}: it was not recorded, and replay will refuse it; {_ADVICE}")


def _badge() -> Badge | None:
    """What a process gets that is started here; ``None`` if what it does is no run's business."""
    run = OWNERSHIP.peek()
    # What a call that is recorded starts is part of it: replay does not come there.
    if run is None or (run.records and run.capture.enclosing() is not None):
        return None
    with _opening:
        return (_offices.get(run) or _offices.setdefault(run, Office(run))).badge


def _named(tool: Any) -> Any:
    """A tool in words, which go anywhere; what is no function is in words already."""
    return f"{tool.__module__}:{tool.__qualname__}" if isinstance(tool, FunctionType) else tool


def _arrived(*badge: Any) -> Badge:
    """A badge in a new interpreter, before the process begins."""
    from ... import boundaries

    boundaries.install()
    return Badge(*badge)


@contextmanager
def _at_work(badge: Badge) -> Iterator[None]:
    """The life of a worker: from here on, nothing of the process that it may be a copy of is its own."""
    from ... import boundaries

    global _worn
    _worn = badge.folder
    OWNERSHIP.forget()
    _guard.forget()
    boundaries.forget()
    run = Run(Plan(nodeid=badge.nodeid, path=badge.path, settings=badge.settings))
    run.begin, run.relay, run.answer = (_door(run, badge, door) for door in (run.begin, run.relay, run.answer))
    run.guard.refuse = functools.partial(_left, badge)
    stack = ExitStack()
    try:
        stack.enter_context(boundaries.around(run))
    except BoundaryError as error:
        _tell(badge, _Told(what=f"what could not be watched ({error})", site="an unknown place"))
        if badge.refuses:
            raise
    try:
        with run.entered():
            yield
    finally:
        _worn = None
        run.tried(stack.close)


def _door(run: Run, badge: Badge, door: Door) -> Door:
    """The way of a call into a worker's run: it is told first."""

    def told(crossing: Crossing) -> Call:
        what, host = crossing.name, None
        if crossing.kind in HTTP_KINDS:
            url = urlsplit(crossing.request["url"])
            what, host = (
                f"{crossing.request['method']} {url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}",
                url.hostname,
            )
        # What is allowed to be contacted goes out, as it cannot be served.
        if run.capture.enclosing() is None and not (host and run.guard.allows(host)):
            _tell(badge, _Told(what=what, site=_guard.call_site()))
            if badge.refuses:
                raise run.miss(f"{what} is called {_ELSEWHERE}, where nothing is replayed: {_ADVICE}")
        return door(crossing)

    return told


def _left(badge: Badge, attempt: Attempt) -> Exception | None:
    """Something is about to leave a worker elsewhere than at a boundary."""
    if _guard.is_telemetry(attempt.host, attempt.port):
        return None
    site = f"{attempt.site}, {_ELSEWHERE}"
    _tell(badge, _Told(host=attempt.host, port=attempt.port, site=site))
    if not badge.refuses:
        return None
    return LiveCallError(
        f"replay does not let anything out: {attempt.target} was contacted at {site}; let it out with"
        f" allow_hosts=[{attempt.host!r}]"
    )


def _tell(badge: Badge, told: _Told) -> None:
    line = json.dumps(vars(told)) + "\n"
    with suppress(OSError):  # the run is over, and nobody hears it any more
        at = os.open(f"{badge.folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(at, line.encode())
        finally:
            os.close(at)
