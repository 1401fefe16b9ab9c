"""What a user of pytest sees: options, modes, one verdict a test, what is written and what is not."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from model_replies import answer
from project import Project
from servers import CountingListener, Json, Stream

ONE = """
@pytest.mark.cassette
def test_ask():
    assert ask("hello") == "You said: hello"
"""
CHANGED = ONE.replace('ask("hello")', 'ask("hullo")').replace("said: hello", "said: hullo")
DRIFT = ONE.replace('assert ask("hello") == "You said: hello"', 'ask("hullo")')
TWICE = ONE + '    ask("and again")\n'


# --- options -----------------------------------------------------------------------------------------------------


def test_help_shows_our_options(project: Project) -> None:
    result = project.run("--help")
    assert result.code == 0
    for words in ("golden traces (spanchain)", "--record-mode=MODE", "--spanchain-mode=MODE", "spanchain_record_mode"):
        assert words in result.out
    assert "@pytest.mark.cassette" in project.run("--markers").out


def test_strict_options_know_our_names(project: Project) -> None:
    project.ini("spanchain_tools =", "spanchain_eval_id = x")
    project.write(ONE)
    assert project.record("--strict-markers", "--strict-config").counts["recorded"] == 1


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("tool=['x:y']", "unknown setting 'tool' (did you mean 'tools'?)"),
        ("mode='onec'", "unknown record mode 'onec' (did you mean 'once'?)"),
        ("'once'", "takes keyword arguments only, not 'once'"),
        ("tools='x:y'", "tools takes a list, not 'x:y'"),
        ("ignore=['re:[']", "ignore: not a regular expression: '['"),
    ],
)
def test_a_wrong_marker_stops_the_session_before_anything_runs(project: Project, marker: str, message: str) -> None:
    project.write(
        f"""
@pytest.mark.cassette
def test_before():
    ask("hello")

@pytest.mark.cassette({marker})
def test_wrong():
    ask("hello")
"""
    )
    result = project.run("--record-mode=once")
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py::test_wrong: marker cassette" in result.err
    assert message in result.err
    assert "Traceback" not in result.out + result.err
    assert (result.outcomes.get("passed", 0), project.requests) == (0, 0)


def test_a_list_of_an_outer_marker_does_not_swallow_a_text(project: Project) -> None:
    project.write(
        "pytestmark = pytest.mark.cassette(tools=['x:y'])\n\n@pytest.mark.cassette(tools='z')\ndef test_it(): ..."
    )
    assert "tools takes a list, not 'z'" in project.run().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("spanchain_recrod_mode = once", "unknown key 'spanchain_recrod_mode' (did you mean 'spanchain_record_mode'?)"),
        ("spanchain_record_mode = onec", "unknown record mode 'onec' (did you mean 'once'?)"),
    ],
)
@pytest.mark.parametrize("place", ["file", "option"])
def test_a_wrong_ini_stops_the_session_before_anything_runs(
    project: Project, line: str, message: str, place: str
) -> None:
    project.write("def test_plain(): ...")
    if place == "file":
        project.ini(line)
        result = project.run()
    else:
        result = project.run("-o", line.replace(" ", ""))
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert message in result.err
    assert "Traceback" not in result.out + result.err
    assert not result.outcomes


@pytest.mark.parametrize("option", ["--record-mode", "--spanchain-mode"])
def test_a_misspelt_mode_on_the_command_line_names_the_nearest(project: Project, option: str) -> None:
    project.write(ONE)
    result = project.run(f"{option}=onec")
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert f"argument {option}: unknown record mode 'onec' (did you mean 'once'?)" in result.err


def test_unmarked_tests_never_meet_us(project: Project) -> None:
    project.write("def test_plain(request): assert 'spanchain' not in ' '.join(request.fixturenames)")
    result = project.run()
    assert result.outcomes == {"passed": 1}
    assert "spanchain:" not in result.out


@pytest.mark.parametrize("mode", ["once", "all"])
def test_who_wants_to_record_and_has_marked_nothing_is_told(project: Project, mode: str) -> None:
    project.write("def test_plain(): ...")
    said = f"spanchain: record mode '{mode}', but no test with @pytest.mark.cassette ran: nothing was recorded"
    assert said in project.run(f"--record-mode={mode}").out
    assert said not in project.run(f"--record-mode={mode}", "--collect-only").out
    assert "spanchain:" not in project.run("--record-mode=none").out


def test_wrong_settings_of_the_fixture_are_one_clean_error(project: Project) -> None:
    project.write("@pytest.fixture\ndef spanchain_config():\n    return {'tool': []}\n" + ONE)
    result = project.run("--record-mode=once")
    assert result.outcomes == {"errors": 1}
    assert "fixture spanchain_config: unknown setting 'tool' (did you mean 'tools'?)" in result.out
    assert "Traceback" not in result.out
    assert "resolve(" not in result.out
    project.write("@pytest.fixture\ndef spanchain_config():\n    return ['tools']\n" + ONE)
    assert "fixture spanchain_config returns a mapping, not ['tools']" in project.run().out


def test_a_tool_that_does_not_exist_is_one_clean_error(project: Project) -> None:
    project.write(ONE.replace("cassette\n", "cassette(tools=['no_such_module:fn'])\n"))
    result = project.run("--record-mode=once")
    assert result.outcomes == {"errors": 1}
    assert "no_such_module" in result.out
    assert "Traceback" not in result.out
    assert project.requests == 0
    assert "During handling" not in result.out, "it is said once"


# --- precedence --------------------------------------------------------------------------------------------------

MODE_OF = """
import os

