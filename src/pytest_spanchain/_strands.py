"""Strands: the threads, pool jobs and asyncio tasks of the process, and the order in which the program made them.

Start times are an accident of the schedule. What does not change from run to run is the program: a strand does its
steps one after another, and starting another strand is one of them. So the place of a step is its strand's place and
its number there, and places sort as the program was written, whoever was faster.

Invariants:

* No two steps share a place; a strand's place is the step of its parent that started it.
* Two strands that one parent started ran side by side if their lives overlap.
* A worker thread that is handed jobs with their contexts (anyio's are) does each as a strand of whoever handed it over.
  One that is fed by hand, through a queue, is one strand from its start to its end.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Place = tuple[int, ...]
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Strand:
    """One thread, pool job or task.

    Args:
        parent: the strand that started it; ``None`` for the first of the process.
        place: the parent's step that started it.
        born_ns: when it was started, nanoseconds since the epoch.
        died_ns: when it ended; ``None`` while it runs.
        ends_unseen: whether nobody tells when it ends: then it lives as long as it does something.
    """

    parent: Strand | None
    place: Place
    born_ns: int
    died_ns: int | None = None
    ends_unseen: bool = False
    _steps: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _claimed: bool = field(default=False, repr=False)

    def step(self) -> Place:
        """The place of the strand's next step."""
        if self.ends_unseen:
            self.died_ns = None
        return (*self.place, next(self._steps))

    def step_over(self, end_ns: int) -> None:
        """One of its steps is over."""
        if self.ends_unseen:
            self.died_ns = end_ns

    def spawn(self, *, ends_unseen: bool = False) -> Strand:
        """Start another strand."""
        return Strand(self, self.step(), time.time_ns(), ends_unseen=ends_unseen)

    def claim(self) -> bool:
        """Whether the caller is the first who asks."""
        is_first, self._claimed = not self._claimed, True
        return is_first

    def as_job(self) -> Strand:
        """The same place and count of steps, for the first of a thread's jobs."""
        return Strand(self.parent, self.place, self.born_ns, ends_unseen=True, _steps=self._steps)

    def end(self) -> None:
        """The strand is over."""
        self.died_ns = time.time_ns()

    def lineage(self) -> list[Strand]:
        """The strand and those that led to it, the first one first."""
        found: list[Strand] = []
        step: Strand | None = self
        while step is not None:
            found.append(step)
            step = step.parent
        return found[::-1]


class _Thread(threading.local):
    """The calling thread: a mark that no other thread ever has, its strand, and whether it takes in other jobs.

    ``serves`` is ``None`` where nobody has said so: in threads that were not seen to start.
    """

    def __init__(self) -> None:
        self.mark = object()
        self.strand: Strand | None = None
        self.serves: bool | None = None


_ROOT = Strand(None, (), time.time_ns())
_here = _Thread()
_held: ContextVar[tuple[object, Strand] | None] = ContextVar("spanchain_strand", default=None)
"""The strand that a context belongs to, and the mark of the thread where that was so: contexts travel."""
_tasks: WeakKeyDictionary[asyncio.Task[Any], Strand] = WeakKeyDictionary()
_on_behalf: ContextVar[Strand | None] = ContextVar("spanchain_on_behalf", default=None)


def current() -> Strand:
    """The strand that is running."""
    if (other := _on_behalf.get()) is not None:
        return other
    held = _held.get()
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        strand = _of_thread() if held is None else _of_context(*held)
    else:
        strand = _tasks.get(task) or _adopt(task, _of_task(held))
    if held is None or held[1] is not strand:
        _held.set((_here.mark, strand))
    return strand


def create_task(create: Callable[[], asyncio.Task[T]], *, context: Context | None) -> asyncio.Task[T]:
    """Create a task that is a strand from its start.

    Args:
        create: creates it, in ``context`` if there is one, else in a copy of the current one.
        context: the one that the caller gave for it.
    """
    strand = current().spawn()

    def hold_and_create() -> asyncio.Task[T]:
        # Before the task is made: an eager one takes its first steps while it is.
        _held.set((_here.mark, strand))
        return create()

    if context is None:
        task = copy_context().run(hold_and_create)
    else:
        with suppress(RuntimeError):  # it may be the caller's own, which is entered already
            context.run(_held.set, (_here.mark, strand))
        task = create()
    if not task.done() and strand.claim():
        _adopt(task, strand)
    return task


