"""What a library raised when this was recorded, raised again: the same class, the same words."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SPOKEN_FOR = ("builtins", "io", "anyio", "httpx", "httpx2", "mcp.client.auth")
"""Modules whose exceptions their own words make."""

_NUMBERED = re.compile(r"\[Errno (-?\d+)\] (.*?)(?:: (b?(?:'.*'|\".*\")))?", re.DOTALL)
_STATUS = re.compile(r"'(\d{3}) [^']*' for url '([^']*)'")


@dataclass(frozen=True)
class Numbered:
    """What an ``OSError`` says.

    Args:
        number: its ``errno``.
        words: what that means.
        filename: of which it is said.
    """

    number: int
    words: str
    filename: str | bytes | None = None

    @property
    def args(self) -> tuple[Any, ...]:
        """What makes it anew."""
        return (self.number, self.words, *([] if self.filename is None else [self.filename]))


def numbered(message: str) -> Numbered | None:
    """A recorded message of an ``OSError``; ``None`` if it has no number."""
    found = _NUMBERED.fullmatch(message)
    if found is None:
        return None
    number, words, filename = int(found[1]), found[2], found[3]
    if filename is not None:
        try:
            return Numbered(number, words, ast.literal_eval(filename))
        except (SyntaxError, ValueError):  # of two files, or no file's name at all
            words = f"{words}: {filename}"
    return Numbered(number, words)


def kind_of(name: str, *homes: str) -> type[Exception] | None:
    """The exception of that name in the first of some modules, of those that are imported, that has it."""
    for home in homes:
        kind = getattr(sys.modules.get(home), name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind
    return None


def raised_again(error: Mapping[str, Any]) -> Exception:
    """An exception as it was recorded, if its class is one of Python's or of an imported client's; else its kin."""
    kind, message = kind_of(error["type"], *_SPOKEN_FOR), error["message"]
    if kind is None:
        return ConnectionError(f"{error['type']}: {message}")
    if issubclass(kind, OSError) and (said := numbered(message)):
        return OSError(*said.args)
    refused = _STATUS.search(message)
    if kind.__name__ == "HTTPStatusError" and refused:
        client: Any = sys.modules[kind.__module__.partition(".")[0]]
        request = client.Request("POST", refused[2])
        response = client.Response(int(refused[1]), request=request)
        made: Exception = client.HTTPStatusError(message, request=request, response=response)
        return made
    # Without words, some classes take none and others want an empty text (those of httpx).
    for args in [(message,)] if message else [(), ("",)]:
        try:
            return kind(*args)
        except TypeError:  # its constructor wants more
            continue
    return ConnectionError(f"{error['type']}: {message}")
