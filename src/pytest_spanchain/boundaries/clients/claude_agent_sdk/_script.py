"""What the command line of the Claude Agent SDK said, handed over again: each frame after what had preceded it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ... import _wait
from ._turns import (
    ANSWERED,
    CANCEL,
    END_INPUT,
    EXIT,
    RESPONSE,
    RESULT,
    UNSENT,
    Conversation,
    Entry,
    Turn,
)


class Script:
    """The frames of one connection, in order.

    Args:
        conversation: to which they belong.
        stayed: whether, when this was recorded, nothing but the agent ended the connection.
    """

    def __init__(self, conversation: Conversation, *, stayed: bool) -> None:
        self._conversation = conversation
        self._stayed = stayed
        self._input_ended = False
        self._entries: deque[tuple[Turn, Entry]] = deque()

    def goes_on(self, turn: Turn) -> None:
        """What came of a turn may come now."""
        assert turn.recorded is not None
        self._entries.extend((turn, entry) for entry in turn.recorded["arrived"])

    async def next(self) -> Entry | None:
        """What comes next, a frame or ``TEXT`` or ``STDERR``; ``None`` at the end."""
        while True:
            awaited = self._awaited()
            if awaited is not None:
                if not await self._change() and self._conversation.awaited():
                    self._conversation.run.note_error(
                        f"claude: replay waited {_wait.HOLD_SECONDS:g} seconds for {awaited}"
                    )
                    return None
                continue
            if not self._entries:
                return None
            turn, entry = self._entries.popleft()
            found = self._played(turn, entry)
            if found is not None and found["method"] == EXIT:
                self._entries.clear()
                return None
            if found is not None:
                return found

    def _awaited(self) -> str | None:
        """What has to happen before anything comes; ``None`` if nothing has to."""
        if self._conversation.missed or self._conversation.over:
            self._entries.clear()
            return None
        if self._entries:
            entry = self._entries[0][1]
            if entry["method"] == END_INPUT and not self._conversation.input_ended:
                return "the end of the agent's input"
            ask = self._conversation.asks.get(str((entry["params"] or {}).get("request_id")))
            if entry["method"] == ANSWERED and ask is not None:
                return "the agent's answer to a request of the command line"
            if entry["method"] == CANCEL and ask is not None and not ask.begun:
                return "the agent to take up a request of the command line"
            return None
        patient = self._stayed and self._input_ended  # the agent gave up when this was recorded
        if self._conversation.input_ended and not self._conversation.asks and not patient:
            return None  # nothing can be sent any more that more would come of
        return "the agent's next message to the command line"

    def _played(self, turn: Turn, entry: Entry) -> Entry | None:
        method, params = entry["method"], entry["params"]
        if method == END_INPUT:
            self._input_ended = True
        if method in (END_INPUT, ANSWERED, UNSENT):
            return None
        if method == RESULT and params is None:
            turn.served()
            return {"method": method, "params": turn.recorded["result"]} if turn.recorded else None
        if method == RESPONSE:
            return self._response_of(turn, params)
        if "asks" in entry:
            self._conversation.asked(turn, params)
        elif method == CANCEL:
            self._conversation.taken_back(params)
        return entry

    def _response_of(self, turn: Turn, params: Mapping[str, Any] | None) -> Entry | None:
        ids = {control.ordinal: request_id for request_id, control in self._conversation.controls.items()}
        if params is None:
            assert turn.recorded is not None
            error = turn.recorded["error"]
            said = {"response": turn.recorded["result"]} if error is None else {"error": error["message"]}
            kind = "success" if error is None else "error"
            turn.served()
            return {
                "method": RESPONSE,
                "params": {"response": {"subtype": kind, **said, "request_id": ids[turn.ordinal]}},
            }
        response = params.get("response")
        if isinstance(response, Mapping) and type(response.get("request_id")) is int:
            if response["request_id"] not in ids:
                return None  # the agent did not ask this time
            params = {"response": {**response, "request_id": ids[response["request_id"]]}}
        return {"method": RESPONSE, "params": params}

    async def _change(self) -> bool:
        """Wait until something has changed; tells whether anything has, in due time."""

        def hang(ring: Callable[[], object]) -> None:
            self._conversation.ring = ring

        return await _wait.rung(hang)
