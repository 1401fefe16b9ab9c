"""aiohttp's answers: how one is read while it is recorded, and how one is made of what a cassette holds.

Invariant: whoever reads waits for the source, piece by piece, and the pieces are what is recorded.
"""

from __future__ import annotations

import asyncio
import http
import inspect
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from ...._run import Call
from ... import _http, _wait

RESPONSE_TAKES = frozenset(
    {"writer", "continue100", "timer", "request_info", "traces", "loop", "session", "stream_writer"}
)
"""What aiohttp's releases give a ``ClientResponse`` that they make."""


def reader_class(lib: ModuleType) -> Any:
    """The ``StreamReader`` that gets its bytes from a ``Live`` or a ``Replayed`` when somebody waits for them."""

    class Silence(lib.base_protocol.BaseProtocol):  # type: ignore[misc, name-defined]
        """What a reader takes for its protocol: never connected, and nothing has to be held back."""

        def pause_reading(self) -> None:
            pass

        def resume_reading(self, *args: Any, **kwargs: Any) -> None:
            pass

    class Reader(lib.StreamReader):  # type: ignore[misc, name-defined]
        """Gets its bytes from a source, when somebody waits for them."""

        def __init__(self, source: Live | Replayed, limit: int) -> None:
            loop = asyncio.get_running_loop()
            super().__init__(Silence(loop), limit, loop=loop)
            self.begin_http_chunk_receiving()
            self._source = source
            self._pulling = False

        async def _wait(self, func_name: str) -> None:
            if self._pulling:
                raise RuntimeError(f"{func_name}() called while another coroutine is already waiting for data")
            self._pulling = True
            try:
                await self._source.pull(self, by_chunk=func_name == "readchunk")
            except Exception as error:
                if self.exception() is None:
                    super().set_exception(error)
                raise
            finally:
                self._pulling = False

        async def wait_eof(self) -> None:
            while not self.is_eof():
                await self._wait("wait_eof")

        def read_nowait(self, n: int = -1) -> bytes:
            if not self._buffer and not self.is_eof() and self.exception() is None:
                self._source.at_hand(self)
            data: bytes = super().read_nowait(n)
            return data

        def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
            super().set_exception(exc, *cause)
            self._source.left(exc)

    return Reader


class Live(_http.Recording):
    """The recording of a live answer, piece by piece as the agent waits for it."""

    def __init__(self, call: Call, live: Any) -> None:
        headers = [(name, _readable(value)) for name, value in live.headers.items()]
        super().__init__(call, status=live.status, headers=headers)
        self._content = live.content
        self._waiting = False
        self._cut = False
        call.at_close = self._stop

    async def pull(self, reader: Any, *, by_chunk: bool) -> None:
        self._waiting = True
        try:
            # By HTTP chunk only for who asks for those: elsewhere what has come is given at once, as aiohttp does.
            data, ends = await self._content.readchunk() if by_chunk else (await self._content.readany(), False)
        except Exception as error:
            self.over("error", error)
            raise
        self._waiting = False  # and stays so for who is cancelled here: it may come back, or never again
        self._keep(data, ends=ends or not by_chunk)
        _feed(reader, data, ends=ends)
        if not (data or ends) or self._content.at_eof():
            self.over("complete")
            reader.feed_eof()

    def at_hand(self, reader: Any) -> None:
        """What has come already, for who does not wait."""
        try:
            data = self._content.read_nowait()
        except Exception as error:
            self.over("error", error)
            raise
        self._keep(data, ends=True)
        _feed(reader, data, ends=False)
        if self._content.at_eof():
            self.over("complete")
            reader.feed_eof()

    def left(self, error: BaseException) -> None:
        """The agent has released or closed the response."""
        self._stop()
        self._content.set_exception(error)

    def _keep(self, data: bytes, *, ends: bool) -> None:
        # A reader of HTTP chunks puts them together, so they are kept whole: replay tells where each of them ends.
        if self._cut and self.chunks:
            self.chunks[-1] += data
        elif data:
            self.chunks.append(data)
        self._cut = not ends

    def _stop(self) -> None:
        self.over("cancelled" if self._waiting else "closed")


