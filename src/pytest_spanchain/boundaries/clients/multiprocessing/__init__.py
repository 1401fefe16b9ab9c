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
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from ...._forks import renewed
from ...._run import OWNERSHIP, Run
from ....errors import BoundaryError
from ._badge import BADGE, STARTING, Badge, Office, badge_of
from ._worker import at_work, worn

_offices: WeakKeyDictionary[Run, Office] = WeakKeyDictionary()
_opening = renewed(threading.Lock())


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
        badge = STARTING.badge = _issued()
        if badge is not None:
            self.__dict__[BADGE] = badge
        try:
            start(self)
        finally:
            STARTING.badge = None
            self.__dict__.pop(BADGE, None)

    @functools.wraps(bootstrap)
    def bootstrap_as_worker(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Not all classes let their objects take along what they do not know.
        badge = self.__dict__.pop(BADGE, None) or getattr(STARTING, "badge", None)
        if badge is None:
            return bootstrap(self, *args, **kwargs)
        with at_work(badge):
            return bootstrap(self, *args, **kwargs)

    lib.BaseProcess.start, lib.BaseProcess._bootstrap = start_with_badge, bootstrap_as_worker


def _meet_interpreters(lib: Any) -> None:
    prepare = lib.get_preparation_data

    @functools.wraps(prepare)
    def prepare_with_badge(*args: Any, **kwargs: Any) -> Any:
        told = prepare(*args, **kwargs)
        badge = getattr(STARTING, "badge", None)
        return told if badge is None else {**told, BADGE: badge}

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
        badge = _issued()
        if isinstance(self, unless) or (badge is None and not hasattr(self, BADGE)):
            return hand_over(self, fn, *args, **kwargs)
        setattr(self, BADGE, True)  # its workers may wear that of a run that is over
        return hand_over(self, _Job(badge, fn, os.getpid()), *args, **kwargs)

    return with_badge


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
        have, wanted = (badge and badge.folder for badge in (worn(), self.badge))
        if os.getpid() == self.home or have == wanted:
            return self.fn(*args, **kwargs)
        with at_work(self.badge):
            return self.fn(*args, **kwargs)


def _issued() -> Badge | None:
    """What a process gets that is started here; ``None`` if what it does is no run's business."""
    if (mine := worn()) is not None:
        return mine
    run = OWNERSHIP.peek()
    if run is None:
        left = OWNERSHIP.left_behind()
        if left is None or left.records:
            return None
        # What a replay has left behind may start something: that lets nothing out either, and nobody hears of it.
        return badge_of(left, folder=os.devnull)
    # What a call that is recorded starts is part of it: replay does not come there.
    if run.records and run.capture.enclosing() is not None:
        return None
    with _opening:
        return (_offices.get(run) or _offices.setdefault(run, Office(run))).badge
