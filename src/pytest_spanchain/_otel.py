"""OpenTelemetry's side: every span that any SDK tracer provider of the process starts reaches the run that owns it.

No provider is replaced. The global one gets a processor, and so does every provider made later. Where there is none, a
plain SDK provider stands in for the time of the run, placed so that the application can still set its own.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._capture import Capture

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider

CaptureOf = Callable[[], "Capture | None"]

_lock = threading.Lock()
_processor: Any = None
_stand_in: Any = None


def listen(capture_of: CaptureOf) -> None:
    """Make sure that every SDK provider of the process reports its spans.

    Args:
        capture_of: names the capture of the run that owns the calling context, ``None`` if there is no run. The first
            one given stays; there is one per process.
    """
    global _processor, _stand_in
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    with _lock:
        if _processor is None:
            _processor = _make_processor(capture_of)
            _watch(TracerProvider)
        provider = trace._TRACER_PROVIDER
        if provider is None:
            if _stand_in is None:
                _stand_in = TracerProvider(shutdown_on_exit=False)
            # Not set_tracer_provider: that works once a process, and the application may still want its turn.
            trace._TRACER_PROVIDER = _stand_in
        elif isinstance(provider, TracerProvider):
            _add(provider)


def _watch(provider_class: type[TracerProvider]) -> None:
    original = provider_class.__init__

    @functools.wraps(original)
    def init(self: TracerProvider, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _add(self)

    provider_class.__init__ = init  # type: ignore[method-assign]


def _add(provider: TracerProvider) -> None:
    # A mark on the provider itself: an id could be reused by a later provider, which would then stay unseen.
    if not getattr(provider, "_spanchain_listens", False):
        provider._spanchain_listens = True  # type: ignore[attr-defined]
        provider.add_span_processor(_processor)


def _make_processor(capture_of: CaptureOf) -> Any:
    from opentelemetry.sdk.trace import SpanProcessor

    class Processor(SpanProcessor):
        """Hands spans to the run that owns the context in which they start."""

        def __init__(self) -> None:
            self._owners: dict[int, Capture] = {}

        def on_start(self, span: Span, parent_context: Any = None) -> None:
            capture = capture_of()
            if capture is not None and span.context is not None:
                self._owners[span.context.span_id] = capture
                capture.foreign_started(span)

        def on_end(self, span: ReadableSpan) -> None:
            capture = self._owners.pop(span.context.span_id, None) if span.context else None
            if capture is not None:
                capture.foreign_ended(span)

    return Processor()
