"""Tools that nobody has named are found by what the model is offered, recorded, and not run again in replay."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import inspect
import json
import os
import shutil
import sys
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pytest
from openai import OpenAI

import agents
import model_replies
from agents import refund as early
from model_replies import ToolCall, answer
from project import Project
from proof import Proof, Stack
from pytest_spanchain.boundaries._body_types import body_types
from recording import Outcome, record, replay, run
from servers import Reply, Request

STACK = Stack(
    name="plain functions",
    dists=("openai", "anthropic"),
    records="the project's own functions, found by the names and parameters that the model is offered",
    limits=(
        "A function that neither its name nor a key, attribute or `name` field connects with the tool has to be named.",
        "A function that is made after the model has answered is not found.",
        "Packages that are installed and not editable are not looked into.",
    ),
)

SCHEMA = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["order"],
}
ASKED = {"order": "1412", "amount": 3}
Use = Callable[[str, dict[str, Any]], Any]

log = agents._log


def offer(*names: str, schema: Mapping[str, Any] = SCHEMA) -> Any:
    return [{"type": "function", "function": {"name": name, "parameters": schema}} for name in names]


def converse(use: Use, *names: str, schema: Mapping[str, Any] = SCHEMA) -> str:
    """An agent that hands each call to ``use``, and its result back to the model."""
    messages: list[Any] = [{"role": "user", "content": "Refund order 1412"}]
    client = client_of(os.environ["OPENAI_BASE_URL"])
    while True:
        said = client.chat.completions.create(
            model="m", messages=messages, tools=offer(*(names or ("refund",)), schema=schema)
        )
        message = said.choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            assert call.type == "function"
            result = use(call.function.name, json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})


@functools.lru_cache(maxsize=1)
def client_of(url: str) -> OpenAI:
    """One for all runs of a test: making it takes longer than the rest."""
    return OpenAI(base_url=url)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    if client_of.cache_info().currsize and (url := os.environ.get("OPENAI_BASE_URL")):
        client_of(url).close()


def asks(*calls: ToolCall) -> Callable[[Request], Reply]:
    """A model that asks for tools once, then tells what they gave."""

    def script(request: Request) -> Reply:
        results = model_replies.tool_results(request)
        return answer(request, f"Done: {results}.") if results else answer(request, "Let me see.", tools=calls)

    return script


def refunding(**arguments: Any) -> Callable[[Request], Reply]:
    return asks(ToolCall("refund", arguments or ASKED))


def tools_of(outcome: Outcome) -> list[str]:
    return [span.name for span in outcome.verdict.live if span.kind == "tool"]


# --- agents that find their functions in every way that users have ----------------------------------------------------


def refund(order: str, amount: float = 1) -> str:
    log(f"refund {order} {amount}")
    return f"gave {amount} for {order}"


def do_it(order: str, amount: float) -> str:
    return refund_inside(order, amount)


def refund_inside(order: str, amount: float) -> str:
    log(f"refund {order} {amount}")
    return f"gave {amount} for {order}"


class Shop:
    """Tools that are methods."""

    def __init__(self) -> None:
        self.count = 0

    def refund(self, order: str, amount: float) -> str:
        self.count += 1
        return refund_inside(order, amount)

    def tool_refund(self, order: str, amount: float) -> str:
        return refund_inside(order, amount)

    @staticmethod
    def still(order: str, amount: float) -> str:
        return refund_inside(order, amount)

    @classmethod
    def made(cls, order: str, amount: float) -> str:
        return refund_inside(order, amount)


class Slotted:
    __slots__ = ("handler",)

    def __init__(self, handler: Any) -> None:
        self.handler = handler


class RefundTool:
    """A tool that is a class, as many agents have them."""

    name = "refund"

    def run(self, order: str, amount: float) -> str:
        return refund_inside(order, amount)


class Called:
    def __call__(self, order: str, amount: float) -> str:
        return refund_inside(order, amount)


@dataclass
class Tool:
    """One class for all tools, with the function in it."""

    name: str
    fn: Callable[..., Any]
    schema: Mapping[str, Any] = field(default_factory=dict)

    def run(self, **arguments: Any) -> Any:
        return self.fn(**arguments)


def loud(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: function(*args, **kwargs)


@loud
@loud
def decorated(order: str, amount: float) -> str:
    return refund_inside(order, amount)


@functools.cache
def cached(order: str, amount: float) -> str:
    return refund_inside(order, amount)


REGISTRY: dict[str, Any] = {}


def registered(name: str) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        REGISTRY[name] = {"name": name, "handler": function}
        return function

    return add


@registered("refund")
def under_another_name(order: str, amount: float) -> str:
    return refund_inside(order, amount)


def by_if(name: str, arguments: dict[str, Any]) -> Any:
    if name == "refund":
        return refund(**arguments)
    raise LookupError(name)


def by_match(name: str, arguments: dict[str, Any]) -> Any:
    match name:
        case "refund":
            return refund(arguments["order"], arguments["amount"])
        case _:
            raise LookupError(name)


def by_early_reference(name: str, arguments: dict[str, Any]) -> Any:
    return early(**arguments)


def in_a_dict() -> Use:
    table = {"refund": do_it}
    return lambda name, arguments: table[name](**arguments)


def of_lambdas() -> Use:
    table = {"refund": lambda order, amount: refund_inside(order, amount)}
    return lambda name, arguments: table[name](**arguments)


def with_other_parameters() -> Use:
    table = {"refund": lambda what, how_much: refund_inside(what, how_much)}
    return lambda name, arguments: table[name](arguments["order"], arguments["amount"])


def as_one_mapping() -> Use:
    def refund(arguments: dict[str, Any]) -> str:
        return refund_inside(**arguments)

    return lambda name, arguments: refund(arguments)


def a_closure() -> Use:
    given = {"amount": 0.0}

    def refund(order: str, amount: float) -> str:
        given["amount"] += amount
        return refund_inside(order, amount)

    return lambda name, arguments: refund(**arguments)


def an_attribute() -> Use:
    shop = Shop()
    return lambda name, arguments: getattr(shop, name)(**arguments)


def a_prefixed_attribute() -> Use:
    shop = Shop()
    return lambda name, arguments: getattr(shop, f"tool_{name}")(**arguments)


def bound_methods() -> Use:
    table = {"refund": Shop().tool_refund}
    return lambda name, arguments: table[name](**arguments)


def static_methods() -> Use:
    table = {"refund": Shop.still}
    return lambda name, arguments: table[name](**arguments)


def class_methods() -> Use:
    table = {"refund": Shop.made}
    return lambda name, arguments: table[name](**arguments)


def partials() -> Use:
    def give(factor: int, order: str, amount: float) -> str:
        return refund_inside(order, factor * amount)

    table = {"refund": functools.partial(give, 1)}
    return lambda name, arguments: table[name](**arguments)


def callables() -> Use:
    table = {"refund": Called()}
    return lambda name, arguments: table[name](**arguments)


def classes_with_names() -> Use:
    table = {tool.name: tool for tool in [RefundTool()]}
    return lambda name, arguments: table[name].run(**arguments)


def one_class_for_all() -> Use:
    table = {tool.name: tool for tool in [Tool("refund", do_it), Tool("lookup", agents.lookup)]}
    return lambda name, arguments: table[name].run(**arguments)


def a_namespace() -> Use:
    space = types.SimpleNamespace(refund=do_it)
    return lambda name, arguments: getattr(space, name)(**arguments)


def slots() -> Use:
    holder = Slotted({"refund": do_it})
    return lambda name, arguments: holder.handler[name](**arguments)


def pairs() -> Use:
    table = [("refund", do_it)]
    return lambda name, arguments: dict(table)[name](**arguments)


def entries() -> Use:
    return lambda name, arguments: REGISTRY[name]["handler"](**arguments)


def decorated_ones() -> Use:
    table = {"refund": decorated}
    return lambda name, arguments: table[name](**arguments)


def wrapped_without_a_trace() -> Use:
    table = {"refund": quiet(do_it)}
    return lambda name, arguments: table[name](**arguments)


def a_cached_one() -> Use:
    cached.cache_clear()
    table = {"refund": cached}
    return lambda name, arguments: table[name](**arguments)


def a_generator() -> Use:
    def refund(order: str, amount: float) -> Iterator[str]:
        log(f"refund {order} {amount}")
        yield "gave "
        yield str(amount)

    return lambda name, arguments: "".join(refund(**arguments))


def a_coroutine() -> Use:
    async def refund(order: str, amount: float) -> str:
        return refund_inside(order, amount)

    return lambda name, arguments: asyncio.run(refund(**arguments))


def an_async_generator() -> Use:
    async def refund(order: str, amount: float) -> AsyncIterator[str]:
        log(f"refund {order} {amount}")
        yield "gave "
        yield str(amount)

    async def joined(arguments: dict[str, Any]) -> str:
        return "".join([piece async for piece in refund(**arguments)])

    return lambda name, arguments: asyncio.run(joined(arguments))


def in_a_pool() -> Use:
    def use(name: str, arguments: dict[str, Any]) -> Any:
        with ThreadPoolExecutor() as pool:
            return pool.submit(refund, **arguments).result()

    return use


def with_a_context() -> Use:
    def refund(ctx: Any, order: str, *, amount: float) -> str:
        return refund_inside(order, amount)

    return lambda name, arguments: refund(object, **arguments)


WAYS: list[Callable[[], Use]] = [
    *(lambda: by_if, lambda: by_match, lambda: by_early_reference, in_a_dict, of_lambdas, with_other_parameters),
    *(as_one_mapping, a_closure, an_attribute, a_prefixed_attribute, bound_methods, static_methods, class_methods),
    *(partials, callables, classes_with_names, one_class_for_all, a_namespace, slots, pairs, entries, decorated_ones),
    *(wrapped_without_a_trace, a_cached_one, a_generator, a_coroutine, an_async_generator, in_a_pool, with_a_context),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_functions_are_found_however_the_agent_finds_them(proof: Proof, way: Callable[[], Use]) -> None:
    proof.server.script(refunding())
    recorded = proof.holds(lambda: converse(way()), ran=["refund 1412 3"])
    assert tools_of(recorded) == ["execute_tool refund"]
    assert recorded.verdict.notes == ()


# --- whole agents -----------------------------------------------------------------------------------------------------


def shop(request: Request) -> Reply:
    """A model that looks an order up, tells the customer, and pays."""
    results = model_replies.tool_results(request)
    if not results:
        return answer(
            request, "Let me see.", tools=[ToolCall("lookup", {"order": "1412"}), ToolCall("notify", {"order": "1412"})]
        )
    if len(results) == 2:
        return answer(request, "One moment.", tools=[ToolCall("refund", {"order": "1412", "amount": 19.5})])
    return answer(request, f"Done: {results[-1]}.")


@pytest.mark.parametrize("agent", ["tool_loop", "atool_loop", "stream_tool_loop", "claude_tool_loop"])
def test_agents_on_the_sdks(proof: Proof, agent: str) -> None:
    loop = getattr(agents, agent)

    async def awaited() -> Any:
        return await loop("Refund order 1412")

    proof.server.script(shop)
    recorded = proof.holds(
        awaited if inspect.iscoroutinefunction(loop) else lambda: loop("Refund order 1412"),
        ran=["lookup 1412", "notify 1412", "refund 1412 19.5"],
        in_order=False,
    )
    assert sorted(tools_of(recorded)) == ["execute_tool lookup", "execute_tool notify", "execute_tool refund"]
    assert recorded.verdict.notes == ()
    ids = [span.attributes.get("gen_ai.tool.call.id") for span in recorded.verdict.live if span.kind == "tool"]
    assert all(ids)


def test_an_async_agent_whose_answers_are_streamed(proof: Proof) -> None:
    async def agent() -> str:
        return await agents.aclaude_tool_loop("Where is order 1412?")

    proof.server.script(asks(ToolCall("lookup", {"order": "1412"}), ToolCall("refund", ASKED)))
    recorded = proof.holds(agent, ran=["lookup 1412", "refund 1412 3"])
    assert tools_of(recorded) == ["execute_tool lookup", "execute_tool refund"]


# --- what is taken for a tool, and what is not ------------------------------------------------------------------------


def test_a_call_that_the_model_did_not_ask_for_is_the_tools_if_it_surely_is_the_tool(proof: Proof) -> None:
    def agent() -> str:
        refund("before", 1)
        said = converse(by_if)
        return said + refund("after", 2)

    proof.server.script(refunding())
    recorded = record(proof.cassette, agent)
    assert proof.ran == ["refund before 1", "refund 1412 3", "refund after 2"]
    assert tools_of(recorded) == ["execute_tool refund"] * 2
    proof.take_down()
    replay(proof.cassette, agent)
    assert proof.ran[3:] == ["refund before 1"], "before the first model call nothing is known, then or now"


def test_a_function_that_only_could_be_the_tool_is_one_when_the_model_has_asked(proof: Proof) -> None:
    def tool_refund(order: str, amount: float) -> str:
        return refund_inside(order, amount)

    def agent() -> str:
        said = converse(lambda name, arguments: tool_refund("other", 9) + tool_refund(**arguments))
        return said + tool_refund("after", 2)

    proof.server.script(refunding())
    recorded = record(proof.cassette, agent)
    assert tools_of(recorded) == ["execute_tool refund"] * 2
    proof.take_down()
    replay(proof.cassette, agent)
    assert proof.ran[3:] == ["refund other 9"]


def test_what_a_tool_calls_under_its_own_name_is_part_of_it(proof: Proof) -> None:
    inner = refund

    def outer() -> Use:
        def refund(order: str, amount: float) -> str:
            return inner(order, amount=amount) + inner(order, amount=amount)

        return lambda name, arguments: refund(**arguments)

    proof.server.script(refunding())
    recorded = proof.holds(lambda: converse(outer()), ran=["refund 1412 3"] * 2)
    assert tools_of(recorded) == ["execute_tool refund"]


def test_a_function_that_serves_several_tools_is_told_apart(proof: Proof) -> None:
    def use(name: str, arguments: dict[str, Any]) -> str:
        log(f"{name} {arguments}")
        return f"{name} done"

    def agent() -> str:
        table = {name: functools.partial(use, name) for name in ("refund", "credit")}
        return converse(lambda name, arguments: table[name](arguments), "refund", "credit")

    proof.server.script(asks(ToolCall("refund", {"order": "7"}), ToolCall("credit", {"order": "7"})))
    recorded = proof.holds(agent, ran=["refund {'order': '7'}", "credit {'order': '7'}"])
    assert tools_of(recorded) == ["execute_tool refund", "execute_tool credit"]


def test_one_class_for_several_tools(proof: Proof) -> None:
    def agent() -> str:
        one = Tool("refund", lambda order: log(f"refund {order}"))
        other = Tool("credit", lambda order: log(f"credit {order}"))
        table = {"refund": one, "credit": other}
        return converse(lambda name, arguments: table[name].run(**arguments), "refund", "credit")

    proof.server.script(asks(ToolCall("credit", {"order": "7"}), ToolCall("refund", {"order": "7"})))
    recorded = proof.holds(agent, ran=["credit 7", "refund 7"])
    assert tools_of(recorded) == ["execute_tool credit", "execute_tool refund"]


@pytest.mark.parametrize(
    ("tool", "function"),
    [
        ("refundOrder", "refund_order"),
        ("refund-order", "refund_order"),
        ("shop__refund_order", "refund_order"),
        ("refund_order", "_refund_order"),
        ("refund_order", "handle_refund_order"),
        ("refund_order", "refundOrderTool"),
    ],
)
def test_spellings(proof: Proof, tool: str, function: str) -> None:
    def agent() -> str:
        space: dict[str, Any] = {"inside": refund_inside, "__file__": __file__}
        exec(compile(f"def {function}(order, amount): return inside(order, amount)", __file__, "exec"), space)
        handler = space[function]
        return converse(lambda name, arguments: handler(arguments["order"], arguments["amount"]), tool)

    proof.server.script(asks(ToolCall(tool, ASKED)))
    recorded = proof.holds(agent, ran=["refund 1412 3"])
    assert tools_of(recorded) == [f"execute_tool {tool}"]


def test_a_closure_that_only_memory_knows(proof: Proof) -> None:
    def agent() -> str:
        def settle(order: str, amount: float) -> str:
            return refund_inside(order, amount)

        hidden = iter([iter([settle])])
        del settle
        return converse(lambda name, arguments: next(next(hidden))(**arguments), "settle")

    proof.server.script(asks(ToolCall("settle", ASKED)))
    proof.holds(agent, ran=["refund 1412 3"])


def test_each_call_makes_its_own_closure(proof: Proof) -> None:
    proof.server.script(refunding())
    proof.holds(lambda: converse(a_closure()) + converse(a_closure()), ran=["refund 1412 3"] * 2)


def test_the_right_tool_is_found_alone_and_among_namesakes(
    proof: Proof, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof.server.script(refunding())
    recorded = proof.holds(lambda: converse(a_closure()), ran=["refund 1412 3"])
    source = ["def refund(order, amount): return 1", "def re_fund(order): ...", "TABLE = {'refund': lambda o: 1}", ""]
    (tmp_path / "namesake.py").write_text("\n".join(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("namesake")
    assert replay(proof.cassette, lambda: converse(a_closure())).value == recorded.value


def test_a_changed_argument_is_red_and_runs_nothing(proof: Proof) -> None:
    proof.server.script(refunding())
    proof.holds(lambda: converse(by_if), ran=["refund 1412 3"])
    (cause,) = proof.breaks(lambda: converse(lambda name, arguments: refund(arguments["order"], 4)))
    assert (cause.kind, cause.path[-1]) == ("input_changed", "execute_tool refund")


# --- what the user says wins ------------------------------------------------------------------------------------------


def test_a_tool_that_is_listed_is_not_looked_for(proof: Proof) -> None:
    proof.settings["tools"] = [f"{__name__}:refund"]
    proof.server.script(refunding())
    recorded = record(proof.cassette, lambda: converse(a_closure()), **proof.settings)
    assert tools_of(recorded) == []
    (note,) = recorded.verdict.notes
    assert "the model asked for refund once" in note


def test_a_listed_function_is_recorded_once_under_its_own_name(proof: Proof) -> None:
    proof.settings["tools"] = [f"{__name__}:Shop.refund", f"{__name__}:do_it"]
    proof.server.script(refunding())
    recorded = proof.holds(lambda: converse(an_attribute()), ran=["refund 1412 3"])
    assert tools_of(recorded) == ["execute_tool Shop.refund"]
    assert recorded.verdict.notes == ()


def test_what_one_run_lists_another_finds(proof: Proof) -> None:
    proof.server.script(refunding())
    found = record(proof.cassette, lambda: converse(an_attribute()))
    listed = proof.cassette.with_name("listed.yaml")
    record(listed, lambda: converse(an_attribute()), tools=[f"{__name__}:Shop.refund"])
    for _ in range(2):
        replay(listed, lambda: converse(an_attribute()), tools=[f"{__name__}:Shop.refund"])
        replay(proof.cassette, lambda: converse(an_attribute()))
    assert tools_of(found) == ["execute_tool refund"]


def test_off(proof: Proof) -> None:
    proof.server.script(refunding())
    recorded = record(proof.cassette, lambda: converse(by_if), tools="off")
    assert (tools_of(recorded), recorded.verdict.notes) == ([], ())
    replay(proof.cassette, lambda: converse(by_if), tools="off")
    assert proof.ran == ["refund 1412 3"] * 2


def test_a_tool_may_run_in_replay(proof: Proof) -> None:
    proof.server.script(refunding())
    answers = iter(["gave 3", "gave 3", "gave 4"])

    def agent() -> str:
        def refund(order: str, amount: float) -> str:
            log("ran")
            return next(answers)

        return converse(lambda name, arguments: refund(**arguments))

    record(proof.cassette, agent)
    proof.take_down()
    assert run(proof.cassette, agent, run=["ref*"]).failure is None
    assert proof.ran == ["ran"] * 2
    changed = run(proof.cassette, agent, run=["ref*"])
    assert changed.failure is not None
    assert [cause.kind for cause in changed.causes][:1] == ["output_changed"]
    assert proof.ran == ["ran"] * 3
    replay(proof.cassette, agent)
    assert proof.ran == ["ran"] * 3


# --- what is told -----------------------------------------------------------------------------------------------------


def give_back(order: str, amount: float) -> str:
    return refund_inside(order, amount)


def test_a_tool_that_is_not_found_is_told_of_with_what_settles_it(proof: Proof) -> None:
    def agent() -> str:
        return converse(lambda name, arguments: give_back(**arguments), "give_it_back", "never_asked")

    proof.server.script(asks(*[ToolCall("give_it_back", ASKED, id=f"c{n}") for n in range(2)]))
    recorded = record(proof.cassette, agent)
    proof.take_down()
    replayed = replay(proof.cassette, agent)
    assert proof.ran == ["refund 1412 3"] * 4, "it was never said to be a tool"
    assert recorded.verdict.notes == replayed.verdict.notes
    (note,) = recorded.verdict.notes
    assert note == (
        "the model asked for give_it_back 2 times, but no call of a function of that name was met: what it does was not"
        " recorded and runs again in replay. Name it: spanchain_tools = module:function"
        f" (near: {__name__}:give_back)"
    )


def test_a_tool_without_a_body_is_settled_by_run(proof: Proof) -> None:
    def agent() -> str:
        return converse(lambda name, arguments: "ok", "final_result")

    proof.server.script(asks(ToolCall("final_result", ASKED)))
    assert len(record(proof.cassette, agent).verdict.notes) == 1
    assert record(proof.cassette, agent, run=["final_result"]).verdict.notes == ()


def test_the_summary_tells(project: Project) -> None:
    project.server.script(asks(ToolCall("give_it_back", ASKED)))
    project.write(AGENT, "agent.py")
    project.write("def do(order, amount): return 'done'\n\ndef given_back(): ...\n", "shop.py")
    project.write(
        "import agent, shop\n\n@pytest.mark.cassette\ndef test_it():\n    agent.loop('give_it_back', shop.do)\n"
    )
    out = project.record().out
    assert "note: the model asked for give_it_back once" in out
    assert "shop:given_back)" in out
    assert "the model asked for give_it_back once" in project.run().out
    project.ini("spanchain_tools = shop:do")
    assert "the model asked" not in project.run("--record-mode=rewrite").out


# --- what is nobody's business ----------------------------------------------------------------------------------------

AGENT = """
import json
from openai import OpenAI

