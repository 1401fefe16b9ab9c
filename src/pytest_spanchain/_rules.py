"""The rules by which users name places and texts in requests and responses: one grammar for every setting.

* ``body.json.messages[0].id``: a JSON path of names and indices; ``*`` or ``[*]`` for any one step, ``**`` for any
  number of steps, none included;
* ``re:<pattern>``: a regular expression for any text;
* ``account_id``: a key name, where a setting takes names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UsageError

PATTERN_PREFIX = "re:"

Step = str | int

_STEP = re.compile(r"\[(\d+|\*)\]|([^.\[\]]+)")


@dataclass(frozen=True)
class Path:
    """A place that the user named: names, indices, ``*`` for any one step, ``**`` for any number."""

    steps: tuple[Step, ...]

    def put(self, value: Any, placeholder: str) -> Any:
        """A copy of ``value`` with everything at this place replaced; the same object if nothing changes."""
        return _put(value, self.steps, placeholder)


@dataclass(frozen=True)
class Rules:
    """The rules of one setting by kind, as texts without prefix."""

    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


def sort_out(rules: Iterable[str], *, names: bool = False) -> Rules:
    """Tell the kinds of rules apart.

    Args:
        rules: as the user wrote them.
        names: whether a single word is a key name; otherwise it is a path of one step.
    """
    listed = tuple(rules)
    patterns = tuple(rule.removeprefix(PATTERN_PREFIX) for rule in listed if rule.startswith(PATTERN_PREFIX))
    others = [rule for rule in listed if not rule.startswith(PATTERN_PREFIX)]
    found = tuple(rule for rule in others if names and not set(rule) & set(".[$"))
    return Rules(names=found, paths=tuple(rule for rule in others if rule not in found), patterns=patterns)


def compile_path(text: str) -> Path:
    """Read a path.

    Raises:
        UsageError: it is not names, ``*``, ``**`` and ``[n]`` joined by dots, or it names everything.
    """
    source = text[1:].lstrip(".") if text.startswith("$") else text
    steps: list[Step] = []
    position = 0
    while position < len(source):
        if source[position] == "." and steps and position + 1 < len(source) and source[position + 1] not in ".[":
            position += 1
        found = _STEP.match(source, position)
        if found is None or (found.group(2) and steps and source[position - 1] != "."):
            raise UsageError(
                f"not a JSON path: {text!r} cannot be read from character {position + 1} on"
                " (write e.g. 'body.json.messages[0].content', or 're:<pattern>')"
            )
        steps.append(found.group(2) or (found.group(1) if found.group(1) == "*" else int(found.group(1))))
        position = found.end()
    if not steps or set(steps) == {"**"}:
        raise UsageError(f"not a JSON path: {text!r} names {'everything' if steps else 'no place'}")
    return Path(tuple(steps))


def compile_pattern(text: str) -> re.Pattern[str]:
    """Read an expression, without its prefix.

    Raises:
        UsageError: it is not a regular expression, or matches the empty text.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"not a regular expression: {text!r} ({error})") from None
    if pattern.fullmatch("") is not None:
        raise UsageError(f"the regular expression {text!r} matches the empty text, and so everywhere")
    return pattern


def _index(step: Step) -> int | None:
    """The index that a step names; ``messages.0`` says the same of a list as ``messages[0]``."""
    return step if isinstance(step, int) else int(step) if step.isdecimal() else None


def _put(value: Any, steps: tuple[Step, ...], placeholder: str) -> Any:
    if not steps:
        return value if value == placeholder else placeholder
    step, rest = steps[0], steps[1:]
    if step == "**":
        value, rest = _put(value, rest, placeholder), steps
    if isinstance(value, Mapping):
        keys = value if step in ("*", "**") else [step] if step in value else []
        changed = {key: new for key in keys if (new := _put(value[key], rest, placeholder)) is not value[key]}
        return {**value, **changed} if changed else value
    if isinstance(value, list):
        at = _index(step)
        one = [at] if at is not None and at < len(value) else []
        indices = range(len(value)) if step in ("*", "**") else one
        items = {index: new for index in indices if (new := _put(value[index], rest, placeholder)) is not value[index]}
        return [items.get(index, item) for index, item in enumerate(value)] if items else value
    return value
