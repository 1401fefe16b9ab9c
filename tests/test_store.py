"""Paths that keep node ids apart, reading that trusts nothing, saving that survives a kill at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import builders
from pytest_spanchain import _codec, _store
from pytest_spanchain.errors import CassetteBroken, CassetteMissing, CassetteUnreadable, RecordingError

ROOT = Path("cassettes")
DATA = _codec.dumps(builders.sample_document())

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files and processes")


def run_script(source: str, *arguments: str, cwd: Path) -> str:
    """Run Python source in a process of its own; its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Paths


def test_a_path_is_readable() -> None:
    path = _store.cassette_path(ROOT, "tests/shop/test_refund.py::TestEu::test_late[42-no way]")
    assert path.parent == ROOT / "tests" / "shop" / "test_refund"
    assert path.name.startswith("TestEu-test_late-42-no-way-")
    assert len(path.name) == len("TestEu-test_late-42-no-way-") + 12 + len(".yaml")
    assert _store.cassette_path(ROOT, "nightly run").parent == ROOT


ALIKE = [
    f"tests/test_x.py::{test}" for test in ("a/b", "a:b", "a-b", "a b", "A-b", "a-B", "a--b", "a\\b", "a-b-", "a", "A")
] + [
    *("tests/test_X.py::a", "tests/test_x::a", "tests/test_x.py.py::a", "tests\\test_x.py::a", "./tests/test_x.py::a"),
    *("tests/test_x.py::\xe9", "tests/test_x.py::e\u0301", "tests/test_x.py::\u212a", "tests/test_x.py::k"),
    *(
        "tests/test_x.py::" + "a" * 200,
        "tests/test_x.py::" + "a" * 201,
        "tests/test_x.py::",
        "tests/test_x.py",
        "\udcff",
    ),
]


def test_lookalikes_do_not_share_a_file_on_any_file_system() -> None:
    folded = {unicodedata.normalize("NFC", str(_store.cassette_path(ROOT, nodeid))).casefold() for nodeid in ALIKE}
    assert len(folded) == len(set(ALIKE)) == len(ALIKE)


HOSTILE = [
    *(
        "../../etc/passwd.py::t",
        "/etc/passwd.py::t",
        "C:/x.py::t",
        "C:\\x.py::t",
        "\\\\host\\share\\x.py::t",
        "~/x.py::t",
    ),
    *(
        "a.py::[../../x]",
        "a.py::..",
        "a.py::[/etc]",
        "a.py::[C:\\x]",
        "a.py::[\x00]",
        "a\x00.py::t",
        "a.py::[CON]",
        "::t",
    ),
    *(
        "con.py::t",
        "NUL/aux.py::t",
        "lpt1.x/com1.py::t",
        ".../ . /..py::t",
        "a.py::" + "x" * 3000,
        "x" * 300 + ".py::t",
    ),
    *("a.py::t.", "a.py::-", "-rf.py::t", ".git/hooks.py::t", "a.py::\u202e", "a.py::\n"),
]


@pytest.mark.parametrize("nodeid", HOSTILE, ids=ascii)
def test_no_node_id_leaves_the_directory(nodeid: str) -> None:
    check_path(nodeid)


@given(st.text(max_size=40) | st.text("./\\:aN\x00~ -", max_size=20))
@settings(max_examples=200, deadline=None)
def test_no_text_leaves_the_directory(nodeid: str) -> None:
    check_path(nodeid)
    check_path(nodeid + ".py::test")


def check_path(nodeid: str) -> None:
    """Every part below the directory is a harmless name on every file system."""
    path = _store.cassette_path(ROOT, nodeid)
    parts = path.relative_to(ROOT).parts
    for part in parts:
        assert part.isascii()
        assert part.removesuffix(".yaml").replace("-", "").replace("_", "").isalnum() or set(part) <= {"_"}
        assert not part.startswith("-")
        assert len(part) <= 100
        device = part.split(".")[0].upper()
        assert device not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}
    assert PureWindowsPath(*parts).drive == ""
    assert Path(os.path.normpath(path)) == path


# Reading


def test_saved_is_loaded(tmp_path: Path) -> None:
    path = _store.cassette_path(tmp_path / "cassettes", builders.NODEID)
    assert not _store.exists(path)
    _store.save(path, DATA)
    assert _store.exists(path)
    cassette = _store.load(path, nodeid=builders.NODEID, shown="cassettes/x.yaml")
    assert cassette.tree == builders.sample_tree()
    assert cassette.path == "cassettes/x.yaml"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with pytest.raises(CassetteBroken, match="recorded for"):
        _store.load(path, nodeid="tests/test_shop.py::test_other")


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(CassetteMissing, match=r"check the path, or .* --record-mode=once"):
        _store.load(tmp_path / "none" / "x.yaml")


