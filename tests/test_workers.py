"""Processes that multiprocessing starts: what they call fails a recording, and is refused in replay."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_replies import answer, last_text
from pytest_spanchain import DeviationError, MissError, RecordingError, tool
from pytest_spanchain.boundaries.clients import multiprocessing as boundary
from pytest_spanchain.boundaries.clients.multiprocessing import _badge
from recording import record, run
from servers import ModelServer, until

METHODS = multiprocessing.get_all_start_methods()
ELSEWHERE = "in a process that multiprocessing started"


@pytest.fixture(autouse=True)
def _no_warning_of_forks() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork in a process with threads
        yield


@pytest.fixture
def cassette(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer(lambda request: answer(request, f"You said: {last_text(request)}")) as server:
        yield server


def ask(url: str, text: str) -> str:
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": text}]}
    answered = httpx.post(f"{url}/v1/chat/completions?key=k-1", json=body)
    return str(answered.json()["choices"][0]["message"]["content"])


def swallows(url: str, text: str) -> str:
    try:
        return ask(url, text)
    except Exception:  # noqa: BLE001 - as agents do
        return "nothing"


def knocks(port: int) -> None:
    with suppress(Exception), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def runs_a_command(word: str) -> str:
    with suppress(Exception):
        return subprocess.run(["echo", word], stdout=-1, text=True, check=True).stdout
    return "nothing"


@tool
def refund(path: str) -> str:
    Path(path).write_text("paid")
    return "paid"


def swallows_refund(path: str) -> str:
    with suppress(Exception):
        return refund(path)
    return "nothing"


def in_pool(method: str, work: Callable[..., Any], *tasks: tuple[Any, ...]) -> list[Any]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        return [future.result(60) for future in [pool.submit(work, *task) for task in tasks]]


def words(errors: tuple[str, ...]) -> list[str]:
    return [error.partition(" was ")[0] for error in errors]


@pytest.mark.parametrize("method", METHODS)
def test_what_a_worker_asks_fails_the_run_and_in_replay_is_refused(
    method: str, model: ModelServer, cassette: Path
) -> None:
    def agent(work: Callable[..., Any]) -> list[Any]:
        return [ask(model.url, "first"), *in_pool(method, work, (model.url, "a"), (model.url, "b"))]

    recorded = run(cassette, lambda: agent(ask), mode="once")
    assert recorded.value == ["You said: first", "You said: a", "You said: b"]
    line = ask.__code__.co_firstlineno + 2
    told = f"POST {model.url} was called 2 times at tests/test_workers.py:{line} in ask {ELSEWHERE}, which can neither"
    assert isinstance(recorded.failure, RecordingError)
    assert str(recorded.failure).startswith(f"spanchain: error: {told}")
    assert not cassette.exists()

    record(cassette, lambda: ask(model.url, "first"))
    again = run(cassette, lambda: agent(ask))
    assert isinstance(again.raised, MissError)
    assert f"is called {ELSEWHERE}" in str(again.raised)
    quiet = run(cassette, lambda: agent(swallows))
    assert quiet.value == ["You said: first", "nothing", "nothing"]
    for outcome in (again, quiet):
        assert isinstance(outcome.failure, DeviationError)
        assert words(outcome.verdict.errors) == [f"POST {model.url}"]
    assert len(model.requests) == 4


@pytest.mark.parametrize("method", METHODS)
def test_whatever_way_a_worker_takes_out(method: str, model: ModelServer, cassette: Path, tmp_path: Path) -> None:
    paid = tmp_path / "paid"

    def agent() -> list[Any]:
        return [
            *in_pool(method, knocks, (model.port,)),
            *in_pool(method, runs_a_command, ("hello",)),
            *in_pool(method, swallows_refund, (str(paid),)),
        ]

    recorded = run(cassette, agent, mode="once", commands=["echo *"])
    assert recorded.value == [None, "hello\n", "paid"]
    assert sorted(words(recorded.verdict.errors)) == ["echo", "execute_tool refund"]
    assert words(recorded.verdict.notes) == [f"127.0.0.1:{model.port}"]
    until(lambda: model.connections == 1)
    paid.unlink()

    record(cassette, lambda: None)
    again = run(cassette, agent, commands=["echo *"])
    assert again.value == [None, "nothing", "nothing"]
    assert not paid.exists()
    assert model.connections == 1
    assert [attempt.target for attempt in again.verdict.attempts] == [f"127.0.0.1:{model.port}"]
    assert sorted(words(again.verdict.errors)) == ["echo", "execute_tool refund"]


def starts_another(method: str, url: str) -> None:
    process = multiprocessing.get_context(method).Process(target=swallows, args=(url, "from below"))  # type: ignore[attr-defined]
    process.start()
    process.join(60)


def pools_another(method: str, url: str) -> list[Any]:
    return in_pool(method, swallows, (url, "from below"))


# A copy of a process cannot wait for the fork server of the original: so the standard library's own code fails.
PAIRS = [pair for pair in itertools.product(METHODS, METHODS) if pair != ("fork", "forkserver")]


@pytest.mark.parametrize("work", [starts_another, pools_another])
@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_what_a_worker_starts_is_a_worker(
    outer: str, inner: str, work: Callable[..., Any], model: ModelServer, cassette: Path
) -> None:
    context: Any = multiprocessing.get_context(outer)

    def agent() -> int | None:
        process = context.Process(target=work, args=(inner, model.url))
        process.start()
        process.join(60)
        return process.exitcode  # type: ignore[no-any-return]

    record(cassette, lambda: None)
    again = run(cassette, agent)
    assert (again.value, words(again.verdict.errors)) == (0, [f"POST {model.url}"])
    assert model.requests == []


class Forgetful(SpawnProcess):
    """Takes along only what it knows."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_spanchain")}

    def run(self) -> None:
        swallows(self.url, "a")


