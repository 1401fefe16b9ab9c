"""Asks the hooks of conftests and other plugins what they change about a run.

Invariants:

* a hook is given a copy and changes it in place, as pytest's own hooks do, so that those of several conftests add up;
* what goes wrong in a hook fails the run, whatever the agent makes of it;
* nothing goes on unredacted because its hook failed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from ._canonical import canonical
from ._model import Deviation
from .errors import RecordingError

if TYPE_CHECKING:
    import pytest

    from ._run import Hooks

NORMALISE, REDACT, DEVIATIONS = (f"pytest_spanchain_{name}" for name in ("normalise", "redact", "deviations"))


class Relay:
    """The hooks that apply to one test.

    Args:
        item: the test.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._problems: list[str] = []
        self._note: Callable[[str], None] | None = None
        self._hooks = item.ihook
        self._given = {"config": item.config, "nodeid": item.nodeid}

    def hooks(self) -> Hooks:
        """The hooks that somebody implements."""
        from ._run import Hooks

        def of(name: str, answer: Callable[..., Any]) -> Any:
            return answer if getattr(self._hooks, name).get_hookimpls() else None

        return Hooks(
            normalise=of(NORMALISE, self._normalise),
            redact=of(REDACT, self._redact),
            deviations=of(DEVIATIONS, self._deviations),
        )

    def report_to(self, note: Callable[[str], None]) -> None:
        """Say what goes wrong, each thing once, to the run that it fails; also what went wrong before there was a run.

        Args:
            note: remembers an error of the run.
        """
        self._note = note
        for problem in self._problems:
            note(problem)

    def _normalise(self, kind: str, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        copy = deepcopy(dict(request))
        failed = self._ask(NORMALISE, canonical, copy, kind=kind, name=name, request=copy)
        return request if failed else copy

    def _redact(self, kind: str, part: Mapping[str, Any]) -> Mapping[str, Any]:
        copy = deepcopy(dict(part))
        failed = self._ask(REDACT, canonical, copy, kind=kind, part=copy)
        if failed:
            raise RecordingError(failed)
        return copy

    def _deviations(self, found: tuple[Deviation, ...]) -> tuple[Deviation, ...]:
        copy = list(found)
        failed = self._ask(DEVIATIONS, _check_deviations, copy, deviations=copy)
        return found if failed else tuple(copy)

    def _ask(self, hook: str, check: Callable[[Any], object], changed: Any, **given: Any) -> str:
        """Call a hook and check what it made of its argument.

        Returns:
            What went wrong, or nothing.
        """
        problem = ""
        try:
            returned = getattr(self._hooks, hook)(**self._given, **given)
            if returned:
                raise TypeError(f"a hook changes what it is given and returns nothing, not {returned[0]!r}")
            check(changed)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - also pytest's own outcomes: a verdict is given once, not here
            problem = f"hook {hook} failed{_place(error)}: {type(error).__name__}: {error}"
            if problem not in self._problems:
                self._problems.append(problem)
                if self._note is not None:
                    self._note(problem)
        return problem


def _check_deviations(deviations: list[Any]) -> None:
    for one in deviations:
        if not isinstance(one, Deviation) or not (one.golden or one.live) or not one.path:
            raise TypeError(f"not a deviation with a golden or a live span and a path: {one!r}")


def _place(error: BaseException) -> str:
    """Where in the hook's own code an error arose, if it arose there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    hooks = [frame for frame in frames if "pluggy" not in frame.filename]
    return f" at {hooks[-1].filename}:{hooks[-1].lineno}" if hooks else ""