SCHEMA = {"type": "object", "properties": {"order": {"type": "string"}, "amount": {"type": "number"}}}

def loop(tool, function):
    tools = [{"type": "function", "function": {"name": tool, "parameters": SCHEMA}}]
    messages = [{"role": "user", "content": "Refund order 1412"}]
    with OpenAI() as client:
        while True:
            said = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0].message
            if not said.tool_calls:
                return said.content
            messages.append(said.model_dump(exclude_none=True))
            for call in said.tool_calls:
                result = function(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})
"""

TOOL = """
import os

def refund(order, amount=1):
    with open(os.environ["AGENT_LEDGER"], "a") as ledger:
        print("refund", order, amount, file=ledger)
    return "done"
"""


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("plugin", True),
        ("env/lib/python3.11/site-packages", False),
        ("usr/lib/python3/dist-packages", False),
        (".venv/src/package", False),
    ],
)
def test_only_the_users_own_functions_are_touched(
    proof: Proof, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, where: str, found: bool
) -> None:
    home = tmp_path / where
    home.mkdir(parents=True)
    (tmp_path / ".venv").mkdir(exist_ok=True)
    (tmp_path / ".venv/pyvenv.cfg").write_text("")
    (home / "somebodys.py").write_text(TOOL)
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.delitem(sys.modules, "somebodys", raising=False)
    module = __import__("somebodys")
    code = module.refund.__code__
    touched: list[bool] = []

    def use(name: str, arguments: dict[str, Any]) -> Any:
        touched.append(module.refund.__code__ is not code)
        return module.refund(**arguments)

    proof.server.script(refunding())
    recorded = record(proof.cassette, lambda: converse(use))
    assert touched == [found]
    assert tools_of(recorded) == ["execute_tool refund"] * found
    assert len(recorded.verdict.notes) == (not found)
    monkeypatch.delitem(sys.modules, "somebodys")


def test_the_standard_library_is_not_touched(proof: Proof, tmp_path: Any) -> None:
    target = tmp_path / "copied"
    schema = {"type": "object", "properties": {"src": {"type": "string"}, "dst": {"type": "string"}}}
    table = {"copy": shutil.copy}
    code = shutil.copy.__code__

    def use(name: str, arguments: dict[str, Any]) -> Any:
        assert shutil.copy.__code__ is code
        return table[name](**arguments)

    proof.server.script(asks(ToolCall("copy", {"src": __file__, "dst": str(target)})))
    recorded = record(proof.cassette, lambda: converse(use, "copy", schema=schema))
    assert target.exists()
    assert len(recorded.verdict.notes) == 1


def test_tests_and_fixtures_are_no_tools(project: Project) -> None:
    calls = [ToolCall(name, ASKED, id=name) for name in ("test_connection", "refund")]
    project.server.script(asks(*calls))
    project.write(AGENT, "agent.py")
    project.write(
        """
