"""Where cassettes lie, reading them once, and replacing them atomically.

Invariants:

* two node ids never share a path, whatever the file system thinks of case or Unicode forms, and no part of a node id
  can leave the directory;
* the bytes that are verified are the bytes that are replayed: a file is read once, and only if it is a regular file;
* at every moment there is the whole old cassette or the whole new one under its name, whoever is killed when.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import _chain, _codec
from ._codec.limits import MAX_BYTES
from ._model import Cassette
from .errors import CassetteMissing, CassetteUnreadable, RecordingError

SLUG = 80
RECORD = "check the path, or record it: pytest THE-TEST --record-mode=once"
REPLACE = "replace it by a regular file, or delete it and record again: pytest THE-TEST --record-mode=once"
CHECK_ACCESS = "check that the directory and the file may be read by the user who runs the tests"

_UNSAFE = re.compile(r"[^A-Za-z0-9_]+")
# Windows gives these names to devices, in any directory and with any extension.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])", re.IGNORECASE)
_TEMPORARY = re.compile(r"\..+\.([0-9]{1,10})\.spanchain-tmp")
_STALE_SECONDS = 3600

# Two threads of one process would fight for one temporary name.
_saving = threading.Lock()


def cassette_path(directory: Path, nodeid: str) -> Path:
    """The path of a test's cassette: ``<module path>/<readable slug>-<12 hex of the node id's hash>.yaml``.

    The readable parts are for people only and may collide; the hash keeps node ids apart. All of them are ASCII
    letters, digits, ``_`` and ``-``, so that no file system folds, reserves or refuses them.

    Args:
        directory: the directory of cassettes.
        nodeid: pytest node id, or any name without ``::``, which then has no module part.
    """
    module, separator, test = nodeid.partition("::")
    parts = re.split(r"[/\\]", module.removesuffix(".py")) if separator else []
    folders = [_folder(part) for part in parts if part not in ("", ".")]
    slug = _UNSAFE.sub("-", test if separator else module)[:SLUG].strip("-") or "test"
    # surrogatepass: a node id may carry undecodable bytes of a file name.
    mark = hashlib.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return directory.joinpath(*folders, f"{slug}-{mark}.yaml")


def exists(path: Path) -> bool:
    """Whether there is anything under this name. Only "no such file" means no.

    Raises:
        CassetteUnreadable: it cannot be told.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    return True


def load(path: Path, *, nodeid: str | None = None, shown: str = "", deferred: bool = False) -> Cassette:
    """Read, decode and verify a cassette.

    Args:
        path: the file.
        nodeid: node id that it must have been recorded for.
        shown: the path as the user should see it; ``path`` if empty.
        deferred: whether requests and responses may be built, and judged, when they are asked for.

    Raises:
        CassetteMissing: there is no such file.
        CassetteUnreadable: it is not a regular file, or not of the format.
        CassetteBroken: a hash, a link or a field does not hold.
        CassetteIncomplete: the end is missing.
    """
    shown = shown or str(path)
    parsed = _codec.loads(read(path, shown=shown), path=shown, deferred=deferred)
    return _chain.verify(parsed, path=shown, nodeid=nodeid)


def read(path: Path, *, shown: str = "") -> bytes:
    """The bytes of a regular file that is not a link, at most a byte more than a cassette may have.

    Raises:
        CassetteMissing: there is no such file.
        CassetteUnreadable: it is something else, or cannot be read.
    """
    shown = shown or str(path)
    try:
        _require_regular(os.lstat(path), shown)
        # O_NONBLOCK: opening a FIFO must not wait for its other end. O_NOFOLLOW: it may have become a link by now.
        flags = os.O_RDONLY | sum(
            getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
        )
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb") as file:
            _require_regular(os.fstat(descriptor), shown)
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise CassetteMissing("there is no cassette", path=shown, remedy=RECORD) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise _not_regular(shown, "is a symbolic link") from None
        raise _unreadable(path, error, shown=shown) from None


def save(path: Path, data: bytes) -> None:
    """Replace a cassette atomically and durably, making its directories; also clear what killed processes left.

    Raises:
        RecordingError: it cannot be written; whatever was there before is unchanged.
    """
    with _saving, _saying_that_the_old_one_stands(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_strays(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.spanchain-tmp")
        try:
            _write(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                temporary.unlink()
            raise
    _sync_directory(path.parent)


def _require_regular(status: os.stat_result, shown: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _not_regular(shown, "is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(shown, "is not a regular file")


def _folder(part: str) -> str:
    name = _UNSAFE.sub("-", part)[:SLUG].strip("-") or "_"
    return f"{name}_" if _DEVICE.fullmatch(name) else name


def _write(temporary: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    # A file of this name is of an earlier process with our pid, as saving threads wait for each other.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, flags, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _clear_strays(directory: Path) -> None:
    for entry in os.scandir(directory):
        found = _TEMPORARY.fullmatch(entry.name)
        if found and not _alive(int(found.group(1)), entry):
            with suppress(OSError):  # another process clears, too, or it is not ours to clear: it is only clutter
                os.unlink(entry.path)


def _alive(pid: int, entry: os.DirEntry[str]) -> bool:
    if os.name == "nt":  # signal 0 is not a probe there: it would interrupt the process
        with suppress(FileNotFoundError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime < _STALE_SECONDS
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_directory(directory: Path) -> None:
    # The new cassette is in place already; a file system that cannot sync a directory (or Windows, which cannot open
    # one) only loses the promise that it outlives a power cut.
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _saying_that_the_old_one_stands(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        old = "the old cassette is intact" if os.path.lexists(path) else "nothing was written"
        raise RecordingError(f"{path}: cannot be written: {_words(error)}; {old}") from None


def _words(error: OSError | ValueError) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)


def _unreadable(path: Path, error: OSError | ValueError, *, shown: str = "") -> CassetteUnreadable:
    return CassetteUnreadable(f"cannot be read: {_words(error)}", path=shown or str(path), remedy=CHECK_ACCESS)


def _not_regular(shown: str, reason: str) -> CassetteUnreadable:
    return CassetteUnreadable(reason, path=shown, remedy=REPLACE)
