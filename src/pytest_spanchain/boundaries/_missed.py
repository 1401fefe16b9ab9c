"""Tools that the model has asked for and nobody was seen to run: what they do happens again in replay, and is told."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping

from .._genai import ToolCall
from .._genai.attributes import TOOL_CALL_ID, TOOL_NAME
from .._model import Span
from .._run import Run
from .._tool_calls import is_asked
from ._sightings import module_functions


def missed(
    run: Run,
    *,
    listed: frozenset[str],
    aliases: Mapping[str, set[str]],
    asked: Mapping[str, int],
    candidates: Callable[[str], list[str]],
) -> Iterator[tuple[str, str]]:
    """Tools that were asked for and not met, each with what is to be said of it.

    Args:
        run: the run, at its end.
        listed: names of the tools that the user has listed.
        aliases: the names under which listed and decorated functions are recorded, by the name that the model knows.
        asked: how often the model has asked, by tool.
        candidates: gives the functions that could be a tool, as ``module:function``.
    """
    undone: dict[str, list[ToolCall]] = {}
    for call in run.tool_calls.undone:
        undone.setdefault(call.name, []).append(call)
    if not undone:
        return
    spans = [span for span in run.capture.tree(run.nodeid) if TOOL_NAME in span.attributes]
    # What a replay leaves out of what was recorded is a deviation, and nothing that anybody missed.
    crossed = {str(span.attributes[TOOL_NAME]) for span in spans} | run.known_tools()
    crossed |= {name.rpartition(".")[2] for name in crossed}
    left_out = run.known_tools(unplayed=True)
    # A function that is listed may have another name than the model knows it by: then the arguments tell.
    own = [span.exchange.request for span in spans if span.exchange and span.attributes[TOOL_NAME] in listed]
    for name, calls in undone.items():
        if run.settings.runs(name) or (aliases.get(name, set()) - {name}) & crossed:
            continue
        if name in crossed:
            count = len(calls) - sum(_may_be(span, name) for span in spans)
            if count > 0 and not any(name in (one, one.rpartition(".")[2]) for one in left_out):
                yield name, _partly(name, count, asked.get(name, 0))
            continue
        count = sum(not any(is_asked(call.arguments, one["arguments"]) for one in own) for call in calls)
        if count:
            yield name, _not_found(name, count, candidates(name))


def _may_be(span: Span, name: str) -> bool:
    """Whether a call, made otherwise than it was asked for, may be one that nobody is known to have made."""
    known = str(span.attributes[TOOL_NAME])
    return name in (known, known.rpartition(".")[2]) and TOOL_CALL_ID not in span.attributes


def _partly(name: str, count: int, asked: int) -> str:
    return (
        f"the model asked for {name} {_times(asked)}, and {count} of these calls {'was' if count == 1 else 'were'} not"
        f" met: if anything was run for them, it was not recorded and runs again in replay. Name it:"
        f" spanchain_tools = module:function"
    )


def _not_found(name: str, count: int, candidates: list[str]) -> str:
    near = sorted({one for one in candidates if "<" not in one})[:3] or _near(name)
    hint = f" (near: {', '.join(near)})" if near else ""
    return (
        f"the model asked for {name} {_times(count)}, but no call of a function of that name was met: what it does was"
        f" not recorded and runs again in replay. Name it: spanchain_tools = module:function{hint}"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _near(name: str) -> list[str]:
    known: dict[str, list[str]] = {}
    for label in module_functions():
        known.setdefault(label.rpartition(":")[2].lower(), []).append(label)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    return [label for one in close for label in known[one]][:3]
