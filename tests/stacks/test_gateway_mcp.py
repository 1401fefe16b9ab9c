"""MCP through the gateway: the real client in a child process, the real server in another one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import PATIENCE, breaks, holds, notes, python, run

from proof import Proof, Stack
from pytest_spanchain import UsageError
from pytest_spanchain.boundaries import _wait
from pytest_spanchain.gateway import Gateway
from servers import Hang, Json, Raw, Reply, Request, Reset, Stream, closed_port

pytest.importorskip("mcp.server.mcpserver")  # 2.x

STACK = Stack(
    name="gateway, MCP",
    dists=("mcp", "starlette", "uvicorn"),
    records="MCP over streamable HTTP of a child process in any language, message by message, with what the server"
    " asks of the client",
    limits=(
        "The gateway speaks streamable HTTP only; servers that a child starts itself (stdio) start again in replay.",
        "Streams of the gateway's MCP servers that are resumed by `last-event-id`, and batches, are not recorded.",
        "Opening a stream and ending a session are no messages: the gateway does not compare them.",
    ),
)

SERVER = """
import os, sys
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

server = MCPServer("shop")

class Sure(BaseModel):
    sure: bool

@server.tool()
async def add(a: int, b: int, ctx: Context) -> int:
    with open(os.environ["AGENT_LEDGER"], "a") as ledger:
        ledger.write(f"add {a} {b}\\n")
    await ctx.report_progress(1, 2, "half")
    await ctx.info("adding")
    return a + b

@server.tool()
async def ask(question: str, ctx: Context) -> str:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    said = await ctx.session.create_message([message], max_tokens=9)
    sure = await ctx.elicit("sure?", Sure)
    return f"{said.content.text} {sure.action}"

@server.tool()
async def shout(ctx: Context) -> str:
    await ctx.session.send_tool_list_changed()
    return "loud"

@server.tool()
async def fail() -> str:
    raise ValueError("no luck")

server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
"""

CLIENT = """
import asyncio, sys
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client

heard = []

async def sample(context, params):
    said = types.TextContent(type="text", text="sampled " + params.messages[0].content.text)
    return types.CreateMessageResult(role="assistant", content=said, model="m")

async def elicit(context, params):
    return types.ElicitResult(action="accept", content={"sure": True})

async def hear(message):
    heard.append(type(message).__name__)

async def progress(*told):
    heard.append(told)

async def main():
    handlers = {"sampling_callback": sample, "elicitation_callback": elicit, "message_handler": hear}
    async with streamable_http_client(sys.argv[1]) as streams, ClientSession(*streams[:2], **handlers) as session:
        await session.initialize()
        print(sorted(tool.name for tool in (await session.list_tools()).tools))
        called = await session.call_tool("add", {"a": 2, "b": 3}, progress_callback=progress)
        print(called.content[0].text)
        print((await session.call_tool("ask", {"question": "why"})).content[0].text)
        print((await session.call_tool("shout", {})).content[0].text)
        while "ToolListChangedNotification" not in heard:  # by the stream that the client has opened
            await asyncio.sleep(0.01)
        print((await session.call_tool("fail", {})).content[0].text)
        try:
            await session.read_resource("x://none")
        except Exception as error:
            print(type(error).__name__, error)
    print(heard)

asyncio.run(asyncio.wait_for(main(), 40))
"""


@pytest.fixture
def shop(proof: Proof) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real server in a process of its own."""
    port = closed_port()
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stderr=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.terminate()
        process.wait()


