"""What conftests change about runs: the three hooks, and the configuration fixture."""

from __future__ import annotations

import re

import pytest

from project import Project

ONE = """
@pytest.mark.cassette
def test_ask():
    ask("hello")
"""
DRIFT = ONE.replace("hello", "hullo")
TWO_DRIFTS = DRIFT + "    ask('more')\n"


def conftest(project: Project, source: str, *, folder: str = "") -> None:
    project.write("import dataclasses\nimport pytest\n" + source, f"{folder}conftest.py")


def recorded(project: Project, source: str = ONE, *, then: str = DRIFT) -> None:
    """Record a test, then change it."""
    project.write(source)
    project.record()
    project.write(then)


# --- deviations --------------------------------------------------------------------------------------------------


def test_a_deviation_is_vetoed(project: Project) -> None:
    recorded(project)
    assert project.run().outcomes == {"failed": 1}
    conftest(
        project,
        """
def pytest_spanchain_deviations(config, nodeid, deviations):
    assert isinstance(config, pytest.Config)
    assert nodeid == "test_it.py::test_ask"
    deviations[:] = [one for one in deviations if one.kind != "input_changed"]
""",
    )
    result = project.run()
    assert result.outcomes == {"passed": 1}
    assert result.counts["replayed"] == 1


def test_a_veto_of_one_leaves_the_others(project: Project) -> None:
    recorded(project, then=TWO_DRIFTS)
    conftest(
        project,
        "def pytest_spanchain_deviations(deviations):\n"
        "    deviations[:] = [one for one in deviations if one.kind != 'input_changed']\n",
    )
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "1 deviation from the golden trace: span_added" in result.out


def test_a_deviation_is_regraded_to_a_note(project: Project) -> None:
    recorded(project, then=DRIFT + "    assert 'mine' == 'yours'\n")
    conftest(
        project,
        "def pytest_spanchain_deviations(deviations):\n"
        "    deviations[:] = [dataclasses.replace(one, failing=False) for one in deviations]\n",
    )
    assert "- spanchain -" not in project.run().out
    project.write(DRIFT)
    assert project.run().outcomes == {"passed": 1}
    project.write(DRIFT.replace("():", "(spanchain):") + "    assert spanchain.deviations == ()\n")
    assert "failing=False" in project.run("-vv").out


def test_a_deviation_is_added(project: Project) -> None:
    recorded(project, then=ONE)
    conftest(
        project,
        """
from pytest_spanchain import Deviation, DeviationKind

def pytest_spanchain_deviations(nodeid, deviations):
    path, note = (nodeid,), "too dear"
    deviations.append(Deviation(DeviationKind.ATTRIBUTE_CHANGED, golden=GOLDEN[0], live=None, path=path, note=note))

GOLDEN = []

@pytest.fixture
def budget(spanchain):
    GOLDEN[:] = list(spanchain.golden)[1:]
""",
    )
    project.write(ONE.replace("():", "(budget):"))
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "1 deviation from the golden trace: attribute_changed" in result.out
    assert "too dear" in result.out


def test_a_miss_stays_a_failure_whatever_is_vetoed(project: Project) -> None:
    recorded(project, then=ONE + "    swallow('again')\n")
    conftest(project, "def pytest_spanchain_deviations(deviations):\n    deviations.clear()\n")
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "nothing recorded for chat gpt-test" in result.out


def test_the_veto_holds_for_what_a_recording_says_it_changed(project: Project) -> None:
    recorded(project)
    conftest(project, "def pytest_spanchain_deviations(deviations):\n    deviations.clear()\n")
    result = project.run("--record-mode=rewrite")
    assert result.counts["recorded"] == 1
    assert "input_changed" not in result.out


def test_hooks_of_several_conftests_add_up_where_they_apply(project: Project) -> None:
    def write(source: str) -> None:
        project.write(source, "test_top.py")
        project.write(source, "sub/test_sub.py")

    write(ONE + "    ask('more')\n")
    project.record()
    write(DRIFT)
    veto = (
        "def pytest_spanchain_deviations(deviations):\n    deviations[:] = [one for one in deviations if one.kind != "
    )
    conftest(project, f"{veto}'input_changed']\n")
    assert project.run().outcomes == {"failed": 2}
    conftest(project, f"{veto}'span_removed']\n", folder="sub/")
    result = project.run("-v")
    assert result.outcomes == {"passed": 1, "failed": 1}
    assert "sub/test_sub.py::test_ask PASSED" in result.out
    assert "test_top.py::test_ask FAILED" in result.out


# --- normalise ---------------------------------------------------------------------------------------------------

SAME = """
def pytest_spanchain_normalise(config, nodeid, kind, name, request):
    assert (kind, name, nodeid) == ("model", "chat gpt-test", "test_it.py::test_ask")
    for message in request["body"]["json"]["messages"]:
        message["content"] = message["content"].replace("u", "e")
"""


