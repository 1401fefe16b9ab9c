"""Who runs a marked test, and whose its calls are: async tests, unittest, wider fixtures, what is left behind."""

from __future__ import annotations

import re

import pytest

from project import Project, Result
from servers import until

REPLAYED = {"recorded": 0, "live": 0, "unverified": 0}


def twice(project: Project, *args: str, tests: int = 1, live: int, process: bool = False) -> Result:
    """Record, then replay with the model down; both must be green and counted."""
    result = project.run("--record-mode=once", *args, process=process)
    assert result.outcomes == {"passed": tests}, result.out
    assert result.counts == {"replayed": 0, "recorded": tests, "live": live, "unverified": 0}, result.out
    before = project.requests
    project.server.close()
    result = project.run(*args, process=process)
    assert result.outcomes == {"passed": tests}, result.out
    assert result.counts == {"replayed": tests, **REPLAYED}, result.out
    assert project.requests == before
    return result


# --- async tests without a runner of their own -------------------------------------------------------------------

ASYNC = """
import asyncio

@pytest.mark.cassette
async def test_function(tmp_path):
    assert await asyncio.gather(aask("a"), aask("b")) == ["You said: a", "You said: b"]
    assert tmp_path.exists()

class TestIt:
    @pytest.mark.cassette
    @pytest.mark.parametrize("word", ["x", "y"])
    async def test_method(self, word):
        assert await aask(word) == f"You said: {word}"

    @staticmethod
    @pytest.mark.cassette
    async def test_static():
        assert await asyncio.to_thread(ask, "static") == "You said: static"

async def test_by_the_fixture_alone(spanchain):
    assert await aask("fixture") == "You said: fixture"
    assert len(spanchain.live.named("chat gpt-test")) == 1
"""
WAYS = {"strict": ("-o", "asyncio_mode=strict"), "auto": ("-o", "asyncio_mode=auto"), "alone": ("-p", "no:asyncio")}
ALONE = "[pytest]\n"


@pytest.mark.parametrize("way", WAYS)
def test_an_async_test_runs_by_itself(project: Project, way: str) -> None:
    if way == "alone":
        project.pytester.makeini(ALONE)
    project.write(ASYNC)
    twice(project, *WAYS[way], tests=5, live=6)


@pytest.mark.parametrize("way", ["strict", "alone"])
def test_and_its_drift_is_one_failure(project: Project, way: str) -> None:
    if way == "alone":
        project.pytester.makeini(ALONE)
    source = "@pytest.mark.cassette\nasync def test_it():\n    await aask('hello')\n"
    project.write(source)
    project.record(*WAYS[way])
    project.write(source.replace("hello", "hullo"))
    result = project.run(*WAYS[way])
    assert result.outcomes == {"failed": 1}
    assert "1 deviation from the golden trace: input_changed" in result.out
    project.write(source + "    assert 'mine' == 'yours'\n")
    result = project.run(*WAYS[way])
    assert "FAILED test_it.py::test_it - AssertionError: assert 'mine' == 'yours'" in result.out
    assert "_async.py" not in result.out


def test_an_unmarked_async_test_is_left_to_pytest(project: Project) -> None:
    project.pytester.makeini(ALONE)
    project.write("async def test_plain():\n    open('ran', 'w').close()\n" + ASYNC)
    result = project.run("-p", "no:asyncio", "--record-mode=once")
    assert result.outcomes == {"passed": 5, "failed": 1}
    assert not (project.path / "ran").exists()


def test_in_strict_mode_it_shares_the_loop_of_its_fixtures(project: Project) -> None:
    project.write(
        """
import asyncio
import pytest_asyncio

@pytest_asyncio.fixture
async def loop():
    await aask("early")
    return asyncio.get_running_loop()

@pytest.mark.cassette
async def test_it(loop):
    assert asyncio.get_running_loop() is loop
"""
    )
    twice(project, *WAYS["strict"], live=1)


