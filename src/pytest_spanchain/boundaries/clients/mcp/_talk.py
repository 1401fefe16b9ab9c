"""What an MCP client and a server say to each other, as a run sees it; who carries the messages is others' affair.

Each request and each notification of the client is an exchange of kind ``mcp``. What the server sends on its own
account belongs to the request that it names, else to the latest that the client sent: replay hands it over after that
one, and never before. What the server asks of the client is a ``callback``: the agent's own code answers it in replay,
too, and the answer is compared.

Spans follow OpenTelemetry's conventions for MCP (https://opentelemetry.io/docs/specs/semconv/gen-ai/mcp/).
"""

from __future__ import annotations

import functools
import logging
import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ...._capture import OpenSpan
from ...._layout import ordered, unordered
from ...._model import CONNECTION
from ...._redact.text import PLACEHOLDER
from ...._run import OWNERSHIP, Call, Run, current_run
from ...._strands import on_behalf
from ....errors import MissError
from ... import _wait
from ..._seam import ToolCall
from ._errors import raised_again as raised_again

CALL_TOOL = "tools/call"
HANDSHAKE = frozenset({"initialize", "notifications/initialized", "server/discover"})

_TARGETS = {CALL_TOOL: "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}

PROGRESS = "notifications/progress"

_UNANSWERED = {"type": "TimeoutError", "message": "it was not answered while somebody waited for the answer"}

Message = Mapping[str, Any]
HandOver = Callable[["Asked", Message], Awaitable[None]]


@dataclass(eq=False)
class Server:
    """A server, as its client names it.

    Args:
        text: its URL or its name.
        transport: OpenTelemetry's ``network.transport``.
        is_url: whether ``text`` is a URL.
        argv: its command line, if it is a child process.
        session_id: tells the id of the session, if the transport has one.
        opened_by: the span of the connection, and the context in which it was asked for.
        connection: the number of the connection, if it is not the first to this server.
        breaks: breaks the connection as it broke when this was recorded; ``None`` where it did not.
    """

    text: str = "(unnamed)"
    transport: str = ""
    is_url: bool = False
    argv: tuple[str, ...] = ()
    session_id: Callable[[], str | None] = lambda: None
    opened_by: tuple[OpenSpan, Any] | None = None
    breaks: Callable[[], None] | None = None
    connection: int | None = None

    def name(self, run: Run) -> str:
        """As it is recorded: without credentials, and without what only this machine knows."""
        if self.argv:
            return shlex.join(run.shown_arguments(self.argv))
        return run.shown_url(self.text) if self.is_url else self.text


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
            "mcp",
            name,
            {"server": self.server.name(run), "method": method, "params": given},
            attributes=attributes,
            span_kind="client",
            # A server that answers what is new must have been greeted.
            runs=run.records and method in HANDSHAKE,
        )
        asked = Asked(self, run, call, outer)
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


