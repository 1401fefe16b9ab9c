"""google-adk: functions, generators, context, transfers, long-running tools, confirmations, callbacks, spans."""

# The library is not typed, or not there in every environment.
# mypy: disable-error-code="import-untyped, import-not-found, misc, unused-ignore"

from __future__ import annotations

import asyncio
import functools
import types
import warnings
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from clerk import ledger, repeats

from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain.boundaries.frameworks import google_adk as boundary
from pytest_spanchain.errors import BoundaryError
from servers import Reply, Request

pytest.importorskip("google.adk")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from google.adk.agents import LlmAgent
    from google.adk.events.event import Event
    from google.adk.models.anthropic_llm import AnthropicLlm
    from google.adk.runners import InMemoryRunner
    from google.adk.tools import LongRunningFunctionTool, ToolContext
    from google.adk.tools.base_tool import BaseTool
    from google.adk.tools.function_tool import FunctionTool
    from google.genai import types as genai

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

STACK = Stack(
    name="google-adk",
    dists=("google-adk", "google-genai"),
    records="tools, at FunctionTool.run_async around the function, other tools where the flow runs them;"
    " state and actions of their context",
    limits=(
        "What a tool writes into its context before it raises is not written again in replay.",
        "Artifacts, memories and credentials that a tool saves are not saved again in replay.",
        "Tools of live (bidirectional) sessions are not recorded.",
    ),
)


def lookup(order: str, depth: int = 1) -> dict[str, Any]:
    """State of an order."""
    ledger(f"lookup {order} {depth}")
    return {"order": order, "state": "delivered", "depth": depth}


async def notify(order: str) -> str:
    """Tells the customer."""
    await asyncio.sleep(0)
    ledger(f"notify {order}")
    return f"customer of {order} told"


async def track(order: str) -> AsyncGenerator[Any, None]:
    """Follows an order."""
    for place in ("depot", "van"):
        ledger(f"track {order} {place}")
        yield Event(content=genai.Content(role="model", parts=[genai.Part(text=f"{order} at the {place}")]))
    ledger(f"track {order} door")
    yield f"{order} at the door"


def broken(order: str) -> str:
    """Always fails."""
    ledger(f"broken {order}")
    raise LookupError(f"no warehouse for {order}")


def remember(order: str, tool_context: ToolContext) -> str:
    """Keeps an order in mind."""
    ledger(f"remember {order}")
    tool_context.state["order"] = order
    tool_context.state["all"] = [*tool_context.state.get("all", []), order]
    tool_context.state.get("notes")["last"] = order
    tool_context.actions.skip_summarization = True
    return f"{order} kept"


def hand_over(order: str, tool_context: ToolContext) -> str:
    """Gives an order to somebody else."""
    ledger(f"hand_over {order}")
    tool_context.actions.transfer_to_agent = "helper"
    return "handed over"


def pay(order: str, tool_context: ToolContext) -> dict[str, Any]:
    """Pays, if somebody agrees."""
    said = tool_context.tool_confirmation
    ledger(f"pay {order} {said.confirmed if said else '?'}")
    if said is None:
        tool_context.request_confirmation(hint=f"pay for {order}?", payload={"most": 10})
        return {"status": "waiting"}
    return {"status": "paid" if said.confirmed else "refused", "of": said.payload}


class Own(BaseTool):  # type: ignore[misc, unused-ignore]
    """A tool of the user's own class."""

    def _get_declaration(self) -> Any:
        order = genai.Schema(type=genai.Type.STRING)
        schema = genai.Schema(type=genai.Type.OBJECT, properties={"order": order})
        return genai.FunctionDeclaration(name=self.name, description="Own.", parameters=schema)

    async def run_async(self, *, args: Any, tool_context: Any) -> Any:
        ledger(f"own {args['order']}")
        tool_context.state["own"] = args["order"]
        return {"own": args["order"]}


calls = functools.partial(repeats, preface="Let me see.")


def made(*tools: Any, **options: Any) -> Any:
    options = {"instruction": "Be brief.", "name": "agent", **options}
    client = AsyncAnthropic(default_headers={"connection": "close"})  # nobody closes it; its loop may be gone
    model = AnthropicLlm(model="claude-test", max_tokens=99, client=client)
    return LlmAgent(model=model, tools=list(tools), **options)


async def talk(agent: Any, *turns: Any, state: dict[str, Any] | None = None) -> Any:
    """What events say, who said it, and the state at the end."""
    runner = InMemoryRunner(agent, app_name="shop")
    session = await runner.session_service.create_session(app_name="shop", user_id="ann", state=state)
    said: list[Any] = []
    for turn in turns:
        parts = turn(said) if callable(turn) else [genai.Part(text=turn)]
        message = genai.Content(role="user", parts=parts)
        async for event in runner.run_async(user_id="ann", session_id=session.id, new_message=message):
            for part in (event.content.parts if event.content else None) or []:
                if part.function_response:
                    said.append((event.author, part.function_response.name, part.function_response.response))
                elif part.text:
                    said.append((event.author, part.text))
    stored = await runner.session_service.get_session(app_name="shop", user_id="ann", session_id=session.id)
    assert stored is not None
    return said, dict(stored.state)