def test_a_marker_that_comes_late_is_as_good(project: Project) -> None:
    """After collection pytest-asyncio takes no test any more."""
    project.write(
        "def pytest_collection_modifyitems(items):\n    for item in items:\n        item.add_marker('cassette')\n",
        "conftest.py",
    )
    project.write("async def test_it():\n    assert await aask('hello') == 'You said: hello'\n")
    twice(project, *WAYS["strict"], live=1)


RUNNER = """
import asyncio, inspect, pytest

@pytest.hookimpl(TRY)
def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        with open("runner", "a") as file:
            file.write("x")
        names = pyfuncitem._fixtureinfo.argnames
        asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
        return True
"""


@pytest.mark.parametrize("order", ["", "tryfirst=True", "trylast=True"])
@pytest.mark.parametrize("way", ["strict", "alone"])
def test_a_runner_that_we_do_not_know_keeps_its_tests(project: Project, order: str, way: str) -> None:
    if way == "alone":
        project.pytester.makeini(ALONE)
    project.write(RUNNER.replace("TRY", order), "conftest.py")
    project.write("@pytest.mark.cassette\nasync def test_it():\n    assert await aask('a') == 'You said: a'\n")
    twice(project, *WAYS[way], live=1)
    assert (project.path / "runner").read_text() == "xx"


def test_a_test_that_asks_for_a_runner_that_is_not_there_is_not_run_by_another(project: Project) -> None:
    project.pytester.makeini("[pytest]\nmarkers = trio\n")
    project.write("@pytest.mark.trio\n@pytest.mark.cassette\nasync def test_it():\n    open('ran', 'w').close()\n")
    for way in ("strict", "alone"):
        result = project.run("--record-mode=once", *(WAYS[way]), "-W", "ignore")
        assert result.outcomes == {"failed": 1}
        assert "async def functions are not natively supported" in result.out
    assert not (project.path / "ran").exists()
    assert project.cassettes() == []


# --- anyio: one task for all that a wider fixture starts ---------------------------------------------------------

WIDE = """
import anyio

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
def anyio_backend():
    return BACKEND

@pytest.fixture(scope="module")
async def outer():
    yield "outer"

class TestIt:
    @pytest.fixture
    async def early(self, outer):
        self.seen = outer
        yield await aask("early")
        await BYE

    @pytest.mark.cassette
    @pytest.mark.parametrize("n", [1, 2])
    async def test_it(self, early, n, spanchain):
        assert self.seen == "outer"
        async with anyio.create_task_group() as group:
            group.start_soon(aask, f"task {n}")
        assert await aask(f"last {n}") == f"You said: last {n}"
        assert len(spanchain.live.named("chat gpt-test")) == 3
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tests_in_the_task_of_a_wider_fixture(project: Project, backend: str) -> None:
    project.write(WIDE.replace("BACKEND", repr(backend)).replace("BYE", "anyio.sleep(0)"))
    twice(project, *WAYS["strict"], tests=2, live=6)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_replay_lets_nothing_out_in_the_teardown_of_such_tests(project: Project, backend: str) -> None:
    project.write(WIDE.replace("BACKEND", repr(backend)).replace("BYE", "aask('bye')").replace("[1, 2]", "[1]"))
    result = project.record(*WAYS["strict"])
    assert project.requests == 4
    assert re.search(
        r"^spanchain: in 1 test: .*caller.py:\d+ in aask: a call after the verdict", result.out, re.MULTILINE
    )
    assert result.out.count("after the verdict") == 1
    result = project.run(*WAYS["strict"])
    assert result.outcomes == {"passed": 1, "errors": 1}
    assert "after the run of test_it.py::TestIt::test_it[1] had ended" in result.out
    assert project.requests == 4


def test_such_tests_beside_a_cassette_that_the_fixture_holds_open(project: Project) -> None:
    project.write(
        WIDE.replace("BACKEND", "'asyncio'")
        .replace("BYE", "anyio.sleep(0)")
        .replace(
            '    yield "outer"',
            '    async with use_cassette("outer.yaml"):\n        await aask("o")\n        yield "outer"',
        )
        .replace("import anyio\n", "import anyio\nfrom pytest_spanchain import use_cassette\n")
    )
    result = project.run("--record-mode=once", *WAYS["strict"])
    assert result.outcomes == {"passed": 2}, result.out
    assert result.counts == {"replayed": 0, "recorded": 3, "live": 7, "unverified": 0}
    assert "task 1" not in (project.path / "outer.yaml").read_text()
    project.server.close()
    result = project.run(*WAYS["strict"])
    assert result.counts == {"replayed": 3, **REPLAYED}, result.out


# --- unittest ----------------------------------------------------------------------------------------------------

CASE = """
import unittest

