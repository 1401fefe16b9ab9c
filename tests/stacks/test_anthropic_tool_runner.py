"""Anthropic's tool runner: function tools, a built-in tool of the user's own, errors, streams, its own spans."""

# The library is not typed, or not there in every environment.
# mypy: disable-error-code="union-attr, unused-ignore"

from __future__ import annotations

import functools
import os
import types
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_async_tool, beta_tool
from anthropic.lib.tools import BetaAbstractMemoryTool, BetaToolRunner, ToolError
from anthropic.lib.tools import _beta_functions as lib
from clerk import ledger, repeats

from model_replies import ToolCall
from proof import Proof, Stack
from pytest_spanchain.boundaries.frameworks import anthropic_tools
from pytest_spanchain.errors import BoundaryError

STACK = Stack(
    name="anthropic tool runner",
    dists=("anthropic",),
    records="tools, where BetaFunctionTool is called, and built-in tools and toolsets, where the runner calls them",
    limits=(
        "A built-in tool that the sessions' tool runner calls runs again in replay; function tools do not.",
        "A context-manager tool is entered where it is decorated or first called, as the SDK does; that code is not"
        " recorded.",
    ),
)

CLAUDE = "claude-test"


@beta_tool
def lookup(order: str, depth: int = 1) -> str:
    """State of an order."""
    ledger(f"lookup {order} {depth}")
    return f"{order} is delivered ({os.getpid() and depth})"


@beta_tool
def broken(order: str) -> str:
    """Always fails."""
    ledger(f"broken {order}")
    raise RuntimeError(f"no warehouse for {order}")


@beta_tool
def refuses(order: str) -> str:
    """Fails with content of its own."""
    ledger(f"refuses {order}")
    raise ToolError([{"type": "text", "text": f"{order} is locked"}])


@beta_tool
def blocks(order: str) -> Any:
    """Says its result piece by piece."""
    for number in range(2):
        ledger(f"blocks {order} {number}")
        yield {"type": "text", "text": f"part {number} of {order}"}


@beta_async_tool
async def notify(order: str) -> str:
    """Tells the customer."""
    ledger(f"notify {order}")
    return f"customer of {order} told"


class Memory(BetaAbstractMemoryTool):
    """A built-in tool whose commands are the user's."""

    def view(self, command: Any) -> str:
        ledger(f"view {command.path}")
        return f"{command.path} holds: likes tea"

    create = str_replace = insert = delete = rename = view  # type: ignore[assignment]


calls = functools.partial(repeats, preface="Let me see.")


def run(prompt: str, *tools: Any, system: str = "Be brief.", stream: bool = False) -> str:
    with Anthropic() as client:
        runner: Any = client.beta.messages.tool_runner(
            model=CLAUDE,
            max_tokens=100,
            system=system,
            tools=list(tools),
            messages=[{"role": "user", "content": prompt}],
            stream=stream,
        )
        said = [(turn.get_final_message() if stream else turn).content for turn in runner]
        return str([block.text for blocks in said for block in blocks if block.type == "text"])


async def arun(prompt: str, *tools: Any) -> str:
    async with AsyncAnthropic() as client:
        runner = client.beta.messages.tool_runner(
            model=CLAUDE, max_tokens=100, tools=list(tools), messages=[{"role": "user", "content": prompt}]
        )
        runner = await runner if hasattr(runner, "__await__") else runner  # type: ignore[misc]
        return str([block.text async for turn in runner for block in turn.content if block.type == "text"])


TWO = (ToolCall("lookup", {"order": "1412"}), ToolCall("lookup", {"order": "1413", "depth": 2}))


@pytest.mark.parametrize("stream", [False, True])
def test_two_calls_of_one_turn(proof: Proof, stream: bool) -> None:
    proof.server.script(calls(*TWO))
    recorded = proof.holds(
        lambda: run("Where are they?", lookup, stream=stream), ran=["lookup 1412 1", "lookup 1413 2"]
    )
    assert "1413 is delivered (2)" in recorded.value
    proof.breaks(lambda: run("Where are they now?", lookup, stream=stream))
    proof.breaks(lambda: run("Where are they?", lookup, system="Be long.", stream=stream))
    proof.breaks(lambda: run("Where are they?", stream=stream))


