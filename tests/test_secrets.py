"""Secrets end to end: planted wherever an agent can drop one, and looked for in every file that a session leaves.

The agent runs on the real SDKs in a pytest of its own process, against a model on loopback that repeats what it hears.
Names of the variables that hold secrets decide what is known of them: ``SHOP_API_TOKEN`` and the keys of the SDKs are
known by their names, what ``PLANT_…`` holds only by the place where the agent puts it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import yaml

import model_replies
from model_replies import ToolCall, answer, last_text
from project import Project, Result
from pytest_spanchain import cli
from servers import Json, ModelServer, Reply, Request, Stream

KNOWN = {
    "OPENAI_API_KEY": "Qz7LmXw2Rt9VbNc4Ky6Hd1Pf",
    "ANTHROPIC_API_KEY": "Jh3GfDs8Kl2ZxCv6Bn9Mq4Wt",
    "SHOP_API_TOKEN": 'u5/Ty+R"r8=Ee\\W3qé7Pa2Zx9',
}
PLACED = {
    "PLANT_HEADER": "Vm4NbTz9Qe2WrLk7Yp3Xs8Dc",
    "PLANT_COOKIE": "Bx6CvHn3Jm8KlRf2Gt7Zy4Qa",
    "PLANT_QUERY": "Ws2EdXc7RfVt5GbYh8NuJm3K",
    "PLANT_URL": "Pl9OkMi4JnUh7BgVy2TfCr6D",
    "PLANT_BODY": "Az3SxDc8FvGb5HnJm2KlQp7W",
    "PLANT_ANSWER": "Er6TyUi2OpAs9DfGh4JkLz7X",
    "PLANT_ARGUMENT": "Cy5VuBi3NoMp8QaWs6EdRf2T",
}

AGENT = '''
"""Written as carelessly as possible."""

import base64
import json
import os
from urllib.parse import quote

import httpx2
from opentelemetry import trace

TOKEN = os.environ["SHOP_API_TOKEN"]
URL = os.environ["SHOP_URL"]
CONTENT = {
    "raw": TOKEN,
    "json": json.dumps({"note": TOKEN}),
    "json in json": json.dumps(json.dumps([TOKEN])),
    "url": "see http://example.org/" + quote(TOKEN, safe=""),
    "base64": base64.b64encode(TOKEN.encode()).decode(),
    "base64 of a pair": base64.b64encode(f"shop:{TOKEN}!".encode()).decode(),
    "base64 for urls": base64.urlsafe_b64encode(f"at{TOKEN}".encode()).decode(),
    "hex": TOKEN.encode().hex(),
    "a question": "what was the header?",
}


def log_in(note, headers):
    return {"seen": f"{note} by {TOKEN}", "pairs": [(TOKEN, 1)], TOKEN: b"as bytes"}


def log_out(note):
    raise PermissionError(f"{note}: {TOKEN} is not allowed to")


def plain_http():
    with httpx2.Client(verify=False, cookies={"session": os.environ["PLANT_COOKIE"]}) as client:
        host = URL.replace("http://", f"http://shop:{os.environ['PLANT_URL']}@")
        client.post(
            f"{host}/plain/{quote(TOKEN, safe='')}",
            params={"api_key": os.environ["PLANT_QUERY"], "page": "1", "q": TOKEN},
            headers={"x-auth-token": os.environ["PLANT_HEADER"]},
            json={"user": "ann", "password": os.environ["PLANT_BODY"], "note": TOKEN},
        )
        client.post(f"{URL}/form", data={"client_secret": os.environ["PLANT_BODY"], "note": TOKEN})
        client.post(f"{URL}/bytes", content=b"\\xff" + TOKEN.encode())


def openai():
    from openai import OpenAI

    with OpenAI() as client:
        for content in CONTENT.values():
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
        tool = {"type": "function", "function": {"name": "log_in", "parameters": {"type": "object"}}}
        messages = [{"role": "user", "content": f"use a tool with {TOKEN}"}]
        for stream in (False, True):
            said = client.chat.completions.create(model="m", messages=messages, tools=[tool], stream=stream)
            list(said) if stream else said
        client.responses.create(model="m", input=f"respond with {TOKEN}", instructions=TOKEN)


def anthropic():
    from anthropic import Anthropic

    with Anthropic() as client:
        for content in (TOKEN, f"use a tool with {TOKEN}"):
            messages = [{"role": "user", "content": content}]
            more = {"system": TOKEN, "metadata": {"user_id": TOKEN}}
            client.messages.create(model="c", max_tokens=9, messages=messages, **more)
            with client.messages.stream(model="c", max_tokens=9, messages=messages) as events:
                events.get_final_message()


def tools():
    log_in(f"hello {TOKEN}", {"Authorization": f"Bearer {os.environ['PLANT_ARGUMENT']}"})
    try:
        log_out(note=TOKEN)
    except PermissionError:
        pass


def spans():
    with trace.get_tracer("shop").start_as_current_span(f"log in with {TOKEN}") as span:
        span.set_attribute("shop.note", TOKEN)
        span.set_attribute("shop.notes", ["a", TOKEN])
        span.set_attribute("password", os.environ["PLANT_BODY"])
        span.set_attribute("url.full", f"https://ann:{os.environ['PLANT_URL']}@example.org/?token={TOKEN}")
        span.add_event(f"tried {TOKEN}", {"with": TOKEN, "api_key": os.environ["PLANT_QUERY"]})
        span.record_exception(ValueError(f"no {TOKEN}"))
        span.set_status(trace.StatusCode.ERROR, f"refused {TOKEN}")


def errors():
    from openai import OpenAI

    with OpenAI(max_retries=0) as client:
        try:
            client.embeddings.create(model="e", input=[TOKEN, "fail"])
        except Exception:
            pass


def everything():
    for act in (plain_http, openai, anthropic, tools, spans, errors):
        act()
'''

TEST = """
import os

