"""gRPC between its messages and the plain HTTP exchange of a cassette (shapes in ``_model``).

Invariants:

* What is written down reads back as the same message: protobuf becomes JSON only where that holds (unknown fields,
  types that are not at hand and NaN do not survive it), text becomes JSON, and the rest stays bytes.
* One chunk is one message. Its form is named by the content type.

A status is told as gRPC's own HTTP mapping tells it, with the exact name of the code as the type of the error.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...._hosts import is_loopback
from ...._redact import ALLOWED_RESPONSE_HEADERS

PROTOBUF = "application/grpc+json"
"""Messages are protobuf, written as its JSON."""

TEXT = "application/grpc+text"
"""Messages are text, written as JSON under the key ``text``, since streams of JSON are redacted across messages."""

BYTES = "application/grpc"
"""Messages are bytes behind gRPC's length prefix."""

_PREFIX = struct.Struct(">BI")

Metadata = Sequence[tuple[str, Any]]

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}


@dataclass(frozen=True)
class Method:
    """A method of a server.

    Args:
        target: what the channel was made with, e.g. ``localhost:50051`` or ``dns:///api.example.com``.
        path: ``/package.Service/Method``.
        streamed: whether it takes a stream of requests.
    """

    target: str
    path: str
    streamed: bool

    @property
    def name(self) -> str:
        """``package.Service/Method``, as OpenTelemetry names it."""
        return self.path.lstrip("/")

    @property
    def url(self) -> str:
        """For the cassette."""
        return f"grpc://{_place(self.target)}/{self.name}"

    @property
    def attributes(self) -> dict[str, Any]:
        """Span attributes by OpenTelemetry's RPC conventions."""
        host, port = address_of(self.target)
        found: dict[str, Any] = {"rpc.system.name": "grpc", "rpc.method": self.name}
        if not is_loopback(host):
            found["server.address"] = host
            if port is not None:
                found["server.port"] = port
        return found

    def request(self, messages: Sequence[bytes], *, metadata: Iterable[Any], kind: type | None) -> dict[str, Any]:
        """The plain request.

        Args:
            messages: serialized, all that were sent.
            metadata: what goes with them; redaction decides what is kept.
            kind: protobuf class of the messages, if they are of one.
        """
        told = [_told(message, kind) for message in messages]
        body = {"json": told} if self.streamed else _body(*told) if told else None
        return {"method": "POST", "url": self.url, "headers": pairs(metadata), "body": body}


def address_of(target: str) -> tuple[str, int | None]:
    """Host and port that a channel's target names; a Unix socket is ``unix:`` and its path."""
    scheme, colon, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return f"unix:{rest.removeprefix('//')}", None
    place = (
        rest if colon and scheme in ("dns", "ipv4", "ipv6", "xds", "passthrough") and not rest.isdecimal() else target
    )
    if place.startswith("//"):
        place = place[2:].partition("/")[2]
    host, colon, port = place.rpartition(":")
    if colon and port.isdecimal() and ("[" in host or ":" not in host):
        return host.strip("[]"), int(port)
    return place.strip("[]"), None


def message_class(of: Any) -> type | None:
    """The protobuf class that a class, or the owner of a method, stands for; ``None`` if there is none."""
    if not isinstance(of, type):
        return None
    if hasattr(of, "DESCRIPTOR") and hasattr(of, "FromString"):
        return of
    if type(of).__module__.partition(".")[0] == "proto":  # proto-plus, around a class of protobuf
        found = of.pb()  # type: ignore[attr-defined]
        return found if isinstance(found, type) else None
    return None


def written(messages: Sequence[bytes], kind: type | None) -> tuple[str, list[bytes]]:
    """The content type of some messages, and one chunk each."""
    values = [None if kind is None else _as_json(message, kind) for message in messages]
    if kind is not None and None not in values:
        return PROTOBUF, [_line(value) for value in values]
    try:
        return TEXT, [_line({"text": message.decode("utf-8")}) for message in messages]
    except UnicodeDecodeError:
        return BYTES, [_PREFIX.pack(0, len(message)) + message for message in messages]