import agent

@pytest.fixture
def refund(order=1, amount=2):
    return 3

@pytest.mark.cassette
@pytest.mark.parametrize(("order", "amount"), [(1, 2)])
def test_connection(order, amount, refund, request):
    seen = []
    agent.loop("test_connection", lambda **given: seen.append(request.function.__code__.co_varnames[0]))
    agent.loop("refund", lambda **given: "ok")
    assert set(seen) == {"order"}
"""
    )
    assert project.run("--record-mode=once").outcomes == {"passed": 1}


def test_nothing_is_left_behind(proof: Proof) -> None:
    class Held:
        pass

    holders: list[Any] = []

    def agent() -> str:
        held = Held()
        holders.append(weakref.ref(held))

        def refund(order: str, amount: float) -> str:
            log(f"refund {held}"[:6])
            return "ok"

        return converse(lambda name, arguments: refund(**arguments))

    proof.server.script(refunding())
    codes = refund.__code__, Shop.refund.__code__
    record(proof.cassette, agent)
    assert (refund.__code__, Shop.refund.__code__) == codes
    proof.take_down()
    replay(proof.cassette, agent)
    assert (refund.__code__, Shop.refund.__code__) == codes, "only what was called stays patched"
    gc.collect()
    assert [holder() for holder in holders] == [None, None]


# --- what only could be a tool, called otherwise than the model asked -------------------------------------------------


def ship_tool(parcel: str, sum_: float = 1) -> str:
    """Could be ``ship``: the name is spelt otherwise, and the parameters have other names."""
    log(f"ship {parcel} {sum_:g}")
    return f"shipped {parcel}"


def test_a_function_that_could_be_the_tool_does_not_run_with_other_arguments(proof: Proof) -> None:
    proof.server.script(asks(ToolCall("ship", ASKED)))

    def agent(extra: str = "") -> str:
        return converse(lambda name, given: ship_tool(given["order"] + extra, given["amount"]), "ship")

    recorded = proof.holds(agent, ran=["ship 1412 3"])
    assert tools_of(recorded) == ["execute_tool ship"]
    (cause,) = proof.breaks(lambda: agent(extra="-b"))
    assert (cause.kind, [change.path for change in cause.changes]) == ("input_changed", ["request.arguments.parcel"])


def test_what_ran_unrecorded_while_the_model_waited_runs_again(proof: Proof) -> None:
    """A draft of the call is no call of the tool: the recording says so, or an unchanged agent would be red."""
    proof.server.script(asks(ToolCall("ship", ASKED)))

    def use(name: str, given: dict[str, Any]) -> str:
        ship_tool(given["order"] + "-draft")
        return ship_tool(given["order"], given["amount"])

    outcome = record(proof.cassette, lambda: converse(use, "ship"))
    assert tools_of(outcome) == ["execute_tool ship"]
    assert "test_auto_tools:ship_tool" in proof.cassette.read_text(encoding="utf-8")
    proof.take_down()
    again = replay(proof.cassette, lambda: converse(use, "ship"))
    assert again.value == outcome.value
    assert proof.ran == ["ship 1412-draft 1", "ship 1412 3", "ship 1412-draft 1"]


# --- who is the tool, where several are called like it ----------------------------------------------------------------

KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}


class Registry:
    """Has a method of a tool's name and parameters, which is none."""

    def __init__(self, **handlers: Any) -> None:
        self.handlers = handlers

    def get(self, key: str) -> Any:
        log(f"registry {key}")
        return self.handlers[key]


