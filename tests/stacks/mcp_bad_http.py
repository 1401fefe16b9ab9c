"""MCP over HTTP by hand: a server in threads of this process that answers, streams, drops and resumes as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mcp_bad_server import answer, said, told

Request = dict[str, Any]


class Peer(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: HttpServer

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def json(self, message: Any, *, status: int = 200, kind: str = "application/json") -> None:
        """Answer with one message."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("mcp-session-id", "session-5f8e2c71a9d34b60")
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        """Answer with a stream that ends when the connection does."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, message: Any, *, id_: str = "") -> None:
        """One event of the stream; no message only tells its id."""
        data = "" if message is None else json.dumps(message)
        self.wfile.write((f"id: {id_}\nretry: 50\n" if id_ else "").encode() + f"data: {data}\n\n".encode())
        self.wfile.flush()

    def do_POST(self) -> None:
        """A message of the client's."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.heard.append(f"{self.command} {request.get('method')}")
        if "id" not in request:
            self.json(b"", status=202)
        elif request["method"] == "initialize":
            about = {"name": "bad", "version": "1"}
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
            self.json(answer(request, result))
        elif request["method"] == "tools/call":
            WAYS[self.server.how](self, request)
        else:
            self.json(answer(request, {"tools": []}))

    def do_GET(self) -> None:
        """The client listens, or resumes."""
        last = self.headers.get("last-event-id")
        self.server.heard.append(f"GET {last}")
        how = self.server.how
        if how == "resumes" and last == "e1":
            self.begin()
            self.event(answer({"id": self.server.interrupted}, said("resumed")), id_="e2")
        elif how == "stays_open":
            self.begin()
            self.event(told("you are heard"))
            self.server.over.wait(30)
        elif how == "hangs_up":
            self.begin()
            self.event(told(f"once more, after {last}"), id_="g1")
        else:
            self.json(b"", status=405)

    def do_DELETE(self) -> None:
        """The client ends the session."""
        self.server.heard.append("DELETE")
        self.json(b"")


def works(peer: Peer, request: Request) -> None:
    peer.json(answer(request, said("fine")))


def resumes(peer: Peer, request: Request) -> None:
    peer.server.interrupted = request["id"]
    peer.begin()
    peer.event(None, id_="e1")


def drops(peer: Peer, request: Request) -> None:
    peer.begin()
    peer.wfile.write(b'data: {"jsonrpc": "2.0", "id"')


def twice(peer: Peer, request: Request) -> None:
    peer.begin()
    peer.event(told("before"))
    peer.event(answer({"id": 4711}, said("for nobody")))
    peer.event(answer(request, said("first")))
    peer.event(answer(request, said("second")))


def fails(peer: Peer, request: Request) -> None:
    peer.json({"error": "database is gone"}, status=500)


def forbids(peer: Peer, request: Request) -> None:
    peer.json({"error": "who are you"}, status=401)


def forgets(peer: Peer, request: Request) -> None:
    peer.json(b"", status=404)


def talks_html(peer: Peer, request: Request) -> None:
    peer.json(b"<html>Welcome to nginx</html>", kind="text/html")


def garbage(peer: Peer, request: Request) -> None:
    peer.json(b'{"jsonrpc": "2.0", "id')


def hangs(peer: Peer, request: Request) -> None:
    peer.server.over.wait(30)
    peer.close_connection = True


WAYS: dict[str, Callable[[Peer, Request], None]] = {
    **{f.__name__: f for f in (works, resumes, drops, twice, fails, forbids, forgets, talks_html, garbage, hangs)},
    "stays_open": works,
    "hangs_up": works,
}


class HttpServer(ThreadingHTTPServer):
    """Serves on a port of its own, in threads, from when it is made until it is closed.

    Args:
        how: one of ``WAYS``.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, how: str) -> None:
        super().__init__(("127.0.0.1", 0), Peer)
        self.how = how
        self.heard: list[str] = []
        self.interrupted: Any = None
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of our worries."""

    def close(self) -> None:
        """Let go of everybody."""
        self.over.set()
        self.shutdown()
        self.server_close()
