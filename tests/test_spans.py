"""The spans of a run: whoever emits them and wherever, under the right parent, with what they say."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer

import pytest_spanchain
from model_replies import answer
from pytest_spanchain import _otel, _run, _store
from pytest_spanchain._capture import Capture
from pytest_spanchain._model import OWN_SCOPE, Span, SpanTree
from recording import Outcome, record, replay
from servers import ModelServer

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


@pytest.fixture
def tracer() -> Tracer:
    return tracer_of("app")


def tracer_of(scope: str, **provider: Any) -> Tracer:
    """A tracer of a provider of its own, which is nobody's global one."""
    return TracerProvider(shutdown_on_exit=False, **provider).get_tracer(scope)


def outline(tree: SpanTree) -> list[str]:
    """Each span below the root as ``parent > name``, in the order of the tree."""
    names = {span.span_id: span.name for span in tree}
    (root,) = tree.roots
    names[root.span_id] = "root"
    return [f"{names[span.parent_span_id]} > {span.name}" for span in tree if span.parent_span_id]


def named(tree: SpanTree, name: str) -> Span:
    (found,) = [span for span in tree if span.name == name]
    return found


@pytest_spanchain.tool
def price(item: str) -> float:
    """A tool that is instrumented inside; recorded, it shows as a span of ours."""
    with trace.get_tracer("shop").start_as_current_span("query"):
        return float(len(item))


# --- providers ---------------------------------------------------------------------------------------------------
# The global provider can be set once a process, so each of these needs one of its own.

PRELUDE = """
import json, sys
from pathlib import Path
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from recording import record, replay
import pytest_spanchain

class Ear(SpanProcessor):
    def __init__(self): self.heard = []
    def on_end(self, span): self.heard.append(span.name)

ear = Ear()

def provider_with_an_ear(kind=TracerProvider):
    provider = kind(shutdown_on_exit=False)
    provider.add_span_processor(ear)
    return provider

@pytest_spanchain.tool
def ours():
    with tracer.start_as_current_span("below"): pass

def outline(outcome):
    names = {span.span_id: span.name for span in outcome.verdict.live}
    return [f"{names[s.parent_span_id]} > {s.name}" for s in outcome.verdict.live if s.parent_span_id]
"""


def in_a_process(script: str, directory: Path) -> Any:
    """What a script prints, as JSON. It must keep quiet otherwise: OpenTelemetry's complaints go to stderr."""
    code = f"{PRELUDE}\n{textwrap.dedent(script)}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    environment.pop("OTEL_SDK_DISABLED", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_provider_that_is_there_gets_a_processor_and_stays(tmp_path: Path) -> None:
    script = """
        mine = provider_with_an_ear()
        trace.set_tracer_provider(mine)
        tracer = trace.get_tracer("app")
        def agent():
            with tracer.start_as_current_span("above"): ours()
        recorded = record(Path("c.yaml"), agent)
        with tracer.start_as_current_span("after the run"): pass
        print(json.dumps([outline(recorded), ear.heard, trace.get_tracer_provider() is mine]))
    """
    tree, heard, stays = in_a_process(script, tmp_path)
    assert tree == ["c.yaml > above", "above > execute_tool ours", "execute_tool ours > below"]
    assert heard == ["below", "above", "after the run"], "nothing of ours reaches the application's processors"
    assert stays


def test_provider_that_the_environment_names(tmp_path: Path) -> None:
    """It is made at the first time of asking, which must not find ours in its place."""
    script = """
        import os
        os.environ["OTEL_PYTHON_TRACER_PROVIDER"] = "sdk_tracer_provider"
        def agent():
            global tracer
            tracer = trace.get_tracer("app")
            with tracer.start_as_current_span("above"): ours()
        recorded = record(Path("c.yaml"), agent)
        from pytest_spanchain import _otel
        print(json.dumps([outline(recorded), _otel._stand_in is None]))
    """
    tree, stood_in_not = in_a_process(script, tmp_path)
    assert tree == ["c.yaml > above", "above > execute_tool ours", "execute_tool ours > below"]
    assert stood_in_not


