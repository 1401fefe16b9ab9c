"""aiohttp by itself: what a session asks, what it is answered, and how an answer is read."""

from __future__ import annotations

import asyncio
import base64
import functools
import gzip
import hashlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

import ready_first
from proof import Proof, Stack
from pytest_spanchain import tool, use_cassette
from pytest_spanchain.boundaries.clients import aiohttp as boundary
from pytest_spanchain.errors import BoundaryError
from recording import Outcome, record, replay, run
from servers import PATIENCE, Hang, Json, ModelServer, Raw, Reply, Request, Reset, Stream, closed_port, in_turn, sse

aiohttp = pytest.importorskip("aiohttp")

STACK = Stack(
    name="aiohttp",
    dists=("aiohttp",),
    records="requests, at the innermost client middleware (aiohttp 3.12.7 or newer)",
    limits=(
        "Websockets are not recorded; replay refuses them.",
        "In replay a response has no cookies, no connection to look into and the standard reason phrase, and the names"
        " of its headers are written Like-This.",
        "In replay the trace signals of connections, of DNS and of what was sent are silent, and an upload_tracker"
        " sees nothing.",
        "Streams of events that were read side by side end in replay as they are read, not as they had ended.",
        "In replay iter_chunks() takes each chunk for a whole HTTP chunk.",
    ),
)

EVENTS = [f'data: {{"n": {n}, "text": "löss 🦡"}}' for n in range(6)]
STREAM = "".join(f"{event}\n\n" for event in EVENTS).encode()
CUTS = [STREAM[n : n + 7] for n in range(0, len(STREAM), 7)]


def echo(request: Request) -> Reply:
    return Json({"method": request.method, "path": request.path, "said": request.body})


async def fetch(url: str, method: str = "POST", *, session: dict[str, Any] | None = None, **options: Any) -> Any:
    """Status and text of an answer."""
    async with aiohttp.ClientSession(**session or {}) as client, client.request(method, url, **options) as answer:
        return answer.status, await answer.text()


def calls(outcome: Outcome) -> list[Any]:
    """The exchanges of a run, in order."""
    return [span.exchange for span in outcome.verdict.live if span.exchange is not None]


def test_a_session_that_asks_side_by_side(proof: Proof) -> None:
    proof.server.script(ready_first.last_first)

    async def ask(n: int) -> int:
        return int(json.loads((await fetch(f"{proof.server.url}/x", json={"n": n}))[1])["n"])

    assert proof.holds(lambda: asyncio.run(ready_first.in_tasks(ask))).value == ready_first.LAST_FIRST


# --- answers -----------------------------------------------------------------------------------------------------


def test_an_answer_is_told_in_full(proof: Proof) -> None:
    proof.server.script(lambda request: Json({"said": request.body}, status=201, headers={"X-Total-Count": "3"}))

    async def agent() -> Any:
        async with aiohttp.ClientSession() as session, session.post(f"{proof.server.url}/x#f", json={"a": 1}) as answer:
            assert isinstance(answer, aiohttp.ClientResponse)
            assert isinstance(answer.content, aiohttp.StreamReader)
            told: list[Any] = [answer.status, answer.reason, answer.ok, answer.method, str(answer.version)]
            told += [str(answer.url), str(answer.real_url), answer.host, answer.history, answer.content_type]
            told += [answer.headers["Content-Type"], answer.charset, answer.get_encoding()]
            told += [dict(answer.headers)["X-Total-Count"], dict(answer.raw_headers)[b"X-Total-Count"]]
            told += [await answer.json(), await answer.text(), await answer.read(), repr(answer.request_info.method)]
            told += [answer.closed, answer.content.at_eof()]
        return [*told, answer.closed]

    recorded = proof.holds(agent)
    assert recorded.value[0] == 201
    assert recorded.value[15] == {"said": {"a": 1}}
    (cause,) = proof.breaks(lambda: asyncio.run(fetch(f"{proof.server.url}/x", json={"a": 2})))
    assert cause.kind == "input_changed"


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE"])
def test_nothing_but_a_status(method: str, proof: Proof) -> None:
    async def agent() -> Any:
        async with aiohttp.ClientSession() as session:
            answer = await session.request(method, url)
            return answer.status, await answer.read(), answer.content.at_eof(), await answer.content.readany()

    status = "200 OK\r\ncontent-length: 5" if method == "HEAD" else "204 No Content"
    with raw_server([], f"HTTP/1.1 {status}\r\n\r\n".encode()) as url:
        recorded = record(proof.cassette, agent)
    assert recorded.value == (200 if method == "HEAD" else 204, b"", True, b"")
    assert calls(recorded)[0].response["end"] == "complete"
    assert replay(proof.cassette, agent).value == recorded.value