def test_a_class_that_takes_along_what_it_knows(model: ModelServer, cassette: Path) -> None:
    def agent() -> None:
        process = Forgetful(model.url)
        process.start()
        process.join(60)

    record(cassette, lambda: None)
    assert words(run(cassette, agent).verdict.errors) == [f"POST {model.url}"]
    assert model.requests == []


@pytest.mark.parametrize("method", METHODS)
def test_what_is_allowed_goes_out(method: str, model: ModelServer, cassette: Path) -> None:
    def agent() -> list[Any]:
        return in_pool(method, ask, (model.url, "a"))

    assert record(cassette, agent, allow_hosts=["localhost"]).verdict.notes == ()
    again = run(cassette, agent, allow_hosts=["localhost"])
    assert (again.value, again.failure) == (["You said: a"], None)
    assert len(model.requests) == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_is_killed_has_told(method: str, model: ModelServer, cassette: Path) -> None:
    def agent() -> list[Any]:
        with multiprocessing.get_context(method).Pool(1) as pool:  # which kills its workers as it ends
            return [pool.apply(swallows, (model.url, "a"))]

    record(cassette, lambda: None)
    again = run(cassette, agent)
    assert (again.value, len(again.verdict.errors)) == (["nothing"], 1)
    assert model.requests == []


def executor(method: str) -> Any:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method))


def pool(method: str) -> Any:
    return multiprocessing.get_context(method).Pool(1, maxtasksperchild=3)


def asked(workers: Any, url: str) -> list[Any]:
    """By each way into a pool."""
    if isinstance(workers, ProcessPoolExecutor):
        return [workers.submit(swallows, url, "a").result(60), *workers.map(swallows, [url], ["a"], timeout=60)]
    ways = [
        workers.apply_async(swallows, (url, "a")).get(60),
        *workers.starmap_async(swallows, [(url, "a")]).get(60),
        *workers.map_async(swallows_one, [url]).get(60),
        *(workers.imap(swallows_one, [url]).next(60), workers.imap_unordered(swallows_one, [url]).next(60)),
    ]
    return [*ways]


def swallows_one(url: str) -> str:
    return swallows(url, "a")


@pytest.mark.parametrize("made", [executor, pool])
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_that_is_older_than_the_test(
    method: str, made: Callable[[str], Any], model: ModelServer, cassette: Path
) -> None:
    with made(method) as workers:
        ways = len(asked(workers, model.url))
        record(cassette, lambda: None)
        for _ in range(2):
            again = run(cassette, lambda: asked(workers, model.url))
            assert (set(again.value), len(again.verdict.errors)) == ({"nothing"}, 1)
            assert f"was called {ways} times" in again.verdict.errors[0]
            assert len(model.requests) % ways == 0
            assert asked(workers, model.url) == ["You said: a"] * ways, "nobody's business between runs"
        other = run(cassette.with_name("other.yaml"), lambda: asked(workers, model.url), mode="once")
        assert (set(other.value), len(other.verdict.errors)) == ({"You said: a"}, 1)
    assert len(model.requests) == 4 * ways


