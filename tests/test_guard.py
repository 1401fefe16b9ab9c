"""In replay nothing leaves the process: what tries is refused, remembered though swallowed, and named by its line."""

from __future__ import annotations

import asyncio
import ftplib
import multiprocessing
import os
import re
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry import context

from pytest_spanchain import DeviationError, LiveCallError, RunClosedError, tool, use_cassette
from recording import Outcome, record, run
from servers import CountingListener, Json, ModelServer

HERE = Path(__file__).name


@pytest.fixture
def listener() -> Iterator[CountingListener]:
    with CountingListener() as listening:
        yield listening


@pytest.fixture
def cassette(tmp_path: Path) -> Path:
    """A cassette in which nothing happens."""
    path = tmp_path / "c.yaml"
    record(path, lambda: None)
    return path


# --- ways out ----------------------------------------------------------------------------------------------------
# Each way is one line that leaves, so that the line that the report names can be checked. None of them is a client that
# is recorded.


def by_smtp(port: int) -> None:
    smtplib.SMTP("127.0.0.1", port, timeout=2)  # leaves


def by_ftp(port: int) -> None:
    with closing(ftplib.FTP()) as client:
        client.connect("127.0.0.1", port, timeout=2)  # leaves


def by_raw_socket(port: int) -> None:
    with socket.socket() as raw:
        raw.connect(("127.0.0.1", port))  # leaves


def by_connect_ex(port: int) -> None:
    with socket.socket() as raw:
        raw.connect_ex(("127.0.0.1", port))  # leaves


def by_create_connection(port: int) -> None:
    socket.create_connection(("localhost", port), timeout=2).close()  # leaves


