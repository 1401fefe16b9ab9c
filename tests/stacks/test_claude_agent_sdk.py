"""claude-agent-sdk: conversations with a command line that speaks Claude Code's frames, and then with none at all."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starts import STARTED

from proof import Stack
from pytest_spanchain import RecordingError, use_cassette
from pytest_spanchain.boundaries import _wait
from recording import Outcome, record, replay, run

pytest.importorskip("claude_agent_sdk", reason="claude-agent-sdk is not installed")

import claude_cli
import trio
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    HookMatcher,
    PermissionResultAllow,
    PermissionResultDeny,
    Transport,
    create_sdk_mcp_server,
    query,
    tool,
)

STACK = Stack(
    name="claude-agent-sdk",
    dists=("claude-agent-sdk", "mcp"),
    records="every prompt and control request with the frames that came of it, at the transport; permissions, hooks and"
    " tools of servers in this process; in replay no command line is started, and none need be installed",
    limits=(
        "What the command line does by itself (its own tools, servers that it starts) is seen as the messages that tell"
        " of it.",
        "An agent that stops reading in the middle of a turn may be asked by the command line in one run and not in"
        " another.",
        "What the command line writes to stderr is recorded if options.stderr listens to it.",
        "A client that was connected outside of the test fails the test that uses it.",
        'In mode new_episodes a new prompt in a known conversation is refused: record the whole of it with "rewrite".',
        "A session_store is written in replay, too.",
        "Under mcp 1.x, what the body of a tool in this process asks of others is not recorded as below that tool.",
    ),
)

SECRET = "shop-key-b1946ac92492d234"
EVERYTHING = (
    'tool add {"a": 1, "b": 2}\nsay it is three',
    'may Read {"path": "stock.txt"}\nmay Bash {"command": "rm stock.txt"}\nhook PreToolUse',
    "complain low stock\nnoise\nstream one two three",
    "secret",
)


@dataclass
class Place:
    """Where the command line lies, and what it and the agent's own functions did."""

    cli: Path
    ledger: Path
    cassette: Path
    ran: list[Any] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    permission: Callable[[str], Any] = lambda name: (
        PermissionResultAllow(updated_input={"path": "safe.txt"})
        if name == "Read"
        else PermissionResultDeny(message="never")
    )
    price: str = "Add two numbers"

    @property
    def did(self) -> list[str]:
        return self.ledger.read_text(encoding="utf-8").splitlines() if self.ledger.exists() else []

    def options(self, **changes: Any) -> ClaudeAgentOptions:
        """All that an author can choose."""

        @tool("add", self.price, {"a": int, "b": int})
        async def add(args: dict[str, Any]) -> dict[str, Any]:
            self.ran.append(args)
            return {"content": [{"type": "text", "text": str(args["a"] + args["b"])}]}

        @tool("slow", "Takes its time", {"number": int})
        async def slow(args: dict[str, Any]) -> dict[str, Any]:
            self.ran.append(args)
            await asyncio.sleep(0.1 * (2 - args["number"]))
            return {"content": [{"type": "text", "text": f"number {args['number']}"}]}

        async def may(name: str, given: dict[str, Any], context: Any) -> Any:
            self.asked.append(name)
            if name == "Slow":
                await asyncio.sleep(30)
            return self.permission(name)

        async def hook(given: Any, tool_use_id: str | None, context: Any) -> Any:
            self.asked.append(given["hook_event_name"])
            return {"continue_": True, "reason": given["tool_input"]["command"]}

        chosen: dict[str, Any] = {
            "cli_path": self.cli,
            "system_prompt": "You sell flowers.",
            "model": "claude-sonnet-5",
            "mcp_servers": {"shop": create_sdk_mcp_server("shop", tools=[add, slow])},
            "can_use_tool": may,
            "hooks": {"PreToolUse": [HookMatcher(hooks=[hook])]},
            "env": {"SHOP_API_KEY": SECRET, "CLAUDE_LEDGER": str(self.ledger)},
            "stderr": self.complaints.append,
        }
        return ClaudeAgentOptions(**{**chosen, **changes})

    def talks(self, *prompts: str, **changes: Any) -> Callable[[], Any]:
        """An agent that has a conversation."""

        async def agent() -> list[Any]:
            said: list[Any] = []
            async with ClaudeSDKClient(self.options(**changes)) as client:
                for prompt in prompts:
                    await client.query(prompt)
                    said.extend([message async for message in client.receive_response()])
            return said

        return agent

    def asks(self, prompt: Any, **changes: Any) -> Callable[[], Any]:
        """An agent that asks once."""
        plain: dict[str, Any] = {"mcp_servers": {}, "can_use_tool": None, "hooks": None}

        async def agent() -> list[Any]:
            given = prompt() if callable(prompt) else prompt
            said: list[Any] = []
            try:
                async for message in query(prompt=given, options=self.options(**{**plain, **changes})):
                    said.append(message)
            except Exception as error:  # noqa: BLE001 - what it raises is compared, too
                said.append((type(error).__name__, str(error), getattr(error, "exit_code", "")))
            return said

        return agent

    def holds(self, agent: Callable[[], Any]) -> Outcome:
        """Record, take the command line away, and replay: all the same, nothing started, no tool run."""
        recorded = record(self.cassette, agent)
        did, ran = self.did, list(self.ran)
        asked, complaints = list(self.asked), list(self.complaints)
        with suppress(FileNotFoundError):
            self.cli.unlink()
        STARTED.clear()
        for _ in range(3):
            self.asked.clear()
            self.complaints.clear()
            again = replay(self.cassette, agent)
            assert texts(again.value) == texts(recorded.value)
            assert repr(again.raised) == repr(recorded.raised)
            assert self.asked == asked
            assert texts(self.complaints) == texts(complaints)
            assert self.ran == ran, "a tool ran again"
            assert self.did == did
            assert not again.verdict.notes
        assert STARTED == [], "a process was started"
        return recorded


