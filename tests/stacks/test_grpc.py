"""gRPC, plain and asyncio: a protobuf service and a generic one, on loopback, recorded and replayed without it."""

from __future__ import annotations

import asyncio
import importlib
import queue
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from clerk import ledger

import ready_first
from proof import Proof, Stack
from pytest_spanchain import LiveCallError, MissError, RunClosedError
from pytest_spanchain.boundaries import _wait
from pytest_spanchain.boundaries.clients.grpc import _wire as wire
from pytest_spanchain.boundaries.clients.grpc import install
from pytest_spanchain.errors import BoundaryError
from recording import record, replay, run
from servers import CountingListener, ModelServer

grpc: Any = pytest.importorskip("grpc")
experimental: Any = pytest.importorskip("grpc.experimental")
protoc: Any = pytest.importorskip("grpc_tools.protoc")

STACK = Stack(
    name="grpc",
    dists=("grpcio", "protobuf"),
    records=(
        "calls of any service (unary and streams, plain and asyncio), where gRPC hands them to its core"
        " (grpcio 1.66 or newer)"
    ),
    limits=(
        "metadata is kept by the allow-list of headers; what else a server sends is not there in replay",
        "streams of requests to one method that are open at the same time are told apart by the order in which they"
        " began",
        "in the mode new_episodes, a stream of requests is matched by its method alone",
        "a channel is always ready in replay, whatever it was when it was recorded",
        "blocking calls that were made side by side end in replay as they are made, not as they had ended",
        "calls of grpc.aio are recorded without their host by releases whose channels do not tell it (1.66, for one)",
    ),
)

PROTO = """
syntax = "proto3";
package shop;
message Order { string id = 1; int64 amount = 2; double price = 3; bytes blob = 4; map<string, string> labels = 5; }
message Told { string text = 1; int64 count = 2; string api_key = 3; bytes blob = 4; }
service Desk {
  rpc Get(Order) returns (Told);
  rpc Watch(Order) returns (stream Told);
  rpc Upload(stream Order) returns (Told);
  rpc Chat(stream Order) returns (stream Told);
}
"""

PATIENCE = 10.0


@pytest.fixture(scope="session")
def pb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The generated code of the service."""
    folder = tmp_path_factory.mktemp("proto")
    (folder / "spanchain_desk.proto").write_text(PROTO, encoding="utf-8")
    made = protoc.main(
        ["protoc", f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}", "spanchain_desk.proto"]
    )
    assert made == 0
    sys.path.insert(0, str(folder))
    try:
        messages = importlib.import_module("spanchain_desk_pb2")
        services = importlib.import_module("spanchain_desk_pb2_grpc")
        yield SimpleNamespace(**vars(messages), DeskStub=services.DeskStub, add=services.add_DeskServicer_to_server)
    finally:
        sys.path.remove(str(folder))


class Desk:
    """The service. Each call appends a line to the ledger, as a tool would."""

    def __init__(self, pb: Any) -> None:
        self.pb = pb
        self.gate = threading.Event()
        self.gate.set()

    def Get(self, order: Any, context: Any) -> Any:  # noqa: N802 - the schema's name
        ledger(f"get {order.id}")
        if order.id == "none":
            context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05"), ("x-request-id", "r-1")))
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such order")
        if order.id == "slow":
            time.sleep(0.5)
        if order.id == "late":
            time.sleep(ready_first.wait(order.amount))
        return self.pb.Told(
            text=f"order {order.id}", count=order.amount, blob=order.blob, api_key="sk-live-4f9a8b7c6d5e"
        )

    def Watch(self, order: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - the schema's name
        ledger(f"watch {order.id}")
        yield self.pb.Told(text="packed")
        assert self.gate.wait(PATIENCE), "the stream was held back"
        yield self.pb.Told(text="sent")
        if order.id == "lost":
            context.abort(grpc.StatusCode.DATA_LOSS, "the van is gone")
        yield self.pb.Told()

    def Upload(self, orders: Iterator[Any], context: Any) -> Any:  # noqa: N802 - the schema's name
        ids = [order.id for order in orders]
        ledger(f"upload {' '.join(ids)}")
        return self.pb.Told(text="+".join(ids), count=len(ids))

    def Chat(self, orders: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802 - the schema's name
        for order in orders:
            if order.id == "bye":
                context.abort(grpc.StatusCode.ABORTED, "the desk is closed")
            ledger(f"chat {order.id}")
            yield self.pb.Told(text=f"re {order.id}")


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A service without a schema: bytes in, bytes out."""

    def service(self, details: Any) -> Any:
        if details.method != "/raw.Echo/Say":
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: bytes(reversed(request)))