def test_requests_are_normalised_for_match_and_comparison_only(project: Project) -> None:
    conftest(project, SAME)
    recorded(project, DRIFT, then=ONE)
    (cassette,) = project.cassettes()
    assert "hullo" in cassette.read_text()  # recorded as it was
    result = project.run()
    assert result.outcomes == {"passed": 1}
    assert result.counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    (project.path / "conftest.py").unlink()
    assert project.run().outcomes == {"failed": 1}


def test_what_is_normalised_is_a_copy(project: Project) -> None:
    conftest(project, "def pytest_spanchain_normalise(request):\n    request.clear()\n")
    project.write(ONE.replace('ask("hello")', 'assert ask("hello") == "You said: hello"'))
    project.record()
    assert "hello" in project.cassettes()[0].read_text()
    assert project.run().counts["replayed"] == 1


# --- redact ------------------------------------------------------------------------------------------------------

CENSOR = """
import json

def pytest_spanchain_redact(config, nodeid, kind, part):
    assert nodeid == "test_it.py::test_ask"
    assert kind == "model"
    text = json.dumps(part).replace("Smith", "{name}")
    part.clear()
    part.update(json.loads(text))
"""


def test_requests_and_responses_are_redacted_before_anything_sees_them(project: Project) -> None:
    conftest(project, CENSOR)
    source = ONE.replace('ask("hello")', 'assert "Smith" in ask("I am Smith")')
    project.write(source)
    project.record()
    (cassette,) = project.cassettes()
    text = cassette.read_text()
    assert "Smith" not in text
    assert "I am {name}" in text
    assert "You said: I am {name}" in text
    project.write(source.replace('"Smith" in', '"{name}" in'))
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    project.write(source.replace('"Smith" in', '"{name}" in').replace("I am", "Call me"))
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "Call me {name}" in result.out


def test_redactions_of_several_conftests_add_up(project: Project) -> None:
    project.write(ONE.replace("hello", "Smith of York"), "sub/test_it.py")
    conftest(project, CENSOR.replace("test_it", "sub/test_it"))
    conftest(project, CENSOR.replace("test_it", "sub/test_it").replace("Smith", "York"), folder="sub/")
    project.record()
    text = project.cassettes()[0].read_text()
    assert "{name} of {name}" in text
    assert "Smith" not in text
    assert "York" not in text


WRONG = {
    "no layout": (
        "if 'status' in part: part['body'].pop('layout')",
        "response of a model call .*body.layout is missing",
    ),
    "no body": ("if 'status' in part: del part['body']", "response of a model call .*body is missing"),
    "no url": ("if 'url' in part: del part['url']", "request of a model call .*url is missing"),
    "emptied": ("part.clear()", "request of a model call .*method is missing"),
    "layout": ("if 'status' in part: part['body']['layout'] = 'odd'", "response .*body.layout cannot be read"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("swallows", [False, True], ids=["raises", "swallows"])
def test_what_redaction_leaves_must_be_replayable(project: Project, what: str, swallows: bool) -> None:
    body, message = WRONG[what]
    conftest(project, f"def pytest_spanchain_redact(part):\n    {body}\n")
    project.write(SWALLOWS if swallows else ONE)
    result = project.run("--record-mode=once")
    assert result.outcomes == {"failed": 1}
    assert re.search(f"left the {message}", result.out)
    assert "KeyError" not in result.out
    assert project.cassettes() == []


def test_rules_that_leave_no_replayable_response_fail_the_recording(project: Project) -> None:
    project.write(ONE.replace("@pytest.mark.cassette", "@pytest.mark.cassette(redact=['body.*'])"))
    result = project.run("--record-mode=once")
    assert result.outcomes == {"failed": 1}
    assert "left the response of a model call" in result.out
    assert project.cassettes() == []


# --- hooks that go wrong -----------------------------------------------------------------------------------------

BAD = {
    "deviations": "def pytest_spanchain_deviations(deviations):\n    ",
    "normalise": "def pytest_spanchain_normalise(request):\n    ",
    "redact": "def pytest_spanchain_redact(part):\n    ",
}
SWALLOWS = ONE.replace("    ask(", "    swallow(")


@pytest.mark.parametrize("hook", BAD)
@pytest.mark.parametrize("source", [ONE, SWALLOWS], ids=["raises", "swallows"])
def test_a_hook_that_raises_fails_the_replay_and_is_named(project: Project, hook: str, source: str) -> None:
    recorded(project, then=source)
    conftest(project, BAD[hook] + "raise LookupError('no such thing')\n")
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert "INTERNALERROR" not in result.out
    where = f"hook pytest_spanchain_{hook} failed at {project.path / 'conftest.py'}:4: LookupError: no such thing"
    assert where in result.out
    assert result.out.count(where) <= 3  # not once a call
    assert project.requests == 1


@pytest.mark.parametrize("source", [ONE, SWALLOWS], ids=["raises", "swallows"])
def test_a_first_recording_without_redaction_is_not_written(project: Project, source: str) -> None:
    project.write(source)
    conftest(project, BAD["redact"] + "raise LookupError('no such thing')\n")
    result = project.run("--record-mode=once")
    assert result.outcomes == {"failed": 1}
    assert "hook pytest_spanchain_redact failed at" in result.out
    assert (project.cassettes(), project.requests) == ([], 0)


@pytest.mark.parametrize("hook", BAD)
def test_a_hook_that_raises_leaves_the_old_cassette(project: Project, hook: str) -> None:
    recorded(project, then=SWALLOWS)
    before = project.cassettes()[0].read_bytes()
    conftest(project, BAD[hook] + "raise LookupError('no such thing')\n")
    result = project.run("--record-mode=rewrite")
    assert result.outcomes == {"failed": 1}
    assert f"hook pytest_spanchain_{hook} failed at" in result.out
    assert "INTERNALERROR" not in result.out
    assert project.cassettes()[0].read_bytes() == before


@pytest.mark.parametrize("hook", BAD)
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1]", "a hook changes what it is given and returns nothing, not [1]"),
        ("pytest.fail('my words')", "my words"),
    ],
)
def test_a_hook_that_gives_a_verdict_or_a_value_is_refused(
    project: Project, hook: str, body: str, message: str
) -> None:
    recorded(project, then=ONE)
    conftest(project, BAD[hook] + body + "\n")
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert f"hook pytest_spanchain_{hook} failed" in result.out
    assert message in result.out
    assert "INTERNALERROR" not in result.out