class Replayed(_http.Replay):
    """A recorded answer, given piece by piece as the agent waits for it."""

    _holding: asyncio.Future[None] | None = None

    async def pull(self, reader: Any, *, by_chunk: bool) -> None:
        # A real stream lets other tasks run between chunks; so does its replay.
        await _wait.step()
        await self.may_end_async()
        if self._next(reader):
            return
        if self.waits():
            await self._hold(reader)
        self.end()
        reader.feed_eof()

    def at_hand(self, reader: Any) -> None:
        self._next(reader)

    def left(self, error: BaseException) -> None:
        self.over()
        if self._holding is not None:
            self._holding.cancel()

    def ends_early(self, reader: Any) -> None:
        """Say at once that there is no more, as a connection does on which the end has come with the last bytes."""
        if self._given == len(self._chunks) and self._recorded["end"] == "complete":
            self.over()
            reader.feed_eof()

    def _next(self, reader: Any) -> bool:
        for chunk in self.serve():
            _feed(reader, chunk, ends=True)
            self.ends_early(reader)
            return True
        return False

    async def _hold(self, reader: Any) -> None:
        self._holding = asyncio.ensure_future(_wait.hold(self.over))
        try:
            await self._holding
        except asyncio.CancelledError:
            if reader.exception() is not None:  # another task has closed the response: not this one is cancelled
                raise reader.exception() from None
            raise


class Wire:
    """Stands for a connection and its protocol, of which one answer comes.

    Args:
        lib: aiohttp.
        status: HTTP status.
        reason: its phrase.
        headers: of the answer.
        content: its reader.
        behind: the live response that is let go with it, if there is one.
    """

    closed = upgraded = False
    transport = None

    def __init__(
        self, lib: ModuleType, status: int, reason: str, headers: _http.Headers, content: Any, *, behind: Any = None
    ) -> None:
        named = lib.client_reqrep.CIMultiDictProxy(lib.client_reqrep.CIMultiDict(headers))
        raw = tuple((name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers)
        self._message = SimpleNamespace(
            version=lib.HttpVersion11, code=status, reason=reason, headers=named, raw_headers=raw
        )
        self._content = content
        self._behind = behind
        self._callbacks: list[Callable[[], object]] = []

    @property
    def protocol(self) -> Wire:
        return self

    async def read(self) -> tuple[Any, Any]:
        return self._message, self._content

    def add_callback(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)

    def release(self) -> None:
        self._end("release")

    def close(self) -> None:
        self._end("close")

    def _end(self, how: str) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        if self._behind is not None:
            getattr(self._behind, how)()


async def answer(request: Any, session: Any, wire: Wire) -> Any:
    """A response of the class that the session wants, made as aiohttp makes it, of what a wire brings."""
    given = {
        "writer": None,
        "continue100": None,
        "timer": None,
        "request_info": request.request_info,
        "traces": getattr(request, "_traces", []),
        "loop": asyncio.get_running_loop(),
        "session": session,
        "stream_writer": SimpleNamespace(output_size=0),
    }
    takes = inspect.signature(request.response_class).parameters
    given = {name: value for name, value in given.items() if name in takes}
    response = request.response_class(request.method, request.original_url, **given)
    return await response.start(wire)


def phrase(status: int) -> str:
    """The standard words of a status; empty if it has none."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def _readable(value: str) -> str:
    """A header's value as text: aiohttp leaves bytes that are no UTF-8 in it, which a cassette cannot hold."""
    if value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _feed(reader: Any, data: bytes, *, ends: bool) -> None:
    if data:
        reader.feed_data(data)
    if ends:
        reader.end_http_chunk_receiving()