def test_bytes_of_any_kind(proof: Proof) -> None:
    blob = bytes(range(256)) * 5000  # more than any buffer holds
    proof.server.script(lambda request: Raw(blob))

    async def agent() -> str:
        async with aiohttp.request("GET", proof.server.url) as answer:
            return hashlib.sha256(await answer.read()).hexdigest()

    assert proof.holds(agent).value == hashlib.sha256(blob).hexdigest()


def test_a_header_that_is_no_utf8_does_not_stop_a_recording(proof: Proof) -> None:
    proof.server.script(lambda request: Raw(b"x", headers={"content-disposition": "attachment; filename=l\xf6ss"}))

    async def agent() -> Any:
        async with aiohttp.ClientSession() as client, client.get(proof.server.url) as answer:
            return await answer.text()

    proof.holds(agent)
    assert "filename=löss" in proof.cassette.read_text(encoding="utf-8")


@pytest.mark.parametrize("decodes", [True, False], ids=["decodes", "wants-it-raw"])
def test_a_compressed_answer_is_recorded_decoded(decodes: bool, proof: Proof) -> None:
    proof.server.script(lambda request: Json({"text": "löss " * 50}, gzip=True))

    async def agent() -> Any:
        async with aiohttp.ClientSession(auto_decompress=decodes) as session, session.get(proof.server.url) as answer:
            body = await answer.read()
            # Who decodes by itself looks here first.
            return gzip.decompress(body) if not decodes and "Content-Encoding" in answer.headers else body

    recorded = proof.holds(agent)
    assert b"l\\u00f6ss" in recorded.value
    assert "base64" not in proof.cassette.read_text(encoding="utf-8")


def test_who_decodes_by_itself_is_sent_what_aiohttp_can_decode(proof: Proof) -> None:
    proof.server.script(lambda request: Json(request.headers["accept-encoding"]))
    offer = {"Accept-Encoding": "gzip;q=1.0, deflate, made-up"}
    agent = functools.partial(fetch, proof.server.url, headers=offer, auto_decompress=False)
    assert proof.holds(lambda: asyncio.run(agent())).value == (200, '"gzip;q=1.0, deflate"')


def test_what_a_tool_asks_is_part_of_the_tool(proof: Proof) -> None:
    proof.server.script(lambda request: Json("hello"))

    @tool
    async def look() -> str:
        return str((await fetch(proof.server.url))[1])

    async def agent() -> str:
        return str(await look())

    recorded = proof.holds(agent)
    assert recorded.value == '"hello"'
    assert [one.kind for one in calls(recorded)] == ["tool", "http"]


# --- requests ----------------------------------------------------------------------------------------------------


def _form(tmp_path: Path) -> Any:
    (tmp_path / "letter.txt").write_bytes(b"dear all\n")
    form = aiohttp.FormData()
    form.add_field("name", "badger")
    form.add_field("file", open(tmp_path / "letter.txt", "rb"), filename="letter.txt")  # noqa: SIM115 - aiohttp closes it
    return form


def _file(tmp_path: Path) -> Any:
    (tmp_path / "letter.txt").write_bytes(b"dear all\n" * 9)
    return open(tmp_path / "letter.txt", "rb")


OPENED: list[Any] = []


