"""What the agent gives a child on its standard input: what arrived, and what it meant to write where a pipe was closed.

A pipe tells what has passed. ``Popen.communicate`` and asyncio are told the whole of it beforehand, so that it is known
also where the child reads a part of it, and how much more passes is chance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

CHILD = "_spanchain_child"
"""Attribute of a ``Popen`` that holds its recorded or served child."""


class Input:
    """Bytes in their order; its user holds a lock."""

    def __init__(self) -> None:
        self.arrived = bytearray()
        self._meant = bytearray()
        self._meant_from: int | None = None

    @property
    def is_told(self) -> bool:
        """Whether the agent's own words are known, whatever arrives of them."""
        return self._meant_from is not None

    def means(self, data: bytes, *, on_its_way: int) -> None:
        """The agent is about to write something.

        Args:
            data: all of it.
            on_its_way: how many bytes it has written before that have yet to arrive.
        """
        if self._meant_from is None:
            self._meant_from = len(self.arrived) + on_its_way
        self._meant += data

    def refused(self) -> bytes:
        """What it meant to write and nobody took."""
        if self._meant_from is None:
            return b""
        return bytes(self._meant[max(0, len(self.arrived) - self._meant_from) :])


def communicate(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Popen.communicate`` that tells a recorded or served child what it is about to be given."""

    @functools.wraps(original)
    def told(self: Any, input: Any = None, timeout: float | None = None) -> Any:  # noqa: A002  # Popen's own name
        child = getattr(self, CHILD, None)
        if child is not None and input and self.stdin and not (self._communication_started or self.stdin.closed):
            data = _bytes(self, input)
            if data is not None:
                with suppress(BrokenPipeError):  # as Popen does, which flushes it next
                    self.stdin.flush()
                child.means(data)
        return original(self, input, timeout)

    return told


def _bytes(popen: Any, given: Any) -> bytes | None:
    """What Popen will write; ``None`` for what it will refuse."""
    if isinstance(given, str):
        return given.encode(popen.stdin.encoding, popen.stdin.errors) if popen.text_mode else None
    return bytes(given) if isinstance(given, (bytes, bytearray, memoryview)) and not popen.text_mode else None
