"""MCP: whatever a server may say, over every transport of the SDK, 1.x and 2.x; and with no server at all."""

# Two releases of one library: what is not there in the one is there in the other.
# mypy: disable-error-code="import-not-found, import-untyped, attr-defined, no-redef, unused-ignore, arg-type, call-arg"
# mypy: disable-error-code="call-overload, no-any-return, misc"

from __future__ import annotations

import asyncio
import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starts import STARTED

import ready_first
from proof import Stack
from recording import record, replay, run
from servers import CountingListener

pytest.importorskip("mcp", reason="mcp is not installed")

import mcp_everything
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client

FIRST = mcp_everything.FIRST

if FIRST:
    from mcp import McpError as MCPError
    from mcp import types
    from mcp.client.streamable_http import streamablehttp_client as http_client
    from mcp.shared.memory import create_connected_server_and_client_session as connected
else:
    import mcp_types as types
    from mcp import MCPError
    from mcp.client._memory import InMemoryTransport
    from mcp.client.streamable_http import streamable_http_client as http_client

STACK = Stack(
    name="mcp",
    dists=("mcp",),
    records="every request and notification of a client session, over stdio, streamable HTTP, SSE and in memory,"
    " at the session (1.x) or its dispatcher (2.x); in replay no transport is opened",
    limits=(
        "A transport of one's own is opened in replay, too; what is said over it is served.",
        "In mode new_episodes servers are started, and greeted, so that what is new can reach them.",
        "Errors are raised as the SDK's MCPError, also where a server in this process raised a class derived from it.",
        "A server that a fixture of a wider scope starts runs in replay, too; what tests say to it is served.",
        "Several connections to one server at a time keep their answers apart by the order in which they are opened.",
        "A connection that was opened before the first run of the process has no name in the recording.",
    ),
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*deprecated.*"),
    pytest.mark.filterwarnings("ignore:Use .streamable_http_client. instead"),
]

EVERYTHING = Path(mcp_everything.__file__)

Say = Callable[[Any, list[Any]], Awaitable[None]]


@dataclass
class Place:
    """Where servers run: what they did, and whether anybody knocks when they are gone."""

    ledger: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    listener: CountingListener | None = None

    @property
    def did(self) -> list[str]:
        return self.ledger.read_text(encoding="utf-8").splitlines() if self.ledger.exists() else []

    def serve(self, transport: str) -> None:
        """Start the server as a process of its own."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, str(EVERYTHING), str(self.ledger), transport, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the server does not listen")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("MCP_LEDGER", str(tmp_path / "ledger"))
    here = Place(tmp_path / "ledger")
    yield here
    here.stop()


class Client1:
    """What the client does when the server asks, and what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.progress: list[Any] = []

    async def sampling(self, context: Any, params: Any) -> Any:
        text = params.messages[0].content.text
        if text == "secret":
            return types.ErrorData(code=-1, message="I will not say")
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text=text.upper()), model="m"
        )

    async def elicitation(self, context: Any, params: Any) -> Any:
        return types.ElicitResult(action="accept", content={"size": "large"})

    async def roots(self, context: Any) -> Any:
        return types.ListRootsResult(roots=[types.Root(uri="file:///srv/shop")])

    async def logged(self, params: Any) -> None:
        self.told.append(params.data)

    async def any_message(self, message: Any) -> None:
        root = getattr(message, "root", message)
        method = getattr(root, "method", "")
        if method in ("notifications/tools/list_changed", "notifications/resources/updated"):
            self.told.append(method)

    async def on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total, message))

    @property
    def options(self) -> dict[str, Any]:
        return {
            "sampling_callback": self.sampling,
            "elicitation_callback": self.elicitation,
            "list_roots_callback": self.roots,
            "logging_callback": self.logged,
            "message_handler": self.any_message,
        }


