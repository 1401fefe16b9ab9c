"""Canaries in every place and every spelling; what must stay; what must stop a recording."""

from __future__ import annotations

import base64
import json
import pickle
import threading
import time
import uuid
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_spanchain._redact import ALLOWED_REQUEST_HEADERS, ALLOWED_RESPONSE_HEADERS, Redactor, options
from pytest_spanchain._redact import names as _names
from pytest_spanchain._redact import written as _written
from pytest_spanchain._redact.printable import UNPRINTABLE, printable
from pytest_spanchain._redact.secrets import known_format, looks_secret
from pytest_spanchain._redact.stream import joined
from pytest_spanchain._redact.text import PLACEHOLDER
from pytest_spanchain.errors import SecretFound, UsageError

CANARY = 'q9/Zk+"x7=Wv\\é4TmPl2'
PLAIN_CANARY = "q9Zkx7Wv4TmPl2bN8"


def redactor(canary: str = CANARY, **user: Any) -> Redactor:
    return Redactor({"SERVICE_API_KEY": canary, "HOME": "/root", "LANG": "C.UTF-8"}, **user)


def base64_of(text: str, before: str, after: str) -> str:
    return base64.b64encode(f"{before}{text}{after}".encode()).decode()


SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "json": lambda text: json.dumps(text)[1:-1],
    "json, not ASCII": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "repr, ASCII": lambda text: ascii(text)[1:-1],
    "repr of bytes": lambda text: repr(text.encode())[2:-1],
    "repr in json": lambda text: json.dumps(repr(text))[2:-2],
    "url": quote,
    "url, slash too": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "url, small": lambda text: "".join(
        f"%{byte:02x}" if byte in b'/+"=\\\xc3\xa9' else chr(byte) for byte in text.encode()
    ),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "base64 at 0": lambda text: base64_of(text, "", "!"),
    "base64 at 1": lambda text: base64_of(text, "a", "yz"),
    "base64 at 2": lambda text: base64_of(text, "ab", ""),
    "base64 of a pair": lambda text: base64_of(text, "user:", ""),
    "base64 for urls": lambda text: base64_of(text, "", "").replace("+", "-").replace("/", "_"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("canary", [CANARY, PLAIN_CANARY])
def test_a_learnt_value_is_found_in_every_spelling(spelling: str, canary: str) -> None:
    redact, written = redactor(canary), SPELLINGS[spelling](canary)
    text = redact.text(f"before {written} after")
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert PLACEHOLDER in text
    assert written[4:-4] not in text
    with pytest.raises(SecretFound, match="SERVICE_API_KEY") as caught:
        redact.check({"a": [f"x {written} y"]}, "entry 3")
    assert "entry 3.a[0]" in str(caught.value)
    assert canary[:3] not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


PLACES: dict[str, Callable[[str], Any]] = {
    "text": lambda text: text,
    "item": lambda text: ["a", {"b": [1, text]}],
    "key": lambda text: {"a": {text: 1}},
    "two keys": lambda text: {f"{text}": 1, f"{text}{text}": 2},
    "json text": lambda text: {"arguments": json.dumps({"q": text})},
    "json text in json text": lambda text: {"arguments": json.dumps({"q": json.dumps({"r": text})})},
    "query": lambda text: {"see": f"https://h/p?q={quote(text)}"},
    "error": lambda text: {"error": {"type": "ValueError", "message": f"bad key {text!s}: refused"}},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_learnt_value_is_found_in_every_place(place: str) -> None:
    redact = redactor()
    redacted = redact.value(PLACES[place](CANARY))
    redact.check(redacted, "value")
    assert PLACEHOLDER in json.dumps(redacted)
    assert redact.value(redacted) is redacted
    if place == "two keys":
        assert len(redacted) == 2


@given(st.text(min_size=5, max_size=30), st.text(max_size=12), st.text(max_size=12))
@settings(max_examples=150, deadline=None)
def test_redaction_is_complete_and_idempotent(middle: str, before: str, after: str) -> None:
    secret = f"9$Z{middle}x"
    assume(looks_secret(secret))
    redact = redactor(secret)
    value = {"m": [before + secret + after, json.dumps({"k": secret}), base64_of(secret, "ab", "c")]}
    once = redact.value(value)
    assert secret not in once["m"][0]
    assert redact.value(once) == once


@pytest.mark.parametrize(
    "value",
    [
        {"password": "x"},
        {"api_key": "x"},
        {"OPENAI-API-KEY": "x"},
        {"dbPassword": "x"},
        {"clientSecret": "x"},
        {"headers": {"Authorization": "Bearer x"}},
        {"access_token": "x"},
        {"token": "ab12CD34ef56"},
        {"arguments": '{"password": "x", "n": 1}'},
        {"arguments": '{"a": "{\\"api_key\\": \\"x\\", \\"b\\": 1}"}'},
        {"output": "{'password': 'x', 'n': 1}"},
        {"arguments": '{"n": 1, "password": "x'},
    ],
)
def test_credential_names_decide(value: Any) -> None:
    redact = redactor()
    redacted = redact.value(value)
    text = json.dumps(redacted)
    assert PLACEHOLDER in text
    assert '"x' not in text.replace("\\", "")
    assert "Bearer" not in text
    assert redact.value(redacted) is redacted
    if "n" in text and isinstance(value.get("arguments"), str) and value["arguments"].endswith("1}"):
        assert json.loads(redacted["arguments"])["n"] == 1


@pytest.mark.parametrize(
    "value",
    [
        {"max_tokens": 5, "token_count": "12345678901", "total_tokens": 1, "input_tokens": 3, "key": "city of London"},
        {"model": "gpt-4o-mini-2024-07-18", "stop": ["token"], "secret": "sesame", "cookie": "chocolate chip"},
        {"properties": {"password": {"type": "string"}, "api_key": {"type": "string"}}, "required": ["password"]},
        {"content": [{"token": "xY12abcdEF", "logprob": -0.1, "bytes": [1]}]},
        {"thinking": "a", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk"},
        {"next_page_token": "CAUQAA8273aBc", "token_type": "Bearer", "password": "", "has_password": True},
        {"text": "the password: see the wiki, key = city, a token=none"},
        {"arguments": '{"max_tokens": 5, "key": "city", "secret": "sesame"}'},
        {"url": "https://example.org/a?b=c&page=2#frag", "pwd": "/home/me/work"},
        ["", None, True, 1.5, 10**30],
    ],
)
def test_ordinary_data_comes_back_as_the_same_object(value: Any) -> None:
    redact = redactor()
    assert redact.value(value) is value
    redact.check(value, "value")


def test_redaction_does_not_depend_on_the_key_of_the_machine() -> None:
    def request(key: str) -> Any:
        redact = Redactor({"SERVICE_API_KEY": key})
        headers = redact.request_headers([("Authorization", f"Bearer {key}"), ("Accept", "*/*")])
        body = redact.value({"api_key": key, "token": key})
        return headers, redact.url(f"https://h/v1?key={key}&x=1"), body

    assert request("sk-real-8237HGSDhgsd726") == request("tk-dummy-0000aaaaBBBB")
    assert request("sk-real-8237HGSDhgsd726") == request("dummy")
    no_key = Redactor({})
    assert no_key.url("https://h/v1?api_key=dummy&x=1") == "https://h/v1?api_key=redacted&x=1"
    assert no_key.url("https://x.googleapis.com/v1?key=dummy") == "https://x.googleapis.com/v1?key=redacted"
    assert no_key.value({"api_key": "dummy"}) == {"api_key": PLACEHOLDER}


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("Authorization", f"Bearer {PLAIN_CANARY}", PLAIN_CANARY),
        ("authorization", PLAIN_CANARY, PLAIN_CANARY),
        ("Proxy-Authorization", f"Basic {base64_of(PLAIN_CANARY, 'user:', '')}", PLAIN_CANARY),
        ("Authorization", f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/1/us, Signature={PLAIN_CANARY}", PLAIN_CANARY),
        ("X-Api-Key", PLAIN_CANARY, PLAIN_CANARY),
        ("Api-Key", PLAIN_CANARY, PLAIN_CANARY),
        ("x-goog-api-key", PLAIN_CANARY, PLAIN_CANARY),
        ("X-Amz-Security-Token", PLAIN_CANARY, PLAIN_CANARY),
        ("Cookie", f"theme=dark; sid={PLAIN_CANARY}", PLAIN_CANARY),
        ("Set-Cookie", f"sid={PLAIN_CANARY}; Path=/; HttpOnly", PLAIN_CANARY),
        ("X-Our-Own-Token", PLAIN_CANARY, PLAIN_CANARY),
        ("X-Tenant", PLAIN_CANARY, PLAIN_CANARY),
    ],
)
def test_values_of_credential_headers_are_learnt_and_dropped(name: str, value: str, secret: str) -> None:
    for method in ("request_headers", "response_headers"):
        redact = Redactor({}, keys=["x-tenant"])
        assert redact.text(f"echo {secret}") == f"echo {secret}"
        assert getattr(redact, method)([(name, value), ("Content-Type", "text/plain")]) == {
            "content-type": "text/plain"
        }
        assert redact.text(f"echo {secret}") == f"echo {PLACEHOLDER}"
        with pytest.raises(SecretFound, match=name.lower()):
            redact.check({"a": secret}, "entry")


def test_headers_that_change_by_themselves_teach_nothing() -> None:
    redact = Redactor({})
    fresh = str(uuid.uuid4())
    pairs = [("Idempotency-Key", fresh), ("Sec-WebSocket-Key", fresh), ("X-RateLimit-Reset-Tokens", fresh)]
    assert redact.request_headers([*pairs, ("x-request-id", fresh), ("date", "x")]) == {}
    assert redact.text(fresh) == fresh


def test_the_allowed_headers_are_kept() -> None:
    redact = redactor()
    kept = [(name.title(), "v") for name in (*ALLOWED_REQUEST_HEADERS, "user-agent", "x-stainless-retry-count")]
    assert redact.request_headers(kept) == dict.fromkeys(ALLOWED_REQUEST_HEADERS, "v")
    kept = [(name.upper(), "v") for name in (*ALLOWED_RESPONSE_HEADERS, "date", "x-request-id")]
    assert redact.response_headers(kept) == dict.fromkeys(ALLOWED_RESPONSE_HEADERS, "v")
    assert redact.request_headers([("Accept", "a"), ("accept", "b")]) == {"accept": "a, b"}
    assert redact.request_headers([("Content-Type", 'multipart/form-data; boundary="9f-x"; a=b')]) == {
        "content-type": "multipart/form-data; boundary=boundary; a=b"
    }
    moved = redact.response_headers([("Location", f"http://127.0.0.1:80/x?access_token=abc&q={quote(CANARY)}")])
    assert moved == {"location": "http://loopback/x?access_token=redacted&q=redacted"}
    upload = redact.response_headers([("X-Goog-Upload-URL", f"http://localhost:9/u?id=1&q={quote(CANARY)}")])
    assert upload == {"x-goog-upload-url": "http://loopback/u?id=1&q=redacted"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:pa55@h.example/p?q=1", "https://redacted@h.example/p?q=1"),
        ("https://user@h.example/", "https://redacted@h.example/"),
        ("https://h/p?api_key=a%20b&x=%7e&Api-Key=1#frag", "https://h/p?api_key=redacted&x=%7e&Api-Key=redacted#frag"),
        (
            "https://h/p?X-Amz-Signature=ab&X-Amz-Date=1&sig=c%2BQ7xW9kLm",
            "https://h/p?X-Amz-Signature=redacted&X-Amz-Date=1&sig=redacted",
        ),
        (
            "https://h/p?X-Goog-Credential=a%40b&X-Goog-Signature=0a1b&X-Goog-Date=1",
            "https://h/p?X-Goog-Credential=redacted&X-Goog-Signature=redacted&X-Goog-Date=1",
        ),
        ("https://h/p?max_tokens=5&page_token=x&key=", "https://h/p?max_tokens=5&page_token=x&key="),
        ("http://localhost:8123/v1/chat", "http://loopback/v1/chat"),
        ("https://127.0.0.1:1/", "https://loopback/"),
        ("http://[::1]:5000", "http://loopback"),
        ("http://me:pw@localhost:80/a", "http://redacted@loopback/a"),
        ("http://localhost.example.org/a", "http://localhost.example.org/a"),
        ("http://h/#access_token=abc&x=1", "http://h/#access_token=redacted&x=1"),
        (f"https://h/bot{quote(CANARY)}/send", "https://h/botredacted/send"),
        ("/relative?access_token=abc", "/relative?access_token=redacted"),
        ("https://h/p?a=%zz&&b", "https://h/p?a=%zz&&b"),
    ],
)
def test_urls(url: str, expected: str) -> None:
    redact = redactor()
    assert redact.url(url) == expected
    assert redact.url(expected) == expected
    assert redact.value({"url": expected}) == {"url": expected}
    urlsplit(expected)


def test_urls_and_forms_inside_texts() -> None:
    redact = redactor()
    assert redact.text("see postgres://me:pa55word@db/x, ok") == f"see postgres://{PLACEHOLDER}@db/x, ok"
    assert redact.text("GET https://h/a?api_key=zz&b=1 .") == f"GET https://h/a?api_key={PLACEHOLDER}&b=1 ."
    form = "grant_type=refresh&client_secret=abc&scope=x"
    assert redact.text(form) == f"grant_type=refresh&client_secret={PLACEHOLDER}&scope=x"
    again = redact.text(redact.text(form))
    assert again == redact.text(form)


@pytest.mark.parametrize(
    ("name", "value", "learnt"),
    [
        ("OPENAI_API_KEY", "sk-proj-3kfj38fjJD83jd", True),
        ("aws_secret_access_key", "/wJalrXUtnFEMIK7MDENGbPxRfi/CYzX1yq2w3e4", True),
        ("DB_PASSWORD", "correct horse battery staple", True),
        ("AZURE_KEY", "0a1b2c3d4e5f60718293a4b5c6d7e8f9", True),
        ("MY_TOKEN", str(uuid.UUID(int=2**100 + 987654321234567)), True),
        ("DB_PASSWORD", "postgres", False),
        ("OPENAI_API_KEY", "test-key", False),
        ("MODEL_KEY", "claude-sonnet-4-20250514", False),
        ("EMBEDDING_KEY", "text-embedding-3-small", False),
        ("SSH_KEY_PATH", "/home/me/.ssh/id_ed25519", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", "~/keys/service-account.json", False),
        ("TOKEN_URL", "https://login.example.org/oauth2/v2.0/token", False),
        ("MAX_TOKENS", "1000000000", False),
        ("KEY_CACHE", "true", False),
        ("SHORT_KEY", "aB3$xyz", False),
        ("ADMIN_PASSWORD", "swordfishtuna", True),
        ("PIN_SECRET", "739173917391", True),
        ("SEASON_PASSWORD", "Summer-2026", True),
        ("DB_PASS", PLAIN_CANARY, True),
        ("PGPASS", PLAIN_CANARY, True),
        ("MY_PAT", PLAIN_CANARY, True),
        ("API_AUTH", PLAIN_CANARY, True),
        ("DB_PWD", PLAIN_CANARY, True),
        ("MY_CREDENTIALS", PLAIN_CANARY, True),
        ("OLDPWD", "/home/me/work1", False),
        ("PWD", "/home/me/work1", False),
        ("DB_PASSWORD", "changeme", False),
        ("DB_PASSWORD", "test-password", False),
        ("USE_PASSWORD", "true", False),
        ("PASSWORD_FILE", "/run/secrets/db1", False),
        ("PASSWORD_URL", "https://h.example/reset1", False),
        ("SECRET_PORT", "54321", False),
        ("TOKEN_BUDGET", "100000000000", False),
        ("UNRELATED", "sk-proj-3kfj38fjJD83jd", False),
    ],
)
def test_what_the_environment_teaches(name: str, value: str, learnt: bool) -> None:
    redact = Redactor({name: value})
    assert (redact.text(f"say {value} now") == f"say {PLACEHOLDER} now") is learnt
    assert redact.rules == Redactor({}).rules


def test_structured_environment_values_teach_their_secret_parts() -> None:
    account = {"type": "service_account", "project": "my-project-name", "private_key": f"-----BEGIN\n{PLAIN_CANARY}"}
    redact = Redactor({"GCP_CREDENTIALS": json.dumps(account), "DB_TOKEN": f"postgres://u:{CANARY[:8]}9zZ@h/x"})
    assert redact.text("my-project-name") == "my-project-name"
    assert PLAIN_CANARY not in redact.text(json.dumps({"got": account["private_key"]}))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("?key=order-1412", "?key=order-9999"),
        ("?key=alpha", "?key=beta"),
        ("?key=SKU1412ABX9", "?key=SKU1412ABX8"),
        ("?session=12", "?session=13"),
        ("?token=left", "?token=right"),
        ("?code=SAVE20NOW", "?code=SAVE30NOW"),
        ("?signature=yes", "?signature=no"),
    ],
)
def test_a_query_that_may_be_data_is_data_unless_it_looks_like_a_credential(first: str, second: str) -> None:
    redact = redactor()
    for query in (first, second):
        assert redact.url(f"https://h/kv{query}") == f"https://h/kv{query}"
        assert redact.text(f"see https://h/kv{query} .") == f"see https://h/kv{query} ."
    name = first.partition("=")[0]
    assert redact.url(f"https://h/kv{name}={PLAIN_CANARY}") == f"https://h/kv{name}=redacted"


