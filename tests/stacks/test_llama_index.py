"""LlamaIndex: function agents, tools side by side, callbacks, context, hand-overs, classes of one's own, errors."""

# No ``annotations`` from the future here: LlamaIndex looks for a parameter whose annotation is ``Context`` itself.
# The library is not there in every environment.
# mypy: disable-error-code="import-not-found, misc, no-any-return, no-untyped-def, unused-ignore"

import asyncio
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from clerk import ledger, repeats

import model_replies
from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain.boundaries.frameworks import llama_index as boundary
from pytest_spanchain.errors import BoundaryError
from servers import Reply, Request

pytest.importorskip("llama_index.core")
pytest.importorskip("llama_index.llms.openai")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
    from llama_index.core.tools import AsyncBaseTool, FunctionTool, ToolMetadata, ToolOutput
    from llama_index.core.workflow import Context, Event
    from llama_index.llms.openai import OpenAI
    from pydantic import BaseModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")

STACK = Stack(
    name="llama-index",
    dists=("llama-index-core", "llama-index-llms-openai"),
    records="tools, at FunctionTool.call and acall around the function, other tools where an agent workflow calls them;"
    " what they write into a workflow's store and stream through its context",
    limits=(
        "A tool that waits for a person in its body (ctx.wait_for_event) cannot be recorded; the recording says so.",
        "Query engines and retrievers as tools are served whole in an agent workflow, and run again elsewhere.",
        "What a tool does with its context before it raises is not done again in replay.",
    ),
)


class Progress(Event):  # type: ignore[misc, unused-ignore]
    text: str


def lookup(order: str, depth: int = 1) -> dict[str, Any]:
    """State of an order."""
    ledger(f"lookup {order} {depth}")
    return {"order": order, "state": "delivered", "depth": depth}


async def notify(order: str) -> str:
    """Tells the customer."""
    await asyncio.sleep(0)
    ledger(f"notify {order}")
    return f"customer of {order} told"


def broken(order: str) -> str:
    """Always fails."""
    ledger(f"broken {order}")
    raise LookupError(f"no warehouse for {order}")


async def remember(order: str, ctx: Context) -> str:
    """Keeps an order in mind."""
    ledger(f"remember {order}")
    ctx.write_event_to_stream(Progress(text=f"remembering {order}"))
    await ctx.store.set("order", order)
    async with ctx.store.edit_state() as state:
        state["edited"] = [order]
    return f"{order} kept"


async def confirm(order: str, ctx: Context) -> str:
    """Asks somebody."""
    event = await ctx.wait_for_event(Progress, waiter_event=Progress(text=order))
    return str(event.text)


class Given(BaseModel):
    order: str


class Own(AsyncBaseTool):  # type: ignore[misc, unused-ignore]
    """A tool of the user's own class."""

    @property
    def metadata(self) -> ToolMetadata:
        return ToolMetadata(name="own", description="Own.", fn_schema=Given)

    def call(self, order: str) -> ToolOutput:
        ledger(f"own {order}")
        return ToolOutput(content=f"own {order}", tool_name="own", raw_input={"order": order}, raw_output=[order])

    async def acall(self, order: str) -> ToolOutput:
        return self.call(order)


def llm(proof: Proof) -> Any:
    return OpenAI(model="gpt-4o-mini", api_base=f"{proof.server.url}/v1", api_key="test", max_retries=0)


async def ask(proof: Proof, *tools: Any, prompt: str = "Go", system: str = "Be brief.") -> Any:
    agent = FunctionAgent(tools=list(tools), llm=llm(proof), system_prompt=system)
    context = Context(agent)
    handler = agent.run(prompt, ctx=context)
    streamed = [event.text async for event in handler.stream_events() if isinstance(event, Progress)]
    said = await handler
    kept = [await context.store.get(name, default=None) for name in ("order", "edited")]
    return str(said), streamed, kept


def agent_of(proof: Proof, *tools: Any, **options: Any) -> Callable[[], Any]:
    async def agent() -> Any:
        return await ask(proof, *tools, **options)

    return agent


TWO = (ToolCall("lookup", {"order": "1412"}), ToolCall("lookup", {"order": "1413", "depth": 2}))


@pytest.mark.parametrize("slower", ["1412", "1413"])
def test_two_calls_side_by_side(slower: str, proof: Proof) -> None:
    """The model is sent results in the order in which the threads of the tools end."""

    def lookup(order: str, depth: int = 1) -> dict[str, Any]:
        """State of an order."""
        time.sleep(0.1 * (order == slower))
        ledger(f"lookup {order} {depth}")
        return {"order": order, "state": "delivered", "depth": depth}

    proof.server.script(repeats(*TWO))
    recorded = proof.holds(agent_of(proof, lookup), ran=["lookup 1412 1", "lookup 1413 2"], in_order=False)
    assert "'order': '1413', 'state': 'delivered', 'depth': 2" in recorded.value[0]
    proof.breaks(agent_of(proof, lookup, prompt="Go on"))
    proof.breaks(agent_of(proof, lookup, system="Be long."))
    proof.breaks(agent_of(proof))


