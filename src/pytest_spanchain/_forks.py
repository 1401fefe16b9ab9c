"""Locks in a process that may be copied while another thread holds them: the copy has the lock, and not the thread."""

from __future__ import annotations

import os
from typing import TypeVar

LockT = TypeVar("LockT")


def renewed(lock: LockT) -> LockT:
    """The same lock, which is free in each copy of this process (``os.fork``), whoever held it here.

    Args:
        lock: of ``threading``; it lives as long as the process.
    """
    reinit = getattr(lock, "_at_fork_reinit", None)  # as the standard library's own locks are renewed
    if reinit is not None and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reinit)
    return lock