def fetch(key: str) -> str:
    log(f"get {key}")
    return f"the value of {key}"


def by_registry(registry: Registry, handler: Callable[..., Any]) -> Callable[[], str]:
    def use(name: str, arguments: dict[str, Any]) -> Any:
        registry.get("handler")
        return handler(**arguments)

    return lambda: converse(use, "get", schema=KEY)


def a_get() -> Callable[..., Any]:
    def get(key: str) -> str:
        return fetch(key)

    return get


def test_a_namesake_whose_result_cannot_be_recorded_fails_nothing(proof: Proof) -> None:
    proof.server.script(asks(ToolCall("get", {"key": "k1"})))
    agent = by_registry(Registry(handler=object()), a_get())
    recorded = record(proof.cassette, agent)
    assert tools_of(recorded) == ["execute_tool get"]
    assert proof.ran == ["registry handler", "get k1"]
    proof.take_down()
    for again in range(2):
        replayed = replay(proof.cassette, agent)
        assert replayed.value == recorded.value
        assert replayed.verdict.notes == recorded.verdict.notes
        assert proof.ran[2:] == ["registry handler"] * (again + 1), "what was left out runs, and the tool does not"
    (note,) = recorded.verdict.notes
    assert note == (
        f"{__name__}:Registry.get is called like the tool get, but it is not known to have answered the model, and what"
        f" it gives cannot be recorded: it runs again in replay. {__name__}:get is it: spanchain_tools = {__name__}:get"
    )