@asynccontextmanager
async def session(transport: str, place: Place, client: Client1) -> AsyncIterator[Any]:
    streams: Any
    if transport == "memory":
        if FIRST:
            async with connected(mcp_everything.server, **client.options) as opened:
                yield opened
            return
        streams = InMemoryTransport(mcp_everything.server)
    elif transport == "stdio":
        streams = stdio_client(StdioServerParameters(command=sys.executable, args=[str(EVERYTHING), str(place.ledger)]))
    elif transport == "sse":
        streams = sse_client(f"http://127.0.0.1:{place.port}/sse")
    else:
        streams = http_client(f"http://127.0.0.1:{place.port}/mcp")
    async with streams as (read, write, *_), ClientSession(read, write, **client.options) as opened:
        await opened.initialize()
        yield opened


def text(result: Any) -> str:
    return str(result.content[0].text)


async def answer(call: Awaitable[Any]) -> str:
    """What a call gives, or says why it gives nothing."""
    try:
        return text(await call)
    except MCPError as error:
        return f"{error.error.code} {error.error.message} {error.error.data}"


async def everything(opened: Any, client: Client1) -> list[Any]:
    said: list[Any] = [sorted(tool.name for tool in (await opened.list_tools()).tools)]
    said.append(text(await opened.call_tool("add", {"a": 1, "b": 2})))
    said.append(text(await opened.call_tool("steps", {"count": 3}, progress_callback=client.on_progress)))
    failed = await opened.call_tool("fails", {"reason": "no stock"})
    said.append((failed.is_error if not FIRST else failed.isError, text(failed)))
    said.append(text(await opened.call_tool("asks_model", {"question": "how many?"})))
    said.append(await answer(opened.call_tool("asks_model", {"question": "secret"})))
    said.append(text(await opened.call_tool("asks_user", {})))
    said.append(text(await opened.call_tool("lists_roots", {})))
    said.append((await opened.read_resource("shop://orders/7")).contents[0].text)
    said.append((await opened.get_prompt("greet", {"name": "Ada"})).messages[0].content.text)
    said.append(await answer(opened.read_resource("shop://nowhere")))
    both = await asyncio.gather(*(opened.call_tool("add", {"a": number, "b": 0}) for number in range(5)))
    said.append([text(one) for one in both])
    said.append(text(await opened.call_tool("changes", {})))
    await asyncio.sleep(0.2)  # what was only told arrives by itself
    return said


def agent(transport: str, place: Place, say: Callable[[Any, Client1], Awaitable[Any]] = everything) -> Any:
    async def run_agent() -> Any:
        client = Client1()
        async with session(transport, place, client) as opened:
            said = await say(opened, client)
        return said, client.progress, client.told

    return run_agent


TRANSPORTS = ("stdio", "streamable-http", "sse", "memory")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_all_that_a_server_may_say_without_the_server(transport: str, place: Place, tmp_path: Path) -> None:
    if transport in ("sse", "streamable-http"):
        place.serve(transport)
    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent(transport, place))
    assert recorded.raised is None
    said, progress, told = recorded.value
    assert said[1] == "3"
    assert said[2] == "all done"
    assert said[4] == "the model said: HOW MANY?"
    assert "I will not say" in said[5]
    assert said[6] == "accept: large"
    assert "file:///srv/shop" in said[7]
    assert progress == [(0.0, 3.0, "step 0"), (1.0, 3.0, "step 1"), (2.0, 3.0, "step 2")]
    assert {"did": 3} in told
    assert "notifications/tools/list_changed" in told
    names = [span.name for span in recorded.verdict.live]
    assert names.count("sampling/createMessage") == 2
    assert {"elicitation/create", "roots/list", "tools/call add", "resources/read", "prompts/get greet"} <= set(names)
    assert not [span for span in recorded.verdict.live if span.kind == "http"], "recorded twice"
    did = place.did
    place.stop()
    with ExitStack() as stack:
        listener = stack.enter_context(CountingListener(place.port)) if place.port else None
        STARTED.clear()
        for _ in range(3):
            again = replay(cassette, agent(transport, place))
            assert again.value == recorded.value
            assert not again.verdict.notes
        assert STARTED == [], "a process was started"
        assert place.did == did, "something ran again"
        assert listener is None or listener.connections == 0


