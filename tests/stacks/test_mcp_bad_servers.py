"""MCP servers that die, hang, flood and lie: the recording says so, and the replay does the same, without them."""

# Two releases of one library: what is not there in the one is there in the other.
# mypy: disable-error-code="import-not-found, import-untyped, attr-defined, no-redef, unused-ignore, arg-type, call-arg"
# mypy: disable-error-code="call-overload, no-any-return, misc"

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starts import STARTED

from proof import Stack
from pytest_spanchain.boundaries import _wait
from recording import Outcome, record, replay, run
from servers import CountingListener

pytest.importorskip("mcp", reason="mcp is not installed")

import mcp_bad_http
import mcp_bad_server
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

try:
    import mcp_types as types
    from mcp import MCPError
    from mcp.client.streamable_http import streamable_http_client as http_client

    FIRST = False
except ImportError:
    from mcp import McpError as MCPError
    from mcp import types
    from mcp.client.streamable_http import streamablehttp_client as http_client

    FIRST = True

STACK = Stack(
    name="mcp, bad servers",
    dists=("mcp",),
    records="servers that die, hang, flood stdout or stderr, answer twice, out of order or with garbage, over stdio and"
    " streamable HTTP; the first 64 KiB of a child's stderr",
    limits=(
        "Of what a server writes to stderr the first 64 KiB are recorded, and written again when it would be started.",
        "A result that JSON cannot hold (NaN), or that is nested deeper than 64 levels, fails the recording.",
    ),
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*deprecated.*"),
    pytest.mark.filterwarnings("ignore:Use .streamable_http_client. instead"),
]

BAD = str(mcp_bad_server.__file__)
LIMIT: Any = 0.6

Handler = Callable[[Any, Any], Awaitable[Any]]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The SDK logs each line that it cannot read."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@dataclass
class Caller:
    """An agent that calls the tool of a server, and keeps what it gets and what it is told.

    Args:
        errlog: file for the server's stderr.
        at_once: how many calls at the same time, before one more.
        limit: how long it waits for an answer.
        sampling: answers the server's questions.
    """

    errlog: Path = Path(os.devnull)
    at_once: int = 1
    limit: float = 10.0
    sampling: Handler | None = None
    told: list[Any] = field(default_factory=list)

    async def logged(self, params: Any) -> None:
        self.told.append(params.data)

    async def progressed(self, progress: float, total: float | None, message: str | None) -> None:
        self.told.append(progress)

    async def call(self, session: Any, number: int) -> Any:
        try:
            found = await session.call_tool("tool", {"number": number}, progress_callback=self.progressed)
        except MCPError as error:
            return f"{error.error.code} {error.error.message} {error.error.data}"
        except Exception as error:  # noqa: BLE001
            return repr(error)
        return found.model_dump(mode="python", exclude_none=True)

    async def talk(self, read: Any, write: Any) -> Any:
        limit = timedelta(seconds=self.limit) if FIRST else self.limit
        options = {"logging_callback": self.logged, "sampling_callback": self.sampling, "read_timeout_seconds": limit}
        async with ClientSession(read, write, **options) as session:
            try:
                await session.initialize()
            except MCPError as error:
                return f"{error.error.code} {error.error.message}"
            said = await asyncio.gather(*(self.call(session, number) for number in range(self.at_once)))
            said.append(await self.call(session, self.at_once))
            await asyncio.sleep(0.1)
            return said


def over_stdio(how: str, **options: Any) -> Callable[[], Awaitable[Any]]:
    async def agent() -> Any:
        caller = Caller(**options)
        server = StdioServerParameters(command=sys.executable, args=[BAD, how])
        with caller.errlog.open("a", encoding="utf-8") as errlog:
            async with stdio_client(server, errlog=errlog) as (read, write):
                said = await caller.talk(read, write)
        return said, caller.told

    return agent


