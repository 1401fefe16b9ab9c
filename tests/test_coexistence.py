"""Beside other plugins: those that want the same option, marker or fixture, and those that change how tests run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from model_replies import last_text
from project import Project, Result, echo
from servers import PATIENCE, Hang, Reply, Request

ONE = """
@pytest.mark.cassette
def test_ask():
    assert ask("hello") == "You said: hello"
"""

# --- rivals ------------------------------------------------------------------------------------------------------

RIVALS = {
    # Each wants --record-mode for itself, so they cannot be installed beside each other.
    "pytest-recording": ("pytest_recording.plugin", ["pytest-recording>=0.14", "vcrpy>=7", "wrapt"]),
    "cassetter": ("cassetter.pytest_plugin", ["cassetter>=0.16"]),
}


def installer(target: Path) -> list[str] | None:
    """The start of a command that installs packages into a directory, for this Python."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(target)]
    return None


@pytest.fixture(scope="session")
def rival_at(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Installs a rival into a directory of its own, which is kept in pytest's cache; skips if that cannot be done."""
    cache = getattr(pytestconfig, "cache", None)
    shelf = cache.mkdir("rivals") if cache else tmp_path_factory.mktemp("rivals")
    failed: dict[str, str] = {}

    def rival_at(name: str) -> Path:
        place: Path = shelf / f"{name}-{sys.implementation.cache_tag}"
        if name not in failed and not place.exists():
            unfinished = Path(tempfile.mkdtemp(dir=shelf))
            command = installer(unfinished / "site")
            if command is None:
                pytest.skip(f"neither pip nor uv can install {name}")
            done = subprocess.run(
                [*command, *RIVALS[name][1]], capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode:
                failed[name] = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given"
            elif not place.exists():  # another worker may have been faster
                (unfinished / "site").rename(place)
            shutil.rmtree(unfinished)
        if name in failed:
            pytest.skip(f"{name} cannot be installed: {failed[name]}")
        return place

    return rival_at


THEIRS = """
import os
from urllib.request import Request, urlopen

@pytest.mark.cassette
def test_ours(spanchain):
    assert ask("hello") == "You said: hello"
    assert len(spanchain.live.named("chat gpt-test")) == 1

@pytest.mark.vcr
def test_theirs(vcr):
    assert vcr is not None
    assert CALL("theirs") == "You said: theirs"

def test_plain(): ...
"""
CALL = {
    "pytest-recording": """
def call(prompt):
    import json
    body = json.dumps({"model": "gpt-test", "messages": [{"role": "user", "content": prompt}]}).encode()
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    request = Request(url, body, {"content-type": "application/json"})
    with urlopen(request) as response:
        return json.load(response)["choices"][0]["message"]["content"]
""",
    "cassetter": "call = ask\n",
}


class Beside:
    """A project in which a rival is installed, and the order in which the two plugins load."""

    def __init__(self, project: Project, name: str, order: str, *, monkeypatch: pytest.MonkeyPatch, at: Path) -> None:
        self.project = project
        self._plugins: list[str] = []
        project.find(at, monkeypatch=monkeypatch)
        project.write(CALL[name] + THEIRS.replace("CALL", "call"))
        if order != "installed":
            monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            ours, theirs = "pytest_spanchain.plugin", RIVALS[name][0]
            both = (ours, theirs) if order == "ours first" else (theirs, ours)
            self._plugins = [f"-p{plugin}" for plugin in both]
            project.pytester.makeini("[pytest]\n")

    def run(self, *args: str) -> Result:
        return self.project.run(*self._plugins, *args, process=True)

    def theirs(self) -> list[Path]:
        """Their cassettes: they lie where ours do, and are named after the test alone."""
        return [path for path in self.project.cassettes() if path.stem == "test_theirs"]

    def ours(self) -> list[Path]:
        return [path for path in self.project.cassettes() if path.stem.startswith("test_ours-")]


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("order", ["installed", "ours first", "theirs first"])
def test_both_start_and_share_the_option(
    project: Project, rival_at: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, order: str
) -> None:
    both = Beside(project, name, order, monkeypatch=monkeypatch, at=rival_at(name))
    result = both.run("--record-mode=once")
    assert (result.outcomes, result.err) == ({"passed": 3}, "")
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    assert (len(both.theirs()), len(both.ours()), project.requests) == (1, 1, 2)
    result = both.run(*(["--record-mode=none"] if order == "ours first" else []))
    assert (result.outcomes, project.requests) == ({"passed": 3}, 2)
    assert result.counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    if order == "installed":
        for number, mode in enumerate(("rewrite", "all"), start=2):
            result = both.run(f"--record-mode={mode}")
            assert (result.outcomes, project.requests) == ({"passed": 3}, 2 * number)
            assert result.counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}


@pytest.mark.parametrize("name", RIVALS)
def test_each_has_an_option_of_its_own_word(
    project: Project, rival_at: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    both = Beside(project, name, "installed", monkeypatch=monkeypatch, at=rival_at(name))
    result = both.run("--record-mode=onec")  # the other's own refusal
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert "--record-mode: invalid choice: 'onec'" in result.err
    result = both.run("--spanchain-mode=once", "-k", "ours")
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    result = both.run("--spanchain-mode=none", "--record-mode=once")
    assert result.outcomes == {"passed": 3}
    assert result.counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    assert (len(both.theirs()), project.requests) == (1, 2)


def test_a_mode_that_only_the_rival_has(
    project: Project, rival_at: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Beside(project, "cassetter", "installed", monkeypatch=monkeypatch, at=rival_at("cassetter"))
    result = both.run("--record-mode=verify")
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert "test_ours: --record-mode: unknown record mode 'verify'" in result.err
    assert project.requests == 0


def test_the_fixture_of_the_rival_stays_its_own(
    project: Project, rival_at: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Beside(project, "cassetter", "ours first", monkeypatch=monkeypatch, at=rival_at("cassetter"))
    project.write(
        """
@pytest.mark.cassette
def test_ours(cassette, spanchain):
    assert cassette is None
    ask("hello")
    assert spanchain.recording

@pytest.mark.vcr
def test_theirs(cassette):
    assert type(cassette).__module__.startswith("cassetter")
"""
    )
    assert both.run("--record-mode=once").outcomes == {"passed": 2}


# --- the option, the marker and the fixture, without anything to install -----------------------------------------

NARROW = """
def pytest_addoption(parser):
    parser.addoption("--record-mode", choices=["none", "once"], default="none", dest="other_mode")
"""


@pytest.mark.parametrize("order", [("other", "spanchain"), ("spanchain", "other")])
def test_where_the_other_option_refuses_a_mode_ours_takes_it(project: Project, order: tuple[str, str]) -> None:
    project.write(NARROW, "other.py")
    project.pytester.syspathinsert()
    plugins = [f"-p{name}" for name in order]
    project.write(ONE)
    assert project.run(*plugins, "--record-mode=rewrite").code == pytest.ExitCode.USAGE_ERROR
    assert project.run(*plugins).counts["unverified"] == 1
    project.ini("spanchain_record_mode = once")
    # The other's default is nobody's word: it does not beat the ini file.
    assert project.run(*plugins).counts["recorded"] == 1
    assert project.run(*plugins, "--spanchain-mode=rewrite").counts["recorded"] == 1
    assert project.run(*plugins, "--record-mode=none").counts["replayed"] == 1
    assert project.requests == 2


REACTS = """
import pytest

def pytest_configure(config):
    config.addinivalue_line("markers", "cassette(name): record with the other one")
FIXTURE
"""
OWNS = """
@pytest.fixture(autouse=True)
def cassette():
    return "theirs"
"""


@pytest.mark.parametrize("order", [("other", "spanchain"), ("spanchain", "other")])
@pytest.mark.parametrize("workers", [[], ["-n1"]], ids=["alone", "xdist"])
def test_another_plugin_that_has_the_marker_is_named(
    project: Project, order: tuple[str, str], workers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(REACTS.replace("FIXTURE", OWNS), "other.py")
    project.pytester.syspathinsert()
    project.find(project.path, monkeypatch=monkeypatch)
    project.write(
        "@pytest.mark.cassette\ndef test_it(cassette, spanchain):\n"
        "    assert cassette == 'theirs'\n    ask('hello')\n    assert len(spanchain.live) == 2\n"
    )
    result = project.run(*(f"-p{name}" for name in order), "--record-mode=once", *workers, process=bool(workers))
    assert result.outcomes == {"passed": 1}
    line = "spanchain: another plugin (or the ini file) has the marker, too: cassette(name): record with the other one"
    assert result.out.count(line) == 1
    project.write("def test_plain(): ...\n")
    assert "another plugin" not in project.run(*(f"-p{name}" for name in order)).out


def test_a_plugin_with_a_module_of_that_name_does_not_own_the_fixture(project: Project) -> None:
    project.write("import cassette\n", "other.py")
    project.write("", "cassette.py")
    project.pytester.syspathinsert()
    project.write("@pytest.mark.cassette\ndef test_it(cassette):\n    ask('hello')\n    assert cassette.recording\n")
    assert project.run("-pother", "--record-mode=once").outcomes == {"passed": 1}


# --- rerunfailures -----------------------------------------------------------------------------------------------

FLAKY = """
import pathlib

@pytest.fixture
def early():
    return ask("early")

@pytest.mark.cassette
@pytest.mark.flaky(reruns=REruns)
def test_flaky(early, spanchain):
    attempts = pathlib.Path("attempts")
    attempts.write_text((attempts.read_text() if attempts.exists() else "") + "x")
    WHAT
    assert len(spanchain.live.named("chat gpt-test")) == 2  # of this attempt only
"""
FIRST = "len(attempts.read_text()) == 1"


def test_each_attempt_is_a_run_of_its_own(project: Project) -> None:
    flaky = FLAKY.replace("REruns", "2")
    project.write(flaky.replace("WHAT", f"ask('late')\n    assert not {FIRST}"))
    result = project.run("--record-mode=once")
    assert result.outcomes == {"passed": 1, "rerun": 1}
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 4, "unverified": 0}
    # In replay the first attempt asks for something else, and for more than was recorded.
    for drift in ("ask('other')", "ask('late'), swallow('more')"):
        (project.path / "attempts").unlink()
        project.write(flaky.replace("WHAT", f"({drift}) if {FIRST} else ask('late')"))
        result = project.run()
        assert result.outcomes == {"passed": 1, "rerun": 1}, drift
        assert result.counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == 4


def test_a_test_that_fails_in_every_attempt_is_one_failure(project: Project) -> None:
    project.write(FLAKY.replace("REruns", "1").replace("WHAT", "ask('late')"))
    project.record()
    before = [path.read_bytes() for path in project.cassettes()]
    project.write(FLAKY.replace("REruns", "1").replace("WHAT", "ask('other')"))
    result = project.run()
    assert result.outcomes == {"failed": 1, "rerun": 1}
    assert result.counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    assert result.out.count("1 deviation from the golden trace: input_changed at chat gpt-test\n") == 1
    project.write(FLAKY.replace("REruns", "1").replace("WHAT", "ask('other')\n    assert 0"))
    result = project.run("--record-mode=rewrite")
    assert result.outcomes == {"failed": 1, "rerun": 1}
    assert result.counts == {"replayed": 0, "recorded": 0, "live": 4, "unverified": 1}
    assert [path.read_bytes() for path in project.cassettes()] == before


# --- timeout -----------------------------------------------------------------------------------------------------

HANGS = """
import time

@pytest.mark.cassette
def test_first():  # the imports that a first call costs are not to be timed
    ask("first")

@pytest.mark.cassette
@pytest.mark.timeout(1, method="METHOD")
def test_hangs():
    HERE

@pytest.mark.cassette
def test_next():
    assert ask("next") == "You said: next"
"""


def hang_on(prompt: str, project: Project) -> None:
    """Let the model say nothing to one prompt."""
    project.server.script(lambda request: Hang() if last_text(request) == prompt else echo(request))


def names(project: Project) -> list[str]:
    """The tests that have a cassette, or the leavings of one."""
    return [path.name.rpartition("-")[0] for path in sorted((project.path / "cassettes" / "test_it").iterdir())]


@pytest.mark.skipif(os.name == "nt", reason="needs signals of POSIX")
def test_a_timeout_by_signal_is_one_failure_and_the_next_test_runs(project: Project) -> None:
    source = HANGS.replace("METHOD", "signal")
    hang_on("hang", project)
    project.write(source.replace("HERE", "ask('hang')"))
    result = project.run("--record-mode=once", process=True)
    assert result.outcomes == {"passed": 2, "failed": 1}
    assert "Failed: Timeout" in result.out
    assert "INTERNALERROR" not in result.out
    assert result.counts == {"replayed": 0, "recorded": 2, "live": 3, "unverified": 1}
    assert names(project) == ["test_first", "test_next"]
    project.write(source.replace("HERE", "ask('fine')"))
    project.record()
    project.write(source.replace("HERE", "ask('fine')\n    time.sleep(30)"))
    before = project.requests
    result = project.run(process=True)
    assert result.outcomes == {"passed": 2, "failed": 1}
    assert "Failed: Timeout" in result.out
    assert "deviation" not in result.out
    assert result.counts == {"replayed": 3, "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == before


def test_a_timeout_by_thread_ends_the_process_and_writes_nothing_more(project: Project) -> None:
    hang_on("hang", project)
    project.write(HANGS.replace("METHOD", "thread").replace("HERE", "ask('hang')"))
    result = project.run("--record-mode=once", process=True)
    assert result.code == 1
    assert "Timeout" in result.out + result.err
    assert result.outcomes == {}
    assert names(project) == ["test_first"]
    project.server.script(echo)
    assert project.record().counts == {"replayed": 1, "recorded": 2, "live": 2, "unverified": 0}


# --- pytest-socket -----------------------------------------------------------------------------------------------


def test_without_sockets_replay_is_green_and_recording_gets_the_plugins_error(project: Project) -> None:
    project.write(ONE + "\n@pytest.mark.cassette\nasync def test_async():\n    assert await aask('hello')\n")
    blocked = ("--disable-socket", "--allow-unix-socket")  # every event loop has a pair of the latter
    result = project.run("--record-mode=once", *blocked, process=True)
    assert result.outcomes == {"failed": 2}
    assert "SocketBlockedError: A test tried to use socket.socket" in result.out
    assert (project.cassettes(), project.requests) == ([], 0)
    project.record()
    result = project.run(*blocked, process=True)
    assert result.outcomes == {"passed": 2}
    assert result.counts == {"replayed": 2, "recorded": 0, "live": 0, "unverified": 0}


# --- pytest-asyncio and anyio ------------------------------------------------------------------------------------

ASYNC = """
import asyncio

@FIXTURE
async def early():
    yield await aask("early")
    await asyncio.sleep(0)

@FIXTURE(scope="module", loop_scope="module")
async def outside():
    yield await aask("outside")
    assert await aask("goodbye") == "You said: goodbye"

MARK
@pytest.mark.cassette
async def test_function(early, spanchain):
    assert await asyncio.gather(*(aask(f"{n}") for n in range(3))) == [f"You said: {n}" for n in range(3)]
    assert len(spanchain.live.named("chat gpt-test")) == 4

MODULE
@pytest.mark.cassette
async def test_in_the_loop_of_the_module(outside, spanchain):
    assert outside == "You said: outside"
    assert await aask("inside") == "You said: inside"
    assert await asyncio.to_thread(ask, "thread") == "You said: thread"
    assert await asyncio.create_task(aask("task")) == "You said: task"
    assert len(spanchain.live.named("chat gpt-test")) == 3

MODULE
@pytest.mark.cassette
async def test_again_in_that_loop(outside, spanchain):
    assert await aask("inside") == "You said: inside"
    assert len(spanchain.live.named("chat gpt-test")) == 1

MODULE
async def test_unmarked_in_that_loop(outside):
    assert await aask("live") == "You said: live"
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_async_tests_fixtures_and_loops_of_any_scope(project: Project, mode: str) -> None:
    names = {
        "FIXTURE": "pytest.fixture" if mode == "auto" else "pytest_asyncio.fixture",
        "MARK": "" if mode == "auto" else "@pytest.mark.asyncio",
        "MODULE": "@pytest.mark.asyncio(loop_scope='module')",
    }
    source = ASYNC
    for name, text in names.items():
        source = source.replace(name, text)
    if mode == "auto":
        source = source.replace('(scope="module", loop_scope="module")', '(scope="module")')
        loop = "module"
    else:
        source, loop = "import pytest_asyncio\n" + source, "function"
    args: tuple[str, ...] = ("-o", f"asyncio_mode={mode}", "-o", f"asyncio_default_fixture_loop_scope={loop}")
    if mode == "auto":
        args += ("-o", "asyncio_default_test_loop_scope=module")
    project.write(source)
    result = project.run("--record-mode=once", *args)
    assert result.outcomes == {"passed": 4}, result.out
    assert result.counts == {"replayed": 0, "recorded": 3, "live": 8, "unverified": 0}
    assert project.requests == 11  # the fixture's two calls and the unmarked test's are live
    result = project.run(*args)
    assert result.outcomes == {"passed": 4}
    assert result.counts == {"replayed": 3, "recorded": 0, "live": 0, "unverified": 0}
    assert project.requests == 14
    project.write(source.replace('aask("task")', 'aask("tusk")').replace('"You said: task"', '"You said: task"'))
    result = project.run(*args)
    assert result.outcomes == {"passed": 3, "failed": 1}
    assert "input_changed at chat gpt-test" in result.out


ANYIO = """
import anyio

@pytest.fixture(params=BACKENDS)
def anyio_backend(request):
    return request.param

@pytest.fixture
async def early(anyio_backend):
    yield await aask("early")
    await anyio.sleep(0)

@pytest.mark.anyio
@pytest.mark.cassette
async def test_it(early, spanchain):
    said = {}

    async def one(n):
        said[n] = await aask(f"{n}")

    async with anyio.create_task_group() as group:
        for n in range(3):
            group.start_soon(one, n)
    assert said == {0: "You said: 0", 1: "You said: 1", 2: "You said: 2"}
    assert await anyio.to_thread.run_sync(lambda: "thread") == "thread"
    assert len(spanchain.live.named("chat gpt-test")) == 4
"""


def test_anyio_on_asyncio_and_trio(project: Project) -> None:
    together = threading.Barrier(3)

    def script(request: Request) -> Reply:
        if last_text(request) in ("0", "1", "2"):
            together.wait(PATIENCE)  # trio starts tasks in any order: that they overlap says that they are parallel
        return echo(request)

    project.server.script(script)
    project.write(ANYIO.replace("BACKENDS", "['asyncio', 'trio']"))
    result = project.run("--record-mode=once", "-o", "asyncio_mode=strict")
    assert result.outcomes == {"passed": 2}
    assert result.counts == {"replayed": 0, "recorded": 2, "live": 8, "unverified": 0}
    assert sorted(path.stem.rpartition("-")[0] for path in project.cassettes()) == ["test_it-asyncio", "test_it-trio"]
    project.server.close()
    result = project.run("-o", "asyncio_mode=strict")
    assert result.outcomes == {"passed": 2}
    assert result.counts == {"replayed": 2, "recorded": 0, "live": 0, "unverified": 0}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_drift_and_misses_under_anyio_fail_once(project: Project, backend: str) -> None:
    source = f"""
@pytest.mark.anyio
@pytest.mark.cassette
@pytest.mark.parametrize("anyio_backend", ["{backend}"])
async def test_it(anyio_backend):
    await aask("hello")
    try:
        MORE
    except* Exception:
        pass
"""
    if sys.version_info < (3, 11):
        source = source.replace("except*", "except")
    strict = ("-o", "asyncio_mode=strict")
    project.write(source.replace("MORE", "pass"))
    project.record(*strict)
    project.write(source.replace("MORE", "pass").replace("hello", "hullo"))
    result = project.run(*strict)
    assert result.outcomes == {"failed": 1}
    assert "1 deviation from the golden trace: input_changed" in result.out
    group = """
        import anyio
        async with anyio.create_task_group() as group:
            group.start_soon(aask, "again")
"""
    project.write(source.replace("        MORE\n", group))
    result = project.run(*strict)
    assert result.outcomes == {"failed": 1}
    assert "1 deviation from the golden trace: span_added" in result.out
    assert project.requests == 1


def test_conftests_above_the_rootdir_stay_unread(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeconftest("raise AssertionError('of another project')")
    inner = pytester.mkdir("inner")
    (inner / "pytest.ini").write_text("[pytest]\n")
    (inner / "test_one.py").write_text("def test_one():\n    pass\n")
    monkeypatch.chdir(inner)
    result = pytester.runpytest_subprocess("--collect-only", "-p", "no:cacheprovider")
    assert result.ret == 0, result.stdout.str()
    assert "<Dir inner>\n  <Module test_one.py>" in result.stdout.str()
