"""Record once, replay for ever: no network, no tool bodies, the same answers, whatever the machine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI

import agents
import model_replies
from model_replies import ToolCall, answer
from project import Project
from pytest_spanchain import _chain, _codec, cli, tool
from pytest_spanchain.errors import CassetteBroken
from recording import record, replay, run
from servers import CountingListener, ModelServer, Reply, Request

TOOLS = ["agents:lookup", "agents:refund", "agents:notify", "agents:broken"]
PROMPT = "Refund order 1412"


def shop(request: Request) -> Reply:
    """A model that looks an order up, then refunds it, then says what happened."""
    results = model_replies.tool_results(request)
    if not results:
        return answer(request, "Let me see.", tools=[ToolCall("lookup", {"order": "1412"})])
    if len(results) == 1:
        return answer(request, tools=[ToolCall("refund", {"order": "1412", "amount": 19.5})])
    return answer(request, f"Done: {results[-1]}.")


@pytest.fixture(autouse=True)
def _no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new client reads the machine's certificates, which takes longer than a replay."""
    empty = tmp_path / "certificates"
    empty.mkdir()
    monkeypatch.setenv("SSL_CERT_DIR", str(empty))


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger.txt"
    monkeypatch.setenv("AGENT_LEDGER", str(path))
    return path


@pytest.fixture
def gone(sdk_env: ModelServer) -> Iterator[Callable[[], CountingListener]]:
    """Stops the server and puts a listener that counts on its port."""
    listeners: list[CountingListener] = []

    def stop() -> CountingListener:
        sdk_env.close()
        listener = CountingListener(sdk_env.port)
        listeners.append(listener.__enter__())
        return listener

    yield stop
    for listener in listeners:
        listener.__exit__(None, None, None)


LOOPS: dict[str, Callable[[], Any]] = {
    "openai": lambda: agents.tool_loop(PROMPT),
    "openai-async": lambda: asyncio.run(agents.atool_loop(PROMPT)),
    "openai-stream": lambda: agents.stream_tool_loop(PROMPT),
    "anthropic": lambda: agents.claude_tool_loop(PROMPT),
    "anthropic-async-stream": lambda: asyncio.run(agents.aclaude_tool_loop(PROMPT)),
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))
def test_hundred_replays_touch_nothing(
    loop: Callable[[], Any],
    sdk_env: ModelServer,
    gone: Callable[[], CountingListener],
    ledger: Path,
    tmp_path: Path,
) -> None:
    sdk_env.script(shop)
    cassette = tmp_path / "run.yaml"
    first = record(cassette, loop, tools=TOOLS)
    assert first.value == "Done: refunded 19.5 for 1412."
    assert first.verdict.live_calls == 5
    listener = gone()
    before = cassette.read_bytes()
    for _ in range(100):
        assert replay(cassette, loop, tools=TOOLS).value == first.value
    assert listener.connections == 0
    assert ledger.read_text().splitlines() == ["lookup 1412", "refund 1412 19.5"]
    assert cassette.read_bytes() == before


def test_replay_is_not_bound_to_where_it_was_recorded(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Path
) -> None:
    server.script(shop)
    cassette = tmp_path / "run.yaml"
    here, there = tmp_path / "here", tmp_path / "there"
    for home in (here, there):
        home.mkdir()

    def surroundings(home: Path, port: int, key: str) -> None:
        monkeypatch.chdir(home)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("TMPDIR", str(home))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", key)
        monkeypatch.setenv("OPENAI_ORG_ID", f"org of {home.name}")

    surroundings(here, server.port, "sk-recorded-with-this-key-0123456789")
    first = record(cassette, LOOPS["openai"], tools=TOOLS)
    text = cassette.read_text()
    assert "sk-recorded-with-this-key" not in text
    assert str(tmp_path) not in text
    assert str(server.port) not in text
    with CountingListener() as listener:
        surroundings(there, listener.port, "another-key")
        monkeypatch.setenv("UNRELATED_SECRET_TOKEN", "x" * 40)
        assert replay(cassette, LOOPS["openai"], tools=TOOLS).value == first.value
        assert listener.connections == 0