@pytest.mark.parametrize("made", ["before the run", "in the run"])
def test_provider_that_is_set_in_the_run(made: str, tmp_path: Path) -> None:
    script = f"""
        early = provider_with_an_ear() if {made == "before the run"} else None
        proxied = trace.get_tracer("app.module")  # as at the top of a module: there is no provider yet
        def agent():
            global tracer
            mine = early or provider_with_an_ear()
            trace.set_tracer_provider(mine)
            tracer = trace.get_tracer("app")
            with proxied.start_as_current_span("above"): ours()
            return trace.get_tracer_provider() is mine
        recorded = record(Path("c.yaml"), agent)
        print(json.dumps([outline(recorded), ear.heard, recorded.value]))
    """
    tree, heard, is_set = in_a_process(script, tmp_path)
    assert tree == ["c.yaml > above", "above > execute_tool ours", "execute_tool ours > below"]
    assert heard == ["below", "above"]
    assert is_set


def test_stand_in_gives_way(tmp_path: Path) -> None:
    script = """
        tracer = trace.get_tracer("app")
        first = record(Path("c.yaml"), lambda: ours())
        mine = provider_with_an_ear()
        trace.set_tracer_provider(mine)
        is_set = trace.get_tracer_provider() is mine
        tracer = trace.get_tracer("app")
        second = record(Path("d.yaml"), lambda: ours())
        print(json.dumps([outline(first), is_set, outline(second), ear.heard]))
    """
    first, is_set, second, heard = in_a_process(script, tmp_path)
    assert first == ["c.yaml > execute_tool ours", "execute_tool ours > below"]
    assert is_set
    assert second == ["d.yaml > execute_tool ours", "execute_tool ours > below"]
    assert heard == ["below"]


def test_providers_made_before_the_first_run(tmp_path: Path) -> None:
    """Never global ones too: one that is handed about, one of a class of its own, one whose tracer alone is left."""
    script = """
        class Own(TracerProvider): pass
        kept, own = provider_with_an_ear(), provider_with_an_ear(Own)
        tracers = [kept.get_tracer("a"), own.get_tracer("b"), TracerProvider(shutdown_on_exit=False).get_tracer("c")]
        late = kept.get_tracer("d")
        def agent():
            for number, each in enumerate([*tracers, late, own.get_tracer("e")]):
                with each.start_as_current_span(f"span {number}"): pass
        recorded = record(Path("c.yaml"), agent)
        print(json.dumps([outline(recorded), ear.heard]))
    """
    tree, heard = in_a_process(script, tmp_path)
    assert tree == [f"c.yaml > span {number}" for number in range(5)], "each once"
    assert heard == ["span 0", "span 1", "span 3", "span 4"]


def test_spans_of_several_providers_are_one_tree(path: Path) -> None:
    one, other = tracer_of("one"), tracer_of("other")

    def agent() -> None:
        with one.start_as_current_span("a"), other.start_as_current_span("b"), one.start_as_current_span("c"):
            price("cup")

    tree = record(path, agent).verdict.live
    assert outline(tree) == [
        "root > a",
        "a > b",
        "b > c",
        "c > execute_tool price",
        "execute_tool price > query",
    ]
    assert [span.scope for span in tree] == [OWN_SCOPE, "one", "other", "one", OWN_SCOPE, "shop"]


def test_processors_that_run_in_threads(path: Path) -> None:
    """A provider may call its processors from a pool of its own: not the caller's thread, but the caller's run."""
    threaded = ConcurrentMultiSpanProcessor(2)
    tracer = tracer_of("app", active_span_processor=threaded)

    def agent() -> None:
        with tracer.start_as_current_span("first"), tracer.start_as_current_span("below"):
            pass
        with tracer.start_as_current_span("second"):
            price("cup")

    try:
        tree = record(path, agent).verdict.live
        replay(path, agent)
    finally:
        threaded.shutdown()
    assert outline(tree)[:4] == ["root > first", "first > below", "root > second", "second > execute_tool price"]


# --- parents -----------------------------------------------------------------------------------------------------


