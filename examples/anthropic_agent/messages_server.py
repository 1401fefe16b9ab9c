"""A stand-in for the model, so that this example needs no key and no network.

It speaks the messages API on loopback and decides by reading the conversation: search the manual for a word that it
knows, open a ticket if there is none or nothing was found, then answer with what the tools said. The same conversation
always gets the same answer, byte for byte.

As a program (stop it with Ctrl-C)::

    python messages_server.py --port 0

In Python::

    with MessagesServer() as server:
        print(server.url)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOPICS = ("descale", "warranty", "grinder")


def reply(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the model says next: blocks of text and of tool use."""
    question = messages[0]["content"]
    results = [
        block["content"]
        for message in messages
        if message["role"] == "user" and isinstance(message["content"], list)
        for block in message["content"]
    ]
    topic = next((word for word in TOPICS if word in question.lower()), None)

    if not results and topic:
        return [_says("Let me look. "), _uses("search_manual", {"topic": topic})]
    if not results or results[-1] == "nothing found":
        return [_uses("open_ticket", {"summary": question})]
    if results[-1] == "ticket opened":
        return [_says("I could not find that, so a colleague will get in touch.")]
    return [_says(results[-1])]


def message(request: dict[str, Any]) -> dict[str, Any]:
    """The whole answer to a request."""
    blocks = reply(request["messages"])
    return {**_frame(request), "content": blocks, "stop_reason": _stop_reason(blocks)}


def events(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same answer for ``stream=True``: text word by word, the input of a tool in one piece."""
    blocks = reply(request["messages"])
    yield {"type": "message_start", "message": {**_frame(request), "content": [], "stop_reason": None}}
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            empty: dict[str, Any] = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in re.findall(r"\S+\s*", block["text"])]
        else:
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": _stop_reason(blocks), "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 20}}
    yield {"type": "message_stop"}


class MessagesServer:
    """Serves on 127.0.0.1 while its ``with`` block runs.

    Args:
        port: 0 takes a free one; ``url`` says which.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """What ``ANTHROPIC_BASE_URL`` should be."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> MessagesServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # Closing the server waits for the answers under way.


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0, the default: the end of the connection is the end of the answer, which keeps streaming simple.
    timeout = 5

    def do_POST(self) -> None:
        """Answer one request, streamed if it asks for that."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.partition("?")[0] != "/v1/messages":
            self.send_error(404, "this stand-in only knows /v1/messages")
        elif request.get("stream"):
            self._start("text/event-stream")
            for event in events(request):
                self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        else:
            self._start("application/json")
            self.wfile.write(json.dumps(message(request)).encode())

    def log_message(self, *args: object) -> None:
        """Keep the terminal for pytest."""

    def _start(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.end_headers()


def _says(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _uses(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": arguments}


def _stop_reason(blocks: list[dict[str, Any]]) -> str:
    return "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"


def _frame(request: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return {
        "id": f"msg_{digest[:12]}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 20},
    }


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A scripted messages server on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 (the default) takes a free one")
    with MessagesServer(port=parser.parse_args().port) as server:
        print(f"export ANTHROPIC_BASE_URL={server.url} ANTHROPIC_API_KEY=example DESK_TICKETS=tickets.txt", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    main()