def test_a_namesake_that_is_recorded_is_told_of(proof: Proof) -> None:
    proof.server.script(asks(ToolCall("get", {"key": "k1"})))
    agent = by_registry(Registry(handler="not the tool"), a_get())
    recorded = proof.holds(agent, ran=["registry handler", "get k1"])
    assert tools_of(recorded) == ["execute_tool get"] * 2
    (note,) = recorded.verdict.notes
    assert note == (
        f"2 functions were taken for the tool get, and the calls of all of them are recorded: {__name__}:Registry.get,"
        f" {__name__}:get. Say which one is: spanchain_tools = {__name__}:get"
    )


def get(key: str) -> str:
    return fetch(key)


def test_the_line_that_is_told_settles_it(proof: Proof) -> None:
    proof.server.script(asks(ToolCall("get", {"key": "k1"})))
    agent = by_registry(Registry(handler=object()), get)
    told = record(proof.cassette, agent).verdict.notes[0].rpartition("spanchain_tools = ")[2]
    settled = record(proof.cassette, agent, tools=[told])
    assert tools_of(settled) == ["execute_tool get"]
    assert settled.verdict.notes == ()


def test_a_namesake_takes_nothing_from_a_tool_that_is_spelt_otherwise(proof: Proof) -> None:
    """It is called while the model waits, before the tool is; the tool is known by its arguments only."""

    def get_tool(what: str) -> str:
        return fetch(what)

    def use(name: str, arguments: dict[str, Any]) -> Any:
        registry.get("handler")
        return get_tool(arguments["key"])

    registry = Registry(handler=object())
    proof.server.script(asks(ToolCall("get", {"key": "k1"})))
    recorded = record(proof.cassette, lambda: converse(use, "get", schema=KEY))
    assert tools_of(recorded) == ["execute_tool get"]
    proof.take_down()
    replay(proof.cassette, lambda: converse(use, "get", schema=KEY))
    assert proof.ran == ["registry handler", "get k1", "registry handler"]


