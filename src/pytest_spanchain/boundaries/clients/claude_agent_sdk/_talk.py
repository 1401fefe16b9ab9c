"""What the Claude Agent SDK and the command line under it say to each other: frames of JSON, in both directions.

Each frame that the SDK sends of its own accord, a prompt or a control request, is an exchange of kind ``agent``.
Whatever comes before the next one belongs to it, in order, with marks where the SDK answered or ended its input: in
replay no frame is handed over before what the SDK had sent before it. What the command line asks is a ``callback``,
which the agent's own code answers in replay, too; a call of a tool in this process is a ``tool``, and served.

Ids that the SDK draws for its control requests are in no cassette: a response stands where it came, in the exchange of
its request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ...._call import Call
from ...._run import OWNERSHIP, Crossing, Run
from ....errors import MissError
from .._trace_context import otel_context
from ._script import Script
from ._turns import (
    ANSWERED,
    BYTES,
    CANCEL,
    END_INPUT,
    EXIT,
    MARKS,
    REQUEST,
    RESPONSE,
    RESULT,
    STDERR,
    TEXT,
    Ask,
    Conversation,
    Entry,
    Turn,
)
from ._words import Said, frame_of, prompt_attributes, sent_as

Frame = Mapping[str, Any]

_NEW = "it is new in a conversation that is replayed, and nobody is there to hear it: record the whole of it anew"


class Talk:
    """One connection.

    Args:
        run: whose it is.
        link: the call by which it was opened.
        model: the model that was asked for, if one was.
    """

    def __init__(self, run: Run, link: Call, *, model: str | None = None) -> None:
        self.run = run
        self.live = link.recorded is None
        """Whether somebody is at the other end."""
        self.opened = False
        """Whether the connection has ever stood, while it is live."""
        self._link = link
        self._model = model
        self._response: dict[str, Any] | None = None
        self._early: list[tuple[str, Mapping[str, Any] | None, bool]] = []
        self._conversation = Conversation(run)
        stayed = link.recorded is not None and link.recorded["end"] == "closed" and link.recorded["error"] is None
        self._script = Script(self._conversation, stayed=stayed)
        run.before_end.append(self.close)

    @property
    def recorded(self) -> Mapping[str, Any]:
        """How the connection went when this was recorded."""
        assert self._link.recorded is not None
        return self._link.recorded

    async def next(self) -> Entry | None:
        """What comes next in replay; see ``Script.next``."""
        return await self._script.next()

    # What the SDK does.

    def listens(self, awaited: Callable[[], bool]) -> None:
        """Who reads tells whether the agent waits for what comes."""
        self._conversation.awaited = awaited

    def sent(self, text: str) -> Turn | None:
        """The SDK sends a frame; said before it goes out, so that what comes of it comes after it.

        Returns:
            The exchange, if it is one of its own.

        Raises:
            MissError: replay has nothing to serve.
        """
        frame = frame_of(text)
        if frame is not None and frame["type"] == RESPONSE:
            response = frame.get("response")
            self._reply(response if isinstance(response, Mapping) else {})
            return None
        conversation = self._conversation
        if conversation.latest is not None:
            conversation.latest.settle()
        try:
            turn = self._turn(sent_as(frame if frame is not None else {"type": TEXT, "text": text}))
            if not self.live and turn.recorded is None:
                self.run.note_error(f"{turn.span.name}: {_NEW}")
                raise turn.drift(_NEW)
        except MissError:
            conversation.missed = True
            conversation.wake()
            raise
        early, self._early = self._early, []
        for method, params, asks in early:
            self._hear(method, params, asks=asks)
        if not self.live:
            self._script.goes_on(turn)
            conversation.wake()
        return turn

    def end_input(self) -> None:
        """The SDK sends nothing more."""
        if not self._conversation.input_ended:
            self._conversation.input_ended = True
            self._mark(END_INPUT)
            self._conversation.wake()

    def ask(self, request_id: str) -> Ask | None:
        """What was asked under an id, and not answered yet; the agent takes it up."""
        ask = self._conversation.asks.get(request_id)
        if ask is not None:
            ask.begun = True
            self._conversation.wake()
        return ask

    def let_go(self, request_id: str) -> None:
        """The agent is done with what was asked, whether or not it could send its answer."""
        self._conversation.asks.pop(request_id, None)
        self._conversation.wake()

    def close(self) -> None:
        """The SDK, or the run, closes the connection."""
        if self._conversation.over:
            return
        if self.live and self.opened:
            self._finish_turns("closed")
            self._tell()
        self._conversation.over = True
        self._conversation.wake()

    def _turn(self, said: Said) -> Turn:
        conversation, outer = self._conversation, otel_context()
        with OWNERSHIP.own(self.run):
            call = self.run.begin(
                Crossing(
                    "agent",
                    said.name,
                    {"server": "claude", "method": said.method, "params": said.params},
                    attributes=prompt_attributes(self._model) if said.is_prompt else {},
                    # Who is there has to hear all of it, what is known as well.
                    runs=self.live and self.run.records,
                )
            )
        turn = Turn(self.run, call, outer, ordinal=len(conversation.controls))
        conversation.turns.append(turn)
        if said.is_prompt:
            conversation.prompts.append(turn)
        elif said.request_id is not None:
            conversation.controls[said.request_id] = turn
        return turn

    def _reply(self, response: Mapping[str, Any]) -> None:
        request_id = str(response.get("request_id"))
        ask = self._conversation.asks.pop(request_id, None)
        if ask is not None and response.get("subtype") == "error":
            ask.answered(None, "Exception", str(response.get("error")))
        elif ask is not None:
            ask.answered(response.get("response"))
        self._mark(ANSWERED, {"request_id": request_id})
        self._conversation.wake()

    # What the command line does, while it is there.

    def received(self, frame: Frame) -> None:
        """A frame came."""
        kind, rest = str(frame.get("type")), {key: value for key, value in frame.items() if key != "type"}
        if kind in MARKS:
            self._hear(TEXT, {"text": json.dumps(frame)})
        elif kind == RESPONSE:
            self._hear_response(rest)
        elif kind == RESULT and self._conversation.prompts:
            self._hear_result(rest)
        else:
            self._hear(kind, rest, asks=kind == REQUEST)
            if kind == CANCEL:
                self._conversation.taken_back(rest)

    def line(self, text: str, *, cut: bool = False) -> None:
        """A line came, which need not be a frame.

        Args:
            text: without its end.
            cut: whether it had none.
        """
        frame = None if cut else frame_of(text)
        if frame is not None:
            self.received(frame)
        elif text.strip():
            self._hear(TEXT, {"text": text, "cut": True} if cut else {"text": text})

    def packed(self, base64: str, *, cut: bool) -> None:
        """A line came that is no text."""
        self._hear(BYTES, {"base64": base64, "cut": True} if cut else {"base64": base64})

    def complained(self, text: str) -> None:
        """A line came on its standard error."""
        self._hear(STDERR, {"text": text})

    def ended(self) -> None:
        """It sends nothing more."""
        if self._response is None and not self._conversation.over:
            self._mark(EXIT)
            self._tell(end="complete")

    def exited(self, code: int) -> None:
        """It ended by itself."""
        if self._response is not None and not self._conversation.over:
            error = {"type": "ProcessError", "message": f"exit code {code}"} if code else None
            self._finish_turns("error" if error else "closed", error)
            self._tell(exit=code)

    def broke(self, error: Exception) -> None:
        """It cannot be read any more."""
        told = {"type": type(error).__name__, "message": str(error)}
        self._mark(EXIT)
        self._finish_turns("error", told)
        self._tell(error=told)

    def _hear(self, method: str, params: Mapping[str, Any] | None, *, asks: bool = False) -> None:
        turn = self._conversation.latest
        if self.run.closed or self._conversation.over:
            return
        if turn is None:
            self._early.append((method, params, asks))
            return
        turn.heard(method, params, asks=asks)
        if asks and params is not None:
            self._conversation.asked(turn, params)

    def _hear_response(self, rest: Mapping[str, Any]) -> None:
        response = rest.get("response")
        given = response if isinstance(response, Mapping) else {}
        turn = self._conversation.controls.get(str(given.get("request_id")))
        if turn is None:
            self._hear(RESPONSE, rest)
        elif turn is not self._conversation.latest or turn.response is not None:
            turn.answered(None)
            self._hear(RESPONSE, {"response": {**given, "request_id": turn.ordinal}})
        else:
            turn.heard(RESPONSE)
            refused = given.get("subtype") == "error"
            error = {"type": "Exception", "message": str(given.get("error"))} if refused else None
            turn.answered(None if refused else given.get("response"), error=error)

    def _hear_result(self, rest: Mapping[str, Any]) -> None:
        turn = self._conversation.prompts.popleft()
        if turn is self._conversation.latest:
            turn.heard(RESULT)
        else:
            self._hear(RESULT, rest)
        turn.answered(rest)

    def _mark(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        latest = self._conversation.latest
        if self.live and latest is not None and not self._conversation.over and not self.run.closed:
            latest.heard(method, params)

    def _finish_turns(self, end: str, error: Mapping[str, Any] | None = None) -> None:
        for turn in self._conversation.turns:
            turn.answered(None, error=error, end=end)
            turn.settle()

    def _tell(self, **changes: Any) -> None:
        if self.run.closed:
            return
        self._response = {**(self._response or opened()), **changes}
        self._link.amend(self._response)
        if self._conversation.latest is not None:
            self._conversation.latest.settle()


def opened() -> dict[str, Any]:
    """What is recorded of a connection that stands."""
    return {"exit": None, "stdout": None, "stderr": None, "turns": "", "end": "closed", "error": None}
