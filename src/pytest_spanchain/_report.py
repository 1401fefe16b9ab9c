"""A verdict in words: what every door prints about a run."""

from __future__ import annotations

from copy import copy
from pathlib import Path

from . import _render
from ._model import SpanTree
from ._render.terminal import Line
from ._trace import Trace
from ._verdict import Verdict
from .errors import CassetteError, CassetteMissing

LOOK = "spanchain show FILE shows it"


def report(
    verdict: Verdict,
    *,
    accept: str,
    closer: str,
    root: Path | None = None,
    verbosity: int = 0,
    color: bool = False,
) -> list[str]:
    """Lines that say why a run fails, or what a re-recording changed.

    Args:
        verdict: the verdict.
        accept: command that makes the live trace the golden one; empty where it cannot.
        closer: command that shows everything.
        root: directory that the cassette's path is shown relative to.
        verbosity: pytest's ``-v`` count; 2 shows everything.
        color: whether the terminal shows colour.
    """
    reasons = [f"error: {error}" for error in verdict.errors]
    reasons += [f"refused live call: {attempt.target} at {attempt.site}" for attempt in verdict.attempts]
    lead, *reasons = reasons if reasons and not verdict.drifted else [_recorded(verdict), *reasons]
    lead, _, rest = lead.partition("\n")
    extra = [*([rest] if rest else []), *reasons, *(f"note: {note}" for note in verdict.notes)]
    if verdict.aside is not None:
        extra.append(f"note: this recording was not accepted; it is kept at {_shown(verdict.aside, root)}; {LOOK}")
    differs = bool(verdict.deviations) and not verdict.recorded
    commands = [("accept", accept)] if differs and accept else []
    if verdict.attempts:
        hosts = list(dict.fromkeys(attempt.host for attempt in verdict.attempts))
        commands.append(("record", "make the function that does it one of the tools, in the marker or the settings"))
        commands.append(("let out", f"allow_hosts={hosts}, in the marker or the settings"))
    lines = _render.report(
        verdict.deviations,
        golden=verdict.golden or SpanTree(),
        live=verdict.live,
        cassette=_shown(verdict.path, root),
        commands=commands,
        closer=closer if differs and verbosity < 2 else "",
        ignored_attributes=verdict.ignored_attributes,
        extra=extra,
        opening="spanchain: recorded again" if verdict.recorded else "spanchain",
        verbosity=verbosity,
        color=color,
    )
    if lead:  # a summary of many tests shows the first line only: it has to say why
        lines[0] = Line(f"spanchain: {lead}", "head", whole=True).render(color=color, width=0)
    return lines


def refused(refusal: CassetteError, *, root: Path) -> list[str]:
    """Lines that say why a run could not begin, with the cassette's path relative to ``root``."""
    shown = copy(refusal)
    shown.path = _shown(Path(refusal.path), root)
    if isinstance(refusal, CassetteMissing):
        # The reason first: a summary of many tests shows the beginning, and there is no line of a file to go to.
        shown.path, shown.reason = "", f"{refusal.reason}: {shown.path}"
    return f"spanchain: {shown}".splitlines()


def _recorded(verdict: Verdict) -> str:
    if verdict.recorded and not verdict.deviations:
        again = " again, with no deviation from the old golden trace" if verdict.golden else ""
        return f"recorded {verdict.nodeid}{again}"
    return ""


def explain(left: Trace, right: Trace, *, verbosity: int = 0) -> list[str]:
    """Lines for a failed ``assert live == golden``."""
    golden, live = (left, right) if left.label == "golden" else (right, left)
    return _render.report(
        left.deviations_from(right),
        golden=golden.tree,
        live=live.tree,
        cassette="",
        commands=[],
        ignored_attributes=left.ignored_attributes | right.ignored_attributes,
        verbosity=verbosity,
    )


def _shown(path: Path, root: Path | None) -> str:
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.as_posix()
