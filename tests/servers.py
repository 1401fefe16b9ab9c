"""Scriptable loopback servers for the test-suite; they listen on 127.0.0.1 only.

Invariants:

* Every wait is bounded by ``PATIENCE``. A wait that runs out is kept as a fault, not swallowed.
* Leaving the ``with`` block closes every socket and joins every thread; none of them is a daemon.
* A fault of the server (its script raised, a gate never opened, nothing was scripted) fails the ``with`` block, unless
  the block is failing already.

A server takes a script, a function from ``Request`` to a reply::

    with ModelServer(lambda request: answer(request, "hello")) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="test")

``answer`` (in ``model_replies``) speaks whatever protocol the request speaks; the reply kinds here are plain HTTP.
"""

from __future__ import annotations

import gzip
import json
import select
import socket
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple

PATIENCE = 10.0
"""Upper bound in seconds of every wait in this module."""

_TICK = 0.01


class Request(NamedTuple):
    """One request as it arrived.

    ``headers`` has lower-case names. ``body`` is the decoded JSON, else the text, or ``None`` if there was no body.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Raw:
    """A complete answer of bytes, sent with a content-length, gzip-ed on demand."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/octet-stream"
    gzip: bool = False


@dataclass(frozen=True)
class Json:
    """A complete JSON answer, gzip-ed on demand."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    gzip: bool = False


@dataclass(frozen=True)
class Stream:
    """A chunked answer, one HTTP chunk for each of ``chunks``.

    Args:
        chunks: what to send, in order.
        delay: seconds to wait before each chunk but the first.
        gates: an event to wait for before the chunk of that index; negative indices count from the end. A client that
            opens the gate of chunk 1 after it has read chunk 0 proves that nobody held the stream back.
        cut_after: close the connection abruptly after so many chunks, without the terminating chunk.
    """

    chunks: Sequence[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream"
    delay: float = 0.0
    gates: Mapping[int, threading.Event] = field(default_factory=dict)
    cut_after: int | None = None

    def __post_init__(self) -> None:
        count = len(self.chunks)
        if bad := [index for index in self.gates if not -count <= index < count]:
            raise ValueError(f"gates {bad} are outside of {count} chunks")
        if self.cut_after is not None and not 0 <= self.cut_after <= count:
            raise ValueError(f"cut_after={self.cut_after} is outside of {count} chunks")


@dataclass(frozen=True)
class Hang:
    """Say nothing until ``until`` is set, the client leaves or the server closes; then close without an answer."""

    until: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Reset:
    """Reset the connection (TCP RST) instead of answering."""


Reply = Json | Raw | Stream | Hang | Reset
Script = Callable[[Request], Reply]


def sse(
    *events: str,
    delay: float = 0.0,
    gates: Mapping[int, threading.Event] | None = None,
    cut_after: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Stream:
    """A stream of server-sent events, one chunk each; an event is its lines, without the blank line at its end."""
    chunks = [f"{event}\n\n".encode() for event in events]
    return Stream(chunks, delay=delay, gates=gates or {}, cut_after=cut_after, headers=headers or {})


def too_many_requests(*, retry_after: str = "0") -> Json:
    """429 as OpenAI and Anthropic word it; the SDKs try again after ``retry_after`` seconds."""
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down", "code": "rate_limit"}}
    return Json(body, status=429, headers={"retry-after": retry_after})


def server_error(message: str = "the model is on fire") -> Json:
    """500 as OpenAI and Anthropic word it."""
    return Json({"type": "error", "error": {"type": "api_error", "message": message}}, status=500)


def in_turn(*replies: Reply) -> Script:
    """A script that gives each reply once, in the order in which requests arrive."""
    left = deque(replies)

    def script(request: Request) -> Reply:
        try:
            return left.popleft()
        except IndexError:
            raise LookupError(f"all {len(replies)} scripted replies have been given") from None

    return script


def closed_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do: a connection is made before the server has accepted it."""
    for _ in range(2_000):
        if holds():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come about")


