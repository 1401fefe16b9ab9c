"""langchain: tools of langchain-core, alone and under ``create_agent``."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Annotated, Any

import pytest
from clerk import calls, ledger
from clerk import model as model
from pydantic import BaseModel, Field

import model_replies
from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain.errors import BoundaryError
from recording import record, run
from servers import Reply, Request

pytest.importorskip("langchain")
pytest.importorskip("langchain_openai")

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    ToolException,
    tool,
)
from langchain_openai import ChatOpenAI

STACK = Stack(
    name="langchain",
    dists=("langchain-core", "langchain", "langchain-openai", "openai"),
    records="model calls, at the transport of httpx2 or httpx; bodies of tools, at `_run` and `_arun` of their class",
    limits=(
        "What a body changes in injected state, store or runtime other than by its result is not changed in replay.",
        "Custom events and stream writes that a body emits are not emitted in replay.",
        "A chain or agent that a tool's body runs is served with the tool, so that a change of its prompts is not seen;"
        " name the tool in `run=[...]` to let the body run.",
        "A tool class that overrides `run` or `arun` without calling the inherited one is not recorded.",
    ),
)

LOOKUP = ToolCall("lookup", {"order": "1412"}, id="a")


class Parcel(BaseModel):
    order: str
    grams: int


@tool
def lookup(order: str, depth: int = 1) -> dict[str, Any]:
    """Price and state of an order."""
    ledger(f"lookup {order} {depth}")
    return {"order": order, "price": 19.5}


@tool
async def weigh(order: str) -> Parcel:
    """Weigh a parcel."""
    await asyncio.sleep(0)
    ledger(f"weigh {order}")
    return Parcel(order=order, grams=len(order))


class Heard(BaseCallbackHandler):
    """What callbacks are told of tools."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.events.append(("start", input_str))

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.events.append(("end", str(getattr(output, "content", output))))

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self.events.append(("error", repr(error)))


def ask(model: ChatOpenAI, prompt: str, *tools: Any, system: str = "You are a clerk.", **options: Any) -> Any:
    agent = create_agent(model, tools=list(tools), system_prompt=system, **options)
    return [message.content for message in agent.invoke({"messages": [("user", prompt)]})["messages"]]


def test_create_agent(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(LOOKUP))
    proof.holds(lambda: ask(model, "Where is 1412?", lookup), ran=["lookup 1412 1"])
    (cause,) = proof.breaks(lambda: ask(model, "Where is 1413?", lookup))
    assert cause.kind == "input_changed"
    assert proof.breaks(lambda: ask(model, "Where is 1412?", lookup, system="You are a cashier."))
    assert proof.breaks(lambda: ask(model, "Where is 1412?"))
    assert proof.breaks(lambda: ask(model, "Where is 1412?", lookup, weigh))
    assert proof.breaks(lambda: ask(model, "Where is 1412?", lookup.model_copy(update={"name": "look_up"})))


def test_an_argument_that_the_agent_changes_is_red(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(LOOKUP))

    def agent(order: str) -> Any:
        @wrap_tool_call
        def redirected(request: Any, handler: Any) -> Any:
            ledger("middleware") if order == "never" else None
            return handler(request.override(tool_call={**request.tool_call, "args": {"order": order}}))

        return ask(model, "Where is 1412?", lookup, middleware=[redirected])

    proof.holds(lambda: agent("7"), ran=["lookup 7 1"])
    (cause,) = proof.breaks(lambda: agent("8"))
    assert cause.golden is not None
    assert cause.golden.name == "execute_tool lookup"


def test_parallel_calls_of_sync_and_async_tools(proof: Proof, model: ChatOpenAI) -> None:
    more = ToolCall("lookup", {"order": "1413", "depth": 3}, id="b")
    proof.server.script(calls(LOOKUP, more, ToolCall("weigh", {"order": "7"}, id="c")))

    async def agent() -> Any:
        compiled: Any = create_agent(model, tools=[lookup, weigh])
        state = await compiled.ainvoke({"messages": [("user", "Where are they?")]})
        return [(message.content, getattr(message, "tool_call_id", "")) for message in state["messages"]]

    recorded = proof.holds(agent, ran=["lookup 1412 1", "lookup 1413 3", "weigh 7"], in_order=False)
    tools = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert sorted(span.attributes["gen_ai.tool.call.id"] for span in tools) == ["a", "b", "c"]


def test_parallel_calls_in_threads(proof: Proof, model: ChatOpenAI) -> None:
    more = ToolCall("lookup", {"order": "1413", "depth": 3}, id="b")
    proof.server.script(calls(LOOKUP, more))
    ran = ["lookup 1412 1", "lookup 1413 3"]
    proof.holds(lambda: ask(model, "Where are they?", lookup), ran=ran, in_order=False)


