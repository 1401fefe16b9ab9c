"""The recorder: turns a finished live tree into the bytes of a cassette and puts them in place.

The last gate before the disk: whatever still looks like a credential stops the recording here.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from . import _chain, _codec, _store
from ._model import Header, SpanTree
from ._redact import Redactor

_PACKAGES = {
    "openai": "openai",
    "anthropic": "anthropic",
    "httpx": "httpx",
    "httpx2": "httpx2",
    "opentelemetry": "opentelemetry-api",
    "mcp": "mcp",
    "pydantic_ai": "pydantic-ai-slim",
    "langchain_core": "langchain-core",
    "langgraph": "langgraph",
    "agents": "openai-agents",
}
"""Packages whose version belongs to the evidence, by the module that tells that they are in use."""


def header(
    *,
    nodeid: str,
    eval_id: str,
    mode: str,
    scopes: frozenset[str],
    redaction: Mapping[str, Any],
    supersedes: str | None,
) -> Header:
    """The header of a recording made now, in this process."""
    return Header(
        nodeid=nodeid,
        eval_id=eval_id,
        recorded_at=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        recorder={
            "plugin": metadata.version("pytest-spanchain"),
            "python": ".".join(platform.python_version_tuple()[:2]),
            "packages": _packages(),
            "scopes": sorted(scopes),
        },
        redaction=redaction,
        provenance={"source": "live", "mode": mode},
        supersedes=supersedes,
    )


def encode(header: Header, tree: SpanTree, *, trace_id: str, outcome: str, in_flight: int, redactor: Redactor) -> bytes:
    """The bytes of the cassette.

    Raises:
        SecretFound: something that looks like a credential would be written.
        Unrecordable: a value has no plain form.
    """
    document = _chain.seal(header, tree, trace_id=trace_id, outcome=outcome, in_flight=in_flight)
    redactor.check(document, where=header.nodeid)
    return _codec.dumps(document)


def write(path: Path, data: bytes) -> None:
    """Put the cassette in place, atomically.

    Raises:
        RecordingError: the disk refuses; an old cassette is intact.
    """
    _store.save(path, data)


def _packages() -> dict[str, str]:
    versions = {}
    for module, dist in _PACKAGES.items():
        if module in sys.modules:
            # A module of the user's own may bear the name: then there is no such distribution.
            with suppress(metadata.PackageNotFoundError):
                versions[dist] = metadata.version(dist)
    return versions
