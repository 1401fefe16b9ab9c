"""litellm: sync calls go out over httpx, async ones over aiohttp, and tools are the user's own functions."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from clerk import calls

import agents
import model_replies
from model_replies import ToolCall, answer
from proof import Proof, Stack
from recording import record, run
from servers import Json, Reply, Request

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing it asks the network for prices
litellm = pytest.importorskip("litellm")
pytest.importorskip("aiohttp")

STACK = Stack(
    name="litellm",
    dists=("litellm", "aiohttp", "httpx"),
    records=(
        "model calls: sync ones at httpx's transport, async ones at aiohttp's client middlewares"
        " (litellm 1.95 or newer)"
    ),
    limits=(
        "Importing litellm asks the network for a price list; where a test is the first to import it, set"
        " LITELLM_LOCAL_MODEL_COST_MAP=True.",
    ),
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning"),
    # Releases before 1.96 or so leave their logging behind when the event loop closes.
    pytest.mark.filterwarnings("ignore:.*Logging.async_success_handler:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*Logging.async_success_handler:pytest.PytestUnraisableExceptionWarning"),
]

Agent = Callable[..., Any]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Price and state of an order.",
            "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
        },
    }
]


def options(url: str, prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "openai/gpt-test", "messages": messages, "api_base": f"{url}/v1", "api_key": "sk-test-0123456789"}


async def acomplete(url: str, prompt: str) -> Any:
    said = await litellm.acompletion(**options(url, prompt))
    return said.choices[0].message.content, said.usage.total_tokens, said.model


async def complete(url: str, prompt: str) -> Any:
    said = litellm.completion(**options(url, prompt))
    return said.choices[0].message.content, said.usage.total_tokens, said.model


async def astream(url: str, prompt: str, on_piece: Callable[[], object] = lambda: None) -> Any:
    pieces = []
    async for chunk in await litellm.acompletion(stream=True, **options(url, prompt)):
        if piece := chunk.choices[0].delta.content:
            pieces.append(piece)
            on_piece()
    return pieces


async def stream(url: str, prompt: str, on_piece: Callable[[], object] = lambda: None) -> Any:
    pieces = []
    for chunk in litellm.completion(stream=True, **options(url, prompt)):
        if piece := chunk.choices[0].delta.content:
            pieces.append(piece)
            on_piece()
    return pieces


async def atool_loop(url: str, prompt: str) -> str:
    asks = options(url, prompt)
    for _ in range(agents.MAX_TURNS):
        said = (await litellm.acompletion(tools=TOOLS, **asks)).choices[0].message
        if not said.tool_calls:
            return str(said.content)
        asks["messages"].append(said.model_dump(exclude_none=True))
        for call in said.tool_calls:
            result = json.dumps(agents.lookup(**json.loads(call.function.arguments)))
            asks["messages"].append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError("the model never stopped calling tools")


BOTH = pytest.mark.parametrize("agent", [complete, acomplete], ids=["sync", "async"])
BOTH_STREAMS = pytest.mark.parametrize("agent", [stream, astream], ids=["sync", "async"])


@BOTH
def test_a_completion(agent: Agent, proof: Proof) -> None:
    proof.server.script(lambda request: answer(request, f"You said {model_replies.last_text(request)}."))
    recorded = proof.holds(lambda: asyncio.run(agent(proof.server.url, "hello")))
    assert recorded.value[0] == "You said hello."
    (exchange,) = [span.exchange for span in recorded.verdict.live if span.exchange is not None]
    assert exchange.kind == "model"
    assert "sk-test" not in proof.cassette.read_text(encoding="utf-8")
    (cause,) = proof.breaks(lambda: asyncio.run(agent(proof.server.url, "goodbye")))
    assert cause.kind == "input_changed"


@BOTH_STREAMS
def test_the_first_word_before_the_last_is_said(agent: Agent, proof: Proof) -> None:
    gate = threading.Event()
    proof.server.script(lambda request: answer(request, "one two three four", gates={-2: gate}))
    recorded = proof.holds(lambda: asyncio.run(agent(proof.server.url, "count", gate.set)))
    assert recorded.value == ["one", " two", " three", " four"]


def test_a_compressed_answer_is_readable_in_the_cassette(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        plain = answer(request, "out in the open")
        assert isinstance(plain, Json)
        return Json(plain.body, gzip=True)

    proof.server.script(script)
    assert proof.holds(lambda: asyncio.run(acomplete(proof.server.url, "hello"))).value[0] == "out in the open"
    assert "out in the open" in proof.cassette.read_text(encoding="utf-8")


def test_a_tool_loop(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("lookup", {"order": "1412"})))
    proof.settings["tools"] = ["agents:lookup"]
    proof.holds(lambda: asyncio.run(atool_loop(proof.server.url, "Where is order 1412?")), ran=["lookup 1412"])
    (cause,) = proof.breaks(lambda: asyncio.run(atool_loop(proof.server.url, "Where is order 1413?")))
    assert cause.kind == "input_changed"


@BOTH
def test_a_refusal_is_the_same_exception_again(agent: Agent, proof: Proof) -> None:
    error = {"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}}
    proof.server.script(lambda request: Json(error, status=404))
    recorded = proof.holds(lambda: asyncio.run(agent(proof.server.url, "hello")))
    assert type(recorded.raised).__name__ == "NotFoundError"


@BOTH
def test_a_miss_is_not_asked_for_again_and_is_red(agent: Agent, proof: Proof) -> None:
    proof.server.script(lambda request: answer(request, "hello"))
    record(proof.cassette, lambda: asyncio.run(agent(proof.server.url, "hello")))
    proof.take_down()

    async def more() -> list[Any]:
        return [await agent(proof.server.url, "hello"), await agent(proof.server.url, "and more")]

    outcome = run(proof.cassette, more)
    assert "nothing recorded for chat" in str(outcome.raised)
    assert outcome.failure is not None
    assert sum(span.kind == "model" for span in outcome.verdict.live) == 2
    proof.stays_untouched()