def _pipe(tmp_path: Path) -> Any:
    reading, writing = os.pipe()
    os.write(writing, b"only once")
    os.close(writing)
    OPENED.append(os.fdopen(reading, "rb"))
    return OPENED[-1]


def _form_of_a_pipe(tmp_path: Path) -> Any:
    form = aiohttp.FormData()
    form.add_field("file", _pipe(tmp_path), filename="letter.txt")
    return form


async def _made(tmp_path: Path) -> AsyncIterator[bytes]:
    yield b"piece by "
    yield b"piece"


BODIES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "bytes": (lambda tmp_path: b"bytes", "bytes"),
    "text": (lambda tmp_path: "löss", "löss"),
    "form": (lambda tmp_path: {"a": "1 2", "b": "3"}, "a=1+2&b=3"),
    "multipart": (_form, "dear all"),
    "file": (_file, "dear all\n" * 9),
    "memory": (lambda tmp_path: io.BytesIO(b"in memory"), "in memory"),
    "pipe": (_pipe, "only once"),
    "multipart of a pipe": (_form_of_a_pipe, "only once"),
    "generator": (_made, "piece by piece"),
}


@pytest.mark.parametrize("kind", list(BODIES))
def test_bodies_arrive_and_are_compared(kind: str, proof: Proof, tmp_path: Path) -> None:
    make, said = BODIES[kind]
    arrived: list[bytes] = []

    async def agent() -> Any:
        body = make(tmp_path)
        try:
            return await fetch(url, data=body)
        finally:
            while OPENED:  # aiohttp closes what it can read again
                OPENED.pop().close()

    with raw_server(arrived) as url:
        recorded = record(proof.cassette, agent)
    assert recorded.value == (200, "ok"), recorded.raised
    assert said.encode() in _unchunked(arrived[0])
    assert said.split("\n", maxsplit=1)[0] in proof.cassette.read_text(encoding="utf-8")
    assert replay(proof.cassette, agent).value == (200, "ok")
    assert run(proof.cassette, lambda: asyncio.run(fetch(url, data=b"something else"))).failure is not None


