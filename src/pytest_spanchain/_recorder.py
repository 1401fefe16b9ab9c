"""The recorder: turns a finished run into a cassette and puts it in place.

The last gate before the disk: whatever still looks like a credential stops the recording here.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from . import _chain, _codec, _ledger, _store
from ._genai.attributes import TOOL_NAME
from ._model import Header, SpanTree
from ._redact import Redactor
from ._volatile import Context
from .errors import CassetteError, RecordingError

_PACKAGES = {
    **{name: name for name in ("openai", "anthropic", "mistralai", "cohere", "ollama", "litellm", "boto3")},
    **{name: name for name in ("httpx", "httpx2", "aiohttp", "requests", "urllib3", "httplib2", "mcp", "fastmcp")},
    **{name: name for name in ("langgraph", "smolagents", "crewai")},
    "agents": "openai-agents",
    "claude_agent_sdk": "claude-agent-sdk",
    "google.adk": "google-adk",
    "google.genai": "google-genai",
    "grpc": "grpcio",
    "langchain_core": "langchain-core",
    "llama_index.core": "llama-index-core",
    "opentelemetry": "opentelemetry-api",
    "pydantic_ai": "pydantic-ai-slim",
    "strands": "strands-agents",
}
"""Packages whose version belongs to the evidence, by the module that tells that they are in use."""

_version = functools.lru_cache(metadata.version)  # it reads a file


@dataclass(frozen=True)
class Recording:
    """A finished run, as it will be written.

    Args:
        nodeid: node id of the test, or a name.
        eval_id: groups runs of one evaluation.
        mode: record mode of the run.
        scopes: foreign instrumentation scopes that were active.
        context: what the process knows of itself.
        supersedes: head of the cassette that this one replaces.
        tree: the observed spans, redacted.
        outcome: ``passed`` or ``failed``.
        in_flight: calls that had begun but not ended.
        runs: tells of a tool whether its body is to run in replay, too: what it gives is then made anew.
    """

    nodeid: str
    eval_id: str
    mode: str
    scopes: frozenset[str]
    context: Context
    supersedes: str | None
    tree: SpanTree
    outcome: str
    in_flight: int
    runs: Callable[[str], bool] = lambda tool: False


def save(path: Path, recording: Recording, *, redactor: Redactor) -> None:
    """Put a recording in place, atomically.

    Raises:
        SecretFound: something that looks like a credential would be written.
        Unrecordable: a value has no plain form.
        RecordingError: the cassette would not be read back as what was recorded, or the disk refuses it; an old
            cassette is intact.
    """
    document = _chain.seal(
        _header(recording, redactor),
        recording.tree,
        trace_id=hashlib.sha256(recording.nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:32],
        outcome=recording.outcome,
        in_flight=recording.in_flight,
    )
    # Written out: a credential may be spread over the events of a stream.
    redactor.check(_ledger.written_out(document), where=recording.nodeid)
    data = _codec.dumps(document)
    _read_back(data, document)
    _store.save(path, data)


def _header(recording: Recording, redactor: Redactor) -> Header:
    return Header(
        nodeid=recording.nodeid,
        eval_id=recording.eval_id,
        recorded_at=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        recorder={
            "plugin": _version("pytest-spanchain"),
            "python": ".".join(platform.python_version_tuple()[:2]),
            "packages": _packages(),
            "scopes": sorted(recording.scopes),
            "context": recording.context.within(_told(recording)).to_plain(),
        },
        redaction=redactor.rules,
        provenance={"source": "live", "mode": recording.mode},
        supersedes=recording.supersedes,
    )


def _told(recording: Recording) -> Iterator[tuple[Any, Any]]:
    """What a context may have supplied, all that is compared with another run's, and what came back."""
    for span in recording.tree:
        request, response = (span.exchange.request, span.exchange.response) if span.exchange else (None, None)
        made = response if recording.runs(str(span.attributes.get(TOOL_NAME, ""))) else None
        yield [span.name, span.attributes, span.status_message, span.events, request, made], response


def _read_back(data: bytes, document: Mapping[str, Any]) -> None:
    """Find out now, while the run can still be repeated, and not when the cassette is needed."""
    try:
        parsed = _codec.loads(data)
        verdicts = _chain.judge(parsed)
        problem = verdicts.integrity or verdicts.completeness
    except CassetteError as error:
        problem = error
    if problem is not None:
        # Not the whole message: its remedy is for a file that was good once.
        place = "".join(f"{part}: " for part in (_entry(problem, document), problem.field) if part)
        raise RecordingError(f"this recording could not be replayed: {place}{problem.reason}")
    if parsed.document != document:
        raise RecordingError("this recording could not be replayed: the file does not say what was recorded")


def _entry(problem: CassetteError, document: Mapping[str, Any]) -> str:
    if problem.entry is None:
        return ""
    name = document["entries"][problem.entry]["payload"].get("name")
    return f"entry {problem.entry}" + (f" ({name!a})" if name else "")


def _packages() -> dict[str, str]:
    versions = {}
    for module, dist in _PACKAGES.items():
        if module in sys.modules:
            # A module of the user's own may bear the name: then there is no such distribution.
            with suppress(metadata.PackageNotFoundError):
                versions[dist] = _version(dist)
    return versions