async def by_task(work: Callable[[], None]) -> None:
    async def task() -> None:
        work()

    await asyncio.gather(task(), asyncio.create_task(task()))


async def by_to_thread(work: Callable[[], None]) -> None:
    await asyncio.gather(asyncio.to_thread(work), asyncio.to_thread(work))


async def by_thread(work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def by_pool(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:  # one worker, made for the first job, serves both
        for job in [pool.submit(work), pool.submit(work)]:
            job.result()


async def by_nested_loop(work: Callable[[], None]) -> None:
    def loops() -> None:
        asyncio.run(by_task(work))

    await asyncio.to_thread(loops)


@pytest.mark.parametrize("way", [by_task, by_to_thread, by_thread, by_pool, by_nested_loop])
def test_parents_across_threads_and_tasks(
    way: Callable[[Callable[[], None]], Awaitable[None]], tracer: Tracer, path: Path
) -> None:
    def work() -> None:
        with tracer.start_as_current_span("work"):
            price("cup")

    async def agent() -> None:
        for name in ("one", "two"):
            with tracer.start_as_current_span(name):
                await way(work)

    tree = record(path, agent).verdict.live
    chain = ["work > execute_tool price", "execute_tool price > query"]
    assert outline(tree) == [
        *("root > one", "one > work", *chain, "one > work", *chain),
        *("root > two", "two > work", *chain, "two > work", *chain),
    ]
    replay(path, agent)


def test_thread_that_the_pool_made_for_another_span(tracer: Tracer, path: Path) -> None:
    """A worker outlives the job it was made for: the next job brings the parent of who submits it."""

    def work() -> None:
        with tracer.start_as_current_span("work"):
            pass

    def agent() -> None:
        with ThreadPoolExecutor(1) as pool:
            for name in ("one", "two"):
                with tracer.start_as_current_span(name):
                    job = pool.submit(work)
                job.result()

    assert outline(record(path, agent).verdict.live) == ["root > one", "one > work", "root > two", "two > work"]


def test_span_that_begins_a_trace_of_its_own_hangs_below_the_root(tracer: Tracer, path: Path) -> None:
    def agent() -> None:
        with (
            tracer.start_as_current_span("above"),
            tracer.start_as_current_span("alone", context=otel_context.Context()),
            tracer.start_as_current_span("below"),
        ):
            price("cup")

    assert outline(record(path, agent).verdict.live)[:4] == [
        "root > above",
        "root > alone",
        "alone > below",
        "below > execute_tool price",
    ]


def test_span_not_made_current_has_the_parent_that_it_was_given(tracer: Tracer, path: Path) -> None:
    def agent() -> None:
        above = tracer.start_span("above")
        tracer.start_span("below", context=trace.set_span_in_context(above)).end()
        tracer.start_span("beside").end()
        above.end()

    assert outline(record(path, agent).verdict.live) == ["root > above", "above > below", "root > beside"]


def test_spans_that_nobody_samples_are_left_out_and_break_no_parents(path: Path) -> None:
    """A dropped span has an id that no processor hears of; what is below it belongs to the nearest that is known."""
    deaf, tracer = tracer_of("deaf", sampler=ALWAYS_OFF), tracer_of("app", sampler=ALWAYS_ON)

    @pytest_spanchain.tool
    def outer() -> float:
        with deaf.start_as_current_span("dropped"), deaf.start_as_current_span("dropped too"):
            with tracer.start_as_current_span("heard"):
                pass
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(price, "cup").result()

    def agent() -> float:
        with deaf.start_as_current_span("dropped first"):
            return outer()

    recorded = record(path, agent)
    assert outline(recorded.verdict.live) == [
        "root > execute_tool outer",
        "execute_tool outer > heard",
        "execute_tool outer > execute_tool price",
        "execute_tool price > query",
    ]
    assert replay(path, agent).value == recorded.value


def test_unsampled_global_provider_keeps_ours_together(tmp_path: Path) -> None:
    script = """
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
        trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
        tracer = trace.get_tracer("app")
        @pytest_spanchain.tool
        def inner(): pass
        @pytest_spanchain.tool
        def outer():
            with tracer.start_as_current_span("dropped"): inner()
        recorded = record(Path("c.yaml"), outer)
        replay(Path("c.yaml"), outer)
        print(json.dumps(outline(recorded)))
    """
    assert in_a_process(script, tmp_path) == ["c.yaml > execute_tool outer", "execute_tool outer > execute_tool inner"]


def test_spans_of_plugins_that_trace_tests_are_spliced_out(tracer: Tracer, path: Path) -> None:
    other = tracer_of("pytest-opentelemetry")

    def agent() -> None:
        with other.start_as_current_span("the test"), tracer.start_as_current_span("work"):
            price("cup")

    recorded = record(path, agent)
    assert outline(recorded.verdict.live)[:2] == ["root > work", "work > execute_tool price"]
    assert "pytest-opentelemetry" not in path.read_text(encoding="utf-8")


# --- what spans say ----------------------------------------------------------------------------------------------


def eloquent(tracer: Tracer) -> None:
    """One span with everything that a span can say."""
    with tracer.start_as_current_span(
        "first name",
        kind=SpanKind.PRODUCER,
        attributes={"given": "at the start", "changed": 1},
        links=[Link(tracer.start_span("linked").get_span_context())],
    ) as span:
        span.update_name("last name")
        span.set_attributes({"changed": 2, "flag": True, "share": 0.25, "texts": ("a", "b"), "numbers": [1, 2]})
        span.add_event("looked", {"found": 3})
        span.set_attribute("thread.id", threading.get_ident() + random.randrange(10**6))
        span.set_attribute("code.line.number", random.randrange(10**6))
        span.set_attribute("server.address", "localhost")
        span.set_attribute("server.port", random.randrange(10**4))
        span.set_status(Status(StatusCode.ERROR, "half done"))


def failing(tracer: Tracer) -> None:
    with tracer.start_as_current_span("fails"):
        raise ValueError("no such order")


def test_what_a_span_says_is_recorded(tracer: Tracer, path: Path) -> None:
    recorded = record(path, lambda: eloquent(tracer))
    span = named(recorded.verdict.live, "last name")
    assert span.span_kind == "producer"
    assert span.attributes == {
        "given": "at the start",
        "changed": 2,
        "flag": True,
        "share": 0.25,
        "texts": ["a", "b"],
        "numbers": [1, 2],
        "server.address": "localhost",
    }, "without what differs from machine to machine and run to run"
    (event,) = span.events
    assert (event["name"], event["attributes"]) == ("looked", {"found": 3})
    assert 0 <= event["offset_ns"] <= span.duration_ns
    assert (span.status, span.status_message) == ("error", "half done")
    replayed = replay(path, lambda: eloquent(tracer))
    assert replayed.verdict.golden is not None
    assert named(replayed.verdict.golden, "last name").attributes == span.attributes


def test_exception_is_an_event_without_its_stack(tracer: Tracer, path: Path) -> None:
    recorded = record(path, lambda: contained(lambda: failing(tracer)))
    span = named(recorded.verdict.live, "fails")
    assert (span.status, span.status_message) == ("error", "ValueError: no such order")
    (event,) = span.events
    assert event["name"] == "exception"
    assert event["attributes"]["exception.type"] == "ValueError"
    assert event["attributes"]["exception.message"] == "no such order"
    assert "exception.stacktrace" not in event["attributes"]
    replay(path, lambda: contained(lambda: failing(tracer)))


def contained(agent: Callable[[], None]) -> str:
    try:
        agent()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"attributes": {"tries": 2}}, "attribute_changed"),
        ({"status": StatusCode.ERROR}, "status_changed"),
        ({"name": "pay back"}, "span_"),
        ({"event": "retried"}, "attribute_changed"),
    ],
)
def test_span_that_says_something_else_fails_the_replay(
    change: dict[str, Any], kind: str, tracer: Tracer, path: Path
) -> None:
    def agent() -> None:
        with tracer.start_as_current_span(said["name"], attributes=said["attributes"]) as span:
            span.add_event(said["event"])
            span.set_status(said["status"])

    said: dict[str, Any] = {"name": "pay", "attributes": {"tries": 1}, "event": "tried", "status": StatusCode.UNSET}
    record(path, agent)
    replay(path, agent)
    said.update(change)
    with pytest.raises(pytest_spanchain.DeviationError, match=kind):
        replay(path, agent)


