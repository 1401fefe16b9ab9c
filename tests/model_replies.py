"""What the model APIs say on the wire: OpenAI chat completions, responses and embeddings, Anthropic messages.

``answer`` looks at the request and renders in its protocol, streamed if it asks for a stream. All ids and times are
derived from the content, so the same conversation gets the same bytes on every run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servers import Json, Reply, Request, sse

CREATED = 1_760_000_000
"""The second at which every reply claims to have been made."""


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""

    @property
    def call_id(self) -> str:
        """The given id, or one made from name and arguments."""
        return self.id or f"call_{_short([self.name, dict(self.arguments)])}"


def answer(
    request: Request,
    text: str = "",
    *,
    tools: Sequence[ToolCall] = (),
    delay: float = 0.0,
    gates: Mapping[int, threading.Event] | None = None,
    cut_after: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Answer with text, tool calls or both, in the protocol of the request.

    Args:
        request: the request; its path picks the protocol, its ``stream`` field the form.
        text: what the model says; streamed word by word.
        tools: calls that it asks for.
        delay: as in ``servers.Stream``; it needs a streamed request, as do the next two.
        gates: as in ``servers.Stream``.
        cut_after: as in ``servers.Stream``.
        headers: more response headers.

    Raises:
        LookupError: no protocol is known for the path.
    """
    body = request.body
    path = request.path.partition("?")[0]
    if path.endswith("/embeddings"):
        return Json(embeddings(body), headers=headers or {})
    try:
        whole, events = _PROTOCOLS[path.rsplit("/", 1)[-1]]
    except KeyError:
        raise LookupError(f"no protocol is known for {path}") from None
    if not body.get("stream"):
        if delay or gates or cut_after is not None:
            raise ValueError("delay, gates and cut_after shape a stream, and the request does not ask for one")
        return Json(whole(body, text, tools), headers=headers or {})
    return sse(*events(body, text, tools), delay=delay, gates=gates, cut_after=cut_after, headers=headers)


def last_text(request: Request) -> str:
    """Text of the last message of the user, in any of the protocols; empty if there is none."""
    turns = request.body.get("messages", request.body.get("input", []))
    if isinstance(turns, str):
        return turns
    for turn in reversed(turns):
        if isinstance(turn, str):  # An input of embeddings.
            return turn
        if turn.get("role") == "user" and (text := _text_of(turn["content"])):
            return text
    return ""


def tool_results(request: Request) -> list[str]:
    """Texts of the tool results that the request carries, in order, in any of the protocols."""
    found: list[str] = []
    for turn in request.body.get("messages", request.body.get("input", [])):
        if turn.get("role") == "tool":
            found.append(_text_of(turn["content"]))
        elif turn.get("type") == "function_call_output":
            found.append(turn["output"])
        elif turn.get("role") == "user" and isinstance(turn["content"], list):
            blocks = [block for block in turn["content"] if block["type"] == "tool_result"]
            found.extend(_text_of(block["content"]) for block in blocks)
    return found


def chat(body: Any, text: str, tools: Sequence[ToolCall]) -> dict[str, Any]:
    """An OpenAI chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if tools:
        message["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in tools
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if tools else "stop"}
    return {**_chat_frame(body, "chat.completion"), "choices": [choice], "usage": _chat_usage(body, text)}


def chat_events(body: Any, text: str, tools: Sequence[ToolCall]) -> Iterator[str]:
    """The same, streamed."""
    frame = _chat_frame(body, "chat.completion.chunk")

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**frame, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    for word in _words(text):
        yield chunk({"content": word})
    for index, call in enumerate(tools):
        function = {"name": call.name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": call.call_id, "type": "function", "function": function}]})
        for part in _halves(_arguments(call)):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, "tool_calls" if tools else "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _data({**frame, "choices": [], "usage": _chat_usage(body, text)})
    yield "data: [DONE]"


def responses(body: Any, text: str, tools: Sequence[ToolCall]) -> dict[str, Any]:
    """An OpenAI response."""
    return _response_frame(body, "completed", _response_items(body, text, tools), text)


def responses_events(body: Any, text: str, tools: Sequence[ToolCall]) -> Iterator[str]:
    """The same, streamed."""
    for number, event in enumerate(_response_steps(body, text, tools)):
        yield _event({**event, "sequence_number": number})


def messages(body: Any, text: str, tools: Sequence[ToolCall]) -> dict[str, Any]:
    """An Anthropic message."""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    blocks += [_tool_use(call, call.arguments) for call in tools]
    return _message_frame(body, blocks, "tool_use" if tools else "end_turn", len(text.split()))


def messages_events(body: Any, text: str, tools: Sequence[ToolCall]) -> Iterator[str]:
    """The same, streamed."""
    yield _event({"type": "message_start", "message": _message_frame(body, [], None, 1)})
    yield _event({"type": "ping"})
    index = 0
    if text:
        deltas: Iterable[dict[str, Any]] = ({"type": "text_delta", "text": word} for word in _words(text))
        yield from _block(index, {"type": "text", "text": ""}, deltas)
        index += 1
    for call in tools:
        parts = _halves(_arguments(call))
        deltas = ({"type": "input_json_delta", "partial_json": part} for part in parts)
        yield from _block(index, _tool_use(call, {}), deltas)
        index += 1
    delta = {"stop_reason": "tool_use" if tools else "end_turn", "stop_sequence": None}
    yield _event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": len(text.split())}})
    yield _event({"type": "message_stop"})


def embeddings(body: Any) -> dict[str, Any]:
    """OpenAI embeddings of four dimensions, made from the hash of each input."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = [[byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:4]] for text in texts]
    return {
        "object": "list",
        "model": body["model"],
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(vector, body.get("encoding_format"))}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)},
    }


