"""Threads inherit their starter's run and span.

Context variables do not reach ``threading.Thread`` or ``ThreadPoolExecutor`` (before CPython 3.14). Only the run and
OpenTelemetry's context are handed over; the application's own context variables stay as the application made them.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

from .._run import OWNERSHIP


def install() -> None:
    """Patch ``Thread.start`` and ``ThreadPoolExecutor.submit``, for the life of the process."""
    start, submit = threading.Thread.start, cast("Callable[..., Future[Any]]", ThreadPoolExecutor.submit)

    @functools.wraps(start)
    def start_in_context(self: threading.Thread) -> None:
        # Pool workers serve whoever submits; each task brings its own context instead.
        if OWNERSHIP.inherited() is not None and not _is_pool_worker(self):
            self.run = _in_context(self.run)  # type: ignore[method-assign]
        start(self)

    @functools.wraps(submit)
    def submit_in_context(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        return submit(self, _in_context(fn) if OWNERSHIP.inherited() is not None else fn, *args, **kwargs)

    threading.Thread.start = start_in_context  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_in_context  # type: ignore[method-assign, assignment]


def _in_context(fn: Callable[..., Any]) -> Callable[..., Any]:
    from opentelemetry import context as otel_context

    run, context = OWNERSHIP.inherited(), otel_context.get_current()

    @functools.wraps(fn)
    def inherited(*args: Any, **kwargs: Any) -> Any:
        token = otel_context.attach(context)
        try:
            with OWNERSHIP.own(run):
                return fn(*args, **kwargs)
        finally:
            otel_context.detach(token)

    return inherited


def _is_pool_worker(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    return getattr(target, "__module__", "").startswith("concurrent.futures")
