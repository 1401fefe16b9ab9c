"""trio: waits for a child through a file descriptor of it, which it asks the kernel for under a name of its own."""

from __future__ import annotations

import sys
from types import ModuleType

from .subprocess import _pids


def install(module: ModuleType) -> None:
    """Let ``trio._subprocess`` find served children where it looks for children."""
    number = getattr(module, "pidfd_open", None)
    if number is not None:
        module.pidfd_open = _pids.exit_file(number)  # type: ignore[attr-defined]
        return
    wait = module.wait_child_exiting

    async def wait_child_exiting(process: object) -> None:
        child = _pids.served(getattr(process, "pid", 0))
        if child is None:
            await wait(process)
            return
        while child.wait(0) is None:
            await sys.modules["trio"].sleep(0.001)

    module.wait_child_exiting = wait_child_exiting  # type: ignore[attr-defined]
