"""Child processes: recorded while they run for real, served without any.

The programs are in a directory that is taken away before the replay, and the search path leads nowhere by then.
"""

from __future__ import annotations

import asyncio
import functools
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from starts import STARTED

from model_replies import answer
from proof import REPLAYS, Stack
from pytest_spanchain import Deviation, UsageError, _joining, boundaries, use_cassette
from pytest_spanchain._model import Span
from pytest_spanchain._plan import Plan
from pytest_spanchain._run import OWNERSHIP, Hooks, Run
from pytest_spanchain._settings import RecordMode, Settings
from pytest_spanchain.boundaries import _wait
from pytest_spanchain.boundaries.clients.subprocess import _heard
from pytest_spanchain.boundaries.clients.subprocess import _joined as joined
from pytest_spanchain.boundaries.clients.subprocess._playback import Playback
from recording import Outcome, record, replay, run
from servers import ModelServer

if sys.platform == "win32":
    pytest.skip("child processes are not recorded on Windows", allow_module_level=True)

import pty
import resource

STACK = Stack(
    name="subprocess",
    dists=("pytest-spanchain", "anyio", "trio"),
    records="child processes that `commands` names, where `Popen` starts them: of subprocess, asyncio, anyio, trio and"
    " `os.popen`; what goes in and comes out chunk by chunk and in turns, exit codes, signals, and the spans of"
    " Python children",
    limits=(
        "what `os.system`, `os.fork`, `os.exec*`, `os.posix_spawn` and uvloop start is not recorded",
        "what processes of multiprocessing (`ProcessPoolExecutor`) call cannot be recorded, and is refused in replay",
        "what a child writes to its standard output and errors is served, its other effects (files, network) are not",
        "`os.wait`, `os.waitid` and `waitpid(-1)` do not see served children, nor do psutil and `/proc`",
        "a child's output goes through a pipe while it is recorded, also where it would inherit a terminal",
        "what a child reads of an inherited terminal is not recorded",
        "a command that is given pass_fds is refused",
        "child processes on Windows are not recorded",
    ),
)

CALCULATOR = """\
import sys
sys.stderr.write("ready\\n")
for line in sys.stdin:
    sys.stdout.write(f"{eval(line)}\\n")
    sys.stdout.flush()
sys.stderr.write("bye\\n")
"""
FLOOD = """\
import sys
data = sys.stdin.buffer.read()
sys.stderr.write("e" * 500_000)
sys.stdout.buffer.write(data * 2)
"""
POLITE = """\
import signal, sys, time
def stop(number, frame):
    sys.stdout.write("bye\\n")
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
sys.stdout.write("ready\\n")
sys.stdout.flush()
time.sleep(30)
"""
NOTED = "import sys; open({ledger!r}, 'a').write('ran\\n')\n"


class Bench:
    """Records an agent with the programs there, and replays it without them.

    Args:
        path: an empty directory.
        patch: pytest's own fixture.
    """

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.programs = path / "bin"
        self.cassette = path / "c.yaml"
        self.ledger = path / "ledger"
        self.python = str(self.programs / "interpreter")
        self.programs.mkdir()
        (self.programs / "interpreter").symlink_to(sys.executable)
        for name in ("git", "cat", "sh", "sleep", "echo", "seq", "head", "bc"):
            if found := shutil.which(name):
                (self.programs / name).symlink_to(found)
        self._patch = patch
        patch.setenv("PATH", str(self.programs))

    def script(self, source: str) -> list[str]:
        """A command that runs Python; each time that it does is in the ledger."""
        return [self.python, "-c", NOTED.format(ledger=str(self.ledger)) + source]

    @property
    def ran(self) -> int:
        """How often scripts have run."""
        return len(self.ledger.read_text().splitlines()) if self.ledger.exists() else 0

    def records(self, agent: Callable[[], Any], **settings: Any) -> Outcome:
        """Record, and take the programs away."""
        outcome = record(self.cassette, agent, **{"commands": ["*"], **settings})
        assert _kinds(outcome).count("process") > 0
        self.take_away()
        return outcome

    def take_away(self) -> None:
        """From here on there is nothing to start."""
        shutil.rmtree(self.programs)
        self._patch.setenv("PATH", str(self.programs))

    def holds(self, agent: Callable[[], Any], **settings: Any) -> Outcome:
        """Record and replay: the same value, no process."""
        recorded = self.records(agent, **settings)
        did = self.ran
        for _ in range(REPLAYS):
            STARTED.clear()
            again = replay(self.cassette, agent, **{"commands": ["*"], **settings})
            assert STARTED == [], "a process was started"
            assert again.value == recorded.value
            assert repr(again.raised) == repr(recorded.raised)
            assert self.ran == did, "a child ran again"
        return recorded

    def changed(self, agent: Callable[[], Any], **settings: Any) -> Outcome:
        """Replay a changed agent: red, and no process."""
        STARTED.clear()
        outcome = run(self.cassette, agent, **{"commands": ["*"], **settings})
        assert outcome.failure is not None, "a changed agent was green"
        assert STARTED == [], "a process was started"
        return outcome

    def breaks(self, agent: Callable[[], Any], **settings: Any) -> list[Deviation]:
        """What a changed agent is blamed for."""
        causes: list[Deviation] = self.changed(agent, **settings).causes
        return causes


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    before = threading.active_count()
    yield Bench(tmp_path, monkeypatch)
    until = time.monotonic() + 5
    while _own_threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert not _own_threads(), f"threads are left of {before}"


def _own_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(("spanchain-process", "spanchain-served"))]


def _kinds(outcome: Outcome) -> list[str]:
    return [span.kind for span in outcome.verdict.live]