class TestAgent(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import httpx2
        cls.client = httpx2.Client(verify=False, trust_env=False)
        cls.addClassCleanup(cls.client.close)
        cls.warm = ask("outside")

    def ask(self, prompt):
        import caller
        return caller._said(self.client.post(caller._url(), json=caller._body(prompt)))

    def setUp(self):
        self.addCleanup(self.ask, "cleanup")
        self.assertEqual(self.ask("setup"), "You said: setup")

    def tearDown(self):
        self.assertEqual(self.ask("teardown"), "You said: teardown")

    METHOD
    def test_it(self):
        self.assertEqual(self.warm, "You said: outside")
        for n in range(2):
            with self.subTest(n=n):
                self.assertEqual(self.ask(f"{n}"), f"You said: {n}")

    METHOD
    def test_skips(self):
        self.skipTest("later")

    METHOD
    @unittest.expectedFailure
    def test_fails_as_expected(self):
        self.fail("as expected")
"""


@pytest.mark.parametrize("where", ["method", "class"])
def test_a_unittest_case_runs_setup_test_and_cleanup_inside(project: Project, where: str) -> None:
    source = CASE.replace("METHOD", "@pytest.mark.cassette" if where == "method" else "")
    project.write(source if where == "method" else source.replace("class TestA", "@pytest.mark.cassette\nclass TestA"))
    result = project.run("--record-mode=once")
    assert result.outcomes.pop("passed") == 1
    assert result.outcomes.pop("subtests passed", 2) == 2
    assert result.outcomes == {"skipped": 1, "xfailed": 1}, result.out
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 5 + 3 + 3, "unverified": 2}
    (cassette,) = project.cassettes()
    assert cassette.name.startswith("TestAgent-test_it-")
    for word in ("setup", "teardown", "cleanup"):
        assert f"You said: {word}" in cassette.read_text()
    assert "outside" not in cassette.read_text()
    before = project.requests
    result = project.run("test_it.py::TestAgent::test_it")
    assert result.outcomes["passed"] == 1
    assert result.counts == {"replayed": 1, **REPLAYED}
    assert project.requests == before + 1, "setUpClass is nobody's"


def test_an_isolated_async_case_runs_all_its_parts_inside(project: Project) -> None:
    project.write(
        """
import unittest

class TestAgent(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        ask("setup")

    async def asyncSetUp(self):
        self.addAsyncCleanup(aask, "cleanup")
        await aask("async setup")

    async def asyncTearDown(self):
        await aask("async teardown")

    @pytest.mark.cassette
    async def test_it(self):
        with self.subTest(n=1):
            self.assertEqual(await aask("it"), "You said: it")
"""
    )
    assert project.record().counts == {"replayed": 0, "recorded": 1, "live": 5, "unverified": 0}
    project.server.close()
    assert project.run().counts == {"replayed": 1, **REPLAYED}


def test_an_async_method_that_unittest_never_awaits_does_not_pass(project: Project) -> None:
    project.write(
        "import unittest\n\nclass TestIt(unittest.TestCase):\n    @pytest.mark.cassette\n"
        "    async def test_it(self):\n        self.fail('never seen')\n"
    )
    result = project.run("--record-mode=once", "-W", "ignore")
    assert result.outcomes == {"failed": 1}
    assert "make its class an IsolatedAsyncioTestCase" in result.out
    assert project.cassettes() == []


# --- agents that are older than the run --------------------------------------------------------------------------

OLDER = """
import asyncio, queue, threading
from concurrent.futures import ThreadPoolExecutor

import caller, httpx2, openai

class Worker:
    def __init__(self):
        self.jobs, self.answers = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        with httpx2.Client(verify=False, trust_env=False) as client:
            while prompt := self.jobs.get():
                try:
                    said = caller._said(client.post(caller._url(), json=caller._body(prompt)))
                except Exception as error:
                    said = type(error).__name__
                self.answers.put(said)

    def ask(self, prompt):
        self.jobs.put(prompt)
        return self.answers.get(timeout=5)

class Loop:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def ask(self, prompt):
        return asyncio.run_coroutine_threadsafe(aask(prompt), self.loop).result(5)

@pytest.fixture(scope="SCOPE")
def old():
    pool = ThreadPoolExecutor(2)
    list(pool.map(ask, ["live", "live"]))  # both threads live, and were somebody else's
    worker, loop = Worker(), Loop()
    assert worker.ask("warm") == loop.ask("warm") == "You said: warm"
    client = openai.OpenAI(max_retries=0)
    client.models.list
    chat = client.chat.completions
    chat.create(model="gpt-test", messages=[{"role": "user", "content": "warm"}])  # the connection is kept alive
    yield {
        "pool": lambda prompt: pool.submit(ask, prompt).result(),
        "queue": worker.ask,
        "loop": loop.ask,
        "client": lambda prompt: chat.create(
            model="gpt-test", messages=[{"role": "user", "content": prompt}]
        ).choices[0].message.content,
    }
    pool.shutdown()
    worker.jobs.put(None)
    worker.thread.join()
    loop.loop.call_soon_threadsafe(loop.loop.stop)
    loop.thread.join()
    loop.loop.close()
    client.close()

class TestIt:
    @pytest.mark.cassette
    @pytest.mark.parametrize("n", [1, 2])
    def test_it(self, old, n, spanchain):
        for name, tell in old.items():
            assert tell(f"{name} {n}") == f"You said: {name} {n}"
        assert len(spanchain.live.named("chat gpt-test")) == 4
"""


@pytest.mark.parametrize("scope", ["class", "session"])
def test_agents_that_wider_fixtures_built_work_for_the_test_that_calls_them(project: Project, scope: str) -> None:
    source = OLDER.replace("SCOPE", scope)
    project.write(source)
    result = project.record()
    assert result.counts == {"replayed": 0, "recorded": 2, "live": 8, "unverified": 0}
    assert project.requests == 5 + 8
    result = project.run()
    assert result.outcomes == {"passed": 2}, result.out
    assert result.counts == {"replayed": 2, **REPLAYED}
    assert project.requests == 5 + 8 + 5
    project.write(source.replace('assert tell(f"{name} {n}") == f"You said: {name} {n}"', 'tell(f"{name}, {n}")'))
    result = project.run()
    assert result.outcomes == {"failed": 2}
    assert result.out.count("1 deviation from the golden trace: input_changed") == 2


# --- a cassette of the fixture's own -----------------------------------------------------------------------------

CLOSED = """
from pytest_spanchain import use_cassette

@pytest.fixture(scope="session")
def facts(request):
    with use_cassette(request.config.rootpath / "cassettes" / "facts.yaml"):
        return ask("facts")

@pytest.mark.cassette
@pytest.mark.parametrize("n", range(TESTS))
def test_it(facts, n, spanchain):
    assert ask(f"{facts} {n}") == f"You said: You said: facts {n}"
    assert len(spanchain.live.named("chat gpt-test")) == 1
"""
OPEN = CLOSED.replace("        return ask", "        yield ask")


@pytest.mark.parametrize("source", [CLOSED, OPEN], ids=["closed", "open"])
@pytest.mark.parametrize("said", ["option", "ini"])
def test_a_session_fixture_has_a_cassette_that_follows_the_session(project: Project, source: str, said: str) -> None:
    project.write(source.replace("TESTS", "2"))
    if said == "ini":
        project.ini("spanchain_record_mode = once")
    args = () if said == "ini" else ("--record-mode=once",)
    result = project.run() if said == "option" else project.run("--record-mode=none")
    assert result.outcomes == {"errors": 2}
    assert "record it: pytest 'test_it.py::test_it[0]' --record-mode=once" in result.out
    assert project.requests == 0
    result = project.run(*args)
    assert result.counts == {"replayed": 0, "recorded": 3, "live": 3, "unverified": 0}, result.out
    assert project.path / "cassettes" / "facts.yaml" in project.cassettes()
    assert project.run(*args).counts == {"replayed": 3, **REPLAYED}
    assert project.run("--record-mode=none").counts == {"replayed": 3, **REPLAYED}
    assert project.requests == 3
    assert project.run("--record-mode=rewrite").counts == {"replayed": 0, "recorded": 3, "live": 3, "unverified": 0}


def test_under_ci_it_follows_the_command_line_only(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    project.write(CLOSED.replace("TESTS", "1"))
    project.ini("spanchain_record_mode = once")
    assert project.run().outcomes == {"errors": 1}
    assert project.requests == 0
    assert project.run("--record-mode=once").counts["recorded"] == 2


@pytest.mark.parametrize("source", [CLOSED, OPEN], ids=["closed", "open"])
def test_its_drift_is_an_error_that_is_counted(project: Project, source: str) -> None:
    project.write(source.replace("TESTS", "1"))
    project.record()
    project.write(source.replace("TESTS", "1").replace('ask("facts")', 'swallow("fact")'))
    result = project.run()
    assert result.code == pytest.ExitCode.TESTS_FAILED
    assert "input_changed" in result.out
    assert "accept:   pytest 'test_it.py::test_it[0]' --record-mode=rewrite" in result.out
    assert result.counts["live"] == 0
    assert project.requests == 2


def test_what_a_rewrite_of_it_changed_is_told(project: Project) -> None:
    project.write(CLOSED.replace("TESTS", "1"))
    project.record()
    project.write(CLOSED.replace("TESTS", "1").replace('ask("facts")', 'ask("facts").replace("!", ask("more")[:0])'))
    result = project.run("--record-mode=rewrite")
    assert "1 deviation from the golden trace: span_added" in result.out


def test_a_test_may_hold_a_cassette_of_its_own(project: Project) -> None:
    project.write(
        """
from pytest_spanchain import use_cassette

def test_plain():
    with use_cassette("plain.yaml"):
        assert ask("plain") == "You said: plain"
"""
    )
    assert project.record().counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    project.server.close()
    assert project.run().counts == {"replayed": 1, **REPLAYED}


@pytest.mark.parametrize("loop", ["session", "function"])
def test_an_async_session_fixture_holds_one_open(project: Project, loop: str) -> None:
    project.write(
        """
from pytest_spanchain import use_cassette

@pytest.fixture(scope="session")
async def facts(request):
    async with use_cassette(request.config.rootpath / "cassettes" / "facts.yaml"):
        yield await aask("facts")
        await aask("goodbye")

@pytest.mark.cassette
async def test_it(facts, spanchain):
    assert await aask("inside") == "You said: inside"
    assert len(spanchain.live.named("chat gpt-test")) == 1

async def test_plain(facts):
    assert await aask("plain") == "You said: plain"  # within the block that is open
"""
    )
    args = ("-o", "asyncio_default_fixture_loop_scope=session", "-o", f"asyncio_default_test_loop_scope={loop}")
    result = project.run("--record-mode=once", *args)
    assert result.outcomes == {"passed": 2}, result.out
    assert result.counts == {"replayed": 0, "recorded": 2, "live": 4, "unverified": 0}
    project.server.close()
    result = project.run(*args)
    assert result.outcomes == {"passed": 2}, result.out
    assert result.counts == {"replayed": 2, **REPLAYED}


def test_beside_an_open_cassette_a_call_of_nobody_is_refused_and_said(project: Project) -> None:
    """A worker that is older than both may work for either."""
    source = OLDER.replace("SCOPE", "session").replace("{name} {n}", "{name}").replace("[1, 2]", "[1]")
    project.write(
        source.replace('        "pool"', '        "open": open_cassette,\n        "pool"')
        .replace(
            "class TestIt:",
            """
def open_cassette(prompt):
    return f"You said: {prompt}"

@pytest.fixture(scope="session")
def held(request):
    from pytest_spanchain import use_cassette
    with use_cassette(request.config.rootpath / "held.yaml"):
        yield

class TestIt:""",
        )
        .replace("(self, old, n", "(self, old, held, n")
        .replace("== 4", "== 3")
        .replace(
            'assert tell(f"{name}") == f"You said: {name}"',
            'assert tell(name) == f"You said: {name}" or name == "queue"',
        )
    )
    result = project.run("--record-mode=once")
    assert "a call cannot be attributed to one of the active runs (" in result.out
    assert result.outcomes["failed"] == 1
    assert project.cassettes() == []
    assert not (project.path / "held.yaml").exists()


@pytest.mark.parametrize("source", [CLOSED, OPEN], ids=["closed", "open"])
def test_workers_that_record_it_at_once_leave_one_whole_cassette(project: Project, source: str) -> None:
    project.write(source.replace("TESTS", "6"))
    result = project.run("--record-mode=once", "-n2", process=True)
    assert result.outcomes == {"passed": 6}, result.out
    assert result.counts["recorded"] in (7, 8)
    assert not list(project.path.rglob("*spanchain-tmp"))
    before = project.requests
    project.server.close()
    assert project.run().counts == {"replayed": 7, **REPLAYED}
    assert project.requests == before


def test_its_missing_cassette_is_told_and_not_the_tests_own(project: Project) -> None:
    project.write(CLOSED.replace("TESTS", "2"))
    project.record()
    (project.path / "cassettes" / "facts.yaml").unlink()
    result = project.run()
    assert result.outcomes == {"errors": 2}
    assert re.search(r"^E +pytest_spanchain.errors.CassetteMissing: ", result.out, re.MULTILINE)
    assert "_use.py" not in result.out
    assert result.out.count("facts.yaml: there is no cassette, and record mode 'none' does not make one") >= 2


@pytest.mark.parametrize("ci", ["", "true"])
def test_its_broken_or_missing_cassette_shows_nothing_of_ours(
    project: Project, monkeypatch: pytest.MonkeyPatch, ci: str
) -> None:
    project.write(CLOSED.replace("TESTS", "1"))
    project.record()
    cassette = project.path / "cassettes" / "facts.yaml"
    cassette.write_text(cassette.read_text().replace("facts", "fakts", 1))
    monkeypatch.setenv("CI", ci)
    out = project.run().out
    assert "CassetteBroken: " in out
    assert "_plan.py" not in out
    assert "_store.py" not in out
    cassette.unlink()
    assert ("under CI only the command line records" in project.run().out) == bool(ci)


def test_its_drift_is_not_taken_for_one_of_the_test(project: Project) -> None:
    project.write(CLOSED.replace("TESTS", "1"))
    project.record()
    project.write(CLOSED.replace("TESTS", "1").replace('"facts"', '"fact"'))
    out = project.run().out
    assert "span_removed" not in out
    assert out.count("accept:") == 1


# --- calls outside of every cassette -----------------------------------------------------------------------------

OUTSIDE = """
import httpx2, os, socket

real = socket.getaddrinfo

@pytest.fixture(scope="session", autouse=True)
def somewhere_else():
    def look_up(host, *args, **kwargs):
        return real("127.0.0.1" if host == "model.test" else host, *args, **kwargs)
    socket.getaddrinfo = look_up
    yield
    socket.getaddrinfo = real

def far(prompt):
    url = os.environ["OPENAI_BASE_URL"].replace("127.0.0.1", HOST) + "/chat/completions"
    with httpx2.Client(trust_env=False) as client:
        return client.post(url, json={"model": "m", "messages": [{"role": "user", "content": prompt}]}).status_code

@pytest.fixture(scope="SCOPE")
def facts():
    yield far("one"), far("two")
    far("three")

@pytest.fixture(scope="session")
def other():
    return far("other")
"""
MARKED = """
@pytest.mark.cassette
def test_it(facts):
    assert facts == (200, 200)
    ask("hello")
"""
PLAIN = "\ndef test_plain(other, facts): ...\n"


@pytest.mark.parametrize(
    ("scope", "workers", "first"),
    [("session", (), "marked"), ("session", (), "plain"), ("module", (), "plain"), ("module", ("-n1",), "marked")],
)
def test_live_calls_of_wider_fixtures_are_told(
    project: Project, scope: str, workers: tuple[str, ...], first: str
) -> None:
    tests = MARKED + PLAIN if first == "marked" else PLAIN + MARKED
    project.write(OUTSIDE.replace("HOST", "'model.test'").replace("SCOPE", scope) + tests)
    result = project.run("--record-mode=once", *workers, process=bool(workers))
    assert result.outcomes == {"passed": 2}, result.out
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 1 + 3, "unverified": 0}
    result = project.run(*workers, process=bool(workers))
    assert result.outcomes == {"passed": 2}, result.out
    assert result.counts == {"replayed": 1, "recorded": 0, "live": 3, "unverified": 0}
    told = re.findall(r"^spanchain: fixture (\w+) made (\d) calls? outside of every cassette", result.out, re.MULTILINE)
    assert {name for name, _ in told} == {"facts"}, "the other one is of an unmarked test"
    assert sum(int(count) for _, count in told) == 3


def test_what_such_fixtures_ask_of_this_machine_is_not(project: Project) -> None:
    project.write(OUTSIDE.replace("HOST", "'localhost'").replace("SCOPE", "session") + MARKED)
    assert "outside" not in project.record().out
    assert project.run().counts == {"replayed": 1, **REPLAYED}


def test_a_session_without_marked_tests_is_none_of_our_business(project: Project) -> None:
    project.write(OUTSIDE.replace("HOST", "'model.test'").replace("SCOPE", "session") + PLAIN)
    result = project.run()
    assert result.outcomes == {"passed": 1}
    assert "spanchain:" not in result.out


@pytest.mark.parametrize("call", ["ask('bye')", "aio()", "pool()", "tool()", "raw()"])
def test_a_recording_says_what_replay_will_refuse_in_the_teardown(project: Project, call: str) -> None:
    project.write(
        f"""
import asyncio, os, socket
from concurrent.futures import ThreadPoolExecutor
import pytest_spanchain

def aio():
    asyncio.run(aask("bye"))

def pool():
    with ThreadPoolExecutor(1) as executor:
        executor.submit(ask, "bye").result()

@pytest_spanchain.tool
def tool():
    open("tool", "a").write("x")

def raw():
    socket.create_connection(("127.0.0.1", {project.server.port})).close()

@pytest.fixture
def cleanup():
    yield
    {call}

@pytest.mark.cassette
def test_it(cleanup):
    ask("hello")
"""
    )
    result = project.run("--record-mode=once", "-W", "ignore")
    assert result.outcomes == {"passed": 1}, result.out
    assert result.out.count("a call after the verdict is not recorded, and replay will refuse it") == 1
    connections = 1 if call == "tool()" else 2
    until(lambda: project.server.connections == connections)
    result = project.run("-W", "ignore")
    assert result.outcomes == {"passed": 1, "errors": 1}
    assert project.server.connections == connections
    if call == "tool()":
        assert (project.path / "tool").read_text() == "x"


def test_nor_is_it_recorded_in_a_cassette_that_a_session_fixture_holds_open(project: Project) -> None:
    project.write(
        OPEN.replace("TESTS", "1").replace("(facts, n,", "(facts, n, cleanup,")
        + "\n@pytest.fixture\ndef cleanup(spanchain):\n    yield\n    if spanchain.recording:\n        ask('bye')\n"
    )
    assert "after the verdict" in project.record().out
    assert "bye" not in (project.path / "cassettes" / "facts.yaml").read_text()
    assert project.run().counts == {"replayed": 2, **REPLAYED}


# --- what outlives the test --------------------------------------------------------------------------------------

LEFT = """
import asyncio, threading
from contextlib import suppress

left = []

async def background(go):
    await go.wait()
    with suppress(Exception):
        await aask("late")

@pytest.mark.cassette
async def test_first():
    go = asyncio.Event()
    left.append((go, asyncio.create_task(background(go))))
    await aask("first")

@pytest.mark.cassette
async def test_second(spanchain):
    go, task = left[0]
    go.set()
    await task
    assert await aask("second") == "You said: second"
    assert len(spanchain.live.named("chat gpt-test")) == 1
"""


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["alone", "xdist"])
def test_a_task_that_outlives_its_test_touches_no_other(project: Project, workers: tuple[str, ...]) -> None:
    project.write(LEFT)
    args = ("-o", "asyncio_default_test_loop_scope=session", *workers)
    result = project.run("--record-mode=once", *args, process=bool(workers))
    assert result.outcomes == {"passed": 2}, result.out
    assert result.counts == {"replayed": 0, "recorded": 2, "live": 2, "unverified": 0}
    said = "spanchain: a call was made after the run of test_it.py::test_first had ended: wait for background work"
    assert result.out.count(said) == 1
    assert project.requests == 2
    result = project.run(*args, process=bool(workers))
    assert result.counts == {"replayed": 2, **REPLAYED}
    assert result.out.count(said) == 1
    assert project.requests == 2


@pytest.mark.parametrize("loop", ["session", "function"])
def test_a_client_that_all_tests_share(project: Project, loop: str) -> None:
    project.write(
        """
import openai

client = openai.AsyncOpenAI(max_retries=0)

@pytest.mark.cassette
@pytest.mark.parametrize("n", range(2))
async def test_it(n):
    messages = [{"role": "user", "content": f"{n}"}]
    done = await client.chat.completions.create(model="gpt-test", messages=messages)
    assert done.choices[0].message.content == f"You said: {n}"
"""
    )
    args = ("-o", f"asyncio_default_test_loop_scope={loop}", "-W", "ignore")
    if loop == "function":  # live, a connection does not outlive its loop; in replay there is none
        for n in range(2):
            assert project.run("--record-mode=once", f"test_it.py::test_it[{n}]", *args, process=True).code == 0
    else:
        assert project.run("--record-mode=once", *args, process=True).counts["recorded"] == 2
    project.server.close()
    assert project.run(*args, process=True).counts == {"replayed": 2, **REPLAYED}


# --- xdist -------------------------------------------------------------------------------------------------------


def test_groups_of_async_tests_in_several_processes(project: Project) -> None:
    project.write(
        """
@pytest.mark.cassette
@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("n", range(4))
async def test_it(n):
    assert await aask(f"{n}") == f"You said: {n}"
"""
    )
    twice(project, *WAYS["strict"], "-n2", "--dist=loadgroup", tests=4, live=4, process=True)


def test_a_plan_sets_nothing_up(project: Project) -> None:
    project.write("@pytest.mark.cassette\ndef test_it(tmp_path, tmp_path_factory):\n    ask('hello')\n")
    result = project.run("--setup-plan")
    assert result.code == 0, result.out
    assert project.requests == 0