def test_sync_calls_and_callbacks(proof: Proof) -> None:
    """A loop of the LLM's own, without a workflow; a callback is no part of the body."""
    proof.server.script(repeats(TWO[0]))

    def agent(order: str) -> Any:
        seen: list[Any] = []

        def callback(result: Any) -> str:
            seen.append(result["order"])
            return f"called back of {result['order']}"

        tool = FunctionTool.from_defaults(lookup, callback=callback)
        said = llm(proof).predict_and_call([tool], "Go")
        return str(said), str(tool.call(order)), seen

    recorded = proof.holds(lambda: agent("7"), ran=["lookup 1412 1", "lookup 7 1"])
    assert recorded.value == ("called back of 1412", "called back of 7", ["1412", "7"])
    (cause,) = proof.breaks(lambda: agent("8"))
    assert cause.kind == "input_changed"
    assert [change.path for change in cause.changes] == ["request.arguments.order"]


def test_async_tools(proof: Proof) -> None:
    proof.server.script(repeats(ToolCall("notify", {"order": "1"})))
    recorded = proof.holds(agent_of(proof, notify), ran=["notify 1"])
    assert recorded.value[0] == "customer of 1 told"


def test_a_tool_that_raises(proof: Proof) -> None:
    proof.server.script(repeats(ToolCall("broken", {"order": "1412"})))
    recorded = proof.holds(agent_of(proof, broken), ran=["broken 1412"])
    assert "no warehouse for 1412" in recorded.value[0]


def test_the_context_is_used_again(proof: Proof) -> None:
    proof.server.script(repeats(ToolCall("remember", {"order": "1412"})))
    recorded = proof.holds(agent_of(proof, remember), ran=["remember 1412"])
    assert recorded.value == ("1412 kept", ["remembering 1412"], ["1412", ["1412"]])
    (tool,) = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert tool.exchange is not None
    assert dict(tool.exchange.request) == {"arguments": {"order": "1412"}}


def test_a_tool_that_waits_is_refused_while_recording(proof: Proof) -> None:
    from recording import run

    proof.server.script(repeats(ToolCall("confirm", {"order": "1"})))

    async def agent() -> Any:
        made = FunctionAgent(tools=[confirm], llm=llm(proof))
        handler = made.run("Go")
        async for event in handler.stream_events():
            if isinstance(event, Progress) and event.text == "1":
                handler.ctx.send_event(Progress(text="yes"))
        return str(await handler)

    outcome = run(proof.cassette, agent, mode="rewrite")
    assert outcome.value == "yes"
    assert "tool confirm: the exception cannot be recorded" in str(outcome.failure)
    assert not proof.cassette.exists()


def test_a_tool_of_the_users_own_class(proof: Proof) -> None:
    proof.server.script(repeats(ToolCall("own", {"order": "9"})))
    recorded = proof.holds(agent_of(proof, Own()), ran=["own 9"])
    assert recorded.value[0] == "own 9"


def test_a_hand_over(proof: Proof) -> None:
    """The workflow's own tool for it is no exchange: it only says who is next."""

    def script(request: Request) -> Reply:
        text = str(request.body["messages"])
        if "You are the second" in text:
            said = [one for one in model_replies.tool_results(request) if "delivered" in one]
            return answer(request, said[0]) if said else answer(request, tools=[TWO[0]])
        return answer(request, tools=[ToolCall("handoff", {"to_agent": "second", "reason": "knows"})])

    async def agent() -> Any:
        first = FunctionAgent(
            name="first", description="First.", llm=llm(proof), system_prompt="You are first", can_handoff_to=["second"]
        )
        second = FunctionAgent(
            name="second", description="Second.", llm=llm(proof), system_prompt="You are the second", tools=[lookup]
        )
        return str(await AgentWorkflow(agents=[first, second], root_agent="first").run("Go"))

    proof.server.script(script)
    recorded = proof.holds(agent, ran=["lookup 1412 1"])
    assert "delivered" in recorded.value
    assert len([span for span in recorded.verdict.live if span.kind == "tool"]) == 1


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("tools.function_tool", {}),
        ("tools.function_tool", {"FunctionTool": type("T", (), {"call": lambda self, args: None})}),
        ("agent.workflow.base_agent", {}),
    ],
)
def test_a_release_that_looks_different(name: str, has: dict[str, Any]) -> None:
    module = types.ModuleType(f"llama_index.core.{name}")
    vars(module).update(has)
    with pytest.raises(
        BoundaryError, match=r"llama-index-core [\d.]+ is not recognised: its tools would not be recorded"
    ):
        boundary.install(module)