def test_a_streamed_run_and_its_events(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(LOOKUP))

    async def agent(prompt: str = "Where is 1412?") -> Any:
        compiled: Any = create_agent(model, tools=[lookup])
        given = {"messages": [("user", prompt)]}
        pieces = [
            piece.content
            async for piece, _ in compiled.astream(given, stream_mode="messages")
            if hasattr(piece, "content")
        ]
        events = [event async for event in compiled.astream_events(given, version="v2")]
        tools = [(event["event"], event["name"]) for event in events if "tool" in event["event"]]
        return [pieces, tools]

    recorded = proof.holds(agent, ran=["lookup 1412 1"] * 2)
    pieces, tools = recorded.value
    assert len(pieces) > 3
    assert ("on_tool_start", "lookup") in tools
    assert ("on_tool_end", "lookup") in tools
    assert proof.breaks(lambda: asyncio.run(agent("Where is 1413?")))


class Warehouse(BaseTool):
    name: str = "warehouse"
    description: str = "What is in stock."
    colour: str = "red"

    def _run(self, item: str, config: RunnableConfig, run_manager: Any = None) -> str:
        ledger(f"warehouse {item} {config['configurable']['shop']} {run_manager is not None}")
        return f"3 {self.colour} {item}"


class AsyncWarehouse(Warehouse):
    async def _arun(self, item: str, config: RunnableConfig, run_manager: Any = None) -> str:
        await asyncio.sleep(0)
        return "async " + self._run(item, config=config, run_manager=run_manager)


@pytest.mark.parametrize("kind", [Warehouse, AsyncWarehouse])
@pytest.mark.parametrize("is_async", [False, True])
def test_class_based_tools(proof: Proof, model: ChatOpenAI, kind: type[Warehouse], is_async: bool) -> None:
    proof.server.script(calls(ToolCall("warehouse", {"item": "tea"}, id="w")))

    def agent() -> Any:
        heard = Heard()
        config: Any = {"configurable": {"shop": "corner"}, "callbacks": [heard]}
        compiled = create_agent(model, tools=[kind()])
        given: Any = {"messages": [("user", "Tea?")]}
        state = asyncio.run(compiled.ainvoke(given, config)) if is_async else compiled.invoke(given, config)
        return [state["messages"][-1].content, heard.events]

    recorded = proof.holds(agent, ran=["warehouse tea corner True"])
    assert [event for event, _ in recorded.value[1]] == ["start", "end"]
    (span,) = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert span.exchange is not None
    assert span.exchange.request == {"arguments": {"item": "tea"}}


def test_errors_are_handled_as_they_were(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(LOOKUP))

    @tool("lookup")
    def gentle(order: str) -> str:
        """Look."""
        ledger(f"gentle {order}")
        raise ToolException(f"no {order}")

    @tool("lookup")
    def rude(order: str) -> str:
        """Look."""
        ledger(f"rude {order}")
        raise LookupError(order)

    gentle.handle_tool_error = True
    said = proof.holds(lambda: ask(model, "Where?", gentle), ran=["gentle 1412"])
    assert said.value[-1] == "Said: no 1412."

    heard = Heard()
    again = proof.cassette.with_name("again.yaml")

    def agent() -> Any:
        heard.events.clear()
        try:
            rude.invoke({"order": "1412"}, {"callbacks": [heard]})
        except LookupError as error:
            return repr(error), list(heard.events)
        raise AssertionError

    recorded = record(again, agent)
    assert recorded.value[1][-1] == ("error", "LookupError('1412')")
    replayed = run(again, agent)
    assert (replayed.failure, replayed.value) == (None, recorded.value)
    assert proof.ran == ["gentle 1412", "rude 1412"]


