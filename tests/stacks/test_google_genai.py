"""The google-genai SDK: the Gemini API and Vertex AI, tools called by hand (for its automatic calls see elsewhere)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

genai = pytest.importorskip("google.genai")

from google.genai import types  # noqa: E402

import agents  # noqa: E402
from proof import Proof, Stack  # noqa: E402
from pytest_spanchain import use_cassette  # noqa: E402
from pytest_spanchain._model import SpanTree  # noqa: E402
from servers import Json, Reply, Request, Stream  # noqa: E402

STACK = Stack(
    name="google-genai",
    dists=("google-genai", "httpx2", "httpx", "aiohttp"),
    records=(
        "calls and streams of the Gemini API and Vertex AI, at the transport of httpx2 or httpx, async at aiohttp's"
        " session (google-genai 1.55 or newer)"
    ),
    limits=(
        "The interactions API is recorded as plain HTTP, not as a model call.",
        "A stream without alt=sse, which the SDK never asks for, is replayed in one piece.",
    ),
)

COUNTS = {"promptTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 3, "totalTokenCount": 15}
DECLARED = types.FunctionDeclaration(
    name="lookup",
    description="Price and state of an order.",
    parameters_json_schema={"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
)
CONFIG = types.GenerateContentConfig(
    temperature=0,
    tools=[types.Tool(function_declarations=[DECLARED])],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


def chunk(*parts: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """One answer, or one piece of a stream."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    more = {"finishReason": finish} if finish else {}
    return {"candidates": [{**candidate, **more}], "usageMetadata": COUNTS, "modelVersion": "gemini-t-001"}


def shop(request: Request) -> Reply:
    """Looks the order up, without giving the call an id, then says what it is; streamed as asked."""
    if request.path.endswith("Contents"):
        return Json({"embeddings": [{"values": [0.25, 0.5]} for _ in request.body["requests"]]})
    last = request.body["contents"][-1]["parts"][0]
    if "functionResponse" in last:
        pieces = [
            chunk({"text": "It is "}),
            chunk({"text": last["functionResponse"]["response"]["state"]}, finish="STOP"),
        ]
    elif "order" in last["text"]:
        pieces = [chunk({"functionCall": {"name": "lookup", "args": {"order": "1412"}}}, finish="STOP")]
    else:
        thought = {"text": "Hm.", "thought": True}
        pieces = [chunk(thought), chunk({"text": "Good "}), chunk({"text": "day → ✓"}, finish="STOP")]
    if ":streamGenerateContent" in request.path:
        return Stream([f"data: {json.dumps(piece)}\r\n\r\n".encode() for piece in pieces])
    parts = [part for piece in pieces for part in piece["candidates"][0]["content"]["parts"]]
    return Json(chunk(*parts, finish="STOP"))


@pytest.fixture
def client(proof: Proof) -> Iterator[Any]:
    proof.server.script(shop)
    proof.settings["tools"] = ["agents:lookup"]
    with genai.Client(api_key="test-key", http_options=types.HttpOptions(base_url=proof.server.url)) as made:
        yield made


def loop(client: Any, prompt: str, *, stream: bool = False) -> str:
    """An agent as one writes it by hand."""
    contents: list[Any] = [types.Content(role="user", parts=[types.Part(text=prompt)])]
    for _ in range(agents.MAX_TURNS):
        asked = {"model": "gemini-test", "contents": contents, "config": CONFIG}
        said = (
            list(client.models.generate_content_stream(**asked))
            if stream
            else [client.models.generate_content(**asked)]
        )
        calls = [call for piece in said for call in piece.function_calls or ()]
        if not calls:
            return "".join(piece.text or "" for piece in said)
        contents += [piece.candidates[0].content for piece in said]
        for call in calls:
            result = agents.lookup(**call.args)
            contents.append(types.Part.from_function_response(name=call.name, response=result))
    raise RuntimeError("the model never stopped calling tools")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_tool_loop(proof: Proof, client: Any, stream: bool) -> None:
    outcome = proof.holds(lambda: loop(client, "Where is order 1412?", stream=stream), ran=["lookup 1412"])
    assert outcome.value == "It is delivered"
    first, tool, second = [span for span in outcome.verdict.live if span.exchange]
    assert first.kind == second.kind == "model"
    assert first.name == "generate_content gemini-test"
    assert first.attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert first.attributes["gen_ai.usage.output_tokens"] == 10
    assert first.attributes["gen_ai.response.finish_reasons"] == ["STOP"]
    assert "gen_ai.tool.call.id" not in tool.attributes
    (cause,) = proof.breaks(lambda: loop(client, "Where is my order 1413?", stream=stream))
    assert cause.kind == "input_changed"
    once_more = proof.breaks(lambda: [loop(client, "Where is order 1412?", stream=stream) for _ in range(2)])
    assert [cause.kind.value for cause in once_more] == ["span_added"]  # the SDK does not try again


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")  # the SDK's own
def test_async(proof: Proof) -> None:
    proof.server.script(shop)

    async def say() -> tuple[str, list[str | None]]:
        options = types.HttpOptions(base_url=proof.server.url)
        client = genai.Client(api_key="test-key", http_options=options)
        asked = {"model": "gemini-test", "contents": "Hello"}
        async with client.aio as sdk:
            whole = await sdk.models.generate_content(**asked)
            pieces = [piece.text async for piece in await sdk.models.generate_content_stream(**asked)]
        client.close()
        return whole.text, pieces

    outcome = proof.holds(say)
    assert outcome.value == ("Good day → ✓", [None, "Good ", "day → ✓"])
    spans = [span for span in outcome.verdict.live if span.exchange]
    assert [(span.kind, span.name) for span in spans] == [("model", "generate_content gemini-test")] * 2


