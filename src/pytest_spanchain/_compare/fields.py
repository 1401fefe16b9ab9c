"""Which fields of two plain values differ.

Invariants:

* Called for differing values only, so that deepdiff is imported on a failure and never before.
* deepdiff sees small list middles only (it takes 10 s for 1,000 pairs): mappings are walked and equal ends of lists
  cut off before, and what is still large is walked item by item.
* Two differing values never yield an empty answer.
* Tools that a request offers are told apart by their names, wherever they stand in their list.
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

_DECLARED = frozenset({"tools", "functions", "functionDeclarations", "function_declarations"})
"""Fields of requests that list what the model is offered."""


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


def leaf_changes(change: FieldChange) -> Iterator[FieldChange]:
    """What differs within a change that was not told down to the leaves, item by item and without deepdiff."""
    yield from _walk(change.golden, change.live, change.path, aligned=False)


def declared_name(path: str, item: Any) -> str:
    """The name of a tool that a request offers; empty if it is none.

    Args:
        path: of the item, ``request.body.json.tools[2]``.
        item: the item.
    """
    if not path.startswith("request.") or _field(path.rpartition("[")[0]) not in _DECLARED:
        return ""
    return _name_of(item)


def _name_of(item: Any) -> str:
    if not isinstance(item, Mapping):
        return ""
    inner = next((item[key] for key in ("function", "toolSpec") if isinstance(item.get(key), Mapping)), item)
    name = inner.get("name") or item.get("type")
    return name if isinstance(name, str) else ""


def _field(path: str) -> str:
    return path.rpartition(".")[2]


def _walk(golden: Any, live: Any, path: str, *, aligned: bool = True) -> Iterator[FieldChange]:
    if same(golden, live):
        return
    if isinstance(golden, Mapping) and isinstance(live, Mapping):
        for key in _keys(golden, live):
            one, other = golden.get(key, MISSING), live.get(key, MISSING)
            yield from _walk(one, other, join(path, key), aligned=aligned)
    elif _field(path) in _DECLARED and (found := _walk_declared(golden, live, path, aligned=aligned)):
        yield from found
    elif isinstance(golden, list) and isinstance(live, list):
        yield from _walk_lists(golden, live, path, aligned=aligned)
    else:
        yield FieldChange(path, golden, live)


def _walk_declared(golden: Any, live: Any, path: str, *, aligned: bool) -> list[FieldChange]:
    """Tool by tool; nothing if they cannot be told apart by name, or only their order differs."""
    here, there = _by_name(golden), _by_name(live)
    if here is None or there is None:
        return []
    found: list[FieldChange] = []
    for name in _keys(here, there):
        place = (here if name in here else there)[name][0]
        one, other = (side[name][1] if name in side else MISSING for side in (here, there))
        found += _walk(one, other, join(path, place), aligned=aligned)
    return found


def _by_name(declared: Any) -> dict[str, tuple[int, Any]] | None:
    """Each tool with its place; ``None`` of anything but a list of tools with names of their own."""
    if declared is MISSING:
        return {}
    if not isinstance(declared, list):
        return None
    found = {_name_of(item): (index, item) for index, item in enumerate(declared)}
    return found if len(found) == len(declared) and "" not in found else None


def _walk_lists(golden: list[Any], live: list[Any], path: str, *, aligned: bool) -> Iterator[FieldChange]:
    head = _shared_head(golden, live)
    tail = _shared_head(golden[head:][::-1], live[head:][::-1])
    one, other = golden[head : len(golden) - tail], live[head : len(live) - tail]
    if aligned and len(one) > 1 and len(other) > 1 and _is_small(one) and _is_small(other):
        found = _deepdiff(one, other, path, head)
        if found:
            yield from found
            return
    for index, (left, right) in enumerate(zip_longest(one, other, fillvalue=MISSING), start=head):
        yield from _walk(left, right, join(path, index), aligned=aligned)


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