@pytest.fixture
def spanchain_config():
    mode = os.environ.get("FIXTURE_MODE")
    return {"mode": mode} if mode else {}

@pytest.mark.cassette(MARKER)
def test_mode(spanchain):
    print(f"mode={spanchain.mode}")
"""


@pytest.mark.parametrize(
    ("marker", "args", "fixture", "ini", "mode"),
    [
        ("all", ["--record-mode=once"], "new_episodes", "rewrite", "all"),
        (None, ["--record-mode=once"], "new_episodes", "rewrite", "once"),
        (None, ["--spanchain-mode=once"], "new_episodes", "rewrite", "once"),
        (None, ["--spanchain-mode", "once"], None, None, "once"),
        (None, [], "new_episodes", "rewrite", "new_episodes"),
        (None, [], None, "rewrite", "rewrite"),
        ("once", ["--record-mode=none"], None, None, "once"),
    ],
)
def test_precedence(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    marker: str | None,
    args: list[str],
    fixture: str | None,
    ini: str | None,
    mode: str,
) -> None:
    project.write(MODE_OF.replace("MARKER", f"mode={marker!r}" if marker else ""))
    if fixture:
        monkeypatch.setenv("FIXTURE_MODE", fixture)
    if ini:
        project.ini(f"spanchain_record_mode = {ini}")
    result = project.run("-rP", *args)
    assert f"mode={mode}\n" in result.out


@pytest.mark.parametrize(
    ("args", "env", "ini"),
    [
        ([], "", "spanchain_record_mode = once"),
        ([], "", "addopts = --record-mode=once"),
        ([], "", "addopts = --spanchain-mode once"),
        (["--record-mode=none"], "", "spanchain_record_mode = once"),
        (["--record-mode=none"], "", "addopts = --spanchain-mode=once"),
    ],
)
def test_under_ci_what_is_committed_does_not_record(
    project: Project, monkeypatch: pytest.MonkeyPatch, args: list[str], env: str, ini: str
) -> None:
    monkeypatch.setenv("CI", "true")
    project.ini(ini)
    project.write(ONE)
    result = project.run(*args)
    assert result.outcomes == {"failed": 1}
    assert (project.requests, project.cassettes()) == (0, [])
    if not args:
        monkeypatch.setenv("CI", "")
        assert project.run(*args).counts["recorded"] == 1


@pytest.mark.parametrize("how", ["option", "environment"])
def test_under_ci_the_command_line_records(project: Project, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("CI", "true")
    project.write(ONE)
    if how == "environment":
        monkeypatch.setenv("PYTEST_ADDOPTS", "--record-mode=once")
    assert project.run(*(["--record-mode=once"] if how == "option" else [])).counts["recorded"] == 1


def test_what_is_typed_beats_addopts(project: Project) -> None:
    project.ini("addopts = --record-mode=once")
    project.write(ONE)
    assert project.run("--record-mode=none").counts["unverified"] == 1
    assert project.run("--spanchain-mode=none").counts["unverified"] == 1
    assert project.requests == 0


def test_options_in_a_file_of_arguments_count_as_typed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    project.write(ONE)
    (project.path / "args.txt").write_text("--record-mode=once\n")
    assert project.run("@args.txt").counts["recorded"] == 1


def test_markers_of_class_and_test_add_up(project: Project) -> None:
    project.write(
        """
@pytest.mark.cassette(ignore=["body.json.a"], directory="outer", eval_id="outer")
class TestIt:
    @pytest.mark.cassette(ignore=["body.json.b"], eval_id="inner")
    def test_it(self, spanchain):
        settings = spanchain._run.settings
        assert settings.ignore == ("body.json.a", "body.json.b")
        assert (settings.directory, settings.eval_id) == ("outer", "inner")
