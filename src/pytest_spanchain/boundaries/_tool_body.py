"""The body of a framework's tool for one call, to be handed to the framework in place of the real one.

A seam that lies this deep leaves all that the framework does around a body to the framework, in replay too. What a body
does to what the framework lent it (a state, actions for the framework to take) is recorded beside its result, and in
replay done again.
"""

from __future__ import annotations

import functools
import inspect
from collections import ChainMap
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any, cast

from .._run import OWNERSHIP, Run
from .._values.trust import type_name
from ._body_types import body_types as body_types
from ._body_types import code_of
from ._tool_drive import drive_async, drive_async_generator, drive_generator, drive_sync
from ._tool_io import ToolSpec


@dataclass(frozen=True)
class Effects:
    """How to see what a body does beside its result.

    Args:
        before: makes a copy of what it may change.
        changes: what has changed since that copy, as a recordable value that is false if nothing has.
        again: makes the same changes. What it returns is awaited around a body that is.
        types: further classes that changes may hold.
    """

    before: Callable[[], Any]
    changes: Callable[[Any], Any]
    again: Callable[[Any], Any]
    types: Mapping[str, type] = field(default_factory=dict)


@dataclass(frozen=True)
class WithEffects:
    """A result or an item of a body, with what else it did.

    Args:
        result: the result or the item.
        effects: the changes.
        bare: whether there is no item, only what was changed after the last one.
    """

    result: Any
    effects: Any
    bare: bool = False


def recorded(
    function: Callable[..., Any],
    *,
    name: str,
    arguments: Mapping[str, Any] | Callable[..., Mapping[str, Any]],
    trust: Mapping[str, type] | None = None,
    effects: Effects | None = None,
) -> Callable[..., Any]:
    """A body that is recorded, in the form of ``function``: plain, async, generator or async generator.

    Args:
        function: the body; any callable.
        name: name of the tool, as the model knows it.
        arguments: what the model gave, whatever the framework passes to the body; or what makes it of what is passed.
        trust: classes that its result may hold; those that its code names, if not given.
        effects: what it may change beside its result; of generators, not what they changed before they raised.
    """
    types = trust if trust is not None else body_types(function)
    if effects is None:
        spec, settle = spec_of(name, arguments, function, types), _as_it_is
    else:
        noted = _Noted(function, effects)
        beside = {type_name(WithEffects): WithEffects, **effects.types}
        types = ChainMap(beside, cast("MutableMapping[str, type]", types))
        spec, settle = spec_of(name, arguments, noted.in_form(), types), noted.settle
    return functools.wraps(function)(_in_form_of(function, spec, settle))


def spec_of(
    name: str,
    arguments: Mapping[str, Any] | Callable[..., Mapping[str, Any]],
    go: Callable[..., Any],
    trust: Mapping[str, type] | None,
) -> ToolSpec:
    """The tool of one call at a framework's seam; ``go`` runs it."""
    return ToolSpec(
        name=name,
        original=lambda: go,
        arguments=lambda args, kwargs: arguments(*args, **kwargs) if callable(arguments) else arguments,
        types={} if trust is None else trust,
        wanted_by=_finds_tools,
        seam=True,
    )


def idle() -> bool:
    """Whether nobody has to be told of a call: no run is there, not even an ended one, nor what comes after one."""
    return not OWNERSHIP.active and OWNERSHIP.inherited() is None


def in_place_of(real: Any, *, throughout: bool = False, **replaced: Any) -> Any:
    """An object that is ``real`` in all but some attributes, to be the ``self`` of one call.

    Everything else is read from and written to ``real``. Better than setting the attribute: calls run side by side.

    Args:
        real: the object.
        throughout: whether its methods see what is replaced, too; otherwise they see ``real``.
        replaced: the attributes.
    """
    return _StandIn(real, replaced, throughout=throughout)


class _StandIn:
    __slots__ = ("_spanchain_real", "_spanchain_replaced", "_spanchain_throughout")

    def __init__(self, real: Any, replaced: Mapping[str, Any], *, throughout: bool) -> None:
        object.__setattr__(self, "_spanchain_real", real)
        object.__setattr__(self, "_spanchain_replaced", replaced)
        object.__setattr__(self, "_spanchain_throughout", throughout)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._spanchain_real)

    def __getattr__(self, name: str) -> Any:
        replaced, real = self._spanchain_replaced, self._spanchain_real
        if name in replaced:
            return replaced[name]
        if self._spanchain_throughout and name not in getattr(real, "__dict__", ()):
            method = inspect.getattr_static(type(real), name, None)
            if isinstance(method, FunctionType):
                return MethodType(method, self)
        return getattr(real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._spanchain_real, name, value)


