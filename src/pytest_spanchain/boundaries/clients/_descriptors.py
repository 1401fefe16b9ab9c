"""Writing to a descriptor that is another's as well: none of its flags is changed."""

from __future__ import annotations

import os
import select


def written(number: int, data: bytes) -> bool:
    """Write all of it. Whether there was somebody to read it."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(number, view) :]
        except BlockingIOError:  # its owner made it so
            writable(number).poll()
        except OSError:
            return False
    return True


def writable(number: int) -> select.poll:
    """Tells when something can be written without waiting."""
    watch = select.poll()  # not select, which knows the first 1024 descriptors only
    watch.register(number, select.POLLOUT)
    return watch
