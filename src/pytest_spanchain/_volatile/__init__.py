"""Volatile values: what the run's own context supplied, then and now, in prompts and arguments.

Nothing is volatile by its shape. A value of the recording is, where it is what that run's clock showed, a uuid that
process had just made, its number, one of its paths or ports; a value of the live run takes its place where it is the
same for this one. Then it is *translated*: the recorded value stands in for it, and what is compared is equal.

Invariants:

* Pure: what a process knows of itself comes in as a ``Context``.
* What is equal already is never looked at, and nothing but a value of the recording is ever put in.

What servers of models draw for their answers (``drawn``) is another matter: it is looked at only where two runs were
both answered for real.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import tokens
from .clock import Clock as Clock
from .context import Context as Context
from .drawn import DRAWN as DRAWN
from .drawn import Drawn as Drawn
from .pair import Couples, Pair, is_number
from .pair import Substitution as Substitution
from .tokens import LITERAL, NUMBER, Piece


class Volatile:
    """Translates values of a live run into those of its recording.

    Args:
        then: the recording's context.
        now: gives this process's context.
        exact: kinds that are left as they are.
    """

    def __init__(self, then: Context, now: Callable[[], Context], *, exact: Iterable[str] = ()) -> None:
        self._then = then
        self._now = now
        self._exact = frozenset(exact)
        self._lock = threading.Lock()
        self._couples = Couples()

    def fork(self) -> Volatile:
        """Another one that knows what this one has claimed, and claims for itself."""
        with self._lock:
            made = Volatile(self._then, self._now, exact=self._exact)
            made._couples = self._couples.copy()
        return made

    def translated(self, golden: Any, live: Any) -> Any:
        """The live value, with recorded volatile values in place of its own.

        Args:
            golden: a plain value of the recording.
            live: the plain value that would take its place.
        """
        if golden == live:
            return live
        with self._lock:
            couples = self._couples.copy()
        return Pair(self._then, self._now(), self._exact, couples).value(golden, live, "")

    def masked(self, value: Any) -> Any:
        """A plain value without what either of the two contexts could have supplied.

        What ``translated`` can make equal is equal here, but for coincidences: it says what to try first.
        """
        now = self._now()
        return _masked(value, [Pair(one, one, frozenset(), Couples()) for one in (self._then, now)])

    def claim(self, golden: Any, live: Any) -> Translation:
        """Translate for good: what stands for what now does so in the rest of the run.

        Args:
            golden: a plain value of the recording.
            live: the plain value that takes its place.
        """
        if golden == live:
            return Translation(live)
        now = self._now()
        with self._lock:
            pair = Pair(self._then, now, self._exact, self._couples)
            return Translation(pair.value(golden, live, ""), tuple(pair.made))


@dataclass(frozen=True)
class Translation:
    """A translated value.

    Args:
        value: the value.
        made: the substitutions in it.
    """

    value: Any
    made: tuple[Substitution, ...] = ()


def occurrences(context: Context, value: Any) -> tuple[Substitution, ...]:
    """The volatile values in a plain value of a recording, each as what would stand in for itself."""
    pair = Pair(context, context, frozenset(), Couples())
    pair.find(value, "")
    return tuple(pair.made)


def coarse(value: Any, *, known: dict[str, str]) -> Any:
    """A plain value with nothing left of what a context could have supplied.

    What ``Volatile.translated`` can make equal is equal here: an index for candidates, and no verdict.

    Args:
        value: the value.
        known: texts that have been done before; histories say everything again in every request.
    """
    if isinstance(value, str):
        if value not in known:
            known[value] = tokens.coarse(value)
        return known[value]
    if isinstance(value, Mapping):
        return sorted(([tokens.coarse(key), coarse(item, known=known)] for key, item in value.items()), key=repr)
    if isinstance(value, list):
        return [coarse(item, known=known) for item in value]
    return "#" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _masked(value: Any, alone: list[Pair]) -> Any:
    if isinstance(value, str):
        paths = alone[0].paths | alone[1].paths
        return "".join(_masked_piece(piece, alone) for piece in tokens.pieces(value, paths=paths))
    if isinstance(value, Mapping):
        return sorted(([_masked(key, alone), _masked(item, alone)] for key, item in value.items()), key=repr)
    if isinstance(value, list):
        return [_masked(item, alone) for item in value]
    return _masked_piece(Piece(NUMBER, repr(value)), alone) if is_number(value) else value


def _masked_piece(piece: Piece, alone: list[Pair]) -> str:
    is_known = piece.shape != LITERAL and any(pair.kind(piece, piece) for pair in alone)
    return "#" if is_known else piece.text
