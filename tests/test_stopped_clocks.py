"""A test may stop every clock that Python asks; what waits in replay comes to an end all the same."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import time_machine
import trio

from pytest_spanchain.boundaries import _wait
from pytest_spanchain.errors import SpanchainError
from recording import record, run
from servers import Hang, ModelServer, Reply, Request

ENOUGH = 10.0


def as_freezegun_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, lambda: 1_000_000.0)
        monkeypatch.setattr(time, f"{name}_ns", lambda: 1_000_000 * 10**9)


@pytest.fixture(params=["freezegun", "time_machine"])
def stopped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clocks stand still, and waits are short."""
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.3)
    if request.param == "freezegun":
        as_freezegun_does(monkeypatch)
        yield
    else:
        with time_machine.travel(datetime(2026, 11, 21, tzinfo=timezone.utc), tick=False):
            yield


def ends(wait: Callable[[], object]) -> Any:
    """What a function returns that may wait for ever."""
    found: list[Any] = []

    def body() -> None:
        try:
            found.append(wait())
        except BaseException as error:  # noqa: BLE001 - told to who asks
            found.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(ENOUGH)
    assert not thread.is_alive(), "it waits for ever"
    return found[0]


@pytest.mark.usefixtures("stopped")
def test_a_thread() -> None:
    assert ends(lambda: _wait.until(lambda: False)) is False
    assert ends(lambda: _wait.until(lambda: True)) is True


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("loop", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_an_event_loop(loop: Callable[..., object]) -> None:
    gave_up: list[bool] = []

    async def held() -> str:
        await _wait.hold(lambda: gave_up.append(True))
        return "went on"

    assert ends(lambda: loop(held) if loop is trio.run else asyncio.run(held())) == "went on"
    assert gave_up == []


@pytest.mark.usefixtures("stopped")
def test_a_future_that_is_done_in_time_is_told_from_one_that_is_not() -> None:
    async def both() -> list[bool]:
        soon, never = (asyncio.get_running_loop().create_future() for _ in range(2))
        asyncio.get_running_loop().call_soon(soon.set_result, None)
        return [await _wait.done(soon), await _wait.done(never)]

    assert ends(lambda: asyncio.run(both())) == [True, False]


def test_an_answer_that_never_came(tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that still waited when the recording ended waits again, and not for ever."""
    asked = threading.Event()
    threads: list[threading.Thread] = []

    def ask() -> None:
        with contextlib.suppress(OSError, SpanchainError):
            urllib.request.urlopen(server.url)

    def script(request: Request) -> Reply:
        asked.set()
        return Hang()

    def agent(*, stays: bool) -> str:
        threads.append(threading.Thread(target=ask, daemon=True))
        threads[-1].start()
        asked.wait(ENOUGH)
        if stays:
            threads[-1].join(ENOUGH)
        return "done"

    server.script(script)
    record(tmp_path / "run.yaml", lambda: agent(stays=False))
    server.close()
    threads[0].join(ENOUGH)
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.3)
    as_freezegun_does(monkeypatch)
    run(tmp_path / "run.yaml", lambda: agent(stays=True))
    assert not threads[-1].is_alive(), "it waits for ever"
