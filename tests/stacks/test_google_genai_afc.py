"""google-genai's automatic function calling: plain and async functions, several at once, errors, streams, models."""

# The library is not typed, or not there in every environment.
# mypy: disable-error-code="no-any-return, unused-ignore"

from __future__ import annotations

import json
import types
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

import pytest
from clerk import ledger
from pydantic import BaseModel

from model_replies import ToolCall
from proof import Proof, Stack
from pytest_spanchain.boundaries.frameworks import google_genai
from pytest_spanchain.errors import BoundaryError
from servers import Json, Reply, Request, sse

genai = pytest.importorskip("google.genai")
api_client = pytest.importorskip("google.genai._api_client")
httpx = getattr(api_client, "httpx2", None) or api_client.httpx
"""``httpx2`` or ``httpx``: what the installed release is built on."""

STACK = Stack(
    name="google-genai automatic function calling",
    dists=("google-genai",),
    records="functions, where the SDK invokes them",
)


class Order(BaseModel):
    number: str
    urgent: bool = False


def lookup(order: str) -> dict[str, Any]:
    """State of an order.

    Args:
        order: its number.
    """
    ledger(f"lookup {order}")
    return {"order": order, "state": "delivered"}


def ship(order: Order) -> str:
    """Ships an order.

    Args:
        order: which one.
    """
    ledger(f"ship {order.number} {order.urgent}")
    return f"{type(order).__name__} {order.number} is on its way"


def broken(order: str) -> str:
    """Always fails.

    Args:
        order: its number.
    """
    ledger(f"broken {order}")
    raise LookupError(f"no warehouse for {order}")


async def notify(order: str) -> str:
    """Tells the customer.

    Args:
        order: its number.
    """
    ledger(f"notify {order}")
    return f"customer of {order} told"


for function in (lookup, ship, broken, notify):  # releases before 2 take annotations as they stand
    function.__annotations__ = get_type_hints(function)


def gemini(request: Request, text: str = "", *, tools: Sequence[ToolCall] = ()) -> Reply:
    """What ``generateContent`` or ``streamGenerateContent`` answers."""
    parts: list[Any] = [{"text": text}] if text else []
    parts += [{"functionCall": {"name": call.name, "args": dict(call.arguments)}} for call in tools]
    frames = [
        {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}],
            "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
            "modelVersion": "gemini-test",
        }
        for part in parts
    ]
    frames[-1]["candidates"][0]["finishReason"] = "STOP"  # type: ignore[index]
    if "streamGenerateContent" in request.path:
        return sse(*(f"data: {json.dumps(frame)}" for frame in frames))
    frames[-1]["candidates"][0]["content"]["parts"] = parts  # type: ignore[index]
    return Json(frames[-1])


def results(request: Request) -> list[str]:
    """What functions said, as the model is told."""
    return [
        json.dumps(part["functionResponse"]["response"], sort_keys=True)
        for turn in request.body["contents"]
        for part in turn["parts"]
        if "functionResponse" in part
    ]


def calls(*tools: ToolCall) -> Callable[[Request], Reply]:
    """A model that asks for these functions at once, then repeats what they said."""

    def script(request: Request) -> Reply:
        said = results(request)
        return gemini(request, " / ".join(said)) if said else gemini(request, tools=tools)

    return script


def client(proof: Proof, **options: Any) -> Any:
    return genai.Client(api_key="test", http_options={"base_url": proof.server.url, **options})


def ask(proof: Proof, prompt: str, *tools: Any, stream: bool = False) -> str:
    with client(proof) as google:
        if stream:
            chunks = google.models.generate_content_stream(
                model="gemini-test", contents=prompt, config={"tools": list(tools)}
            )
            return "".join(chunk.text or "" for chunk in chunks)
        said = google.models.generate_content(model="gemini-test", contents=prompt, config={"tools": list(tools)})
    return str(said.text)


async def aask(proof: Proof, prompt: str, *tools: Any, over: str) -> str:
    async with httpx.AsyncClient() as http:
        google = client(proof, **({"httpx_async_client": http} if over == "httpx" else {}))
        said = await google.aio.models.generate_content(
            model="gemini-test", contents=prompt, config={"tools": list(tools)}
        )
        await google.aio.aclose()
        google.close()
    return str(said.text)


