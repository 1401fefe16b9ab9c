"""In a worker: it goes by one badge at a time, or by none."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from .... import _guard
from ...._model import HTTP_KINDS, Attempt
from ...._plan import Plan
from ...._run import OWNERSHIP, Call, Crossing, Door, Run
from ...._settings import OFF
from ....errors import LiveCallError, SpanchainError, UsageError
from ..._targets import resolve
from ._badge import ADVICE, ELSEWHERE, STARTING, Badge, Told, tell

_worn: Badge | None = None
"""The badge that this process goes by, if it is a worker."""

_runs: dict[str, Run] = {}
"""The worker's runs by folder: a thread that lives on after a job still belongs to the job's run."""

_kept = ExitStack()
"""What is in place around them, for the life of the worker."""


def worn() -> Badge | None:
    """The badge that this process goes by, if it is a worker."""
    return _worn


@contextmanager
def at_work(badge: Badge | None) -> Iterator[None]:
    """A time of a worker's life: nothing of the process that it may be a copy of, or of another badge, is its own."""
    global _worn
    before, _worn, STARTING.badge = _worn, badge, None
    run = _ready(badge)
    try:
        with OWNERSHIP.own(None) if run is None else run.entered():
            yield
    finally:
        _worn = before
        _ready(before)


def _ready(badge: Badge | None) -> Run | None:
    """Make the badge's run the only one of this process."""
    from .... import boundaries

    OWNERSHIP.forget()
    _guard.forget()
    if badge is None:
        return None
    run = _runs.get(badge.folder)
    if run is not None:
        run.start()
        return run
    settings = badge.settings._replace(tools=tuple(filter(_is_found, badge.settings.tools)))
    run = _runs[badge.folder] = Run(Plan(nodeid=badge.nodeid, path=badge.path, settings=settings))
    run.begin, run.relay, run.answer = (_door(run, badge, door) for door in (run.begin, run.relay, run.answer))
    run.guard.refuse = functools.partial(_left, badge)
    try:
        _kept.enter_context(boundaries.around(run))
    except SpanchainError as error:
        # The worker goes on: what can be watched is.
        tell(badge, Told(what=f"what cannot be watched ({error})", site="an unknown place"))
        run.start()
    return run


def _is_found(tool: Any) -> bool:
    """Whether a worker has that tool, too."""
    try:
        return tool == OFF or bool(resolve(tool))
    except UsageError:
        return False


def _door(run: Run, badge: Badge, door: Door) -> Door:
    """The way of a call into a worker's run: it is told first."""

    def told(crossing: Crossing) -> Call:
        what, host = crossing.name, None
        if crossing.kind in HTTP_KINDS:
            url = urlsplit(crossing.request["url"])
            host = url.hostname
            what = f"{crossing.request['method']} {url.scheme}://{url.netloc.rpartition('@')[2]}"  # paths hold secrets
        # What is allowed to be contacted goes out, as it cannot be served.
        if run.capture.enclosing() is None and not (host and run.guard.allows(host)):
            tell(badge, Told(what=what, site=_guard.call_site()))
            if badge.refuses:
                raise run.miss(f"{what} is called {ELSEWHERE}, where nothing is replayed: {ADVICE}")
        return door(crossing)

    return told


def _left(badge: Badge, attempt: Attempt) -> Exception | None:
    """Something is about to leave a worker elsewhere than at a boundary."""
    site = f"{attempt.site}, {ELSEWHERE}"
    if not _guard.is_telemetry(attempt.host, attempt.port):
        tell(badge, Told(host=attempt.host, port=attempt.port, site=site))
    if not badge.refuses:
        return None
    return LiveCallError(
        f"replay does not let anything out: {attempt.target} was contacted at {site}; let it out with"
        f" allow_hosts=[{attempt.host!r}]"
    )