def test_replay_needs_only_a_key_of_any_kind_in_the_environment(
    sdk_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_env.script(shop)
    cassette = tmp_path / "run.yaml"
    record(cassette, LOOPS["anthropic"], tools=TOOLS)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    replay(cassette, LOOPS["anthropic"], tools=TOOLS)


def test_hundred_sessions_touch_nothing(
    pytester: pytest.Pytester,
    sdk_env: ModelServer,
    gone: Callable[[], CountingListener],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same with a pytest session for each replay, as users run them."""
    project = Project(pytester, sdk_env, monkeypatch)
    project.write(
        "def book(order):\n    with open('ledger.txt', 'a') as ledger:\n        ledger.write(f'{order}\\n')\n",
        "shop.py",
    )
    project.write(
        "import shop\n\n\n@pytest.mark.cassette(tools=['shop:book'])\nasync def test_it():\n"
        "    assert ask('hello') == 'You said: hello'\n    shop.book('1412')\n"
        "    assert await aask('bye') == 'You said: bye'\n"
    )
    pytester.syspathinsert()
    project.record()
    listener = gone()
    for _ in range(100):
        result = project.run()
        assert (result.outcomes, result.counts["live"]) == ({"passed": 1}, 0)
    assert listener.connections == 0
    assert (project.path / "ledger.txt").read_text() == "1412\n"


def test_a_library_that_is_not_recognised_stops_every_test(
    pytester: pytest.Pytester, sdk_env: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls would go out unrecorded: in the first test, and in those that come after it."""
    project = Project(pytester, sdk_env, monkeypatch)
    project.write("import httpx2\n\n\nclass Other:\n    pass\n\n\nhttpx2.HTTPTransport = Other\n", "conftest.py")
    project.write("".join(f"@pytest.mark.cassette\ndef test_{n}():\n    ask('hi')\n\n\n" for n in range(3)))
    result = project.run("--record-mode=once", process=True)
    assert result.outcomes == {"errors": 3}, result.out
    assert "httpx2 is not recognised" in result.out
    assert (project.requests, project.cassettes()) == (0, [])


# --- formatters --------------------------------------------------------------------------------------------------


def _backwards(value: Any) -> Any:
    """The same data, keys the other way round."""
    if isinstance(value, dict):
        return {key: _backwards(item) for key, item in reversed(value.items())}
    return [_backwards(item) for item in value] if isinstance(value, list) else value


def _dumped(text: str, **options: Any) -> str:
    return str(yaml.safe_dump(_backwards(yaml.safe_load(text)), sort_keys=False, **options))


FORMATTERS: dict[str, Callable[[str], str]] = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "no comments": lambda text: re.sub(r"^#.*\n", "", text, flags=re.MULTILINE),
    "licence on top": lambda text: f"# Copyright | nobody\n\n---\n{text}",
    "indented by six, keys backwards": lambda text: _dumped(text, indent=6, allow_unicode=True),
    "narrow, ASCII": lambda text: _dumped(text, width=40),
    "on one line": lambda text: _dumped(text, default_flow_style=True, width=10**9),
}
ODD = "one\r\n  two\n\tthree \u2028 \U0001f600 \n\n"


@tool
def odd(text: str) -> dict[str, Any]:
    """Keys out of order, and numbers and texts that careless tools change."""
    return {"z": [1.0, 1, 1e-07, 2**70, -0.0], "a": {"no": "1_000", "B": text, "0": " ", "": None}, "m": f"{text}\r"}


def _odd_agent() -> list[Any]:
    with OpenAI() as client:
        said = client.chat.completions.with_raw_response.create(
            model="gpt-test", messages=[{"role": "user", "content": json.dumps(odd(ODD))}]
        )
    return [said.content, agents.stream(ODD), agents.claude_stream(ODD), repr(odd(ODD)), agents.tool_loop(PROMPT)]


def _odd_model(request: Request) -> Reply:
    if request.body.get("tools"):
        return shop(request)
    return answer(request, f"{ODD}{model_replies.last_text(request)}")


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_what_a_formatter_does_to_the_file_changes_no_replay(
    formatter: str, sdk_env: ModelServer, gone: Callable[[], CountingListener], tmp_path: Path, ledger: Path
) -> None:
    """The very bytes and the very key order come back, though the file has other ones."""
    sdk_env.script(_odd_model)
    cassette = tmp_path / "run.yaml"
    first = record(cassette, _odd_agent, tools=TOOLS)
    text = cassette.read_text(encoding="utf-8")
    changed = FORMATTERS[formatter](text)
    assert changed != text
    cassette.write_bytes(changed.encode())
    assert cli.main(["verify", str(cassette)]) == 0
    listener = gone()
    assert replay(cassette, _odd_agent, tools=TOOLS).value == first.value
    assert listener.connections == 0


# --- re-recording ------------------------------------------------------------------------------------------------

_CHURN = re.compile(
    r"^[-+]\s*(?:- )?\"?(?:prev_hash|sha256_hash|recorded_at|supersedes|timestamp_ns|duration_ns|times|genesis|head"
    r"|clocks|context: \{\"clocks)\b"
)


def changed_lines(old: str, new: str) -> list[str]:
    """Changed lines of a diff that are neither times nor hashes."""
    lines = list(unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0))[2:]
    return [line for line in lines if not line.startswith("@@") and not _CHURN.match(line)]