def texts(value: Any) -> str:
    """What came, with what redaction leaves of it."""
    return repr(value).replace(SECRET, "[redacted]")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    cli = tmp_path / "claude"
    cli.write_text(f"#!{sys.executable}\n{Path(claude_cli.__file__).read_text(encoding='utf-8')}", encoding="utf-8")
    cli.chmod(0o755)
    return Place(cli, tmp_path / "ledger", tmp_path / "run.yaml")


def tree(outcome: Outcome) -> list[str]:
    return [f"{span.name} [{span.kind}]" for span in outcome.verdict.live if span.exchange]


def test_all_that_they_say_to_each_other_without_the_command_line(place: Place) -> None:
    recorded = place.holds(place.talks(*EVERYTHING))
    assert place.ran == [{"a": 1, "b": 2}]
    assert place.asked == ["Read", "Bash", "PreToolUse"]
    assert place.complaints[:3] == ["low stock 0", "low stock 1", "low stock 2"]
    assert tree(recorded) == [
        "claude [process]",
        "initialize [agent]",
        "invoke_agent claude [agent]",
        "initialize shop [callback]",
        "tools/list shop [callback]",
        "execute_tool add [tool]",
        "invoke_agent claude [agent]",
        "can_use_tool Read [callback]",
        "can_use_tool Bash [callback]",
        "hook_callback PreToolUse [callback]",
        "invoke_agent claude [agent]",
        "invoke_agent claude [agent]",
    ]
    turn = next(span for span in recorded.verdict.live if span.name == "invoke_agent claude")
    assert {key: turn.attributes[key] for key in turn.attributes if "usage" in key or "cost" in key} == {
        "gen_ai.usage.input_tokens": 15,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "claude_agent_sdk.total_cost_usd": 0.0125,
    }
    assert turn.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert turn.attributes["gen_ai.request.model"] == "claude-sonnet-5"
    written = place.cassette.read_text(encoding="utf-8")
    assert SECRET not in written
    assert "req_1_" not in written


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("way", ["text", "stream"])
def test_one_question(loop: str, way: str, place: Place) -> None:
    async def prompts() -> AsyncIterator[dict[str, Any]]:
        for text in ("say first", "stream second one"):
            yield {"type": "user", "message": {"role": "user", "content": text}, "parent_tool_use_id": None}

    agent = place.asks("complain hm\nsay hello" if way == "text" else prompts)
    recorded = place.holds(agent if loop == "asyncio" else lambda: trio.run(agent))
    assert "HELLO" in repr(recorded.value) if way == "text" else "SECOND ONE" in repr(recorded.value)


def test_permissions_and_tools_in_one_question_under_trio(place: Place) -> None:
    async def prompt() -> AsyncIterator[dict[str, Any]]:
        text = 'tool add {"a": 2, "b": 2}\nmay Read {}\nhook PreToolUse'
        yield {"type": "user", "message": {"role": "user", "content": text}, "parent_tool_use_id": None}

    whole = place.options()
    agent = place.asks(prompt, mcp_servers=whole.mcp_servers, can_use_tool=whole.can_use_tool, hooks=whole.hooks)
    recorded = place.holds(lambda: trio.run(agent))
    assert '"text": "4"' in repr(recorded.value)
    assert place.asked == ["Read", "PreToolUse"]


