"""The GenAI mechanism against the providers' own SDKs: their types, and their stream accumulators over loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from anthropic import Anthropic
from anthropic.types import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from pytest_spanchain._canonical import canonical
from pytest_spanchain._genai import (
    Operation,
    ToolCall,
    assemble,
    declared_tools,
    describe_response,
    recognise,
    tool_calls,
)
from pytest_spanchain._genai import attributes as _genai_attributes
from pytest_spanchain._genai.gist import gist
from pytest_spanchain._sse import events

CHAT = Operation("openai.chat", "chat m")
RESPONSES = Operation("openai.responses", "chat m")
MESSAGES = Operation("anthropic.messages", "chat m")
EMBEDDINGS = Operation("openai.embeddings", "embeddings m")
USER = [{"role": "user", "content": "hi"}]


def sse(*payloads: Mapping[str, Any], named: bool = False, done: bool = False) -> str:
    blocks = [(f"event: {p['type']}\n" if named else "") + f"data: {json.dumps(p)}\n\n" for p in payloads]
    return "".join(blocks) + ("data: [DONE]\n\n" if done else "")


def chunk(delta: Mapping[str, Any] | None, *, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1732000000,
        "model": "gpt-4o-2024-08-06",
        "system_fingerprint": "fp_1",
        "choices": choices,
        **more,
    }


def call(index: int, **function: str) -> dict[str, Any]:
    start = {"id": f"call_{index}", "type": "function"} if "name" in function else {}
    return {"tool_calls": [{"index": index, **start, "function": function}]}


CHAT_USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 12},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
CHAT_STREAM = sse(
    chunk({"role": "assistant", "content": None}),
    chunk({"content": "Let me "}),
    chunk({"content": "see → ✓"}),
    chunk(call(0, name="get_order", arguments="")),
    chunk(call(0, arguments='{"id": ')),
    chunk(call(1, name="refund", arguments="")),
    chunk(call(1, arguments='{"amount": 3}')),
    chunk(call(0, arguments="1412}")),
    chunk({}, finish="tool_calls"),
    chunk(None, usage=CHAT_USAGE),
    done=True,
)

MESSAGE_STREAM = sse(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-of-the-test",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 10,
                "output_tokens": 1,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 7,
            },
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm, "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "refund"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "I will "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "look"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "get_order", "input": {}},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"id": 14'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '12, "x": []}'}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 15},
    },
    {"type": "message_stop"},
    named=True,
)

RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1732000000,
    "model": "gpt-4.1",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "call_9",
            "name": "get_order",
            "arguments": '{"id":1412}',
            "status": "completed",
        },
    ],
    "usage": {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 11,
    },
}


def response_events() -> list[dict[str, Any]]:
    message, function = RESPONSE["output"]
    begun = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
    text = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    arguments = {"item_id": "fc_1", "output_index": 1}
    listed: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**message, "content": []}},
        {"type": "response.content_part.added", **text, "part": part},
        {"type": "response.output_text.delta", **text, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **text, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **text, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **text, "part": message["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.output_item.added", "output_index": 1, "item": {**function, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", **arguments, "delta": '{"id":'},
        {"type": "response.function_call_arguments.delta", **arguments, "delta": "1412}"},
        {"type": "response.function_call_arguments.done", **arguments, "arguments": '{"id":1412}', "name": "get_order"},
        {"type": "response.output_item.done", "output_index": 1, "item": function},
        {"type": "response.completed", "response": RESPONSE},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(listed)]


RESPONSE_STREAM = sse(*response_events(), named=True)


def whole(operation: Operation | None, text: str) -> Any:
    """The assembled answer, where there must be one."""
    found = assemble(operation, text)
    assert found is not None
    return found


class Server(ThreadingHTTPServer):
    """Answers every POST with one event stream; keeps what it was asked."""

    daemon_threads = True
    stream = ""
    asked: list[tuple[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, json.loads(body)))
        answer = self.server.stream.encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def subset(small: Any, large: Any) -> None:
    """Everything in ``small`` that is not null is in ``large``."""
    if isinstance(small, dict):
        assert isinstance(large, dict)
        for key, value in small.items():
            if value is not None:
                assert key in large, key
                subset(value, large[key])
    elif isinstance(small, list):
        assert isinstance(large, list)
        assert len(small) == len(large)
        for left, right in zip(small, large, strict=True):
            subset(left, right)
    else:
        assert small == large


def test_chat_stream_agrees_with_the_sdk(server: Server) -> None:
    server.stream = CHAT_STREAM
    client = OpenAI(api_key="test-key", base_url=f"{server.url}/v1", max_retries=0)
    with client, client.chat.completions.stream(model="gpt-4o", messages=USER) as stream:  # type: ignore[arg-type]
        theirs = stream.get_final_completion()
    ours = assemble(CHAT, CHAT_STREAM)
    assert ours is not None
    again = ChatCompletion.model_validate(ours, strict=True)
    assert again.to_dict() == ours
    message, expected = again.choices[0].message, theirs.choices[0].message
    assert (message.content, message.role) == (expected.content, expected.role)
    assert again.usage == theirs.usage
    # The SDK's own extras: the position in the stream, and what it parsed.
    dumped = [made.to_dict() for made in expected.tool_calls or []]
    for made in dumped:
        made.pop("index")
        made["function"].pop("parsed_arguments")  # type: ignore[attr-defined]
    assert [made.to_dict() for made in message.tool_calls or []] == dumped
    path, body = server.asked[0]
    operation = recognise(method="POST", url=server.url + path, body=body)
    assert operation is not None
    assert operation.name == "chat gpt-4o"
    assert operation.attributes["gen_ai.request.stream"] is True


def test_messages_stream_agrees_with_the_sdk(server: Server) -> None:
    server.stream = MESSAGE_STREAM
    client = Anthropic(api_key="test-key", base_url=server.url, max_retries=0)
    with client, client.messages.stream(model="claude-of-the-test", max_tokens=9, messages=USER) as stream:  # type: ignore[arg-type]
        theirs = stream.get_final_message()
    ours = assemble(MESSAGES, MESSAGE_STREAM)
    assert ours is not None
    assert Message.model_validate(ours, strict=True).to_dict() == ours
    assert ours == {key: value for key, value in theirs.to_dict().items() if key in ours or value is not None}
    path, body = server.asked[0]
    operation = recognise(method="POST", url=server.url + path, body=body)
    assert operation is not None
    assert operation.api == "anthropic.messages"


def test_responses_stream_agrees_with_the_sdk(server: Server) -> None:
    server.stream = RESPONSE_STREAM
    client = OpenAI(api_key="test-key", base_url=f"{server.url}/v1", max_retries=0)
    with client, client.responses.stream(model="gpt-4.1", input="hi") as stream:
        theirs = stream.get_final_response()
    ours = assemble(RESPONSES, RESPONSE_STREAM)
    assert ours == RESPONSE
    subset(ours, theirs.to_dict())
    path, body = server.asked[0]
    operation = recognise(method="POST", url=server.url + path, body=body)
    assert operation is not None
    assert operation.api == "openai.responses"


def test_responses_are_built_from_their_items_without_the_final_event() -> None:
    cut = whole(RESPONSES, sse(*response_events()[:-1]))
    assert cut["output"] == RESPONSE["output"]
    assert cut["status"] == "in_progress"
    Response.model_validate(cut)
    mid = whole(None, sse(*response_events()[:5]))
    assert mid["output"][0]["content"] == [{"type": "output_text", "text": "Hello", "annotations": []}]
    arguments = whole(RESPONSES, sse(*response_events()[:10]))
    assert arguments["output"][1]["arguments"] == '{"id":'


def test_a_failed_response_keeps_the_items_that_came() -> None:
    failed = {**RESPONSE, "status": "failed", "output": None, "error": {"code": "server_error", "message": "no"}}
    stream = sse(*response_events()[:8], {"type": "response.failed", "response": failed})
    assert whole(RESPONSES, stream)["output"] == RESPONSE["output"][:1]
    described = describe_response(RESPONSES, {"status": 200, "body": {"text": stream, "message": None}})
    assert described["error.type"] == "server_error"


def test_reasoning_summaries_and_refusals_are_put_together() -> None:
    stream = sse(
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "summary": []}},
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0, "part": {"text": ""}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "a"},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "b"},
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "content": []}},
        {"type": "response.refusal.delta", "output_index": 1, "content_index": 0, "delta": "No."},
    )
    assert whole(RESPONSES, stream)["output"] == [
        {"type": "reasoning", "summary": [{"text": "ab"}]},
        {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]},
    ]


def test_choices_are_kept_apart_and_in_order() -> None:
    stream = sse(
        chunk({"role": "assistant", "content": "b"}, index=1),
        chunk({"role": "assistant", "content": "a"}, index=0),
        chunk({"role": "assistant", "content": "B"}, index=1, finish="length"),
        chunk({"content": "A"}, index=0, finish="stop"),
    )
    ours = whole(CHAT, stream)
    assert [(c["message"]["content"], c["finish_reason"]) for c in ours["choices"]] == [
        ("aA", "stop"),
        ("bB", "length"),
    ]
    assert {c["message"]["role"] for c in ours["choices"]} == {"assistant"}
    assert describe_response(CHAT, {"status": 200, "body": {"json": ours}})["gen_ai.response.finish_reasons"] == [
        "stop",
        "length",
    ]


def test_tool_calls_without_an_index_open_an_entry_by_their_id() -> None:
    def part(**fields: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [fields]})

    stream = sse(
        part(id="a", type="function", function={"name": "f", "arguments": "{}"}),
        part(id="b", type="function", function={"name": "g", "arguments": '{"x"'}),
        part(function={"arguments": ":1}"}),
    )
    assert tool_calls(CHAT, {"body": {"text": stream}}) == (ToolCall("a", "f", {}), ToolCall("b", "g", {"x": 1}))


def test_chat_log_probabilities_are_appended() -> None:
    def part(text: str) -> dict[str, Any]:
        made = chunk({"content": text})
        made["choices"][0]["logprobs"] = {
            "content": [{"token": text, "logprob": -0.5, "bytes": [1], "top_logprobs": []}]
        }
        return made

    ours = whole(CHAT, sse(part("a"), part("b"), chunk({}, finish="stop")))
    again = ChatCompletion.model_validate(ours)
    assert again.choices[0].logprobs is not None
    assert [entry.token for entry in again.choices[0].logprobs.content or []] == ["a", "b"]


@pytest.mark.parametrize(
    ("operation", "response", "expected"),
    [
        (
            CHAT,
            {"status": 200, "body": {"text": CHAT_STREAM, "chunks": [1], "message": assemble(CHAT, CHAT_STREAM)}},
            (ToolCall("call_0", "get_order", {"id": 1412}), ToolCall("call_1", "refund", {"amount": 3})),
        ),
        (MESSAGES, {"body": {"text": MESSAGE_STREAM}}, (ToolCall("toolu_1", "get_order", {"id": 1412, "x": []}),)),
        (RESPONSES, {"body": {"json": RESPONSE}}, (ToolCall("call_9", "get_order", {"id": 1412}),)),
        (CHAT, {"body": None}, ()),
        (EMBEDDINGS, {"body": {"json": {"data": []}}}, ()),
    ],
)
def test_tool_calls(operation: Operation, response: Mapping[str, Any], expected: tuple[ToolCall, ...]) -> None:
    assert tool_calls(operation, response) == expected


def test_tool_calls_that_are_not_json_keep_their_text() -> None:
    function = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    custom = {"id": "2", "type": "custom", "custom": {"name": "sql", "input": "[1]"}}
    message = {"choices": [{"message": {"tool_calls": [function, custom], "function_call": {"name": "old"}}}]}
    assert tool_calls(CHAT, {"body": {"json": message}}) == (
        ToolCall("1", "f", '{"a": '),
        ToolCall("2", "sql", "[1]"),
        ToolCall("", "old", None),
    )
    output = [{"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "[1]"}, {"type": "mcp_call"}]
    assert tool_calls(RESPONSES, {"body": {"json": {"output": output}}}) == (ToolCall("c", "sql", "[1]"),)


def test_a_cut_stream_gives_what_arrived() -> None:
    cut = MESSAGE_STREAM[: MESSAGE_STREAM.index("12, ")]
    message = whole(MESSAGES, cut)
    assert message["content"][1] == {"type": "text", "text": "I will look"}
    assert message["content"][2]["input"] == '{"id": 14'
    assert message["stop_reason"] is None
    chat = whole(CHAT, CHAT_STREAM[: CHAT_STREAM.index("see")])
    assert chat["choices"][0]["message"]["content"] == "Let me "
    assert chat["choices"][0]["finish_reason"] is None


def test_usage_follows_the_conventions() -> None:
    anthropic = describe_response(MESSAGES, {"status": 200, "body": {"text": MESSAGE_STREAM}})
    assert anthropic == {
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.model": "claude-of-the-test",
        "gen_ai.response.finish_reasons": ["tool_use"],
        "gen_ai.usage.input_tokens": 117,
        "gen_ai.usage.output_tokens": 15,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.cache_creation.input_tokens": 7,
    }
    chat = describe_response(CHAT, {"status": 200, "body": {"text": CHAT_STREAM}})
    assert chat["gen_ai.usage.input_tokens"] == 20
    assert chat["gen_ai.usage.cache_read.input_tokens"] == 12
    assert chat["gen_ai.usage.reasoning.output_tokens"] == 4
    assert chat["openai.response.system_fingerprint"] == "fp_1"
    responses = describe_response(RESPONSES, {"status": 200, "body": {"json": RESPONSE}})
    assert responses["gen_ai.response.finish_reasons"] == ["completed"]
    assert responses["gen_ai.usage.cache_creation.input_tokens"] == 1
    embedding = CreateEmbeddingResponse.model_validate(
        {"object": "list", "data": [], "model": "e", "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    ).to_dict()
    assert describe_response(EMBEDDINGS, {"status": 200, "body": {"json": embedding}}) == {
        "gen_ai.response.model": "e",
        "gen_ai.usage.input_tokens": 4,
    }


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ({"status": 429, "body": {"json": {"error": {"type": "rate_limit"}}}, "error": None}, "429"),
        ({"status": None, "body": None, "error": {"type": "ConnectTimeout", "message": ""}}, "ConnectTimeout"),
        ({"status": 200, "body": {"json": {"choices": []}}}, None),
        ({"status": 200, "body": {"text": sse(chunk({"content": '"error"'}))}}, None),
        ({"status": 200, "body": {"text": sse({"error": {"message": "x", "type": "overloaded"}})}}, "overloaded"),
        (
            {"status": 200, "body": {"text": sse({"type": "error", "error": {"type": "api_error"}}, named=True)}},
            "api_error",
        ),
    ],
)
def test_error_type(response: Mapping[str, Any], expected: str | None) -> None:
    assert describe_response(CHAT, response).get("error.type") == expected


@pytest.mark.parametrize(
    ("url", "body", "api", "name", "attributes"),
    [
        (
            "https://api.openai.com/v1/chat/completions",
            {
                "model": "gpt-4o",
                "messages": USER,
                "temperature": 0,
                "top_p": 0.5,
                "max_completion_tokens": 5,
                "stop": "END",
                "seed": 7,
                "frequency_penalty": 0.1,
                "presence_penalty": -1,
                "n": 3,
                "response_format": {"type": "json_schema", "json_schema": {}},
                "service_tier": "flex",
            },
            "openai.chat",
            "chat gpt-4o",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.request.temperature": 0,
                "gen_ai.request.top_p": 0.5,
                "gen_ai.request.max_tokens": 5,
                "gen_ai.request.stop_sequences": ["END"],
                "gen_ai.request.seed": 7,
                "gen_ai.request.frequency_penalty": 0.1,
                "gen_ai.request.presence_penalty": -1,
                "gen_ai.request.choice.count": 3,
                "gen_ai.output.type": "json",
                "openai.api.type": "chat_completions",
                "openai.request.service_tier": "flex",
                "server.address": "api.openai.com",
            },
        ),
        (
            "http://localhost:11434/v1/responses",
            {"model": "m", "previous_response_id": "r", "conversation": {"id": "conv_1"}, "text": {"format": 3}},
            "openai.responses",
            "chat m",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "m",
                "gen_ai.conversation.id": "conv_1",
                "openai.api.type": "responses",
            },
        ),
        (
            "https://me.openai.azure.com:8443/openai/deployments/prod/embeddings?api-version=1",
            {"input": ["a"], "encoding_format": "base64", "dimensions": 8},
            "openai.embeddings",
            "embeddings prod",
            {
                "gen_ai.operation.name": "embeddings",
                "gen_ai.provider.name": "azure.ai.openai",
                "gen_ai.request.model": "prod",
                "gen_ai.request.encoding_formats": ["base64"],
                "gen_ai.embeddings.dimension.count": 8,
                "server.address": "me.openai.azure.com",
                "server.port": 8443,
            },
        ),
        (
            "https://api.anthropic.com/v1/messages?beta=true",
            {"model": "c", "messages": USER, "max_tokens": 9, "stop_sequences": ["x"], "top_k": 4, "stream": True},
            "anthropic.messages",
            "chat c",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "anthropic",
                "gen_ai.request.model": "c",
                "gen_ai.request.max_tokens": 9,
                "gen_ai.request.stop_sequences": ["x"],
                "gen_ai.request.top_k": 4,
                "gen_ai.request.stream": True,
                "server.address": "api.anthropic.com",
            },
        ),
    ],
)
def test_recognise(url: str, body: Any, api: str, name: str, attributes: dict[str, Any]) -> None:
    assert recognise(method="post", url=url, body=body) == Operation(api, name, attributes)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.groq.com/openai/v1/chat/completions", "groq"),
        ("https://us-central1-aiplatform.googleapis.com/v1/openapi/chat/completions", "gcp.vertex_ai"),
        ("https://eviltapi.groq.com.example.org/chat/completions", "openai"),
        ("https://notapi.x.ai/chat/completions", "openai"),
    ],
)
def test_the_provider_is_told_by_the_host(url: str, provider: str) -> None:
    operation = recognise(method="POST", url=url, body={"messages": USER, "model": "m"})
    assert operation is not None
    assert operation.attributes["gen_ai.provider.name"] == provider


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "https://h/v1/chat/completions", {"messages": USER}),
        ("POST", "https://h/v1/chat/completions", {"prompt": "x"}),
        ("POST", "https://h/v1/chat/completions", None),
        ("POST", "https://h/v1/responses", {"model": "m"}),
        ("POST", "https://h/v1/responses/resp_1/cancel", {"input": "x"}),
        ("POST", "https://h/forms/7/responses", {"input": "an answer to a form"}),
        ("POST", "https://h/forms/7/responses", {"prompt": "an answer to a form"}),
        ("POST", "https://h/v1/messages", {"messages": USER}),
        ("POST", "https://h/v1/messages/count_tokens", {"messages": USER, "max_tokens": 1}),
        ("POST", "https://h/v1/threads/t/messages", {"role": "user", "content": "x"}),
        ("POST", "https://h/v1/embeddings", {"input": "x"}),
        ("POST", "http://[bad/v1/chat/completions", {"messages": USER}),
        ("POST", "https://h/api/orders", {"messages": USER, "max_tokens": 1, "input": "x", "model": "m"}),
    ],
)
def test_other_requests_are_plain_http(method: str, url: str, body: Any) -> None:
    assert recognise(method=method, url=url, body=body) is None


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost", "[::1]:80", "loopback", "my.localhost:8000"])
def test_loopback_has_no_server_address(host: str) -> None:
    operation = recognise(method="POST", url=f"http://{host}/chat/completions", body={"messages": USER, "model": "m"})
    assert operation is not None
    assert not [name for name in operation.attributes if name.startswith("server.")]


def test_attribute_names_are_those_of_the_conventions() -> None:
    import warnings

    known: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opentelemetry.semconv._incubating.attributes import (
            error_attributes,
            gen_ai_attributes,
            openai_attributes,
            server_attributes,
        )

        for module in (error_attributes, gen_ai_attributes, openai_attributes, server_attributes):
            known |= {value for value in vars(module).values() if isinstance(value, str)}
    names = {
        value
        for name, value in vars(_genai_attributes).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_") and "." in value
    }
    names -= {CHAT.api, RESPONSES.api, MESSAGES.api, EMBEDDINGS.api}
    assert len(names) > 30
    assert names <= known


def test_declared_tools() -> None:
    def names(operation: Operation, body: Any) -> list[str]:
        return [declared.name for declared in declared_tools(operation, body)]

    tools = [{"type": "function", "function": {"name": "a"}}, {"type": "custom", "custom": {"name": "b"}}, "odd"]
    assert names(CHAT, {"tools": tools, "functions": [{"name": "c"}]}) == ["a", "b", "c"]
    nested = {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "d"}]}
    assert names(RESPONSES, {"tools": [{"type": "web_search"}, nested]}) == ["web_search", "d"]
    anthropic = {"tools": [{"name": "e", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}]}
    assert names(MESSAGES, anthropic) == ["e", "bash"]
    assert names(EMBEDDINGS, {"tools": tools}) == []
    assert names(CHAT, None) == []


def test_declared_tools_bring_their_schemas() -> None:
    schema = {"type": "object", "properties": {"order": {"type": "string"}}}
    for operation, tool in (
        (CHAT, {"type": "function", "function": {"name": "a", "parameters": schema}}),
        (RESPONSES, {"type": "function", "name": "a", "parameters": schema}),
        (MESSAGES, {"name": "a", "input_schema": schema}),
    ):
        (declared,) = declared_tools(operation, {"tools": [tool]})
        assert declared.parameters == schema
    (bare,) = declared_tools(CHAT, {"tools": [{"type": "function", "function": {"name": "a", "parameters": "odd"}}]})
    assert bare.parameters is None


def test_unknown_or_unparsable_is_none() -> None:
    assert assemble(None, "data: {}\n\n") is None
    assert assemble(CHAT, "hello") is None
    assert assemble(MESSAGES, CHAT_STREAM) is None
    assert assemble(EMBEDDINGS, CHAT_STREAM) is None
    assert assemble(CHAT, 'data: {"choices": [{"delta": {"content": NaN}}]}\n\n') is None
    assert assemble(CHAT, "data: " + "[" * 5000 + "\n\n") is None
    assert assemble(None, MESSAGE_STREAM) == assemble(MESSAGES, MESSAGE_STREAM)


def test_split_surrogates_are_joined_and_lone_ones_replaced() -> None:
    part = 'data: {"choices":[{"delta":{"content":"HALF"}}]}\n\n'
    first, second = part.replace("HALF", "\\ud83d"), part.replace("HALF", "\\ude00")
    assert whole(CHAT, first + second)["choices"][0]["message"]["content"] == "😀"
    lone = whole(CHAT, first)
    assert lone["choices"][0]["message"]["content"] == "\ufffd"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_events_are_read_with_every_line_end(newline: str) -> None:
    text = "\ufeff: hello\nevent: a\ndata: 1\ndata:2\nid: 3\n\ndata\n\nevent: lost\n\ndata: tail".replace("\n", newline)
    found = [*events(text)]
    assert [(e.name, e.data, e.complete) for e in found] == [("a", "1\n2", True), ("", "", True), ("", "tail", False)]
    for event in found:
        assert all(text[start : start + len(value)] == value for start, value in event.pieces)


_NAMES = """
type index choices delta message content tool_calls function name arguments id role logprobs usage response output item
part output_index content_index text summary_index content_block partial_json thinking citation model finish_reason
annotation
"""
_KEYS = st.sampled_from(_NAMES.split())
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_TYPES = st.sampled_from([event["type"] for event in response_events()] + ["message_start", "content_block_delta"])
_PAYLOADS = st.lists(st.tuples(st.dictionaries(_KEYS, _JSON, max_size=6), _TYPES | st.none()), max_size=8)
_JUNK = ["", "\n\n", "null", '"', "{", "[]", "1e999", "-5", "\\ud800"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.dictionaries(_KEYS, _JSON, max_size=6), _TYPES | st.none()), max_size=8), st.text(max_size=8)
)
def test_odd_streams_never_raise_and_give_plain_json(
    payloads: list[tuple[dict[str, Any], str | None]], junk: str
) -> None:
    text = junk + "\n\n"
    for payload, kind in payloads:
        text += f"data: {json.dumps({**payload, 'type': kind} if kind else payload)}\n\n"
    for operation in (None, CHAT, RESPONSES, MESSAGES, EMBEDDINGS):
        canonical(assemble(operation, text))
        if operation is not None:
            response = {"status": 200, "body": {"text": text, "message": None}, "error": None}
            canonical(dict(describe_response(operation, response)))
            tool_calls(operation, response)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_mutated_real_streams_never_raise(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([CHAT_STREAM, MESSAGE_STREAM, RESPONSE_STREAM]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + data.draw(st.sampled_from(["", "\n\n", "null", '"', "{", "[]", "1e999", "-5", "\\ud800"]))
            + (text[at + data.draw(st.integers(0, 9)) :])
        )
    for operation in (None, CHAT, RESPONSES, MESSAGES):
        canonical(assemble(operation, text))


@given(_JSON, st.sampled_from(["chat/completions", "responses", "embeddings", "messages"]))
@settings(max_examples=100, deadline=None)
def test_odd_requests_never_raise(body: Any, path: str) -> None:
    for shape in (body, {"messages": [body], "max_tokens": body, "input": body, "model": body, "tools": [body]}):
        operation = recognise(method="POST", url=f"https://h/{path}", body=shape)
        if operation is not None:
            declared_tools(operation, shape)
            assert isinstance(operation.name, str)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]}, "hi"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
            "b",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"text": "42"}]}]}]}, "42"),
        ({"input": "hi", "messages": []}, "hi"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "42"}]}, "42"),
        ({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}, "hi"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, ""),
        ({"messages": {"content": 7}}, ""),
        ({"messages": [{"role": "user", "content": [{"toolResult": {"content": [{"text": "42"}]}}]}]}, "42"),
        ({"model": "rerank", "query": "q", "documents": ["a"]}, "q"),
        ([1], ""),
        (None, ""),
    ],
)
def test_gist_is_the_last_thing_said(body: Any, text: str) -> None:
    assert gist(body) == text
