"""The gateway's application: what arrives, whose it is, and who answers it.

Invariants:

* Every request belongs to the run that opened the gateway, whatever thread and loop it is served in.
* What is refused fails the run, whatever the child makes of the refusal, which its SDK does not retry.
* A request is in flight until its answer has ended; who closes the gateway knows which are.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._run import OWNERSHIP, Crossing, Run
from ..boundaries import _http
from ..errors import SpanchainError, UsageError
from . import _exchange, _mcp, _otlp
from ._family import Family
from ._places import Upstream, refusal
from ._server import Receive, Scope, Send, Server

if TYPE_CHECKING:
    from starlette.requests import Request

REFUSED = 424
"""Status of what is refused: no SDK tries it again."""

_SIGNALS = {"/v1/traces", "/v1/metrics", "/v1/logs"}


class App:
    """An ASGI application for one run.

    Args:
        run: the run.
        family: its children's spans.
        upstreams: by name; more may come while it runs.
    """

    server: Server

    def __init__(self, run: Run, *, family: Family, upstreams: Mapping[str, Upstream]) -> None:
        self._run = run
        self._family = family
        self._upstreams = upstreams
        self._client = _exchange.Client(run)
        self._proxies: dict[str, _mcp.Proxy] = {}
        self._changed = threading.Condition()
        self._in_flight: dict[asyncio.Task[Any], str] = {}
        self.reached = False
        """Whether anything has come: a request, a message of MCP, or telemetry."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        from starlette.requests import ClientDisconnect, Request

        self.reached = True
        request = Request(scope, receive)
        task = asyncio.current_task()
        assert task is not None
        with OWNERSHIP.own(self._run), self._flying(task, f"{request.method} {request.url.path}"):
            try:
                body = await request.body()
            except ClientDisconnect:
                return  # it never asked
            answer = _exchange.Answer(scope, send, self.server)
            with contextlib.suppress(asyncio.CancelledError):
                await _unless_left(self._answered(request, body, answer), receive, answer)

    def wait(self, seconds: float) -> list[str]:
        """Wait until nothing is in flight; what still is after so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight, seconds)
            return list(self._in_flight.values())

    def give_up(self) -> None:
        """End what is in flight. Call it in the server's loop."""
        for task in list(self._in_flight):
            task.cancel()

    async def close(self) -> None:
        """Close the connections to the upstreams."""
        await self._client.close()

    @contextlib.contextmanager
    def _flying(self, task: asyncio.Task[Any], what: str) -> Iterator[None]:
        with self._changed:
            self._in_flight[task] = what
        try:
            yield
        finally:
            with self._changed:
                del self._in_flight[task]
                self._changed.notify_all()

    async def _answered(self, request: Request, body: bytes, answer: _exchange.Answer) -> None:
        path = request.url.path
        try:
            if path in _SIGNALS and request.method == "POST":
                await self._telemetry(request, body, answer)
                return
            await self._exchanged(request, body, answer)
        except SpanchainError as error:
            await self._refuse(answer, path, str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, the child must not go on as if nothing had happened
            self._run.note_error(f"the gateway failed at {request.method} {path}: {error!r}")
            await self._refuse(answer, path, repr(error))

    async def _exchanged(self, request: Request, body: bytes, answer: _exchange.Answer) -> None:
        headers = list(request.headers.items())
        path = request.scope["raw_path"].decode("ascii")
        upstream, url = self._target(path, request.url.query)
        if upstream is None:
            text = f"{request.method} {path} is nothing that the gateway knows: it has {self._known()}"
            self._run.note_error(text)
            await self._refuse(answer, path, text, status=404)
            return
        if "upgrade" in request.headers and "upgrade" in request.headers.get("connection", "").lower():
            text = f"{request.method} {path} wants another protocol ({request.headers['upgrade']}): not recorded"
            self._run.note_error(text)
            await self._refuse(answer, path, text)
            return
        try:
            content = _exchange.content_of(body, request.headers.get("content-encoding", ""))
        except ValueError as error:
            text = f"the body of {request.method} {path} cannot be read: {error}"
            self._run.note_error(text)
            await self._refuse(answer, path, text, status=415)
            return
        asked: dict[str, Any] = {"method": request.method, "url": url, "headers": headers, "content": content}
        if upstream.mcp:
            await self._proxy(upstream).serve(answer, asked)
            return
        traceparent = request.headers.get("traceparent", "")
        with self._run.capture.current(self._family.parent_of(traceparent)):
            name = f"{request.method} {url.removeprefix(_origin(url)).partition('?')[0]}"
            call = self._run.relay(Crossing("http", name, _http.request_of(**asked)))
        self._family.met(call.span, traceparent)
        if call.recorded is None:
            await _exchange.record(call, answer, self._client, asked)
        else:
            await _exchange.replay(call, answer)

    def _proxy(self, upstream: Upstream) -> _mcp.Proxy:
        if upstream.name not in self._proxies:
            self._proxies[upstream.name] = _mcp.Proxy(
                self._run, url=upstream.url, client=self._client, family=self._family
            )
        return self._proxies[upstream.name]

    def _target(self, path: str, query: str) -> tuple[Upstream | None, str]:
        for one in list(self._upstreams.values()):
            url = one.target(path, query)
            if url is not None:
                return one, url
        return None, ""

    def _known(self) -> str:
        return ", ".join(sorted([*(one.prefix for one in self._upstreams.values()), *_SIGNALS]))

    async def _telemetry(self, request: Request, body: bytes, answer: _exchange.Answer) -> None:
        """Spans are taken in, metrics and logs dropped; both are answered as a collector would."""
        path, media = request.url.path, request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if path == "/v1/traces":
            try:
                content = _exchange.content_of(body, request.headers.get("content-encoding", ""))
                spans = _otlp.decode(content, content_type=media)
            except ValueError as error:
                self._run.note(f"what a child sent to {path} of the gateway was not taken in: {error}")
                await _say(answer, 400, "text/plain", str(error).encode())
                return
            except UsageError as error:
                self._run.note_error(str(error))
                await _say(answer, 501, "text/plain", str(error).encode())
                return
            for wrong in self._family.told(spans):
                self._run.note(wrong)
        await _say(answer, 200, media or _otlp.PROTOBUF, b"{}" if media == _otlp.JSON else b"")

    async def _refuse(self, answer: _exchange.Answer, path: str, message: str, *, status: int = REFUSED) -> None:
        if answer.begun:
            answer.drop()
            return
        from starlette.responses import JSONResponse

        told = JSONResponse(refusal(path.strip("/").partition("/")[0], message))
        await _say(answer, status, "application/json", bytes(told.body), ("x-should-retry", "false"))


async def _say(
    answer: _exchange.Answer, status: int, content_type: str, body: bytes, *headers: tuple[str, str]
) -> None:
    await answer.begin(status, [("content-type", content_type), ("content-length", str(len(body))), *headers])
    await answer.chunk(body)
    await answer.end()


async def _unless_left(work: Awaitable[None], receive: Receive, answer: _exchange.Answer) -> None:
    """Do something, unless the child leaves first: then it is cancelled.

    Raises:
        CancelledError: the child has left, or the gateway closes.
    """
    doing = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({doing, left}, return_when=asyncio.FIRST_COMPLETED)
        if answer.ended:  # nobody has left: there is nothing more to send
            await asyncio.wait({doing})
    finally:
        left.cancel()
        doing.cancel()
        await asyncio.wait({doing, left})
    await doing


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _origin(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"
