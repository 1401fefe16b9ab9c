"""asyncio: a child's input is written by a transport of its own, which takes it whole and tells nobody what is lost."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from ...errors import BoundaryError
from .subprocess._input import CHILD


def install(module: ModuleType) -> None:
    """Let recorded and served children hear what ``asyncio.unix_events`` is given for them.

    Raises:
        BoundaryError: the library looks different.
    """
    transport = getattr(module, "_UnixWritePipeTransport", None)
    if transport is None or not hasattr(transport, "write"):
        raise BoundaryError("asyncio is not recognised, what it writes to processes would not be known")
    init, write = transport.__init__, transport.write

    @functools.wraps(init)
    def knows_child(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        # Now: a transport whose child has gone has forgotten whose it was.
        process = getattr(getattr(self, "_protocol", None), "proc", None)
        child = getattr(getattr(process, "_proc", None), CHILD, None)
        if child is not None:
            setattr(self, CHILD, child)

    @functools.wraps(write)
    def told(self: Any, data: Any) -> None:
        child = getattr(self, CHILD, None)
        if child is not None and isinstance(data, (bytes, bytearray, memoryview)):
            child.means(bytes(data))
        write(self, data)

    transport.__init__, transport.write = knows_child, told