@pytest.mark.parametrize("name", ["file/x.yaml", "n" * 300 + ".yaml", "a\x00b.yaml"], ids=["in a file", "long", "NUL"])
def test_only_absence_means_no(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    for ask in (_store.exists, _store.load):
        with pytest.raises(CassetteUnreadable, match="cannot be read"):
            ask(tmp_path / name)


@posix_only
@pytest.mark.timeout(10)
def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    target = tmp_path / "target.yaml"
    target.write_bytes(DATA)
    (tmp_path / "link.yaml").symlink_to(target)
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "directory.yaml").mkdir()
    for name, words in (
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("fifo", "not a regular file"),
        ("directory", "not a regular file"),
    ):
        path = tmp_path / f"{name}.yaml"
        assert _store.exists(path)
        with pytest.raises(CassetteUnreadable, match=words) as caught:
            _store.load(path)
        assert caught.value.remedy
    with pytest.raises(CassetteUnreadable, match="not a regular file"):
        _store.load(Path("/dev/zero"))


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # sparse
    with pytest.raises(CassetteUnreadable, match="larger than 64 MiB"):
        _store.load(path)


# Saving


def test_save_replaces_and_takes_no_part_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    _store.save(path, b"long old text")
    _store.save(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@posix_only
def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "x.yaml").symlink_to(target)
    _store.save(tmp_path / "x.yaml", b"new")
    assert target.read_bytes() == b"precious"
    assert not (tmp_path / "x.yaml").is_symlink()


@pytest.mark.parametrize(
    "name", ["file/x.yaml", "directory", "n" * 300, "a\x00b"], ids=["in a file", "directory", "long", "NUL"]
)
def test_what_cannot_be_written_is_a_recording_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    with pytest.raises(RecordingError, match="cannot be written"):
        _store.save(tmp_path / name, b"new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["directory", "file"]


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    from pytest_spanchain import _store

    path = Path("x.yaml")
    versions = {b"A" * 300_000, b"B" * 300_000}
    _store.save(path, b"A" * 300_000)
    torn = strays = 0
    for attempt in range(100):
        child = os.fork()
        if child == 0:
            while True:
                for version in versions:
                    _store.save(path, version)
        time.sleep(random.Random(attempt).uniform(0.001, 0.008))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        torn += path.read_bytes() not in versions
        strays += len(os.listdir()) > 1
    _store.save(path, b"A" * 300_000)
    print(torn, strays > 0, os.listdir())
"""


@posix_only
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    # The second number makes sure that some kills did hit a save half-way; the next save cleared what they left.
    assert run_script(KILLED, cwd=tmp_path).strip() == "0 True ['x.yaml']"


FULL = """
    import resource, signal, sys
    from pathlib import Path
    from pytest_spanchain import _store

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        _store.save(Path(sys.argv[1]), b"x" * 50_000)
    except _store.RecordingError as error:
        print(error)
"""


@posix_only
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"old")
    assert "x.yaml: cannot be written: File too large; the old cassette is intact" in run_script(
        FULL, "x.yaml", cwd=tmp_path
    )
    assert "nothing was written" in run_script(FULL, "y.yaml", cwd=tmp_path)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("x.yaml", b"old")]


READ_ONLY = """
    import os, sys
    from pathlib import Path
    from pytest_spanchain import _chain, _codec, _store

    # Modes do not bind root; its working directory stays reachable after it has become somebody else.
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        _store.save(Path("x.yaml"), b"new")
    except _store.RecordingError as error:
        print(error)
    for ask in (_store.load, _store.exists):
        try:
            print(ask(Path("closed/x.yaml")))
        except _store.CassetteUnreadable as error:
            print(error)
"""


@posix_only
def test_a_read_only_directory_leaves_the_old_file(tmp_path: Path) -> None:
    directory = tmp_path / "read only"
    (directory / "closed").mkdir(parents=True)
    (directory / "x.yaml").write_bytes(b"old")
    (directory / "closed" / "x.yaml").write_bytes(DATA)
    (directory / "closed").chmod(0o000)
    directory.chmod(0o555)
    try:
        output = run_script(READ_ONLY, cwd=directory)
    finally:
        directory.chmod(0o755)
        (directory / "closed").chmod(0o755)
    assert "x.yaml: cannot be written: Permission denied; the old cassette is intact" in output
    assert output.count("closed/x.yaml: cannot be read: Permission denied") == 2
    assert (directory / "x.yaml").read_bytes() == b"old"


@posix_only
def test_only_what_the_dead_left_is_cleared(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    kept = [
        f".other.yaml.{os.getppid()}.spanchain-tmp",
        ".x.yaml.tmp",
        "x.yaml.1.spanchain-tmp",
        ".x.yaml.a.spanchain-tmp",
    ]
    own = f".x.yaml.{os.getpid()}.spanchain-tmp"  # an earlier process had our pid
    for name in (*kept, own, f".other.yaml.{gone.pid}.spanchain-tmp", ".x.yaml.9999999999.spanchain-tmp"):
        (tmp_path / name).write_bytes(b"")
    _store.save(tmp_path / "x.yaml", b"new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([*kept, "x.yaml"])
