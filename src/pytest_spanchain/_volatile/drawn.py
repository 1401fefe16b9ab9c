"""What the server of a model draws anew for every answer: its ids, its times, how a stream was cut.

Only where two runs were both answered for real is there anything to translate: a replay is served what was recorded.

Invariants:

* It is told by its place in the envelope that the protocols put around what the model says, never by its look; what the
  model says itself, arguments of tools among it, is compared.
* An id stands for one other; where it comes back later it follows its answer, and a wrong one stays a difference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .pair import Couples, Substitution, is_number

ID, TIME, STREAM = "id", "time", "stream"
DRAWN = (ID, TIME, STREAM)
"""Kinds of substitutions that are made here."""

_IDS = frozenset(
    {
        *("id", "item_id", "call_id", "tool_call_id", "tool_use_id", "toolUseId", "toolCallId", "message_id"),
        *("response_id", "responseId", "generation_id", "request_id", "requestId", "container_id"),
        *("system_fingerprint", "signature", "thoughtSignature", "encrypted_content", "obfuscation"),
    }
)
_TIMES = frozenset(
    {
        *("created", "created_at", "completed_at", "createTime", "expires_at"),
        *("total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "latencyMs"),
        *("queue_time", "prompt_time", "completion_time", "total_time"),
    }
)
_SAID = frozenset({"input", "args", "arguments", "parameters", "tools", "metadata", "response_format", "schema"})
"""Below these, names are the model's or the caller's."""

_LONG = 8
"""An id of so many characters is looked for within texts; a shorter one could be any word."""

_WIRE = ("text", "base64", "chunks", "layout")


class Drawn:
    """Which of a live run's drawn values stands for which recorded one. Made for one comparison."""

    def __init__(self) -> None:
        self._couples = Couples()
        self._long: re.Pattern[str] | None = None
        self.made: list[Substitution] = []

    def answer(self, golden: Mapping[str, Any], live: Mapping[str, Any], *, sent: str) -> Mapping[str, Any]:
        """A live answer of a model, with what was drawn for the recorded one.

        Args:
            golden: the recorded response (shapes: see ``_model``).
            live: the live one.
            sent: the live request as JSON. What went out before it came back was not drawn for this answer.
        """
        found = self._envelope(golden, live, "response", sent)
        one, other = golden.get("body"), found.get("body")
        if isinstance(one, Mapping) and isinstance(other, Mapping) and _are_assembled(one, other):
            # The message says what the stream does; how the server cut it into events is nobody's choice.
            wire = {key: one[key] for key in _WIRE if key in one}
            if any(other.get(key) != wire.get(key) for key in ("text", "base64")):
                self.made.append(Substitution(STREAM, "response.body", *(_size(body) for body in (one, other))))
            found = {**found, "body": {**{key: other[key] for key in other if key not in _WIRE}, **wire}}
        return found

    def follow(self, value: Any, *, name: str = "") -> Any:
        """A plain live value, with recorded ids where ids of live answers stand.

        Args:
            value: what was sent, or what spans say.
            name: the key that it stands under.
        """
        if not self._couples.golden_of:
            return value
        if isinstance(value, str):
            return self._follow_text(value, name)
        if isinstance(value, Mapping):
            return {key: self.follow(item, name=key) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.follow(item, name=name) for item in value]
        return value

    def _follow_text(self, text: str, name: str) -> str:
        known = self._couples.golden_of
        if text in known and (len(text) >= _LONG or name.lower().endswith("id")):
            return known[text]
        if len(text) <= _LONG:
            return text
        if self._long is None:
            longest_first = sorted((one for one in known if len(one) >= _LONG), key=len, reverse=True)
            self._long = re.compile("|".join(rf"(?<![\w-]){re.escape(one)}(?![\w-])" for one in longest_first) or "$.")
        return self._long.sub(lambda found: known[found.group()], text)

    def _envelope(self, golden: Mapping[str, Any], live: Mapping[str, Any], path: str, sent: str) -> dict[str, Any]:
        return {
            key: self._part(golden[key], item, key, f"{path}.{key}", sent) if key in golden else item
            for key, item in live.items()
        }

    def _part(self, golden: Any, live: Any, name: str, path: str, sent: str) -> Any:
        if golden == live or name in _SAID:
            return live
        if isinstance(golden, Mapping) and isinstance(live, Mapping):
            return self._envelope(golden, live, path, sent)
        if isinstance(golden, list) and isinstance(live, list):
            known = [
                self._part(one, other, name, f"{path}[{index}]", sent)
                for index, (one, other) in enumerate(zip(golden, live, strict=False))
            ]
            return [*known, *live[len(known) :]]
        kind = self._kind(golden, live, name, sent)
        if kind is None:
            return live
        self.made.append(Substitution(kind, path, str(golden), str(live)))
        return golden

    def _kind(self, golden: Any, live: Any, name: str, sent: str) -> str | None:
        if name in _TIMES and (is_number(golden), isinstance(golden, str)) == (is_number(live), isinstance(live, str)):
            return TIME if is_number(live) or isinstance(live, str) else None
        if name not in _IDS or not isinstance(golden, str) or not isinstance(live, str) or not (golden and live):
            return None
        if live in sent or not self._couples.agree(golden, live):
            return None
        self._long = None
        return ID


def _are_assembled(golden: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    return all(body.get("message") is not None and "chunks" in body for body in (golden, live))


def _size(body: Mapping[str, Any]) -> str:
    return f"{len(body.get('text') or body.get('base64') or ''):,} characters"
