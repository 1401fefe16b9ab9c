"""MCP sessions in all the ways that people hold them: many at once, in groups, in threads, on trio, for long."""

# Two releases of one library: what is not there in the one is there in the other.
# mypy: disable-error-code="import-not-found, import-untyped, attr-defined, no-redef, unused-ignore, arg-type, call-arg"
# mypy: disable-error-code="call-overload, no-any-return, misc"

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starts import STARTED

from project import Project
from proof import Stack
from pytest_spanchain import use_cassette
from recording import record, replay, run

pytest.importorskip("mcp", reason="mcp is not installed")

import mcp
import mcp_bad_server
import mcp_everything
from mcp import ClientSession, ClientSessionGroup, StdioServerParameters
from mcp.client.stdio import stdio_client

FIRST = mcp_everything.FIRST

if FIRST:
    from mcp import types
else:
    import mcp_types as types

STACK = Stack(
    name="mcp, sessions",
    dists=("mcp",),
    records="parallel sessions, session groups, sessions in threads, on trio and across runs, and long-open requests",
    limits=("Calls of parallel sessions are told apart by the order in which the sessions were opened.",),
)

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*")


def server(*words: str) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=[str(mcp_bad_server.__file__), *words])


@asynccontextmanager
async def session(*words: str) -> AsyncIterator[Any]:
    with open(os.devnull, "w") as errlog:
        async with stdio_client(server(*words), errlog=errlog) as (read, write), ClientSession(read, write) as opened:
            await opened.initialize()
            yield opened


async def call(opened: Any, *, name: str = "tool", **given: Any) -> str:
    return str((await opened.call_tool(name, {}, **given)).content[0].text)


def holds(cassette: Path, agent: Callable[[], Any]) -> Any:
    """Record it and replay it: the same comes out, and no process is started."""
    recorded = record(cassette, agent)
    assert recorded.raised is None
    for _ in range(2):
        STARTED.clear()
        assert replay(cassette, agent).value == recorded.value
        assert STARTED == []
    return recorded.value


def test_equal_calls_of_parallel_sessions(tmp_path: Path) -> None:
    async def one() -> list[str]:
        async with session("counts") as opened:
            return [await call(opened) for _ in range(2)]

    async def agent() -> list[list[str]]:
        return await asyncio.gather(*(one() for _ in range(3)))

    said = holds(tmp_path / "run.yaml", agent)
    assert [[words[:6] for words in one] for one in said] == [["call 1", "call 2"]] * 3
    assert all(first.split()[-1] == second.split()[-1] for first, second in said)


def test_two_sessions_in_turn_and_swapped(tmp_path: Path) -> None:
    def agent(order: str) -> Any:
        async def turns() -> list[str]:
            async with session("counts", "a") as a, session("counts", "b") as b:
                return [await call({"a": a, "b": b}[name]) for name in order]

        return turns

    holds(tmp_path / "run.yaml", agent("abba"))
    assert run(tmp_path / "run.yaml", agent("baba")).causes


def test_a_list_of_tools_in_pages(tmp_path: Path) -> None:
    def agent(*, pages: int) -> Any:
        async def lists() -> list[str]:
            found: list[str] = []
            cursor: str | None = None
            async with session("pages") as opened:
                for _ in range(pages):
                    listed = await opened.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
                    found += [tool.name for tool in listed.tools]
                    cursor = listed.nextCursor if FIRST else listed.next_cursor
                    if cursor is None:
                        break
            return found

        return lists

    cassette = tmp_path / "run.yaml"
    assert holds(cassette, agent(pages=9)) == ["tool 0", "tool 1", "tool 2"]
    cut = run(cassette, agent(pages=2))
    assert [(str(cause.kind), cause.path[-1]) for cause in cut.causes] == [("span_removed", "tools/list")]


def test_a_group_of_sessions(tmp_path: Path) -> None:
    async def agent() -> Any:
        async with ClientSessionGroup() as group:
            await group.connect_to_server(server("counts"))
            return sorted(group.tools), await call(group)

    assert holds(tmp_path / "run.yaml", agent)[0] == ["tool"]


def test_threads_with_loops_of_their_own(tmp_path: Path) -> None:
    async def one(words: str) -> str:
        async with session("works", words) as opened:
            return await call(opened)

    def agent() -> list[str]:
        found: dict[str, str] = {}
        threads = [
            threading.Thread(target=lambda name=name: found.update({name: asyncio.run(one(name))})) for name in "abc"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[name] for name in "abc"]

    assert holds(tmp_path / "run.yaml", agent) == ["fine"] * 3


def test_on_trio(tmp_path: Path) -> None:
    trio = pytest.importorskip("trio")

    async def one() -> str:
        async with session("works") as opened:
            return await call(opened)

    assert holds(tmp_path / "run.yaml", lambda: trio.run(one)) == "fine"


