"""An MCP server behind the gateway: streamable HTTP, passed through message by message, or served so.

What of it is recorded is decided where it is for clients in this process (``clients.mcp._talk``); here messages are
taken out of bodies and event streams, and put into them again. A message of the server's own belongs to the latest that
the client had sent: replay hands it over after that one, by the stream that answers it or by the client's open one.

Invariants:

* Ids of JSON-RPC and progress tokens are the live ones; the id of a session is the server's, or one of ours in replay.
* In replay the stream that a client opens stays open until it leaves.

Source: Model Context Protocol 2025-11-25, "Transports".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from .. import _sse
from .._run import Run
from ..boundaries import _wait
from ..boundaries.clients.mcp._asked import Asked, Message
from ..boundaries.clients.mcp._server import Server
from ..boundaries.clients.mcp._talk import Talk
from ..errors import BoundaryError, MissError
from . import _mcp_wire as _wire
from ._exchange import Answer, Client
from ._family import Family
from ._mcp_turns import Live, Pending, Served, Session

_MISSED = -32603


class Proxy:
    """Stands for one MCP server.

    Args:
        run: the run.
        url: of the real server.
        client: to it.
        family: of spans.
    """

    def __init__(self, run: Run, *, url: str, client: Client, family: Family) -> None:
        self._run = run
        self._url = url
        self._client = client
        self._family = family
        self._sessions: dict[str, Session] = {}
        self._count = 0
        self._asks = 0

    async def serve(self, answer: Answer, asked: Mapping[str, Any]) -> None:
        """One HTTP request.

        Args:
            answer: to the client.
            asked: method, url, headers and content.

        Raises:
            BoundaryError: it is none of streamable HTTP's.
        """
        headers = dict(asked["headers"])
        session = self._session(headers.get(_wire.SESSION))
        if asked["method"] == "POST":
            await self._posted(session, answer, asked, headers)
        elif asked["method"] == "GET":
            await (self._listened if self._run.records else self._listens)(session, answer, asked)
        elif asked["method"] == "DELETE":
            await self._ended(session, answer, asked)
        else:
            raise self._fault(f"{asked['method']} is no method of MCP's streamable HTTP")

    def _session(self, id_: str | None) -> Session:
        found = self._sessions.get(id_ or "")
        if found is None:
            found = Session(Talk(Server(self._url, "tcp", is_url=True)), id_)
            found.talk.server.session_id = lambda: found.id
            self._sessions[id_ or ""] = found
        return found

    async def _posted(
        self, session: Session, answer: Answer, asked: Mapping[str, Any], headers: Mapping[str, str]
    ) -> None:
        message = _sse.parse(asked["content"].decode("utf-8", "replace"))
        if not isinstance(message, dict):
            raise self._fault("its body is no JSON-RPC message; batches are not recorded")
        if "method" not in message:
            await self._returned(session, message, answer, asked)
            return
        if message["method"] == "initialize":  # another client
            self._sessions.pop("", None)
            session = self._session(None)
        params = message.get("params")
        traceparent = headers.get("traceparent") or _wire.traceparent_of(params)
        with self._run.capture.current(self._family.parent_of(traceparent)):
            try:
                found = session.talk.ask(str(message["method"]), _wire.said(message["method"], params))
            except MissError as miss:
                if "id" not in message:
                    raise
                error = {"code": _MISSED, "message": str(miss)}
                await _wire.answer_json(answer, {"jsonrpc": "2.0", "id": message["id"], "error": error})
                return
        if found is None:
            raise self._fault("nobody watches")
        self._family.met(found.span, traceparent)
        session.opened = session.opened or found
        if found.recorded is None:
            await Live(self, session, found, message).go(answer, asked)
        else:
            await self._replayed(session, found, message, answer)

    async def _returned(
        self, session: Session, message: Mapping[str, Any], answer: Answer, asked: Mapping[str, Any]
    ) -> None:
        """The client answers what the server has asked."""
        pending = session.pending.pop(json.dumps(message.get("id")), None)
        if pending is None:
            raise self._fault(f"nobody has asked what it answers (id {message.get('id')!r})")
        callback = pending.callback
        error = message.get("error")
        if isinstance(error, Mapping):
            callback.refused(error.get("code", 0), str(error.get("message", "")), error.get("data"))
        else:
            callback.answered(message.get("result"))
        if pending.served is None:
            await self.passed(session, answer, asked)
            return
        await _wire.accepted(answer)
        if not pending.served.done():
            pending.served.set_result(None)

    async def passed(self, session: Session, answer: Answer, asked: Mapping[str, Any]) -> None:
        """Let a request through of whose answer nothing is recorded."""
        live = await self._sent(session, answer, asked)
        if live is None:
            return
        try:
            await answer.begin(live.status_code, _wire.headers_of(live))
            await answer.chunk(await live.aread())
            await answer.end()
        finally:
            await live.aclose()

    async def send(self, asked: Mapping[str, Any]) -> Any:
        """Send a request to the real server."""
        return await self._client.send(**{**asked, "url": self._url})

    async def _sent(self, session: Session, answer: Answer, asked: Mapping[str, Any]) -> Any:
        """The real server's answer; ``None`` if there is none, and none for the client."""
        try:
            with session.within():
                return await self.send(asked)
        except Exception:  # noqa: BLE001  # whatever it is, the client is told that there is no answer
            answer.drop()
            return None

    async def _listened(self, session: Session, answer: Answer, asked: Mapping[str, Any]) -> None:
        """The client's open stream, while it is recorded."""
        if session.opened is not None and session.opened.recorded is not None:
            await self._listens(session, answer, asked)
            return
        live = await self._sent(session, answer, asked)
        if live is None:
            return
        try:
            await answer.begin(live.status_code, _wire.headers_of(live))
            if live.status_code == 200:
                async for data, messages in _wire.events(live):
                    for message in messages:
                        self.heard(session, message, by=None)
                    await answer.chunk(data)
            else:
                await answer.chunk(await live.aread())
            await answer.end()
        except Exception:  # noqa: BLE001  # the stream broke: it does for the client, too
            answer.drop()
        finally:
            await live.aclose()

    async def _listens(self, session: Session, answer: Answer, asked: Mapping[str, Any]) -> None:
        """The client's open stream, in replay: it stays open until it leaves."""
        await answer.begin(200, [("content-type", _wire.EVENTS), ("cache-control", "no-cache")])
        await answer.chunk(b": open\n\n")
        session.listening += 1
        try:
            while True:
                await answer.chunk(_wire.event(await session.outbox.get()))
        finally:
            session.listening -= 1

    async def _ended(self, session: Session, answer: Answer, asked: Mapping[str, Any]) -> None:
        if self._run.records and not (session.opened is not None and session.opened.recorded is not None):
            await self.passed(session, answer, asked)
        else:
            await _wire.accepted(answer, status=200)
        self._sessions.pop(session.id or "", None)

    def heard(self, session: Session, message: Mapping[str, Any], *, by: Asked | None) -> None:
        """The server says something on its own account.

        Args:
            session: where.
            message: the message.
            by: the request that is answered by the same stream.
        """
        method, params = message.get("method"), message.get("params")
        if not isinstance(method, str):
            return
        told = _wire.said(method, params)
        if "id" not in message:
            session.talk.arrived(method, told, by=by)
            return
        if by is not None:
            by.arrived(method, told, asks=True)
        callback = session.talk.called_back(method, told, by=by)
        if callback is not None:
            session.pending[json.dumps(message["id"])] = Pending(callback)

    def named(self, session: Session, id_: str) -> None:
        """The server has given the session its id."""
        session.id = id_
        self._sessions.pop("", None)
        self._sessions[id_] = session

    async def _replayed(self, session: Session, asked: Asked, message: Mapping[str, Any], answer: Answer) -> None:
        served = Served(self, session, message, answer)
        graft = asked.span.graft
        if graft is not None and message["method"] == "initialize" and "mcp.session.id" in graft[1].attributes:
            self._count += 1
            self.named(session, f"spanchain-{self._count}")
            served.headers.append((_wire.SESSION, session.id or ""))
        try:
            recorded = await asked.serve(served.hand_over, session, bounded=False)
        except MissError:
            answer.drop()
            return
        await served.over(recorded)

    async def ask(self, session: Session, asked: Asked, message: Message, say: Callable[[Any], Any]) -> None:
        """Ask the client what the server had asked, and wait until it has answered."""
        method, params = message["method"], message["params"]
        callback = session.talk.called_back(method, params, by=asked, withdrawn="withdrawn" in message)
        if callback is None:
            return
        self._asks += 1
        id_ = f"spanchain-{self._asks}"
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session.pending[json.dumps(id_)] = Pending(callback, over)
        await say(_wire.rpc(method, params, id=id_))
        try:
            await asyncio.wait_for(over, _wait.HOLD_SECONDS)
        except asyncio.TimeoutError:
            self._run.miss(f"the child did not answer {method} within {_wait.HOLD_SECONDS:g} s")

    def _fault(self, what: str) -> BoundaryError:
        error = BoundaryError(f"a request for the MCP server {self._run.redactor.url(self._url)}: {what}")
        self._run.note_error(str(error))
        return error