class GrpcServer:
    """A real server on loopback, with the two things that ``Proof`` wants of one."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((Echo(),))
        desk.pb.add(desk, self._server)
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.stop(0).wait(PATIENCE)


@pytest.fixture
def server(pb: Any) -> Iterator[GrpcServer]:
    running = GrpcServer(Desk(pb))
    yield running
    running.close()


@pytest.fixture
def sdk_env(server: GrpcServer) -> ModelServer:
    """What the proof takes down."""
    return cast("ModelServer", server)


@pytest.fixture
def stub(pb: Any, server: GrpcServer) -> Iterator[Any]:
    """A stub whose channel was made, and whose methods were bound, before any run."""
    with grpc.insecure_channel(server.target) as channel:
        yield pb.DeskStub(channel)


def shown(error: Any) -> tuple[Any, ...]:
    """All that an agent can see of an error."""
    assert isinstance(error, grpc.RpcError)
    told = tuple(error.trailing_metadata() or ())  # no dict can be made of what grpc.aio has of old
    details = next((value for key, value in told if key == "grpc-status-details-bin"), None)
    return type(error), error.code(), error.details(), details, str(error)


# --- agents: plain -----------------------------------------------------------------------------------------------


def unary(pb: Any, stub: Any, name: str) -> list[Any]:
    order = pb.Order(id=name, amount=2**40, price=19.5, blob=b"\x00\xff", labels={"b": "2", "a": "1"})
    first = stub.Get(order, metadata=(("authorization", "Bearer abcdef0123456789"),))
    second, call = stub.Get.with_call(order)
    future = stub.Get.future(order)
    done: list[Any] = []
    future.add_done_callback(done.append)
    answers = [first, second, future.result(PATIENCE)]
    assert (future.done(), call.code(), call.details()) == (True, grpc.StatusCode.OK, "")
    return [(answer.text, answer.count, answer.blob) for answer in answers]


def streamed(pb: Any, stub: Any, name: str) -> list[Any]:
    answers = stub.Watch(pb.Order(id=name))
    texts = [answer.text for answer in answers]
    return [*texts, answers.code(), answers.details()]


def uploaded(pb: Any, stub: Any, *names: str) -> list[Any]:
    orders = [pb.Order(id=name) for name in names]
    told = stub.Upload(iter(orders))
    again = stub.Upload.future(iter(orders)).result(PATIENCE)
    return [told.text, told.count, again.text]


def chatted(pb: Any, stub: Any, *names: str) -> list[Any]:
    """Each order depends on the answer to the one before it."""
    orders: queue.Queue[Any] = queue.Queue()
    answers = stub.Chat(iter(orders.get, None))
    told, last = [], ""
    for name in names:
        orders.put(pb.Order(id=f"{name} {last}".strip()))
        last = next(answers).text
        told.append(last)
    orders.put(None)
    return [*told, *answers, answers.code()]


def refused(pb: Any, stub: Any) -> list[Any]:
    found = []
    for order, timeout in ((pb.Order(id="none"), None), (pb.Order(id="slow"), 0.1)):
        try:
            stub.Get(order, timeout=timeout)
        except grpc.RpcError as error:
            found.append(shown(error))
    answers = stub.Watch(pb.Order(id="lost"))
    try:
        found.extend(answer.text for answer in answers)
    except grpc.RpcError as error:
        found.append(shown(error)[1:])
    return found


def left_early(pb: Any, stub: Any) -> list[Any]:
    answers = stub.Watch(pb.Order(id="1"))
    first = next(answers).text
    answers.cancel()
    future = stub.Get.future(pb.Order(id="slow"))
    gone = future.cancel()
    return [first, answers.code(), gone, future.cancelled()]


# --- the same, asyncio -------------------------------------------------------------------------------------------


async def aunary(pb: Any, stub: Any, name: str) -> list[Any]:
    order = pb.Order(id=name, amount=2**40, price=19.5, blob=b"\x00\xff", labels={"b": "2", "a": "1"})
    call = stub.Get(order, metadata=(("authorization", "Bearer abcdef0123456789"),), timeout=PATIENCE)
    done: list[Any] = []
    call.add_done_callback(done.append)
    answers = [await call, *await asyncio.gather(stub.Get(order), stub.Get(order))]
    assert (await call.code(), done) == (grpc.StatusCode.OK, [call])
    assert call.time_remaining() > 0
    return [(answer.text, answer.count, answer.blob) for answer in answers]


async def astreamed(pb: Any, stub: Any, name: str) -> list[Any]:
    answers = stub.Watch(pb.Order(id=name))
    texts = [answer.text async for answer in answers]
    read = stub.Watch(pb.Order(id=name))
    while (answer := await read.read()) is not grpc.aio.EOF:
        texts.append(answer.text)
    return [*texts, await answers.code(), await read.details()]


async def auploaded(pb: Any, stub: Any, *names: str) -> list[Any]:
    orders = [pb.Order(id=name) for name in names]

    async def given() -> AsyncIterator[Any]:
        for order in orders:
            yield order

    told = await stub.Upload(given())
    call = stub.Upload()
    for order in orders:
        await call.write(order)
    await call.done_writing()
    return [told.text, told.count, (await call).text]


async def achatted(pb: Any, stub: Any, *names: str) -> list[Any]:
    call = stub.Chat()
    told, last = [], ""
    for name in names:
        await call.write(pb.Order(id=f"{name} {last}".strip()))
        last = (await call.read()).text
        told.append(last)
    await call.done_writing()
    return [*told, await call.read() is grpc.aio.EOF, await call.code()]


async def arefused(pb: Any, stub: Any) -> list[Any]:
    found: list[Any] = []
    for order, timeout in ((pb.Order(id="none"), None), (pb.Order(id="slow"), 0.1)):
        try:
            await stub.Get(order, timeout=timeout)
        except grpc.RpcError as error:
            found.append(shown(error))
    try:
        async for answer in stub.Watch(pb.Order(id="lost")):
            found.append(answer.text)
    except grpc.aio.AioRpcError as error:
        found.append(shown(error)[1:])
    return found


async def aleft_early(pb: Any, stub: Any) -> list[Any]:
    answers = stub.Watch(pb.Order(id="1"))
    first = (await answers.read()).text
    answers.cancel()
    found = [first, await answers.code(), answers.cancelled()]
    try:
        await asyncio.wait_for(stub.Get(pb.Order(id="slow")), 0.1)
    except asyncio.TimeoutError:
        found.append("timeout")
    return found


def both(pb: Any, stub: Any, target: str, name: str, *args: str) -> Callable[[], Any]:
    """An agent that does something with the plain stub, or with one of asyncio that it makes itself."""
    agent = globals()[name]
    if not name.startswith("a"):
        return lambda: agent(pb, stub, *args)

    async def alone() -> Any:
        async with grpc.aio.insecure_channel(target) as channel:
            return await agent(pb, pb.DeskStub(channel), *args)

    return alone


GET = ["get 1412"] * 3
CHAT = ["chat a", "chat b re a", "chat c re b re a"]


@pytest.mark.parametrize(
    ("name", "args", "ran"),
    [
        ("unary", ("1412",), GET),
        ("aunary", ("1412",), GET),
        ("streamed", ("1412",), ["watch 1412"]),
        ("astreamed", ("1412",), ["watch 1412"] * 2),
        ("uploaded", ("1", "2", "3"), ["upload 1 2 3"] * 2),
        ("auploaded", ("1", "2", "3"), ["upload 1 2 3"] * 2),
        ("chatted", ("a", "b", "c"), CHAT),
        ("achatted", ("a", "b", "c"), CHAT),
    ],
)
def test_every_kind_of_call(
    name: str, args: tuple[str, ...], ran: list[str], proof: Proof, pb: Any, stub: Any, server: GrpcServer
) -> None:
    target = server.target
    recorded = proof.holds(both(pb, stub, target, name, *args), ran=ran)
    assert recorded.raised is None
    span = recorded.verdict.live.spans[1]
    assert span.span_kind == "client"
    assert (span.attributes["rpc.system.name"], span.attributes["rpc.method"]) == ("grpc", span.name)
    changed = proof.breaks(both(pb, stub, target, name, *args[:-1], "other"))
    assert {cause.kind for cause in changed} == {"input_changed"}


@pytest.mark.parametrize("name", ["refused", "arefused"])
def test_errors_are_grpcs_own(name: str, proof: Proof, pb: Any, stub: Any, server: GrpcServer) -> None:
    recorded = proof.holds(both(pb, stub, server.target, name), ran=["get none", "get slow", "watch lost"])
    codes = [entry[1] if isinstance(entry[0], type) else entry[0] for entry in recorded.value if len(entry) < 6]
    assert codes[:2] == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED]
    answers = [span.exchange.response or {} for span in recorded.verdict.live.spans[1:] if span.exchange]
    assert [answer["status"] for answer in answers] == [404, 504, 500]


@pytest.mark.parametrize("name", ["left_early", "aleft_early"])
def test_calls_that_were_left_early(name: str, proof: Proof, pb: Any, stub: Any, server: GrpcServer) -> None:
    agent = both(pb, stub, server.target, name)
    recorded = record(proof.cassette, agent)
    proof.take_down()
    for _ in range(3):
        assert replay(proof.cassette, agent).value == recorded.value
    proof.stays_untouched()


def test_a_stream_is_passed_through(proof: Proof, pb: Any, stub: Any, server: GrpcServer) -> None:
    gate = server.desk.gate

    def agent() -> list[str]:
        gate.clear()
        answers = stub.Watch(pb.Order(id="1"))
        told = [next(answers).text]
        gate.set()  # the server waits for this before it goes on
        return [*told, *(answer.text for answer in answers)]

    async def aagent() -> list[str]:
        gate.clear()
        async with grpc.aio.insecure_channel(server.target) as channel:
            answers = pb.DeskStub(channel).Watch(pb.Order(id="1"))
            told = [(await answers.read()).text]
            gate.set()
            while (answer := await answers.read()) is not grpc.aio.EOF:
                told.append(answer.text)
        return told

    assert record(proof.cassette, agent).value == ["packed", "sent", ""]
    assert proof.holds(aagent, ran=["watch 1"] * 2).value == ["packed", "sent", ""]


def test_bytes_of_any_kind(proof: Proof, server: GrpcServer) -> None:
    with grpc.insecure_channel(server.target) as channel:
        say = channel.unary_unary("/raw.Echo/Say")

        def agent() -> list[bytes]:
            return [say(message) for message in (b"", b"plain", b"\xff\x00\x01")]

        assert proof.holds(agent).value == [b"", b"nialp", b"\x01\x00\xff"]
        (cause,) = proof.breaks(lambda: [say(message) for message in (b"", b"plain", b"\xff\x00\x02")])
        assert cause.kind == "input_changed"


def test_fields_that_the_schema_does_not_know(proof: Proof, pb: Any, server: GrpcServer) -> None:
    """They have no JSON, and two requests that differ in them are two requests."""
    extra = b"\xf8\x06\x01"  # field 111
    with grpc.insecure_channel(server.target) as channel:
        get = channel.unary_unary(
            "/shop.Desk/Get",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.Told.FromString,
        )

        def ask(order: bytes) -> str:
            text: str = get(pb.Order.FromString(order)).text
            return text

        proof.holds(lambda: ask(b"\x0a\x011" + extra), ran=["get 1"])
        (cause,) = proof.breaks(lambda: ask(b"\x0a\x011" + extra[:2] + b"\x02"))
        assert cause.kind == "input_changed"


def test_secrets_stay_out(proof: Proof, pb: Any, stub: Any) -> None:
    record(proof.cassette, lambda: unary(pb, stub, "1412"))
    text = proof.cassette.read_text(encoding="utf-8")
    assert "abcdef0123456789" not in text
    assert "sk-live-4f9a8b7c6d5e" not in text
    assert '"order 1412"' in text, "an answer cannot be read"
    assert "1099511627776" in text, "a request cannot be read"


def test_threads_get_their_own_answers(proof: Proof, pb: Any, stub: Any) -> None:
    def agent() -> list[str]:
        with ThreadPoolExecutor(6) as pool:
            return list(pool.map(lambda number: stub.Get(pb.Order(id=str(number))).text, range(12)))

    proof.holds(agent, ran=[f"get {number}" for number in range(12)], in_order=False)


def test_tasks_that_ask_side_by_side(proof: Proof, pb: Any, server: GrpcServer) -> None:
    async def agent() -> list[int]:
        async with grpc.aio.insecure_channel(server.target) as channel:
            desk = pb.DeskStub(channel)

            async def ask(n: int) -> int:
                return int((await desk.Get(pb.Order(id="late", amount=n))).count)

            return await ready_first.in_tasks(ask)

    assert proof.holds(agent, ran=["get late"] * ready_first.COUNT).value == ready_first.LAST_FIRST


class _Tagging(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:
        request.labels["seen"] = "yes"
        return proceed(details, request)


class _AioTagging(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:
        request.labels["seen"] = "yes"
        call = await proceed(details, request)
        assert await call.code() is grpc.StatusCode.OK
        return call


def test_interceptors_run_above(proof: Proof, pb: Any, server: GrpcServer) -> None:
    channel = grpc.intercept_channel(grpc.insecure_channel(server.target), _Tagging())
    stub = pb.DeskStub(channel)

    async def aagent() -> list[Any]:
        async with grpc.aio.insecure_channel(server.target, interceptors=[_AioTagging()]) as channel:
            return [(await pb.DeskStub(channel).Get(pb.Order(id="2"))).text]

    def agent() -> list[Any]:
        return [stub.Get(pb.Order(id="1")).text, stub.Get.future(pb.Order(id="1")).result(PATIENCE).text]

    recorded = proof.holds(lambda: [*agent(), *asyncio.run(aagent())], ran=["get 1", "get 1", "get 2"])
    requests = [span.exchange.request for span in recorded.verdict.live.spans[1:] if span.exchange]
    assert [request["body"]["json"]["labels"] for request in requests] == [{"seen": "yes"}] * 3
    channel.close()


def test_a_channel_of_one_thread(proof: Proof, pb: Any, server: GrpcServer) -> None:
    option = (experimental.ChannelOptions.SingleThreadedUnaryStream, 1)
    with grpc.insecure_channel(server.target, options=[option]) as channel:
        stub = pb.DeskStub(channel)
        proof.holds(lambda: streamed(pb, stub, "1"), ran=["watch 1"])


def test_channels_are_ready_in_replay(proof: Proof, pb: Any, server: GrpcServer) -> None:
    def agent() -> str:
        with grpc.insecure_channel(server.target) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE)
            return str(pb.DeskStub(channel).Get(pb.Order(id="1")).text)

    async def aagent() -> str:
        async with grpc.aio.insecure_channel(server.target) as channel:
            await asyncio.wait_for(channel.channel_ready(), PATIENCE)
            return str((await pb.DeskStub(channel).Get(pb.Order(id="1"))).text)

    proof.holds(lambda: [agent(), asyncio.run(aagent())], ran=["get 1"] * 2)


def test_conversations_at_the_same_time(proof: Proof, pb: Any, server: GrpcServer) -> None:
    async def agent() -> list[Any]:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = pb.DeskStub(channel)
            told: list[Any] = await asyncio.gather(*(achatted(pb, stub, f"a{number}", "b") for number in range(4)))
            return told

    ran = [line for number in range(4) for line in (f"chat a{number}", f"chat b re a{number}")]
    proof.holds(agent, ran=ran, in_order=False)


@pytest.mark.parametrize("kind", ["plain", "asyncio"])
def test_a_server_that_ends_a_conversation(kind: str, proof: Proof, pb: Any, stub: Any, server: GrpcServer) -> None:
    """How much more was sent before that was known, is chance, and does not matter."""
    orders = [pb.Order(id=name) for name in ("1", "bye", "3", "4")]

    def agent() -> list[Any]:
        told: list[Any] = []
        try:
            told.extend(answer.text for answer in stub.Chat(iter(orders)))
        except grpc.RpcError as error:
            told += [error.code(), error.details()]
        return told

    async def aagent() -> list[Any]:
        told: list[Any] = []
        async with grpc.aio.insecure_channel(server.target) as channel:
            call = pb.DeskStub(channel).Chat()
            try:
                for order in orders[:2]:
                    await call.write(order)
                while (answer := await call.read()) is not grpc.aio.EOF:
                    told.append(answer.text)
            except grpc.aio.AioRpcError as error:
                told += [error.code(), error.details()]
        return told

    recorded = proof.holds(agent if kind == "plain" else aagent, ran=["chat 1"])
    assert recorded.value[-2:] == [grpc.StatusCode.ABORTED, "the desk is closed"]


def test_what_is_still_open_at_the_end(proof: Proof, pb: Any, stub: Any) -> None:
    kept: list[Any] = []

    def agent() -> str:
        answers = stub.Watch(pb.Order(id="1"))
        kept.extend([answers, stub.Get.future(pb.Order(id="slow"))])
        text: str = next(answers).text
        return text

    recorded = record(proof.cassette, agent)
    time.sleep(0.6)  # the server answers after the end
    proof.take_down()
    assert replay(proof.cassette, agent).value == recorded.value
    for call in kept:
        call.cancel()


def test_new_episodes(proof: Proof, pb: Any, stub: Any) -> None:
    """What is known is served, and the rest recorded."""

    def agent(*names: str) -> list[str]:
        return [*(stub.Get(pb.Order(id=name)).text for name in names), stub.Upload(iter([pb.Order(id="3")])).text]

    record(proof.cassette, lambda: agent("1"))
    more = record(proof.cassette, lambda: [*agent("1"), *agent("2")], mode="new_episodes")
    assert proof.ran == ["get 1", "upload 3", "get 2", "upload 3"]
    proof.take_down()
    assert replay(proof.cassette, lambda: [*agent("1"), *agent("2")]).value == more.value


def test_what_was_never_recorded_is_refused(proof: Proof, pb: Any, stub: Any, server: GrpcServer) -> None:
    """Although the channel is connected, and the server up."""
    stub.Get(pb.Order(id="before"))
    record(proof.cassette, lambda: None)

    async def aagent() -> Any:
        async with grpc.aio.insecure_channel(server.target) as channel:
            return await pb.DeskStub(channel).Get(pb.Order(id="1"))

    for agent in (
        lambda: stub.Get(pb.Order(id="1")),
        lambda: stub.Get.future(pb.Order(id="1")),
        lambda: stub.Watch(pb.Order(id="1")),
        lambda: stub.Upload(iter([])),
        lambda: stub.Chat(iter([])),
        lambda: asyncio.run(aagent()),
    ):
        refused = run(proof.cassette, agent)
        assert isinstance(refused.raised, MissError)
        assert refused.failure is not None
    assert proof.ran == ["get before"]


def test_telemetry_is_refused_without_a_verdict(proof: Proof, pb: Any) -> None:
    record(proof.cassette, lambda: None)
    with CountingListener() as listener, grpc.insecure_channel("127.0.0.1:4317") as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        outcome = run(proof.cassette, lambda: export(b"spans"))
        assert isinstance(outcome.raised, LiveCallError)
        assert outcome.failure is None
        assert listener.connections == 0


def test_a_call_after_its_run(proof: Proof, pb: Any, stub: Any) -> None:
    go, raised = threading.Event(), []

    def left_behind() -> None:
        go.wait(PATIENCE)
        try:
            stub.Get(pb.Order(id="late"))
        except RunClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=left_behind)
    record(proof.cassette, lambda: thread.start())
    go.set()
    thread.join(PATIENCE)
    assert len(raised) == 1
    assert proof.ran == []


@pytest.mark.parametrize("name", ["chatted", "achatted"])
def test_a_conversation_that_changed_never_hangs(
    name: str, proof: Proof, pb: Any, stub: Any, server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.2)
    record(proof.cassette, both(pb, stub, server.target, name, "a", "b"))
    proof.take_down()

    def impatient() -> Any:
        orders: queue.Queue[Any] = queue.Queue()
        answers = stub.Chat(iter(orders.get, None))
        try:
            return next(answers)  # nothing was sent
        finally:
            orders.put(None)

    async def aimpatient() -> Any:
        async with grpc.aio.insecure_channel(server.target) as channel:
            return await pb.DeskStub(channel).Chat().read()

    outcome = run(proof.cassette, impatient if name == "chatted" else lambda: asyncio.run(aimpatient()))
    assert outcome.raised is not None
    assert "did not come after 0 requests" in str(outcome.raised)
    assert outcome.failure is not None


def test_a_stream_that_is_read_on(proof: Proof, pb: Any, stub: Any) -> None:
    def first() -> str:
        answers = stub.Watch(pb.Order(id="1"))
        text: str = next(answers).text
        answers.cancel()
        return text

    record(proof.cassette, first)
    proof.take_down()
    outcome = run(proof.cassette, lambda: streamed(pb, stub, "1"))
    assert isinstance(outcome.raised, MissError)
    assert "closed the stream when this was recorded" in str(outcome.raised)


def test_a_server_that_cannot_be_reached(proof: Proof, pb: Any, stub: Any) -> None:
    proof.server.close()
    recorded = record(proof.cassette, lambda: stub.Get(pb.Order(id="1")))
    error: Any = recorded.raised
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    again = replay(proof.cassette, lambda: stub.Get(pb.Order(id="1")))
    assert shown(again.raised) == shown(recorded.raised)


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("localhost:50051", ("localhost", 50051)),
        ("dns:///api.example.com:443", ("api.example.com", 443)),
        ("dns://8.8.8.8/api.example.com", ("api.example.com", None)),
        ("ipv4:127.0.0.1:80", ("127.0.0.1", 80)),
        ("ipv6:[::1]:80", ("::1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("dns:443", ("dns", 443)),
        ("unix:///tmp/s", ("unix:/tmp/s", None)),
        ("api.example.com", ("api.example.com", None)),
    ],
)
def test_targets(target: str, address: tuple[str, int | None]) -> None:
    assert wire.address_of(target) == address


def test_a_release_that_looks_different() -> None:
    for name in ("grpc._channel", "grpc.aio._channel"):
        with pytest.raises(BoundaryError, match="not recognised"):
            install(ModuleType(name))
