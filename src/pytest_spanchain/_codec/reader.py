"""YAML text to plain values: a strict subset, bounded while reading.

The subset: one document; block or flow collections; no tag, directive or merge key; keys are text, without repeats;
aliases only back to a finished anchor. Invariants:

* no bound of ``limits`` is passed by more than one event, aliases counted as if written out;
* a plain scalar has one meaning: it is accepted only where YAML 1.1 (as PyYAML reads it) and JSON agree on its type,
  so ``no``, ``1_000``, ``12:30:45``, ``2024-01-01``, ``0x1f``, ``1e7``, ``~`` and nothing at all are refused, and
  whoever wants them as text has to quote them;
* the value shares no mutable part with itself: an alias is a copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .limits import MAX_DEPTH, MAX_DIGITS, MAX_NODES, MAX_TEXT

_WORDS = {"null": None, "true": True, "false": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
# The forms that YAML 1.1 takes for a float as well: a dot, and a sign in the exponent.
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+][0-9]+)?")
# Anything else that some YAML reader takes for other than text: every spelling of YAML 1.1 and 1.2 and of JSON.
_DISPUTED = re.compile(
    r"""yes|no|on|off|true|false|null|~||=|<<|[-+]?\.inf|\.nan
    |[-+]?0[bB][01_]*|[-+]?0[oO][0-7_]*|[-+]?0[xX][0-9a-fA-F_]*
    |[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?
    |[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-9]+)+(?:\.[0-9_]*)?
    |[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+).*)?""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL | re.ASCII,
)


class NotStrictError(ValueError):
    """The text is not of the strict subset.

    Args:
        reason: what is wrong, without the text's content.
        line: 1-based line.
    """

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason, line)
        self.reason = reason
        self.line = line


@dataclass(frozen=True)
class Read:
    """A value, and the 1-based lines on which the items of its ``entries`` start."""

    value: Any
    entry_lines: tuple[int, ...]


def read(text: str) -> Read:
    """Read one document.

    Raises:
        NotStrictError: it is not of the strict subset, or passes a bound.
    """
    import yaml

    builder = _Builder()
    try:
        for event in _events(text):
            builder.take(event)
    except NotStrictError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotStrictError(f"is not YAML: {error.problem}", mark.line + 1 if mark else 1) from None
    except yaml.YAMLError:  # ReaderError: a character that YAML does not allow; it knows no line
        raise NotStrictError("holds a character that YAML does not allow", _line_of_bad_character(text)) from None
    except (ValueError, OverflowError):  # the pure-Python scanner, on an escape beyond Unicode
        raise NotStrictError("is not YAML: an escape that is no character", builder.line) from None
    return builder.result()


def _events(text: str) -> Iterator[Any]:
    import yaml

    # Only the event stream: composing or loading recurses in C, and deep nesting ends the process there.
    parse: Any = yaml.parse
    return iter(parse(text, Loader=getattr(yaml, "CLoader", yaml.Loader)))


def _line_of_bad_character(text: str) -> int:
    found = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


@dataclass
class _Frame:
    """A collection under construction, with the counters at its start and the deepest level reached in it."""

    value: Any
    anchor: str | None
    nodes: int
    text: int
    deepest: int
    key: str | None = None


@dataclass(frozen=True)
class _Anchored:
    """A finished anchor: its value and what an alias of it costs."""

    value: Any
    nodes: int
    text: int
    height: int


