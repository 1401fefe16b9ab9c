"""The command line of the Claude Agent SDK as a process: its pipes while it is recorded, and what stands for it later.

The SDK's own transport works as it is on both: it cuts lines, parses them, and says what is wrong with them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from .._raised import raised_again
from ._links import unheard
from ._talk import Talk
from ._turns import BYTES, STDERR, TEXT, Turn


class Lines:
    """Cuts bytes into lines, and gives what is no text as it is."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, chunk: bytes) -> list[bytes]:
        """Add bytes; gives the lines that they end."""
        if b"\n" not in chunk:
            self._rest += chunk
            return []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines

    def flush(self) -> bytes:
        """What is left without an end."""
        rest, self._rest = self._rest, b""
        return rest


class Process:
    """A process that runs, and what it says; for one that nobody records, only whether a test speaks to it.

    Args:
        real: anyio's.
        talk: who listens.
    """

    def __init__(self, real: Any, talk: Talk | None) -> None:
        self._real = real
        self.stdin = real.stdin and _Said(real.stdin, talk)
        self.stdout = real.stdout and (real.stdout if talk is None else _Heard(real.stdout, talk))
        self.stderr = real.stderr and (real.stderr if talk is None else _Complaints(real.stderr, talk))
        self._talk = talk

    def closing(self) -> None:
        """Nobody reads to the end any more."""
        if isinstance(self.stdout, _Heard):
            self.stdout.rest()

    async def wait(self) -> int:
        """As anyio's."""
        code: int = await self._real.wait()
        if self._talk is not None:
            self._talk.exited(code)
        return code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Pipe:
    def __init__(self, real: Any, talk: Talk) -> None:
        self._real = real
        self._talk = talk
        self._lines = Lines()

    async def aclose(self) -> None:
        await self._real.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Said:
    def __init__(self, real: Any, talk: Talk | None) -> None:
        self._real = real
        self._talk = talk

    async def send(self, data: bytes) -> None:
        turn: Turn | None = None
        if self._talk is not None:
            turn = self._talk.sent(data.decode("utf-8", "backslashreplace"))
        else:
            unheard()
        try:
            await self._real.send(data)
        except Exception as error:
            if turn is not None:
                turn.unsent(error)
            raise

    async def aclose(self) -> None:
        if self._talk is not None:
            self._talk.end_input()
        await self._real.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Heard(_Pipe):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        import anyio

        try:
            chunk: bytes = await self._real.receive(max_bytes)
        except anyio.EndOfStream:
            self._hear(self._lines.flush(), cut=True)
            self._talk.ended()
            raise
        for line in self._lines.push(chunk):
            self._hear(line)
        return chunk

    def rest(self) -> None:
        """What was read of a line that nobody read to its end is part of what was heard."""
        self._hear(self._lines.flush(), cut=True)

    def _hear(self, line: bytes, *, cut: bool = False) -> None:
        try:
            self._talk.line(line.decode(), cut=cut)
        except UnicodeDecodeError:
            self._talk.packed(base64.b64encode(line).decode(), cut=cut)


class _Complaints(_Pipe):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        import anyio

        try:
            chunk: bytes = await self._real.receive(max_bytes)
        except anyio.EndOfStream:
            self._complain(self._lines.flush())
            raise
        for line in self._lines.push(chunk):
            self._complain(line)
        return chunk

    def _complain(self, line: bytes) -> None:
        if text := line.decode("utf-8", "replace").rstrip():
            self._talk.complained(text)


class Played:
    """What stands for the process in replay: nothing was started.

    Args:
        talk: knows what it said.
        complains: whether somebody listens to its standard error.
    """

    pid = 0

    def __init__(self, talk: Talk, *, complains: bool) -> None:
        self.returncode: int | None = None
        self._talk = talk
        self.stdin = _PlayedInput(talk)
        self.stderr = _PlayedComplaints() if complains else None
        self.stdout = _PlayedOutput(talk, self.stderr, self)

    async def wait(self) -> int:
        """The recorded exit code, at once."""
        self.returncode = self._talk.recorded["exit"] or 0
        return self.returncode

    def send_signal(self, number: int) -> None:
        """There is nobody to be told."""

    def terminate(self) -> None:
        """There is nobody to be told."""

    def kill(self) -> None:
        """There is nobody to be told."""


class _PlayedInput:
    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def send(self, data: bytes) -> None:
        import anyio.lowlevel

        turn = self._talk.sent(data.decode("utf-8", "backslashreplace"))
        await anyio.lowlevel.checkpoint()
        if turn is not None and (error := turn.failure) is not None:
            turn.served()
            raise raised_again(error)

    async def aclose(self) -> None:
        self._talk.end_input()


class _PlayedOutput:
    def __init__(self, talk: Talk, complaints: _PlayedComplaints | None, process: Played) -> None:
        self._talk = talk
        self._complaints = complaints
        self._process = process

    async def receive(self, max_bytes: int = 65536) -> bytes:
        import anyio

        while (entry := await self._talk.next()) is not None:
            params = entry["params"] or {}
            if entry["method"] == STDERR:
                if self._complaints is not None:
                    await self._complaints.put(params["text"])
                continue
            return _line_of(entry["method"], params)
        await self._process.wait()
        if self._complaints is not None:
            await self._complaints.aclose()
        raise anyio.EndOfStream

    async def aclose(self) -> None:
        self._talk.close()


class _PlayedComplaints:
    def __init__(self) -> None:
        import anyio

        self._lines: list[str] = []
        self._there = anyio.Event()
        self._taken = anyio.Event()
        self._over = False

    async def put(self, text: str) -> None:
        """Hand a line over, and wait until it has been read, or nobody reads any more."""
        import anyio

        self._lines.append(text)
        self._taken = anyio.Event()
        self._there.set()
        if not self._over:
            await self._taken.wait()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        import anyio

        self._taken.set()
        try:
            while not self._lines:
                if self._over:
                    raise anyio.EndOfStream
                self._there = anyio.Event()
                await self._there.wait()
        except BaseException:
            self._over = True
            self._taken.set()
            raise
        return (self._lines.pop(0) + "\n").encode()

    async def aclose(self) -> None:
        self._over = True
        self._there.set()
        self._taken.set()


def _line_of(method: str, params: Mapping[str, Any]) -> bytes:
    end = b"" if params.get("cut") else b"\n"
    if method == TEXT:
        return str(params["text"]).encode() + end
    if method == BYTES:
        return base64.b64decode(params["base64"]) + end
    # As long as what came: the SDK bounds the length of a line.
    return json.dumps({"type": method, **params}, ensure_ascii=False, separators=(",", ":")).encode() + end
