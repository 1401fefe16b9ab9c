"""What a child tells of itself by OTLP over HTTP, in the golden trace beside what it asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from children import ASK, breaks, echo, holds, node, notes, python, run

from project import Project
from proof import Proof, Stack
from pytest_spanchain._model import SpanTree
from pytest_spanchain.gateway import Gateway
from recording import run_in

pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

STACK = Stack(
    name="gateway, OTLP",
    dists=("opentelemetry-proto", "protobuf"),
    records="spans that a child process exports by OTLP/HTTP (protobuf and JSON), with what it asked of models below"
    " them (Node.js' OpenTelemetry SDK is the test)",
    limits=(
        "OTLP over gRPC is not received: `gateway.env` asks for HTTP, which an exporter made for gRPC ignores.",
        "A child's SDK that does not read `TRACEPARENT` tells of spans that hang below the gateway's own place.",
        "Equal requests of parallel branches of one child are answered in recorded order, as its spans come later.",
    ),
)

NODE = """
import OpenAI from 'openai';
import {trace, propagation, context, SpanStatusCode} from '@opentelemetry/api';
import {W3CTraceContextPropagator} from '@opentelemetry/core';
import {BasicTracerProvider, BatchSpanProcessor} from '@opentelemetry/sdk-trace-base';
import {OTLPTraceExporter} from '@opentelemetry/exporter-trace-otlp-http';

const provider = new BasicTracerProvider({spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())]});
propagation.setGlobalPropagator(new W3CTraceContextPropagator());
const tracer = provider.getTracer('shop-agent');
const parent = propagation.extract(context.active(), {traceparent: process.env.TRACEPARENT});
const agent = tracer.startSpan('invoke_agent', {attributes: {team: 'returns', tries: 2, ratio: 0.5}}, parent);
const inAgent = trace.setSpan(parent, agent);
for (const name of ['plan', 'act']) {
  const step = tracer.startSpan(name, {kind: 2}, inAgent);
  const headers = {};
  propagation.inject(trace.setSpan(inAgent, step), headers);
  const said = await new OpenAI().chat.completions.create(
    {model: 'gpt', messages: [{role: 'user', content: name}]}, {headers});
  step.addEvent('said', {text: said.choices[0].message.content});
  step.setStatus({code: SpanStatusCode.ERROR, message: 'tired'});
  step.end();
}
agent.end();
await provider.forceFlush();
console.log('done');
"""

TELL = """
_, TRACE, PARENT, _ = os.environ["TRACEPARENT"].split("-")
TRACES = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"

def span(number, name, parent=None, at=1, **more):
    return {"traceId": TRACE, "spanId": f"{number:016x}", "parentSpanId": PARENT if parent is None else parent and
        f"{parent:016x}", "name": name, "kind": 1, "startTimeUnixNano": str(10**18 + at * 1000),
        "endTimeUnixNano": str(10**18 + at * 1000 + 500), **more}

def tell(*spans, scope="py", **headers):
    body = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": scope}, "spans": list(spans)}]}]}
    return ask(TRACES, body, **headers)
"""


def shape(tree: SpanTree | None) -> list[str]:
    """Names, indented."""
    assert tree is not None
    depth: dict[str | None, int] = {None: -1}
    for span in tree:
        depth[span.span_id] = depth[span.parent_span_id] + 1
    return [f"{'  ' * (depth[span.span_id] - 1)}{span.name}" for span in tree][1:]


def test_a_node_agent_with_opentelemetry(proof: Proof, tmp_path: Path) -> None:
    proof.server.script(echo)
    recorded = holds(proof, node(NODE, tmp_path), replays=2)
    assert shape(recorded.verdict.live) == ["invoke_agent", "  plan", "    chat gpt", "  act", "    chat gpt"]
    _, agent, plan, *_ = tuple(recorded.verdict.live or SpanTree())
    assert (agent.scope, dict(agent.attributes)) == ("shop-agent", {"team": "returns", "tries": 2, "ratio": 0.5})
    assert (plan.span_kind, plan.status, plan.status_message) == ("client", "error", "tired")
    (event,) = plan.events
    assert (event["name"], event["attributes"]) == ("said", {"text": "You said plan."})
    changed = breaks(proof, node(NODE.replace("returns", "refunds"), tmp_path))
    assert [cause.kind for cause in changed.causes] == ["attribute_changed"]


def test_children_first_and_in_pieces(proof: Proof) -> None:
    source = TELL + """
print(tell(span(3, "inner", 2, at=3), span(4, "second", 1, at=5)))
print(said(chat("one", headers={"traceparent": f"00-{TRACE}-{3:016x}-01"})))
print(tell(span(1, "outer", at=1), span(3, "inner", 2, at=3)))
print(tell(span(2, "first", 1, at=2), scope="other"))
"""  # fmt: skip
    proof.server.script(echo)
    recorded = holds(proof, python(source), replays=1)
    assert shape(recorded.verdict.live) == ["outer", "  first", "    inner", "      chat gpt", "  second"]
    assert [cause.kind for cause in breaks(proof, python(source.replace("inner", "outmost"))).causes]
    assert breaks(proof, python(source.replace("first", "zeroth"))).causes


def test_protobuf_in_gzip(proof: Proof) -> None:
    source = (
        TELL
        + """
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
request = ExportTraceServiceRequest()
scope = request.resource_spans.add().scope_spans.add()
scope.scope.name = "pb"
told = scope.spans.add(trace_id=bytes.fromhex(TRACE), span_id=b"12345678", parent_span_id=bytes.fromhex(PARENT),
    name="packed", kind=5, start_time_unix_nano=10**18, end_time_unix_nano=10**18 + 7)
