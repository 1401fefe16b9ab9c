"""The mistralai SDK: chat, agents and fill-in-the-middle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

mistral = pytest.importorskip("mistralai")
if not hasattr(mistral, "Mistral"):  # where releases before 2 have it
    mistral = pytest.importorskip("mistralai.client")

import agents  # noqa: E402
import model_replies  # noqa: E402
import sdks  # noqa: E402
from model_replies import ToolCall, answer  # noqa: E402
from proof import Proof, Stack  # noqa: E402
from servers import Json, Reply, Request, sse  # noqa: E402

STACK = Stack(
    name="mistralai",
    dists=("mistralai", "httpx2", "httpx"),
    records="model calls and streams, at the transport of httpx2 or httpx (mistralai 1.9.11 or newer)",
)

TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
    },
}


def shop(request: Request) -> Reply:
    """Looks the order up, then says what it is."""
    results = model_replies.tool_results(request)
    if not results and request.body.get("stream"):
        # Mistral streams words, but a call comes whole.
        function = {"name": "lookup", "arguments": '{"order": "1412"}'}
        delta = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call12345", "function": function, "index": 0}],
        }
        return sse(delta_event(delta, finish="tool_calls"), "data: [DONE]")
    if not results:
        return answer(request, tools=[ToolCall("lookup", {"order": "1412"}, id="call12345")])
    return answer(request, f"It is {results[-1]}.")


def delta_event(delta: dict[str, Any], *, finish: str | None = None) -> str:
    """One event of a chat's stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    frame = {"id": "m", "object": "chat.completion.chunk", "created": 1, "model": "mistral-test"}
    return f"data: {json.dumps({**frame, 'choices': [choice]})}"


def loop(client: Any, prompt: str, *, stream: bool) -> str:
    """An agent as one writes it by hand."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    for _ in range(agents.MAX_TURNS):
        asked = {"model": "mistral-test", "messages": messages, "tools": [TOOL]}
        text = ""
        calls: list[Any] = []
        if stream:
            with client.chat.stream(**asked) as events:
                for event in events:
                    delta = event.data.choices[0].delta
                    text += delta.content or ""
                    calls += delta.tool_calls or ()
        else:
            said = client.chat.complete(**asked).choices[0].message
            text, calls = said.content or "", said.tool_calls or []
        if not calls:
            return text
        messages.append({"role": "assistant", "content": text, "tool_calls": calls})
        for call in calls:
            content = agents.lookup(**json.loads(call.function.arguments))["state"]
            messages.append({"role": "tool", "tool_call_id": call.id, "name": "lookup", "content": content})
    raise RuntimeError("the model never stopped calling tools")


@pytest.fixture
def client(proof: Proof) -> Iterator[Any]:
    proof.server.script(shop)
    proof.settings["tools"] = ["agents:lookup"]
    with mistral.Mistral(api_key="test-key", server_url=proof.server.url) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_tool_loop(proof: Proof, client: Any, stream: bool) -> None:
    outcome = proof.holds(lambda: loop(client, "Where is order 1412?", stream=stream), ran=["lookup 1412"])
    assert outcome.value == "It is delivered."
    spans = [span for span in outcome.verdict.live if span.exchange]
    assert [span.name for span in spans] == ["chat mistral-test", "execute_tool lookup", "chat mistral-test"]
    assert spans[1].attributes["gen_ai.tool.call.id"] == "call12345"
    (cause,) = proof.breaks(lambda: loop(client, "Where is order 1413?", stream=stream))
    assert cause.kind == "input_changed"
    once_more = proof.breaks(lambda: [loop(client, "Where is order 1412?", stream=stream) for _ in range(2)])
    assert [cause.kind.value for cause in once_more] == ["span_added"]  # the SDK does not try again


def test_thoughts_of_a_stream_are_one_part(proof: Proof, client: Any) -> None:
    def thought(text: str) -> list[dict[str, Any]]:
        return [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]

    said = ["", thought("Let "), thought("me see"), "4", "2"]
    events = [delta_event({"role": "assistant", "content": content}) for content in said]
    proof.server.script(lambda request: sse(*events, "data: [DONE]"))

    def think() -> int:
        with client.chat.stream(model="magistral", messages=[{"role": "user", "content": "?"}]) as pieces:
            return len(list(pieces))

    outcome = proof.holds(think)
    (span,) = [span for span in outcome.verdict.live if span.exchange]
    assert span.exchange is not None
    assert span.exchange.response is not None
    whole = span.exchange.response["body"]["message"]["choices"][0]["message"]["content"]
    assert whole == [*thought("Let me see"), {"type": "text", "text": "42"}]


def test_fill_in_the_middle_and_agents(proof: Proof, client: Any) -> None:
    def whole(request: Request) -> Reply:
        body = {"model": "codestral", "messages": [], **request.body}
        return Json(model_replies.chat(body, "return 1", ()))

    proof.server.script(whole)

    def both() -> tuple[str, str]:
        filled = client.fim.complete(model="codestral", prompt="def f():", suffix="f()")
        said = client.agents.complete(agent_id="ag_1", messages=[{"role": "user", "content": "Hi"}])
        return filled.choices[0].message.content, said.choices[0].message.content

    outcome = proof.holds(both)
    spans = [span for span in outcome.verdict.live if span.exchange]
    assert [(span.kind, span.name) for span in spans] == [("model", "text_completion codestral"), ("model", "chat")]
    assert spans[1].attributes["gen_ai.agent.id"] == "ag_1"
    assert spans[1].attributes["gen_ai.provider.name"] == "mistral_ai"


def test_a_header_beyond_ascii_comes_back(proof: Proof) -> None:
    name = "filename=löss.txt".encode().decode("latin-1")  # as a server writes UTF-8
    proof.server.script(lambda request: Json({}, headers={"content-disposition": name}))

    def agent() -> Any:
        return sdks.http.get(proof.server.url).headers["content-disposition"]

    assert proof.holds(agent).value == "filename=löss.txt"