def same_again(cassette: Path, agent: Callable[[], Any], recorded: Outcome) -> Outcome:
    """Replay it: the same comes out, no process is started, and nobody waits."""
    STARTED.clear()
    started = time.monotonic()
    again = replay(cassette, agent)
    assert time.monotonic() - started < 8
    assert again.value == recorded.value
    assert repr(again.raised) == repr(recorded.raised)
    assert STARTED == [], "a process was started"
    return again


def texts(said: Sequence[Any]) -> list[Any]:
    return [one["content"][0]["text"] if isinstance(one, dict) else one for one in said]


CLOSED = "-32000 Connection closed"
GONE = [f"{CLOSED} None", "ClosedResourceError()" if FIRST else f"{CLOSED} None"]
FINE = ["fine", "fine"]
ENDS = {
    "dead": CLOSED,
    "dies": GONE,
    "half": GONE,
    "twice": ["first", "first"],
    "unknown": FINE,
    "garbage": ["ok", "ok"],
    "cancels": ["-32800 given up None"] * 2,
    "asks_what_nobody_knows": FINE,
    "progress_after_the_answer": FINE,
    "odd_fields": FINE,
    "huge": ["gold " * 1_000_000] * 2,
}


@pytest.mark.parametrize("how", ENDS)
def test_a_bad_server(how: str, tmp_path: Path) -> None:
    cassette = tmp_path / "run.yaml"
    agent = over_stdio(how)
    recorded = record(cassette, agent)
    said, told = recorded.value
    assert (said if isinstance(said, str) else texts(said)) == ENDS[how]
    if how == "progress_after_the_answer":
        assert "afterwards" in told
    same_again(cassette, agent, recorded)


@pytest.mark.parametrize("how", ["mute", "hangs", "surrogate"])
def test_a_server_that_does_not_answer(how: str, tmp_path: Path) -> None:
    cassette = tmp_path / "run.yaml"
    agent = over_stdio(how, limit=LIMIT)
    recorded = record(cassette, agent)
    assert "imed out" in str(recorded.value[0])
    same_again(cassette, agent, recorded)


def test_a_server_that_does_not_want_to_end(tmp_path: Path) -> None:
    cassette = tmp_path / "run.yaml"
    agent = over_stdio("stubborn")
    recorded = record(cassette, agent)
    started = time.monotonic()
    same_again(cassette, agent, recorded)
    assert time.monotonic() - started < 2, "it waited for a server that is not there"


def test_answers_out_of_order_reach_their_callers(tmp_path: Path) -> None:
    cassette = tmp_path / "run.yaml"
    # The fourth, by itself, waits for two more.
    agent = over_stdio("out_of_order", at_once=3, limit=1.0)
    recorded = record(cassette, agent)
    assert texts(recorded.value[0])[:3] == ["number 0", "number 1", "number 2"]
    same_again(cassette, agent, recorded)


def test_a_flood_of_notifications(tmp_path: Path) -> None:
    cassette = tmp_path / "run.yaml"
    agent = over_stdio("floods_stdout")
    started = time.monotonic()
    recorded = record(cassette, agent)
    assert texts(recorded.value[0]) == FINE
    assert recorded.value[1] == [f"line {number}" for number in range(2_000)] * 2
    same_again(cassette, agent, recorded)
    assert time.monotonic() - started < 20


def test_pictures_and_bytes(tmp_path: Path) -> None:
    cassette = tmp_path / "run.yaml"
    agent = over_stdio("blob")
    recorded = record(cassette, agent)
    assert recorded.value[0][0]["content"][2]["resource"]["blob"] == "AAECAwT/"
    same_again(cassette, agent, recorded)


@pytest.mark.parametrize(
    ("how", "why"), [("not_a_number", "nan has no JSON form"), ("odd_numbers", "nested deeper than")]
)
def test_what_a_cassette_cannot_hold_is_said(how: str, why: str, tmp_path: Path) -> None:
    cassette = tmp_path / "run.yaml"
    outcome = run(cassette, over_stdio(how), mode="rewrite")
    assert why in str(outcome.failure)
    assert not cassette.exists()


