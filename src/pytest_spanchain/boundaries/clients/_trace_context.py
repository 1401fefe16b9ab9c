"""OpenTelemetry's context, carried from where something was asked to where what comes of it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def otel_context() -> Any:
    """OpenTelemetry's context here and now."""
    from opentelemetry import context

    return context.get_current()


@contextmanager
def attached(given: Any) -> Iterator[None]:
    """Be in one of OpenTelemetry's contexts."""
    from opentelemetry import context

    token = context.attach(given)
    try:
        yield
    finally:
        context.detach(token)
