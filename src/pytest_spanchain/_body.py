"""HTTP bodies between bytes and the plain BODY of a cassette (shapes in ``_model``).

Invariant: ``chunks_of(body_of(chunks, ...))`` joins to the same bytes, and gives the same chunks for streamed types.
Readable first: JSON as a value with its layout, text as text, and only what is neither as base64. A file in a form that
goes out is told by its size and digest: requests are compared, and never sent again.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ._layout import LayoutError, join, split
from .errors import CassetteBroken

STREAMED_TYPES = (
    "text/event-stream",
    "application/x-ndjson",
    "application/jsonl",
    "application/stream+json",
    "application/vnd.amazon.eventstream",
    "application/grpc",
    "application/grpc+json",
    "application/grpc+text",
)
"""Media types whose chunks carry meaning to the reader; elsewhere they are an accident of the network."""

FRAMED_TYPE = "application/vnd.amazon.eventstream"
"""Binary, although frames without a byte beyond ASCII may look like text."""

DONE = "data: [DONE]"
"""Last event of OpenAI's streams; its SDK stops reading there, so what follows is never asked for."""


def body_of(chunks: Sequence[bytes], *, content_type: str, layout: bool = True) -> dict[str, Any] | None:
    """The plain form of a body; ``None`` if it is empty.

    Args:
        chunks: the bytes as they came.
        content_type: value of the ``content-type`` header.
        layout: whether to keep what is needed to give back the same bytes (requests are only compared).
    """
    data = b"".join(chunks)
    if not data:
        return None
    media = content_type.partition(";")[0].strip().lower()
    streamed = media in STREAMED_TYPES
    text = None if media == FRAMED_TYPE else _decoded(data)
    if text is None and not layout and media.startswith("multipart/"):
        text = _form(data)
    if text is None:
        body: dict[str, Any] = {"base64": base64.b64encode(data).decode("ascii")}
    else:
        parsed = None if streamed else split(text, layout=layout)
        if parsed is not None:
            value, style = parsed
            return {"json": value, "layout": style} if layout else {"json": value}
        body = {"text": text}
    if streamed:
        body["chunks"] = [len(chunk) for chunk in chunks]
        body["message"] = None
    return body


def chunks_of(body: Mapping[str, Any] | None) -> list[bytes]:
    """The bytes of a body, chunk by chunk.

    Raises:
        CassetteBroken: the layout or the counts of the chunks do not fit the body.
    """
    if body is None:
        return []
    if "json" in body:
        try:
            return [join(body["json"], body["layout"]).encode("utf-8")]
        except LayoutError as error:
            raise CassetteBroken(str(error), field="response.body.layout") from None
    data = base64.b64decode(body["base64"]) if "base64" in body else body["text"].encode("utf-8")
    if "chunks" not in body:
        return [data]
    chunks, start = [], 0
    for size in body["chunks"]:
        chunks.append(data[start : start + size])
        start += size
    if start != len(data):
        raise CassetteBroken(f"chunk sizes add up to {start} bytes, the body has {len(data)}", field="response.body")
    return chunks


def ends_by_itself(chunks: Sequence[bytes]) -> bool:
    """Whether a stream that was closed by its reader had nothing more to say."""
    tail = b"".join(chunks[-2:])[-64:]
    return tail.rstrip().endswith(DONE.encode("ascii"))


def _form(data: bytes) -> str | None:
    """A multipart body, with what is not text in it told in a few words; ``None`` if it is none."""
    delimiter = data.partition(b"\r\n")[0]
    if not delimiter.startswith(b"--"):
        return None
    border = b"\r\n" + delimiter
    return _decoded(border.join(map(_part_in_words, data.split(border))))


def _part_in_words(part: bytes) -> bytes:
    head, blank, content = part.partition(b"\r\n\r\n")
    if not blank or _decoded(content) is not None:
        return part
    told = f"({len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()})"
    return head + blank + told.encode("ascii")


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
