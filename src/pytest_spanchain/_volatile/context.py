"""What a process knows of itself, and what of it a run has said.

Invariant: what a recording keeps of its context has crossed a boundary of it; nothing else of a machine is in the file.
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from os.path import dirname
from typing import Any

from ..errors import CassetteBroken
from . import tokens
from .clock import Clock

PATH_KINDS = ("cwd", "home", "tmp")
PREFIX = 8
"""So many hexadecimal digits of a uuid tell which one it is."""

_FEW = 50
"""So many uuids are looked for one by one in each text; of more, the text is searched for what looks like one."""
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")
_NUMBER = re.compile(r"\d+")
_HEX = re.compile(rf"(?<![0-9a-f])[0-9a-f]{{{PREFIX},31}}(?![0-9a-z])")


@dataclass(frozen=True)
class Context:
    """What a process knows of itself.

    Args:
        clocks: what its clock showed; of a recording that was made in several runs, of each of them.
        values: texts by kind: ``uuid`` (with dashes), ``pid``, ``cwd``, ``home``, ``tmp`` and ``port``.
        settled: ports that the machine's own configuration names: each stands for itself only.
    """

    clocks: tuple[Clock, ...] = ()
    values: Mapping[str, Set[str]] = field(default_factory=dict)
    settled: Set[str] = frozenset()

    def has(self, kind: str, text: str) -> bool:
        """Whether a text is a value of that kind."""
        return text in self.values.get(kind, ())

    def made(self, text: str) -> str:
        """The uuid that a text of at least ``PREFIX`` digits is or begins, if a process made it; else nothing.

        It was seen to make it; or the uuid says when it was made (version 7), and it was then.
        """
        bare = text.replace("-", "").lower()
        if len(bare) < 32:
            return next((one for one in map(_bare, self.values.get("uuid", ())) if one.startswith(bare)), "")
        made = uuid.UUID(bare)
        if made.version == 7:
            known = any(clock.passed((made.int >> 80) / 1000) for clock in self.clocks)
        else:
            known = self.has("uuid", str(made))
        return bare if known else ""

    @property
    def paths(self) -> frozenset[str]:
        """All paths."""
        return _union(*(frozenset(self.values.get(kind, ())) for kind in PATH_KINDS))

    def joined(self, other: Context) -> Context:
        """What both know."""
        kinds = (*self.values, *other.values)
        values = {kind: {*self.values.get(kind, ()), *other.values.get(kind, ())} for kind in kinds}
        return Context((*self.clocks, *other.clocks), values)

    def to_plain(self) -> dict[str, Any]:
        """As a cassette's header holds it."""
        clocks = [
            {"from": str(clock.start_ns), "to": str(clock.end_ns), "utc_offset": clock.offset}
            | ({"moved": True} if clock.moved else {})
            for clock in self.clocks
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
            clocks = [
                Clock(int(one["from"]), int(one["to"]), int(one["utc_offset"]), moved=one.get("moved") is True)
                for one in plain["clocks"]
            ]
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
        # Other threads go on making uuids meanwhile: what is walked through is a copy.
        made = _Made(tuple(self.values.get("uuid", ())))
        kept: dict[str, set[str]] = {kind: set() for kind in (*self.values, "uuid")}
        own_paths = self.paths
        known_texts: set[str] = set()  # a history says the same again with every request, and brings nothing new
        for sent, received in told:
            for text in _texts(sent):
                if text in known_texts:
                    continue
                known_texts.add(text)
                kept["uuid"].update(made.taken(text))
                paths = {tokens.plain_path(text[start:end]) for start, end in tokens.known_paths(text, own_paths)}
                # A directory in which one of them was made tells what sort of path it is.
                paths |= {above for path in paths for above in _parents(path)}
                numbers = set(_NUMBER.findall(text))
                for kind, known in self.values.items():
                    if kind != "uuid":
                        found = paths if kind in PATH_KINDS else numbers
                        kept[kind].update(found.intersection(known))
            for text in _texts(received):
                made.taken(text)
        return Context(self.clocks, {kind: found for kind, found in kept.items() if found})


class _Made:
    """The uuids that a process made and that have not been met."""

    def __init__(self, known: Iterable[str]) -> None:
        self._whole = {_bare(one): one for one in known}
        self._begun = {bare[:PREFIX]: bare for bare in self._whole}

    def taken(self, text: str) -> set[str]:
        """Those that a text has, whole or cut off; they are no longer here."""
        if not self._whole or len(text) < PREFIX:
            return set()
        folded = text.lower()
        # To look for a few is faster than to look for what they look like.
        if len(self._begun) <= _FEW and not any(begin in folded for begin in self._begun):
            return set()
        found = {_bare(one) for one in _UUID.findall(folded)}
        begun = ((self._begun.get(one[:PREFIX], ""), one) for one in _HEX.findall(folded))
        found |= {bare for bare, one in begun if bare.startswith(one)}
        return {self._whole.pop(bare) for bare in found & self._whole.keys()}


@functools.lru_cache(maxsize=32)
def _union(*parts: frozenset[str]) -> frozenset[str]:
    return frozenset().union(*parts)


def _parents(path: str) -> Iterator[str]:
    while (above := dirname(path)) != path:
        yield above
        path = above


def _bare(text: str) -> str:
    return text.replace("-", "")


def _texts(value: Any) -> Iterator[str]:
    """All texts and numbers in a plain value, keys included, in no order."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, (int, float)):
            if not isinstance(value, bool):
                yield repr(value)
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
        elif isinstance(value, Mapping):
            for pair in value.items():
                pending.extend(pair)
