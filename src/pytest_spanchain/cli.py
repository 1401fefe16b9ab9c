"""The door to the terminal: ``spanchain verify``, ``show`` and ``diff``. Imports no project code.

Exit status: 0 clean, 1 a verdict fails (or, for ``diff``, the traces differ), 2 wrong usage, 3 a file cannot be read.
If the reader of the output leaves (``| head``), so do we, with the status that a shell gives to a broken pipe.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _store
from ._model import Cassette, SpanTree
from ._volatile import Context, Volatile, occurrences
from .errors import CassetteError, CassetteMissing, CassetteUnreadable

if TYPE_CHECKING:
    from ._judge import Judgement

CLEAN, FAILS, USAGE, UNREADABLE = 0, 1, 2, 3
READER_GONE = 128 + 13  # SIGPIPE


@dataclass(frozen=True)
class Checked:
    """What ``verify`` found of one file."""

    path: str
    integrity: str
    completeness: str
    entries: int | None
    head: str | None
    nodeid: str | None
    status: int
    problem: CassetteError | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; ``sys.argv`` by default.

    Returns:
        The exit status.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # whatever it can not show is better escaped than a traceback
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = arguments.command(arguments, parser)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spanchain",
        description="Look into cassettes of pytest-spanchain and verify them.",
        epilog="exit status: 0 clean, 1 a verdict fails, 2 wrong usage, 3 a file cannot be read",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    verify = commands.add_parser("verify", help="check the hash chain and the close entry of cassettes")
    verify.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="cassettes, or directories of them")
    verify.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    verify.set_defaults(command=_verify)

    show = commands.add_parser("show", help="print the span tree with tokens, times and sizes")
    show.add_argument("path", type=Path, metavar="PATH")
    show.set_defaults(command=_show)

    diff = commands.add_parser("diff", help="compare two cassettes as a golden and a live trace")
    diff.add_argument("golden", type=Path, metavar="A")
    diff.add_argument("live", type=Path, metavar="B")
    diff.add_argument("-v", "--verbose", action="count", default=0, help="show more; -vv shows everything")
    diff.add_argument("--durations", action="store_true", help="also tell durations that differ by more than 20 %%")
    diff.set_defaults(command=_diff)
    return parser


def _verify(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    paths = dict.fromkeys(path for given in arguments.paths for path in _cassettes(given, parser))
    checked = [_check(path) for path in paths]
    if arguments.json:
        print(json.dumps({"cassettes": [_as_json(one) for one in checked]}, indent=2))
    else:
        for one in checked:
            _print_checked(one)
        bad = sum(one.status != CLEAN for one in checked)
        print(f"{len(checked) - bad} verified, {bad} failed" if bad else f"{len(checked)} verified")
    return max(one.status for one in checked)


def _cassettes(given: Path, parser: argparse.ArgumentParser) -> Iterator[Path]:
    from ._render.terminal import escape

    if not os.path.isdir(given):
        yield given
        return

    def refuse(error: OSError) -> None:
        parser.exit(UNREADABLE, f"spanchain: {escape(error.filename)}: cannot be read: {error.strerror}\n")

    found = [
        Path(folder, name)
        for folder, _, names in os.walk(given, onerror=refuse)
        for name in names
        if name.endswith(".yaml") and not name.startswith(".")
    ]
    if not found:
        parser.error(f"{given} holds no cassettes (*.yaml)")
    yield from sorted(found)


def _check(path: Path) -> Checked:
    from . import _chain, _codec

    shown = str(path)
    try:
        verdicts = _chain.judge(_codec.loads(_store.read(path), path=shown), path=shown)
    except (CassetteMissing, CassetteUnreadable) as error:
        return Checked(shown, "unreadable", "unknown", None, None, None, UNREADABLE, error)
    problem = verdicts.integrity or verdicts.completeness
    cassette = verdicts.cassette
    return Checked(
        path=shown,
        integrity="broken" if verdicts.integrity else "ok",
        completeness="unknown" if verdicts.integrity else "incomplete" if verdicts.completeness else "complete",
        entries=len(cassette.tree) + 1 if cassette else None,
        head=cassette.head if cassette else None,
        nodeid=cassette.header.nodeid if cassette else None,
        status=FAILS if problem else CLEAN,
        problem=problem,
    )


def _print_checked(one: Checked) -> None:
    from ._render.terminal import escape

    if one.problem is None:
        print(escape(f"ok       {one.path}  {one.entries} entries, head {str(one.head)[:12]}"))
        return
    label = "unreadable" if one.status == UNREADABLE else "failed"
    print(f"{label:8} " + "\n         ".join(escape(line) for line in str(one.problem).splitlines()))


def _as_json(one: Checked) -> dict[str, Any]:
    problem = one.problem
    return {
        "path": one.path,
        "integrity": one.integrity,
        "completeness": one.completeness,
        "entries": one.entries,
        "head": one.head,
        "nodeid": one.nodeid,
        "problem": None
        if problem is None
        else {
            "reason": problem.reason,
            "line": problem.line,
            "entry": problem.entry,
            "field": problem.field,
            "remedy": problem.remedy,
        },
    }


def _show(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from . import _render
    from ._render.terminal import escape

    try:
        cassette = _store.load(arguments.path)
    except CassetteError as error:
        return _refused(error)
    header = cassette.header
    print(escape(header.nodeid))
    print(escape(f"recorded {header.recorded_at} (claimed), {len(cassette.tree)} spans, head {cassette.head}"))
    for line in _render.tree(cassette.tree, color=sys.stdout.isatty()):
        print(line)
    for line in _volatile_values(cassette):
        print(escape(line))
    return CLEAN


def _volatile_values(cassette: Cassette) -> Iterator[str]:
    """What the recorded run's own context supplied, and where: another run's own is as good."""
    context = Context.from_plain(cassette.header.recorder.get("context"))
    found: dict[tuple[str, str], list[str]] = {}
    for span in cassette.tree:
        request = span.exchange.request if span.exchange else {}
        for one in occurrences(context, request):
            found.setdefault((one.kind, one.golden), []).append(f"{span.name}: request.{one.path}")
    if found:
        yield "volatile values (what a later run's own context supplies is as good):"
    for (kind, text), places in sorted(found.items()):
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield f"  {kind}: {text} in {places[0]}{more}"


def _diff(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from . import _render
    from ._render.aside import aside
    from ._render.terminal import escape

    try:
        golden, live = _store.load(arguments.golden), _store.load(arguments.live)
        judged = _judged(golden, live, durations=arguments.durations)
    except CassetteError as error:
        return _refused(error)
    substitutions = list(dict.fromkeys(judged.substitutions))  # a history says everything again in every request
    extra = [f"note: {text}" for text in aside(one.kind for _, one in substitutions)]
    if judged.left_out:
        extra.append(f"note: left out, recorded in only one of the two: {', '.join(judged.left_out)}")
    if arguments.verbose > 1:
        extra += [f"  {one.kind}: {name}: {one.path}: {one.golden} is now {one.live}" for name, one in substitutions]
    if not judged.deviations:
        print("\n".join(map(escape, ["no deviations", *extra])))
        return CLEAN
    closer = f"spanchain diff -vv {arguments.golden} {arguments.live}"
    lines = _render.report(
        judged.deviations,
        golden=judged.golden or SpanTree(),
        live=judged.live,
        cassette=str(arguments.golden),
        commands=[],
        closer=closer if arguments.verbose < 2 else "",
        extra=extra,
        verbosity=arguments.verbose,
        color=sys.stdout.isatty(),
    )
    print("\n".join(lines))
    return FAILS if any(deviation.failing for deviation in judged.deviations) else CLEAN


def _judged(golden: Cassette, live: Cassette, *, durations: bool) -> Judgement:
    """Compare two recordings as a re-recording is compared with what it replaces, without the settings of the user."""
    from ._judge import Judge
    from ._normalise import Normaliser

    then, now = (Context.from_plain(one.header.recorder.get("context")) for one in (golden, live))
    judge = Judge(
        golden,
        normaliser=Normaliser(),
        volatile=Volatile(then, lambda: now),
        ignored_attributes=frozenset(),
        hook=None,
        served=False,
    )
    return judge.judge(live.tree, scopes=frozenset(live.header.recorder.get("scopes", ())), durations=durations)


def _refused(error: CassetteError) -> int:
    from ._render.terminal import escape

    print("\n".join(escape(line) for line in f"spanchain: {error}".splitlines()), file=sys.stderr)
    return UNREADABLE if isinstance(error, (CassetteMissing, CassetteUnreadable)) else FAILS