def test_span_may_end_in_another_thread(tracer: Tracer, path: Path) -> None:
    def agent() -> None:
        span = tracer.start_span("handed over")

        def finish() -> None:
            span.set_attribute("by", "another")
            span.end()

        threading.Thread(target=finish).run()
        later = tracer.start_span("ended in a thread")
        thread = threading.Thread(target=later.end)
        thread.start()
        thread.join()
        with tracer.start_as_current_span("next"):
            pass

    tree = record(path, agent).verdict.live
    assert outline(tree) == ["root > handed over", "root > ended in a thread", "root > next"]
    assert named(tree, "handed over").attributes == {"by": "another"}
    assert not [span for span in tree if "spanchain.unfinished" in span.attributes]


def test_every_end_is_heard_whatever_else_starts_meanwhile() -> None:
    captures = [[Capture(name="run") for _ in range(100)] for _ in range(8)]
    mine = threading.local()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(_otel._make_processor(lambda: mine.capture))
    tracer = provider.get_tracer("app")

    def work(own: list[Capture]) -> None:
        for mine.capture in own:
            with (
                tracer.start_as_current_span("outer", context=otel_context.Context()),
                tracer.start_as_current_span("inner"),
            ):
                pass

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(captures)) as pool:
            list(pool.map(work, captures))
    finally:
        sys.setswitchinterval(before)
    trees = [capture.tree("run") for own in captures for capture in own]
    assert {len(tree) for tree in trees} == {3}
    assert not [span for tree in trees for span in tree if "spanchain.unfinished" in span.attributes]


