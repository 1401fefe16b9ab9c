"""CrewAI: functions and classes as tools, side by side, through function calling and through text, errors, limits."""

# The library is not typed, or not there in every environment.
# mypy: disable-error-code="import-not-found, misc, untyped-decorator, unused-ignore"

from __future__ import annotations

import asyncio
import os
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
from clerk import ledger, repeats

from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain.boundaries.frameworks import crewai as boundary
from pytest_spanchain.errors import BoundaryError
from servers import Reply, Request

os.environ.setdefault("CREWAI_TESTING", "true")
os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
pytest.importorskip("crewai")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from crewai import LLM, Agent, Crew, Task
    from crewai.tools import BaseTool, tool

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning", "ignore::pytest.PytestWarning"
)

STACK = Stack(
    name="crewai",
    dists=("crewai", "openai"),
    records="tools, at BaseTool.run and CrewStructuredTool.invoke around what they run",
    limits=(
        "A tool of one's own class that overrides run instead of _run is not recorded.",
        "CrewAI's memory and knowledge are recorded only as far as they use HTTP.",
    ),
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CrewAI keeps files of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path / "crewai"))


@tool("look up")
def lookup(order: str, depth: int = 1) -> dict:  # type: ignore[type-arg]
    """State of an order."""
    ledger(f"lookup {order} {depth}")
    return {"order": order, "state": "delivered", "depth": depth}


@tool("notify")
async def notify(order: str) -> str:
    """Tells the customer."""
    await asyncio.sleep(0)
    ledger(f"notify {order}")
    return f"customer of {order} told"


@tool("broken")
def broken(order: str) -> str:
    """Always fails."""
    ledger(f"broken {order}")
    raise LookupError(f"no warehouse for {order}")


class Warehouse(BaseTool):  # type: ignore[misc, unused-ignore]
    name: str = "warehouse"
    description: str = "What is in stock."

    def _run(self, item: str) -> str:
        ledger(f"warehouse {item}")
        return f"3 of {item}"

    async def _arun(self, item: str) -> str:
        ledger(f"awaited {item}")
        return f"3 of {item}, awaited"


def crew(proof: Proof, *tools: Any, goal: str = "Find orders", **options: Any) -> Any:
    llm = LLM(model="openai/gpt-4o-mini", base_url=f"{proof.server.url}/v1", api_key="test")
    agent = Agent(role="Clerk", goal=goal, backstory="Old hand.", llm=llm, tools=list(tools), max_iter=3, **options)
    task = Task(description="Where is it?", expected_output="A place.", agent=agent)
    return Crew(agents=[agent], tasks=[task], verbose=False)


def ask(proof: Proof, *tools: Any, **options: Any) -> str:
    return str(crew(proof, *tools, **options).kickoff().raw)


TWO = (ToolCall("look_up", {"order": "1412"}), ToolCall("look_up", {"order": "1413", "depth": 2}))


def test_two_calls_of_one_turn(proof: Proof) -> None:
    proof.server.script(repeats(*TWO))
    recorded = proof.holds(lambda: ask(proof, lookup), ran=["lookup 1412 1", "lookup 1413 2"], in_order=False)
    assert "'order': '1413', 'state': 'delivered', 'depth': 2" in recorded.value
    (span, *_) = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert span.attributes["gen_ai.tool.name"] == "look_up"
    assert "gen_ai.tool.call.id" in span.attributes
    proof.breaks(lambda: ask(proof, lookup, goal="Lose orders"))
    proof.breaks(lambda: ask(proof))


def test_another_argument(proof: Proof) -> None:
    def agent(order: str) -> Any:
        return ask(proof), lookup.run(order=order), Warehouse().run("tea")

    proof.server.script(lambda request: answer(request, "Nowhere."))
    proof.holds(lambda: agent("7"), ran=["lookup 7 1", "warehouse tea"])
    (cause,) = proof.breaks(lambda: agent("8"))
    assert cause.kind == "input_changed"
    assert [change.path for change in cause.changes] == ["request.arguments.order"]