def raised(step: Callable[[], Any]) -> Any:
    """What a step raises, in all that matters to who catches it."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - compared by the caller
        return type(error), str(error), getattr(error, "errno", None), getattr(error, "filename", None)


def echoed(bench: Bench, text: bytes = b"what is this") -> bytes:
    """What a child says back before its input ends."""
    with subprocess.Popen(bench.script("import os; os.write(1, os.read(0, 99))"), stdin=-1, stdout=-1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(text)
        child.stdin.flush()
        found = child.stdout.read()
        child.stdin.close()
    return found


# --- plain


def test_git(bench: Bench, tmp_path: Path) -> None:
    repo = tmp_path / "repo"

    def git(*words: str, text: str | None = None) -> str:
        command = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *words]
        done = subprocess.run(command, cwd=repo, input=text, capture_output=True, text=True, check=True)
        return done.stdout

    def agent() -> Any:
        git("init", "-q", "-b", "main")
        git("commit", "-q", "--allow-empty", "-F", "-", text="One\n\nwith a body")
        return git("log", "--format=%s%n%b"), raised(lambda: git("show", "nothing")), git("status", "--porcelain=v2")

    repo.mkdir()
    recorded = bench.holds(agent)
    assert recorded.value[0] == "One\nwith a body\n\n"
    assert recorded.value[1][0] is subprocess.CalledProcessError
    processes = [span for span in recorded.verdict.live if span.kind == "process"]
    assert [span.name for span in processes] == ["git"] * 5
    assert processes[3].attributes["process.exit.code"] == 128
    assert (processes[3].status, processes[3].attributes["error.type"]) == ("error", "128")
    assert processes[0].attributes["process.command_args"][0] == "git"
    assert processes[0].span_kind == "client"
    shutil.rmtree(repo)
    repo.mkdir()
    replay(bench.cassette, agent, commands=["*"])
    assert list(repo.iterdir()) == [], "no side effect again"


def test_every_way_to_start_and_to_read(bench: Bench) -> None:
    def agent() -> Any:
        found: list[Any] = [
            subprocess.run("echo a; echo b >&2; exit 3", shell=True, capture_output=True),
            subprocess.check_output(["echo", "hällo"], text=True, encoding="utf-8"),
            subprocess.getstatusoutput("echo both; echo err >&2; exit 4"),
            subprocess.call(["sh", "-c", "exit 5"]),
            subprocess.run(["sh", "-c", r"printf 'a\r\nb\rc\n'"], stdout=-1, text=True).stdout,
            subprocess.run(["cat"], input="one\ntwo", capture_output=True, text=True).stdout,
            subprocess.run(["cat"], stdin=subprocess.DEVNULL, capture_output=True).stdout,
            subprocess.run(["echo", "away"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode,
        ]
        with os.popen("echo opened; exit 2") as pipe:
            found.append(pipe.read())
        with subprocess.Popen(["seq", "3"], stdout=subprocess.PIPE, bufsize=1, text=True) as child:
            assert child.stdout is not None
            found.append(list(child.stdout))
        found.append(child.returncode)
        return [repr(one) for one in found]

    recorded = bench.holds(agent)
    assert recorded.value[3:] == [
        *("5", r"'a\nb\nc\n'", "'one\\ntwo'", "b''", "0", "'opened\\n'"),
        "['1\\n', '2\\n', '3\\n']",
        "0",
    ]
    assert recorded.verdict.notes == ()


def test_an_interactive_child_gets_its_turns(bench: Bench) -> None:
    def agent(questions: tuple[str, ...] = ("1+1", "2*3", "'x'*5")) -> Any:
        with subprocess.Popen(bench.script(CALCULATOR), stdin=-1, stdout=-1, stderr=-1, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            found = [child.stderr.readline()]
            for question in questions:
                child.stdin.write(f"{question}\n")
                child.stdin.flush()
                found.append(child.stdout.readline())
                assert child.poll() is None
            child.stdin.close()
            return found, child.stdout.read(), child.stderr.read(), child.wait()

    recorded = bench.holds(agent)
    assert recorded.value == (["ready\n", "2\n", "6\n", "xxxxx\n"], "", "bye\n", 0)
    assert bench.ran == 1
    assert re.search(r'turns: ".* >4:1 < >4:1 < >6:1 < \| ', bench.cassette.read_text())

    # A changed question is answered as it was then, shorter or longer, and reported once.
    for question in ("1", "1+1+1+1"):
        (cause,) = bench.breaks(lambda question=question: agent((question, "2*3", "'x'*5")))  # type: ignore[misc]
        assert (cause.kind, [change.path for change in cause.changes]) == ("input_changed", ["request.stdin.text"])


def test_an_answer_waits_for_its_question(bench: Bench) -> None:
    """What comes out is released by what went in, and by nothing else."""

    def agent() -> Any:
        with subprocess.Popen(bench.script(CALCULATOR), stdin=-1, stdout=-1, stderr=-1) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            os.set_blocking(child.stdout.fileno(), False)
            time.sleep(0.3)
            early = child.stdout.read()
            os.set_blocking(child.stdout.fileno(), True)
            child.stdin.write(b"40+2\n")
            child.stdin.flush()
            return early, child.stdout.readline(), child.communicate()[0]

    assert bench.holds(agent).value == (None, b"42\n", b"")


def test_chunks_are_what_they_were(bench: Bench) -> None:
    """Nothing is held back while it is recorded: the child says no more before it has heard that a chunk has come."""
    source = "import os, sys\nfor size in (1, 70, 4096, 5): os.write(1, b'x' * size); sys.stdin.readline()\n"

    def agent() -> list[int]:
        found = []
        with subprocess.Popen(bench.script(source), stdin=-1, stdout=-1, bufsize=0) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            while data := os.read(child.stdout.fileno(), 65536):
                found.append(len(data))
                child.stdin.write(b"\n")
        return found

    assert bench.holds(agent).value == [1, 70, 4096, 5]


@pytest.mark.parametrize("size", [10, 400_000])
def test_floods_both_ways(bench: Bench, size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]

    def agent() -> Any:
        done = subprocess.run(bench.script(FLOOD), input=data, capture_output=True)
        return done.stdout == data * 2, len(done.stderr), done.returncode

    assert bench.holds(agent).value == (True, 500_000, 0)


def test_output_that_nobody_reads(bench: Bench) -> None:
    def agent() -> Any:
        with subprocess.Popen(["echo", "unread"], stdout=-1, stderr=-1) as child:
            return child.wait(timeout=20)

    assert bench.holds(agent).value == 0


def test_redirections(bench: Bench, tmp_path: Path) -> None:
    def agent() -> Any:
        path = tmp_path / "out.txt"
        with path.open("w") as file:
            file.write("before\n")
            file.flush()
            subprocess.run("echo out; echo err >&2", shell=True, stdout=file, stderr=subprocess.STDOUT)
            file.write("after\n")
        with path.open("a") as file:
            subprocess.run(["sh", "-c", "echo more >&2"], stderr=file)
        text = path.read_text()
        with path.open() as file:
            copied = subprocess.run(["cat"], stdin=file, stdout=-1).stdout
        path.unlink()
        return text, copied

    assert bench.holds(agent).value == ("before\nout\nerr\nafter\nmore\n", b"before\nout\nerr\nafter\nmore\n")


def test_what_it_inherits_is_shown_again(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    def agent() -> Any:
        os.write(1, b"first\n")
        code = subprocess.run(["sh", "-c", "echo to out; echo to err >&2"]).returncode
        os.write(1, b"last\n")
        return code

    bench.records(agent)
    then = capfd.readouterr()
    replay(bench.cassette, agent, commands=["*"])
    assert capfd.readouterr() == then == ("first\nto out\nlast\n", "to err\n")


def test_a_pipeline(bench: Bench) -> None:
    def agent() -> Any:
        with (
            subprocess.Popen(["seq", "200000"], stdout=-1) as first,
            subprocess.Popen(["head", "-3"], stdin=first.stdout, stdout=-1) as second,
        ):
            assert first.stdout is not None
            first.stdout.close()
            return second.communicate()[0], second.returncode

    assert bench.holds(agent).value == (b"1\n2\n3\n", 0)


def test_a_child_that_stops_reading(bench: Bench) -> None:
    def agent() -> Any:
        child = subprocess.Popen(["head", "-1"], stdin=-1, stdout=-1)
        found = child.communicate(b"first\n" + b"x" * 1_000_000)
        return found, child.returncode

    assert bench.holds(agent).value == ((b"first\n", None), 0)


def given(command: list[str], data: bytes, *, way: str) -> Any:
    """What a command says that is given an input as a whole."""

    async def by_asyncio() -> Any:
        child = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
        return (await child.communicate(data))[0]

    if way == "asyncio":
        return asyncio.run(by_asyncio())
    text = way == "text"
    return subprocess.run(command, input=data.decode() if text else data, stdout=-1, text=text).stdout


@pytest.mark.parametrize("way", ["bytes", "text", "asyncio"])
@pytest.mark.parametrize("command", ["exit 0", "exec <&-; echo closed; sleep 0.1", "head -1"])
def test_what_a_child_does_not_read_is_compared(bench: Bench, command: str, way: str) -> None:
    long = b"first\n" + b"x" * 300_000
    bench.holds(lambda: given(["sh", "-c", command], long, way=way))
    assert re.search(r"turns: .*[sx] .*>\d+:\d", bench.cassette.read_text()), "what nobody took is written down"
    for changed in (long + b"more", long[:-1], long[:-1] + b"y", b"first\n"):
        (cause,) = bench.breaks(lambda changed=changed: given(["sh", "-c", command], changed, way=way))  # type: ignore[misc]
        assert (cause.kind, [change.path for change in cause.changes]) == ("input_changed", ["request.stdin.text"])


@pytest.mark.parametrize("between", ["nothing", "a rest", "asks", "calls"])
def test_what_is_written_after_the_last_word_is_compared(
    bench: Bench, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is over before its input is closed; what was given to it is known all the same."""

    def agent(last: bytes = b"quit\n", more: bytes = b"", meanwhile: Callable[[Any], object] = id) -> Any:
        command = ["sh", "-c", "read word; sleep 0.3; echo $word"]
        with subprocess.Popen(command, stdin=-1, stdout=-1, bufsize=0) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(last)
            meanwhile(child)
            if more:
                child.stdin.write(more)
            said = child.stdout.read()
            code = child.wait()
        return said, code

    def ask_after(child: Any) -> None:
        assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.01)

    def call_elsewhere(child: Any) -> None:
        elsewhere = threading.Thread(target=subprocess.run, args=(["echo", "elsewhere"],), kwargs={"stdout": -1})
        elsewhere.start()
        elsewhere.join()

    meanwhile: dict[str, Callable[[Any], object]] = {
        "nothing": id,
        "a rest": lambda child: time.sleep(0.02),
        "asks": ask_after,
        "calls": call_elsewhere,
    }
    run_it = functools.partial(agent, meanwhile=meanwhile[between])
    monkeypatch.setattr(_heard, "QUIET_SECONDS", 0.5)  # a machine that is busy may take longer than most
    assert bench.holds(run_it).value == (b"quit\n", 0)
    assert re.search(r"turns: .*\bs\b", bench.cassette.read_text())
    for changed in ({"last": b"quit\nand more\n"}, {"more": b"and more\n"}, {"last": b"exit\n"}):
        (cause,) = bench.breaks(functools.partial(run_it, **changed))
        assert (cause.kind, [change.path for change in cause.changes]) == ("input_changed", ["request.stdin.text"])


