"""Nouns to the plain document of a cassette and back, and the exact shape of that document.

The document is ``{"header": {..}, "entries": [{..}, ..]}``. Invariants:

* key sets are exact: an unknown key is as wrong as a missing one;
* a document without a ``Fault`` can be read back into nouns without a further check;
* what is read back equals what was written, and shares no mutable part with it;
* a streamed text that is ``text`` in an exchange may be ``events`` in the document, folded (see ``_fold``).

Hashes and links are not judged here: that is ``_chain``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from . import _fold
from ._canonical import value_of
from ._model import EXCHANGE_KINDS, FORMAT, Exchange, Header, Span
from ._shape import (
    COUNT,
    COUNTS,
    INTEGER,
    LIST,
    MAPPING,
    TEXT,
    Fault,
    Rule,
    Rules,
    faults,
    fit,
    matching,
    of_type,
    one_of,
    optional,
    request_fault,
    response_fault,
)

HEADER_KEYS = (
    "format",
    "nodeid",
    "eval_id",
    "recorded_at",
    "recorder",
    "redaction",
    "provenance",
    "supersedes",
)
ENTRY_KEYS = (
    "seq",
    "kind",
    "span_id",
    "parent_span_id",
    "trace_id",
    "eval_id",
    "timestamp_ns",
    "payload",
    "prev_hash",
    "sha256_hash",
)
SPAN_KINDS = ("internal", "client", "server", "producer", "consumer")
STATUSES = ("unset", "ok", "error")
ENTRY_KINDS = (*EXCHANGE_KINDS, "span", "close")
MAX_UNFOLDED = 256 * 2**20
"""Bytes of all folded streams of a cassette, written out."""


@dataclass(frozen=True)
class Parsed:
    """What a cassette file says, not yet judged.

    Args:
        document: the plain document; no part of it is shared with another part. A request or a response may be
            ``Deferred``.
        summary: the human summary as found, one item per line, or ``None`` if the file has none.
        entry_lines: 1-based line of each entry; empty if the document never was a file.
        texts: canonical texts that the document was made of, where the reader knew them: of the header, and of each
            entry without its ``sha256_hash``.
    """

    document: dict[str, Any]
    summary: tuple[str, ...] | None = None
    entry_lines: tuple[int, ...] = ()
    texts: tuple[bytes, ...] = ()


class Deferred:
    """A request or a response that is built when it is asked for, from text that the chain covers.

    Args:
        text: canonical text.
        start: its first byte in there.
        end: the first byte behind it.
    """

    __slots__ = ("_end", "_start", "_text")

    def __init__(self, text: bytes, start: int, end: int) -> None:
        self._text, self._start, self._end = text, start, end

    @staticmethod
    def of(text: bytes, start: int, end: int) -> Deferred | None:
        """``None`` where the text says so."""
        return None if text.startswith(b"null", start) else Deferred(text, start, end)

    def build(self) -> Any:
        """The value."""
        return value_of(self._text[self._start : self._end].decode())


_FILLED = of_type(str, "text that is not empty", all)
_HASH = matching("[0-9a-f]{64}", "64 lower-case hex digits")
_SPAN_ID = matching("[0-9a-f]{16}", "16 lower-case hex digits")
_TRACE_ID = matching("[0-9a-f]{32}", "32 lower-case hex digits")
_DECIMAL = matching("0|[1-9][0-9]{0,19}", "a quoted decimal number")
_COUNTS = of_type(
    dict,
    "a mapping of counts",
    lambda values: all(type(count) is int and count > 0 for value in values for count in value.values()),
)

_HEADER: Rules = {
    "format": one_of(FORMAT),
    "nodeid": _FILLED,
    "eval_id": TEXT,
    "recorded_at": _FILLED,
    "recorder": MAPPING,
    "redaction": MAPPING,
    "provenance": MAPPING,
    "supersedes": optional(_HASH),
}
_ENTRY: Rules = {
    "seq": COUNT,
    "kind": one_of(*ENTRY_KINDS),
    "span_id": optional(_SPAN_ID),
    "parent_span_id": optional(_SPAN_ID),
    "trace_id": _TRACE_ID,
    "eval_id": TEXT,
    "timestamp_ns": _DECIMAL,
    "payload": MAPPING,
    "prev_hash": _HASH,
    "sha256_hash": _HASH,
}
_SPAN: Rules = {
    "name": TEXT,
    "span_kind": one_of(*SPAN_KINDS),
    "scope": TEXT,
    "attributes": MAPPING,
    "events": LIST,
    "status": MAPPING,
    "duration_ns": INTEGER,
}
_PART = Rule("a mapping", frozenset({dict, Deferred}))
_EXCHANGE: Rules = {**_SPAN, "request": _PART, "response": optional(_PART)}
_STATUS: Rules = {"code": one_of(*STATUSES), "message": TEXT}
# Durations and offsets may be negative: the clock of a foreign span may step back, and the run is worth keeping.
_EVENT: Rules = {"name": TEXT, "offset_ns": INTEGER, "attributes": MAPPING}
_SEQ_OF = itemgetter("seq")
_CLOSE: Rules = {
    "declared_entries": COUNT,
    "by_kind": _COUNTS,
    "in_flight": COUNT,
    "outcome": _FILLED,
}


def header_fault(header: Any) -> Fault | None:
    """The first departure of a header from its shape; a foreign format is told before anything else."""
    if type(header) is dict and "format" in header and header["format"] != FORMAT:
        return Fault("format", f"is not {FORMAT}, the only format that this version reads")
    return next(faults(header, _HEADER), None)


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


def without_fault(entries: Sequence[Any], room: Room) -> bool:
    """Whether no entry departs from its shape or its place, told of all at once; ``entry_fault`` says which one does.

    Args:
        entries: anything plain.
        room: of their cassette.
    """
    return (
        all(fit(values, rules) for values, rules, _ in _shapes(entries))
        and [*map(_SEQ_OF, entries)] == [*range(len(entries))]
        and not any(True for entry in entries for _ in _other_faults(entry, room))
    )


def entry_fault(entry: Any, room: Room) -> Fault | None:
    """The first departure of an entry from its shape.

    Args:
        entry: anything plain.
        room: of its cassette.
    """
    return next(_entry_faults(entry, room), None)


def _entry_faults(entry: Any, room: Room) -> Iterator[Fault]:
    # A consumer stops at the first fault, so whatever runs after that of a shape has the right keys and types.
    for values, rules, prefix in _shapes((entry,)):
        for value in values:
            yield from faults(value, rules, prefix=prefix)
    yield from _other_faults(entry, room)


def _shapes(entries: Sequence[Any]) -> Iterator[tuple[Sequence[Any], Rules, str]]:
    """Parts of entries that have to have one shape, each time with its rules and its dotted name.

    To be asked for the next ones only if those before have theirs.
    """
    yield entries, _ENTRY, ""
    payloads: dict[str, list[Any]] = {"close": [], "span": [], "exchange": []}
    for entry in entries:
        payloads["exchange" if entry["kind"] in EXCHANGE_KINDS else entry["kind"]].append(entry["payload"])
    yield payloads["close"], _CLOSE, "payload."
    yield payloads["span"], _SPAN, "payload."
    yield payloads["exchange"], _EXCHANGE, "payload."
    spans = [*payloads["span"], *payloads["exchange"]]
    yield [span["status"] for span in spans], _STATUS, "payload.status."
    for span in spans:
        for index, event in enumerate(span["events"]):
            yield (event,), _EVENT, f"payload.events[{index}]."


def _other_faults(entry: Mapping[str, Any], room: Room) -> Iterator[Fault]:
    """What keys and types do not tell of an entry that has its shape."""
    kind = entry["kind"]
    if kind == "close":
        for key in ("span_id", "parent_span_id"):
            if entry[key] is not None:
                yield Fault(key, "must be null in a close entry")
        return
    if entry["span_id"] is None:
        yield Fault("span_id", f"must be {_SPAN_ID.words}")
    if kind != "span":
        yield from _part_faults(entry, room)


def _part_faults(entry: Mapping[str, Any], room: Room) -> Iterator[Fault]:
    """Of what is not built later."""
    for part in ("request", "response"):
        if type(entry["payload"][part]) is dict:
            try:
                _as_exchanged(entry["kind"], part, entry["payload"][part], room)
            except _Departed as departed:
                yield departed.fault


class _Departed(Exception):
    """A request or a response is not of its shape."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.fault = Fault(f"payload.{field}".removesuffix("."), reason)


