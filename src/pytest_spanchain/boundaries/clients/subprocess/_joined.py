"""Children that are Python themselves: they are invited to the trace, and what they tell becomes part of the process.

A child finds in its environment the trace (``TRACEPARENT``), a directory of ours on its search path, whose
``sitecustomize`` joins it (see ``_joined``), and the name of a directory to which each process that joins writes one
report. A report replaces the one before as a whole, so that a child that is killed has told what it had told.

Invariants:

* Nobody waits for a report: what is there when the child is over, counts; what is missing or torn is said in a note.
* What is not wanted of a child's environment stays as it is; in replay nothing is started, and nobody is invited.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...._model import Exchange, Span, SpanTree
from ...._run import Call, Run
from ....errors import RecordingError

MARK = "SPANCHAIN_JOIN"
"""Names the directory for reports."""

SETTINGS = "settings.json"
LARGEST = 32 * 1024 * 1024
HOME = str(Path(__file__).parents[3] / "joining")
"""What is put on a child's search path: nothing but a ``sitecustomize``."""

_ROOT = "0" * 16


@dataclass(frozen=True)
class Report:
    """What one process tells.

    Args:
        spans: its spans, the root first.
        done: whether it told them at its end.
        notes: what the reader should know of the report itself.
        errors: what fails the recording.
    """

    spans: tuple[Span, ...]
    done: bool
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def written(report: Report) -> bytes:
    """A report as it is written: its digest on a line, and one line of JSON."""
    data = json.dumps(asdict(report), separators=(",", ":")).encode("ascii")
    return hashlib.sha256(data).hexdigest().encode("ascii") + b"\n" + data


def read(data: bytes) -> Report | None:
    """A report as it was written; ``None`` if it is none, or not whole."""
    digest, _, content = data.partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode("ascii") != digest:
        return None
    said = json.loads(content)
    spans = tuple(
        Span(**{**one, "events": tuple(one["events"]), "exchange": one["exchange"] and Exchange(**one["exchange"])})
        for one in said["spans"]
    )
    return Report(spans, said["done"], tuple(said["notes"]), tuple(said["errors"]))


class Joined:
    """The children of one recorded process.

    Args:
        run: whose it is.
        call: the crossing.
        env: what the agent gives it.
    """

    def __init__(self, run: Run, call: Call, env: Mapping[Any, Any] | None) -> None:
        self._run = run
        self._call = call
        self._folder: Path | None = None
        self.env: Mapping[Any, Any] | None = env
        """What it is given."""
        own = dict(os.environ if env is None else env)
        if not all(isinstance(part, str) for pair in own.items() for part in pair):
            return  # in bytes: it stays a stranger
        self._folder = Path(tempfile.mkdtemp(prefix="spanchain-"))
        settings = run.settings
        said = {
            "tools": [] if settings.finds_tools else ["off"],
            "redact": list(settings.redact),
            "allow_hosts": list(settings.allow_hosts),
        }
        (self._folder / SETTINGS).write_text(json.dumps(said), encoding="utf-8")
        path = own.get("PYTHONPATH")
        self.env = {
            **own,
            "PYTHONPATH": f"{HOME}{os.pathsep}{path}" if path else HOME,
            "TRACEPARENT": f"00-{run.capture.trace_id:032x}-{call.span.span_id:016x}-01",
            MARK: str(self._folder),
        }

    def collect(self) -> None:
        """Take over what was told. Once, when the process is over."""
        if self._folder is None:
            return
        name = self._call.span.name
        reports = []
        for path in sorted(self._folder.glob("*.report")):
            report = read(path.read_bytes()) if path.stat().st_size <= LARGEST else None
            if report is None:
                self._run.note(f"the Python child process of {name} left a torn report: its spans are missing")
                continue
            reports.append(report)
            if not report.done:
                self._run.note(f"the Python child process of {name} ended without a last word: spans may be missing")
            for note in report.notes:
                self._run.note(f"in the child process {name}: {note}")
            for error in report.errors:
                self._run.note_error(f"in the child process {name}: {error}")
        self.close()
        tree = _joined(reports)
        if len(tree) > 1:
            with suppress(RecordingError):  # what redaction left of it fails the run already
                self._call.span.graft = (self._run.screen.told(tree), tree.spans[0])

    def close(self) -> None:
        """Nothing will be told."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def invite(run: Run, call: Call, env: Mapping[Any, Any] | None) -> Joined:
    """Prepare the environment of a child that is recorded."""
    return Joined(run, call, env)


def _joined(reports: Iterable[Report]) -> SpanTree:
    """One tree of all reports: what is below their roots is below one root, in the order of the reports' starts."""
    spans = [Span(_ROOT, None, "")]
    told = [report for report in reports if report.spans]
    for number, report in enumerate(sorted(told, key=lambda report: report.spans[0].start_ns)):
        root = report.spans[0].span_id
        for span in report.spans[1:]:
            parent = _ROOT if span.parent_span_id == root else f"{number}-{span.parent_span_id}"
            spans.append(replace(span, span_id=f"{number}-{span.span_id}", parent_span_id=parent))
    return SpanTree(tuple(spans))