def test_a_pool_of_threads_is_none_of_processes(model: ModelServer, cassette: Path) -> None:
    def agent() -> list[Any]:
        with ThreadPool(2) as workers:
            return [*workers.map(swallows_one, [model.url, model.url])]

    assert record(cassette, agent).value == ["You said: a"] * 2
    again = run(cassette, agent)
    assert (again.value, again.failure) == (["You said: a"] * 2, None)
    assert len(model.requests) == 2


def test_a_worker_of_a_recorded_tool_is_part_of_it(model: ModelServer, cassette: Path) -> None:
    @tool
    def search(workers: Any) -> list[Any]:
        return [workers.submit(ask, model.url, "a").result(60), *in_pool("spawn", ask, (model.url, "b"))]

    def agent() -> list[Any]:
        with executor("spawn") as workers:  # made by the agent, used by its tool
            workers.submit(len, "x").result(60)
            return search(workers)

    recorded = record(cassette, agent, ignore=["arguments.workers"])
    assert recorded.verdict.notes == ()
    again = run(cassette, agent, ignore=["arguments.workers"])
    assert (again.value, again.failure) == (["You said: a", "You said: b"], None)
    assert len(model.requests) == 2


def test_a_worker_of_a_tool_that_runs_in_replay_is_refused(model: ModelServer, cassette: Path) -> None:
    @tool
    def search() -> list[Any]:
        return in_pool("spawn", swallows, (model.url, "a"))

    record(cassette, search)
    again = run(cassette, search, run=["search"])
    assert isinstance(again.failure, DeviationError)
    assert len(model.requests) == 1


@pytest.mark.parametrize("method", METHODS)
def test_tools_that_a_worker_does_not_have_do_not_hinder_it(method: str, model: ModelServer, cassette: Path) -> None:
    def local() -> str:
        return "here"

    def agent() -> list[Any]:
        return [local(), ask(model.url, "a"), *in_pool(method, len, ("abc",))]

    assert record(cassette, agent, tools=[local]).value == ["here", "You said: a", 3]
    again = run(cassette, agent, tools=[local])
    assert (again.value, again.failure) == (["here", "You said: a", 3], None)


def test_what_cannot_be_heard_fails_the_run(
    model: ModelServer, cassette: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_badge, "_HOME", str(tmp_path))

    def agent() -> None:
        in_pool("spawn", len, ("abc",))
        for folder in tmp_path.glob("spanchain-*"):
            folder.rmdir()

    outcome = run(cassette, agent, mode="once")
    assert ["cannot be read: FileNotFoundError" in error for error in outcome.verdict.errors] == [True]


def test_nothing_is_left_over(cassette: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_badge, "_HOME", str(tmp_path))
    record(cassette, lambda: in_pool("spawn", len, ("abc",)))
    assert list(tmp_path.glob("spanchain-*")) == []
    gc.collect()
    assert len(boundary._offices) == 0


def test_an_interpreter_ends_quietly(tmp_path: Path) -> None:
    script = tmp_path / "test_quiet.py"
    script.write_text(
        "import multiprocessing, pytest\n"
        "@pytest.mark.cassette\n"
        "def test_quiet():\n"
        "    process = multiprocessing.get_context('spawn').Process(target=len, args=('abc',))\n"
        "    process.start()\n    process.join(60)\n    assert process.exitcode == 0\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:asyncio", "--record-mode=once", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_joblib(model: ModelServer, cassette: Path) -> None:
    joblib = pytest.importorskip("joblib")

    def agent() -> list[Any]:
        return [*joblib.Parallel(n_jobs=2)(joblib.delayed(swallows)(model.url, text) for text in "ab")]

    record(cassette, lambda: None)
    for _ in range(2):  # its workers are kept
        again = run(cassette, agent)
        assert (again.value, words(again.verdict.errors)) == (["nothing", "nothing"], [f"POST {model.url}"])
        assert len(model.requests) % 2 == 0
        assert agent() == ["You said: a", "You said: b"]
    assert len(model.requests) == 4


@pytest.mark.parametrize("method", METHODS)
def test_multiprocess(method: str, model: ModelServer, cassette: Path) -> None:
    context = pytest.importorskip("multiprocess").get_context(method)

    def agent() -> list[Any]:
        with context.Pool(1) as workers:
            return [workers.apply(swallows, (model.url, "a"))]

    record(cassette, lambda: None)
    again = run(cassette, agent)
    assert (again.value, words(again.verdict.errors)) == (["nothing"], [f"POST {model.url}"])
    assert model.requests == []