def test_a_session_that_outlives_the_run_in_which_it_was_opened(tmp_path: Path) -> None:
    async def two_runs(mode: str) -> list[str]:
        async with AsyncExitStack() as stack:
            with use_cassette(tmp_path / "one.yaml", mode=mode):
                opened = await stack.enter_async_context(session("counts"))
                first = await call(opened)
            with use_cassette(tmp_path / "two.yaml", mode=mode):
                return [first, await call(opened)]

    recorded = asyncio.run(two_runs("rewrite"))
    STARTED.clear()
    assert asyncio.run(two_runs("none")) == recorded
    assert STARTED == []


def test_what_only_the_client_says(tmp_path: Path) -> None:
    def agent(*, meta: Any = None, changes: int = 1) -> Any:
        async def says() -> str:
            async with session("works") as opened:
                for _ in range(changes):
                    await opened.send_roots_list_changed()
                return await call(opened, meta=meta)

        return says

    cassette = tmp_path / "run.yaml"
    holds(cassette, agent(meta={"tenant": "north"}))
    kinds = [
        next((str(cause.kind), cause.path[-1]) for cause in run(cassette, changed).causes)
        for changed in (agent(meta={"tenant": "south"}), agent(), agent(meta={"tenant": "north"}, changes=0))
    ]
    assert kinds == [
        ("input_changed", "tools/call tool"),
        ("input_changed", "tools/call tool"),
        ("span_removed", "notifications/roots/list_changed"),
    ]
    assert run(cassette, agent(meta={"tenant": "north"}, changes=2)).causes


def test_modes_with_a_server(tmp_path: Path) -> None:
    def agent(calls: int) -> Any:
        async def asks() -> list[str]:
            async with session("works") as opened:
                return [(await opened.call_tool("tool", {"number": number})).content[0].text for number in range(calls)]

        return asks

    cassette = tmp_path / "run.yaml"
    steps = []
    for mode, calls in (
        ("once", 1),
        ("once", 1),
        ("new_episodes", 1),
        ("new_episodes", 2),
        ("none", 2),
        ("rewrite", 1),
    ):
        STARTED.clear()
        outcome = run(cassette, agent(calls), mode=mode)
        assert outcome.failure is None, mode
        steps.append((mode, outcome.value, outcome.verdict.recorded, len(STARTED)))
    assert steps == [
        ("once", ["fine"], True, 1),
        ("once", ["fine"], False, 0),
        ("new_episodes", ["fine"], False, 1),
        ("new_episodes", ["fine", "fine"], True, 1),
        ("none", ["fine", "fine"], False, 0),
        ("rewrite", ["fine"], True, 1),
    ]


def test_a_subscription_that_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        from mcp import Client
    except ImportError:
        pytest.skip("there are no subscriptions in this release")
    monkeypatch.setenv("MCP_LEDGER", str(tmp_path / "ledger"))

    async def changes() -> str:
        async with Client(mcp_everything.server) as client, client.listen(tools_list_changed=True):
            return await call(client, name="changes")

    async def agent() -> list[str]:
        return [await changes(), await changes()]

    # Its ids are counted on by the process: no two runs have the same.
    assert holds(tmp_path / "run.yaml", agent) == ["changed", "changed"]
    assert (tmp_path / "ledger").read_text() == "changes\n" * 2


AGENT = """
import os, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from starts import STARTED

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*")

@pytest.fixture(autouse=True)
def told():
    STARTED.clear()
    yield
    with open("starts.txt", "a") as file:
        file.writelines(f"{os.getpid()} {start}\\n" for start in STARTED)

@pytest.mark.cassette
@pytest.mark.parametrize("n", range(4))
async def test_it(n):
    server = StdioServerParameters(command=sys.executable, args=["server.py", "counts", str(n)])
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        said = [(await session.call_tool("tool", {"n": n})).content[0].text for _ in range(2)]
    assert [words.partition(" of process ")[0] for words in said] == ["call 1", "call 2"]
"""


def test_servers_of_several_workers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test of each worker has its own server, and in replay none has any."""
    project.find(Path(__file__).parent, monkeypatch=monkeypatch)
    if Path(importlib.util.cache_from_source(str(mcp.__file__))).exists():
        monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)  # to compile the SDK anew takes longer than the rest
    project.write(AGENT)
    project.write(Path(str(mcp_bad_server.__file__)).read_text(encoding="utf-8"), "server.py")
    workers = ("-n2", "-p", "no:langsmith_plugin")  # which takes a second to import, if it is there
    recorded = project.run(*workers, "--record-mode=once", process=True)
    assert recorded.counts == {"replayed": 0, "recorded": 4, "live": 12, "unverified": 0}, recorded.out
    starts = project.path / "starts.txt"
    began = starts.read_text(encoding="utf-8").splitlines()
    assert len(began) == 4
    assert len({line.partition(" ")[0] for line in began}) == 2, "one worker had it all"
    starts.unlink()
    (project.path / "server.py").unlink()
    replayed = project.run(*workers, process=True)
    assert replayed.outcomes == {"passed": 4}, replayed.out
    assert replayed.counts == {"replayed": 4, "recorded": 0, "live": 0, "unverified": 0}
    assert starts.read_text(encoding="utf-8") == "", "a process was started"
