"""The boundary of plain tool functions: recorded when they run, replayed without running.

Two doors lead to the same translation: the decorator ``tool``, and ``install``, which patches functions that cannot be
decorated. A function that went through both is recorded once. Without an active run the original runs, untouched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import FunctionType, TracebackType
from typing import Any, TypeVar, cast, overload

from .. import _patch
from .._run import OWNERSHIP
from .._values import trusted_types
from ..errors import BoundaryError, UsageError
from ._targets import Target, is_method, resolve, tool_name
from ._tool_drive import DRIVERS
from ._tool_io import ToolSpec, arguments_of

_F = TypeVar("_F", bound=Callable[..., Any])

_MARK = "__spanchain_tool__"


@overload
def tool(fn: _F, *, name: str | None = None) -> _F: ...
@overload
def tool(fn: None = None, *, name: str | None = None) -> Callable[[_F], _F]: ...
def tool(fn: _F | None = None, *, name: str | None = None) -> _F | Callable[[_F], _F]:
    """Record the calls of a function, and in replay serve their results without running it.

    For plain and async functions, generators, async generators and methods; above or below ``staticmethod`` and
    ``classmethod``. Outside a recorded test the function just runs.

    Args:
        fn: the function.
        name: name of the tool; the function's own (for a method ``Class.method``) if it is not given.

    Raises:
        UsageError: ``fn`` is not a Python function.
    """
    if fn is None:
        return lambda fn: tool(fn, name=name)
    if isinstance(fn, (staticmethod, classmethod)):
        return type(fn)(tool(fn.__func__, name=name))
    if not isinstance(fn, FunctionType):
        raise UsageError(f"spanchain.tool: {fn!r} is not a Python function; decorate the function or method it calls")
    if hasattr(fn, _MARK):
        return fn
    spec = ToolSpec(
        name=name or tool_name(fn),
        original=lambda: _patch.unpatched(fn),
        arguments=arguments_of(fn, bound=is_method(fn)),
        types=trusted_types(fn),
    )
    wrapper = _patch.rerouted(fn, functools.partial(DRIVERS[_kind(fn)], spec))
    setattr(wrapper, _MARK, spec.name)
    return cast(_F, wrapper)


class Patch:
    """What ``install`` has patched, until ``undo``. A context manager.

    Args:
        owner: the run for which functions are patched; any run if it is ``None``.
        leaves: which of them a replay leaves patched.
    """

    def __init__(self, owner: Any, *, leaves: Callable[[_patch.Site], bool] = lambda site: True) -> None:
        self._owner = owner
        self._leaves = leaves
        self._sites: list[_patch.Site] = []
        self.targets: list[Target] = []
        """What was listed, whether patched here or decorated."""

    def add(self, function: FunctionType, make: Callable[[_patch.Site], _patch.Invoke]) -> None:
        """Patch one more function; see ``_patch.acquire``."""
        self._sites.append(_patch.acquire(function, make, owner=self._owner, caller=OWNERSHIP.peek))

    def _add(self, target: Target) -> None:
        self.targets.append(target)
        if not is_decorated(target.function):
            self.add(target.function, functools.partial(_invoke_at, target.name, target.bound))

    def undo(self) -> None:
        """Take the patches back; a second call does nothing.

        Raises:
            BoundaryError: someone else has patched one of the functions since; all others are restored.
        """
        sites, self._sites = self._sites, []
        replayed = self._owner is not None and not self._owner.records
        errors = []
        for site in reversed(sites):
            try:
                stays = replayed and self._leaves(site)
                _patch.release(site, owner=self._owner, stays=stays, rest=_for_nobody(site) if stays else None)
            except BoundaryError as error:
                errors.append(str(error))
        if errors:
            raise BoundaryError("; ".join(errors))

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()


def install(targets: Iterable[str | Callable[..., Any]], *, owner: Any = None) -> Patch:
    """Record functions that nobody decorated, whoever holds a reference to them.

    Args:
        targets: ``"shop.tools:refund"``, ``"shop.tools:Shop.refund"``, ``"shop.tools:*"``, or functions.
        owner: the run for which they are recorded; any run if it is not given.

    Returns:
        The patch. Several may cover the same function; the last one undone restores it.

    Raises:
        UsageError: a target does not name a Python function. Nothing is patched then.
    """
    found = [target for name in targets for target in resolve(name)]
    for target in found:
        _kind(target.function)
    patch = Patch(owner)
    try:
        for target in {target.function: target for target in found}.values():
            patch._add(target)
    except BaseException:
        patch.undo()
        raise
    return patch


def _kind(function: FunctionType) -> str:
    try:
        return _patch.kind_of(function)
    except BoundaryError as error:
        raise UsageError(str(error)) from None


def is_decorated(function: FunctionType) -> bool:
    """Whether ``tool`` made it, so that it records itself."""
    return hasattr(function, _MARK)


def name_of(function: FunctionType) -> str:
    """The name under which a decorated function records itself."""
    return str(getattr(function, _MARK))


def spec_at(site: _patch.Site, *, name: str, bound: bool) -> ToolSpec:
    """A patched function as a tool."""
    twin = site.twin
    return ToolSpec(
        name=name,
        original=lambda: site.twin,
        arguments=arguments_of(twin, bound=bound),
        types=trusted_types(twin),
        wanted_by=site.wanted_by,
    )


def _for_nobody(site: _patch.Site) -> _patch.Invoke:
    """The original, but for what a run has left behind: that is refused."""
    spec = ToolSpec("", lambda: site.twin, lambda args, kwargs: None, {}, wanted_by=lambda run: False)
    return functools.partial(DRIVERS[_patch.kind_of(site.twin)], spec)


def _invoke_at(name: str, bound: bool, site: _patch.Site) -> _patch.Invoke:
    return functools.partial(DRIVERS[_patch.kind_of(site.twin)], spec_at(site, name=name, bound=bound))