def test_calls_side_by_side_end_as_they_had_ended(place: Place, tmp_path: Path) -> None:
    async def say(opened: Any, client: Client1) -> list[int]:
        async def ask(n: int) -> int:
            given = {"answer": n, "after": ready_first.wait(n)}
            return int(text(await opened.call_tool("late", given)))

        return await ready_first.in_tasks(ask)

    agent_said = agent("memory", place, say)
    recorded = record(tmp_path / "c.yaml", agent_said).value
    assert recorded[0] == ready_first.LAST_FIRST
    for _ in range(3):
        assert replay(tmp_path / "c.yaml", agent_said).value == recorded


def test_what_an_author_changes_is_red(place: Place, tmp_path: Path) -> None:
    async def shop(opened: Any, client: Client1) -> Any:
        await opened.list_tools()
        first = text(await opened.call_tool("add", {"a": 1, "b": 2}))
        second = text(await opened.call_tool("asks_model", {"question": "how many?"}))
        return first, second

    def changed(**what: Any) -> Any:
        async def shop(opened: Any, client: Client1) -> Any:
            await opened.list_tools()
            calls = [("add", {"a": what.get("a", 1), "b": 2}), ("asks_model", {"question": "how many?"})]
            if what.get("swapped"):
                calls.reverse()
            if what.get("dropped"):
                calls.pop()
            if what.get("added"):
                calls.append(("asks_user", {}))
            if "answers" in what:
                client.sampling = what["answers"]  # type: ignore[method-assign]
                opened._sampling_callback = client.sampling
            return [await answer(opened.call_tool(*call)) for call in calls]

        return agent("stdio", place, shop)

    async def shouts(context: Any, params: Any) -> Any:
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="SOMETHING ELSE"), model="m"
        )

    cassette = tmp_path / "run.yaml"
    record(cassette, agent("stdio", place, shop))
    did = place.did
    found = {}
    for name, what in {
        "argument": {"a": 7},
        "dropped": {"dropped": True},
        "added": {"added": True},
        "swapped": {"swapped": True},
        "answers": {"answers": shouts},
    }.items():
        outcome = run(cassette, changed(**what))
        assert outcome.failure is not None, name
        found[name] = [(str(cause.kind), cause.path[-1]) for cause in outcome.causes]
    assert place.did == did
    assert found == {
        "argument": [("input_changed", "tools/call add")],
        "dropped": [("span_removed", "tools/call asks_model"), ("span_removed", "sampling/createMessage")],
        "added": [("span_added", "tools/call asks_user")],
        "swapped": [("span_moved", "tools/call add")],
        "answers": [("output_changed", "sampling/createMessage")],
    }


# Over HTTP the SDK 1.x waits for ever when its server has died.
@pytest.mark.parametrize("transport", ["stdio"] if FIRST else ["stdio", "streamable-http"])
def test_a_server_that_dies_in_the_middle_of_a_call(transport: str, place: Place, tmp_path: Path) -> None:
    async def shop(opened: Any, client: Client1) -> Any:
        first = text(await opened.call_tool("add", {"a": 1, "b": 2}))
        return (
            first,
            await answer(opened.call_tool("dies", {})),
            await answer(opened.call_tool("add", {"a": 3, "b": 4})),
        )

    if transport != "stdio":
        place.serve(transport)
    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent(transport, place, shop))
    if recorded.raised is None:
        assert recorded.value[0][0] == "3"
        assert "losed" in recorded.value[0][1] or "esponse" in recorded.value[0][1]
    else:
        # Which one it is, the SDK's own timing says.
        known = {"ConnectError", "ReadError", "RemoteProtocolError", "ClosedResourceError"}
        assert {type(leaf).__name__ for leaf in leaves(recorded.raised)} <= known
    assert any("dies" in line for line in place.did)
    did = place.did
    again = replay(cassette, agent(transport, place, shop))
    assert again.value == recorded.value
    assert repr(leaves(again.raised)) == repr(leaves(recorded.raised))
    assert place.did == did


def leaves(error: BaseException | None) -> list[BaseException]:
    """The errors in groups of groups."""
    if error is None:
        return []
    inner = getattr(error, "exceptions", None)
    return [error] if inner is None else [leaf for one in inner for leaf in leaves(one)]


