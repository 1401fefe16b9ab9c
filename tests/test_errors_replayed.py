"""What went wrong while recording goes wrong again in replay: same exception, same message, and no waiting."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from model_replies import answer
from recording import Outcome, record, replay, run
from servers import Hang, ModelServer, Reply, Reset, Script, closed_port, in_turn, server_error, too_many_requests

WORD: list[Any] = [{"role": "user", "content": "hello"}]


def chat(**options: Any) -> str:
    with openai.OpenAI(**options) as client:
        return client.chat.completions.create(model="gpt-test", messages=WORD).choices[0].message.content or ""


async def achat(**options: Any) -> str:
    async with openai.AsyncOpenAI(**options) as client:
        completion = await client.chat.completions.create(model="gpt-test", messages=WORD)
    return completion.choices[0].message.content or ""


def message(**options: Any) -> str:
    with anthropic.Anthropic(**options) as client:
        said = client.messages.create(model="claude-test", max_tokens=9, messages=WORD)
    return said.content[0].text  # type: ignore[union-attr]


async def amessage(**options: Any) -> str:
    async with anthropic.AsyncAnthropic(**options) as client:
        said = await client.messages.create(model="claude-test", max_tokens=9, messages=WORD)
    return said.content[0].text  # type: ignore[union-attr]


CALLS: dict[str, Callable[..., Any]] = {
    "openai": chat,
    "openai-async": achat,
    "claude": message,
    "claude-async": amessage,
}
SDKS = pytest.mark.parametrize("name", list(CALLS))


def agent_of(name: str, **options: Any) -> Callable[[], Any]:
    call = CALLS[name]
    if name.endswith("async"):

        async def agent() -> Any:
            return await call(**options)

        return agent
    return lambda: call(**options)


def told(outcome: Outcome) -> tuple[type, str, str]:
    """All that an agent can see of an exception: type, message, and what lies under it."""
    error = outcome.raised
    assert error is not None
    return type(error), str(error), repr(error.__cause__)


def exchanges(outcome: Outcome) -> list[Any]:
    return [span.exchange for span in outcome.verdict.live if span.exchange]


@SDKS
def test_retried_after_429_without_waiting(name: str, sdk_env: ModelServer, tmp_path: Path) -> None:
    script: list[Script] = [in_turn(too_many_requests(retry_after="1"), too_many_requests(retry_after="1"))]

    def busy(request: Any) -> Reply:
        return script[0](request) if len(sdk_env.requests) <= 2 else answer(request, "at last")

    sdk_env.script(busy)
    begun = time.monotonic()
    recorded = record(tmp_path / "c.yaml", agent_of(name, max_retries=3))
    assert time.monotonic() - begun > 2, "the SDK did not wait while recording, so the replay below proves nothing"
    assert recorded.value == "at last"
    assert [exchange.response["status"] for exchange in exchanges(recorded)] == [429, 429, 200]
    begun = time.monotonic()
    assert replay(tmp_path / "c.yaml", agent_of(name, max_retries=3)).value == "at last"
    assert time.monotonic() - begun < 1


@SDKS
def test_500_to_the_end_of_patience(name: str, sdk_env: ModelServer, tmp_path: Path) -> None:
    sdk_env.script(lambda request: server_error("on fire"))
    recorded = record(tmp_path / "c.yaml", agent_of(name, max_retries=1))
    assert "on fire" in str(recorded.raised)
    assert len(exchanges(recorded)) == 2
    replayed = replay(tmp_path / "c.yaml", agent_of(name, max_retries=1))
    assert told(replayed) == told(recorded)


@SDKS
def test_timeout(name: str, sdk_env: ModelServer, tmp_path: Path) -> None:
    sdk_env.script(lambda request: Hang())
    recorded = record(tmp_path / "c.yaml", agent_of(name, timeout=0.2, max_retries=0))
    assert type(recorded.raised).__name__ == "APITimeoutError"
    replayed = replay(tmp_path / "c.yaml", agent_of(name, timeout=0.2, max_retries=0))
    assert told(replayed) == told(recorded)


@SDKS
@pytest.mark.parametrize("way", ["refused", "reset"])
def test_no_connection(name: str, way: str, sdk_env: ModelServer, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_retries": 1}
    if way == "refused":
        options["base_url"] = f"http://127.0.0.1:{closed_port()}"
    sdk_env.script(lambda request: Reset())
    recorded = record(tmp_path / "c.yaml", agent_of(name, **options))
    assert type(recorded.raised).__name__ == "APIConnectionError"
    assert len(exchanges(recorded)) == 2
    begun = time.monotonic()
    replayed = replay(tmp_path / "c.yaml", agent_of(name, **options))
    assert time.monotonic() - begun < 1
    assert told(replayed) == told(recorded)


@pytest.mark.parametrize("lib", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("way", ["timeout", "refused", "reset", "connect-timeout", "protocol"])
def test_errors_of_the_library_itself(lib: Any, way: str, server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: Hang() if way == "timeout" else Reset())
    url = f"http://127.0.0.1:{closed_port()}" if way == "refused" else server.url
    if way == "protocol":
        url = url.replace("http:", "https:")
    timeout = lib.Timeout(5, connect=1e-9) if way == "connect-timeout" else 0.2

    def agent() -> Any:
        with lib.Client(timeout=timeout, verify=False) as client:
            return client.get(url).status_code

    recorded = record(tmp_path / "c.yaml", agent)
    assert isinstance(recorded.raised, lib.TransportError)
    replayed = replay(tmp_path / "c.yaml", agent)
    assert told(replayed)[:2] == told(recorded)[:2]
    assert replayed.raised.request.url == recorded.raised.request.url  # type: ignore[union-attr]


@SDKS
def test_error_status_keeps_its_body_and_headers(name: str, sdk_env: ModelServer, tmp_path: Path) -> None:
    sdk_env.script(lambda request: too_many_requests(retry_after="7"))
    seen: list[tuple[Any, Any]] = []
    for step in (record, replay):
        outcome = step(tmp_path / "c.yaml", agent_of(name, max_retries=0))
        error: Any = outcome.raised
        seen.append((error.body, error.response.headers.get("retry-after")))
    assert seen[0] == seen[1]
    assert seen[0][1] == "7"


# --- misses ------------------------------------------------------------------------------------------------------


@SDKS
def test_a_miss_is_not_retried_and_not_swallowed(name: str, sdk_env: ModelServer, tmp_path: Path) -> None:
    sdk_env.script(lambda request: answer(request, "hi"))
    agent = agent_of(name, max_retries=2)
    record(tmp_path / "c.yaml", agent)
    call = CALLS[name]

    async def twice() -> None:
        for _ in range(2):
            answered = call(max_retries=2)
            await answered if inspect.isawaitable(answered) else None

    begun = time.monotonic()
    outcome = run(tmp_path / "c.yaml", twice)
    assert time.monotonic() - begun < 1
    assert "nothing recorded" in str(outcome.raised)
    assert outcome.failure is not None
    (cause,) = outcome.causes
    assert cause.kind.value == "span_added"
    assert cause.live is not None
    missed = [span for span in outcome.verdict.live if span.status_message == "not recorded"]
    assert [span.name for span in missed] == [f"chat {missed[0].name.split()[1]}"]
    # Anthropic's SDK has a span of its own around the call.
    assert cause.live.span_id in (missed[0].span_id, missed[0].parent_span_id)
    assert len(sdk_env.requests) == 1
