"""Strands: plain, async and streaming tools, context and state, interrupts, hooks that retry, errors, its own spans."""

# The library is not typed, or not there in every environment.
# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import asyncio
import functools
import time
import types
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from clerk import ledger, repeats

from model_replies import ToolCall
from proof import Proof, Stack
from pytest_spanchain.boundaries.frameworks import strands as boundary
from pytest_spanchain.errors import BoundaryError

strands = pytest.importorskip("strands")
pytest.importorskip("strands.models.openai")

STACK = Stack(
    name="strands",
    dists=("strands-agents", "openai"),
    records="tools, where their stream calls the function; state that a tool with a context or the agent writes",
    limits=(
        "What a tool writes into a state before it raises or interrupts is not written again in replay.",
        "What a tool does to the agent other than to its state (messages, tools) is not done again in replay.",
    ),
)


@strands.tool  # type: ignore[untyped-decorator, unused-ignore]
def lookup(order: str, depth: int = 1) -> dict[str, Any]:
    """State of an order."""
    ledger(f"lookup {order} {depth}")
    return {"order": order, "state": "delivered", "depth": depth}


@strands.tool  # type: ignore[untyped-decorator, unused-ignore]
async def notify(order: str) -> str:
    """Tells the customer."""
    await asyncio.sleep(0)
    ledger(f"notify {order}")
    return f"customer of {order} told"


@strands.tool  # type: ignore[untyped-decorator, unused-ignore]
async def track(order: str) -> AsyncGenerator[Any, None]:
    """Follows an order."""
    for place in ("depot", "van", "door"):
        ledger(f"track {order} {place}")
        yield f"{order} at the {place}"


@strands.tool  # type: ignore[untyped-decorator, unused-ignore]
def broken(order: str) -> str:
    """Always fails."""
    ledger(f"broken {order}")
    raise LookupError(f"no warehouse for {order}")


@strands.tool(context=True)  # type: ignore[untyped-decorator, unused-ignore]
def remember(order: str, tool_context: Any) -> str:
    """Keeps an order in mind."""
    ledger(f"remember {order}")
    tool_context.agent.state.set("order", order)
    tool_context.agent.state.delete("old")
    tool_context.invocation_state["seen"] = [order]
    return f"{order} of {tool_context.invocation_state['user']} kept"


@strands.tool(context=True)  # type: ignore[untyped-decorator, unused-ignore]
def delete(order: str, tool_context: Any) -> str:
    """Deletes an order, if somebody agrees."""
    ledger(f"delete {order}?")
    if tool_context.interrupt("sure", reason=f"delete {order}") != "yes":
        return "not deleted"
    ledger(f"delete {order}!")
    return f"{order} deleted"


class Own(strands.types.tools.AgentTool):  # type: ignore[misc, name-defined]
    """A tool of the user's own class."""

    tool_name = "own"
    tool_type = "own"
    tool_spec = {  # noqa: RUF012
        "name": "own",
        "description": "Own.",
        "inputSchema": {"json": {"type": "object", "properties": {"order": {"type": "string"}}}},
    }

    async def stream(self, tool_use: Any, invocation_state: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        ledger(f"own {tool_use['input']['order']}")
        yield "half way"
        yield {"toolUseId": tool_use["toolUseId"], "status": "success", "content": [{"text": "own result"}]}


calls = functools.partial(repeats, preface="Let me see.")


def made(proof: Proof, *tools: Any, **options: Any) -> Any:
    from strands.models.openai import OpenAIModel

    model = OpenAIModel(client_args={"base_url": f"{proof.server.url}/v1", "api_key": "test"}, model_id="gpt-test")
    return strands.Agent(model=model, tools=list(tools), callback_handler=None, **options)


def ask(proof: Proof, prompt: str, *tools: Any, **options: Any) -> str:
    return str(made(proof, *tools, **options)(prompt))


TWO = (ToolCall("lookup", {"order": "1412"}), ToolCall("lookup", {"order": "1413", "depth": 2}))


def test_two_calls_side_by_side(proof: Proof) -> None:
    proof.server.script(calls(*TWO))
    recorded = proof.holds(lambda: ask(proof, "Where?", lookup), ran=["lookup 1412 1", "lookup 1413 2"], in_order=False)
    assert '"order": "1413", "state": "delivered", "depth": 2' in recorded.value
    proof.breaks(lambda: ask(proof, "Where now?", lookup))
    proof.breaks(lambda: ask(proof, "Where?", lookup, system_prompt="Be long."))
    proof.breaks(lambda: ask(proof, "Where?"))


def test_another_argument(proof: Proof) -> None:
    """A direct call of the agent's tool is a call like the model's."""
    proof.server.script(calls(TWO[0]))

    def agent(order: str) -> str:
        agent = made(proof, lookup)
        said = agent("Where?")
        return f"{said} {agent.tool.lookup(order=order, record_direct_tool_call=False)['content']}"

    proof.holds(lambda: agent("7"), ran=["lookup 1412 1", "lookup 7 1"])
    (cause,) = proof.breaks(lambda: agent("8"))
    assert cause.kind == "input_changed"
    assert [change.path for change in cause.changes] == ["request.arguments.order"]


def test_async_tools_and_streams(proof: Proof) -> None:
    """What a tool streams reaches the caller's events, in order, in replay too."""
    proof.server.script(calls(ToolCall("notify", {"order": "1"}), ToolCall("track", {"order": "2"})))

    async def agent(prompt: str = "Tell") -> Any:
        events = []
        async for event in made(proof, notify, track).stream_async(prompt):
            if "tool_stream_event" in event:
                events.append(event["tool_stream_event"]["data"])
            if "result" in event:
                events.append(str(event["result"]))
        return events

    recorded = proof.holds(agent, ran=["notify 1", "track 2 depot", "track 2 van", "track 2 door"], in_order=False)
    assert recorded.value[:3] == ["2 at the depot", "2 at the van", "2 at the door"]
    assert "customer of 1 told / 2 at the door" in recorded.value[-1]

    async def changed() -> Any:
        return await agent("Tell all")

    proof.breaks(changed)


def test_a_tool_that_raises(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("broken", {"order": "1412"})))
    recorded = proof.holds(lambda: ask(proof, "Try", broken), ran=["broken 1412"])
    assert "Error: LookupError - no warehouse for 1412" in recorded.value


