"""One message of an MCP client, on its way to the real server and back, or answered as it was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import _sse
from ..boundaries.clients.mcp._asked import PROGRESS, Asked, Message
from ..boundaries.clients.mcp._callback import Callback
from ..boundaries.clients.mcp._talk import Talk
from . import _mcp_wire as _wire
from ._exchange import Answer

if TYPE_CHECKING:
    from ._mcp import Proxy


@dataclass(frozen=True, eq=False)
class Pending:
    """Something that the server asks of the client.

    Args:
        callback: what the run sees of it.
        served: set once the client has answered what replay asks for the server; ``None`` if the server waits itself.
    """

    callback: Callback
    served: asyncio.Future[None] | None = None


@dataclass(eq=False)
class Session:
    """One client's conversation.

    Args:
        talk: what the run sees of it.
        id: as the client and the server know it.
    """

    talk: Talk
    id: str | None = None
    opened: Asked | None = None
    """What opened it: the connections of the session are part of that exchange."""
    pending: dict[str, Pending] = field(default_factory=dict)
    """What the server asks, by id as JSON."""
    outbox: asyncio.Queue[Mapping[str, Any]] = field(default_factory=asyncio.Queue)
    """What replay has for the client's open stream."""
    listening: int = 0
    """How many streams the client has open in replay."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def within(self) -> Any:
        """Connections are part of what opened the session."""
        return self.opened.within() if self.opened is not None else nullcontext()

    def start_soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Do something beside, as a task group does."""
        task = asyncio.ensure_future(function(*args))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Live:
    """One request or notification of a client, on its way to the real server and back."""

    def __init__(self, proxy: Proxy, session: Session, asked: Asked, message: Mapping[str, Any]) -> None:
        self._proxy = proxy
        self._session = session
        self._asked = asked
        self._message = message
        self._answered = "id" not in message

    async def go(self, answer: Answer, asked: Mapping[str, Any]) -> None:
        """Send it, and pass on what comes back."""
        try:
            with self._asked.within():
                live = await self._proxy.send(asked)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is recorded, and dropped for the client
            self._asked.raised(error)
            answer.drop()
            return
        except BaseException:
            self._asked.stopped()
            raise
        try:
            await self._pass(live, answer)
        except Exception as error:  # noqa: BLE001  # as above
            self._asked.raised(error)
            answer.drop()
        except BaseException:
            self._asked.stopped()
            raise
        finally:
            await live.aclose()

    async def _pass(self, live: Any, answer: Answer) -> None:
        if _wire.SESSION in live.headers and self._message["method"] == "initialize":
            self._proxy.named(self._session, live.headers[_wire.SESSION])
        if live.status_code >= 400:
            text = await live.aread()
            self._asked.raised(_wire.status_error(live.status_code, text))
            await _wire.whole(answer, live, text)
        elif live.headers.get("content-type", "").startswith(_wire.EVENTS):
            await answer.begin(live.status_code, _wire.headers_of(live))
            async for data, messages in _wire.events(live):
                for message in messages:
                    self._hear(message)
                await answer.chunk(data)
            if not self._answered:
                raise ConnectionError("the stream ended before the answer")
            await answer.end()
        else:
            data = await live.aread()
            whole = _sse.parse(data.decode("utf-8", "replace"))
            if isinstance(whole, dict):
                self._hear(whole)
            if not self._answered:
                raise ValueError("the server's answer is none to the request")
            if "id" not in self._message:
                self._asked.answered(None)
            await _wire.whole(answer, live, data)

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "method" in message or message.get("id") != self._message.get("id"):
            self._proxy.heard(self._session, message, by=self._asked)
            return
        self._answered = True
        error = message.get("error")
        if isinstance(error, Mapping):
            self._asked.refused(error.get("code", 0), str(error.get("message", "")), error.get("data"))
        else:
            self._asked.answered(message.get("result"))


class Served:
    """One request or notification of a client, answered as it was."""

    def __init__(self, proxy: Proxy, session: Session, message: Mapping[str, Any], answer: Answer) -> None:
        self.headers: list[tuple[str, str]] = []
        self._proxy = proxy
        self._session = session
        self._message = message
        self._answer = answer
        meta = (message.get("params") or {}).get("_meta") if isinstance(message.get("params"), Mapping) else None
        self._token = meta.get("progressToken") if isinstance(meta, Mapping) else None

    async def hand_over(self, asked: Asked, message: Message) -> None:
        """A message of the server's own: by this answer if it belongs to it, else by the client's open stream."""
        late = "late" in message or "id" not in self._message
        elsewhere = late or (self._session.listening > 0 and _wire.is_unrelated(message["method"]))
        say = self._session.outbox.put if elsewhere else self._say
        if message.get("asks"):
            await self._proxy.ask(self._session, asked, message, say)
            return
        params: Any = message["params"]
        if message["method"] == PROGRESS and self._token is not None:
            params = {**(params or {}), "progressToken": self._token}
        await say(_wire.rpc(message["method"], params))

    async def over(self, recorded: Mapping[str, Any]) -> None:
        """The answer itself."""
        error = recorded["error"]
        if error is not None and "code" not in error:
            if error["type"] == _wire.STATUS_ERROR and not self._answer.begun:
                status, _, text = error["message"].partition(" ")
                await self._answer.begin(int(status), [("content-type", "text/plain")])
                await self._answer.chunk(text.encode())
                await self._answer.end()
            else:
                self._answer.drop()
            return
        if "id" not in self._message:
            await _wire.accepted(self._answer)
            return
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": self._message["id"]}
        if error is None:
            said["result"] = recorded["result"]
        else:
            said["error"] = {key: value for key, value in error.items() if key != "data" or value is not None}
        if self._answer.begun:
            await self._say(said)
            await self._answer.end()
        else:
            await _wire.answer_json(self._answer, said, *self.headers)

    async def _say(self, message: Mapping[str, Any]) -> None:
        if not self._answer.begun:
            await self._answer.begin(
                200, [("content-type", _wire.EVENTS), ("cache-control", "no-cache"), *self.headers]
            )
        await self._answer.chunk(_wire.event(message))