@pytest.mark.parametrize("between", ["polls", "another child"])
def test_input_that_is_on_its_way_is_answered_whatever_the_agent_does_meanwhile(bench: Bench, between: str) -> None:
    """Found on its way by whoever asks whether there is more to come, it is heard even so."""

    words = [b"%d\n" % number for number in range(9)]

    def agent() -> Any:
        command = ["sh", "-c", "for n in 1 2 3 4 5 6 7 8 9; do read word; echo $word; done"]
        said = []
        with subprocess.Popen(command, stdin=-1, stdout=-1, bufsize=0) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            for word in words:
                child.stdin.write(word)
                if between == "polls":
                    child.poll()
                else:
                    subprocess.run(["echo", "meanwhile"], check=True, capture_output=True)
                said.append(child.stdout.read(2))
        return said

    before = time.monotonic()
    assert bench.holds(agent).value == words
    assert time.monotonic() - before < _wait.HOLD_SECONDS / 2, "replay waited for what had come"


def test_who_stops_reading_waits_for_no_reader(bench: Bench) -> None:
    def agent() -> Any:
        command = ["sh", "-c", "echo 1 >&2; sleep 0.05; echo 2 >&2; sleep 0.05; exec <&-; echo out"]
        with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            return child.stdout.read(), child.stderr.read()

    assert bench.holds(agent).value == (b"out\n", b"1\n2\n")


