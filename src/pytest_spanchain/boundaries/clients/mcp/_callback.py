"""What an MCP server asks of the client: the agent's own code answers it, in replay as well, and is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...._run import OWNERSHIP, Crossing
from ...._strands import on_behalf
from .._trace_context import attached
from ._asked import Asked

_UNANSWERED = {"type": "TimeoutError", "message": "it was not answered while somebody waited for the answer"}


class Callback:
    """One request of the server's, which the client answers."""

    def __init__(
        self,
        asked: Asked,
        method: str,
        params: Mapping[str, Any] | None,
        message: dict[str, Any] | None,
        *,
        withdrawn: bool,
    ) -> None:
        self._run = asked.run
        self._asked = asked
        self._message = message
        self._withdrawn = withdrawn
        with OWNERSHIP.own(self._run), attached(asked.outer), on_behalf(asked.strand):
            self._call = self._run.begin(
                Crossing(
                    "callback",
                    method,
                    {"method": method, "params": None if params is None else dict(params)},
                    attributes={"mcp.method.name": method},
                    span_kind="server",
                    runs=True,
                )
            )
        self._call.at_close = self.withdrawn
        self._open = True

    @contextmanager
    def within(self) -> Iterator[None]:
        """What the client does to answer is part of this exchange, and of its run."""
        with OWNERSHIP.own(self._run), self._call.active():
            yield

    def answered(self, result: Any) -> None:
        """The client answered."""
        self._over(result, None)

    def refused(self, code: int, message: str, data: Any) -> None:
        """The client answered with an error."""
        self._over(None, {"code": code, "message": message, "data": data})

    def raised(self, error: BaseException) -> None:
        """The client's handler raised something else, or was stopped."""
        if isinstance(error, Exception):
            self._over(None, {"type": type(error).__name__, "message": str(error)})
        else:
            self.withdrawn()

    def withdrawn(self) -> None:
        """Nobody waits for the answer any more, or did so when this was recorded."""
        if self._open and self._message is not None:
            self._asked.withdrawn(self._message)
        self._over(None, _UNANSWERED)

    def _over(self, result: Any, error: Mapping[str, Any] | None) -> None:
        if self._open and not self._run.closed:
            self._open = False
            # What came too late to be heard may come in time here.
            self._call.finish(
                {"result": None, "error": _UNANSWERED} if self._withdrawn else {"result": result, "error": error}
            )
