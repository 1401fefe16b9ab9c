"""Which fields of two plain values differ.

Invariants:

* Called for differing values only, so that deepdiff is imported on a failure and never before.
* deepdiff sees small list middles only (it takes 10 s for 1,000 pairs): mappings are walked and equal ends of lists
  cut off before, and what is still large is walked item by item.
* Two differing values never yield an empty answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice, zip_longest
from typing import Any

from .._model import MISSING, FieldChange
from .likeness import same

MOST_CHANGES = 50
"""Changes listed per deviation; a reader needs the first few, and a report has to travel between processes."""

_NODES = 500
_CHARACTERS = 20_000
_ITEMS = 50

_WORD = re.compile(r"[\w\-.$]+")


def field_changes(golden: Any, live: Any, *, path: str, thorough: bool = True) -> tuple[FieldChange, ...]:
    """List the fields in which ``live`` differs from ``golden``.

    Args:
        golden: recorded plain value.
        live: observed plain value, not the same.
        path: where both stand, e.g. ``request``.
        thorough: down to the differing leaves; otherwise only down to the first mapping with several differing keys.

    Returns:
        At most ``MOST_CHANGES + 1`` changes; one more than ``MOST_CHANGES`` means that there are further ones.
    """
    walk = _walk(golden, live, path) if thorough else _skim(golden, live, path)
    return tuple(islice(walk, MOST_CHANGES + 1))


def _walk(golden: Any, live: Any, path: str) -> Iterator[FieldChange]:
    if same(golden, live):
        return
    if isinstance(golden, Mapping) and isinstance(live, Mapping):
        for key in _keys(golden, live):
            yield from _walk(golden.get(key, MISSING), live.get(key, MISSING), join(path, key))
    elif isinstance(golden, list) and isinstance(live, list):
        yield from _walk_lists(golden, live, path)
    else:
        yield FieldChange(path, golden, live)


def _walk_lists(golden: list[Any], live: list[Any], path: str) -> Iterator[FieldChange]:
    head = _shared_head(golden, live)
    tail = _shared_head(golden[head:][::-1], live[head:][::-1])
    one, other = golden[head : len(golden) - tail], live[head : len(live) - tail]
    if len(one) > 1 and len(other) > 1 and _is_small(one) and _is_small(other):
        found = _deepdiff(one, other, path, head)
        if found:
            yield from found
            return
    for index, (left, right) in enumerate(zip_longest(one, other, fillvalue=MISSING), start=head):
        yield from _walk(left, right, join(path, index))


def _skim(golden: Any, live: Any, path: str) -> Iterator[FieldChange]:
    while isinstance(golden, Mapping) and isinstance(live, Mapping):
        one, other = golden, live
        differing = [key for key in _keys(one, other) if not same(one.get(key, MISSING), other.get(key, MISSING))]
        if len(differing) != 1:
            for key in differing:
                yield FieldChange(join(path, key), one.get(key, MISSING), other.get(key, MISSING))
            return
        golden, live = one.get(differing[0], MISSING), other.get(differing[0], MISSING)
        path = join(path, differing[0])
    yield FieldChange(path, golden, live)


def _deepdiff(golden: list[Any], live: list[Any], path: str, offset: int) -> list[FieldChange]:
    """Ask deepdiff; empty where it takes for equal what is not (``[1]`` and ``[True]``)."""
    from deepdiff import DeepDiff
    from deepdiff.helper import NotPresent

    found: list[FieldChange] = []
    for levels in DeepDiff(golden, live, view="tree", verbose_level=2).values():
        for level in levels:
            first, *rest = level.path(output_format="list")
            where = join(path, first + offset)
            for key in rest:
                where = join(where, key)
            one, other = (MISSING if isinstance(side, NotPresent) else side for side in (level.t1, level.t2))
            found.append(FieldChange(where, one, other))
    return sorted(found, key=lambda change: _natural(change.path))


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"[\[\]]+", path)]


def _keys(golden: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    return [*golden, *(key for key in live if key not in golden)]


def _shared_head(golden: list[Any], live: list[Any]) -> int:
    count = 0
    for one, other in zip(golden, live, strict=False):
        if not same(one, other):
            break
        count += 1
    return count


def _is_small(items: list[Any]) -> bool:
    if len(items) > _ITEMS:
        return False
    nodes = characters = 0
    todo: list[Any] = [items]
    while todo:
        value = todo.pop()
        nodes += 1
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, Mapping):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
        if nodes > _NODES or characters > _CHARACTERS:
            return False
    return True


def join(path: str, key: str | int) -> str:
    """Add a key or an index to a path: ``a.b``, ``a[0]``, ``a["odd key"]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _WORD.fullmatch(key):
        quoted = key.replace("\\", "\\\\").replace('"', '\\"')
        return f'{path}["{quoted}"]'
    return f"{path}.{key}" if path else key