TWO = (ToolCall("lookup", {"order": "1412"}), ToolCall("lookup", {"order": "1413"}))


@pytest.mark.parametrize("stream", [False, True])
def test_two_calls_of_one_turn(proof: Proof, stream: bool) -> None:
    tools = TWO[:1] if stream else TWO
    proof.server.script(calls(*tools))
    ran = ["lookup 1412", "lookup 1413"][: len(tools)]
    recorded = proof.holds(lambda: ask(proof, "Where?", lookup, stream=stream), ran=ran)
    assert "delivered" in recorded.value
    proof.breaks(lambda: ask(proof, "Where now?", lookup, stream=stream))
    proof.breaks(lambda: ask(proof, "Where?", lookup, broken, stream=stream))


def test_a_chat(proof: Proof) -> None:
    proof.server.script(calls(*TWO))

    def agent(prompt: str) -> str:
        with client(proof) as google:
            chat = google.chats.create(model="gemini-test", config={"tools": [lookup]})
            return chat.send_message(prompt).text + str(len(chat.get_history()))

    proof.holds(lambda: agent("Where?"), ran=["lookup 1412", "lookup 1413"])
    proof.breaks(lambda: agent("Why?"))


def test_arguments_become_models(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("ship", {"order": {"number": "7", "urgent": True}})))
    recorded = proof.holds(lambda: ask(proof, "Ship", ship), ran=["ship 7 True"])
    assert "Order 7 is on its way" in recorded.value


def test_a_function_that_raises(proof: Proof) -> None:
    proof.server.script(calls(ToolCall("broken", {"order": "1412"})))
    recorded = proof.holds(lambda: ask(proof, "Try", broken), ran=["broken 1412"])
    assert "because of error no warehouse for 1412" in recorded.value


def test_arguments_that_do_not_fit(proof: Proof) -> None:
    """The SDK refuses them before there is a call of a tool, in replay again."""
    proof.server.script(calls(ToolCall("lookup", {"order": {"a": 1}})))
    recorded = proof.holds(lambda: ask(proof, "Where?", lookup))
    assert "Failed to parse parameter order" in recorded.value
    assert not [span for span in recorded.verdict.live if span.kind == "tool"]


def test_another_argument(proof: Proof) -> None:
    """A model that asks for the same, of a function that takes it otherwise."""
    proof.server.script(calls(TWO[0]))
    proof.holds(lambda: ask(proof, "Where?", lookup), ran=["lookup 1412"])
    from google.genai import _extra_utils

    def direct(order: str) -> Any:
        return _extra_utils.invoke_function_from_dict_args({"order": order}, lookup)

    def agent() -> Any:
        ask(proof, "Where?", lookup)
        return direct("9")

    proof.breaks(agent)


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
@pytest.mark.parametrize("over", ["httpx", "aiohttp"])
def test_async(proof: Proof, over: str) -> None:
    """Async functions on the loop, plain ones in a thread; over either client that the SDK takes."""
    if over == "aiohttp":
        pytest.importorskip("aiohttp", reason="needs aiohttp, one of the clients that the SDK takes")
    proof.server.script(calls(ToolCall("notify", {"order": "1"}), TWO[0]))

    async def agent() -> str:
        return await aask(proof, "Tell", notify, lookup, over=over)

    recorded = proof.holds(agent, ran=["notify 1", "lookup 1412"])
    assert "customer of 1 told" in recorded.value

    async def changed() -> str:
        return await aask(proof, "Tell all", notify, lookup, over=over)

    proof.breaks(changed)


@pytest.mark.parametrize("function", [None, lambda arguments, function: None])
def test_a_release_that_looks_different(function: Any) -> None:
    module = types.ModuleType("google.genai._extra_utils")
    module.invoke_function_from_dict_args = function  # type: ignore[attr-defined]
    with pytest.raises(BoundaryError, match=r"google-genai [\d.]+ is not recognised: its tools would not be recorded"):
        google_genai.install(module)