def test_unfinished_span_says_so_and_what_it_was_started_with(tracer: Tracer, path: Path) -> None:
    open_spans: list[trace.Span] = []

    def agent() -> None:
        open_spans.append(tracer.start_span("never ends", attributes={"queue": "orders"}))
        with trace.use_span(open_spans[-1]):
            price("cup")
        open_spans[-1].set_attribute("length", 3)

    tree = record(path, agent).verdict.live
    assert outline(tree)[:2] == ["root > never ends", "never ends > execute_tool price"]
    assert named(tree, "never ends").attributes == {"queue": "orders", "spanchain.unfinished": True}
    open_spans.pop().end()
    replay(path, agent)
    open_spans.pop().end()

    def ends() -> None:
        agent()
        open_spans.pop().end()

    with pytest.raises(pytest_spanchain.DeviationError, match=r"spanchain\.unfinished"):
        replay(path, ends)


def test_span_from_before_the_run_is_not_part_of_it(tracer: Tracer, path: Path) -> None:
    early: list[trace.Span] = []

    def agent() -> None:
        with trace.use_span(early[-1], end_on_exit=True), tracer.start_as_current_span("work"):
            price("cup")

    early.append(tracer.start_span("early"))
    tree = record(path, agent).verdict.live
    assert outline(tree)[:2] == ["root > work", "work > execute_tool price"]
    early.append(tracer.start_span("early"))
    replay(path, agent)


def test_unfinished_spans_do_not_keep_their_run_in_memory(tracer: Tracer, path: Path) -> None:
    kept: list[Any] = []

    def agent() -> weakref.ref[Any]:
        kept.append(tracer.start_span("never ends"))
        run = _run.current_run()
        assert run is not None
        return weakref.ref(run.capture)

    capture = record(path, agent).value
    gc.collect()
    assert capture() is None
    kept.pop().end()


