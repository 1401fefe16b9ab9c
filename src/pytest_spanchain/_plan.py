"""What one run is to do: replay a verified cassette, record one, both, or refuse every call and say why.

Mode and file decide it here and nowhere else, before the run begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from . import _store
from ._model import Cassette
from ._settings import RecordMode, Settings
from ._volatile import Context
from .errors import CassetteError, CassetteMissing


@dataclass(frozen=True)
class Plan:
    """What one run is to do.

    Args:
        nodeid: node id of the test, or a name.
        path: the cassette's path.
        settings: settings of the run; its ``eval_id`` is never empty.
        golden: the verified cassette, if there is one: it is replayed, or compared with what replaces it.
        then: what the recorded process knew of itself.
        refusal: why the run may neither replay nor record.
        note: what the reader should know of the file.
    """

    nodeid: str
    path: Path
    settings: Settings
    golden: Cassette | None = None
    then: Context = field(default_factory=Context)
    refusal: CassetteError | None = None
    note: str = ""

    @property
    def replays(self) -> bool:
        """Whether recorded answers are served."""
        return self.golden is not None and not self.settings.mode.replaces

    @property
    def records(self) -> bool:
        """Whether what is not served goes out, and is recorded."""
        return self.refusal is None and (not self.replays or self.settings.mode is RecordMode.NEW_EPISODES)


def make_plan(*, nodeid: str, path: Path, settings: Settings, command: str = "", ci: bool = False) -> Plan:
    """Decide by mode and file whether to replay or to record, and verify what will be replayed.

    Args:
        nodeid: node id of the test, or a name.
        path: the cassette's path.
        settings: settings of the run.
        command: the command that records this cassette, for the error message.
        ci: whether this runs under CI, where only a command line records.

    Returns:
        A plan; if the cassette is missing, unreadable, broken or incomplete and the mode does not replace it, one with
        a ``refusal``: its run lets nothing out and nothing pass.
    """
    settings = settings._replace(eval_id=settings.eval_id or nodeid.partition("[")[0])
    plan = Plan(nodeid=nodeid, path=path, settings=settings)
    try:
        if _store.exists(path):
            golden = _store.load(path, nodeid=nodeid, deferred=True)
            plan = replace(plan, golden=golden, then=Context.from_plain(golden.header.recorder.get("context")))
            # Every request is wanted before the first call; a response, where it is only served, when it is.
            golden.build(responses=not plan.replays or plan.records)
            return plan
    except CassetteError as error:
        if settings.mode.replaces:
            return replace(plan, golden=None, note=f"the old cassette could not be compared with: {error.reason}")
        if command:
            # Whoever pastes it is to record this test again, and not the whole suite.
            error.remedy = error.remedy.replace("pytest THE-TEST", command.partition(" --record-mode")[0])
        return replace(plan, golden=None, refusal=error)
    if settings.mode is not RecordMode.NONE:
        return plan
    missing = CassetteMissing(
        "there is no cassette, and record mode 'none' does not make one",
        path=str(path),
        remedy=_recording(command, ci=ci),
    )
    return replace(plan, refusal=missing)


def _recording(command: str, *, ci: bool) -> str:
    if not command:
        return "record it with mode 'once'"
    if ci:
        return f"under CI only the command line records; record it on your machine, and commit it: {command}"
    return f"record it: {command}"
