"""The text of a streamed answer as events: server-sent events, JSON lines, or the pieces of a JSON array.

Invariant: a text that was cut gives the events that arrived whole; nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .. import _eventstream, _sse
from .api import Event

_SPACE = " \t\r\n"


def events(text: str) -> list[Event]:
    """The events that carry a JSON object, in order."""
    start = text.lstrip("\ufeff" + _SPACE)[:1]
    if start == "{":
        values: Iterator[Any] = (_sse.parse(line) for line in text.split("\n"))
    elif start == "[":
        values = _array(text)
    else:
        return [Event(name, value) for name, value in _sse.objects(text)]
    return [Event("", value) for value in values if isinstance(value, dict)]


def events_of(body: Any) -> list[Event]:
    """The events of the BODY of an answer (shape: see ``_model``); none if it is no stream."""
    if not isinstance(body, Mapping):
        return []
    if isinstance(body.get("json"), list):
        return [Event("", value) for value in body["json"] if isinstance(value, dict)]
    text = body.get("text")
    if text is None and "chunks" in body:
        text = _eventstream.text_of(body)
    return events(text) if isinstance(text, str) else []


def failures(body: Any) -> list[Event]:
    """The events among which an error may be; none if the text cannot hold one, which is cheaper to see."""
    text = body.get("text") if isinstance(body, Mapping) else None
    return [] if isinstance(text, str) and '"error"' not in text else events_of(body)


def _array(text: str) -> Iterator[Any]:
    """The elements of a JSON array, as far as it came."""
    decoder = json.JSONDecoder()
    position = text.index("[") + 1
    while True:
        while position < len(text) and text[position] in _SPACE + ",":
            position += 1
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return
        # Read again by the strict reader, which refuses what JSON cannot say.
        yield _sse.parse(text[position:end])
        position = end