@contextmanager
def raw_server(
    arrived: list[bytes], answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
) -> Iterator[str]:
    """Answers one connection by fixed bytes, once what it says has come to its end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            connection.settimeout(PATIENCE)
            with connection:
                data = b""
                while not _whole(data):
                    data += connection.recv(65536)
                arrived.append(data)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(PATIENCE)
        assert not thread.is_alive()


def _whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"transfer-encoding" in lines:
        return body.endswith(b"0\r\n\r\n")
    return bool(found) and len(body) >= int(lines.get(b"content-length", 0))


def _unchunked(data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    found = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            return found
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]


def test_what_a_session_adds_is_part_of_the_request_and_no_secret(proof: Proof) -> None:
    proof.server.script(echo)
    session = {
        "base_url": f"{proof.server.url}/v1/",
        "headers": {"Authorization": "Bearer sk-live-0123456789abcdefghij", "anthropic-version": "7"},
        "cookies": {"session": "c00kie-0123456789abcdef"},
    }

    async def agent(query: str = "b c") -> Any:
        return await fetch("things", "GET", session=session, params={"a": query})

    recorded = proof.holds(lambda: asyncio.run(agent()))
    assert proof.server.requests[0].path == "/v1/things?a=b+c"
    assert proof.server.requests[0].headers["cookie"] == "session=c00kie-0123456789abcdef"
    assert calls(recorded)[0].request["url"] == "http://loopback/v1/things?a=b+c"
    text = proof.cassette.read_text(encoding="utf-8")
    assert "sk-live" not in text
    assert "c00kie" not in text
    assert proof.breaks(lambda: asyncio.run(agent("other")))


def test_each_hop_of_a_redirect_is_an_exchange(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        if request.path == "/old":
            return Raw(b"gone", status=303, headers={"Location": "/new?x=1", "Set-Cookie": "seen=1"})
        return echo(request)

    proof.server.script(script)

    async def agent() -> Any:
        async with aiohttp.ClientSession() as session, session.post(f"{proof.server.url}/old", json=1) as answer:
            past = [(one.status, str(one.url), one.headers["Location"]) for one in answer.history]
            return str(answer.url), past, await answer.json()

    recorded = proof.holds(agent)
    assert recorded.value[2] == {"method": "GET", "path": "/new?x=1", "said": None}
    assert [one.request["method"] for one in calls(recorded)] == ["POST", "GET"]


def test_a_session_asks_again_and_is_refused_and_raises(proof: Proof) -> None:
    busy, fine = Json({"error": "slow down"}, status=429, headers={"Retry-After": "0"}), Json("at last")
    proof.server.script(in_turn(busy, fine, Json("no", status=503)))

    async def agent() -> Any:
        async with aiohttp.ClientSession(raise_for_status=False) as session:
            answers = [await session.post(proof.server.url, json=1) for _ in range(2)]
            told = [(one.status, one.headers.get("Retry-After"), await one.json()) for one in answers]
            with pytest.raises(aiohttp.ClientResponseError) as caught:
                await session.get(proof.server.url, raise_for_status=True)
            return told, caught.value.status, caught.value.message, str(caught.value.request_info.url)

    assert proof.holds(agent).value[0] == [(429, "0", {"error": "slow down"}), (200, None, "at last")]


def test_middlewares_and_traces_of_the_user_see_both_runs(proof: Proof) -> None:
    proof.server.script(in_turn(Json("who?", status=401), Json("welcome")))
    seen: list[str] = []

    async def log_in(request: Any, handler: Any) -> Any:
        answer = await handler(request)
        if answer.status != 401:
            return answer
        seen.append(await answer.text())
        request.headers["Authorization"] = "Bearer sk-live-0123456789abcdefghij"
        return await handler(request)

    async def signal(name: str, *args: Any) -> None:
        seen.append(name)

    trace = aiohttp.TraceConfig()
    for name in ("on_request_start", "on_request_end", "on_response_chunk_received", "on_request_exception"):
        getattr(trace, name).append(functools.partial(signal, name))

    async def agent() -> Any:
        seen.clear()
        answer = await fetch(proof.server.url, session={"middlewares": (log_in,), "trace_configs": [trace]})
        return answer, list(seen)

    recorded = proof.holds(agent)
    assert recorded.value[0] == (200, '"welcome"')
    assert "on_request_end" in recorded.value[1]
    assert len(calls(recorded)) == 2


def test_classes_of_the_user_are_used(proof: Proof) -> None:
    proof.server.script(lambda request: Json("hello"))

    class Answer(aiohttp.ClientResponse):  # type: ignore[misc, name-defined]
        async def loud(self) -> str:
            return str(await self.text()).upper()

    async def agent() -> Any:
        async with aiohttp.ClientSession(response_class=Answer) as session, session.get(proof.server.url) as answer:
            return await answer.loud()

    assert proof.holds(agent).value == '"HELLO"'


# --- streams -----------------------------------------------------------------------------------------------------


async def _by_size(content: Any) -> list[Any]:
    found = []
    while piece := await content.read(11):
        found.append(piece)
    return found


async def _exactly(content: Any) -> list[Any]:
    found = []
    while True:
        try:
            found.append(await content.readexactly(13))
        except asyncio.IncompleteReadError as error:
            return [*found, error.partial]


async def _until_eof(content: Any) -> list[Any]:
    found = []
    while not content.at_eof():
        found.append(await content.readuntil(b"\n\n"))
    return [one for one in found if one]  # whether it hears of the end with the last piece is the network's choice


async def _all(iterator: Any) -> list[Any]:
    return [one async for one in iterator]


async def _chunks(content: Any) -> list[bytes]:
    """Whole HTTP chunks: whether the end of one is heard of with its last byte is the network's choice."""
    found, part = [], b""
    async for data, ends in content.iter_chunks():
        part += data
        if ends and part:  # 3.12 also tells of the empty one at the end, if that comes by itself
            found.append(part)
            part = b""
    return [*found, *([part] if part else [])]


