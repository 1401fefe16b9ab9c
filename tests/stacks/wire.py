"""A loopback server whose answers are written byte by byte, for what a well-behaved server would never say.

A script takes a ``Seen`` and gives the pieces to send; a ``threading.Event`` among them is waited for, ``CLOSE`` closes
the connection, and otherwise it is kept alive. Every wait is bounded, and leaving the ``with`` block joins all threads.
``on_wire`` is a fixture: a module that imports it can have such a server where the model of its proof was.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, NamedTuple, cast

import pytest

from proof import Proof
from servers import ModelServer

PATIENCE = 10.0
CLOSE = object()


class Seen(NamedTuple):
    """A request as it arrived; header names are in lower case, a body in chunks is joined."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[Seen], Sequence[Any]]


def whole(body: bytes, *headers: str, status: str = "200 OK") -> list[bytes]:
    """An answer with a length; headers as ``name: value``."""
    lines = [f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}", "", ""]
    return ["\r\n".join(lines).encode() + body]


def chunked(*chunks: bytes, headers: Sequence[str] = ("content-type: text/event-stream",)) -> list[bytes]:
    """An answer in transfer chunks."""
    head = "\r\n".join(["HTTP/1.1 200 OK", *headers, "transfer-encoding: chunked", "", ""]).encode()
    return [head, *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"]


class WireServer:
    """Serves a script on 127.0.0.1, in plain or, with a context, in TLS.

    Attributes:
        seen: what arrived, in order.
        connections: how many connections were accepted.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.connections = 0
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> WireServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and cut what is open. May be called twice."""
        for one in (self._listener, *self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            connection.settimeout(PATIENCE)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with self._tls.wrap_socket(connection, server_side=True) if self._tls else connection as talking:
                talking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with talking.makefile("rb") as incoming:
                    while (seen := _read(incoming)) is not None:
                        self.seen.append(seen)
                        if not self._answer(talking, seen):
                            return
        except OSError:
            return  # whoever asked has left

    def _answer(self, talking: socket.socket, seen: Seen) -> bool:
        for piece in self.script(seen):
            if piece is CLOSE:
                return False
            if isinstance(piece, threading.Event):
                assert piece.wait(PATIENCE), "nobody opened the gate"
            else:
                talking.sendall(piece)
        return True


OnWire = Callable[[Script], WireServer]


@pytest.fixture
def on_wire(proof: Proof) -> Iterator[OnWire]:
    """Puts a server of bytes in the place of the model."""
    with ExitStack() as servers:

        def serve(script: Script) -> WireServer:
            server = servers.enter_context(WireServer(script))
            proof.server.close()
            proof.server = cast("ModelServer", server)
            return server

        yield serve


def failure(step: Callable[[], Any]) -> str:
    """What a step raises, in full."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 - compared by the caller
        return f"{error!r} {error}"
    raise AssertionError("nothing was raised")


def _read(incoming: BinaryIO) -> Seen | None:
    first = incoming.readline().decode("latin-1").split()
    if not first:
        return None
    headers = {}
    while line := incoming.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", 0)))
    if headers.get("transfer-encoding") == "chunked":
        while size := int(incoming.readline(), 16):
            body += incoming.read(size)
            incoming.readline()
        incoming.readline()
    return Seen(first[0], first[1], headers, body)
