"""What a tired user reads: each thing once, nothing that nobody chose, and advice that fits the cause."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from model_replies import answer, tool_results
from project import Project
from pytest_spanchain.cli import CLEAN, FAILS, main
from servers import Json, Reply, Request, sse

AGENT = """
import json, os, uuid
import httpx2

PROMPT = "Be friendly."

def weather(city, order_id=""):
    return {"city": city, "sky": "sunny"}

def mail(text):
    return "sent: " + text

OFFERED = [weather, mail]

def offered():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return [{"type": "function", "function": {"name": f.__name__, "parameters": schema}} for f in OFFERED]

def post(body):
    with httpx2.Client(verify=False, trust_env=False) as client:
        return client.post(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json={"model": "gpt-test", **body})

def run(answered=lambda call: call["id"], call=lambda name, arguments: globals()[name](**arguments)):
    messages = [
        {"role": "system", "content": PROMPT},
        {"role": "user", "content": f"Mail the weather in Lisbon (ticket {uuid.uuid4()})"},
    ]
    while True:
        message = post({"messages": messages, "tools": offered()}).json()["choices"][0]["message"]
        if not message.get("tool_calls"):
            return message["content"]
        messages.append(message)
        for asked in message["tool_calls"]:
            result = call(asked["function"]["name"], json.loads(asked["function"]["arguments"]))
            messages.append({"role": "tool", "tool_call_id": answered(asked), "content": json.dumps(result)})

def stream(prompt):
    text = post({"messages": [{"role": "user", "content": prompt}], "stream": True}).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)
"""
TEST = """
import agent

@pytest.mark.cassette
def test_it():
    assert "sent" in agent.run()