def jittered(request: Request) -> Reply:
    """Answers that take a while, another one each time."""
    threading.Event().wait(int.from_bytes(os.urandom(1), "big") / 255 * 0.02)
    return answer(request, f"you said {model_replies.last_text(request)}")


FANS: dict[str, Callable[[], Any]] = {
    "loop": LOOPS["openai"],
    "gather": lambda: asyncio.run(agents.fan_out([f"prompt {n}" for n in range(6)])),
    "threads": lambda: agents.thread_fan_out([f"prompt {n}" for n in range(6)]),
    "pool": lambda: agents.pool_fan_out([f"prompt {n}" for n in range(6)]),
    "two-agents": lambda: asyncio.run(_two_agents()),
}


async def _two_agents() -> list[str]:
    return list(await asyncio.gather(agents.atool_loop(PROMPT), agents.atool_loop(f"Please: {PROMPT}")))


@pytest.mark.parametrize("fan", list(FANS))
def test_recording_again_changes_only_times_and_hashes(
    fan: str, sdk_env: ModelServer, tmp_path: Path, ledger: Path
) -> None:
    sdk_env.script(shop if fan in ("loop", "two-agents") else jittered)
    cassette = tmp_path / "run.yaml"
    record(cassette, FANS[fan], mode="rewrite", tools=TOOLS)
    for _ in range(6):
        old = cassette.read_text()
        again = record(cassette, FANS[fan], mode="rewrite", tools=TOOLS)
        assert changed_lines(old, cassette.read_text()) == []
        assert again.verdict.deviations == ()
    replay(cassette, FANS[fan], tools=TOOLS)


@pytest.mark.parametrize("part", ["response", "request"])
def test_a_recomputed_chain_over_what_cannot_be_served_fails_the_run(
    sdk_env: ModelServer, tmp_path: Path, part: str
) -> None:
    answers: list[str] = []
    sdk_env.script(lambda request: answer(request, f"You said: {'hello ' * 400}"))  # what is small is built at load

    def agent() -> None:
        try:
            answers.append(agents.ask("hello"))
        except Exception:  # noqa: BLE001 - the agent carries on, whatever it is
            answers.append("sorry")

    path = tmp_path / "c.yaml"
    record(path, agent)
    document = _codec.loads(path.read_bytes()).document
    del document["entries"][1]["payload"][part]["headers"]
    link = _chain.genesis(document["header"])
    for entry in document["entries"]:
        entry["prev_hash"] = link
        link = entry["sha256_hash"] = _chain.entry_hash(entry)
    path.write_bytes(_codec.dumps(document))
    words = f"entry 1, field payload.{part}.headers: is missing"
    if part == "request":
        with pytest.raises(CassetteBroken, match=words):
            run(path, agent)
        return
    outcome = run(path, agent)
    assert words in str(outcome.failure)
    assert [given[:9] for given in answers] == ["You said:", "sorry"]
