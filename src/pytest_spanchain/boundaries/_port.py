"""What a boundary needs of a run, as a port: the boundaries know these few methods and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Call(Protocol):
    """One crossing of a boundary."""

    recorded: Mapping[str, Any] | None
    """The response to serve; ``None``: the real thing must run."""

    def active(self) -> AbstractContextManager[None]:
        """Makes this span the current parent while the real thing runs; may be entered many times, one by one."""

    def finish(self, response: Mapping[str, Any], *, attributes: Mapping[str, Any] | None = None) -> None:
        """Say what came back, or what was served. Exactly once."""

    def fail(self, error: Exception) -> None:
        """Say that what came back cannot be recorded or served: the agent goes on, the run fails at its verdict."""

    def drift(self, message: str) -> Exception:
        """Say that the agent asks for something else of this answer than was recorded.

        Returns:
            The error to raise into the agent.
        """


class Run(Protocol):
    """One run of one test."""

    def begin(
        self,
        kind: str,
        name: str,
        request: Mapping[str, Any],
        *,
        attributes: Mapping[str, Any] | None = None,
        span_kind: str = "internal",
    ) -> Call:
        """A call reaches a boundary. May raise ``MissError``, ``RunClosedError`` and the like."""


def _default() -> Run | None:
    from .._run import current_run

    return current_run()


_provider: Callable[[], Run | None] = _default


def current_run() -> Run | None:
    """The run that owns the calling context, if there is one."""
    return _provider()


def set_provider(provider: Callable[[], Run | None] | None) -> None:
    """Ask ``provider`` for the current run from now on; ``None`` restores the real one."""
    global _provider
    _provider = provider or _default
