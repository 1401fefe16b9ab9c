"""langgraph: tools under ``ToolNode`` and in graphs that stop, resume and hand over."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import ModuleType
from typing import Annotated, Any

import pytest
from clerk import calls, ledger
from clerk import model as model
from pydantic import BaseModel

from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain import _strands
from pytest_spanchain.errors import BoundaryError
from recording import run
from servers import Reply, Request

pytest.importorskip("langgraph")
pytest.importorskip("langchain_openai")

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import InjectedToolCallId, tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime, tools_condition
from langgraph.types import Command, interrupt

STACK = Stack(
    name="langgraph",
    dists=("langgraph", "langgraph-prebuilt", "langchain-core", "langchain-openai"),
    records="as langchain; what a tool's body asks with `interrupt` is asked again in replay, and the answer compared",
    limits=(
        "A graph that a tool's body runs is served with the tool, so that a change of its prompts is not seen; name the"
        " tool in `run=[...]` to let the body run.",
        "Which tools of one `ToolNode` still start when a tool beside them stops the graph is a race, in replay too.",
        "Nodes are not tools: what a node does itself, other than over HTTP, runs in replay too.",
    ),
)

CONFIG: Any = {"configurable": {"thread_id": "1"}}


class Ticket(BaseModel):
    number: int


class State(MessagesState):
    shop: str
    ticket: Ticket | None


def agent_of(model: ChatOpenAI, *tools: Any, **options: Any) -> Any:
    create: Any = create_agent
    return create(model, tools=list(tools), state_schema=State, checkpointer=InMemorySaver(), **options)


def graph_of(model: ChatOpenAI, *tools: Any, system: str = "You are a clerk.") -> Any:
    """The agent that people build by hand: one node for the model, one for all its tools."""
    bound = model.bind_tools(list(tools)) if tools else model

    async def think(state: State) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke([("system", system), *state["messages"]])]}

    def think_sync(state: State) -> dict[str, Any]:
        return {"messages": [bound.invoke([("system", system), *state["messages"]])]}

    builder = StateGraph(State)
    builder.add_node("model", RunnableLambda(think_sync, think))
    builder.add_node("tools", ToolNode(list(tools)))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition, {"tools": "tools", END: END})
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=InMemorySaver())


def given(prompt: str) -> dict[str, Any]:
    return {"messages": [("user", prompt)], "shop": "corner", "ticket": None}


def texts(state: Any) -> list[Any]:
    return [message.content for message in state["messages"]]


@tool
def lookup(order: str, shop: Annotated[str, InjectedState("shop")]) -> dict[str, Any]:
    """Price and state of an order."""
    ledger(f"lookup {order} in {shop}")
    return {"order": order, "price": 19.5}


@tool
async def weigh(order: str, runtime: ToolRuntime) -> str:
    """Weigh a parcel."""
    await asyncio.sleep(0)
    ledger(f"weigh {order} in {runtime.state['shop']}")
    return f"{len(order)} g"


@tool
def book(order: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Book it, and change the state of the graph."""
    ledger(f"book {order}")
    message = ToolMessage(f"booked {order}", tool_call_id=tool_call_id)
    return Command(update={"ticket": Ticket(number=7), "messages": [message]})