"""
    )
    project.record()
    assert len(list((project.path / "outer").rglob("*.yaml"))) == 1


# --- modes -------------------------------------------------------------------------------------------------------


def test_without_a_cassette_the_test_fails_unrun_and_says_how_to_record(project: Project) -> None:
    project.write(ONE.replace("def test_ask():", "def test_ask():\n    open('ran', 'w').close()"))
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert (
        "\nspanchain: there is no cassette, and record mode 'none' does not make one: cassettes/test_it" in result.out
    )
    assert " - Failed: spanchain: there is no cassette" in result.out
    command = re.search(r"record it: pytest (\S+) (\S+)", result.out)
    assert command is not None
    assert "Traceback" not in result.out
    assert not (project.path / "ran").exists()
    assert project.requests == 0
    assert result.counts == {"replayed": 0, "recorded": 0, "live": 0, "unverified": 1}
    assert project.run(*command.groups()).counts["recorded"] == 1


def test_the_command_works_from_where_the_user_is(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(ONE, "sub dir/test_it.py")
    monkeypatch.chdir(project.path / "sub dir")
    assert "record it: pytest test_it.py::test_ask --record-mode=once" in project.run().out
    monkeypatch.chdir(project.path)
    assert "record it: pytest 'sub dir/test_it.py::test_ask' --record-mode=once" in project.run().out


def test_once_records_then_replays_offline(project: Project) -> None:
    project.write(ONE)
    assert project.record().counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    written = project.cassettes()[0].read_bytes()
    project.server.close()
    with CountingListener(project.server.port) as listener:
        for args in ([], ["--record-mode=none"], ["--record-mode=once"], ["--record-mode=new_episodes"]):
            assert project.run(*args).counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
        assert listener.connections == 0
    assert project.cassettes()[0].read_bytes() == written


def test_once_does_not_record_what_changed(project: Project) -> None:
    project.write(ONE)
    project.record()
    written = project.cassettes()[0].read_bytes()
    project.write(DRIFT)
    result = project.run("--record-mode=once")
    assert result.outcomes == {"failed": 1}
    assert "input_changed" in result.out
    assert "accept:   pytest test_it.py::test_ask --record-mode=rewrite" in result.out
    assert result.counts["live"] == 0
    assert project.cassettes()[0].read_bytes() == written


@pytest.mark.parametrize("mode", ["all", "rewrite"])
def test_rewrite_replaces_and_says_what_changed(project: Project, mode: str) -> None:
    project.write(ONE)
    project.record()
    project.write(CHANGED)
    result = project.run(f"--record-mode={mode}")
    assert result.outcomes == {"passed": 1}
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    assert "input_changed" in result.out
    assert "hullo" in result.out
    assert project.run().counts["replayed"] == 1
    again = project.run(f"--record-mode={mode}")
    assert again.counts["recorded"] == 1
    assert "deviation" not in again.out


@pytest.mark.parametrize("mode", ["all", "rewrite"])
def test_rewrite_of_a_failing_test_leaves_the_old_cassette(project: Project, mode: str) -> None:
    project.write(ONE)
    project.record()
    written = project.cassettes()[0].read_bytes()
    project.write(CHANGED + "    assert 0\n")
    result = project.run(f"--record-mode={mode}")
    assert result.outcomes == {"failed": 1}
    assert project.cassettes()[0].read_bytes() == written
    assert str(project.kept_aside()[0]) in result.out


def test_new_episodes_plays_what_is_known_and_records_the_rest(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(TWICE)
    result = project.run("--record-mode=new_episodes")
    assert result.outcomes == {"passed": 1}
    assert project.requests == 2
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    assert "span_added" in result.out
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}


# --- what is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        "assert 0",
        "raise ValueError('x')",
        "pytest.fail('x')",
        "pytest.skip('x')",
        "pytest.xfail('x')",
        "raise SystemExit(3)",
    ],
)
def test_only_a_passing_test_writes_a_cassette(project: Project, end: str) -> None:
    project.write(ONE + f"    {end}\n")
    result = project.run("--record-mode=once")
    assert project.requests == 1
    assert project.cassettes() == []
    assert result.counts == {"replayed": 0, "recorded": 0, "live": 1, "unverified": 1}
    if "skip" in end:
        assert project.kept_aside() == []
        return
    (kept,) = project.kept_aside()
    if "xfail" not in end:
        assert result.outcomes == {"failed": 1}
        assert str(kept) in result.out


def test_without_a_cache_nothing_is_kept_and_all_else_works(project: Project) -> None:
    project.write(ONE + "    assert 0\n")
    assert project.run("--record-mode=once", "-p", "no:cacheprovider").outcomes == {"failed": 1}
    assert (project.cassettes(), project.kept_aside()) == ([], [])
    project.write(ONE)
    project.record("-p", "no:cacheprovider")
    assert project.run("-p", "no:cacheprovider").counts["replayed"] == 1


@pytest.mark.parametrize(
    ("marks", "body", "outcome"),
    [
        ("@pytest.mark.xfail(strict=True)", "", "failed"),
        ("@pytest.mark.xfail", "", "xpassed"),
        ("@pytest.mark.xfail", "    assert 0\n", "xfailed"),
    ],
)
def test_xfail_decides_what_is_a_pass_when_recording(project: Project, marks: str, body: str, outcome: str) -> None:
    project.write(ONE.replace("@pytest", f"{marks}\n@pytest", 1) + body)
    result = project.run("--record-mode=once")
    assert result.outcomes == {outcome: 1}
    assert len(project.cassettes()) == (outcome == "xpassed")


def test_a_failed_subtest_writes_nothing(project: Project) -> None:
    project.write(
        ONE.replace("test_ask()", "test_ask(subtests)") + "    with subtests.test('one'):\n        assert 0\n"
    )
    result = project.run("--record-mode=once")
    assert result.outcomes["failed"] >= 1
    assert project.cassettes() == []
    assert len(project.kept_aside()) == 1


@pytest.mark.parametrize("marker", ["@pytest.mark.skip", "@pytest.mark.skipif(True, reason='x')"])
def test_a_skipped_test_is_not_a_run(project: Project, marker: str) -> None:
    project.write(ONE.replace("@pytest", f"{marker}\n@pytest", 1))
    result = project.run("--record-mode=once")
    assert result.outcomes == {"skipped": 1}
    assert result.counts == {}


def test_a_broken_cassette_never_replays_and_only_a_replacement_overwrites_it(project: Project) -> None:
    project.write(ONE)
    project.record()
    (cassette,) = project.cassettes()
    good = cassette.read_text()
    broken = good.replace("You said: hello", "You said: hallo")
    assert broken != good
    for mode in ("none", "once", "new_episodes"):
        cassette.write_text(broken)
        result = project.run(f"--record-mode={mode}")
        assert result.outcomes == {"failed": 1}
        assert f"\nspanchain: {cassette.relative_to(project.path)}:" in result.out
        assert result.counts["unverified"] == 1
        assert cassette.read_text() == broken
    assert project.requests == 1
    project.write(ONE + "    assert 0\n")
    assert project.run("--record-mode=rewrite").outcomes == {"failed": 1}
    assert cassette.read_text() == broken
    project.write(ONE)
    result = project.run("--record-mode=rewrite")
    assert result.outcomes == {"passed": 1}
    assert "the old cassette could not be compared with" in result.out
    assert project.run().counts["replayed"] == 1


def test_what_cannot_be_written_fails_the_test(project: Project) -> None:
    project.write(ONE + "    open('cassettes', 'w').close()\n")
    result = project.run("--record-mode=once")
    assert result.outcomes == {"failed": 1}
    assert "cannot be written" in result.out
    assert result.counts["recorded"] == 0
    assert "Traceback" not in result.out


# --- the verdict -------------------------------------------------------------------------------------------------


def test_drift_is_one_clean_failure(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(DRIFT)
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "spanchain: 1 deviation from the golden trace: input_changed at chat gpt-test" in result.out
    assert "Traceback" not in result.out
    assert "plugin.py" not in result.out
    assert "_hooks.py" not in result.out
    assert result.counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}


def test_a_body_that_failed_first_keeps_its_failure(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(DRIFT + "    assert 'mine' == 'yours'\n")
    for args in ([], ["--show-capture=no"], ["--tb=short"]):
        result = project.run(*args)
        assert result.outcomes == {"failed": 1}
        assert "FAILED test_it.py::test_ask - AssertionError: assert 'mine' == 'yours'" in result.out
        assert result.out.count("input_changed at chat gpt-test") == 1


def test_a_failed_body_without_drift_gets_no_section(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(ONE + "    assert 'mine' == 'yours'\n")
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "- spanchain -" not in result.out


def test_an_agent_that_swallows_misses_still_fails(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(ONE + "    assert swallow('again') == 'no answer'\n")
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "span_added" in result.out
    assert project.requests == 1


@pytest.mark.parametrize(
    "more",
    [
        "    ask('again')\n",
        "    try:\n        ask('again')\n    except Exception as error:\n        raise RuntimeError from error\n",
        "    raise ExceptionGroup('tasks', [pytest.raises(Exception, ask, 'again').value])\n",
    ],
    ids=["straight", "wrapped", "grouped"],
)
def test_a_miss_that_leaves_the_agent_is_told_as_a_report(project: Project, more: str) -> None:
    if "ExceptionGroup" in more and sys.version_info < (3, 11):
        pytest.skip("exception groups came with Python 3.11")
    project.write(ONE)
    project.record()
    project.write(ONE + more)
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "FAILED test_it.py::test_ask - Failed: spanchain: 1 deviation" in result.out
    assert "Error" not in result.out.replace("AssertionError", "")


def test_what_the_test_says_of_a_miss_is_the_tests_own_failure(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(ONE + "    try:\n        ask('again')\n    except Exception:\n        assert 0, 'my words'\n")
    result = project.run()
    assert "FAILED test_it.py::test_ask - AssertionError: my words" in result.out
    assert "span_added at chat gpt-test" in result.out


def test_a_recorded_call_that_is_not_made_fails(project: Project) -> None:
    project.write(TWICE)
    project.record()
    project.write(ONE)
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "span_removed" in result.out


def test_a_live_call_in_replay_fails_even_if_swallowed(project: Project) -> None:
    live = f"""
    import socket
    try:
        socket.create_connection(("127.0.0.1", {project.server.port}))
    except Exception:
        pass
