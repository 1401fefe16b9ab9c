"""HTTP/1.1 as bytes: a request read back from what was sent, a body followed while it is read, a body that is served.

Nothing here touches a connection. A body that is followed keeps the borders of its transfer chunks, because a stream's
reader sees them; what is served is framed so that the reader gets the same chunks and the same end again.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from .. import _http

_NEWLINE = b"\r\n"
_CUT = re.compile(r"(\d+) bytes read(?:, (\d+) more expected)?")
_IN_CHUNKS = "in chunks: "
_NO_SIZE = "in chunks, no size: "

Headers = list[tuple[str, str]]


class IncompleteRead(Exception):
    """The answer ended before its end, as ``http.client`` calls it."""


@dataclass(frozen=True)
class Sent:
    """A request as it was sent."""

    method: str
    target: str
    headers: Headers
    body: bytes


def sent(wire: bytes) -> Sent:
    """Read a request; a body in chunks is joined."""
    head, _, body = wire.partition(_NEWLINE * 2)
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    headers: Headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name.strip(), value.strip()))
    if _http.value_of(headers, "transfer-encoding").lower() == "chunked":
        followed = ChunkedBody()
        followed.feed(body)
        body = b"".join(followed.pieces)
    return Sent(method, rest.rpartition(" ")[0], headers, body)


def announces_body(head: Sent) -> bool:
    """Whether the headers say that a body follows."""
    return _http.value_of(head.headers, "content-length") not in ("", "0") or bool(
        _http.value_of(head.headers, "transfer-encoding")
    )


class PlainBody:
    """A body of known length, or one that ends with its connection (length ``None``)."""

    def __init__(self, length: int | None) -> None:
        self.pieces: list[bytes] = []
        self.complete = length == 0
        self.fault: IncompleteRead | None = None
        self._length = length
        self._got = 0

    def feed(self, data: bytes) -> None:
        """More has been read."""
        if data:
            self.pieces.append(data)
        self._got += len(data)
        self.complete = self._length is not None and self._got >= self._length

    def cut(self) -> IncompleteRead | None:
        """The connection ended here: what is wrong with that."""
        if self._length is None:
            return None
        return IncompleteRead(f"{self._got} bytes read, {self._length - self._got} more expected")

    def flush(self) -> None:
        """Nothing more will be read."""


class ChunkedBody:
    """A body in transfer chunks, each of which is a piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.complete = False
        self._unread = bytearray()
        self._piece = bytearray()
        self._left = 0
        self._next = self._size
        self.fault: IncompleteRead | None = None
        """What makes the rest unreadable: the reader fails at the same place, in its own words."""

    def feed(self, data: bytes) -> None:
        """More has been read."""
        self._unread += data
        while not self.fault and not self.complete and self._next():
            pass

    def cut(self) -> IncompleteRead | None:
        """The connection ended here: what is wrong with that."""
        expected = f", {self._left} more expected" if self._left else ""
        return IncompleteRead(f"{_IN_CHUNKS}{len(self._piece)} bytes read{expected}")

    def flush(self) -> None:
        """Nothing more will be read: a chunk that was read in part is a piece."""
        if self._piece:
            self.pieces.append(bytes(self._piece))
            self._piece.clear()

    # Each step takes what it needs from what is unread, and says whether another may follow.

    def _line(self) -> bytes | None:
        line, newline, rest = self._unread.partition(b"\n")
        if not newline:
            return None
        self._unread = rest
        return bytes(line).rstrip(b"\r")

    def _size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError:
            self.fault = IncompleteRead(_NO_SIZE + line.decode("latin-1"))
            return False
        self._next = self._data if self._left else self._trailer
        return True

    def _data(self) -> bool:
        part = self._unread[: self._left]
        del self._unread[: self._left]
        self._piece += part
        self._left -= len(part)
        if self._left:
            return False
        self.flush()
        self._next = self._border
        return True

    def _border(self) -> bool:
        if self._line() is None:
            return False
        self._next = self._size
        return True

    def _trailer(self) -> bool:
        line = self._line()
        self.complete = line == b""
        return line is not None


