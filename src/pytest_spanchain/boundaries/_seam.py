"""What every framework's seam has in common: a tool call met where the framework makes it.

A seam wraps the one function of a framework through which all its tools run. It brings the tool's name, the arguments
that the model gave, and what runs the tool; recording, serving and refusing are the run's, as for plain functions.

Invariants:

* Without a run a seam does nothing: the framework's function is called straight away.
* What a seam puts in place of an attribute is what the framework's code reads, or the release is not recognised.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib import metadata
from types import CodeType, ModuleType
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
    reads: Iterable[str] = (),
) -> None:
    """Replace a function of a framework by one around it, for calls of runs; others are the old one's.

    Args:
        owner: the class or module that holds it.
        name: its name there.
        around: makes the new function of the old one.
        dist: the framework's distribution.
        takes: names of parameters that the old one must have, or it is not the function that we know.
        reads: names that its code must have; see ``uses``.

    Raises:
        BoundaryError: it is not there, takes or reads something else.
    """
    original = inspect.getattr_static(owner, name, None)
    if not callable(original) or set(takes) - _parameters(original):
        raise unrecognised(dist, f"{_shown(owner)}.{name} has changed")
    uses(original, *reads, dist=dist)
    setattr(owner, name, unless_idle(original, around(original)))


def unless_idle(original: Callable[..., Any], seam: Callable[..., Any]) -> Callable[..., Any]:
    """A function in place of ``original``, and of its kind, that is ``seam`` while there is a run."""
    wrapper: Callable[..., Any]
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            return await (original if idle() else seam)(*args, **kwargs)

    else:
        # Of generators, too: what it returns is iterated by its caller.
        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            return (original if idle() else seam)(*args, **kwargs)

    return wrapper


def uses(owner: Any, *names: str, dist: str) -> None:
    """Make sure that a framework's own code has the private or undocumented names that a seam relies on.

    The code is looked at and not an object, because making one would run the framework at its import.

    Args:
        owner: a function, or a class, of which all methods count.
        names: attributes, and texts by which something is looked up.
        dist: the framework's distribution.

    Raises:
        BoundaryError: it has not.
    """
    parts = vars(owner).values() if isinstance(owner, type) else (owner,)
    found = {name for part in parts if (code := _code(part)) is not None for name in _names(code)}
    if missing := sorted(set(names) - found):
        raise unrecognised(dist, f"{_shown(owner)} does not use {', '.join(missing)}")


def _parameters(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # compiled
        return set()


def _code(part: Any) -> CodeType | None:
    part = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
    code = getattr(inspect.unwrap(part) if callable(part) else part, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _names(code: CodeType) -> set[str]:
    inner = (_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union((const for const in code.co_consts if isinstance(const, str)), *inner)


def _shown(owner: Any) -> str:
    return str(getattr(owner, "__qualname__", None) or getattr(owner, "__name__", owner))


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
        run.tool_calls.met(call)


def member(owner: Any, name: str, *, dist: str) -> Any:
    """What a framework's module or class holds under a name.

    Raises:
        BoundaryError: nothing.
    """
    found = getattr(owner, name, None)
    if found is None:
        raise unrecognised(dist, f"{_shown(owner)} has no {name}")
    return found


def classes(
    module: str, *, names: Sequence[str] | None = None, kind: type = object, own: bool = False
) -> tuple[type, ...]:
    """Classes that a module of a framework holds: what its tools may return or raise without naming it.

    Args:
        module: its name; if it is not imported, there are none.
        names: of these names only, as far as they are there.
        kind: only subclasses of it.
        own: only those that are defined there.
    """
    found = sys.modules.get(module)
    return () if found is None else _classes(found, None if names is None else tuple(names), kind, own)


# Asked for each call of a tool.
@functools.cache
def _classes(module: ModuleType, names: tuple[str, ...] | None, kind: type, own: bool) -> tuple[type, ...]:
    held = vars(module).values() if names is None else [getattr(module, name, None) for name in names]
    types = [one for one in held if isinstance(one, type) and issubclass(one, kind)]
    return tuple(one for one in types if not own or one.__module__ == module.__name__)


def named(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a call by name, where what is called need not say what it takes.

    Args:
        names: of the positional ones; those beyond are ``argument 2`` and so on, counted from 0.
        args: the positional ones.
        kwargs: the others.
    """
    beyond = [f"argument {index}" for index in range(len(names), len(args))]
    return {**dict(zip([*names, *beyond], args, strict=False)), **kwargs}


def whole(given: Any) -> Mapping[str, Any]:
    """What the model gave as the arguments of a call, which need not be named ones."""
    return given if isinstance(given, Mapping) else {"input": given}


def newly_set(old: Mapping[Any, Any], new: Mapping[Any, Any], *, other: Callable[[Any, Any], Any]) -> dict[Any, Any]:
    """What a mapping holds that it did not hold before, or not so.

    Args:
        old: a copy from before.
        new: the mapping now.
        other: tells whether a value is another than it was.
    """
    return {key: value for key, value in new.items() if key not in old or other(old[key], value)}


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