READS: dict[str, Callable[[Any], Any]] = {
    "iter_any": lambda content: _all(content.iter_any()),
    "iter_chunks": _chunks,
    "iter_chunked": lambda content: _all(content.iter_chunked(5)),
    "lines": _all,
    "read": _by_size,
    "readexactly": _exactly,
    "readuntil": _until_eof,
}


@pytest.mark.parametrize("how", list(READS))
def test_every_way_of_reading_sees_the_same_again(how: str, proof: Proof) -> None:
    proof.server.script(lambda request: Stream(CUTS, delay=0.002))

    async def agent() -> Any:
        async with aiohttp.ClientSession() as session, session.get(proof.server.url) as answer:
            return await READS[how](answer.content)

    found = proof.holds(agent).value
    assert b"".join(found) == STREAM
    if how == "iter_chunks":
        assert found == CUTS


def test_http_chunks_larger_than_what_comes_at_once(proof: Proof) -> None:
    """Where one ends is told if it is known by the time it is read, so only the bytes are the same each time."""
    chunks = [f"data: {letter * 300_000}\n\n".encode() for letter in "abc"]
    proof.server.script(lambda request: Stream(chunks))

    async def agent() -> bytes:
        async with aiohttp.ClientSession() as session, session.get(proof.server.url) as answer:
            return b"".join([data async for data, _ in answer.content.iter_chunks()])

    assert proof.holds(agent).value == b"".join(chunks)


def test_what_does_not_wait(proof: Proof) -> None:
    proof.server.script(lambda request: sse(*EVENTS))

    async def agent() -> Any:
        found = b""
        async with aiohttp.ClientSession() as session:
            async with session.get(proof.server.url) as answer:
                while not answer.content.is_eof():
                    found += answer.content.read_nowait()
                    await asyncio.sleep(0)
            async with session.get(proof.server.url) as answer:
                await answer.content.wait_eof()
                return found + answer.content.read_nowait()

    assert proof.holds(agent).value == STREAM * 2


def test_the_first_piece_arrives_before_the_last_leaves(proof: Proof) -> None:
    gate = threading.Event()
    proof.server.script(lambda request: sse(*EVENTS, gates={1: gate}))

    async def agent() -> list[bytes]:
        found = []
        async with aiohttp.ClientSession() as session, session.get(proof.server.url) as answer:
            async for line in answer.content:
                found.append(line)
                gate.set()
        return found

    assert b"".join(proof.holds(agent).value) == STREAM


def reader(url: str, pieces: int) -> Callable[[], Any]:
    async def agent() -> list[bytes]:
        found = []
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            async for piece in answer.content.iter_any():
                found.append(piece)
                if len(found) == pieces:
                    break
        return found

    return agent


def test_closed_after_the_third_piece(proof: Proof) -> None:
    proof.server.script(lambda request: sse(*EVENTS, delay=0.02))
    recorded = proof.holds(reader(proof.server.url, 3))
    assert len(recorded.value) == 3
    assert calls(recorded)[0].response["end"] == "closed"
    assert proof.breaks(reader(proof.server.url, 2))
    longer = run(proof.cassette, reader(proof.server.url, -1))
    assert "reads on after 3 chunks" in str(longer.raised)
    assert longer.failure is not None


@pytest.mark.parametrize("leaves", [True, False], ids=["released", "left-alone"])
def test_an_answer_that_nobody_reads(leaves: bool, proof: Proof) -> None:
    proof.server.script(lambda request: sse(*EVENTS))
    kept = []

    async def agent() -> int:
        async with aiohttp.ClientSession() as session:
            answer = await session.get(proof.server.url)
            if leaves:
                answer.release()
                with pytest.raises(aiohttp.ClientConnectionError, match="Connection closed"):
                    await answer.content.readany()
            kept.append(answer)
            return int(answer.status)

    proof.holds(agent)
    assert run(proof.cassette, lambda: asyncio.run(fetch(proof.server.url, "GET"))).failure is not None