class ModelServer:
    """A threaded HTTP/1.1 server with keep-alive, driven by a script.

    Args:
        script: from request to reply; may be set later with ``script``. It is called in the connection's thread.
        port: port to listen on; 0 takes a free one.

    Attributes:
        requests: what arrived, in order.
        connections: how many TCP connections were accepted.
        hung_up: how many replies the client did not stay for.
        faults: what went wrong inside the server; leaving the ``with`` block raises them.
    """

    def __init__(self, script: Script | None = None, *, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.hung_up = 0
        self.faults: list[str] = []
        self._script = script or _nothing_scripted
        self._wanted_port = port
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._sockets: dict[threading.Thread, socket.socket] = {}

    def __enter__(self) -> ModelServer:
        self._http = _Http(("127.0.0.1", self._wanted_port), self)
        self.port = int(self._http.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._acceptor = threading.Thread(target=self._http.serve_forever, args=(_TICK,), name=f"server {self.port}")
        self._acceptor.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if error is None and self.faults:
            raise AssertionError("model server: " + "\n".join(self.faults))

    def script(self, script: Script) -> None:
        """Answer by this script from now on."""
        self._script = script

    def close(self) -> None:
        """Stop listening, cut what is still open and join every thread. May be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._http.shutdown()
        self._acceptor.join(PATIENCE)
        self._http.server_close()
        with self._lock:
            open_now = dict(self._sockets)
        for connection in open_now.values():
            _shut(connection)
        for thread in [self._acceptor, *open_now]:
            thread.join(PATIENCE)
            if thread.is_alive():
                self.faults.append(f"{thread.name} did not end within {PATIENCE:g} s")

    def _connected(self, connection: socket.socket, serve: Callable[[], None]) -> None:
        def run() -> None:
            try:
                serve()
            finally:
                with self._lock:
                    del self._sockets[threading.current_thread()]

        thread = threading.Thread(target=run, name=f"server {self.port} connection")
        with self._lock:
            self.connections += 1
            self._sockets[thread] = connection
        thread.start()

    def _answer(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            script = self._script
        try:
            return script(request)
        except Exception as error:  # noqa: BLE001 - whatever a script raises is reported by `__exit__`
            self._fault("".join(traceback.format_exception(error)))
            # 400: the SDKs would retry a 500, and the test would wait for it.
            return Json({"error": {"message": f"script failed: {error}", "type": "script"}}, status=400)

    def _left(self) -> None:
        if not self._closing.is_set():
            with self._lock:
                self.hung_up += 1

    def _fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)

    def _wait(self, event: threading.Event, *, connection: socket.socket) -> None:
        """Wait for ``event``.

        Raises:
            ConnectionError: the client left, the server closes, or patience ran out (which is a fault).
        """
        deadline = time.monotonic() + PATIENCE
        while not event.wait(_TICK):
            if self._closing.is_set() or _gone(connection):
                raise ConnectionAbortedError("nobody is waiting any more")
            if time.monotonic() > deadline:
                self._fault(f"an event was not set within {PATIENCE:g} s")
                raise ConnectionAbortedError("out of patience")


class CountingListener:
    """Listens, counts the connections and closes each at once; it never speaks.

    Put it on the port of a server that has gone, to prove that nobody calls there any more.
    """

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._wanted_port = port
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._count = 0

    def __enter__(self) -> CountingListener:
        try:
            self._socket.bind(("127.0.0.1", self._wanted_port))
        except OSError:
            self._socket.close()
            raise
        self._socket.listen(128)
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, name=f"listener {self.port}")
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        self._drain()
        self._socket.close()

    @property
    def connections(self) -> int:
        """Connections so far, those that wait in the kernel's queue included."""
        with self._lock:
            if self._socket.fileno() != -1:
                self._drain_locked()
            return self._count

    def _run(self) -> None:
        while not self._stop.wait(_TICK):
            self._drain()

    def _drain(self) -> None:
        with self._lock:
            self._drain_locked()

    def _drain_locked(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            connection.close()
            self._count += 1


class _Http(HTTPServer):
    """Accepts connections and hands each to a thread that the owner knows and joins."""

    request_queue_size = 128
    allow_reuse_address = True
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], owner: ModelServer) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host name up, which can take seconds where there is no DNS.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        def serve() -> None:
            try:
                self.finish_request(request, client_address)
            except ConnectionError:
                pass  # An idle connection was reset; a reply that nobody stayed for is counted in `_serve`.
            finally:
                self.shutdown_request(request)

        self.owner._connected(request, serve)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, *args: Any) -> None:
        """Stay silent; what arrived is in ``ModelServer.requests``."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        data = self.rfile.read(int(headers.get("content-length", 0)))
        reply = self.server.owner._answer(Request(self.command, self.path, headers, _decoded(data)))
        try:
            self._send(reply)
        except ConnectionError:
            self.server.owner._left()
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the names that http.server looks for

    def _send(self, reply: Reply) -> None:
        if isinstance(reply, Json):
            self._whole(json.dumps(reply.body).encode(), "application/json", reply)
        elif isinstance(reply, Raw):
            self._whole(reply.body, reply.content_type, reply)
        elif isinstance(reply, Stream):
            self._stream(reply)
        elif isinstance(reply, Hang):
            self.server.owner._wait(reply.until, connection=self.connection)
            self.close_connection = True
        else:
            self._reset()

    def _whole(self, body: bytes, content_type: str, reply: Json | Raw) -> None:
        head = {"content-type": content_type, **reply.headers}
        if reply.gzip:
            # mtime=0: the same answer is the same bytes.
            body = gzip.compress(body, mtime=0)
            head["content-encoding"] = "gzip"
        self._head(reply.status, {**head, "content-length": str(len(body))})
        self.wfile.write(body)

    def _stream(self, reply: Stream) -> None:
        self._head(reply.status, {"content-type": reply.content_type, **reply.headers, "transfer-encoding": "chunked"})
        gates = {index % len(reply.chunks): gate for index, gate in reply.gates.items()}
        for index, chunk in enumerate(reply.chunks):
            if index == reply.cut_after:
                self.close_connection = True
                return
            if index and reply.delay:
                time.sleep(min(reply.delay, PATIENCE))
            if index in gates:
                self.server.owner._wait(gates[index], connection=self.connection)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if reply.cut_after is not None:
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _reset(self) -> None:
        # A linger of zero makes close() send RST instead of FIN; the file objects would keep the socket open.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
        self.close_connection = True


def _nothing_scripted(request: Request) -> Reply:
    raise LookupError(f"nothing is scripted for {request.method} {request.path}")


def _decoded(data: bytes) -> Any:
    if not data:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def _gone(connection: socket.socket) -> bool:
    """Whether the client has closed its end; a client that waits for an answer sends nothing, so a peek tells."""
    try:
        # The socket has a timeout, with which even MSG_DONTWAIT would wait: ask first.
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # The client was faster.