@pytest.mark.parametrize("name", ["auth_key", "bot_token", "session_id", "pass", "sid", "code", "X-Amz-Credential"])
def test_query_names(name: str) -> None:
    assert Redactor({}).url(f"https://h/p?{name}={PLAIN_CANARY}&x=1") == f"https://h/p?{name}=redacted&x=1"


@pytest.mark.parametrize(
    "text",
    [
        "The password of the user, at least 8 characters",
        "open sesame",
        "never use it",
        "Name of the token to revoke, e.g. prod-1",
        "required",
    ],
)
@pytest.mark.parametrize("name", ["password", "passphrase", "id_token"])
def test_what_describes_a_credential_is_none(name: str, text: str) -> None:
    schema = {"type": "string", "description": text, "pattern": "^[A-Za-z0-9+/]{8,}$"}
    values: list[Any] = [{"properties": {name: schema}}, {"required": [name, "note"]}, {name: {"anyOf": [schema]}}]
    values += [[[name, text], ["a", "b"]], {name: [text, "Other-Words 1"]}] if " " in text else []
    values += [{name: text}, {"text": json.dumps({name: text})}] if " " in text else []
    for value in values:
        assert redactor().value(value) is value


@pytest.mark.parametrize("text", ["Bearer x", "correct horse battery staple", "sid=a; theme=b", "x", f"is {CANARY}"])
def test_what_could_be_a_credential_is_one_by_name(text: str) -> None:
    for name in ("authorization", "passphrase"):
        assert Redactor({}).value({name: text}) == {name: PLACEHOLDER}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "app_secret",
            "bot_token",
            "session_key",
            "consumerSecret",
            "jwt_secret",
            "db_pass",
            "csrf_token",
            "auth_key",
        ),
        *("X-Auth-Key", "oauth_token", "passcode", "token_secret", "webhook_token", "top_secret"),
        "db.connection_string",
    ],
)
def test_more_names(name: str) -> None:
    assert Redactor({}).value({name: PLAIN_CANARY}) == {name: PLACEHOLDER}