def test_a_graph(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(
        calls(ToolCall("lookup", {"order": "1412"}, id="a"), ToolCall("lookup", {"order": "7"}, id="b"))
    )

    def agent(prompt: str = "Where are they?", *tools: Any, system: str = "You are a clerk.") -> Any:
        return texts(graph_of(model, *(tools or (lookup,)), system=system).invoke(given(prompt), CONFIG))

    recorded = proof.holds(agent, ran=["lookup 1412 in corner", "lookup 7 in corner"], in_order=False)
    requests = [span.exchange.request for span in recorded.verdict.live if span.kind == "tool" and span.exchange]
    assert sorted(map(str, requests)) == ["{'arguments': {'order': '1412'}}", "{'arguments': {'order': '7'}}"]
    assert proof.breaks(lambda: agent("Where is it?"))
    assert proof.breaks(lambda: agent(system="You are a cashier."))
    assert proof.breaks(lambda: agent("Where are they?", lookup, book))
    assert proof.breaks(lambda: agent("Where are they?", lookup.model_copy(update={"name": "look_up"})))


def test_async_with_injected_runtime_and_commands(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(ToolCall("weigh", {"order": "1412"}, id="a"), ToolCall("book", {"order": "7"}, id="b")))

    async def agent() -> Any:
        graph = graph_of(model, weigh, book)
        updates = [update async for update in graph.astream(given("Do it."), CONFIG, stream_mode="updates")]
        state = (await graph.aget_state(CONFIG)).values
        return [texts(state), state["ticket"], [list(update) for update in updates]]

    recorded = proof.holds(agent, ran=["weigh 1412 in corner", "book 7"], in_order=False)
    assert recorded.value[1] == Ticket(number=7)


def test_a_tool_that_raises(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(ToolCall("fail", {"order": "1"}, id="a")))

    @tool
    def fail(order: str) -> str:
        """Fail."""
        ledger(f"fail {order}")
        raise RuntimeError(f"no connection for {order}")

    recorded = proof.holds(lambda: graph_of(model, fail).invoke(given("Go."), CONFIG), ran=["fail 1"])
    assert repr(recorded.raised) == "RuntimeError('no connection for 1')"


@tool
def pay(amount: int) -> str:
    """Pay, if two people agree."""
    ledger(f"pay {amount}")
    first = interrupt({"pay": amount, "who": "clerk"})
    if first != "yes":
        return f"not paid: {first}"
    second = interrupt({"pay": amount, "who": "boss"})
    ledger(f"paid {amount} {second}")
    return f"paid {amount}: {first}, {second}"


@pytest.mark.parametrize("build", ["graph", "create_agent"])
@pytest.mark.parametrize("is_async", [False, True])
def test_interrupts_stop_again_and_resume(proof: Proof, model: ChatOpenAI, build: str, is_async: bool) -> None:
    # In one node, whether a tool beside it still starts is a race of the graph's own.
    beside = [] if build == "graph" else [ToolCall("lookup", {"order": "7"}, id="l")]
    proof.server.script(calls(ToolCall("pay", {"amount": 5}, id="p"), *beside))

    def agent(*answers: str, by_id: bool = False) -> Any:
        graph = graph_of(model, pay, lookup) if build == "graph" else agent_of(model, pay, lookup)
        asked: list[Any] = []
        step: Any = given("Pay.")
        for resume in [*answers, None]:
            state = asyncio.run(graph.ainvoke(step, CONFIG)) if is_async else graph.invoke(step, CONFIG)
            pending = graph.get_state(CONFIG).interrupts
            asked.append([one.value for one in pending])
            if resume is None or not pending:
                break
            step = Command(resume={pending[0].id: resume} if by_id else resume)
        return asked, texts(state)

    looked = ["lookup 7 in corner"] * len(beside)
    recorded = proof.holds(lambda: agent("yes", "sure"), ran=["pay 5"] * 3 + ["paid 5 sure"] + looked, in_order=False)
    assert recorded.value[0] == [[{"pay": 5, "who": "clerk"}], [{"pay": 5, "who": "boss"}], []]
    assert "Said: paid 5: yes, sure" in recorded.value[1][-1]
    by_id = run(proof.cassette, lambda: agent("yes", "sure", by_id=True))
    assert (by_id.failure, by_id.value) == (None, recorded.value)
    assert proof.breaks(lambda: agent("no", "sure"))
    assert proof.breaks(lambda: agent("yes", "never"))
    assert proof.breaks(lambda: agent("yes"))


def test_approval_by_middleware(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(ToolCall("lookup", {"order": "1412"}, id="a")))

    def agent(decision: str = "approve") -> Any:
        graph = agent_of(model, lookup, middleware=[HumanInTheLoopMiddleware(interrupt_on={"lookup": True})])
        first = graph.invoke(given("Where?"), CONFIG)
        resume = {"decisions": [{"type": decision}]}
        return len(first["__interrupt__"]), texts(graph.invoke(Command(resume=resume), CONFIG))

    proof.holds(agent, ran=["lookup 1412 in corner"])
    assert proof.breaks(lambda: agent("reject"))


def test_a_graph_inside_a_tool_is_served_with_it_or_runs(proof: Proof, model: ChatOpenAI) -> None:
    def script(request: Request) -> Reply:
        if "jester" in str(request.body["messages"][0]):
            return answer(request, "Knock knock.")
        return calls(ToolCall("joke", {"topic": "tea"}, id="j"))(request)

    proof.server.script(script)

    def agent(system: str = "You are a jester.") -> Any:
        inner = graph_of(model, system=system)

        @tool
        def joke(topic: str) -> str:
            """Tell a joke."""
            ledger("joke")
            said = inner.invoke(given(topic), {"configurable": {"thread_id": "2"}})["messages"][-1].content
            return str(said)

        return texts(graph_of(model, joke).invoke(given("Entertain me."), CONFIG))

    recorded = proof.holds(agent, ran=["joke"])
    (outer,) = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert [span.kind for span in recorded.verdict.live.children(outer)] == ["model"]
    changed = run(proof.cassette, lambda: agent("You are a sad jester."), run=["joke"])
    assert [cause.kind for cause in changed.causes] == ["input_changed"]


def test_a_job_keeps_its_place_in_contexts_that_its_ancestors_made() -> None:
    """Tools of a graph run in a pool inside a pool, in copies of contexts from before either."""
    early = _strands.current(), copy_context()
    job = early[0].spawn().spawn()

    def work() -> list[_strands.Strand]:
        with _strands.running(job):
            return [early[1].copy().run(_strands.current) for _ in range(2)]

    with ThreadPoolExecutor() as pool:
        assert pool.submit(work).result() == [job, job]


def test_another_release_is_not_recognised() -> None:
    from pytest_spanchain.boundaries.frameworks import langchain as boundary

    lib = ModuleType("langgraph.types")
    with pytest.raises(BoundaryError, match=r"langgraph 1\.\S+ is not recognised: its tools would not be recorded"):
        boundary.install(lib)