import pytest

import agent
from agent import TOKEN, URL

PLANT = {name: value for name, value in os.environ.items() if name.startswith("PLANT_")}


def post(path, body):
    with agent.httpx2.Client(verify=False) as client:
        client.post(f"{URL}/{path}", json=body)


def ask(content):
    post("v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": content}]})


def embed(content):
    post("v1/embeddings", {"model": "e", "input": content})


def span(name, **attributes):
    with agent.trace.get_tracer("shop").start_as_current_span(name, attributes=attributes):
        pass


cassette = pytest.mark.cassette(tools=["agent:log_in", "agent:log_out"])
"""

EVERYTHING = """

@cassette
def test_everything():
    agent.everything()
"""


def careless(request: Request) -> Reply:
    """A model that repeats what it was told, in pieces if it streams, and gives away a secret of its own."""
    token = os.environ["SHOP_API_TOKEN"]
    if "/v1/" not in request.path:
        body = {
            "echo": str(request.body),
            "header": request.headers.get("x-auth-token"),
            "access_token": PLACED["PLANT_ANSWER"],
        }
        headers = {"x-api-key": PLACED["PLANT_ANSWER"], "set-cookie": f"id={PLACED['PLANT_ANSWER']}"}
        return Json(body, headers=headers)
    if request.path.endswith("embeddings") and "fail" in request.body["input"]:
        return Json({"error": {"message": f"bad input {token}", "type": "bad"}}, status=422)
    said = last_text(request)
    wants = (
        [ToolCall("log_in", {"note": f"the {token}", "password": PLACED["PLANT_BODY"]})] if "use a tool" in said else []
    )
    header = PLACED["PLANT_HEADER"] if "header" in said else ""
    reply = answer(request, f"You said {said} and {token}{header}.", tools=wants)
    if isinstance(reply, Stream):
        whole = b"".join(reply.chunks)
        return replace(reply, chunks=[whole[at : at + 13] for at in range(0, len(whole), 13)])
    return reply


@pytest.fixture
def shop(pytester: pytest.Pytester, sdk_env: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(pytester, sdk_env, monkeypatch)
    sdk_env.script(careless)
    monkeypatch.setattr(model_replies, "_words", lambda text: [text[at : at + 3] for at in range(0, len(text), 3)])
    monkeypatch.setenv("SHOP_URL", sdk_env.url)
    monkeypatch.setenv("SSL_CERT_DIR", str(pytester.mkdir("certificates")))  # else each client reads the machine's
    for name, value in {**KNOWN, **PLACED}.items():
        monkeypatch.setenv(name, value)
    (made.path / "agent.py").write_text(AGENT, encoding="utf-8")
    return made


def write(shop: Project, bodies: Mapping[str, str], *, also: str = "") -> None:
    """Write the test module: one test for each body, of one line or more."""
    tests = [
        f"\n\n@cassette\ndef test_{name.replace(' ', '_')}():\n{textwrap.indent(body, '    ')}\n"
        for name, body in bodies.items()
    ]
    (shop.path / "test_it.py").write_text("".join([TEST, also, *tests]), encoding="utf-8")


def run(shop: Project, *args: str) -> Result:
    """A session as wordy as pytest gets, whose words are kept in files."""
    result = shop.run("-vv", "-rA", "--tb=long", "--junitxml=junit.xml", *args, process=True)
    (shop.path / "printed.txt").write_text(result.out + result.err, encoding="utf-8")
    return result


# --- looking for them --------------------------------------------------------------------------------------------


def forms(secret: str) -> Iterator[str]:
    """How a secret may be spelt, without asking the code under test."""
    raw = secret.encode()
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], ascii(secret)[1:-1])
    yield from (json.dumps(json.dumps(secret)[1:-1])[1:-1], quote(secret, safe=""), quote(secret), quote_plus(secret))
    yield from (raw.hex(), raw.hex().upper(), repr(secret)[1:-1], repr(raw)[2:-1])
    for shift in range(3):
        packed = base64.b64encode(b"\0" * shift + raw).decode()[4 if shift else 0 : -4]
        yield from (packed, packed.replace("+", "-").replace("/", "_"))


def windows(secret: str) -> set[str]:
    """Every run of ten characters of every spelling: a part of a secret is a leak as well."""
    return {form[at : at + 10] for form in forms(secret) for at in range(len(form) - 9)}


def texts(value: Any) -> Iterator[str]:
    """Every text in a document, keys included, and what the pieces of each stream amount to."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(key)
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value
        if "data: {" in value:
            pieces = re.findall(r'"(?:content|text|partial_json|arguments)": ("(?:[^"\\]|\\.)*")', value)
            yield "".join(json.loads(piece) for piece in pieces)