def test_a_stream_is_assembled(proof: Proof, client: Any) -> None:
    def say() -> list[str | None]:
        pieces = client.models.generate_content_stream(model="gemini-test", contents="Hello")
        return [piece.text for piece in pieces]

    outcome = proof.holds(say)
    assert outcome.value == [None, "Good ", "day → ✓"]
    body = answered(outcome.verdict.live)
    assert len(body["chunks"]) == 3
    assert body["message"]["candidates"][0]["content"]["parts"] == [
        {"text": "Hm.", "thought": True},
        {"text": "Good day → ✓"},
    ]


def test_embeddings(proof: Proof, client: Any) -> None:
    def embed() -> list[float]:
        return client.models.embed_content(model="embed-test", contents=["a", "b"]).embeddings[1].values  # type: ignore[no-any-return]

    outcome = proof.holds(embed)
    (span,) = [span for span in outcome.verdict.live if span.exchange]
    assert (span.kind, span.name) == ("model", "embeddings embed-test")


def test_vertex(proof: Proof) -> None:
    proof.server.script(shop)
    from google.oauth2.credentials import Credentials

    options = types.HttpOptions(base_url=proof.server.url)
    vertex: Any = {"vertexai": True, "project": "p", "location": "europe-west1", "credentials": Credentials("token")}  # type: ignore[no-untyped-call]
    with genai.Client(**vertex, http_options=options) as client:
        outcome = proof.holds(lambda: client.models.generate_content(model="gemini-test", contents="Hi").text)
    (span,) = [span for span in outcome.verdict.live if span.exchange]
    assert (span.kind, span.name) == ("model", "generate_content gemini-test")
    assert span.attributes["gen_ai.provider.name"] == "gcp.vertex_ai"


def test_the_key_stays_out(proof: Proof) -> None:
    proof.server.script(shop)
    key = "AIza" + "Sy" + "d" * 33
    options = types.HttpOptions(base_url=proof.server.url)
    with genai.Client(api_key=key, http_options=options) as client:
        with use_cassette(proof.cassette, mode="rewrite"):
            client.models.generate_content(model="gemini-test", contents="Hi")
        assert key not in proof.cassette.read_text(encoding="utf-8")
        proof.take_down()
    with genai.Client(api_key="another", http_options=options) as client, use_cassette(proof.cassette):
        client.models.generate_content(model="gemini-test", contents="Hi")
    proof.stays_untouched()


def answered(tree: SpanTree) -> Any:
    """Body of the only answer."""
    (span,) = [span for span in tree if span.exchange]
    assert span.exchange is not None
    assert span.exchange.response is not None
    return span.exchange.response["body"]


def test_a_file_is_uploaded_in_two_steps(proof: Proof, client: Any, tmp_path: Path) -> None:
    def script(request: Request) -> Reply:
        if request.headers.get("x-goog-upload-command") == "start":
            place = {"x-goog-upload-url": f"{proof.server.url}/put?upload_id=7", "x-goog-upload-status": "active"}
            return Json({}, headers=place)
        return Json({"file": {"name": "files/7", "mimeType": "text/plain"}}, headers={"x-goog-upload-status": "final"})

    proof.server.script(script)
    note = tmp_path / "note.txt"
    note.write_text("Order 1412 is late.", encoding="utf-8")

    def agent() -> Any:
        return client.files.upload(file=str(note), config={"mime_type": "text/plain"}).name

    assert proof.holds(agent).value == "files/7"
    note.write_text("Order 1412 is here.", encoding="utf-8")
    assert proof.breaks(agent)[0].kind == "input_changed"
