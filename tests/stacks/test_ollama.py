"""The ollama SDK: its own API, whose streams are JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

ollama = pytest.importorskip("ollama")

import agents  # noqa: E402
from proof import Proof, Stack  # noqa: E402
from servers import Json, Reply, Request, Stream  # noqa: E402

STACK = Stack(
    name="ollama",
    dists=("ollama", "httpx"),
    records="model calls and streams, at httpx's transport (ollama 0.5 or newer)",
)

TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
    },
}


def lines(request: Request, pieces: list[dict[str, Any]], *, key: str = "message") -> Reply:
    """The pieces as JSON lines, or, if no stream is asked for, the only one."""
    head = {"model": request.body["model"], "created_at": "2026-11-21T10:00:00Z"}
    counts = {"done_reason": "stop", "total_duration": 9, "prompt_eval_count": 4, "eval_count": 6}
    sent = [{**head, key: piece, "done": False} for piece in pieces]
    sent[-1].update(counts, done=True)
    if request.body["stream"]:
        chunks = [json.dumps(line).encode() + b"\n" for line in sent]
        return Stream(chunks, content_type="application/x-ndjson")
    (only,) = sent
    return Json(only)


def shop(request: Request) -> Reply:
    """Looks the order up, then says what it is."""
    if request.path == "/api/embed":
        return Json({"model": "e", "embeddings": [[0.5, 0.25]], "prompt_eval_count": 2})
    if request.path == "/api/generate":
        words: list[Any] = ["on", "ce ", "upon"] if request.body["stream"] else ["once upon"]
        return lines(request, words, key="response")
    last = request.body["messages"][-1]
    if last["role"] == "tool":
        said = ["It is ", last["content"]] if request.body["stream"] else [f"It is {last['content']}"]
        return lines(request, [{"role": "assistant", "content": text} for text in said])
    call = {"function": {"name": "lookup", "arguments": {"order": "1412"}}}
    return lines(request, [{"role": "assistant", "content": "", "tool_calls": [call]}])


def loop(client: Any, prompt: str, *, stream: bool) -> str:
    """An agent as one writes it by hand."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    for _ in range(agents.MAX_TURNS):
        said = client.chat(model="llama-test", messages=messages, tools=[TOOL], stream=stream, options={"seed": 1})
        pieces = list(said) if stream else [said]
        calls = [call for piece in pieces for call in piece.message.tool_calls or ()]
        if not calls:
            return "".join(piece.message.content for piece in pieces)
        messages += [piece.message for piece in pieces]
        for call in calls:
            result = agents.lookup(**call.function.arguments)
            messages.append({"role": "tool", "tool_name": "lookup", "content": result["state"]})
    raise RuntimeError("the model never stopped calling tools")


@pytest.fixture
def client(proof: Proof) -> Iterator[Any]:
    proof.server.script(shop)
    proof.settings["tools"] = ["agents:lookup"]
    made = ollama.Client(host=proof.server.url)
    yield made
    made._client.close()  # its own way to do so came later


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_tool_loop(proof: Proof, client: Any, stream: bool) -> None:
    outcome = proof.holds(lambda: loop(client, "Where is order 1412?", stream=stream), ran=["lookup 1412"])
    assert outcome.value == "It is delivered"
    spans = [span for span in outcome.verdict.live if span.exchange]
    assert [span.name for span in spans] == ["chat llama-test", "execute_tool lookup", "chat llama-test"]
    assert spans[2].attributes["gen_ai.usage.output_tokens"] == 6
    assert spans[2].attributes["gen_ai.provider.name"] == "ollama"
    assert spans[2].exchange is not None
    assert spans[2].exchange.response is not None
    body = spans[2].exchange.response["body"]
    whole = body["message"] if stream else body["json"]
    assert whole["message"] == {"role": "assistant", "content": "It is delivered"}
    assert whole["done"] is True
    (cause,) = proof.breaks(lambda: loop(client, "Where is order 1413?", stream=stream))
    assert cause.kind == "input_changed"
    once_more = proof.breaks(lambda: [loop(client, "Where is order 1412?", stream=stream) for _ in range(2)])
    assert [cause.kind.value for cause in once_more] == ["span_added"]  # the SDK does not try again


def test_async_stream(proof: Proof) -> None:
    proof.server.script(shop)

    async def tell() -> list[str]:
        client = ollama.AsyncClient(host=proof.server.url)
        pieces = await client.generate("llama-test", prompt="Tell", stream=True)
        told = [piece.response async for piece in pieces]
        await client._client.aclose()
        return told

    outcome = proof.holds(tell)
    assert outcome.value == ["on", "ce ", "upon"]
    (span,) = [span for span in outcome.verdict.live if span.exchange]
    assert span.name == "text_completion llama-test"
    assert span.exchange is not None
    assert span.exchange.response is not None
    assert span.exchange.response["body"]["message"]["response"] == "once upon"


def test_embeddings(proof: Proof, client: Any) -> None:
    outcome = proof.holds(lambda: client.embed("e", input="a").embeddings[0])
    (span,) = [span for span in outcome.verdict.live if span.exchange]
    assert (span.kind, span.name) == ("model", "embeddings e")
    assert span.attributes["gen_ai.usage.input_tokens"] == 2
