"""http.client: a request of a ``HTTPConnection`` leaves by ``endheaders`` and ``send``, and ``getresponse`` answers it.

Patched on the class, so that urllib.request, xmlrpc, httplib2 and connections made long before the run are all met. A
request is held until it is complete, for nobody knows before whether it may go out; with its body sent piece by piece
that is when its answer is asked for. Connecting ahead of a request is put off until it goes out.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ..._run import Call, Crossing, Run
from ...errors import BoundaryError
from .. import _http
from . import _answers, _wire

_MARK = "_spanchain_exchange"
_SENDING = "sending"


@dataclass
class Held:
    """A request that has not gone out yet."""

    run: Run
    pieces: list[bytes] = field(default_factory=list)


@dataclass
class Exchange:
    """A request that has gone out, or whose recorded answer waits.

    Args:
        call: its crossing.
        method: its HTTP method.
        pooled: whether urllib3's boundary owns it, and only the answer is met here.
        answer: the live answer, once there is one.
    """

    call: Call
    method: str
    pooled: bool = False
    answer: _answers.Following | None = None


def install(lib: ModuleType) -> None:
    """Patch ``http.client``.

    Raises:
        BoundaryError: it looks different.
    """
    patches = {}
    for name, around in (("endheaders", _endheaders), ("send", _send), ("getresponse", _getresponse)):
        original = vars(lib.HTTPConnection).get(name)
        if not callable(original):
            raise BoundaryError(f"{lib.__name__} is not recognised, its calls would not be recorded: no {name}")
        patches[name] = functools.wraps(original)(around(original))
    try:
        made = lib.HTTPConnection("localhost")  # which connects to nobody yet
        _ = made._tunnel_host, made._tunnel_port, made._buffer, made.sock, made.blocksize, lib.HTTPSConnection.connect
    except AttributeError as error:
        raise BoundaryError(f"{lib.__name__} is not recognised, its calls would not be recorded: {error}") from None
    for name, patched in patches.items():
        setattr(lib.HTTPConnection, name, patched)
    put_off_connecting(lib.HTTPConnection)
    put_off_connecting(lib.HTTPSConnection)


def put_off_connecting(kind: Any) -> None:
    """Patch ``connect`` of a class of connections: within a run, the request that follows does it."""
    original = kind.connect

    @functools.wraps(original)
    def connect(self: Any) -> None:
        # A class with its own ``connect`` that builds on this one wants its socket at once.
        if type(self).connect is not connect or _http.watching(*_place(self), asks=False) is None:
            original(self)
        else:
            _stand_in(self)

    kind.connect = connect


@contextlib.contextmanager
def owned(conn: Any, exchange: Exchange) -> Iterator[None]:
    """Let the answer of the next request of a connection be met as part of an exchange of urllib3's."""
    vars(conn)[_MARK] = exchange
    try:
        yield
    finally:
        vars(conn).pop(_MARK, None)


@contextlib.contextmanager
def served(conn: Any, call: Call, *, method: str) -> Iterator[None]:
    """Let a connection read a recorded answer; its own socket, if it has one, waits meanwhile."""
    _give_way(conn)
    own = conn.sock
    conn.sock = fake = _answers.ServedSocket(call, method=method)
    try:
        yield
    finally:
        if conn.sock is fake:
            conn.sock = own
        elif own is not None:
            own.close()  # the connection was closed after its answer