@pytest.mark.parametrize(
    "value",
    [
        {"headers": {"Authorization": [f"Bearer {PLAIN_CANARY}"]}},
        {"headers": [["Authorization", f"Bearer {PLAIN_CANARY}"], ["Accept", "*/*"]]},
        {"headers": [{"$tuple": ["Authorization", f"Bearer {PLAIN_CANARY}"]}]},
        {"$map": [["password", PLAIN_CANARY], [1, 2]]},
        {"$map": [["password", PLAIN_CANARY]]},
        {"$ordereddict": [["password", PLAIN_CANARY]]},
        {"api_keys": [PLAIN_CANARY, f"{PLAIN_CANARY}2"]},
        {"password": {"value": PLAIN_CANARY}},
        {"password": {"$tuple": ["a", PLAIN_CANARY]}},
        {"name": "password", "value": PLAIN_CANARY},
        [{"key": "Authorization", "value": f"Bearer {PLAIN_CANARY}"}],
        {"http.request.header.authorization": [f"Bearer {PLAIN_CANARY}"]},
        {"http.request.header.cookie": [f"sid={PLAIN_CANARY}"]},
        {"http.request.header.x-api-key": [PLAIN_CANARY]},
        {"http.target": f"/cb?access_token={PLAIN_CANARY}&x=1"},
        {"url.query": f"access_token={PLAIN_CANARY}&x=1"},
        {"text": f'[{{"password": "{PLAIN_CANARY}"}}]'},
    ],
)
def test_names_reach_what_stands_in_pairs_and_lists(value: Any) -> None:
    redacted = Redactor({}).value(value)
    assert PLAIN_CANARY not in json.dumps(redacted)
    assert PLACEHOLDER in json.dumps(redacted)
    assert Redactor({}).value(redacted) is redacted


