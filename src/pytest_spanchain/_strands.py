"""Strands: the threads, pool jobs and asyncio tasks of the process, and the order in which the program made them.

Start times are an accident of the schedule. What does not change from run to run is the program: a strand does its
steps one after another, and starting another strand is one of them. So the place of a step is its strand's place and
its number there, and places sort as the program was written, whoever was faster.

Invariants:

* No two steps share a place; a strand's place is the step of its parent that started it.
* Two strands that one parent started ran side by side if their lives overlap.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

Place = tuple[int, ...]


@dataclass(eq=False)
class Strand:
    """One thread, pool job or task.

    Args:
        parent: the strand that started it; ``None`` for the first of the process.
        place: the parent's step that started it.
        born_ns: when it was started, nanoseconds since the epoch.
        died_ns: when it ended; ``None`` while it runs.
    """

    parent: Strand | None
    place: Place
    born_ns: int
    died_ns: int | None = None
    _steps: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def step(self) -> Place:
        """The place of the strand's next step."""
        return (*self.place, next(self._steps))

    def spawn(self) -> Strand:
        """Start another strand."""
        return Strand(self, self.step(), time.time_ns())

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


_ROOT = Strand(None, (), time.time_ns())
_here = threading.local()
_tasks: WeakKeyDictionary[asyncio.Task[Any], Strand] = WeakKeyDictionary()


def current() -> Strand:
    """The strand that is running."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        return _of_thread()
    return _tasks.get(task) or adopt(task, parent=_of_thread())


def adopt(task: asyncio.Task[Any], *, parent: Strand | None = None) -> Strand:
    """Make a task a strand, started by ``parent`` or by whoever is running; once."""
    strand = _tasks.get(task)
    if strand is None:
        strand = _tasks[task] = (parent or current()).spawn()
        born = strand
        # Added first, so called first: before whoever awaits the task goes on.
        task.add_done_callback(lambda _: born.end())
    return strand


@contextmanager
def running(strand: Strand) -> Iterator[None]:
    """Be ``strand`` in the calling thread, to its end."""
    before = getattr(_here, "strand", None)
    _here.strand = strand
    try:
        yield
    finally:
        _here.strand = before
        strand.end()


def side_by_side(strands: Sequence[Strand], *, now: int) -> set[int]:
    """Which of the strands, by index, ran beside another of them.

    Seen from where two strands part: one that started the other, or did something before and after it, is not beside
    it. A strand may be named more than once; that is not beside itself.
    """
    found: set[int] = set()
    todo = [[(index, strand.lineage()) for index, strand in enumerate(strands)]]
    level = 0
    while todo:
        families = [family for family in todo if len(family) > 1]
        todo = []
        for family in families:
            below = _by(family, level)
            beside = _overlapping([key for key in below if isinstance(key, Strand)], now=now)
            for strand, members in below.items():
                if strand in beside:
                    found.update(index for index, _ in members)
                elif strand is not None:
                    todo.append(members)
        level += 1
    return found


_Family = list[tuple[int, list[Strand]]]


def _by(family: _Family, level: int) -> dict[Hashable, _Family]:
    """The members by their strand of that level; ``None`` for what the level above did itself."""
    found: dict[Hashable, _Family] = {}
    for index, lineage in family:
        key = lineage[level] if level < len(lineage) else None
        found.setdefault(key, []).append((index, lineage))
    return found


def _overlapping(strands: list[Strand], *, now: int) -> set[Hashable]:
    found: set[Hashable] = set()
    last: Strand | None = None
    for strand in sorted(strands, key=lambda strand: strand.born_ns):
        if last is not None and strand.born_ns < (last.died_ns or now):
            found.update((last, strand))
        if last is None or (strand.died_ns or now) > (last.died_ns or now):
            last = strand
    return found


def _of_thread() -> Strand:
    strand: Strand | None = getattr(_here, "strand", None)
    if strand is None:
        is_first = threading.current_thread() is threading.main_thread()
        strand = _here.strand = _ROOT if is_first else _ROOT.spawn()
    return strand
