"""Which of the functions that were taken for a tool have answered the model, and what is said of the others.

A function is *surely* the tool if the program keeps it under the tool's name (``Fit.SURE``), if a call of it was what
the model had asked for, or if the model was sent what it gave. One that is only called like the tool is recorded like
it, because what is recorded cannot run again in replay.

Invariants:

* Of a function that is surely the tool, what cannot be recorded fails the run. So it does if nobody else has answered a
  model that was waiting when it was called.
* Of any other, its calls are then taken out of the recording, and that is said.
* Where two functions were taken for one tool, that is said, with the line that settles it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._capture import OpenSpan
from .._genai import ToolCall
from .._model import Span, SpanTree
from .._run import Call
from ..errors import Unrecordable

_TELLING = 8
"""So long must a text be that it counts if it is sent as a part of another."""
_NEAR = 4
"""So many requests before and after a call are looked at: the agents of a run may ask side by side."""
_MOST = 20
"""So many calls of a function are looked at: one that answers the model does so early."""


@dataclass(eq=False)
class Case:
    """One call of a function under the name of a tool. A ``Watcher``.

    Args:
        tool: name of the tool.
        label: ``module:function``.
        sure: whether it surely is the tool's: see ``_fit.Fit.SURE``.
        awaited: what the model had asked of that tool, and nobody had done yet.
    """

    tool: str
    label: str
    sure: bool
    awaited: tuple[ToolCall, ...]
    span: OpenSpan | None = None
    problems: list[Unrecordable] = field(default_factory=list)

    @property
    def answers(self) -> bool:
        """See ``Watcher``."""
        return self.sure

    def began(self, call: Call) -> None:
        """See ``Watcher``."""
        self.span = call.span

    def unrecordable(self, call: Call, error: Unrecordable) -> None:
        """See ``Watcher``."""
        if self.sure:
            call.fail(error)
        else:
            self.problems.append(error)


@dataclass(frozen=True)
class Finding:
    """What became of the functions that were taken for one tool.

    Args:
        tool: name of the tool.
        dropped: functions whose calls are no part of the recording.
        errors: what fails the run.
        notes: what the reader should know.
    """

    tool: str
    dropped: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(
    cases: Iterable[Case],
    *,
    asked: Mapping[str, int],
    unrecorded: Mapping[str, Iterable[str]],
    left: Mapping[str, Iterable[str]],
    tree: Callable[[], SpanTree],
) -> Iterator[Finding]:
    """Decide, for each tool that it matters for.

    Args:
        cases: the calls that were recorded or served.
        asked: how often the model has asked, by tool.
        unrecorded: functions that could be a tool and ran unrecorded while the model waited for it, by tool.
        left: functions that the recording which is replayed leaves out, by tool.
        tree: gives the run so far.
    """
    by_tool: dict[str, list[Case]] = {}
    for case in cases:
        if case.span is not None:
            by_tool.setdefault(case.tool, []).append(case)
    for tool in sorted({*by_tool, *left}):
        found = by_tool.get(tool, [])
        labels = list(dict.fromkeys(case.label for case in found))
        others = [label for label in dict.fromkeys(unrecorded.get(tool, ())) if label not in labels]
        gone = [label for label in dict.fromkeys(left.get(tool, ())) if label not in labels]
        if len(labels) + len(others) + len(gone) > 1 or gone or any(case.problems for case in found):
            yield _judged(tool, found, asked=asked.get(tool, 0), others=others, gone=gone, tree=tree())


def _judged(tool: str, cases: list[Case], *, asked: int, others: list[str], gone: list[str], tree: SpanTree) -> Finding:
    answered = list(dict.fromkeys(case.label for case in cases if case.sure))
    answered += [one for one in dict.fromkeys(case.label for case in _sent(cases, tree)) if one not in answered]
    dropped: list[str] = list(gone)
    errors: list[str] = []
    for case in cases:
        if case.problems and case.label not in dropped:
            awaited = any(one.awaited for one in cases if one.label == case.label)
            if case.label in answered or (awaited and not answered):
                errors += [f"{problem} (if {case.label} is not this tool: {_line(None)})" for problem in case.problems]
            else:
                dropped.append(case.label)
    notes = [_left_out(tool, label, answered) for label in dropped]
    kept = [label for label in dict.fromkeys(case.label for case in cases) if label not in dropped]
    doubtful = [label for label in kept if label not in answered]
    calls = sum(case.label in kept for case in cases)
    if len(kept) > 1 and (doubtful or calls > asked):
        notes.append(_ambiguous(tool, kept, answered or kept))
    elif doubtful and others and not answered:
        notes.append(_undecided(tool, doubtful, others))
    return Finding(tool, tuple(dropped), tuple(dict.fromkeys(errors)), tuple(notes))


def _sent(cases: list[Case], tree: SpanTree) -> Iterator[Case]:
    """The calls whose result the model was sent afterwards, and not before."""
    requests = sorted((span for span in tree if span.kind == "model"), key=lambda span: span.start_ns)
    starts = [span.start_ns for span in requests]
    tried: dict[str, int] = {}
    for case in cases:
        span = case.span
        if case.sure or case.problems or span is None or span.end_ns is None or span.exchange is None:
            continue
        tried[case.label] = tried.get(case.label, 0) + 1
        if tried[case.label] > _MOST:
            continue
        given, at = _given(span.exchange.response or {}), bisect_left(starts, span.end_ns)
        before = {text for one in requests[max(0, at - _NEAR) : at] for text in _texts(one)}
        after = {text for one in requests[at : at + _NEAR] for text in _texts(one)}
        if any(_says(text, given) for text in after - before):
            yield case


def _given(response: Mapping[str, Any]) -> Any:
    items = response.get("items")
    if items and all(isinstance(item, str) for item in items):
        return "".join(items)
    return response.get("result")


def _says(text: str, given: Any) -> bool:
    if given is None or given == "":
        return False
    if isinstance(given, str):
        return text == given or (len(given) >= _TELLING and given in text) or text == json.dumps(given)
    if text == str(given):
        return True
    try:
        return bool(json.loads(text) == given)
    except ValueError:
        return False


def _texts(span: Span) -> Iterator[str]:
    pending: list[Any] = [span.exchange.request.get("body") if span.exchange else None]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)


def _line(label: str | None) -> str:
    return f"spanchain_tools = {label or 'module:function'}"


def _left_out(tool: str, label: str, answered: list[str]) -> str:
    who = f"{answered[0]} is it: {_line(answered[0])}" if answered else f"If it is the tool: {_line(label)}"
    return (
        f"{label} is called like the tool {tool}, but it is not known to have answered the model, and what it gives"
        f" cannot be recorded: it runs again in replay. {who}"
    )


def _ambiguous(tool: str, kept: list[str], answered: list[str]) -> str:
    return (
        f"{len(kept)} functions were taken for the tool {tool}, and the calls of all of them are recorded:"
        f" {', '.join(kept)}. Say which one is: {_line(answered[0])}"
    )


def _undecided(tool: str, kept: list[str], others: list[str]) -> str:
    return (
        f"{', '.join(kept)} was taken for the tool {tool}, but {', '.join(others)}, which runs again in replay, was"
        f" called meanwhile and could be it. Say which one is: {_line(kept[0])}"
    )