@dataclass(frozen=True)
class Frame:
    """How a recorded answer is put on the wire again.

    Args:
        chunked: in transfer chunks; else as one body of ``length`` bytes (``None``: none at all).
        length: the length that is announced.
        last: number of the chunk that is only begun, counted from 0.
        begins: how many bytes at the end of it have come; those before are a whole chunk, if there are any.
        missing: how many bytes of it never come.
        after: what stands where the size of a chunk should, after all of them.
    """

    chunked: bool
    length: int | None = None
    last: int = -1
    begins: int = 0
    missing: int = 0
    after: bytes = b""

    def head(self, status: int, headers: Mapping[str, str]) -> bytes:
        """Status line and headers."""
        lines = [f"HTTP/1.1 {status} {_reason(status)}", *(f"{name}: {value}" for name, value in headers.items())]
        if self.chunked:
            lines.append("transfer-encoding: chunked")
        elif self.length is not None:
            lines.append(f"content-length: {self.length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def piece(self, number: int, data: bytes) -> bytes:
        """A piece of the body."""
        if not self.chunked:
            return data
        if number != self.last:
            return b"%x\r\n%b\r\n" % (len(data), data)
        # Elsewhere than in streams the borders of chunks are not kept, and all of them are one.
        before, part = data[: -self.begins], data[-self.begins :]
        whole = b"%x\r\n%b\r\n" % (len(before), before) if before else b""
        return whole + b"%x\r\n%b" % (len(part) + self.missing, part)

    def begun(self, count: int) -> bytes:
        """What was there of a chunk of which nothing came, after ``count`` that did."""
        if self.after:
            return self.after + _NEWLINE
        return b"%x\r\n" % self.missing if self.chunked and self.missing and self.last == count else b""

    def end(self) -> bytes:
        """What ends the body."""
        return b"0\r\n\r\n" if self.chunked else b""


def frame_of(recorded: Mapping[str, Any], *, method: str, chunks: list[bytes]) -> Frame:
    """The framing under which a reader gets the recorded chunks, and the recorded end."""
    status, end = recorded["status"], recorded["end"]
    if method == "HEAD" or status in (204, 304) or 100 <= status < 200:
        return Frame(chunked=False)
    length = sum(map(len, chunks))
    # Where the reader had stopped, or something failed, nobody may believe that the body ends there.
    chunked = end != "complete" or "chunks" in (recorded["body"] or {})
    if end == "error" and recorded["error"]["type"] == "IncompleteRead":
        return _cut_frame(recorded["error"]["message"], length=length, count=len(chunks))
    return Frame(chunked=True) if chunked else Frame(chunked=False, length=length)


def _cut_frame(message: str, *, length: int, count: int) -> Frame:
    if message.startswith(_NO_SIZE):
        return Frame(chunked=True, after=message.removeprefix(_NO_SIZE).encode("latin-1", "replace"))
    found = _CUT.search(message)
    got, missing = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    if not message.startswith(_IN_CHUNKS):
        return Frame(chunked=False, length=length + missing)
    return Frame(chunked=True, last=count - 1 if got else count, begins=got, missing=missing)


def decoded(pieces: Iterable[bytes], encoding: str) -> list[bytes]:
    """A body without its content encoding, piece by piece; a piece that tells nothing yet is left out.

    Raises:
        ValueError: the encoding is unknown here, or the body is not what it says.
    """
    found = list(pieces)
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        if name in ("", "identity"):
            continue
        decoder = _decoder(name)
        try:
            found = [*(decoder.decompress(piece) for piece in found), decoder.flush()]
        except Exception as error:  # noqa: BLE001 - each decoder has its own
            raise ValueError(f"not {name}: {error}") from None
        found = [piece for piece in found if piece]
    return found


@dataclass
class _Zlib:
    """gzip or deflate; several members follow each other, and deflate comes with and without its header."""

    windows: list[int]
    _decoder: Any = field(default=None)
    _members: int = 0
    _ended: bool = False

    def decompress(self, data: bytes) -> bytes:
        out = b""
        while data and not self._ended:
            if self._decoder is None or self._decoder.eof:
                first, *others = self.windows
                self._decoder = zlib.decompressobj(first)
                if others and not _reads(first, data):
                    self._decoder = zlib.decompressobj(others[0])
            try:
                out += self._decoder.decompress(data)
            except zlib.error:
                if not self._members:
                    raise
                self._ended = True  # readers pass over what follows the last member
                break
            self._members += self._decoder.eof
            data = self._decoder.unused_data.lstrip(b"\0") if self._decoder.eof else b""
        return out

    def flush(self) -> bytes:
        # What was cut is a body without its end: its reader has seen the part that could be read.
        return b""


def _reads(window: int, data: bytes) -> bool:
    try:
        zlib.decompressobj(window).decompress(data[:2])
    except zlib.error:
        return False
    return True


def _decoder(name: str) -> Any:
    if name in ("gzip", "x-gzip"):
        return _Zlib([16 + zlib.MAX_WBITS])
    if name == "deflate":
        return _Zlib([zlib.MAX_WBITS, -zlib.MAX_WBITS])
    response = sys.modules.get("urllib3.response")
    if response is None or name not in response.HTTPResponse.CONTENT_DECODERS:
        raise ValueError(f"the encoding {name} is not known here")
    return response._get_decoder(name)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
