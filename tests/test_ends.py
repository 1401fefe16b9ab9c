"""Calls that were recorded side by side end in replay as they had ended: an agent may go by who was ready first."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

import pytest_spanchain
from builders import EPOCH_NS, span
from model_replies import answer, last_text
from pytest_spanchain import _ends
from pytest_spanchain._model import CONCURRENT, Exchange, Span, SpanTree
from recording import record, replay, run
from servers import ModelServer, Raw, Reply, Request, Reset, until

FIVE = [f"prompt {n}" for n in range(5)]
LAST_FIRST = FIVE[::-1]
_STEP = 0.08


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

    async def post(self, client: httpx2.AsyncClient, prompt: str) -> httpx2.Response:
        return await client.post(self.url, json=self.body(prompt))

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
def test_answers_of_a_model(
    way: str, streams: bool, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "threads":  # as long as they had in the recording, on however busy a machine
        monkeypatch.setattr(_ends, "_MOST_AHEAD", 1.0)
        monkeypatch.setattr(_ends, "_MOST_REST", 100.0)
    agent = Agent(server.url, streams=streams)
    recorded = record(tmp_path / "c.yaml", getattr(agent, way)).value
    assert [line.partition(":")[0] for line in recorded] == LAST_FIRST
    dice = random.Random(way)
    for _ in range(5):
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
def test_results_of_tools(agent: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if agent is tools_in_threads:
        monkeypatch.setattr(_ends, "_MOST_AHEAD", 1.0)
        monkeypatch.setattr(_ends, "_MOST_REST", 100.0)

    def whole(pauses: Callable[[str], float]) -> Any:
        made = agent(pauses)
        return asyncio.run(made) if asyncio.iscoroutine(made) else made

    recorded = record(tmp_path / "c.yaml", lambda: whole(lambda _: 0)).value
    assert len(recorded) == 5
    assert [FIVE[-1] in recorded[0], FIVE[0] in recorded[-1]] == [True, True]
    dice = random.Random(3)
    for _ in range(5):
        assert replay(tmp_path / "c.yaml", lambda: whole(lambda _: dice.random() * 0.01)).value == recorded


async def items_in_tasks() -> list[str]:
    @pytest_spanchain.tool
    async def pages(order: str) -> AsyncIterator[str]:
        yield f"{order} 1"
        await asyncio.sleep(_STEP * LAST_FIRST.index(order))
        yield f"{order} 2"

    found = []

    async def one(order: str) -> None:
        async for page in pages(order):
            found.append(page)

    await asyncio.gather(*map(one, FIVE))
    return found


def test_last_items_of_generators(tmp_path: Path) -> None:
    recorded = record(tmp_path / "c.yaml", items_in_tasks).value
    assert recorded[5:] == [f"{order} 2" for order in LAST_FIRST]
    for _ in range(3):
        assert replay(tmp_path / "c.yaml", items_in_tasks).value == recorded


def test_answers_without_a_body_and_failures(server: ModelServer, tmp_path: Path) -> None:
    def script(request: Request) -> Reply:
        n = int(request.path.rpartition("/")[2])
        time.sleep(_STEP * (3 - n))
        return Reset() if n % 2 else Raw(b"", status=204)

    server.script(script)

    async def agent() -> list[str]:
        heard: list[str] = []

        async def one(n: int) -> None:
            async with httpx2.AsyncClient(verify=False) as client:
                try:
                    heard.append(f"{n} {(await client.get(f'{server.url}/{n}')).status_code}")
                except httpx2.TransportError:
                    heard.append(f"{n} failed")

        await asyncio.gather(*map(one, range(4)))
        return heard

    recorded = record(tmp_path / "c.yaml", agent).value
    assert recorded == ["3 failed", "2 204", "1 failed", "0 204"]
    for _ in range(3):
        assert replay(tmp_path / "c.yaml", agent).value == recorded


def test_what_new_episodes_serves_keeps_its_order(server: ModelServer, tmp_path: Path) -> None:
    agent = Agent(server.url)
    recorded = record(tmp_path / "c.yaml", agent.tasks).value
    again = run(tmp_path / "c.yaml", agent.tasks, mode="new_episodes")
    assert again.failure is None
    assert (again.value, again.verdict.live_calls) == (recorded, 0)


def test_a_pool_with_fewer_threads_goes_on(tmp_path: Path) -> None:
    """The default of ``asyncio.to_thread`` goes by the number of processors."""
    record(tmp_path / "c.yaml", lambda: tools_in_threads(lambda _: 0))
    outcome = run(tmp_path / "c.yaml", lambda: tools_in_threads(lambda _: 0, workers=2))
    # An agent that goes by who is first has another input then, and that is told with its reason.
    assert len(outcome.value) == 5
    assert any("ran side by side before that" in note for note in outcome.verdict.notes)


def test_an_agent_that_asks_for_less_is_red_and_does_not_hang(server: ModelServer, tmp_path: Path) -> None:
    agent = Agent(server.url)
    record(tmp_path / "c.yaml", agent.tasks)
    agent.prompts = FIVE[:-1]
    outcome = run(tmp_path / "c.yaml", agent.tasks)
    assert [cause.kind for cause in outcome.causes] == ["span_removed"]
    assert outcome.verdict.notes == (), "order has nothing to do with it"


def test_a_changed_input_after_parallel_calls_says_what_may_be_the_cause(server: ModelServer, tmp_path: Path) -> None:
    agent = Agent(server.url)
    record(tmp_path / "c.yaml", agent.tasks)

    async def sorts() -> None:
        async with httpx2.AsyncClient(verify=False) as client:
            heard = await asyncio.gather(*(agent.post(client, prompt) for prompt in FIVE))
            lines = [f"{prompt}: {len(said.text)}" for prompt, said in zip(FIVE, heard, strict=True)]
            await agent.post(client, " ".join(lines))

    outcome = run(tmp_path / "c.yaml", sorts)
    assert [cause.kind for cause in outcome.causes] == ["input_changed"]
    assert any("let the agent put results in the order of its questions" in note for note in outcome.verdict.notes)


def test_an_agent_that_asks_for_more_is_red_and_does_not_hang(server: ModelServer, tmp_path: Path) -> None:
    agent = Agent(server.url)
    record(tmp_path / "c.yaml", agent.tasks)
    agent.prompts = [FIVE[0], *FIVE]
    outcome = run(tmp_path / "c.yaml", agent.tasks)
    assert outcome.causes


def test_who_gives_up_the_slower_stream_stays_green(server: ModelServer, tmp_path: Path) -> None:
    """All that it had read had come before the faster one ended."""

    def script(request: Request) -> Reply:
        delay = 1.0 if last_text(request) == "slow" else 0.1
        return answer(request, "one two three", delay=delay)

    server.script(script)
    asks = Agent(server.url, streams=True)

    async def agent() -> list[str]:
        async with httpx2.AsyncClient(verify=False) as client:

            async def one(prompt: str) -> str:
                async with client.stream("POST", asks.url, json=asks.body(prompt)) as response:
                    return "".join([line async for line in response.aiter_lines()])

            racers = [asyncio.create_task(one(prompt)) for prompt in ("slow", "fast")]
            done, others = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            return [task.result() for task in done]

    recorded = record(tmp_path / "c.yaml", agent).value
    for _ in range(5):
        assert replay(tmp_path / "c.yaml", agent).value == recorded


def test_who_acts_on_a_stream_while_it_is_open_does_not_wait_for_itself(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @pytest_spanchain.tool
    async def look_up(order: str) -> str:
        await asyncio.sleep(0.05)
        return order

    asks = Agent(server.url, streams=True)

    async def talk() -> None:
        async with (
            httpx2.AsyncClient(verify=False) as client,
            client.stream("POST", asks.url, json=asks.body("hello")) as response,
        ):
            async for line in response.aiter_lines():
                if line.endswith("[DONE]"):
                    await look_up("1")

    async def agent() -> None:
        await asyncio.gather(talk(), look_up("2"))

    record(tmp_path / "c.yaml", agent)
    monkeypatch.setattr(_ends, "QUIET_SECONDS", 60.0)
    replay(tmp_path / "c.yaml", agent)


def test_calls_that_nobody_waits_for_end_before_the_run(tmp_path: Path) -> None:
    @pytest_spanchain.tool
    def note(text: str) -> str:
        time.sleep(0.03 if text == "log" else 0.005)
        return text

    @pytest_spanchain.tool
    def final() -> str:
        time.sleep(0.15)
        return "done"

    def agent() -> str:
        threads = [threading.Thread(target=note, args=(text,)) for text in ("log", "work")]
        for thread in threads:
            thread.start()
        said = final()
        started.extend(threads)
        return said

    started: list[threading.Thread] = []
    record(tmp_path / "c.yaml", agent)
    for _ in range(10):
        replay(tmp_path / "c.yaml", agent)
    for thread in started:
        thread.join()


def test_a_coroutine_that_is_driven_by_hand(tmp_path: Path) -> None:
    @pytest_spanchain.tool
    async def look_up(order: str) -> str:
        time.sleep(_STEP * LAST_FIRST.index(order))
        return order

    def one(order: str) -> str:
        with pytest.raises(StopIteration) as stop:
            look_up(order).send(None)
        return str(stop.value.value)

    def agent() -> list[str]:
        with ThreadPoolExecutor(5) as pool:
            return list(pool.map(one, FIVE))

    assert record(tmp_path / "c.yaml", agent).value == replay(tmp_path / "c.yaml", agent).value == FIVE


def test_the_collector_may_end_a_call_in_the_midst_of_it(tmp_path: Path) -> None:
    @pytest_spanchain.tool
    def pages(order: str) -> Iterator[str]:
        yield f"{order} 1"
        yield f"{order} 2"

    @pytest_spanchain.tool
    def look_up(order: str) -> str:
        return order

    class Node:
        pass

    def one(order: str) -> str:
        node: Any = Node()
        node.itself, node.pages = node, pages(order)
        next(node.pages)
        del node
        return look_up(order)

    def agent() -> list[str]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(one, [str(n) for n in range(12)]))

    record(tmp_path / "c.yaml", agent)
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        outcome = run(tmp_path / "c.yaml", agent)
    finally:
        gc.set_threshold(*before)
    assert outcome.value == [str(n) for n in range(12)]


def test_a_call_given_up_while_it_waits(server: ModelServer, tmp_path: Path) -> None:
    """Somebody who loses patience in replay is red, and takes nobody along."""
    agent = Agent(server.url)
    record(tmp_path / "c.yaml", agent.tasks)

    async def impatient() -> Any:
        async with httpx2.AsyncClient(verify=False) as client:
            first = asyncio.create_task(agent.post(client, FIVE[0]))
            await asyncio.sleep(0.02)
            first.cancel()
            rest = [await done for done in asyncio.as_completed([agent.post(client, prompt) for prompt in FIVE[1:]])]
            return [json.loads(response.request.content)["messages"][0]["content"] for response in rest]

    outcome = run(tmp_path / "c.yaml", impatient)
    assert outcome.value == LAST_FIRST[:-1]
    assert outcome.causes


def test_a_tool_in_the_thread_of_a_loop_does_not_stop_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(_ends, "QUIET_SECONDS", 60.0)
    outcome = run(tmp_path / "c.yaml", agent)
    assert sorted(outcome.value) == ["a", "b"]
    assert outcome.failure is None


def call(number: int, parent: int, name: str, *, ends: int, beside: int | None = None) -> Span:
    """A recorded call that began at ``number`` milliseconds."""
    attributes = {} if beside is None else {CONCURRENT: beside}
    made = span(number, parent, name, attributes=attributes, exchange=Exchange("tool", {}, {"result": None}))
    return replace(made, duration_ns=EPOCH_NS + ends * 1_000_000 - made.start_ns)


class Waiting:
    """Who waits, and in which order they were let go."""

    def __init__(self, *spans: Span) -> None:
        self.ends = _ends.Ends(SpanTree(spans))
        self.rung: list[str] = []
        self.begun: dict[str, _ends.End | None] = {}

    def begin(self, *calls: Span) -> None:
        for one in calls:
            self.begun[one.name] = self.ends.begin(one)

    def waits(self, one: Span) -> bool:
        end = self.begun[one.name]
        return end is not None and end.wait(lambda: self.rung.append(one.name))


def test_who_waits_for_whom() -> None:
    a1, a2 = call(3, 2, "a1", ends=10), call(11, 2, "a2", ends=40)
    b1, b2 = call(6, 5, "b1", ends=30, beside=1), call(8, 5, "b2", ends=20, beside=1)
    below, alone = call(7, 6, "below b1", ends=9, beside=1), call(41, 1, "alone", ends=50)
    agents = [span(number, 1, f"agent {number}", attributes={CONCURRENT: 1}) for number in (2, 5)]
    waiting = Waiting(span(1, None, "root"), agents[0], a1, a2, agents[1], b1, below, b2, alone)
    waiting.begin(a1, b1, below, alone)
    assert [waiting.waits(one) for one in (alone, below, a1)] == [True, False, True]
    waiting.begin(b2)  # a1 had not ended before it began
    assert waiting.rung == ["a1"]
    assert [waiting.waits(one) for one in (b1, b2)] == [True, True]
    waiting.ends.over(a1)
    assert waiting.rung == ["a1"]
    waiting.begin(a2)  # nor had b2
    assert waiting.rung == ["a1", "b2"]
    assert waiting.waits(a2)
    waiting.ends.over(b2)
    assert waiting.rung == ["a1", "b2", "b1"]  # it waited in both crowds, and a2 still does
    waiting.ends.over(b1)
    assert waiting.rung == ["a1", "b2", "b1", "a2"]
    assert not waiting.waits(a2)
    waiting.ends.over(a2)  # what is in no crowd waits for those in flight
    assert waiting.rung == ["a1", "b2", "b1", "a2", "alone"]
    assert not waiting.ends.out_of_order


def test_a_call_that_was_lent_to_another_request_waits_for_nobody() -> None:
    first, second = call(2, 1, "first", ends=9, beside=1), call(3, 1, "second", ends=5, beside=1)
    waiting = Waiting(span(1, None, "root"), first, second)
    waiting.begin(first)
    assert waiting.waits(first)
    waiting.begin(first)
    assert waiting.begun["first"] is None
    waiting.begin(second)
    waiting.ends.over(second)
    assert waiting.rung == ["first"]


def test_what_is_over_at_once_is_waited_for_by_nobody() -> None:
    """A tool that runs for real, in replay too."""
    first, second = call(2, 1, "first", ends=5, beside=1), call(3, 1, "second", ends=9, beside=1)
    waiting = Waiting(span(1, None, "root"), first, second)
    waiting.begin(second)
    waiting.ends.over(first)
    assert not waiting.waits(second)


def test_a_call_that_never_comes_stalls_once_and_the_others_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ends, "QUIET_SECONDS", 0.02)
    calls = [call(number, 1, f"call {number}", ends=20 - number, beside=1) for number in (2, 3, 4, 5)]
    waiting = Waiting(span(1, None, "root"), *calls)
    waiting.begin(*calls[:3])  # and never the last, which had ended first
    assert all(map(waiting.waits, calls[:3]))
    until(lambda: bool(waiting.rung))
    assert waiting.rung == ["call 4"]
    for one in (calls[2], calls[1]):
        waiting.ends.over(one)
    assert waiting.rung == ["call 4", "call 3", "call 2"]
    assert waiting.ends.out_of_order


def test_a_call_that_has_begun_is_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over when the agent gives up, or reads on; but not for ever, and not where the process is busy."""
    monkeypatch.setattr(_ends, "QUIET_SECONDS", 0.1)
    first, second = call(2, 1, "first", ends=5, beside=1), call(3, 1, "second", ends=9, beside=1)
    waiting = Waiting(span(1, None, "root"), first, second)
    waiting.begin(first, second)
    began = time.monotonic()
    assert waiting.waits(second)
    until(lambda: bool(waiting.rung))
    assert time.monotonic() - began >= 0.1 * _ends._MOST_QUIET
    assert waiting.rung == ["second"]