def test_what_the_model_was_sent_tells_the_tool(proof: Proof) -> None:
    """The tool's arguments are changed on the way, its namesake's are not; the result decides."""

    def use(name: str, arguments: dict[str, Any]) -> Any:
        registry.get("handler")
        return get(key=arguments["key"] + "-v2")

    registry = Registry(handler=object())
    proof.server.script(asks(ToolCall("get", {"key": "k1"})))
    recorded = record(proof.cassette, lambda: converse(use, "get", schema=KEY))
    assert tools_of(recorded) == ["execute_tool get"]
    (note,) = recorded.verdict.notes
    assert note.endswith(f"{__name__}:get is it: spanchain_tools = {__name__}:get")
    proof.take_down()
    replay(proof.cassette, lambda: converse(use, "get", schema=KEY))
    assert proof.ran == ["registry handler", "get k1-v2", "registry handler"]


@pytest.mark.parametrize("changed", [False, True])
def test_the_only_one_that_can_have_answered_is_the_tool(proof: Proof, changed: bool) -> None:
    registry = Registry(k1=object(), k1x=object())

    def use(name: str, arguments: dict[str, Any]) -> Any:
        registry.get(key=arguments["key"] + "x" * changed)
        return "nothing that was given"

    proof.server.script(asks(ToolCall("get", {"key": "k1"})))
    failed = run(proof.cassette, lambda: converse(use, "get", schema=KEY), mode="once")
    assert failed.failure is not None
    assert "tool get: the result cannot be recorded" in str(failed.failure)
    assert not proof.cassette.exists()


