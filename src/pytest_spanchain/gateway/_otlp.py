"""OTLP over HTTP: what an exporter sends, as spans of plain values.

Both encodings are read by the protocol's own messages; of JSON, ids are hexadecimal where protobuf's JSON has base64.

Source: OpenTelemetry protocol 1.9, "OTLP/HTTP".
"""

from __future__ import annotations

import base64
import importlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ._server import missing

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
_IDS = ("traceId", "spanId", "parentSpanId")
_KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")


@dataclass(frozen=True)
class RemoteSpan:
    """A span that another process has ended; as in ``_model.Span``, with the ids of that process."""

    span_id: int
    parent_id: int
    name: str
    span_kind: str
    scope: str
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, int, Mapping[str, Any]], ...]
    """Name, time in nanoseconds since the epoch, and attributes."""
    status: str
    status_message: str
    start_ns: int
    end_ns: int


def decode(body: bytes, *, content_type: str) -> list[RemoteSpan]:
    """The spans of an export request, in its order.

    Raises:
        ValueError: it is none.
        UsageError: a library is missing.
    """
    try:
        from google.protobuf.json_format import ParseDict, ParseError
        from google.protobuf.message import DecodeError

        messages = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    except ImportError as error:
        raise UsageError(missing("opentelemetry-proto")) from error
    media = content_type.partition(";")[0].strip().lower()
    request = messages.ExportTraceServiceRequest()
    try:
        if media == JSON:
            ParseDict(_with_protobuf_ids(json.loads(body)), request, ignore_unknown_fields=True)
        elif media == PROTOBUF:
            request.ParseFromString(body)
        else:
            raise ValueError(f"content-type {media!r} is neither {PROTOBUF} nor {JSON}")
    except (DecodeError, ParseError, RecursionError) as error:
        raise ValueError(f"it is no export request: {error}") from None
    return list(_spans(request))


def _spans(request: Any) -> Iterator[RemoteSpan]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _span(span, scope=scope.scope.name)


def _span(span: Any, *, scope: str) -> RemoteSpan:
    if len(span.span_id) != 8 or not any(span.span_id):
        raise ValueError(f"span {span.name!r} has no id of 8 bytes")
    if len(span.parent_span_id) not in (0, 8):
        raise ValueError(f"span {span.name!r} has a parent without an id of 8 bytes")
    return RemoteSpan(
        span_id=int.from_bytes(span.span_id, "big"),
        parent_id=int.from_bytes(span.parent_span_id, "big"),
        name=span.name,
        span_kind=_KINDS[span.kind] if span.kind < len(_KINDS) else "internal",
        scope=scope,
        attributes=_mapping(span.attributes),
        events=tuple((event.name, event.time_unix_nano, _mapping(event.attributes)) for event in span.events),
        status=_STATUSES[span.status.code] if span.status.code < len(_STATUSES) else "unset",
        status_message=span.status.message,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _mapping(pairs: Any) -> dict[str, Any]:
    return {pair.key: _attribute(pair.value) for pair in pairs}


def _attribute(value: Any) -> Any:
    """The value of an attribute; what has no form in OpenTelemetry's own API is told as JSON."""
    plain = _plain(value)
    simple = isinstance(plain, list) and not any(isinstance(item, (list, dict)) for item in plain)
    if simple or not isinstance(plain, (list, dict)):
        return plain
    return json.dumps(plain, sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    found = getattr(value, kind)
    if kind == "array_value":
        return [_plain(item) for item in found.values]
    if kind == "kvlist_value":
        return {pair.key: _plain(pair.value) for pair in found.values}
    if kind == "bytes_value":
        return base64.b64encode(found).decode("ascii")
    return repr(found) if isinstance(found, float) and not math.isfinite(found) else found


def _with_protobuf_ids(request: Any) -> Any:
    """The request, with ids as protobuf's JSON has them."""
    if isinstance(request, list):
        return [_with_protobuf_ids(item) for item in request]
    if not isinstance(request, dict):
        return request
    return {
        key: base64.b64encode(bytes.fromhex(item)).decode("ascii")
        if key in _IDS and isinstance(item, str)
        else _with_protobuf_ids(item)
        for key, item in request.items()
    }
