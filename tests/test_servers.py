"""The servers and agents of this suite, proved with the real SDKs; the plugin has no part in it."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

import agents
from model_replies import ToolCall, answer, last_text, tool_results
from servers import (
    CountingListener,
    Hang,
    Json,
    ModelServer,
    Raw,
    Reply,
    Request,
    Reset,
    Stream,
    closed_port,
    in_turn,
    server_error,
    sse,
    too_many_requests,
)


def echo(request: Request) -> Reply:
    return answer(request, f"you said {last_text(request)}")


def shop(request: Request) -> Reply:
    """Look the order up, refund it, then tell; two calls in the first turn."""
    results = tool_results(request)
    if not results:
        return answer(request, tools=[ToolCall("lookup", {"order": "1412"}), ToolCall("notify", {"order": "1412"})])
    if len(results) == 2:
        price = json.loads(results[0])["price"]
        return answer(request, "One moment.", tools=[ToolCall("refund", {"order": "1412", "amount": price})])
    return answer(request, f"Done: {results[-1]}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer(echo) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{running.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "test-key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
        yield running


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "ledger.txt"
    path.touch()
    monkeypatch.setenv("AGENT_LEDGER", str(path))
    return path


def complete(client: openai.OpenAI, text: str = "hi") -> str | None:
    completion = client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": text}])
    return completion.choices[0].message.content


# What arrives


def test_requests_are_kept_with_their_body_and_lower_case_headers(server: ModelServer) -> None:
    agents.ask("hello")
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer test-key"
    assert request.body == {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}]}


def test_one_client_keeps_one_connection(server: ModelServer) -> None:
    with openai.OpenAI() as client:
        assert [complete(client, text) for text in "abc"] == ["you said a", "you said b", "you said c"]
    assert len(server.requests) == 3
    assert server.connections == 1


def test_two_clients_make_two_connections(server: ModelServer) -> None:
    agents.ask("a")
    agents.ask("b")
    assert server.connections == 2


# What the SDKs make of the replies


def test_openai_chat(server: ModelServer) -> None:
    with openai.OpenAI() as client:
        completion = client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": "hi"}])
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 4
    assert completion.choices[0].message.content == "you said hi"


async def test_openai_chat_async(server: ModelServer) -> None:
    assert await agents.aask("hi") == "you said hi"


def test_openai_stream_keeps_the_pieces(server: ModelServer) -> None:
    assert agents.stream("hi") == ["you", " said", " hi"]


async def test_openai_stream_async(server: ModelServer) -> None:
    assert await agents.astream("hi") == ["you", " said", " hi"]


def test_openai_stream_with_usage(server: ModelServer) -> None:
    with openai.OpenAI() as client:
        messages: Any = [{"role": "user", "content": "hi"}]
        chunks = client.chat.completions.create(
            model="gpt-test", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        *_, last = chunks
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_openai_stream_helper_assembles_tool_calls(server: ModelServer) -> None:
    server.script(shop)
    messages: Any = [{"role": "user", "content": "refund"}]
    with openai.OpenAI() as client, client.chat.completions.stream(model="gpt-test", messages=messages) as events:
        message = events.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [call.function.name for call in message.tool_calls] == ["lookup", "notify"]
    assert json.loads(message.tool_calls[0].function.arguments) == {"order": "1412"}


def test_openai_responses(server: ModelServer) -> None:
    assert agents.respond("hi") == "you said hi"


async def test_openai_responses_with_a_tool(server: ModelServer) -> None:
    server.script(lambda request: answer(request, "Wait.", tools=[ToolCall("lookup", {"order": "1412"})]))
    async with openai.AsyncOpenAI() as client:
        response = await client.responses.create(model="gpt-test", input=[{"role": "user", "content": "hi"}])
    said, call = response.output
    assert response.output_text == "Wait."
    assert said.type == "message"
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("lookup", {"order": "1412"})


def test_openai_responses_streamed(server: ModelServer) -> None:
    server.script(lambda request: answer(request, "Wait a bit.", tools=[ToolCall("lookup", {"order": "1412"})]))
    with openai.OpenAI() as client, client.responses.stream(model="gpt-test", input="hi") as events:
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        response = events.get_final_response()
    assert pieces == ["Wait", " a", " bit."]
    assert response.output_text == "Wait a bit."
    assert response.output[1].type == "function_call"
    assert json.loads(response.output[1].arguments) == {"order": "1412"}


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_openai_embeddings(server: ModelServer, encoding: Any) -> None:
    with openai.OpenAI() as client:
        found = client.embeddings.create(model="embed-test", input=["a", "b"], encoding_format=encoding)
    vectors = [item.embedding for item in found.data]
    if encoding == "float":
        assert vectors == agents.embed("a", "b")
    assert vectors[0] != vectors[1]


def test_anthropic_message(server: ModelServer) -> None:
    with anthropic.Anthropic() as client:
        message = client.messages.create(
            model="claude-test", max_tokens=16, messages=[{"role": "user", "content": "hi"}]
        )
    assert message.stop_reason == "end_turn"
    assert message.content[0].type == "text"
    assert message.content[0].text == "you said hi"


async def test_anthropic_message_async_with_tools(server: ModelServer) -> None:
    server.script(shop)
    async with anthropic.AsyncAnthropic() as client:
        message = await client.messages.create(
            model="claude-test", max_tokens=16, messages=[{"role": "user", "content": "refund"}]
        )
    assert message.stop_reason == "tool_use"
    assert [(block.name, block.input) for block in message.content if block.type == "tool_use"] == [
        ("lookup", {"order": "1412"}),
        ("notify", {"order": "1412"}),
    ]


def test_anthropic_stream_keeps_the_pieces(server: ModelServer) -> None:
    assert agents.claude_stream("hi") == ["you", " said", " hi"]


async def test_anthropic_stream_async_with_text_and_tools(server: ModelServer) -> None:
    server.script(lambda request: answer(request, "Wait a bit.", tools=[ToolCall("lookup", {"order": "1412"})]))
    async with (
        anthropic.AsyncAnthropic() as client,
        client.messages.stream(
            model="claude-test", max_tokens=16, messages=[{"role": "user", "content": "hi"}]
        ) as events,
    ):
        pieces = [piece async for piece in events.text_stream]
        message = await events.get_final_message()
    assert pieces == ["Wait", " a", " bit."]
    assert message.stop_reason == "tool_use"
    assert message.content[1].type == "tool_use"
    assert message.content[1].input == {"order": "1412"}


def test_same_conversation_same_bytes(server: ModelServer) -> None:
    with openai.OpenAI() as client:
        first, second = (
            client.chat.completions.with_raw_response.create(
                model="gpt-test", messages=[{"role": "user", "content": "hi"}], stream=streamed
            ).http_response.read()
            for streamed in (True, True)
        )
    assert first == second


# The agents


@pytest.mark.parametrize("loop", [agents.tool_loop, agents.stream_tool_loop, agents.claude_tool_loop])
def test_tool_loops(server: ModelServer, ledger: Path, loop: Callable[[str], str]) -> None:
    server.script(shop)
    assert loop("Refund 1412") == "Done: refunded 19.5 for 1412"
    assert ledger.read_text().splitlines() == ["lookup 1412", "notify 1412", "refund 1412 19.5"]
    assert len(server.requests) == 3


async def test_async_tool_loops(server: ModelServer, ledger: Path) -> None:
    server.script(shop)
    assert await agents.atool_loop("Refund 1412") == "Done: refunded 19.5 for 1412"
    assert sorted(ledger.read_text().splitlines()) == ["lookup 1412", "notify 1412", "refund 1412 19.5"]


async def test_async_anthropic_tool_loop(server: ModelServer, ledger: Path) -> None:
    # `notify` is a coroutine, and this loop calls tools from a running one.
    server.script(
        lambda request: (
            answer(request, f"Done: {tool_results(request)[0]}")
            if tool_results(request)
            else answer(request, tools=[ToolCall("refund", {"order": "7", "amount": 2})])
        )
    )
    assert await agents.aclaude_tool_loop("Refund 7") == "Done: refunded 2 for 7"
    assert ledger.read_text() == "refund 7 2\n"


def test_failing_tool_is_told_to_the_model(server: ModelServer, ledger: Path) -> None:
    server.script(
        lambda request: (
            answer(request, tool_results(request)[0])
            if tool_results(request)
            else answer(request, tools=[ToolCall("broken", {"order": "7"})])
        )
    )
    assert agents.tool_loop("Refund 7") == "error: no connection to the warehouse for 7"


def test_parallel_answers_belong_to_their_prompts(server: ModelServer) -> None:
    prompts = ["a", "b", "c", "d"]
    expected = [f"you said {prompt}" for prompt in prompts]
    meet = threading.Barrier(4, timeout=10)

    def together(request: Request) -> Reply:
        meet.wait()  # Nobody is answered before all have asked: the calls really overlap.
        return echo(request)

    server.script(together)
    assert asyncio.run(agents.fan_out(prompts)) == expected
    assert agents.pool_fan_out(prompts) == expected
    assert agents.thread_fan_out(prompts) == expected
    assert len(server.requests) == 12


async def test_swallowing_agents_hide_a_refusal(server: ModelServer) -> None:
    server.script(in_turn(Json({"error": {"message": "no"}}, status=400), Json({"error": {}}, status=400)))
    assert agents.swallow("hi").startswith("Sorry")
    assert (await agents.aswallow("hi")).startswith("Sorry")


# Answers that go wrong, and odd ones


@pytest.mark.parametrize("read", [agents.stream, agents.claude_stream])
def test_gate_proves_that_a_stream_is_not_held_back(server: ModelServer, read: Callable[..., list[str]]) -> None:
    gate = threading.Event()
    server.script(lambda request: answer(request, "one two three", gates={-1: gate}))
    assert read("hi", on_piece=lambda piece: gate.set()) == ["one", " two", " three"]


def test_gate_holds_the_chunk_until_it_opens(server: ModelServer) -> None:
    gate = threading.Event()
    server.script(lambda request: sse("data: 1", "data: 2", gates={1: gate}))
    with httpx.Client(timeout=0.3) as client, client.stream("GET", server.url) as response:
        lines = response.iter_lines()
        assert [next(lines), next(lines)] == ["data: 1", ""]
        with pytest.raises(httpx.ReadTimeout):
            next(lines)


def test_delay_spaces_the_chunks(server: ModelServer) -> None:
    server.script(lambda request: sse("data: 1", "data: 2", "data: 3", delay=0.05))
    began = time.monotonic()
    assert httpx.get(server.url).text == "data: 1\n\ndata: 2\n\ndata: 3\n\n"
    assert time.monotonic() - began >= 0.1


def test_chunks_keep_their_bounds(server: ModelServer) -> None:
    server.script(lambda request: Stream([b"a", b"bcd", b"\xff"], content_type="application/octet-stream"))
    with httpx.stream("GET", server.url) as response:
        assert list(response.iter_raw()) == [b"a", b"bcd", b"\xff"]


def test_stream_cut_in_the_middle(server: ModelServer) -> None:
    server.script(lambda request: answer(request, "one two three", cut_after=2))
    pieces: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        agents.stream("hi", on_piece=pieces.append)
    assert pieces == ["one"]


def test_gzip(server: ModelServer) -> None:
    server.script(lambda request: Json({"a": 1}, gzip=True))
    with httpx.stream("GET", server.url) as response:
        raw = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(raw)) == {"a": 1}
    assert httpx.get(server.url).json() == {"a": 1}


def test_raw_bytes_and_headers(server: ModelServer) -> None:
    server.script(lambda request: Raw(b"\x00\xff", status=201, headers={"x-request-id": "7"}))
    response = httpx.put(server.url, content=b"not json")
    assert (response.status_code, response.content, response.headers["x-request-id"]) == (201, b"\x00\xff", "7")
    assert server.requests[0].body == "not json"


def test_rate_limit_then_answer(server: ModelServer) -> None:
    limit = too_many_requests(retry_after="0.01")
    server.script(lambda request: limit if len(server.requests) == 1 else echo(request))
    assert agents.ask("hi") == "you said hi"
    assert len(server.requests) == 2
    assert server.requests[0].body == server.requests[1].body


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (too_many_requests(), openai.RateLimitError),
        (server_error(), openai.InternalServerError),
        (Reset(), openai.APIConnectionError),
    ],
)
def test_failures_reach_the_client(server: ModelServer, reply: Reply, error: type[Exception]) -> None:
    server.script(lambda request: reply)
    with openai.OpenAI(max_retries=0) as client, pytest.raises(error):
        complete(client)


def test_reset_is_a_reset_and_not_an_end(server: ModelServer) -> None:
    server.script(lambda request: Reset())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_hang_ends_when_the_client_leaves(server: ModelServer) -> None:
    server.script(lambda request: Hang())
    with openai.OpenAI(max_retries=0, timeout=0.2) as client, pytest.raises(openai.APITimeoutError):
        complete(client)
    deadline = time.monotonic() + 5
    while not server.hung_up and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.hung_up == 1


def test_hang_ends_when_released(server: ModelServer) -> None:
    release = threading.Event()
    server.script(lambda request: Hang(release))
    threading.Timer(0.1, release.set).start()
    with openai.OpenAI(max_retries=0) as client, pytest.raises(openai.APIConnectionError):
        complete(client)
    assert server.hung_up == 0


# Faults and the end


def test_fault_of_a_script_fails_the_block() -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"), ModelServer(lambda request: 1 // 0) as server:  # type: ignore[arg-type,return-value]
        assert httpx.get(server.url).status_code == 400


def test_unscripted_request_fails_the_block() -> None:
    with pytest.raises(AssertionError, match="nothing is scripted for GET /v1/models"), ModelServer() as server:
        httpx.get(f"{server.url}/v1/models")


def test_exhausted_script_fails_the_block() -> None:
    script = in_turn(Json(1), Json(2))
    with pytest.raises(AssertionError, match="all 2 scripted replies"), ModelServer(script) as server:
        assert [httpx.get(server.url).status_code for _ in range(3)] == [200, 200, 400]


def test_first_failure_of_the_block_wins() -> None:
    def block() -> None:
        with ModelServer() as server:
            httpx.get(server.url)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        block()


def test_gate_that_never_opens_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servers.PATIENCE", 0.1)
    stream = sse("data: 1", "data: 2", gates={1: threading.Event()})
    with (
        pytest.raises(AssertionError, match="not set within"),
        ModelServer(in_turn(stream)) as server,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(server.url)


def test_unknown_protocol_is_refused() -> None:
    with pytest.raises(LookupError, match="no protocol is known for /v1/images"):
        answer(Request("POST", "/v1/images", {}, {}), "hi")


@pytest.mark.parametrize("shape", [{"gates": {2: threading.Event()}}, {"cut_after": 3}, {"cut_after": -1}])
def test_stream_shape_outside_of_its_chunks_is_refused(shape: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="outside of 2 chunks"):
        sse("data: 1", "data: 2", **shape)


def test_stream_options_need_a_stream() -> None:
    with pytest.raises(ValueError, match="shape a stream"):
        answer(Request("POST", "/v1/messages", {}, {"model": "m", "messages": []}), "hi", cut_after=1)


def test_closing_cuts_hanging_and_idle_connections_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    began = time.monotonic()
    with ModelServer(lambda request: Hang()) as server, socket.create_connection(("127.0.0.1", server.port)) as idle:
        with socket.create_connection(("127.0.0.1", server.port)) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            while not server.requests:
                time.sleep(0.01)
            started = set(threading.enumerate()) - before
            server.close()
        idle.settimeout(5)
        assert idle.recv(1) == b""
    assert len(started) == 3
    assert not any(thread.daemon for thread in started)
    assert not any(thread.is_alive() for thread in started)
    assert time.monotonic() - began < 5


def test_listener_counts_who_calls_on_a_port_that_has_gone(server: ModelServer) -> None:
    agents.ask("hi")
    server.close()
    with CountingListener(server.port) as listener:
        assert listener.connections == 0
        with openai.OpenAI(max_retries=0) as client, pytest.raises(openai.APIConnectionError):
            complete(client)
        assert listener.connections == 1
        for _ in range(3):
            socket.create_connection(("127.0.0.1", listener.port)).close()
        assert listener.connections == 4
    assert listener.connections == 4


def test_server_can_come_back_on_its_port() -> None:
    with ModelServer(in_turn(Json("first"))) as first:
        assert httpx.get(first.url).json() == "first"
    with ModelServer(in_turn(Json("second")), port=first.port) as second:
        assert second.url == first.url
        assert httpx.get(second.url).json() == "second"


def test_closed_port_refuses() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", closed_port()))