def test_what_an_author_changes_is_red(place: Place) -> None:
    prompts = EVERYTHING[:3]
    record(place.cassette, place.talks(*prompts))
    did, ran = place.did, list(place.ran)
    STARTED.clear()

    def blamed(agent: Callable[[], Any]) -> list[tuple[str, str, list[str]]]:
        started = time.monotonic()
        outcome = run(place.cassette, agent)
        assert outcome.failure is not None
        assert time.monotonic() - started < 20
        return [(str(one.kind), one.path[-1], [change.path for change in one.changes]) for one in outcome.causes]

    (word,) = blamed(place.talks(prompts[0].replace("three", "3"), *prompts[1:]))
    assert word == ("input_changed", "invoke_agent claude", ["request.params.message.content"])
    (option,) = blamed(place.talks(*prompts, system_prompt="You sell bread."))
    assert option == ("input_changed", "claude", ["request.argv[5]"])
    (variable,) = blamed(
        place.talks(*prompts, env={"CLAUDE_LEDGER": str(place.ledger), "SHOP_API_KEY": SECRET, "X": "1"})
    )
    assert variable == ("input_changed", "claude", ["request.env.X"])
    (dropped,) = blamed(place.talks(*prompts[:2]))
    assert dropped[:2] == ("span_removed", "invoke_agent claude")
    added = blamed(place.talks(*prompts, "say more"))
    assert ("span_added", "invoke_agent claude", []) in added
    place.permission = lambda name: PermissionResultAllow()
    answers = blamed(place.talks(*prompts))
    assert answers[0][:2] == ("output_changed", "can_use_tool Read")
    place.permission, place.price = Place.permission, "Add any two numbers"
    (offered,) = blamed(place.talks(*prompts))
    assert offered[:2] == ("output_changed", "tools/list shop")
    place.price = Place.price
    (asked,) = blamed(place.talks(*prompts, hooks=None))
    assert asked == ("input_changed", "initialize", ["request.params.hooks"])
    first = blamed(place.talks(*prompts[1:]))
    assert first[0][:2] == ("span_removed", "invoke_agent claude")
    once = blamed(place.asks(prompts[2]))
    assert ("input_changed", "claude") in [one[:2] for one in once]
    assert place.did == did
    assert place.ran == ran
    assert STARTED == []


@pytest.mark.parametrize(
    ("prompt", "raised"),
    [
        ("say a\ndie 3", "ProcessError"),
        ("complain ouch\nhalf 4", "ProcessError"),
        ("say a\nhalf 0", ""),
        ("say a\nbroken", "CLIJSONDecodeError"),
        ("say a\nfail", "ResultError"),
        ("noise\nsay a", ""),
    ],
)
def test_a_command_line_that_goes_wrong(prompt: str, raised: str, place: Place) -> None:
    recorded = place.holds(place.asks(prompt))
    assert repr(recorded.value).count("Error'") == bool(raised)
    assert raised in repr(recorded.value)
    if "die" in prompt:
        link, turn = recorded.verdict.live.spans[1], recorded.verdict.live.spans[-1]
        assert link.exchange is not None
        assert link.exchange.response is not None
        assert link.exchange.response["exit"] == 3
        assert turn.status == "error"


def test_a_line_that_is_longer_than_allowed(place: Place) -> None:
    recorded = place.holds(place.asks("say " + 4000 * "x", max_buffer_size=3000))
    assert "maximum buffer size" in repr(recorded.value)


def test_a_command_line_that_is_not_there(place: Place) -> None:
    place.cli.unlink()
    recorded = place.holds(place.asks("say a"))
    assert "CLINotFoundError" in repr(recorded.value)


def test_a_command_line_that_dies_between_turns(place: Place) -> None:
    async def agent() -> list[Any]:
        said: list[Any] = []
        async with ClaudeSDKClient(place.options()) as client:
            await client.query("say a")
            said.extend([message async for message in client.receive_response()])
            await client.query("die 5")
            try:
                async for message in client.receive_messages():
                    said.append(message)
            except Exception as error:  # noqa: BLE001 - compared
                said.append(repr(error))
            try:
                await client.query("say b")
            except Exception as error:  # noqa: BLE001 - compared
                said.append(repr(error))
        return said

    recorded = place.holds(agent)
    assert "exit code: 5" in repr(recorded.value[-1])


