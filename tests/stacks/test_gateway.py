"""The gateway: agents in child processes, of Node.js and of plain Python, recorded and replayed from outside."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import children
import pytest
from children import breaks, echo, holds, node, notes, python, run, start
from wire import CLOSE, WireServer

import model_replies
from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain import UsageError, gateway
from pytest_spanchain._model import CONCURRENT, Span, SpanTree
from pytest_spanchain.gateway import Gateway, _places
from recording import run_in
from servers import Hang, Json, Raw, Reply, Request, Reset, Stream, in_turn, too_many_requests

STACK = Stack(
    name="gateway",
    dists=("starlette", "uvicorn", "httpx"),
    records="OpenAI-, Anthropic- and Gemini-shaped HTTP of a child process in any language (Node.js' `openai` package"
    " is the test), MCP over streamable HTTP, and the spans that it exports by OTLP/HTTP",
    limits=(
        "A child that bypasses its base URLs is not seen: it runs in replay as it always does.",
        "Children that run at the same time need a gateway each, or the order of their calls is taken for one agent's.",
        "How much of an answer a child reads cannot be seen from outside, and is not compared.",
        "Spans of a child take their places when the gateway closes: `cassette.live` has them from then on.",
        "OTLP's metrics and logs are accepted and dropped.",
        "A child waits between its retries in replay as well.",
        "Redirects of an upstream and upgrades to websockets fail the run.",
    ),
)

AGENT = """
import OpenAI from 'openai';
const client = new OpenAI();
const tools = [{type: 'function', function: {name: 'lookup', description: 'Look up.', parameters: {
  type: 'object', properties: {order: {type: 'string'}}, required: ['order']}}}];
const lookup = async ({order}) => `order ${order} shipped`;

async function turn(messages, stream) {
  if (!stream) return (await client.chat.completions.create({model: 'gpt', messages, tools})).choices[0].message;
  const message = {role: 'assistant', content: '', tool_calls: []};
  for await (const chunk of await client.chat.completions.create({model: 'gpt', messages, tools, stream: true})) {
    const delta = chunk.choices[0].delta;
    message.content += delta.content ?? '';
    for (const part of delta.tool_calls ?? []) {
      const call = message.tool_calls[part.index] ??= {...part, function: {name: '', arguments: ''}};
      call.function.name += part.function.name ?? '';
      call.function.arguments += part.function.arguments ?? '';
    }
  }
  if (!message.tool_calls.length) delete message.tool_calls;
  return message;
}

for (const stream of [false, true]) {
  const messages = [{role: 'user', content: 'Where is order 1412?'}];
  for (;;) {
    const message = await turn(messages, stream);
    messages.push(message);
    if (!message.tool_calls) { console.log(message.content); break; }
    for (const call of message.tool_calls) {
      const content = await lookup(JSON.parse(call.function.arguments));
      messages.push({role: 'tool', tool_call_id: call.id, content});
    }
  }
}
"""


def shop(request: Request) -> Reply:
    """A model that looks an order up, then says what it is."""
    results = model_replies.tool_results(request)
    if not results:
        return answer(request, "Let me see.", tools=[ToolCall("lookup", {"order": "1412"})])
    return answer(request, f"Done: {results[-1]}.")


def exchanges(tree: SpanTree | None) -> list[Span]:
    assert tree is not None
    return [span for span in tree if span.exchange is not None]


# --- Node.js ---------------------------------------------------------------------------------------------------------


def test_a_node_agent_on_the_real_openai_package(proof: Proof, tmp_path: Path) -> None:
    proof.server.script(shop)
    recorded = holds(proof, node(AGENT, tmp_path))
    assert recorded.value == "Done: order 1412 shipped.\n" * 2
    assert [span.name for span in exchanges(recorded.verdict.live)] == ["chat gpt"] * 4
    assert "no call of a function" not in str(recorded.verdict.notes)

    changed = breaks(proof, node(AGENT.replace("Where is order", "Where was order"), tmp_path))
    assert {cause.kind for cause in changed.causes} == {"input_changed"}
    dropped = AGENT.replace("if (!message.tool_calls)", "if (true)")
    assert "span_removed" in {cause.kind for cause in breaks(proof, node(dropped, tmp_path)).causes}


def test_a_node_agent_that_asks_for_more_sees_why_and_does_not_retry(proof: Proof, tmp_path: Path) -> None:
    """The SDK retries a 429 in both runs; a miss it shows at once."""
    source = """
import OpenAI from 'openai';
const ask = async (content) => (await new OpenAI().chat.completions.create(
  {model: 'gpt', messages: [{role: 'user', content}]})).choices[0].message.content;