_PROTOCOLS = {
    "completions": (chat, chat_events),
    "responses": (responses, responses_events),
    "messages": (messages, messages_events),
}


def _chat_frame(body: Any, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{_short(body)}", "object": kind, "created": CREATED, "model": body["model"]}


def _chat_usage(body: Any, text: str) -> dict[str, int]:
    sent, said = len(body["messages"]), len(text.split())
    return {"prompt_tokens": sent, "completion_tokens": said, "total_tokens": sent + said}


def _response_frame(body: Any, status: str, output: Sequence[Any], text: str) -> dict[str, Any]:
    said = len(text.split())
    usage = {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said + 1,
    }
    return {
        "id": f"resp_{_short(body)}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": body["model"],
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools", []),
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "usage": usage if status == "completed" else None,
    }


def _response_items(body: Any, text: str, tools: Sequence[ToolCall]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if text:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        items.append(_response_message(body, "completed", content))
    items += [_function_call(call, "completed", _arguments(call)) for call in tools]
    return items


def _response_message(body: Any, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "message",
        "id": f"msg_{_short(body)}",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def _function_call(call: ToolCall, status: str, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{call.call_id}",
        "call_id": call.call_id,
        "name": call.name,
        "arguments": arguments,
        "status": status,
    }


def _response_steps(body: Any, text: str, tools: Sequence[ToolCall]) -> Iterator[dict[str, Any]]:
    started = _response_frame(body, "in_progress", [], "")
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    items = _response_items(body, text, tools)
    for index, item in enumerate(items):
        at = {"output_index": index}
        if item["type"] == "message":
            yield {"type": "response.output_item.added", **at, "item": _response_message(body, "in_progress", [])}
            yield from _text_steps(item, {**at, "item_id": item["id"], "content_index": 0})
        else:
            begun = {**item, "status": "in_progress", "arguments": ""}
            yield {"type": "response.output_item.added", **at, "item": begun}
            where, kind = {**at, "item_id": item["id"]}, "response.function_call_arguments"
            for part in _halves(item["arguments"]):
                yield {"type": f"{kind}.delta", **where, "delta": part}
            yield {"type": f"{kind}.done", **where, "name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", **at, "item": item}
    yield {"type": "response.completed", "response": _response_frame(body, "completed", items, text)}


def _text_steps(item: Mapping[str, Any], at: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    part = item["content"][0]
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for word in _words(part["text"]):
        yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}


def _message_frame(body: Any, blocks: list[dict[str, Any]], stop: str | None, said: int) -> dict[str, Any]:
    return {
        "id": f"msg_{_short(body)}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": len(body["messages"]), "output_tokens": said},
    }


def _tool_use(call: ToolCall, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{call.call_id}", "name": call.name, "input": dict(arguments)}


def _block(index: int, block: Mapping[str, Any], deltas: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    yield _event({"type": "content_block_start", "index": index, "content_block": block})
    for delta in deltas:
        yield _event({"type": "content_block_delta", "index": index, "delta": delta})
    yield _event({"type": "content_block_stop", "index": index})


def _vector(vector: list[float], encoding: str | None) -> Any:
    return base64.b64encode(struct.pack("<4f", *vector)).decode() if encoding == "base64" else vector


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content if block["type"] in ("text", "input_text", "output_text"))


def _arguments(call: ToolCall) -> str:
    return json.dumps(dict(call.arguments))


def _words(text: str) -> list[str]:
    """The text in pieces that join to the same text: each word with the space before it."""
    words = text.split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)] if text else []


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


def _data(value: Any) -> str:
    return f"data: {json.dumps(value)}"


def _event(value: Mapping[str, Any]) -> str:
    return f"event: {value['type']}\ndata: {json.dumps(value)}"


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