def test_scope_of_one_run_only_is_left_out_and_said_once(tracer: Tracer, path: Path) -> None:
    """An instrumentation was installed or removed: that is not the agent's doing."""
    added = tracer_of("instrumentation.added")

    def agent() -> None:
        with tracer.start_as_current_span("work"):
            if instrumented:
                for _ in range(3):
                    with added.start_as_current_span("noise"):
                        price("cup")
            else:
                for _ in range(3):
                    price("cup")

    def check(outcome: Outcome) -> None:
        (note,) = [note for note in outcome.verdict.notes if "left out" in note]
        assert note.endswith(": instrumentation.added")
        assert outcome.verdict.golden is not None
        for tree in (outcome.verdict.golden, outcome.verdict.live):
            assert "noise" not in {span.name for span in tree}
            assert outline(tree).count("work > execute_tool price") == 3

    instrumented = False
    record(path, agent)
    instrumented = True
    check(replay(path, agent))
    record(path, agent)
    assert replay(path, agent).verdict.notes == ()
    instrumented = False
    check(replay(path, agent))


def test_two_spans_without_a_scope_name_are_spans_like_any(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, logger="opentelemetry"):  # the SDK complains about the name
        nameless = tracer_of("")

    def agent() -> None:
        with nameless.start_as_current_span("a"), nameless.start_as_current_span("b"):
            pass

    assert outline(record(path, agent).verdict.live) == ["root > a", "a > b"]
    replay(path, agent)


# --- ids ---------------------------------------------------------------------------------------------------------


def test_ids_come_from_the_name_and_the_place_not_from_the_run(tracer: Tracer, tmp_path: Path) -> None:
    def agent() -> None:
        for _ in range(2):
            with tracer.start_as_current_span("work"):
                price("cup")

    def ids(file: str, name: str) -> tuple[list[str], set[str]]:
        path = tmp_path / file
        record(path, agent, name=name)
        text = path.read_text(encoding="utf-8")
        traces = {line for line in text.splitlines() if "trace_id" in line}
        return [span.span_id for span in _store.load(path, nodeid=name).tree], traces

    first, trace_of_first = ids("a.yaml", "one")
    again, trace_again = ids("a.yaml", "one")
    elsewhere, trace_elsewhere = ids("b.yaml", "one")
    other, trace_of_other = ids("c.yaml", "other")
    assert first == again == elsewhere
    assert trace_of_first == trace_again == trace_elsewhere
    assert len(set(first)) == len(first) == 7
    assert not set(first) & set(other)
    assert trace_of_first != trace_of_other


# --- GenAI -------------------------------------------------------------------------------------------------------


def chat(*, stream: bool) -> None:
    with openai.OpenAI() as client:
        if stream:
            chunks = client.chat.completions.create(
                model="gpt-test",
                messages=[{"role": "user", "content": "hi"}],
                temperature=0.5,
                stream=True,
                stream_options={"include_usage": True},
            )
            with chunks:
                list(chunks)
        else:
            client.chat.completions.create(
                model="gpt-test", messages=[{"role": "user", "content": "hi"}], temperature=0.5
            )


def responses(*, stream: bool) -> None:
    with openai.OpenAI() as client:
        if stream:
            with client.responses.create(model="gpt-test", input="hi", temperature=0.5, stream=True) as events:
                list(events)
        else:
            client.responses.create(model="gpt-test", input="hi", temperature=0.5)


def messages(*, stream: bool) -> None:
    with anthropic.Anthropic() as client:
        if stream:
            with client.messages.stream(
                model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
            ) as events:
                events.get_final_message()
        else:
            client.messages.create(model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "hi"}])


def embeddings(*, stream: bool) -> None:
    assert not stream
    with openai.OpenAI() as client:
        client.embeddings.create(model="embed-test", input=["a", "b"], dimensions=2)


ANSWERED = {
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
}


