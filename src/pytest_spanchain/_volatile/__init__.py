"""Volatile values: what the run's own context supplied, then and now, in prompts and arguments.

Nothing is volatile by its shape. A value of the recording is, where it is what that run's clock showed, a uuid that
process had just made, its number, one of its paths or ports; a value of the live run takes its place where it is the
same for this one. Then it is *translated*: the recorded value stands in for it, and what is compared is equal.

Invariants:

* Pure: what a process knows of itself comes in as a ``Context``.
* What is equal already is never looked at, and nothing but a value of the recording is ever put in.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from ..errors import CassetteBroken
from . import tokens
from .clock import Clock as Clock
from .clock import Reading, readings
from .tokens import LITERAL, NETLOC, NUMBER, PATH, PHRASE_, UUID, Piece

PATH_KINDS = ("cwd", "home", "tmp")
_MOST_PIECES = 1_000_000
"""Pairs of pieces that are worth being aligned."""


@dataclass(frozen=True)
class Context:
    """What a process knows of itself.

    Args:
        clocks: what its clock showed; of a recording that was made in several runs, of each of them.
        values: texts by kind: ``uuid`` (with dashes), ``pid``, ``cwd``, ``home``, ``tmp`` and ``port``.
    """

    clocks: tuple[Clock, ...] = ()
    values: Mapping[str, Set[str]] = field(default_factory=dict)

    def has(self, kind: str, text: str) -> bool:
        """Whether a text is a value of that kind."""
        return text in self.values.get(kind, ())

    @property
    def paths(self) -> frozenset[str]:
        """All paths."""
        return frozenset(path for kind in PATH_KINDS for path in self.values.get(kind, ()))

    def joined(self, other: Context) -> Context:
        """What both know."""
        kinds = (*self.values, *other.values)
        values = {kind: {*self.values.get(kind, ()), *other.values.get(kind, ())} for kind in kinds}
        return Context((*self.clocks, *other.clocks), values)

    def to_plain(self) -> dict[str, Any]:
        """As a cassette's header holds it."""
        clocks = [
            {"from": str(clock.start_ns), "to": str(clock.end_ns), "utc_offset": clock.offset} for clock in self.clocks
        ]
        return {"clocks": clocks, "values": {kind: sorted(found) for kind, found in sorted(self.values.items())}}

    @classmethod
    def from_plain(cls, plain: Any) -> Context:
        """What ``to_plain`` gave; of a recording without one, a context that knows nothing.

        Raises:
            CassetteBroken: it is something else.
        """
        if plain is None:
            return cls()
        try:
            clocks = [Clock(int(one["from"]), int(one["to"]), int(one["utc_offset"])) for one in plain["clocks"]]
            values = {str(kind): frozenset(map(str, found)) for kind, found in plain["values"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CassetteBroken(
                f"it is no context of a run: {error!r}", field="header.recorder.context", remedy="Record it again."
            ) from None
        return cls(tuple(clocks), values)

    def within(self, told: Iterable[tuple[Any, Any]]) -> Context:
        """What of it occurs in a run; the clocks always.

        Args:
            told: plain values in order: what went out and what came back. A value that came back before it went out
                was the answer's, although this very process may have made it.
        """
        kept: dict[str, set[str]] = {kind: set() for kind in self.values}
        answered: set[str] = set()
        for sent, received in told:
            for kind, known in self.values.items():
                open_ = [text for text in known if text not in kept[kind] and text not in answered]
                kept[kind].update(_occurring(kind, open_, sent))
            made = [text for text in self.values.get("uuid", ()) if text not in kept["uuid"]]
            answered.update(_occurring("uuid", made, received))
        return Context(self.clocks, {kind: found for kind, found in kept.items() if found})


@dataclass(frozen=True)
class Substitution:
    """A live value for which the recorded one stands in.

    Args:
        kind: as in ``_settings.VOLATILE``.
        path: where, below what was translated.
        golden: the recorded text.
        live: the live one.
    """

    kind: str
    path: str
    golden: str
    live: str


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
        self._couples = _Couples()

    def translated(self, golden: Any, live: Any) -> Translation:
        """The live value, with recorded volatile values in place of its own.

        Args:
            golden: a plain value of the recording.
            live: the plain value that takes its place.
        """
        if golden == live:
            return Translation(live)
        with self._lock:
            couples = self._couples.copy()
        pair = _Pair(self._then, self._now(), self._exact, couples)
        return Translation(pair.value(golden, live, ""), tuple(pair.made))

    def settle(self, made: Iterable[Substitution]) -> None:
        """Hold on to it that these live values stand for those recorded ones, in the rest of the run, too."""
        with self._lock:
            for one in made:
                self._couples.add(one)


@dataclass(frozen=True)
class Translation:
    """A translated value.

    Args:
        value: the value.
        made: the substitutions in it.
    """

    value: Any
    made: tuple[Substitution, ...] = ()


class _Couples:
    """Which live value stands for which recorded one, where there is one for each: an id that two requests share."""

    kinds = frozenset({"uuid", "port"})

    def __init__(self) -> None:
        self.live_of: dict[str, str] = {}
        self.golden_of: dict[str, str] = {}

    def copy(self) -> _Couples:
        made = _Couples()
        made.live_of, made.golden_of = dict(self.live_of), dict(self.golden_of)
        return made

    def add(self, made: Substitution) -> bool:
        """Whether this one is faithful to those before it."""
        if made.kind not in self.kinds:
            return True
        golden, live = (f"{made.kind} {_plainest(text)}" for text in (made.golden, made.live))
        return self.live_of.setdefault(golden, live) == live and self.golden_of.setdefault(live, golden) == golden


def occurrences(context: Context, value: Any) -> tuple[Substitution, ...]:
    """The volatile values in a plain value of a recording, each as what would stand in for itself."""
    pair = _Pair(context, context, frozenset(), _Couples())
    pair.find(value, "")
    return tuple(pair.made)


def coarse(value: Any) -> Any:
    """A plain value with nothing left of what a context could have supplied.

    What ``Volatile.translated`` can make equal is equal here: an index for candidates, and no verdict.
    """
    if isinstance(value, str):
        return tokens.coarse(value)
    if isinstance(value, Mapping):
        return sorted(([tokens.coarse(key), coarse(item)] for key, item in value.items()), key=repr)
    if isinstance(value, list):
        return [coarse(item) for item in value]
    return "#" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class _Pair:
    """The translation of one value."""

    def __init__(self, then: Context, now: Context, exact: frozenset[str], couples: _Couples) -> None:
        self._then, self._now, self._exact, self._couples = then, now, exact, couples
        self._paths = then.paths | now.paths
        self.made: list[Substitution] = []

    def value(self, golden: Any, live: Any, path: str) -> Any:
        if golden == live:
            return live
        if isinstance(golden, str) and isinstance(live, str):
            return self.text(golden, live, path)
        if isinstance(golden, Mapping) and isinstance(live, Mapping):
            return self.mapping(golden, live, path)
        if isinstance(golden, list) and isinstance(live, list):
            known = [
                self.value(one, other, f"{path}[{index}]")
                for index, (one, other) in enumerate(zip(golden, live, strict=False))
            ]
            return [*known, *live[len(known) :]]
        if _is_number(golden) and type(golden) is type(live):
            return golden if self.stands_in(Piece(NUMBER, repr(golden)), Piece(NUMBER, repr(live)), path) else live
        return live

    def find(self, value: Any, path: str) -> None:
        """Note all volatile values of one side."""
        if isinstance(value, Mapping):
            for key, item in value.items():
                self.find(key, f"{path}.{key}".lstrip("."))
                self.find(item, f"{path}.{key}".lstrip("."))
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                self.find(item, f"{path}[{index}]")
        elif isinstance(value, str):
            for piece in tokens.pieces(value, paths=self._paths):
                self.stands_in(piece, piece, path)
        elif _is_number(value):
            self.stands_in(Piece(NUMBER, repr(value)), Piece(NUMBER, repr(value)), path)

    def mapping(self, golden: Mapping[str, Any], live: Mapping[str, Any], path: str) -> dict[str, Any]:
        unmet = [key for key in golden if key not in live]
        found: dict[str, Any] = {}
        for key, item in live.items():
            name = key
            if key not in golden:
                name = next((other for other in unmet if self.text(other, key, f"{path}.{key}") == other), key)
                if name in unmet:
                    unmet.remove(name)
            found[name] = self.value(golden[name], item, f"{path}.{key}".lstrip(".")) if name in golden else item
        return found

    def text(self, golden: str, live: str, path: str) -> str:
        ours, theirs = (tokens.pieces(text, paths=self._paths) for text in (live, golden))
        result = [piece.text for piece in ours]
        for index, other in _aligned(ours, theirs):
            if ours[index] != other and self.stands_in(other, ours[index], path):
                result[index] = other.text
        return "".join(result)

    def stands_in(self, golden: Piece, live: Piece, path: str) -> bool:
        kind = None if golden.shape == LITERAL else self._kind(golden, live)
        if kind is None or kind in self._exact:
            return False
        made = Substitution(kind, path, golden.text, live.text)
        if not self._couples.add(made):
            return False
        self.made.append(made)
        return True

    def _kind(self, golden: Piece, live: Piece) -> str | None:
        then, now = self._then, self._now
        if golden.shape == PATH:
            kinds = [kind for kind in PATH_KINDS if then.has(kind, golden.text) and now.has(kind, live.text)]
            # One directory may be several things: it is exact only where all of them are.
            return next((kind for kind in kinds if kind not in self._exact), kinds[0] if kinds else None)
        if golden.shape == UUID:
            same_form = len(golden.text) == len(live.text) and golden.text.isupper() == live.text.isupper()
            return "uuid" if same_form and _is_made(golden.text, then) and _is_made(live.text, now) else None
        if golden.shape == NETLOC:
            (host, _, port), (live_host, _, live_port) = golden.text.rpartition(":"), live.text.rpartition(":")
            return "port" if host == live_host and then.has("port", port) and now.has("port", live_port) else None
        if self._is_clock(golden.text, live.text):
            return "clock"
        return next(
            (kind for kind in ("pid", "port") if then.has(kind, golden.text) and now.has(kind, live.text)), None
        )

    def _is_clock(self, golden: str, live: str) -> bool:
        ours = list(readings(live))
        for one in readings(golden):
            for other in ours:
                if one.is_like(other) and self._showed(one, other):
                    return True
        return _is_epoch(golden, self._then.clocks) and _is_epoch(live, self._now.clocks) and _alike(golden, live)

    def _showed(self, golden: Reading, live: Reading) -> bool:
        zones = golden.fields.get("zone"), live.fields.get("zone")
        for then in self._then.clocks:
            for now in self._now.clocks:
                local = None not in zones and then.is_local(zones[0] or 0) and now.is_local(zones[1] or 0)
                if (zones[0] == zones[1] or local) and then.showed(golden.fields) and now.showed(live.fields):
                    return True
        return False


def _aligned(ours: list[Piece], theirs: list[Piece]) -> Iterator[tuple[int, Piece]]:
    """Positions of our pieces that may be translated, each with the piece of theirs that it corresponds to."""
    one, other = ([_key(piece) for piece in pieces] for pieces in (ours, theirs))
    if one == other:
        yield from ((index, theirs[index]) for index, piece in enumerate(ours) if piece.shape != LITERAL)
    elif len(one) * len(other) <= _MOST_PIECES:
        from difflib import SequenceMatcher  # only a changed text needs it

        for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
            for step in range(block.size):
                if ours[block.a + step].shape != LITERAL:
                    yield block.a + step, theirs[block.b + step]


def _key(piece: Piece) -> tuple[str, str]:
    if piece.shape == LITERAL:
        return piece
    # A number may be a date without its dashes.
    return ("number" if piece.shape == PHRASE_ and piece.text.isdigit() else piece.shape, "")


_EPOCH_UNITS = {10: 1.0, 13: 1e3, 16: 1e6, 19: 1e9}


def _is_epoch(text: str, clocks: Iterable[Clock]) -> bool:
    whole = text.partition(".")[0]
    unit = _EPOCH_UNITS.get(len(whole)) if whole.isdigit() else None
    return unit is not None and any(clock.passed(float(text) / unit) for clock in clocks)


def _alike(golden: str, live: str) -> bool:
    return len(golden.partition(".")[0]) == len(live.partition(".")[0]) and ("." in golden) == ("." in live)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_made(text: str, context: Context) -> bool:
    """Whether a process made a uuid: it was seen to, or the uuid says when it was made (version 7), and it was then."""
    made = uuid.UUID(text)
    if made.version == 7:
        return any(clock.passed((made.int >> 80) / 1000) for clock in context.clocks)
    return context.has("uuid", str(made))


def _dashed(text: str) -> str:
    return str(uuid.UUID(text))


def _plainest(text: str) -> str:
    """A uuid or a port however it is written."""
    return text.rpartition(":")[2].replace("-", "").lower()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif _is_number(value):
        yield repr(value)


def _occurring(kind: str, known: list[str], value: Any) -> set[str]:
    """Which of these values of a kind are in a plain value, however they are written."""
    if not known:
        return set()
    found: set[str] = set()
    for text in _texts(value):
        if kind != "uuid":
            found.update(one for one in known if one in text)
        elif len(text) >= 32:
            folded = text.lower()
            if len(known) <= _FEW:
                found.update(one for one in known if one in folded or one.replace("-", "") in folded)
            else:
                found.update({_dashed(one) for one in _UUID.findall(folded)}.intersection(known))
    return found


_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")
_FEW = 50
"""So many texts are found faster one by one than by a pattern."""
