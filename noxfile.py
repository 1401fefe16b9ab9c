"""The tests of stacks in the environments that ``environments/`` pins: ``nox``, or ``nox -s main``.

Then ``nox -s matrix`` writes ``docs/matrix.md`` of what they came to.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv|virtualenv"
ENVIRONMENTS = ("main", "adk", "legacy")
nox.options.sessions = ENVIRONMENTS


# What looks into the libraries themselves; README's suite has hardly one of them.
RELEASES = ("tests/test_seams.py", "tests/test_unknown_releases.py", "tests/test_counted_once.py")


def _stacks(session: nox.Session, *more: str) -> None:
    session.install("-e", ".", "-r", "environments/test.txt", "-r", f"environments/{session.name}.txt")
    tests = ("tests/stacks", *RELEASES, *more)
    session.run("pytest", *tests, "-q", "-n", "auto", f"--matrix=build/matrix/{session.name}.json", *session.posargs)


@nox.session
def main(session: nox.Session) -> None:
    """Current releases; and what else needs some of them: the documents' examples, the guard, processes, providers."""
    others = ("test_docs", "test_guard", "test_workers", "test_genai_providers")
    _stacks(session, *(f"tests/{name}.py" for name in others))


@nox.session
def adk(session: nox.Session) -> None:
    """What needs google-genai 2."""
    _stacks(session)


@nox.session
def legacy(session: nox.Session) -> None:
    """The oldest releases, and what needs them."""
    _stacks(session)


@nox.session(venv_backend="none")
def matrix(session: nox.Session) -> None:
    """Write docs/matrix.md."""
    session.run("python", "tests/matrix.py", *(f"build/matrix/{name}.json" for name in ENVIRONMENTS))
