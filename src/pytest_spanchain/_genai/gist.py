"""What a model was asked last, in a few words: tells one call from another of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TURNS = ("messages", "input", "contents", "prompt", "inputs", "query", "texts")
_TEXTS = ("text", "content", "output", "arguments", "parts", "toolResult")


def gist(body: Any) -> str:
    """The text of the last turn of a model request's JSON body; empty if there is none in a known place."""
    if not isinstance(body, Mapping):
        return ""
    return next((text for key in _TURNS if (text := _text(body.get(key)))), "")


def _text(value: Any) -> str:
    """The last text in it; no deeper than messages nest."""
    for _ in range(8):
        if isinstance(value, list) and value:
            value = value[-1]
        elif isinstance(value, Mapping):
            value = next((value[key] for key in _TEXTS if value.get(key)), None)
        else:
            break
    return value if isinstance(value, str) else ""
