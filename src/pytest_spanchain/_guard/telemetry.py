"""Which destinations are telemetry back ends, and the like: no run's business."""

from __future__ import annotations

import re
import sys

from .._hosts import is_address, is_loopback

TELEMETRY_HOSTS = (
    "api.smith.langchain.com",
    "eu.api.smith.langchain.com",
    "cloud.langfuse.com",
    "us.cloud.langfuse.com",
    "api.traceloop.com",
    "app.posthog.com",
    "us.i.posthog.com",
    "eu.i.posthog.com",
    "logfire-api.pydantic.dev",
    "logfire-us.pydantic.dev",
    "logfire-eu.pydantic.dev",
    "telemetry.crewai.com",
    "otlp.arize.com",
    # Not telemetry, and as little the agent's own: where clouds' SDKs look for credentials and regions.
    "169.254.169.254",
    "169.254.170.2",
    "metadata.google.internal",
)
"""Telemetry back ends, and the like: kept out of cassettes while recording, refused without a verdict in replay."""

_TELEMETRY_PORTS = frozenset({4317, 4318})

# Paths of OTLP over HTTP, and its gRPC services.
_EXPORT = re.compile(r"/v1/(?:traces|metrics|logs)/?\Z|(?:\A|/)opentelemetry\.proto\.collector\.")
_exported_to: set[tuple[str, int | None]] = set()


def is_telemetry(host: str, port: int | None, *, path: str = "") -> bool:
    """Whether a destination is a telemetry back end: a known host, an OTLP collector on this machine, or what an
    exporter of OpenTelemetry's talks to.

    Args:
        host: name or address.
        port: its port, if it is given.
        path: of the request, or gRPC's method, where it is known.
    """
    if host.lower() in TELEMETRY_HOSTS or (port in _TELEMETRY_PORTS and is_loopback(host)):
        return True
    return _exports(host.lower(), port, path)


def _exports(host: str, port: int | None, path: str) -> bool:
    """Whether an exporter is at work.

    Exporters suppress instrumentation, but so do users around calls that are the agent's own: what is asked for must be
    OTLP's as well. Below a client there is no path, and a name may have become an address: there it is told by where
    the client was seen to go.
    """
    context = sys.modules.get("opentelemetry.context")
    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if context is None or key is None or not context.get_value(key):
        return False
    if _EXPORT.search(path):
        _exported_to.add((host, port))
        return True
    return not path and any(
        (host == name or is_address(host)) and port in ((80, 443, None) if known is None else (known,))
        for name, known in _exported_to
    )