def test_one_that_the_program_keeps_as_the_tool_is_the_tool(proof: Proof) -> None:
    table = {"get": Registry(k1=object()).get}

    def agent() -> str:
        said = converse(lambda name, arguments: "from elsewhere", "get", schema=KEY)
        table["get"]("k1")
        return said

    proof.server.script(asks(ToolCall("other", {})))
    failed = run(proof.cassette, agent, mode="once")
    assert "tool get: the result cannot be recorded" in str(failed.failure)


def test_a_namesake_that_nobody_asked_for_fails_nothing(proof: Proof) -> None:
    registry = Registry(k1=object())

    def agent() -> str:
        said = converse(lambda name, arguments: refund(**arguments), "get", "refund", schema=SCHEMA | KEY)
        registry.get("k1")
        return said

    proof.server.script(refunding())
    recorded = record(proof.cassette, agent)
    assert tools_of(recorded) == ["execute_tool refund"]
    (note,) = recorded.verdict.notes
    assert note.endswith(f"If it is the tool: spanchain_tools = {__name__}:Registry.get")
    proof.take_down()
    assert replay(proof.cassette, agent).verdict.notes == recorded.verdict.notes
    assert proof.ran == ["refund 1412 3", "registry k1", "registry k1"]


# --- what cannot be patched -------------------------------------------------------------------------------------------


@types.coroutine
def settle_up(order: str, amount: float) -> Iterator[Any]:
    yield from asyncio.sleep(0).__await__()


def test_a_tool_of_a_kind_that_cannot_be_recorded_fails_if_it_is_asked_for(proof: Proof) -> None:
    async def settled(arguments: dict[str, Any]) -> str:
        await settle_up(**arguments)
        return "ok"

    def agent() -> str:
        return converse(lambda name, arguments: asyncio.run(settled(arguments)), "settle_up", "refund")

    proof.server.script(asks(ToolCall("settle_up", ASKED)))
    failed = run(proof.cassette, agent, mode="once")
    assert "the model asked for settle_up" in str(failed.failure)
    assert "write it with async def" in str(failed.failure)
    proof.server.script(lambda request: answer(request, "No need."))
    (note,) = record(proof.cassette, agent).verdict.notes
    assert "settle_up cannot be recorded as a tool" in note