def everything_written(root: Path) -> Iterator[tuple[str, str]]:
    """Name and content of every file below a directory but the sources; cassettes also as a reader sees them."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name not in ("agent.py", "test_it.py") and path.suffix != ".pyc":
            text = path.read_bytes().decode("utf-8", "surrogateescape")
            yield path.name, text
            if path.suffix == ".yaml":
                yield f"{path.name}, decoded", "\n".join(texts(yaml.safe_load(text)))


def leaks(root: Path, secrets: Mapping[str, str]) -> list[str]:
    """Which secret, or part of one, stands in which file."""
    wanted = {name: windows(secret) for name, secret in secrets.items()}
    return [
        f"{name} in {file}: …{text[max(0, text.find(part) - 60) : text.find(part) + 20]!r}"
        for file, text in everything_written(root)
        for name, parts in wanted.items()
        for part in [next((part for part in sorted(parts) if part in text), None)]
        if part is not None
    ]


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """Nobody can trust an empty list otherwise."""
    secret = KNOWN["SHOP_API_TOKEN"]
    for number, form in enumerate(forms(secret)):
        (tmp_path / "x.txt").write_text(f"before{form}after", encoding="utf-8")
        assert leaks(tmp_path, {"it": secret}), number
    for before in ("", "a", "ab"):
        packed = base64.b64encode(f"{before}{secret}z".encode()).decode()
        (tmp_path / "x.txt").write_text(packed, encoding="utf-8")
        assert leaks(tmp_path, {"it": secret}), before
    pieces = "".join(f"data: {json.dumps({'content': secret[at : at + 3]})}\n\n" for at in range(0, len(secret), 3))
    (tmp_path / "x.txt").unlink()
    (tmp_path / "x.yaml").write_text(json.dumps({"body": pieces}), encoding="utf-8")
    assert leaks(tmp_path, {"it": secret})
    (tmp_path / "x.yaml").write_text("{}", encoding="utf-8")
    assert leaks(tmp_path, {"it": secret}) == []


# --- known secrets -----------------------------------------------------------------------------------------------

# What a test does when it is recorded, and what it does later.
DRIFTS = {
    "another prompt": ("ask(f'the token is {TOKEN}')", "ask(f'{TOKEN} is the token')"),
    "one more call": ("ask('hi')", "ask('hi')\nask(TOKEN)"),
    "a call of another kind": ("ask('hi')", "try:\n    embed(TOKEN)\nfinally:\n    ask('hi')"),
    "a miss that leaves the test": ("ask('hi')", "embed(TOKEN)"),
    "another tool call": (
        "agent.log_in('a', {})",
        "agent.log_in(f'b {TOKEN}', {'password': PLANT['PLANT_BODY']})",
    ),
    "another request": (
        "post('a', {'n': 1})",
        "post(f'a?key={PLANT[\"PLANT_QUERY\"]}', {'n': TOKEN, 'api_key': PLANT['PLANT_BODY']})",
    ),
    "another span": ("span('a')", "span(f'b {TOKEN}', note=TOKEN, password=PLANT['PLANT_BODY'])\nspan('c')"),
    "another attribute": ("span('a', note='x')", "span('a', note=TOKEN, **{TOKEN: 1})"),
}


def test_no_secret_is_left_anywhere_and_another_one_replays(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write(shop, {name: before for name, (before, _) in DRIFTS.items()}, also=EVERYTHING)
    recorded = run(shop, "--record-mode=once")
    assert recorded.counts["recorded"] == 1 + len(DRIFTS), recorded.out
    received = json.dumps([list(request) for request in shop.server.requests], ensure_ascii=False)
    for name, value in {**KNOWN, **PLACED}.items():
        if name not in ("PLANT_ANSWER", "PLANT_ARGUMENT", "PLANT_URL"):
            assert json.dumps(value, ensure_ascii=False)[1:-1] in received, f"{name} never went out: a test of nothing"
    assert leaks(shop.path, {**KNOWN, **PLACED}) == []
    assert cli.main(["verify", str(shop.path / "cassettes")]) == 0
    (cassette,) = (path for path in shop.cassettes() if "everything" in path.name)
    entries = yaml.safe_load(cassette.read_text(encoding="utf-8"))["entries"]
    kinds = [entry["kind"] for entry in entries]
    assert [kinds.count(kind) for kind in ("model", "tool", "http")] == [17, 2, 3]
    spans = [entry["payload"]["name"] for entry in entries[:-1] if entry["payload"]["scope"] == "shop"]
    assert spans == ["log in with [redacted]"]

    # Later: other secrets, another machine, and tests that have changed.
    others = {f"new {name}": value[::-1].swapcase() for name, value in {**KNOWN, **PLACED}.items()}
    for name, value in others.items():
        monkeypatch.setenv(name.removeprefix("new "), value)
    write(shop, {name: after for name, (_, after) in DRIFTS.items()}, also=EVERYTHING)
    requests = shop.requests
    replayed = run(shop)
    assert shop.requests == requests
    assert replayed.outcomes == {"passed": 1, "failed": len(DRIFTS)}, replayed.out
    assert "PASSED test_it.py::test_everything" in replayed.out
    assert leaks(shop.path, {**KNOWN, **PLACED, **others}) == []
    rewritten = run(shop, "--record-mode=rewrite", "--deselect=test_it.py::test_everything")
    assert rewritten.counts["recorded"] == len(DRIFTS), rewritten.out
    assert rewritten.out.count("◀ deviation point") >= len(DRIFTS)
    assert leaks(shop.path, {**KNOWN, **PLACED, **others}) == []


def test_a_recording_that_fails_leaves_none_either(shop: Project) -> None:
    """What is kept aside for inspection is redacted like a cassette."""
    write(shop, {"after everything": "agent.everything()\npytest.fail('enough')"})
    failed = run(shop, "--record-mode=once")
    assert failed.outcomes == {"failed": 1}
    assert shop.cassettes() == []
    (aside,) = shop.kept_aside()
    assert aside.stat().st_size > 10_000
    assert leaks(shop.path, {**KNOWN, **PLACED}) == []


# --- what only looks like one ------------------------------------------------------------------------------------

UNKNOWN = {
    "openai": "sk-proj-Zr8Kq2Xw7Lm4Vt9Bc3Nd6Hf1Jp5Gs",
    "aws": "AKIAZQ7XK4PWM2NB5TRV",
    "github": "ghp_Zr8Kq2Xw7Lm4Vt9Bc3Nd6Hf1Jp5Gs0Yy2Tu4",
}
# What a test does, and the place that the refusal names.
PLACES = {
    "a prompt": ("ask(PLANT['PLANT_KIND'])", "{}.payload.request.body.json.messages[0].content"),
    "an answer": ("ask('give away KIND')", "{}.payload.response.body.json.choices[0].message.content"),
    "a tool": ("agent.log_in(PLANT['PLANT_KIND'], {})", "{}.payload.request.arguments.note"),
    "a span": ("span(PLANT['PLANT_KIND'])", "{}.payload.name"),
    "an attribute": ("span('a', note=PLANT['PLANT_KIND'])", "{}.payload.attributes.note"),
    "a key": ("span('a', **{PLANT['PLANT_KIND']: 1})", "a key of {}.payload.attributes"),
}


def gives_away(request: Request) -> Reply:
    said = last_text(request)
    return answer(request, UNKNOWN[said.split()[-1]] if said.startswith("give away") else "hello")


def test_what_looks_like_a_key_is_not_recorded(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.server.script(gives_away)
    bodies, wanted = {}, []
    for kind, key in UNKNOWN.items():
        monkeypatch.setenv(f"PLANT_{kind}", key)
        for name, (body, place) in PLACES.items():
            bodies[f"{name} {kind}"] = body.replace("KIND", kind)
            wanted.append(
                f"error: {place.format(f'test_it.py::test_{name} {kind}.entries[1]'.replace(' ', '_'))}: holds "
            )
    write(shop, bodies)
    refused = run(shop, "--record-mode=once")
    assert refused.outcomes == {"failed": len(bodies)}, refused.out
    assert [words for words in wanted if f"{words}what looks like a credential" not in refused.out] == []
    assert shop.cassettes() == shop.kept_aside() == []
    assert leaks(shop.path, UNKNOWN) == []


def test_a_secret_that_is_seen_before_it_is_known_is_not_recorded(shop: Project) -> None:
    """The model gives the header away before the agent sends it: what is stored by then holds it."""
    write(shop, {"too early": "ask('what is the header?')\nagent.plain_http()"})
    refused = run(shop, "--record-mode=once")
    assert refused.outcomes == {"failed": 1}
    assert "choices[0].message.content: holds the value of header x-auth-token" in refused.out
    assert shop.cassettes() == shop.kept_aside() == []
    assert leaks(shop.path, {**KNOWN, **PLACED}) == []


def test_what_looks_like_a_key_is_not_reported_either(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cassette may not hold is nothing for the log of a build."""
    monkeypatch.setenv("PLANT_openai", "harmless")
    write(shop, {name: body.replace("KIND", "openai") for name, (body, _) in PLACES.items() if name != "an answer"})
    assert run(shop, "--record-mode=once").counts["recorded"] == len(PLACES) - 1
    before = {path: path.read_bytes() for path in shop.cassettes()}
    monkeypatch.setenv("PLANT_openai", UNKNOWN["openai"])
    for mode in ("none", "rewrite"):
        refused = run(shop, f"--record-mode={mode}")
        assert refused.outcomes == {"failed": len(PLACES) - 1}
        assert {path: path.read_bytes() for path in shop.cassettes()} == before
        assert shop.kept_aside() == []
        assert leaks(shop.path, UNKNOWN) == [], mode


