"""Answers at ``http.client``: a live one is followed while it is read, a recorded one is read like a live one.

A recorded answer comes back as bytes of a socket that there is none of, so that the library's own parser makes its own
response of it, with its own errors; urllib3's pool stands on the same parser.

Invariant: nothing is finished by the garbage collector, which may come while the run's lock is held.
"""

from __future__ import annotations

import builtins
import http.client
import io
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, cast

from ... import _body
from ..._run import OWNERSHIP, UNANSWERED, Call
from ...errors import RecordingError
from .. import _http, _wait
from . import _raised, _wire

_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_SSL_NUMBERS = {ssl.SSLEOFError: ssl.SSL_ERROR_EOF, ssl.SSLZeroReturnError: ssl.SSL_ERROR_ZERO_RETURN}
_GIVEN_UP = {"type": "RemoteDisconnected", "message": _http.GIVEN_UP}


def follow(call: Call, response: http.client.HTTPResponse, *, method: str) -> Following:
    """Record a live response while it is read."""
    followed = Following(call, response, method=method)
    if response.fp is None or followed.body.complete:
        followed.over("complete")
    else:
        response.fp = cast("io.BufferedReader", _Followed(response.fp, followed))
    return followed


class Following(_http.Recording):
    """The recording of a live response, whose body is kept decoded."""

    def __init__(self, call: Call, response: http.client.HTTPResponse, *, method: str) -> None:
        headers = response.getheaders()
        super().__init__(call, status=response.status, headers=headers)
        self._encoding = _http.value_of(headers, "content-encoding")
        chunked = bool(response.chunked) and method != "HEAD"
        self.body: _wire.ChunkedBody | _wire.PlainBody
        self.body = _wire.ChunkedBody() if chunked else _wire.PlainBody(response.length)
        self._told = False

    def over(self, end: str, error: BaseException | None = None) -> None:
        """It ended; see ``Recording.over``."""
        if self._told:
            return
        self._told = True
        self.body.flush()
        try:
            self.chunks = _wire.decoded(self.body.pieces, self._encoding)
        except ValueError as fault:
            self.chunks = self.body.pieces
            self._call.fail(RecordingError(f"the answer to {self._call.span.name} cannot be recorded: {fault}"))
        super().over(end, error)

    def took(self, data: bytes, *, ended: bool) -> None:
        """The reader has got more; ``ended``: and the connection has nothing left."""
        self.body.feed(data)
        if self.body.complete:
            self.over("complete")
        elif self.body.fault is not None:
            self.over("error", self.body.fault)
        elif ended:
            fault = self.body.cut()
            self.over("error" if fault else "complete", fault)


class _Followed:
    """The file of a live response."""

    def __init__(self, source: Any, following: Following) -> None:
        self._source = source
        self._following = following

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, amount: int | None = -1) -> bytes:
        whole = amount is None or amount < 0
        return self._got(lambda: self._source.read(amount), enough=None if whole else amount)

    def read1(self, amount: int = -1) -> bytes:
        return self._got(lambda: self._source.read1(amount), enough=min(abs(amount), 1))

    def readline(self, limit: int = -1) -> bytes:
        return self._got(lambda: self._source.readline(limit), enough=min(abs(limit), 1))

    def readinto(self, buffer: Any) -> int:
        def read() -> bytes:
            count = self._source.readinto(buffer)
            return bytes(memoryview(buffer)[:count])

        return len(self._got(read, enough=len(buffer)))

    def close(self) -> None:
        try:
            self._source.close()
        finally:
            self._following.over("closed")

    def _got(self, read: Callable[[], bytes], *, enough: int | None) -> bytes:
        """What was read; less than ``enough`` means the end, and reading without an amount goes to the end."""
        try:
            data = read()
        except Exception as error:
            self._following.over("error", error)
            raise
        if data is not None:
            self._following.took(data, ended=enough is None or len(data) < enough)
        return data