@pytest.mark.parametrize("goes_on", ["by reading", "by another child", "by waiting"])
def test_what_is_written_to_a_child_that_has_stopped_reading_is_refused(bench: Bench, goes_on: str) -> None:
    def agent() -> Any:
        command = ["sh", "-c", "read word; exec <&-; sleep 0.1; echo $word"]
        with subprocess.Popen(command, stdin=-1, stdout=-1, bufsize=0) as child:
            given = child.stdin
            assert given is not None
            assert child.stdout is not None
            given.write(b"first\n")
            if goes_on == "by reading":
                child.stdout.read(1)
            elif goes_on == "by another child":
                subprocess.run(["sleep", "0.2"], check=True)
            else:
                child.wait()
            return raised(lambda: given.write(b"second\n"))

    assert "Broken pipe" in str(bench.holds(agent).value)


def test_how_much_goes_to_a_child_that_stops_reading_is_chance(bench: Bench) -> None:
    def agent(size: int = 3000) -> Any:
        with subprocess.Popen(["head", "-c", "5"], stdin=-1, stdout=-1, bufsize=0) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            told = 0
            try:
                for _ in range(size):
                    told += child.stdin.write(b"x" * 1000)
            except BrokenPipeError:
                pass
            return told < size * 1000, child.stdout.read()

    assert bench.holds(agent).value == (True, b"xxxxx")
    assert re.search(r"turns: .*\bc\b", bench.cassette.read_text())
    replay(bench.cassette, lambda: agent(4000), commands=["*"])


# --- failures, signals, time


