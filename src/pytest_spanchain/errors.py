"""What can go wrong, in one tree.

::

    SpanchainError
    ├── UsageError               a misspelt or contradictory option, marker argument or path
    ├── CassetteError            a cassette file cannot be used
    │   ├── CassetteMissing      there is no file, and the mode does not record
    │   ├── CassetteUnreadable   not a regular UTF-8 file of the strict YAML subset
    │   ├── CassetteBroken       readable, but a hash, link, field or the summary does not hold
    │   └── CassetteIncomplete   the chain holds, but the close entry is absent or its counts differ
    ├── RecordingError           the run cannot be written as a cassette
    │   ├── Unrecordable         a value has no faithful plain form
    │   └── SecretFound          something that looks like a credential would have been written
    ├── MissError                replay: the agent asked for something that was not recorded
    ├── LiveCallError            replay: something tried to leave the process
    ├── RunClosedError           a call arrived after its run had ended
    ├── DeviationError           outside pytest: the live trace is not the golden one
    ├── OwnershipError           a call cannot be attributed to one of several active runs
    └── BoundaryError            a third-party library is not what its boundary knows

Every error carries plain data only, so that it can be pickled by xdist.
"""

from __future__ import annotations


class SpanchainError(Exception):
    """The root of every error that this package raises."""


class UsageError(SpanchainError):
    """An option, a marker argument, an ini key or a path is wrong."""


class CassetteError(SpanchainError):
    """A cassette file cannot be used.

    Args:
        reason: what is wrong, one sentence without a final full stop.
        path: the file, as shown to the user.
        line: 1-based line in the file, where known.
        entry: 0-based ``seq`` of the entry, where known.
        field: dotted name of the field, where known.
        remedy: what the user can do about it.
    """

    def __init__(
        self,
        reason: str,
        *,
        path: str = "",
        line: int | None = None,
        entry: int | None = None,
        field: str | None = None,
        remedy: str = "",
    ) -> None:
        self.reason = reason
        self.path = path
        self.line = line
        self.entry = entry
        self.field = field
        self.remedy = remedy
        super().__init__(reason, path, line, entry, field, remedy)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.reason, self.path, self.line, self.entry, self.field, self.remedy)

    def __str__(self) -> str:
        where = self.path
        if self.line is not None:
            where = f"{where}:{self.line}" if where else f"line {self.line}"
        details = [
            part
            for part in (
                f"entry {self.entry}" if self.entry is not None else "",
                f"field {self.field}" if self.field else "",
            )
            if part
        ]
        text = f"{where}: " if where else ""
        if details:
            text += f"{', '.join(details)}: "
        text += self.reason
        return f"{text}\n  {self.remedy}" if self.remedy else text


def _rebuild(
    cls: type[CassetteError],
    reason: str,
    path: str,
    line: int | None,
    entry: int | None,
    field: str | None,
    remedy: str,
) -> CassetteError:
    return cls(reason, path=path, line=line, entry=entry, field=field, remedy=remedy)


class CassetteMissing(CassetteError):
    """There is no cassette, and the record mode does not make one."""


class CassetteUnreadable(CassetteError):
    """The file is not a regular UTF-8 file of the strict YAML subset."""


class CassetteBroken(CassetteError):
    """The file can be read, but a hash, a link, a field or the summary does not hold."""


class CassetteIncomplete(CassetteError):
    """The chain holds, but the close entry is absent or its counts differ."""


class RecordingError(SpanchainError):
    """The run cannot be written as a cassette."""


class Unrecordable(RecordingError):
    """A value has no faithful plain form."""


class SecretFound(RecordingError):
    """Something that looks like a credential would have been written."""


class MissError(SpanchainError):
    """In replay the agent asked for something that was not recorded."""


class LiveCallError(SpanchainError):
    """In replay something tried to leave the process."""


class RunClosedError(SpanchainError):
    """A call arrived after its run had ended."""


class DeviationError(SpanchainError, AssertionError):
    """Outside pytest: the live trace is not the golden one. Its text is the report."""


class OwnershipError(SpanchainError):
    """A call cannot be attributed to one of several active runs."""


class BoundaryError(SpanchainError):
    """A third-party library does not look as its boundary expects."""