def test_a_question_that_the_server_takes_back(tmp_path: Path) -> None:
    began: list[str] = []

    async def ponders(context: Any, params: Any) -> Any:
        began.append("sampling")
        await asyncio.sleep(3)
        text = types.TextContent(type="text", text="at last")
        return types.CreateMessageResult(role="assistant", content=text, model="m")

    cassette = tmp_path / "run.yaml"
    agent = over_stdio("asks_and_withdraws", sampling=ponders, limit=1.0)
    recorded = record(cassette, agent)
    asked = [span.exchange for span in recorded.verdict.live if span.name == "sampling/createMessage"]
    assert [one.response["error"]["type"] for one in asked if one and one.response] == ["TimeoutError"] * len(asked)
    before = len(began)
    started = time.monotonic()
    same_again(cassette, agent, recorded)
    assert time.monotonic() - started < 2.5, "nobody waited for this answer"
    assert len(began) == 2 * before


def test_a_client_that_fails_to_answer_fails_alike(tmp_path: Path) -> None:
    def agent(words: str) -> Any:
        async def fails(context: Any, params: Any) -> Any:
            raise ValueError(words)

        return over_stdio("asks_and_withdraws", sampling=fails)

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent("out of ink"))
    assert texts(recorded.value[0]) == ["never mind"] * 2
    same_again(cassette, agent("out of ink"), recorded)
    changed = run(cassette, agent("out of paper"))
    assert [str(cause.kind) for cause in changed.causes][:1] == ["output_changed"]


def test_a_listener_that_raises_is_nobody_elses_trouble(tmp_path: Path) -> None:
    class Clumsy(Caller):
        async def progressed(self, progress: float, total: float | None, message: str | None) -> None:
            raise ValueError("clumsy")

        async def logged(self, params: Any) -> None:
            raise ValueError("clumsy")

    async def agent() -> Any:
        server = StdioServerParameters(command=sys.executable, args=[BAD, "progress_after_the_answer"])
        with open(os.devnull, "w") as errlog:
            async with stdio_client(server, errlog=errlog) as (read, write):
                return texts(await Clumsy().talk(read, write))

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent)
    assert recorded.value == FINE
    same_again(cassette, agent, recorded)


def test_whoever_waits_where_nobody_waited_is_told_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def agent(limit: float) -> Any:
        async def gives_up() -> str:
            server = StdioServerParameters(command=sys.executable, args=[BAD, "hangs"])
            async with stdio_client(server) as streams, ClientSession(*streams) as session:
                await session.initialize()
                try:
                    await asyncio.wait_for(session.call_tool("tool", {}), limit)
                except TimeoutError:
                    return "gave up"
                except Exception as error:  # noqa: BLE001
                    return str(error)
            return "answered"

        return gives_up

    cassette = tmp_path / "run.yaml"
    assert record(cassette, agent(0.3)).value == "gave up"
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.5)
    outcome = run(cassette, agent(30))
    assert "tools/call tool: the agent has waited 0.5 s for an answer of python" in outcome.value
    assert "for which it did not wait" in str(outcome.failure)


def test_a_client_that_never_answers_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def agent(patient: bool) -> Any:
        async def sampling(context: Any, params: Any) -> Any:
            if patient:
                await asyncio.Event().wait()
            text = types.TextContent(type="text", text="at once")
            return types.CreateMessageResult(role="assistant", content=text, model="m")

        return over_stdio("asks_and_withdraws", sampling=sampling)

    cassette = tmp_path / "run.yaml"
    record(cassette, agent(False))
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.5)
    outcome = run(cassette, agent(True))
    assert "did not deal with sampling/createMessage of python" in str(outcome.value)
    assert outcome.failure is not None


