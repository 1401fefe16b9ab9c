"""Command lines inside of command lines: a word that is JSON may hold those of servers to start."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def with_commands(word: str, redact: Callable[[list[str]], list[str]]) -> str:
    """A word of a command line, without the credentials of the command lines in it.

    Args:
        word: the word.
        redact: takes them out of a command line.
    """
    if not word.startswith("{") or '"-' not in word:
        return word
    try:
        given = json.loads(word)
    except (ValueError, RecursionError):
        return word
    clean = _clean(given, redact)
    return word if clean == given else json.dumps(clean, ensure_ascii=False)


def _clean(value: Any, redact: Callable[[list[str]], list[str]]) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item, redact) for key, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return redact(value)
    return [_clean(item, redact) for item in value] if isinstance(value, list) else value
