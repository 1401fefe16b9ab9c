"""A help desk on the Anthropic SDK. It knows nothing of tests, cassettes or recording.

Try it without a key: start ``python messages_server.py``, set the variables that it prints, then::

    python desk_agent.py "How do I descale the machine?"
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import desk_tools
from anthropic import AsyncAnthropic

MODEL = "claude-haiku-5-5"
INSTRUCTIONS = "You are the help desk of a maker of coffee machines. Open a ticket when the manual has no answer."
MAX_TURNS = 6

TOOLS: dict[str, Callable[..., Any]] = {
    "search_manual": desk_tools.search_manual,
    "open_ticket": desk_tools.open_ticket,
}
TOOL_SCHEMAS: Any = [
    {
        "name": "search_manual",
        "description": "Find what the manual says on a topic.",
        "input_schema": {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]},
    },
    {
        "name": "open_ticket",
        "description": "Hand the case to a human.",
        "input_schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
    },
]


async def stream_agent(text: str) -> AsyncIterator[str]:
    """Work on the customer's request until the model has nothing left to do; its words come as it writes them."""
    messages: list[Any] = [{"role": "user", "content": text}]
    async with AsyncAnthropic() as client:
        for _ in range(MAX_TURNS):
            async with client.messages.stream(
                model=MODEL, max_tokens=1024, system=INSTRUCTIONS, messages=messages, tools=TOOL_SCHEMAS
            ) as stream:
                async for piece in stream.text_stream:
                    yield piece
                message = await stream.get_final_message()
            if message.stop_reason != "tool_use":
                return
            messages.append({"role": "assistant", "content": [_sent_back(block) for block in message.content]})
            results = [_call_tool(block) for block in message.content if block.type == "tool_use"]
            messages.append({"role": "user", "content": results})
    raise RuntimeError(f"no answer after {MAX_TURNS} turns")


async def run_agent(text: str) -> str:
    """The same, as one text."""
    return "".join([piece async for piece in stream_agent(text)])


def _sent_back(block: Any) -> dict[str, Any]:
    if block.type == "tool_use":
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}
    return {"type": "text", "text": block.text}


def _call_tool(block: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": block.id, "content": TOOLS[block.name](**block.input)}


if __name__ == "__main__":
    print(asyncio.run(run_agent(" ".join(sys.argv[1:]) or "How do I descale the machine?")))
