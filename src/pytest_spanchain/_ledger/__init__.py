"""Nouns to the plain document of a cassette and back.

The document is ``{"header": {..}, "entries": [{..}, ..]}``. Invariants:

* key sets are exact: an unknown key is as wrong as a missing one;
* a document without a ``Fault`` can be read back into nouns without a further check;
* what is read back equals what was written, and shares no mutable part with it;
* a streamed text that is ``text`` in an exchange may be ``events`` in the document, folded (see ``streams``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._model import EXCHANGE_KINDS, FORMAT, Exchange, Header, Span
from .._shape import Fault
from .form import ENTRY_KEYS as ENTRY_KEYS
from .form import HEADER_KEYS as HEADER_KEYS
from .form import Departed, as_exchanged
from .form import entry_fault as entry_fault
from .form import header_fault as header_fault
from .form import without_fault as without_fault
from .parsed import Deferred as Deferred
from .parsed import Parsed as Parsed
from .streams import Room as Room
from .streams import folded, is_folded
from .streams import written_out as written_out


def write_header(header: Header) -> dict[str, Any]:
    """The plain form of a header."""
    return {
        "format": FORMAT,
        "nodeid": header.nodeid,
        "eval_id": header.eval_id,
        "recorded_at": header.recorded_at,
        "recorder": plain(header.recorder),
        "redaction": plain(header.redaction),
        "provenance": plain(header.provenance),
        "supersedes": header.supersedes,
    }


def read_header(header: Mapping[str, Any]) -> Header:
    """The noun of a plain header without fault."""
    return Header(**{key: header[key] for key in HEADER_KEYS if key != "format"})


def write_span(span: Span) -> dict[str, Any]:
    """The payload of a span's entry."""
    payload: dict[str, Any] = {
        "name": span.name,
        "span_kind": span.span_kind,
        "scope": span.scope,
        "attributes": plain(span.attributes),
        "events": plain(span.events),
        "status": {"code": span.status, "message": span.status_message},
        "duration_ns": span.duration_ns,
    }
    if span.exchange is not None:
        payload["request"] = plain(span.exchange.request)
        payload["response"] = folded(plain(span.exchange.response))
    return payload


def read_span(entry: Mapping[str, Any], *, room: Room, refuse: Callable[[Fault], Exception]) -> Span:
    """The noun of a span's entry without fault.

    Args:
        entry: as plain data.
        room: of its cassette, for what is built later.
        refuse: makes the error that is raised where what is built later has a fault.
    """
    payload = entry["payload"]
    exchange = None
    if (kind := entry["kind"]) in EXCHANGE_KINDS:
        rooms = [room]

        def built(part: str) -> Any:
            try:
                value = payload[part].build() if type(payload[part]) is Deferred else payload[part]
            except ValueError:
                raise refuse(Fault(f"payload.{part}", "cannot be read")) from None
            # Two threads may build a response at once: it takes room once, but again where there was none.
            taken_of = rooms.pop() if part == "response" and rooms else Room()
            try:
                return as_exchanged(kind, part, value, taken_of)
            except Departed as departed:
                rooms[:] = [room]
                raise refuse(departed.fault) from None

        there = {}
        for part in ("request", "response"):
            value = payload[part]
            # What is folded waits even where nothing else does: a small file may hold much of it.
            if type(value) is not Deferred and not is_folded(value):
                there[part] = value
        exchange = Exchange.built_later(kind, there, built)
    return Span(
        span_id=entry["span_id"],
        parent_span_id=entry["parent_span_id"],
        name=payload["name"],
        span_kind=payload["span_kind"],
        scope=payload["scope"],
        attributes=payload["attributes"],
        events=tuple(payload["events"]),
        status=payload["status"]["code"],
        status_message=payload["status"]["message"],
        start_ns=int(entry["timestamp_ns"]),
        duration_ns=payload["duration_ns"],
        exchange=exchange,
    )


def plain(value: Any) -> Any:
    """A deep copy with any ``Mapping`` as ``dict`` and any tuple as ``list``; other types are left to be refused."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
