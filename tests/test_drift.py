"""A changed agent turns red, and the report blames the change: the right span, the right field, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from model_replies import ToolCall, answer, tool_results
from pytest_spanchain import Deviation, DeviationError, DeviationKind, tool
from recording import record, replay, run
from servers import ModelServer, Reply, Request

ASKED = [
    ToolCall("lookup", {"order": "1412"}),
    ToolCall("stock", {"item": "mug"}),
    ToolCall("refund", {"order": "1412"}),
]


@tool
def lookup(order: str) -> str:
    return f"order {order}: delivered"


@tool
def stock(item: str, place: str = "Berlin") -> str:
    return f"{item}: 3 in {place}"


@tool
def refund(order: str) -> str:
    return f"{order} refunded"


TOOLS: dict[str, Callable[..., str]] = {"lookup": lookup, "stock": stock, "refund": refund}


@dataclass(frozen=True)
class Agent:
    """An agent that can be bent in one place.

    Args:
        system: its system prompt.
        edit: what becomes of the tool calls of the first turn before they are made.
        greet: whether a first model call greets.
        ask_again: whether a last, unrecorded model call is tried, its failure swallowed.
        tracer: opens its own ``invoke_agent`` span, if there is one.
        sends_results: whether the model gets the true tool results (or always the same text).
    """

    system: str = "You are a careful shop assistant. Refund only delivered orders."
    edit: Callable[[list[ToolCall]], Sequence[ToolCall]] = list
    greet: bool = True
    ask_again: bool = False
    tracer: trace.Tracer | None = None

    def __call__(self) -> str:
        with self._span(), OpenAI(max_retries=0) as client:
            if self.greet:
                self._say(client, [{"role": "user", "content": "Good morning"}])
            messages: list[Any] = [
                {"role": "system", "content": self.system},
                {"role": "user", "content": "Refund order 1412"},
            ]
            message = self._say(client, messages)
            calls = [ToolCall(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls]
            for call in self.edit(calls):
                TOOLS[call.name](**call.arguments)
            messages.append(message.model_dump(exclude_none=True))
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
            said = str(self._say(client, messages).content)
            if self.ask_again:
                try:
                    self._say(client, [{"role": "user", "content": "Anything else to do for this customer?"}])
                except Exception:  # noqa: BLE001 - an agent that swallows everything is the point
                    return said
            return said

    def _span(self) -> AbstractContextManager[Any]:
        if self.tracer is None:
            return nullcontext()
        return self.tracer.start_as_current_span(
            "invoke_agent shop", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "shop"}
        )

    def _say(self, client: OpenAI, messages: list[Any]) -> Any:
        return client.chat.completions.create(model="gpt-test", messages=messages).choices[0].message


def shop(request: Request) -> Reply:
    messages = request.body["messages"]
    if len(messages) == 1:
        return answer(request, "Good morning to you.")
    return answer(request, "All done.") if tool_results(request) else answer(request, "Let me see.", tools=ASKED)


@pytest.fixture(params=["bare", "traced"])
def agent(request: pytest.FixtureRequest, sdk_env: ModelServer) -> Agent:
    sdk_env.script(shop)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop.agent") if request.param == "traced" else None
    return Agent(tracer=tracer)


@pytest.fixture
def cassette(agent: Agent, tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    assert record(path, agent).value == "All done."
    assert replay(path, agent).value == "All done."
    return path


def blamed(path: Path, changed: Agent) -> Deviation:
    """The one cause that a changed agent is failed for."""
    outcome = run(path, changed)
    assert outcome.failure is not None, "green, though the agent has changed"
    causes = outcome.causes
    assert len(causes) == 1, [(str(cause.kind), cause.path, cause.changes) for cause in causes]
    assert causes[0].deviation_point
    assert causes[0].path[-1] in str(outcome.failure)
    root = ("c.yaml", *(["invoke_agent shop"] if changed.tracer else []))
    assert causes[0].path[:-1] == root
    return causes[0]


CHAT, LOOKUP, STOCK, REFUND = "chat gpt-test", "execute_tool lookup", "execute_tool stock", "execute_tool refund"


def test_one_word_of_the_system_prompt(agent: Agent, cassette: Path) -> None:
    cause = blamed(cassette, replace(agent, system=agent.system.replace("careful", "careless")))
    assert (cause.kind, cause.path[-1]) == (DeviationKind.INPUT_CHANGED, CHAT)
    (change,) = cause.changes
    assert change.path == "request.body.json.messages[0].content"
    assert "careful" in change.golden
    assert "careless" in change.live


def test_dropped_tool_call(agent: Agent, cassette: Path) -> None:
    cause = blamed(cassette, replace(agent, edit=lambda calls: [calls[0], calls[2]]))
    assert (cause.kind, cause.path[-1]) == (DeviationKind.SPAN_REMOVED, STOCK)
    assert cause.live is None


def test_added_tool_call(agent: Agent, cassette: Path) -> None:
    more = ToolCall("stock", {"item": "spoon", "place": "Rome"})
    cause = blamed(cassette, replace(agent, edit=lambda calls: [*calls, more]))
    assert (cause.kind, cause.path[-1]) == (DeviationKind.SPAN_ADDED, STOCK)
    assert cause.live is not None
    assert cause.live.exchange is not None
    assert cause.live.exchange.request["arguments"]["item"] == "spoon"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_duplicated_tool_call(which: int, agent: Agent, cassette: Path) -> None:
    cause = blamed(cassette, replace(agent, edit=lambda calls: [*calls[: which + 1], *calls[which:]]))
    assert (cause.kind, cause.path[-1]) == (DeviationKind.SPAN_ADDED, [LOOKUP, STOCK, REFUND][which])


def test_reordered_tool_calls(agent: Agent, cassette: Path) -> None:
    cause = blamed(cassette, replace(agent, edit=lambda calls: [calls[1], calls[0], calls[2]]))
    assert cause.kind is DeviationKind.SPAN_MOVED
    assert cause.path[-1] in (LOOKUP, STOCK)


def test_last_tool_call_first(agent: Agent, cassette: Path) -> None:
    cause = blamed(cassette, replace(agent, edit=lambda calls: [calls[2], calls[0], calls[1]]))
    assert (cause.kind, cause.path[-1]) == (DeviationKind.SPAN_MOVED, REFUND)


def test_changed_tool_argument(agent: Agent, cassette: Path) -> None:
    other = ToolCall("lookup", {"order": "1413"})
    cause = blamed(cassette, replace(agent, edit=lambda calls: [other, *calls[1:]]))
    assert (cause.kind, cause.path[-1]) == (DeviationKind.INPUT_CHANGED, LOOKUP)
    (change,) = cause.changes
    assert (change.path, change.golden, change.live) == ("request.arguments.order", "1412", "1413")


@pytest.mark.parametrize(("recorded", "asked"), [(0.0, -0.0), (1, 1.0), (1, True), ([0.0], [-0.0])], ids=str)
def test_an_argument_that_only_python_takes_for_equal(recorded: Any, asked: Any, tmp_path: Path) -> None:
    """It borrows the recorded answer, so that the run goes on; it must not pass."""

    def agent(value: Any) -> Callable[[], Any]:
        return lambda: tool(double)(value)

    record(tmp_path / "c.yaml", agent(recorded))
    assert replay(tmp_path / "c.yaml", agent(recorded)).value == "served"
    outcome = run(tmp_path / "c.yaml", agent(asked))
    assert outcome.value == "served"
    assert isinstance(outcome.failure, DeviationError)
    (cause,) = outcome.causes
    assert cause.kind is DeviationKind.INPUT_CHANGED
    assert cause.changes[0].path.startswith("request.arguments.value")


def double(value: Any) -> str:
    return "served"


def test_one_model_call_fewer(agent: Agent, cassette: Path) -> None:
    cause = blamed(cassette, replace(agent, greet=False))
    assert (cause.kind, cause.path[-1]) == (DeviationKind.SPAN_REMOVED, CHAT)
    assert cause.golden is not None
    assert cause.golden.exchange is not None
    assert cause.golden.exchange.request["body"]["json"]["messages"][0]["content"] == "Good morning"


def test_one_model_call_more_with_its_failure_swallowed(agent: Agent, cassette: Path) -> None:
    changed = replace(agent, ask_again=True)
    assert run(cassette, changed).value == "All done.", "the agent itself notices nothing"
    cause = blamed(cassette, changed)
    assert (cause.kind, cause.path[-1]) == (DeviationKind.SPAN_ADDED, CHAT)
    assert '+ chat gpt-test: "Anything else to do for this customer?"' in str(run(cassette, changed).failure)


@pytest.mark.parametrize("agent", ["traced"], indirect=True)
def test_changed_agent_span(agent: Agent, cassette: Path) -> None:
    assert agent.tracer is not None
    tracer = agent.tracer

    class Renamed(Agent):
        def _span(self) -> AbstractContextManager[Any]:
            return tracer.start_as_current_span(
                "invoke_agent shop", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "store"}
            )

    outcome = run(cassette, Renamed(tracer=tracer))
    (cause,) = outcome.causes
    assert (cause.kind, cause.path[-1]) == (DeviationKind.INPUT_CHANGED, "invoke_agent shop")
    assert [change.path for change in cause.changes] == ["attributes.gen_ai.agent.name"]


def test_everything_after_the_cause_is_a_consequence(agent: Agent, cassette: Path) -> None:
    """A changed prompt in the first call runs through every later request; only the first is blamed."""
    changed = replace(agent, system="Refund everything.", edit=lambda calls: calls[1:])
    outcome = run(cassette, changed)
    (cause,) = outcome.causes
    assert cause.kind is DeviationKind.INPUT_CHANGED
    followers = [found for found in outcome.verdict.deviations if found.consequence]
    assert {found.kind for found in followers} >= {DeviationKind.SPAN_REMOVED, DeviationKind.INPUT_CHANGED}


def test_an_instrumentation_that_one_run_lacks_does_not_turn_drift_into_a_miss(tmp_path: Path) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("instrumentor")

    def instrumented() -> str:
        with tracer.start_as_current_span("wrapped"):
            return lookup("1412")

    record(tmp_path / "c.yaml", instrumented)
    assert replay(tmp_path / "c.yaml", lambda: lookup("1412")).verdict.notes
    (cause,) = run(tmp_path / "c.yaml", lambda: lookup("1413")).causes
    assert (cause.kind, cause.path[-1]) == (DeviationKind.INPUT_CHANGED, LOOKUP)
