"""The calls of one run: each crosses a boundary once, and is recorded, served or refused.

A boundary asks ``begin`` and gets a call that either carries the recorded answer or lets the real thing go out; it says
``finish`` once. Which of the two it is, is decided here and nowhere else. Safe to use from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import _fresh, _genai, _guard
from ._call import UNANSWERED, Call, Crossing
from ._capture import Capture, OpenSpan
from ._ends import Ends
from ._findings import Findings
from ._genai.attributes import TOOL_CALL_ID, TOOL_NAME
from ._model import CONNECTION, HTTP_KINDS, Exchange, Span, SpanTree
from ._normalise import Normaliser
from ._plan import Plan
from ._player import Player
from ._screen import Screen
from ._tool_calls import ToolCalls
from ._volatile import Substitution, Volatile
from .errors import CassetteError

_SETTLE_STEPS, _SETTLE_TICK = 20, 0.01


class Calls:
    """The calls of one run.

    Args:
        plan: what the run is to do.
        capture: gets a span for each call.
        screen: redacts what is asked and answered.
        normaliser: makes requests comparable.
        volatile: knows what the run's own context supplied.
        player: serves recorded answers; ``None``: none are served.
        findings: hears of what is refused.
        tool_calls: hears of the tools that models are offered and ask for.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        capture: Capture,
        screen: Screen,
        normaliser: Normaliser,
        volatile: Volatile,
        player: Player | None,
        findings: Findings,
        tool_calls: ToolCalls,
    ) -> None:
        self.capture = capture
        self.findings = findings
        self.closed = False
        """Whether the run has ended, so that each further call is refused."""
        self.live = 0
        """How many really happened."""
        self._plan = plan
        self._screen = screen
        self._normaliser = normaliser
        self._volatile = volatile
        self._player = player
        self._tool_calls = tool_calls
        self.ends = Ends(player.cassette.tree if player is not None else SpanTree())
        """When served calls end."""
        self._lock = threading.RLock()  # the collector may end a call in the midst of it
        self._in_flight: dict[int, Call] = {}
        self._substitutions: dict[tuple[str, Substitution], None] = {}

    @property
    def in_flight(self) -> tuple[Call, ...]:
        """Those that have begun and not ended."""
        with self._lock:
            return tuple(self._in_flight.values())

    @property
    def substitutions(self) -> tuple[tuple[str, Substitution], ...]:
        """Recorded volatile values that stood in for live ones, each with the name of its span."""
        with self._lock:
            return tuple(self._substitutions)

    def begin(self, crossing: Crossing) -> Call:
        """A call reaches a boundary.

        Raises:
            CassetteError: the run can neither replay nor record.
            MissError: replay has nothing to serve.
            RunClosedError: the run has ended.
        """
        return self._begun(crossing, self._tool_calls)

    def relay(self, crossing: Crossing) -> Call:
        """A call that another process makes; see ``begin``. Tools that its model is offered are none of this one's."""
        return self._begun(crossing, ToolCalls())

    def answer(self, crossing: Crossing) -> Call:
        """A tool's call that is what the model asked for, if it has; see ``begin``.

        Of one that may be none of the tool's, ``ToolCalls.answered`` says so later.
        """
        self._admit()
        crossing = self._screened(crossing, crossing.request)
        asked_as = self._tool_calls.done(crossing.attributes.get(TOOL_NAME, ""), crossing.request["arguments"])
        if asked_as:
            crossing = replace(crossing, attributes={**crossing.attributes, TOOL_CALL_ID: asked_as})
        return self._opened(crossing, None, self._tool_calls)

    def _begun(self, crossing: Crossing, tool_calls: ToolCalls) -> Call:
        self._admit()
        operation, request = None, crossing.request
        if crossing.kind == "http":
            request = self._screen.http_request(request)
            asked = _genai.content(request["body"])
            operation = _genai.recognise(method=request["method"], url=request["url"], body=asked)
            if operation is not None:
                attributes = {**crossing.attributes, **operation.attributes}
                crossing = replace(crossing, kind="model", name=operation.name, attributes=attributes)
                tool_calls.offer(_genai.declared_tools(operation, asked))
        return self._opened(self._screened(crossing, request), operation, tool_calls)

    def _screened(self, crossing: Crossing, request: Mapping[str, Any]) -> Crossing:
        return replace(crossing, request=self._screen.request(crossing.kind, request))

    def _opened(self, crossing: Crossing, operation: _genai.Operation | None, tool_calls: ToolCalls) -> Call:
        """A call that is screened gets its span, and what is recorded of it."""
        span = self.capture.open(self._screen.text(crossing.name), span_kind=crossing.span_kind)
        for other in self.in_flight:
            if other.at_next is not None and other.span.strand is span.strand:
                self.findings.tried(other.at_next)
        span.attributes = self._screen.attributes(crossing.attributes)
        span.exchange = Exchange(crossing.kind, crossing.request, None)
        runs = crossing.runs or (crossing.kind == "tool" and self._runs_in_replay(span))
        recorded = self._recorded(crossing, span, runs=runs)
        end = self.ends.begin(span.graft[1]) if span.graft is not None else None
        call = Call(self, span, operation=operation, recorded=recorded, end=end, tool_calls=tool_calls)
        with self._lock:
            self.live += recorded is None and not runs
            self._in_flight[span.span_id] = call
        return call

    def asked(self, call: Call, request: Mapping[str, Any]) -> None:
        """A request is all there; see ``Call.asked``."""
        exchange = call.span.exchange
        assert exchange is not None
        if exchange.kind in HTTP_KINDS:
            request = self._screen.http_request(request)
        request = self._screen.request(exchange.kind, request)
        if call.span.graft is not None:
            request = self._translated(call.span, call.span.graft[1], request)
        call.span.exchange = Exchange(exchange.kind, request, exchange.response)

    def finish(self, call: Call, response: Mapping[str, Any], *, attributes: Mapping[str, Any]) -> None:
        """A call is over; see ``Call.finish``."""
        span, operation = call.span, call.operation
        assert span.exchange is not None
        if call.recorded is None:
            response = self._screen.response(span.exchange.kind, operation, response)
        # What stands for an answer that was never recorded is none either.
        answered = None if response is UNANSWERED else response
        span.exchange = Exchange(span.exchange.kind, span.exchange.request, answered)
        found = dict(attributes)
        if operation is not None:
            found.update(_genai.describe_response(operation, response))
            call.tool_calls.ask(_genai.tool_calls(operation, response))
        self._tell(span, response, found)
        self.capture.close(span)
        with self._lock:
            self._in_flight.pop(span.span_id, None)
        if span.graft is not None:
            self.ends.over(span.graft[1])

    def amend(self, call: Call, response: Mapping[str, Any]) -> None:
        """An answer that was recorded goes on; see ``Call.amend``."""
        span = call.span
        assert span.exchange is not None
        response = self._screen.response(span.exchange.kind, None, response)
        span.exchange = Exchange(span.exchange.kind, span.exchange.request, response)
        self._tell(span, response, {})

    def _tell(self, span: OpenSpan, response: Mapping[str, Any], found: dict[str, Any]) -> None:
        """What a span says of its answer."""
        error = _error_of(response)
        if error is not None:
            span.status, span.status_message = "error", error[1]
            found.setdefault("error.type", error[0])
        span.attributes = {**span.attributes, **self._screen.attributes(found)}

    def end(self) -> None:
        """The run ends: what is open is finished as far as it came, and nothing begins any more."""
        self.ends.release()
        self._settle()
        try:
            for call in self.in_flight:
                if call.at_close is not None:
                    self.findings.tried(call.at_close)
        finally:
            self.closed = True

    def _settle(self) -> None:
        """Give those a moment who were kept waiting: they had ended when this was recorded."""
        never = threading.Event()
        for _ in range(_SETTLE_STEPS):
            if not any(call.end is not None and call.end.waiting for call in self.in_flight):
                return
            never.wait(_SETTLE_TICK)

    def inside(self, *kinds: str) -> bool:
        """Whether the calling context is inside a call of one of these kinds that has yet to end."""
        span = self.capture.enclosing()
        return span is not None and span.exchange is not None and span.exchange.kind in kinds

    def inside_seam(self, name: str) -> bool:
        """Whether the calling context is what a framework's call of that tool runs."""
        span = self.capture.enclosing()
        return span is not None and span.seam and span.attributes.get(TOOL_NAME) == self._screen.text(name)

    def _admit(self) -> None:
        if self.closed:
            raise self.findings.too_late(f"a call was made after the run of {self._plan.nodeid} had ended")
        if self._plan.refusal is not None:
            raise self._plan.refusal
        _fresh.look_at_clock()

    def _recorded(self, crossing: Crossing, span: OpenSpan, *, runs: bool) -> Mapping[str, Any] | None:
        if self._player is None:
            return None
        kind, request = crossing.kind, crossing.request
        wanted, records = self._normaliser.request(kind, span.name, request), self._plan.records
        branch, connection = self.capture.branch(span), span.attributes.get(CONNECTION)
        served = self._player.find(
            kind, span.name, wanted, branch=branch, borrow=not records, whole=crossing.whole, connection=connection
        )
        if served is None and records:
            return None
        if served is None:
            span.status, span.status_message = "error", "not recorded"
            self.capture.close(span)
            self.findings.note(f"{span.name} was called at {_guard.call_site()}: nothing is recorded for it")
            raise self.findings.miss(f"nothing recorded for {span.name}")
        assert served.exchange is not None
        span.exchange = Exchange(kind, self._translated(span, served, request), None)
        if runs:
            self.ends.over(served)
            return None
        try:
            response = served.exchange.response
        except CassetteError as error:  # it is built now; the agent may swallow this
            self.capture.close(span)
            self.ends.over(served)
            self.findings.note_error(str(error))
            raise
        self._player.skip_below(served)
        span.graft = (self._player.cassette.tree, served)
        return response or UNANSWERED

    def _translated(self, span: OpenSpan, served: Span, request: Mapping[str, Any]) -> Mapping[str, Any]:
        assert served.exchange is not None
        translation = self._volatile.claim(served.exchange.request, request)
        with self._lock:
            for made in translation.made:
                self._substitutions[span.name, replace(made, path=f"request.{made.path}")] = None
        found: Mapping[str, Any] = translation.value
        return found

    def _runs_in_replay(self, span: OpenSpan) -> bool:
        """Whether a call is a tool's that is to run for real although it is recorded."""
        tool = span.attributes.get(TOOL_NAME)
        return self._plan.replays and isinstance(tool, str) and self._plan.settings.runs(tool)


def _error_of(response: Mapping[str, Any]) -> tuple[str, str] | None:
    error = response.get("error")
    if error is not None:
        kind = str(error.get("type", error.get("code", "error")))
        return kind.rpartition(":")[2], str(error.get("message", ""))
    status = response.get("status")
    return (str(status), "") if isinstance(status, int) and status >= 400 else None