@pytest.mark.parametrize(
    ("call", "stream", "name", "asked", "answered"),
    [
        *((chat, stream, "chat gpt-test", {"gen_ai.provider.name": "openai"}, ANSWERED) for stream in (False, True)),
        *(
            (responses, stream, "chat gpt-test", {"gen_ai.provider.name": "openai"}, ANSWERED)
            for stream in (False, True)
        ),
        *(
            (
                messages,
                stream,
                "chat claude-test",
                {"gen_ai.provider.name": "anthropic", "gen_ai.request.max_tokens": 9},
                ANSWERED,
            )
            for stream in (False, True)
        ),
        (
            embeddings,
            False,
            "embeddings embed-test",
            {"gen_ai.provider.name": "openai", "gen_ai.embeddings.dimension.count": 2},
            {"gen_ai.response.model", "gen_ai.usage.input_tokens"},
        ),
    ],
)
def test_model_calls_speak_the_genai_conventions(
    call: Callable[..., None],
    stream: bool,
    name: str,
    asked: dict[str, Any],
    answered: set[str],
    sdk_env: ModelServer,
    path: Path,
) -> None:
    sdk_env.script(lambda request: answer(request, "hello there"))
    recorded = record(path, lambda: call(stream=stream))
    (span,) = [span for span in recorded.verdict.live if span.scope == OWN_SCOPE and span.exchange]
    operation, _, model = name.partition(" ")
    expected = {"gen_ai.operation.name": operation, "gen_ai.request.model": model, **asked}
    if call in (chat, responses):
        expected["gen_ai.request.temperature"] = 0.5
    assert (span.name, span.span_kind) == (name, "client")
    assert expected.items() <= span.attributes.items()
    assert answered <= set(span.attributes)
    assert span.attributes.get("gen_ai.request.stream", False) is stream
    assert span.attributes["gen_ai.response.model"] == model
    sdk_env.close()
    replayed = replay(path, lambda: call(stream=stream))
    (live,) = [span for span in replayed.verdict.live if span.scope == OWN_SCOPE and span.exchange]
    assert live.attributes == span.attributes, "the same, made of the recorded answer"


@pytest.mark.parametrize("stream", [False, True])
def test_the_sdks_own_span_is_between_the_caller_and_our_call(
    stream: bool, tracer: Tracer, sdk_env: ModelServer, path: Path
) -> None:
    sdk_env.script(lambda request: answer(request, "hello there"))

    def agent() -> None:
        with tracer.start_as_current_span("agent"):
            messages(stream=stream)

    tree = record(path, agent).verdict.live
    own = named(tree, "anthropic.messages.create")
    assert own.scope == "com.anthropic.sdk.python"
    assert outline(tree) == [
        "root > agent",
        "agent > anthropic.messages.create",
        "anthropic.messages.create > chat claude-test",
    ]
    sdk_env.close()
    replay(path, agent)


def test_span_of_a_library_below_our_http_call(tracer: Tracer, server: ModelServer, path: Path) -> None:
    """What the client starts while our call is open is the call's child; in replay its recorded children stand."""
    server.script(lambda request: answer(request, "ok"))

    class Instrumented(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            with tracer.start_as_current_span("transport"):
                return super().handle_request(request)

    def agent() -> int:
        with httpx2.Client(transport=Instrumented(verify=False)) as client:
            return int(client.post(f"{server.url}/v1/embeddings", json={"model": "m", "input": "x"}).status_code)

    tree = record(path, agent).verdict.live
    assert "transport" in {span.name for span in tree}
    server.close()
    assert replay(path, agent).value == 200


def test_what_no_file_can_hold_does_not_cost_the_recording(tracer: Tracer, path: Path) -> None:
    def agent() -> None:
        with tracer.start_as_current_span("half \ud83d", attributes={"score": float("nan"), "text": "\udc00"}) as span:
            span.add_event("half \udfff", {"values": [1.0, float("inf")]})

    tree = record(path, agent).verdict.live
    (span,) = (span for span in tree if span.parent_span_id)
    assert (span.name, dict(span.attributes)) == ("half \\ud83d", {"score": "nan", "text": "\\udc00"})
    assert [(event["name"], event["attributes"]) for event in span.events] == [
        ("half \\udfff", {"values": [1.0, "inf"]})
    ]
    replay(path, agent)


# --- the benchmark -----------------------------------------------------------------------------------------------


def test_benchmark_of_spans_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.spans", "--agents=20", "--spans=3", "--rounds=2"]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "20 agents x 3 spans, median of 2 rounds" in done.stdout
    assert done.stdout.count("spans/s") == 4
    assert list(tmp_path.iterdir()) == []
