"""The life of one test's run: it starts before the test's first own fixture, and is over after its last.

What is set up and torn down beside it, because it outlives the test, is here, too.

Invariants:

* a run has one verdict, whichever phase of the test comes to it first;
* a test that failed by itself keeps its failure, and a report that says it passed says no more than the verdict does;
* nothing here fails a test: pytest's door does, with the words that it gets here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import _items, _options, _session, _testreport

if TYPE_CHECKING:
    import pytest

    from ._aftermath import Aftermath
    from ._run import Run
    from ._verdict import Verdict

__tracebackhide__ = True  # see ``plugin``


@dataclass(eq=False)
class Life:
    """The run of the item that is being run.

    Args:
        item: the test.
        run: its run.
        around: what is in place around the run.
        context: what the setup or the teardown of function-scoped fixtures is in.
        body_over: whether the test's body has ended, so that reports of the call phase are of the test itself.
        subtests_passed: whether no sub-test has failed.
        suspended: whether a fixture is being set up that outlives the test; it may ask for others meanwhile.
        failure: the failure that says why the run fails.
        aftermath: of a recording whose verdict is given.
    """

    item: pytest.Item
    run: Run
    around: ExitStack
    context: ExitStack = field(default_factory=ExitStack)
    body_over: bool = False
    subtests_passed: bool = True
    suspended: bool = False
    failure: BaseException | None = None
    aftermath: Aftermath | None = None

    @property
    def words(self) -> str:
        """Why the run fails."""
        return "\n".join(_testreport.lines(self.item, self.run))

    @property
    def notes(self) -> list[str]:
        """What is to be said of what came after the verdict."""
        return self.aftermath.notes if self.aftermath is not None else []

    def entered(self) -> AbstractContextManager[None]:
        """Make the calling context part of the run, or of what comes after it."""
        return self.run.entered() if self.aftermath is None else self.aftermath.entered()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Not be there for a while, during which a fixture is set up that outlives the test."""
        self.suspended = True
        try:
            with self.run.suspended():
                yield
        finally:
            self.suspended = False

    def judge(self, *, passed: bool, keep: bool = True) -> Verdict:
        """Close the run; only the first call decides.

        Args:
            passed: whether the test passed.
            keep: whether a recording that does not become a cassette is worth keeping.
        """
        if self.run.verdict is not None:
            return self.run.verdict
        cache = getattr(self.item.config, "cache", None)
        wanted = keep and self.body_over and self.run.records
        self.around.close()
        return self.run.close(passed=passed, aside=cache.mkdir("spanchain-failed") if cache and wanted else None)

    def last_word(self, call: pytest.CallInfo[None], report: pytest.TestReport) -> dict[str, Any]:
        """Judge the run, and let a report say so.

        Args:
            call: what happened in the test's last phase.
            report: what pytest and its plugins have made of it.

        Returns:
            What the session line counts of it.
        """
        skipped = report.skipped and not hasattr(report, "wasxfail")
        verdict = self.judge(passed=report.passed and self.subtests_passed, keep=not skipped)
        error = call.excinfo.value if call.excinfo is not None else None
        compared = True
        if report.failed and error is not None and error is self.failure:
            _testreport.set_failed(self.item, self.run, report)
        elif report.passed and self.subtests_passed and verdict.failing:
            _testreport.set_failed(self.item, self.run, report)
            vars(report).pop("wasxfail", None)
        elif report.failed and verdict.failing:
            compared = _testreport.add_verdict(self.item, self.run, report, error=error)
        elif report.failed and verdict.aside is not None:
            from ._report import LOOK

            _testreport.add_section(report, f"the recording is kept at {verdict.aside}; {LOOK}")
        return _testreport.counts(
            verdict, skipped=skipped or not compared, told=lambda: _testreport.lines(self.item, self.run)
        )

    @contextmanager
    def torn_down(self) -> Iterator[None]:
        """The teardown of the test's own fixtures: a replay lets nothing out, and a recording takes note."""
        self.judge(passed=False)
        with ExitStack() as self.context:
            if self.run.records:
                from ._aftermath import Aftermath

                self.aftermath = Aftermath(self.run)
                self.context.enter_context(self.aftermath.noticed())
            else:
                self.context.enter_context(self.run.entered())  # of a closed run: calls are refused
            yield


def start(item: pytest.Item, *, said: _options.Said, fixture: Mapping[str, Any]) -> Life:
    """Start the run of a test.

    Args:
        item: the test.
        said: what was said about the record mode outside of the tests.
        fixture: what the ``spanchain_config`` fixture returned.

    Raises:
        UsageError: the settings are wrong, or a library is not recognised.
    """
    from . import _store, boundaries
    from ._plan import make_plan
    from ._relay import Relay
    from ._run import Run
    from .errors import CassetteMissing

    relay, around = Relay(item), ExitStack()
    settings = _items.resolve(item, said=said, fixture=fixture)
    plan = make_plan(
        nodeid=item.nodeid,
        path=_store.cassette_path(item.config.rootpath / settings.directory, item.nodeid),
        settings=settings,
        command=_items.command(item, f"{_options.OPTION}=once"),
        ci=_options.under_ci(),
    )
    if isinstance(plan.refusal, CassetteMissing) and (hint := _items.left_over(item, plan.path)):
        plan.refusal.remedy += f"\n  {hint}"
    run = Run(plan, hooks=relay.hooks())
    relay.report_to(run.note_error)
    around.enter_context(boundaries.around(run))
    return Life(item, run, around)


@contextmanager
def outliving(fixturedef: pytest.FixtureDef[Any], session: _session.Session) -> Iterator[None]:
    """Count what a fixture that outlives tests asks of the world, now and when it is torn down.

    Args:
        fixturedef: the fixture, which is about to be set up.
        session: adds it up.
    """
    from . import boundaries

    boundaries.install()
    name = fixturedef.argname
    fixturedef.addfinalizer(lambda: session.leave(name))  # the first, so it runs after the fixture's own
    session.enter(name)
    try:
        yield
    except Exception as error:
        if _testreport.is_ours(error):
            session.errors.append(error)
        raise
    finally:
        session.leave(name)
    fixturedef.addfinalizer(lambda: session.enter(name))