@pytest.mark.parametrize(
    ("hook", "body", "message"),
    [
        ("deviations", "deviations.append('no')", "not a deviation with a golden or a live span and a path: 'no'"),
        ("normalise", "request['when'] = {1, 2}", "builtins.set is not a plain value"),
        ("redact", "part[3] = 4", "mapping key 3 is not a string"),
    ],
)
def test_what_a_hook_leaves_behind_is_checked(project: Project, hook: str, body: str, message: str) -> None:
    recorded(project, then=ONE)
    conftest(project, BAD[hook] + body + "\n")
    result = project.run()
    assert result.outcomes == {"failed": 1}
    assert message in result.out
    assert "INTERNALERROR" not in result.out


def test_a_misspelt_hook_or_argument_stops_the_session(project: Project) -> None:
    recorded(project, then=ONE)
    conftest(project, "def pytest_spanchain_deviation(deviations): ...\n")
    result = project.run()
    assert result.code != 0
    assert "unknown hook 'pytest_spanchain_deviation'" in result.out + result.err
    conftest(project, "def pytest_spanchain_deviations(deviation): ...\n")
    result = project.run()
    assert result.code != 0
    assert "deviation" in result.out + result.err
    assert not result.outcomes.get("passed")


# --- the fixture -------------------------------------------------------------------------------------------------


def test_the_fixture_configures_what_it_covers(project: Project) -> None:
    settings = "{'directory': 'tapes', 'eval_id': 'e'}"
    conftest(project, f"@pytest.fixture\ndef spanchain_config(): return {settings}\n", folder="sub/")
    project.write(ONE, "sub/test_in.py")
    project.write(ONE, "test_out.py")
    assert project.record().counts["recorded"] == 2
    (inside,) = (project.path / "tapes").rglob("*.yaml")
    assert 'eval_id: "e"' in inside.read_text().replace("eval_id: e\n", 'eval_id: "e"\n')
    assert len(project.cassettes()) == 1
    assert project.run().counts["replayed"] == 2


@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_the_fixture_may_have_any_scope_and_use_others(project: Project, scope: str) -> None:
    conftest(
        project,
        f"""
@pytest.fixture(scope="{scope}")
def where(): return "tapes"

@pytest.fixture(scope="{scope}")
def spanchain_config(where): return {{"directory": where}}
""",
    )
    project.write(ONE)
    project.record()
    assert len(list((project.path / "tapes").rglob("*.yaml"))) == 1


LISTS = """
@pytest.mark.cassette(ignore=["body.json.marker"], MARKER)
def test_it(spanchain):
    settings = spanchain._run.settings
    print("ignore", *settings.ignore)
    print("settings", settings.mode, settings.directory, settings.eval_id)
"""


@pytest.mark.parametrize(
    ("marker", "args", "settings"),
    [
        ("mode='all', directory='m', eval_id='m'", ["--record-mode=once"], "all m m"),
        ("", ["--record-mode=once"], "once f f"),
        ("eval_id='m'", [], "new_episodes f m"),
    ],
)
def test_marker_wins_over_command_line_over_fixture_over_ini(
    project: Project, marker: str, args: list[str], settings: str
) -> None:
    project.ini(
        "spanchain_record_mode = rewrite",
        "spanchain_directory = i",
        "spanchain_eval_id = i",
        "spanchain_ignore = body.json.ini",
    )
    fixture = "{'mode': 'new_episodes', 'directory': 'f', 'eval_id': 'f', 'ignore': ['body.json.fixture']}"
    conftest(project, f"@pytest.fixture\ndef spanchain_config(): return {fixture}\n")
    project.write(LISTS.replace("MARKER", marker))
    out = project.run("-rP", *args).out
    assert f"settings {settings}\n" in out
    assert "ignore body.json.ini body.json.fixture body.json.marker\n" in out
    conftest(project, "")
    if not marker and args:
        assert "settings once i i\n" in project.run("-rP", *args).out
