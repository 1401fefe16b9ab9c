"""The exact form of a document, and what departs from it; of hashes and links judges ``_chain``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from .._model import EXCHANGE_KINDS, FORMAT
from .._shape import (
    COUNT,
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
from .parsed import Deferred
from .streams import Room, is_folded, unfolded

SPAN_KINDS = ("internal", "client", "server", "producer", "consumer")
STATUSES = ("unset", "ok", "error")
ENTRY_KINDS = (*EXCHANGE_KINDS, "span", "close")

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
_CLOSE: Rules = {
    "declared_entries": COUNT,
    "by_kind": _COUNTS,
    "in_flight": COUNT,
    "outcome": _FILLED,
}

HEADER_KEYS = tuple(_HEADER)
ENTRY_KEYS = tuple(_ENTRY)
_SEQ_OF = itemgetter("seq")


def header_fault(header: Any) -> Fault | None:
    """The first departure of a header from its shape; a foreign format is told before anything else."""
    if type(header) is dict and "format" in header and header["format"] != FORMAT:
        return Fault("format", f"is not {FORMAT}, the only format that this version reads")
    return next(faults(header, _HEADER), None)


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
                as_exchanged(entry["kind"], part, entry["payload"][part], room)
            except Departed as departed:
                yield departed.fault


class Departed(Exception):
    """A request or a response is not of its shape."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.fault = Fault(f"payload.{field}".removesuffix("."), reason)


def as_exchanged(kind: str, part: str, value: Any, room: Room) -> Any:
    """A request or a response as an exchange holds it.

    Raises:
        Departed: the document holds something else.
    """
    if type(value) is not dict:
        raise Departed(part, f"must be {_PART.words}")
    if part == "response" and is_folded(value):
        try:
            value = unfolded(value, room)
        except ValueError as error:
            raise Departed("response.body.events", str(error)) from None
    fault = (request_fault if part == "request" else response_fault)(kind, value)
    if fault is not None:
        raise Departed(f"{part}.{fault.field}", fault.reason)
    return value