console.log(await ask('one'));
"""
    replies = iter([too_many_requests()])
    proof.server.script(lambda request: next(replies, None) or echo(request))
    recorded = holds(proof, node(source, tmp_path), replays=1)
    assert [span.status for span in exchanges(recorded.verdict.live)] == ["error", "unset"]

    swallows = source + "try { await ask('two'); } catch (error) { console.log(error.status, error.message); }\n"
    more = breaks(proof, node(swallows, tmp_path))
    assert "424" in more.value
    assert "nothing recorded" in more.value
    (added,) = more.causes
    assert added.kind == "span_added"


# --- other traffic ---------------------------------------------------------------------------------------------------

GEMINI = """
url = os.environ["GOOGLE_GEMINI_BASE_URL"] + "/v1beta/models/gemini-3-pro:generateContent"
body = {"contents": [{"role": "user", "parts": [{"text": "one"}]}]}
print(ask(url, body, x_goog_api_key=os.environ["GEMINI_API_KEY"]))
"""
CLAUDE = """
body = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "one"}]}
for stream in (False, True):
    print(ask(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", {**body, "stream": stream},
              anthropic_version="2023-06-01", x_api_key=os.environ["ANTHROPIC_API_KEY"]))
"""


@pytest.mark.parametrize(
    ("source", "names"),
    [(GEMINI, ["generate_content gemini-3-pro"]), (CLAUDE, ["chat claude"] * 2)],
    ids=["gemini", "anthropic"],
)
def test_other_providers(source: str, names: list[str], proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", proof.server.url)
    content = {"candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP"}]}
    proof.server.script(lambda request: Json(content) if "gemini" in request.path else echo(request))
    recorded = holds(proof, python(source), replays=1)
    assert [span.name for span in exchanges(recorded.verdict.live)] == names
    assert breaks(proof, python(source.replace('"one"', '"two"')))


def test_any_other_upstream_by_name(proof: Proof) -> None:
    proof.server.script(lambda request: Json({"path": request.path, "method": request.method}))

    def work(opened: Gateway) -> Any:
        url = opened.base_url("shop") + "/orders/1%2F2?full=1"
        return python("print(ask(sys.argv[1])[1])", url)(opened)

    recorded = holds(proof, work, replays=1, upstreams={"shop": f"http://localhost:{proof.server.port}/api/"})
    assert json.loads(recorded.value) == {"path": "/api/orders/1%2F2?full=1", "method": "GET"}
    (span,) = exchanges(recorded.verdict.live)
    assert span.exchange is not None
    assert span.exchange.request["url"] == "http://loopback/api/orders/1%2F2?full=1"


def test_streams_are_never_held_back(proof: Proof) -> None:
    gate = threading.Event()
    proof.server.script(lambda request: Stream([b"data: 1\n\n", b"data: 2\n\n"], gates={1: gate}))
    source = """
request = urllib.request.Request(OPENAI, b'{"model": "gpt", "messages": [], "stream": true}')
with urllib.request.urlopen(request) as answer:
    print(answer.readline().decode().strip())
    sys.stdin.read()
    print(answer.read().decode().strip())
"""

    def work(opened: Gateway) -> list[str]:
        child = subprocess.Popen(
            [sys.executable, "-u", "-c", children.ASK + source],
            env=opened.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        gate.set()  # what came first is there, and what follows has yet to be said
        rest, _ = child.communicate(timeout=children.PATIENCE)
        return [first, rest.strip()]

    assert holds(proof, work, replays=1).value == ["data: 1\n", "data: 2"]


@pytest.mark.parametrize(
    ("reply", "seen"),
    [
        (Stream([b"data: 1\n\n", b"data: 2\n\n", b"..."], cut_after=2), ("IncompleteRead", "data: 1\n\ndata: 2\n\n")),
        (Reset(), ("RemoteDisconnected", "")),
        (Json({"error": {"message": "no"}}, status=500), (500, '{"error": {"message": "no"}}')),
        (Json({"zipped": "é"}, gzip=True), (200, '{"zipped": "\\u00e9"}')),
        (Raw(b"x" * 1_000_000, content_type="text/plain"), (200, "x" * 1_000_000)),
    ],
    ids=["cut", "reset", "500", "gzip", "big"],
)  # fmt: skip
def test_what_upstreams_do_to_a_child(reply: Reply, seen: tuple[Any, str], proof: Proof) -> None:
    proof.server.script(lambda request: reply)
    source = "print(json.dumps(chat('one', stream=True, headers={'accept-encoding': 'br, identity'})))"
    if getattr(reply, "gzip", False):
        source = source.replace("br, identity", "identity")  # the answer comes packed whatever was asked for
    assert json.loads(holds(proof, python(source), replays=2).value) == list(seen)


def test_an_upstream_that_sends_garbage(tmp_path: Path) -> None:
    source = "print(json.dumps(chat('one')))"
    with WireServer(lambda seen: [b"HTTP/1.1 banana\r\n\r\n", CLOSE]) as server:
        up = {"openai": f"{server.url}/v1"}
        recorded = run(tmp_path / "run.yaml", python(source), mode="rewrite", upstreams=up)
        assert recorded.failure is None
        assert json.loads(recorded.value) == ["RemoteDisconnected", ""]
        connections = server.connections
        again = run(tmp_path / "run.yaml", python(source), upstreams=up)
        assert (again.failure, again.value) == (None, recorded.value)
        assert server.connections == connections


def test_a_request_in_gzip_is_readable_and_searched_for_secrets(proof: Proof) -> None:
    proof.server.script(echo)
    source = """
