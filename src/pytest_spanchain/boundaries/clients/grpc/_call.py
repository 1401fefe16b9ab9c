"""What plain and asyncio gRPC have in common: a call that is recorded while it passes, and one that is served.

Where requests are streamed, it is recorded what was sent before what was received (``ORDER``), and replay gives out an
answer after as many requests as came before it then: a conversation keeps its turns, and nobody waits for a request
that needs an answer first. What was sent is compared at the end, as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .... import _body, _run
from ...._guard import judge
from ...._run import Call, Run
from ....errors import MissError
from ... import _http
from . import _wire as wire

ORDER = "spanchain.rpc.order"
"""Attribute of a call that streams its requests: ``>`` for each message sent, ``|`` for their end, ``<`` for each
message received."""

DEBUG = "spanchain.rpc.debug_error_string"
"""Attribute of a call that failed: gRPC shows it in the text of its exceptions."""

STATUS = "rpc.response.status_code"

WAIT = object()
"""Stands for an answer that comes after something is sent."""

UNANSWERED = object()
"""Stands for an answer that never came."""


@dataclass
class Crossing:
    """One call at the boundary, as both flavours of gRPC bring it.

    Args:
        method: what is called.
        metadata: of the request.
        request_class: protobuf class of the requests, as far as it is known.
        response_class: protobuf class of the answers, if they are of one.
        sent: serialized requests.
    """

    method: wire.Method
    metadata: Any
    request_class: type | None
    response_class: type | None
    sent: list[bytes] = field(default_factory=list)

    @property
    def request(self) -> dict[str, Any]:
        """The plain request, as far as it was sent."""
        return self.method.request(self.sent, metadata=self.metadata, kind=self.request_class)

    def begin(self, run: Run) -> Call:
        """Cross.

        Raises:
            MissError: replay has nothing to serve.
        """
        method = self.method
        call = run.begin(
            _run.Crossing("http", method.name, self.request, attributes=method.attributes, whole=not method.streamed)
        )
        if call.recorded is not None and call.recorded["status"] is None and call.recorded["end"] == "error":
            call.finish(call.recorded)
            raise _refusal(call)
        return call


def watching(target: str, *, method: str = "") -> Run | None:
    """The run that a call to a channel's target belongs to, if it is to be recorded or replayed.

    Args:
        target: of the channel.
        method: what is called, if that is it.

    Raises:
        Exception: replay does not let it out: the sockets of gRPC's core raise no audit event, so nobody else would
            notice.
    """
    host, port = wire.address_of(target)
    run = _http.watching(host, port, path=method, asks=bool(method))
    if run is None:
        judge(host, port)
    return run


class Recording:
    """Remembers a live call while it passes; safe to call from any thread."""

    def __init__(self, call: Call, crossing: Crossing) -> None:
        self.crossing = crossing
        self.initial: wire.Metadata = ()
        self._call = call
        self._lock = threading.RLock()
        self._received: list[bytes] = []
        self._order: list[str] = []
        self._over = False
        call.at_close = lambda: self.gave_up(waiting=False)

    def sent(self, message: bytes) -> None:
        """A request is about to be sent."""
        with self._lock:
            if not self._over:
                self.crossing.sent.append(message)
                self._order.append(">")

    def unsent(self) -> None:
        """The last request did not go out after all."""
        with self._lock:
            if not self._over and ">" in self._order:
                self.crossing.sent.pop()
                del self._order[len(self._order) - 1 - self._order[::-1].index(">")]

    def closed(self) -> None:
        """No more requests will be sent."""
        with self._lock:
            self._order.append("|")

    def received(self, message: bytes) -> None:
        """An answer came."""
        with self._lock:
            self._received.append(message)
            self._order.append("<")

    def ended(self, code: str, details: str, trailing: wire.Metadata, debug: str) -> None:
        """The server, or gRPC itself, ended the call with a status."""
        if code == "OK":
            self._finish(code, "complete", None, trailing, {})
        else:
            self._finish(code, "error", {"type": code, "message": details}, trailing, {DEBUG: debug} if debug else {})

    def failed(self, error: BaseException) -> None:
        """The call could not be made at all."""
        with self._lock:
            if not self._over:
                self._over = True
                _http.no_answer(self._call, error)

    def gave_up(self, *, waiting: bool) -> None:
        """The agent ended the call: while it waited for an answer, or by not asking for another."""
        self._finish("", "cancelled" if waiting else "closed", None, (), {})

    def _finish(
        self, code: str, end: str, error: dict[str, str] | None, trailing: wire.Metadata, found: dict[str, Any]
    ) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        content_type, chunks = wire.written(self._received, self.crossing.response_class)
        if self.crossing.method.streamed:
            found[ORDER] = "".join(self._order)
            self._call.asked(self.crossing.request)
        if code:
            found[STATUS] = code
        headers = wire.headers(content_type, self.initial, trailing)
        self._call.finish(
            {
                "status": wire.http_status(code) if code else 200 if chunks else None,
                "headers": headers,
                "body": _body.body_of(chunks, content_type=content_type),
                "end": end,
                "error": error,
            },
            attributes=found,
        )


class Playback(_http.Replay):
    """Serves a recorded call; safe to call from any thread.

    Args:
        call: the crossing, which brings the recorded answer.
        crossing: what is asked.
    """

    def __init__(self, call: Call, crossing: Crossing) -> None:
        super().__init__(call, lambda error: RuntimeError("a status is no exception here"))
        self._acts_on_each = False  # of most calls the one answer is all, and its end comes with it
        assert call.span.graft is not None
        self._golden = call.span.graft[1].attributes
        self._crossing = crossing
        self._lock = threading.RLock()
        self._closed = False
        self._needs = _needs(str(self._golden.get(ORDER, "")), len(self._chunks))
        self.initial, self.trailing = wire.metadata_of(self._recorded["headers"])
        error = self._recorded["error"] or {"type": "OK", "message": ""}
        self.code, self.details = str(error["type"]), str(error["message"])
        self.debug = str(self._golden.get(DEBUG, ""))

    def at_close(self, step: Callable[[], None]) -> None:
        """What to do if the run ends before the call does; it ends the call."""
        self._call.at_close = step

    def sent(self, message: bytes) -> None:
        """The agent sends a request."""
        with self._lock:
            # A server that ends a call while it is sent to: how much more goes out before that is known, is chance.
            needed, closed = self._needs[-1]
            by_chance = self.ends() and not closed and len(self._crossing.sent) >= needed
            if not self._over and not by_chance:
                self._crossing.sent.append(message)

    def closed(self) -> None:
        """The agent will send no more requests."""
        with self._lock:
            self._closed = True

    def answers(self) -> bool:
        """Whether there was any answer."""
        return self._recorded["status"] is not None

    def ends(self) -> bool:
        """Whether the recorded call came to a status of its own."""
        return self._recorded["end"] in ("complete", "error")

    def step(self) -> Any:
        """What comes next: a message, ``None`` for the status, ``WAIT`` or ``UNANSWERED``.

        Raises:
            MissError: the agent reads on where it stopped when this was recorded.
        """
        with self._lock:
            if self._given == len(self._chunks) and not self.ends():
                if self.waits() or self._recorded["status"] is None:
                    return UNANSWERED
                self.end()
            if not self._is_due(self._needs[self._given]):
                return WAIT
            if self._given < len(self._chunks):
                return self._message(next(self.serve()))
            return None

    def is_over(self) -> bool:
        """Whether nothing is left but the status, which would come by itself."""
        with self._lock:
            return self.ends() and self._given == len(self._chunks) and self._is_due(self._needs[-1])

    def over(self) -> None:
        """The agent goes no further. Once."""
        with self._lock:
            if self._over:
                return
            if self._crossing.method.streamed:
                self._call.asked(self._crossing.request)
            known = {key: self._golden[key] for key in (ORDER, DEBUG, STATUS) if key in self._golden}
            self._call.span.attributes = {**self._call.span.attributes, **known}
            super().over()

    def waited(self) -> MissError:
        """The error for an agent that waited in vain."""
        self.over()
        sent = len(self._crossing.sent)
        return self._call.drift(
            f"the agent waits for an answer that did not come after {sent} requests when this was recorded"
        )

    def _is_due(self, needs: tuple[int, bool]) -> bool:
        requests, closed = needs
        return self._closed or (len(self._crossing.sent) >= requests and not closed)

    def _message(self, chunk: bytes) -> bytes:
        try:
            return wire.read_back(chunk, self._recorded["headers"]["content-type"], self._crossing.response_class)
        except ValueError as error:
            raise self._call.drift(str(error)) from None


def noted(serializer: Callable[[Any], bytes] | None, crossing: Crossing) -> Callable[[Any], bytes]:
    """A serializer that takes note of what class the requests are of."""

    def serialize(message: Any) -> bytes:
        crossing.request_class = wire.message_class(type(message))
        serialized: bytes = message if serializer is None else serializer(message)
        return serialized

    return serialize


def _needs(order: str, answers: int) -> list[tuple[int, bool]]:
    """For each answer, and then for the status: how many requests come before it, and whether their end does."""
    found, sent, closed = [], 0, False
    for step in order:
        if step == "<":
            found.append((sent, closed))
        sent += step == ">"
        closed = closed or step == "|"
    return [*found, *[(sent, closed)] * (answers + 1 - len(found))]


def _refusal(call: Call) -> Exception:
    """The recorded exception of a call that could not be made."""
    assert call.recorded is not None
    error = call.recorded["error"]
    kinds = {kind.__name__: kind for kind in (ValueError, TypeError, RuntimeError)}
    return kinds.get(error["type"], RuntimeError)(error["message"])