def test_arguments_that_do_not_fit(proof: Proof) -> None:
    """The framework refuses them before there is a call of a tool."""
    proof.server.script(calls(ToolCall("lookup", {"order": "1", "depth": "deep"})))
    recorded = proof.holds(lambda: ask(proof, "Where?", lookup))
    assert "Validation failed for input parameters" in recorded.value
    assert not [span for span in recorded.verdict.live if span.kind == "tool"]


@pytest.mark.parametrize("slower", ["1412", "1413"])
def test_state_that_two_write_side_by_side(slower: str, proof: Proof) -> None:
    @strands.tool(context=True)  # type: ignore[untyped-decorator, unused-ignore]
    def note(order: str, tool_context: Any) -> str:
        """Notes the order that was looked at last."""
        time.sleep(0.1 * (order == slower))
        tool_context.agent.state.set("last", order)
        return order

    def agent() -> Any:
        asked = made(proof, note)
        return str(asked("Go")), asked.state.get("last")

    proof.server.script(calls(*(ToolCall("note", {"order": order}) for order in ("1412", "1413"))))
    assert proof.holds(agent).value[1] == slower


def test_state_is_written_again(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("remember", {"order": "1412"})))

    def agent() -> Any:
        agent = made(proof, remember, state={"old": 1, "other": 2})
        state = {"user": "ann"}
        said = str(agent("Keep it", invocation_state=state))
        return said, agent.state.get(), state["seen"]

    recorded = proof.holds(agent, ran=["remember 1412"])
    assert recorded.value == ("1412 of ann kept\n", {"other": 2, "order": "1412"}, ["1412"])
    (tool,) = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert tool.exchange is not None
    assert dict(tool.exchange.request) == {"arguments": {"order": "1412"}}


def test_an_interrupt(proof: Proof) -> None:
    """The agent stops, somebody answers, the tool is called again; another answer is another input."""
    proof.server.script(calls(ToolCall("delete", {"order": "1412"})))

    def agent(said: str) -> Any:
        agent = made(proof, delete)
        stopped = agent("Delete it")
        assert stopped.stop_reason == "interrupt"
        (one,) = stopped.interrupts
        done = agent([{"interruptResponse": {"interruptId": one.id, "response": said}}])
        return one.name, one.reason, str(done)

    recorded = proof.holds(lambda: agent("yes"), ran=["delete 1412?", "delete 1412?", "delete 1412!"])
    assert recorded.value == ("sure", "delete 1412", "1412 deleted\n")
    proof.breaks(lambda: agent("no"))


def test_hooks_see_the_same(proof: Proof) -> None:
    """A hook that asks for another try gets one, of which the result is recorded too."""
    from strands.hooks import AfterToolCallEvent

    proof.server.script(calls(TWO[0]))

    def agent() -> Any:
        seen: list[Any] = []

        def again(event: AfterToolCallEvent) -> None:
            seen.append((event.result["content"], type(event.exception)))
            event.retry = len(seen) < 2

        agent = made(proof, lookup)
        agent.hooks.add_callback(AfterToolCallEvent, again)
        return str(agent("Where?")), seen

    recorded = proof.holds(agent, ran=["lookup 1412 1", "lookup 1412 1"])
    assert len(recorded.value[1]) == 2


def test_a_tool_of_the_users_own_class(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("own", {"order": "9"})))
    recorded = proof.holds(lambda: ask(proof, "Go", Own()), ran=["own 9"])
    assert "own result" in recorded.value


def test_its_own_spans_hold_ours(proof: Proof) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    proof.server.script(calls(TWO[0]))
    recorded = proof.holds(lambda: ask(proof, "Where?", lookup), ran=["lookup 1412 1"])
    tree = recorded.verdict.live
    (ours,) = [span for span in tree if span.kind == "tool"]
    assert ours.parent_span_id is not None
    theirs = tree.by_id[ours.parent_span_id]
    assert (theirs.name, theirs.scope) == ("execute_tool lookup", "strands.telemetry.tracer")


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("decorator", {}),
        ("decorator", {"DecoratedFunctionTool": type("T", (), {"stream": lambda self, use: None})}),
        ("executors._executor", {}),
        ("tools", {"PythonAgentTool": type("T", (), {})}),
    ],
)
def test_a_release_that_looks_different(name: str, has: dict[str, Any]) -> None:
    module = types.ModuleType(f"strands.tools.{name}")
    vars(module).update(has)
    if has:
        module.InterruptException = KeyError  # type: ignore[attr-defined]
    with pytest.raises(
        BoundaryError, match=r"strands-agents [\d.]+ is not recognised: its tools would not be recorded"
    ):
        boundary.install(module)
