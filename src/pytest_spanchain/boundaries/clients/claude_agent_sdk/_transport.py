"""Transports of a user's own for the Claude Agent SDK: met from outside, as the SDK uses them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from .._raised import kind_of, raised_again
from ._links import Link, link, unheard
from ._talk import Talk
from ._turns import BYTES, STDERR, TEXT


def met(base: type) -> type:
    """A class of the SDK's transports that stands around one of the user's.

    Args:
        base: the SDK's ``Transport``.
    """

    class Met(base):  # type: ignore[misc]
        """A transport that is recorded, or served."""

        def __init__(self, real: Any) -> None:
            self._real = real
            self._link: Link | None = None
            self._closed = False

        @property
        def spanchain_talk(self) -> Talk | None:
            """What is said over it."""
            return self._link.talk if self._link is not None else None

        async def connect(self) -> None:
            self._link = link([type(self._real).__name__], cwd=None, env={})
            if self._link is None:
                await self._real.connect()
            elif not self._link.served:
                with self._link.opening():
                    await self._real.connect()
            elif (error := self._link.failure) is not None:
                raise error_of(error)

        async def write(self, data: str) -> None:
            talk = self.spanchain_talk
            if talk is None:
                unheard()
                await self._real.write(data)
                return
            turn = talk.sent(data)
            if talk.live:
                try:
                    await self._real.write(data)
                except Exception as error:
                    if turn is not None:
                        turn.unsent(error)
                    raise
            elif turn is not None and turn.failure is not None:
                turn.served()
                raise error_of(turn.failure)

        async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
            talk = self.spanchain_talk
            if talk is None:
                async for frame in self._real.read_messages():
                    yield frame
            elif talk.live:
                try:
                    async for frame in self._real.read_messages():
                        talk.received(frame)
                        yield frame
                except Exception as error:
                    talk.broke(error)
                    raise
                talk.ended()
            else:
                while (entry := await talk.next()) is not None:
                    if entry["method"] == TEXT:  # a frame of a type that has another meaning in a cassette
                        yield json.loads(entry["params"]["text"])
                    elif entry["method"] not in (BYTES, STDERR):
                        # A copy, as the user may change what he is given.
                        yield json.loads(json.dumps({"type": entry["method"], **(entry["params"] or {})}))
                if (broken := talk.recorded["error"]) is not None:
                    raise error_of(broken)

        async def end_input(self) -> None:
            talk = self.spanchain_talk
            if talk is not None:
                talk.end_input()
            if talk is None or talk.live:
                await self._real.end_input()

        async def close(self) -> None:
            talk, self._closed = self.spanchain_talk, True
            if talk is not None:
                talk.close()
            if talk is None or talk.live:
                await self._real.close()

        def is_ready(self) -> bool:
            talk = self.spanchain_talk
            return bool(self._real.is_ready()) if talk is None or talk.live else not self._closed

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    return Met


def error_of(error: Any) -> Exception:
    """One of the SDK's errors as it was said, else as ``raised_again``."""
    kind = kind_of(error["type"], "claude_agent_sdk._errors")
    if kind is None:
        return raised_again(error)
    made = kind.__new__(kind)
    made.args = (error["message"],)
    return made
