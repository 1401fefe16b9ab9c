"""One HTTP exchange of a child: passed through while it is recorded, or served as it was recorded.

The rules of an answer are those of every HTTP boundary (``boundaries._http``). What is the gateway's own:

* the request that is recorded is the one that goes upstream; the gateway is not in the cassette;
* a connection that the upstream dropped, before its answer or in the middle of it, is dropped for the child;
* how much of an answer a child has read cannot be seen: one that it leaves is served to where it went, and then held
  until the child leaves again.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._run import Call, Run
from ..boundaries import _http, _wait
from ..errors import MissError, UsageError
from ._server import Scope, Send, Server

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 30.0
LARGEST_BODY = 256 * 1024 * 1024
"""Of a request that comes compressed: a few bytes may stand for any number."""

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_DECODABLE = ("gzip", "deflate", "identity")

Headers = list[tuple[str, str]]


class Client:
    """Talks to the upstreams, in the server's loop. Made at the first request: a replay never makes one.

    Args:
        run: is told of upstreams that are not there.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._made: httpx.AsyncClient | None = None

    async def send(self, *, method: str, url: str, headers: Headers, content: bytes) -> httpx.Response:
        """Send a request; the body of the answer is yet to be read.

        Raises:
            Exception: httpx's, if there is no answer.
        """
        import httpx

        if self._made is None:
            # No limit of its own: the child has one, or wants none.
            self._made = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=None)
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS).as_dict()
        # A request of its own: the client would add cookies, a user agent and what else it is set to.
        request = httpx.Request(
            method, url, headers=_going_up(headers), content=content, extensions={"timeout": timeout}
        )
        try:
            return await self._made.send(request, stream=True, auth=None, follow_redirects=False)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            # The child sees a dropped connection, which does not say whose. Neither user nor query are in the text.
            to = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
            why = str(error) or type(error).__name__
            self._run.note(f"gateway: could not reach {to} ({why}) for {method} {request.url.path}")
            raise

    async def close(self) -> None:
        """Close all connections."""
        if self._made is not None:
            await self._made.aclose()


class Answer:
    """What the child is sent; the status once, then chunks, then an end or a drop."""

    def __init__(self, scope: Scope, send: Send, server: Server) -> None:
        self._scope = scope
        self._send = send
        self._server = server
        self.begun = False
        self.ended = False

    async def begin(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Status and headers; the length is told by chunks, as it may be cut."""
        self.begun = True
        raw = [(name.lower().encode("utf-8"), value.encode("utf-8")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def chunk(self, data: bytes) -> None:
        """More of the body, at once."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The body is complete."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def drop(self) -> None:
        """Hang up."""
        self._server.drop(self._scope)

    @property
    def head(self) -> bool:
        """Whether only the headers are wanted."""
        return bool(self._scope["method"] == "HEAD")


async def record(call: Call, answer: Answer, client: Client, asked: Mapping[str, Any]) -> None:
    """Let a request go upstream, and pass the answer on while it is recorded.

    Args:
        call: the crossing.
        answer: to the child.
        client: to the upstream.
        asked: method, url, headers and content.
    """
    try:
        with call.active():
            live = await client.send(**asked)
    except BaseException as error:
        _http.no_answer(call, error)
        if not isinstance(error, Exception):
            raise
        answer.drop()
        return
    headers = passed_on(live.headers.items(), decoded=live.headers.get("content-encoding", "identity") != "identity")
    recording = _http.Recording(call, status=live.status_code, headers=headers)
    if 300 <= live.status_code < 400 and "location" in live.headers:
        call.fail(UsageError(f"{call.span.name}: the upstream redirects, and the child would leave the gateway; name"
                             " the URL where it ends in upstreams="))  # fmt: skip
    try:
        await answer.begin(live.status_code, [pair for pair in headers if answer.head or pair[0] != "content-length"])
        async for chunk in live.aiter_bytes():
            recording.chunks.append(chunk)
            await answer.chunk(chunk)
    except BaseException as error:
        if not isinstance(error, Exception):
            recording.over("cancelled")
            raise
        recording.over("error", error)
        answer.drop()
    else:
        recording.over("complete")  # before the child can know: its next request comes after this one
        await answer.end()
    finally:
        await live.aclose()


async def replay(call: Call, answer: Answer) -> None:
    """Serve a recorded answer."""
    recorded = call.recorded
    assert recorded is not None
    if recorded["status"] is None:
        await _unanswered(call, answer, recorded)
        return
    served = _http.Replay(call, _Dropped.of)
    headers = [(name, value) for name, value in recorded["headers"].items() if answer.head or name != "content-length"]
    try:
        await answer.begin(recorded["status"], headers)
        for chunk in served.serve():
            await answer.chunk(chunk)
        if served.waits():
            await asyncio.sleep(_wait.HOLD_SECONDS)
        served.end()
    except (_Dropped, MissError):
        answer.drop()
    except BaseException:
        # It has left, as far as one can tell from here: what it was sent may have reached it or not.
        for _ in served.serve():
            pass
        served.over()
        raise
    else:
        await answer.end()


async def _unanswered(call: Call, answer: Answer, recorded: Mapping[str, Any]) -> None:
    try:
        if recorded["error"] is None:
            await asyncio.sleep(_wait.HOLD_SECONDS)
            call.drift("the child waits for an answer, which it had given up when this was recorded")
    finally:
        call.finish(recorded)
    answer.drop()


class _Dropped(Exception):
    """Stands for what the upstream did to the connection."""

    @classmethod
    def of(cls, error: Mapping[str, Any] | None) -> Exception:
        """That of a recorded ERROR."""
        return cls(error["message"] if error else "")


def content_of(body: bytes, encoding: str) -> bytes:
    """The body of a request as it was before it was compressed.

    Raises:
        ValueError: it was not compressed that way, or is too large.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"content-encoding {encoding!r} is not known")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)  # tells gzip from zlib by its header
    try:
        data = unpacking.decompress(body, LARGEST_BODY)
    except zlib.error as error:
        raise ValueError(f"it is no {encoding}: {error}") from None
    if unpacking.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {LARGEST_BODY} bytes")
    if not unpacking.eof:
        raise ValueError(f"its {encoding} is cut off")
    return data


def passed_on(headers: Any, *, decoded: bool) -> Headers:
    """Headers of an answer that concern the child."""
    out = _HOP_BY_HOP | ({"content-encoding", "content-length"} if decoded else set())
    return [(name.lower(), value) for name, value in headers if name.lower() not in out]


def _going_up(headers: Headers) -> Headers:
    """Headers of a request that concern the upstream; no encoding is asked for that could not be read here."""
    out = _HOP_BY_HOP | {"host", "content-length", "content-encoding", "expect", "accept-encoding"}
    offered = next((value for name, value in headers if name == "accept-encoding"), "")
    kept = [one.strip() for one in offered.split(",") if one.partition(";")[0].strip().lower() in _DECODABLE]
    return [*(pair for pair in headers if pair[0] not in out), ("accept-encoding", ", ".join(kept) or "identity")]