def test_a_stream_that_is_polled(proof: Proof) -> None:
    gate = threading.Event()
    proof.server.script(lambda request: sse(*EVENTS, gates={2: gate}))

    async def agent() -> bytes:
        found = b""
        async with aiohttp.ClientSession() as session, session.get(proof.server.url) as answer:
            while not answer.content.at_eof():
                try:
                    found += await asyncio.wait_for(answer.content.readline(), 0.1)
                except asyncio.TimeoutError:
                    gate.set()
        return found

    recorded = proof.holds(agent)
    assert recorded.value == STREAM
    assert calls(recorded)[0].response["end"] == "complete"


def test_cancelled_while_it_waits_for_more(proof: Proof) -> None:
    proof.server.script(lambda request: sse(*EVENTS, gates={2: threading.Event()}))

    async def agent() -> list[bytes]:
        found = []
        async with aiohttp.ClientSession() as session, session.get(proof.server.url) as answer:

            async def read() -> None:
                async for line in answer.content:
                    found.append(line)

            try:
                await asyncio.wait_for(read(), 0.3)
            except asyncio.TimeoutError:
                found.append(b"gave up")
        return found

    began = time.monotonic()
    recorded = proof.holds(agent)
    assert recorded.value[-1] == b"gave up"
    assert calls(recorded)[0].response["end"] == "cancelled"
    assert time.monotonic() - began < PATIENCE


def test_another_task_closes_what_one_waits_for(proof: Proof) -> None:
    proof.server.script(lambda request: sse(*EVENTS, gates={1: threading.Event()}))

    async def agent() -> str:
        async with aiohttp.ClientSession() as session:
            answer = await session.get(proof.server.url)
            await answer.content.readline()
            await answer.content.readline()
            waiting = asyncio.ensure_future(answer.content.readline())
            await asyncio.sleep(0.05)
            answer.close()
            with pytest.raises(aiohttp.ClientConnectionError) as caught:
                await waiting
            return repr(caught.value)

    assert proof.holds(agent).value == "ClientConnectionError('Connection closed')"


def test_two_readers_are_one_too_many(proof: Proof) -> None:
    proof.server.script(lambda request: sse(*EVENTS, delay=0.01))

    async def agent() -> str:
        async with aiohttp.ClientSession() as session, session.get(proof.server.url) as answer:
            first = asyncio.ensure_future(answer.content.read())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="already waiting") as caught:
                await answer.content.readany()
            await first
            return str(caught.value)

    record(proof.cassette, agent)


# --- errors ------------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[str, dict[str, Any], Callable[[Request], Reply]]] = {
    "refused": ("ClientConnectorError", {}, echo),
    "unknown host": ("ClientConnectorDNSError", {}, echo),
    "no TLS": ("ClientConnectorSSLError", {}, echo),
    "reset": ("ClientOSError", {}, lambda request: Reset()),
    "broken off": ("ClientPayloadError", {}, lambda request: sse(*EVENTS, delay=0.01, cut_after=2)),
    "no answer": ("SocketTimeoutError", {"sock_read": 0.2}, lambda request: Hang()),
    "no time": ("TimeoutError", {"total": 0.2}, lambda request: Hang()),
    "no more": ("SocketTimeoutError", {"sock_read": 0.2}, lambda request: sse(*EVENTS, gates={2: threading.Event()})),
    "no time left": ("TimeoutError", {"total": 0.3}, lambda request: sse(*EVENTS, gates={2: threading.Event()})),
    "not HTTP": ("ClientResponseError", {}, echo),
    "hung up": ("ServerDisconnectedError", {}, echo),
}


