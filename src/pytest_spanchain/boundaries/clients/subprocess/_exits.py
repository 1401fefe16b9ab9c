"""How a child ended: what the span says of it, what the kernel knows before anybody has asked, and who waits for it."""

from __future__ import annotations

import os
import threading

from ...._run import Call


class Exit:
    """The exit of a served child, which comes once; safe to use from any thread."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._lock = threading.Lock()
        self._files: list[int] = []
        self.code: int | None = None
        """Its exit code, once it has come."""

    @property
    def came(self) -> bool:
        """Whether the child is over."""
        return self._came.is_set()

    def wait(self, timeout: float | None) -> bool:
        """Wait for it, so many seconds at most. Whether it has come."""
        return self._came.wait(timeout)

    def file(self) -> int:
        """A file descriptor, the caller's to close, that is readable once it has come."""
        theirs, ours = os.pipe()
        with self._lock:
            self._files.append(ours)
        if self.came:
            self._tell()
        return theirs

    def come(self, code: int | None) -> None:
        """The child is over."""
        self.code = code
        self._came.set()
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            while self._files:
                number = self._files.pop()
                os.write(number, b"x")
                os.close(number)


def tell(call: Call, code: int | None) -> None:
    """Say on the span how the child ended."""
    span = call.span
    if code is not None:
        span.attributes = {**span.attributes, "process.exit.code": code}
    if code:
        span.attributes["error.type"] = str(code)
        span.status = "error"


def code_of(pid: int) -> int | None:
    """The exit code of a child that nobody has waited for yet, left where it is for whoever does."""
    if not hasattr(os, "waitid"):
        return None
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
