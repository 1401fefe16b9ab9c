"""Drives tool calls, plain and streamed, through a run: live and recorded, or served; sync and async alike.

Invariants:

* What the agent gets from a live call is what the tool gave: value, exception, items and their timing.
* ``finish`` is called once for every call that began and ended, however it ended; a stream that nobody reads to its
  end is over when the run is.
* A span is current while the tool's own code runs, never across a ``yield``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from typing import Any

from .._run import Call, Crossing, current_run
from . import _wait
from ._tool_io import Take, ToolSpec, asked, cut, matches, serve


def _begin(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """The opened call; ``None`` if the original is to run as if nobody watched."""
    run = current_run()
    if run is None or not spec.wanted_by(run) or run.inside_seam(spec.name) or run.inside("mcp"):
        return None
    wanted = asked(spec, args, kwargs)
    if wanted is None:
        return None
    crossing = Crossing(
        "tool",
        f"execute_tool {spec.name}",
        wanted.request,
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": spec.name,
            "gen_ai.tool.type": "function",
        },
        span_kind="internal",
    )
    call = run.answer(crossing) if spec.watcher is None or spec.watcher.answers else run.begin(crossing)
    call.span.seam = spec.seam
    spec.began(call)
    for problem in wanted.problems:
        spec.unrecordable(call, problem)
    return call


def drive_sync(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    __tracebackhide__ = True
    call = _begin(spec, args, kwargs)
    if call is None:
        return spec.original()(*args, **kwargs)
    if call.recorded is not None:
        replay = _Replay(spec, call)
        return _REPLAYS[replay.served.returned](replay)
    take = Take(spec, call)
    try:
        with take.running():
            value = spec.original()(*args, **kwargs)
    except BaseException as error:
        take.raised(error)
        raise
    # A plain function may hand out what has yet to run: a decorator without ``async``, a factory of generators.
    if inspect.iscoroutine(value):
        return _record_awaitable(Take(spec, call, returned="awaitable"), value)
    if inspect.isgenerator(value):
        return _record_generator(Take(spec, call, streamed=True, returned="generator"), value)
    if inspect.isasyncgen(value):
        return _record_async_generator(Take(spec, call, streamed=True, returned="async_generator"), value)
    take.result(value)
    return value


async def drive_async(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    __tracebackhide__ = True
    call = _begin(spec, args, kwargs)
    if call is None:
        return await spec.original()(*args, **kwargs)
    if call.recorded is not None:
        return await _replay_awaitable(_Replay(spec, call))
    return await _record_awaitable(Take(spec, call), spec.original()(*args, **kwargs))


def drive_generator(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[Any, Any, Any]:
    __tracebackhide__ = True
    call = _begin(spec, args, kwargs)
    if call is None:
        return (yield from spec.original()(*args, **kwargs))
    if call.recorded is not None:
        return (yield from _replay_generator(_Replay(spec, call)))
    return (yield from _record_generator(Take(spec, call, streamed=True), spec.original()(*args, **kwargs)))


def drive_async_generator(spec: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, Any]:
    call = _begin(spec, args, kwargs)
    if call is None:
        return spec.original()(*args, **kwargs)  # type: ignore[no-any-return]
    if call.recorded is not None:
        return _replay_async_generator(_Replay(spec, call))
    return _record_async_generator(Take(spec, call, streamed=True), spec.original()(*args, **kwargs))


async def _record_awaitable(take: Take, awaitable: Any) -> Any:
    __tracebackhide__ = True
    try:
        with take.running():
            value = await awaitable
    except BaseException as error:
        take.raised(error)
        raise
    take.result(value)
    return value


def _record_generator(take: Take, inner: Any) -> Generator[Any, Any, Any]:
    __tracebackhide__ = True
    step: Callable[[], Any] = functools.partial(next, inner)
    while True:
        try:
            # Only while it runs, never across a yield: there the current span is the consumer's affair.
            with take.running():
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
        except BaseException as error:  # noqa: BLE001  # handed on to the generator
            take.thrown(error)
            step = functools.partial(inner.throw, error)
        else:
            take.sent("send", sent)
            step = functools.partial(inner.send, sent)


async def _record_async_generator(take: Take, inner: Any) -> AsyncGenerator[Any, Any]:
    __tracebackhide__ = True
    step: Callable[[], Any] = inner.__anext__
    while True:
        try:
            with take.running():
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
        except BaseException as error:  # noqa: BLE001  # handed on to the generator
            take.thrown(error)
            step = functools.partial(inner.athrow, error)
        else:
            take.sent("send", sent)
            step = functools.partial(inner.asend, sent)


class _Replay:
    """A recorded answer on its way to the agent; tells the call, once, how far the agent went."""

    def __init__(self, spec: ToolSpec, call: Call) -> None:
        self.served = serve(spec, call)
        self._spec = spec
        self._call = call
        self._given = 0
        self._over = False
        if self.served.items is not None or self.served.returned:
            call.at_close = self.stop

    def items(self) -> Iterator[Any]:
        """The items, one by one."""
        for item in self.served.items or ():
            self._given += 1
            yield item

    def took(self, how: str, value: Any) -> None:
        """Something went into the generator after the last item: ``send`` or ``throw``.

        Raises:
            MissError: it is not what went in when this was recorded.
        """
        __tracebackhide__ = True
        if not matches(self._spec, self._call, self.served, self._given - 1, how, value):
            self.stop()
            raise self._call.drift(
                f"after item {self._given - 1} the generator was sent something else than when it was recorded"
            )

    def may_end(self) -> None:
        """Wait in a thread until it may end, if what comes next is the last item, or the end; see ``_wait.may_end``."""
        if self._nears_its_end():
            _wait.may_end(self._call)

    async def may_end_async(self) -> None:
        """The same in a task."""
        if self._nears_its_end():
            await _wait.may_end_async(self._call, self.stop)

    def _nears_its_end(self) -> bool:
        return self.served.end != "closed" and self._given >= len(self.served.items or ()) - 1

    def stop(self) -> None:
        """The agent goes no further."""
        assert self._call.recorded is not None
        self._finish(cut(self._call.recorded, self._given))

    def end(self) -> Any:
        """What comes after the last item: the result.

        Raises:
            MissError: the recorded agent did not get so far.
            Exception: the recorded one.
        """
        __tracebackhide__ = True
        assert self._call.recorded is not None
        self._finish(self._call.recorded)
        if self.served.waits:
            raise self._call.drift("the recorded call was stopped before it had answered; this one was not")
        if self.served.end == "closed":
            raise self._call.drift(f"the agent goes on after {self._given} items, where it stopped when recorded")
        if self.served.error is not None:
            raise self.served.error
        return self.served.result

    def _finish(self, response: Mapping[str, Any]) -> None:
        if not self._over:
            self._over = True
            self._call.finish(response)


def _replay_plain(replay: _Replay) -> Any:
    __tracebackhide__ = True
    replay.may_end()
    return replay.end()


async def _replay_awaitable(replay: _Replay) -> Any:
    __tracebackhide__ = True
    if replay.served.end == "closed":
        # What stopped it was the agent's own timeout or a failing sibling, and will stop it again.
        await _wait.hold(replay.stop)
    await replay.may_end_async()
    return replay.end()


def _replay_generator(replay: _Replay) -> Generator[Any, Any, Any]:
    __tracebackhide__ = True
    replay.may_end()
    for item in replay.items():
        try:
            sent = yield item
        except Exception as error:  # noqa: BLE001  # handed on to the generator
            replay.took("throw", error)
        except BaseException:
            replay.stop()
            raise
        else:
            replay.took("send", sent)
        replay.may_end()
    return replay.end()


async def _replay_async_generator(replay: _Replay) -> AsyncGenerator[Any, Any]:
    __tracebackhide__ = True
    await replay.may_end_async()
    for item in replay.items():
        try:
            sent = yield item
        except Exception as error:  # noqa: BLE001  # handed on to the generator
            replay.took("throw", error)
        except BaseException:
            replay.stop()
            raise
        else:
            replay.took("send", sent)
        await replay.may_end_async()
    if replay.served.waits:
        await _wait.hold(replay.stop)
    replay.end()


DRIVERS: dict[str, Callable[..., Any]] = {
    "sync": drive_sync,
    "async": drive_async,
    "generator": drive_generator,
    "async_generator": drive_async_generator,
}
_REPLAYS: dict[str | None, Callable[[_Replay], Any]] = {
    None: _replay_plain,
    "awaitable": _replay_awaitable,
    "generator": _replay_generator,
    "async_generator": _replay_async_generator,
}