def test_prompts_that_are_sent_at_once(place: Place) -> None:
    async def agent() -> list[Any]:
        said: list[Any] = []
        async with ClaudeSDKClient(place.options()) as client:
            for prompt in EVERYTHING[:3]:
                await client.query(prompt)
            for _ in range(3):
                said.extend([message async for message in client.receive_response()])
        return said

    recorded = place.holds(agent)
    turns = [span for span in recorded.verdict.live if span.name == "invoke_agent claude"]
    assert [turn.attributes["gen_ai.usage.input_tokens"] for turn in turns] == [15, 15, 15]


def test_interrupts_and_control_requests(place: Place) -> None:
    async def agent() -> list[Any]:
        said: list[Any] = []
        async with ClaudeSDKClient(place.options()) as client:
            await client.set_model("claude-opus-5")
            try:
                await client.set_permission_mode("plan")
            except Exception as error:  # noqa: BLE001 - compared
                said.append(repr(error))
            await client.query("endless")
            async for message in client.receive_response():
                said.append(message)
                if "WORKING" in repr(message):
                    await client.interrupt()
            await client.query("say again")
            said.extend([message async for message in client.receive_response()])
        return said

    recorded = place.holds(agent)
    assert said_in(recorded) >= {"WORKING", "AGAIN", "claude-opus-5", "error_during_execution", "plan is not allowed"}
    assert "control interrupt" in place.did


def said_in(outcome: Outcome) -> set[str]:
    words = ("WORKING", "AGAIN", "claude-opus-5", "error_during_execution", "plan is not allowed")
    return {word for word in words if word in repr(outcome.value)}


def test_giving_up_on_a_command_line_that_does_not_answer(place: Place) -> None:
    async def agent() -> list[Any]:
        said: list[Any] = []

        async def listen() -> None:
            async with ClaudeSDKClient(place.options()) as client:
                await client.query("wait")
                async for message in client.receive_response():
                    said.append(message)

        try:
            await asyncio.wait_for(listen(), 1.5)
        except TimeoutError:
            said.append("gave up")
        return said

    recorded = place.holds(agent)
    assert recorded.value[-1] == "gave up"
    assert "WAITING" in repr(recorded.value)


def test_tools_side_by_side_and_a_request_that_is_taken_back(place: Place) -> None:
    recorded = place.holds(place.talks("tools slow 0 1", "cancelled\nsay on"))
    assert repr(recorded.value).index("number 0") < repr(recorded.value).index("number 1")
    assert "ON" in repr(recorded.value)
    assert place.ran == [{"number": 0}, {"number": 1}]


def test_a_reply_is_released_only_after_its_send(place: Place) -> None:
    async def agent(*, early: float = 0) -> list[str]:
        said: list[str] = []
        async with ClaudeSDKClient(place.options()) as client:

            async def listen() -> None:
                async for message in client.receive_messages():
                    said.append(type(message).__name__)

            listening = asyncio.ensure_future(listen())
            await client.query("say a")
            await until(lambda: said[-1:] == ["ResultMessage"])
            await asyncio.sleep(early)
            said.append("second")
            await client.query("say b")
            await until(lambda: said[-1:] == ["ResultMessage"])
            listening.cancel()
        return said

    recorded = record(place.cassette, agent)
    place.cli.unlink()
    again = replay(place.cassette, lambda: asyncio.run(agent(early=0.3)))
    assert again.value == recorded.value
    assert recorded.value[3:5] == ["second", "SystemMessage"]


async def until(over: Callable[[], bool]) -> None:
    for _ in range(1000):
        if over():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def test_what_a_tool_asks_of_others_is_below_it(place: Place, tmp_path: Path) -> None:
    @tool("list", "List a directory", {})
    async def listing(args: dict[str, Any]) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec("ls", str(tmp_path / "stock"), stdout=asyncio.subprocess.PIPE)
        text, _ = await process.communicate()
        return {"content": [{"type": "text", "text": text.decode()}]}

    stock = tmp_path / "stock"
    stock.mkdir()
    (stock / "roses").write_text("7")
    servers = {"shop": create_sdk_mcp_server("shop", tools=[listing])}
    agent = place.talks("tool list {}", mcp_servers=servers)
    recorded = record(place.cassette, agent, commands=["ls *"])
    assert "roses" in repr(recorded.value)
    spans = recorded.verdict.live
    child = next(span for span in spans if span.name == "ls")
    above = [span.span_id for span in spans if span.name == "execute_tool list"]
    while child.span_id not in above:
        assert child.parent_span_id is not None, "it is not below the tool"
        child = spans.by_id[child.parent_span_id]
    place.cli.unlink()
    STARTED.clear()
    assert replay(place.cassette, agent, commands=["ls *"]).value == recorded.value
    assert STARTED == []