body = gzip.compress(json.dumps({"model": "gpt", "messages": [{"role": "user", "content": "big " * 50_000}],
    "api_key": "sk-proj-abcdefghijklmnopqrstuvwxyz123456"}).encode())
print(len(ask(OPENAI, body, content_encoding="gzip", authorization="Bearer hunter2hunter2hunter2")[1]))
"""
    recorded = holds(proof, python(source), replays=1)
    assert int(recorded.value) > 200_000
    text = proof.cassette.read_text()
    assert "big big" in text
    assert "sk-proj" not in text
    assert "hunter2" not in text
    broken = source.replace("gzip.compress(", "b'no' + gzip.compress(")
    assert "cannot be read" in str(breaks(proof, python(broken)).failure)


def test_many_requests_at_once(proof: Proof) -> None:
    source = """
found = [None] * 20
def one(i):
    found[i] = said(chat(f"prompt {i}"))
threads = [threading.Thread(target=one, args=(i,)) for i in range(20)]
[one.start() for one in threads], [one.join() for one in threads]
print(found)
"""
    proof.server.script(echo)
    recorded = holds(proof, python(source))
    assert recorded.value.strip() == str([f"You said prompt {index}." for index in range(20)])


def test_one_after_the_other_is_not_side_by_side(proof: Proof) -> None:
    """Also where the next request comes as soon as the last byte has: order counts."""
    source = """
for text in ("one", "two", "three"):
    chat(text, stream=text != "two")
"""
    proof.server.script(echo)
    recorded = holds(proof, python(source))
    assert not [span for span in exchanges(recorded.verdict.live) if CONCURRENT in span.attributes]
    assert breaks(proof, python(source.replace('"one", "two"', '"two", "one"')))


def test_a_child_that_gives_up(proof: Proof) -> None:
    """A recorded silence is kept up until the child leaves again."""
    proof.server.script(lambda request: Hang() if "hang" in str(request.body) else echo(request))
    source = """
url = urllib.parse.urlsplit(OPENAI)
connection = http.client.HTTPConnection(url.netloc, timeout=0.4)
try:
    messages = [{"role": "user", "content": "hang"}]
    connection.request("POST", url.path, json.dumps({"model": "gpt", "messages": messages}))
    connection.getresponse()
except TimeoutError:
    print("gave up")
connection.close()
print(said(chat("then")))
"""
    assert holds(proof, python(source), replays=1).value == "gave up\nYou said then.\n"


def test_what_is_new_is_recorded_beside_what_is_known(proof: Proof) -> None:
    proof.server.script(echo)
    run(proof.cassette, python("print(said(chat('one')))"), mode="once")
    both = python("print(said(chat('one')), said(chat('two')))")
    more = run(proof.cassette, both, mode="new_episodes")
    assert (more.failure, more.value, more.verdict.live_calls) == (None, "You said one. You said two.\n", 1)
    assert len(proof.server.requests) == 2
    proof.take_down()
    assert run(proof.cassette, both).failure is None
    proof.stays_untouched()


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_gateway_that_nothing_came_through_fails_the_run(proof: Proof) -> None:
    """The child had not been given the environment: it asked somebody else."""
    for mode in ("rewrite", "none"):
        if mode == "none":
            proof.server.script(echo)
            assert run(proof.cassette, python("chat('one')"), mode="rewrite").failure is None
        outcome = run(proof.cassette, lambda opened: None, mode=mode)
        assert "nothing came through it: was the child given env=gateway.env" in str(outcome.failure)
        assert proof.cassette.exists() is (mode == "none")

    def work(opened: Gateway) -> None:
        raise ValueError("the block's own")

    assert "nothing came" not in str(run(proof.cassette, work, mode="rewrite").failure)


def test_a_named_child_of_python_is_recorded_from_both_sides(proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request below the process's span does not hide what the child told; in replay nothing needs to come."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    proof.server.script(echo)
    source = """
