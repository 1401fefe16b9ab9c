"""The right answer to the right caller, whatever the schedule; several runs in one process; many agents in one run."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread
import httpx2
import pytest
from opentelemetry.sdk.trace import TracerProvider

import pytest_spanchain
from model_replies import answer, last_text
from pytest_spanchain import OwnershipError, _store, boundaries, use_cassette
from recording import record, replay, run
from servers import CountingListener, Json, ModelServer, Reply, Request

SIX = [f"prompt {n}" for n in range(6)]


@contextmanager
def client_for(server_url: str) -> Iterator[Callable[[str], str]]:
    """A call that costs little: the SDKs make up most of the time of six hundred replays."""
    with httpx2.Client(verify=False) as client:

        def ask(prompt: str) -> str:
            body = {"model": "gpt-test", "messages": [{"role": "user", "content": prompt}]}
            said = client.post(f"{server_url}/v1/chat/completions", json=body).json()
            return str(said["choices"][0]["message"]["content"])

        yield ask


async def aask(client: httpx2.AsyncClient, url: str, prompt: str) -> str:
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": prompt}]}
    response = await client.post(f"{url}/v1/chat/completions", json=body)
    return str(response.json()["choices"][0]["message"]["content"])


class Fans:
    """Six calls at the same time, each begun after a pause of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pauses = [0.0] * 6

    def shake(self, dice: random.Random) -> None:
        self.pauses = [dice.choice([0.0, 0.0, dice.random() * 0.004]) for _ in SIX]

    async def gather(self, prompts: list[str]) -> list[str]:
        async with httpx2.AsyncClient(verify=False) as client:

            async def one(prompt: str, pause: float) -> str:
                await asyncio.sleep(pause)
                return await aask(client, self.url, prompt)

            return list(await asyncio.gather(*map(one, prompts, self.pauses)))

    def threads(self, prompts: list[str]) -> list[str]:
        answers = [""] * len(prompts)
        with client_for(self.url) as ask:

            def one(index: int) -> None:
                time.sleep(self.pauses[index])
                answers[index] = ask(prompts[index])

            running = [threading.Thread(target=one, args=(index,)) for index in range(len(prompts))]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
        return answers

    def pool(self, prompts: list[str]) -> list[str]:
        with client_for(self.url) as ask, ThreadPoolExecutor(3) as pool:

            def one(prompt: str, pause: float) -> str:
                time.sleep(pause)
                return ask(prompt)

            return list(pool.map(one, prompts, self.pauses))

    def agent(self, way: str, prompts: list[str]) -> Callable[[], list[str]]:
        if way == "gather":
            return lambda: asyncio.run(self.gather(prompts))
        return lambda: getattr(self, way)(prompts)


WAYS = pytest.mark.parametrize("way", ["gather", "threads", "pool"])


@WAYS
def test_each_caller_gets_its_own_answer(way: str, server: ModelServer, tmp_path: Path) -> None:
    dice = random.Random(way)

    def late(request: Request) -> Reply:
        time.sleep(dice.random() * 0.02)
        return answer(request, f"you said {last_text(request)}")

    server.script(late)
    fans = Fans(server.url)
    agent = fans.agent(way, SIX)
    wanted = [f"you said {prompt}" for prompt in SIX]
    assert record(tmp_path / "c.yaml", agent).value == wanted
    server.close()
    with CountingListener(server.port) as listener:
        for _ in range(200):
            fans.shake(dice)
            assert replay(tmp_path / "c.yaml", agent).value == wanted
        assert listener.connections == 0


@WAYS
def test_equal_prompts_get_each_recorded_answer_once(way: str, server: ModelServer, tmp_path: Path) -> None:
    said = iter(range(100))

    def other_each_time(request: Request) -> Reply:
        time.sleep(0.1)  # a model takes its time: the first answer does not come before the last question is put
        return answer(request, f"answer {next(said)}")

    server.script(other_each_time)
    fans, dice = Fans(server.url), random.Random(7)
    agent = fans.agent(way, ["roll a die"] * 6)
    recorded = sorted(record(tmp_path / "c.yaml", agent).value)
    assert recorded == [f"answer {n}" for n in range(6)]
    for _ in range(20):
        fans.shake(dice)
        assert sorted(replay(tmp_path / "c.yaml", agent).value) == recorded