@pytest.mark.parametrize(
    "value",
    [
        [["password", "email"], ["x", "y"]],
        [["api_key", "API key"], ["password", "Password"]],
        {"authorization": ["approve", "deny"]},
        {"password": {"$object": ["shop.models:UserPassword", {"set": True}]}},
        {"$map": [[1, 2]]},
        {"name": "search", "value": PLAIN_CANARY},
        {"$bytes": base64_of("plain text", "", "")},
        {"base64": "not base64!"},
    ],
)
def test_pairs_and_lists_of_data_stay(value: Any) -> None:
    assert redactor().value(value) is value


def test_packed_bytes_stay_packed() -> None:
    redact = redactor()
    for kind in ("base64", "$bytes", "$bytearray"):
        for data in (b"\xff" + CANARY.encode() + b"\x00", b'\xff{"password": "x"}'):
            redacted = redact.value({"body": {kind: base64.b64encode(data).decode()}})
            clean = base64.b64decode(redacted["body"][kind], validate=True)
            assert clean in (b"\xff[redacted]\x00", b'\xff{"password": "[redacted]"}')
            assert redact.value(redacted) is redacted
    hidden = redact.value({"password": {"$bytes": base64.b64encode(PLAIN_CANARY.encode()).decode()}})
    assert base64.b64decode(hidden["password"]["$bytes"], validate=True) == PLACEHOLDER.encode()