@contextmanager
def on_behalf(strand: Strand) -> Iterator[None]:
    """Take a step for another strand, which waits for it meanwhile: one of its own, as far as order goes."""
    token = _on_behalf.set(strand)
    try:
        yield
    finally:
        _on_behalf.reset(token)


@contextmanager
def running(strand: Strand, *, serves: bool = False) -> Iterator[None]:
    """Be ``strand`` in the calling thread, to its end.

    Args:
        strand: a thread's or a pool job's.
        serves: whether it may be handed jobs that come with a context of their own.
    """
    before = _here.strand, _here.serves
    token = _held.set((_here.mark, strand))
    _here.strand, _here.serves = strand, serves
    try:
        yield
    finally:
        _held.reset(token)
        _here.strand, _here.serves = before
        strand.end()


def _adopt(task: asyncio.Task[Any], strand: Strand) -> Strand:
    _tasks[task] = strand
    # Added first, so called first: before whoever awaits the task goes on.
    task.add_done_callback(lambda _: strand.end())
    return strand


def _of_task(held: tuple[object, Strand] | None) -> Strand:
    """The strand of a task that is seen for the first time: made for it, or by a loop that ``create_task`` misses."""
    if held is None:
        return _of_thread().spawn()
    return held[1] if held[0] is _here.mark and held[1].claim() else held[1].spawn()


def _of_context(mark: object, strand: Strand) -> Strand:
    """The strand of a context: what it was in this thread; elsewhere, a job of it."""
    if mark is _here.mark:
        return strand
    mine = _here.strand
    # A pool job that runs copies of contexts which its ancestors made (langgraph's do) is itself all the while.
    if mine is not None and _here.serves is False and any(one is strand for one in mine.lineage()[:-1]):
        return mine
    # The thread that was started for this very job has its place, which no schedule changes.
    if mine is not None and mine.parent is strand and mine.claim():
        return mine.as_job()
    return strand.spawn(ends_unseen=True)


def _of_thread() -> Strand:
    if _here.strand is None:
        is_first = threading.current_thread() is threading.main_thread()
        _here.strand = _ROOT if is_first else _ROOT.spawn()
    return _here.strand


def side_by_side(strands: Sequence[Strand], *, now: int) -> dict[int, int]:
    """Which of the strands ran beside another of them: their indices, each with the number of its crowd, from 1 up.

    Seen from where two strands part: one that started the other, or did something before and after it, is not beside
    it. A strand may be named more than once; that is not beside itself.
    """
    found: dict[int, object] = {}
    todo = [[(index, strand.lineage()) for index, strand in enumerate(strands)]]
    level = 0
    while todo:
        families = [family for family in todo if len(family) > 1]
        todo = []
        for family in families:
            below = _by(family, level)
            crowds = _overlapping([key for key in below if isinstance(key, Strand)], now=now)
            for strand, members in below.items():
                if strand in crowds:
                    found.update((index, crowds[strand]) for index, _ in members)
                elif strand is not None:
                    todo.append(members)
        level += 1
    numbers: dict[object, int] = {}
    return {index: numbers.setdefault(found[index], len(numbers) + 1) for index in sorted(found)}


_Family = list[tuple[int, list[Strand]]]


def _by(family: _Family, level: int) -> dict[Hashable, _Family]:
    """The members by their strand of that level; ``None`` for what the level above did itself."""
    found: dict[Hashable, _Family] = {}
    for index, lineage in family:
        key = lineage[level] if level < len(lineage) else None
        found.setdefault(key, []).append((index, lineage))
    return found


def _overlapping(strands: list[Strand], *, now: int) -> dict[Hashable, object]:
    """The crowds of strands whose lives overlap, by strand; loners are left out."""
    crowds: list[list[Strand]] = []
    busy_until = 0
    for strand in sorted(strands, key=lambda strand: strand.born_ns):
        if not crowds or strand.born_ns >= busy_until:
            crowds.append([])
        crowds[-1].append(strand)
        busy_until = max(busy_until, strand.died_ns or now)
    return {strand: crowd[0] for crowd in crowds if len(crowd) > 1 for strand in crowd}