def test_the_real_client_and_the_real_server(shop: tuple[str, subprocess.Popen[bytes]], proof: Proof) -> None:
    url, server = shop

    def client(source: str) -> Any:
        def work(opened: Gateway) -> str:
            command = [sys.executable, "-c", source, opened.mcp("shop", url)]
            done = subprocess.run(
                command, env=opened.env, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        return work

    recorded = run(proof.cassette, client(CLIENT), mode="rewrite")
    assert recorded.raised is None
    assert recorded.failure is None
    assert not notes(recorded)
    assert "sampled why accept" in recorded.value
    spans = [(span.name, span.kind) for span in recorded.verdict.live or ()][1:]
    assert spans == [
        ("initialize", "mcp"),
        ("notifications/initialized", "mcp"),
        ("tools/list", "mcp"),
        ("tools/call add", "mcp"),
        ("tools/call ask", "mcp"),
        ("sampling/createMessage", "callback"),
        ("elicitation/create", "callback"),
        ("tools/call shout", "mcp"),
        ("tools/call fail", "mcp"),
        ("resources/read", "mcp"),
    ]
    server.terminate()
    server.wait()
    ran = proof.ran
    assert ran == ["add 2 3"]
    again = run(proof.cassette, client(CLIENT))
    assert (again.raised, again.failure, again.value) == (None, None, recorded.value)
    changed = run(proof.cassette, client(CLIENT.replace('"sampled "', '"tasted "')))
    assert [(cause.kind, cause.path[-1]) for cause in changed.causes] == [("output_changed", "sampling/createMessage")]
    assert proof.ran == ran


# --- by hand ---------------------------------------------------------------------------------------------------------

TALK = """
URL, SESSION = sys.argv[1], {}

def rpc(method, params=None, id=None, **more):
    body = {"jsonrpc": "2.0", "method": method, **({"id": id} if id is not None else {}), **more}
    return ask(URL, {**body, **({"params": params} if params is not None else {})}, **SESSION)

def start():
    return rpc("initialize", {"protocolVersion": "2025-11-25"}, 1)
"""


def talk(source: str, proof: Proof) -> Any:
    """A client by hand, of a server that is a script."""

    def work(opened: Gateway) -> Any:
        return python(TALK + source, opened.mcp("shop", f"{proof.server.url}/mcp"))(opened)

    return work


def mcp_server(*, answers: dict[str, Any]) -> Any:
    """A script of an MCP server: results, or replies, by method."""

    def script(request: Request) -> Reply:
        found = answers.get(request.body["method"], {})
        if isinstance(found, (Json, Raw, Stream, Hang, Reset)):
            return found
        if "id" not in request.body:
            return Raw(b"", status=202)
        return Json({"jsonrpc": "2.0", "id": request.body["id"], "result": found})

    return script


def test_ids_are_the_live_ones(proof: Proof) -> None:
    proof.server.script(mcp_server(answers={"tools/call": {"z": 1, "a": 2}}))
    source = """
start()
for number in (os.getpid(), "text", 0):
    status, said = rpc("tools/call", {"name": "x", "_meta": {"progressToken": time.time()}}, number)
    assert json.loads(said)["id"] == number
    print(list(json.loads(said)["result"]))
"""
    assert holds(proof, talk(source, proof), replays=1).value == "['z', 'a']\n" * 3
    changed = breaks(proof, talk(source.replace('"name": "x"', '"name": "x", "arguments": {}'), proof))
    assert {cause.kind for cause in changed.causes} == {"input_changed"}


def test_a_call_that_was_not_recorded_is_an_error_of_json_rpc(proof: Proof) -> None:
    proof.server.script(mcp_server(answers={}))
    source = "start(); print(rpc('ping', None, 2))"
    holds(proof, talk(source, proof), replays=1)
    more = breaks(proof, talk(source + "; print(rpc('tools/call', {'name': 'x'}, 3)[1])", proof))
    said = json.loads(more.value.splitlines()[-1])
    assert said["id"] == 3
    assert "nothing recorded for tools/call x" in said["error"]["message"]
    assert [cause.kind for cause in more.causes] == ["span_added"]


def test_the_open_stream_has_its_messages_after_what_preceded_them(proof: Proof) -> None:
    gates = [threading.Event(), threading.Event()]
    frame = 'data: {"jsonrpc": "2.0", "method": "notifications/%s/list_changed"}\n\n'
    told = [(frame % what).encode() for what in ("tools", "prompts")]
    calls = iter(gates)

    def script(request: Request) -> Reply:
        if request.method == "GET":
            return Stream([b": open\n\n", *told], gates={1: gates[0], 2: gates[1]})
        if request.body["method"] == "tools/call":
            next(calls).set()
        return Json({"jsonrpc": "2.0", "id": request.body["id"], "result": {}})

    proof.server.script(script)
    source = """
start()
heard = []
def listen():
    with urllib.request.urlopen(URL) as stream:
        for line in stream:
            if line.startswith(b"data"):
                heard.append(json.loads(line[5:])["method"])
                if len(heard) == 2:
                    return
listening = threading.Thread(target=listen)
listening.start()
for number in (1, 2):
    time.sleep(0.3)
    print(heard)
    rpc("tools/call", {"name": "x", "arguments": {"n": number}}, number + 1)
    while len(heard) < number:
        time.sleep(0.01)
listening.join()
print(heard)
"""
    recorded = holds(proof, talk(source, proof), replays=2)
    tools, prompts = (f"notifications/{what}/list_changed" for what in ("tools", "prompts"))
    assert recorded.value == f"[]\n{[tools]}\n{[tools, prompts]}\n"


@pytest.mark.parametrize(
    ("reply", "seen"),
    [
        (Reset(), ["RemoteDisconnected", ""]),
        (Json({"no": 1}, status=500), [500, '{"no": 1}']),
        (Stream([b'data: {"jsonrpc"'], cut_after=1), ["IncompleteRead", 'data: {"jsonrpc"']),
        (Raw(b"what?", content_type="text/plain"), ["RemoteDisconnected", ""]),
    ],
    ids=["reset", "500", "half a frame", "garbage"],
)
def test_servers_that_fail(reply: Reply, seen: list[Any], proof: Proof) -> None:
    """What the client of a replay sees of half a frame is a connection that is dropped, without the half."""
    proof.server.script(mcp_server(answers={"tools/call": reply}))
    work = talk("start(); print(json.dumps(rpc('tools/call', {'name': 'x'}, 2)))", proof)
    recorded = run(proof.cassette, work, mode="rewrite")
    assert recorded.failure is None
    assert json.loads(recorded.value) == seen
    proof.take_down()
    again = run(proof.cassette, work)
    assert again.failure is None
    half = seen[0] == "IncompleteRead"
    assert json.loads(again.value) == (["RemoteDisconnected", ""] if half else seen)
    proof.stays_untouched()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("[]", "batches are not recorded"),
        ("b'no'", "no JSON-RPC message"),
        ("{'id': 9, 'result': 1}", "nobody has asked"),
    ],
)
def test_what_is_no_message_fails_the_run(body: str, why: str, proof: Proof) -> None:
    proof.server.script(mcp_server(answers={}))
    outcome = run(proof.cassette, talk(f"start(); print(ask(URL, {body})[0])", proof), mode="rewrite")
    assert outcome.value == "424\n"
    assert why in str(outcome.failure)


def test_a_client_that_does_not_answer_is_not_waited_for_for_ever(
    proof: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = b'data: {"jsonrpc": "2.0", "id": 5, "method": "roots/list"}\n\n'
    said = b'data: {"jsonrpc": "2.0", "id": 2, "result": {}}\n\n'
    proof.server.script(mcp_server(answers={"tools/call": Stream([asked, said])}))
    source = "start(); print('result' in rpc('tools/call', {'name': 'x'}, 2)[1])"
    recorded = run(proof.cassette, talk(source, proof), mode="rewrite")
    assert recorded.value == "True\n"
    proof.take_down()
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.2)
    again = run(proof.cassette, talk(source, proof))
    assert again.value == "True\n"
    assert "did not answer roots/list within 0.2 s" in str(again.failure)


def test_two_servers_need_two_names(tmp_path: Path) -> None:
    def work(opened: Gateway) -> None:
        assert opened.mcp("a", "http://x/mcp") == opened.mcp("a", "http://x/mcp/")
        with pytest.raises(UsageError, match="is http://x/mcp already"):
            opened.mcp("a", "http://y/mcp")

    assert run(tmp_path / "run.yaml", work, mode="rewrite").raised is None
