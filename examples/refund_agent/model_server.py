"""A stand-in for the model, so that this example needs no key and no network.

It speaks the chat completions API on loopback and decides by reading the conversation: look up every order that the
customer names, refund those that were delivered if that is what was asked, then say what was done. The same
conversation always gets the same answer, byte for byte.

As a program (stop it with Ctrl-C)::

    python model_server.py --port 0

In Python::

    with ModelServer() as server:
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


def reply(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What the model says next: an assistant message with text or with tool calls."""
    question = next(message["content"] for message in reversed(messages) if message["role"] == "user")
    orders = re.findall(r"\d{4}", question)
    results = [json.loads(message["content"]) for message in messages if message["role"] == "tool"]
    found = [result for result in results if "state" in result]
    refunded = [result for result in results if "refunded" in result]

    if not orders:
        return _says("We are open from nine to five, and refunds take three working days.")
    if not found:
        return _calls("lookup_order", [{"order_id": order} for order in orders])
    refundable = [order for order in found if order["state"] == "delivered"]
    if "refund" in question.lower() and refundable and not refunded:
        amounts = [{"order_id": order["order_id"], "amount": order["price"]} for order in refundable]
        return _calls("refund_order", amounts)
    done = [f"order {item['order_id']} is refunded ({item['refunded']:.2f})" for item in refunded]
    left = [f"order {item['order_id']} is {item['state']}" for item in found if item not in refundable or not refunded]
    return _says(f"Your {' and '.join(done + left)}.")


def completion(request: dict[str, Any]) -> dict[str, Any]:
    """The whole answer to a request."""
    message = reply(request["messages"])
    finish = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return {**_frame(request, "chat.completion"), "choices": [choice], "usage": usage}


def chunks(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same answer for ``stream=True``: text word by word, each tool call in one piece."""
    message = reply(request["messages"])
    words = re.findall(r"\s*\S+", message["content"] or "")
    calls = [{"index": index, **call} for index, call in enumerate(message.get("tool_calls", []))]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in words] + [{"tool_calls": [call]} for call in calls]
    frame = _frame(request, "chat.completion.chunk")
    for delta in deltas:
        yield {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]}


class ModelServer:
    """Serves on 127.0.0.1 while its ``with`` block runs.

    Args:
        port: 0 takes a free one; ``url`` says which.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """What ``OPENAI_BASE_URL`` should be."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> ModelServer:
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
        if self.path != "/v1/chat/completions":
            self.send_error(404, "this stand-in only knows /v1/chat/completions")
        elif request.get("stream"):
            self._start("text/event-stream")
            for chunk in chunks(request):
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            self._start("application/json")
            self.wfile.write(json.dumps(completion(request)).encode())

    def log_message(self, *args: object) -> None:
        """Keep the terminal for pytest."""

    def _start(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.end_headers()


def _says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _calls(name: str, arguments: list[dict[str, Any]]) -> dict[str, Any]:
    calls = [
        {
            "id": f"call_{name}_{item['order_id']}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(item)},
        }
        for item in arguments
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _frame(request: dict[str, Any], kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return {"id": f"chatcmpl-{digest[:12]}", "object": kind, "created": 1_760_000_000, "model": request["model"]}


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A scripted chat completions server on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 (the default) takes a free one")
    with ModelServer(port=parser.parse_args().port) as server:
        print(f"export OPENAI_BASE_URL={server.url} OPENAI_API_KEY=example SHOP_LEDGER=ledger.txt", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    main()
