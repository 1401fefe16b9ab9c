"""Agents to test with: written as a user would write them, unaware of any recording.

They find their servers as the SDKs do, in ``OPENAI_BASE_URL`` and ``ANTHROPIC_BASE_URL`` (and the keys that go with
them), and need nothing else of the test-suite: the file can be copied beside a test that runs in another process.
Tools leave a trace outside: each call appends a line to the file that ``AGENT_LEDGER`` names, if it is set.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

MODEL = "gpt-test"
CLAUDE = "claude-test"
MAX_TURNS = 8


def lookup(order: str) -> dict[str, Any]:
    """Price and state of an order."""
    _log(f"lookup {order}")
    return {"order": order, "state": "delivered", "price": 19.5}


def refund(order: str, amount: float) -> str:
    """Give the money back."""
    _log(f"refund {order} {amount}")
    return f"refunded {amount} for {order}"


async def notify(order: str) -> str:
    """Tell the customer; a tool that is a coroutine."""
    await asyncio.sleep(0)
    _log(f"notify {order}")
    return f"customer of {order} told"


def broken(order: str) -> str:
    """Always fails."""
    _log(f"broken {order}")
    raise RuntimeError(f"no connection to the warehouse for {order}")


TOOLS: dict[str, Callable[..., Any]] = {"lookup": lookup, "refund": refund, "notify": notify, "broken": broken}


def ask(prompt: str) -> str:
    """One call."""
    with OpenAI() as client:
        completion = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
    return completion.choices[0].message.content or ""


async def aask(prompt: str) -> str:
    """One call, async."""
    async with AsyncOpenAI() as client:
        completion = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
    return completion.choices[0].message.content or ""


def stream(prompt: str, *, on_piece: Callable[[str], None] = lambda piece: None) -> list[str]:
    """One streamed call; the pieces as they came. ``on_piece`` hears of each at once."""
    pieces = []
    with (
        OpenAI() as client,
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], stream=True
        ) as chunks,
    ):
        for chunk in chunks:
            if chunk.choices and (piece := chunk.choices[0].delta.content):
                on_piece(piece)
                pieces.append(piece)
    return pieces


async def astream(prompt: str, *, on_piece: Callable[[str], None] = lambda piece: None) -> list[str]:
    """One streamed call, async."""
    pieces = []
    async with AsyncOpenAI() as client:
        chunks = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], stream=True
        )
        async with chunks:
            async for chunk in chunks:
                if chunk.choices and (piece := chunk.choices[0].delta.content):
                    on_piece(piece)
                    pieces.append(piece)
    return pieces


def respond(prompt: str) -> str:
    """One call of the responses API."""
    with OpenAI() as client:
        return client.responses.create(model=MODEL, input=prompt).output_text


def embed(*texts: str) -> list[list[float]]:
    """Embeddings of some texts."""
    with OpenAI() as client:
        return [item.embedding for item in client.embeddings.create(model="embed-test", input=list(texts)).data]


def tool_loop(prompt: str) -> str:
    """An agent: calls tools until the model only talks."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    with OpenAI() as client:
        for _ in range(MAX_TURNS):
            message = client.chat.completions.create(model=MODEL, messages=messages, tools=_OPENAI_TOOLS)
            said = message.choices[0].message
            if not said.tool_calls:
                return said.content or ""
            messages.append(said.model_dump(exclude_none=True))
            for call in said.tool_calls:
                result = _use(call.function.name, call.function.arguments)  # type: ignore[union-attr]
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError("the model never stopped calling tools")


async def atool_loop(prompt: str) -> str:
    """The same, async; the calls of one turn run at the same time."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    async with AsyncOpenAI() as client:
        for _ in range(MAX_TURNS):
            message = await client.chat.completions.create(model=MODEL, messages=messages, tools=_OPENAI_TOOLS)
            said = message.choices[0].message
            if not said.tool_calls:
                return said.content or ""
            messages.append(said.model_dump(exclude_none=True))
            results = await asyncio.gather(
                *(_ause(call.function.name, call.function.arguments) for call in said.tool_calls)  # type: ignore[union-attr]
            )
            for call, result in zip(said.tool_calls, results, strict=True):
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError("the model never stopped calling tools")


def stream_tool_loop(prompt: str) -> str:
    """The same, every answer streamed."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    with OpenAI() as client:
        for _ in range(MAX_TURNS):
            with client.chat.completions.create(
                model=MODEL, messages=messages, tools=_OPENAI_TOOLS, stream=True
            ) as chunks:
                text, calls = _gathered(chunks)
            if not calls:
                return text
            messages.append({"role": "assistant", "content": text or None, "tool_calls": calls})
            for call in calls:
                result = _use(call["function"]["name"], call["function"]["arguments"])
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    raise RuntimeError("the model never stopped calling tools")