"""
PROMPTS = ["  request.body.json.messages[0].content", '  - "Be friendly."', '  + "Be grumpy."']


def assistant(request: Request, *, order: str = "1412") -> Reply:
    """A model that asks for both tools, one after the other, and draws ids and times as real ones do."""
    done = len(tool_results(request))
    if done == 2:
        message: dict[str, Any] = {"role": "assistant", "content": f"sent {tool_results(request)[1]}"}
    else:
        ticket = request.body["messages"][1]["content"].rpartition("ticket ")[2].rstrip(")")
        asked = [("weather", {"city": "Lisbon", "order_id": order}), ("mail", {"text": f"sun ({ticket})"})][done]
        function = {"name": asked[0], "arguments": json.dumps(asked[1])}
        call = {"id": f"call_{secrets.token_hex(10)}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return Json(
        {
            "id": f"chatcmpl-{secrets.token_hex(16)}",
            "object": "chat.completion",
            "created": time.time_ns(),
            "model": "gpt-test",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
    )


@pytest.fixture
def shop(project: Project) -> Project:
    """A project with an agent that uses two tools."""
    project.server.script(assistant)
    project.write(AGENT, "agent.py")
    project.write(TEST)
    return project


def change(project: Project, old: str, new: str, *, name: str = "agent.py") -> None:
    text = (project.path / name).read_text(encoding="utf-8")
    assert old in text
    (project.path / name).write_text(text.replace(old, new), encoding="utf-8")


def lines_of(out: str) -> list[str]:
    return out.splitlines()


# --- re-recordings ----------------------------------------------------------------------------------------------------


def test_a_rewrite_is_silent_about_what_nobody_chose(shop: Project) -> None:
    shop.record()
    result = shop.run("--record-mode=rewrite")
    assert result.counts["recorded"] == 1
    assert "deviation" not in result.out
    assert "call_" not in result.out
    assert "spanchain: not compared, supplied by the runs' own contexts: 7 uuid" in lines_of(result.out)
    assert "spanchain: not compared, given anew with each answer: 5 id, 3 time" in lines_of(result.out)
    everything = shop.run("--record-mode=rewrite", "-vv").out
    assert "id: test_it.py::test_it: chat gpt-test: response.body.json.choices[0].message.tool_calls[0].id: call_" in (
        everything
    )
    assert shop.run().counts["replayed"] == 1


def test_a_rewrite_tells_what_the_author_changed_and_nothing_else(shop: Project) -> None:
    shop.record()
    change(shop, "Be friendly.", "Be grumpy.")
    out = lines_of(shop.run("--record-mode=rewrite").out)
    assert "spanchain: recorded again: 1 deviation from the golden trace: input_changed at chat gpt-test" in out
    at = out.index(PROMPTS[0])
    assert out[at : at + 4] == [*PROMPTS, out[at + 3]]
    assert out[at + 3].startswith("  cassette:")
    assert not [line for line in out if line.startswith(("  - ", "  + ")) and line not in PROMPTS]
    marks = [line for line in out if line.startswith("~ ")]
    assert all("output_changed" not in line and "attribute_changed" not in line for line in marks)


def test_a_rewrite_with_another_model_pairs_the_calls_all_the_same(shop: Project) -> None:
    shop.record()
    change(shop, '"gpt-test"', '"gpt-next"')
    out = lines_of(shop.run("--record-mode=rewrite", "-vv").out)
    told = [line for line in out if line.startswith(("  - ", "  + "))]
    assert told == ['  - "gpt-test"', '  + "gpt-next"'] * (len(told) // 2)
    assert "spanchain: not compared, given anew with each answer: 5 id, 3 time" in out


def test_an_id_of_another_answer_is_a_change(shop: Project) -> None:
    shop.record()
    change(
        shop,
        "def run(",
        "GIVEN = []\n\ndef first(call):\n    GIVEN.append(call['id'])\n    return GIVEN[0]\n\ndef run(",
    )
    change(shop, "agent.run()", "agent.run(agent.first)", name="test_it.py")
    out = shop.run("--record-mode=rewrite").out
    assert "  request.body.json.messages[5].tool_call_id" in lines_of(out)


def test_what_the_model_says_itself_is_compared(shop: Project) -> None:
    shop.record()
    shop.server.script(lambda request: assistant(request, order="1413"))
    out = shop.run("--record-mode=rewrite").out
    assert "output_changed at chat gpt-test" in out
    assert "  response.body.json.choices[0].message.tool_calls[0].function.arguments" in lines_of(out)


def streaming(text: str, *, size: int) -> Callable[[Request], Reply]:
    def script(request: Request) -> Reply:
        frame = {
            "id": f"chatcmpl-{secrets.token_hex(16)}",
            "object": "chat.completion.chunk",
            "created": time.time_ns(),
        }
        parts = [text[at : at + size] for at in range(0, len(text), size)]
        deltas: list[Mapping[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": one} for one in parts)]
        chunks = [{**frame, "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        return sse(*(f"data: {json.dumps(chunk)}" for chunk in chunks), "data: [DONE]")

    return script


def test_how_a_stream_was_cut_is_nobodys_choice(shop: Project) -> None:
    shop.write("import agent\n\n@pytest.mark.cassette\ndef test_it():\n    agent.stream('hello')\n")
    shop.server.script(streaming("hello to you, too", size=4))
    shop.record()
    shop.server.script(streaming("hello to you, too", size=7))
    same = shop.run("--record-mode=rewrite").out
    assert "deviation" not in same
    assert "spanchain: not compared, given anew with each answer: 1 id, 1 time, 1 stream" in lines_of(same)
    shop.server.script(streaming("hello to everybody", size=3))
    other = lines_of(shop.run("--record-mode=rewrite", "-vv").out)
    assert "  response.body.message.choices[0].message.content" in other
    assert not [line for line in other if line.startswith("  response.body.text")]


# --- spanchain diff ---------------------------------------------------------------------------------------------------


def recordings(shop: Project, *, changed: bool = False) -> list[str]:
    """Two cassettes of the same test."""
    found = []
    for name in ("a", "b"):
        if changed and name == "b":
            change(shop, "Be friendly.", "Be grumpy.")
        shop.ini(f"spanchain_directory = {name}")
        shop.record()
        (path,) = (shop.path / name).rglob("*.yaml")
        found.append(path.relative_to(shop.path).as_posix())
    return found


def test_diff_sets_aside_what_nobody_chose(shop: Project, capsys: pytest.CaptureFixture[str]) -> None:
    paths = recordings(shop)
    capsys.readouterr()
    assert main(["diff", *paths]) == CLEAN
    assert lines_of(capsys.readouterr().out) == [
        "no deviations",
        "note: not compared, supplied by the runs' own contexts: 7 uuid",
        "note: not compared, given anew with each answer: 5 id, 3 time",
    ]
    assert main(["diff", "-vv", *paths]) == CLEAN
    assert "  id: chat gpt-test: response.body.json.id: chatcmpl-" in capsys.readouterr().out


def test_diff_tells_what_the_author_changed(shop: Project, capsys: pytest.CaptureFixture[str]) -> None:
    paths = recordings(shop, changed=True)
    capsys.readouterr()
    assert main(["diff", *paths]) == FAILS
    out = lines_of(capsys.readouterr().out)
    at = out.index(PROMPTS[0])
    assert out[at : at + 3] == PROMPTS
    assert not [line for line in out if line.startswith(("  - ", "  + ")) and line not in PROMPTS]
    assert main(["diff", "-vv", *paths]) == FAILS
    everything = capsys.readouterr().out
    assert everything.count("Be grumpy.") == 1
    assert "look closer" not in everything


def test_diff_of_two_tests_with_the_same_agent(shop: Project, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write(TEST + TEST.replace("import agent\n", "").replace("test_it", "test_other"))
    shop.record()
    one, other = map(str, shop.cassettes())
    capsys.readouterr()
    assert main(["diff", one, other]) == CLEAN
    assert "not compared, given anew with each answer: 5 id, 3 time" in capsys.readouterr().out


# --- failures that are not ours ---------------------------------------------------------------------------------------

KEY = "Missing credentials. Please pass an `api_key`, or set the `SHOP_API_KEY` environment variable."


@pytest.mark.parametrize("scope", ["function", "session"])
def test_a_fixture_that_raises_is_told_without_us(shop: Project, scope: str) -> None:
    fixture = f"@pytest.fixture(scope='{scope}')\ndef client():\n    return WAYS['west']\n"
    shop.write(TEST.replace("test_it()", "test_it(client)") + fixture.replace("WAYS['west']", "1"))
    shop.record()
    shop.write("WAYS = {}\n" + TEST.replace("test_it()", "test_it(client)") + fixture)
    result = shop.run()
    assert result.outcomes == {"errors": 1}
    assert "KeyError: 'west'" in result.out
    assert "pytest_spanchain" not in result.out
    assert "plugin.py" not in result.out
    assert "_hooks.py" not in result.out
    assert (
        "spanchain: nothing was compared with the cassette: the setup failed before the first recorded call"
        in lines_of(result.out)
    )
    assert "accept" not in result.out
    assert "hint" not in result.out


@pytest.mark.parametrize("place", ["setup", "body"])
def test_a_client_without_a_key_is_told_what_a_replay_needs(
    shop: Project, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = f"@pytest.fixture\ndef client():\n    return Client\n\ndef Client():\n    raise LookupError({KEY!r})\n"
    if place == "setup":
        client = client.replace("return Client", "return Client()")
    body = TEST.replace("test_it():\n", "test_it(client):\n    client()\n")
    shop.write(body + client.replace("raise LookupError", "return str").replace("return Client()", "return Client"))
    shop.record()
    shop.write(body + client)
    out = shop.run().out
    hint = "hint: a replay needs no real key, but this client insists on one: set SHOP_API_KEY to any text"
    assert hint in lines_of(out)
    what = "the setup" if place == "setup" else "the test"
    assert f"spanchain: nothing was compared with the cassette: {what} failed before the first recorded call" in out
    assert "accept" not in out
    assert "plugin.py" not in out
    assert "_hooks.py" not in out
    monkeypatch.setenv("SHOP_API_KEY", "x")
    assert "SHOP_API_KEY to any" not in shop.run().out


def test_a_test_that_breaks_off_is_not_told_to_accept_that(shop: Project) -> None:
    shop.record()
    change(shop, "globals()[name](**arguments)", '{"weather": weather}[name](**arguments)')
    out = shop.run().out
    assert "KeyError: 'mail'" in out
    assert "span_removed" in out
    assert "accept:" not in out
    assert "look closer:" in out


def test_a_test_that_says_itself_what_it_misses_may_be_right(shop: Project) -> None:
    shop.record()
    change(shop, "    while True:", "    while len(messages) < 4:")
    change(shop, "\ndef stream", "    return ''\n\ndef stream")
    out = shop.run().out
    assert "span_removed" in out
    assert "accept:" in out


# --- each thing once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "workers"), [("yes", ()), ("no", ()), ("yes", ("-n", "1"))])
def test_everything_is_told_once(shop: Project, colour: str, workers: tuple[str, ...]) -> None:
    shop.record()
    change(shop, "Be friendly.", "Be grumpy.")
    out = shop.run("-vv", f"--color={colour}", *workers, process=bool(workers)).out
    assert out.count("Be grumpy.") == 1
    assert out.count("request.body.json.messages[0].content") == 1
    assert "    (and the same 2 more times)" in out
    assert out.count("deviation point") == 1
    assert out.count("look closer") == 0
    assert out.count("accept:") == 1
    assert "traceback entries are hidden" not in out
    summary = [line for line in lines_of(out) if "FAILED" in line and " - " in line]
    assert summary[-1].endswith("spanchain: 1 deviation from the golden trace: input_changed at chat gpt-test")


def test_a_later_difference_of_its_own_is_told_too(shop: Project) -> None:
    shop.record()
    change(shop, '"sky": "sunny"', '"sky": "grey"')
    change(shop, "Be friendly.", "Be grumpy.")
    shop.ini("spanchain_run = weather")
    out = lines_of(shop.run("-vv").out)
    assert sum("Be grumpy." in line for line in out) == 1
    assert any(line.endswith(": request.body.json.messages[3].content") for line in out)
    assert any("grey" in line for line in out)


def test_a_recording_that_fails_is_told_once(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")  # where pytest's summary cuts nothing
    shop.write(TEST + "    open('cassettes', 'w').close()\n")
    out = shop.run("--record-mode=once", "-vv").out
    assert out.count("cannot be written") == 2, "in the report, and in its first line"


# --- tools that the model is offered ----------------------------------------------------------------------------------


def test_a_tool_that_is_no_longer_offered_is_said_so(shop: Project) -> None:
    shop.record()
    change(shop, "OFFERED = [weather, mail]", "OFFERED = [mail]")
    out = lines_of(shop.run().out)
    at = out.index("  request.body.json.tools[0]")
    assert out[at + 1] == "  - tool weather is no longer offered to the model"
    assert out[at + 2].startswith("  cassette:")
    assert sum("weather is no longer" in line for line in lines_of(shop.run("-vv").out)) == 1
    change(shop, '"tools": offered()', '**({"tools": offered()} if 0 else {})')
    out = lines_of(shop.run().out)
    assert "  - tool weather is no longer offered to the model" in out
    assert "  - tool mail is no longer offered to the model" in out


def test_a_tool_that_is_now_offered_is_said_so(shop: Project) -> None:
    change(shop, "OFFERED = [weather, mail]", "OFFERED = [mail]")
    shop.record()
    change(shop, "OFFERED = [mail]", "OFFERED = [weather, mail]")
    change(shop, '{"type": "string"}', '{"type": "number"}')
    out = lines_of(shop.run().out)
    assert out[out.index("  + tool weather is now offered to the model") - 1] == "  request.body.json.tools[0]"
    assert "  request.body.json.tools[0].function.parameters.properties.city.type" in out, "by name, not by place"


# --- tools of which no call was met -----------------------------------------------------------------------------------

INLINE = """
import agent