def test_workers_that_share_a_queue_stay_green(server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: answer(request, f"you said {last_text(request)}"))
    dice = random.Random(1)

    async def agent() -> dict[str, str]:
        prompts: asyncio.Queue[str] = asyncio.Queue()
        for prompt in SIX:
            prompts.put_nowait(prompt)
        answers: dict[str, str] = {}

        async def work() -> None:
            while not prompts.empty():
                prompt = prompts.get_nowait()
                await asyncio.sleep(dice.random() * 0.004)
                answers[prompt] = await aask(client, server.url, prompt)

        async with httpx2.AsyncClient(verify=False) as client:
            await asyncio.gather(work(), work(), work())
        return answers

    recorded = record(tmp_path / "c.yaml", agent).value
    for _ in range(25):
        assert replay(tmp_path / "c.yaml", agent).value == recorded


def test_answers_taken_as_they_are_ready_stay_green(server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: answer(request, f"you said {last_text(request)}"))
    dice = random.Random(2)

    async def agent() -> list[str]:
        async with httpx2.AsyncClient(verify=False) as client:

            async def one(prompt: str) -> str:
                await asyncio.sleep(dice.random() * 0.004)
                return await aask(client, server.url, prompt)

            return sorted([await done for done in asyncio.as_completed([one(prompt) for prompt in SIX])])

    recorded = record(tmp_path / "c.yaml", agent).value
    for _ in range(25):
        assert replay(tmp_path / "c.yaml", agent).value == recorded


def test_calls_one_after_the_other_are_not_taken_for_parallel(server: ModelServer, tmp_path: Path) -> None:
    """Each ``wait_for``, ``to_thread`` and ``asyncio.run`` is a strand of its own, but one waits for the other."""
    server.script(lambda request: answer(request, "ok"))

    async def one(prompt: str) -> str:
        async with httpx2.AsyncClient(verify=False) as client:
            return await asyncio.wait_for(aask(client, server.url, prompt), 5)

    async def in_thread(prompt: str) -> str:
        with client_for(server.url) as ask:
            return await asyncio.to_thread(ask, prompt)

    def agent() -> None:
        for prompt in order:
            asyncio.run(one(prompt))
            asyncio.run(in_thread(f"thread {prompt}"))

    order = ["first", "second"]
    recorded = record(tmp_path / "c.yaml", agent)
    assert not [span for span in recorded.verdict.live if "spanchain.concurrent" in span.attributes]
    order.reverse()
    with pytest.raises(pytest_spanchain.DeviationError, match="moved"):
        replay(tmp_path / "c.yaml", agent)


# --- several runs in one process ---------------------------------------------------------------------------------


