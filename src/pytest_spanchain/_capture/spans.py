"""A span while the run lasts, and what of a foreign one is worth keeping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import _strands
from .._hosts import is_loopback
from .._model import Exchange, Span, SpanTree

HIDDEN_SCOPES = frozenset({"pytest-opentelemetry", "pytest_opentelemetry", "pytest-otel"})
"""Scopes of plugins that trace the tests themselves; their spans are spliced out of the tree."""

VOLATILE_ATTRIBUTES = frozenset(
    {
        "thread.id",
        "thread.name",
        "code.filepath",
        "code.file.path",
        "code.lineno",
        "code.line.number",
        "process.pid",
        "exception.stacktrace",
        "network.local.port",
        "network.peer.port",
        "client.port",
        "logfire.span_type",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
        "gen_ai.server.request.duration",
        "gen_ai.event.start_time",  # strands, and the next three
        "gen_ai.event.end_time",
        "event_loop.cycle_id",
        "event_loop.parent_cycle_id",
        "gcp.vertex.agent.associated_event_ids",  # google-adk, and the next two
        "gcp.vertex.agent.event_id",
        "gcp.vertex.agent.invocation_id",
    }
)
"""Attributes that differ between machines and runs by nature; they are not recorded."""

_AS_THEY_ARE = frozenset({int, bool})
_HOST_AND_PORT = (("server.address", "server.port"), ("net.peer.name", "net.peer.port"))


@dataclass(eq=False, slots=True)
class OpenSpan:
    """A span while the run lasts.

    ``foreign`` is what a span of another tracer was started with, until it ends; ``graft`` is the golden span whose
    recorded children stand for ours; ``seam`` says that a framework made the call, so that the function of the same
    name which it runs is no call of its own; ``lasting``, that what it started goes on after its end: a connection's
    tasks are inside of it for as long as they live.
    """

    span_id: int
    parent_id: int | None
    name: str
    span_kind: str
    scope: str
    start_ns: int
    strand: _strands.Strand
    place: _strands.Place
    attributes: dict[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    status: str = "unset"
    status_message: str = ""
    end_ns: int | None = None
    exchange: Exchange | None = None
    graft: tuple[SpanTree, Span] | None = None
    hidden: bool = False
    seam: bool = False
    lasting: bool = False
    foreign: Mapping[str, Any] | None = None


def attributes_of(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """A foreign span's attributes, without those that differ by nature."""
    found = copied(attributes)
    for host, port in _HOST_AND_PORT:
        if host in found and is_loopback(str(found[host])):
            found.pop(port, None)  # given anew in every run
    return {
        key: value if type(value) in _AS_THEY_ARE else recordable(value)
        for key, value in found.items()
        if key not in VOLATILE_ATTRIBUTES
    }


def copied(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes of now; the SDK's own mappings are six times faster to copy as a whole than item by item."""
    if not attributes:
        return {}
    return dict(attributes.copy() if hasattr(attributes, "copy") else attributes)


def recordable(value: Any) -> Any:
    """An attribute's value in a form that a cassette can hold: telemetry is not worth losing a recording for."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return [recordable(item) for item in value] if isinstance(value, (tuple, list)) else value