class Asked:
    """One request or notification of the client."""

    def __init__(self, talk: Talk, run: Run, call: Call, outer: Any) -> None:
        self.run = run
        self.outer = outer
        self.strand = call.span.strand
        self._talk = talk
        self._call = call
        self._arrived: list[dict[str, Any]] = []
        self._response: Mapping[str, Any] | None = None
        self._behind = False
        recorded = call.recorded
        self.recorded: Mapping[str, Any] | None = None if recorded is None else unordered(recorded)
        """The response to serve; ``None``: the server is asked."""
        call.at_close = lambda: self._over(end="closed") if self.recorded is None else self.served()

    @property
    def span(self) -> OpenSpan:
        """Its span."""
        return self._call.span

    @contextmanager
    def within(self) -> Iterator[None]:
        """What carries the message and the answer is part of this exchange, for as long as it lives."""
        self._call.span.lasting = True
        with self._call.active():
            yield

    def arrived(self, method: str, params: Mapping[str, Any] | None, *, asks: bool = False) -> dict[str, Any]:
        """The server sent something on its own account.

        Returns:
            What is recorded of it.
        """
        message: dict[str, Any] = {"method": method, "params": None if params is None else dict(params)}
        if asks:
            message["asks"] = True
        if self.run.closed:
            return message
        if self._response is not None:
            message["late"] = True
        self._arrived.append(message)
        self._told_late()
        return message

    def withdrawn(self, message: dict[str, Any]) -> None:
        """Nobody waits for the client's answer to this any more."""
        if not self.run.closed:
            message["withdrawn"] = True
            self._told_late()

    def _told_late(self) -> None:
        # Once for all: a server may send thousands, and what is told is redacted as a whole.
        if self._response is not None and not self._behind:
            self._behind = True
            self.run.before_end.append(self._catch_up)

    def _catch_up(self) -> None:
        assert self._response is not None
        self._behind = False
        self._call.amend(ordered({**self._response, "arrived": list(self._arrived)}))

    def answered(self, result: Any) -> None:
        """The server answered; a notification has no answer, and is over when it is sent."""
        self._over(result=result)

    def refused(self, code: int, message: str, data: Any) -> None:
        """The server answered with an error, or the client's library stands in for one."""
        self._over(error={"code": code, "message": message, "data": data})

    def raised(self, error: Exception) -> None:
        """The client's library raised something else."""
        self._over(end="error", error={"type": type(error).__name__, "message": str(error)})

    def stopped(self) -> None:
        """Whoever asked stopped waiting."""
        self._over(end="cancelled")

    async def serve(self, hand_over: HandOver, group: Any, *, bounded: bool = True) -> Mapping[str, Any]:
        """Give the recorded answer, after what came before it.

        Args:
            hand_over: hands a message of the server's to the client.
            group: task group in which to hand over what came after it.
            bounded: whether handing over is given up some time; else that is the affair of ``hand_over``.

        Raises:
            MissError: when this was recorded, nobody waited for an answer.
        """
        recorded = self.recorded
        assert recorded is not None
        # All that ask at the same time have asked before the first gets its answer, as it was.
        await _wait.step()
        early = [message for message in recorded["arrived"] if "late" not in message]
        if bounded:
            await self._hand_over(early, hand_over)
        else:
            for message in early:
                await hand_over(self, message)
        if recorded["end"] in ("closed", "cancelled"):
            if self._talk.server.breaks is not None:
                self._talk.server.breaks()
            await _wait.hold(self.served)
            self.served()
            raise self._call.drift(
                f"the agent has waited {_wait.HOLD_SECONDS:g} s for an answer of {self._talk.server.name(self.run)},"
                " for which it did not wait when this was recorded"
            )
        self.served()
        late = [message for message in recorded["arrived"] if "late" in message]
        if late and group is not None:
            group.start_soon(self._hand_over_late, late, hand_over)
        return recorded

    async def _hand_over(self, messages: list[Message], hand_over: HandOver) -> None:
        if not messages:
            return
        current = messages[0]

        async def each() -> None:
            nonlocal current
            for current in messages:
                if "withdrawn" not in current:
                    await hand_over(self, current)

        beside = [functools.partial(hand_over, self, message) for message in messages if "withdrawn" in message]
        if not await _wait.in_time(each, beside):
            raise self._call.drift(
                f"the agent did not deal with {current['method']} of {self._talk.server.name(self.run)} within"
                f" {_wait.HOLD_SECONDS:g} s"
            )

    async def _hand_over_late(self, messages: list[Message], hand_over: HandOver) -> None:
        with suppress(MissError):  # nobody waits here; it is in the verdict
            await self._hand_over(messages, hand_over)

    def served(self) -> None:
        """The recorded answer was handed over."""
        if self._response is None:
            recorded = self._call.recorded
            assert recorded is not None
            self._response = self.recorded
            assert self.recorded is not None
            self._call.finish(recorded, attributes=self._told(self.recorded["result"]))

    def _over(self, *, result: Any = None, error: Mapping[str, Any] | None = None, end: str = "complete") -> None:
        if self._response is None and not self.run.closed:
            self._response = {"result": result, "error": error, "end": end, "arrived": list(self._arrived)}
            self._call.finish(ordered(self._response), attributes=self._told(result))

    def _told(self, result: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._talk.agreed(result)
        if isinstance(result, Mapping) and result.get("isError") is True:
            found["error.type"] = "tool_error"
        if self._call.span.graft is not None:
            golden = self._call.span.graft[1].attributes
            found.update({key: golden[key] for key in ("mcp.session.id",) if key in golden})
        elif self._talk.server.session_id():
            found["mcp.session.id"] = PLACEHOLDER  # whoever has it is the client: that there is one is all to tell
        return found


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
                "callback",
                method,
                {"method": method, "params": None if params is None else dict(params)},
                attributes={"mcp.method.name": method},
                span_kind="server",
                runs=True,
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


def _take_up(run: Run, name: Any, params: Mapping[str, Any] | None) -> None:
    """What the model asked for is done here; frameworks put a prefix of their own before a server's names."""
    arguments = (params or {}).get("arguments") or {}
    for wanted in run.tool_calls.undone:
        if isinstance(name, str) and wanted.name.endswith(name) and (wanted.arguments or {}) == arguments:
            run.tool_calls.met(ToolCall(wanted.id, wanted.name, wanted.arguments))
            return


def otel_context() -> Any:
    """OpenTelemetry's context here and now."""
    from opentelemetry import context

    return context.get_current()


@contextmanager
def attached(given: Any) -> Iterator[None]:
    """Be in one of OpenTelemetry's contexts."""
    from opentelemetry import context

    token = context.attach(given)
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def logged(method: str) -> Iterator[None]:
    """What the client's handlers raise goes to the log, as in the SDK, and not to whoever waits for an answer."""
    try:
        yield
    except Exception:
        logging.getLogger("mcp").exception("what handles %s raised", method)
