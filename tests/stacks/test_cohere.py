"""The cohere SDK: its second API, whose streams name what they extend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

cohere = pytest.importorskip("cohere")

import agents  # noqa: E402
from proof import Proof, Stack  # noqa: E402
from servers import Json, Reply, Request, sse  # noqa: E402

STACK = Stack(
    name="cohere",
    dists=("cohere", "httpx"),
    records="chat, streams, embeddings and rerank of the second API, at httpx's transport (cohere 5.20 or newer)",
    limits=("Chat and generate of the first API are recorded as plain HTTP, not as model calls.",),
)

TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
    },
}
USAGE = {"billed_units": {"input_tokens": 3, "output_tokens": 4}, "tokens": {"input_tokens": 70, "output_tokens": 9}}


def whole(text: str, call: dict[str, Any] | None) -> dict[str, Any]:
    """An answer in one piece."""
    message: dict[str, Any] = {"role": "assistant"}
    if call:
        message.update(tool_plan="I will look.", tool_calls=[call])
    else:
        message["content"] = [{"type": "text", "text": text}]
    return {"id": "c-1", "finish_reason": "TOOL_CALL" if call else "COMPLETE", "message": message, "usage": USAGE}


def pieces(text: str, call: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The same as a stream."""

    def event(kind: str, message: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return {"type": kind, **({"delta": {"message": message}} if message else {}), **more}

    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    events = [event("message-start", empty, id="c-1")]
    if call:
        function = call["function"]
        events += [event("tool-plan-delta", {"tool_plan": word}) for word in ("I will ", "look.")]
        opened = {**call, "function": {**function, "arguments": ""}}
        events.append(event("tool-call-start", {"tool_calls": opened}, index=0))
        for part in (function["arguments"][:5], function["arguments"][5:]):
            events.append(event("tool-call-delta", {"tool_calls": {"function": {"arguments": part}}}, index=0))
        events.append(event("tool-call-end", index=0))
    else:
        events.append(event("content-start", {"content": {"type": "text", "text": ""}}, index=0))
        for part in (text[:3], text[3:]):
            events.append(event("content-delta", {"content": {"text": part}}, index=0))
        events.append(event("content-end", index=0))
    end = {"finish_reason": "TOOL_CALL" if call else "COMPLETE", "usage": USAGE}
    return [*events, {"type": "message-end", "id": "c-1", "delta": end}]


def shop(request: Request) -> Reply:
    """Looks the order up, then says what it is."""
    if request.path == "/v2/embed":
        return Json(
            {"id": "e", "embeddings": {"float": [[0.5]]}, "texts": ["a"], "meta": {"billed_units": {"input_tokens": 1}}}
        )
    if request.path == "/v2/rerank":
        return Json({"id": "r", "results": [{"index": 1, "relevance_score": 0.9}], "meta": {}})
    last = request.body["messages"][-1]
    call, text = None, "It is delivered"
    if last["role"] != "tool":
        call = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": '{"order": "1412"}'}}
    if request.body["stream"]:
        return sse(*(f"event: {event['type']}\ndata: {json.dumps(event)}" for event in pieces(text, call)))
    return Json(whole(text, call))


def loop(client: Any, prompt: str, *, stream: bool) -> str:
    """An agent as one writes it by hand."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    for _ in range(agents.MAX_TURNS):
        asked = {"model": "command-test", "messages": messages, "tools": [TOOL], "p": 0.5, "k": 3}
        text, arguments, call_id = "", "", ""
        if stream:
            for event in client.chat_stream(**asked):
                if event.type == "content-delta":
                    text += event.delta.message.content.text
                elif event.type == "tool-call-start":
                    call_id = event.delta.message.tool_calls.id
                elif event.type == "tool-call-delta":
                    arguments += event.delta.message.tool_calls.function.arguments
        else:
            said = client.chat(**asked).message
            text = said.content[0].text if said.content else ""
            for call in said.tool_calls or ():
                call_id, arguments = call.id, call.function.arguments
        if not call_id:
            return text
        function = {"name": "lookup", "arguments": arguments}
        calls = [{"id": call_id, "type": "function", "function": function}]
        messages.append({"role": "assistant", "tool_calls": calls})
        result = agents.lookup(**json.loads(arguments))
        messages.append({"role": "tool", "tool_call_id": call_id, "content": result["state"]})
    raise RuntimeError("the model never stopped calling tools")


@pytest.fixture
def client(proof: Proof) -> Iterator[Any]:
    proof.server.script(shop)
    proof.settings["tools"] = ["agents:lookup"]
    with cohere.ClientV2(api_key="test-key", base_url=proof.server.url) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_tool_loop(proof: Proof, client: Any, stream: bool) -> None:
    outcome = proof.holds(lambda: loop(client, "Where is order 1412?", stream=stream), ran=["lookup 1412"])
    assert outcome.value == "It is delivered"
    first, tool, second = [span for span in outcome.verdict.live if span.exchange]
    assert first.name == second.name == "chat command-test"
    assert first.attributes["gen_ai.provider.name"] == "cohere"
    assert first.attributes["gen_ai.request.top_k"] == 3
    assert second.attributes["gen_ai.usage.input_tokens"] == 70
    assert tool.attributes["gen_ai.tool.call.id"] == "call_1"
    for span, expected in ((first, True), (second, False)):
        assert span.exchange is not None
        assert span.exchange.response is not None
        body = span.exchange.response["body"]
        call = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": '{"order": "1412"}'}}
        answered = body["message"] if stream else body["json"]
        assert answered == whole("It is delivered", call if expected else None)
    (cause,) = proof.breaks(lambda: loop(client, "Where is order 1413?", stream=stream))
    assert cause.kind == "input_changed"
    once_more = proof.breaks(lambda: [loop(client, "Where is order 1412?", stream=stream) for _ in range(2)])
    assert [cause.kind.value for cause in once_more] == ["span_added"]  # the SDK does not try again


def test_embeddings_and_rerank(proof: Proof, client: Any) -> None:
    def both() -> tuple[Any, int]:
        embedded = client.embed(model="embed-t", texts=["a"], input_type="classification", embedding_types=["float"])
        ranked = client.rerank(model="rerank-t", query="q", documents=["a", "b"])
        return embedded.embeddings.float_, ranked.results[0].index

    outcome = proof.holds(both)
    spans = [span for span in outcome.verdict.live if span.exchange]
    assert [(span.kind, span.name) for span in spans] == [("model", "embeddings embed-t"), ("model", "rerank rerank-t")]