@pytest.mark.parametrize(
    "teach",
    [
        lambda redact: redact.value({"access_token": PLAIN_CANARY}),
        lambda redact: redact.value({"Authorization": f"Bearer {PLAIN_CANARY}"}),
        lambda redact: redact.value({"text": json.dumps({"password": PLAIN_CANARY})}),
        lambda redact: redact.text(f"DB_PASSWORD={PLAIN_CANARY}"),
        lambda redact: redact.url(f"https://h/p?access_token={PLAIN_CANARY}"),
        lambda redact: redact.stream(f'data: {{"access_token": "{PLAIN_CANARY}"}}\n\n', []),
    ],
)
def test_what_a_name_gave_away_is_looked_for_elsewhere(teach: Callable[[Redactor], Any]) -> None:
    redact = Redactor({})
    early = {"said": f"it is {PLAIN_CANARY}"}
    assert redact.value(early) is early
    assert PLAIN_CANARY not in str(teach(redact))
    assert redact.value(early) == {"said": f"it is {PLACEHOLDER}"}
    with pytest.raises(SecretFound, match=r"entry 1\.said: holds the value of the key"):
        redact.check(early, "entry 1")


def test_what_a_name_gave_away_is_replaced_beside_it_too() -> None:
    value = {"note": f"with {PLAIN_CANARY}", "password": PLAIN_CANARY}
    assert Redactor({}).value(value) == {"note": f"with {PLACEHOLDER}", "password": PLACEHOLDER}


def test_ordinary_words_below_a_name_and_users_keys_teach_nothing() -> None:
    redact = Redactor({}, keys=["customer_email"])
    redact.value({"password": "sesame", "passphrase": "correct horse battery staple", "customer_email": "a1@b.example"})
    value = {"a": "sesame correct horse battery staple a1@b.example"}
    assert redact.value(value) is value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "curl -H 'Authorization: Bearer {}' https://x/api",
            "curl -H 'Authorization: Bearer [redacted]' https://x/api",
        ),
        ("Authorization: Basic {}==", "Authorization: Basic [redacted]"),
        ("host=db user=app password={} dbname=x", "host=db user=app password=[redacted] dbname=x"),
        ("Server=x;Uid=a;Pwd={};", "Server=x;Uid=a;Pwd=[redacted];"),
        ("# env\nDB_PASSWORD={}\nPORT=80\n", "# env\nDB_PASSWORD=[redacted]\nPORT=80\n"),
        ("DB_PASSWORD=tuna1\n", "DB_PASSWORD=[redacted]\n"),
        ("db:\n  password: {}\n", "db:\n  password: [redacted]\n"),
        ("Cred(user=a, password={}, n=1)", "Cred(user=a, password=[redacted], n=1)"),
        ("Cred(user='a', password='{}', n=1)", "Cred(user='a', password='[redacted]', n=1)"),
        ("RuntimeError: password={}.", "RuntimeError: password=[redacted]."),
        ("run --password {} now", "run --password [redacted] now"),
        ("{{b'password': b'{}'}}", "{{b'password': b'[redacted]'}}"),
        ('{{"password" : ["{}"]}}', '{{"password" : ["[redacted]"]}}'),
        ('[{{"name": "DB_PASSWORD", "value": "{}"}}]', '[{{"name": "DB_PASSWORD", "value": "[redacted]"}}]'),
        ("X-Api-Key: {}", "X-Api-Key: [redacted]"),
        ("run --password={} now", "run --password=[redacted] now"),
        ("<a><password>{}</password></a>", "<a><password>[redacted]</password></a>"),
        ('name="password"\r\n\r\n{}\r\n--b', 'name="password"\r\n\r\n[redacted]\r\n--b'),
        ("/cb?access_token={}&x=1#y", "/cb?access_token=[redacted]&x=1#y"),
    ],
)
def test_credentials_written_plainly(text: str, expected: str) -> None:
    redact = Redactor({})
    expected = expected.format()
    assert redact.text(text.format(PLAIN_CANARY)) == expected
    assert redact.text(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "the password: see the wiki; password=None; api_key=settings.API_KEY, token=os.environ['X']",
        "secret: MySecretType --password must be given, -- the token is optional",
        "client = Client(password=get_password(user), api_key=API_KEY, access_token=<token>)",
        "def f(password: str, api_key: Optional[str] = None): ...",
        "DB_PASSWORD=${DB_PASSWORD} DB_PASSWORD=your-password PASSWORD= ",
        "Authorization: Bearer <token>. Authorization: Bearer $TOKEN",
        "bypass=yes compass: north max_tokens=4096 page_token=CAUQAA8273aBc monkey=banana42x",
        "the key: order-1412, key=order-1412, session=12, code=1412ABX9QQ",
        "<token>left</token> <password>your-password</password>",
    ],
)
def test_what_is_written_beside_a_name_and_is_no_value(text: str) -> None:
    redact = Redactor({})
    assert redact.text(text) is text


@pytest.mark.parametrize(
    "packed",
    [
        {"$bytes": base64_of("sk-proj-abcDEF0123456789abcDEF0123456789abc", "key=", "")},
        {"text": base64_of("ghp_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA2bC4", "", "")},
        {"text": "see data:text/plain;base64," + base64_of("AKIA2QWERTYUIOP76ASD", " ", " of a long text")},
        {"text": base64_of("ghp_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA2bC4", "??>", "~~").replace("/", "_")},
    ],
)
def test_known_formats_are_found_in_base64(packed: Any) -> None:
    with pytest.raises(SecretFound, match="in base64"):
        Redactor({}).check(packed, "entry")
    assert UNPRINTABLE in str(printable(packed))