"""
    project.write(ONE)
    project.record()
    project.write(ONE + live)
    before = project.server.connections
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert f"127.0.0.1:{project.server.port}" in result.out
    assert result.counts["live"] == 1
    assert project.server.connections == before


@pytest.mark.parametrize(
    ("mark", "outcome"),
    [
        ("@pytest.mark.xfail", "xfailed"),
        ("@pytest.mark.xfail(strict=True)", "xfailed"),
        ("@pytest.mark.xfail(raises=ValueError)", "failed"),
    ],
)
def test_a_failing_verdict_is_a_failure_for_xfail(project: Project, mark: str, outcome: str) -> None:
    project.write(ONE)
    project.record()
    project.write(DRIFT.replace("@pytest", f"{mark}\n@pytest", 1))
    assert project.run().outcomes == {outcome: 1}


def test_a_body_that_skips_is_skipped_and_counted_as_not_compared(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(DRIFT + "    pytest.skip('later')\n")
    result = project.run()
    assert result.outcomes == {"skipped": 1}
    assert result.counts == {"replayed": 0, "recorded": 0, "live": 0, "unverified": 1}


def test_maxfail_counts_a_verdict_as_one_failure(project: Project) -> None:
    project.write("@pytest.mark.parametrize('n', range(4))\n@pytest.mark.cassette\ndef test_ask(n): ask(f'{n}')\n")
    project.record()
    project.write("@pytest.mark.parametrize('n', range(4))\n@pytest.mark.cassette\ndef test_ask(n): ask('drift')\n")
    assert project.run("--maxfail=2").outcomes == {"failed": 2}
    assert project.run("-x").counts["replayed"] == 1


def test_an_interrupt_is_not_turned_into_a_failure(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(ONE + "    try:\n        ask('again')\n    except Exception:\n        raise KeyboardInterrupt\n")
    result = project.run(process=True)
    assert result.code == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in result.out


def test_an_interrupted_replay_ends_with_its_session(project: Project) -> None:
    """What comes after the session in the same process may use the network again; the test's own teardown may not."""
    source = """
import pathlib

@pytest.fixture
def client():
    yield
    pathlib.Path("goodbye").write_text(swallow("goodbye"))

@pytest.mark.cassette
def test_ask(client):
    ask("hello")
"""
    project.write(source)
    project.record()
    project.write(source + "    pytest.exit('enough')\n")
    assert "enough" in project.run().out
    assert (project.path / "goodbye").read_text() == "no answer"
    assert project.requests == 2
    socket.create_connection(("127.0.0.1", project.server.port)).close()


