"""FastMCP: tools of a server in this process, called by a client and directly; forms of tools, context, errors."""

# The library is not typed, or not there in every environment.
# mypy: disable-error-code="untyped-decorator, name-defined, unused-ignore"

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from clerk import ledger, repeats
from openai import AsyncOpenAI

from model_replies import ToolCall
from proof import Proof, Stack
from pytest_spanchain.boundaries.frameworks import fastmcp as boundary
from pytest_spanchain.errors import BoundaryError

fastmcp = pytest.importorskip("fastmcp")
exceptions = pytest.importorskip("fastmcp.exceptions")

STACK = Stack(
    name="fastmcp",
    dists=("fastmcp", "mcp"),
    records="tools of a server in this process, at FunctionTool.run around the function",
    limits=(
        "What a tool sends to its client through its context (logs, progress, questions) is not sent again in replay.",
        "The function of a transformed tool and tools of one's own class run again; tools that they call do not.",
    ),
)

server = fastmcp.FastMCP("shop")


@dataclass
class State:
    order: str
    depth: int


@server.tool
def lookup(order: str, depth: int = 1) -> State:
    """State of an order."""
    ledger(f"lookup {order} {depth}")
    return State(order, depth)


@server.tool
async def notify(order: str, ctx: fastmcp.Context) -> str:
    """Tells the customer."""
    await asyncio.sleep(0)
    ledger(f"notify {order} {ctx.fastmcp.name}")
    return f"customer of {order} told"


@server.tool
def pieces(order: str) -> Iterator[str]:
    """Parts of an order."""
    for number in range(2):
        ledger(f"pieces {order} {number}")
        yield f"part {number}"


@server.tool
async def track(order: str) -> AsyncIterator[str]:
    """Follows an order."""
    ledger(f"track {order}")
    yield f"{order} at the door"


@server.tool
def broken(order: str) -> str:
    """Always fails."""
    ledger(f"broken {order}")
    raise LookupError(f"no warehouse for {order}")


@server.tool
def refuses(order: str) -> str:
    """Fails with words for the model."""
    ledger(f"refuses {order}")
    raise exceptions.ToolError(f"{order} is locked")


async def ask(prompt: str, *, order: str = "") -> str:
    """An agent over the OpenAI SDK whose tools come from the server; ``order`` replaces what the model asks for."""
    async with fastmcp.Client(server) as client, AsyncOpenAI() as openai:
        tools: Any = [
            {"type": "function", "function": {"name": tool.name, "parameters": tool.input_schema}}
            for tool in await client.list_tools()
        ]
        messages: list[Any] = [{"role": "user", "content": prompt}]
        while True:
            said = await openai.chat.completions.create(model="gpt-test", messages=messages, tools=tools)
            message: Any = said.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message.model_dump(exclude_none=True))
            given = [
                json.loads(call.function.arguments) | ({"order": order} if order else {}) for call in message.tool_calls
            ]
            results = await asyncio.gather(
                *(
                    client.call_tool(call.function.name, arguments, raise_on_error=False)
                    for call, arguments in zip(message.tool_calls, given, strict=True)
                )
            )
            for call, result in zip(message.tool_calls, results, strict=True):
                text = "".join(block.text for block in result.content)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": text})


def agent_of(prompt: str = "Go", **options: Any) -> Callable[[], Any]:
    async def agent() -> Any:
        return await ask(prompt, **options)

    return agent


TWO = (ToolCall("lookup", {"order": "1412"}), ToolCall("lookup", {"order": "1413", "depth": 2}))


def test_two_calls_side_by_side(proof: Proof) -> None:
    proof.server.script(repeats(*TWO))
    recorded = proof.holds(agent_of(), ran=["lookup 1412 1", "lookup 1413 2"], in_order=False)
    assert recorded.value == '{"order":"1412","depth":1} / {"order":"1413","depth":2}'
    proof.breaks(agent_of("Go on"))
    causes = proof.breaks(agent_of(order="7"))
    assert "input_changed" in [str(cause.kind) for cause in causes]


@pytest.mark.parametrize(
    ("tool", "ran", "says"),
    [
        ("notify", ["notify 1 shop"], "customer of 1 told"),
        ("pieces", ["pieces 1 0", "pieces 1 1"], "part 1"),
        ("track", ["track 1"], "1 at the door"),
        ("broken", ["broken 1"], "no warehouse for 1"),
        ("refuses", ["refuses 1"], "1 is locked"),
    ],
)
def test_forms_of_tools(proof: Proof, tool: str, ran: list[str], says: str) -> None:
    proof.server.script(repeats(ToolCall(tool, {"order": "1"})))
    recorded = proof.holds(agent_of(), ran=ran)
    assert says in recorded.value


def test_arguments_that_do_not_fit(proof: Proof) -> None:
    """The framework refuses them before there is a call of a tool."""
    proof.server.script(repeats(ToolCall("lookup", {"order": "1", "depth": "deep"})))
    recorded = proof.holds(agent_of())
    assert "depth" in recorded.value
    assert not [span for span in recorded.verdict.live if span.kind == "tool"]


@pytest.mark.parametrize("has", [{}, {"FunctionTool": type("T", (), {"run": lambda self: None}), "ToolResult": int}])
def test_a_release_that_looks_different(has: dict[str, Any]) -> None:
    module = types.ModuleType("fastmcp.tools.function_tool")
    vars(module).update(has)
    with pytest.raises(BoundaryError, match=r"fastmcp [\d.]+ is not recognised: its tools would not be recorded"):
        boundary.install(module)
