"""openai-agents: function tools, handoffs, guardrails, approval, and agents as tools."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from clerk import agents_home, async_client, calls, ledger
from clerk import sdk as sdk
from pydantic import BaseModel

import model_replies
from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain.errors import BoundaryError
from recording import record, replay, run
from releases import other, other_release
from servers import Reply, Request

if agents_home() is None:
    pytest.skip("openai-agents is not installed", allow_module_level=True)

STACK = Stack(
    name="openai-agents",
    dists=("openai-agents", "openai", "httpx2"),
    records=(
        "model calls, at the transport of httpx2 or httpx; bodies of function tools; an agent used as a tool runs in"
        " replay, and its model calls are compared"
    ),
    limits=(
        "Of what a body changes in its `wrapper.context`, only mappings, lists, sets, dataclasses, models and objects"
        " of the user's own classes are changed in replay, and usage is not.",
        "Callbacks of handoffs, hooks and guardrails are the agent's own code and run in replay too.",
        "Executors of local shell, shell, computer, apply-patch and custom tools are not recorded: they run in"
        " replay, and what they open is refused.",
        "Tools of MCP servers are recorded where the client of MCP speaks (see mcp); a subclass of MCPServer that"
        " speaks to nobody runs again.",
        "The SDK's own traces are not sent to OpenAI from within a test that is recorded or replayed.",
    ),
)


class Parcel(BaseModel):
    order: str
    grams: int


@dataclass
class Shop:
    name: str = "corner"
    seen: list[str] = field(default_factory=list)


def lookup(order: str, depth: int = 1) -> dict[str, Any]:
    """Price and state of an order."""
    ledger(f"lookup {order} {depth}")
    return {"order": order, "price": 19.5}


async def weigh(order: str) -> Parcel:
    """Weigh a parcel."""
    await asyncio.sleep(0)
    ledger(f"weigh {order}")
    return Parcel(order=order, grams=len(order))


LOOKUP = ToolCall("lookup", {"order": "1412", "depth": 1}, id="a")


class Clerk:
    """Makes agents, over chat completions or responses, without connections that outlive a loop."""

    def __init__(self, sdk: Any, *, responses: bool) -> None:
        self.sdk = sdk
        self.responses = responses

    def agent(self, *tools: Any, name: str = "clerk", instructions: Any = "You are a clerk.", **options: Any) -> Any:
        from openai import AsyncOpenAI

        client = AsyncOpenAI(http_client=async_client())
        kind = self.sdk.OpenAIResponsesModel if self.responses else self.sdk.OpenAIChatCompletionsModel
        model = kind(model="gpt-test", openai_client=client)
        return self.sdk.Agent(name=name, instructions=instructions, model=model, tools=list(tools), **options)

    def run(self, agent: Any, prompt: Any, **options: Any) -> Any:
        # One loop a run: it leaves its own open, and closes the asynchronous generators of those that it finds.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return self.sdk.Runner.run_sync(agent, prompt, **options)
        finally:
            loop.close()
            asyncio.set_event_loop(None)


@pytest.fixture(params=["chat", "responses"])
def clerk(request: pytest.FixtureRequest, sdk: Any) -> Clerk:
    return Clerk(sdk, responses=request.param == "responses")


@pytest.fixture
def chat(sdk: Any) -> Clerk:
    return Clerk(sdk, responses=False)


def test_a_sync_run(proof: Proof, clerk: Clerk) -> None:
    proof.server.script(calls(LOOKUP))
    tool = clerk.sdk.function_tool

    def agent(*tools: Any, prompt: str = "Where is 1412?", **options: Any) -> Any:
        return clerk.run(clerk.agent(*tools, **options), prompt).final_output

    proof.holds(lambda: agent(tool(lookup)), ran=["lookup 1412 1"])
    (cause,) = proof.breaks(lambda: agent(tool(lookup), prompt="Where is 1413?"))
    assert cause.kind == "input_changed"
    assert proof.breaks(lambda: agent(tool(lookup), instructions="You are a cashier."))
    assert proof.breaks(lambda: agent())
    assert proof.breaks(lambda: agent(tool(lookup), tool(weigh)))
    assert proof.breaks(lambda: agent(tool(lookup, name_override="look_up")))


def test_an_argument_that_the_schema_does_not_show_is_red(proof: Proof, chat: Clerk) -> None:
    proof.server.script(calls(LOOKUP))

    def agent(default: int) -> Any:
        def lookup(order: str, depth: int = default) -> str:
            """Look."""
            ledger(f"lookup {order} {depth}")
            return "fine"

        made = chat.sdk.function_tool(lookup, strict_mode=False)
        made.params_json_schema = {"type": "object", "properties": {}}
        return chat.run(chat.agent(made), "Where is 1412?").final_output

    proof.server.script(calls(ToolCall("lookup", {"order": "1412"}, id="a")))
    proof.holds(lambda: agent(1), ran=["lookup 1412 1"])
    (cause,) = proof.breaks(lambda: agent(2))
    assert cause.golden is not None
    assert cause.golden.name == "execute_tool lookup"


def test_parallel_calls_of_sync_and_async_tools(proof: Proof, clerk: Clerk) -> None:
    more = ToolCall("lookup", {"order": "1413", "depth": 3}, id="b")
    proof.server.script(calls(LOOKUP, more, ToolCall("weigh", {"order": "7"}, id="c")))
    tool = clerk.sdk.function_tool

    async def agent() -> Any:
        result = await clerk.sdk.Runner.run(clerk.agent(tool(lookup), tool(weigh)), "Where are they?")
        return [
            result.final_output,
            *(item.output for item in result.new_items if item.type == "tool_call_output_item"),
        ]

    recorded = proof.holds(agent, ran=["lookup 1412 1", "lookup 1413 3", "weigh 7"], in_order=False)
    assert recorded.value[-1] == Parcel(order="7", grams=1)
    tools = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert sorted(span.attributes["gen_ai.tool.call.id"] for span in tools) == ["a", "b", "c"]


def test_a_streamed_run_and_its_events(proof: Proof, clerk: Clerk) -> None:
    proof.server.script(calls(LOOKUP))

    async def agent(prompt: str = "Where is 1412?") -> Any:
        result = clerk.sdk.Runner.run_streamed(clerk.agent(clerk.sdk.function_tool(lookup)), prompt)
        return [
            (event.type, getattr(event, "name", None) or getattr(event.data, "type", ""))
            async for event in result.stream_events()
            if event.type != "agent_updated_stream_event"
        ]

    recorded = proof.holds(agent, ran=["lookup 1412 1"])
    assert ("run_item_stream_event", "tool_output") in recorded.value
    assert len(recorded.value) > 5
    assert proof.breaks(lambda: asyncio.run(agent("Where is 1413?")))


def test_errors_go_to_the_handlers_as_they_did(proof: Proof, chat: Clerk) -> None:
    proof.server.script(calls(LOOKUP, ToolCall("strict", {"order": "7"}, id="s")))

    def failing(order: str) -> str:
        """Fail."""
        ledger(f"failing {order}")
        raise LookupError(f"no {order}")

    def agent(*, raises: bool = False) -> Any:
        handled: list[str] = []

        def handler(context: Any, error: Exception) -> str:
            handled.append(repr(error))
            return "sorry"

        tools = [
            chat.sdk.function_tool(failing, name_override="lookup", strict_mode=False),
            chat.sdk.function_tool(failing, name_override="strict", failure_error_function=None if raises else handler),
        ]
        return chat.run(chat.agent(*tools), "Where?").final_output, handled

    recorded = proof.holds(agent, ran=["failing 1412", "failing 7"], in_order=False)
    assert recorded.value[1] == ["LookupError('no 7')"]
    assert recorded.value[0].startswith("Said: An error occurred while running the tool. Please try again.")
    assert recorded.value[0].endswith("; sorry.")
    hard = run(proof.cassette, lambda: agent(raises=True))
    assert "no 7" in repr(hard.raised)


def test_arguments_that_do_not_fit_never_reach_the_body(proof: Proof, chat: Clerk) -> None:
    proof.server.script(calls(ToolCall("lookup", {"order": "1", "depth": "deep"}, id="bad")))
    recorded = proof.holds(lambda: chat.run(chat.agent(chat.sdk.function_tool(lookup)), "Where?").final_output)
    assert "An error occurred" in recorded.value
    assert [span.kind for span in recorded.verdict.live if span.exchange] == ["model", "model"]


def test_contexts_and_hand_made_tools(proof: Proof, chat: Clerk) -> None:
    proof.server.script(
        calls(
            ToolCall("greet", {"name": "Ann"}, id="a"),
            ToolCall("raw", {"what": 1}, id="b"),
            ToolCall("charge", {"amount": 5}, id="c"),
            ToolCall("picture", {}, id="d"),
        )
    )
    sdk = chat.sdk

    def greet(context: Any, name: str) -> str:
        """Greet."""
        ledger(f"greet {name} in {context.context.name}")
        return f"hello {name}"

    greet.__annotations__["context"] = sdk.RunContextWrapper[Shop]

    async def raw(context: Any, text: str) -> str:
        ledger(f"raw {json.loads(text)['what']} {context.tool_name}")
        return "raw result"

    class Till:
        def charge(self, amount: int) -> str:
            """Charge."""
            ledger(f"charge {amount}")
            return f"{amount} EUR"

    def picture() -> Any:
        """Take a picture."""
        ledger("picture")
        return sdk.ToolOutputText(text="a picture")

    def agent() -> Any:
        tools = [
            sdk.function_tool(greet),
            sdk.FunctionTool("raw", "Raw.", {"type": "object", "properties": {}}, raw, strict_json_schema=False),
            sdk.function_tool(Till().charge),
            sdk.function_tool(picture),
        ]
        return chat.run(chat.agent(*tools), "Go.", context=Shop()).final_output

    ran = ["greet Ann in corner", "raw 1 raw", "charge 5", "picture"]
    recorded = proof.holds(agent, ran=ran, in_order=False)
    requests = {
        span.name: span.exchange.request["arguments"]
        for span in recorded.verdict.live
        if span.kind == "tool" and span.exchange
    }
    assert requests["execute_tool greet"] == {"name": "Ann"}
    assert requests["execute_tool raw"] == {"what": 1}


def test_handoffs_and_guardrails(proof: Proof, clerk: Clerk) -> None:
    def script(request: Request) -> Reply:
        offered = [tool.get("name") or tool["function"]["name"] for tool in request.body.get("tools", [])]
        if "transfer_to_boss" in offered:
            return answer(request, tools=[ToolCall("transfer_to_boss", {}, id="t")])
        if len(model_replies.tool_results(request)) < 2:
            return answer(request, tools=[LOOKUP])
        return answer(request, "The boss says it is fine.")

    proof.server.script(script)
    sdk = clerk.sdk

    def agent(instructions: str = "You are the boss.") -> Any:
        checked: list[str] = []

        def check(data: Any) -> Any:
            checked.append(data.context.tool_arguments)
            return sdk.ToolGuardrailFunctionOutput.allow()

        guarded = sdk.function_tool(lookup)
        guarded.tool_input_guardrails = [sdk.ToolInputGuardrail(guardrail_function=check)]
        boss = clerk.agent(guarded, name="boss", instructions=instructions)
        result = clerk.run(clerk.agent(handoffs=[boss]), "Where is 1412?")
        return [result.final_output, result.last_agent.name, checked]

    recorded = proof.holds(agent, ran=["lookup 1412 1"])
    assert recorded.value[1] == "boss"
    assert len(recorded.value[2]) == 1
    assert proof.breaks(lambda: agent("You are a mean boss."))


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_as_a_tool_runs_in_replay(proof: Proof, chat: Clerk, streamed: bool) -> None:
    def script(request: Request) -> Reply:
        if "jester" in json.dumps(request.body["messages"][0]):
            if not model_replies.tool_results(request):
                return answer(request, tools=[LOOKUP])
            return answer(request, "Knock knock.")
        return calls(ToolCall("joke", {"input": "tea"}, id="j"))(request)

    proof.server.script(script)

    def agent(instructions: str = "You are a jester.") -> Any:
        inner = chat.agent(chat.sdk.function_tool(lookup), name="jester", instructions=instructions)
        heard: list[str] = []

        def on_stream(event: Any) -> None:
            heard.append(event["event"].type)

        options = {"on_stream": on_stream} if streamed else {}
        joke = inner.as_tool(tool_name="joke", tool_description="Tell a joke.", **options)
        return chat.run(chat.agent(joke), "Entertain me.").final_output, heard

    recorded = proof.holds(agent, ran=["lookup 1412 1"])
    assert bool(recorded.value[1]) is streamed
    assert [span.name for span in recorded.verdict.live if span.kind == "tool"] == ["execute_tool lookup"]
    (cause,) = proof.breaks(lambda: agent("You are a sad jester."))
    assert cause.kind == "input_changed"


@pytest.mark.parametrize("by_policy", [False, True])
def test_approval_and_resumption(proof: Proof, chat: Clerk, by_policy: bool) -> None:
    proof.server.script(calls(LOOKUP, ToolCall("lookup", {"order": "7", "depth": 1}, id="b")))

    async def policy(context: Any, arguments: Any, call_id: str) -> bool:
        return bool(arguments["order"] == "1412")

    async def agent(approved: bool = True) -> Any:
        made = chat.agent(chat.sdk.function_tool(lookup, needs_approval=policy if by_policy else True))
        first = await chat.sdk.Runner.run(made, "Where is 1412?")
        state = first.to_state()
        for asked in first.interruptions:
            (state.approve if approved else state.reject)(asked)
        return len(first.interruptions), (await chat.sdk.Runner.run(made, state)).final_output

    recorded = proof.holds(agent, ran=["lookup 1412 1", "lookup 7 1"], in_order=False)
    assert recorded.value[0] == (1 if by_policy else 2)
    assert proof.breaks(lambda: asyncio.run(agent(approved=False)))


def test_a_timeout_is_waited_for_again(proof: Proof, chat: Clerk) -> None:
    proof.server.script(calls(ToolCall("dawdle", {}, id="d")))

    async def dawdle() -> str:
        """Never come back."""
        ledger("dawdle")
        await asyncio.sleep(30)
        return "here"

    def agent() -> Any:
        return chat.run(chat.agent(chat.sdk.function_tool(dawdle, timeout=0.05)), "Go.").final_output

    recorded = proof.holds(agent, ran=["dawdle"])
    assert "timed out" in recorded.value


def test_its_own_traces_stay_at_home(proof: Proof, chat: Clerk) -> None:
    proof.server.script(calls(LOOKUP))
    processors = importlib.import_module("agents.tracing.processors")
    exporter = processors.BackendSpanExporter(api_key="test", endpoint=f"{proof.server.url}/v1/traces/ingest")
    processor = processors.BatchTraceProcessor(exporter, schedule_delay=0.01)
    before = chat.sdk.tracing.get_trace_provider()._multi_processor._processors
    chat.sdk.set_trace_processors([processor])
    try:

        def agent() -> Any:
            said = chat.run(chat.agent(chat.sdk.function_tool(lookup)), "Where is 1412?").final_output
            processor.force_flush()
            return said

        proof.holds(agent, ran=["lookup 1412 1"])
        assert not any("traces" in request.path for request in proof.server.requests)
    finally:
        chat.sdk.set_trace_processors(list(before))
        processor.shutdown()
        exporter.close()


def test_tools_off(proof: Proof, chat: Clerk) -> None:
    proof.server.script(calls(LOOKUP))

    def agent() -> Any:
        return chat.run(chat.agent(chat.sdk.function_tool(lookup)), "Where is 1412?").final_output

    record(proof.cassette, agent, tools="off")
    assert run(proof.cassette, agent, tools="off").failure is None
    assert proof.ran == ["lookup 1412 1"] * 2


def test_a_module_of_that_name_is_left_alone() -> None:
    from pytest_spanchain.boundaries.frameworks import openai_agents as boundary

    lib = ModuleType("agents")
    lib.__file__ = __file__
    boundary.install(lib)


@pytest.mark.parametrize("left_out", ["tool", "invoke", "takes", "invoker", "cell"])
def test_another_release_is_not_recognised(sdk: Any, left_out: str) -> None:
    from pytest_spanchain.boundaries.frameworks import openai_agents as boundary

    async def invoke(*, function_tool: Any, context: Any, arguments: str) -> None: ...
    async def other(*, function_tool: Any) -> None: ...

    tool: Any = SimpleNamespace(
        _invoke_function_tool_with_metadata=other if left_out == "takes" else invoke,
        _FailureHandlingFunctionToolInvoker=type,
    )
    if left_out in ("invoke", "invoker"):
        name = "_invoke_function_tool_with_metadata" if left_out == "invoke" else "_FailureHandlingFunctionToolInvoker"
        delattr(tool, name)
    lib: Any = ModuleType("agents")
    lib.__file__ = sdk.__file__
    lib.tool = None if left_out == "tool" else tool
    lib.function_tool = lambda function: SimpleNamespace(on_invoke_tool=function)
    with pytest.raises(BoundaryError, match=r"openai-agents 0\.\S+ is not recognised: its tools would not be recorded"):
        boundary.install(lib)


class Total(BaseModel):
    euros: int = 0


@dataclass
class Memory:
    """A context in which an agent counts and remembers."""

    count: int = 0
    seen: list[str] = field(default_factory=list)
    total: Total = field(default_factory=Total)


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_tools_do_to_the_context_is_done_again(proof: Proof, chat: Clerk, by_hand: bool) -> None:
    sdk = chat.sdk
    proof.server.script(calls(*[ToolCall("remember", {"order": order}, id=order) for order in ("7", "8", "bad")]))

    def remember(context: Any, order: str) -> str:
        """Remember."""
        ledger(f"remember {order}")
        context.context.count += 1
        context.context.seen.append(order)
        context.context.total.euros += 5
        if order == "bad":
            raise LookupError("no such order")
        return "noted"

    async def raw(context: Any, text: str) -> str:
        try:
            return remember(context, json.loads(text)["order"])
        except LookupError:
            return "failed"

    remember.__annotations__["context"] = sdk.RunContextWrapper[Memory]

    def agent() -> Any:
        memory = Memory()
        schema = {"type": "object", "properties": {"order": {"type": "string"}}}
        made = sdk.FunctionTool("remember", "Remember.", schema, raw, strict_json_schema=False)
        tool = made if by_hand else sdk.function_tool(remember)

        def instructions(context: Any, agent: Any) -> str:
            return f"{context.context.count} orders for {context.context.total.euros}"

        said = chat.run(chat.agent(tool, instructions=instructions), "Go.", context=memory).final_output
        return said, memory

    recorded = proof.holds(agent, ran=["remember 7", "remember 8", "remember bad"], in_order=False)
    assert (recorded.value[1].count, recorded.value[1].total.euros) == (3, 15)
    assert sorted(recorded.value[1].seen) == ["7", "8", "bad"]


@pytest.mark.parametrize("name", ["_is_agent_tool", "partial", "invoke_mcp_tool", "RunContextWrapper", "_exporter"])
def test_a_release_in_which_a_name_is_another(sdk: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from pytest_spanchain.boundaries.frameworks import openai_agents as boundary

    lib = other_release(sdk, name)
    lib.__file__ = sdk.__file__
    vars(lib)["Agent"] = other(sdk.Agent, name)
    for home in ("agents.mcp.util", "agents.run_context"):
        monkeypatch.setitem(sys.modules, home, other_release(sys.modules[home], name))
    processors = other_release(sdk.tracing.processors, name)
    vars(lib)["tracing"] = SimpleNamespace(processors=processors)
    with pytest.raises(
        BoundaryError, match=rf"openai-agents \S+ is not recognised: its tools would not be recorded.*\b{name}\b"
    ):
        boundary.install(lib)


def test_tools_of_an_mcp_server_are_no_tools_here(proof: Proof, chat: Clerk) -> None:
    """Whether or not the release says so at the tool: what leaves the process is the server's connection."""
    servers, types = importlib.import_module("agents.mcp"), importlib.import_module("mcp.types")

    class Store(servers.MCPServer):  # type: ignore[misc, name-defined]
        name = "store"

        async def connect(self) -> None: ...
        async def cleanup(self) -> None: ...
        async def list_prompts(self) -> Any: ...
        async def get_prompt(self, name: str, arguments: Any = None) -> Any: ...

        async def list_tools(self, *args: Any) -> Any:
            schema = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
            return [types.Tool(name="lookup", inputSchema=schema)]

        async def call_tool(self, tool_name: str, arguments: Any, *args: Any, **kwargs: Any) -> Any:
            ledger(f"{tool_name} {arguments['order']}")
            return types.CallToolResult(content=[types.TextContent(type="text", text="delivered")])

    def agent() -> Any:
        made = chat.agent()
        made.mcp_servers = [Store()]
        return chat.run(made, "Where is 1412?").final_output

    proof.server.script(calls(ToolCall("lookup", {"order": "1412"}, id="a")))
    recorded = record(proof.cassette, agent)
    assert "delivered" in recorded.value
    assert [span.kind for span in recorded.verdict.live if span.kind == "tool"] == []
    proof.take_down()
    assert replay(proof.cassette, agent).value == recorded.value
    assert proof.ran == ["lookup 1412"] * 2
