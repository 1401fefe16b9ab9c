"""OpenTelemetry's side: every span that any SDK tracer provider of the process starts reaches the run that owns it.

No provider is replaced. Every provider of the process gets a processor, global or not, made before or after the first
run. Where there is no global one, a plain SDK provider stands in, placed so that the application can still set its own.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from ._capture import Capture
from ._forks import renewed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider

CaptureOf = Callable[[], "Capture | None"]

_lock = renewed(threading.Lock())
_processor: Any = None
_stand_in: Any = None


def listen(capture_of: CaptureOf) -> None:
    """Make sure that every SDK provider of the process reports its spans.

    Args:
        capture_of: names the capture of the run that owns the calling context, ``None`` if there is no run. The first
            one given stays; there is one per process.
    """
    global _processor, _stand_in
    is_known = "opentelemetry.sdk.trace" in sys.modules
    from opentelemetry import trace
    from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
    from opentelemetry.sdk.trace import Tracer, TracerProvider

    with _lock:
        if _processor is None:
            _processor = _make_processor(capture_of)
            _watch(TracerProvider)
            for each in _made_before(TracerProvider, Tracer) if is_known else ():
                _add(each)
        if OTEL_PYTHON_TRACER_PROVIDER in os.environ:
            trace.get_tracer_provider()  # it makes the one that the environment names, at the first time of asking
        if trace._TRACER_PROVIDER is None:
            if _stand_in is None:
                _stand_in = TracerProvider(shutdown_on_exit=False)
            # Not set_tracer_provider: that works once a process, and the application may still want its turn.
            trace._TRACER_PROVIDER = _stand_in


def _made_before(*classes: type[Any]) -> list[Any]:
    """The instances that there are. Nobody keeps a list of them, but an object refers to its class."""
    kinds = list(classes)
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return [each for each in gc.get_referrers(*kinds) if isinstance(each, classes)]


def _watch(provider_class: type[TracerProvider]) -> None:
    original = provider_class.__init__

    @functools.wraps(original)
    def init(self: TracerProvider, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _add(self)

    provider_class.__init__ = init  # type: ignore[method-assign]


def _add(each: Any) -> None:
    """Make a provider report; or, as a provider may be gone before its tracers, a tracer."""
    # Both know one object for all processors, but it is public on the tracer only; without it we hear some spans twice.
    holder = getattr(each, "span_processor", None) or getattr(each, "_active_span_processor", each)
    # A mark on the holder itself: an id could be reused by a later one, which would then stay unseen.
    if not getattr(holder, "_spanchain_listens", False):
        holder._spanchain_listens = True
        holder.add_span_processor(_processor)


def _make_processor(capture_of: CaptureOf) -> Any:
    from opentelemetry.sdk.trace import SpanProcessor

    class Processor(SpanProcessor):
        """Hands spans to the run that owns the context in which they start."""

        def __init__(self) -> None:
            # Weak: this lives as long as the process does, and a capture is the whole trace of its run.
            self._captures: list[ref[Capture]] = []
            self._lock = threading.Lock()

        def on_start(self, span: Span, parent_context: Any = None) -> None:
            capture = capture_of()
            if capture is not None:
                if not self._captures or self._captures[0]() is not capture:
                    with self._lock:
                        others = [one for one in self._captures if one() is not None and one() is not capture]
                        self._captures = [ref(capture), *others]
                capture.foreign_started(span, context=parent_context)

        def on_end(self, span: ReadableSpan) -> None:
            for one in self._captures:
                capture = one()
                if capture is not None and capture.foreign_ended(span):
                    return

    return Processor()
