"""The terminal: exit statuses, what is printed and to whom, and that no code of the project is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import builders
import model_replies
import trees
from caller import ask
from pytest_spanchain import _chain, _codec
from pytest_spanchain.cli import CLEAN, FAILS, READER_GONE, UNREADABLE, USAGE, main
from recording import record
from servers import ModelServer

GOOD = _codec.dumps(builders.sample_document()).decode()
BROKEN = GOOD.replace("Only once per order", "As often as you like")
CUT = _codec.dumps({**builders.sample_document(), "entries": builders.sample_document()["entries"][:-1]}).decode()
HEAD = _chain.verify(_codec.loads(GOOD.encode(), path="x"), path="x").head
COMMAND = Path(sys.executable).with_name("spanchain")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a cassette of every condition."""
    monkeypatch.chdir(tmp_path)
    texts = {"good": GOOD, "other": GOOD, "broken": BROKEN, "cut": CUT, "words": "just [words\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    assert len({GOOD, BROKEN, CUT}) == 3
    return tmp_path


def spanchain(*args: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The command as it is installed."""
    return subprocess.run(
        [str(COMMAND), *map(str, args)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


# --- verify ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "status"),
    [
        ("good", CLEAN),
        ("good other", CLEAN),
        ("broken", FAILS),
        ("cut", FAILS),
        ("words", UNREADABLE),
        ("missing", UNREADABLE),
        ("good broken", FAILS),
        ("broken words", UNREADABLE),
        ("words good", UNREADABLE),
    ],
)
def test_the_worst_file_decides_the_status(shelf: Path, names: str, status: int) -> None:
    assert main(["verify", *(f"{name}.yaml" for name in names.split())]) == status


def test_verify_says_of_each_file_how_it_is(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", *(f"{name}.yaml" for name in ("good", "broken", "cut", "words", "missing"))])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"ok       good.yaml  6 entries, head {HEAD[:12]}"
    assert [line.split()[0] for line in lines if not line.startswith(" ")][1:-1] == ["failed"] * 2 + ["unreadable"] * 2
    assert [line.split()[1].split(":")[0] for line in lines if not line.startswith(" ")][1:-1] == [
        f"{name}.yaml" for name in ("broken", "cut", "words", "missing")
    ]
    assert lines[-1] == "1 verified, 4 failed"
    assert err == ""


def test_verify_as_json(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("good", "broken", "cut", "words", "missing")
    status = main(["verify", "--json", *(f"{name}.yaml" for name in names)])
    out, err = capsys.readouterr()
    assert (status, err) == (UNREADABLE, "")
    document = json.loads(out)
    assert list(document) == ["cassettes"]
    found = {Path(one["path"]).stem: one for one in document["cassettes"]}
    assert tuple(found) == names
    assert found["good"] == {
        "path": "good.yaml",
        "integrity": "ok",
        "completeness": "complete",
        "entries": 6,
        "head": HEAD,
        "nodeid": builders.NODEID,
        "problem": None,
    }
    verdicts = {name: (one["integrity"], one["completeness"]) for name, one in found.items()}
    assert verdicts == {
        "good": ("ok", "complete"),
        "broken": ("broken", "unknown"),
        "cut": ("ok", "incomplete"),
        "words": ("unreadable", "unknown"),
        "missing": ("unreadable", "unknown"),
    }
    for name in names[1:]:
        assert list(found[name]) == list(found["good"])
        assert list(found[name]["problem"]) == ["reason", "line", "entry", "field", "remedy"]
        assert found[name]["problem"]["reason"]
        assert found[name]["problem"]["remedy"]
    assert isinstance(found["broken"]["problem"]["line"], int)
    assert isinstance(found["broken"]["problem"]["entry"], int)


def test_directories_are_searched_and_a_file_counts_once(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = shelf / "cassettes" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "one.yaml").write_text(GOOD, encoding="utf-8")
    (deep.parent / "two.yaml").write_text(BROKEN, encoding="utf-8")
    (deep / ".hidden.yaml").write_text("x")
    (deep / "notes.txt").write_text("x")
    (deep / ".one.yaml.123.spanchain-tmp").write_text("x")
    assert main(["verify", "cassettes", "cassettes/a/b/one.yaml", "good.yaml"]) == FAILS
    out = capsys.readouterr().out
    assert "2 verified, 1 failed" in out
    assert [line.split()[1].split(":")[0] for line in out.splitlines() if line[:2] in ("ok", "fa")] == [
        "cassettes/a/b/one.yaml",
        "cassettes/a/two.yaml",
        "good.yaml",
    ]


def test_a_cassette_that_is_no_regular_file_is_unreadable(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shelf / "link.yaml").symlink_to("good.yaml")
    (shelf / "folder.yaml").mkdir()
    (shelf / "folder.yaml" / "one.yaml").write_text(GOOD, encoding="utf-8")
    assert main(["verify", "link.yaml"]) == UNREADABLE
    assert "is a symbolic link" in capsys.readouterr().out
    assert main(["show", "folder.yaml"]) == UNREADABLE
    assert "is not a regular file" in capsys.readouterr().err
    assert main(["verify", "folder.yaml"]) == CLEAN


@pytest.fixture
def locked() -> Iterator[Path]:
    """A directory with a good cassette and with a directory that may not be looked into."""
    top = Path(tempfile.mkdtemp())
    try:
        (top / "good.yaml").write_text(GOOD, encoding="utf-8")
        (top / "locked").mkdir()
        (top / "locked" / "broken.yaml").write_text(BROKEN, encoding="utf-8")
        (top / "locked").chmod(0)
        top.chmod(0o755)
        (top / "good.yaml").chmod(0o644)
        yield top
    finally:
        (top / "locked").chmod(0o700)
        shutil.rmtree(top)


@pytest.mark.skipif(os.name == "nt", reason="needs permissions of POSIX")
def test_a_directory_that_cannot_be_looked_into_is_no_success(
    shelf: Path, locked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "good.yaml"]) == CLEAN  # also imports what the user below may not
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(SystemExit) as stopped:
            main(["verify", str(locked)])
        status = main(["verify", str(locked / "locked")]) if stopped.value.code == CLEAN else stopped.value.code
    finally:
        os.seteuid(user)
    assert status == UNREADABLE
    assert "locked: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "required: COMMAND"),
        (["verify"], "required: PATH"),
        (["verfy", "good.yaml"], "invalid choice: 'verfy'"),
        (["verify", "--jsn", "good.yaml"], "unrecognized arguments: --jsn"),
        (["verify", "empty"], "empty holds no cassettes (*.yaml)"),
        (["show"], "required: PATH"),
        (["diff", "good.yaml"], "required: B"),
    ],
)
def test_wrong_usage(shelf: Path, args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (shelf / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == USAGE
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""


# --- show and diff -----------------------------------------------------------------------------------------------


def test_show_draws_the_tree(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "good.yaml"]) == CLEAN
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == builders.NODEID
    assert lines[1] == f"recorded 2026-11-21T09:50:49Z (claimed), 5 spans, head {HEAD}"
    names = [span.name for span in builders.sample_tree()]
    assert [next(name for name in names if name in line) for line in lines[2:] if "error:" not in line] == names
    assert "error: timed out\\x1b[31m" in "\n".join(lines)


@pytest.mark.parametrize(("name", "status"), [("broken", FAILS), ("cut", FAILS), ("words", UNREADABLE), ("no", 3)])
def test_nothing_is_shown_of_what_does_not_hold(
    shelf: Path, name: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for args in (
        ["show", f"{name}.yaml"],
        ["diff", "good.yaml", f"{name}.yaml"],
        ["diff", f"{name}.yaml", "good.yaml"],
    ):
        assert main(args) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"spanchain: {name}.yaml")


def test_diff_of_two_recordings(
    tmp_path: Path, sdk_env: ModelServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sdk_env.script(lambda request: model_replies.answer(request, "fine"))
    for name, prompt in (("a", "how are you?"), ("b", "how are you?"), ("c", "how is she?")):
        record(tmp_path / f"{name}.yaml", partial(ask, prompt), name="same")
    assert main(["diff", "a.yaml", "b.yaml"]) == CLEAN
    assert capsys.readouterr().out == "no deviations\n"
    assert main(["diff", "a.yaml", "c.yaml"]) == FAILS
    out = capsys.readouterr().out
    assert "input_changed at chat gpt-test" in out
    assert "how is she?" in out
    assert "look closer" not in out, "everything is on the screen"
    done = spanchain("diff", "-vv", "a.yaml", "c.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (FAILS, "")
    assert "how is she?" in done.stdout


def test_diff_tells_durations_if_asked_and_does_not_fail_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, ms in (("a", 10), ("b", 40)):
        tree = trees.build(trees.agent("test", trees.tool("slow", ms=ms)))
        document = _chain.seal(builders.sample_header(), tree, trace_id=builders.TRACE_ID, outcome="passed")
        (tmp_path / f"{name}.yaml").write_bytes(_codec.dumps(document))
    assert main(["diff", "a.yaml", "b.yaml"]) == CLEAN
    assert capsys.readouterr().out == "no deviations\n"
    assert main(["diff", "--durations", "a.yaml", "b.yaml"]) == CLEAN
    out = capsys.readouterr().out
    assert out.startswith("spanchain: no deviation from the golden trace (2 differences noted)\n")
    assert "note: duration_changed at execute_tool slow: duration_ns 10000000 -> 40000000" in out


# --- the process -------------------------------------------------------------------------------------------------

POISON = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n"


def test_no_code_of_the_project_runs(shelf: Path) -> None:
    """Nor is a module found in the working directory in the place of a library."""
    names = (
        "conftest",
        "sitecustomize",
        "usercustomize",
        "yaml",
        "opentelemetry",
        "deepdiff",
        "pytest",
        "json",
        "tests",
    )
    for name in names:
        (shelf / f"{name}.py").write_text(POISON)
    (shelf / "pytest.ini").write_text("[pytest]\naddopts = -p conftest\n")
    done = spanchain("verify", "good.yaml", "broken.yaml", cwd=shelf)
    assert done.returncode == FAILS
    assert "1 verified, 1 failed" in done.stdout
    assert spanchain("show", "good.yaml", cwd=shelf).returncode == CLEAN
    assert spanchain("diff", "good.yaml", "other.yaml", cwd=shelf).returncode == CLEAN
    assert not (shelf / "ran").exists()


def test_verify_imports_neither_pytest_nor_telemetry(shelf: Path) -> None:
    script = (
        "import sys; from pytest_spanchain.cli import main; status = main(['verify', 'good.yaml']);"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'pytest', '_pytest', 'opentelemetry', 'deepdiff', 'httpx', 'httpx2', 'asyncio'})); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (CLEAN, "")
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(os.name == "nt", reason="needs pipes of POSIX")
@pytest.mark.parametrize("args", [["show", "good.yaml"], ["verify", "--json", "good.yaml", "broken.yaml"]])
def test_a_reader_that_leaves_is_no_traceback(shelf: Path, args: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)  # as `| head` does once it has had enough
    done = subprocess.run(
        [str(COMMAND), *args], cwd=shelf, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (READER_GONE, "")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_head_gets_its_line(shelf: Path) -> None:
    done = subprocess.run(
        f"'{COMMAND}' show good.yaml | head -1", shell=True, cwd=shelf, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (CLEAN, f"{builders.NODEID}\n", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_without_utf8_gets_escapes(shelf: Path, encoding: str) -> None:
    odd = _codec.dumps(builders.sample_document(nodeid="test_日本[◀]"))
    (shelf / "ø日.yaml").write_bytes(odd)
    env = {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}
    for args in (["show", "ø日.yaml"], ["verify", "ø日.yaml"]):
        done = subprocess.run(
            [str(COMMAND), *args], cwd=shelf, env={**os.environ, **env}, capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (CLEAN, b"")
        assert b"\\u65e5" in done.stdout
        done.stdout.decode(encoding)


def test_a_file_name_cannot_speak_to_the_terminal(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shelf / "a\x1b[2J.yaml").write_text(GOOD, encoding="utf-8")
    (shelf / "b\x1b[2J.yaml").write_text(BROKEN, encoding="utf-8")
    main(["verify", "a\x1b[2J.yaml", "b\x1b[2J.yaml"])
    main(["show", "b\x1b[2J.yaml"])
    main(["diff", "a\x1b[2J.yaml", "good.yaml"])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "a\\x1b[2J.yaml" in out
    assert "b\\x1b[2J.yaml" in err


@pytest.mark.parametrize("command", ["show", "diff"])
def test_a_sealed_answer_of_another_shape_is_refused_before_anything_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    document = builders.sample_document()
    response = document["entries"][1]["payload"]["response"]
    response["headers"] = {"padding": "x" * 2_000}  # a large payload, which could be built later
    del response["end"]
    link = _chain.genesis(document["header"])
    for entry in document["entries"]:
        entry["prev_hash"] = link
        link = entry["sha256_hash"] = _chain.entry_hash(entry)
    path = tmp_path / "c.yaml"
    path.write_bytes(_codec.dumps(document))
    status = main([command, *[str(path)] * (1 if command == "show" else 2)])
    out, err = capsys.readouterr()
    assert status != CLEAN
    assert out == ""
    assert "payload.response.end: is missing" in err