def by_udp(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.sendto(b"secret", ("127.0.0.1", port))  # leaves


def by_sendmsg(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.sendmsg([b"secret"], [], 0, ("127.0.0.1", port))  # leaves


def by_asyncio(port: int) -> None:
    async def connect() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)  # leaves
        writer.close()
        with suppress(ConnectionError):  # the listener hangs up at once
            await writer.wait_closed()

    asyncio.run(connect())


def by_lookup(port: int) -> None:
    socket.getaddrinfo("model.example", port)  # leaves


def by_old_lookup(port: int) -> None:
    socket.gethostbyname("model.example")  # leaves


def by_ipv6(port: int) -> None:
    with socket.socket(socket.AF_INET6) as raw:
        raw.connect(("::1", port))  # leaves


def by_thread(port: int) -> None:
    thread = threading.Thread(target=swallowing, args=(by_raw_socket, port))
    thread.start()
    thread.join(5)


def by_pool(port: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(by_raw_socket, port).result(5)


def by_executor(port: int) -> None:
    asyncio.run(asyncio.to_thread(by_raw_socket, port))


WAYS: dict[str, Callable[[int], None]] = {
    name.removeprefix("by_"): way for name, way in list(globals().items()) if name.startswith("by_")
}


def swallowing(way: Callable[[int], None], port: int) -> None:
    with suppress(Exception):
        way(port)


def line_of(way: Callable[..., None]) -> int:
    """The line that leaves; threads end in the raw socket's."""
    code = way if way not in (by_thread, by_pool, by_executor) else by_raw_socket
    first = code.__code__.co_firstlineno
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number in range(first, first + 8) if lines[number - 1].endswith("# leaves"))


@pytest.mark.parametrize("name", list(WAYS))
def test_swallowed_attempt_fails_the_run_and_is_named(name: str, cassette: Path, listener: CountingListener) -> None:
    way = WAYS[name]
    outcome = run(cassette, lambda: swallowing(way, listener.port))
    assert isinstance(outcome.failure, DeviationError)
    (attempt,) = outcome.verdict.attempts
    assert re.search(rf"{re.escape(HERE)}:{line_of(way)} in ", attempt.site), attempt.site
    assert attempt.site in str(outcome.failure)
    assert attempt.target in str(outcome.failure)
    assert listener.connections == 0


@pytest.mark.parametrize("name", ["raw_socket", "udp", "lookup", "asyncio"])
def test_the_caller_gets_a_clear_error(name: str, cassette: Path, listener: CountingListener) -> None:
    outcome = run(cassette, lambda: WAYS[name](listener.port))
    assert isinstance(outcome.raised, LiveCallError)
    for text in (str(outcome.raised), str(outcome.failure)):
        assert f"{HERE}:{line_of(WAYS[name])} in " in text
        assert "one of the tools" in text
        assert "allow_hosts=" in text


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_unix_socket(cassette: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        # A relative name: temporary directories may be deeper than the 108 bytes that an address has.
        before = Path.cwd()
        os.chdir(tmp_path)
        try:
            server.bind("s")
            server.listen()

            def agent() -> None:
                with socket.socket(socket.AF_UNIX) as raw, suppress(Exception):
                    raw.connect("s")

            outcome = run(cassette, agent)
        finally:
            os.chdir(before)
    (attempt,) = outcome.verdict.attempts
    assert attempt.target == "unix:s"


def test_thread_from_before_the_run(cassette: Path, listener: CountingListener) -> None:
    go = threading.Event()

    def waiting() -> None:
        go.wait(5)
        swallowing(by_raw_socket, listener.port)
        swallowing(by_smtp, listener.port)

    thread = threading.Thread(target=waiting)
    thread.start()

    def agent() -> None:
        go.set()
        thread.join(5)

    outcome = run(cassette, agent)
    assert len(outcome.verdict.attempts) == 2
    assert listener.connections == 0


def test_library_in_disguise_is_refused_all_the_same(cassette: Path, listener: CountingListener) -> None:
    """A socket class that was put aside before the run, as clients do that were imported early."""
    kept = socket.socket.connect

    def agent() -> None:
        with socket.socket() as raw, suppress(Exception):
            kept(raw, ("127.0.0.1", listener.port))

    assert run(cassette, agent).failure is not None
    assert listener.connections == 0


def test_connected_sockets_and_event_loops_go_on(cassette: Path) -> None:
    """What does not leave, or was connected before, is nobody's business."""
    near, far = socket.socketpair()

    async def agent() -> bytes:
        loop = asyncio.get_running_loop()
        near.sendmsg([b"hello"])
        got = await loop.run_in_executor(None, far.recv, 16)
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
        return got

    with near, far:
        outcome = run(cassette, agent)
    assert outcome.value == b"hello"
    assert outcome.failure is None


# --- what may pass -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", ["localhost", "127.0.0.1", "LOCALHOST"])
@pytest.mark.parametrize("name", ["smtp", "raw_socket", "create_connection", "asyncio", "udp", "thread"])
def test_loopback_may_be_allowed(allowed: str, name: str, cassette: Path, listener: CountingListener) -> None:
    outcome = run(cassette, lambda: swallowing(WAYS[name], listener.port), allow_hosts=[allowed])
    assert outcome.failure is None
    assert listener.connections == (name != "udp")


@pytest.mark.parametrize(("allowed", "passes"), [("unix:s", True), ("unix:*", True), ("unix:other", False)])
def test_unix_sockets_may_be_allowed(
    allowed: str, passes: bool, cassette: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        server.listen()

        def agent() -> None:
            with socket.socket(socket.AF_UNIX) as raw, suppress(LiveCallError):
                raw.connect("s")

        assert (run(cassette, agent, allow_hosts=[allowed]).failure is None) == passes


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pythons_own_processes_may_talk(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot start processes by {method}")
    context: Any = multiprocessing.get_context(method)

    def agent() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork in a process with threads
            with context.Manager() as manager:
                shared = manager.list([1])
                shared.append(2)
                worker = context.Process(target=len, args=([],))
                worker.start()
                worker.join(20)
                return sum(shared)

    assert record(tmp_path / "m.yaml", agent).verdict.notes == ()
    outcome = run(tmp_path / "m.yaml", agent)
    assert (outcome.raised, outcome.failure, outcome.value) == (None, None, 3)


def test_a_directory_that_only_looks_like_pythons_own_is_refused(cassette: Path, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pymp-"))  # short, as an address has to be
    try:
        folder.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "s"))
            server.listen()

            def agent() -> None:
                with socket.socket(socket.AF_UNIX) as raw, suppress(LiveCallError):
                    raw.connect(str(folder / "s"))

            assert len(run(cassette, agent).verdict.attempts) == 1
    finally:
        shutil.rmtree(folder)


def test_attempt_from_a_directory_that_is_gone(
    cassette: Path, listener: CountingListener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def agent() -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        swallowing(by_smtp, listener.port)

    try:
        outcome = run(cassette, agent)
    finally:
        monkeypatch.chdir(tmp_path)
    assert len(outcome.verdict.attempts) == 1
    assert isinstance(outcome.failure, DeviationError)
    assert listener.connections == 0


def test_allowing_one_host_allows_no_other(cassette: Path) -> None:
    outcome = run(cassette, lambda: swallowing(by_lookup, 80), allow_hosts=["localhost", "other.example"])
    (attempt,) = outcome.verdict.attempts
    assert attempt.target == "model.example:80"


def test_allowed_name_may_be_looked_up_and_its_addresses_contacted(
    cassette: Path, listener: CountingListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolver(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real("127.0.0.1" if host == "db.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)

    def agent() -> None:
        with socket.create_connection(("db.example", listener.port), timeout=2):
            pass

    assert run(cassette, agent, allow_hosts=["db.example"]).failure is None
    assert listener.connections == 1


def attempts_at(host: str, port: int) -> Callable[[], None]:
    def agent() -> None:
        with suppress(Exception), socket.create_connection((host, port), timeout=2):
            pass

    return agent


@pytest.mark.parametrize(
    ("host", "port"), [("localhost", 4318), ("127.0.0.1", 4317), ("api.smith.langchain.com", 443), ("::1", 4318)]
)
def test_telemetry_is_refused_without_a_verdict(host: str, port: int, cassette: Path) -> None:
    outcome = run(cassette, attempts_at(host, port))
    assert outcome.failure is None
    assert outcome.verdict.attempts == ()


def test_telemetry_through_httpx_is_refused_and_not_recorded(tmp_path: Path) -> None:
    def agent() -> str:
        with httpx2.Client(verify=False, timeout=2) as client:
            try:
                client.post("http://127.0.0.1:4318/v1/traces", content=b"spans")
            except Exception as error:  # noqa: BLE001 - an exporter swallows everything
                return type(error).__name__
        return "sent"

    recorded = record(tmp_path / "c.yaml", agent)
    assert len(recorded.verdict.live) == 1
    outcome = run(tmp_path / "c.yaml", agent)
    assert outcome.failure is None
    assert outcome.value != "sent"


def by_httpx(url: str) -> None:
    with httpx2.Client(timeout=2) as client:
        client.post(url, content=b"spans")


def by_urllib(url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data=b"spans"), timeout=2) as answer:
        answer.read()


def by_urllib3(url: str) -> None:
    urllib3 = pytest.importorskip("urllib3")
    with urllib3.PoolManager(retries=False) as pool:
        pool.request("POST", url, body=b"spans")


def by_aiohttp(url: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def post() -> None:
        async with aiohttp.ClientSession() as client, client.post(url, data=b"spans") as answer:
            await answer.read()

    asyncio.run(post())


@contextmanager
def suppressed() -> Iterator[None]:
    """As exporters do while they send, and users where they want no spans."""
    token = context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        context.detach(token)


@pytest.mark.parametrize("send", [by_httpx, by_urllib, by_urllib3, by_aiohttp])
def test_an_exporter_stays_out_wherever_its_collector_is(
    send: Callable[[str], None], tmp_path: Path, server: ModelServer
) -> None:
    server.script(lambda request: Json({}))

    def agent() -> None:
        with suppressed(), suppress(Exception):
            send(f"{server.url}/otel/v1/traces")
        by_httpx(f"{server.url}/agent")

    recorded = record(tmp_path / "c.yaml", agent)
    assert [request.path for request in server.requests] == ["/otel/v1/traces", "/agent"]
    assert [span.name for span in recorded.verdict.live if span.exchange] == ["POST /agent"]
    assert not recorded.verdict.notes
    outcome = run(tmp_path / "c.yaml", agent)
    assert (outcome.failure, outcome.raised) == (None, None)
    assert len(server.requests) == 2


@pytest.mark.parametrize("path", ["agent", "v1/traces"])
def test_what_only_suppresses_spans_or_only_looks_like_an_export_is_recorded(
    path: str, tmp_path: Path, server: ModelServer
) -> None:
    server.script(lambda request: Json({}))

    def agent() -> None:
        with suppressed() if path == "agent" else nullcontext():
            by_httpx(f"{server.url}/{path}")

    recorded = record(tmp_path / "c.yaml", agent)
    assert [span.name for span in recorded.verdict.live if span.exchange] == [f"POST /{path}"]
    assert run(tmp_path / "c.yaml", agent).failure is None
    assert len(server.requests) == 1


# --- the end -----------------------------------------------------------------------------------------------------


def test_nothing_is_blocked_after_the_run(cassette: Path, listener: CountingListener) -> None:
    run(cassette, lambda: None)
    by_raw_socket(listener.port)
    thread = threading.Thread(target=by_raw_socket, args=(listener.port,))
    thread.start()
    thread.join(5)
    with suppress(Exception):
        run(cassette, lambda: 1 / 0)
    by_create_connection(listener.port)
    assert listener.connections == 3


def in_thread(way: Callable[[], Any]) -> tuple[Callable[[], None], list[BaseException]]:
    """A thread that waits. Returns what lets it go ``way`` and waits for its end, and what it will have raised."""
    go, raised = threading.Event(), []

    def late() -> None:
        go.wait(5)
        try:
            way()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)

    thread = threading.Thread(target=late)
    thread.start()

    def let_go() -> None:
        go.set()
        thread.join(5)

    return let_go, raised


def test_httpx_call_that_outlives_its_run(cassette: Path, server: ModelServer) -> None:
    server.script(lambda request: Json({}))

    def call() -> None:
        with httpx2.Client(verify=False) as client:
            client.get(server.url)

    with use_cassette(cassette):
        let_go, raised = in_thread(call)
    let_go()
    assert [type(error) for error in raised] == [RunClosedError]
    assert server.requests == []


@pytest.mark.parametrize("name", ["raw_socket", "udp", "lookup", "asyncio", "pool"])
def test_socket_that_outlives_its_replay(name: str, cassette: Path, listener: CountingListener) -> None:
    """The verdict is given and nothing else replays: what the agent left behind stays inside all the same."""
    with use_cassette(cassette):
        let_go, raised = in_thread(lambda: WAYS[name](listener.port))
    let_go()
    assert [type(error) for error in raised] == [RunClosedError]
    assert f"{HERE}:{line_of(WAYS[name])} in " in str(raised[0])
    assert listener.connections == 0


@pytest.mark.parametrize("mode", ["none", "rewrite"])
def test_socket_of_an_ended_run_during_the_next_one(
    mode: str, cassette: Path, tmp_path: Path, listener: CountingListener
) -> None:
    """The next test replays: what the last one left behind, replay or recording, cannot slip out under its cover."""
    record(tmp_path / "next.yaml", lambda: None)
    with use_cassette(cassette, mode=mode):
        let_go, raised = in_thread(lambda: by_raw_socket(listener.port))
    outcome = run(tmp_path / "next.yaml", let_go)
    assert [type(error) for error in raised] == [RunClosedError if mode == "none" else LiveCallError]
    assert listener.connections == 0
    (attempt,) = outcome.verdict.attempts
    assert f"{HERE}:{line_of(by_raw_socket)} in " in attempt.site
    assert attempt.site in str(outcome.failure)


def test_socket_that_could_belong_to_two_replays(tmp_path: Path, listener: CountingListener) -> None:
    """A thread from before both: neither may be green."""
    for name in ("a", "b"):
        record(tmp_path / f"{name}.yaml", lambda: None)
    let_go, raised = in_thread(lambda: by_raw_socket(listener.port))
    one, other = use_cassette(tmp_path / "a.yaml"), use_cassette(tmp_path / "b.yaml")
    with pytest.raises(DeviationError, match=f"{HERE}:{line_of(by_raw_socket)} in "), one, other:
        let_go()
    assert [type(error) for error in raised] == [LiveCallError]
    assert listener.connections == 0
    for block in (one, other):
        assert block.verdict is not None
        assert [attempt.target for attempt in block.verdict.attempts] == [f"127.0.0.1:{listener.port}"]
        assert block.verdict.failing


def test_socket_that_could_belong_to_a_replay_or_a_recording(
    cassette: Path, tmp_path: Path, listener: CountingListener
) -> None:
    let_go, raised = in_thread(lambda: by_raw_socket(listener.port))
    replaying, recording = use_cassette(cassette), use_cassette(tmp_path / "new.yaml", mode="once")
    with pytest.raises(DeviationError, match=f"{HERE}:{line_of(by_raw_socket)} in "), replaying, recording:
        let_go()
    assert [type(error) for error in raised] == [LiveCallError]
    assert listener.connections == 0


def test_all_of_several_replays_must_allow_what_could_be_theirs(tmp_path: Path, listener: CountingListener) -> None:
    for name in ("a", "b"):
        record(tmp_path / f"{name}.yaml", lambda: None)
    let_go, raised = in_thread(lambda: by_raw_socket(listener.port))
    allowing, strict = use_cassette(tmp_path / "a.yaml", allow_hosts=["localhost"]), use_cassette(tmp_path / "b.yaml")
    with allowing, suppress(DeviationError), strict:
        let_go()
    assert [type(error) for error in raised] == [LiveCallError]
    assert listener.connections == 0


def test_refused_socket_is_closed(cassette: Path) -> None:
    """Whoever connects closes the socket on an ``OSError`` only; ours would leave it to the garbage collector."""
    kept: list[socket.socket] = []

    def agent() -> None:
        kept.append(socket.socket())
        with suppress(LiveCallError):
            kept[0].connect(("127.0.0.1", 9))

    run(cassette, agent)
    assert kept[0].fileno() == -1


def test_refused_datagram_leaves_its_socket_open(cassette: Path) -> None:
    """One socket may send to many: what it may still send must get out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inbox, socket.socket(type=socket.SOCK_DGRAM) as raw:
        inbox.bind(("127.0.0.1", 0))
        inbox.settimeout(5)

        def agent() -> bytes:
            with suppress(LiveCallError):
                raw.sendto(b"secret", ("192.0.2.1", 9))
            raw.sendto(b"hello", inbox.getsockname())
            return inbox.recv(16)

        outcome = run(cassette, agent, allow_hosts=["localhost"])
    assert outcome.value == b"hello"
    assert [attempt.target for attempt in outcome.verdict.attempts] == ["192.0.2.1:9"]


def test_recording_run_beside_a_replaying_one(cassette: Path, tmp_path: Path, listener: CountingListener) -> None:
    """The guard of one run does not stop the other."""
    with use_cassette(cassette), use_cassette(tmp_path / "new.yaml", mode="once"):
        by_raw_socket(listener.port)
    assert listener.connections == 1


def test_report_of_several_attempts_names_each(cassette: Path, listener: CountingListener) -> None:
    def agent() -> None:
        swallowing(by_smtp, listener.port)
        swallowing(by_lookup, 1)

    outcome: Outcome = run(cassette, agent)
    text = str(outcome.failure)
    assert f":{line_of(by_smtp)}" in text
    assert f":{line_of(by_lookup)}" in text
    assert outcome.verdict.live_calls == 2


# --- connections from before the run -----------------------------------------------------------------------------


def by_send(warm: socket.socket) -> None:
    warm.send(b"POST / HTTP/1.1\r\n\r\n")  # leaves


def by_sendall(warm: socket.socket) -> None:
    warm.sendall(b"POST / HTTP/1.1\r\n\r\n")  # leaves


def by_kept_alive(warm: socket.socket) -> None:
    client = ftplib.FTP()
    client.sock = warm
    client.putcmd("POST /delete_everything")  # leaves


def by_sendmsg_connected(warm: socket.socket) -> None:
    warm.sendmsg([b"POST / HTTP/1.1\r\n\r\n"])  # leaves


@pytest.mark.parametrize("way", [by_send, by_sendall, by_kept_alive, by_sendmsg_connected])
def test_warm_connection_sends_nothing(way: Callable[[socket.socket], None], cassette: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as warm:
        far, _ = server.accept()
        with far:
            outcome = run(cassette, lambda: way(warm))
            assert isinstance(outcome.raised, LiveCallError)
            (attempt,) = outcome.verdict.attempts
            assert f"{HERE}:{line_of(way)} in " in attempt.site
            assert run(cassette, lambda: way(warm), allow_hosts=["localhost"]).failure is None
            far.settimeout(5)
            assert far.recv(4) == b"POST", "what is allowed is sent"


def test_server_in_the_process_may_answer(cassette: Path) -> None:
    """A child process that calls back is answered: what was accepted is not an attempt to leave."""
    script = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print(s.recv(9).decode())"
    )

    def agent() -> str:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            with subprocess.Popen([sys.executable, "-c", script, port], stdout=subprocess.PIPE, text=True) as child:
                near, _ = server.accept()
                with near:
                    near.sendall(b"answer")
                return str(child.communicate(timeout=10)[0]).strip()

    outcome = run(cassette, agent)
    assert (outcome.value, outcome.failure) == ("answer", None)


# --- while recording ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["raw_socket", "lookup", "udp"])
def test_what_a_recording_misses_is_noted(name: str, tmp_path: Path, listener: CountingListener) -> None:
    """It goes out, once; and the recording says that replay will refuse it, and which line it is."""
    outcome = record(tmp_path / "c.yaml", lambda: WAYS[name](listener.port))
    (note,) = outcome.verdict.notes
    assert f"{HERE}:{line_of(WAYS[name])} in " in note
    assert "not recorded" in note
    assert "allow_hosts=" in note


def test_what_a_recording_holds_is_not_noted(tmp_path: Path, server: ModelServer) -> None:
    server.script(lambda request: Json({}))

    @tool
    def remote() -> None:
        by_create_connection(server.port)

    def agent() -> None:
        with httpx2.Client(verify=False) as client:
            client.get(server.url)
        remote()

    assert record(tmp_path / "c.yaml", agent).verdict.notes == ()


def test_what_is_allowed_in_replay_is_not_noted(tmp_path: Path, listener: CountingListener) -> None:
    outcome = record(tmp_path / "c.yaml", lambda: by_raw_socket(listener.port), allow_hosts=["localhost"])
    assert outcome.verdict.notes == ()
