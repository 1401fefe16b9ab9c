"""pydantic-ai: agents whose tools are met at its own seam."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from clerk import async_client, calls, ledger
from clerk import loop as loop
from openai import AsyncOpenAI
from pydantic import BaseModel, PrivateAttr

import model_replies
from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain.errors import BoundaryError
from recording import run
from servers import Reply, Request

pydantic_ai = pytest.importorskip("pydantic_ai")

from pydantic_ai import (  # noqa: E402
    Agent,
    ApprovalRequired,
    BinaryContent,
    DeferredToolRequests,
    DeferredToolResults,
    FunctionToolset,
    ModelRetry,
    RunContext,
    Tool,
    ToolReturn,
)
from pydantic_ai.messages import FunctionToolResultEvent  # noqa: E402
from pydantic_ai.models.openai import OpenAIChatModel  # noqa: E402
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool  # noqa: E402

STACK = Stack(
    name="pydantic-ai",
    dists=("pydantic-ai-slim", "openai"),
    records=(
        "model calls, at the transport of httpx2 or httpx; bodies of function tools and output functions, and"
        " `call_tool` of toolsets that users write"
    ),
    limits=(
        "What a body changes in its RunContext beside the deps (usage, queued messages, custom events) is not changed"
        " in replay; of the deps, dicts, lists, sets, dataclasses, models and objects of the user's own classes are.",
        "An agent that a tool's body runs is served with the tool, so that a change of its prompts is not seen; name"
        " the tool in `run=[...]` to let the body run.",
    ),
)


def model() -> OpenAIChatModel:
    """Without connections that outlive a loop; those of its own shared client do."""
    client = AsyncOpenAI(http_client=async_client())
    return OpenAIChatModel("gpt-test", provider=OpenAIProvider(openai_client=client))


class Parcel(BaseModel):
    order: str
    grams: int


class Amount(BaseModel):
    order: str
    factor: ClassVar[int] = 1

    def model_post_init(self, context: Any) -> None:
        self.order = self.order * self.factor


@dataclass
class Shop:
    name: str = "corner"
    seen: list[str] = field(default_factory=list)


def lookup(order: str, depth: int = 1) -> dict[str, Any]:
    """Price and state of an order."""
    ledger(f"lookup {order} {depth}")
    return {"order": order, "price": 19.5}


def lookup_deeper(order: str, depth: int = 2) -> dict[str, Any]:
    """Price and state of an order."""
    ledger(f"deeper {order} {depth}")
    return {"order": order, "price": 19.5}


async def weigh(ctx: RunContext[Shop], order: str) -> Parcel:
    """Weigh a parcel."""
    await asyncio.sleep(0)
    ledger(f"weigh {order} in {ctx.deps.name}")
    return Parcel(order=order, grams=len(order))


LOOKUP = ToolCall("lookup", {"order": "1412"}, id="a")


def agent_of(*tools: Any, instructions: str = "You are the shop's clerk.", **options: Any) -> Agent[Any, Any]:
    return Agent(model(), tools=list(tools), instructions=instructions, **options)


def test_a_sync_run(proof: Proof) -> None:
    proof.server.script(calls(LOOKUP))

    def agent(prompt: str = "Where is 1412?", *tools: Any) -> str:
        return str(agent_of(*(tools or (lookup,))).run_sync(prompt).output)

    recorded = proof.holds(agent, ran=["lookup 1412 1"])
    assert recorded.value == 'Said: {"order":"1412","price":19.5}.'
    (cause,) = proof.breaks(lambda: agent("Where is 1413?"))
    assert cause.kind == "input_changed"


def test_changed_tools_are_red(proof: Proof) -> None:
    proof.server.script(calls(LOOKUP))

    def agent(*tools: Any) -> str:
        return str(agent_of(*tools).run_sync("Where is 1412?").output)

    proof.holds(lambda: agent(lookup), ran=["lookup 1412 1"])
    renamed = Tool(lookup, name="look_up")
    other_default = Tool(lookup_deeper, name="lookup")
    for tools in ([], [lookup, weigh], [renamed], [other_default]):
        assert proof.breaks(lambda tools=tools: agent(*tools))  # type: ignore[misc]


def test_an_argument_that_the_schema_does_not_show_is_red(proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework's own validation makes another value of the same request."""
    proof.server.script(calls(LOOKUP))

    def lookup(amount: Amount) -> str:
        """Price of an order."""
        ledger(f"lookup {amount.order}")
        return "fine"

    def agent(factor: int) -> str:
        monkeypatch.setattr(Amount, "factor", factor)
        return str(agent_of(lookup).run_sync("Where is 1412?").output)

    proof.holds(lambda: agent(1), ran=["lookup 1412"])
    (cause,) = proof.breaks(lambda: agent(2))
    assert cause.golden is not None
    assert cause.golden.name == "execute_tool lookup"


