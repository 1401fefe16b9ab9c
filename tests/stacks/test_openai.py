"""The openai SDK, whose tools are the user's own functions: nobody names them, the model's request does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from clerk import calls

import agents
import model_replies
from model_replies import ToolCall, answer
from proof import Proof, Stack

STACK = Stack(
    name="openai",
    dists=("openai", "httpx2", "httpx"),
    records="model calls (chat, responses, embeddings, streams), at the transport of httpx2 or httpx; tools that"
    " are plain functions, found by what the model is offered",
)

QUESTION = "Where is order 1412?"


LOOPS: dict[str, Callable[[str], Any]] = {
    "sync": agents.tool_loop,
    "async": lambda prompt: asyncio.run(agents.atool_loop(prompt)),
    "stream": agents.stream_tool_loop,
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))
def test_a_tool_loop(loop: Callable[[str], Any], proof: Proof) -> None:
    proof.server.script(calls(ToolCall("lookup", {"order": "1412"}), preface="Let me see."))
    proof.holds(lambda: loop(QUESTION), ran=["lookup 1412"])
    (cause,) = proof.breaks(lambda: loop("Where is order 1413?"))
    assert cause.kind == "input_changed"


@pytest.mark.parametrize(
    "call",
    [
        lambda word: agents.respond(word),
        lambda word: agents.embed(word, "two"),
        lambda word: agents.stream(word),
        lambda word: asyncio.run(agents.astream(word)),
        lambda word: agents.pool_fan_out([word, "two", "three"]),
    ],
    ids=["responses", "embeddings", "stream", "async-stream", "pool"],
)
def test_other_calls(call: Callable[[str], Any], proof: Proof) -> None:
    proof.server.script(lambda request: answer(request, f"You said {model_replies.last_text(request)}."))
    proof.holds(lambda: call("one"))
    assert proof.breaks(lambda: call("another one"))


def test_a_miss_is_not_asked_for_again(proof: Proof) -> None:
    proof.server.script(lambda request: answer(request, f"You said {model_replies.last_text(request)}."))
    proof.holds(lambda: agents.respond("one"))
    (cause,) = proof.breaks(lambda: [agents.respond("one"), agents.respond("two")])
    assert cause.kind == "span_added"
