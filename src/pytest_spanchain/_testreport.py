"""How a verdict gets into pytest's reports."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from . import _options
from ._items import command
from .errors import CassetteError, DeviationError, LiveCallError, MissError, RunClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from ._run import Run
    from ._verdict import Verdict

_KEY_NAME = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:API_)?(?:KEY|TOKEN)(?:_ID)?\b")
_KEY_WORDS = re.compile(r"\bapi[ _-]?key\b|\bauth[ _-]?token\b|\bcredentials\b", re.IGNORECASE)
_KEYS = "such as ANTHROPIC_API_KEY, AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY"


def lines(item: pytest.Item, run: Run, *, color: bool = False, acceptable: bool = True) -> list[str]:
    """Why a run fails, or what a re-recording changed.

    Args:
        item: the test.
        run: its run.
        color: whether the terminal shows colour.
        acceptable: whether the live trace could be the next golden one.
    """
    from ._report import refused, report

    root = item.config.rootpath
    if run.refusal is not None:
        return refused(run.refusal, root=root)
    assert run.verdict is not None
    return report(
        run.verdict,
        accept=command(item, f"{_options.OPTION}=rewrite") if acceptable else "",
        closer=command(item, "--verbosity=2" if _is_quiet(item.config) else "-vv"),
        root=root,
        verbosity=item.config.get_verbosity(),
        color=color,
    )


def _is_quiet(config: pytest.Config) -> bool:
    """Whether the ini file takes back some of what ``-vv`` asks for."""
    return any(re.match(r"-q|--quiet$|--verbosity", str(word)) for word in config.getini("addopts"))


def add_section(report: pytest.TestReport, text: str) -> None:
    """Say something beside a failure that is not ours."""
    add = getattr(report.longrepr, "addsection", None)
    if add is not None:
        add("spanchain", text)
    else:
        report.sections.append(("spanchain", text))


def add_verdict(item: pytest.Item, run: Run, report: pytest.TestReport, *, error: BaseException | None) -> bool:
    """Say what a run came to beside a failure that is not ours, which may be why it came to that.

    Args:
        item: the test.
        run: its run.
        report: the failed test's.
        error: what the test, or a fixture of it, raised.

    Returns:
        Whether anything was compared.
    """
    verdict = run.verdict
    assert verdict is not None
    from ._model import DeviationKind

    # Not what the test says itself.
    raised = isinstance(error, DeviationError) or (
        isinstance(error, Exception) and not isinstance(error, AssertionError)
    )
    causes = [one for one in verdict.deviations if one.failing and not one.consequence]
    unmade = raised and all(one.kind is DeviationKind.SPAN_REMOVED for one in causes)
    tells = bool(not unmade or verdict.attempts or verdict.errors)
    compared = tells or any(span.exchange for span in verdict.live)
    if tells:
        said = lines(item, run)
    elif compared:
        said = lines(item, run, acceptable=False)
    else:
        phase = "the setup" if report.when == "setup" else "the test"
        said = [f"spanchain: nothing was compared with the cassette: {phase} failed before the first recorded call"]
    if run.replays and raised and (hint := _key_hint(error)):
        said.append(hint)
    add_section(report, "\n".join(said))
    return compared


def _key_hint(error: BaseException | None) -> str:
    """What to do about a client that cannot be made, or used, without a key."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        names = [name for name in _KEY_NAME.findall(str(error)) if name not in os.environ]
        if names or _KEY_WORDS.search(str(error)):
            which = names[0] if names else f"the environment variable that it reads ({_KEYS})"
            return f"hint: a replay needs no real key, but this client insists on one: set {which} to any text"
        error = error.__cause__ or error.__context__
    return ""


def set_failed(item: pytest.Item, run: Run, report: pytest.TestReport) -> None:
    """Let the report of a test fail in our words: coloured where the terminal is, in summaries the first line only."""
    # From an xdist worker only pytest's own reports travel whole.
    shown = item.config.pluginmanager.has_plugin("terminalreporter") and not hasattr(item.config, "workerinput")
    coloured = shown and getattr(item.config.get_terminal_writer(), "hasmarkup", False)
    crash = getattr(report.longrepr, "reprcrash", None)
    report.outcome = "failed"
    if crash is not None and not coloured:
        crash.message = crash.message.partition("\n")[0]
        for traceback, *_ in getattr(report.longrepr, "chain", ()):
            traceback.extraline = None  # all its frames are ours, and hidden: that is not worth a line
        return
    plain, colored = ("\n".join(lines(item, run, color=color)) for color in (False, coloured))
    report.longrepr = _Words(plain, colored=colored) if shown else plain  # type: ignore[assignment]


def counts(verdict: Verdict, *, skipped: bool, told: Callable[[], list[str]]) -> dict[str, Any]:
    """What the session line counts of one run: it was replayed, recorded, or neither.

    Args:
        verdict: what it came to.
        skipped: whether its test was, or failed before anything could be compared.
        told: what a re-recording changed, in words.
    """
    changed = verdict.recorded and (verdict.deviations or verdict.notes)
    replayed = verdict.compared and not skipped
    return {
        "replayed": int(replayed),
        "recorded": int(verdict.recorded),
        "live": verdict.live_calls,
        "unverified": int(not (replayed or verdict.recorded)),
        "changes": "\n".join(told()) if changed else "",
        "notes": [] if changed or verdict.failing else list(verdict.notes),  # the report has told them
        "volatile": [
            (one.kind, f"{verdict.nodeid}: {name}: {one.path}: {one.golden} is now {one.live}")
            for name, one in verdict.substitutions
        ],
        "spans_only": verdict.nodeid if verdict.spans_only and (replayed or verdict.recorded) else "",
        "test": True,
    }


def is_ours(error: BaseException) -> bool:
    """Whether something failed because of what the run did to it: then the report says it better than a traceback.

    A failed assertion is the test's own word, whatever led to it.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and not isinstance(current, AssertionError):
        if isinstance(current, (MissError, LiveCallError, RunClosedError, CassetteError)):
            return True
        inner = getattr(current, "exceptions", None)
        if isinstance(inner, tuple) and inner:  # a group of exceptions, as task groups raise them
            return all(is_ours(one) for one in inner)
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return False


class _Words:
    """A failure in words: coloured on the terminal, plain wherever else reports go."""

    def __init__(self, plain: str, *, colored: str) -> None:
        self._plain = plain
        self._colored = colored
        self.reprcrash = SimpleNamespace(message=plain.partition("\n")[0])

    def __str__(self) -> str:
        return self._plain

    def toterminal(self, writer: Any) -> None:
        """Write to a terminal, or to a file that stands in for one."""
        writer.line(self._colored if writer.hasmarkup else self._plain)