import httpx
from opentelemetry import trace
with trace.get_tracer("mine").start_as_current_span("inner"):
    pass
print(said(chat('one', headers={'traceparent': os.environ['TRACEPARENT']})))
"""
    recorded = holds(proof, python(source), replays=1, commands=["*"])
    assert recorded.value == "You said one.\n"
    assert recorded.verdict.live is not None
    names = [span.name for span in recorded.verdict.live]
    assert names.count("inner") == 1
    assert names.count("chat gpt") == 1


def test_what_the_gateway_supplies_to_a_named_child_is_not_compared(
    proof: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of no value, and where the gateway is, are new in every run; what its author says beside is compared."""
    proof.server.script(echo)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-one-who-records")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/v1/traces")

    def work(opened: Gateway, more: dict[str, str] | None = None) -> str:
        own = {"SHOP_URL": f"{opened.base_url('openai')}/shop", "MODE": "fast", **(more or {})}
        source = f"{children.ASK}print(said(chat('one', headers={{'traceparent': os.environ['TRACEPARENT']}})))"
        return children.printed([sys.executable, "-c", source], {**opened.env, **own})

    settings: dict[str, Any] = {"commands": ["*"], "command_env": ["OPENAI_*", "*_ENDPOINT"]}
    assert run(proof.cassette, work, mode="rewrite", **settings).value == "You said one.\n"
    assert '"SHOP_URL": "$SPANCHAIN_GATEWAY/openai/v1/shop"' in proof.cassette.read_text()
    proof.take_down()
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    again = run(proof.cassette, work, **settings)
    assert (again.failure, again.value) == (None, "You said one.\n")
    for name, value in (("MODE", "slow"), ("SHOP_URL", "/elsewhere"), ("OPENAI_API_KEY", "one of its own")):
        changed = functools.partial(work, more={name: value})
        (cause,) = breaks(proof, changed, **settings).causes
        assert [change.path for change in cause.changes] == [f"request.env.{name}"]


@pytest.mark.parametrize("mcp", [False, True])
def test_an_upstream_that_is_not_there_is_told(mcp: bool, tmp_path: Path) -> None:
    def work(opened: Gateway) -> Any:
        url = opened.mcp("shop", "http://127.0.0.1:9/mcp") if mcp else f"{opened.base_url('openai')}/models"
        body = '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
        return python("print(ask(sys.argv[1] + '?key=none', sys.argv[2].encode())[0])", url, body)(opened)

    outcome = run(tmp_path / "run.yaml", work, mode="rewrite", upstreams={"openai": "http://me:pass@127.0.0.1:9/v1"})
    assert outcome.value == "RemoteDisconnected\n"
    (note,) = notes(outcome)
    assert note.startswith("gateway: could not reach http://127.0.0.1:9 (")
    assert note.endswith(") for POST /mcp" if mcp else ") for POST /v1/models")


def test_a_request_to_nowhere_fails_the_run(proof: Proof) -> None:
    proof.server.script(echo)
    source = "print(said(chat('one'))); print(ask(OPENAI.replace('/openai/', '/opnai/'), {}))"
    outcome = run(proof.cassette, python(source), mode="rewrite")
    assert "404" in outcome.value
    assert "POST /opnai/v1/chat/completions is nothing that the gateway knows" in str(outcome.failure)
    assert not proof.cassette.exists()


def test_a_redirect_fails_the_recording(proof: Proof) -> None:
    proof.server.script(in_turn(Json({}, status=307, headers={"location": f"{proof.server.url}/other"})))
    outcome = run(proof.cassette, python("print(chat('one'))"), mode="rewrite")
    assert "redirects" in str(outcome.failure)
    assert not proof.cassette.exists()


def test_an_upgrade_fails_the_run(proof: Proof) -> None:
    child = """
url = urllib.parse.urlsplit(OPENAI)
connection = http.client.HTTPConnection(url.netloc)
connection.request("GET", "/openai/v1/realtime", headers={"connection": "Upgrade", "upgrade": "websocket"})
print(connection.getresponse().status)
"""
    outcome = run(proof.cassette, python(child), mode="rewrite")
    assert outcome.value == "424\n"
    assert "wants another protocol (websocket)" in str(outcome.failure)


