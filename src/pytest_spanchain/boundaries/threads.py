"""Threads inherit their starter's run and span; threads, pool jobs and tasks are known as strands of their starter.

Context variables do not reach ``threading.Thread`` or ``ThreadPoolExecutor`` (before CPython 3.14). Only the run and
OpenTelemetry's context are handed over; the application's own context variables stay as the application made them.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

from .. import _strands
from .._run import OWNERSHIP

_PATCHED = "_spanchain_patched"


def install() -> None:
    """Patch ``Thread.start``, ``ThreadPoolExecutor.submit`` and ``create_task``, once, for the life of the process."""
    # Marked on what is patched: a second layer would see every strand start twice.
    if hasattr(threading.Thread.start, _PATCHED):
        return
    start, submit = threading.Thread.start, cast("Callable[..., Future[Any]]", ThreadPoolExecutor.submit)
    create_task: Any = asyncio.BaseEventLoop.create_task

    @functools.wraps(start)
    def start_in_context(self: threading.Thread) -> None:
        # Pool workers serve whoever submits; each task brings its own context instead.
        if OWNERSHIP.inherited() is not None and not _is_pool_worker(self):
            self.run = _in_context(self.run, serves=True)  # type: ignore[method-assign]
        start(self)

    @functools.wraps(submit)
    def submit_in_context(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        return submit(self, _in_context(fn) if OWNERSHIP.inherited() is not None else fn, *args, **kwargs)

    @functools.wraps(create_task)
    def create_known_task(self: asyncio.BaseEventLoop, *args: Any, **kwargs: Any) -> Any:
        # A loop with a ``create_task`` of its own (uvloop) is not met: its tasks are known from their first span on.
        if OWNERSHIP.inherited() is None:
            return create_task(self, *args, **kwargs)
        return _strands.create_task(lambda: create_task(self, *args, **kwargs), context=kwargs.get("context"))

    setattr(start_in_context, _PATCHED, True)
    threading.Thread.start = start_in_context  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_in_context  # type: ignore[method-assign, assignment]
    asyncio.BaseEventLoop.create_task = create_known_task  # type: ignore[method-assign]


def _in_context(fn: Callable[..., Any], *, serves: bool = False) -> Callable[..., Any]:
    from opentelemetry import context as otel_context

    run, context, strand = OWNERSHIP.inherited(), otel_context.get_current(), _strands.current().spawn()

    @functools.wraps(fn)
    def inherited(*args: Any, **kwargs: Any) -> Any:
        token = otel_context.attach(context)
        try:
            with OWNERSHIP.own(run), _strands.running(strand, serves=serves):
                return fn(*args, **kwargs)
        finally:
            otel_context.detach(token)

    return inherited


def _is_pool_worker(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    return (getattr(target, "__module__", None) or "").startswith("concurrent.futures")  # builtin methods: None
