"""What a reader makes of a cassette's file, before anything of it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._canonical import value_of


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
