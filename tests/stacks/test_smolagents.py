"""smolagents: tool-calling agents with calls side by side, code agents whose code calls tools, errors, setup."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
from clerk import ledger

from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain.boundaries.frameworks import smolagents as boundary
from pytest_spanchain.errors import BoundaryError
from servers import Reply, Request

smolagents = pytest.importorskip("smolagents")
tool = smolagents.tool  # it looks for a decorator of this name

STACK = Stack(
    name="smolagents",
    dists=("smolagents", "openai"),
    records="tools, at Tool.forward, in tool-calling and in code agents",
    limits=(
        "A tool whose class overrides __call__ without calling Tool's is not recorded.",
        "Images and audio as results need a registered converter.",
        "Code that runs in a remote executor (docker, e2b, modal) is not recorded.",
    ),
)


@tool  # type: ignore[untyped-decorator, unused-ignore]
def lookup(order: str, depth: int = 1) -> dict:  # type: ignore[type-arg]
    """State of an order.

    Args:
        order: its number.
        depth: how much of it.
    """
    ledger(f"lookup {order} {depth}")
    return {"order": order, "state": "delivered", "depth": depth}


@tool  # type: ignore[untyped-decorator, unused-ignore]
def broken(order: str) -> str:
    """Always fails.

    Args:
        order: its number.
    """
    ledger(f"broken {order}")
    raise LookupError(f"no warehouse for {order}")


class Warehouse(smolagents.Tool):  # type: ignore[misc, name-defined]
    name = "warehouse"
    description = "What is in stock."
    inputs = {"item": {"type": "string", "description": "what to look for"}}  # noqa: RUF012
    output_type = "string"

    def setup(self) -> None:
        ledger("setup")
        self.stock = {"tea": 3}
        self.is_initialized = True

    def forward(self, item: str) -> str:
        ledger(f"forward {item}")
        return f"{self.stock[item]} of {item}"


def model(proof: Proof) -> Any:
    return smolagents.OpenAIModel(model_id="gpt-test", api_base=f"{proof.server.url}/v1", api_key="test")


def tool_agent(proof: Proof, prompt: str, *tools: Any) -> Any:
    agent = smolagents.ToolCallingAgent(tools=list(tools), model=model(proof), verbosity_level=0, max_steps=4)
    return agent.run(prompt)


def code_agent(proof: Proof, prompt: str, *tools: Any, **options: Any) -> Any:
    agent = smolagents.CodeAgent(tools=list(tools), model=model(proof), verbosity_level=0, max_steps=3, **options)
    return agent.run(prompt)


def calls(*tools: ToolCall) -> Callable[[Request], Reply]:
    """A model that asks for these tools at once, then answers with what they said."""

    def script(request: Request) -> Reply:
        turns = request.body["messages"]
        last = str(turns[-1]["content"])
        if len(turns) == 2 and "Error:" not in last:  # the system's and the user's
            return answer(request, tools=tools)
        return answer(request, tools=[ToolCall("final_answer", {"answer": last}, id="last")])

    return script


def writes(*programs: str) -> Callable[[Request], Reply]:
    """A model that writes these programs, one a step."""

    def script(request: Request) -> Reply:
        step = sum(turn["role"] == "assistant" for turn in request.body["messages"])
        return answer(request, f"Thought: so be it.\n<code>\n{programs[step]}\n</code>")

    return script


TWO = (
    ToolCall("lookup", {"order": "1412"}, id="a"),
    ToolCall("lookup", {"order": "1413", "depth": 2}, id="b"),
)


def test_two_calls_side_by_side(proof: Proof) -> None:
    proof.server.script(calls(*TWO))
    recorded = proof.holds(
        lambda: tool_agent(proof, "Where?", lookup), ran=["lookup 1412 1", "lookup 1413 2"], in_order=False
    )
    assert "'order': '1413', 'state': 'delivered', 'depth': 2" in recorded.value
    proof.breaks(lambda: tool_agent(proof, "Where now?", lookup))
    proof.breaks(lambda: tool_agent(proof, "Where?"))


def test_interpreted_code(proof: Proof) -> None:
    proof.server.script(
        writes("states = [lookup(order)['state'] for order in ('1', '2')]\nprint(states)", "final_answer(states)")
    )
    recorded = proof.holds(lambda: code_agent(proof, "Where?", lookup), ran=["lookup 1 1", "lookup 2 1"])
    assert recorded.value == ["delivered", "delivered"]
    proof.breaks(lambda: code_agent(proof, "Where?", lookup, instructions="Hurry."))


def test_another_argument(proof: Proof) -> None:
    """Variables of the interpreted code are an input like any other."""
    proof.server.script(writes("final_answer(lookup(order))"))

    def agent(order: str) -> Any:
        made = smolagents.CodeAgent(tools=[lookup], model=model(proof), verbosity_level=0, max_steps=3)
        made.state["order"] = order
        return made.run("Where?")

    recorded = proof.holds(lambda: agent("7"), ran=["lookup 7 1"])
    assert recorded.value["order"] == "7"
    (cause,) = proof.breaks(lambda: agent("8"))
    assert cause.kind == "input_changed"
    assert [change.path for change in cause.changes] == ["request.arguments.order"]


def test_a_tool_that_raises(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("broken", {"order": "1412"}, id="a")))
    recorded = proof.holds(lambda: tool_agent(proof, "Try", broken), ran=["broken 1412"])
    assert "LookupError: no warehouse for 1412" in recorded.value


def test_code_that_catches(proof: Proof) -> None:
    """An exception keeps its class for the ``except`` of interpreted code."""
    program = "try:\n    broken('1')\nexcept LookupError as error:\n    final_answer('caught ' + str(error))"
    proof.server.script(writes(program))
    recorded = proof.holds(lambda: code_agent(proof, "Try", broken), ran=["broken 1"])
    assert recorded.value == "caught no warehouse for 1"


def test_arguments_that_do_not_fit(proof: Proof) -> None:
    """The library refuses them before there is a call of a tool."""
    proof.server.script(calls(ToolCall("lookup", {"place": "1"}, id="a")))
    recorded = proof.holds(lambda: tool_agent(proof, "Where?", lookup))
    assert "place" in recorded.value
    assert not [span for span in recorded.verdict.live if span.kind == "tool"]


def test_setup_is_part_of_the_body(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("warehouse", {"item": "tea"}, id="a")))
    recorded = proof.holds(lambda: tool_agent(proof, "Stock?", Warehouse()), ran=["setup", "forward tea"])
    assert "3 of tea" in recorded.value


def test_a_managed_agent(proof: Proof) -> None:
    """An agent as a tool of an agent is no tool: what it does is recorded."""

    def script(request: Request) -> Reply:
        names = [tool["function"]["name"] for tool in request.body["tools"]]
        call = ToolCall("helper", {"task": "find 1412"}, id="h") if "helper" in names else TWO[0]
        return calls(call)(request)

    def agent() -> Any:
        helper = smolagents.ToolCallingAgent(
            tools=[lookup], model=model(proof), name="helper", description="Finds.", verbosity_level=0, max_steps=3
        )
        boss = smolagents.ToolCallingAgent(
            tools=[], model=model(proof), managed_agents=[helper], verbosity_level=0, max_steps=3
        )
        return boss.run("Where?")

    proof.server.script(script)
    recorded = proof.holds(agent, ran=["lookup 1412 1"])
    assert "delivered" in recorded.value


@pytest.mark.parametrize(
    "has", [{}, {"Tool": type("Tool", (), {"forward": 1, "setup": 1, "__call__": lambda self, x: x})}]
)
def test_a_release_that_looks_different(has: dict[str, Any]) -> None:
    module = types.ModuleType("smolagents.tools")
    vars(module).update(has)
    with pytest.raises(BoundaryError, match=r"smolagents [\d.]+ is not recognised: its tools would not be recorded"):
        boundary.install(module)
