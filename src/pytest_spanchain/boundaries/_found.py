"""Tools that nobody has named, from a run's first model call to its end: what their calls go to.

``_finder`` finds them and tells which calls are a tool's; whatever that comes to, the call is driven like any other.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import _patch
from .._run import OWNERSHIP, Run
from . import _own, tools
from ._finder import Finder
from ._loader import Watcher
from ._tool_drive import DRIVERS
from ._tool_io import ToolSpec

_FINDERS: weakref.WeakKeyDictionary[Run, Finder] = weakref.WeakKeyDictionary()


@contextmanager
def finding(run: Run, *, listed: tools.Patch) -> Iterator[None]:
    """Find the tools that the models of a run are offered, from the first model call to the end of the run.

    Args:
        run: the run; without ``finds_tools`` nothing is looked for.
        listed: what its settings name, which is left alone.
    """
    if not run.settings.finds_tools:
        yield
        return
    finder = Finder(run, listed=listed, invoke=_invoke_at)
    _FINDERS[run] = finder
    run.tool_calls.on_offered, run.tool_calls.on_asked = finder.offered, finder.asked
    watcher = Watcher(wants=finder.wants, has=lambda spec: _own.is_users_file(spec.origin or ""), told=finder.imported)
    watcher.start()
    try:
        yield
    finally:
        watcher.stop()
        try:
            finder.close()
        finally:
            del _FINDERS[run]  # it holds the run, which nobody else may


def _invoke_at(bound: bool, site: _patch.Site) -> _patch.Invoke:
    base = tools.spec_at(site, name="", bound=bound)
    drive = DRIVERS[_patch.kind_of(site.twin)]
    return functools.partial(_invoke, site, base, drive)


def _invoke(
    site: _patch.Site, base: ToolSpec, drive: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    __tracebackhide__ = True
    function, run = site.reference(), OWNERSHIP.peek()
    finder = _FINDERS.get(run) if run is not None else None
    case = finder.case(function, base, args, kwargs) if finder is not None and function is not None else None
    spec = ToolSpec(
        name=case.tool if case is not None else "",
        original=base.original,
        arguments=base.arguments,
        types=base.types,
        wanted_by=base.wanted_by if case is not None else lambda run: False,
        watcher=case,
    )
    return drive(spec, args, kwargs)