def claude_tool_loop(prompt: str) -> str:
    """An agent on the Anthropic SDK."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    with Anthropic() as client:
        for _ in range(MAX_TURNS):
            said = client.messages.create(model=CLAUDE, max_tokens=256, messages=messages, tools=_CLAUDE_TOOLS)
            messages.append({"role": "assistant", "content": [block.model_dump() for block in said.content]})
            if said.stop_reason != "tool_use":
                return _spoken(said.content)
            messages.append({"role": "user", "content": _claude_results(said.content)})
    raise RuntimeError("the model never stopped calling tools")


async def aclaude_tool_loop(prompt: str) -> str:
    """The same, async, every answer streamed."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    async with AsyncAnthropic() as client:
        for _ in range(MAX_TURNS):
            async with client.messages.stream(
                model=CLAUDE, max_tokens=256, messages=messages, tools=_CLAUDE_TOOLS
            ) as events:
                said = await events.get_final_message()
            messages.append({"role": "assistant", "content": [block.model_dump() for block in said.content]})
            if said.stop_reason != "tool_use":
                return _spoken(said.content)
            messages.append({"role": "user", "content": _claude_results(said.content)})
    raise RuntimeError("the model never stopped calling tools")


def claude_stream(prompt: str, *, on_piece: Callable[[str], None] = lambda piece: None) -> list[str]:
    """One streamed Anthropic call; the pieces as they came."""
    pieces = []
    with (
        Anthropic() as client,
        client.messages.stream(model=CLAUDE, max_tokens=256, messages=[{"role": "user", "content": prompt}]) as events,
    ):
        for piece in events.text_stream:
            on_piece(piece)
            pieces.append(piece)
    return pieces


async def fan_out(prompts: Sequence[str]) -> list[str]:
    """All prompts at the same time, one client, ``asyncio.gather``; answers in the order of the prompts."""
    async with AsyncOpenAI() as client:

        async def one(prompt: str) -> str:
            answer = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
            return answer.choices[0].message.content or ""

        return list(await asyncio.gather(*(one(prompt) for prompt in prompts)))


def pool_fan_out(prompts: Sequence[str]) -> list[str]:
    """The same with a thread pool, into which context variables do not follow."""
    with ThreadPoolExecutor(max_workers=max(1, len(prompts))) as pool:
        return list(pool.map(ask, prompts))


def thread_fan_out(prompts: Sequence[str]) -> list[str]:
    """The same with bare threads. An answer that failed is the text of its exception."""
    answers = [""] * len(prompts)

    def one(index: int, prompt: str) -> None:
        try:
            answers[index] = ask(prompt)
        except Exception as error:  # noqa: BLE001 - an exception that leaves a thread would be lost
            answers[index] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(prompts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def swallow(prompt: str, *, agent: Callable[[str], str] = ask) -> str:
    """An agent that takes any failure for "no answer"; tests must see the failure all the same."""
    try:
        return agent(prompt)
    except Exception:  # noqa: BLE001 - this is what the agent is for
        return "Sorry, I can't help with that."


async def aswallow(prompt: str) -> str:
    """The same, async."""
    try:
        return await aask(prompt)
    except Exception:  # noqa: BLE001 - this is what the agent is for
        return "Sorry, I can't help with that."


def _schema(*names: str) -> dict[str, Any]:
    types = {"order": "string", "amount": "number"}
    return {"type": "object", "properties": {name: {"type": types[name]} for name in names}, "required": list(names)}


_SCHEMAS = {"lookup": _schema("order"), "refund": _schema("order", "amount"), "notify": _schema("order")}
_SCHEMAS["broken"] = _SCHEMAS["lookup"]
_OPENAI_TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": TOOLS[name].__doc__, "parameters": schema}}
    for name, schema in _SCHEMAS.items()
]
_CLAUDE_TOOLS: Any = [
    {"name": name, "description": TOOLS[name].__doc__, "input_schema": schema} for name, schema in _SCHEMAS.items()
]


def _use(name: str, arguments: str) -> str:
    """Result of a tool as text; a tool that fails tells the model so."""
    try:
        result = TOOLS[name](**json.loads(arguments))
        if asyncio.iscoroutine(result):
            result = asyncio.run(result)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises goes to the model
        return f"error: {error}"
    return result if isinstance(result, str) else json.dumps(result)


async def _ause(name: str, arguments: str) -> str:
    try:
        result = TOOLS[name](**json.loads(arguments))
        if asyncio.iscoroutine(result):
            result = await result
    except Exception as error:  # noqa: BLE001 - whatever a tool raises goes to the model
        return f"error: {error}"
    return result if isinstance(result, str) else json.dumps(result)


def _gathered(chunks: Any) -> tuple[str, list[dict[str, Any]]]:
    """Text and tool calls of a streamed completion."""
    text = ""
    calls: list[dict[str, Any]] = []
    for chunk in chunks:
        delta = chunk.choices[0].delta
        text += delta.content or ""
        for part in delta.tool_calls or []:
            if part.id:
                function = {"name": part.function.name, "arguments": ""}
                calls.append({"id": part.id, "type": "function", "function": function})
            calls[part.index]["function"]["arguments"] += part.function.arguments
    return text, calls


def _spoken(blocks: Any) -> str:
    return "".join(block.text for block in blocks if block.type == "text")


def _claude_results(blocks: Any) -> list[dict[str, Any]]:
    return [
        {"type": "tool_result", "tool_use_id": block.id, "content": _use(block.name, json.dumps(block.input))}
        for block in blocks
        if block.type == "tool_use"
    ]


def _log(line: str) -> None:
    if path := os.environ.get("AGENT_LEDGER"):
        with open(path, "a", encoding="utf-8") as ledger:
            ledger.write(f"{line}\n")