@pytest.mark.cassette{}
def test_it():
    assert "sent" in agent.run(call=lambda name, arguments: "sent")
"""


def test_a_tool_that_is_not_found_may_fail_the_test(shop: Project) -> None:
    shop.write(INLINE.format(""))
    assert "note: the model asked for weather once" in shop.record().out
    shop.ini("spanchain_unfound = fail")
    replayed = shop.run()
    assert replayed.outcomes == {"failed": 1}
    assert "spanchain: error: the model asked for weather once, but no call of a function" in replayed.out
    written = shop.cassettes()[0].read_bytes()
    recorded = shop.run("--record-mode=rewrite")
    assert recorded.outcomes == {"failed": 1}
    assert shop.cassettes()[0].read_bytes() == written
    assert "Name it: spanchain_tools = module:function" in recorded.out
    shop.write(INLINE.format("(unfound='note')"))
    assert shop.run().outcomes == {"passed": 1}
    shop.ini()
    shop.write(INLINE.format("(unfound='fail')"))
    assert shop.run().outcomes == {"failed": 1}
    shop.write(TEST.replace("cassette", "cassette(unfound='fail')"))
    assert shop.run("--record-mode=rewrite").outcomes == {"passed": 1}


@pytest.mark.parametrize("place", ["marker", "ini"])
def test_another_word_is_refused(shop: Project, place: str) -> None:
    if place == "ini":
        shop.ini("spanchain_unfound = fial")
    else:
        shop.write(INLINE.format("(unfound='fial')"))
    result = shop.run("--record-mode=once")
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert "unfound: there is no 'fial' (did you mean 'fail'?)" in result.err
    assert shop.requests == 0


def test_the_answer_of_a_plain_server_is_no_models(project: Project) -> None:
    """What only looks like an id is compared where no protocol of a model says that it is one."""
    project.server.script(lambda request: Json({"id": secrets.token_hex(16)}))
    project.write(
        "import os, httpx2\n\n@pytest.mark.cassette\ndef test_it():\n"
        "    httpx2.get(os.environ['OPENAI_BASE_URL'] + '/orders', verify=False, trust_env=False)\n"
    )
    project.record()
    assert "output_changed at GET" in project.run("--record-mode=rewrite").out


def test_models_that_repeat_themselves_have_nothing_set_aside(project: Project) -> None:
    project.server.script(lambda request: answer(request, "fine"))
    project.write("@pytest.mark.cassette\ndef test_it():\n    ask('hello')\n")
    project.record()
    assert "not compared" not in project.run("--record-mode=rewrite").out


def lines_with(text: str, out: str) -> list[str]:
    return [line for line in out.splitlines() if text in line]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_recording_says_which_tests_called_nobody(project: Project, workers: tuple[str, ...]) -> None:
    """Whoever uses a client that is not met would think that it was recorded."""
    project.write(
        "import subprocess, sys\nfrom opentelemetry import trace\n\n"
        "@pytest.mark.cassette\ndef test_met():\n    ask('hello')\n\n"
        "@pytest.mark.cassette\ndef test_unmet():\n"
        "    assert subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout\n\n"
        "@pytest.mark.cassette\ndef test_spans():\n"
        "    with trace.get_tracer('mine').start_as_current_span('plan'):\n        pass\n"
    )
    process = bool(workers)
    recorded = project.run("--record-mode=once", *workers, process=process)
    assert recorded.outcomes == {"passed": 3}, recorded.out
    said = lines_with("nothing crossed a boundary", recorded.out)
    assert len(said) == 1, recorded.out
    assert "test_it.py::test_unmet" in said[0]
    assert "test_it.py::test_spans" in said[0]
    assert "test_met" not in said[0]
    assert "docs/matrix.md" in said[0]
    assert "tools=" in said[0]
    quiet, loud = (project.run(*more, *workers, process=process) for more in ((), ("-vv",)))
    assert (quiet.outcomes, loud.outcomes) == ({"passed": 3}, {"passed": 3})
    assert "spans only" not in quiet.out
    said = lines_with("spans only are compared", loud.out)
    assert len(said) == 1, loud.out
    assert "test_it.py::test_unmet" in said[0]
    assert "test_it.py::test_spans" in said[0]
    assert "test_met" not in said[0]


def test_many_tests_that_called_nobody_are_one_line(project: Project) -> None:
    project.write("@pytest.mark.cassette\n@pytest.mark.parametrize('n', range(5))\ndef test_it(n):\n    pass\n")
    (said,) = lines_with("nothing crossed a boundary", project.record().out)
    assert "test_it[0], test_it.py::test_it[1], test_it.py::test_it[2] and 2 more" in said


def test_what_fails_or_is_skipped_says_nothing_of_boundaries(project: Project) -> None:
    project.write(
        "@pytest.mark.cassette\ndef test_fails():\n    assert False\n\n"
        "@pytest.mark.cassette\ndef test_skips():\n    pytest.skip()\n"
    )
    assert "crossed a boundary" not in project.run("--record-mode=once").out


def test_a_fixture_of_its_own_cassette_that_calls_nobody_is_named(project: Project) -> None:
    project.write(
        "from pytest_spanchain import use_cassette\n\n"
        "@pytest.fixture(scope='session')\ndef shelf():\n"
        "    with use_cassette('shelf.yaml'):\n        yield\n\n"
        "def test_it(shelf):\n    pass\n"
    )
    (said,) = lines_with("nothing crossed a boundary", project.record().out)
    assert "shelf.yaml" in said


# --- the right advice -------------------------------------------------------------------------------------------------


def test_another_server_is_told_as_such(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.record()
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.example.test/v1")
    out = shop.run().out
    assert out.count("note: only the server differs: a base URL, such as OPENAI_BASE_URL") == 1


ELSEWHERE = """
    try: httpx2.get(os.environ["OPENAI_BASE_URL"] + "/new", trust_env=False)
    except Exception: pass
