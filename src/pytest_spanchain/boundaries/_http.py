"""What every HTTP boundary has in common: an answer that is recorded while it passes, and one that is served.

The rules of a stream are here and nowhere else: who ended it and how, how far the agent read, and that replay ends the
same way. A boundary brings its library's chunks and gets chunks back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import _body, _session
from .._guard import is_telemetry
from .._run import Call, Run, current_run
from . import _wait

DECODED = ("content-encoding", "content-length", "transfer-encoding")
"""Headers that tell of a body as it was sent, and no longer hold when it is handed on decoded."""

GIVEN_UP = "the recorded call was given up before it was answered"
"""Words of the error in replay where the recorded agent had not waited for the answer."""

_STOPPED = {"closed": "closed the stream", "cancelled": "was stopped while it waited"}

Headers = Sequence[tuple[str, str]]

_SIGNATURE = re.compile(r"[?&](?:x-(?:amz|goog)-)?sig(?:nature)?=", re.IGNORECASE)
_SIGNED_AT = re.compile(r"(?<=[?&])(x-(?:amz|goog)-date|expires|se|st)=\d[\dTZ:%A-]*", re.IGNORECASE)
_BOUNDARY = re.compile(r"^multipart/.*\bboundary=\"?([^\";]+)", re.IGNORECASE)


def watching(host: str, port: int | None, *, path: str = "", asks: bool = True) -> Run | None:
    """The run that a request belongs to.

    Args:
        host: name or address.
        port: its port, if it is given.
        path: of the request, where it is known: exporters of telemetry are told by it.
        asks: whether the request goes out here, and is counted where no run owns it; not if somebody below is asked
            as well, or nothing but a connection is wanted.

    Returns:
        ``None`` if it is nobody's: there is no run; it is telemetry, which stays out of cassettes (the guard refuses it
        in replay); or it is how another boundary's call goes out, which is recorded already.

    Raises:
        RunClosedError, OwnershipError: as ``current_run``.
    """
    if is_telemetry(host, port, path=path):
        return None
    run = current_run()
    if asks and run is None and (session := _session.current()) is not None:
        session.met(host)
    return None if run is None or run.inside("http", "model", "mcp", "process") else run


def request_of(*, method: str, url: str, headers: Headers, content: bytes) -> dict[str, Any]:
    """The plain request of an HTTP exchange (shape: see ``_model``)."""
    content_type = value_of(headers, "content-type")
    drawn = _BOUNDARY.search(content_type)
    if drawn is not None:
        # Clients draw it at random for every request; redaction levels it in the header.
        content = content.replace(b"--" + drawn[1].encode("latin-1"), b"--boundary")
    if _SIGNATURE.search(url):
        url = _SIGNED_AT.sub(r"\1=signed", url)  # the clock's, as the signature is, which redaction levels
    body = _body.body_of([content], content_type=content_type, layout=False)
    return {"method": method, "url": url, "headers": list(headers), "body": body}


def no_answer(call: Call, error: BaseException | None = None, *, step: str = "", message: str = "") -> None:
    """The call came to no answer.

    Args:
        call: the crossing.
        error: what it raised; nothing, or what is no ``Exception``, is the caller giving up.
        step: while what it was raised, where one error can come from several; ``step_of`` tells it in replay.
        message: what to record of it, where its own words do not say all that replay needs.
    """
    told = _error(error, message) if isinstance(error, Exception) else None
    if told is not None and step:
        told["type"] = f"{step}:{told['type']}"
    call.finish(
        {"status": None, "headers": [], "body": None, "end": "closed" if told is None else "error", "error": told}
    )


def step_of(error: Mapping[str, Any] | None) -> str:
    """While what a recorded error was raised."""
    return "" if error is None else str(error["type"]).rpartition(":")[0]


class Recording:
    """Remembers a live answer while it passes, and tells the call how it ended.

    Args:
        call: the crossing that it answers.
        status: HTTP status.
        headers: of the answer, as the agent sees them.
    """

    def __init__(self, call: Call, *, status: int, headers: Headers) -> None:
        self.chunks: list[bytes] = []
        self._call = call
        self._status = status
        self._headers = headers
        self._over = False
        call.at_close = lambda: self.over("closed")

    def over(self, end: str, error: BaseException | None = None) -> None:
        """It ended: ``complete``, ``closed`` by the reader, ``cancelled`` while it waited, or ``error``. Once."""
        if self._over:
            return
        self._over = True
        if end == "closed" and _body.ends_by_itself(self.chunks):
            end = "complete"
        self._call.finish(
            {
                "status": self._status,
                "headers": self._kept(),
                "body": _body.body_of(self.chunks, content_type=value_of(self._headers, "content-type")),
                "end": end,
                "error": _error(error) if error else None,
            }
        )

    def _kept(self) -> list[tuple[str, str]]:
        """The headers: a length is that of what was sent, and may have been encoded; to HEAD it is the answer."""
        exchange = self._call.span.exchange
        asked = exchange is not None and exchange.request.get("method") == "HEAD"
        return [(name, value) for name, value in self._headers if asked or name.lower() != "content-length"]


class Replay:
    """Serves a recorded answer, chunk by chunk, and tells the call how far the agent went.

    Args:
        call: the crossing that it answers.
        error_of: makes the library's exception of a recorded ERROR.
    """

    def __init__(self, call: Call, error_of: Callable[[Mapping[str, Any] | None], Exception]) -> None:
        assert call.recorded is not None
        self._call = call
        self._recorded = call.recorded
        self._error_of = error_of
        self._chunks = _body.chunks_of(self._recorded["body"])
        self._acts_on_each = "chunks" in (self._recorded["body"] or ())
        """Whether the reader goes by each chunk, as of events."""
        self._given = 0
        self._over = False
        call.at_close = self.over

    def may_end(self) -> None:
        """Wait in a thread until the call may end, if what comes next is the last chunk, or the end.

        To be asked before the head and before each chunk: many a reader goes on from the last chunk without asking for
        the end, and of an answer that comes in one piece, from its status. Who reads events acts on each; so only the
        end of those waits.
        """
        if self._nears_its_end():
            _wait.may_end(self._call)

    async def may_end_async(self) -> None:
        """The same in a task."""
        if self._nears_its_end():
            await _wait.may_end_async(self._call, self.over)

    def _nears_its_end(self) -> bool:
        if self._recorded["end"] in _STOPPED:  # all of it had come before
            return False
        return self._given >= len(self._chunks) - (not self._acts_on_each)

    def serve(self) -> Iterator[bytes]:
        """The chunks that are left."""
        while self._given < len(self._chunks):  # from where the last reader stopped, as a live stream would
            self._given += 1
            yield self._chunks[self._given - 1]

    def waits(self) -> bool:
        """Whether the recorded reader waited for more until something stopped it."""
        return bool(self._recorded["end"] == "cancelled")

    def end(self) -> None:
        """What comes after the last chunk.

        Raises:
            Exception: the recorded error, or a miss if the recorded reader had stopped before.
        """
        self.over()
        end = self._recorded["end"]
        if end == "error":
            raise self._error_of(self._recorded["error"])
        if end in _STOPPED:
            raise self._call.drift(
                f"the agent reads on after {self._given} chunks, where it {_STOPPED[end]} when this was recorded"
            )

    def over(self) -> None:
        """The agent reads no further. Once."""
        if self._over:
            return
        self._over = True
        if self._given == len(self._chunks):
            self._call.finish(self._recorded)
        else:
            self._call.finish({**self._recorded, "end": "closed", "body": self._part(), "error": None})

    def _part(self) -> Any:
        body = self._recorded["body"]
        part = _body.body_of(
            self._chunks[: self._given], content_type=self._recorded["headers"].get("content-type", "")
        )
        return part if part is None or "message" not in part else {**part, "message": body["message"]}


def value_of(headers: Iterable[tuple[str, str]], name: str) -> str:
    """The first header of that lower-case name, or nothing."""
    return next((value for key, value in headers if key.lower() == name), "")


def _error(error: BaseException, message: str = "") -> dict[str, str]:
    return {"type": type(error).__name__, "message": message or str(error)}
