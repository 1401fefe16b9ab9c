"""How replay waits: not at all between attempts, within one bound for what never came when this was recorded, and
until a call may end (``_ends``).
"""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .._ends import End
from .._run import OWNERSHIP, Call

HOLD_SECONDS = 60.0
"""How long an agent is given to give up again on an answer that never came when this was recorded."""

_TICK = 0.01
_STEPS = 100
_BETWEEN = 10
"""Rounds of an event loop between the ends of two calls."""


def skips() -> bool:
    """Whether a library's own wait between two attempts is passed over: replay does not wait for what is recorded."""
    run = OWNERSHIP.peek()
    return run is not None and not run.records


def until(over: Callable[[], bool], *, seconds: float | None = None, tick: float = _TICK) -> bool:
    """Wait in a thread until something is over, and tell whether it is. Bounded by count: tests stop clocks.

    Args:
        over: asked again and again.
        seconds: for how long at least, by default ``HOLD_SECONDS``.
        tick: seconds between two questions.
    """
    never = threading.Event()
    for _ in range(int((HOLD_SECONDS if seconds is None else seconds) / tick) + 1):
        if over():
            return True
        never.wait(tick)
    return False


@contextmanager
def bounded(ring: Callable[[], object], *, seconds: float | None = None) -> Iterator[None]:
    """Call ``ring``, from another thread, if the block takes too long by a clock that no test stops.

    Event loops, and waits for conditions, ask ``time.monotonic``: where that stands still, they time out never.

    Args:
        ring: called then.
        seconds: that are not too long, by default ``HOLD_SECONDS``.
    """
    timer = threading.Timer(HOLD_SECONDS if seconds is None else seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def may_end(call: Call) -> None:
    """Wait in a thread until a served call may end: those that had ended before it have (``_ends``).

    A thread that runs an event loop goes on at once, as those others may be tasks of that loop.
    """
    if call.end is None or _runs_a_loop():
        return
    bell = threading.Event()
    with _waiting(call.end):
        if call.end.wait(bell.set):
            bell.wait()
        if rest := call.end.rest(in_a_loop=False):
            threading.Event().wait(rest)


async def may_end_async(call: Call, give_up: Callable[[], object]) -> None:
    """The same in a task.

    Args:
        call: that is served.
        give_up: called when something ends the wait.
    """
    if call.end is None:
        return
    if not _runs_a_loop():  # a coroutine that somebody drives by hand
        may_end(call)
        return
    event = _events().Event()
    try:
        with _waiting(call.end):
            if call.end.wait(_soon(event.set)):
                await event.wait()
            if call.end.ahead():
                for _ in range(_BETWEEN):  # who waits for several tasks at once is told of each by itself
                    await step()
            if rest := call.end.rest(in_a_loop=True):
                await rung(lambda ring: None, seconds=rest)
    except BaseException:
        give_up()
        raise


@contextmanager
def _waiting(end: End) -> Iterator[None]:
    end.waiting = True
    try:
        yield
    finally:
        end.waiting = False


async def hold(give_up: Callable[[], object]) -> None:
    """Wait until the agent gives up.

    Args:
        give_up: called when something ends the wait.
    """
    try:
        await rung(lambda ring: None)
    except BaseException:
        give_up()
        raise


async def rung(hang: Callable[[Callable[[], object]], object], *, seconds: float | None = None) -> bool:
    """Wait until somebody rings, within the one bound, and tell whether somebody has.

    Args:
        hang: puts the bell where it will be rung, in the event loop that runs.
        seconds: the bound, by default ``HOLD_SECONDS``.
    """
    event = _events().Event()
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        event.set()

    hang(event.set)
    with bounded(_soon(give_up), seconds=seconds):
        await event.wait()
    return not late


async def step() -> None:
    """Let others have their turn in the event loop that runs, whatever a test has put in place of ``asyncio.sleep``."""
    await (trio.lowlevel.checkpoint() if (trio := _trio()) else _once())


@types.coroutine
def _once() -> Generator[None, None, None]:
    yield


async def in_time(go: Callable[[], Awaitable[object]], beside: Sequence[Callable[[], Awaitable[object]]] = ()) -> bool:
    """Await something, within the one bound, and tell whether it came to its end.

    Args:
        go: what is awaited.
        beside: what runs beside it and is given up with it: nobody waits for these.
    """
    import anyio

    raised: list[Exception] = []

    async def awaited(one: Callable[[], Awaitable[object]]) -> None:
        await one()

    async def all_of_it() -> None:
        async with anyio.create_task_group() as group:
            for one in beside:
                group.start_soon(awaited, one)
                await step()
            try:
                await go()
                for _ in range(_STEPS):  # what runs beside it may have something to do first
                    await step()
            except Exception as error:  # noqa: BLE001  # as it is, and not in a group
                raised.append(error)
            group.cancel_scope.cancel()

    with anyio.CancelScope() as scope, bounded(_soon(scope.cancel)):
        await (all_of_it() if beside else go())
    for error in raised:
        raise error
    return not scope.cancelled_caught


def _trio() -> Any:
    """Trio, where it runs the calling task; else ``None``."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None


def _events() -> Any:
    """What has events for the event loop that runs."""
    return _trio() or asyncio


def _runs_a_loop() -> bool:
    # As asyncio tells it of the thread, and not of what is on its stack: greenlets have a stack of their own.
    return asyncio._get_running_loop() is not None or _trio() is not None


def _soon(ring: Callable[[], object]) -> Callable[[], None]:
    """Does something in the event loop that runs, asked by whichever thread."""
    if trio := _trio():
        token = trio.lowlevel.current_trio_token()
        return lambda: _rung(token.run_sync_soon, ring)
    loop = asyncio.get_running_loop()
    return lambda: _rung(loop.call_soon_threadsafe, ring)


async def done(future: asyncio.Future[None]) -> bool:
    """Wait until a future is done, and tell whether it is; it is done afterwards."""
    late = False

    def ring() -> None:
        nonlocal late
        if not future.done():
            late = True
            future.set_result(None)

    with bounded(_soon(ring)):
        await future
    return not late


def _rung(soon: Callable[[Callable[[], object]], object], ring: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has ended meanwhile, and with it who waited
        soon(ring)