def test_async_tools(proof: Proof) -> None:
    """A crew that is awaited, an async function, and a class with both forms."""
    proof.server.script(repeats(ToolCall("notify", {"order": "1"}), ToolCall("warehouse", {"item": "tea"})))

    async def agent(goal: str = "Tell") -> Any:
        said = await crew(proof, notify, Warehouse(), goal=goal).akickoff()
        return said.raw, await Warehouse().arun(item="rum")

    recorded = proof.holds(agent, ran=["notify 1", "warehouse tea", "awaited rum"], in_order=False)
    assert "customer of 1 told / 3 of tea" in recorded.value[0]
    assert recorded.value[1] == "3 of rum, awaited"

    async def changed() -> Any:
        return await agent("Tell all")

    proof.breaks(changed)


def test_a_tool_that_raises(proof: Proof) -> None:
    proof.server.script(repeats(ToolCall("broken", {"order": "1412"})))
    recorded = proof.holds(lambda: ask(proof, broken), ran=["broken 1412"])
    assert "no warehouse for 1412" in recorded.value


def test_arguments_that_do_not_fit(proof: Proof) -> None:
    """The framework refuses them before there is a call of a tool."""
    proof.server.script(repeats(ToolCall("look_up", {"order": "1", "depth": "deep"})))
    recorded = proof.holds(lambda: ask(proof, lookup))
    assert "validation" in recorded.value
    assert not [span for span in recorded.verdict.live if span.kind == "tool"]


def test_usage_is_counted_in_replay_too(proof: Proof) -> None:
    proof.server.script(lambda request: answer(request, "Nowhere."))

    def agent() -> Any:
        once = Warehouse(max_usage_count=1)
        return ask(proof), once.run(item="tea"), str(once.run(item="tea")), once.current_usage_count

    recorded = proof.holds(agent, ran=["warehouse tea"])
    assert recorded.value[1] == "3 of tea"
    assert "usage limit of 1" in recorded.value[2]
    assert recorded.value[3] == 1


def test_tools_by_text(proof: Proof) -> None:
    """A model without function calling writes what it wants, and the framework reads it."""

    def script(request: Request) -> Reply:
        text = str(request.body["messages"])
        if "Observation: {" in text or "Observation: 3" in text:
            return answer(request, "Thought: I know.\nFinal Answer: it was " + text.rpartition("Observation: ")[2][:40])
        return answer(request, 'Thought: look.\nAction: look_up\nAction Input: {"order": "1412"}')

    def agent(goal: str) -> str:
        llm = LLM(model="openai/o1-mini", base_url=f"{proof.server.url}/v1", api_key="test")
        made = Agent(role="Clerk", goal=goal, backstory="Old hand.", llm=llm, tools=[lookup], max_iter=3)
        task = Task(description="Where is it?", expected_output="A place.", agent=made)
        return str(Crew(agents=[made], tasks=[task], verbose=False).kickoff().raw)

    proof.server.script(script)
    recorded = proof.holds(lambda: agent("Find"), ran=["lookup 1412 1"])
    assert "1412" in recorded.value
    proof.breaks(lambda: agent("Lose"))


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("base_tool", {}),
        ("base_tool", {"BaseTool": type("T", (), {"run": lambda self: None})}),
        ("structured_tool", {"CrewStructuredTool": type("T", (), {"invoke": lambda self, text: None})}),
    ],
)
def test_a_release_that_looks_different(name: str, has: dict[str, Any]) -> None:
    module = types.ModuleType(f"crewai.tools.{name}")
    vars(module).update(has)
    if has:
        module.sanitize_tool_name = str  # type: ignore[attr-defined]
    with pytest.raises(BoundaryError, match=r"crewai [\d.]+ is not recognised: its tools would not be recorded"):
        boundary.install(module)