class _Noted:
    """A body whose effects are noted while it runs live, and made again when what it gave is served."""

    def __init__(self, function: Callable[..., Any], effects: Effects) -> None:
        self._function = function
        self._effects = effects
        self._made: list[Any] = []

    def settle(self, value: Any) -> tuple[Any, Any]:
        """What the framework gets of what the body, or its recording, gave; and what is to be awaited before."""
        if isinstance(value, Exception):
            effects = vars(value).pop(_BEFORE_RAISING, None)
            live = effects is None or any(made is value for made in self._made)
            return value, None if live else self._effects.again(effects)
        if type(value) is not WithEffects:
            return value, None
        pending = None if any(made is value for made in self._made) else self._effects.again(value.effects)
        return _NOTHING if value.bare else value.result, pending

    def _with_effects(self, before: Any, value: Any, *, bare: bool = False) -> Any:
        changes = self._effects.changes(before)
        if not changes:
            return value
        made = WithEffects(value, changes, bare)
        self._made.append(made)
        return made

    def _raised(self, before: Any, error: BaseException) -> None:
        """What was changed before is recorded with the exception, which loses it again before anybody sees it."""
        changes = self._effects.changes(before)
        if changes and isinstance(error, Exception):
            vars(error)[_BEFORE_RAISING] = changes
            self._made.append(error)

    def in_form(self) -> Callable[..., Any]:
        """The body, giving ``WithEffects`` where it did more than give."""
        function = self._function
        code = code_of(function)
        if inspect.isasyncgenfunction(code):
            return self._stream
        if inspect.isgeneratorfunction(code):
            return function
        return self._awaited if inspect.iscoroutinefunction(code) else self._plain

    def _plain(self, *args: Any, **kwargs: Any) -> Any:
        before = self._effects.before()
        try:
            value = self._function(*args, **kwargs)
        except BaseException as error:
            self._raised(before, error)
            raise
        if inspect.iscoroutine(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
            return value
        return self._with_effects(before, value)

    async def _awaited(self, *args: Any, **kwargs: Any) -> Any:
        before = self._effects.before()
        try:
            value = await self._function(*args, **kwargs)
        except BaseException as error:
            self._raised(before, error)
            raise
        return self._with_effects(before, value)

    async def _stream(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        inner = self._function(*args, **kwargs)
        before = self._effects.before()
        try:
            async for item in inner:
                yield self._with_effects(before, item)
                before = self._effects.before()
        finally:
            await inner.aclose()
        last = self._with_effects(before, None, bare=True)
        if last is not None:
            yield last


_NOTHING = object()
_BEFORE_RAISING = "_spanchain_effects"
_Settle = Callable[[Any], tuple[Any, Any]]


def _as_it_is(value: Any) -> tuple[Any, Any]:
    return value, None


def _in_form_of(function: Callable[..., Any], spec: ToolSpec, settle: _Settle) -> Callable[..., Any]:
    """A function of the same kind; frameworks look at the kind to decide how to run a tool."""
    code = code_of(function)
    if inspect.isasyncgenfunction(code):

        async def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            inner = drive_async_generator(spec, args, kwargs)
            try:
                async for item in inner:
                    item, pending = settle(item)
                    if pending is not None:
                        await pending
                    if item is not _NOTHING:
                        yield item
            finally:
                await inner.aclose()

        return stream
    if inspect.isgeneratorfunction(code):

        def items(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from drive_generator(spec, args, kwargs))

        return items
    if inspect.iscoroutinefunction(code):

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            try:
                value, pending = settle(await drive_async(spec, args, kwargs))
            except Exception as error:
                if (pending := settle(error)[1]) is not None:
                    await pending
                raise
            if pending is not None:
                await pending
            return value

        return awaited

    def plain(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            return settle(drive_sync(spec, args, kwargs))[0]
        except Exception as error:
            settle(error)
            raise

    return plain


def _finds_tools(run: Run) -> bool:
    return run.settings.finds_tools
