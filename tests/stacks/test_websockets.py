"""The library websockets: nothing of it is recorded, so replay refuses to connect, and says what to do about it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proof import Proof, Stack
from pytest_spanchain import DeviationError, LiveCallError
from recording import record, replay, run
from servers import CountingListener

connect: Any = pytest.importorskip("websockets.sync.client").connect
aconnect: Any = pytest.importorskip("websockets.asyncio.client").connect
serve: Any = pytest.importorskip("websockets.sync.server").serve

STACK = Stack(
    name="websockets",
    dists=("websockets",),
    records="nothing: replay refuses to connect, and names the line that does",
    limits=(
        "what is said over a websocket is not recorded; make the function that talks over it one of the tools, or let"
        " it out with allow_hosts",
    ),
)


@pytest.fixture
def port() -> Iterator[int]:
    """A websocket server that answers in capitals."""
    with serve(lambda socket: [socket.send(str(said).upper()) for said in socket], "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join(10)


def ask(port: int) -> str:
    """A function of a user's, plain."""
    with connect(f"ws://127.0.0.1:{port}/") as socket:
        socket.send("hello")
        return str(socket.recv(10))


async def aask(port: int) -> str:
    """The same, asyncio."""
    async with aconnect(f"ws://127.0.0.1:{port}/") as socket:
        await socket.send("hello")
        return str(await socket.recv())


AGENTS: dict[str, Callable[[int], Any]] = {"plain": ask, "asyncio": lambda port: asyncio.run(aask(port))}
FIRST_LINES = {"plain": ask.__code__.co_firstlineno, "asyncio": aask.__code__.co_firstlineno}


@pytest.mark.parametrize("kind", list(AGENTS))
def test_refused_in_replay_and_noted_while_recording(kind: str, port: int, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    recorded = record(path, lambda: AGENTS[kind](port))
    assert recorded.value == "HELLO"
    (note,) = recorded.verdict.notes
    site = re.search(r"test_websockets\.py:(\d+) in a?ask", note)
    assert site is not None
    assert int(site[1]) > FIRST_LINES[kind]
    assert "one of the tools" in note
    assert "allow_hosts=['127.0.0.1']" in note
    outcome = run(path, lambda: AGENTS[kind](port))
    assert isinstance(outcome.raised, LiveCallError)
    for words in (site[0], "one of the tools", "allow_hosts=['127.0.0.1']"):
        assert words in str(outcome.raised)
        assert words in str(outcome.failure)
    assert isinstance(outcome.failure, DeviationError)


@pytest.mark.parametrize("kind", list(AGENTS))
def test_nothing_is_contacted(kind: str, tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda: None)
    with CountingListener() as listener:
        assert isinstance(run(tmp_path / "c.yaml", lambda: AGENTS[kind](listener.port)).raised, LiveCallError)
        assert listener.connections == 0


def test_the_ways_out(port: int, tmp_path: Path) -> None:
    assert record(tmp_path / "let_out.yaml", lambda: ask(port), allow_hosts=["127.0.0.1"]).verdict.notes == ()
    assert replay(tmp_path / "let_out.yaml", lambda: ask(port), allow_hosts=["127.0.0.1"]).value == "HELLO"


def test_a_tool_that_talks_over_one(proof: Proof, port: int) -> None:
    """The tool is recorded, and what it does is not done again."""
    proof.settings["tools"] = [f"{__name__}:ask"]
    assert proof.holds(lambda: ask(port)).value == "HELLO"
