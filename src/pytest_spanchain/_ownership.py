"""Which run a call belongs to.

Context first: a context variable that tasks and (through ``boundaries.threads``) threads inherit. Without one, the only
active run of the process; with several, nobody may guess. A call of a run that has ended is refused, so that a thread
that outlives its test can reach neither the network nor the next test's cassette.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ._forks import renewed
from .errors import OwnershipError, RunClosedError


class Owner(Protocol):
    """What ownership needs to know of a run."""

    @property
    def name(self) -> str:
        """Shown to the user."""

    @property
    def closed(self) -> bool:
        """Whether the run has ended."""


OwnerT = TypeVar("OwnerT", bound=Owner)


@dataclass(frozen=True, eq=False)
class Nobody:
    """Owns what comes after a recording: no run has it, whichever are active, and its calls go out.

    Args:
        met: told of each call.
    """

    met: Callable[[], None]


class Ownership(Generic[OwnerT]):
    """The runs that are active in this process, and who owns the calling context."""

    def __init__(self) -> None:
        self._lock = renewed(threading.Lock())
        self._active: tuple[OwnerT, ...] = ()
        self._context: ContextVar[OwnerT | Nobody | None] = ContextVar("spanchain_run", default=None)

    @property
    def active(self) -> tuple[OwnerT, ...]:
        """Active runs, oldest first."""
        return self._active

    def current(self) -> OwnerT | None:
        """The run that owns the calling context; ``None`` if none is active.

        Raises:
            RunClosedError: the context belongs to a run that has ended.
            OwnershipError: no context, and several runs are active.
        """
        owner = self._context.get()
        if isinstance(owner, Nobody):
            owner.met()
            return None
        if owner is not None:
            if owner.closed:
                raise RunClosedError(
                    f"a call was made after the run of {owner.name} had ended: wait for background work in the test"
                )
            return owner
        active = self._active
        if len(active) > 1:
            names = ", ".join(run.name for run in active)
            raise OwnershipError(f"a call cannot be attributed to one of the active runs ({names})")
        return active[0] if active else None

    def peek(self) -> OwnerT | None:
        """Like ``current`` but never raises: ``None`` where no live run can be named."""
        owner = self._context.get()
        if owner is not None:
            return None if isinstance(owner, Nobody) or owner.closed else owner
        active = self._active
        return active[0] if len(active) == 1 else None

    def concerns(self, owner: OwnerT) -> bool:
        """Whether what the calling context does is an active run's business: its own, and what no live run owns."""
        found = self._context.get()
        if found is None or (not isinstance(found, Nobody) and found.closed):
            return any(run is owner for run in self._active)
        return found is owner

    def owns(self, owner: OwnerT | Nobody) -> bool:
        """Whether the calling context was given to a run, ended or not, or to this nobody."""
        return self._context.get() is owner

    def left_behind(self) -> OwnerT | None:
        """The run that owns the calling context, if it has ended."""
        owner = self._context.get()
        return owner if owner is not None and not isinstance(owner, Nobody) and owner.closed else None

    def inherited(self) -> OwnerT | Nobody | None:
        """The run to hand to a new thread, closed or not."""
        owner = self._context.get()
        return owner if owner is not None else self.peek()

    def register(self, owner: OwnerT) -> None:
        """Make a run active."""
        with self._lock:
            self._active = (*self._active, owner)

    def unregister(self, owner: OwnerT) -> None:
        """End a run's activity; unknown runs are ignored, so that closing twice is safe."""
        with self._lock:
            self._active = tuple(run for run in self._active if run is not owner)

    def forget(self) -> None:
        """None of the runs is this process's own: it is a copy of the one whose they are, or does another's work."""
        self._active = ()

    @contextmanager
    def own(self, owner: OwnerT | Nobody | None) -> Iterator[None]:
        """Attribute the calling context to ``owner`` (``None``: to nobody in particular)."""
        token = self._context.set(owner)
        try:
            yield
        finally:
            self._context.reset(token)