def test_two_runs_at_once_in_two_threads(server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: answer(request, f"you said {last_text(request)}"))
    meet = threading.Barrier(2)
    failures: list[BaseException] = []

    def both(mode: str) -> list[list[str]]:
        heard: list[list[str]] = [[], []]

        def one(index: int) -> None:
            try:
                with use_cassette(tmp_path / f"{index}.yaml", mode=mode), client_for(server.url) as ask:
                    for turn in range(5):
                        meet.wait(5)
                        heard[index].append(ask(f"run {index} turn {turn}"))
                    with ThreadPoolExecutor(2) as pool:
                        heard[index] += pool.map(ask, [f"run {index} pool {n}" for n in range(4)])
                    heard[index] += asyncio.run(inner(index))
                    meet.wait(5)
            except BaseException as error:  # noqa: BLE001 - told to the test's own thread
                failures.append(error)
                meet.abort()

        async def inner(index: int) -> list[str]:
            async with httpx2.AsyncClient(verify=False) as client:
                calls = (aask(client, server.url, f"run {index} task {n}") for n in range(4))
                return list(await asyncio.gather(*calls))

        threads = [threading.Thread(target=one, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return heard

    recorded = both("once")
    server.close()
    assert both("none") == recorded
    for index in (0, 1):
        other = f"run {1 - index}"
        assert other not in (tmp_path / f"{index}.yaml").read_text()


def test_nested_runs(server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: answer(request, f"you said {last_text(request)}"))

    def both(mode: str) -> list[str]:
        with client_for(server.url) as ask, use_cassette(tmp_path / "outer.yaml", mode=mode):
            heard = [ask("before")]
            with use_cassette(tmp_path / "inner.yaml", mode=mode):
                heard.append(ask("within"))
            return [*heard, ask("after")]

    recorded = both("once")
    server.close()
    assert both("none") == recorded
    assert "within" not in (tmp_path / "outer.yaml").read_text()
    assert "before" not in (tmp_path / "inner.yaml").read_text()


def test_call_that_could_belong_to_two_runs(server: ModelServer, tmp_path: Path) -> None:
    """A thread from before the runs has no run of its own; with two active, nobody guesses and nothing goes out."""
    server.script(lambda request: answer(request, "hi"))
    raised: list[BaseException] = []
    go, done = threading.Event(), threading.Event()

    def stray() -> None:
        go.wait(5)
        with client_for(server.url) as ask:
            try:
                ask("whose am I?")
            except BaseException as error:  # noqa: BLE001 - looked at by the test
                raised.append(error)
        done.set()

    thread = threading.Thread(target=stray)
    thread.start()
    for name in ("a", "b"):
        with use_cassette(tmp_path / f"{name}.yaml", mode="once"), client_for(server.url) as ask:
            ask("hello")
    count = len(server.requests)
    with client_for(server.url) as ask, use_cassette(tmp_path / "a.yaml"):
        ask("hello")
        with use_cassette(tmp_path / "b.yaml"):
            ask("hello")
            go.set()
            assert done.wait(5)
    thread.join(5)
    assert isinstance(raised[0], OwnershipError)
    assert len(server.requests) == count


# --- many --------------------------------------------------------------------------------------------------------


@pytest_spanchain.tool
async def look(order: int) -> int:
    await asyncio.sleep(0)
    return order * 2


@pytest_spanchain.tool
def glance(number: int) -> int:
    return number


@pytest_spanchain.tool
def peek(number: int) -> int:
    return number


async def in_worker(number: int) -> int:
    return await anyio.to_thread.run_sync(peek, number)


async def in_pool(number: int) -> int:
    return await asyncio.to_thread(peek, number)


async def in_own_context(number: int) -> int:
    """In the very context of the caller, which the event loop has entered."""
    context = contextvars.copy_context()

    async def inner() -> int:
        return peek(number)

    if sys.version_info < (3, 11):
        return await asyncio.create_task(inner())

    async def outer() -> int:
        return await asyncio.create_task(inner(), context=context)

    return await asyncio.create_task(outer(), context=context)


@pytest.mark.parametrize("hand_over", [in_worker, in_pool, in_own_context])
def test_jobs_of_one_worker_keep_their_places_among_other_steps(
    hand_over: Callable[[int], Awaitable[int]], tmp_path: Path
) -> None:
    """A thread that serves many is not one strand: what was done between two of its jobs stays between them."""

    async def agent() -> None:
        for number in range(3):
            await hand_over(number)
            glance(number)

    async def reordered() -> None:
        for number in range(3):
            await hand_over(number)
        for number in range(3):
            glance(number)

    names = ["execute_tool peek", "execute_tool glance"] * 3
    assert [span.name for span in record(tmp_path / "c.yaml", agent).verdict.live][1:] == names
    replay(tmp_path / "c.yaml", agent)
    assert {cause.kind.value for cause in run(tmp_path / "c.yaml", reordered).causes} == {"span_moved"}


@pytest.mark.parametrize("changed", [[[2, 3], [0, 1]], [[0, 2], [1, 3]]])
def test_what_is_gathered_first_stays_first(changed: list[list[int]], tmp_path: Path) -> None:
    """Order means nothing within a crowd, and all between two."""

    async def agent(crowds: list[list[int]]) -> None:
        for crowd in crowds:
            await asyncio.gather(*(in_pool(number) for number in crowd))

    record(tmp_path / "c.yaml", lambda: asyncio.run(agent([[0, 1], [2, 3]])))
    replay(tmp_path / "c.yaml", lambda: asyncio.run(agent([[1, 0], [3, 2]])))
    outcome = run(tmp_path / "c.yaml", lambda: asyncio.run(agent(changed)))
    assert {cause.kind.value for cause in outcome.causes} == {"span_moved"}


def test_jobs_of_many_workers_at_once_have_no_order(tmp_path: Path) -> None:
    async def agent(order: list[int]) -> None:
        await asyncio.gather(*(in_worker(number) for number in order))

    record(tmp_path / "c.yaml", lambda: asyncio.run(agent(list(range(8)))))
    for seed in range(5):
        order = random.Random(seed).sample(range(8), 8)
        assert replay(tmp_path / "c.yaml", lambda: asyncio.run(agent(order))).verdict.deviations == ()  # noqa: B023


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_keep_their_places(tmp_path: Path) -> None:
    async def early(number: int) -> None:
        peek(number)
        await asyncio.sleep(0)
        glance(number)

    async def agent() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        for number in range(2):
            await asyncio.create_task(early(number))
            glance(number + 10)

    recorded = record(tmp_path / "c.yaml", agent).verdict.live
    assert [span.name.split()[1] for span in list(recorded)[1:]] == ["peek", "glance", "glance"] * 2
    replay(tmp_path / "c.yaml", agent)


def test_thousand_agents_at_once(tmp_path: Path) -> None:
    tracer, dice = TracerProvider(shutdown_on_exit=False).get_tracer("crowd"), random.Random(3)

    async def one(number: int) -> int:
        with tracer.start_as_current_span("invoke_agent", attributes={"agent": number}):
            total = 0
            for step in range(3):
                with tracer.start_as_current_span("step"):
                    await asyncio.sleep(dice.choice((0, 0.001)))  # differs from run to run
                    with tracer.start_as_current_span("think"):
                        await asyncio.sleep(0)
                    total += await look(number * 10 + step)
            return total

    async def crowd() -> list[int]:
        return list(await asyncio.gather(*(one(number) for number in range(1000))))

    wanted = [sum((number * 10 + step) * 2 for step in range(3)) for number in range(1000)]
    recorded = record(tmp_path / "c.yaml", crowd)
    assert recorded.value == wanted
    tree = recorded.verdict.live
    assert len(tree) == 1 + 10_000
    (root,) = tree.roots
    agents = tree.children(root)
    assert [span.attributes["agent"] for span in agents] == list(range(1000))
    for number, agent in enumerate(agents):
        for step, span in enumerate(tree.children(agent)):
            think, tool = tree.children(span)
            assert (span.name, think.name, tool.name) == ("step", "think", "execute_tool look")
            assert tool.exchange is not None
            assert tool.exchange.request == {"arguments": {"order": number * 10 + step}}
    golden = _store.load(tmp_path / "c.yaml", nodeid="c.yaml").tree  # verifies the chain
    assert [(span.span_id, span.parent_span_id) for span in golden] == [
        (span.span_id, span.parent_span_id) for span in tree
    ]
    assert len(golden.by_id) == 1 + 10_000, "every id once"
    replayed = replay(tmp_path / "c.yaml", crowd)
    assert replayed.value == wanted
    assert replayed.verdict.deviations == ()
    assert replayed.verdict.golden is not None
    assert len(replayed.verdict.golden) == 1 + 10_000


def test_unowned_json_is_only_an_answer(server: ModelServer) -> None:
    """Without a run, nothing is in the way."""
    server.script(lambda request: Json({"free": True}))
    with httpx2.Client(verify=False) as client:
        assert client.get(server.url).json() == {"free": True}


def test_threads_are_patched_once() -> None:
    """Whoever puts ``sys.meta_path`` back takes our import hook away with it; the next run brings only that back."""
    boundaries.install()
    before = threading.Thread.start, ThreadPoolExecutor.submit, asyncio.BaseEventLoop.create_task
    mine = [finder for finder in sys.meta_path if type(finder).__module__ == boundaries.__name__]
    assert len(mine) == 1
    sys.meta_path.remove(mine[0])
    boundaries.install()
    assert before == (threading.Thread.start, ThreadPoolExecutor.submit, asyncio.BaseEventLoop.create_task)
    assert [type(finder) for finder in sys.meta_path].count(type(mine[0])) == 1
