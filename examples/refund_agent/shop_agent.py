"""A shop's support agent on the OpenAI SDK. It knows nothing of tests, cassettes or recording.

Try it without a key: start ``python model_server.py``, set the variables that it prints, then::

    python shop_agent.py "Refund order 1412"
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import shop_tools
from openai import AsyncOpenAI

MODEL = "gpt-5.4-mini"
INSTRUCTIONS = "You are the support agent of a small shop. Look an order up before you refund it."
MAX_TURNS = 6

TOOLS: dict[str, Callable[..., Any]] = {
    "lookup_order": shop_tools.lookup_order,
    "refund_order": shop_tools.refund_order,
}
TOOL_SCHEMAS: Any = [
    {
        "type": "function",
        "function": {
            "name": "lookup_order",
            "description": "Find an order by its number.",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}},
                "required": ["order_id"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "refund_order",
            "description": "Pay an amount back for an order.",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}},
                "required": ["order_id", "amount"],
            },
        },
    },
]


async def run_agent(text: str) -> str:
    """Work on the customer's request until the model has nothing left to do; its last words are the answer."""
    messages = _conversation(text)
    async with AsyncOpenAI() as client:
        for _ in range(MAX_TURNS):
            completion = await client.chat.completions.create(model=MODEL, messages=messages, tools=TOOL_SCHEMAS)
            message = completion.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message.model_dump(exclude_none=True))
            messages += [_call_tool(call) for call in message.tool_calls]
    raise RuntimeError(f"no answer after {MAX_TURNS} turns")


async def stream_answer(question: str) -> AsyncIterator[str]:
    """Answer a question that needs no tool, piece by piece as the model writes."""
    async with AsyncOpenAI() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=_conversation(question), stream=True)
        async for chunk in stream:
            if chunk.choices and (piece := chunk.choices[0].delta.content):
                yield piece


def _conversation(text: str) -> list[Any]:
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": text}]


def _call_tool(call: Any) -> dict[str, Any]:
    result = TOOLS[call.function.name](**json.loads(call.function.arguments))
    return {"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)}


if __name__ == "__main__":
    print(asyncio.run(run_agent(" ".join(sys.argv[1:]) or "Refund order 1412")))