def test_parallel_calls_of_sync_and_async_tools(proof: Proof) -> None:
    proof.server.script(
        calls(
            LOOKUP, ToolCall("lookup", {"order": "1413", "depth": 3}, id="b"), ToolCall("weigh", {"order": "7"}, id="c")
        )
    )

    async def agent() -> list[Any]:
        result = await agent_of(lookup, weigh, deps_type=Shop).run("Where are they?", deps=Shop())
        returned = [
            (part.tool_call_id, part.content)
            for message in result.all_messages()
            for part in message.parts
            if part.part_kind == "tool-return"
        ]
        return [result.output, *returned]

    recorded = proof.holds(agent, ran=["lookup 1412 1", "lookup 1413 3", "weigh 7 in corner"], in_order=False)
    # What the framework sees is the model object, not the text of it.
    assert recorded.value[-1] == ("c", Parcel(order="7", grams=1))
    tools = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert sorted(span.attributes["gen_ai.tool.call.id"] for span in tools) == ["a", "b", "c"]
    assert all("ctx" not in span.exchange.request["arguments"] for span in tools if span.exchange)


def test_a_streamed_run_and_its_events(proof: Proof) -> None:
    proof.server.script(calls(LOOKUP))

    async def agent(prompt: str = "Where is 1412?") -> list[Any]:
        seen: list[Any] = []
        async with agent_of(lookup).run_stream(prompt) as stream:
            seen += [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
        async with agent_of(lookup).iter(prompt) as steps:
            async for node in steps:
                if Agent.is_call_tools_node(node):
                    async with node.stream(steps.ctx) as events:
                        seen += [
                            getattr(event, "part" if hasattr(event, "part") else "result").content
                            async for event in events
                            if isinstance(event, FunctionToolResultEvent)
                        ]
        return seen

    recorded = proof.holds(agent, ran=["lookup 1412 1"] * 2)
    assert len(recorded.value) == 3
    assert recorded.value[-1] == {"order": "1412", "price": 19.5}
    assert proof.breaks(lambda: asyncio.run(agent("Where is 1413?")))


def test_a_tool_that_asks_to_be_called_again(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        said = model_replies.tool_results(request)
        if len(said) < 2:
            return answer(request, tools=[ToolCall("refund", {"amount": 900 - 890 * len(said)}, id=f"r{len(said)}")])
        return answer(request, f"Said: {said}")

    proof.server.script(script)

    def refund(amount: int) -> str:
        """Give money back."""
        ledger(f"refund {amount}")
        if amount > 100:
            raise ModelRetry("too much: at most 100")
        return f"refunded {amount}"

    async def agent() -> list[Any]:
        result = await agent_of(refund).run("Refund me.")
        parts = [part for message in result.all_messages() for part in message.parts]
        return [result.output, *(part.content for part in parts if part.part_kind == "retry-prompt")]

    recorded = proof.holds(agent, ran=["refund 900", "refund 10"])
    assert "too much" in str(recorded.value)


def test_a_tool_that_raises(proof: Proof) -> None:
    proof.server.script(calls(LOOKUP))

    class Closed(Exception):
        pass

    def lookup(order: str) -> str:
        """Look."""
        ledger(f"lookup {order}")
        raise Closed(f"closed for {order}")

    def agent(prompt: str = "Where?") -> str:
        return str(agent_of(lookup).run_sync(prompt).output)

    recorded = proof.holds(agent, ran=["lookup 1412"])
    assert repr(recorded.raised) == "Closed('closed for 1412')"


def test_arguments_that_do_not_fit_never_reach_the_body(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        said = model_replies.tool_results(request)
        if not said:
            return answer(request, tools=[ToolCall("lookup", {"order": "1412", "depth": "deep"}, id="bad")])
        return (
            calls(LOOKUP)(Request("POST", request.path, {}, {**request.body, "messages": []}))
            if len(said) < 2
            else (answer(request, said[-1]))
        )

    proof.server.script(script)
    proof.holds(lambda: agent_of(lookup).run_sync("Where?").output, ran=["lookup 1412 1"])


def test_rich_returns(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("snap", {}, id="s"), ToolCall("scan", {}, id="t")))

    def snap() -> Any:
        """Take a picture."""
        ledger("snap")
        return BinaryContent(data=b"\x89PNG", media_type="image/png")

    def scan() -> Any:
        """Scan."""
        ledger("scan")
        return ToolReturn(return_value={"pages": 2}, content=["page one", "page two"], metadata={"dpi": 300})

    async def agent() -> list[Any]:
        result = await agent_of(snap, scan).run("Look.")
        parts = [part for message in result.all_messages() for part in message.parts]
        return [
            result.output,
            *((part.content, part.metadata) for part in parts if part.part_kind == "tool-return"),
        ]

    recorded = proof.holds(agent, ran=["scan", "snap"], in_order=False)
    assert {"dpi": 300} in [metadata for _, metadata in recorded.value[1:]]


class Till:
    """A class whose methods are tools."""

    def __init__(self, currency: str) -> None:
        self.currency = currency

    def charge(self, amount: int) -> str:
        """Charge."""
        ledger(f"charge {amount}")
        return f"{amount} {self.currency}"


class Stockroom(AbstractToolset[Any]):
    """A toolset with a body of its own."""

    @property
    def id(self) -> str:
        return "stockroom"

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        inner = await FunctionToolset([Tool(lookup, name="stock")]).get_tools(ctx)
        found = inner["stock"]
        return {
            "stock": ToolsetTool(
                toolset=self, tool_def=found.tool_def, max_retries=0, args_validator=found.args_validator
            )
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        ledger(f"{name} {json.dumps(tool_args)}")
        return [tool_args["order"]]


def test_methods_and_toolsets(proof: Proof) -> None:
    proof.server.script(
        calls(
            ToolCall("charge", {"amount": 5}, id="a"),
            ToolCall("stock", {"order": "9"}, id="c"),
            ToolCall("far_lookup", {"order": "8"}, id="d"),
        )
    )

    async def agent() -> Any:
        toolsets: Any = [Stockroom(), FunctionToolset([lookup]).prefixed("far")]
        return (await agent_of(Till("EUR").charge, toolsets=toolsets).run("Go.")).output

    recorded = proof.holds(agent, ran=["charge 5", 'stock {"order": "9", "depth": 1}', "lookup 8 1"], in_order=False)
    names = {span.name for span in recorded.verdict.live if span.kind == "tool"}
    assert names == {"execute_tool charge", "execute_tool stock", "execute_tool far_lookup"}


def test_approval_in_two_runs(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("wipe", {"path": "/tmp"}, id="w")))

    def wipe(ctx: RunContext[None], path: str) -> str:
        """Delete."""
        ledger(f"wipe {path} {ctx.tool_call_approved}")
        if not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"why": "danger"})
        return f"wiped {path}"

    async def agent(approved: bool = True) -> Any:
        clerk = agent_of(wipe, output_type=[str, DeferredToolRequests])
        first = await clerk.run("Wipe it.")
        assert isinstance(first.output, DeferredToolRequests)
        results = DeferredToolResults(approvals={call.tool_call_id: approved for call in first.output.approvals})
        second = await clerk.run(message_history=first.all_messages(), deferred_tool_results=results)
        return [first.output.metadata, second.output]

    recorded = proof.holds(agent, ran=["wipe /tmp False", "wipe /tmp True"])
    assert recorded.value == [{"w": {"why": "danger"}}, "Said: wiped /tmp."]
    assert proof.breaks(lambda: asyncio.run(agent(approved=False)))


