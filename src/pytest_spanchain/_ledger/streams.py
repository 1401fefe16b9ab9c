"""Streams in a document: folded there (see ``_fold``), and text in an exchange."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import _fold
from .._shape import COUNTS

MAX_UNFOLDED = 256 * 2**20
"""Bytes of all folded streams of a cassette, written out."""


class Room:
    """How much text the folded streams of one cassette may stand for: a small file could hold much of it, often."""

    def __init__(self) -> None:
        self._left = MAX_UNFOLDED

    def take(self, size: int) -> None:
        """Use some of it.

        Args:
            size: bytes of a stream.

        Raises:
            ValueError: there is not as much left.
        """
        self._left -= size
        if self._left < 0:
            raise ValueError(f"stands with the others for more than {MAX_UNFOLDED // 2**20} MiB")


def folded(response: Any) -> Any:
    """A response as a document holds it."""
    body = response.get("body") if type(response) is dict else None
    if type(body) is not dict or "chunks" not in body or type(body.get("text")) is not str:
        return response
    events = _fold.fold(body["text"])
    if events is None:
        return response
    return {**response, "body": {"events": events, **{key: body[key] for key in body if key != "text"}}}


def is_folded(response: Any) -> bool:
    return type(response) is dict and type(body := response.get("body")) is dict and "events" in body


def unfolded(response: dict[str, Any], room: Room) -> dict[str, Any]:
    """A response as an exchange holds it.

    Raises:
        ValueError: what is folded has no faithful other form.
    """
    body = response["body"]
    chunks = body.get("chunks")
    if "text" in body or not COUNTS.holds((chunks,)):
        raise ValueError("must have chunks beside it, and no text")
    room.take(sum(chunks))
    text = _fold.unfold(body["events"], size=sum(chunks))
    return {**response, "body": {"text": text, **{key: body[key] for key in body if key != "events"}}}


def written_out(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of ours with all that is folded as text."""

    def whole(entry: Mapping[str, Any]) -> Mapping[str, Any]:
        response = entry["payload"].get("response")
        if not is_folded(response):
            return entry
        return {**entry, "payload": {**entry["payload"], "response": unfolded(response, Room())}}

    return {**document, "entries": list(map(whole, document["entries"]))}
