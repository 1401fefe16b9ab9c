"""The openai SDK, whose tools are the user's own functions."""

from __future__ import annotations

import agents
import model_replies
from model_replies import ToolCall, answer
from proof import Proof, Stack
from servers import Reply, Request

STACK = Stack(name="openai", dists=("openai", "httpx2"), records="model calls, at httpx2's transport")


def shop(request: Request) -> Reply:
    """A model that looks an order up, then says what it is."""
    results = model_replies.tool_results(request)
    if not results:
        return answer(request, "Let me see.", tools=[ToolCall("lookup", {"order": "1412"})])
    return answer(request, f"Done: {results[-1]}.")


def test_a_tool_loop(proof: Proof) -> None:
    proof.server.script(shop)
    proof.settings["tools"] = ["agents:lookup"]
    proof.holds(lambda: agents.tool_loop("Where is order 1412?"), ran=["lookup 1412"])
    (cause,) = proof.breaks(lambda: agents.tool_loop("Where is order 1413?"))
    assert cause.kind == "input_changed"
