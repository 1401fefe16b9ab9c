"""How replay waits where the recorded agent waited for something that never came: one bound for every boundary."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

HOLD_SECONDS = 60.0
"""How long an agent is given to give up again on an answer that never came when this was recorded."""


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
        await sleep(HOLD_SECONDS)
    except BaseException:
        give_up()
        raise
