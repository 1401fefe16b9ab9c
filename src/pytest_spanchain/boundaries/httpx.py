"""httpx and httpx2: the network edge of both is ``(Async)HTTPTransport.handle_(async_)request``.

Patched on the class, so that clients made long before the run, subclasses and transports that wrap others are all met,
while in-process transports (ASGI, WSGI, mocks) never are. A compressed answer is handed on decoded, chunk by chunk, so
that the cassette is readable and chunks are the same in both runs.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from types import ModuleType
from typing import Any, cast

from .. import _body
from .._guard import is_telemetry
from .._run import Call, current_run
from ..errors import BoundaryError, MissError

HOLD_SECONDS = 60.0
"""How long replay waits, like the recorded call did, for an agent that gave up on an answer that never came."""

_STOPPED = {"closed": "closed the stream", "cancelled": "was stopped while it waited"}

_DECODED = ("content-encoding", "content-length", "transfer-encoding")


def install(lib: ModuleType) -> None:
    """Patch the transports of ``httpx`` or ``httpx2``.

    Raises:
        BoundaryError: the library looks different.
    """
    try:
        send, send_async = lib.HTTPTransport.handle_request, lib.AsyncHTTPTransport.handle_async_request
    except AttributeError as error:
        raise BoundaryError(f"{lib.__name__} is not recognised, its calls would not be recorded: {error}") from None
    edge = _Edge(lib)

    @functools.wraps(send)
    def handle_request(self: Any, request: Any) -> Any:
        run = None if edge.passes(request) else current_run()
        return send(self, request) if run is None else edge.send(run, request, lambda: send(self, request))

    @functools.wraps(send_async)
    async def handle_async_request(self: Any, request: Any) -> Any:
        run = None if edge.passes(request) else current_run()
        if run is None:
            return await send_async(self, request)
        return await edge.send_async(run, request, lambda: send_async(self, request))

    lib.HTTPTransport.handle_request = handle_request
    lib.AsyncHTTPTransport.handle_async_request = handle_async_request


class _Edge:
    """Translates between one library's objects and the run."""

    def __init__(self, lib: ModuleType) -> None:
        self.lib = lib

        class RecordingStream(_Recording, lib.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                try:
                    for chunk in self.iterator("iter_bytes"):
                        self.chunks.append(chunk)
                        yield chunk
                except Exception as error:
                    self.over("error", error)
                    raise
                self.over("complete")

            def close(self) -> None:
                self.source.close()
                self.over("closed")

        class AsyncRecordingStream(_Recording, lib.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                try:
                    async for chunk in self.iterator("aiter_bytes"):
                        self.chunks.append(chunk)
                        yield chunk
                except Exception as error:
                    self.over("error", error)
                    raise
                except GeneratorExit:
                    raise
                except BaseException:
                    self.over("cancelled")
                    raise
                self.over("complete")

            async def aclose(self) -> None:
                try:
                    await self.source.aclose()
                finally:
                    self.over("closed")

        class ReplayedStream(_Replayed, lib.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                yield from self.serve()
                self.end()

            def close(self) -> None:
                self.over()

        class AsyncReplayedStream(_Replayed, lib.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in self.serve():
                    yield chunk
                    # A real stream lets other tasks run between chunks; so does its replay.
                    await _sleep(0)
                if self.waits():
                    await _sleep(HOLD_SECONDS)
                self.end()

            async def aclose(self) -> None:
                self.over()

        self._streams = (RecordingStream, ReplayedStream)
        self._async_streams = (AsyncRecordingStream, AsyncReplayedStream)

    def passes(self, request: Any) -> bool:
        """Whether a request is telemetry, which stays out of cassettes; the guard refuses it in replay."""
        return is_telemetry(request.url.host, request.url.port)

    def send(self, run: Any, request: Any, go: Any) -> Any:
        request.read()
        call = self._begin(run, request)
        if not isinstance(call, Call):
            return call
        if call.recorded is not None:
            return self._replay(call, request, self._streams[1])
        try:
            with call.active():
                live = go()
        except BaseException as error:
            self._failed(call, error)
            raise
        return self._recording(call, request, live, self._streams[0])

    async def send_async(self, run: Any, request: Any, go: Any) -> Any:
        await request.aread()
        call = self._begin(run, request)
        if not isinstance(call, Call):
            return call
        if call.recorded is not None:
            if call.recorded["status"] is None and call.recorded["error"] is None:
                await _hold(call)
            return self._replay(call, request, self._async_streams[1])
        try:
            with call.active():
                live = await go()
        except BaseException as error:
            self._failed(call, error)
            raise
        return self._recording(call, request, live, self._async_streams[0])

    def _begin(self, run: Any, request: Any) -> Any:
        """The call, or for a miss inside the Anthropic SDK the answer that it does not retry.

        OpenAI's SDK lets foreign exceptions through. Anthropic's takes them for connection errors and tries again, so
        it gets a status that it must not retry; the body says why.
        """
        try:
            return run.begin("http", f"{request.method} {request.url.path}", _request(request), span_kind="client")
        except MissError as miss:
            if "anthropic-version" not in request.headers:
                raise
            return self.lib.Response(
                424,
                headers={"x-should-retry": "false"},
                json={"type": "error", "error": {"type": "spanchain_miss", "message": str(miss)}},
                request=request,
            )

    def _failed(self, call: Call, error: BaseException) -> None:
        known = isinstance(error, Exception)
        call.finish(
            {
                "status": None,
                "headers": [],
                "body": None,
                "end": "error" if known else "closed",
                "error": {"type": type(error).__name__, "message": str(error)} if known else None,
            }
        )

    def _recording(self, call: Call, request: Any, live: Any, stream_class: Any) -> Any:
        headers = live.headers.raw
        if live.headers.get("content-encoding", "identity").lower() != "identity":
            headers = [(key, value) for key, value in headers if key.decode("latin-1").lower() not in _DECODED]
        live.request = request
        extensions = {key: value for key, value in live.extensions.items() if key != "network_stream"}
        return self.lib.Response(
            live.status_code, headers=headers, stream=stream_class(call, live), extensions=extensions, request=request
        )

    def _replay(self, call: Call, request: Any, stream_class: Any) -> Any:
        recorded = call.recorded
        assert recorded is not None
        if recorded["status"] is None:
            call.finish(recorded)
            raise self._error(recorded["error"], request)
        stream = stream_class(call, lambda error: self._error(error, request))
        return self.lib.Response(
            recorded["status"], headers=list(recorded["headers"].items()), stream=stream, request=request
        )

    def _error(self, error: Mapping[str, Any] | None, request: Any) -> Exception:
        """The recorded exception: one of the library's own, by name."""
        if error is None:
            error = {"type": "ReadError", "message": "the recorded call was given up before it was answered"}
        found = getattr(self.lib, error["type"], None)
        if isinstance(found, type) and issubclass(found, self.lib.RequestError):
            return cast("Exception", found(error["message"], request=request))
        return cast("Exception", self.lib.TransportError(f"{error['type']}: {error['message']}", request=request))


class _Recording:
    """Passes a live answer through, chunk by chunk, and tells the call how it ended."""

    def __init__(self, call: Call, source: Any) -> None:
        self.source = source
        self.chunks: list[bytes] = []
        self._call = call
        self._iterator: Any = None
        self._over = False
        call.at_close = lambda: self.over("closed")

    def iterator(self, name: str) -> Any:
        """The one iterator over the live answer: OpenAI's SDK comes back to a stream to drain it."""
        if self._iterator is None:
            self._iterator = getattr(self.source, name)()
        return self._iterator

    def over(self, end: str, error: BaseException | None = None) -> None:
        if self._over:
            return
        self._over = True
        if end == "closed" and _body.ends_by_itself(self.chunks):
            end = "complete"
        headers = self.source.headers
        self._call.finish(
            {
                "status": self.source.status_code,
                "headers": list(headers.items()),
                "body": _body.body_of(self.chunks, content_type=headers.get("content-type", "")),
                "end": end,
                "error": {"type": type(error).__name__, "message": str(error)} if error else None,
            }
        )


class _Replayed:
    """Serves a recorded answer, chunk by chunk, and tells the call how far the agent went."""

    def __init__(self, call: Call, error_of: Any) -> None:
        assert call.recorded is not None
        self._call = call
        self._recorded = call.recorded
        self._error_of = error_of
        self._chunks = _body.chunks_of(self._recorded["body"])
        self._given = 0
        self._over = False
        call.at_close = self.over

    def serve(self) -> Iterator[bytes]:
        while self._given < len(self._chunks):  # from where the last reader stopped, as a live stream would
            self._given += 1
            yield self._chunks[self._given - 1]

    def waits(self) -> bool:
        """Whether the recorded reader waited for more until something stopped it."""
        return bool(self._recorded["end"] == "cancelled")

    def end(self) -> None:
        """What comes after the last chunk.

        Raises:
            Exception: the recorded error, or a miss if the recorded reader had stopped before.
        """
        self.over()
        end = self._recorded["end"]
        if end == "error":
            raise self._error_of(self._recorded["error"])
        if end in ("closed", "cancelled"):
            raise self._call.drift(
                f"the agent reads on after {self._given} chunks, where it {_STOPPED[end]} when this was recorded"
            )

    def over(self) -> None:
        if self._over:
            return
        self._over = True
        if self._given == len(self._chunks):
            self._call.finish(self._recorded)
        else:
            self._call.finish({**self._recorded, "end": "closed", "body": self._part(), "error": None})

    def _part(self) -> Any:
        body = self._recorded["body"]
        part = _body.body_of(
            self._chunks[: self._given], content_type=self._recorded["headers"].get("content-type", "")
        )
        return part if part is None or "message" not in part else {**part, "message": body["message"]}


async def _sleep(seconds: float) -> None:
    trio = sys.modules.get("trio")
    await (trio.sleep if trio is not None and trio.lowlevel.in_trio_run() else asyncio.sleep)(seconds)


async def _hold(call: Call) -> None:
    try:
        await _sleep(HOLD_SECONDS)
    except BaseException:
        assert call.recorded is not None
        call.finish(call.recorded)
        raise


def _request(request: Any) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": str(request.url),
        "headers": list(request.headers.items()),
        "body": _body.body_of([request.content], content_type=request.headers.get("content-type", ""), layout=False),
    }