def _as_exchanged(kind: str, part: str, value: Any, room: Room) -> Any:
    """A request or a response as an exchange holds it.

    Raises:
        _Departed: the document holds something else.
    """
    if type(value) is not dict:
        raise _Departed(part, f"must be {_PART.words}")
    if part == "response" and _is_folded(value):
        try:
            value = _unfolded(value, room)
        except ValueError as error:
            raise _Departed("response.body.events", str(error)) from None
    fault = (request_fault if part == "request" else response_fault)(kind, value)
    if fault is not None:
        raise _Departed(f"{part}.{fault.field}", fault.reason)
    return value


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
        payload["response"] = _folded(plain(span.exchange.response))
    return payload


def _folded(response: Any) -> Any:
    """A response as a document holds it."""
    body = response.get("body") if type(response) is dict else None
    if type(body) is not dict or "chunks" not in body or type(body.get("text")) is not str:
        return response
    events = _fold.fold(body["text"])
    if events is None:
        return response
    return {**response, "body": {"events": events, **{key: body[key] for key in body if key != "text"}}}


def _is_folded(response: Any) -> bool:
    return type(response) is dict and type(body := response.get("body")) is dict and "events" in body


def _unfolded(response: dict[str, Any], room: Room) -> dict[str, Any]:
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
        if not _is_folded(response):
            return entry
        return {**entry, "payload": {**entry["payload"], "response": _unfolded(response, Room())}}

    return {**document, "entries": list(map(whole, document["entries"]))}


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
                return _as_exchanged(kind, part, value, taken_of)
            except _Departed as departed:
                rooms[:] = [room]
                raise refuse(departed.fault) from None

        there = {}
        for part in ("request", "response"):
            value = payload[part]
            # What is folded waits even where nothing else does: a small file may hold much of it.
            if type(value) is not Deferred and not _is_folded(value):
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