def test_the_debugger_stops_at_a_verdict(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(DRIFT)
    result = project.pytester.run(sys.executable, "-m", "pytest", "--pdb", "-p", "no:hypothesispytest", stdin=b"q\n")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*input_changed at chat gpt-test*", "*entering PDB*", "(Pdb) *"])


def test_reports_outside_the_terminal_have_no_colour(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(DRIFT)
    result = project.run("--color=yes", "--junitxml=junit.xml")
    assert "\x1b[1;31mspanchain: 1 deviation" in result.out
    assert "FAILED" in result.out
    junit = (project.path / "junit.xml").read_text()
    assert "spanchain: 1 deviation" in junit
    assert "x1B" not in junit


def test_without_a_terminal_reporter_tests_still_fail(project: Project) -> None:
    project.write(ONE)
    project.record()
    project.write(DRIFT)
    assert project.run("-p", "no:terminal").code == pytest.ExitCode.TESTS_FAILED


# --- fixtures ----------------------------------------------------------------------------------------------------


def test_the_calls_of_function_scoped_fixtures_belong_to_the_test(project: Project) -> None:
    project.write(
        """
@pytest.fixture
def greeting():
    return ask("from the fixture")

@pytest.fixture(autouse=True)
def always():
    ask("always")

class TestIt:
    def setup_method(self):
        ask("from setup_method")

    @pytest.mark.cassette
    def test_it(self, greeting, spanchain):
        assert greeting == "You said: from the fixture"
        assert len(spanchain.live.named("chat gpt-test")) == 3
"""
    )
    assert project.record().counts["live"] == 3
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == 3


@pytest.mark.parametrize("scope", ["session", "module", "class"])
@pytest.mark.parametrize("how", ["argument", "dynamic"])
def test_the_calls_of_wider_fixtures_do_not(project: Project, scope: str, how: str) -> None:
    project.write(
        f"""
@pytest.fixture(scope="{scope}")
def warm_up():
    yield ask("warm up")
    assert ask("cool down") == "You said: cool down"

class TestIt:
    @pytest.mark.cassette
    def test_one(self, {"warm_up" if how == "argument" else "request"}, spanchain):
        {"" if how == "argument" else "warm_up = request.getfixturevalue('warm_up')"}
        assert warm_up == "You said: warm up"
        ask("one")
        assert len(spanchain.live.named("chat gpt-test")) == 1
"""
    )
    assert project.record().counts["live"] == 1
    assert project.requests == 3
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == 5


def test_nor_do_those_of_fixtures_that_they_ask_for_meanwhile(project: Project) -> None:
    project.write(
        """
@pytest.fixture(scope="session")
def inner():
    return ask("inner")

@pytest.fixture(scope="module")
def outer(request):
    return request.getfixturevalue("inner"), ask("outer")

@pytest.mark.cassette
def test_one(outer, spanchain):
    assert outer == ("You said: inner", "You said: outer")
    ask("one")
    assert len(spanchain.live.named("chat gpt-test")) == 1
"""
    )
    assert project.record().counts["live"] == 1
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == 5


def test_replay_lets_nothing_out_while_the_tests_own_fixtures_are_torn_down(project: Project) -> None:
    project.write(
        """
@pytest.fixture
def client(spanchain):
    yield
    if not (GUARDED and not spanchain.recording):
        ask("goodbye")

@pytest.mark.cassette
def test_it(client):
    ask("hello")
""".replace("GUARDED", "False")
    )
    assert project.record().counts["live"] == 1
    assert project.requests == 2
    result = project.run()
    assert result.outcomes == {"passed": 1, "errors": 1}
    assert "after the run of test_it.py::test_it had ended" in result.out
    assert project.requests == 2


def test_a_test_that_was_renamed_is_told_which_cassette_it_left(project: Project) -> None:
    project.write(ONE + "\n" + ONE.replace("test_ask", "test_other"))
    project.record()
    project.write(ONE + "\n" + ONE.replace("test_ask", "test_another"))
    out = project.run("-k", "test_another").out
    (old,) = (path.name for path in project.cassettes() if "other" in path.name)
    assert f"{old} beside it is of test_it.py::test_other, which is gone: if that was renamed, record it" in out
    assert out.count("beside it is of") == 1
    project.write(ONE + "\n" + ONE.replace("test_ask", "test_more") + "\ndef test_other(): ...")
    assert "beside it is of" not in project.run().out


def test_what_is_wrong_with_the_ini_file_is_told_once(project: Project) -> None:
    project.ini("spanchain_exact = clok")
    project.write(ONE + "\n" + ONE.replace("test_ask", "test_other") + "\n" + ONE.replace("test_ask", "test_third"))
    result = project.run()
    assert (result.out + result.err).count("there is no kind of volatile value 'clok'") == 1
    assert "test_it.py::test_ask and 2 more: " in result.out + result.err


def test_a_missing_cassette_is_told_cleanly_from_a_fixture_too(project: Project) -> None:
    project.write(ONE.replace("test_ask()", "test_ask(early)") + "\n@pytest.fixture\ndef early(): ask('early')\n")
    result = project.run()
    assert result.outcomes == {"errors": 1}
    assert "record it: pytest test_it.py::test_ask --record-mode=once" in result.out
    assert "plugin.py" not in result.out
    assert "_hooks.py" not in result.out
    assert "begin" not in result.out
    assert result.counts["unverified"] == 1
    assert project.requests == 0


def test_a_marker_that_a_conftest_adds_works_like_a_written_one(project: Project) -> None:
    project.write(
        """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker("cassette")

@pytest.fixture
def spanchain_config():
    return {"directory": "elsewhere"}
""",
        "conftest.py",
    )
    project.write("@pytest.fixture\ndef early(): return ask('early')\ndef test_it(early): ask('late')\n")
    assert project.record().counts == {"replayed": 0, "recorded": 1, "live": 2, "unverified": 0}
    assert len(list((project.path / "elsewhere").rglob("*.yaml"))) == 1
    assert project.run().counts["replayed"] == 1


def test_one_marked_parameter_does_not_mark_its_siblings(project: Project) -> None:
    project.write(
        """
@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.cassette), 3])
def test_it(n, request):
    assert ("_spanchain_run" in request.fixturenames) is (n == 2)
"""
    )
    result = project.record()
    assert result.outcomes == {"passed": 3}
    assert result.counts["recorded"] == 1


def test_the_fixture_is_an_honest_window(project: Project) -> None:
    project.write(
        """
@pytest.mark.cassette
def test_it(cassette, spanchain):
    assert ask("hello") == "You said: hello"
    assert cassette.path == spanchain.path and cassette.path.name.startswith("test_it-")
    print(f"mode={cassette.mode} recording={cassette.recording} golden={len(cassette.golden)}")
    assert cassette.live == cassette.golden
    assert cassette.deviations == ()
    assert cassette.golden is not cassette.live
"""
    )
    assert "mode=once recording=True golden=2" in project.record("-rP").out
    assert "mode=none recording=False golden=2" in project.run("-rP").out


def test_comparing_the_traces_prints_the_report(project: Project) -> None:
    project.write(
        "@pytest.mark.cassette\ndef test_it(cassette):\n    ask('hello')\n    assert cassette.live == cassette.golden\n"
    )
    project.record()
    project.write(
        "@pytest.mark.cassette\ndef test_it(cassette):\n    ask('hullo')\n    assert cassette.live == cassette.golden\n"
    )
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert re.search(r"^E .*input_changed at chat gpt-test", result.out, re.MULTILINE)
    assert re.search(r'^E +\+ "hullo"', result.out, re.MULTILINE)


def test_a_tool_handed_to_the_agent_is_recorded(project: Project) -> None:
    project.write(
        """
def roll():
    with open("rolled", "a") as file:
        file.write("x")
    return 4

@pytest.mark.cassette
def test_it(cassette):
    assert cassette.tool(roll)() == 4
"""
    )
    project.record()
    assert project.run().counts["replayed"] == 1
    assert (project.path / "rolled").read_text() == "x"


def test_the_fixture_alone_marks_a_test_only_under_the_name_that_is_ours(project: Project) -> None:
    project.write("def test_it(spanchain): ask('hello')\n")
    assert project.record().counts["recorded"] == 1
    project.write("def test_it(cassette): ask('hello')\n")
    result = project.run()
    assert result.outcomes == {"errors": 1}
    assert "mark it with @pytest.mark.cassette" in result.out


def test_a_projects_own_cassette_fixture_stays_its_own(project: Project) -> None:
    project.write(
        "@pytest.fixture\ndef cassette(): return 'tape'\n\ndef test_it(cassette): assert cassette == 'tape'\n"
        "\n@pytest.mark.cassette\ndef test_marked(cassette, spanchain): assert cassette == 'tape'\n"
    )
    assert project.record().outcomes == {"passed": 2}


# --- kinds of tests ----------------------------------------------------------------------------------------------

IDS = ["a/b", "a:b", "a-b", "a\\b", "A-B", "grün", "日本", "x" * 300, "a::b", "[x]", "..", "con"]


def test_every_parameter_has_a_cassette_of_its_own(project: Project) -> None:
    project.write(
        f"""
IDS = {IDS!r}

@pytest.mark.parametrize("said", [f"#{{n}}" for n in range(len(IDS))], ids=IDS)
@pytest.mark.cassette
def test_it(said):
    assert ask(said) == f"You said: {{said}}"
"""
    )
    assert project.record().counts["recorded"] == len(IDS)
    names = [path.relative_to(project.path).as_posix() for path in project.cassettes()]
    assert len({name.casefold() for name in names}) == len(IDS)
    assert all(len(Path(name).name) < 120 and name.isascii() for name in names)
    assert project.run().counts == {"replayed": len(IDS), "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == len(IDS)


def test_classes_inherit_the_marker_and_keep_cassettes_apart(project: Project) -> None:
    project.write(
        """
@pytest.mark.cassette
class TestBase:
    word = "base"
    def test_it(self):
        assert ask(self.word) == f"You said: {self.word}"

class TestOther(TestBase):
    word = "other"
"""
    )
    assert project.record().counts["recorded"] == 2
    assert project.run().counts["replayed"] == 2


UNITTEST = """
import unittest

class Case(unittest.TestCase):
    def setUp(self):
        self.early = ask("early")

    @pytest.mark.cassette
    def test_it(self):
        self.assertEqual(ask("hello"), "You said: hello")
        MORE
"""


def test_unittest_cases_record_and_replay(project: Project) -> None:
    project.write(UNITTEST.replace("MORE", ""))
    assert project.record().counts == {"replayed": 0, "recorded": 1, "live": 2, "unverified": 0}
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    project.write(UNITTEST.replace("MORE", "swallow('again')"))
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "span_added" in result.out


@pytest.mark.parametrize("end", ["self.fail('mine')", "self.assertTrue(0)", "self.skipTest('x')", "1 / 0"])
def test_a_unittest_case_that_does_not_pass_writes_nothing(project: Project, end: str) -> None:
    project.write(UNITTEST.replace("MORE", end))
    result = project.run("--record-mode=once")
    assert project.cassettes() == []
    assert result.outcomes == {"skipped" if "skip" in end else "failed": 1}


def test_a_unittest_case_that_failed_first_keeps_its_failure(project: Project) -> None:
    project.write(UNITTEST.replace("MORE", ""))
    project.record()
    project.write(UNITTEST.replace("MORE", "swallow('again'); self.fail('mine')"))
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "mine" in result.out
    assert result.out.count("span_added at chat gpt-test") == 1


def test_a_failed_unittest_subtest_writes_nothing(project: Project) -> None:
    project.write(UNITTEST.replace("MORE", "\n        with self.subTest(i=1):\n            self.fail('mine')"))
    project.run("--record-mode=once")
    assert project.cassettes() == []


def test_async_unittest_cases_record_and_replay(project: Project) -> None:
    project.write(
        """
import unittest

@pytest.mark.cassette
class Case(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.early = await aask("early")

    async def test_it(self):
        self.assertEqual(await aask("hello"), "You said: hello")
"""
    )
    assert project.record().counts["live"] == 2
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}


# --- sessions ----------------------------------------------------------------------------------------------------


def test_looking_without_running_makes_no_run(project: Project) -> None:
    project.write(ONE)
    for args in (["--collect-only"], ["--setup-plan"], ["--fixtures"], ["-k", "nothing"]):
        result = project.run("--record-mode=once", *args)
        assert result.counts == {}, args
        assert "INTERNALERROR" not in result.out
    assert (project.requests, project.cassettes()) == (0, [])
    result = project.run("--record-mode=once", "--setup-only")
    assert (project.requests, project.cassettes(), project.kept_aside()) == (0, [], [])


def test_a_selection_runs_only_what_it_selects(project: Project) -> None:
    # No digits: pytest would find them in the name of the directory as well.
    project.write("@pytest.mark.parametrize('n', ['x', 'y', 'z'])\n@pytest.mark.cassette\ndef test_ask(n): ask(n)\n")
    assert project.record("-k", "ask[y]").counts["recorded"] == 1
    assert project.run("-k", "ask[y] or ask[z]").counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 1}


def test_two_tests_on_one_cassette_stop_the_session(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # The hash in the name makes it practically impossible, so it has to be taken away.
    monkeypatch.setattr("pytest_spanchain._store.cassette_path", lambda directory, nodeid: directory / "Same.yaml")
    project.write(ONE + ONE.replace("test_ask", "test_other"))
    result = project.run("--record-mode=once")
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py::test_other and test_it.py::test_ask would share the cassette" in result.err
    assert project.requests == 0


def test_a_flaky_test_is_recorded_from_the_attempt_that_passed(project: Project) -> None:
    project.write(
        """
import pathlib

@pytest.mark.cassette
def test_flaky():
    attempts = pathlib.Path("attempts")
    attempts.write_text((attempts.read_text() if attempts.exists() else "") + "x")
    said = ask(f"attempt {len(attempts.read_text())}")
    assert said == "You said: attempt 2"
"""
    )
    result = project.run("--record-mode=once", "--reruns=2")
    assert result.outcomes == {"passed": 1, "rerun": 1}
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 2, "unverified": 0}
    assert "attempt 2" in project.cassettes()[0].read_text()
    (project.path / "attempts").write_text("x")
    assert project.run("--reruns=2").counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    (project.path / "attempts").unlink()
    again = project.run("--reruns=2")
    assert again.outcomes == {"passed": 1, "rerun": 1}
    assert again.counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}


