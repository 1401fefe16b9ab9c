"""Clients of the MCP SDK 1.x: their session is met where it sends, and where it hears.

Ids and progress tokens are the session's, and no part of what is recorded.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ._asked import PROGRESS, Asked, HandOver, Message, logged, told_of_progress
from ._callback import Callback
from ._server import Server, server_of
from ._talk import Talk

_TALK = "_spanchain_talk"


def install(session: Any, *, error: Any, responder: Any) -> None:
    """Patch ``ClientSession``.

    Args:
        session: the class.
        error: the SDK's ``McpError``.
        responder: the SDK's ``RequestResponder``.
    """
    begin = session.__init__

    @functools.wraps(begin)
    def init(self: Any, read_stream: Any, write_stream: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, read_stream, write_stream, *args, **kwargs)
        setattr(self, _TALK, Talk(server_of(read_stream, write_stream)))

    session.__init__ = init
    session.send_request = _send_request(session.send_request, error, responder)
    session.send_notification = _send_notification(session.send_notification, responder)
    session._received_request = _received_request(session._received_request)
    session._received_notification = _received_notification(session._received_notification)


def _send_request(original: Callable[..., Awaitable[Any]], error_type: Any, responder: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    async def send_request(
        self: Any,
        request: Any,
        result_type: Any,
        request_read_timeout_seconds: Any = None,
        metadata: Any = None,
        progress_callback: Any = None,
    ) -> Any:
        __tracebackhide__ = True
        data = _plain(request)
        asked = _talk(self).ask(data["method"], data.get("params"))
        rest = (request_read_timeout_seconds, metadata)
        if asked is None:
            return await original(self, request, result_type, *rest, progress_callback)
        if asked.recorded is not None:
            hand_over = _hand_over(self, responder, progress_callback)
            result = await asked.served_result(hand_over, self._task_group, functools.partial(_refusal, error_type))
            return result_type.model_validate(result)
        told = asked.hearing_progress(progress_callback)
        return await asked.live(
            lambda: original(self, request, result_type, *rest, told), refusal=error_type, plain=_plain
        )

    return send_request


def _send_notification(original: Callable[..., Awaitable[None]], responder: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    async def send_notification(self: Any, notification: Any, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        data = _plain(notification)
        asked = _talk(self).ask(data["method"], data.get("params"))
        if asked is None:
            await original(self, notification, *args, **kwargs)
        elif asked.recorded is None:
            with asked.within():
                await original(self, notification, *args, **kwargs)
            asked.answered(None)
        else:
            await asked.serve(_hand_over(self, responder, None), self._task_group)

    return send_notification


def _received_request(original: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def received_request(self: Any, responder: Any) -> None:
        data = _plain(responder.request)
        callback = getattr(responder, _TALK, None) or _talk(self).called_back(data["method"], data.get("params"))
        if callback is None:
            await original(self, responder)
            return
        respond = responder.respond

        async def hear_answer(response: Any) -> None:
            _answer(callback, response)
            await respond(response)

        responder.respond = hear_answer
        try:
            with callback.within():
                await original(self, responder)
        except BaseException as error:
            callback.raised(error)
            raise

    return received_request


def _received_notification(original: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def received_notification(self: Any, notification: Any) -> None:
        data = _plain(notification)
        if data["method"] != PROGRESS and not getattr(notification, _TALK, False):
            _talk(self).arrived(data["method"], data.get("params"))
        await original(self, notification)

    return received_notification


def _hand_over(session: Any, responder: Any, on_progress: Any) -> HandOver:
    async def hand_over(asked: Asked, message: Message) -> None:
        method, params = message["method"], message["params"]
        said = {"method": method, **({} if params is None else {"params": params})}
        if "asks" in message:
            request = session._receive_request_type.model_validate(said)
            callback = _talk(session).called_back(method, params, by=asked, withdrawn="withdrawn" in message)
            asks = responder(
                request_id=0,
                request_meta=request.root.params.meta if request.root.params else None,
                request=request,
                session=_Nowhere(),
                on_complete=lambda _: None,
            )
            setattr(asks, _TALK, callback)
            with logged(method):
                await session._received_request(asks)
                if not asks._completed:
                    await session._handle_incoming(asks)
            return
        if method == PROGRESS and on_progress is not None:
            said = {**said, "params": await told_of_progress(on_progress, params)}
        notification = session._receive_notification_type.model_validate(said)
        object.__setattr__(notification, _TALK, True)
        with logged(method):
            await session._received_notification(notification)
            await session._handle_incoming(notification)

    return hand_over


class _Nowhere:
    """Where answers go in replay: they are compared."""

    async def _send_response(self, **kwargs: Any) -> None:
        """Nobody waits for it."""


def _answer(callback: Callback, response: Any) -> None:
    code = getattr(response, "code", None)
    if code is None:
        callback.answered(_plain(response))
    else:
        callback.refused(code, response.message, response.data)


def _refusal(error_type: Any, code: int, message: str, data: Any) -> Exception:
    from mcp.types import ErrorData

    made: Exception = error_type(ErrorData(code=code, message=message, data=data))
    return made


def _talk(session: Any) -> Talk:
    talk: Talk | None = getattr(session, _TALK, None)
    if talk is None:  # it was made before the first run
        talk = Talk(Server())
        setattr(session, _TALK, talk)
    return talk


def _plain(model: Any) -> Any:
    said = model.model_dump(by_alias=True, mode="json", exclude_none=True)
    # Its JSON mode makes null of numbers that are none: as they are, they are refused.
    return said if _finite(raw := model.model_dump(by_alias=True, exclude_none=True)) else raw


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