def test_learning_is_shared_by_threads() -> None:
    redact = Redactor({})
    values = [f"q{number}Zx{number * 7919:08x}kW" for number in range(40)]
    errors: list[BaseException] = []

    def work(part: list[str]) -> None:
        try:
            for value in part:
                redact.request_headers([("x-api-key", value)])
                assert redact.value([value]) == [PLACEHOLDER]
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(values[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert redact.value(values) == [PLACEHOLDER] * 40


def test_the_users_keys_patterns_and_paths() -> None:
    redact = Redactor(
        {},
        keys=["Customer-No"],
        patterns=[r"ORD-\d+", r"born (?P<secret>\d{4})"],
        paths=["$.user.ssn", "items[*].note", "**.deep"],
    )
    value = {
        "customer_no": "a",
        "text": "ORD-17 born 1980",
        "arguments": '{"customerNo": "b"}',
        "user": {"ssn": 123, "name": "n"},
        "items": [{"note": ["x"]}, {"note": None, "other": {"deep": {"y": 1}}}],
    }
    assert redact.value(value) == {
        "customer_no": PLACEHOLDER,
        "text": f"{PLACEHOLDER} born {PLACEHOLDER}",
        "arguments": f'{{"customerNo": "{PLACEHOLDER}"}}',
        "user": {"ssn": PLACEHOLDER, "name": "n"},
        "items": [{"note": PLACEHOLDER}, {"note": PLACEHOLDER, "other": {"deep": PLACEHOLDER}}],
    }
    assert redact.value(redact.value(value)) == redact.value(value)
    elsewhere = {"user": {"name": "n"}, "items": {"note": 1}}
    assert redact.value(elsewhere) is elsewhere
    assert redact.url("https://h/ORD-5?customer_no=1") == "https://h/redacted?customer_no=redacted"


@pytest.mark.parametrize(
    "user",
    [
        {"patterns": ["("]},
        {"patterns": ["x*"]},
        {"patterns": "abc"},
        {"patterns": [""]},
        {"paths": ["a..b"]},
        {"paths": ["a[x]"]},
        {"paths": ["$"]},
        {"paths": ["a."]},
        {"paths": [".a"]},
        {"paths": ["a[1]b"]},
        {"paths": [3]},
        {"keys": ["-_"]},
    ],
)
def test_bad_rules_of_the_user_are_refused(user: Any) -> None:
    with pytest.raises(UsageError, match=r"redaction|not a JSON path|regular expression"):
        Redactor({}, **user)


def test_the_rule_set_has_a_stable_name() -> None:
    first = Redactor({}).rules
    assert first == Redactor({"A_KEY": CANARY}).rules
    assert first["id"] == "spanchain-redaction/1"
    assert len(first["digest"]) == 64
    assert Redactor({}, keys=["a", "b"]).rules == Redactor({}, keys=["b", "a"]).rules
    assert len({Redactor({}, **user).rules["digest"] for user in _USERS}) == 4


def test_the_digest_of_the_rule_set_changes_with_the_options_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Redactor({}).rules
    monkeypatch.setitem(options.OPTIONS, "new-program", {"-z": options.OPTIONS["sshpass"]["-p"]})
    assert Redactor({}).rules["digest"] != before["digest"]


_USERS: list[dict[str, list[str]]] = [{}, {"keys": ["a"]}, {"patterns": ["a"]}, {"paths": ["a"]}]


def event(text: str, **more: Any) -> str:
    return "data: " + json.dumps({"id": "c1", "choices": [{"index": 0, "delta": {"content": text}}], **more}) + "\n\n"


def content(stream: str) -> str:
    parts = [json.loads(line[6:]) for line in stream.split("\n\n") if line.startswith("data: {")]
    return "".join(part["choices"][0]["delta"]["content"] for part in parts)


@st.composite
def _split(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(st.data(), st.sampled_from([CANARY, PLAIN_CANARY]))
@settings(max_examples=150, deadline=None)
def test_a_secret_split_over_events_and_chunks_is_removed(data: st.DataObject, canary: str) -> None:
    redact = redactor(canary)
    spelling = data.draw(st.sampled_from(["raw", "hex", "base64 at 0", "json"]))
    whole = f"Your key → {SPELLINGS[spelling](canary)} ✓ twice {canary}!"
    text = "".join(map(event, data.draw(_split(whole)))) + "data: [DONE]\n\n"
    size = len(text.encode())
    cuts = sorted(set(data.draw(st.lists(st.integers(1, size - 1), max_size=6))))
    chunks = [end - start for start, end in zip([0, *cuts], [*cuts, size], strict=True)]
    clean, counts = redact.stream(text, chunks)
    assert content(clean).startswith("Your key → ")
    assert content(clean).endswith(f" ✓ twice {PLACEHOLDER}!")
    assert content(clean).count(PLACEHOLDER) == 2
    assert clean.count("\n\n") == text.count("\n\n")
    assert sum(counts) == len(clean.encode())
    assert all(count > 0 for count in counts)
    redact.check({"body": {"text": clean, "message": content(clean)}}, "response")
    assert redact.stream(clean, counts) == (clean, counts)


def test_chunk_borders_stay_at_the_same_events() -> None:
    redact = redactor(PLAIN_CANARY)
    parts = [event(part) for part in ("hello ", PLAIN_CANARY[:6], PLAIN_CANARY[6:], " bye")]
    clean, counts = redact.stream("".join(parts), [len(part) for part in parts])
    expected = [event(part) for part in ("hello ", PLACEHOLDER, "", " bye")]
    assert clean == "".join(expected)
    assert counts == [len(part) for part in expected]


def test_parallel_channels_are_not_mixed_up() -> None:
    def part(index: int, text: str) -> str:
        return "data: " + json.dumps({"choices": [{"delta": {"content": text}, "index": index}]}) + "\n\n"

    half = len(PLAIN_CANARY) // 2
    first, second = PLAIN_CANARY[:half], PLAIN_CANARY[half:]
    text = part(0, first) + part(1, "other ") + part(0, second) + part(1, "text")
    clean, _ = redactor(PLAIN_CANARY).stream(text, [])
    assert clean == part(0, PLACEHOLDER) + part(1, "other ") + part(0, "") + part(1, "text")
    apart = part(0, first) + part(1, second)
    assert redactor(PLAIN_CANARY).stream(apart, [])[0] is apart


def test_tool_arguments_split_over_events_are_judged_by_their_names() -> None:
    def part(text: str) -> str:
        function = {"index": 0, "function": {"arguments": text}}
        return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [function]}}]}) + "\n\n"

    text = part('{"pass') + part('word": "hun') + part('ter2", "n') + part('": 1}')
    clean, _ = Redactor({}).stream(text, [])
    parts = [json.loads(line[6:])["choices"][0]["delta"]["tool_calls"][0] for line in clean.split("\n\n") if line]
    assert json.loads("".join(p["function"]["arguments"] for p in parts)) == {"password": PLACEHOLDER, "n": 1}