"""


def test_a_call_that_was_not_recorded_names_its_line(shop: Project) -> None:
    shop.record()
    change(shop, "    while True:\n", f"{ELSEWHERE}    while True:\n")
    out = shop.run().out
    assert "span_added" in out
    assert "note: GET /v1/new was called at agent.py:" in out


def test_what_a_failing_test_notes_is_told_in_its_report_only(shop: Project) -> None:
    shop.record()
    change(shop, "    while True:\n", f"{ELSEWHERE}    while True:\n")
    assert shop.run().out.count("nothing is recorded for it") == 1


def test_a_closer_look_has_the_words_that_help(shop: Project) -> None:
    shop.record()
    change(shop, "Be friendly.", "Be grumpy.")
    assert "look closer: pytest test_it.py::test_it -vv\n" in shop.run().out
    shop.ini("addopts = -q")
    assert "look closer: pytest test_it.py::test_it --verbosity=2\n" in shop.run().out
    assert "(and the same 2 more times)" in shop.run("--verbosity=2").out


def test_a_test_that_fails_before_its_first_call_counts_as_unverified(shop: Project) -> None:
    shop.record()
    change(shop, "    while True:\n", "    raise KeyError('key')\n    while True:\n")
    result = shop.run()
    assert "nothing was compared" in result.out
    assert result.counts == {"replayed": 0, "recorded": 0, "live": 0, "unverified": 1}