# --- replay without the secrets ----------------------------------------------------------------------------------


def test_where_a_name_says_credential_replay_needs_none(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build server has no keys, or dummies that nobody would take for keys."""
    body = """
agent.httpx2.post(
    verify=False,
    url=f"{URL}/a?api_key={os.environ.get('PLANT_QUERY', '')}&page=1",
    headers={"x-api-key": os.environ.get("PLANT_HEADER", ""), "authorization": os.environ["OPENAI_API_KEY"]},
    json={"password": os.environ.get("PLANT_BODY", "none"), "note": "x"},
)
ask("hi")
"""
    write(shop, {"names": body.strip()})
    assert run(shop, "--record-mode=once").counts["recorded"] == 1
    assert leaks(shop.path, {**KNOWN, **PLACED}) == []
    for name in PLACED:
        monkeypatch.delenv(name)
    for name in KNOWN:
        monkeypatch.setenv(name, "x")
    replayed = run(shop)
    assert replayed.counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}, replayed.out


def test_what_only_shares_a_name_with_credentials_takes_part_in_matching(shop: Project) -> None:
    """Two answers swapped, or an instruction turned around, must not replay as if nothing had happened."""
    before = {
        "a query": "post('kv?key=order-1412', {})",
        "a description": "post('a', {'passphrase': {'type': 'string', 'description': 'use it'}})",
        "a sentence": "post('a', {'id_token': 'use it'})",
    }
    after = {name: body.replace("1412", "9999").replace("use it", "never use it") for name, body in before.items()}
    write(shop, before)
    assert run(shop, "--record-mode=once").counts["recorded"] == len(before)
    write(shop, after)
    assert run(shop).outcomes == {"failed": len(after)}


def test_what_a_name_gives_away_is_recorded_nowhere(shop: Project) -> None:
    """The answer to a login names the token; afterwards the agent speaks of it."""
    write(shop, {"late": "post('a', {})\npost('b', {'note': PLANT['PLANT_ANSWER']})"})
    assert run(shop, "--record-mode=once").counts["recorded"] == 1
    assert leaks(shop.path, PLACED) == []
    write(shop, {"early": "span(PLANT['PLANT_ARGUMENT'])\nspan('b', api_key=PLANT['PLANT_ARGUMENT'], x=1)"})
    assert leaks(shop.path, PLACED) == []
    run(shop, "--record-mode=once")
    assert leaks(shop.path, PLACED) == []
