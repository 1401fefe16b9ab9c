"""The translation of one value: piece by piece, what the two contexts supplied of it.

Invariants:

* A recorded value stands in for a live one only if both were supplied, in the same way and the same form.
* What is still what it was stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import commonprefix, dirname
from typing import Any

from . import tokens
from .clock import Clock, Reading, readings
from .context import PATH_KINDS, PREFIX, Context
from .tokens import HEX, LITERAL, NETLOC, NUMBER, PATH, PHRASE_, UUID, Piece

_DRAWN = 32768
"""From here on, systems draw the ports that nobody has asked for by number."""
_MOST_PIECES = 1_000_000
"""Pairs of pieces that are worth being aligned."""


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


class Couples:
    """Which live value stands for which recorded one, where there is one for each: an id that two requests share."""

    def __init__(self) -> None:
        self.live_of: dict[str, str] = {}
        self.golden_of: dict[str, str] = {}

    def copy(self) -> Couples:
        made = Couples()
        made.live_of, made.golden_of = dict(self.live_of), dict(self.golden_of)
        return made

    def agree(self, golden: str, live: str) -> bool:
        """Take in another one, if it is faithful to those before it."""
        if self.live_of.get(golden, live) != live or self.golden_of.get(live, golden) != golden:
            return False
        self.live_of[golden], self.golden_of[live] = live, golden
        return True


class Pair:
    """The translation of one value."""

    def __init__(self, then: Context, now: Context, exact: frozenset[str], couples: Couples) -> None:
        self._then, self._now, self._exact, self._couples = then, now, exact, couples
        self.paths = then.paths | now.paths
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
        if is_number(golden) and type(golden) is type(live):
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
            for piece in tokens.pieces(value, paths=self.paths):
                self.stands_in(piece, piece, path)
        elif is_number(value):
            self.stands_in(Piece(NUMBER, repr(value)), Piece(NUMBER, repr(value)), path)

    def mapping(self, golden: Mapping[str, Any], live: Mapping[str, Any], path: str) -> dict[str, Any]:
        found = {
            key: self.value(golden[key], item, f"{path}.{key}".lstrip("."))
            for key, item in live.items()
            if key in golden
        }
        # What those said may tell which of the others is which: a recorded mapping is in the order of its keys.
        unmet = [key for key in golden if key not in live]
        for key, item in live.items():
            if key not in golden:
                name = self._key_for(key, item, {one: golden[one] for one in unmet}, path) or key
                found[name] = item
                if name in unmet:
                    unmet.remove(name)
                    self.text(name, key, f"{path}.{key}")
                    found[name] = self.value(golden[name], item, f"{path}.{name}".lstrip("."))
        return found

    def _key_for(self, key: str, item: Any, unmet: Mapping[str, Any], path: str) -> str | None:
        """The recorded key for which a live one stands, one with the same value if there is any."""
        possible: list[str] = []
        for name, value in unmet.items():
            trial = Pair(self._then, self._now, self._exact, self._couples.copy())
            if trial.text(name, key, path) == name:
                if trial.value(value, item, path) == value:
                    return name
                possible.append(name)
        return possible[0] if possible else None

    def text(self, golden: str, live: str, path: str) -> str:
        ours, theirs = (tokens.pieces(text, paths=self.paths) for text in (live, golden))
        result = [piece.text for piece in ours]
        for index, other in _aligned(ours, theirs):
            if ours[index] != other and self.stands_in(other, ours[index], path):
                result[index] = other.text
        return "".join(result)

    def stands_in(self, golden: Piece, live: Piece, path: str) -> bool:
        kind = None if golden.shape == LITERAL else self.kind(golden, live)
        if kind is None or kind in self._exact:
            return False
        ours, theirs = _whole(kind, live.text, self._now), _whole(kind, golden.text, self._then)
        if ours and theirs and not self._couples.agree(f"{kind} {theirs}", f"{kind} {ours}"):
            return False
        self.made.append(Substitution(kind, path, golden.text, live.text))
        return True

    def kind(self, golden: Piece, live: Piece) -> str | None:
        if golden.shape == PATH:
            kinds = [kind for kind in PATH_KINDS if self._is_path(kind, golden.text, live.text)]
            # One directory may be several things: it is exact only where all of them are.
            return next((kind for kind in kinds if kind not in self._exact), kinds[0] if kinds else None)
        if golden.shape == UUID:
            return "uuid" if self._is_uuid(golden.text, live.text) else None
        if golden.shape == NETLOC:
            (host, _, port), (live_host, _, live_port) = golden.text.rpartition(":"), live.text.rpartition(":")
            return "port" if host == live_host and self._is_port(port, live_port) else None
        if golden.shape != HEX and self._is_clock(golden.text, live.text):
            return "clock"
        if golden.text.isalnum() and PREFIX <= len(golden.text) < 32 and self._is_uuid(golden.text, live.text):
            return "uuid"
        if self._then.has("pid", golden.text) and self._now.has("pid", live.text):
            return "pid"
        return "port" if self._is_port(golden.text, live.text) else None

    def _is_path(self, kind: str, golden: str, live: str) -> bool:
        (theirs, ours), then, now = map(tokens.plain_path, (golden, live)), self._then, self._now
        if not then.has(kind, theirs) or not now.has(kind, ours) or (theirs == golden) != (ours == live):
            return False
        # What is still there stands for itself: to go elsewhere was the author's choice.
        return _made_alike(theirs, ours, then, now) if kind == "tmp" else theirs == ours or not now.has(kind, theirs)

    def _is_uuid(self, golden: str, live: str) -> bool:
        same_form = len(golden) == len(live) and _is_of_one_size(golden, live) and golden.isalnum() == live.isalnum()
        return same_form and bool(self._then.made(golden)) and bool(self._now.made(live))

    def _is_port(self, golden: str, live: str) -> bool:
        if not self._then.has("port", golden) or not self._now.has("port", live):
            return False
        stays = golden in self._now.settled or (int(golden) < _DRAWN and self._now.has("port", golden))
        return golden == live or not stays

    def _is_clock(self, golden: str, live: str) -> bool:
        ours = list(readings(live))
        for one in readings(golden):
            for other in ours:
                if one.is_like(other) and self._showed(one, other):
                    return True
        return _alike(golden, live) and any(
            _is_epoch(golden, then) and _is_epoch(live, now) for then, now in self._clocks()
        )

    def _clocks(self) -> Iterator[tuple[Clock, Clock]]:
        """The clocks of then and now that can have shown the same."""
        return ((then, now) for then in self._then.clocks for now in self._now.clocks if then.stands_for(now))

    def _showed(self, golden: Reading, live: Reading) -> bool:
        if self._both_showed(golden.fields, live.fields):
            return True
        # Today at nine: the day is the clock's, the time is the author's.
        return bool(golden.time) and golden.time == live.time and self._both_showed(golden.day, live.day)

    def _both_showed(self, golden: Mapping[str, int], live: Mapping[str, int]) -> bool:
        if not golden:
            return False
        zones = golden.get("zone"), live.get("zone")
        for then, now in self._clocks():
            local = None not in zones and then.is_local(zones[0] or 0) and now.is_local(zones[1] or 0)
            if (zones[0] == zones[1] or local) and then.showed(golden) and now.showed(live):
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
    # A number may be a date without its dashes, or what is left of a uuid.
    return ("number" if piece.shape == HEX or (piece.shape == PHRASE_ and piece.text.isdigit()) else piece.shape, "")


_EPOCH_UNITS = {10: 1.0, 13: 1e3, 16: 1e6, 19: 1e9}


def _is_epoch(text: str, clock: Clock) -> bool:
    whole = text.partition(".")[0]
    unit = _EPOCH_UNITS.get(len(whole)) if whole.isdigit() else None
    return unit is not None and clock.passed(float(text) / unit)


def _alike(golden: str, live: str) -> bool:
    return len(golden.partition(".")[0]) == len(live.partition(".")[0]) and ("." in golden) == ("." in live)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_of_one_size(golden: str, live: str) -> bool:
    """Whether two ids are in letters of one size; digits have none."""
    both = golden + live
    return both in (both.lower(), both.upper())


def _whole(kind: str, text: str, context: Context) -> str:
    """Which value a text is, however it is written; nothing for what may have several names."""
    if kind == "uuid":
        return context.made(text)
    if kind == "tmp":
        return tokens.plain_path(text).removeprefix("/private")  # macOS has two names for it
    return text.rpartition(":")[2] if kind == "port" else ""


def _made_alike(golden: str, live: str, then: Context, now: Context) -> bool:
    """Whether the same made two temporary paths: by a number at the end, by eight letters drawn, or neither did."""
    one, other = (re.split(r"[/\\]", path)[-1] for path in (golden, live))
    if one.rstrip("0123456789") == other.rstrip("0123456789"):
        return True
    start = _common(one, other)
    end = _common(one[start:][::-1], other[start:][::-1])
    drawn = [text[start : len(text) - end] for text in (one, other)]
    if len(one) == len(other) and all(re.fullmatch(r"[a-z0-9_]{1,8}", text) for text in drawn):
        return True
    return not _is_within(golden, then) and not _is_within(live, now)


def _common(one: str, other: str) -> int:
    return len(commonprefix((one, other)))  # noqa: RUF071 - letter by letter is what is wanted


def _is_within(path: str, context: Context) -> bool:
    above = dirname(path)
    while above != dirname(above):
        if context.has("tmp", above):
            return True
        above = dirname(above)
    return False
