"""OpenAI's APIs that answer in one piece: embeddings, images, speech, transcriptions, moderations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import attributes as words
from .. import parts
from ..api import Api, Body, Event, first
from . import chat


def _said(message: Body) -> dict[str, Any]:
    return {**words.read(words.IDENTITY, message), **chat.usage(message.get("usage"))}


_EMBEDDING: words.Fields = (
    (words.REQUEST_ENCODING_FORMATS, ("encoding_format",), words.texts),
    (words.DIMENSION_COUNT, ("dimensions", "output_dimension"), words.integer),
)

EMBEDDINGS = Api(
    name="openai.embeddings",
    operation="embeddings",
    provider="openai",
    speaks=lambda path, body: (
        path.endswith("/embeddings") and body.get("input") is not None and bool(chat.model(path, body))
    ),
    model=chat.model,
    asked=lambda path, body: words.read(_EMBEDDING, body),
    said=_said,
)

_IMAGE: words.Fields = (
    (words.REQUEST_CHOICE_COUNT, ("n",), words.several),
    (words.REQUEST_STREAM, ("stream",), words.true),
)


def _image(events: Iterable[Event]) -> dict[str, Any] | None:
    """The last picture of a stream: the complete one, or the best that came."""
    last = next((event.data for event in reversed(list(events)) if "b64_json" in event.data), None)
    if last is None:
        return None
    left_out = ("type", "b64_json", "created_at", "partial_image_index", "sequence_number")
    more = {key: value for key, value in last.items() if key not in left_out}
    return {"created": last.get("created_at"), "data": [{"b64_json": parts.short(last["b64_json"])}], **more}


IMAGES = Api(
    name="openai.images",
    operation="generate_content",
    provider="openai",
    speaks=lambda path, body: (
        (path.endswith(("/images/generations", "/images/edits")) and isinstance(body.get("prompt"), str))
        or (path.endswith("/images/variations") and "image" in body)
    ),
    model=chat.model,
    asked=lambda path, body: {**words.read(_IMAGE, body), words.OUTPUT_TYPE: "image"},
    said=_said,
    assemble=_image,
)

SPEECH = Api(
    name="openai.speech",
    operation="generate_content",
    provider="openai",
    speaks=lambda path, body: path.endswith("/audio/speech") and isinstance(body.get("input"), str),
    model=chat.model,
    asked=lambda path, body: {words.OUTPUT_TYPE: "speech"},
    said=_said,
)


def _transcript(events: Iterable[Event]) -> dict[str, Any] | None:
    whole: dict[str, Any] = {}
    for event in events:
        if event.data.get("type") == "transcript.text.delta":
            parts.extend(whole, "text", event.data.get("delta"))
        elif event.data.get("type") == "transcript.text.done":
            whole = {key: value for key, value in event.data.items() if key != "type"}
    return whole or None


_JSON_TRANSCRIPTS = ("verbose_json", "diarized_json")

TRANSCRIPTIONS = Api(
    name="openai.transcriptions",
    operation="generate_content",
    provider="openai",
    # Groq and others take a URL instead of the file.
    speaks=lambda path, body: (
        path.endswith(("/audio/transcriptions", "/audio/translations"))
        and first(body, "file", "url", "file_url", "file_id") is not None
    ),
    model=chat.model,
    asked=lambda path, body: {
        words.OUTPUT_TYPE: "json" if body.get("response_format") in _JSON_TRANSCRIPTS else "text",
        **({words.REQUEST_STREAM: True} if body.get("stream") in (True, "true") else {}),
    },
    said=_said,
    assemble=_transcript,
)

MODERATIONS = Api(
    name="openai.moderations",
    # The conventions know no word for it, and let a system have its own.
    operation="moderation",
    provider="openai",
    speaks=lambda path, body: path.endswith("/moderations") and body.get("input") is not None,
    model=chat.model,
    said=_said,
)

APIS = (EMBEDDINGS, IMAGES, SPEECH, TRANSCRIPTIONS, MODERATIONS)
