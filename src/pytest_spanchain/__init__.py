"""Golden-trace regression testing of AI agents.

Mark a test with ``@pytest.mark.cassette``, record it once with ``pytest --record-mode=once``, and replay it for ever.
Public names are loaded when they are first used, so that the plugin costs nothing where it is not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._model import MISSING, Deviation, DeviationKind, Exchange, FieldChange, Span, SpanTree
    from ._trace import CassetteHandle, Trace
    from ._use import use_cassette
    from ._values import register_type
    from ._verdict import Verdict
    from .boundaries.tools import tool
    from .errors import (
        BoundaryError,
        CassetteBroken,
        CassetteError,
        CassetteIncomplete,
        CassetteMissing,
        CassetteUnreadable,
        DeviationError,
        LiveCallError,
        MissError,
        OwnershipError,
        RecordingError,
        RunClosedError,
        SecretFound,
        SpanchainError,
        Unrecordable,
        UsageError,
    )

_HOMES = {
    "_model": ("MISSING", "Deviation", "DeviationKind", "Exchange", "FieldChange", "Span", "SpanTree"),
    "_trace": ("CassetteHandle", "Trace"),
    "_use": ("use_cassette",),
    "_values": ("register_type",),
    "_verdict": ("Verdict",),
    "boundaries.tools": ("tool",),
    "errors": (
        "BoundaryError",
        "CassetteBroken",
        "CassetteError",
        "CassetteIncomplete",
        "CassetteMissing",
        "CassetteUnreadable",
        "DeviationError",
        "LiveCallError",
        "MissError",
        "OwnershipError",
        "RecordingError",
        "RunClosedError",
        "SecretFound",
        "SpanchainError",
        "Unrecordable",
        "UsageError",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "MISSING",
    "BoundaryError",
    "CassetteBroken",
    "CassetteError",
    "CassetteHandle",
    "CassetteIncomplete",
    "CassetteMissing",
    "CassetteUnreadable",
    "Deviation",
    "DeviationError",
    "DeviationKind",
    "Exchange",
    "FieldChange",
    "LiveCallError",
    "MissError",
    "OwnershipError",
    "RecordingError",
    "RunClosedError",
    "SecretFound",
    "Span",
    "SpanTree",
    "SpanchainError",
    "Trace",
    "Unrecordable",
    "UsageError",
    "Verdict",
    "register_type",
    "tool",
    "use_cassette",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