def test_stderr_is_recorded_and_passed_on(tmp_path: Path) -> None:
    cassette, errlog = tmp_path / "run.yaml", tmp_path / "err.txt"
    agent = over_stdio("dies", errlog=errlog)
    recorded = record(cassette, agent)
    assert errlog.read_text() == "out of memory\n"
    connect = next(span for span in recorded.verdict.live if span.name.startswith("connect "))
    assert connect.exchange is not None
    assert connect.exchange.response is not None
    assert connect.exchange.response["stderr"] == {"text": "out of memory\n", "bytes": 14}
    errlog.unlink()
    same_again(cassette, agent, recorded)
    assert errlog.read_text() == "out of memory\n"


def test_a_flood_of_stderr_blocks_nobody(tmp_path: Path) -> None:
    cassette, errlog = tmp_path / "run.yaml", tmp_path / "err.txt"
    agent = over_stdio("floods_stderr", errlog=errlog)
    recorded = record(cassette, agent)
    assert texts(recorded.value[0]) == FINE
    line = "DEBUG everything is fine, really\n"
    size = 2 * 8 * 32_768 * len(line)
    assert errlog.stat().st_size == size
    connect = next(span for span in recorded.verdict.live if span.name.startswith("connect "))
    heard = connect.exchange.response["stderr"]  # type: ignore[union-attr, index]
    assert heard["bytes"] == size
    assert heard["text"] == line * (65_536 // len(line))
    errlog.unlink()
    same_again(cassette, agent, recorded)
    assert errlog.read_text() == heard["text"]


def test_a_place_for_stderr_that_no_child_can_have(tmp_path: Path) -> None:
    import io

    async def agent() -> str:
        try:
            async with stdio_client(StdioServerParameters(command=sys.executable, args=[BAD, "works"]), io.StringIO()):
                return "started"
        except io.UnsupportedOperation as error:
            return str(error)

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent)
    assert recorded.value == "fileno"
    same_again(cassette, agent, recorded)


def test_credentials_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "env-4c8b1e6f9a2d7c3b")
    secrets = {
        "token": "tok-aaaa1bbb2cccc3dd1",
        "bearer": "hdr-2222333344445555dd",
        "password": "pw-99887766aabb11",
        "key": "ak-5555666677778888",
        "env": "env-0a9b8c7d6e5f4a3b",
    }
    args = [
        *("--token", secrets["token"], "--header", f"Authorization: Bearer {secrets['bearer']}"),
        *(f"postgresql://shop:{secrets['password']}@db/x", "-e", f"SERVICE_API_KEY={secrets['key']}"),
        *("--echo", "env-4c8b1e6f9a2d7c3b"),
    ]

    async def agent() -> Any:
        caller = Caller()
        env = {"PAYMENT_API_KEY": secrets["env"], "MODE": "test"}
        server = StdioServerParameters(command=sys.executable, args=[BAD, "echoes", *args], env=env)
        with open(os.devnull, "w") as errlog:
            async with stdio_client(server, errlog=errlog) as (read, write):
                return texts(await caller.talk(read, write))

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent)
    written = cassette.read_text()
    for name, secret in {**secrets, "environment": "env-4c8b1e6f9a2d7c3b"}.items():
        assert secret not in written, name
    assert "--token" in written
    assert "MODE" in written
    assert replay(cassette, agent).failure is None
    assert recorded.value


@pytest.mark.parametrize(
    "changed",
    [
        {"args": [BAD, "works", "--shop", "south"]},
        {"env": {"MODE": "live"}},
        {"env": None},
        {"cwd": os.sep},
        {"command": "/usr/bin/env"},
    ],
    ids=["args", "env", "no env", "cwd", "command"],
)
def test_another_way_to_the_server_is_red(changed: dict[str, Any], tmp_path: Path) -> None:
    def agent(**changed: Any) -> Any:
        chosen = {"command": sys.executable, "args": [BAD, "works", "--shop", "north"], "env": {"MODE": "test"}}

        async def shop() -> Any:
            with open(os.devnull, "w") as errlog:
                async with stdio_client(StdioServerParameters(**{**chosen, **changed}), errlog=errlog) as (read, write):
                    return texts(await Caller().talk(read, write))

        return shop

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent())
    same_again(cassette, agent(), recorded)
    STARTED.clear()
    assert run(cassette, agent(**changed)).causes
    assert STARTED == []


