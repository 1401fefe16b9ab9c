"""Clients of the MCP SDK from 2.0 on: their session speaks through a dispatcher, and is met there.

``Dispatched`` stands around the session's dispatcher, whether that speaks JSON-RPC over a transport's streams or calls
a server in this process directly. Ids and progress tokens are the dispatcher's, and no part of what is recorded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ._asked import PROGRESS, Asked, HandOver, Message, logged, told_of_progress
from ._callback import Callback
from ._talk import Talk

Params = Mapping[str, Any] | None

_CANCELLED = "notifications/cancelled"
_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class Dispatched:
    """A dispatcher whose messages a run may record or serve.

    Args:
        inner: the session's dispatcher.
        talk: what is said over it.
        error: the SDK's ``MCPError``.
    """

    def __init__(self, inner: Any, talk: Talk, error: type[Exception]) -> None:
        self._inner = inner
        self._talk = talk
        self._error: Any = error
        self._group: Any = None
        self._chosen: list[Any] = []
        """Ids of requests that the session chose itself: what the server sends later names them."""
        self._on_request: Callable[..., Awaitable[Any]] | None = None
        self._on_notify: Callable[..., Awaitable[None]] | None = None
        self._intercept: Callable[[str, Params], bool] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def run(
        self,
        on_request: Callable[..., Awaitable[Any]],
        on_notify: Callable[..., Awaitable[None]],
        on_notify_intercept: Callable[[str, Params], bool] | None = None,
        **kwargs: Any,
    ) -> None:
        """Drive the dispatcher, and hear what the server sends."""
        import anyio

        self._on_request, self._on_notify, self._intercept = on_request, on_notify, on_notify_intercept

        async def hear_request(context: Any, method: str, params: Params) -> Any:
            callback = self._talk.called_back(method, params)
            return await self._answer(callback, lambda: on_request(context, method, params))

        def hear_notification(method: str, params: Params) -> bool:
            # Progress is told where its request is known; a cancellation is about a request that is a callback here.
            if method not in (PROGRESS, _CANCELLED) or (params or {}).get("requestId") in self._chosen:
                chosen: dict[Any, Any] = {id_: number for number, id_ in enumerate(self._chosen)}
                self._talk.arrived(method, _renamed(params, chosen))
            return on_notify_intercept(method, params) if on_notify_intercept is not None else False

        async with anyio.create_task_group() as group:
            self._group = group
            await self._inner.run(hear_request, on_notify, hear_notification, **kwargs)
            group.cancel_scope.cancel()

    async def send_raw_request(self, method: str, params: Params, opts: Any = None, **kwargs: Any) -> Any:
        """A request of the client's."""
        __tracebackhide__ = True
        if opts and opts.get("request_id") is not None:
            self._chosen.append(opts["request_id"])
        asked = self._talk.ask(method, params)
        if asked is None:
            return await self._inner.send_raw_request(method, params, opts, **kwargs)
        if asked.recorded is not None:
            return await asked.served_result(self._hand_over(opts or {}), self._group, self._error)
        if opts and opts.get("on_progress") is not None:
            opts = {**opts, "on_progress": asked.hearing_progress(opts["on_progress"])}
        return await asked.live(
            lambda: self._inner.send_raw_request(method, params, opts, **kwargs), refusal=self._error
        )

    async def notify(self, method: str, params: Params, opts: Any = None, **kwargs: Any) -> None:
        """A notification of the client's."""
        __tracebackhide__ = True
        asked = self._talk.ask(method, params)
        if asked is None:
            await self._inner.notify(method, params, opts, **kwargs)
        elif asked.recorded is None:
            with asked.within():
                await self._inner.notify(method, params, opts, **kwargs)
            asked.answered(None)
        else:
            await asked.serve(self._hand_over({}), self._group)

    def _hand_over(self, opts: Mapping[str, Any]) -> HandOver:
        on_progress = opts.get("on_progress")

        async def hand_over(asked: Asked, message: Message) -> None:
            method: str = message["method"]
            params: Any = _renamed(message["params"], dict(enumerate(self._chosen)))
            context = _Context(self)
            if "asks" in message:
                await self._ask_back(asked, context, message)
                return
            if method == PROGRESS and on_progress is not None:
                params = await told_of_progress(on_progress, params)
            if self._intercept is not None and self._intercept(method, params):
                return
            if self._on_notify is not None:
                with logged(method):
                    await self._on_notify(context, method, params)

        return hand_over

    async def _ask_back(self, asked: Asked, context: _Context, message: Message) -> None:
        assert self._on_request is not None
        on_request, method, params = self._on_request, message["method"], message["params"]
        callback = self._talk.called_back(method, params, by=asked, withdrawn="withdrawn" in message)
        with logged(method):
            await self._answer(callback, lambda: on_request(context, method, params))

    async def _answer(self, callback: Callback | None, go: Callable[[], Awaitable[Any]]) -> Any:
        if callback is None:
            return await go()
        try:
            with callback.within():
                result = await go()
        except self._error as error:
            callback.refused(error.error.code, error.error.message, error.error.data)
            raise
        except BaseException as error:
            callback.raised(error)
            raise
        callback.answered(result)
        return result


def _renamed(params: Params, names: Mapping[Any, Any]) -> Params:
    """What a notification says, with other ids of requests: those are drawn anew in each process."""
    if not params:
        return params
    meta, id_ = params.get("_meta"), params.get("requestId")
    if isinstance(meta, Mapping) and isinstance(meta.get(_SUBSCRIPTION), (str, int)):
        subscription = meta[_SUBSCRIPTION]
        params = {**params, "_meta": {**meta, _SUBSCRIPTION: names.get(subscription, subscription)}}
    return {**params, "requestId": names.get(id_, id_)} if isinstance(id_, (str, int)) else params


class _Transport:
    kind = "replayed"
    can_send_request = True
    headers = None


class _Context:
    """What a handler of the session is told of a message that is handed over in replay."""

    transport = _Transport()
    can_send_request = True
    message_metadata = None

    def __init__(self, dispatched: Dispatched) -> None:
        import anyio

        self._dispatched = dispatched
        self.request_id = 0
        self.cancel_requested = anyio.Event()

    async def notify(self, method: str, params: Params, opts: Any = None) -> None:
        await self._dispatched.notify(method, params, opts)

    async def send_raw_request(self, method: str, params: Params, opts: Any = None) -> Any:
        return await self._dispatched.send_raw_request(method, params, opts)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Nobody has asked for it."""
