"""httpx and httpx2: the network edge of both is ``(Async)HTTPTransport.handle_(async_)request``.

Patched on the class, so that clients made long before the run, subclasses and transports that wrap others are all met,
while in-process transports (ASGI, WSGI, mocks) never are. A compressed answer is handed on decoded, chunk by chunk, so
that the cassette is readable and chunks are the same in both runs.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator, Mapping
from types import ModuleType
from typing import Any, cast

from ..._run import Call, Crossing
from ...errors import BoundaryError, MissError
from .. import _http, _wait
from ._needs import needs


def install(lib: ModuleType) -> None:
    """Patch the transports of ``httpx`` or ``httpx2``.

    Raises:
        BoundaryError: the library looks different.
    """
    try:
        send, send_async = lib.HTTPTransport.handle_request, lib.AsyncHTTPTransport.handle_async_request
        needs(lib, "RequestError", "Response", "TransportError")
        edge = _Edge(lib)
    except AttributeError as error:
        raise BoundaryError(f"{lib.__name__} is not recognised, its calls would not be recorded: {error}") from None

    @functools.wraps(send)
    def handle_request(self: Any, request: Any) -> Any:
        run = _http.watching(request.url.host, request.url.port, path=request.url.path)
        return send(self, request) if run is None else edge.send(run, request, lambda: send(self, request))

    @functools.wraps(send_async)
    async def handle_async_request(self: Any, request: Any) -> Any:
        run = _http.watching(request.url.host, request.url.port, path=request.url.path)
        if run is None:
            return await send_async(self, request)
        return await edge.send_async(run, request, lambda: send_async(self, request))

    lib.HTTPTransport.handle_request = handle_request
    lib.AsyncHTTPTransport.handle_async_request = handle_async_request


class _Edge:
    """Translates between one library's objects and the run."""

    def __init__(self, lib: ModuleType) -> None:
        self.lib = lib

        class RecordingStream(_Live, lib.SyncByteStream):  # type: ignore[misc, name-defined]
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
                try:
                    self.source.close()
                finally:
                    self.over("closed")

        class AsyncRecordingStream(_Live, lib.AsyncByteStream):  # type: ignore[misc, name-defined]
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

        class ReplayedStream(_http.Replay, lib.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                for chunk in self.serve():
                    yield chunk
                    self.may_end()
                self.end()

            def close(self) -> None:
                self.over()

        class AsyncReplayedStream(_http.Replay, lib.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in self.serve():
                    yield chunk
                    # A real stream lets other tasks run between chunks; so does its replay.
                    await _wait.step()
                    await self.may_end_async()
                if self.waits():
                    await _wait.hold(self.over)
                self.end()

            async def aclose(self) -> None:
                self.over()

        self._streams = (RecordingStream, ReplayedStream)
        self._async_streams = (AsyncRecordingStream, AsyncReplayedStream)

    def send(self, run: Any, request: Any, go: Any) -> Any:
        request.read()
        call = self._begin(run, request)
        if not isinstance(call, Call):
            return call
        if call.recorded is not None:
            if call.recorded["status"] is None:
                _wait.may_end(call)
            replayed = self._replay(call, request, self._streams[1])
            replayed.stream.may_end()
            return replayed
        try:
            with call.active():
                live = go()
        except BaseException as error:
            _http.no_answer(call, error)
            raise
        return self._recording(call, request, live, self._streams[0])

    async def send_async(self, run: Any, request: Any, go: Any) -> Any:
        await request.aread()
        call = self._begin(run, request)
        if not isinstance(call, Call):
            return call
        if call.recorded is not None:
            if call.recorded["status"] is None:
                give_up = functools.partial(call.finish, call.recorded)
                if call.recorded["error"] is None:
                    await _wait.hold(give_up)
                await _wait.may_end_async(call, give_up)
            replayed = self._replay(call, request, self._async_streams[1])
            await replayed.stream.may_end_async()
            return replayed
        try:
            with call.active():
                live = await go()
        except BaseException as error:
            _http.no_answer(call, error)
            raise
        return self._recording(call, request, live, self._async_streams[0])

    def _begin(self, run: Any, request: Any) -> Any:
        """The call, or for a miss inside the Anthropic SDK the answer that it does not retry.

        OpenAI's SDK lets foreign exceptions through. Anthropic's takes them for connection errors and tries again, so
        it gets a status that it must not retry; the body says why.
        """
        try:
            return run.begin(Crossing("http", f"{request.method} {request.url.path}", _request(request)))
        except MissError as miss:
            if "anthropic-version" not in request.headers:
                raise
            return self.lib.Response(
                424,
                headers={"x-should-retry": "false"},
                json={"type": "error", "error": {"type": "spanchain_miss", "message": str(miss)}},
                request=request,
            )

    def _recording(self, call: Call, request: Any, live: Any, stream_class: Any) -> Any:
        headers = live.headers.raw
        if live.headers.get("content-encoding", "identity").lower() != "identity":
            headers = [(key, value) for key, value in headers if key.decode("latin-1").lower() not in _http.DECODED]
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
        # As bytes, which the library reads like those of a server: it takes texts in ASCII only.
        headers = [(name.encode("utf-8"), value.encode("utf-8")) for name, value in recorded["headers"].items()]
        return self.lib.Response(recorded["status"], headers=headers, stream=stream, request=request)

    def _error(self, error: Mapping[str, Any] | None, request: Any) -> Exception:
        """The recorded exception: one of the library's own, by name."""
        if error is None:
            error = {"type": "ReadError", "message": _http.GIVEN_UP}
        found = getattr(self.lib, error["type"], None)
        if isinstance(found, type) and issubclass(found, self.lib.RequestError):
            return cast("Exception", found(error["message"], request=request))
        return cast("Exception", self.lib.TransportError(f"{error['type']}: {error['message']}", request=request))


class _Live(_http.Recording):
    """The recording of a live response of either library."""

    def __init__(self, call: Call, source: Any) -> None:
        super().__init__(call, status=source.status_code, headers=list(source.headers.items()))
        self.source = source
        self._iterator: Any = None

    def iterator(self, name: str) -> Any:
        """The one iterator over the live answer: OpenAI's SDK comes back to a stream to drain it."""
        if self._iterator is None:
            self._iterator = getattr(self.source, name)()
        return self._iterator


def _request(request: Any) -> dict[str, Any]:
    return _http.request_of(
        method=request.method, url=str(request.url), headers=list(request.headers.items()), content=request.content
    )