def test_what_cannot_be_started(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("no program")

    def agent() -> Any:
        return [
            raised(lambda: subprocess.run(["no-such-program", "x"])),
            raised(lambda: subprocess.run([str(tmp_path / "plain.txt")])),
            raised(lambda: subprocess.run(["echo"], cwd="/no/such/place")),
            raised(lambda: subprocess.run(["echo", "a\0b"])),
            raised(lambda: asyncio.run(asyncio.create_subprocess_exec("no-such-program"))),
        ]

    recorded = bench.holds(agent)
    missing = (FileNotFoundError, "[Errno 2] No such file or directory: 'no-such-program'", 2, "no-such-program")
    assert [found[0] for found in recorded.value[1:4]] == [PermissionError, FileNotFoundError, ValueError]
    assert recorded.value[0] == recorded.value[4] == missing


def test_signals(bench: Bench) -> None:
    def polite() -> Any:
        with subprocess.Popen(bench.script(POLITE), stdout=-1) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            child.terminate()
            return first, child.stdout.read(), child.wait()

    def agent() -> Any:
        found: list[Any] = [polite()]
        for way in (
            lambda child: child.kill(),
            lambda child: child.send_signal(signal.SIGUSR1),  # shells let background jobs ignore SIGINT
            lambda child: os.kill(child.pid, signal.SIGKILL),
            lambda child: os.killpg(os.getpgid(child.pid), signal.SIGTERM),
        ):
            child = subprocess.Popen(["sleep", "30"], start_new_session=True)
            assert child.poll() is None
            way(child)
            found.append(child.wait())
            child.kill()  # of one that is over does nothing
        child = subprocess.Popen(["sleep", "30"])
        os.kill(child.pid, signal.SIGTERM)
        found.append(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
        child.wait()
        return found

    recorded = bench.holds(agent)
    assert recorded.value == [(b"ready\n", b"bye\n", 7), -9, -signal.SIGUSR1, -9, -15, -15]


def test_timeouts(bench: Bench) -> None:
    def agent() -> Any:
        found: list[Any] = []
        try:
            subprocess.run(["sh", "-c", "echo partial; exec sleep 30"], capture_output=True, timeout=0.3)
        except subprocess.TimeoutExpired as error:
            found.append((error.stdout, error.timeout))
        child = subprocess.Popen(["sleep", "30"])
        try:
            child.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            child.kill()
            found.append(child.wait())
        return found

    assert bench.holds(agent).value == [(b"partial\n", 0.3), -9]


def test_a_child_that_is_left_running(bench: Bench) -> None:
    left: list[subprocess.Popen[bytes]] = []

    def agent() -> Any:
        left.append(subprocess.Popen(["sleep", "30"]))
        return left[-1].poll()

    bench.records(agent)
    child = left.pop()
    child.kill()
    assert child.wait() == -9
    for _ in range(2):
        assert replay(bench.cassette, agent, commands=["*"]).value is None
        assert left.pop().wait(timeout=5) == -9, "it does not outlive the run"


# --- event loops


async def conversation() -> Any:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CALCULATOR, stdin=-1, stdout=-1, stderr=-1)
    assert child.stdin is not None
    assert child.stdout is not None
    found = []
    for question in (b"1+1\n", b"2+2\n"):
        child.stdin.write(question)
        await child.stdin.drain()
        found.append(await child.stdout.readline())
    child.stdin.close()
    rest = await child.communicate()
    return found, rest, child.returncode


async def several() -> Any:
    command = "echo {0}; echo {0} >&2; exit {0}"
    children = [await asyncio.create_subprocess_shell(command.format(n), stdout=-1, stderr=-1) for n in range(4)]
    outputs = await asyncio.gather(*(child.communicate() for child in children))
    return outputs, [child.returncode for child in children]


async def given_up() -> Any:
    child = await asyncio.create_subprocess_exec("sleep", "30")
    try:
        await asyncio.wait_for(child.wait(), 0.1)
    except asyncio.TimeoutError:
        child.kill()
    return await child.wait()


@pytest.mark.parametrize("agent", [conversation, several, given_up], ids=lambda agent: agent.__name__)
@pytest.mark.parametrize("watcher", ["default", "threaded"])
def test_asyncio(bench: Bench, agent: Callable[[], Any], watcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if watcher == "threaded" and hasattr(os, "pidfd_open"):
        if sys.version_info >= (3, 12):
            from asyncio import unix_events

            monkeypatch.setattr(unix_events, "can_use_pidfd", lambda: False)
        monkeypatch.delattr(os, "pidfd_open")
    elif sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        with_pidfd(monkeypatch)
    bench.holds(agent)


def with_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher that is the default from Python 3.12 on."""
    from asyncio import unix_events

    class Watcher(unix_events.PidfdChildWatcher):
        def is_active(self) -> bool:
            return True

        def add_child_handler(self, pid: int, callback: Any, *args: Any) -> None:  # type: ignore[override]
            self._loop = asyncio.get_running_loop()
            super().add_child_handler(pid, callback, *args)

    monkeypatch.setattr(asyncio.get_event_loop_policy(), "_watcher", Watcher())


async def by_anyio() -> Any:
    done = await anyio.run_process(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"x" * 200_000, check=False)
    async with await anyio.open_process([sys.executable, "-c", CALCULATOR]) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        await child.stdin.send(b"6*7\n")
        answer = await child.stdout.receive()
        await child.stdin.aclose()
        code = await child.wait()
    with anyio.move_on_after(0.1):
        await anyio.run_process(["sleep", "30"])
    return len(done.stdout), done.stderr, done.returncode, answer, code


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(bench: Bench, backend: str) -> None:
    assert bench.holds(lambda: anyio.run(by_anyio, backend=backend)).value == (200_000, b"err\n", 3, b"42\n", 0)


def test_trio(bench: Bench) -> None:
    async def agent() -> Any:
        done = await trio.run_process(["sh", "-c", "cat; exit 3"], stdin=b"abc", capture_stdout=True, check=False)
        child = await trio.lowlevel.open_process(["sleep", "30"])
        child.terminate()
        return done.stdout, done.returncode, await child.wait()

    assert bench.holds(lambda: trio.run(agent)).value == (b"abc", 3, -15)


# --- what is compared


def test_differences_are_reported(bench: Bench, tmp_path: Path) -> None:
    def agent(
        words: tuple[str, ...] = ("hello",),
        env: str = "1",
        cwd: Path | None = None,
        text: str = "asked",
        last: bool = True,
    ) -> Any:
        found: list[Any] = [
            subprocess.run(["echo", *words], stdout=-1, cwd=cwd, env={**os.environ, "MODE": env}).stdout
        ]
        found.append(subprocess.run(["cat"], input=text, stdout=-1, text=True).stdout)
        if last:
            found.append(subprocess.run(["sh", "-c", "echo last"], stdout=-1).stdout)
        return found

    bench.holds(agent)
    assert '"env": {"MODE": "1"}' in bench.cassette.read_text()
    for changed, path in (
        (lambda: agent(words=("hello", "world")), "request.argv[2]"),
        (lambda: agent(env="2"), "request.env.MODE"),
        (lambda: agent(cwd=Path("/")), "request.cwd"),
        (lambda: agent(text="asked otherwise"), "request.stdin.text"),
    ):
        (cause,) = bench.breaks(changed)
        assert (cause.kind, [change.path for change in cause.changes]) == ("input_changed", [path])
    (cause,) = bench.breaks(lambda: agent(last=False))
    assert (cause.kind, cause.path[-1]) == ("span_removed", "sh")

    more = bench.changed(lambda: (agent(), raised(lambda: subprocess.run(["seq", "9"]))))
    assert [cause.kind for cause in more.causes] == ["span_added"]
    assert more.value[1][0].__name__ == "MissError"


def test_input_is_matched_although_it_comes_later(bench: Bench) -> None:
    """Of children that run at once, each gets the recording of its own command line."""

    def agent(order: tuple[int, ...] = (0, 1, 2)) -> Any:
        commands = [["sh", "-c", f"cat; echo {number}"] for number in range(3)]
        children = {number: subprocess.Popen(commands[number], stdin=-1, stdout=-1) for number in order}
        return [children[number].communicate(b"q")[0] for number in range(3)]

    assert bench.holds(agent).value == [b"q0\n", b"q1\n", b"q2\n"]
    assert run(bench.cassette, lambda: agent((2, 0, 1)), commands=["*"]).value == [b"q0\n", b"q1\n", b"q2\n"]


def test_a_wait_that_cannot_end_says_for_what(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def agent(kill: bool = True, close: bool = True) -> Any:
        child = subprocess.Popen(["cat"], stdin=-1)
        assert child.stdin is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        if close:
            child.stdin.close()
        child.wait()
        child.stdin.close()
        sleeper = subprocess.Popen(["sleep", "30"])
        if kill:
            sleeper.kill()
        return sleeper.wait()

    bench.records(agent)
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.5)
    for changed, words in (
        (lambda: agent(kill=False), "signal 9, after which"),
        (lambda: agent(close=False), "the end of its input"),
    ):
        outcome = bench.changed(changed)
        assert words in " ".join(outcome.verdict.errors)
        assert words in str(outcome.failure)


def test_only_what_is_named(bench: Bench) -> None:
    def agent() -> Any:
        named = [
            subprocess.run([str(bench.programs / "echo"), "by path"], stdout=-1).stdout,
            subprocess.run("echo by shell", shell=True, stdout=-1).stdout,
            subprocess.run(["echo"], stdout=-1).stdout,
        ]
        return [*named, subprocess.run(["/bin/sh", "-c", "echo not named"], stdout=-1).stdout]

    recorded = record(bench.cassette, agent, commands=["echo *"])
    assert _kinds(recorded).count("process") == 3
    (note,) = recorded.verdict.notes
    line = agent.__code__.co_firstlineno + 6
    assert note.startswith("process \"/bin/sh -c 'echo not named'\" was started at ")
    assert f"test_subprocess.py:{line} in agent" in note
    assert "commands=['sh *']" in note
    bench.take_away()
    STARTED.clear()
    again = replay(bench.cassette, agent, commands=["echo *"])
    (started,) = STARTED
    assert (again.value, started.partition(" ")[0]) == (recorded.value, "subprocess.Popen")
    assert again.verdict.notes == (note,), "it happened again, and is told again"


def test_who_is_told_of_what_is_not_recorded(bench: Bench) -> None:
    import sysconfig

    library: dict[str, Any] = {}
    source = "import subprocess\ndef probe(): return subprocess.run(['echo', 'library'], stdout=-1)"
    exec(compile(source, sysconfig.get_path("purelib") + "/somebody/probe.py", "exec"), library)

    async def by_asyncio() -> None:
        await (await asyncio.create_subprocess_exec("echo", stdout=-1)).communicate()

    def agent() -> Any:
        for _ in range(3):
            subprocess.run(["echo", "one place"], stdout=-1)
        os.system("true")
        asyncio.run(by_asyncio())
        library["probe"]()

    outcome = run(bench.cassette, agent, mode="rewrite", commands=["git *"])
    told = [note.partition(" was started at ")[0] for note in outcome.verdict.notes]
    assert told == ["process \"echo 'one place'\"", "process 'true'", "process 'echo'"]


def test_patterns_that_could_never_match_are_refused(bench: Bench) -> None:
    for settings in ({"commands": ["git * "]}, {"commands": "git *"}, {"command_env": ["MODE=1"]}):
        with pytest.raises(UsageError, match="marker cassette: command"):
            run(bench.cassette, lambda: None, **settings)


def test_input_that_comes_short_is_waited_for_a_while(bench: Bench) -> None:
    assert bench.holds(lambda: echoed(bench)).value == b"what is this"
    changed = bench.changed(lambda: echoed(bench, b"what"))
    assert changed.value == b"what is this", "one run shows the whole difference"
    assert [cause.kind for cause in changed.causes] == ["input_changed"]


def test_what_cannot_be_recorded_is_refused(bench: Bench) -> None:
    def with_files() -> Any:
        reader, writer = os.pipe()
        try:
            return raised(lambda: subprocess.run(["echo"], pass_fds=(writer,)))
        finally:
            os.close(reader)
            os.close(writer)

    outcome = run(bench.cassette, with_files, mode="rewrite", commands=["*"])
    assert "pass_fds" in str(outcome.failure)
    assert "pass_fds" in outcome.value[1]
    outcome = run(bench.cassette, lambda: os.system("echo x >&2"), mode="rewrite", commands=["echo *"])
    assert "os.system, which cannot be recorded" in str(outcome.failure)
    assert not bench.cassette.exists()


def test_a_named_command_that_is_forked_is_refused(bench: Bench) -> None:
    def by_hand() -> None:
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)

    def in_a_terminal() -> None:
        pid, terminal = pty.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(terminal)

    plain = record(bench.cassette, lambda: subprocess.run(["echo"]).returncode, commands=["echo *"])
    for agent, words in (
        (by_hand, f"a process was forked at tests/stacks/test_subprocess.py:{by_hand.__code__.co_firstlineno + 1} in"),
        (in_a_terminal, "which cannot be recorded: start it by subprocess"),
        (lambda: os.spawnvp(os.P_WAIT, "echo", ["echo", "x"]), "process 'echo x' is started by a fork, which cannot"),
        (lambda: os.spawnlp(os.P_WAIT, "echo", "/bin/echo"), "process '/bin/echo' is started by a fork"),
        (lambda: pty.spawn(["echo", "x"]), "process 'echo x' is started by a fork"),
    ):
        for mode in ("rewrite", "none"):
            outcome = run(bench.cassette, agent, mode=mode, commands=["echo *"])
            (error,) = outcome.verdict.errors
            assert words in error
            assert outcome.failure is not None
    assert plain.value == 0
    # Without names, forks are the user's own affair; what is known is told.
    assert run(bench.cassette, by_hand, mode="rewrite").verdict.errors == ()
    told = run(bench.cassette, lambda: os.spawnvp(os.P_WAIT, "true", ["true", "x"]), mode="rewrite", commands=["git *"])
    (note,) = told.verdict.notes
    assert note.startswith("process 'true x' was started at ")
    assert told.verdict.errors == ()


def test_other_forks_are_nobodys_business(bench: Bench) -> None:
    def agent() -> Any:
        copy = multiprocessing.get_context("fork").Process(target=int)
        copy.start()
        copy.join()
        subprocess.run(["cat"], stdin=subprocess.DEVNULL, preexec_fn=int)
        return copy.exitcode

    outcome = record(bench.cassette, agent, commands=["echo *"])
    assert outcome.value == 0
    assert outcome.verdict.errors == ()


def test_more_descriptors_than_select_knows(bench: Bench) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] != resource.RLIM_INFINITY and limit[1] < 2000:
        pytest.skip(f"the system allows {limit[1]} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], 2000), limit[1]))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        command = bench.script(FLOOD)
        outcome = bench.holds(
            lambda: len(subprocess.run(command, input=b"x" * 200_000, stdout=-1, stderr=subprocess.STDOUT).stdout)
        )
    finally:
        for number in files:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert outcome.value == 900_000


def test_what_goes_wrong_while_it_is_served_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def agent() -> int:
        return subprocess.run(["echo", "x"], stdout=-1).returncode

    bench.records(agent)

    def advance(self: Playback) -> float:
        raise KeyError("gone")

    monkeypatch.setattr(Playback, "_advance", advance)
    outcome = bench.changed(agent)
    assert "the process echo could not be served: KeyError('gone')" in outcome.verdict.errors


def test_commands_are_refused_on_windows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        with pytest.raises(UsageError, match="child processes are not recorded on Windows: 'git \\*'"):
            use_cassette(bench.cassette, mode="rewrite", commands=["git *"])


def test_a_start_that_fails_leaves_no_descriptor(bench: Bench) -> None:
    def agent() -> int:
        before = len(os.listdir("/dev/fd"))
        for _ in range(5):
            raised(lambda: subprocess.Popen(["no-such-program"], stdin=-1, stdout=-1, stderr=-1))
        return len(os.listdir("/dev/fd")) - before

    assert bench.holds(agent).value == 0


def test_a_clock_that_stands_still(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaves_one() -> Any:
        # What it leaves behind holds the pipe, so that its end does not come.
        with subprocess.Popen(["sh", "-c", "sleep 2 & exit 3"], stdout=-1) as child:
            return child.wait()

    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert bench.records(lambda: (echoed(bench), leaves_one())).value == (b"what is this", 3)
    assert run(bench.cassette, lambda: (echoed(bench, b"what"), leaves_one()), commands=["*"]).value == (
        b"what is this",
        3,
    )
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.5)
    outcome = bench.changed(lambda: (echoed(bench, b""), leaves_one()))
    assert "bytes of input, and has got 0" in " ".join(outcome.verdict.errors)


def test_no_secret_is_cut_in_two(bench: Bench) -> None:
    secret = "Kq8zT4mW7pR2vX9cLd3"
    command = ["echo", "x" * 50, "--password", secret]
    told = [
        run(bench.cassette, agent, mode="rewrite", commands=["git *"]).verdict.notes
        for agent in (
            lambda: subprocess.run(command),
            lambda: subprocess.run(" ".join(command), shell=True),
            lambda: os.system(" ".join(command)),
        )
    ]
    for (note,) in told:
        assert secret[:6] not in note
        assert (
            "record it with commands=['echo *'], or, if it is the agent, start it with env=gateway.env of"
            " cassette.gateway()" in note
        )


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (["curl", "-u", "me:SECRET", "-s"], "me:[redacted]"),
        (["curl", "-ume:SECRET"], "-ume:[redacted]"),
        (["/usr/bin/curl", "--user=me:SECRET"], "--user=me:[redacted]"),
        (["curl", "-H", "Authorization: Bearer SECRET"], "Authorization: Bearer [redacted]"),
        (["curl", "-HX-Api-Key: SECRET"], "-HX-Api-Key: [redacted]"),
        (["curl", "-b", "sid=SECRET; theme=dark"], "sid=[redacted]; theme=[redacted]"),
        (["mysql", "-u", "me", "-pSECRET", "shop"], "-p[redacted]"),
        (["docker", "exec", "db", "mysql", "-pSECRET"], "-p[redacted]"),
        (["docker", "login", "-u", "me", "-p", "SECRET"], "[redacted]"),
        (["sshpass", "-p", "SECRET", "ssh", "host"], "[redacted]"),
        (["redis-cli", "-a", "SECRET", "ping"], "[redacted]"),
        (["tool", "--password", "SECRET"], "[redacted]"),
        (
            ["sh", "-c", "cd /x; curl -s -u 'me:SECRET' https://a.example | jq ."],
            "-u 'me:[redacted]' https://a.example",
        ),
    ],
    ids=lambda given: given[0] + given[1][:9] if isinstance(given, list) else "",
)
@pytest.mark.parametrize("secret", ["tiger2", "Kq8zT4mW7pR2vX9c"])
def test_options_that_take_a_credential(bench: Bench, command: list[str], kept: str, secret: str) -> None:
    def agent(secret: str = secret) -> Any:
        words = [word.replace("SECRET", secret) for word in command]
        return subprocess.run(words, executable="echo", stdout=subprocess.DEVNULL).returncode

    bench.records(agent)
    text = bench.cassette.read_text()
    assert secret not in text
    assert kept in text
    for given in (secret, "another3"):
        replay(bench.cassette, functools.partial(agent, given), commands=["*"])


def test_what_only_looks_like_such_an_option_is_kept(bench: Bench) -> None:
    command = ["docker", "run", "-p", "8080:80", "-u", "1000:1000", "https://a.example/mysql", "-port"]
    recorded = bench.records(lambda: subprocess.run(command, executable="echo", stdout=-1).returncode)
    assert recorded.verdict.live is not None
    (process,) = [span for span in recorded.verdict.live if span.kind == "process"]
    assert process.attributes["process.command_args"] == command


def test_no_secret_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        name: f"{name}-Kq8zT4mW7pR2vX9c" for name in ("argv", "option", "env", "stdin", "stdout", "stderr", "own")
    }
    monkeypatch.setenv("SHOP_API_KEY", secrets["own"])

    def agent() -> Any:
        says = "import os, sys; sys.stdout.write('token=' + os.environ['SAID']); sys.stderr.write(sys.argv[1])"
        command = [
            *(bench.python, "-c", says, f"api_key={secrets['stderr']}"),
            *("--password", secrets["option"], f"--api-key={secrets['argv']}"),
        ]
        env = {**os.environ, "ORDER_TOKEN": secrets["env"], "SAID": f"{secrets['stdout']}"}
        done = subprocess.run(command, input=f"password={secrets['stdin']}", capture_output=True, text=True, env=env)
        keys = subprocess.run(["echo", secrets["own"]], capture_output=True, text=True).stdout
        return len(done.stdout) > 5, len(done.stderr) > 5, len(keys) > 5

    bench.records(agent, redact=["SAID"])
    text = bench.cassette.read_text()
    for name, secret in secrets.items():
        assert secret not in text, name
    monkeypatch.delenv("SHOP_API_KEY")
    monkeypatch.setenv("SHOP_API_KEY", "another-Kq8zT4mW7pR2vX9c")
    for name in ("own", "stdin"):
        secrets[name] = f"a longer one for {name}"
    run(bench.cassette, agent, commands=["*"], redact=["SAID"])


def test_inside_a_tool(bench: Bench) -> None:
    def count(word: str) -> int:
        return len(subprocess.run(["echo", word], stdout=-1).stdout)

    recorded = bench.holds(lambda: count("four"), tools=[count])
    assert _kinds(recorded) == ["span", "tool", "process"]
    assert OWNERSHIP.active == ()


def test_threads_and_many_at_once(bench: Bench) -> None:
    def agent() -> Any:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda n: subprocess.run(["echo", str(n)], stdout=-1).stdout, range(24)))

    assert bench.holds(agent).value == [f"{number}\n".encode() for number in range(24)]


def test_nothing_changes_without_a_run() -> None:
    done = subprocess.run(["sh", "-c", "cat; exit 3"], input=b"x", stdout=-1)
    assert (done.stdout, done.returncode) == (b"x", 3)
    child = subprocess.Popen(["sleep", "30"])
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait() == -15
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


# --- children that are Python themselves

AGENT = """\
import os, sys
import httpx2
from opentelemetry import trace
assert os.environ["TRACEPARENT"].startswith("00-") or not os.environ.get("SPANCHAIN_JOIN")
with trace.get_tracer("shop").start_as_current_span("think"):
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": sys.argv[1]}]}
    headers = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    answer = httpx2.post(sys.argv[2] + "/v1/chat/completions", json=body, headers=headers)
print(answer.json()["choices"][0]["message"]["content"])
"""


def child_agent(bench: Bench, url: str, *options: str) -> Callable[[], Any]:
    def agent() -> Any:
        command = [sys.executable, *options, "-c", AGENT, "Where is order 1412?", url]
        return subprocess.run(command, stdout=-1, text=True, check=True).stdout

    return agent


def test_a_python_child_joins_the_trace(bench: Bench, sdk_env: ModelServer) -> None:
    sdk_env.script(lambda request: answer(request, "On its way."))
    agent = child_agent(bench, sdk_env.url)
    recorded = bench.records(agent)
    assert recorded.verdict.notes == ()
    tree = [(span.name, span.kind, span.scope) for span in recorded.verdict.live]
    assert tree[1:] == [
        ("python", "process", "pytest_spanchain"),
        ("think", "span", "shop"),
        ("chat gpt-test", "model", "pytest_spanchain"),
    ]
    parents = {span.name: span.parent_span_id for span in recorded.verdict.live}
    by_name = {span.name: span.span_id for span in recorded.verdict.live}
    assert (parents["think"], parents["chat gpt-test"]) == (by_name["python"], by_name["think"])
    asked = len(sdk_env.requests)
    sdk_env.close()
    for _ in range(REPLAYS):
        STARTED.clear()
        again = replay(bench.cassette, agent, commands=["*"])
        assert (again.value, STARTED) == ("On its way.\n", [])
        assert [span.name for span in again.verdict.live] == [span.name for span in recorded.verdict.live]
    assert len(sdk_env.requests) == asked == 1


def test_the_hook_redacts_what_a_python_child_tells(sdk_env: ModelServer, tmp_path: Path) -> None:
    sdk_env.script(lambda request: answer(request, "On its way."))

    def hook(kind: str, part: Any) -> Any:
        return json.loads(
            json.dumps(part).replace("order 1412", "order ####").replace("On its", "Off it")
        )  # as long as it was: chunks add up; and no number alone: a hash may hold it

    def recorded(name: str, redact: Callable[[str, Any], Any]) -> Any:
        settings = Settings(mode=RecordMode.REWRITE, commands=("*",), eval_id="hooked")
        path = tmp_path / name
        observed = Run(Plan(nodeid="hooked", path=path, settings=settings), hooks=Hooks(redact=redact))
        with boundaries.around(observed), observed.entered():
            subprocess.run([sys.executable, "-c", AGENT, "Where is order 1412?", sdk_env.url], stdout=-1, check=True)
        return observed.close(passed=True)

    verdict = recorded("c.yaml", hook)
    assert verdict.recorded, verdict.errors
    text = (tmp_path / "c.yaml").read_text()
    assert "think" in text
    assert "order ####" in text
    assert "Off it way" in text
    assert "order 1412" not in text
    assert "On its" not in text
    verdict = recorded("d.yaml", lambda kind, part: {} if kind == "model" else part)
    assert not verdict.recorded
    assert any("of a model call that could not be replayed" in error for error in verdict.errors)


def test_what_a_child_notes_of_a_replay_is_not_passed_on(bench: Bench) -> None:
    source = "import subprocess\nsubprocess.run(['echo', 'x'])"

    def agent() -> int:
        file = bench.cassette.parent / "child.py"
        file.write_text(source)
        return subprocess.run([sys.executable, str(file)], stdout=-1).returncode

    assert bench.records(agent).verdict.notes == ()


def test_a_child_that_cannot_join_is_recorded_all_the_same(bench: Bench, sdk_env: ModelServer) -> None:
    sdk_env.script(lambda request: answer(request, "On its way."))
    recorded = bench.records(child_agent(bench, sdk_env.url, "-I"))
    assert _kinds(recorded) == ["span", "process"]
    assert recorded.value == "On its way.\n"


def test_a_report_is_whole_whoever_tells(tmp_path: Path) -> None:
    (tmp_path / joined.SETTINGS).write_text('{"tools": [], "redact": [], "allow_hosts": []}')
    member = _joining._Member(tmp_path)

    def tell() -> None:
        for _ in range(200):
            member._told = -1  # something is new
            member._report(done=False)

    with ThreadPoolExecutor(3) as pool:
        telling = [pool.submit(tell) for _ in range(3)]
        while not all(one.done() for one in telling):
            for path in tmp_path.glob("*.report"):
                assert joined.read(path.read_bytes()) is not None, "a torn report"
    for one in telling:
        one.result()
    member._over.set()
    (path,) = tmp_path.glob("*.report")
    path.unlink()
    tell()
    assert not [*tmp_path.glob("*.report")], "nothing is told after the last word"


def test_a_child_that_is_killed_has_told_what_it_had_told(bench: Bench) -> None:
    source = (
        "import os, time\nfrom opentelemetry import trace\n"
        "with trace.get_tracer('shop').start_as_current_span('done'): pass\n"
        "time.sleep(1)\nprint('now', flush=True)\ntime.sleep(30)\n"
    )

    def agent() -> Any:
        with subprocess.Popen([sys.executable, "-c", source], stdout=-1) as child:
            assert child.stdout is not None
            child.stdout.readline()
            child.kill()
        return child.returncode

    recorded = bench.holds(agent)
    assert [span.name for span in recorded.verdict.live][1:] == ["python", "done"]
    (note,) = recorded.verdict.notes
    assert "ended without a last word" in note


def test_a_report_is_whole_or_none() -> None:
    report = joined.Report((Span("1" * 16, None, "root"),), True, ("note",), ("error",))
    data = joined.written(report)
    assert joined.read(data) == report
    assert joined.read(data[:-1]) is None
    assert joined.read(b"") is None


def test_the_next_sitecustomize_runs(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import builtins; builtins.CUSTOM = __name__")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    def agent() -> Any:
        return subprocess.run([sys.executable, "-c", "print(CUSTOM)"], stdout=-1, stderr=-1, text=True).stdout

    assert bench.holds(agent).value == "sitecustomize\n"