@pytest.mark.parametrize(
    "text",
    [
        f": note {PLAIN_CANARY}\n\n" + event("a"),
        f"id: {PLAIN_CANARY}\n" + event("a"),
        f'data: {{"{PLAIN_CANARY}": 1}}\n\n',
        f'data: {{"a": 1, "b": "{PLAIN_CANARY}", "a": "2"}}\n\n',
        f"event: x\ndata: plain {PLAIN_CANARY}\n\n",
        f"data: plain {PLAIN_CANARY[:9]}\n\ndata: {PLAIN_CANARY[9:]} text\n\n",
        f'data: {{"cut": "{PLAIN_CANARY}',
        f"not an event stream at all {PLAIN_CANARY}",
        f'{{"response": "{PLAIN_CANARY[:7]}"}}\n{{"response": "{PLAIN_CANARY[7:]}"}}\n',
        event("a").replace('"c1"', '{"api_key": "x", "v": "' + PLAIN_CANARY + '"}'),
        'data: {"a":\ndata: "' + PLAIN_CANARY + '"}\n\n',
    ],
)
def test_every_part_of_a_stream_is_searched(text: str) -> None:
    redact = redactor(PLAIN_CANARY)
    size = len(text)
    clean, counts = redact.stream(text, [size // 2, size - size // 2])
    assert PLAIN_CANARY not in clean
    assert PLAIN_CANARY[7:] not in clean
    assert '"api_key": "x"' not in clean
    assert clean.count(PLACEHOLDER) >= 1
    assert sum(counts) == len(clean)
    assert redact.stream(clean, counts)[0] == clean


def test_a_clean_stream_comes_back_as_the_same_objects() -> None:
    text = "".join(map(event, ["Hello", " → ", "https://h/x?page=1"])) + "data: [DONE]\n\n"
    chunks = [len(text.encode())]
    clean, counts = redactor().stream(text, chunks)
    assert clean is text
    assert counts is chunks
    with pytest.raises(ValueError, match="add up"):
        redactor().stream(text, [1])


def test_what_is_learnt_after_a_stream_is_found_in_its_pieces() -> None:
    redact = redactor()
    text = event(PLAIN_CANARY[:7]) + event(PLAIN_CANARY[7:])
    assert redact.stream(text, [len(text)])[0] is text
    redact.check({"text": text}, "a.yaml")
    assert redact.value({"api_key": PLAIN_CANARY}) == {"api_key": PLACEHOLDER}
    with pytest.raises(SecretFound):
        redact.check({"text": text}, "a.yaml")


@given(st.text(alphabet='data:{}[]",\\ \n\rab1é', max_size=60))
@settings(max_examples=150, deadline=None)
def test_odd_streams_never_raise(text: str) -> None:
    redact = redactor("ab1ab1ab1é,")
    clean, counts = redact.stream(text, [len(text.encode())] if text else [])
    assert sum(counts) == len(clean.encode())
    joined(text)


A = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA2bC4dE6fG8hJ"
KNOWN = {
    "openai": f"sk-{A}",
    "openai project": f"sk-proj-{A[:20]}_{A[20:]}",
    "anthropic": f"sk-ant-api03-{A}-_AA",
    "openrouter": f"sk-or-v1-{sha256(b'x').hexdigest()}",
    "google": f"AIza{A[:35]}",
    "google token": f"ya29.{A}",
    "aws id": "AKIA2QWERTYUIOP76ASD",
    "aws secret": f'"SecretAccessKey": "{A[:40]}"',
    "azure storage": f"AccountKey={A}{A[:42]}==",
    "hugging face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
    "groq": f"gsk_{A}abcdABCD",
    "langsmith": f"lsv2_pt_{sha256(b'x').hexdigest()[:32]}_0a1b2c3d4e",
    "github": f"ghp_{A[:36]}",
    "github fine": f"github_pat_{A}_{A}",
    "gitlab": f"glpat-{A[:20]}",
    "slack": "xoxb-123456789012-1234567890123-AbCdEfGh",
    "stripe": f"sk_live_{A[:24]}",
    "jwt": "eyJhbGciOiJIUzI1NiIs.eyJzdWIiOiIxMjM0NTY3.SflKxwRJSMeKKF2QT4fwpMeJf36POk6y",
    "telegram": f"bot1234567890:AA{A[:33]}",
    "pem": f"-----BEGIN RSA PRIVATE KEY-----\n{A}{A}\n-----END RSA PRIVATE KEY-----",
    "pem in json": f"-----BEGIN PRIVATE KEY-----\\n{A}{A}\\n",
    "url": "amqp://guest:pa55word@broker/",
}


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("frame", ["{}", "key={} ", "\\n{}", '"{}"', "/{}/", "key%3D{}"])
def test_known_formats_fail_the_recording(kind: str, frame: str) -> None:
    secret = KNOWN[kind]
    with pytest.raises(SecretFound) as caught:
        Redactor({}).check({"spans": [{"note": frame.format(secret)}]}, "entry 1")
    message = str(caught.value)
    assert "entry 1.spans[0].note" in message
    assert secret[6:14] not in message
    with pytest.raises(SecretFound, match="a key of entry 1"):
        Redactor({}).check({frame.format(secret): 1}, "entry 1")


def test_what_could_not_be_recorded_is_not_shown() -> None:
    key = "sk-proj-Zr8Kq2Xw7Lm4Vt9Bc3Nd6Hf1Jp5Gs"
    pem = f"-----BEGIN RSA PRIVATE KEY-----\n{'aB3+xY7/' * 8}\n{'cD5/qW9+' * 8}\n-----END RSA PRIVATE KEY-----"
    halves = "".join(f"data: {json.dumps({'content': part})}\n\n" for part in (key[:20], key[20:]))
    clean = {"a": [1, None, "sk-xxxx", ("b", 2.5)], "c": {"d": "text"}}
    assert printable(clean) is clean
    assert printable(({"n": 1},)) == ({"n": 1},)
    for held in (key, pem, halves, f"Bearer {key}!"):
        assert printable({"a": [held, 1], held: "b", "c": (held,)}) == {
            "a": [UNPRINTABLE, 1],
            UNPRINTABLE: "b",
            "c": (UNPRINTABLE,),
        }
    assert PLACEHOLDER != UNPRINTABLE == printable(UNPRINTABLE)


def test_a_document_is_checked_as_text_and_the_line_is_named() -> None:
    with pytest.raises(SecretFound, match=r"a\.yaml, line 3"):
        Redactor({}).check(f"a: 1\nb: 2\nc: {KNOWN['github']}\n", "a.yaml")


def test_a_known_format_split_over_events_fails_the_recording() -> None:
    secret = KNOWN["github"]
    stream = event("it is ") + event(secret[:9]) + event(secret[9:])
    assert Redactor({}).stream(stream, [])[0] is stream
    with pytest.raises(SecretFound, match="github token"):
        Redactor({}).check({"body": {"text": stream}}, "response")


@pytest.mark.parametrize(
    "text",
    [
        sha256(b"a").hexdigest(),
        "9f86d081884c7d65",
        "3f1c9a52-7d0e-4b8f-9a61-c2d4e5f60718",
        "claude-opus-4-1-20250805 gpt-4o-mini text-embedding-3-large",
        "sk-test sk-test-key sk-1234 test-key-1234",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx sk-your-key-here-your-key-here-your-key",
        "AKIAIOSFODNN7EXAMPLE",
        "risk-assessment-of-a-very-long-hyphenated-name task-aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA2b",
        "-----BEGIN PRIVATE KEY----- is how it starts",
        "-----BEGIN CERTIFICATE-----\n" + A + A,
        "https://user@host/ https://h:80/a@b postgres://user:${PASSWORD}@host/db postgres://user:<password>@host/db",
        "chatcmpl-9aBcDeFgHiJkLmNoPqRsTuVwXyZ012345 msg_01XFDUDYJgAACzvnptvVoYEL toolu_01A09q90qw90lq917835lq9",
        base64.b64encode(bytes(range(256)) * 8).decode(),
    ],
)
def test_what_cassettes_are_full_of_is_not_flagged(text: str) -> None:
    assert known_format(text) is None
    Redactor({}).check({"a": text}, "entry")


def test_a_hit_across_two_strings_is_no_hit() -> None:
    head, tail = "-----BEGIN PRIVATE KEY-----", A + A
    Redactor({}).check([head, tail], "value")


def test_a_clean_megabyte_is_quick() -> None:
    """A bound that a quadratic or per-character search breaks at once; the machine may be busy, so the best counts."""
    words = "the order was refunded to token 1412 because key risk-free 9f86d081884c7d659a2feaa0c55ad015"
    value = {"messages": [{"role": "user", "content": f"{words} " * 100} for _ in range(110)]}
    assert len(json.dumps(value)) > 1_000_000
    redact = Redactor({f"K{number}_TOKEN": f"q{number}Zx{number * 7919:08x}kW" for number in range(5)})

    def best(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    assert redact.value(value) is value
    assert best(lambda: redact.check(value, "entry")) < 0.15
    assert best(lambda: redact.value(value)) < 0.15


NAMES = [
    "api_key",
    "TOKEN",
    "to\u017fecret",
    "pa\u017f\u017f",
    "\u212aey",
    "k3y9",
    "x",
    "\u00e9",
    "a" * 70,
    "abc123def456",
]
WRITTEN = st.lists(st.sampled_from([*NAMES, *"-._=: \t\n\"'$?&", "--"]), max_size=12).map("".join)


@settings(max_examples=1500)
@given(text=WRITTEN)
def test_what_is_asked_before_a_search_never_denies_what_it_finds(text: str) -> None:
    if _names._WORD.search(text):
        assert _names.may_be_in(text)
    if _written._ASSIGNED.search(text):
        assert _written._may_set_one(text)


@pytest.mark.parametrize(
    "name",
    [
        *("_password", "__api_key", "2password", ".password", "$password", "@password", "db:password", "db/password"),
        *("\u043f\u0430\u0440\u043e\u043b\u044c_password", "x" * 57 + "password"),
    ],
)
def test_a_name_in_json_in_a_text_is_the_name_that_it_is_outside(name: str) -> None:
    value = {name: "hunter2zz9"}
    assert "hunter2zz9" not in str(redactor().value(value))
    once = json.dumps(value, ensure_ascii=False)
    for text in (once, json.dumps({"arguments": once}, ensure_ascii=False)):
        assert "hunter2zz9" not in str(redactor().value({"arguments": text})), text


@pytest.mark.parametrize(
    "data",
    [
        '{"_password":null,"note":"hello","_password":"hunter2"}',
        '{"note":"hello","pass\\u0077ord":"hunter2","note":"x"}',
        '{"password":"hunter2","note":"hello","password":"hunter3"}',
        '{"password":{"a":"hello"},"password":"hunter2"}',
    ],
)
def test_a_key_that_is_twice_in_an_event_hides_nothing_and_costs_nothing(data: str) -> None:
    text = f"data: {data}\n\n"
    clean, chunks = redactor().stream(text, [len(text)])
    assert "hunter" not in clean
    assert ("hello" in clean) == ("hello" in text)
    assert sum(chunks) == len(clean)
    assert json.loads(clean.removeprefix("data: "))
