"""What an MCP client and a server say to each other, as a run sees it; who carries the messages is others' affair.

Each request and each notification of the client is an exchange of kind ``mcp``. What the server sends on its own
account belongs to the request that it names, else to the latest that the client sent: replay hands it over after that
one, and never before. What the server asks of the client is a ``callback``: the agent's own code answers it in replay,
too, and the answer is compared.

Spans follow OpenTelemetry's conventions for MCP (https://opentelemetry.io/docs/specs/semconv/gen-ai/mcp/).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...._model import CONNECTION
from ...._run import Crossing, Run, current_run
from ..._seam import ToolCall
from .._trace_context import attached, otel_context
from ._asked import Asked
from ._callback import Callback
from ._server import Server

CALL_TOOL = "tools/call"
HANDSHAKE = frozenset({"initialize", "notifications/initialized", "server/discover"})

_TARGETS = {CALL_TOOL: "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}


class Talk:
    """One connection of a client with a server, from the client's side."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.latest: Asked | None = None
        """What the client sent last, while a run records."""
        self._version: str | None = None

    def ask(self, method: str, params: Mapping[str, Any] | None) -> Asked | None:
        """The client sends a request or a notification.

        Returns:
            ``None`` if nobody watches: there is no run, or what asks is a server that is recorded itself.

        Raises:
            MissError: replay has nothing to serve.
        """
        run = current_run()
        if run is None:
            return None
        if run.inside("mcp"):
            # What opens a connection may greet the server as well; that is no part of how it opens it.
            span, outer = self.server.opened_by or (None, None)
            if span is None or run.capture.enclosing() is not span:
                return None
            with attached(outer):
                return self._ask(run, method, params)
        return self._ask(run, method, params)

    def _ask(self, run: Run, method: str, params: Mapping[str, Any] | None) -> Asked:
        given = dict(params) if params else None
        attributes: dict[str, Any] = {"mcp.method.name": method}
        if self.server.transport:
            attributes["network.transport"] = self.server.transport
        if self.server.connection:
            attributes[CONNECTION] = self.server.connection
        if self._version:
            attributes["mcp.protocol.version"] = self._version
        name = method
        target = given.get("name") if given and method in _TARGETS else None
        if isinstance(target, str):
            name = f"{method} {target}"
            attributes[_TARGETS[method]] = target
        if method == CALL_TOOL:
            attributes["gen_ai.operation.name"] = "execute_tool"
            _take_up(run, target, given)
        elif given and isinstance(given.get("uri"), str):
            attributes["mcp.resource.uri"] = given["uri"]
        outer = otel_context()  # before the call, whose sibling a callback is: what is below it comes with its answer
        call = run.begin(
            Crossing(
                "mcp",
                name,
                {"server": self.server.name(run), "method": method, "params": given},
                attributes=attributes,
                # A server that answers what is new must have been greeted.
                runs=run.records and method in HANDSHAKE,
            )
        )
        asked = Asked(self.server, run, call, outer, agreed=self.agreed)
        if call.recorded is None:
            self.latest = asked
        return asked

    def arrived(self, method: str, params: Mapping[str, Any] | None, *, by: Asked | None = None) -> None:
        """The server sent a notification.

        Args:
            method: of the notification.
            params: of the notification.
            by: the request that it names.
        """
        asked = by or self.latest
        if asked is not None:
            asked.arrived(method, params)

    def called_back(
        self, method: str, params: Mapping[str, Any] | None, *, by: Asked | None = None, withdrawn: bool = False
    ) -> Callback | None:
        """The server asks something of the client.

        Args:
            method: of the request.
            params: of the request.
            by: what the client had sent, if it is known; else it was the latest.
            withdrawn: whether nobody waited for the answer when this was recorded.
        """
        asked = by or self.latest
        if asked is None or asked.run.closed:
            return None
        message = asked.arrived(method, params, asks=True) if by is None else None
        return Callback(asked, method, params, message, withdrawn=withdrawn)

    def agreed(self, result: Any) -> dict[str, Any]:
        """Remember the version that a handshake agreed on; what its span says of that."""
        if not isinstance(result, Mapping) or not isinstance(result.get("protocolVersion"), str):
            return {}
        self._version = result["protocolVersion"]
        return {"mcp.protocol.version": self._version}


def _take_up(run: Run, name: Any, params: Mapping[str, Any] | None) -> None:
    """What the model asked for is done here; frameworks put a prefix of their own before a server's names."""
    arguments = (params or {}).get("arguments") or {}
    for wanted in run.tool_calls.undone:
        if isinstance(name, str) and wanted.name.endswith(name) and (wanted.arguments or {}) == arguments:
            run.tool_calls.met(ToolCall(wanted.id, wanted.name, wanted.arguments))
            return