@pytest.mark.parametrize("kind", list(ERRORS))
def test_errors_come_back_as_they_were(kind: str, proof: Proof) -> None:
    name, timeout, script = ERRORS[kind]
    proof.server.script(script)
    url = {
        "refused": f"http://127.0.0.1:{closed_port()}/x",
        "unknown host": "http://no-such-host.invalid/x",
        "no TLS": proof.server.url.replace("http:", "https:"),
    }.get(kind, proof.server.url)
    seen: list[Any] = []

    async def agent() -> Any:
        read = []
        async with aiohttp.ClientSession() as session:
            try:
                async with session.post(url, json=1, timeout=aiohttp.ClientTimeout(**timeout)) as answer:
                    async for line in answer.content:
                        read.append(line)
            except Exception as error:
                os_error = getattr(error, "os_error", None)
                seen.append([type(error), str(error), repr(error), getattr(error, "errno", None), repr(os_error)])
                raise
            finally:
                seen.append(read)

    bytes_of = {"not HTTP": b"SMTP ready\r\n\r\n", "hung up": b""}
    if kind in bytes_of:
        with raw_server([], bytes_of[kind]) as url:
            record(proof.cassette, agent)
        replay(proof.cassette, agent)
    else:
        proof.holds(agent)
    assert seen[0][0].__name__ == name
    for again in range(2, len(seen), 2):
        assert seen[again : again + 2] == seen[:2]


def test_given_up_before_there_was_an_answer(proof: Proof) -> None:
    proof.server.script(lambda request: Hang())

    async def agent() -> str:
        try:
            return str(await asyncio.wait_for(fetch(proof.server.url), 0.2))
        except asyncio.TimeoutError:
            return "gave up"

    began = time.monotonic()
    assert proof.holds(agent).value == "gave up"
    assert time.monotonic() - began < PATIENCE


# --- where and when ----------------------------------------------------------------------------------------------


def test_a_session_and_a_connection_from_before(server: ModelServer, tmp_path: Path) -> None:
    server.script(echo)

    async def both() -> tuple[Any, Any]:
        async with aiohttp.ClientSession() as session:

            async def ask() -> Any:
                async with session.post(server.url, json=1) as answer:
                    return await answer.json()

            await ask()
            found = []
            for mode in ("rewrite", "none"):
                with use_cassette(tmp_path / "c.yaml", mode=mode):
                    found.append(await ask())
            return found[0], found[1]

    recorded, replayed = asyncio.run(both())
    assert recorded == replayed
    assert len(server.requests) == 2
    assert server.connections == 1


def test_many_at_once_and_in_threads(proof: Proof) -> None:
    proof.server.script(lambda request: Json({"said": request.body}))

    async def agent() -> Any:
        async def one(number: int) -> str:
            return str((await fetch(proof.server.url, json=number))[1])

        there = asyncio.gather(*(asyncio.to_thread(asyncio.run, one(number)) for number in range(20, 23)))
        return await asyncio.gather(*(one(number) for number in range(12)), there)

    proof.holds(agent)


def test_nothing_recorded_is_a_miss_and_stays_red_when_swallowed(proof: Proof) -> None:
    proof.server.script(echo)
    record(proof.cassette, lambda: asyncio.run(fetch(proof.server.url, json=1)))
    proof.take_down()

    async def agent() -> str:
        await fetch(proof.server.url, json=1)
        try:
            await fetch(f"{proof.server.url}/more", json=2)
        except Exception as error:  # noqa: BLE001 - this is what the agent is for
            return type(error).__name__
        return "answered"

    outcome = run(proof.cassette, agent)
    assert outcome.value == "MissError"
    assert outcome.failure is not None
    proof.stays_untouched()


def test_telemetry_stays_out(proof: Proof) -> None:
    proof.server.script(echo)

    async def agent() -> Any:
        with pytest.raises(aiohttp.ClientError):
            await fetch("http://127.0.0.1:4318/v1/traces")
        return await fetch(proof.server.url)

    recorded = record(proof.cassette, agent)
    assert len(calls(recorded)) == 1


# --- websockets --------------------------------------------------------------------------------------------------


