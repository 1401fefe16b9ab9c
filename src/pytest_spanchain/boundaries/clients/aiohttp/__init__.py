"""aiohttp: the network edge is a client middleware of its own kind, put innermost by ``ClientSession._request``.

Patched on the class, so that sessions made long before the run are met. A middleware sees each request as it leaves,
each hop of a redirect by itself; cookies, redirects, ``raise_for_status``, traces and the user's own middlewares stay
aiohttp's work in both runs.

Invariants:

* the agent reads through the same ``StreamReader`` in both runs, which gets its bytes piece by piece and only when
  somebody waits for them; the pieces are what is recorded, so every way of reading sees the same again;
* a compressed answer is handed on decoded, also to those who wanted to decode it themselves;
* what upgrades a connection (a websocket) is not recorded: replay refuses it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ...._guard import call_site
from ...._model import Attempt
from ...._run import Call, Crossing, Run
from ....errors import BoundaryError
from ... import _http, _wait
from .._needs import needs
from . import _answers, _errors

OLDEST = "3.12.7"
"""The first release whose requests can be read before they leave."""

_READER = (
    "begin_http_chunk_receiving",
    "end_http_chunk_receiving",
    "feed_data",
    "feed_eof",
    "get_read_buffer_limits",
    "readany",
    "readchunk",
    "set_exception",
)


def install(lib: ModuleType) -> None:
    """Patch ``ClientSession._request``.

    Raises:
        BoundaryError: the library looks different, or somebody else has patched the same method.
    """
    try:
        original = _recognised(lib)
    except AttributeError as error:
        raise _unrecognised(lib, str(error)) from None
    edge = _Edge(lib)

    @functools.wraps(original)
    async def _request(self: Any, method: str, str_or_url: Any, **kwargs: Any) -> Any:
        host, port, path = edge.target(self, str_or_url)
        run = _http.watching(host, port, path=path)
        if run is not None:
            hop = _Hop(edge, run, self, kwargs)
            outer = kwargs.get("middlewares")
            chain = (*(self._middlewares if outer is None else outer), hop)
            kwargs = {**kwargs, "middlewares": chain, "auto_decompress": True}
        return await original(self, method, str_or_url, **kwargs)

    lib.ClientSession._request = _request


def _recognised(lib: ModuleType) -> Any:
    """``ClientSession._request``, if all is as this module knows it."""
    needs(lib, "ClientResponse", "HttpVersion11", "base_protocol", "client_exceptions")
    needs(lib.base_protocol, "BaseProtocol")
    needs(lib.client, "URL")
    needs(lib.client_reqrep, "CIMultiDict", "CIMultiDictProxy")
    needs(lib.ClientSession, "_base_url", "_middlewares", "_read_bufsize", "auto_decompress")
    needs(lib.ClientRequest, "DEFAULT_HEADERS", "POST_METHODS", "connection_key", "request_info", "skip_auto_headers")
    needs(lib.StreamReader, "_buffer", *_READER)
    problem = ""
    request = getattr(lib.ClientSession, "_request", None)
    if request is None or "middlewares" not in inspect.signature(request).parameters:
        problem = "ClientSession._request takes no middlewares"
    elif not hasattr(lib.payload.Payload, "as_bytes") or not hasattr(lib.ClientRequest, "update_body"):
        problem = "the body of a request cannot be read before it leaves"
    elif not inspect.iscoroutinefunction(getattr(lib.StreamReader, "_wait", None)):
        problem = "StreamReader does not wait where it did"
    elif unknown := _required(lib.ClientResponse) - _answers.RESPONSE_TAKES:
        problem = f"ClientResponse wants {', '.join(sorted(unknown))}"
    if problem:
        raise _unrecognised(lib, problem)
    if stranger := _patched_by(request):
        raise BoundaryError(
            f"aiohttp.ClientSession._request has been replaced by {stranger}, so aiohttp's calls would not be recorded:"
            " let it begin inside the test, or end before it"
        )
    return request


def _unrecognised(lib: ModuleType, problem: str) -> BoundaryError:
    release = getattr(lib, "__version__", "")
    return BoundaryError(
        f"aiohttp {release} is not recognised, its calls would not be recorded: {problem}"
        f" (releases from {OLDEST} on are known)"
    )


def _required(response_class: Any) -> set[str]:
    parameters = inspect.signature(response_class).parameters.values()
    return {one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty}


def _patched_by(function: Any) -> str:
    """Who has replaced a method of aiohttp's for a while; empty if nobody.

    Proxies that pass everything on (wrapt's) show the code that they wrap: whoever put them there meant them to stay.
    """
    mock = getattr(function, "mock", None)
    made = getattr(mock, "side_effect", None) or function
    home = str(getattr(made, "__globals__", {}).get("__name__", "") or getattr(made, "__module__", ""))
    return "" if home.partition(".")[0] == "aiohttp" and mock is None else home or repr(function)


class _Hop:
    """The middleware of one request: met once for each time that it leaves."""

    def __init__(self, edge: _Edge, run: Run, session: Any, options: Mapping[str, Any]) -> None:
        self._edge = edge
        self._run = run
        self._session = session
        self._limit: int = options.get("read_bufsize") or session._read_bufsize
        decodes = options.get("auto_decompress")
        self._undecoded = not (session.auto_decompress if decodes is None else decodes)

    async def __call__(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        if "Upgrade" in request.headers:
            self._upgrades(request)
            return await handler(request)
        call = self._run.begin(Crossing("http", f"{request.method} {request.url.path}", await _request_of(request)))
        if call.recorded is not None:
            return await self._replayed(call, request)
        if self._undecoded:
            self._edge.narrow(request)
        try:
            with call.active():
                live = await handler(request)
        except BaseException as error:
            _http.no_answer(call, error, message=_errors.told(error))
            raise
        return await self._recorded(call, request, live)

    def _upgrades(self, request: Any) -> None:
        """A connection that becomes something else is noted while recording, and refused in replay."""
        guard = self._run.guard
        attempt = Attempt(host=request.url.host, port=request.url.port, site=call_site())
        refusal = None if guard.allows(attempt.host) else guard.refuse(attempt)
        if refusal is not None:
            raise refusal

    async def _recorded(self, call: Call, request: Any, live: Any) -> Any:
        source = _answers.Live(call, live)
        if live.content.at_eof():
            source.over("complete")
            return live
        reader = self._edge.reader(source, live.content.get_read_buffer_limits()[0])
        if not self._undecoded or live.headers.get("Content-Encoding", "").lower() not in self._edge.decodable:
            live.content = reader
            return live
        headers = [(name, value) for name, value in live.headers.items() if name.lower() not in _http.DECODED]
        wire = _answers.Wire(self._edge.lib, live.status, live.reason, headers, reader, behind=live)
        return await _answers.answer(request, self._session, wire)

    async def _replayed(self, call: Call, request: Any) -> Any:
        recorded = call.recorded
        assert recorded is not None
        if recorded["status"] is None:
            give_up = functools.partial(call.finish, recorded)
            if recorded["error"] is None:
                await _wait.hold(give_up)
            await _wait.may_end_async(call, give_up)
            call.finish(recorded)
            raise self._edge.error(recorded["error"], request)
        source = _answers.Replayed(call, lambda error: self._edge.error(error, request))
        headers = [(name.title(), value) for name, value in recorded["headers"].items()]
        reader = self._edge.reader(source, self._limit)
        await source.may_end_async()
        source.ends_early(reader)
        status = recorded["status"]
        wire = _answers.Wire(self._edge.lib, status, _answers.phrase(status), headers, reader)
        return await _answers.answer(request, self._session, wire)


class _Edge:
    """What is known of aiohttp once it is patched."""

    def __init__(self, lib: ModuleType) -> None:
        self.lib = lib
        self.reader = _answers.reader_class(lib)
        self.error = functools.partial(_errors.made_anew, lib)
        self.decodable = {one.strip() for one in lib.ClientRequest.DEFAULT_HEADERS["Accept-Encoding"].split(",")}

    def target(self, session: Any, url: Any) -> tuple[str, int | None, str]:
        """Where a request goes, as far as one can tell before aiohttp has looked at it."""
        try:
            found = self.lib.client.URL(url)
        except (TypeError, ValueError):
            return "", None, ""  # aiohttp says what is wrong with it
        path = found.path
        if not found.absolute and session._base_url is not None:
            found = session._base_url
        return found.host or "", found.port, path

    def narrow(self, request: Any) -> None:
        """Ask for no encoding that aiohttp cannot decode: whoever asked for it has a decoder of its own."""
        offered = request.headers.get("Accept-Encoding")
        if offered is not None:
            kept = [one for one in offered.split(",") if one.partition(";")[0].strip() in self.decodable]
            request.headers["Accept-Encoding"] = ",".join(kept).strip() or "identity"


async def _request_of(request: Any) -> dict[str, Any]:
    """The plain request, as it leaves."""
    headers, named = request.headers, "Content-Type"
    if request.method in request.POST_METHODS and named not in headers and named not in request.skip_auto_headers:
        # aiohttp adds it as it sends, for whom a middleware that sends the request once more would see it.
        headers[named] = "application/octet-stream"
    body = request.body
    content = await body.as_bytes() if body else b""
    if _used_up(body):
        await request.update_body(content)
    return _http.request_of(method=request.method, url=str(request.url), headers=list(headers.items()), content=content)


def _used_up(body: Any) -> bool:
    """Whether a body could be read only once, or a part of it, and has been."""
    parts = body if isinstance(getattr(body, "boundary", None), str) else ()
    return getattr(body, "consumed", False) or any(_used_up(part) for part, *_ in parts)
