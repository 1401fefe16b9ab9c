"""What a user of pytest sees: options, modes, verdicts."""

from __future__ import annotations

import pytest

from project import Project
from servers import ModelServer


@pytest.fixture
def project(pytester: pytest.Pytester, sdk_env: ModelServer) -> Project:
    project = Project(pytester, sdk_env)
    project.ini()
    return project


ONE = """
@pytest.mark.cassette
def test_ask():
    assert ask("hello") == "You said: hello"
"""


def test_it(project):
    project.write(ONE)
    r = project.run()
    print(r); print(r.counts)
    r = project.record()
    print(r, r.counts)
    r = project.run()
    print(r, r.counts)
    project.write(ONE.replace("hello","hullo"))
    r = project.run()
    print(r, r.counts)
    r = project.run("--color=yes", "--junitxml=x.xml")
    print(r, r.counts)
    print((project.path/"x.xml").read_text())
    project.write(ONE.replace("hello","hullo").replace("hullo\"\n", 'nope"\n'))
    r = project.run()
    print(r, r.counts)
    assert 0
