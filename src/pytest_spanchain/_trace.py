"""What users hold in their hands: the golden and the live trace, and the cassette of the running test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ._compare import compare
from ._model import Deviation, Span, SpanTree
from ._run import Run

if TYPE_CHECKING:
    from .gateway import Gateway

F = TypeVar("F", bound=Callable[..., Any])


class Trace:
    """A span tree that equals another one if the comparator finds no failing deviation.

    Args:
        tree: the spans.
        label: ``golden`` or ``live``.
        ignored_attributes: attribute names left out of the comparison.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tree: SpanTree, *, label: str, ignored_attributes: frozenset[str] = frozenset()) -> None:
        self.tree = tree
        self.label = label
        self.ignored_attributes = ignored_attributes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return not any(deviation.failing for deviation in self.deviations_from(other))

    def __iter__(self) -> Iterator[Span]:
        return iter(self.tree)

    def __len__(self) -> int:
        return len(self.tree)

    def __repr__(self) -> str:
        return f"<{self.label} trace of {len(self.tree)} spans>"

    def named(self, name: str) -> tuple[Span, ...]:
        """Spans of this name, in order."""
        return tuple(span for span in self.tree if span.name == name)

    def deviations_from(self, other: Trace) -> tuple[Deviation, ...]:
        """What the comparator says of this trace and another; the golden one is taken for the recorded side."""
        golden, live = (other, self) if other.label == "golden" else (self, other)
        return compare(golden.tree, live.tree, ignored_attributes=self.ignored_attributes | other.ignored_attributes)


class CassetteHandle:
    """The ``cassette`` fixture (also ``spanchain``), and what ``use_cassette`` yields."""

    def __init__(self, run: Run, *, tool: Callable[[Any], Any]) -> None:
        self._run = run
        self._tool = tool

    @property
    def path(self) -> Path:
        """The cassette's file."""
        return self._run.path

    @property
    def mode(self) -> str:
        """The record mode of this run."""
        return self._run.mode.value

    @property
    def recording(self) -> bool:
        """Whether model and tools really run."""
        return self._run.records

    @property
    def golden(self) -> Trace:
        """The recorded trace; while recording, what has been recorded up to now."""
        tree = self._run.golden
        return self._trace(self._run.live if tree is None else tree, "golden")

    @property
    def live(self) -> Trace:
        """The trace observed up to now."""
        return self._trace(self._run.live, "live")

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Differences between golden and live, up to now."""
        return self._run.deviations

    def tool(self, fn: F) -> F:
        """Record a function: the returned one is to be handed to the agent."""
        wrapped: F = self._tool(fn)
        return wrapped

    def gateway(self, *, upstreams: Mapping[str, str] | None = None) -> Gateway:
        """A loopback endpoint that records and replays what a child process in any language asks of models.

        Use it as a context manager, around the child's whole life, and give the child ``gateway.env``.

        Args:
            upstreams: base URLs by name (``openai``, ``anthropic``, ``gemini``, or any other); by default those that
                the environment names, else the public ones.

        Raises:
            UsageError: an upstream's name or URL cannot be one.
        """
        from .gateway import Gateway

        return Gateway(self._run, upstreams=upstreams)

    def _trace(self, tree: SpanTree, label: str) -> Trace:
        return Trace(tree, label=label, ignored_attributes=frozenset(self._run.settings.ignore_attributes))
