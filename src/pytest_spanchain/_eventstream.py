"""AWS event streams: binary frames, and the same as a text of server-sent events that people and rules can read.

Invariants:

* Strict: lengths, header types and both checksums of each frame must hold, or there are no frames at all. Only the last
  frame may be cut short, as it is when a reader leaves.
* A frame whose text did not change keeps its bytes.

Source: "vnd.amazon.eventstream", the encoding in smithy.io/2.0/aws/amazon-eventstream.html.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import _sse

_PRELUDE = struct.Struct(">II")
_CHECKSUM = struct.Struct(">I")
_AROUND = _PRELUDE.size + 2 * _CHECKSUM.size

MAX_HEADERS = 128 * 1024
MAX_PAYLOAD = 24 * 1024 * 1024

# Bytes of a header's value by its type: booleans, byte, short, int, long, (bytes, text), timestamp, uuid.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _TEXT = 6, 7


@dataclass(frozen=True)
class Frame:
    """One message of a stream.

    Args:
        headers: the headers that are texts, by name.
        payload: its bytes.
        raw: the whole frame.
    """

    headers: Mapping[str, str]
    payload: bytes
    raw: bytes

    @property
    def name(self) -> str:
        """What sort of event or exception it is."""
        return next(
            (self.headers[key] for key in (":event-type", ":exception-type", ":error-code") if key in self.headers), ""
        )


def frames(data: bytes) -> list[Frame] | None:
    """The whole frames of a stream, in order; ``None`` if anything about it is odd."""
    found, position = [], 0
    while len(data) - position >= _PRELUDE.size + _CHECKSUM.size:
        total, size = _PRELUDE.unpack_from(data, position)
        (checksum,) = _CHECKSUM.unpack_from(data, position + _PRELUDE.size)
        if zlib.crc32(data[position : position + _PRELUDE.size]) != checksum:
            return None
        if size > MAX_HEADERS or not 0 <= total - size - _AROUND <= MAX_PAYLOAD:
            return None
        raw = data[position : position + total]
        if len(raw) < total:
            break
        frame = _frame(raw, size)
        if frame is None:
            return None
        found.append(frame)
        position += total
    return found


def text_of(body: Mapping[str, Any]) -> str | None:
    """The frames in a BODY (shape: see ``_model``) as server-sent events.

    InvokeModel wraps the JSON of a model in base64; here it stands unwrapped.

    Returns:
        ``None`` if these are no frames, or one carries something else than JSON.
    """
    packed = body.get("base64")
    try:
        found = frames(base64.b64decode(packed, validate=True)) if isinstance(packed, str) else None
    except (binascii.Error, ValueError):
        return None
    if not found:
        return None
    events = []
    for frame in found:
        payload = _readable(frame)
        if payload is None:
            return None
        events.append(f"event: {frame.name}\ndata: {payload}\n\n")
    return "".join(events)


def with_text(body: Mapping[str, Any], text: str) -> dict[str, Any] | None:
    """A BODY with what an edit of its text left of the payloads.

    Args:
        body: a streamed body of whole frames.
        text: ``text_of`` it, edited inside the data of events.

    Returns:
        The body with new checksums where something changed, one chunk a frame; ``None`` if the text is not one of these
        frames.
    """
    data = base64.b64decode(body["base64"])
    found, events = frames(data), list(_sse.events(text))
    if found is None or len(found) != len(events):
        return None
    chunks = [_with_payload(frame, event.data) for frame, event in zip(found, events, strict=True)]
    chunks.append(data[sum(len(frame.raw) for frame in found) :])
    chunks = [chunk for chunk in chunks if chunk]  # an empty chunk means the end to some clients
    packed = base64.b64encode(b"".join(chunks)).decode("ascii")
    return {**body, "base64": packed, "chunks": [len(chunk) for chunk in chunks]}


def _frame(raw: bytes, size: int) -> Frame | None:
    (checksum,) = _CHECKSUM.unpack_from(raw, len(raw) - _CHECKSUM.size)
    if zlib.crc32(raw[: -_CHECKSUM.size]) != checksum:
        return None
    start = _PRELUDE.size + _CHECKSUM.size
    headers = _headers(raw[start : start + size])
    return None if headers is None else Frame(headers, raw[start + size : -_CHECKSUM.size], raw)


def _headers(data: bytes) -> dict[str, str] | None:
    found: dict[str, str] = {}
    position = 0
    try:
        while position < len(data):
            end = position + 1 + data[position]
            name, kind = data[position + 1 : end].decode("utf-8"), data[end]
            position = end + 1
            if kind in (_BYTES, _TEXT):
                (length,) = struct.unpack_from(">H", data, position)
                position += 2
            else:
                length = _FIXED[kind]
            value = data[position : position + length]
            if len(value) != length or not name or name in found:
                return None
            if kind == _TEXT:
                found[name] = value.decode("utf-8")
            position += length
    except (IndexError, KeyError, UnicodeDecodeError, struct.error):
        return None
    # A line end in a name would read as another event.
    return None if any("\n" in text or "\r" in text for text in found.values()) else found


def _readable(frame: Frame) -> str | None:
    """The payload as JSON on one line; some frames have none."""
    inner = _wrapped(frame.payload)
    try:
        text = (frame.payload if inner is None else inner).decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\n" in text or "\r" in text:
        return None
    return text if not text or _sse.parse(text) is not None else None


def _wrapped(payload: bytes) -> bytes | None:
    """What stands in the base64 of ``{"bytes": ..}``."""
    value = _payload(payload)
    try:
        return base64.b64decode(value["bytes"], validate=True) if value is not None else None
    except (binascii.Error, ValueError):
        return None


def _payload(payload: bytes) -> dict[str, Any] | None:
    try:
        value = _sse.parse(payload.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("bytes"), str) else None


def _with_payload(frame: Frame, text: str) -> bytes:
    if text == _readable(frame):
        return frame.raw
    payload = text.encode("utf-8")
    if _wrapped(frame.payload) is not None:
        outer = _payload(frame.payload) or {}
        outer["bytes"] = base64.b64encode(payload).decode("ascii")
        payload = json.dumps(outer, separators=(",", ":")).encode("utf-8")
    _, size = _PRELUDE.unpack_from(frame.raw)
    headers = frame.raw[_PRELUDE.size + _CHECKSUM.size :][:size]
    return b"".join(_encoded(headers, payload))


def _encoded(headers: bytes, payload: bytes) -> Iterator[bytes]:
    prelude = _PRELUDE.pack(_AROUND + len(headers) + len(payload), len(headers))
    body = prelude + _CHECKSUM.pack(zlib.crc32(prelude)) + headers + payload
    yield body
    yield _CHECKSUM.pack(zlib.crc32(body))