told.status.code = 1
for name, value in (("b", {"bytes_value": b"x"}), ("n", {"double_value": float("nan")}), ("i", {"int_value": 2**60})):
    pair = told.attributes.add(key=name)
    [setattr(pair.value, key, one) for key, one in value.items()]
told.attributes.add(key="l").value.array_value.values.add().string_value = "one"
told.attributes.add(key="m").value.kvlist_value.values.add(key="k").value.bool_value = True
body = gzip.compress(request.SerializeToString())
print(ask(TRACES, body, content_type="application/x-protobuf", content_encoding="gzip"))
print(said(chat("one")))
"""
    )
    proof.server.script(echo)
    recorded = holds(proof, python(source), replays=1)
    assert shape(recorded.verdict.live) == ["packed", "chat gpt"]
    packed = (recorded.verdict.live or SpanTree()).spans[1]
    assert (packed.span_kind, packed.status, packed.duration_ns, packed.scope) == ("consumer", "ok", 7, "pb")
    assert dict(packed.attributes) == {"b": "eA==", "n": "nan", "i": 2**60, "l": ["one"], "m": '{"k": true}'}


@pytest.mark.parametrize(
    "send",
    [
        "ask(TRACES, b'no', content_type='application/x-protobuf')",
        "ask(TRACES, b'no', content_type='application/json')",
        "ask(TRACES, {'resourceSpans': 7})",
        "ask(TRACES, {}, content_type='text/plain')",
        "ask(TRACES, b'no', content_encoding='gzip')",
        "tell({**span(1, 'x'), 'spanId': 'xyz'})",
        "tell({**span(1, 'x'), 'spanId': ''})",
        "tell({**span(1, 'x'), 'parentSpanId': 'abcd'})",
    ],
)
def test_bad_payloads_are_told_and_the_run_goes_on(send: str, proof: Proof) -> None:
    proof.server.script(echo)
    outcome = run(proof.cassette, python(f"{TELL}\nprint({send}[0], said(chat('one')))"), mode="rewrite")
    assert outcome.failure is None
    assert outcome.value == "400 You said one.\n"
    (note,) = notes(outcome)
    assert note.startswith("what a child sent to /v1/traces of the gateway was not taken in: ")


def test_odd_families_hang_together(proof: Proof) -> None:
    """Strangers, orphans, circles and a span that claims the id of another one's."""
    source = (
        TELL
        + """
tell(span(1, "root", ""), span(2, "orphan", 99), span(3, "one", 4), span(4, "other", 3), span(5, "self", 5))
tell({**span(6, "thief"), "spanId": PARENT})
for name in ("metrics", "logs"):
    print(ask(TRACES.replace("traces", name), {}))
print(said(chat("one", headers={"traceparent": "garbage"})))
"""
    )
    proof.server.script(echo)
    outcome = run(proof.cassette, python(source), mode="rewrite")
    assert outcome.failure is None
    assert sorted(line.strip() for line in shape(outcome.verdict.live)) == sorted(
        ["root", "orphan", "one", "other", "self", "chat gpt"]
    )
    assert notes(outcome) == [
        "span 'thief' that a child told of has the id of another one: it is left out",
    ]


def test_it_hangs_below_the_span_in_which_the_gateway_was_opened(proof: Proof) -> None:
    from opentelemetry import trace

    proof.server.script(echo)
    source = (
        TELL + "print(tell(span(1, 'told')), said(chat('one', headers={'traceparent': os.environ['TRACEPARENT']})))"
    )

    def work(cassette: Any) -> str:
        with trace.get_tracer("mine").start_as_current_span("shell"):
            opened: Gateway
            with cassette.gateway() as opened:
                return str(python(source)(opened))

    outcome = run_in(proof.cassette, work, mode="rewrite")
    assert outcome.failure is None
    assert shape(outcome.verdict.live) == ["shell", "  told", "  chat gpt"]
    assert run_in(proof.cassette, work).failure is None


def test_a_secret_in_a_span_is_redacted(proof: Proof) -> None:
    attributes = "[{'key': 'password', 'value': {'stringValue': 'correct-horse-battery-7'}}]"
    source = f"{TELL}\nprint(tell(span(1, 'x', attributes={attributes})), said(chat('one')))"
    proof.server.script(echo)
    holds(proof, python(source), replays=1)
    assert "correct-horse" not in proof.cassette.read_text()


def test_a_gateway_that_a_fixture_closes_after_the_verdict(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TELL + "tell(span(3, 'inner', 2), span(2, 'outer')); print(said(chat('one')))"
    monkeypatch.setenv("CHILD", ASK + source)
    project.write(
        "import os, subprocess, sys\n\n\n@pytest.fixture\ndef gateway(spanchain):\n"
        "    with spanchain.gateway() as opened:\n        yield opened\n\n\n"
        "@pytest.mark.cassette\ndef test_it(gateway):\n"
        "    done = subprocess.run([sys.executable, '-c', os.environ['CHILD']], env=gateway.env, capture_output=True)\n"
        "    assert done.stdout == b'You said: one\\n'\n"
    )
    project.record()
    (cassette,) = project.cassettes()
    assert "outer" in cassette.read_text()
    project.server.close()
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}
    monkeypatch.setenv("CHILD", ASK + source.replace("'inner'", "'other'"))
    assert project.run().outcomes == {"failed": 1}
