"""The boundary of plain tool functions: recorded when they run, replayed without running.

Two doors lead to the same translation: the decorator ``tool``, and ``install``, which patches functions that cannot be
decorated. A function that went through both is recorded once. Without an active run the original runs, untouched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import FunctionType, TracebackType
from typing import Any, TypeVar, cast, overload

from .._values import trusted_types
from ..errors import BoundaryError, UsageError
from . import _patch
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
    """What ``install`` has patched, until ``undo``. A context manager."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._sites: list[_patch.Site] = []

    def _add(self, target: Target) -> None:
        if not hasattr(target.function, _MARK):
            self._sites.append(
                _patch.acquire(target.function, functools.partial(_invoke_at, target), owner=self._owner)
            )

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
                _patch.release(site, owner=self._owner, stays=replayed)
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


def _invoke_at(target: Target, site: _patch.Site) -> _patch.Invoke:
    spec = ToolSpec(
        name=target.name,
        original=lambda: site.twin,
        arguments=arguments_of(site.twin, bound=target.bound),
        types=trusted_types(site.twin),
        wanted_by=site.wanted_by,
    )
    return functools.partial(DRIVERS[_patch.kind_of(site.twin)], spec)
