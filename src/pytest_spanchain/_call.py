"""One crossing of a boundary, as the boundary sees it: what it brings, and what it says of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._calls import Calls
    from ._capture import OpenSpan
    from ._ends import End
    from ._genai import Operation
    from ._tool_calls import ToolCalls
    from .errors import MissError

UNANSWERED: Mapping[str, Any] = {
    "status": None,
    "headers": {},
    "body": None,
    "end": "closed",
    "error": None,
}
"""What stands for the answer of a call that was still open when the recording ended."""


@dataclass(frozen=True)
class Crossing:
    """What reaches a boundary, before it is known what answers it.

    Args:
        kind: of the exchange (see ``_model``); an HTTP request that a model API understands becomes ``model``.
        name: span name; a model call gets its own.
        request: as in ``_model``; an HTTP request brings its headers as a list of pairs.
        attributes: span attributes known now.
        span_kind: OpenTelemetry's span kind.
        whole: whether the request is all there; if not, ``Call.asked`` brings it.
        runs: whether it is answered by the real thing in replay, too: what that gives is compared.
    """

    kind: str
    name: str
    request: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    span_kind: str = "client"
    whole: bool = True
    runs: bool = False


class Call:
    """One crossing of a boundary. ``finish`` or ``fail`` ends it, exactly once."""

    def __init__(
        self,
        calls: Calls,
        span: OpenSpan,
        *,
        operation: Operation | None,
        recorded: Mapping[str, Any] | None,
        end: End | None,
        tool_calls: ToolCalls,
    ) -> None:
        self._calls = calls
        self.operation = operation
        """What it asks of a model's API."""
        self.span = span
        self.recorded = recorded
        """The response to serve; ``None``: the real thing must run."""
        self.tool_calls = tool_calls
        """Hears of the tools that it asks for."""
        self.at_close: Callable[[], None] | None = None
        """How to finish if the run ends first: a stream that nobody reads to its end."""
        self.at_next: Callable[[], None] | None = None
        """What to do before the next call of the thread or task that made this one: it has gone on."""
        self.end = end
        """When it may end, if that depends on others; see ``boundaries._wait.may_end``."""

    def active(self) -> AbstractContextManager[None]:
        """Makes this call's span the parent of what the real thing starts."""
        return self._calls.capture.current(self.span)

    def finish(self, response: Mapping[str, Any], *, attributes: Mapping[str, Any] | None = None) -> None:
        """Say what came back, or what was served."""
        self._calls.finish(self, response, attributes=attributes or {})

    def amend(self, response: Mapping[str, Any]) -> None:
        """Say what else belongs to an answer that was recorded, of the same exchange and after its end."""
        self._calls.amend(self, response)

    def fail(self, error: Exception) -> None:
        """Say that what came back cannot be recorded; the agent goes on, the recording fails."""
        self._calls.findings.note_error(str(error))

    def asked(self, request: Mapping[str, Any]) -> None:
        """Say what the whole request was, where it was not all there when the call began."""
        self._calls.asked(self, request)

    def drift(self, message: str) -> MissError:
        """Say that the agent asks for more of this answer than was recorded.

        Returns:
            The error to raise into the agent.
        """
        return self._calls.findings.miss(f"{self.span.name}: {message}")