def test_an_unexpected_error_fails_the_run_and_not_the_agent(proof: Proof) -> None:
    def refund(order: str, amount: float) -> str:
        return "ok"

    refund.__signature__ = 42  # type: ignore[attr-defined]
    proof.server.script(refunding())
    failed = run(proof.cassette, lambda: converse(lambda name, arguments: refund(**arguments)), mode="once")
    assert failed.raised is None
    assert failed.value == "Done: ['ok']."
    assert f"{__name__}:refund cannot be recorded as a tool: TypeError" in str(failed.failure)


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_memory_is_searched_once_for_a_tool_that_is_not_there(proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = gc.get_objects

    def looked(*args: Any) -> list[Any]:
        looks.append("a look")
        return look(*args)

    monkeypatch.setattr(gc, "get_objects", looked)
    asked = iter(range(20))

    def script(request: Request) -> Reply:
        more = next(asked, None)
        return answer(request, "Go on.", tools=[ToolCall("lost", {"order": str(more)})] if more is not None else ())

    def use(name: str, arguments: dict[str, Any]) -> str:
        if arguments["order"] == "10":  # what is imported may have brought it
            monkeypatch.setitem(sys.modules, "something_new", types.ModuleType("something_new"))
        return "ok"

    proof.server.script(script)
    record(proof.cassette, lambda: converse(use, "lost"))
    assert len(looks) == 2


def test_a_tool_that_was_collected_is_looked_for_again(proof: Proof) -> None:
    def once() -> str:
        def settle(order: str, amount: float) -> str:
            return refund_inside(order, amount)

        hidden = iter([iter([settle])])
        del settle
        return converse(lambda name, arguments: next(next(hidden))(**arguments), "settle")

    def agent() -> str:
        said = once()
        gc.collect()
        return said + once()

    proof.server.script(asks(ToolCall("settle", ASKED)))
    proof.holds(agent, ran=["refund 1412 3"] * 2)


def test_some_calls_of_a_tool_that_are_not_met_are_told_of(proof: Proof) -> None:
    """Of two conversations, the second keeps its tool where nobody can see it: the first one's is known by then."""
    hidden = iter([iter([functools.partial(lambda order, amount: refund_inside(order, amount))])])

    def agent() -> str:
        again = next(hidden, None)
        said = converse(by_if)
        return said + converse(lambda name, arguments: next(again)(**arguments) if again else "ok")

    proof.server.script(refunding())
    recorded = record(proof.cassette, agent)
    assert tools_of(recorded) == ["execute_tool refund"]
    (note,) = recorded.verdict.notes
    assert note.startswith("the model asked for refund 2 times, and 1 of these calls was not met")


def test_what_is_known_of_a_body_keeps_nothing_alive() -> None:
    def known() -> list[weakref.ref[Any]]:
        class Result:
            pass

        class Agent:
            def tool(self) -> Result:
                return Result()

        def body() -> Result:
            return Result()

        agent = Agent()
        for one in (agent.tool, body, functools.partial(body)):
            found = body_types(one, Agent)
            assert {Result, Agent} <= set(found.values())
            assert body_types(one, Agent) is found, "it is not looked for anew"
        return [weakref.ref(agent), weakref.ref(Agent), weakref.ref(Result), weakref.ref(body)]

    gone = known()
    gc.collect()
    assert [reference() for reference in gone] == [None] * 4


# --- how the model's arguments come to the tool, and the tool to the agent --------------------------------------------


class Refund(pydantic.BaseModel):
    """Arguments as a model of pydantic's."""

    order: str
    amount: float = 1
    currency: str = "EUR"


@dataclass
class RefundData:
    """Arguments as a dataclass."""

    order: str
    amount: float = 1
    items: tuple[str, ...] = ()


def of_a_model() -> Use:
    def refund(args: Refund) -> str:
        return refund_inside(args.order, round(args.amount))

    return lambda name, arguments: refund(Refund(**arguments))


def of_a_dataclass() -> Use:
    def refund(args: RefundData, *, db: object) -> str:
        return refund_inside(args.order, args.amount)

    return lambda name, arguments: refund(RefundData(**arguments), db=object())


def of_json() -> Use:
    def refund(payload: str) -> str:
        return refund_inside(**json.loads(payload))

    return lambda name, arguments: refund(json.dumps(arguments))


def of_a_larger_mapping() -> Use:
    def refund(state: dict[str, Any]) -> str:
        return refund_inside(state["order"], state["amount"])

    return lambda name, arguments: refund({**arguments, "user": "ann"})


def of_anything() -> Use:
    def refund(*given: Any) -> str:
        return refund_inside(*given)

    return lambda name, arguments: refund(*arguments.values())


def a_default() -> Use:
    table = {"refund": lambda order, amount: refund_inside(order, amount)}

    def use(name: str, arguments: dict[str, Any], *, known: Any = table) -> Any:
        return known[name](**arguments)

    del table
    return use


@pytest.mark.parametrize(
    "way",
    [of_a_model, of_a_dataclass, of_json, of_a_larger_mapping, of_anything, a_default],
    ids=lambda way: way.__name__,
)
def test_arguments_in_every_form(proof: Proof, way: Callable[[], Use]) -> None:
    proof.server.script(refunding())
    recorded = proof.holds(lambda: converse(way()), ran=["refund 1412 3"])
    assert tools_of(recorded) == ["execute_tool refund"]
    assert recorded.verdict.notes == ()


def test_a_tool_that_is_imported_by_the_function_that_calls_it(
    proof: Proof, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a namespace package, of which nothing was imported when the model was asked."""
    (tmp_path / "shop_space").mkdir()
    (tmp_path / "shop_space/late.py").write_text(TOOL)
    monkeypatch.syspath_prepend(str(tmp_path))

    def agent(*, anew: bool = True) -> str:
        if anew:
            for name in ("shop_space", "shop_space.late"):
                sys.modules.pop(name, None)

        def use(name: str, arguments: dict[str, Any]) -> Any:
            return importlib.import_module("shop_space.late").refund(**arguments)

        return converse(use)

    proof.server.script(refunding())
    recorded = proof.holds(agent, ran=["refund 1412 3"])
    assert recorded.verdict.notes == ()
    replay(proof.cassette, lambda: agent(anew=False))
    assert proof.ran == ["refund 1412 3"], "nor does it run where somebody else has imported it before"
    assert not [finder for finder in sys.meta_path if type(finder).__name__ == "Watcher"]


# --- whose code it is -------------------------------------------------------------------------------------------------


def test_whose_code_it_is_does_not_change_with_the_directory(project: Project) -> None:
    """A project inside of an environment: whether a test has gone elsewhere first makes no difference."""
    project.server.script(refunding())
    project.write("", "pyvenv.cfg")
    project.write(AGENT, "agent.py")
    project.write(TOOL, "shop.py")
    project.write(
        """
import os
import agent, shop

def test_elsewhere(tmp_path):
    os.chdir(tmp_path)

@pytest.mark.cassette
def test_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_LEDGER", "ledger")
    agent.loop("refund", shop.refund)
"""
    )
    here = os.getcwd()
    try:
        recorded = project.run("--record-mode=once")
        assert recorded.outcomes == {"passed": 2}
        assert "the model asked for refund" not in recorded.out
        (cassette,) = project.cassettes()
        assert "execute_tool refund" in cassette.read_text(encoding="utf-8")
    finally:
        os.chdir(here)