def test_another_argument(proof: Proof) -> None:
    def loop(order: str) -> str:
        """A loop of the user's own over the same tools."""
        with Anthropic() as client:
            said = client.beta.messages.create(
                model=CLAUDE, max_tokens=9, tools=[lookup.to_dict()], messages=[{"role": "user", "content": "Where?"}]
            )
        return "; ".join(
            str(lookup.call({**block.input, "order": order})) for block in said.content if block.type == "tool_use"
        )

    proof.server.script(calls(TWO[0]))
    proof.holds(lambda: loop("1"), ran=["lookup 1 1"])
    (cause,) = proof.breaks(lambda: loop("2"))
    assert cause.kind == "input_changed"
    assert [change.path for change in cause.changes] == ["request.arguments.order"]


def test_async_tools(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("notify", {"order": "1"}), ToolCall("notify", {"order": "2"})))

    async def agent() -> str:
        return await arun("Tell them", notify)

    proof.holds(agent, ran=["notify 1", "notify 2"])

    async def changed() -> str:
        return await arun("Tell them all", notify)

    proof.breaks(changed)


@pytest.mark.parametrize("tool", [broken, refuses])
def test_a_tool_that_raises(proof: Proof, tool: Any) -> None:
    """The runner tells the model in its own words, of the same exception."""
    proof.server.script(calls(ToolCall(tool.name, {"order": "1412"})))
    recorded = proof.holds(lambda: run("Try", tool), ran=[f"{tool.name} 1412"])
    assert {"broken": "RuntimeError('no warehouse for 1412')", "refuses": "1412 is locked"}[tool.name] in recorded.value


def test_arguments_that_do_not_fit(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("lookup", {"order": "1", "depth": "deep"})))
    recorded = proof.holds(lambda: run("Where?", lookup))
    assert "Invalid arguments for function lookup" in recorded.value


def test_content_made_piece_by_piece(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("blocks", {"order": "1"})))
    recorded = proof.holds(lambda: run("Show", blocks), ran=["blocks 1 0", "blocks 1 1"])
    assert "part 0 of 1" in recorded.value


def test_a_built_in_tool(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("memory", {"command": "view", "path": "/memories"})))
    recorded = proof.holds(lambda: run("Remember?", Memory()), ran=["view /memories"])
    assert "likes tea" in recorded.value


def test_tools_off(proof: Proof) -> None:
    """Who switches tools off gets them run."""
    proof.server.script(calls(TWO[0]))
    proof.settings["tools"] = "off"
    from recording import record, replay

    record(proof.cassette, lambda: run("Where?", lookup), tools="off")
    proof.take_down()
    replay(proof.cassette, lambda: run("Where?", lookup), tools="off")
    assert proof.ran == ["lookup 1412 1", "lookup 1412 1"]


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("_beta_functions", {}),
        ("_beta_functions", {"ToolError": ToolError, "BetaFunctionTool": type("BetaFunctionTool", (), {})}),
        ("_beta_runner", {"ToolError": ToolError, "BaseSyncToolRunner": type("BaseSyncToolRunner", (), {})}),
        ("_runnable", {}),
    ],
)
def test_a_release_that_looks_different(name: str, has: dict[str, Any]) -> None:
    module = types.ModuleType(f"anthropic.lib.tools.{name}")
    vars(module).update(has)
    with pytest.raises(BoundaryError, match=r"anthropic [\d.]+ is not recognised: its tools would not be recorded"):
        anthropic_tools.install(module)


def test_methods_are_still_the_sdks() -> None:
    assert lib.BetaFunctionTool.call.__qualname__ == "BetaFunctionTool.call"
    assert BetaToolRunner._run_tool.__name__ == "_run_tool"
