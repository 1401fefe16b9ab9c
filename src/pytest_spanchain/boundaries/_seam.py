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

from .._genai import ToolCall as ToolCall
from .._run import OWNERSHIP
from ..errors import BoundaryError
from ._lent import lent
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


def takes_up(owner: Any, name: str, calls: Callable[[Mapping[str, Any]], Iterable[ToolCall]]) -> None:
    """Hear at a function of a framework which calls of the model it takes up; see ``met``.

    Where a release has no such function, nothing is heard, and the run says more than it has to.

    Args:
        owner: the class or module that holds it.
        name: its name there.
        calls: gives the calls by the function's arguments, by name.
    """
    found = inspect.getattr_static(owner, name, None)
    original = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
    if not callable(original):
        return
    signature = inspect.signature(original)

    # Plain for all kinds: what others return is awaited or iterated by their caller.
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if OWNERSHIP.peek() is not None:
            try:
                asked = list(calls(signature.bind(*args, **kwargs).arguments))
            except (AttributeError, KeyError, LookupError, TypeError):  # another release: it is then noted
                asked = []
            for call in asked:
                met(call)
        return original(*args, **kwargs)

    setattr(owner, name, type(found)(wrapper) if found is not original else wrapper)


def met(call: ToolCall) -> None:
    """Say that a framework has taken up a call that the model asked for.

    All bodies of the framework's tools are recorded at its seams; so, if none is met, none runs: the call is refused,
    hands over to another agent, or gives the run's output. A call whose body may run elsewhere is not to be named here.
    """
    run = OWNERSHIP.peek()
    if run is not None:
        run.met(call)


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


def effects_on(value: Any, trust: Mapping[str, type]) -> Effects | None:
    """What a body may do to what its framework lends it (dependencies, a context); ``None`` if nothing can be watched.

    Args:
        value: the user's object.
        trust: as of the result.
    """
    if value is None or (watched := lent(value)) is None:
        return None
    types = {**trust, **watched.types}
    return Effects(watched.entered, lambda _: watched.left(types), watched.again, watched.types)


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
