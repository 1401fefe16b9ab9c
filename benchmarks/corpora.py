"""Exchanges to record: seeded, so that two runs of one seed measure the same work.

A *small* exchange is a short JSON request and answer. The agent-like ones are chat completions as an agent makes them:
tool schemas, a history that grows by a turn with each request, and every third answer a stream of server-sent events.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SIZES = (10, 100, 1_000)

_SYLLABLES = (
    "an", "be", "co", "da", "el", "fi", "go", "ha", "in", "jo", "ka", "lu", "me",
    "no", "or", "pa", "qui", "re", "so", "ta", "um", "ve", "wi", "xa", "yo", "zu",
)  # fmt: skip


@dataclass(frozen=True)
class Exchange:
    """One request to a model's API, always a POST, and its answer.

    Args:
        path: path of the URL.
        request: JSON body.
        answer: body of the answer.
        streamed: whether it is server-sent events.
    """

    path: str
    request: bytes
    answer: bytes
    streamed: bool = False


class _Words:
    """Text that nobody wrote: sentences, paragraphs, identifiers."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self._vocabulary = ["".join(self.random.choices(_SYLLABLES, k=self.random.randint(1, 4))) for _ in range(2_000)]

    def sentence(self, low: int = 6, high: int = 18) -> str:
        words = self.random.choices(self._vocabulary, k=self.random.randint(low, high))
        return " ".join(words).capitalize() + self.random.choice("....?!")

    def text(self, sentences: int) -> str:
        """Paragraphs, with what real prompts hold: line ends, quotes, a list, a character beyond ASCII."""
        parts = []
        for number in range(sentences):
            sentence = self.sentence()
            if number % 5 == 2:
                sentence = f'"{sentence}"'
            if number % 7 == 4:
                sentence = f"\n\n- {sentence} \u2014 caf\u00e9"
            parts.append(sentence)
        return " ".join(parts)

    def name(self) -> str:
        return "_".join(self.random.choices(self._vocabulary, k=2))

    def token(self, prefix: str) -> str:
        return prefix + "".join(
            self.random.choices("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", k=24)
        )


def small(size: int, seed: int) -> list[Exchange]:
    """Short questions with short answers."""
    words = _Words(f"small-{seed}")
    return [
        Exchange(
            "/v1/embed",
            _json({"model": "embed-small", "input": words.sentence(), "user": words.name()}),
            _json({"id": words.token("emb-"), "label": words.name(), "score": round(words.random.random(), 4)}),
        )
        for _ in range(size)
    ]


def ten_turns(size: int, seed: int) -> list[Exchange]:
    """Sessions of ten turns, which share their system prompt and tools."""
    words = _Words(f"ten-turns-{seed}")
    return _sessions(words, size, turns=10, setting=_shared(_setting(words)))


def three_turns(size: int, seed: int) -> list[Exchange]:
    """Sessions of three turns, each with a system prompt and tools of its own."""
    words = _Words(f"three-turns-{seed}")
    return _sessions(words, size, turns=3, setting=lambda: _setting(words))


def single_turns(size: int, seed: int) -> list[Exchange]:
    """Requests of which nothing repeats: no tools, a prompt of their own."""
    words = _Words(f"single-turns-{seed}")
    return _sessions(words, size, turns=1, setting=lambda: ([_message("system", words.text(8))], []))


CORPORA: dict[str, Callable[[int, int], list[Exchange]]] = {
    "small": small,
    "ten-turn sessions": ten_turns,
    "three-turn sessions": three_turns,
    "single turns": single_turns,
}
"""Name of a corpus -> function of the number of exchanges and the seed."""

_Setting = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def _shared(setting: _Setting) -> Callable[[], _Setting]:
    return lambda: setting


def _setting(words: _Words) -> _Setting:
    return [_message("system", words.text(12))], [_tool(words) for _ in range(4)]


def _sessions(words: _Words, size: int, *, turns: int, setting: Callable[[], _Setting]) -> list[Exchange]:
    found: list[Exchange] = []
    while len(found) < size:
        found.extend(_session(words, turns, *setting()))
    return found[:size]


def _session(
    words: _Words, turns: int, history: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> Iterator[Exchange]:
    history = [*history, _message("user", words.text(3))]
    for turn in range(turns):
        streamed = turn % 3 == 2
        request: dict[str, Any] = {"model": "gpt-4o-mini", "messages": history, "temperature": 0.2}
        if tools:
            request["tools"] = tools
        if streamed:
            request["stream"] = True
        message = _called(words, tools) if tools and turn < turns - 1 else _message("assistant", words.text(4))
        yield Exchange("/v1/chat/completions", _json(request), _answer(words, message, streamed=streamed), streamed)
        history = [*history, message]
        history += [
            {"role": "tool", "tool_call_id": call["id"], "content": words.text(2)}
            for call in message.get("tool_calls", ())
        ]


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _called(words: _Words, tools: list[dict[str, Any]]) -> dict[str, Any]:
    name = words.random.choice(tools)["function"]["name"]
    arguments = json.dumps({"query": words.sentence(3, 6), "limit": words.random.randint(1, 50)})
    call = {"id": words.token("call_"), "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _tool(words: _Words) -> dict[str, Any]:
    properties = {
        "query": {"type": "string", "description": words.sentence()},
        "limit": {"type": "integer", "minimum": 1, "maximum": 50},
        words.name(): {"type": "array", "items": {"type": "string", "enum": [words.name() for _ in range(4)]}},
    }
    parameters = {"type": "object", "properties": properties, "required": ["query"], "additionalProperties": False}
    return {
        "type": "function",
        "function": {"name": words.name(), "description": words.text(2), "parameters": parameters},
    }


def _answer(words: _Words, message: dict[str, Any], *, streamed: bool) -> bytes:
    head = {"id": words.token("chatcmpl-"), "created": 1_790_000_000, "model": "gpt-4o-mini-2024-07-18"}
    used = {"prompt_tokens": words.random.randint(200, 4_000), "completion_tokens": words.random.randint(5, 300)}
    usage = {**used, "total_tokens": sum(used.values())}
    reason = "tool_calls" if "tool_calls" in message else "stop"
    if not streamed:
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return _json({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    events = [
        {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in _deltas(message)
    ]
    end = {"index": 0, "delta": {}, "finish_reason": reason}
    events.append({**head, "object": "chat.completion.chunk", "choices": [end], "usage": usage})
    return b"".join(b"data: " + _json(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for word in (message["content"] or "").split(" "):
        if word:
            yield {"content": word + " "}
    for index, call in enumerate(message.get("tool_calls", ())):
        yield {"tool_calls": [{"index": index, **call}]}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
