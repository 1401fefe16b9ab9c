"""Processes that multiprocessing starts: what they call is told while recording, and refused in replay."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_replies import answer, last_text
from pytest_spanchain import DeviationError, MissError, tool
from recording import record, run
from servers import ModelServer

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


@pytest.mark.parametrize("method", METHODS)
def test_what_a_worker_asks_is_told_and_in_replay_refused(method: str, model: ModelServer, cassette: Path) -> None:
    def agent(work: Callable[..., Any]) -> list[Any]:
        return [ask(model.url, "first"), *in_pool(method, work, (model.url, "a"), (model.url, "b"))]

    recorded = record(cassette, lambda: agent(ask))
    assert recorded.value == ["You said: first", "You said: a", "You said: b"]
    (note,) = recorded.verdict.notes
    told = f"POST {model.url}/v1/chat/completions was called"
    assert note.startswith(
        f"{told} 2 times at tests/test_workers.py:{ask.__code__.co_firstlineno + 2} in ask {ELSEWHERE}"
    )
    assert "replay will refuse it" in note

    again = run(cassette, lambda: agent(ask))
    assert isinstance(again.raised, MissError)
    assert f"is called {ELSEWHERE}" in str(again.raised)
    quiet = run(cassette, lambda: agent(swallows))
    assert quiet.value == ["You said: first", "nothing", "nothing"]
    for outcome in (again, quiet):
        assert isinstance(outcome.failure, DeviationError)
        assert any(error.startswith(told) and ELSEWHERE in error for error in outcome.verdict.errors)
    assert len(model.requests) == 3


@pytest.mark.parametrize("method", METHODS)
def test_whatever_way_a_worker_takes_out(method: str, model: ModelServer, cassette: Path, tmp_path: Path) -> None:
    paid = tmp_path / "paid"

    def agent() -> list[Any]:
        return [
            *in_pool(method, knocks, (model.port,)),
            *in_pool(method, runs_a_command, ("hello",)),
            *in_pool(method, swallows_refund, (str(paid),)),
        ]

    recorded = record(cassette, agent, commands=["echo *"])
    assert recorded.value == [None, "hello\n", "paid"]
    notes = recorded.verdict.notes
    assert len(notes) == 3
    assert {note.partition(" was ")[0] for note in notes} == {"echo", "execute_tool refund", f"127.0.0.1:{model.port}"}
    connections = model.connections
    paid.unlink()

    again = run(cassette, agent, commands=["echo *"])
    assert again.value == [None, "nothing", "nothing"]
    assert not paid.exists()
    assert model.connections == connections
    assert [attempt.target for attempt in again.verdict.attempts] == [f"127.0.0.1:{model.port}"]
    assert {error.partition(" was ")[0] for error in again.verdict.errors} == {"echo", "execute_tool refund"}


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

    assert len(record(cassette, agent).verdict.notes) == 1
    again = run(cassette, agent)
    assert (again.value, len(again.verdict.errors)) == (["nothing"], 1)


def test_a_worker_that_outlives_a_replay_stays_refused(model: ModelServer, cassette: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:

        def agent() -> Any:
            return pool.submit(swallows, model.url, "a").result(60)

        record(cassette, lambda: ask(model.url, "other"))
        assert run(cassette, agent).value == "nothing"
        assert agent() == "nothing"
    assert len(model.requests) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_that_is_older_than_the_test(method: str, model: ModelServer, cassette: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:

        def agent() -> Any:
            return pool.submit(swallows, model.url, "a").result(60)

        for _ in range(2):
            assert agent() == "You said: a"
            assert len(record(cassette, agent).verdict.notes) == 1
            again = run(cassette, agent)
            assert (again.value, len(again.verdict.errors)) == ("nothing", 1)
    assert len(model.requests) == 4


def test_a_worker_of_a_recorded_tool_is_part_of_it(model: ModelServer, cassette: Path) -> None:
    @tool
    def search() -> list[Any]:
        return in_pool("spawn", ask, (model.url, "a"))

    assert record(cassette, search).verdict.notes == ()
    again = run(cassette, search)
    assert (again.value, again.failure) == (["You said: a"], None)
    assert len(model.requests) == 1


def test_a_worker_of_a_tool_that_runs_in_replay_is_refused(model: ModelServer, cassette: Path) -> None:
    @tool
    def search() -> list[Any]:
        return in_pool("spawn", swallows, (model.url, "a"))

    record(cassette, search)
    again = run(cassette, search, run=["search"])
    assert isinstance(again.failure, DeviationError)
    assert len(model.requests) == 1


def test_a_worker_that_calls_nothing_is_nobodys_business(cassette: Path, model: ModelServer) -> None:
    def agent() -> list[Any]:
        return [ask(model.url, "a"), *in_pool("spawn", len, ("abc",))]

    assert record(cassette, agent).verdict.notes == ()
    again = run(cassette, agent)
    assert (again.value, again.failure) == (["You said: a", 3], None)
