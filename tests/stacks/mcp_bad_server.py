"""An MCP server that behaves badly, written without the SDK, which would not let it.

    python mcp_bad_server.py HOW

HOW names one of the functions in ``WAYS``: what it does when a tool is called. Otherwise it is a server like others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Request = dict[str, Any]


def said(text: str) -> dict[str, Any]:
    """The result of a tool that gives text."""
    return {"content": [{"type": "text", "text": text}]}


def answer(request: Request, result: Any) -> dict[str, Any]:
    """The message that answers a request."""
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


def send(*messages: Any) -> None:
    """Write messages, a line each; text goes out as it is."""
    for message in messages:
        sys.stdout.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
    sys.stdout.flush()


def told(text: str) -> dict[str, Any]:
    """A line of the server's log."""
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}}


def works(request: Request) -> None:
    sys.stderr.write(f"called {request['params']['name']}\n")
    sys.stderr.flush()
    send(answer(request, said("fine")))


def counts(request: Request) -> None:
    _waiting.append(request)
    send(answer(request, said(f"call {len(_waiting)} of process {os.getpid()}")))


def dies(request: Request) -> None:
    sys.stderr.write("out of memory\n")
    sys.stderr.flush()
    os._exit(3)


def half(request: Request) -> None:
    whole = json.dumps(answer(request, said("never whole")))
    sys.stdout.write(whole[: len(whole) // 2])
    sys.stdout.flush()
    os._exit(0)


def twice(request: Request) -> None:
    send(answer(request, said("first")), answer(request, said("second")))


def unknown(request: Request) -> None:
    send(answer({"id": 4711}, said("for nobody")), answer({"id": None}, said("x")), answer(request, said("fine")))


_waiting: list[Request] = []


def out_of_order(request: Request) -> None:
    _waiting.append(request)
    if len(_waiting) == 3:
        for one in reversed(_waiting):
            send(answer(one, said(f"number {one['params']['arguments']['number']}")))
        _waiting.clear()


def garbage(request: Request) -> None:
    send(
        "Loading model, please wait",
        "",
        "{",
        "null",
        "[]",
        '{"jsonrpc": "2.0"}',
        "\x00\x07",
        answer(request, said("ok")),
    )


def floods_stderr(request: Request) -> None:
    for _ in range(8):
        os.write(2, b"DEBUG everything is fine, really\n" * 32_768)
    send(answer(request, said("fine")))


def floods_stdout(request: Request) -> None:
    send(*(told(f"line {number}") for number in range(2_000)), answer(request, said("fine")))


def huge(request: Request) -> None:
    send(answer(request, said("gold " * 1_000_000)))


def blob(request: Request) -> None:
    picture = {"type": "image", "data": "iVBORw0KGgo=" * 1000, "mimeType": "image/png"}
    contents = {"uri": "shop://logo", "mimeType": "application/octet-stream", "blob": "AAECAwT/"}
    result = {"content": [said("see")["content"][0], picture, {"type": "resource", "resource": contents}]}
    send(answer(request, result))


def odd_fields(request: Request) -> None:
    result = {
        **said("fine"),
        "structuredContent": {"nothing": None, "b": 1, "a": 2},
        "isError": False,
        "_meta": {"x": None},
    }
    send(answer(request, {**result, "neverHeardOf": [None, {"really": True}]}))


def odd_numbers(request: Request) -> None:
    deep: Any = "bottom"
    for _ in range(60):
        deep = {"down": [deep]}
    values = {"big": 2**60, "bigger": 2**70, "small": -(2**63), "float": 1e308, "tiny": 5e-324, "deep": deep}
    send(answer(request, {**said("fine"), "structuredContent": values}))


def not_a_number(request: Request) -> None:
    send(json.dumps(answer(request, {"content": [], "structuredContent": {"price": float("nan")}})))


def surrogate(request: Request) -> None:
    send(json.dumps(answer(request, said("\ud83d"))))


def hangs(request: Request) -> None:
    """Say nothing."""


def cancels(request: Request) -> None:
    cancelled = {"requestId": request["id"], "reason": "busy"}
    send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})
    send({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32800, "message": "given up", "data": None}})


def progress_after_the_answer(request: Request) -> None:
    token = request["params"].get("_meta", {}).get("progressToken", 1)
    early, late = (
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": number}}
        for number in (1, 2)
    )
    send(early, answer(request, said("fine")), late, told("afterwards"))


def asks_and_withdraws(request: Request) -> None:
    params = {"messages": [{"role": "user", "content": {"type": "text", "text": "slow"}}], "maxTokens": 5}
    send({"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": params})
    time.sleep(0.3)
    send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "s1"}})
    send(answer(request, said("never mind")))


def asks_what_nobody_knows(request: Request) -> None:
    send({"jsonrpc": "2.0", "id": "q1", "method": "weather/get", "params": {}})
    send(answer(request, said("fine")))


def echoes(request: Request) -> None:
    """Tell everybody what was on the command line and in the environment."""
    everything = " ".join([*sys.argv, *(f"{key}={value}" for key, value in os.environ.items() if "KEY" in key)])
    sys.stderr.write(f"started as {everything}\n")
    sys.stderr.flush()
    send(told(everything))
    error = {"code": -32000, "message": f"refused: {everything}", "data": {"said": [everything]}}
    send({"jsonrpc": "2.0", "id": request["id"], "error": error})


def page(cursor: str | None) -> dict[str, Any]:
    """One of three pages of tools."""
    number = int((cursor or "page-0").removeprefix("page-"))
    found = {"tools": [{"name": f"tool {number}", "inputSchema": {"type": "object"}}]}
    return found if number == 2 else {**found, "nextCursor": f"page-{number + 1}"}


WAYS: dict[str, Callable[[Request], None]] = {
    function.__name__: function
    for function in (
        works, counts, dies, half, twice, unknown, out_of_order, garbage, floods_stderr, floods_stdout, huge, blob,
        odd_fields, odd_numbers, not_a_number, surrogate, hangs, cancels, progress_after_the_answer, asks_and_withdraws,
        asks_what_nobody_knows, echoes,
    )
}  # fmt: skip


def main(how: str, *rest: str) -> None:
    """Serve until nobody listens any more."""
    if how == "dead":
        sys.stderr.write("no licence\n")
        sys.exit(3)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        request = json.loads(line)
        method = request.get("method")
        if method == "initialize" and how != "mute":
            about = {"name": how, "version": "1"}
            send(answer(request, {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}))
        elif method == "tools/list" and how == "pages":
            send(answer(request, page(request["params"].get("cursor") if request.get("params") else None)))
        elif method == "tools/list":
            send(answer(request, {"tools": [{"name": "tool", "inputSchema": {"type": "object"}}]}))
        elif method == "tools/call":
            WAYS.get(how, works)(request)
        elif "id" in request and method is not None and method != "initialize":
            send({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": f"no {method}"}})
    if how == "stubborn":
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
