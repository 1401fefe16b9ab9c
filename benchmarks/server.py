"""A model's API on loopback that answers in the order of a corpus, whoever asks what."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from .corpora import Exchange


@contextmanager
def serving(corpus: Sequence[Exchange]) -> Iterator[str]:
    """The URL of a server that gives the answers of a corpus, one after another."""
    answers = iter(corpus)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # an answer is two writes: the second would wait 40 ms for the client to confirm

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            exchange = next(answers)
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if exchange.streamed else "application/json")
            self.send_header("content-length", str(len(exchange.answer)))
            self.end_headers()
            self.wfile.write(exchange.answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
