"""The parts of a conversation between the Claude Agent SDK and its command line: turns, and requests within them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...._call import Call
from ...._capture import OpenSpan
from ...._layout import ordered, unordered
from ...._run import OWNERSHIP, Crossing, Run
from ...._strands import on_behalf
from ....errors import MissError
from .._trace_context import attached
from ._words import asked_as, result_attributes

RESULT = "result"
REQUEST = "control_request"
RESPONSE = "control_response"
CANCEL = "control_cancel_request"

EXIT = "exit"
STDERR = "stderr"
TEXT = "text"
BYTES = "bytes"
UNSENT = "unsent"
END_INPUT = "end_input"
ANSWERED = "answered"
MARKS = frozenset({EXIT, STDERR, TEXT, BYTES, UNSENT, END_INPUT, ANSWERED})
"""What stands among the frames and is none; a frame of such a type is kept as text."""

Entry = Mapping[str, Any]


class Turn:
    """What the SDK sent of its own accord, and what came until it sent something else.

    Args:
        run: whose it is.
        call: its exchange.
        outer: OpenTelemetry's context in which it was sent.
        ordinal: its number among the control requests of the connection.
    """

    def __init__(self, run: Run, call: Call, outer: Any, *, ordinal: int) -> None:
        self.outer = outer
        self.strand = call.span.strand.spawn(ends_unseen=True)
        """What comes of it has its place after it, and before what the agent does next."""
        self.ordinal = ordinal
        self.arrived: list[Entry] = []
        self.response: dict[str, Any] | None = None
        self.recorded = None if call.recorded is None else unordered(call.recorded)
        self._run = run
        self._call = call
        self._dirty = False
        call.at_close = self.closed

    def heard(self, method: str, params: Mapping[str, Any] | None = None, *, asks: bool = False) -> None:
        """Something came, or has its place here."""
        entry: dict[str, Any] = {"method": method, "params": None if params is None else dict(params)}
        if asks:
            entry["asks"] = True
        if self.response is not None:
            entry["late"] = self._dirty = True
        self.arrived.append(entry)

    def answered(self, result: Any, *, error: Mapping[str, Any] | None = None, end: str = "complete") -> None:
        """It is over, as far as its own answer goes."""
        if self.response is None and not self._run.closed:
            self.response = {"result": result, "error": error, "end": end}
            self._call.finish(self._whole(), attributes=result_attributes(result))

    def unsent(self, error: Exception) -> None:
        """It could not be sent."""
        self.heard(UNSENT)
        self.answered(None, error={"type": type(error).__name__, "message": str(error)}, end="error")

    @property
    def failure(self) -> Mapping[str, Any] | None:
        """The error with which it could not be sent when this was recorded."""
        sent = self.recorded is None or not any(entry["method"] == UNSENT for entry in self.recorded["arrived"])
        return None if sent or self.recorded is None else self.recorded["error"]

    def closed(self) -> None:
        """Nothing more comes of it."""
        if self.recorded is None:
            self.answered(None, end="closed")
        else:
            self.served()

    def served(self) -> None:
        """What was recorded of it has been handed over."""
        if self.response is None:
            assert self._call.recorded is not None
            self.response = self.recorded
            golden = self._call.span.graft[1].attributes if self._call.span.graft else {}
            told = result_attributes(self.recorded["result"] if self.recorded else None)
            self._call.finish(self._call.recorded, attributes={key: golden[key] for key in told if key in golden})

    def settle(self) -> None:
        """Write down what came after the answer."""
        if self._dirty and not self._run.closed:
            self._dirty = False
            self._call.amend(self._whole())

    @property
    def span(self) -> OpenSpan:
        """Its span."""
        return self._call.span

    def drift(self, message: str) -> MissError:
        """See ``Call.drift``."""
        return self._call.drift(message)

    def _whole(self) -> dict[str, Any]:
        assert self.response is not None
        return ordered({**self.response, "arrived": list(self.arrived)})


class Ask:
    """What the command line asks of the SDK.

    Args:
        turn: to which it belongs.
        run: whose it is.
        request: what is asked.
    """

    def __init__(self, turn: Turn, run: Run, request: Mapping[str, Any]) -> None:
        self._run = run
        self.begun = False
        """Whether the agent has taken it up."""
        self._outer = turn.outer
        self._call: Call | None = None
        asked = asked_as(request)
        # A tool begins where it is called; it may run beside another.
        self._strand = turn.strand if asked is not None else turn.strand.spawn(ends_unseen=True)
        if asked is not None:
            with self._place():
                request = {"method": asked.method, "params": asked.params}
                self._call = run.begin(Crossing("callback", asked.name, request, span_kind="server", runs=True))
            self._call.at_close = lambda: self.answered(
                None, "RuntimeError", "it was not answered before the run ended"
            )

    @contextmanager
    def within(self) -> Iterator[None]:
        """What is done to answer is part of it, and of its run."""
        if self._call is not None:
            with OWNERSHIP.own(self._run), self._call.active():
                yield
        else:
            with self._place():
                yield

    def answered(self, result: Any, kind: str = "", message: str = "") -> None:
        """It was answered.

        Args:
            result: what with.
            kind: of the error, if it was refused.
            message: of the error.
        """
        call, self._call = self._call, None
        if call is not None and not self._run.closed:
            call.finish({"result": result, "error": {"type": kind, "message": message} if kind else None})

    @contextmanager
    def _place(self) -> Iterator[None]:
        with OWNERSHIP.own(self._run), attached(self._outer), on_behalf(self._strand):
            yield


@dataclass(eq=False)
class Conversation:
    """What has been said, and what waits for an answer.

    Args:
        run: whose it is.
    """

    run: Run
    turns: list[Turn] = field(default_factory=list)
    prompts: deque[Turn] = field(default_factory=deque)
    controls: dict[str, Turn] = field(default_factory=dict)
    asks: dict[str, Ask] = field(default_factory=dict)
    input_ended: bool = False
    missed: bool = False
    over: bool = False
    awaited: Callable[[], bool] = lambda: True
    ring: Callable[[], object] = lambda: None

    @property
    def latest(self) -> Turn | None:
        """What was sent last."""
        return self.turns[-1] if self.turns else None

    def asked(self, turn: Turn, params: Mapping[str, Any]) -> None:
        """The command line asks."""
        request = params.get("request")
        if isinstance(request, Mapping) and not self.run.closed:
            self.asks[str(params.get("request_id"))] = Ask(turn, self.run, request)

    def taken_back(self, params: Mapping[str, Any]) -> None:
        """The command line does not want to know any more."""
        ask = self.asks.pop(str(params.get("request_id")), None)
        if ask is not None:
            ask.answered(None, "Cancelled", "the command line took it back")

    def wake(self) -> None:
        """Something has changed."""
        ring, self.ring = self.ring, lambda: None
        ring()
