"""multiprocessing, what is made after it, and pools on it: what a worker process does cannot be recorded, and is told.

A worker is the agent itself in another process. What it is handed and gives back are pickled objects, which no reviewer
could read, and one cassette cannot be played in two processes. What is left is the promise that replay lets nothing
out: a worker has a run of its own that stores nothing, and tells the run that started it of each call. Such a call
fails that run, while recording, too; in replay it is refused.

Invariants:

* However it is started (fork, fork server, spawn), a worker has its badge before the agent's code runs in it; one of a
  pool that is older than the run gets it with each job, and gives it back after it.
* What a worker starts goes by the same badge.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, ref

from ... import _guard
from ..._forks import renewed
from ..._model import HTTP_KINDS, Attempt
from ..._plan import Plan
from ..._run import OWNERSHIP, Call, Crossing, Door, Run
from ..._settings import OFF, RecordMode, Settings
from ...errors import BoundaryError, LiveCallError, SpanchainError, UsageError
from .._targets import resolve

_BADGE = "_spanchain_badge"
"""Under this name a process object, and what is told to a spawned interpreter, take a badge along."""

_ELSEWHERE = "in a process that multiprocessing started"
_ADVICE = "let threads do it (ThreadPoolExecutor)"
_HOME = tempfile.gettempdir()  # a test may change what this is later, and take that away

_offices: WeakKeyDictionary[Run, Office] = WeakKeyDictionary()
_opening = renewed(threading.Lock())
_starting = threading.local()
"""The badge of what the calling thread is about to start."""


def install(lib: ModuleType) -> None:
    """Patch one of the modules that start processes or hand jobs to them.

    Raises:
        BoundaryError: the library looks different.
    """
    try:
        (_PATCHES.get(lib.__name__) or _PATCHES[lib.__name__.rpartition(".")[2]])(lib)
    except AttributeError as error:
        raise BoundaryError(f"{lib.__name__} is not recognised, its processes could call out: {error}") from None


def _meet_processes(lib: Any) -> None:
    start, bootstrap = lib.BaseProcess.start, lib.BaseProcess._bootstrap

    @functools.wraps(start)
    def start_with_badge(self: Any) -> None:
        badge = _starting.badge = _badge()
        if badge is not None:
            self.__dict__[_BADGE] = badge
        try:
            start(self)
        finally:
            _starting.badge = None
            self.__dict__.pop(_BADGE, None)

    @functools.wraps(bootstrap)
    def bootstrap_as_worker(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Not all classes let their objects take along what they do not know.
        badge = self.__dict__.pop(_BADGE, None) or getattr(_starting, "badge", None)
        if badge is None:
            return bootstrap(self, *args, **kwargs)
        with _at_work(badge):
            return bootstrap(self, *args, **kwargs)

    lib.BaseProcess.start, lib.BaseProcess._bootstrap = start_with_badge, bootstrap_as_worker


def _meet_interpreters(lib: Any) -> None:
    prepare = lib.get_preparation_data

    @functools.wraps(prepare)
    def prepare_with_badge(*args: Any, **kwargs: Any) -> Any:
        told = prepare(*args, **kwargs)
        badge = getattr(_starting, "badge", None)
        return told if badge is None else {**told, _BADGE: badge}

    lib.get_preparation_data = prepare_with_badge


def _meet_executors(lib: Any) -> None:
    pool = lib.ProcessPoolExecutor
    pool.submit = _badged(pool.submit)


def _meet_pools(lib: Any) -> None:
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        setattr(lib.Pool, name, _badged(getattr(lib.Pool, name), unless=lib.ThreadPool))


_PATCHES: dict[str, Callable[[Any], None]] = {
    "process": _meet_processes,
    "spawn": _meet_interpreters,
    "pool": _meet_pools,
    "process_executor": _meet_executors,
    "concurrent.futures.process": _meet_executors,
}
"""By a module's name, or the last part of it: ``multiprocess`` and ``loky`` are made as the standard library is."""