class NoSocket:
    """Stands for a connection's socket while there is none; what is sent to it goes nowhere."""

    def sendall(self, data: Any, *args: Any) -> None:
        """Take what is sent."""

    send = setsockopt = shutdown = settimeout = sendall

    def gettimeout(self) -> None:
        """None: nobody waits."""

    def close(self) -> None:
        """Nothing to close; a response outlives its socket, as it does with a real one."""

    def fileno(self) -> int:
        """There is none.

        Raises:
            OSError: always.
        """
        raise OSError("there is no connection, and so no file descriptor")


class ServedSocket(NoSocket):
    """The socket that a recorded answer comes from."""

    def __init__(self, call: Call, *, method: str) -> None:
        self._replay = _http.Replay(call, error_of)
        self._wire = _Wire(call, self._replay, method=method)

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        """The bytes of the answer."""
        return _Served(self._wire, self._replay)


class _Wire(io.RawIOBase):
    """One recorded chunk at a time, so that what was read can be told."""

    def __init__(self, call: Call, replay: _http.Replay, *, method: str) -> None:
        self._parts = self._all(call, replay, method)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._left = memoryview(part)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    @staticmethod
    def _all(call: Call, replay: _http.Replay, method: str) -> Iterator[bytes]:
        recorded = call.recorded
        assert recorded is not None
        chunks = _body.chunks_of(recorded["body"])
        frame = _wire.frame_of(recorded, method=method, chunks=chunks)
        replay.may_end()
        yield frame.head(recorded["status"], recorded["headers"])
        for number, chunk in enumerate(replay.serve()):
            yield frame.piece(number, chunk)
            replay.may_end()
        if begun := frame.begun(len(chunks)):
            yield begun
        try:
            replay.end()
        except _wire.IncompleteRead:
            return  # the library finds out by itself, and says so in its own way
        yield frame.end()


class _Served:
    """The file of a recorded answer. No file of Python's: the collector would close it, and so tell of an end."""

    def __init__(self, wire: _Wire, replay: _http.Replay) -> None:
        self._source = io.BufferedReader(wire)
        self._replay = replay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def close(self) -> None:
        self._replay.over()
        self._source.close()


def raise_recorded(call: Call, *, library: Any = None) -> NoReturn:
    """Fail as the recorded call failed.

    Args:
        call: one that was recorded without an answer.
        library: a module of exceptions, see ``error_of``.
    """
    recorded = call.recorded
    assert recorded is not None
    if recorded is UNANSWERED:
        _hold()  # a thread that still waited when the recording ended
    else:
        _wait.may_end(call)
        call.finish(recorded)
    if recorded["error"] is None:
        raise call.drift("the agent waits for an answer, which it had not waited for when this was recorded")
    raise error_of(recorded["error"], library=library)


def _hold() -> None:
    """Wait for the end of the run."""
    run = OWNERSHIP.peek()
    if run is not None and not _wait.until(lambda: run.closed):
        return
    raise error_of(_GIVEN_UP)


def error_of(error: Mapping[str, Any] | None, *, library: Any = None) -> Exception:
    """The recorded exception again: one of Python's own, or one of ``library``, a module of exceptions."""
    assert error is not None
    name, message = error["type"].rpartition(":")[2], error["message"]
    if name == "IncompleteRead":
        return _wire.IncompleteRead(message)
    for home in (builtins, library, http.client, socket, ssl):
        kind = getattr(home, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            return _made(kind, message)
    return ConnectionError(f"{name}: {message}")


def _made(kind: type[Exception], message: str) -> Exception:
    if issubclass(kind, ssl.SSLError):
        return kind(int(_SSL_NUMBERS.get(kind, ssl.SSL_ERROR_SSL)), message)
    if kind.__name__ == "SSLError":  # urllib3's holds the one that it stands for
        return kind((ssl.SSLCertVerificationError if _UNTRUSTED in message else ssl.SSLError)(1, message))
    if issubclass(kind, OSError):
        said = _raised.numbered(message)
        return kind(*(said.args if said else (message,)))
    # Its own constructor wants the pool, the connection, the URL; its text was made of them.
    made = kind.__new__(kind, message)
    if not made.args:
        made.args = (message,)
    return made
