"""The hash chain of a cassette: sealing a span tree, and the one judgement that makes a ``Cassette``.

Invariants:

* every byte of meaning in the document is in exactly one hash, and every hash is in the next;
* ``judge`` accepts what ``seal`` makes of one well-formed tree; who saves it asks ``judge``, and nobody twice;
* a ``Cassette`` exists only after every check of ``verify`` has passed: "verified" is a type, not a habit;
* no message quotes the payload.

The chain is a checksum, not a signature: it proves nothing against someone who recomputes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

from . import _ledger, _summary
from ._canonical import digest, digest_of
from ._ledger import Parsed
from ._model import Cassette, Header, Span, SpanTree
from ._shape import Fault
from .errors import CassetteBroken, CassetteError, CassetteIncomplete, Unrecordable

HEADER_DOMAIN = "spanchain/header/v1"
ENTRY_DOMAIN = "spanchain/entry/v1"

RESTORE = "restore the file from version control, or record it again: pytest THE-TEST --record-mode=rewrite"
UPGRADE = "upgrade pytest-spanchain, or record it again: pytest THE-TEST --record-mode=rewrite"
SWAPPED = "put the right file back, or record this test again: pytest THE-TEST --record-mode=rewrite"


@dataclass(frozen=True)
class Verdicts:
    """The two verdicts on a cassette, apart.

    Args:
        integrity: ``None`` if every field, hash and link holds, else the first that does not.
        completeness: ``None`` if the close entry is there, last, and its counts are equal. Judged even where
            integrity fails; if the entries cannot be told apart at all, it says so.
        cassette: the verified cassette, if both hold.
    """

    integrity: CassetteError | None
    completeness: CassetteError | None
    cassette: Cassette | None


def genesis(header: Mapping[str, Any]) -> str:
    """Hash of the plain header: the ``prev_hash`` of the first entry."""
    return digest(HEADER_DOMAIN, header)


def entry_hash(entry: Mapping[str, Any]) -> str:
    """Hash of a plain entry without its ``sha256_hash``."""
    return digest(ENTRY_DOMAIN, {key: value for key, value in entry.items() if key != "sha256_hash"})


def seal(header: Header, tree: SpanTree, *, trace_id: str, outcome: str, in_flight: int = 0) -> dict[str, Any]:
    """The plain document of a finished run: entries in tree order, chained, with the close entry at the end.

    Args:
        header: what the cassette says of itself.
        tree: parents before children, the root first.
        trace_id: 32 hex digits.
        outcome: outcome of the test, e.g. ``passed``.
        in_flight: calls that had begun but not ended when the run was closed.

    Raises:
        Unrecordable: a value has no faithful plain form; the message names the span.
    """
    with _naming("header"):
        plain_header = _ledger.write_header(header)
        link = genesis(plain_header)
    entries: list[dict[str, Any]] = []

    def append(what: str, kind: str, span_id: str | None, parent: str | None, time_ns: int, payload: Any) -> None:
        nonlocal link
        entry = {
            "seq": len(entries),
            "kind": kind,
            "span_id": span_id,
            "parent_span_id": parent,
            "trace_id": trace_id,
            "eval_id": header.eval_id,
            "timestamp_ns": str(time_ns),
            "payload": payload,
            "prev_hash": link,
        }
        with _naming(what):
            link = entry["sha256_hash"] = entry_hash(entry)
        entries.append(entry)

    for span in tree:
        with _naming(f"span {span.name!a}"):
            payload = _ledger.write_span(span)
        append(f"span {span.name!a}", span.kind, span.span_id, span.parent_span_id, span.start_ns, payload)
    counts = {
        "declared_entries": len(entries),
        "by_kind": dict(Counter(entry["kind"] for entry in entries)),
        "in_flight": in_flight,
        "outcome": outcome,
    }
    append("close", "close", None, None, max((span.end_ns for span in tree), default=0), counts)
    return {"header": plain_header, "entries": entries}


def verify(parsed: Parsed, *, path: str = "", nodeid: str | None = None) -> Cassette:
    """Judge a parsed cassette and hand out the verified one.

    1. The document has exactly ``header`` and ``entries``, and the header its exact shape and a known format.
    2. There is an entry; each entry has its exact shape, and its ``seq`` is its position. A request or a response that
       is deferred is judged when it is built, and then raises ``CassetteBroken`` as here.
    3. Each entry hashes to its ``sha256_hash``.
    4. Each ``prev_hash`` is the hash before it; the first is the header's (genesis).
    5. ``trace_id`` and ``eval_id`` are the same throughout, and the latter the header's.
    6. Span ids are unique, a parent is an earlier span, and the only root is entry 0.
    7. The summary, if the file has one, is the one that the data gives.
    8. The cassette is this test's, if ``nodeid`` is given.
    9. The close entry is there, once, last, and its counts are those of the file (completeness).

    Args:
        parsed: what the file says.
        path: the file as shown to the user.
        nodeid: node id that the cassette must have been recorded for.

    Raises:
        CassetteBroken: one of 1 to 8 fails.
        CassetteIncomplete: 1 to 8 hold, and 9 fails.
    """
    verdicts = judge(parsed, path=path, nodeid=nodeid)
    for problem in (verdicts.integrity, verdicts.completeness):
        if problem is not None:
            raise problem
    assert verdicts.cassette is not None, "a cassette without a problem is a cassette"
    return verdicts.cassette


def judge(parsed: Parsed, *, path: str = "", nodeid: str | None = None) -> Verdicts:
    """Both verdicts on a parsed cassette, without raising; arguments and checks as in ``verify``."""
    integrity = _integrity(parsed, path, nodeid)
    completeness = _completeness(parsed, path, sound=integrity is None)  # 9.
    if integrity is not None or completeness is not None:
        return Verdicts(integrity=integrity, completeness=completeness, cassette=None)
    *spans, close = parsed.document["entries"]
    room = _ledger.Room()

    def read(entry: Mapping[str, Any], seq: int) -> Span:
        broken = partial(_broken, line=_line(parsed, seq), path=path, seq=seq)
        return _ledger.read_span(entry, room=room, refuse=broken)

    cassette = Cassette(
        path=path,
        header=_ledger.read_header(parsed.document["header"]),
        tree=SpanTree(tuple(map(read, spans, range(len(spans))))),
        trace_id=close["trace_id"],
        head=close["sha256_hash"],
        outcome=close["payload"]["outcome"],
    )
    return Verdicts(integrity=None, completeness=None, cassette=cassette)


def _integrity(parsed: Parsed, path: str, nodeid: str | None) -> CassetteBroken | None:
    document = parsed.document

    # 1. Exact document and header; a format of the future is told as such.
    fault = _document_fault(document) or _ledger.header_fault(document["header"])
    if fault is not None:
        remedy = UPGRADE if fault.field == "format" else RESTORE
        return CassetteBroken(fault.reason, path=path, field=fault.field or "header", remedy=remedy)
    header, entries = document["header"], document["entries"]

    # 2. to 4. The first entry that is broken is named, in whatever way it is.
    misshapen = _misshapen(entries)
    whole = entries if misshapen is None else entries[: misshapen[0]]
    broken = unlinked(header, whole, parsed.texts) or misshapen
    if broken is not None:
        seq, fault = broken
        return _broken(fault, line=_line(parsed, seq), path=path, seq=seq)

    # 5. One trace, one evaluation. 6. One tree.
    for check in (_constant_faults, _tree_faults):
        for seq, found in check(header, entries):
            return _broken(found, line=_line(parsed, seq), path=path, seq=seq)

    # 7. What a reviewer reads first is what the data says.
    if parsed.summary is not None and not _summary.same(parsed.summary, _summary.lines(document)):
        reason = "the span tree in the opening comments is not the one in the data"
        return CassetteBroken(reason, path=path, line=1, field="summary", remedy=RESTORE)

    # 8. Not another test's cassette.
    if nodeid is not None and header["nodeid"] != nodeid:
        reason = (
            f"this cassette was recorded for {_summary.visible(header['nodeid'])}, not for {_summary.visible(nodeid)}"
        )
        return CassetteBroken(reason, path=path, field="nodeid", remedy=SWAPPED)
    return None


def _document_fault(document: Any) -> Fault | None:
    if type(document) is not dict or set(document) != {"header", "entries"}:
        return Fault("header", "the file must hold exactly the keys header and entries")
    entries = document["entries"]
    if type(entries) is not list or not entries:
        return Fault("entries", "must be a list of at least one entry")
    return None


def _misshapen(entries: list[Any]) -> tuple[int, Fault] | None:
    """The first entry that departs from its shape or its place."""
    if _ledger.without_fault(entries, _ledger.Room()):
        return None
    room = _ledger.Room()  # one more: whoever looks again for what is at fault takes it again
    found = ((seq, _entry_fault(entry, seq, room)) for seq, entry in enumerate(entries))
    return next(((seq, fault) for seq, fault in found if fault is not None), None)


def unlinked(
    header: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], texts: Sequence[bytes] = ()
) -> tuple[int, Fault] | None:
    """The first entry where the chain does not hold.

    Args:
        header: the header.
        entries: the first of a cassette, or all of them; each has its shape.
        texts: canonical texts of the header, and of each entry without its hash, where they are known.

    Returns:
        Its ``seq``, and what is wrong; ``None`` if the chain holds.
    """
    link = digest_of(HEADER_DOMAIN, texts[0]) if texts else genesis(header)
    for seq, entry in enumerate(entries):
        fault = _hash_fault(entry, link, texts[1 + seq] if texts else None)
        if fault is not None:
            return seq, fault
        link = entry["sha256_hash"]
    return None


def _entry_fault(entry: Any, seq: int, room: _ledger.Room) -> Fault | None:
    fault = _ledger.entry_fault(entry, room)
    if fault is None and entry["seq"] != seq:
        reason = f"is {entry['seq']} where {seq} belongs: an entry was dropped, moved, doubled or added"
        return Fault("seq", reason)
    return fault


def _hash_fault(entry: Mapping[str, Any], link: str, text: bytes | None) -> Fault | None:
    if (entry_hash(entry) if text is None else digest_of(ENTRY_DOMAIN, text)) != entry["sha256_hash"]:
        return Fault("sha256_hash", "the entry was changed: it does not hash to its sha256_hash")
    if entry["prev_hash"] == link:
        return None
    if entry["seq"] == 0:
        return Fault("prev_hash", "the header was changed, or is another cassette's: it does not hash to this value")
    return Fault("prev_hash", "does not link to the entry before it: an entry was changed, dropped, moved or added")


def _constant_faults(header: Mapping[str, Any], entries: list[dict[str, Any]]) -> list[tuple[int, Fault]]:
    expected = {"trace_id": entries[0]["trace_id"], "eval_id": header["eval_id"]}
    if set(map(itemgetter(*expected), entries)) == {tuple(expected.values())}:  # nearly always
        return []
    return [
        (seq, Fault(key, "differs from the rest of the cassette"))
        for seq, entry in enumerate(entries)
        for key, value in expected.items()
        if entry[key] != value
    ]


def _tree_faults(header: Mapping[str, Any], entries: list[dict[str, Any]]) -> list[tuple[int, Fault]]:
    faults = []
    known: set[str] = set()
    for seq, entry in enumerate(entries):
        if entry["kind"] == "close":
            continue
        span_id, parent = entry["span_id"], entry["parent_span_id"]
        if span_id in known:
            faults.append((seq, Fault("span_id", "is another entry's, too")))
        if parent is None and seq != 0:
            faults.append((seq, Fault("parent_span_id", "is null, but only entry 0 may be a root")))
        if parent is not None and parent not in known:
            faults.append((seq, Fault("parent_span_id", "names no earlier span")))
        known.add(span_id)
    return faults


def _completeness(parsed: Parsed, path: str, *, sound: bool) -> CassetteIncomplete | None:
    entries = parsed.document.get("entries") if type(parsed.document) is dict else None
    room = _ledger.Room()
    if type(entries) is not list or not (sound or all(_ledger.entry_fault(entry, room) is None for entry in entries)):
        return CassetteIncomplete("cannot be judged: not every entry can be read", path=path, remedy=RESTORE)
    closes = [seq for seq, entry in enumerate(entries) if entry["kind"] == "close"]
    if not closes:
        reason = "there is no close entry: the end of the recording is missing"
        end = _line(parsed, len(entries) - 1)
        return CassetteIncomplete(reason, path=path, line=end, field="close", remedy=RESTORE)
    if closes != [len(entries) - 1]:
        reason = "there must be one close entry, and nothing after it"
        return _incomplete(Fault("kind", reason), parsed, path, closes[0])
    declared, found = entries[-1]["payload"], Counter(entry["kind"] for entry in entries[:-1])
    if declared["declared_entries"] != len(entries) - 1:
        reason = f"declares {declared['declared_entries']} entries, but the file holds {len(entries) - 1}"
        return _incomplete(Fault("payload.declared_entries", reason), parsed, path, closes[0])
    if declared["by_kind"] != found:
        return _incomplete(Fault("payload.by_kind", "is not what the file holds"), parsed, path, closes[0])
    if not found:
        return _incomplete(Fault("payload.declared_entries", "there is no span"), parsed, path, closes[0])
    return None


def _broken(fault: Fault, *, line: int | None, path: str, seq: int) -> CassetteBroken:
    return CassetteBroken(fault.reason, path=path, line=line, entry=seq, field=fault.field or None, remedy=RESTORE)


def _incomplete(fault: Fault, parsed: Parsed, path: str, seq: int) -> CassetteIncomplete:
    line = _line(parsed, seq)
    return CassetteIncomplete(fault.reason, path=path, line=line, entry=seq, field=fault.field, remedy=RESTORE)


def _line(parsed: Parsed, seq: int) -> int | None:
    return parsed.entry_lines[seq] if 0 <= seq < len(parsed.entry_lines) else None


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Let a refusal say whose value it refuses."""
    try:
        yield
    except Unrecordable as error:
        raise Unrecordable(f"{what}: {error}") from None
    except RecursionError:
        raise Unrecordable(f"{what}: a value is nested too deeply, or contains itself") from None
