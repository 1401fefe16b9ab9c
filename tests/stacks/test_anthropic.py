"""The anthropic SDK, whose tools are the user's own functions unless its tool runner calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from clerk import calls

import agents
from model_replies import ToolCall, answer
from proof import Proof, Stack

STACK = Stack(
    name="anthropic",
    dists=("anthropic", "httpx2", "httpx"),
    records="model calls and streams, at the transport of httpx2 or httpx; tools that are plain functions, found"
    " by what the model is offered",
)


LOOPS: dict[str, Callable[[str], Any]] = {
    "sync": agents.claude_tool_loop,
    "async-stream": lambda prompt: asyncio.run(agents.aclaude_tool_loop(prompt)),
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))
def test_a_tool_loop(loop: Callable[[str], Any], proof: Proof) -> None:
    proof.server.script(calls(ToolCall("lookup", {"order": "1412"}), preface="Let me see."))
    proof.holds(lambda: loop("Where is order 1412?"), ran=["lookup 1412"])
    (cause,) = proof.breaks(lambda: loop("Where is order 1413?"))
    assert cause.kind == "input_changed"


def test_a_stream(proof: Proof) -> None:
    proof.server.script(lambda request: answer(request, "One two three."))
    proof.holds(lambda: agents.claude_stream("Count."))
    assert proof.breaks(lambda: agents.claude_stream("Count again."))
