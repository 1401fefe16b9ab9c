"""Agents that ask several things at once, and go by who is ready first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

from servers import Json, Reply, Request

COUNT = 4
LAST_FIRST = list(range(COUNT))[::-1]
"""In this order everything here is recorded; asked is the other way round."""


def wait(n: int) -> float:
    """So many seconds does the answer to the n-th question take."""
    return 0.08 * LAST_FIRST.index(n)


def last_first(request: Request) -> Reply:
    """A server's answer to ``{"n": ...}``."""
    time.sleep(wait(request.body["n"]))
    return Json({"n": request.body["n"]})


async def in_tasks(ask: Callable[[int], Awaitable[int]]) -> list[int]:
    """Ask in tasks."""

    async def one(n: int) -> int:
        return await ask(n)

    return [await done for done in asyncio.as_completed([one(n) for n in range(COUNT)])]


def in_threads(ask: Callable[[int], int]) -> list[int]:
    """Ask in threads."""
    with ThreadPoolExecutor(COUNT) as pool:
        return [done.result() for done in as_completed([pool.submit(ask, n) for n in range(COUNT)])]
