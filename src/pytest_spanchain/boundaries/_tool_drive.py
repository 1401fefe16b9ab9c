"""Drives tool calls, plain and streamed, through a run: live and recorded, or served; sync and async alike.

Invariants:

* What the agent gets from a live call is what the tool gave: value, exception, items and their timing.
* ``finish`` is called once for every call that began and ended, however it ended.
* A span is current while the tool's own code runs, never across a ``yield``.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from ._port import Call, current_run
from ._tool_io import Served, Take, ToolSpec, cut, matches, request_of, serve

HOLD_SECONDS = 30.0
"""How long a replayed call that was cancelled when it was recorded waits to be cancelled again."""


def _begin(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """The opened call; ``None`` if the original is to run as if nobody watched."""
    run = current_run()
    if run is None or not spec.wanted_by(run):
        return None
    request = request_of(spec, args, kwargs)
    if request is None:
        return None
    return run.begin(
        "tool",
        f"execute_tool {spec.name}",
        request,
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": spec.name,
            "gen_ai.tool.type": "function",
        },
    )


def drive_sync(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    __tracebackhide__ = True
    call = _begin(spec, args, kwargs)
    if call is None:
        return spec.original()(*args, **kwargs)
    if call.recorded is not None:
        served = serve(spec, call)
        return _REPLAYS[served.returned](call, served) if served.returned else _conclude(call, served)
    take = Take(spec, call)
    try:
        with call.active():
            value = spec.original()(*args, **kwargs)
    except BaseException as error:
        take.raised(error)
        raise
    # A plain function may hand out what has yet to run: a decorator without ``async``, a factory of generators.
    if inspect.iscoroutine(value):
        return _record_awaitable(Take(spec, call, returned="awaitable"), call, value)
    if inspect.isgenerator(value):
        return _record_generator(Take(spec, call, streamed=True, returned="generator"), call, value)
    if inspect.isasyncgen(value):
        return _record_async_generator(Take(spec, call, streamed=True, returned="async_generator"), call, value)
    take.result(value)
    return value


async def drive_async(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    __tracebackhide__ = True
    call = _begin(spec, args, kwargs)
    if call is None:
        return await spec.original()(*args, **kwargs)
    if call.recorded is not None:
        return await _replay_awaitable(call, serve(spec, call))
    return await _record_awaitable(Take(spec, call), call, spec.original()(*args, **kwargs))


def drive_generator(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[Any, Any, Any]:
    __tracebackhide__ = True
    call = _begin(spec, args, kwargs)
    if call is None:
        return (yield from spec.original()(*args, **kwargs))
    if call.recorded is not None:
        return (yield from _replay_generator(call, serve(spec, call)))
    return (yield from _record_generator(Take(spec, call, streamed=True), call, spec.original()(*args, **kwargs)))


def drive_async_generator(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, Any]:
    call = _begin(spec, args, kwargs)
    if call is None:
        return spec.original()(*args, **kwargs)  # type: ignore[no-any-return]
    if call.recorded is not None:
        return _replay_async_generator(call, serve(spec, call))
    return _record_async_generator(Take(spec, call, streamed=True), call, spec.original()(*args, **kwargs))


async def _record_awaitable(take: Take, call: Call, awaitable: Any) -> Any:
    __tracebackhide__ = True
    try:
        with call.active():
            value = await awaitable
    except BaseException as error:
        take.raised(error)
        raise
    take.result(value)
    return value


def _record_generator(take: Take, call: Call, inner: Any) -> Generator[Any, Any, Any]:
    __tracebackhide__ = True
    step: Callable[[], Any] = functools.partial(next, inner)
    while True:
        try:
            # Only while it runs, never across a yield: there the current span is the consumer's affair.
            with call.active():
                item = step()
        except StopIteration as stop:
            take.result(stop.value)
            return stop.value
        except BaseException as error:
            take.raised(error)
            raise
        take.item(item)
        try:
            sent = yield item
        except GeneratorExit:
            try:
                with call.active():
                    inner.close()
            finally:
                take.closed()
            raise
        except BaseException as error:  # noqa: BLE001  # handed on to the generator
            take.sent("throw", error)
            step = functools.partial(inner.throw, error)
        else:
            if sent is not None:
                take.sent("send", sent)
            step = functools.partial(inner.send, sent)


async def _record_async_generator(take: Take, call: Call, inner: Any) -> AsyncGenerator[Any, Any]:
    __tracebackhide__ = True
    step: Callable[[], Any] = inner.__anext__
    while True:
        try:
            with call.active():
                item = await step()
        except StopAsyncIteration:
            take.result(None)
            return
        except BaseException as error:
            take.raised(error)
            raise
        take.item(item)
        try:
            sent = yield item
        except GeneratorExit:
            try:
                with call.active():
                    await inner.aclose()
            finally:
                take.closed()
            raise
        except BaseException as error:  # noqa: BLE001  # handed on to the generator
            take.sent("throw", error)
            step = functools.partial(inner.athrow, error)
        else:
            if sent is not None:
                take.sent("send", sent)
            step = functools.partial(inner.asend, sent)


def _conclude(call: Call, served: Served) -> Any:
    __tracebackhide__ = True
    assert call.recorded is not None
    call.finish(call.recorded)
    if served.end == "closed":
        raise call.drift("the recorded call was stopped from outside before it had answered; this one was not")
    if served.error is not None:
        raise served.error
    return served.result


async def _replay_awaitable(call: Call, served: Served) -> Any:
    __tracebackhide__ = True
    if served.end == "closed":
        # What stopped it was the agent's own timeout or a failing sibling, and will stop it again.
        await _hold(call)
    return _conclude(call, served)


async def _hold(call: Call) -> None:
    assert call.recorded is not None
    trio = sys.modules.get("trio")
    try:
        if trio is not None and trio.lowlevel.in_trio_run():
            await trio.sleep(HOLD_SECONDS)
        else:
            await asyncio.sleep(HOLD_SECONDS)
    except BaseException:
        call.finish(call.recorded)
        raise


def _replay_generator(call: Call, served: Served) -> Generator[Any, Any, Any]:
    __tracebackhide__ = True
    for index, item in enumerate(served.items):
        try:
            sent = yield item
        except GeneratorExit:
            _cut(call, index)
            raise
        except BaseException as error:  # noqa: BLE001  # handed on to the generator
            _compare(call, served, index, ("throw", error))
        else:
            _compare(call, served, index, None if sent is None else ("send", sent))
    return _conclude(call, served)


async def _replay_async_generator(call: Call, served: Served) -> AsyncGenerator[Any, Any]:
    __tracebackhide__ = True
    for index, item in enumerate(served.items):
        try:
            sent = yield item
        except GeneratorExit:
            _cut(call, index)
            raise
        except BaseException as error:  # noqa: BLE001  # handed on to the generator
            _compare(call, served, index, ("throw", error))
        else:
            _compare(call, served, index, None if sent is None else ("send", sent))
    if served.end == "closed":
        await _hold(call)
    _conclude(call, served)


def _cut(call: Call, index: int) -> None:
    assert call.recorded is not None
    call.finish(cut(call.recorded, index + 1))


def _compare(call: Call, served: Served, index: int, live: tuple[str, Any] | None) -> None:
    __tracebackhide__ = True
    if not matches(served, index, live):
        assert call.recorded is not None
        call.finish(call.recorded)
        raise call.drift(f"after item {index} the generator was sent something else than when it was recorded")


DRIVERS: dict[str, Callable[..., Any]] = {
    "sync": drive_sync,
    "async": drive_async,
    "generator": drive_generator,
    "async_generator": drive_async_generator,
}
_REPLAYS: dict[str, Callable[[Call, Served], Any]] = {
    "awaitable": _replay_awaitable,
    "generator": _replay_generator,
    "async_generator": _replay_async_generator,
}