def test_the_model_failing_is_recorded_like_any_answer(project: Project) -> None:
    project.server.script(lambda request: Json({"error": "no"}, status=400))
    project.write(
        "@pytest.mark.cassette\ndef test_it():\n    with pytest.raises(Exception, match='400'):\n        ask('x')\n"
    )
    project.record()
    assert project.run().counts["replayed"] == 1
    assert project.requests == 1


def test_tests_in_one_session_do_not_mix(project: Project) -> None:
    project.server.script(lambda request: answer(request, f"answer {len(project.server.requests)}"))
    project.write(
        "@pytest.mark.cassette\ndef test_one(): assert ask('same') == 'answer 1'\n\n"
        "def test_plain(): assert ask('same').startswith('answer')\n\n"
        "@pytest.mark.cassette\ndef test_two(): assert ask('same') == 'answer 3'\n"
    )
    assert project.record().counts == {"replayed": 0, "recorded": 2, "live": 2, "unverified": 0}
    assert project.run().counts == {"replayed": 2, "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == 4


# --- the end of a run --------------------------------------------------------------------------------------------


def test_a_tool_that_somebody_else_patched_fails_its_test_alone(project: Project) -> None:
    project.write("def refund(order): return order\n", name="shop.py")
    project.write(
        """
import shop

@pytest.mark.cassette(tools=["shop:refund"])
def test_it():
    shop.refund(1)
    shop.refund.__code__ = (lambda order: 7).__code__

@pytest.mark.cassette
def test_after(): ask("hello")
"""
    )
    result = project.run("--record-mode=once", process=True)
    assert result.outcomes == {"failed": 1, "passed": 1}
    assert "the code of refund was replaced while it was being recorded" in result.out
    assert "INTERNALERROR" not in result.out
    assert [path.name.partition("-")[0] for path in project.cassettes()] == ["test_after"]


def test_a_hook_that_fails_at_the_end_fails_its_test_alone(project: Project) -> None:
    """A stream that nobody reads to its end is finished, and so redacted, when the run ends."""
    project.server.script(lambda request: Stream([b"data: {}\n\n"] * 3))
    project.write(
        """
def pytest_spanchain_redact(kind, part):
    if "status" in part:
        raise RuntimeError("hook breaks")
""",
        name="conftest.py",
    )
    project.write(
        """
import os
import httpx2

@pytest.mark.cassette
def test_it():
    client = httpx2.Client(verify=False)
    response = client.send(client.build_request("GET", os.environ["OPENAI_BASE_URL"]), stream=True)
    next(response.iter_bytes())

def test_after(): ...
"""
    )
    result = project.run("--record-mode=once", "-W", "ignore::ResourceWarning", process=True)
    assert result.outcomes == {"failed": 1, "passed": 1}
    assert result.out.count("RuntimeError: hook breaks") >= 1
    assert "INTERNALERROR" not in result.out
    assert project.cassettes() == []


def test_traces_are_equal_in_the_test_by_the_rules_of_the_verdict(project: Project) -> None:
    source = """
@pytest.mark.cassette(ignore=["body.json.messages[*].content"])
def test_it(spanchain):
    ask("WORD")
    assert spanchain.deviations == ()
    assert spanchain.live == spanchain.golden
"""
    project.write(source.replace("WORD", "hello"))
    project.record()
    project.write(source.replace("WORD", "hullo"))
    assert project.run().counts["replayed"] == 1


@pytest.mark.parametrize("call", ["swallow('too late')", "leave()"])
def test_what_is_refused_after_the_verdict_fails_the_teardown(project: Project, call: str) -> None:
    """The verdict is given, and the error is swallowed: it is told all the same."""
    project.write(
        f"""
import socket
from pathlib import Path

def leave():
    try:
        socket.create_connection(("127.0.0.1", 9))
    except Exception:
        pass

@pytest.fixture
def cleanup():
    yield
    if Path("late").read_text():
        {call}

@pytest.mark.cassette
def test_it(cleanup):
    ask("hello")
"""
    )
    (project.path / "late").write_text("")
    project.record()
    (project.path / "late").write_text("yes")
    result = project.run("-W", "ignore::ResourceWarning")
    assert result.outcomes == {"passed": 1, "errors": 1}
    assert "had ended" in result.out


@pytest.mark.parametrize("left", ["finalizer", "fixture", "thread", "pool"])
def test_a_tool_that_is_called_after_a_replay_does_not_run(project: Project, left: str) -> None:
    project.write(
        """
from pathlib import Path

def refund(order):
    with Path("ledger").open("a") as ledger:
        ledger.write(order)
    return order
""",
        name="shop.py",
    )
    ways = {
        "finalizer": "request.addfinalizer(late)",
        "fixture": "pass",
        "thread": "threading.Thread(target=wait_and_do).start()",
        "pool": "pool.submit(wait_and_do)",
    }
    project.write(
        f"""
import shop, threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

pool, release, done = ThreadPoolExecutor(1), threading.Event(), threading.Event()
pool.submit(int).result()

def late():
    with suppress(Exception):
        shop.refund("late ")

def wait_and_do():
    release.wait(5)
    late()
    done.set()

@pytest.fixture
def cleanup(spanchain):
    yield
    if not spanchain.recording and {left == "fixture"}:
        late()

@pytest.mark.cassette(tools=["shop:refund"])
def test_it(request, spanchain, cleanup):
    shop.refund("once ")
    if not spanchain.recording:
        {ways[left]}

def test_next():
    release.set()
    if {left in ("thread", "pool")} and not Path("recording").exists():
        assert done.wait(5)
""".replace("import shop, threading", "import shop, threading\nfrom pathlib import Path")
    )
    (project.path / "recording").touch()
    project.run("--record-mode=once", process=True)
    (project.path / "recording").unlink()
    before = (project.path / "ledger").read_text()
    result = project.run(process=True)
    assert result.outcomes == {"passed": 2, **({"errors": 1} if left in ("finalizer", "fixture") else {})}
    assert before == (project.path / "ledger").read_text() == "once ", "no body ran"
