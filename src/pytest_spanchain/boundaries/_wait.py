"""How replay waits: not at all between attempts, and within one bound for what never came when this was recorded."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .._run import OWNERSHIP, Call

HOLD_SECONDS = 60.0
"""How long an agent is given to give up again on an answer that never came when this was recorded."""

_TICK = 0.01
_STEPS = 100
_APART = 10


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
def bounded(ring: Callable[[], object]) -> Iterator[None]:
    """Call ``ring``, from another thread, if the block takes too long by a clock that no test stops.

    Event loops, and waits for conditions, ask ``time.monotonic``: where that stands still, they time out never.
    """
    timer = threading.Timer(HOLD_SECONDS, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def turn(call: Call) -> None:
    """Wait in a thread until a served call may end: those that had ended before it have.

    A thread that runs an event loop goes on at once, as those others may be tasks of that loop.
    """
    if call.turn is None or _runs_a_loop():
        return
    bell = threading.Event()
    if call.turn.waits(bell.set):
        bell.wait()
    if rest := call.turn.rest():
        threading.Event().wait(rest)


async def turn_async(call: Call) -> None:
    """The same in a task."""
    if call.turn is None:
        return
    event = _event()
    if call.turn.waits(_soon(event.set)):
        await event.wait()
    if call.turn.ahead:
        for _ in range(_APART):  # who waits for several tasks at once is told of each by itself
            await step()
    if rest := call.turn.rest():
        await _pause(rest)


async def sleep(seconds: float) -> None:
    """Sleep in the event loop that runs, asyncio's or trio's."""
    trio = sys.modules.get("trio")
    await (trio.sleep if trio is not None and trio.lowlevel.in_trio_run() else asyncio.sleep)(seconds)


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


async def rung(hang: Callable[[Callable[[], object]], object]) -> bool:
    """Wait until somebody rings, within the one bound, and tell whether somebody has.

    Args:
        hang: puts the bell where it will be rung, in the event loop that runs.
    """
    event = _event()
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        event.set()

    hang(event.set)
    with bounded(_soon(give_up)):
        await event.wait()
    return not late


async def step() -> None:
    """Let others have their turn in the event loop that runs."""
    await sleep(0)


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


def _event() -> Any:
    trio = sys.modules.get("trio")
    return (trio if trio is not None and trio.lowlevel.in_trio_run() else asyncio).Event()


def _runs_a_loop() -> bool:
    trio = sys.modules.get("trio")
    # As asyncio tells it of the thread, and not of what is on its stack: greenlets have a stack of their own.
    return asyncio._get_running_loop() is not None or (trio is not None and trio.lowlevel.in_trio_run())


def _soon(ring: Callable[[], object]) -> Callable[[], None]:
    """Does something in the event loop that runs, asked by whichever thread."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
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


async def _pause(seconds: float) -> None:
    event = _event()
    timer = threading.Timer(seconds, _soon(event.set))
    timer.daemon = True
    timer.start()
    await event.wait()


def _rung(soon: Callable[[Callable[[], object]], object], ring: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has ended meanwhile, and with it who waited
        soon(ring)