TWO = (ToolCall("lookup", {"order": "1412"}), ToolCall("lookup", {"order": "1413", "depth": 2}))


def agent_of(*tools: Any, prompt: str = "Go", state: dict[str, Any] | None = None, **options: Any) -> Callable[[], Any]:
    async def agent() -> Any:
        return await talk(made(*tools, **options), prompt, state=state)

    return agent


def test_two_calls_of_one_turn(proof: Proof) -> None:
    proof.server.script(calls(*TWO))
    recorded = proof.holds(agent_of(lookup), ran=["lookup 1412 1", "lookup 1413 2"])
    assert ("agent", "lookup", {"order": "1413", "state": "delivered", "depth": 2}) in recorded.value[0]
    proof.breaks(agent_of(lookup, prompt="Go on"))
    proof.breaks(agent_of(lookup, instruction="Be long."))
    proof.breaks(agent_of())


def test_async_tools_and_generators(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("notify", {"order": "1"}), ToolCall("track", {"order": "2"})))
    recorded = proof.holds(
        agent_of(notify, track), ran=["notify 1", "track 2 depot", "track 2 van", "track 2 door"], in_order=False
    )
    said = str(recorded.value[0])
    assert "2 at the van" in said
    assert said.index("2 at the van") < said.index("2 at the door")
    assert any("customer of 1 told" in str(one) for one in recorded.value[0])


def test_a_tool_that_raises(proof: Proof) -> None:
    """The runner lets it through; a callback for errors gets the same exception."""
    proof.server.script(calls(ToolCall("broken", {"order": "1412"})))
    recorded = proof.holds(agent_of(broken), ran=["broken 1412"])
    assert repr(recorded.raised) == "LookupError('no warehouse for 1412')"


def test_an_error_callback(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("broken", {"order": "1412"})))

    def excuse(tool: Any, args: Any, tool_context: Any, error: Exception) -> dict[str, Any]:
        return {"sorry": f"{type(error).__name__} {error}"}

    recorded = proof.holds(agent_of(broken, on_tool_error_callback=excuse), ran=["broken 1412"])
    assert ("agent", "broken", {"sorry": "LookupError no warehouse for 1412"}) in recorded.value[0]


def test_callbacks_run_again(proof: Proof) -> None:
    """They are the agent's own, and change what a tool gets: that is a changed input."""
    proof.server.script(calls(TWO[0]))

    def deeper(by: int) -> Any:
        def before(tool: Any, args: dict[str, Any], tool_context: Any) -> None:
            args["depth"] = by

        return before

    proof.holds(agent_of(lookup, before_tool_callback=deeper(5)), ran=["lookup 1412 5"])
    (cause, *_) = proof.breaks(agent_of(lookup, before_tool_callback=deeper(6)))
    assert cause.kind == "input_changed"
    assert "request.arguments.depth" in [change.path for change in cause.changes]


def test_the_context_is_changed_again(proof: Proof) -> None:
    """State, also where it is written inside a value, and actions."""
    proof.server.script(calls(ToolCall("remember", {"order": "1412"})))
    recorded = proof.holds(agent_of(remember, state={"all": ["1"], "notes": {"first": 0}}), ran=["remember 1412"])
    said, state = recorded.value
    assert state == {"order": "1412", "all": ["1", "1412"], "notes": {"first": 0, "last": "1412"}}
    assert said[-1] == ("agent", "remember", {"result": "1412 kept"}), "skip_summarization ends the turn"
    (tool,) = [span for span in recorded.verdict.live if span.kind == "tool"]
    assert tool.exchange is not None
    assert dict(tool.exchange.request) == {"arguments": {"order": "1412"}}


