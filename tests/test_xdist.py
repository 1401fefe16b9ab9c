"""Many processes: each cassette whole, each test counted once, and what was typed known everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import Project
from pytest_spanchain.cli import main

COUNT = 40
MANY = """
class TestA:
    @pytest.mark.cassette
    @pytest.mark.parametrize("n", range(20))
    def test_it(self, n):
        assert ask(f"a {n}") == f"You said: a {n}"

class TestB:
    @pytest.mark.cassette
    @pytest.mark.parametrize("n", range(20))
    def test_it(self, n):
        assert ask(f"b {n}") == f"You said: b {n}"
"""


def left_behind(project: Project) -> list[Path]:
    """Temporary files, and recordings that did not become cassettes."""
    return [*project.path.rglob("*spanchain-tmp"), *project.kept_aside()]


@pytest.mark.parametrize("args", [("-n4",), ("-n2", "--dist=loadscope")], ids=["load", "loadscope"])
def test_a_suite_records_and_replays_in_several_processes(
    project: Project, args: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")  # there, recording needs the command line, which only the controller sees
    project.write(MANY)
    result = project.run("--record-mode=once", *args, process=True)
    assert result.outcomes == {"passed": COUNT}
    assert result.counts == {"replayed": 0, "recorded": COUNT, "live": COUNT, "unverified": 0}
    assert project.requests == COUNT
    files = project.cassettes()
    assert len(files) == COUNT
    assert left_behind(project) == []
    before = {path: path.read_bytes() for path in files}
    assert len({data.split(b"request")[1] for data in before.values()}) == COUNT
    capsys.readouterr()
    assert main(["verify", str(project.path / "cassettes")]) == 0
    assert f"{COUNT} verified\n" in capsys.readouterr().out
    result = project.run(*args, process=True)
    assert result.outcomes == {"passed": COUNT}
    assert result.counts == {"replayed": COUNT, "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == COUNT
    assert {path: path.read_bytes() for path in project.cassettes()} == before


def test_what_fails_in_a_worker_is_told_by_the_controller(project: Project) -> None:
    tests = "@pytest.mark.cassette\n@pytest.mark.parametrize('n', range(6))\ndef test_it(n): ask(PROMPT)\n"
    project.write(tests.replace("PROMPT", "f'{n}'"))
    project.record()
    project.write(tests.replace("PROMPT", "f'{n}' if n != 3 else 'drift'"))
    result = project.run("-n", "2", process=True)
    assert result.outcomes == {"passed": 5, "failed": 1}
    assert result.counts == {"replayed": 6, "recorded": 0, "live": 0, "unverified": 0}
    assert "FAILED test_it.py::test_it[3] - Failed: spanchain: 1 deviation" in result.out
    assert '+ "drift"' in result.out
    assert "accept:   pytest 'test_it.py::test_it[3]' --record-mode=rewrite" in result.out
    result = project.run("-n", "2", "--record-mode=rewrite", process=True)
    assert result.counts == {"replayed": 0, "recorded": 6, "live": 6, "unverified": 0}
    assert result.out.count("1 deviation from the golden trace: input_changed") == 1
    assert project.run().counts["replayed"] == 6


def test_errors_of_a_recording_come_through(project: Project) -> None:
    mark = "@pytest.mark.cassette\n@pytest.mark.parametrize('n', range(4))\n"
    project.write(mark + "def test_it(n):\n    ask(f'{n}')\n    assert n != 2\n")
    result = project.run("-n2", "--spanchain-mode", "once", process=True)
    assert result.outcomes == {"passed": 3, "failed": 1}
    assert result.counts == {"replayed": 0, "recorded": 3, "live": 4, "unverified": 1}
    assert len(project.cassettes()) == 3
    (kept,) = project.kept_aside()
    assert str(kept) in result.out


@pytest.mark.parametrize(
    ("marker", "words"), [("mode='onec'", "did you mean 'once'?"), ("'once'", "takes keyword arguments only")]
)
def test_wrong_settings_stop_the_session(project: Project, marker: str, words: str) -> None:
    project.write(f"@pytest.mark.cassette({marker})\ndef test_it(): ask('x')\n\ndef test_plain(): ...\n")
    result = project.run("-n", "2", "--record-mode=once", process=True)
    assert result.code == pytest.ExitCode.TESTS_FAILED
    assert result.outcomes == {"errors": 1}
    assert "test_it.py::test_it: marker cassette" in result.out
    assert words in result.out
    assert "INTERNALERROR" not in result.out
    assert project.requests == 0


def test_without_marked_tests_there_is_no_line(project: Project) -> None:
    project.write("def test_plain(): ...\n")
    result = project.run("-n", "1", process=True)
    assert (result.outcomes, result.counts) == ({"passed": 1}, {})
