"""The plain document of a cassette to the bytes of its file and back.

Invariants: ``loads(dumps(document)).document == document``; what was written reads back the same after a formatter
changed line ends, indentation, quoting or the order of keys, or dropped the comments. Nothing is judged here beyond
the form; that what was read is what was recorded is ``_chain``'s to prove.
"""

from __future__ import annotations

import re
from typing import Any

from .. import _summary
from .._canonical import value_of
from .._ledger import Deferred
from .._ledger import Parsed as Parsed
from ..errors import CassetteUnreadable
from .limits import MAX_BYTES
from .splice import Entry, Spliced, splice

RESTORE = "restore the file from version control, or delete it and record it again: pytest THE-TEST --record-mode=once"
RECORD_AGAIN = (
    "cassettes are never merged: take either side whole (git checkout --ours or --theirs), or delete the file and "
    "record it again: pytest THE-TEST --record-mode=once"
)

_SUMMARY_LEAD = "# | "
_SUMMARY_LINE = re.compile(r"#\s*\| ?(.*)")
_LINE = re.compile(r"[^\r\n]*")
# At the left margin, where a cassette has only its two keys, list items and comments.
_CONFLICT = re.compile(r"^(?:<{7}|>{7})(?: |\r?$)", re.MULTILINE)


def dumps(document: dict[str, Any]) -> bytes:
    """The file of a document without fault: the summary as comments, then the data.

    Raises:
        Unrecordable: a value is not plain, or the file would exceed a bound that the reader keeps.
    """
    from . import writer

    summary = "".join(f"{_SUMMARY_LEAD}{line}".rstrip() + "\n" for line in _summary.lines(document))
    return f"{summary}\n{writer.emit(document)}".encode()


def loads(data: bytes, *, path: str = "", deferred: bool = False) -> Parsed:
    """Read the bytes of a file.

    Args:
        data: of the file.
        path: the file as shown to the user.
        deferred: whether requests and responses may be built when they are asked for.

    Raises:
        CassetteUnreadable: they are not UTF-8 text of the strict YAML subset, or exceed a bound; it names the line.
    """
    if len(data) > MAX_BYTES:
        raise CassetteUnreadable(f"is larger than {MAX_BYTES // 2**20} MiB", path=path, remedy=RESTORE)
    spliced = splice(data)
    if spliced is not None and (parsed := _parsed(spliced, deferred=deferred)) is not None:
        return parsed
    return _read(data, path)


def _parsed(spliced: Spliced, *, deferred: bool) -> Parsed | None:
    try:
        header = value_of(spliced.header.decode())
        entries = [_entry(entry, deferred=deferred) for entry in spliced.entries]
    except (ValueError, RecursionError):
        return None
    return Parsed(
        {"header": header, "entries": entries},
        summary=_usual_summary(spliced.opening) or _find_summary(spliced.opening),
        entry_lines=tuple(entry.line for entry in spliced.entries),
        texts=(spliced.header, *(entry.text for entry in spliced.entries)),
    )


def _entry(found: Entry, *, deferred: bool) -> dict[str, Any]:
    entry: dict[str, Any] = value_of((found.rest if deferred else found.text).decode())
    if deferred:
        for key, (start, end) in found.apart.items():
            entry["payload"][key] = Deferred.of(found.text, start, end)
    entry["sha256_hash"] = found.sha256_hash
    return entry


def _read(data: bytes, path: str) -> Parsed:
    """What the strict reader makes of a file: what it means, or what is wrong with it."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CassetteUnreadable("is not UTF-8 text", path=path, line=line, remedy=RESTORE) from None
    conflict = _CONFLICT.search(text)
    if conflict:
        line = text.count("\n", 0, conflict.start()) + 1
        raise CassetteUnreadable("has git conflict markers", path=path, line=line, remedy=RECORD_AGAIN)
    from . import reader

    try:
        found = reader.read(text)
    except reader.NotStrictError as error:
        raise CassetteUnreadable(error.reason, path=path, line=error.line, remedy=RESTORE) from None
    if type(found.value) is not dict:
        raise CassetteUnreadable("is not a mapping of header and entries", path=path, line=1, remedy=RESTORE)
    return Parsed(found.value, summary=_find_summary(text), entry_lines=found.entry_lines)


def _usual_summary(opening: str) -> tuple[str, ...]:
    """What ``_find_summary`` finds, sooner, where a file opens as we write it and with nothing else; else empty.

    Of an opening only, whose lines end as ours do: in a whole file everything would be taken apart.
    """
    first, *lines = f"\n{opening}".removesuffix("\n").split(f"\n{_SUMMARY_LEAD}")
    return tuple(lines) if not first and "\n" not in "".join(lines) else ()


def _find_summary(text: str) -> tuple[str, ...] | None:
    """The summary among the comments before the first line of data; others, such as a licence, are let be."""
    found = []
    for match in _LINE.finditer(text):
        line = match.group().strip()
        if line and not line.startswith("#") and line != "---":
            break
        summary = _SUMMARY_LINE.match(line)
        if summary:
            found.append(summary.group(1))
    return tuple(found) or None