def url_of(scheme: str, host: str, port: int | None, target: str) -> str:
    """The URL of a request, which a proxy is asked for as a whole."""
    if not target.startswith("/"):
        return target
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    usual = port is None or port == {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{host}{'' if usual else f':{port}'}{target}"


def begin(run: Run, *, method: str, url: str, headers: _wire.Headers, content: bytes) -> Call:
    """Begin the exchange of a request."""
    request = _http.request_of(method=method, url=url, headers=headers, content=content)
    return run.begin(Crossing("http", f"{method} {urlsplit(url).path or '/'}", request))


def _endheaders(original: Callable[..., None]) -> Callable[..., None]:
    def endheaders(self: Any, message_body: Any = None, **options: Any) -> None:
        before = vars(self).get(_MARK)
        pooled = isinstance(before, Exchange) and before.pooled
        host, port, path = _asked(self)
        run = None if pooled else _http.watching(host, port, path=path)
        if run is None:
            original(self, message_body, **options)
            return
        _abandon(self)
        held = vars(self)[_MARK] = Held(run)
        try:
            original(self, message_body, **options)
        except BaseException:
            vars(self).pop(_MARK, None)
            raise
        if message_body is not None or not _wire.announces_body(_wire.sent(b"".join(held.pieces))):
            _go(self, held, step=_SENDING)
        _stand_in(self)

    return endheaders


def _send(original: Callable[..., None]) -> Callable[..., None]:
    def send(self: Any, data: Any) -> None:
        held = vars(self).get(_MARK)
        if isinstance(held, Held):
            held.pieces.extend(_pieces(self, data))
        else:
            _give_way(self)
            original(self, data)

    return send


def _getresponse(original: Callable[..., Any]) -> Callable[..., Any]:
    def getresponse(self: Any) -> Any:
        waiting = vars(self).get(_MARK)
        if isinstance(waiting, Held):
            _go(self, waiting, step="")
        exchange = vars(self).pop(_MARK, None)
        if not isinstance(exchange, Exchange):
            return original(self)
        call = exchange.call
        if exchange.pooled:
            response = original(self)
            if call.recorded is None:
                exchange.answer = _answers.follow(call, response, method=exchange.method)
            return response
        call.at_close = None  # from here on somebody waits for the answer
        if call.recorded is not None:
            return _replayed(self, original, exchange)
        try:
            with call.active():
                response = original(self)
        except BaseException as error:
            _http.no_answer(call, error)
            raise
        _answers.follow(call, response, method=exchange.method)
        return response

    return getresponse


def _replayed(conn: Any, original: Callable[..., Any], exchange: Exchange) -> Any:
    recorded = exchange.call.recorded
    assert recorded is not None
    if recorded["status"] is None:
        _answers.raise_recorded(exchange.call)
    with served(conn, exchange.call, method=exchange.method):
        return original(conn)


def _go(conn: Any, held: Held, *, step: str) -> None:
    """The request is complete: send it, or see what was recorded.

    Args:
        conn: its connection.
        held: the request.
        step: told with an error, and the step in which a recorded one comes again.
    """
    vars(conn).pop(_MARK, None)
    request = _wire.sent(b"".join(held.pieces))
    host, port = _place(conn)
    scheme = "https" if isinstance(conn, http.client.HTTPSConnection) else "http"
    call = begin(
        held.run,
        method=request.method,
        url=url_of(scheme, host, port, request.target),
        headers=request.headers,
        content=request.body,
    )
    exchange = Exchange(call, request.method)
    if call.recorded is None:
        try:
            with call.active():
                for piece in held.pieces:
                    conn.send(piece)
        except BaseException as error:
            _http.no_answer(call, error, step=step)
            raise
        call.at_close = functools.partial(_http.no_answer, call)
    elif step and _http.step_of(call.recorded["error"]) == step:
        _answers.raise_recorded(call)
    else:
        call.at_close = functools.partial(call.finish, call.recorded)
    vars(conn)[_MARK] = exchange


def _stand_in(conn: Any) -> None:
    """A connection that ought to be there has a socket: urllib3's sets its timeout before it asks for the answer."""
    if conn.sock is None:
        conn.sock = _answers.NoSocket()


def _give_way(conn: Any) -> None:
    if type(conn.sock) is _answers.NoSocket:
        conn.sock = None


def _abandon(conn: Any) -> None:
    """A new request on a connection that was closed before its last answer was asked for."""
    left = vars(conn).pop(_MARK, None)
    if isinstance(left, Exchange) and left.call.at_close is not None:
        left.call.at_close()


def _place(conn: Any) -> tuple[str, int | None]:
    if conn._tunnel_host:
        return conn._tunnel_host, conn._tunnel_port
    return conn.host, conn.port


def _asked(conn: Any) -> tuple[str, int | None, str]:
    """Where the request that is being put together goes, behind a proxy that is asked for it; and its path."""
    line = (conn._buffer or [b""])[0].split(b" ")
    target = line[1].decode("latin-1") if len(line) > 1 else ""
    parts = urlsplit(target)
    if not target.startswith("/") and parts.hostname:
        return parts.hostname, parts.port, parts.path
    return (*_place(conn), parts.path)


def _pieces(conn: Any, data: Any) -> Iterator[bytes]:
    """What ``send`` takes, as bytes: bytes, a file, or an iterable of bytes."""
    if hasattr(data, "read"):
        while block := data.read(conn.blocksize):
            yield block.encode("iso-8859-1") if isinstance(block, str) else block
        return
    try:
        yield bytes(memoryview(data))
    except TypeError:
        yield from map(bytes, data)
