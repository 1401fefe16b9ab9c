"""Runs an agent inside ``use_cassette`` and tells what came of it, for tests that record and replay in one process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_spanchain import CassetteHandle, Deviation, DeviationError, RecordingError, use_cassette
from pytest_spanchain._verdict import Verdict


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Args:
        value: what the agent returned; ``None`` if it raised.
        raised: what it raised.
        failure: what leaving the block raised.
        verdict: the verdict.
    """

    value: Any
    raised: Exception | None
    failure: Exception | None
    verdict: Verdict

    @property
    def causes(self) -> list[Deviation]:
        """Failing deviations that do not follow from another."""
        return [found for found in self.verdict.deviations if found.failing and not found.consequence]


def run(path: Path, agent: Callable[[], Any], *, mode: str = "none", **settings: Any) -> Outcome:
    """Run a plain or async agent. What it raises counts as its answer, not as a failed test."""
    return run_in(
        path, lambda _: asyncio.run(agent()) if inspect.iscoroutinefunction(agent) else agent(), mode=mode, **settings
    )


def run_in(path: Path, work: Callable[[CassetteHandle], Any], *, mode: str = "none", **settings: Any) -> Outcome:
    """The same for what takes the cassette."""
    block = use_cassette(path, mode=mode, **settings)
    value: Any = None
    raised: Exception | None = None
    failure: Exception | None = None
    try:
        with block as cassette:
            try:
                value = work(cassette)
            except Exception as error:  # noqa: BLE001 - compared by the caller
                raised = error
    except (DeviationError, RecordingError) as error:
        failure = error
    assert block.verdict is not None
    return Outcome(value, raised, failure, block.verdict)


def record(path: Path, agent: Callable[[], Any], *, mode: str = "rewrite", **settings: Any) -> Outcome:
    """Record, and insist that a cassette was written."""
    outcome = run(path, agent, mode=mode, **settings)
    if outcome.failure is not None:
        raise outcome.failure
    assert outcome.verdict.recorded, "nothing was recorded"
    return outcome


def replay(path: Path, agent: Callable[[], Any], **settings: Any) -> Outcome:
    """Replay, and insist that it is green."""
    outcome = run(path, agent, **settings)
    if outcome.failure is not None:
        raise outcome.failure
    assert outcome.verdict.replayed
    assert not outcome.verdict.recorded
    assert outcome.verdict.live_calls == 0
    return outcome