def read_back(chunk: bytes, content_type: str, kind: type | None) -> bytes:
    """The message that a chunk stands for.

    Raises:
        ValueError: it was written as protobuf, and cannot be read as a message of this kind.
    """
    if content_type == BYTES:
        return chunk[_PREFIX.size :]
    value = json.loads(chunk)
    if content_type == TEXT:
        return str(value["text"]).encode("utf-8")
    if kind is None:
        raise ValueError("the answer was recorded as protobuf, and is not read as such now")
    from google.protobuf import json_format

    try:
        message: bytes = json_format.ParseDict(value, kind()).SerializeToString()
    except json_format.Error as error:
        raise ValueError(f"the recorded answer is no {kind.__name__}: {error}") from None
    return message


def http_status(code: str) -> int:
    """The HTTP status that a status code stands for."""
    return _HTTP_STATUS.get(code, 500)


def pairs(metadata: Iterable[Any]) -> list[tuple[str, str]]:
    """Metadata as headers; binary values as base64, as on the wire."""
    return [
        (str(key), value if isinstance(value, str) else base64.b64encode(bytes(value)).decode("ascii"))
        for key, value in metadata or ()
    ]


def headers(content_type: str, initial: Metadata, trailing: Metadata) -> list[tuple[str, str]]:
    """What a response brings beside its messages; HTTP's ``trailer`` tells which came last."""
    last = [(key, value) for key, value in pairs(trailing) if key in ALLOWED_RESPONSE_HEADERS]
    named = [("trailer", ", ".join(key for key, _ in last))] if last else []
    return [("content-type", content_type), *pairs(initial), *last, *named]


def metadata_of(recorded: Mapping[str, str]) -> tuple[Metadata, Metadata]:
    """Initial and trailing metadata of recorded headers."""
    last = [name for name in recorded.get("trailer", "").split(", ") if name]
    values: list[tuple[str, Any]] = [
        (key, base64.b64decode(value) if key.endswith("-bin") else value)
        for key, value in recorded.items()
        if key not in ("content-type", "trailer")
    ]
    first = tuple(pair for pair in values if pair[0] not in last)
    return first, tuple(pair for pair in values if pair[0] in last)


def code_name(number: Any) -> str:
    """The name of a status code; an unknown one is its number."""
    import grpc

    return next((code.name for code in grpc.StatusCode if code.value[0] == number), str(number))


def code_number(name: str) -> int:
    """The number of a status code's name."""
    import grpc

    known = {code.name: int(code.value[0]) for code in grpc.StatusCode}
    return known[name] if name in known else int(name)


def text(said: Any) -> str:
    """Words of the core's, which may be bytes or missing."""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""


def _place(target: str) -> str:
    host, port = address_of(target)
    if host.startswith("unix:"):
        return "localhost"  # this machine; where the socket lies differs from run to run
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _told(message: bytes, kind: type | None) -> Any:
    """A message as a request tells it: to be read and compared, never to be sent again."""
    value = None if kind is None else _as_json(message, kind)
    if value is not None:
        return value
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message).decode("ascii")}


def _body(told: Any) -> dict[str, Any]:
    if isinstance(told, str):
        return {"text": told}
    return told if isinstance(told, dict) and told.keys() == {"base64"} else {"json": told}


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8") + b"\n"


def _as_json(data: bytes, kind: Any) -> Any:
    """The JSON of a protobuf message; ``None`` if the message cannot be had back from it."""
    from google.protobuf import json_format
    from google.protobuf import message as protobuf

    try:
        message = kind.FromString(data)
        value = json_format.MessageToDict(message, preserving_proto_field_name=True)
        again = json_format.ParseDict(value, kind())
    except (json_format.Error, protobuf.Error, TypeError, ValueError):
        return None
    exact = again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    return value if exact else None
