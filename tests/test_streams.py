"""Streams pass through unbuffered while recording, and come back chunk for chunk, ended as they ended."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import trio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

import agents
from model_replies import answer
from recording import record, replay, run
from servers import PATIENCE, Json, ModelServer, Raw, Request, Stream, sse

LIBS = pytest.mark.parametrize("lib", [httpx, httpx2], ids=["httpx", "httpx2"])

EVENTS = [f'data: {{"n": {n}, "text": "löss 🦡"}}' for n in range(6)]


def read(lib: Any, url: str, *, chunks: int = -1, on_chunk: Callable[[], object] = lambda: None) -> list[bytes]:
    """Chunks of a streamed answer, at most so many."""
    found: list[bytes] = []
    with lib.Client() as client, client.stream("POST", url, json={"stream": True}) as response:
        for chunk in response.iter_raw():
            found.append(chunk)
            on_chunk()
            if len(found) == chunks:
                break
    return found


async def aread(lib: Any, url: str, *, chunks: int = -1, on_chunk: Callable[[], object] = lambda: None) -> list[bytes]:
    found: list[bytes] = []
    async with lib.AsyncClient() as client, client.stream("POST", url, json={"stream": True}) as response:
        async for chunk in response.aiter_raw():
            found.append(chunk)
            on_chunk()
            if len(found) == chunks:
                break
    return found


def reader(lib: Any, url: str, *, is_async: bool, **options: Any) -> Callable[[], list[bytes]]:
    if is_async:
        return lambda: asyncio.run(aread(lib, url, **options))
    return lambda: read(lib, url, **options)


ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@LIBS
@ASYNC
def test_first_chunk_arrives_before_the_last_leaves(
    lib: Any, is_async: bool, server: ModelServer, tmp_path: Path
) -> None:
    gate = threading.Event()
    server.script(lambda request: sse(*EVENTS, gates={1: gate}))
    agent = reader(lib, f"{server.url}/stream", is_async=is_async, on_chunk=gate.set)
    recorded = record(tmp_path / "c.yaml", agent).value
    assert b"".join(recorded).decode() == "".join(f"{event}\n\n" for event in EVENTS)
    assert recorded[0].decode() == EVENTS[0] + "\n\n"
    assert replay(tmp_path / "c.yaml", agent).value == recorded


@LIBS
@ASYNC
def test_chunks_come_back_as_they_were(lib: Any, is_async: bool, server: ModelServer, tmp_path: Path) -> None:
    # Cut in the middle of characters, lines and events.
    data = "".join(f"{event}\n\n" for event in EVENTS).encode()
    cuts = [data[n : n + 7] for n in range(0, len(data), 7)]
    server.script(lambda request: Stream(cuts, delay=0.003))
    agent = reader(lib, f"{server.url}/stream", is_async=is_async)
    recorded = record(tmp_path / "c.yaml", agent).value
    assert len(recorded) > len(cuts) // 2
    assert replay(tmp_path / "c.yaml", agent).value == recorded


SDK_AGENTS: dict[str, Callable[[Callable[[str], None]], list[str]]] = {
    "openai": lambda heard: agents.stream("go on", on_piece=heard),
    "openai-async": lambda heard: asyncio.run(agents.astream("go on", on_piece=heard)),
    "anthropic": lambda heard: agents.claude_stream("go on", on_piece=heard),
    "anthropic-async": lambda heard: asyncio.run(_aclaude_stream(heard)),
}


async def _aclaude_stream(heard: Callable[[str], None]) -> list[str]:
    pieces = []
    async with (
        AsyncAnthropic() as client,
        client.messages.stream(
            model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "go on"}]
        ) as events,
    ):
        async for piece in events.text_stream:
            heard(piece)
            pieces.append(piece)
    return pieces


@pytest.mark.parametrize("name", list(SDK_AGENTS))
def test_sdk_hears_the_first_word_before_the_last_is_said(name: str, sdk_env: ModelServer, tmp_path: Path) -> None:
    gate = threading.Event()
    sdk_env.script(lambda request: answer(request, "one two three four", gates={-2: gate}))

    def agent() -> list[str]:
        return SDK_AGENTS[name](lambda piece: gate.set())

    recorded = record(tmp_path / "c.yaml", agent).value
    assert recorded == ["one", " two", " three", " four"]
    assert replay(tmp_path / "c.yaml", agent).value == recorded


# --- ends --------------------------------------------------------------------------------------------------------


@LIBS
@ASYNC
def test_closed_after_the_third_chunk(lib: Any, is_async: bool, server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: sse(*EVENTS, delay=0.01))
    cassette = tmp_path / "c.yaml"
    agent = reader(lib, f"{server.url}/stream", is_async=is_async, chunks=3)
    recorded = record(cassette, agent)
    assert len(recorded.value) == 3
    (span,) = recorded.verdict.live.children(recorded.verdict.live.roots[0])
    assert span.exchange is not None
    assert span.exchange.response is not None
    assert span.exchange.response["end"] == "closed"
    assert replay(cassette, agent).value == recorded.value

    shorter = run(cassette, reader(lib, f"{server.url}/stream", is_async=is_async, chunks=2))
    assert shorter.failure is not None, "an agent that stops reading earlier has changed"
    longer = run(cassette, reader(lib, f"{server.url}/stream", is_async=is_async))
    assert "reads on after 3 chunks" in str(longer.raised)
    assert longer.failure is not None


@LIBS
@ASYNC
def test_stream_broken_off_by_the_server(lib: Any, is_async: bool, server: ModelServer, tmp_path: Path) -> None:
    server.script(lambda request: sse(*EVENTS, delay=0.01, cut_after=2))
    heard: list[int] = []
    agent = reader(lib, f"{server.url}/stream", is_async=is_async, on_chunk=lambda: heard.append(1))
    recorded = record(tmp_path / "c.yaml", agent)
    assert isinstance(recorded.raised, lib.RemoteProtocolError)
    count = len(heard)
    assert count == 2
    replayed = replay(tmp_path / "c.yaml", agent)
    assert type(replayed.raised) is type(recorded.raised)
    assert str(replayed.raised) == str(recorded.raised)
    assert len(heard) == 2 * count


def test_openai_stream_broken_off(sdk_env: ModelServer, tmp_path: Path) -> None:
    sdk_env.script(lambda request: answer(request, "one two three", cut_after=3))
    recorded = record(tmp_path / "c.yaml", lambda: agents.stream("x"))
    assert recorded.raised is not None
    replayed = replay(tmp_path / "c.yaml", lambda: agents.stream("x"))
    assert (type(replayed.raised), str(replayed.raised)) == (type(recorded.raised), str(recorded.raised))


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_sdk_stream_closed_early(sdk: str, sdk_env: ModelServer, tmp_path: Path) -> None:
    sdk_env.script(lambda request: answer(request, "one two three four five six", delay=0.005))

    def openai() -> list[str]:
        pieces: list[str] = []
        with (
            OpenAI() as client,
            client.chat.completions.create(
                model="gpt-test", messages=[{"role": "user", "content": "x"}], stream=True
            ) as chunks,
        ):
            for chunk in chunks:
                pieces.append(chunk.choices[0].delta.content or "")
                if len(pieces) == 3:
                    break
        return pieces

    async def anthropic() -> list[str]:
        pieces: list[str] = []
        async with (
            AsyncAnthropic() as client,
            client.messages.stream(
                model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "x"}]
            ) as events,
        ):
            async for piece in events.text_stream:
                pieces.append(piece)
                if len(pieces) == 3:
                    break
        return pieces

    agent: Callable[[], Any] = openai if sdk == "openai" else anthropic
    recorded = record(tmp_path / "c.yaml", agent)
    assert len(recorded.value) == 3
    for _ in range(3):
        assert replay(tmp_path / "c.yaml", agent).value == recorded.value


# --- cancellation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lib", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_cancelled_before_the_answer(lib: Any, server: ModelServer, tmp_path: Path) -> None:
    gate = threading.Event()
    server.script(lambda request: sse(*EVENTS, gates={0: gate}))

    async def agent() -> str:
        try:
            await asyncio.wait_for(aread(lib, f"{server.url}/stream"), 0.2)
        except (asyncio.TimeoutError, TimeoutError):
            return "too slow"
        return "answered"

    assert record(tmp_path / "c.yaml", agent).value == "too slow"
    gate.set()
    begun = time.monotonic()
    assert replay(tmp_path / "c.yaml", agent).value == "too slow"
    assert time.monotonic() - begun < PATIENCE


@pytest.mark.parametrize("lib", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_cancelled_within_the_stream(lib: Any, server: ModelServer, tmp_path: Path) -> None:
    gate = threading.Event()
    server.script(lambda request: sse(*EVENTS, gates={2: gate}))

    async def agent() -> int:
        heard: list[int] = []
        reading = asyncio.create_task(aread(lib, f"{server.url}/stream", on_chunk=lambda: heard.append(1)))
        while len(heard) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return len(heard)

    assert record(tmp_path / "c.yaml", agent).value == 2
    gate.set()
    assert replay(tmp_path / "c.yaml", agent).value == 2


@LIBS
def test_trio(lib: Any, server: ModelServer, tmp_path: Path) -> None:
    gate = threading.Event()

    async def agent() -> list[bytes]:
        heard: list[bytes] = []
        async with lib.AsyncClient() as client:
            with trio.move_on_after(1):
                async with client.stream("POST", f"{server.url}/stream", json={}) as response:
                    async for chunk in response.aiter_raw():
                        heard.append(chunk)
            heard.append((await client.post(f"{server.url}/stream", json={"again": True})).content)
        return heard

    def script(request: Request) -> Any:
        return sse(*EVENTS) if request.body else sse(*EVENTS, gates={2: gate})

    server.script(script)
    recorded = record(tmp_path / "c.yaml", lambda: trio.run(agent))
    assert len(recorded.value) == 3
    gate.set()
    assert replay(tmp_path / "c.yaml", lambda: trio.run(agent)).value == recorded.value


def test_cancelled_openai_call(sdk_env: ModelServer, tmp_path: Path) -> None:
    gate = threading.Event()

    def script(request: Request) -> Any:
        gate.wait(PATIENCE)
        return answer(request, "late")

    sdk_env.script(script)

    async def agent() -> str:
        async with AsyncOpenAI() as client:
            call = client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": "x"}])
            try:
                await asyncio.wait_for(call, 0.3)
            except (asyncio.TimeoutError, TimeoutError):
                return "too slow"
        return "answered"

    assert record(tmp_path / "c.yaml", agent).value == "too slow"
    gate.set()
    assert replay(tmp_path / "c.yaml", agent).value == "too slow"


# --- bodies ------------------------------------------------------------------------------------------------------

BODIES: dict[str, Any] = {
    "gzip-json": Json({"text": "löss", "n": [1, 2.0, 1e-7, 2**70]}, gzip=True),
    "gzip-bytes": Raw(bytes(range(256)) * 64, gzip=True),
    "gzip-text": Raw(b"plain words " * 500, content_type="text/plain", gzip=True),
    "gzip-unknown-type": Raw(b"", content_type="application/json", gzip=True),
    "ndjson": Stream([json.dumps({"n": n}).encode() + b"\n" for n in range(5)], content_type="application/x-ndjson"),
    "empty": Raw(b"", status=204),
    "empty-200": Raw(b""),
    "binary": Raw(bytes(range(256)) * 100),
    "invalid-utf8-json": Raw(b'{"a": "\xff"}', content_type="application/json"),
    "big": Raw(b"0123456789abcdef" * 327_680, content_type="text/plain"),
    "latin-1": Raw("grün".encode("latin-1"), content_type="text/plain; charset=iso-8859-1"),
    "surrogate-escape": Raw(b'{"a": "\\ud800"}', content_type="application/json"),
    "nan": Raw(b'{"a": NaN}', content_type="application/json"),
    "duplicate-keys": Raw(b'{"a": 1, "a": 2}', content_type="application/json"),
    "crlf": Raw(b"a\r\nb\rc\x00\x85\xe2\x80\xa8d", content_type="text/plain"),
    "bom": Raw(b'\xef\xbb\xbf{"a": 1}', content_type="application/json"),
}


@LIBS
@ASYNC
@pytest.mark.parametrize("body", list(BODIES))
def test_bodies_come_back_byte_for_byte(
    lib: Any, is_async: bool, body: str, server: ModelServer, tmp_path: Path
) -> None:
    server.script(lambda request: BODIES[body])

    def whole() -> tuple[int, bytes, str]:
        with lib.Client() as client:
            response = client.get(f"{server.url}/thing")
        return response.status_code, response.content, response.headers.get("content-type", "")

    async def awhole() -> tuple[int, bytes, str]:
        async with lib.AsyncClient() as client:
            response = await client.get(f"{server.url}/thing")
        return response.status_code, response.content, response.headers.get("content-type", "")

    agent: Callable[[], Any] = awhole if is_async else whole
    recorded = record(tmp_path / "c.yaml", agent).value
    assert recorded[1] == BODIES[body].body if isinstance(BODIES[body], Raw) else recorded[1]
    assert replay(tmp_path / "c.yaml", agent).value == recorded


@LIBS
def test_gzipped_stream_is_handed_on_as_it_comes(lib: Any, server: ModelServer, tmp_path: Path) -> None:
    import zlib

    press = zlib.compressobj(wbits=31)
    chunks = [press.compress(f"{event}\n\n".encode()) + press.flush(zlib.Z_SYNC_FLUSH) for event in EVENTS]
    chunks[-1] += press.flush()
    gate = threading.Event()
    server.script(lambda request: Stream(chunks, headers={"content-encoding": "gzip"}, gates={1: gate}))
    agent = reader(lib, f"{server.url}/stream", is_async=False, on_chunk=gate.set)
    recorded = record(tmp_path / "c.yaml", agent).value
    assert recorded[0].decode() == EVENTS[0] + "\n\n"
    assert b"".join(recorded).decode() == "".join(f"{event}\n\n" for event in EVENTS)
    assert replay(tmp_path / "c.yaml", agent).value == recorded


@LIBS
def test_multipart_upload(lib: Any, server: ModelServer, tmp_path: Path) -> None:
    """The boundary that the client draws is another one each time; what it parts is not."""
    server.script(lambda request: Json({"text": "hello"}))

    def upload(sound: bytes) -> Any:
        with lib.Client() as client:
            return client.post(f"{server.url}/v1/x", files={"file": ("a.wav", sound)}, data={"model": "w"}).json()

    recorded = record(tmp_path / "c.yaml", lambda: upload(b"\x00\xff sound"))
    assert replay(tmp_path / "c.yaml", lambda: upload(b"\x00\xff sound")).value == recorded.value
    (cause,) = run(tmp_path / "c.yaml", lambda: upload(b"\x00\xff noise")).causes
    assert cause.kind.value == "input_changed"
