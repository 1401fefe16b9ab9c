"""What tools do to an object of the user's that their framework lends them, and how a replay does it again.

The object is what agents keep their dependencies in: a mapping, a list, a dataclass, a model, an instance of the user's
own class, with more of these inside. Clients, connections and whatever else is not the user's are left alone.

Invariants:

* Each change is one call's: of calls that overlap, the first that ends after it.
* A replay makes changes in the order in which they were recorded, however its calls overlap.
* What was changed and cannot be recorded is told of.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from .._run import OWNERSHIP, Run
from .._values import check_round_trip, encode
from .._values.objects import is_model, state_of
from .._values.trust import type_name
from ..errors import Unrecordable
from ._own import is_users_class

_LIMIT = 20_000
"""So many containers are looked at, at most."""

_ATOMS = (type(None), bool, int, float, complex, str, bytes)
_BESIDE = ("__pydantic_private__", "__pydantic_extra__")

Path = tuple[Any, ...]
_LENT: weakref.WeakKeyDictionary[Run, dict[int, Lent]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def lent(root: Any) -> Lent | None:
    """What watches an object for the run of the calling context; ``None`` if it holds nothing that can be watched."""
    run = OWNERSHIP.peek()
    if run is None or _inside(root) is None:
        return None
    with _lock:
        known = _LENT.setdefault(run, {})
        return known.setdefault(id(root), Lent(root, run))


class Lent:
    """One object during one run. Safe to call from any thread."""

    def __init__(self, root: Any, run: Run) -> None:
        self._root = root  # kept, so that no other object gets its id
        self._run = weakref.ref(run)
        self._lock = threading.RLock()
        self._running = 0
        self._seen: dict[int, tuple[Any, Any]] = {}
        self._made = 0
        self._early: dict[int, Any] = {}

    @property
    def types(self) -> Mapping[str, type]:
        """The classes inside, which changes may hold, too."""
        return {type_name(type(value)): type(value) for value, _ in _walk(self._root).values()}

    def entered(self) -> None:
        """A body begins. What has changed while none ran was not theirs."""
        with self._lock:
            if not self._running:
                self._seen = _walk(self._root)
            self._running += 1

    def left(self, types: Mapping[str, type]) -> Any:
        """A body ends: what has changed since anybody looked, as a recordable value; ``None`` if nothing has."""
        with self._lock:
            self._running -= 1
            found = list(_changes((), self._root, self._seen, set()))
            self._seen = _walk(self._root)
            kept = [change for change in found if self._is_recordable(change, types)]
            if not kept:
                return None
            self._made += 1
            return {"at": self._made, "changes": kept}

    def again(self, recorded: Mapping[str, Any]) -> None:
        """Make changes again, after those that were recorded before."""
        with self._lock:
            self._early[recorded["at"]] = recorded["changes"]
            while self._made + 1 in self._early:
                self._made += 1
                for how, path, value in self._early.pop(self._made):
                    self._make(how, tuple(map(tuple, path)), value)
            if self._running:
                self._seen = _walk(self._root)

    def _make(self, how: str, path: Path, value: Any) -> None:
        try:
            _make(self._root, how, path, value)
        except Exception as error:  # noqa: BLE001  # whatever the user's classes raise
            run = self._run()
            if run is not None:
                run.note_error(f"what a tool did to {_shown(self._root, path)} cannot be done again: {error!r}")

    def _is_recordable(self, change: Any, types: Mapping[str, type]) -> bool:
        try:
            check_round_trip(encode(change), types=types)
        except Unrecordable as error:
            run = self._run()
            if run is not None:
                place = _shown(self._root, change[1])
                run.note(f"a tool has changed {place}, which cannot be recorded and does not happen in replay: {error}")
            return False
        return True


def _inside(value: Any) -> Any:
    """What a container holds, copied: a list, a set, or a mapping of ``(how, key)``; ``None`` for what is none."""
    cls = type(value)
    # Asked of the builtins themselves, and copied at once: other threads may be writing.
    if isinstance(value, list):
        return list.copy(value)
    if isinstance(value, set):
        return set(set.__iter__(value)) if type(value) is not set else value.copy()
    if isinstance(value, dict):
        return {("item", key): item for key, item in dict.copy(value).items()}
    if isinstance(value, (type, Enum, BaseException)):
        return None
    if is_model(cls):
        beside = {name: getattr(value, name, None) for name in _BESIDE}
        named = {**vars(value), **{name: item for name, item in beside.items() if item is not None}}
    elif is_dataclass(cls) or is_users_class(cls):
        named = state_of(value)
    else:
        return None
    return {("attribute", name): item for name, item in named.items()}


def _items(inside: Any) -> Mapping[Any, Any]:
    if isinstance(inside, list):
        return {("item", index): item for index, item in enumerate(inside)}
    return inside if isinstance(inside, dict) else {}


def _walk(root: Any) -> dict[int, tuple[Any, Any]]:
    """All containers below an object, by id, with what they hold now."""
    found: dict[int, tuple[Any, Any]] = {}
    pending = [root]
    while pending and len(found) < _LIMIT:
        value = pending.pop()
        if isinstance(value, _ATOMS) or id(value) in found:
            continue
        inside = _inside(value)
        if inside is not None:
            found[id(value)] = (value, inside)
            pending.extend(_items(inside).values())
    return found


def _changes(path: Path, value: Any, seen: Mapping[int, tuple[Any, Any]], done: set[int]) -> Iterator[Any]:
    if id(value) not in seen or id(value) in done:
        return
    done.add(id(value))
    now, before = _inside(value), seen[id(value)][1]
    if isinstance(now, set):
        if now != before:
            yield ["become", path, now]
        return
    if isinstance(now, list):
        if not _begins(now, before):
            yield ["become", path, now]
            return
        if now[len(before) :]:
            yield ["extend", path, now[len(before) :]]
        now, before = _items(now[: len(before)]), _items(before)
    for step, item in now.items():
        if step in before and _same(before[step], item):
            yield from _changes((*path, step), item, seen, done)
        else:
            yield ["set", (*path, step), item]
    for step in before.keys() - now.keys():
        yield ["remove", (*path, step), None]


def _begins(now: list[Any], before: list[Any]) -> bool:
    return len(now) >= len(before) and all(map(_same, before, now))


def _same(old: Any, new: Any) -> bool:
    # Only of plain values is it asked whether they are equal: others may answer anything.
    return old is new or (type(old) is type(new) and isinstance(old, _ATOMS) and old == new)


def _make(root: Any, how: str, path: Path, value: Any) -> None:
    if how in ("extend", "become"):
        target = _at(root, path)
        if how == "become":
            target.clear()
        (target.update if isinstance(target, set) else target.extend)(value)
        return
    target, (kind, key) = _at(root, path[:-1]), path[-1]
    if kind == "item":
        if how == "set":
            target[key] = value
        else:
            del target[key]
    elif how == "set":
        object.__setattr__(target, key, value)
    else:
        object.__delattr__(target, key)


def _at(root: Any, path: Path) -> Any:
    for kind, key in path:
        root = root[key] if kind == "item" else getattr(root, key)
    return root


def _shown(root: Any, path: Path) -> str:
    steps = "".join(f"[{key!r}]" if kind == "item" else f".{key}" for kind, key in path)
    return f"{type(root).__qualname__}{steps}"