def test_a_timeout_is_waited_for_again(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("dawdle", {}, id="d")))

    async def dawdle() -> str:
        """Never come back."""
        ledger("dawdle")
        await asyncio.sleep(30)
        return "here"

    proof.holds(lambda: agent_of(Tool(dawdle, timeout=0.05)).run_sync("Go.").output, ran=["dawdle"])


def test_an_output_function(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        (tool,) = request.body["tools"]
        return answer(request, tools=[ToolCall(tool["function"]["name"], {"order": "1412"}, id="o")])

    proof.server.script(script)

    def book(order: str) -> Parcel:
        """Book it."""
        ledger(f"book {order}")
        return Parcel(order=order, grams=4)

    recorded = proof.holds(lambda: agent_of(output_type=book).run_sync("Book.").output, ran=["book 1412"])
    assert recorded.value == Parcel(order="1412", grams=4)


def test_an_agent_inside_a_tool_is_served_with_it_or_runs(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        if "joke" in json.dumps(request.body["messages"][0]):
            return answer(request, "Knock knock.")
        return calls(ToolCall("joke", {"topic": "tea"}, id="j"))(request)

    proof.server.script(script)

    def agent(instructions: str = "Write a joke.") -> Any:
        inner = agent_of(instructions=instructions)

        async def joke(topic: str) -> str:
            """Tell a joke."""
            ledger("joke")
            return str((await inner.run(topic)).output)

        return agent_of(joke).run_sync("Entertain me.").output

    recorded = proof.holds(agent, ran=["joke"])
    (tool,) = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert [span.kind for span in recorded.verdict.live.children(tool)] == ["model"]
    changed = run(proof.cassette, lambda: agent("Write a sad joke."), run=["joke"])
    assert changed.failure is not None
    assert [cause.kind for cause in changed.causes] == ["input_changed"]
    assert run(proof.cassette, agent, run=["joke"]).failure is None


def test_spans_of_the_framework_join(proof: Proof) -> None:
    capabilities = pytest.importorskip("pydantic_ai.capabilities", reason="needs a pydantic-ai with capabilities")
    proof.server.script(calls(LOOKUP))

    def agent(name: str = "clerk") -> Any:
        clerk = agent_of(lookup, name=name, capabilities=[capabilities.Instrumentation()])
        return clerk.run_sync("Where is 1412?").output

    recorded = proof.holds(agent, ran=["lookup 1412 1"])
    joined = {span.scope for span in recorded.verdict.live}
    assert "pydantic-ai" in joined
    (tool,) = [span for span in recorded.verdict.live if span.kind == "tool"]
    parent = recorded.verdict.live.by_id[tool.parent_span_id or ""]
    assert parent.scope == "pydantic-ai"
    assert proof.breaks(lambda: agent("cashier"))


def test_tools_off(proof: Proof) -> None:
    proof.settings["tools"] = "off"
    proof.server.script(calls(LOOKUP))
    from recording import record

    record(proof.cassette, lambda: agent_of(lookup).run_sync("Where is 1412?").output, **proof.settings)
    assert proof.ran == ["lookup 1412 1"]
    assert run(proof.cassette, lambda: agent_of(lookup).run_sync("Where is 1412?").output, tools="off").failure is None
    assert proof.ran == ["lookup 1412 1"] * 2


@pytest.mark.parametrize("left_out", ["_function_schema", "toolsets", "call", "call_tool"])
def test_another_release_is_not_recognised(left_out: str) -> None:
    from pytest_spanchain.boundaries.frameworks import pydantic_ai as boundary

    class FunctionSchema:
        async def call(self, args_dict: Any, ctx: Any) -> None: ...

    class CombinedToolset:
        async def call_tool(self, name: str, tool_args: Any, ctx: Any, tool: Any) -> None: ...

    lib: Any = ModuleType("pydantic_ai")
    lib._function_schema = SimpleNamespace(FunctionSchema=FunctionSchema)
    lib.toolsets = SimpleNamespace(CombinedToolset=CombinedToolset)
    for owner in (lib, FunctionSchema, CombinedToolset):
        if left_out in vars(owner):
            delattr(owner, left_out)
    with pytest.raises(BoundaryError, match=r"pydantic-ai-slim \S+ is not recognised: its tools would not be"):
        boundary.install(lib)


class Purse(BaseModel):
    total: int = 0
    _log: list[str] = PrivateAttr(default_factory=list)


@dataclass
class Memory:
    """Dependencies in which an agent counts and remembers; ``lock`` is nobody's to record."""

    count: int = 0
    seen: list[str] = field(default_factory=list)
    orders: dict[str, Any] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    till: Purse = field(default_factory=Purse)
    lock: Any = field(default_factory=threading.Lock, compare=False)


def remember(ctx: RunContext[Memory], order: str) -> str:
    """Remember an order."""
    ledger(f"remember {order}")
    deps = ctx.deps
    with deps.lock:
        deps.count += 1
        deps.seen.append(order)
        deps.orders[order] = Parcel(order=order, grams=deps.count)
        deps.tags.add(order)
        deps.till.total += 5
        deps.till._log.append(order)
        if order == "bad":
            raise ModelRetry("no such order")
    return "noted"


def test_what_tools_do_to_the_dependencies_is_done_again(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        said = model_replies.tool_results(request)
        if len(said) < 3:
            return answer(request, tools=[ToolCall("remember", {"order": n}, id=n) for n in ("7", "8", "bad")])
        return answer(request, f"Said: {'; '.join(said)}.")

    proof.server.script(script)

    async def agent() -> Any:
        memory = Memory()
        clerk = agent_of(remember, deps_type=Memory)

        @clerk.instructions
        def count(ctx: RunContext[Memory]) -> str:
            ctx.deps.tags.add("asked")  # no body does this: it happens in replay by itself
            return f"{ctx.deps.count} orders, {ctx.deps.till.total} EUR"

        said = (await clerk.run("Go.", deps=memory)).output
        return said, memory, memory.till._log

    recorded = proof.holds(agent, ran=["remember 7", "remember 8", "remember bad"], in_order=False)
    memory = recorded.value[1]
    assert (memory.count, sorted(memory.seen), memory.till.total) == (3, ["7", "8", "bad"], 15)
    assert not recorded.verdict.notes


def test_a_change_that_cannot_be_recorded_is_told_of(proof: Proof) -> None:
    proof.server.script(calls(LOOKUP))

    def lookup(ctx: RunContext[dict[str, Any]], order: str) -> str:
        """Look."""
        ctx.deps["socket"] = threading.Lock()
        return "fine"

    outcome = run(proof.cassette, lambda: agent_of(lookup, deps_type=dict).run_sync("Go.", deps={}).output, mode="once")
    (note,) = outcome.verdict.notes
    assert note.startswith(
        "a tool has changed dict['socket'], which cannot be recorded and does not happen in replay: "
    )


def test_calls_that_have_no_body_are_not_missed(proof: Proof) -> None:
    """The run's output, a tool that is not there, one that is skipped: ``holds`` sees no note."""

    def script(request: Request) -> Reply:
        if not model_replies.tool_results(request):
            return answer(request, tools=[ToolCall("nowhere", {"order": "1"}, id="n")])
        output = ToolCall("final_result", {"order": "1412", "grams": 4}, id="f")
        return answer(request, tools=[output, LOOKUP])

    proof.server.script(script)

    def agent() -> Any:
        return agent_of(lookup, output_type=Parcel, end_strategy="early").run_sync("Go.").output

    assert proof.holds(agent).value == Parcel(order="1412", grams=4)


def test_an_output_made_of_the_models_text(proof: Proof) -> None:
    """No tool to the model, which has no name for it."""
    proof.server.script(lambda request: answer(request, "1412"))

    def sealed(text: str) -> str:
        ledger(f"sealed {text}")
        return f"{text} sealed"

    def agent() -> Any:
        return Agent(model(), output_type=pydantic_ai.TextOutput(sealed)).run_sync("Which order?").output

    recorded = proof.holds(agent, ran=["sealed 1412"])
    assert recorded.value == "1412 sealed"
    assert [span.name for span in recorded.verdict.live if span.kind == "tool"] == ["execute_tool sealed"]