@dataclass
class _Builder:
    """Builds the value from events, one at a time, and counts."""

    nodes: int = 0
    text: int = 0
    documents: int = 0
    line: int = 1
    stack: list[_Frame] = field(default_factory=list)
    anchors: dict[str, _Anchored] = field(default_factory=dict)
    open_anchors: set[str] = field(default_factory=set)
    plain: dict[str, Any] = field(default_factory=dict)
    entry_lines: list[int] = field(default_factory=list)
    root: list[Any] = field(default_factory=list)

    def take(self, event: Any) -> None:
        """One event of the stream."""
        self.line = event.start_mark.line + 1
        # The name, as the classes live in a library that is imported on use.
        kind = type(event).__name__
        if kind == "ScalarEvent":
            self._scalar(event)
        elif kind == "AliasEvent":
            self._alias(event)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._finish(self.stack.pop())
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._start(event, {} if kind == "MappingStartEvent" else [])
        elif kind == "DocumentStartEvent":
            self._document(event)

    def result(self) -> Read:
        """What was read."""
        if not self.root:
            raise NotStrictError("is empty", 1)
        return Read(self.root[0], tuple(self.entry_lines))

    def _document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            raise self._error("holds more than one YAML document")
        if event.version or event.tags:
            raise self._error("holds a YAML directive")

    def _start(self, event: Any, value: Any) -> None:
        self._count(event)
        if self._wants_key():
            raise self._error("has a mapping key that is not text")
        depth = len(self.stack) + 1
        if depth > MAX_DEPTH:
            raise self._error(f"is nested deeper than {MAX_DEPTH} levels")
        self._open(event.anchor)
        self.stack.append(_Frame(value, event.anchor, self.nodes - 1, self.text, depth))
        if depth == 3:
            self._note_entry(self.stack[:-1])

    def _finish(self, frame: _Frame) -> None:
        depth = len(self.stack)
        if frame.anchor is not None:
            cost = (self.nodes - frame.nodes, self.text - frame.text, frame.deepest - depth)
            self._close(frame.anchor, _Anchored(frame.value, *cost))
        if self.stack:
            self.stack[-1].deepest = max(self.stack[-1].deepest, frame.deepest)
        self._add(frame.value)

    def _scalar(self, event: Any) -> None:
        self._count(event)
        before = self.text
        self._spend(len(event.value))
        value = self._quoted(event.value) if event.style else self._plain(event.value)
        if event.anchor is not None:
            self._open(event.anchor)
            self._close(event.anchor, _Anchored(value, 1, self.text - before, 0))
        if not self._wants_key():
            if len(self.stack) == 2:
                self._note_entry(self.stack)
            self._add(value)
            return
        if type(value) is not str or event.anchor is not None:
            raise self._error("has a mapping key that is not text")
        if value in self.stack[-1].value:
            raise self._error("has a mapping key twice")
        self.stack[-1].key = value

    def _alias(self, event: Any) -> None:
        if self._wants_key():
            raise self._error("has an alias as a mapping key")
        anchored = self.anchors.get(event.anchor)
        if anchored is None or event.anchor in self.open_anchors:
            raise self._error("has an alias that points to no finished anchor")
        # Budget first, then copy: a kilobyte of aliases can stand for gigabytes.
        self.nodes += anchored.nodes
        self._spend(anchored.text)
        deepest = len(self.stack) + anchored.height
        if self.nodes > MAX_NODES or deepest > MAX_DEPTH:
            raise self._error("grows beyond its bounds when its aliases are written out")
        if self.stack:
            self.stack[-1].deepest = max(self.stack[-1].deepest, deepest)
        if len(self.stack) == 2:
            self._note_entry(self.stack)
        self._add(_copy(anchored.value))

    def _add(self, value: Any) -> None:
        if not self.stack:
            self.root.append(value)
            return
        frame = self.stack[-1]
        if type(frame.value) is list:
            frame.value.append(value)
        else:
            frame.value[frame.key] = value
            frame.key = None

    def _note_entry(self, parents: list[_Frame]) -> None:
        if parents[0].key == "entries" and type(parents[1].value) is list:
            self.entry_lines.append(self.line)

    def _wants_key(self) -> bool:
        return bool(self.stack) and type(self.stack[-1].value) is dict and self.stack[-1].key is None

    def _open(self, anchor: str | None) -> None:
        if anchor is None:
            return
        if anchor in self.anchors or anchor in self.open_anchors:
            raise self._error("has an anchor twice")
        self.open_anchors.add(anchor)

    def _close(self, anchor: str, anchored: _Anchored) -> None:
        self.open_anchors.discard(anchor)
        self.anchors[anchor] = anchored

    def _count(self, event: Any) -> None:
        if event.tag is not None:
            raise self._error("has a YAML tag")
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self._error(f"holds more than {MAX_NODES} values")

    def _spend(self, characters: int) -> None:
        self.text += characters
        if self.text > MAX_TEXT:
            raise self._error("grows beyond its bounds when its aliases are written out")

    def _quoted(self, text: str) -> str:
        # The C scanner refuses an escaped surrogate, the pure-Python one does not.
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise self._error("has an escape that is no character")
        return text

    def _plain(self, text: str) -> Any:
        try:
            return self.plain[text]
        except KeyError:
            value = self.plain[text] = self._resolve(text)
            return value

    def _resolve(self, text: str) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise self._error(f"has an integer of more than {MAX_DIGITS} digits")
            return int(text)
        if _FLOAT.fullmatch(text):
            value = float(text)
            if value in (float("inf"), float("-inf")):
                raise self._error("has a number beyond the range of a double")
            return value
        if _DISPUTED.fullmatch(text):
            raise self._error("has a plain scalar that YAML readers disagree on: as text it must be quoted")
        return text

    def _error(self, reason: str) -> NotStrictError:
        return NotStrictError(reason, self.line)


def _copy(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copy(item) for key, item in value.items()}
    if type(value) is list:
        return [_copy(item) for item in value]
    return value
