"""Providers beside OpenAI and Anthropic: what their requests and answers mean, and that none of it can hurt."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI

import pytest_spanchain._genai as genai
from pytest_spanchain import _eventstream
from pytest_spanchain._body import body_of
from pytest_spanchain._canonical import canonical
from pytest_spanchain._genai import (
    Operation,
    ToolCall,
    ToolDeclaration,
    assemble,
    content,
    declared_tools,
    describe_response,
    recognise,
    tool_calls,
)
from recording import record, replay, run
from servers import Json, ModelServer, Raw, Reply, Request, Stream, sse

SCHEMA = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
USER = [{"role": "user", "content": "hi"}]
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-x"
VERTEX = "http://loopback/v1/projects/p/locations/l/publishers"
BEDROCK = "https://bedrock-runtime.eu-west-1.amazonaws.com/model"
CLAUDE = "eu.anthropic.claude-v1%3A0"
ASKED: list[tuple[str, Any, str, dict[str, Any]]] = [
    (
        f"{GEMINI}:streamGenerateContent?alt=sse",
        {
            "contents": [{"parts": [{"text": "hi"}]}],
            "generationConfig": {
                "temperature": 0,
                "topP": 0.5,
                "topK": 4,
                "maxOutputTokens": 9,
                "stopSequences": ["x"],
                "seed": 7,
                "candidateCount": 2,
                "responseMimeType": "application/json",
            },
        },
        "generate_content gemini-x",
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "gcp.gemini",
            "gen_ai.request.model": "gemini-x",
            "gen_ai.request.temperature": 0,
            "gen_ai.request.top_p": 0.5,
            "gen_ai.request.top_k": 4,
            "gen_ai.request.max_tokens": 9,
            "gen_ai.request.stop_sequences": ["x"],
            "gen_ai.request.seed": 7,
            "gen_ai.request.choice.count": 2,
            "gen_ai.output.type": "json",
            "gen_ai.request.stream": True,
            "server.address": "generativelanguage.googleapis.com",
        },
    ),
    (
        f"{VERTEX}/google/models/gemini-x:generateContent",
        {"contents": [], "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}},
        "generate_content gemini-x",
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "gcp.vertex_ai",
            "gen_ai.request.model": "gemini-x",
            "gen_ai.output.type": "image",
        },
    ),
    (
        f"{GEMINI}:batchEmbedContents",
        {"requests": [{"content": {}, "outputDimensionality": 8}]},
        "embeddings gemini-x",
        {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "gcp.gemini",
            "gen_ai.request.model": "gemini-x",
            "gen_ai.embeddings.dimension.count": 8,
            "server.address": "generativelanguage.googleapis.com",
        },
    ),
    (
        f"{VERTEX}/anthropic/models/claude-x:streamRawPredict",
        {"messages": USER, "max_tokens": 9, "anthropic_version": "vertex-2023-10-16", "stream": True},
        "chat claude-x",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "gcp.vertex_ai",
            "gen_ai.request.model": "claude-x",
            "gen_ai.request.max_tokens": 9,
            "gen_ai.request.stream": True,
        },
    ),
    (
        f"{BEDROCK}/{CLAUDE}/converse-stream",
        {
            "messages": [{"role": "user", "content": [{"text": "hi"}]}],
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.25, "stopSequences": ["x"]},
            "additionalModelRequestFields": {"top_k": 3},
        },
        "chat eu.anthropic.claude-v1:0",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": "eu.anthropic.claude-v1:0",
            "gen_ai.request.max_tokens": 9,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.top_p": 0.25,
            "gen_ai.request.top_k": 3,
            "gen_ai.request.stop_sequences": ["x"],
            "gen_ai.request.stream": True,
            "server.address": "bedrock-runtime.eu-west-1.amazonaws.com",
        },
    ),
    (
        f"http://loopback/model/{CLAUDE}/invoke",
        {"anthropic_version": "bedrock-2023-05-31", "messages": USER, "max_tokens": 5},
        "chat eu.anthropic.claude-v1:0",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": "eu.anthropic.claude-v1:0",
            "gen_ai.request.max_tokens": 5,
        },
    ),
    (
        "http://loopback/model/amazon.titan/invoke",
        {"inputText": "hi"},
        "generate_content amazon.titan",
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": "amazon.titan",
        },
    ),
    (
        "https://api.mistral.ai/v1/fim/completions",
        {"model": "codestral", "prompt": "def", "suffix": "x", "random_seed": 3},
        "text_completion codestral",
        {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "mistral_ai",
            "gen_ai.request.model": "codestral",
            "gen_ai.request.seed": 3,
            "server.address": "api.mistral.ai",
        },
    ),
    (
        "https://api.mistral.ai/v1/conversations/conv_1#stream",
        {"inputs": "hi", "stream": True, "completion_args": {"temperature": 0.5}},
        "chat",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "mistral_ai",
            "gen_ai.conversation.id": "conv_1",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.stream": True,
            "server.address": "api.mistral.ai",
        },
    ),
    (
        "http://localhost:11434/api/chat",
        {"model": "llama", "messages": USER, "format": SCHEMA, "options": {"num_predict": 5, "stop": ["x"]}},
        "chat llama",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "ollama",
            "gen_ai.request.model": "llama",
            "gen_ai.request.max_tokens": 5,
            "gen_ai.request.stop_sequences": ["x"],
            "gen_ai.request.stream": True,
            "gen_ai.output.type": "json",
        },
    ),
    (
        "https://api.cohere.com/v2/embed",
        {"model": "e", "texts": ["a"], "input_type": "x", "embedding_types": ["float", "int8"]},
        "embeddings e",
        {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "cohere",
            "gen_ai.request.model": "e",
            "gen_ai.request.encoding_formats": ["float", "int8"],
            "server.address": "api.cohere.com",
        },
    ),
    (
        "https://api.openai.com/v1/completions",
        {"model": "m", "prompt": "Once", "max_tokens": 4},
        "text_completion m",
        {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "m",
            "gen_ai.request.max_tokens": 4,
            "server.address": "api.openai.com",
        },
    ),
    (
        "https://x.openai.azure.com/openai/deployments/pics/images/generations?api-version=1",
        {"prompt": "a cat", "n": 2},
        "generate_content pics",
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "azure.ai.openai",
            "gen_ai.request.model": "pics",
            "gen_ai.request.choice.count": 2,
            "gen_ai.output.type": "image",
            "server.address": "x.openai.azure.com",
        },
    ),
    (
        "https://api.openai.com/v1/moderations",
        {"model": "mod", "input": "x"},
        "moderation mod",
        {
            "gen_ai.operation.name": "moderation",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "mod",
            "server.address": "api.openai.com",
        },
    ),
]


@pytest.mark.parametrize(
    ("url", "body", "name", "attributes"), ASKED, ids=[f"{one[2]} {one[0][-24:]}" for one in ASKED]
)
def test_requests(url: str, body: Any, name: str, attributes: dict[str, Any]) -> None:
    operation = recognise(method="POST", url=url, body=body)
    assert operation is not None
    assert (operation.name, operation.attributes) == (name, attributes)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1beta/models/gemini-x:countTokens", {"contents": []}),
        ("/v1beta/models/gemini-x:generateContent", {"prompt": "x"}),
        ("/v1/models/m:predict", {"instances": [{"x": 1}]}),
        ("/model/m/converse", {"input": "x"}),
        ("/api/chat", {"messages": USER}),
        ("/api/tags", {"model": "m", "messages": USER}),
        ("/v1/conversations/conv_1/history", {"inputs": "x"}),
        ("/v1/conversations", {"items": []}),
        ("/v1/chat", {"message": "hi"}),
        ("/rerank", {"query": "x"}),
        ("/v1/completions", {"messages": USER}),
        ("/v1/images/generations", {"model": "x"}),
        ("/audio/transcriptions", {"model": "x"}),
        ("/orders", {"model": "m", "messages": USER, "contents": [], "prompt": "x", "input": "x"}),
    ],
)
def test_other_requests_are_plain_http(path: str, body: Any) -> None:
    assert recognise(method="POST", url=f"http://loopback{path}", body=body) is None


def asked(path: str, body: Mapping[str, Any]) -> Operation:
    """The operation of a request that must be recognised."""
    found = recognise(method="POST", url=f"http://loopback{path}", body=body)
    assert found is not None
    return found


GOOGLE = asked("/v1beta/models/g:generateContent", {"contents": []})
CONVERSE = asked("/model/c/converse", {"messages": USER})
INVOKE = asked("/model/c/invoke", {"messages": USER, "anthropic_version": "b"})
NOVA = asked("/model/n/invoke", {"messages": USER, "inferenceConfig": {}})
CONVERSATION = asked("/v1/conversations", {"inputs": "x"})
OLLAMA = asked("/api/chat", {"model": "m", "messages": USER})
COHERE = asked("/v2/chat", {"model": "m", "messages": USER})
COMPLETION = asked("/v1/completions", {"prompt": "x"})
IMAGE = asked("/v1/images/generations", {"prompt": "x"})


def test_tools_bring_their_json_schemas() -> None:
    shouted = {
        "type": "OBJECT",
        "properties": {
            "order": {"type": "STRING"},
            "type": {"type": "ARRAY", "items": {"type": "INTEGER", "nullable": True}},
        },
    }
    quiet = {
        "type": "object",
        "properties": {"order": {"type": "string"}, "type": {"type": "array", "items": {"type": ["integer", "null"]}}},
    }
    google = [
        {"functionDeclarations": [{"name": "a", "parameters": shouted}, {"name": "b", "parametersJsonSchema": SCHEMA}]},
        {"googleSearch": {}},
        {"functionDeclarations": [{"name": "c"}, {"name": 7}, "odd"]},
    ]
    assert declared_tools(GOOGLE, {"tools": google}) == (
        ToolDeclaration("a", quiet),
        ToolDeclaration("b", SCHEMA),
        ToolDeclaration("googleSearch"),
        ToolDeclaration("c"),
    )
    bedrock = {"tools": [{"toolSpec": {"name": "a", "inputSchema": {"json": SCHEMA}}}, {"cachePoint": {"type": "x"}}]}
    assert declared_tools(CONVERSE, {"toolConfig": bedrock}) == (ToolDeclaration("a", SCHEMA),)
    assert declared_tools(INVOKE, {"tools": [{"name": "a", "input_schema": SCHEMA}]}) == (ToolDeclaration("a", SCHEMA),)
    nested = {"tools": [{"type": "function", "function": {"name": "a", "parameters": SCHEMA}}]}
    for operation in (OLLAMA, COHERE, CONVERSATION):
        assert declared_tools(operation, nested) == (ToolDeclaration("a", SCHEMA),)
    assert declared_tools(COMPLETION, nested) == ()


def lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def data(*values: Any) -> str:
    return "".join(f"data: {json.dumps(value)}\n\n" for value in values)


def google_piece(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}]}


GOOGLE_PIECES = [
    google_piece({"text": "Let ", "thought": True}),
    google_piece({"text": "me see", "thought": True}),
    google_piece({"text": "I "}),
    google_piece({"text": "look"}, {"functionCall": {"name": "lookup", "args": {"order": "1"}}}),
    google_piece({"functionCall": {"id": "f2", "name": "ping"}}),
    {
        **google_piece({"text": "", "thoughtSignature": "c2ln"}, finishReason="STOP"),
        "usageMetadata": {
            "promptTokenCount": 5,
            "toolUsePromptTokenCount": 1,
            "candidatesTokenCount": 7,
            "thoughtsTokenCount": 3,
            "cachedContentTokenCount": 2,
        },
        "modelVersion": "g-1",
        "responseId": "r",
    },
]
GOOGLE_WHOLE = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Let me see", "thought": True},
                    {"text": "I look"},
                    {"functionCall": {"name": "lookup", "args": {"order": "1"}}},
                    {"functionCall": {"id": "f2", "name": "ping"}},
                    {"text": "", "thoughtSignature": "c2ln"},
                ],
            },
            "index": 0,
            "finishReason": "STOP",
        }
    ],
    **{key: GOOGLE_PIECES[-1][key] for key in ("usageMetadata", "modelVersion", "responseId")},
}


@pytest.mark.parametrize(
    "text",
    [
        data(*GOOGLE_PIECES),
        json.dumps(GOOGLE_PIECES),
        "[" + "\n,\r\n".join(json.dumps(piece, indent=2) for piece in GOOGLE_PIECES) + "\n]\n",
    ],
    ids=["sse", "array", "array as sent"],
)
def test_google_streams(text: str) -> None:
    assert assemble(GOOGLE, text) == assemble(None, text) == GOOGLE_WHOLE
    for body in ({"text": text, "message": None}, {"json": GOOGLE_PIECES}, {"json": GOOGLE_WHOLE}):
        response = {"status": 200, "body": body, "error": None}
        assert describe_response(GOOGLE, response) == {
            "gen_ai.response.id": "r",
            "gen_ai.response.model": "g-1",
            "gen_ai.response.finish_reasons": ["STOP"],
            "gen_ai.usage.input_tokens": 6,
            "gen_ai.usage.output_tokens": 10,
            "gen_ai.usage.cache_read.input_tokens": 2,
            "gen_ai.usage.reasoning.output_tokens": 3,
        }
        assert tool_calls(GOOGLE, response) == (ToolCall("", "lookup", {"order": "1"}), ToolCall("f2", "ping", {}))


def test_a_cut_array_gives_the_pieces_that_came() -> None:
    text = json.dumps(GOOGLE_PIECES)
    cut = assemble(GOOGLE, text[: text.index("look")])
    assert cut == google_cut(GOOGLE_PIECES[:3])
    assert assemble(GOOGLE, "[") is None


def google_cut(pieces: list[Any]) -> Any:
    return assemble(GOOGLE, data(*pieces))


def test_pictures_are_told_in_a_few_words() -> None:
    picture = base64.b64encode(bytes(range(256)) * 40).decode()
    piece = google_piece({"inlineData": {"mimeType": "image/png", "data": picture}})
    message = assemble(GOOGLE, data(piece))
    assert message is not None
    told = message["candidates"][0]["content"]["parts"][0]["inlineData"]["data"]
    assert told.startswith(f"({len(picture)} characters of base64, sha256 ")
    other = assemble(GOOGLE, data(piece).replace("AAEC", "AAED", 1))
    assert other != message
    done = {"type": "image_generation.completed", "b64_json": picture, "created_at": 1, "usage": {"input_tokens": 2}}
    message = assemble(IMAGE, data({**done, "type": "image_generation.partial_image"}, done))
    assert message == {"created": 1, "data": [{"b64_json": told}], "usage": {"input_tokens": 2}}
    responses = Operation("openai.responses", "chat m")
    item = {"type": "image_generation_call", "id": "i", "result": picture}
    message = assemble(responses, data({"type": "response.completed", "response": {"output": [item, 7]}}))
    assert message == {"output": [{**item, "result": told}, 7]}


OLLAMA_LINES = [
    {"model": "m", "message": {"role": "assistant", "content": "", "thinking": "Hm"}, "done": False},
    {"model": "m", "message": {"role": "assistant", "content": "", "thinking": "."}, "done": False},
    {"model": "m", "message": {"role": "assistant", "content": "Let me "}, "done": False},
    {"model": "m", "message": {"role": "assistant", "content": "see"}, "done": False},
    {
        "model": "m",
        "message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "a", "arguments": {}}}]},
        "done": False,
    },
    {
        "model": "m",
        "message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "b", "arguments": {}}}]},
        "done": False,
    },
    {
        "model": "m",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 3,
        "eval_count": 4,
    },
]


def test_ollama_lines() -> None:
    text = lines(*OLLAMA_LINES)
    calls = [{"function": {"name": name, "arguments": {}}} for name in "ab"]
    said = {"role": "assistant", "content": "Let me see", "thinking": "Hm.", "tool_calls": calls}
    assert assemble(OLLAMA, text) == {**OLLAMA_LINES[-1], "message": said}
    response = {"status": 200, "body": {"text": text, "chunks": [1]}}
    assert tool_calls(OLLAMA, response) == (ToolCall("", "a", {}), ToolCall("", "b", {}))
    assert describe_response(OLLAMA, response)["gen_ai.usage.output_tokens"] == 4
    broken = text[: text.index("see")] + '\n{"error":"the model runner has stopped"}\n'
    assert describe_response(OLLAMA, {"status": 200, "body": {"text": broken}})["error.type"] == "error"


def test_legacy_completions() -> None:
    def piece(text: str, finish: str | None = None) -> dict[str, Any]:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}

    text = data(piece("Once "), piece("upon", "length")) + "data: [DONE]\n\n"
    assert assemble(COMPLETION, text) == piece("Once upon", "length") | {
        "choices": [{"index": 0, "text": "Once upon", "finish_reason": "length"}]
    }


def test_a_mistral_conversation() -> None:
    says = {"type": "message.output.delta", "id": "msg_1", "model": "m", "role": "assistant", "output_index": 0}
    calls = {"type": "function.call.delta", "id": "fc_1", "name": "lookup", "tool_call_id": "c1", "output_index": 1}
    text = data(
        {"type": "conversation.response.started", "created_at": "2026-11-21T10:00:00Z", "conversation_id": "conv_1"},
        {**says, "content": "Let me "},
        {**says, "content": "see"},
        {**says, "content": {"type": "tool_reference", "tool": "web_search"}},
        {**calls, "arguments": '{"order": '},
        {**calls, "arguments": '"1412"}'},
        {"type": "conversation.response.done", "usage": {"prompt_tokens": 3, "completion_tokens": 5}},
    )
    entry = {"object": "entry", "id": "msg_1", "model": "m", "role": "assistant", "type": "message.output"}
    parts = [{"type": "text", "text": "Let me see"}, {"type": "tool_reference", "tool": "web_search"}]
    function = {"object": "entry", "type": "function.call", "id": "fc_1", "name": "lookup", "tool_call_id": "c1"}
    assert assemble(CONVERSATION, text) == {
        "object": "conversation.response",
        "conversation_id": "conv_1",
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
        "outputs": [{**entry, "content": parts}, {**function, "arguments": '{"order": "1412"}'}],
    }
    response = {"status": 200, "body": {"text": text}}
    assert tool_calls(CONVERSATION, response) == (ToolCall("c1", "lookup", {"order": "1412"}),)
    assert describe_response(CONVERSATION, response) == {
        "gen_ai.response.model": "m",
        "gen_ai.conversation.id": "conv_1",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 5,
    }


def frame(payload: bytes, **headers: str) -> bytes:
    """One frame as AWS sends it."""
    named = {":content-type": "application/json", ":message-type": "event"}
    named |= {f":{key.replace('_', '-')}": value for key, value in headers.items()}
    head = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for key, value in named.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + payload
    return body + struct.pack(">I", zlib.crc32(body))


def frames(*events: tuple[str, Any]) -> list[bytes]:
    return [frame(json.dumps(payload).encode(), event_type=name) for name, payload in events]


def wrapped(*events: Any) -> list[bytes]:
    """Events of a model in its own words, as InvokeModel wraps them."""
    packed = [base64.b64encode(json.dumps(event).encode()).decode() for event in events]
    return frames(*(("chunk", {"bytes": one, "p": "abcdef"}) for one in packed))


def streamed(chunks: list[bytes]) -> dict[str, Any]:
    body = body_of(chunks, content_type="application/vnd.amazon.eventstream")
    assert body is not None
    return body


CONVERSE_EVENTS: list[tuple[str, Any]] = [
    ("messageStart", {"role": "assistant", "p": "abc"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "c2ln"}}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Let me "}}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "see → ✓"}, "p": "abcdefgh"}),
    ("contentBlockStop", {"contentBlockIndex": 1}),
    ("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t1", "name": "lookup"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"order":'}}}),
    ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": ' "1412"}'}}}),
    ("contentBlockStop", {"contentBlockIndex": 2}),
    ("messageStop", {"stopReason": "tool_use", "p": "ab"}),
    (
        "metadata",
        {
            "usage": {"inputTokens": 5, "outputTokens": 7, "cacheReadInputTokens": 2, "cacheWriteInputTokens": 1},
            "metrics": {"latencyMs": 9},
        },
    ),
]
CONVERSE_WHOLE = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "c2ln"}}},
                {"text": "Let me see → ✓"},
                {"toolUse": {"toolUseId": "t1", "name": "lookup", "input": {"order": "1412"}}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": {"inputTokens": 5, "outputTokens": 7, "cacheReadInputTokens": 2, "cacheWriteInputTokens": 1},
    "metrics": {"latencyMs": 9},
}
CLAUDE_EVENTS = [
    {
        "type": "message_start",
        "message": {"id": "m1", "role": "assistant", "content": [], "usage": {"input_tokens": 3}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
]


def test_converse_streams() -> None:
    chunks = frames(*CONVERSE_EVENTS)
    body = streamed(chunks)
    assert body["chunks"] == [len(chunk) for chunk in chunks]
    text = _eventstream.text_of(body)
    assert text is not None
    assert assemble(CONVERSE, text) == assemble(None, text) == CONVERSE_WHOLE
    for answered in (body, {"json": CONVERSE_WHOLE}):
        response = {"status": 200, "body": answered}
        assert tool_calls(CONVERSE, response) == (ToolCall("t1", "lookup", {"order": "1412"}),)
        assert describe_response(CONVERSE, response) == {
            "gen_ai.response.finish_reasons": ["tool_use"],
            "gen_ai.usage.input_tokens": 8,
            "gen_ai.usage.output_tokens": 7,
            "gen_ai.usage.cache_read.input_tokens": 2,
            "gen_ai.usage.cache_creation.input_tokens": 1,
        }
    cut = streamed([*chunks[:5], chunks[5][:-3]])
    half = assemble(CONVERSE, _eventstream.text_of(cut) or "")
    assert half is not None
    assert half["output"]["message"]["content"][1] == {"text": "Let me "}
    failed = [*chunks[:5], frame(b'{"message":"slow"}', message_type="exception", exception_type="throttlingException")]
    assert describe_response(CONVERSE, {"status": 200, "body": streamed(failed)})["error.type"] == "throttlingException"


def test_models_invoked_in_their_own_words() -> None:
    claude: dict[str, Any] = {"status": 200, "body": streamed(wrapped(*CLAUDE_EVENTS))}
    assert describe_response(INVOKE, claude) == {
        "gen_ai.response.id": "m1",
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
    }
    message = assemble(INVOKE, _eventstream.text_of(claude["body"]) or "")
    assert message is not None
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    nova = streamed(wrapped(*({name: payload} for name, payload in CONVERSE_EVENTS)))
    assert assemble(NOVA, _eventstream.text_of(nova) or "") == CONVERSE_WHOLE


def test_frames_are_read_as_botocore_reads_them() -> None:
    botocore = pytest.importorskip("botocore.eventstream")
    buffer = botocore.EventStreamBuffer()
    data = b"".join(frames(*CONVERSE_EVENTS))
    buffer.add_data(data)
    theirs = [(event.headers[":event-type"], event.payload) for event in buffer]
    ours = _eventstream.frames(data)
    assert ours is not None
    assert [(one.name, one.payload) for one in ours] == theirs


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_frames_with_a_wrong_bit_are_no_frames(draw: st.DataObject) -> None:
    whole = frames(*CONVERSE_EVENTS[:3])
    data = bytearray(b"".join(whole))
    at = draw.draw(st.integers(0, len(data) * 8 - 1))
    data[at // 8] ^= 1 << at % 8
    assert _eventstream.frames(bytes(data)) is None


@given(st.binary(max_size=60), st.integers(0, 400))
@settings(max_examples=150, deadline=None)
def test_odd_frames_never_raise(junk: bytes, cut: int) -> None:
    data = b"".join(frames(*CONVERSE_EVENTS[:2]))
    for odd in (junk, data[:cut] + junk, data + frame(junk, event_type="x\ny"), data + frame(junk)):
        packed = {"base64": base64.b64encode(odd).decode(), "chunks": [len(odd)]}
        text = _eventstream.text_of(packed)
        if text is not None:
            canonical(assemble(CONVERSE, text))
            again = _eventstream.with_text(packed, text)
            assert again is not None
            assert again["base64"] == packed["base64"]
    assert _eventstream.text_of({"base64": "no base64!"}) is None


def test_an_answer_that_could_not_be_taken_apart_is_still_understood() -> None:
    text = '{"id": "c", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "spent": 1.10}'
    body = body_of([text.encode()], content_type="application/json")
    assert body == {"text": text}
    described = describe_response(asked("/v1/chat/completions", {"messages": USER}), {"status": 200, "body": body})
    assert described == {"gen_ai.response.id": "c", "gen_ai.response.finish_reasons": ["stop"]}


def exchange(spans: Any) -> Any:
    """The exchange of the only span that has one."""
    (span,) = [span for span in spans if span.exchange]
    return span.exchange


def converse(server: ModelServer) -> list[bytes]:
    """A client without an SDK: the chunks as they came."""
    with (
        httpx.Client() as client,
        client.stream("POST", f"{server.url}/model/c/converse-stream", json={"messages": USER}) as response,
    ):
        return list(response.iter_raw())


def test_a_frame_stream_replays_chunk_by_chunk(server: ModelServer, tmp_path: Path) -> None:
    chunks = frames(*CONVERSE_EVENTS)
    odd = [chunks[0] + chunks[1][:7], chunks[1][7:], *chunks[2:]]
    server.script(lambda request: Stream(odd, content_type="application/vnd.amazon.eventstream"))
    recorded = record(tmp_path / "c.yaml", lambda: converse(server))
    server.close()
    assert recorded.value == odd
    assert replay(tmp_path / "c.yaml", lambda: converse(server)).value == odd
    found = exchange(recorded.verdict.live)
    assert found.kind == "model"
    assert found.response["body"]["message"] == CONVERSE_WHOLE


def test_bedrock_by_its_own_sdk(server: ModelServer, tmp_path: Path) -> None:
    boto3 = pytest.importorskip("boto3")
    kind = "application/vnd.amazon.eventstream"

    def model(request: Request) -> Reply:
        if request.path.endswith("/converse"):
            return Json(CONVERSE_WHOLE)
        events = frames(*CONVERSE_EVENTS) if request.path.endswith("/converse-stream") else wrapped(*CLAUDE_EVENTS)
        return Stream(events, content_type=kind)

    server.script(model)
    keys = {"aws_access_key_id": "AKIA" + "EXAMPLE" * 2 + "12", "aws_secret_access_key": "s" * 40}
    client = boto3.client("bedrock-runtime", region_name="eu-west-1", endpoint_url=server.url, **keys)
    claude = json.dumps({"anthropic_version": "bedrock-2023-05-31", "messages": USER, "max_tokens": 9})

    def ask() -> Any:
        asked: Any = {"modelId": "eu.claude:0", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
        whole = client.converse(**asked)["stopReason"]
        pieces = list(client.converse_stream(**asked)["stream"])
        invoked = client.invoke_model_with_response_stream(modelId="eu.claude:0", body=claude)
        return whole, pieces, [piece["chunk"]["bytes"] for piece in invoked["body"]]

    recorded = record(tmp_path / "c.yaml", ask)
    server.close()
    assert replay(tmp_path / "c.yaml", ask).value == recorded.value
    client.close()
    assert recorded.value[0] == "tool_use"
    spans = [span for span in recorded.verdict.live if span.exchange]
    assert [(span.kind, span.name) for span in spans] == [("model", "chat eu.claude:0")] * 3
    assert [span.attributes.get("gen_ai.usage.output_tokens") for span in spans] == [7, 7, 4]


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "wrapped"])
def test_a_secret_in_frames_stays_out(
    pack: bool, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hunter2-" + "correct-horse-9"
    monkeypatch.setenv("SHOP_API_KEY", secret)
    texts = [f"the key is {secret[:9]}", f"{secret[9:]}, ok"]
    if pack:
        deltas = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in texts
        ]
        chunks = wrapped(*CLAUDE_EVENTS[:2], *deltas, *CLAUDE_EVENTS[3:])
    else:
        deltas = [{"contentBlockIndex": 0, "delta": {"text": text}} for text in texts]
        chunks = frames(CONVERSE_EVENTS[0], *(("contentBlockDelta", delta) for delta in deltas))
    server.script(lambda request: Stream(chunks, content_type="application/vnd.amazon.eventstream"))

    def ask() -> bytes:
        body = {"messages": USER, "anthropic_version": "b"} if pack else {"messages": USER}
        verb = "invoke-with-response-stream" if pack else "converse-stream"
        with httpx.Client() as client:
            return client.post(f"{server.url}/model/c/{verb}", json=body).content

    assert record(tmp_path / "c.yaml", ask).value == b"".join(chunks)
    server.close()
    monkeypatch.delenv("SHOP_API_KEY")
    served = replay(tmp_path / "c.yaml", ask).value
    text = _eventstream.text_of({"base64": base64.b64encode(served).decode()})
    assert text is not None
    for written in (text, (tmp_path / "c.yaml").read_text(encoding="utf-8")):
        assert secret[:9] not in written
        assert secret[9:] not in written
    assert "[redacted]" in text
    assert len(_eventstream.frames(served) or ()) == len(chunks)


PICTURE = base64.b64encode(bytes(range(256)) * 1200).decode()
SOUND = bytes(range(256)) * 30


@pytest.fixture
def openai(sdk_env: ModelServer) -> Iterator[OpenAI]:
    with OpenAI(max_retries=0) as client:
        yield client


def test_images(openai: OpenAI, server: ModelServer, tmp_path: Path) -> None:
    def draw(request: Request) -> Reply:
        return Json({"created": 1, "data": [{"b64_json": PICTURE}], "usage": {"input_tokens": 3, "output_tokens": 9}})

    def paint(prompt: str = "a cat") -> Any:
        return openai.images.generate(model="image-test", prompt=prompt).data[0].b64_json  # type: ignore[index]

    server.script(draw)
    cassette = tmp_path / "c.yaml"
    recorded = record(cassette, paint)
    server.close()
    assert replay(cassette, paint).value == PICTURE
    (span,) = [span for span in recorded.verdict.live if span.exchange]
    assert (span.kind, span.name) == ("model", "generate_content image-test")
    assert span.attributes["gen_ai.output.type"] == "image"
    assert span.attributes["gen_ai.usage.output_tokens"] == 9
    # The picture is one line of the file, and what a reader is shown is short.
    text = cassette.read_text(encoding="utf-8")
    assert sum(len(line) > 200 for line in text.splitlines()) == 1
    changed = run(cassette, lambda: paint("a dog"))
    assert changed.failure is not None
    assert len(str(changed.failure)) < 3_000


def test_speech(openai: OpenAI, server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: Raw(SOUND, content_type="audio/mpeg"))

    def speak() -> bytes:
        return openai.audio.speech.create(model="tts-test", voice="alloy", input="Hello").content

    recorded = record(tmp_path / "c.yaml", speak)
    server.close()
    assert replay(tmp_path / "c.yaml", speak).value == SOUND
    (span,) = [span for span in recorded.verdict.live if span.exchange]
    assert (span.kind, span.name) == ("model", "generate_content tts-test")
    assert span.attributes["gen_ai.output.type"] == "speech"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_transcriptions(stream: bool, openai: OpenAI, server: ModelServer, tmp_path: Path) -> None:
    deltas = [{"type": "transcript.text.delta", "delta": word} for word in ("Hello ", "there")]
    events = [*deltas, {"type": "transcript.text.done", "text": "Hello there", "usage": {"input_tokens": 2}}]
    server.script(
        lambda request: (
            sse(*(f"data: {json.dumps(one)}" for one in events)) if stream else Json({"text": "Hello there"})
        )
    )

    def hear(sound: bytes = SOUND) -> str:
        file = ("order.mp3", sound, "audio/mpeg")
        if stream:
            pieces = openai.audio.transcriptions.create(model="hear-test", file=file, stream=True)
            return "".join(piece.delta for piece in pieces if piece.type == "transcript.text.delta")
        return openai.audio.transcriptions.create(model="hear-test", file=file).text

    recorded = record(tmp_path / "c.yaml", hear)
    server.close()
    assert replay(tmp_path / "c.yaml", hear).value == recorded.value == "Hello there"
    (span,) = [span for span in recorded.verdict.live if span.exchange]
    assert (span.kind, span.name) == ("model", "generate_content hear-test")
    assert span.exchange is not None
    sent = span.exchange.request["body"]["text"]
    assert f"({len(SOUND)} bytes, sha256 " in sent
    assert 'filename="order.mp3"' in sent
    changed = run(tmp_path / "c.yaml", lambda: hear(SOUND + b"\xff"))
    assert [cause.kind.value for cause in changed.causes] == ["input_changed"]


def test_a_form_keeps_its_texts_and_tells_its_files() -> None:
    sent = (
        b'--boundary\r\nContent-Disposition: form-data; name="model"\r\n\r\nhear\r\n'
        b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: audio/wav\r\n\r\n'
        b"\xff\x00--boundary\xfe\r\n--boundary--\r\n"
    )
    body = body_of([sent], content_type="multipart/form-data; boundary=boundary", layout=False)
    assert body is not None
    assert sent.decode("latin-1").partition("\xff")[0] in body["text"]
    assert body["text"].endswith(")\r\n--boundary--\r\n")
    assert content(body)["model"] == "hear"
    assert content({"text": "plain"}) is None
    assert content(None) is None
    assert content({"base64": "AAAA"}) is None
    other = body_of([sent.replace(b"\xfe", b"\xfd")], content_type="multipart/form-data", layout=False)
    assert other != body
    # An answer is served again, so its bytes are kept.
    assert body_of([sent], content_type="multipart/mixed; boundary=boundary") == {
        "base64": base64.b64encode(sent).decode()
    }
    assert body_of([b"\xff"], content_type="multipart/mixed", layout=False) == {"base64": "/w=="}


def test_unknown_json_stays_plain_http(server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: Json({"model": "m", "choices": [1]}))

    def ask() -> Any:
        with httpx.Client() as client:
            return client.post(f"{server.url}/api/orders", json={"model": "m", "messages": USER}).json()

    recorded = record(tmp_path / "c.yaml", ask)
    (span,) = [span for span in recorded.verdict.live if span.exchange]
    assert (span.kind, span.name) == ("http", "POST /api/orders")


def test_each_api_has_a_name_of_its_own() -> None:
    names = [api.name for api in genai._APIS]
    assert len(set(names)) == len(names) > 20
    assert {name.partition(".")[0] for name in names} == {
        "openai",
        "anthropic",
        "google",
        "mistral",
        "bedrock",
        "ollama",
        "cohere",
    }


_NAMES = """
type index choices delta message content tool_calls function name arguments id role usage tokens meta done response
thinking messages contents parts text functionCall args candidates usageMetadata finishReason generationConfig tools
functionDeclarations parameters properties items anyOf requests instances predictions embeddings statistics output
toolUse input stopReason reasoningContent contentBlockIndex start bytes p outputs conversation_id data b64_json inputs
toolConfig toolSpec inputSchema json options format inferenceConfig prompt query documents texts model error status
completion_args response_format inlineData tool_plan citations messageStart contentBlockDelta anthropic_version
"""
_KEYS = st.sampled_from(_NAMES.split())
_KINDS = """
message-start content-delta tool-call-start message-end message.output.delta function.call.delta text thinking function
conversation.response.started transcript.text.delta object STRING tool_use
"""
_TYPES = st.sampled_from(_KINDS.split())
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4) | _TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_OBJECTS = st.dictionaries(_KEYS, _JSON, max_size=6)
_EVENT_NAMES = st.sampled_from([name for name, _ in CONVERSE_EVENTS] + ["", "error", "modelStreamErrorException"])
_PATHS = sorted({one[0].partition("//")[2].partition("/")[2] for one in ASKED})


def operations() -> Iterator[Operation]:
    for api in genai._APIS:
        yield Operation(api.name, api.operation)


@given(_OBJECTS)
@settings(max_examples=40, deadline=None)
def test_odd_requests_never_raise(body: dict[str, Any]) -> None:
    for path in _PATHS:
        likely = {
            "messages": [body],
            "contents": [body],
            "prompt": "x",
            "requests": [body],
            "inputs": [body],
            "model": "m",
        }
        for shape in (body, {**likely, **body}, {**body, **likely}):
            operation = recognise(method="POST", url=f"https://h/{path}", body=shape)
            if operation is not None:
                canonical(dict(operation.attributes))
                assert all(isinstance(tool.name, str) for tool in declared_tools(operation, shape))


@given(_JSON)
@settings(max_examples=60, deadline=None)
def test_odd_answers_never_raise(body: Any) -> None:
    for operation in operations():
        for form in ("json", "message"):
            response = {"status": 200, "body": {form: body}, "error": None}
            canonical(dict(describe_response(operation, response)))
            tool_calls(operation, response)


@given(
    st.lists(st.tuples(_EVENT_NAMES, _OBJECTS, _TYPES | st.none()), max_size=6), st.sampled_from(["sse", "lines", "[]"])
)
@settings(max_examples=50, deadline=None)
def test_odd_streams_never_raise(events: list[tuple[str, dict[str, Any], str | None]], form: str) -> None:
    payloads = [{**payload, "type": kind} if kind else payload for _, payload, kind in events]
    if form == "sse":
        named = zip(events, payloads, strict=True)
        text = "".join(f"event: {event[0]}\ndata: {json.dumps(payload)}\n\n" for event, payload in named)
    else:
        text = lines(*payloads) if form == "lines" else json.dumps(payloads)
    for operation in (None, *operations()):
        canonical(assemble(operation, text))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_mutated_real_streams_never_raise(draw: st.DataObject) -> None:
    bedrock = _eventstream.text_of(streamed(frames(*CONVERSE_EVENTS))) or ""
    text = draw.draw(st.sampled_from([data(*GOOGLE_PIECES), json.dumps(GOOGLE_PIECES), lines(*OLLAMA_LINES), bedrock]))
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(text)))
        junk = draw.draw(st.sampled_from(["", "\n\n", "null", '"', "{", "[]", "1e999", "-5", "\\ud800"]))
        text = text[:at] + junk + text[at + draw.draw(st.integers(0, 9)) :]
    for operation in (None, GOOGLE, OLLAMA, CONVERSE):
        canonical(assemble(operation, text))