def test_a_child_that_is_not_waited_for(proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "PATIENCE", 0.2)
    asked = threading.Event()

    def silent(request: Request) -> Reply:
        asked.set()
        return Hang()

    proof.server.script(silent)
    started: list[Any] = []

    def work(opened: Gateway) -> None:
        started.append(start("print(chat('one'))", opened.env))
        assert asked.wait(children.PATIENCE)

    outcome = run(proof.cassette, work, mode="rewrite")
    text = str(outcome.failure)
    assert "the gateway was closed while POST /openai/v1/chat/completions had yet to be answered" in text
    assert "wait for the child" in text
    assert not proof.cassette.exists()
    started[0].communicate(timeout=children.PATIENCE)


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uvicorn", "starlette.requests", "httpx"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, name, None)
            outcome = run(tmp_path / "run.yaml", lambda opened: None, mode="rewrite")
        assert isinstance(outcome.raised, UsageError)
        assert "pip install 'pytest-spanchain[gateway]'" in str(outcome.raised)


def test_wrong_upstreams_and_closed_gateways_are_told(tmp_path: Path) -> None:
    def work(cassette: Any) -> None:
        for name, url in (("openai", "localhost:1"), ("v1", "http://x"), ("a/b", "http://x")):
            with pytest.raises(UsageError):
                cassette.gateway(upstreams={name: url})
        unopened = cassette.gateway()
        with pytest.raises(UsageError, match="not open"):
            _ = unopened.env
        with unopened, pytest.raises(UsageError, match="no upstream 'opnai'"):
            unopened.base_url("opnai")
        with pytest.raises(UsageError, match="once"):
            unopened.__enter__()

    assert run_in(tmp_path / "run.yaml", work, mode="rewrite").raised is None


# --- the environment -------------------------------------------------------------------------------------------------


def test_a_replay_has_no_key_to_give_away(proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-callers-own-key-000001")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector.example/v1/traces")
    monkeypatch.setenv("NO_PROXY", "intern.example")
    proof.server.script(echo)
    seen: list[dict[str, str]] = []

    def work(opened: Gateway) -> Any:
        seen.append(opened.env)
        assert opened.env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == f"{opened.url}/v1/traces"
        assert opened.env["OTEL_EXPORTER_OTLP_ENDPOINT"] == opened.url
        assert opened.env["NO_PROXY"] == "intern.example,127.0.0.1,localhost"
        assert opened.env["PATH"] == os.environ["PATH"]
        return python("print(said(chat('one')))")(opened)

    holds(proof, work, replays=1)
    recording, replaying = seen
    assert recording["OPENAI_API_KEY"] == "sk-the-callers-own-key-000001"
    assert proof.server.requests[0].headers["authorization"] == "Bearer sk-the-callers-own-key-000001"
    assert {one["ANTHROPIC_API_KEY"] for one in seen} == {"spanchain-replay"}
    assert replaying["OPENAI_API_KEY"] == "spanchain-replay"
    assert "callers-own" not in proof.cassette.read_text()


@pytest.mark.parametrize(
    ("name", "dummy"),
    [
        ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"),
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        ("AZURE_OPENAI_API_KEY", "OPENAI_API_KEY"),
    ],
)  # fmt: skip
def test_no_dummy_stands_beside_a_real_credential(name: str, dummy: str) -> None:
    def variables(*, records: bool) -> dict[str, str]:
        return _places.variables(url="http://x", traceparent="", records=records, environ={name: "real"}, names=())

    assert not {name, dummy} & set(variables(records=True))
    replaying = variables(records=False)
    assert replaying[name] == replaying[dummy] == "spanchain-replay"


def test_keys_of_other_upstreams_stay_behind_and_the_rest_is_for_the_tools() -> None:
    environ = {"MY_SHOP_API_KEY": "real", "MY_SHOP_MAX_TOKENS": "9", "OPENAI_WEBHOOK_SECRET": "real", "PGPASSWORD": "x"}
    changed = [
        _places.variables(url="http://x", traceparent="", records=records, environ=environ, names=["openai", "my-shop"])
        for records in (True, False)
    ]
    assert [set(environ) & set(one) for one in changed] == [set(), {"MY_SHOP_API_KEY", "OPENAI_WEBHOOK_SECRET"}]


def test_an_async_test_may_use_it(proof: Proof) -> None:
    proof.server.script(echo)

    async def main(opened: Gateway) -> bytes:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", children.ASK + "print(said(chat('one')))", env=opened.env, stdout=-1
        )
        return (await child.communicate())[0]

    assert holds(proof, lambda opened: asyncio.run(main(opened)), replays=1).value == b"You said one.\n"