@contextmanager
def websocket_server() -> Iterator[Any]:
    """Shakes hands and says goodbye, as often as it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        seen = SimpleNamespace(url=f"http://127.0.0.1:{listening.getsockname()[1]}/talk", hands=0)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(PATIENCE)
                    data = b""
                    while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
                        data += more
                    lines = dict(line.lower().split(b": ", 1) for line in data.strip().split(b"\r\n")[1:])
                    key = next(line for line in data.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
                    digest = hashlib.sha1(key.split(b": ")[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
                    assert lines[b"upgrade"] == b"websocket"
                    seen.hands += 1
                    connection.sendall(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n\x81\x05hello\x88\x00"
                    )
                    connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield seen
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


async def talk(url: str, model: str) -> str:
    await fetch(model, json=1)
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as channel:
        return str(await channel.receive_str())


def test_a_websocket_is_noted_and_then_refused(proof: Proof) -> None:
    proof.server.script(echo)
    with websocket_server() as talking:
        agent = functools.partial(talk, talking.url, proof.server.url)
        recorded = record(proof.cassette, lambda: asyncio.run(agent()))
        assert recorded.value == "hello"
        (note,) = recorded.verdict.notes
        assert f"{Path(__file__).name}" in note
        assert "in talk" in note
        assert "replay will refuse it" in note

        replayed = run(proof.cassette, lambda: asyncio.run(agent()))
        assert "in talk" in str(replayed.raised)
        assert "allow_hosts" in str(replayed.raised)
        assert replayed.failure is not None
        assert talking.hands == 1

        allowed = replay(proof.cassette, lambda: asyncio.run(agent()), allow_hosts=["127.0.0.1"])
        assert allowed.value == "hello"
        assert talking.hands == 2


# --- strangers ---------------------------------------------------------------------------------------------------


class Mocks:
    """Patches as aioresponses does."""

    async def _request_mock(self, session: Any, method: str, url: Any, **kwargs: Any) -> str:
        return "mocked"

    def patch(self) -> Any:
        return mock.patch("aiohttp.client.ClientSession._request", side_effect=self._request_mock, autospec=True)


@contextmanager
def unpatched() -> Iterator[None]:
    """aiohttp as it is before the first run."""
    ours = aiohttp.ClientSession._request
    aiohttp.ClientSession._request = getattr(ours, "__wrapped__", ours)
    try:
        yield
    finally:
        aiohttp.ClientSession._request = ours


def test_who_was_there_before_is_named() -> None:
    with unpatched():
        with Mocks().patch(), pytest.raises(BoundaryError, match=f"replaced by {__name__}"):
            boundary.install(aiohttp)

        original = aiohttp.ClientSession._request

        @functools.wraps(original)
        async def tape(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError

        with mock.patch.object(aiohttp.ClientSession, "_request", tape):
            with pytest.raises(BoundaryError, match=f"replaced by {__name__}"):
                boundary.install(aiohttp)
            assert aiohttp.ClientSession._request is tape


def test_who_comes_after_answers_first(proof: Proof) -> None:
    proof.server.script(echo)

    async def agent() -> Any:
        with Mocks().patch():
            mocked = await aiohttp.ClientSession._request(None, "GET", "http://nowhere.invalid")
        return mocked, await fetch(proof.server.url)

    assert proof.holds(agent).value[0] == "mocked"


@pytest.mark.parametrize("what", ["_request", "as_bytes", "_wait", "ClientResponse"])
def test_another_aiohttp_is_not_recognised(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with unpatched():
        before = aiohttp.ClientSession._request
        if what == "_request":
            monkeypatch.setattr(aiohttp.ClientSession, "_request", lambda self, method, url, *, data=None: None)
        elif what == "as_bytes":
            monkeypatch.delattr(aiohttp.payload.Payload, "as_bytes")
        elif what == "_wait":
            monkeypatch.delattr(aiohttp.StreamReader, "_wait")
        else:
            monkeypatch.setattr(aiohttp, "ClientResponse", lambda method, url, *, writer, tomorrow: None)
        with pytest.raises(BoundaryError, match=r"aiohttp .* is not recognised, its calls would not be recorded"):
            boundary.install(aiohttp)
        monkeypatch.undo()
        assert aiohttp.ClientSession._request is before
