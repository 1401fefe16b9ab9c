"""What every framework's seam has in common: a tool call met where the framework makes it.

A seam wraps the one function of a framework through which all its tools run. It brings the tool's name, the arguments
that the model gave, and what runs the tool; recording, serving and refusing are the run's, as for plain functions.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib import metadata
from typing import Any

from ..errors import BoundaryError
from ._tool_body import Effects as Effects
from ._tool_body import body_types as body_types
from ._tool_body import idle as idle
from ._tool_body import in_place_of as in_place_of
from ._tool_body import recorded as recorded
from ._tool_body import spec_of
from ._tool_drive import drive_async, drive_sync


def patch(
    owner: Any,
    name: str,
    around: Callable[[Callable[..., Any]], Callable[..., Any]],
    *,
    dist: str,
    takes: Iterable[str],
) -> None:
    """Replace a function of a framework by one around it.

    Args:
        owner: the class or module that holds it.
        name: its name there.
        around: makes the new function of the old one.
        dist: the framework's distribution.
        takes: names of parameters that the old one must have, or it is not the function that we know.

    Raises:
        BoundaryError: it is not there, or takes something else.
    """
    original = inspect.getattr_static(owner, name, None)
    missing = set(takes) - set(inspect.signature(original).parameters) if callable(original) else {name}
    if not callable(original) or missing:
        raise unrecognised(dist, f"{getattr(owner, '__qualname__', owner.__name__)}.{name} has changed")
    setattr(owner, name, functools.wraps(original)(around(original)))


def member(owner: Any, name: str, *, dist: str) -> Any:
    """What a framework's module or class holds under a name.

    Raises:
        BoundaryError: nothing.
    """
    found = getattr(owner, name, None)
    if found is None:
        raise unrecognised(dist, f"{owner.__name__} has no {name}")
    return found


def unrecognised(dist: str, why: str) -> BoundaryError:
    """The error for a release that looks different from those we know."""
    return BoundaryError(
        f"{dist} {metadata.version(dist)} is not recognised: its tools would not be recorded, and replay would run them"
        f' ({why}). Use a release that is known, or accept it with tools="off"'
    )


def call(
    name: str, arguments: Mapping[str, Any], go: Callable[[], Any], *, trust: Mapping[str, type] | None = None
) -> Any:
    """Cross a seam.

    Args:
        name: name of the tool, as the model knows it.
        arguments: what the model gave, by name; without what the framework itself supplies.
        go: runs the tool.
        trust: classes that its result may hold, by ``module:qualname``; see ``_values.trusted_types``.
    """
    __tracebackhide__ = True
    return drive_sync(spec_of(name, arguments, go, trust), (), {})


async def acall(
    name: str,
    arguments: Mapping[str, Any],
    go: Callable[[], Awaitable[Any]],
    *,
    trust: Mapping[str, type] | None = None,
) -> Any:
    """``call`` for a tool that is awaited."""
    __tracebackhide__ = True
    return await drive_async(spec_of(name, arguments, go, trust), (), {})