def over_http(url: str, *, limit: float = 10.0, headers: dict[str, str] | None = None) -> Callable[[], Awaitable[Any]]:
    async def agent() -> Any:
        caller = Caller(limit=limit)
        async with AsyncExitStack() as stack:
            options: dict[str, Any] = {}
            if headers and FIRST:
                options = {"headers": headers}
            elif headers:
                import httpx2

                client = await stack.enter_async_context(httpx2.AsyncClient(headers=headers))
                options = {"http_client": client}
            read, write, *_ = await stack.enter_async_context(http_client(url, **options))
            said = await caller.talk(read, write)
        return said if isinstance(said, str) else texts(said), sorted(map(str, caller.told))

    return agent


HTTP_ENDS = {
    "works": "fine",
    "resumes": "resumed",
    "stays_open": "fine",
    "hangs_up": "fine",
    "forgets": "Session terminated",
    "fails": "HTTPStatusError: Server error '500" if FIRST else "error response",
    "forbids": "HTTPStatusError: Client error '401" if FIRST else "error response",
    "drops": "imed out" if FIRST else "ended without a response",
    "talks_html": "imed out" if FIRST else "Unexpected content type",
    "garbage": "imed out" if FIRST else "Failed to parse",
    "hangs": "imed out",
    "twice": "imed out"
    if FIRST
    else "for nobody",  # the SDK 2 takes what comes on the stream of a request for its answer
}


@pytest.mark.parametrize("how", HTTP_ENDS)
def test_a_bad_server_over_http(how: str, tmp_path: Path) -> None:
    server = mcp_bad_http.HttpServer(how)
    waits = "imed out" in HTTP_ENDS[how]
    agent = over_http(f"http://127.0.0.1:{server.server_port}/mcp", limit=LIMIT if waits else 10.0)
    cassette = tmp_path / "run.yaml"
    try:
        recorded = record(cassette, agent)
    finally:
        server.close()
    said = str(recorded.value) if recorded.raised is None else "\n".join(map(_shown, _leaves(recorded.raised)))
    assert HTTP_ENDS[how] in said
    assert "session-5f8e2c71a9d34b60" not in cassette.read_text()
    assert not [span for span in recorded.verdict.live if span.kind == "http"], "recorded twice"
    with CountingListener(server.server_port) as listener:
        again = run(cassette, agent)
        assert again.failure is None
        assert again.value == recorded.value
        assert repr(again.raised) == repr(recorded.raised)
        assert listener.connections == 0


def _leaves(error: BaseException) -> Iterator[BaseException]:
    for one in getattr(error, "exceptions", ()):
        yield from _leaves(one)
    if not hasattr(error, "exceptions"):
        yield error


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def test_headers_that_the_author_chose(tmp_path: Path) -> None:
    server = mcp_bad_http.HttpServer("works")
    url = f"http://127.0.0.1:{server.server_port}/mcp?api_key=q-1111aaaa2222bbbb"
    chosen = {"X-Tenant": "north", "Authorization": "Bearer hdr-2222333344445555dd"}
    cassette = tmp_path / "run.yaml"
    try:
        recorded = record(cassette, over_http(url, headers=chosen))
    finally:
        server.close()
    assert "hdr-2222333344445555dd" not in cassette.read_text()
    assert "q-1111aaaa2222bbbb" not in cassette.read_text()
    assert replay(cassette, over_http(url, headers=chosen)).value == recorded.value
    other = {**chosen, "Authorization": "Bearer another-token-of-mine-77"}
    assert replay(cassette, over_http(url, headers=other)).value == recorded.value
    assert run(cassette, over_http(url, headers={**chosen, "X-Tenant": "south"})).causes
    assert run(cassette, over_http(url)).causes
    assert run(cassette, over_http(url.replace("/mcp", "/other"), headers=chosen)).causes