def test_a_tool_that_transfers(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        if "helper of" in str(request.body["system"]):
            return answer(request, "I am the helper.")
        return calls(ToolCall("hand_over", {"order": "7"}))(request)

    async def agent() -> Any:
        helper = made(name="helper", description="Helps.", instruction="You are the helper of all.")
        return await talk(made(hand_over, sub_agents=[helper]), "Go")

    proof.server.script(script)
    recorded = proof.holds(agent, ran=["hand_over 7"])
    assert recorded.value[0][-1] == ("helper", "I am the helper.")


def test_the_frameworks_transfer(proof: Proof) -> None:
    """It only touches the session, so it is no exchange."""

    def script(request: Request) -> Reply:
        if "helper of" in str(request.body["system"]):
            return answer(request, "I am the helper.")
        return answer(request, tools=[ToolCall("transfer_to_agent", {"agent_name": "helper"})])

    async def agent() -> Any:
        helper = made(name="helper", description="Helps.", instruction="You are the helper of all.")
        return await talk(made(sub_agents=[helper]), "Go")

    proof.server.script(script)
    recorded = proof.holds(agent)
    assert recorded.value[0][-1] == ("helper", "I am the helper.")
    assert not [span for span in recorded.verdict.live if span.kind == "tool"]


def test_a_long_running_tool(proof: Proof) -> None:
    """It answers at once with what is pending; the rest comes with a later turn."""
    proof.server.script(calls(ToolCall("lookup", {"order": "9"}, id="call-9")))

    def later(said: list[Any]) -> list[Any]:
        response = genai.FunctionResponse(id="toolu_call-9", name="lookup", response={"state": "lost"})
        return [genai.Part(function_response=response)]

    async def agent() -> Any:
        return await talk(made(LongRunningFunctionTool(func=lookup)), "Go", later)

    recorded = proof.holds(agent, ran=["lookup 9 1"])
    assert recorded.raised is None, repr(recorded.raised)
    assert "lost" in str(recorded.value[0][-1])


def test_a_confirmation(proof: Proof) -> None:
    """A tool that asks people is called again with their answer, which is an input of the call."""
    proof.server.script(calls(ToolCall("pay", {"order": "3"})))

    async def agent(yes: bool) -> Any:
        runner = InMemoryRunner(made(FunctionTool(pay)), app_name="shop")
        session = await runner.session_service.create_session(app_name="shop", user_id="ann")
        said, asks = [], []
        message = genai.Content(role="user", parts=[genai.Part(text="Pay")])
        for _ in range(2):
            async for event in runner.run_async(user_id="ann", session_id=session.id, new_message=message):
                asks += [call for call in event.get_function_calls() if call.name == "adk_request_confirmation"]
                said += [one.response for one in event.get_function_responses()]
            response = {"confirmed": yes, "payload": {"most": 5}}
            answered = genai.FunctionResponse(id=asks[0].id, name=asks[0].name, response=response)
            message = genai.Content(role="user", parts=[genai.Part(function_response=answered)])
        return said, asks[0].args["toolConfirmation"]["hint"]

    async def agrees() -> Any:
        return await agent(True)

    async def refuses() -> Any:
        return await agent(False)

    recorded = proof.holds(agrees, ran=["pay 3 ?", "pay 3 True"])
    assert recorded.value[0][-1] == {"status": "paid", "of": {"most": 5}}
    assert recorded.value[1] == "pay for 3?"
    proof.breaks(refuses)


def test_a_tool_of_the_users_own_class(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("own", {"order": "9"})))
    recorded = proof.holds(agent_of(Own(name="own", description="Own.")), ran=["own 9"])
    assert recorded.value[1] == {"own": "9"}


def test_the_sync_runner(proof: Proof) -> None:
    """It runs the agent in a thread of its own."""
    proof.server.script(calls(TWO[0]))

    def agent() -> Any:
        runner = InMemoryRunner(made(lookup), app_name="shop")
        session = asyncio.run(runner.session_service.create_session(app_name="shop", user_id="ann"))
        message = genai.Content(role="user", parts=[genai.Part(text="Go")])
        return [
            part.text
            for event in runner.run(user_id="ann", session_id=session.id, new_message=message)
            for part in (event.content.parts if event.content else None) or []
        ]

    recorded = proof.holds(agent, ran=["lookup 1412 1"])
    assert "delivered" in recorded.value[-1]


def test_its_own_spans_hold_ours(proof: Proof) -> None:
    proof.server.script(calls(TWO[0]))
    recorded = proof.holds(agent_of(lookup), ran=["lookup 1412 1"])
    tree = recorded.verdict.live
    (ours,) = [span for span in tree if span.kind == "tool"]
    assert ours.parent_span_id is not None
    assert tree.by_id[ours.parent_span_id].name == "execute_tool lookup"
    assert tree.by_id[ours.parent_span_id].scope == "gcp.vertex.agent"


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("google.adk.tools.function_tool", {}),
        ("google.adk.tools.function_tool", {"FunctionTool": type("T", (), {"_prepare_invocation_args": 1})}),
        ("google.adk.flows.llm_flows.tools._caller", {}),
    ],
)
def test_a_release_that_looks_different(name: str, has: dict[str, Any]) -> None:
    module = types.ModuleType(name)
    vars(module).update(has)
    with pytest.raises(BoundaryError, match=r"google-adk [\d.]+ is not recognised: its tools would not be recorded"):
        boundary.install(module)