def test_nobody_waits_when_the_run_ends() -> None:
    first, second = call(2, 1, "first", ends=5, beside=1), call(3, 1, "second", ends=9, beside=1)
    waiting = Waiting(span(1, None, "root"), first, second)
    waiting.begin(first, second)
    assert waiting.waits(second)
    waiting.ends.release()
    assert waiting.rung == ["second"]
    waiting.ends.over(first)
    until(lambda: not any(thread.name == "spanchain-ends" for thread in threading.enumerate()))


def test_threads_are_left_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ends, "_MOST_AHEAD", 1.0)
    monkeypatch.setattr(_ends, "_MOST_REST", 1.0)
    first, second = call(2, 1, "first", ends=5, beside=1), call(3, 1, "second", ends=405, beside=1)
    waiting = Waiting(span(1, None, "root"), first, second)
    waiting.begin(first, second)
    end = waiting.begun["second"]
    assert end is not None
    assert end.ahead() == pytest.approx(0.4)
    assert 0 < end.rest(in_a_loop=False) <= 0.4
    assert end.rest(in_a_loop=True) == 0
    thread = threading.Thread(target=waiting.ends.over, args=(first,))
    thread.start()
    thread.join()
    assert 0 < end.rest(in_a_loop=True) <= 0.4
    while end.rest(in_a_loop=False) or end.rest(in_a_loop=True):  # all of it together is bounded
        waiting.ends.over(first)
        assert waiting.ends._rested <= _ends._MOST_REST