def test_secrets_of_servers_and_arguments_stay_out(place: Place) -> None:
    servers = {
        "crm": {"command": "crm", "args": ["--token", "crm-token-77f0a1"], "env": {"CRM_API_KEY": "crm-key-0011aabb"}}
    }
    agent = place.asks("secret", mcp_servers=servers, extra_args={"api-key": "flag-key-5522ff"})
    recorded = record(place.cassette, agent)
    assert SECRET in repr(recorded.value)
    written = place.cassette.read_text(encoding="utf-8")
    assert not [key for key in (SECRET, "crm-token-77f0a1", "crm-key-0011aabb", "flag-key-5522ff") if key in written]
    place.cli.unlink()
    replay(place.cassette, agent)


def test_waiting_for_what_never_came_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def agent() -> None:
        async with ClaudeSDKClient(place.options()) as client:
            await client.query("say a")
            async for _ in client.receive_messages():
                pass

    record(place.cassette, place.talks("say a"))
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.5)
    outcome = run(place.cassette, agent)
    assert "waited 0.5 seconds for the agent's next message to the command line" in str(outcome.failure)


def test_thinking_longer_than_replay_waits_is_no_waiting(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def agent() -> list[Any]:
        said: list[Any] = []
        async with ClaudeSDKClient(place.options()) as client:
            for prompt in ("say a", "say b"):
                await asyncio.sleep(0.3)
                await client.query(prompt)
                said.extend([message async for message in client.receive_response()])
        return said

    recorded = record(place.cassette, agent)
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.1)
    assert replay(place.cassette, agent).value == recorded.value


class Wire(Transport):
    """A transport of a user's own."""

    def __init__(self, ledger: list[str], *, fails: bool = False) -> None:
        self.ledger = ledger
        self.fails = fails
        self.frames: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def connect(self) -> None:
        self.ledger.append("connect")

    async def write(self, data: str) -> None:
        frame = json.loads(data)
        self.ledger.append(frame["type"])
        if frame["type"] == "control_request":
            response = {"subtype": "success", "request_id": frame["request_id"], "response": {}}
            await self.frames.put({"type": "control_response", "response": response})
        else:
            await self.frames.put({"type": "system", "subtype": "init", "heard": frame["message"]["content"]})
            await self.frames.put(None)

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        while (frame := await self.frames.get()) is not None:
            yield frame
        if self.fails:
            raise ConnectionResetError("the line is dead")

    async def end_input(self) -> None:
        self.ledger.append("end")

    async def close(self) -> None:
        self.ledger.append("close")

    def is_ready(self) -> bool:
        return True


@pytest.mark.parametrize("fails", [False, True])
def test_a_transport_of_ones_own(fails: bool, place: Place) -> None:
    ledger: list[str] = []

    async def agent(word: str = "hello") -> list[Any]:
        said: list[Any] = []
        try:
            async for message in query(prompt=word, transport=Wire(ledger, fails=fails)):
                said.append(message)
        except Exception as error:  # noqa: BLE001 - compared
            said.append(repr(error))
        async with ClaudeSDKClient(transport=Wire(ledger)) as client:
            await client.query("second")
            said.extend([message async for message in client.receive_response()])
        return said

    recorded = record(place.cassette, agent)
    assert ("dead" in repr(recorded.value)) == fails
    assert ledger.count("connect") == 2
    did = list(ledger)
    assert texts(replay(place.cassette, agent).value) == texts(recorded.value)
    changed = run(place.cassette, lambda: asyncio.run(agent("goodbye")))
    assert [str(one.kind) for one in changed.causes] == ["input_changed"]
    assert ledger == did


async def test_a_client_that_was_connected_outside_of_the_test(place: Place) -> None:
    async with ClaudeSDKClient(place.options()) as client:

        async def speaks() -> None:
            with use_cassette(place.cassette, mode="rewrite"):
                await client.query("say a")
                async for _ in client.receive_response():
                    pass

        with pytest.raises(RecordingError, match="connected outside of the test"):
            await speaks()
    assert not place.cassette.exists()


def test_a_new_prompt_in_a_known_conversation_is_refused(place: Place) -> None:
    record(place.cassette, place.talks("say a"))
    kept = place.cassette.read_bytes()
    more = run(place.cassette, place.talks("say a", "say b"), mode="new_episodes")
    assert more.failure is not None
    assert "record the whole of it anew" in str(more.failure)
    assert place.cassette.read_bytes() == kept
    other = record(place.cassette, place.talks("say a", "say b", system_prompt="Another."), mode="new_episodes")
    assert "B" in repr(other.value)
