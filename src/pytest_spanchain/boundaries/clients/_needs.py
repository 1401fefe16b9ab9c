"""What a boundary uses of a library beyond its documented names has to be there before anything is patched."""

from __future__ import annotations

from typing import Any


def needs(owner: Any, *names: str) -> None:
    """Insist that a module or class has some names.

    Those that only instances have count where the class declares them: as slots, by an annotation, or in aiohttp's
    list of a session's attributes.

    Args:
        owner: the module or class.
        names: of its attributes.

    Raises:
        AttributeError: one is missing, and named.
    """
    declared = {
        name
        for kind in getattr(owner, "__mro__", ())
        for listed in ("__slots__", "__annotations__", "ATTRS")
        for name in getattr(kind, listed, ())
    }
    for name in names:
        if not hasattr(owner, name) and name not in declared:
            raise AttributeError(f"{owner.__name__} has no {name}")