def test_content_and_artifact_and_injected_arguments(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(ToolCall("snap", {"what": "shop"}, id="s1"), ToolCall("note", {"text": "hi"}, id="n1")))

    @tool(response_format="content_and_artifact")
    def snap(what: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> tuple[str, Any]:
        """Take a picture."""
        ledger(f"snap {what} {tool_call_id}")
        return "taken", {"bytes": b"\x89PNG", "parcel": Parcel(order="1", grams=2)}

    @tool
    def note(text: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
        """Take a note."""
        ledger(f"note {text} {tool_call_id}")
        return ToolMessage(content=f"noted {text}", tool_call_id=tool_call_id, artifact={"length": len(text)})

    def agent() -> Any:
        given: Any = {"messages": [("user", "Look.")]}
        messages = create_agent(model, tools=[snap, note]).invoke(given)["messages"]
        return [(message.content, getattr(message, "artifact", None)) for message in messages]

    recorded = proof.holds(agent, ran=["snap shop s1", "note hi n1"], in_order=False)
    assert ("taken", {"bytes": b"\x89PNG", "parcel": Parcel(order="1", grams=2)}) in recorded.value
    assert ("noted hi", {"length": 2}) in recorded.value
    arguments = [span.exchange.request for span in recorded.verdict.live if span.kind == "tool" and span.exchange]
    assert sorted(map(str, arguments)) == ["{'arguments': {'text': 'hi'}}", "{'arguments': {'what': 'shop'}}"]


class Search(BaseModel):
    text: str = Field(description="what to look for")
    limit: int = 3


def test_tools_without_an_agent(proof: Proof, model: ChatOpenAI) -> None:
    """Chains that people write by hand: bound tools, invoked with the model's calls."""
    proof.server.script(calls(ToolCall("search", {"text": "tea"}, id="s"), ToolCall("shout", {"__arg1": "hi"}, id="h")))

    def search(text: str, limit: int = 3) -> str:
        ledger(f"search {text} {limit}")
        return " ".join([text] * limit)

    def shout(text: str) -> str:
        ledger(f"shout {text}")
        return text.upper()

    tools: dict[str, BaseTool] = {
        "search": StructuredTool.from_function(search, name="search", description="Search.", args_schema=Search),
        "shout": Tool("shout", shout, "Shout."),
    }

    def agent(prompt: str = "Tea?") -> Any:
        bound = model.bind_tools(list(tools.values()))
        messages: list[Any] = [("user", prompt), bound.invoke(prompt)]
        messages += [tools[call["name"]].invoke(call) for call in messages[1].tool_calls]
        return [tools["shout"].run("direct"), bound.invoke(messages).content]

    ran = ["search tea 3", "shout hi", "shout direct"]
    recorded = proof.holds(agent, ran=ran)
    assert recorded.value == ["DIRECT", "Said: tea tea tea; HI."]
    assert proof.breaks(lambda: agent("Coffee?"))


def test_arguments_that_do_not_fit_never_reach_the_body(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(ToolCall("lookup", {"order": "1", "depth": "deep"}, id="bad")))
    recorded = proof.holds(lambda: ask(model, "Where?", lookup))
    assert "valid integer" in recorded.value[-1]


def test_a_tool_that_calls_a_tool_and_a_model(proof: Proof, model: ChatOpenAI) -> None:
    def script(request: Request) -> Reply:
        if "joke" in str(request.body["messages"][0]):
            return answer(request, "Knock knock.")
        return calls(ToolCall("entertain", {"order": "1"}, id="e"))(request)

    proof.server.script(script)

    def agent(prompt: str = "Tell a joke.") -> Any:
        @tool
        def entertain(order: str) -> str:
            """Entertain."""
            ledger("entertain")
            return f"{lookup.invoke({'order': order})} {model.invoke(prompt).content}"

        return ask(model, "Entertain me.", entertain)

    recorded = proof.holds(agent, ran=["entertain", "lookup 1 1"])
    (outer,) = [span for span in recorded.verdict.live if span.name == "execute_tool entertain"]
    assert [span.kind for span in recorded.verdict.live.children(outer)] == ["tool", "model"]
    changed = run(proof.cassette, lambda: agent("Tell a long joke."), run=["entertain"])
    assert [cause.kind for cause in changed.causes] == ["input_changed"]
    assert proof.ran == ["entertain", "lookup 1 1", "entertain"]


def test_tools_off(proof: Proof, model: ChatOpenAI) -> None:
    proof.server.script(calls(LOOKUP))
    record(proof.cassette, lambda: ask(model, "Where is 1412?", lookup), tools="off")
    assert run(proof.cassette, lambda: ask(model, "Where is 1412?", lookup), tools="off").failure is None
    assert proof.ran == ["lookup 1412 1"] * 2


@pytest.mark.parametrize("left_out", ["BaseTool", "_run", "_arun", "_filter_injected_args", "run", "arun"])
def test_another_release_is_not_recognised(left_out: str) -> None:
    from pytest_spanchain.boundaries.frameworks import langchain as boundary

    class Stub:
        def run(self, tool_input: Any, config: Any, tool_call_id: Any) -> None: ...

        arun = _run = _arun = _filter_injected_args = run

    lib: Any = ModuleType("langchain_core.tools.base")
    lib.BaseTool = Stub
    for owner in (lib, Stub):
        if left_out in vars(owner):
            delattr(owner, left_out)
    with pytest.raises(BoundaryError, match=r"langchain-core 1\.\S+ is not recognised: its tools would not be"):
        boundary.install(lib)


class Answer(BaseModel):
    """What the model is to say."""

    order: str
    grams: int


def test_outputs_that_look_like_tools_are_not_missed(proof: Proof, model: ChatOpenAI) -> None:
    """Structured output by way of a call, and a tool that is not there: ``holds`` sees no note."""
    from langchain.agents.structured_output import ToolStrategy

    said = ToolCall("Answer", {"order": "1412", "grams": 4}, id="s")

    def script(request: Request) -> Reply:
        missing = ToolCall("nowhere", {"order": "1"}, id="n")
        asks = "tools" in str(request.body["messages"][0]) and not model_replies.tool_results(request)
        return answer(request, tools=[missing if asks else said])

    proof.server.script(script)

    def agent() -> Any:
        plain = model.with_structured_output(Answer, method="function_calling").invoke("Where?")
        as_dict = model.with_structured_output(Answer.model_json_schema(), method="function_calling").invoke("Where?")
        strategy = ToolStrategy(Answer)
        clerk: Any = create_agent(model, tools=[lookup], system_prompt="Use tools.", response_format=strategy)
        return plain, as_dict, clerk.invoke({"messages": [("user", "Where?")]})["structured_response"]

    expected = Answer(order="1412", grams=4)
    assert proof.holds(agent).value == (expected, expected.model_dump(), expected)