def test_another_command_is_the_change_and_not_another_server(place: Place, tmp_path: Path) -> None:
    def shop(*more: str) -> Any:
        async def run_agent() -> str:
            asked = StdioServerParameters(command=sys.executable, args=[str(EVERYTHING), str(place.ledger), *more])
            async with stdio_client(asked) as (read, write), ClientSession(read, write) as opened:
                await opened.initialize()
                return text(await opened.call_tool("add", {"a": 1, "b": 2}))

        return run_agent

    cassette = tmp_path / "run.yaml"
    record(cassette, shop())
    changed = run(cassette, shop("stdio"))
    assert changed.failure is not None
    first = changed.causes[0]
    assert str(first.kind) == "input_changed"
    assert first.path[-1].startswith("connect python")
    assert "request.params.args[2]" in [change.path for change in first.changes]
    assert not [cause for cause in changed.causes if str(cause.kind) in ("span_added", "span_removed")]


def test_giving_up_on_a_server_that_does_not_answer(place: Place, tmp_path: Path) -> None:
    async def patient(opened: Any, client: Client1) -> Any:
        try:
            await asyncio.wait_for(opened.call_tool("waits", {}), 0.5)
        except TimeoutError:
            return text(await opened.call_tool("add", {"a": 1, "b": 2}))

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent("stdio", place, patient))
    assert recorded.value[0] == "3"
    exchanges = {span.name: span.exchange for span in recorded.verdict.live}
    ends = {name: one.response["end"] for name, one in exchanges.items() if one and one.response}
    assert ends["tools/call waits"] == "cancelled"
    again = replay(cassette, agent("stdio", place, patient))
    assert again.value == recorded.value


def test_a_client_that_limits_its_patience(place: Place, tmp_path: Path) -> None:
    async def limited(opened: Any, client: Client1) -> Any:
        from datetime import timedelta

        limit = {"read_timeout_seconds": timedelta(seconds=0.3) if FIRST else 0.3}
        return await answer(opened.call_tool("waits", {}, **limit))

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent("stdio", place, limited))
    assert "imed out" in recorded.value[0]
    started = time.monotonic()
    again = replay(cassette, agent("stdio", place, limited))
    assert again.value == recorded.value
    assert time.monotonic() - started < 10


def test_a_server_that_cannot_be_started(tmp_path: Path) -> None:
    async def nobody() -> str:
        try:
            async with stdio_client(StdioServerParameters(command="no-such-server-anywhere", args=["--x"])):
                return "started"
        except FileNotFoundError as error:
            return f"{error.errno} {error.filename}"

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, nobody)
    assert "no-such-server-anywhere" in recorded.value
    assert replay(cassette, nobody).value == recorded.value


def test_servers_that_people_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mcp_server_time", "mcp_server_git"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    shop = tmp_path / "shop"
    for command in (["init", "-q", str(shop)], ["-C", str(shop), "commit", "-q", "--allow-empty", "-m", "opened"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *command], check=True)

    async def assistant() -> list[str]:
        said = []
        time_server = StdioServerParameters(
            command=sys.executable, args=["-m", "mcp_server_time", "--local-timezone", "UTC"]
        )
        git_server = StdioServerParameters(command=sys.executable, args=["-m", "mcp_server_git", "-r", str(shop)])
        async with stdio_client(time_server) as streams, ClientSession(*streams) as opened:
            await opened.initialize()
            said.append(text(await opened.call_tool("get_current_time", {"timezone": "Europe/Paris"})))
        async with stdio_client(git_server) as streams, ClientSession(*streams) as opened:
            await opened.initialize()
            await opened.list_tools()
            said.append(text(await opened.call_tool("git_log", {"repo_path": str(shop)})))
            said.append(text(await opened.call_tool("git_status", {"repo_path": str(shop)})))
        return said

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, assistant)
    assert "Europe/Paris" in recorded.value[0]
    assert "opened" in recorded.value[1]
    STARTED.clear()
    monkeypatch.setenv("PATH", "")
    assert replay(cassette, assistant).value == recorded.value
    assert STARTED == []
