"""Calls that were recorded side by side end in replay as they had ended: an agent may go by who was ready first."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

import pytest_spanchain
from builders import EPOCH_NS, span
from model_replies import answer, last_text
from pytest_spanchain import _turns
from pytest_spanchain._model import CONCURRENT, Exchange, Span, SpanTree
from recording import record, replay, run
from servers import ModelServer, Reply, Request

FIVE = [f"prompt {n}" for n in range(5)]
LAST_FIRST = FIVE[::-1]
_STEP = 0.03


def slow(request: Request) -> Reply:
    """The later in ``FIVE``, the sooner answered; any other prompt at once."""
    text = last_text(request)
    if text in FIVE:
        time.sleep(_STEP * LAST_FIRST.index(text))
    return answer(request, f"<{text}>")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(slow) as server:
        yield server


class Agent:
    """Asks for five things at once, and then for the sum of what it heard, in the order in which it heard it."""

    def __init__(self, url: str, *, streams: bool = False) -> None:
        self.url = f"{url}/v1/chat/completions"
        self.streams = streams
        self.pauses: dict[str, float] = {}
        self.prompts = FIVE

    def shake(self, dice: random.Random) -> None:
        self.pauses = {prompt: dice.random() * 0.01 for prompt in FIVE}

    def body(self, prompt: str) -> dict[str, Any]:
        return {"model": "gpt-test", "stream": self.streams, "messages": [{"role": "user", "content": prompt}]}

    async def tasks(self) -> list[str]:
        async with httpx2.AsyncClient(verify=False) as client:

            async def one(prompt: str) -> str:
                await asyncio.sleep(self.pauses.get(prompt, 0))
                async with client.stream("POST", self.url, json=self.body(prompt)) as response:
                    heard = "".join([line async for line in response.aiter_lines() if not line.endswith("[DONE]")])
                return f"{prompt}: {len(heard)}"

            heard = [await done for done in asyncio.as_completed([one(prompt) for prompt in self.prompts])]
            await one(" ".join(heard))
        return heard

    def threads(self) -> list[str]:
        with httpx2.Client(verify=False) as client:

            def one(prompt: str) -> str:
                time.sleep(self.pauses.get(prompt, 0))
                with client.stream("POST", self.url, json=self.body(prompt)) as response:
                    heard = "".join(line for line in response.iter_lines() if not line.endswith("[DONE]"))
                return f"{prompt}: {len(heard)}"

            with ThreadPoolExecutor(len(FIVE)) as pool:
                heard = [done.result() for done in as_completed([pool.submit(one, prompt) for prompt in self.prompts])]
            one(" ".join(heard))
        return heard


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("way", ["tasks", "threads"])
def test_answers_of_a_model(way: str, streams: bool, server: ModelServer, tmp_path: Path) -> None:
    agent = Agent(server.url, streams=streams)
    recorded = record(tmp_path / "c.yaml", getattr(agent, way)).value
    assert [line.partition(":")[0] for line in recorded] == LAST_FIRST
    dice = random.Random(way)
    for _ in range(10):
        agent.shake(dice)
        assert replay(tmp_path / "c.yaml", getattr(agent, way)).value == recorded


def tools_in_threads(pauses: Callable[[str], float], *, workers: int = len(FIVE)) -> list[str]:
    @pytest_spanchain.tool
    def look_up(order: str) -> str:
        time.sleep(_STEP * LAST_FIRST.index(order))
        return f"<{order}>"

    @pytest_spanchain.tool
    def report(lines: list[str]) -> int:
        return len(lines)

    def one(order: str) -> str:
        time.sleep(pauses(order))
        return look_up(order)

    with ThreadPoolExecutor(workers) as pool:
        found = [done.result() for done in as_completed([pool.submit(one, order) for order in FIVE])]
    report(found)
    return found


async def tools_in_tasks(pauses: Callable[[str], float]) -> list[str]:
    @pytest_spanchain.tool
    async def look_up(order: str) -> str:
        await asyncio.sleep(_STEP * LAST_FIRST.index(order))
        if order == FIVE[1]:
            raise ValueError(order)
        return f"<{order}>"

    @pytest_spanchain.tool
    async def report(lines: list[str]) -> int:
        return len(lines)

    found = []

    async def one(order: str) -> None:
        await asyncio.sleep(pauses(order))
        try:
            found.append(await look_up(order))
        except ValueError as error:
            found.append(f"no {error}")

    await asyncio.gather(*map(one, FIVE))
    await report(found)
    return found


@pytest.mark.parametrize("agent", [tools_in_threads, tools_in_tasks])
def test_results_of_tools(agent: Callable[..., Any], tmp_path: Path) -> None:
    def whole(pauses: Callable[[str], float]) -> Any:
        made = agent(pauses)
        return asyncio.run(made) if asyncio.iscoroutine(made) else made

    recorded = record(tmp_path / "c.yaml", lambda: whole(lambda _: 0)).value
    assert len(recorded) == 5
    assert [FIVE[-1] in recorded[0], FIVE[0] in recorded[-1]] == [True, True]
    dice = random.Random(3)
    for _ in range(10):
        assert replay(tmp_path / "c.yaml", lambda: whole(lambda _: dice.random() * 0.01)).value == recorded


def test_a_pool_with_fewer_threads_goes_on(tmp_path: Path) -> None:
    """The default of ``asyncio.to_thread`` goes by the number of processors."""
    record(tmp_path / "c.yaml", lambda: tools_in_threads(lambda _: 0))
    outcome = run(tmp_path / "c.yaml", lambda: tools_in_threads(lambda _: 0, workers=2))
    # An agent that goes by who is first has another input then, and that is told with its reason.
    assert len(outcome.value) == 5
    assert any("did not end in their recorded order" in note for note in outcome.verdict.notes)


def test_an_agent_that_asks_for_less_is_red_and_does_not_hang(server: ModelServer, tmp_path: Path) -> None:
    agent = Agent(server.url)
    record(tmp_path / "c.yaml", agent.tasks)
    agent.prompts = FIVE[:-1]
    outcome = run(tmp_path / "c.yaml", agent.tasks)
    assert [cause.kind for cause in outcome.causes] == ["span_removed"]
    assert any("did not end in their recorded order" in note for note in outcome.verdict.notes)


def test_a_call_given_up_while_it_waits(server: ModelServer, tmp_path: Path) -> None:
    """Somebody who loses patience in replay is red, and takes nobody along."""
    agent = Agent(server.url)
    record(tmp_path / "c.yaml", agent.tasks)

    async def impatient() -> Any:
        async with httpx2.AsyncClient(verify=False) as client:

            async def one(prompt: str) -> Any:
                return await client.post(agent.url, json=agent.body(prompt))

            first = asyncio.create_task(one(FIVE[0]))
            await asyncio.sleep(0.02)
            first.cancel()
            rest = [await done for done in asyncio.as_completed([one(prompt) for prompt in FIVE[1:]])]
            return [json.loads(response.request.content)["messages"][0]["content"] for response in rest]

    outcome = run(tmp_path / "c.yaml", impatient)
    assert outcome.value == LAST_FIRST[:-1]
    assert outcome.causes


def test_a_tool_in_the_thread_of_a_loop_does_not_stop_the_loop(tmp_path: Path) -> None:
    async def agent() -> list[str]:
        @pytest_spanchain.tool
        async def slowly(order: str) -> str:
            await asyncio.sleep(0.01)
            return order

        @pytest_spanchain.tool
        def at_once(order: str) -> str:
            return order

        async def plain() -> str:
            await asyncio.sleep(0.05 if recording else 0)
            return at_once("b")

        return [await done for done in asyncio.as_completed([plain(), slowly("a")])]

    recording = True
    assert record(tmp_path / "c.yaml", agent).value == ["a", "b"]
    recording = False
    outcome = run(tmp_path / "c.yaml", agent)
    assert sorted(outcome.value) == ["a", "b"]
    assert outcome.failure is None


def test_who_waits_for_whom() -> None:
    def call(number: int, parent: int, name: str, *, ends: int, beside: int | None = None) -> Span:
        attributes = {} if beside is None else {CONCURRENT: beside}
        made = span(number, parent, name, attributes=attributes, exchange=Exchange("tool", {}, {"result": None}))
        return replace(made, duration_ns=EPOCH_NS + ends - made.start_ns)

    golden = SpanTree(
        (
            span(1, None, "root"),
            span(2, 1, "agent a", attributes={CONCURRENT: 1}),
            (a1 := call(3, 2, "a1", ends=10)),
            (a2 := call(4, 2, "a2", ends=40)),
            span(5, 1, "agent b", attributes={CONCURRENT: 1}),
            (b1 := call(6, 5, "b1", ends=30, beside=1)),
            (below := call(7, 6, "below b1", ends=5, beside=1)),
            (b2 := call(8, 5, "b2", ends=20, beside=1)),
            (alone := call(9, 1, "alone", ends=50)),
        )
    )
    turns = _turns.Turns(golden)
    rung: list[str] = []

    def waits(one: Span) -> bool:
        turn = turns.of(one)
        return turn is not None and turn.waits(lambda: rung.append(one.name))

    assert [waits(one) for one in (alone, below, a1, b2)] == [False, False, False, True]
    turns.over(a1)
    assert rung == ["b2"]
    assert [waits(one) for one in (b2, b1, a2)] == [False, True, True]
    turns.over(b2)
    assert rung == ["b2", "b1"]  # it waited in both crowds, and a2 still does
    turns.over(b1)
    assert rung == ["b2", "b1", "a2"]
    assert not turns.given_up
