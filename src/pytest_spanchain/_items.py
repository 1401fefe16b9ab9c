"""What a test item says of its run: whether it is marked, its settings, and the command that runs it alone."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _options, _settings
from .errors import UsageError

if TYPE_CHECKING:
    import pytest

MARKER = "cassette"
FIXTURE = "spanchain"


def is_marked(item: pytest.Item) -> bool:
    """Whether a test has a run: by the marker, or by the fixture whose name is ours alone."""
    return item.get_closest_marker(MARKER) is not None or FIXTURE in getattr(item, "fixturenames", ())


def resolve(item: pytest.Item, *, said: _options.Said, fixture: Mapping[str, Any]) -> _settings.Settings:
    """The settings of a test's run.

    Args:
        item: the test.
        said: what was said about the record mode outside of the tests.
        fixture: what the ``spanchain_config`` fixture returned.

    Raises:
        UsageError: for an unknown name or a wrong value, wherever it stands.
    """
    return _settings.resolve(
        marker=_marker_kwargs(item),
        cli_mode=said.typed,
        fixture=fixture,
        ini=_options.ini_settings(item.config, mode=said.committed),
        ci=_options.under_ci(),
    )


def problems(items: Iterable[pytest.Item], *, said: _options.Said) -> list[str]:
    """Wrong settings, or else tests that would share a cassette; each once."""
    wrong: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    shared: list[str] = []
    for item in items:
        from . import _store  # only where there is a marked test

        try:
            directory = item.config.rootpath / resolve(item, said=said, fixture={}).directory
        except UsageError as error:
            wrong.setdefault(str(error), []).append(item.nodeid)
            continue
        path = str(_store.cassette_path(directory, item.nodeid)).casefold()
        owner = owners.setdefault(path, item.nodeid)
        if owner != item.nodeid:
            shared.append(f"{item.nodeid} and {owner} would share the cassette {path}: rename one of them")
    found = [f"{first}{f' and {len(more)} more' if more else ''}: {error}" for error, (first, *more) in wrong.items()]
    return found or list(dict.fromkeys(shared))


def command(item: pytest.Item, option: str) -> str:
    """What to type, where the user is, to run only this test."""
    path, separator, names = item.nodeid.partition("::")
    with suppress(ValueError):  # on another drive
        path = Path(os.path.relpath(item.config.rootpath / path, item.config.invocation_params.dir)).as_posix()
    return f"pytest {shlex.quote(path + separator + names)} {option}"


def left_over(item: pytest.Item, cassette: Path) -> str:
    """What to say where a test has no cassette, but one of a test that is gone lies beside: it may have been renamed.

    Args:
        item: the test.
        cassette: where its cassette would be.
    """
    file = item.nodeid.partition("::")[0]
    try:
        beside = _recorded_in(cassette.parent, cassette.parent.stat().st_mtime_ns)
    except OSError:
        return ""
    for name, nodeid in beside:
        home, _, names = nodeid.partition("::")
        if home == file and names and not _is_defined(getattr(item, "module", None), names.partition("[")[0]):
            return (
                f"{name} beside it is of {nodeid}, which is gone: if that was renamed, record it under its new name,"
                " and delete that file"
            )
    return ""


@functools.lru_cache(maxsize=16)
def _recorded_in(directory: Path, _mtime_ns: int) -> list[tuple[str, str]]:
    """Name and node id of each cassette of a directory, as it was when it was last changed."""
    found = []
    for path in sorted(directory.glob("*.yaml")):
        with suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8") as lines:
            found.append((path.name, lines.readline(10_000).removeprefix("# | ").rstrip("\n")))
    return found


def _is_defined(module: Any, names: str) -> bool:
    found = module
    for name in names.split("::"):
        found = getattr(found, name, None)
    return module is None or found is not None


def _marker_kwargs(item: pytest.Item) -> dict[str, Any]:
    """Keyword arguments of all cassette markers; lists add up, otherwise the nearest wins."""
    merged: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        if marker.args:
            raise UsageError(f"marker cassette takes keyword arguments only, not {', '.join(map(repr, marker.args))}")
        for name, value in marker.kwargs.items():
            outer = merged.get(name)
            if name == "tools" and isinstance(value, str) and value in _settings.TOOL_WORDS:
                value = [value]  # a word takes no list away
            if isinstance(outer, (list, tuple)) and isinstance(value, (list, tuple)):
                value = [*outer, *value]
            merged[name] = value
    return merged