def _badged(hand_over: Callable[..., Any], *, unless: type | tuple[()] = ()) -> Callable[..., Any]:
    """A method of a pool that hands a function to workers: with the badge of the run, or of nobody.

    Args:
        hand_over: the method.
        unless: pools whose workers are threads.
    """

    @functools.wraps(hand_over)
    def with_badge(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        badge = _badge()
        if isinstance(self, unless) or (badge is None and not hasattr(self, _BADGE)):
            return hand_over(self, fn, *args, **kwargs)
        setattr(self, _BADGE, True)  # its workers may wear that of a run that is over
        return hand_over(self, _Job(badge, fn, os.getpid()), *args, **kwargs)

    return with_badge


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
        return _arrived, (*self[:-1], self.settings._replace(tools=tuple(map(_named, self.settings.tools))))


@dataclass(frozen=True)
class _Job:
    """What a worker is handed: it does it for a run, or for nobody, whatever badge it wears otherwise.

    Args:
        badge: the run's; ``None`` for nobody's.
        fn: the function.
        home: the number of the process that hands it over.
    """

    badge: Badge | None
    fn: Any
    home: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        worn, wanted = (badge and badge.folder for badge in (_worn, self.badge))
        if os.getpid() == self.home or worn == wanted:
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
        self._run = ref(run)
        self._folder = Path(tempfile.mkdtemp(prefix="spanchain-", dir=_HOME))
        self.badge = _badge_of(run, folder=str(self._folder))
        run.before_end.append(self.close)

    def close(self) -> None:
        """Say what was told. Once, when the run ends."""
        run = self._run()
        assert run is not None
        told: Counter[_Told] = Counter()
        try:
            for path in sorted(self._folder.iterdir()):
                for line in path.read_text(encoding="utf-8").splitlines():
                    told[_Told(**json.loads(line))] += 1
        except (OSError, ValueError, TypeError) as error:
            run.note_error(f"what processes of multiprocessing told of their calls cannot be read: {error!r}")
        shutil.rmtree(self._folder, ignore_errors=True)
        for one, times in told.items():
            if not one.what:
                run.guard.refuse(Attempt(one.host, one.port, one.site))
                continue
            often = "" if times == 1 else f" {times} times"
            run.note_error(
                f"{one.what} was called{often} at {one.site} {_ELSEWHERE}, which can neither be recorded nor replayed:"
                f" {_ADVICE}"
            )


def _badge() -> Badge | None:
    """What a process gets that is started here; ``None`` if what it does is no run's business."""
    if _worn is not None:
        return _worn
    run = OWNERSHIP.peek()
    if run is None:
        left = OWNERSHIP.left_behind()
        if left is None or left.records:
            return None
        # What a replay has left behind may start something: that lets nothing out either, and nobody hears of it.
        return _badge_of(left, folder=os.devnull)
    # What a call that is recorded starts is part of it: replay does not come there.
    if run.records and run.capture.enclosing() is not None:
        return None
    with _opening:
        return (_offices.get(run) or _offices.setdefault(run, Office(run))).badge


def _badge_of(run: Run, *, folder: str) -> Badge:
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


def _is_found(tool: Any) -> bool:
    """Whether a worker has that tool, too."""
    try:
        return tool == OFF or bool(resolve(tool))
    except UsageError:
        return False


# --- in a worker -------------------------------------------------------------------------------------------------

_worn: Badge | None = None
"""The badge that this process goes by, if it is a worker."""

_runs: dict[str, Run] = {}
"""The worker's runs by folder: a thread that lives on after a job still belongs to the job's run."""

_kept = ExitStack()
"""What is in place around them, for the life of the worker."""


def _arrived(*badge: Any) -> Badge:
    """A badge in a new interpreter, before the process begins."""
    from ... import boundaries

    boundaries.install()
    _starting.badge = Badge(*badge)
    return Badge(*badge)


@contextmanager
def _at_work(badge: Badge | None) -> Iterator[None]:
    """A time of a worker's life: nothing of the process that it may be a copy of, or of another badge, is its own."""
    global _worn
    before, _worn, _starting.badge = _worn, badge, None
    run = _ready(badge)
    try:
        with OWNERSHIP.own(None) if run is None else run.entered():
            yield
    finally:
        _worn = before
        _ready(before)


def _ready(badge: Badge | None) -> Run | None:
    """Make the badge's run the only one of this process."""
    from ... import boundaries

    OWNERSHIP.forget()
    _guard.forget()
    if badge is None:
        return None
    run = _runs.get(badge.folder)
    if run is not None:
        run.start()
        return run
    settings = badge.settings._replace(tools=tuple(filter(_is_found, badge.settings.tools)))
    run = _runs[badge.folder] = Run(Plan(nodeid=badge.nodeid, path=badge.path, settings=settings))
    run.begin, run.relay, run.answer = (_door(run, badge, door) for door in (run.begin, run.relay, run.answer))
    run.guard.refuse = functools.partial(_left, badge)
    try:
        _kept.enter_context(boundaries.around(run))
    except SpanchainError as error:
        # The worker goes on: what can be watched is.
        _tell(badge, _Told(what=f"what cannot be watched ({error})", site="an unknown place"))
        run.start()
    return run


def _door(run: Run, badge: Badge, door: Door) -> Door:
    """The way of a call into a worker's run: it is told first."""

    def told(crossing: Crossing) -> Call:
        what, host = crossing.name, None
        if crossing.kind in HTTP_KINDS:
            url = urlsplit(crossing.request["url"])
            host = url.hostname
            what = f"{crossing.request['method']} {url.scheme}://{url.netloc.rpartition('@')[2]}"  # paths hold secrets
        # What is allowed to be contacted goes out, as it cannot be served.
        if run.capture.enclosing() is None and not (host and run.guard.allows(host)):
            _tell(badge, _Told(what=what, site=_guard.call_site()))
            if badge.refuses:
                raise run.miss(f"{what} is called {_ELSEWHERE}, where nothing is replayed: {_ADVICE}")
        return door(crossing)

    return told


def _left(badge: Badge, attempt: Attempt) -> Exception | None:
    """Something is about to leave a worker elsewhere than at a boundary."""
    site = f"{attempt.site}, {_ELSEWHERE}"
    if not _guard.is_telemetry(attempt.host, attempt.port):
        _tell(badge, _Told(host=attempt.host, port=attempt.port, site=site))
    if not badge.refuses:
        return None
    return LiveCallError(
        f"replay does not let anything out: {attempt.target} was contacted at {site}; let it out with"
        f" allow_hosts=[{attempt.host!r}]"
    )


def _tell(badge: Badge, told: _Told) -> None:
    line = json.dumps(vars(told)) + "\n"
    try:
        at = os.open(f"{badge.folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return  # the run is over, and nobody hears it any more
    try:
        os.write(at, line.encode())
    finally:
        os.close(at)
