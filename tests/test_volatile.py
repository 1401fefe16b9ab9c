"""Volatile values: green where the run's own context supplied them, then and now; red where the author changed them."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agents
from project import Project
from pytest_spanchain._volatile import Clock, Context, Volatile, coarse, tokens
from pytest_spanchain._volatile.clock import readings
from pytest_spanchain.errors import CassetteBroken
from recording import record, replay, run
from servers import ModelServer

A, B, X, Y = (str(uuid.UUID(int=number * 0x11111111111111111111111111111111)) for number in (10, 11, 1, 2))


def clock(moment: datetime, *, offset: int = 0) -> Clock:
    """A clock that ran for ten seconds, until that UTC moment."""
    end = int(moment.replace(tzinfo=timezone.utc).timestamp() * 1e9)
    return Clock(end - 10**10, end, offset)


THEN, NOW = datetime(2026, 11, 21, 17, 36, 14, 250_000), datetime(2027, 3, 5, 8, 2, 59, 10)


def context(moment: datetime, **values: str) -> Context:
    return Context((clock(moment),), {kind: frozenset(found.split()) for kind, found in values.items()})


def translated(golden: Any, live: Any, *, then: Context | None = None, now: Context | None = None, **more: Any) -> Any:
    volatile = Volatile(then or context(THEN), lambda: now or context(NOW), **more)
    return volatile.translated(golden, live)


FORMATS = [
    *("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+00:00"),
    *("%d/%m/%Y", "%m/%d/%Y", "%m/%d/%y", "%d.%m.%Y", "%Y/%m/%d", "%Y%m%d", "%Y%m%d_%H%M%S", "%Y%m%dT%H%M%SZ"),
    *("%B %d, %Y", "%A, %B %d, %Y", "%d %B %Y", "%a, %d %b %Y %H:%M:%S GMT", "%c", "%b %d", "%d %b", "%B %Y"),
    *("%Y-%m", "%m/%Y", "%G-W%V", "%G-W%V-%u", "%Y-%m-%d_%H-%M-%S", "%Y-%m-%d-%H%M%S", "%Y年%m月%d日", "%b %Y"),
    *("datetime.date(%Y, %m, %d)", "datetime.datetime(%Y, %m, %d, %H, %M, %S)"),
    *("%A", "%B", "%Y", "%H:%M", "%H:%M:%S", "%I:%M %p", "%A, %d %B %Y at %H:%M", "%d-%b-%Y", "%b %d %Y, %I:%M%p"),
]


@pytest.mark.parametrize("form", FORMATS)
def test_what_the_clock_showed_is_volatile_in_every_format(form: str) -> None:
    text = "Today ({}) is a day of 24 hours; see 10 rules."
    golden, live = (text.format(moment.strftime(form)) for moment in (THEN, NOW))
    assert golden != live
    assert translated(golden, live) == golden
    # A date or a time that is neither now's nor the recorded one is the author's.
    other = text.format((NOW + timedelta(days=400, hours=5, minutes=7)).strftime(form))
    assert translated(golden, other) == other
    # And what was the author's then is not volatile because it is now's.
    golden = text.format((THEN - timedelta(days=400, hours=5, minutes=7)).strftime(form))
    assert translated(golden, live) == live


def test_a_day_without_its_zeros() -> None:
    assert translated("on 21 Nov", "on 5 Mar") == "on 21 Nov"
    assert translated("November 21st", "March 5th") == "November 21st"


def test_the_format_is_the_authors() -> None:
    assert translated("on 2026-11-21", "on 2027/03/05") == "on 2027/03/05"
    assert translated("in November", "in Mar") == "in Mar"
    assert translated("at 17:36", "at 8:02 AM") == "at 8:02 AM"


def test_todays_date_may_stand_before_what_the_author_put_there() -> None:
    for rest in ("T00:00:00Z", " 09:00", "-0042", "T23:59:59+00:00", ", 9:00 AM"):
        golden, live = (f"since {moment:%Y-%m-%d}{rest}" for moment in (THEN, NOW))
        assert translated(golden, live) == golden
    assert translated("since 2026-11-21T09:00", "since 2027-03-05T10:00") == "since 2027-03-05T10:00"
    assert translated("since 2026-11-20T09:00", "since 2027-03-05T09:00") == "since 2027-03-05T09:00"


def test_queries_and_forms_quote_what_they_say() -> None:
    from urllib.parse import quote, urlencode

    then, now = context(THEN, uuid=A, tmp="/tmp/tmpabcdefgh"), context(NOW, uuid=X, tmp="/var/tmpstuvwxyz")
    for form in ("%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S+00:00", "%Y-%m-%d %H:%M:%S", "%d/%m/%Y", "%Y-%m-%d"):
        golden, live = (urlencode({"a": moment.strftime(form), "b": "c d"}) for moment in (THEN, NOW))
        assert translated(golden, live) == golden
        golden, live = (f"/since{quote(' ' + moment.strftime(form), safe='')}/x" for moment in (THEN, NOW))
        assert translated(golden, live) == golden
        other = urlencode({"a": (NOW + timedelta(days=2, hours=3)).strftime(form), "b": "c d"})
        assert translated(urlencode({"a": THEN.strftime(form), "b": "c d"}), other) == other
    golden, live = (
        quote(f"/{one} /{place}/x y", safe="") for one, place in ((A, "tmp/tmpabcdefgh"), (X, "var/tmpstuvwxyz"))
    )
    assert translated(golden, live, then=then, now=now) == golden
    assert translated("2026-11-21T17:36", "2027-03-05T08%3A02") == "2027-03-05T08%3A02", "another spelling is a change"


def test_local_time_is_each_machines_own() -> None:
    then = Context((clock(THEN, offset=3600),))
    now = Context((clock(NOW, offset=-5 * 3600),))
    assert translated("at 18:36:14", "at 03:02:59", then=then, now=now) == "at 18:36:14"
    golden, live = "2026-11-21T18:36:14+01:00", "2027-03-05T03:02:59-05:00"
    assert translated(golden, live, then=then, now=now) == golden
    # A zone that is not the machine's is the author's.
    moved = "2027-03-05T17:02:59+09:00"
    assert translated(golden, moved, then=then, now=now) == moved


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
def test_seconds_since_the_epoch(unit: int) -> None:
    golden, live = (int(moment.replace(tzinfo=timezone.utc).timestamp() * unit) for moment in (THEN, NOW))
    assert translated({"at": golden, "text": f"at {golden}"}, {"at": live, "text": f"at {live}"}) == {
        "at": golden,
        "text": f"at {golden}",
    }
    assert translated(golden, live + 3600 * unit) == live + 3600 * unit


def test_a_float_of_seconds() -> None:
    golden, live = (moment.replace(tzinfo=timezone.utc).timestamp() for moment in (THEN, NOW))
    assert translated([golden], [live]) == [golden]
    assert translated([golden], [int(live)]) == [int(live)], "another type is a change"


def test_a_uuid_is_volatile_where_both_processes_made_it() -> None:
    then, now = context(THEN, uuid=A), context(NOW, uuid=X)
    assert translated(f"id {A}", f"id {X}", then=then, now=now) == f"id {A}"
    bare, live = A.replace("-", ""), X.replace("-", "")
    assert translated(f"run-{bare}", f"run-{live}", then=then, now=now) == f"run-{bare}"
    assert translated(f"id {A}", f"id {live}", then=then, now=now) == f"id {live}", "another form is a change"
    assert translated(f"id {A}", f"id {Y}", then=then, now=now) == f"id {Y}", "nobody made it"
    assert translated(f"id {B}", f"id {X}", then=then, now=now) == f"id {X}", "it was the author's"


@pytest.mark.parametrize("length", [8, 12, 24, 31])
def test_a_uuid_that_was_cut_off(length: int) -> None:
    first, second = "0123a567-8c9d-4eef-8123-456789abcdef", "76543210-1234-4321-8765-0123456789ab"
    then, now = context(THEN, uuid=f"{first} {A}"), context(NOW, uuid=f"{second} {X}")
    cut, live = (one.replace("-", "")[:length] for one in (first, second))
    assert translated(f"call_{cut} ", f"call_{live} ", then=then, now=now) == f"call_{cut} "
    assert coarse(f"call_{cut} ", known={}) == coarse(f"call_{live} ", known={})
    unknown = f"call_{Y.replace('-', '')[:length]}"
    assert translated(f"call_{cut}", unknown, then=then, now=now) == unknown
    assert translated([first, cut], [second, live], then=then, now=now) == [first, cut]
    assert translated([first, cut], [X, live], then=then, now=now) == [first, live], "it is another one's"
    kept = context(THEN, uuid=f"{first} {A}").within([(f"call_{cut}", None)])
    assert kept.values == {"uuid": {first}}


def test_a_number_is_not_taken_for_an_id() -> None:
    then, now = context(THEN, uuid=A), context(NOW, uuid=X)
    for golden, live in (("12345678901234567890" * 2, "9" * 40), ("123456.789", "123456.788"), ("1" * 31, "2" * 31)):
        assert translated(f"n {golden}", f"n {live}", then=then, now=now) == f"n {live}"


def test_ids_that_touch() -> None:
    then, now = context(THEN, uuid=f"{A} {B}"), context(NOW, uuid=f"{X} {Y}")
    assert translated(f"{A}-{B}", f"{X}-{Y}", then=then, now=now) == f"{A}-{B}"


def test_a_uuid_that_says_when_it_was_made() -> None:
    """Version 7; many libraries bring a maker of their own."""

    def made(moment: datetime) -> str:
        milliseconds = int(moment.replace(tzinfo=timezone.utc).timestamp() * 1000)
        return str(uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62) | 0x1234))

    golden, live = made(THEN), made(NOW)
    assert translated(golden, live) == golden
    assert translated(golden, made(NOW - timedelta(hours=1))) != golden
    assert translated(made(THEN - timedelta(hours=1)), live) == live


def test_one_id_stays_one_id() -> None:
    then, now = context(THEN, uuid=f"{A} {B}"), context(NOW, uuid=f"{X} {Y}")
    assert translated([A, B, A], [X, Y, X], then=then, now=now) == [A, B, A]
    assert translated([A, A], [X, Y], then=then, now=now) == [A, Y]
    assert translated([A, B], [X, X], then=then, now=now) == [A, X]


def test_what_was_settled_holds_for_the_rest_of_the_run() -> None:
    volatile = Volatile(context(THEN, uuid=f"{A} {B}"), lambda: context(NOW, uuid=f"{X} {Y}"))
    assert volatile.translated(B, X) == B, "asking settles nothing"
    assert volatile.claim(A, X).value == A
    assert volatile.translated(B, X) == X
    assert volatile.translated(B, Y) == B
    judged = volatile.fork()
    assert judged.claim(B, X).value == X
    assert judged.claim(B, Y).value == B
    assert volatile.claim(A, Y).value == Y


def test_paths_are_those_of_the_machine() -> None:
    then = context(THEN, cwd="/home/alice/shop", home="/home/alice", tmp="/tmp /tmp/pytest-of-alice/pytest-3")
    now = context(NOW, cwd="/builds/7/shop", home="/root", tmp="/var/tmp /var/tmp/pytest-of-root/pytest-0")
    golden = "read /home/alice/shop/a.csv, /home/alice/.netrc, file:///tmp/pytest-of-alice/pytest-3/test_x0/b.txt."
    live = "read /builds/7/shop/a.csv, /root/.netrc, file:///var/tmp/pytest-of-root/pytest-0/test_x0/b.txt."
    assert translated(golden, live, then=then, now=now) == golden
    for changed in ("/builds/7/shop/b.csv", "/builds/7/shopping/a.csv", "/root/shop/a.csv", "/builds/7/a.csv"):
        other = live.replace("/builds/7/shop/a.csv", changed)
        assert translated(golden, other, then=then, now=now) != golden
    assert translated("in /home/alice2", "in /root2", then=then, now=now) == "in /root2"


def test_another_temporary_directory_is_a_change() -> None:
    then = context(THEN, tmp="/tmp /tmp/tmpabcdefgh /tmp/tmpijklmnop /tmp/pytest-of-a/pytest-3/test_x0")
    now = context(NOW, tmp="/tmp /tmp/tmpqrstuvwx /tmp/tmpyz012345 /tmp/pytest-of-b/pytest-12/test_x1")
    here, there = "/tmp/tmpabcdefgh", "/tmp/tmpqrstuvwx"
    assert translated(f"in {here}/x", f"in {there}/x", then=then, now=now) == f"in {here}/x"
    assert translated(f"in {here}/x", "in /tmp/x", then=then, now=now) == "in /tmp/x"
    assert translated("in /tmp/x", f"in {there}/x", then=then, now=now) == f"in {there}/x"
    made, live = "/tmp/pytest-of-a/pytest-3/test_x0", "/tmp/pytest-of-b/pytest-12/test_x1"
    assert translated(made, live, then=then, now=now) == made
    assert translated(made, there, then=then, now=now) == there
    # Each stands for one: to copy the other way round is a change.
    said = [f"first {here}, then /tmp/tmpijklmnop", f"copy {here} to /tmp/tmpijklmnop"]
    changed = [f"first {there}, then /tmp/tmpyz012345", f"copy /tmp/tmpyz012345 to {there}"]
    assert translated(said, changed, then=then, now=now) == [said[0], changed[1]]


def test_what_is_still_there_stands_for_itself() -> None:
    then, now = (
        context(THEN, cwd="/a/shop", port="8080 40001"),
        context(NOW, cwd="/a/shop /tmp/x", port="8080 8081 5000"),
    )
    assert translated("in /a/shop", "in /tmp/x", then=then, now=now) == "in /tmp/x"
    for text in ("port {}", "http://localhost:{}/a"):
        assert translated(text.format(8080), text.format(8081), then=then, now=now) == text.format(8081)
        assert translated(text.format(40001), text.format(5000), then=then, now=now) == text.format(40001)
    named = Context((clock(NOW),), {"port": {"40001", "40002"}}, settled={"40001"})
    assert translated("port 40001", "port 40002", then=then, now=named) == "port 40002"


def test_a_path_that_both_name_is_left_alone() -> None:
    then, now = context(THEN, cwd="/srv/app"), context(NOW, cwd="/work")
    assert translated("/srv/app/x at 17:36", "/srv/app/x at 08:02", then=then, now=now) == "/srv/app/x at 17:36"


def test_ports_and_the_number_of_the_process() -> None:
    then, now = context(THEN, port="40001", pid="77"), context(NOW, port="50002", pid="1234")
    golden = "http://127.0.0.1:40001/v1 by 77"
    assert translated(golden, "http://127.0.0.1:50002/v1 by 1234", then=then, now=now) == golden
    moved = "http://localhost:50002/v1 by 77"
    assert translated(golden, moved, then=then, now=now) == moved, "another name of the host is a change"
    other = "http://127.0.0.1:9000/v1 by 78"
    assert translated(golden, other, then=then, now=now) == other
    assert translated({"port": 40001, "pid": 77}, {"port": 50002, "pid": 1234}, then=then, now=now) == {
        "port": 40001,
        "pid": 77,
    }


def test_a_changed_text_is_translated_where_it_corresponds() -> None:
    assert translated("Refund it. It is 17:36 now.", "Return it. It is 08:02 now.") == "Return it. It is 17:36 now."
    assert translated("a 17:36 b", "a b c 08:02 b") == "a b c 17:36 b"


def test_keys_are_translated_too() -> None:
    assert translated({"2026-11-21": 1, "x": 2}, {"2027-03-05": 1, "x": 2}) == {"2026-11-21": 1, "x": 2}
    assert translated({"2026-11-21": 1}, {"2027-03-05": 2}) == {"2026-11-21": 2}


def test_keys_are_told_apart_by_what_they_stand_for() -> None:
    then, now = context(THEN, uuid=f"{B} {A}"), context(NOW, uuid=f"{X} {Y}")
    assert translated({A: 1, B: 2, "first": A}, {Y: 1, X: 2, "first": Y}, then=then, now=now) == {
        A: 1,
        B: 2,
        "first": A,
    }
    assert translated({A: 1, B: 2}, {X: 2, Y: 1}, then=then, now=now) == {A: 1, B: 2}
    changed = translated({A: 1, B: 2, "first": A}, {Y: 1, X: 2, "first": X}, then=then, now=now)
    assert changed != {A: 1, B: 2, "first": A}


@pytest.mark.parametrize(
    ("kind", "golden", "live"),
    [
        ("clock", "2026-11-21", "2027-03-05"),
        ("uuid", A, X),
        ("pid", "77", "88"),
        ("cwd", "/a/b", "/c/d"),
        ("home", "/home/a", "/home/b"),
        ("tmp", "/tmp/a", "/tmp/b"),
        ("port", "localhost:4000", "localhost:5000"),
    ],
)
def test_each_kind_can_be_compared_exactly(kind: str, golden: str, live: str) -> None:
    then, now = (
        context(moment, **{} if kind == "clock" else {kind: text.rpartition(":")[2]})
        for moment, text in ((THEN, golden), (NOW, live))
    )
    assert translated(golden, live, then=then, now=now) == golden
    assert translated(golden, live, then=then, now=now, exact=[kind]) == live


def test_bits_and_nothing_are_left_alone() -> None:
    for golden, live in ((True, False), (None, "x"), ("x", None), ({"a": 1}, [1]), ("1", 1)):
        assert translated(golden, live) == live


@given(st.text(alphabet=st.sampled_from("ab1 2-:/.T05NovemberMay,APM"), max_size=60))
def test_pieces_are_the_text(text: str) -> None:
    assert "".join(piece.text for piece in tokens.pieces(text, paths={"/a/b", "/a"})) == text


_MOMENTS = st.datetimes(min_value=datetime(2001, 1, 1), max_value=datetime(2060, 1, 1))
_PARTS = st.one_of(
    st.sampled_from(FORMATS),
    st.sampled_from(["{cwd}/x.csv", "{uuid}", "{pid}", "http://localhost:{port}/v1", "plain", "7 of 12", "{cwd}"]),
)


@given(st.lists(_PARTS, min_size=1, max_size=6), _MOMENTS, _MOMENTS)
def test_what_contexts_supply_is_equal_in_the_index_and_when_translated(
    parts: list[str], then: datetime, now: datetime
) -> None:
    values: tuple[Mapping[str, str], Mapping[str, str]] = (
        {"cwd": "/home/alice/shop", "uuid": A, "pid": "77", "port": "40001"},
        {"cwd": "/builds/7/shop", "uuid": X, "pid": "1234", "port": "5002"},
    )
    golden, live = (
        " | ".join(part.format(**known) if "%" not in part else moment.strftime(part) for part in parts)
        for moment, known in ((then, values[0]), (now, values[1]))
    )
    contexts = [context(moment, **known) for moment, known in ((then, values[0]), (now, values[1]))]
    assert translated({"text": golden}, {"text": live}, then=contexts[0], now=contexts[1]) == {"text": golden}
    assert coarse({"text": golden}, known={}) == coarse({"text": live}, known={})
    volatile = Volatile(contexts[0], lambda: contexts[1])
    assert volatile.masked({"text": golden, golden: [1, True]}) == volatile.masked({"text": live, live: [1, True]})


@given(st.text(max_size=40), st.text(max_size=40))
def test_only_recorded_values_are_ever_put_in(golden: str, live: str) -> None:
    assert translated(golden, live, then=Context(), now=Context()) == live


def test_what_is_no_date_reads_as_none() -> None:
    assert not list(readings("2026-13-41"))
    assert not list(readings("13:00 PM"))
    assert [reading.fields["day"] for reading in readings("03/04/2026")] == [3, 4]


def test_a_context_keeps_what_occurs_and_survives_the_file() -> None:
    known = context(THEN, uuid=f"{A} {B}", cwd="/home/alice/shop", home="/home/alice", pid="77", port="40001 40002")
    sent = {"text": f"see /home/alice/shop/x, {A.replace('-', '')} at http://localhost:40001"}
    kept = known.within([(sent, {"id": B}), ([A, B], None)])
    assert kept.values == {"uuid": {A}, "cwd": {"/home/alice/shop"}, "home": {"/home/alice"}, "port": {"40001"}}
    assert Context.from_plain(kept.to_plain()) == Context(
        kept.clocks, {kind: frozenset(found) for kind, found in kept.values.items()}
    )
    assert Context.from_plain(None) == Context()


@pytest.mark.parametrize("others", [0, 100])
def test_few_ids_and_many_are_found_alike(others: int) -> None:
    more = " ".join(str(uuid.UUID(int=number << 96)) for number in range(1, others + 1))
    known = context(THEN, uuid=f"{A} {B} {more}")
    sent = [f"{A.upper()}!", f"-{B[:8]}-", "0" * 40, "none"]
    assert known.within([(sent, None)]).values == {"uuid": {A, B}}
    assert known.within([(["none"], sent), (sent, None)]).values == {}


@pytest.mark.parametrize("plain", [{}, {"clocks": [{}], "values": {}}, {"clocks": 3, "values": {}}, [], {"clocks": []}])
def test_a_context_that_is_none_is_an_error(plain: Any) -> None:
    with pytest.raises(CassetteBroken, match="no context of a run"):
        Context.from_plain(plain)


# --- through a run ---------------------------------------------------------------------------------------------------


def test_parallel_agents_with_ids_of_their_own(sdk_env: ModelServer, tmp_path: Path) -> None:
    """Each has an id that it made, in two calls: whoever comes first, each gets its own answers, and swaps are seen."""
    from model_replies import answer, last_text

    sdk_env.script(lambda request: answer(request, last_text(request)[-6:]))

    def agent(*, swapped: bool = False) -> list[str]:
        ids = [uuid.uuid4() for _ in range(3)]
        first = [agents.ask(f"begin {one} of customer {number:06}") for number, one in enumerate(ids)]
        again = [ids[1], ids[0], ids[2]] if swapped else ids
        return first + [agents.ask(f"end {one} of customer {number:06}") for number, one in enumerate(again)]

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent)
    again = replay(cassette, agent)
    assert again.value == recorded.value
    assert {one.kind for _, one in again.verdict.substitutions} == {"uuid"}
    changed = run(cassette, lambda: agent(swapped=True))
    assert changed.failure is not None
    assert {cause.kind for cause in changed.causes} == {"input_changed"}


def test_tool_arguments_may_be_volatile(sdk_env: ModelServer, tmp_path: Path) -> None:
    from pytest_spanchain import tool

    ran: list[Any] = []

    @tool
    def book(when: datetime, ticket: uuid.UUID, folder: Path, *, fixed: str = "2030-01-01") -> str:
        ran.append(ticket)
        return f"booked {ticket}"

    def agent(fixed: str = "2030-01-01") -> str:
        return book(datetime.now(), uuid.uuid4(), tmp_path / "x", fixed=fixed)

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent)
    assert replay(cassette, agent).value == recorded.value
    assert len(ran) == 1
    changed = run(cassette, lambda: agent(fixed="2030-01-02"))
    (cause,) = changed.causes
    assert [change.path for change in cause.changes] == ["request.arguments.fixed"]


def test_ids_that_an_answer_carried_follow_it(sdk_env: ModelServer, tmp_path: Path) -> None:
    from model_replies import answer

    sdk_env.script(lambda request: answer(request, str(uuid.uuid4())))

    def agent(ticket: str = "") -> str:
        given = agents.ask("a ticket, please")
        return agents.ask(f"close {ticket or given}")

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent)
    assert replay(cassette, agent).value == recorded.value
    changed = run(cassette, lambda: agent(ticket=str(uuid.uuid4())))
    assert [cause.kind for cause in changed.causes] == ["input_changed"], "a fresh id instead of the answer's"


def test_spans_of_others_may_carry_ids_too(sdk_env: ModelServer, tmp_path: Path) -> None:
    from opentelemetry import trace

    from project import echo

    sdk_env.script(echo)

    def agent(version: str = "1") -> str:
        tracer = trace.get_tracer("my.framework")
        attributes = {"session.id": str(uuid.uuid4()), "agent.version": version}
        with tracer.start_as_current_span("invoke_agent", attributes=attributes) as span:
            span.add_event("begun", {"at": datetime.now().isoformat()})
            return agents.ask("hello")

    cassette = tmp_path / "run.yaml"
    record(cassette, agent)
    again = replay(cassette, agent)
    assert {one.kind for _, one in again.verdict.substitutions} == {"uuid", "clock"}
    changed = run(cassette, lambda: agent("2"))
    assert [cause.kind for cause in changed.causes] == ["attribute_changed"]


def test_spans_of_others_that_share_an_id_must_share_it(sdk_env: ModelServer, tmp_path: Path) -> None:
    from opentelemetry import trace

    def agent(*, shared: bool = True) -> None:
        tracer = trace.get_tracer("my.framework")
        session = str(uuid.uuid4())
        for name in ("plan", "act"):
            value = session if shared else str(uuid.uuid4())
            with tracer.start_as_current_span(name, attributes={"plan.id": value}):
                lookup(name)

    cassette = tmp_path / "run.yaml"
    record(cassette, agent, tools=[lookup])
    replay(cassette, agent, tools=[lookup])
    assert run(cassette, lambda: agent(shared=False), tools=[lookup]).failure is not None


def lookup(name: str) -> str:
    return name


def test_names_may_carry_ids_too(sdk_env: ModelServer, tmp_path: Path) -> None:
    import httpx
    from opentelemetry import trace

    from servers import Json

    sdk_env.script(lambda request: Json({"ok": True}))

    def agent(word: str = "session", step: str = "steps") -> int:
        with trace.get_tracer("my.framework").start_as_current_span(f"{word} {uuid.uuid4()}"):
            return httpx.get(f"{sdk_env.url}/{step}/{uuid.uuid4()}/{datetime.now():%Y-%m-%d_%H-%M-%S}").status_code

    cassette = tmp_path / "run.yaml"
    record(cassette, agent)
    assert replay(cassette, agent).value == 200
    assert run(cassette, lambda: agent("task")).failure is not None
    assert run(cassette, lambda: agent(step="tests")).failure is not None


def test_what_a_tool_gives_that_runs_in_replay_may_be_volatile(sdk_env: ModelServer, tmp_path: Path) -> None:
    from project import echo

    sdk_env.script(echo)

    def agent(word: str = "ticket") -> str:
        return agents.ask(f"close {ticket(word)}")[:9]

    cassette = tmp_path / "run.yaml"
    settings: dict[str, Any] = {"tools": [ticket], "run": ["*ticket"]}
    record(cassette, agent, **settings)
    assert {one.kind for _, one in replay(cassette, agent, **settings).verdict.substitutions} == {"uuid", "clock"}
    changed = run(cassette, lambda: agent("bill"), **settings)
    assert {cause.kind for cause in changed.causes} >= {"input_changed"}
    global OPEN
    try:
        OPEN = False
        gives_else = run(cassette, agent, **settings)
    finally:
        OPEN = True
    assert gives_else.failure is not None


OPEN = True


def ticket(word: str) -> str:
    return f"{word} {uuid.uuid4()} of {datetime.now()}, open: {OPEN}"


def test_free_ports_that_are_looked_for_are_known() -> None:
    import socket

    from pytest_spanchain import _fresh

    _fresh.watch_makers()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        assert _fresh.context().has("port", str(found.getsockname()[1]))


def test_a_clock_that_is_stopped_is_beside_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """As freezegun does it: the clocks of modules are replaced, that of steps as well."""
    import time

    from pytest_spanchain import _fresh

    stopped = int(datetime(2030, 1, 1, tzinfo=timezone.utc).timestamp() * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: stopped)
    monkeypatch.setattr(time, "monotonic_ns", lambda: stopped)
    known, moved = _fresh.context().clocks
    assert moved.moved
    assert moved.end_ns == stopped
    assert not known.moved
    assert known.end_ns < stopped
    for one in (known, moved):
        assert one.end_ns - one.start_ns < 86400 * 10**9


def test_both_offsets_of_a_night_in_spring(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from pytest_spanchain import _fresh

    hour = 3600 * 10**9
    change = int(datetime(2026, 3, 29, 1, tzinfo=timezone.utc).timestamp() * 1e9)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        monkeypatch.setattr(_fresh, "_STARTED", (change - hour, 0))
        monkeypatch.setitem(_fresh._TRUE, "steps", lambda: 2 * hour)
        monkeypatch.setattr(time, "time_ns", lambda: change + hour)
        known = Context(_fresh._clocks())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert {one.offset for one in known.clocks} == {3600, 7200}
    now = context(datetime(2026, 7, 1, 10, 0))
    for shown in ("01:30", "03:30"):
        assert translated(f"at {shown}", "at 10:00", then=known, now=now) == f"at {shown}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_may_be_forked_while_a_maker_works() -> None:
    import threading

    from pytest_spanchain import _fresh

    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with _fresh._lock:
            held.set()
            over.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    child = os.fork()
    if child == 0:
        os._exit(0 if _fresh._lock.acquire(timeout=5) else 1)
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
        holder.join()


def test_makers_may_run_in_threads_while_others_ask() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from pytest_spanchain import _fresh

    _fresh.watch()
    limit = _fresh._REMEMBERED["uuid"]
    for _ in range(limit):
        uuid.uuid4()
    with ThreadPoolExecutor(4) as pool:
        makers = [pool.submit(lambda: [uuid.uuid4() for _ in range(2_000)]) for _ in range(3)]
        asked = pool.submit(lambda: [_fresh.context().within([("x", "y")]) for _ in range(50)])
    for made in makers:
        made.result()
    asked.result()
    assert len(_fresh.context().values["uuid"]) == limit


def test_a_maker_that_is_watched_looks_like_itself() -> None:
    import inspect

    from pytest_spanchain import _fresh

    _fresh.watch_makers()
    assert list(inspect.signature(uuid.uuid1).parameters) == ["node", "clock_seq"]
    assert "def uuid4" in inspect.getsource(uuid.uuid4)


def test_many_that_differ_in_a_number_are_told_apart_at_once(
    sdk_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each carries the time, and in replay they come in another order, as those of parallel agents do."""
    import asyncio

    from caller import aask
    from project import echo

    sdk_env.script(lambda request: echo(request))
    count, looks = 60, [0]

    async def agent(*, late: bool) -> list[str]:
        turns = [asyncio.Event() for _ in range(count)]

        async def one(number: int) -> str:
            await turns[number].wait()
            said = await aask(f"item {number} at {datetime.now()}")
            turns[(number - 1 if late else number + 1) % count].set()
            return said.partition(" at ")[0]

        turns[count - 1 if late else 0].set()
        return list(await asyncio.gather(*map(one, range(count))))

    translated = Volatile.translated

    def counted(self: Volatile, golden: Any, live: Any) -> Any:
        looks[0] += 1
        return translated(self, golden, live)

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, lambda: asyncio.run(agent(late=False)))
    monkeypatch.setattr(Volatile, "translated", counted)
    assert replay(cassette, lambda: asyncio.run(agent(late=True))).value == recorded.value
    assert looks[0] <= 5 * count


def test_a_re_recording_does_not_tell_of_volatile_values(sdk_env: ModelServer, tmp_path: Path) -> None:
    from project import echo

    sdk_env.script(echo)
    cassette = tmp_path / "run.yaml"

    def agent(word: str = "Hello") -> str:
        return agents.ask(f"{word} {uuid.uuid4()}")[:3]

    record(cassette, agent)
    again = record(cassette, agent)
    assert not again.verdict.deviations, "nor of the answer's echo of the id"
    changed = record(cassette, lambda: agent("Bye"))
    assert "input_changed" in {deviation.kind for deviation in changed.verdict.deviations}
    assert replay(cassette, lambda: agent("Bye")).verdict.substitutions


def test_what_is_added_to_a_cassette_has_its_own_context(sdk_env: ModelServer, tmp_path: Path) -> None:
    from project import echo

    sdk_env.script(echo)
    cassette = tmp_path / "run.yaml"

    def agent(*more: str) -> list[str]:
        return [agents.ask(f"{word} {uuid.uuid4()}")[:3] for word in ("one", *more)]

    record(cassette, agent)
    record(cassette, lambda: agent("two"), mode="new_episodes")
    assert len(replay(cassette, lambda: agent("two")).verdict.substitutions) == 2


AGENT = """
import os, sys, tempfile, uuid
from datetime import date, datetime
from pathlib import Path

SESSION = uuid.uuid4()  # made when the module is imported, before any test runs, and before pytest is configured

def prompt(word="Refund", due="2026-12-24", home="~"):
    return (
        f"{word} it. Today is {date.today():%A, %d %B %Y}, {datetime.now().isoformat()}, due {due}; session {SESSION}, "
        f"request {uuid.uuid4()}, process {os.getpid()}, in {os.getcwd()}/data, home {Path(home).expanduser()}/notes, "
        f"file {tempfile.mkdtemp()}/out.txt"
    )
"""

TEST = """
import pytest
from agent_under_test import prompt

@pytest.mark.cassette
def test_same(tmp_path):
    assert ask(prompt() + f" and {tmp_path}/report.csv").startswith("You said")

@pytest.mark.cassette
def test_word():
    ask(prompt(**CHANGED_WORD))

@pytest.mark.cassette
def test_date():
    ask(prompt(**CHANGED_DATE))
"""


def test_next_month_on_another_machine(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded here; replayed a month later with another home, temporary directory and working directory."""
    project.find(project.path, monkeypatch=monkeypatch)
    project.write(AGENT, "agent_under_test.py")
    project.write("import agent_under_test\n", "conftest.py")
    project.write(TEST.replace("CHANGED_WORD", "{}").replace("CHANGED_DATE", "{}"))
    assert project.run("--record-mode=once", process=True).outcomes == {"passed": 3}
    project.server.close()
    for name in ("HOME", "TMPDIR"):
        place = tmp_path / name.lower()
        place.mkdir()
        monkeypatch.setenv(name, str(place))
    moment = (datetime.now(timezone.utc) + timedelta(days=31, hours=5)).isoformat()
    # Before anybody can have seen another time, as on a machine whose clock says so.
    project.write(f"import time_machine\ntime_machine.travel({moment!r}, tick=True).start()\n", "sitecustomize.py")
    green = project.run("-vv", process=True)
    assert green.outcomes == {"passed": 3}, green.out
    assert "not compared, supplied by the runs' own contexts: 6 clock" in green.out
    assert "uuid: test_it.py::test_same: chat gpt-test: request.body.json.messages[0].content: " in green.out
    project.write(
        TEST.replace("CHANGED_WORD", "{'word': 'Return'}").replace("CHANGED_DATE", "{'due': '2026-12-25'}"),
    )
    red = project.run(process=True)
    assert red.outcomes == {"passed": 1, "failed": 2}, red.out
    assert red.out.count("1 deviation from the golden trace: input_changed") >= 2
    exact = project.run("-o", "spanchain_exact=clock", "-k", "test_same", process=True)
    assert exact.outcomes == {"failed": 1, "deselected": 2}, exact.out


FROZEN = """
import datetime
import pytest, time_machine

TARGETS = ["2030-01-07T09:30:00Z"] * 7

@pytest.fixture
def frozen():
    with time_machine.travel(TARGETS[0], tick=False):
        yield

def prompt():
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"Today is {now:%A, %d %B %Y}, the time is {now.isoformat()}, in seconds {now.timestamp()}."

@pytest.mark.cassette
def test_fixture(frozen):
    ask(prompt())

@time_machine.travel(TARGETS[1], tick=False)
@pytest.mark.cassette
def test_decorated():
    ask(prompt())

@time_machine.travel(TARGETS[2], tick=True)
@pytest.mark.cassette
def test_goes_on():
    ask(prompt())

@pytest.mark.cassette
def test_goes_on_in_a_part():
    with time_machine.travel(TARGETS[3], tick=True):
        ask(prompt())

@pytest.mark.cassette
def test_two_parts():
    for target in TARGETS[4:6]:
        with time_machine.travel(target, tick=True):
            ask(prompt())

class TestClass:
    @pytest.fixture(scope="class", autouse=True)
    def moved(self):
        with time_machine.travel(TARGETS[6], tick=True):
            yield

    @pytest.mark.cassette
    @pytest.mark.parametrize("number", range(2))
    def test_in_class(self, number):
        ask(prompt())
"""


def test_a_clock_that_a_test_stops_shows_what_its_author_chose(project: Project) -> None:
    """Green when the same time is replayed, also if the clock goes on from it; red when it was changed or let go."""
    project.write(FROZEN)
    recorded = project.record()
    assert recorded.outcomes == {"passed": 7}
    project.server.close()
    for _ in range(2):
        green = project.run()
        assert green.outcomes == {"passed": 7}, green.out
        assert green.counts["replayed"] == 7
    for other in ("2031-02-03T09:30:00Z", "2030-01-08T09:30:00Z", "2030-01-07T10:30:00Z"):
        project.write(FROZEN.replace("2030-01-07T09:30:00Z", other))
        red = project.run()
        assert red.outcomes == {"failed": 7}, red.out
        assert len(re.findall(r"from the golden trace: (?:first )?input_changed at", red.out)) == 7
    project.write(FROZEN.replace('["2030-01-07T09:30:00Z"]', "[datetime.datetime.now(datetime.timezone.utc)]"))
    assert project.run().outcomes == {"failed": 7}


def test_the_machines_date_in_a_prompt_is_volatile_where_the_recording_had_no_other(project: Project) -> None:
    """Nor is a date volatile because the clock was stopped at it only now."""
    source = FROZEN.partition("@time_machine")[0]
    project.write(source.replace("frozen):", "):"))
    assert project.record().outcomes == {"passed": 1}
    assert project.run().outcomes == {"passed": 1}
    project.write(source)
    assert project.run().outcomes == {"failed": 1}


@pytest.mark.parametrize("by", ["command line", "conftest"])
def test_ids_of_modules_are_known_however_the_plugin_comes(
    project: Project, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.find(project.path, monkeypatch=monkeypatch)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    project.pytester.makeini("[pytest]")
    project.write("import uuid\nSESSION = uuid.uuid4()\n", "agent_under_test.py")
    project.write(
        """
from agent_under_test import SESSION

@pytest.mark.cassette
def test_session():
    ask(f"session {SESSION}")
"""
    )
    plugin = "pytest_spanchain.plugin"
    args = ("-p", plugin) if by == "command line" else ()
    # What a conftest imports before it names the plugin was made before anybody could see it.
    project.write("import agent_under_test\n" if args else f"pytest_plugins = [{plugin!r}]\n", "conftest.py")
    assert project.run("--spanchain-mode=once", *args, process=True).outcomes == {"passed": 1}
    green = project.run(*args, process=True)
    assert green.outcomes == {"passed": 1}, green.out
    assert "not compared, supplied by the runs' own contexts: 1 uuid" in green.out


def test_the_root_directory_is_each_machines_own(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither time is it the working directory."""
    here, there, moved = (tmp_path / name for name in ("here", "there", "moved"))
    here.mkdir()
    there.mkdir()
    project.write(
        """
PLACES = ["{root}/data/a.csv"] * 3

@pytest.mark.cassette
@pytest.mark.parametrize("number", range(3))
def test_root(pytestconfig, number):
    ask("read " + PLACES[number].format(root=pytestconfig.rootpath, above=pytestconfig.rootpath.parent))
"""
    )
    test = project.path / "test_it.py"
    monkeypatch.chdir(here)
    assert project.run(str(test), "--record-mode=once", process=True).outcomes == {"passed": 3}
    shutil.copytree(project.path, moved)
    monkeypatch.chdir(there)
    green = project.run(str(moved / test.name), process=True)
    assert green.outcomes == {"passed": 3}, green.out
    assert "not compared, supplied by the runs' own contexts: 3 cwd" in green.out
    changed = test.read_text("utf-8").replace('["{root}/data/a.csv"] * 3', str(CHANGED_PLACES))
    (moved / test.name).write_text(changed, "utf-8")
    red = project.run(str(moved / test.name), process=True)
    assert red.outcomes == {"failed": 3}, red.out
    assert red.out.count("1 deviation from the golden trace: input_changed") >= 3


CHANGED_PLACES = ["{root}/data/b.csv", "{above}/data/a.csv", "{root}-old/data/a.csv"]


def test_json_rpc_counts_for_itself(sdk_env: ModelServer, tmp_path: Path) -> None:
    import httpx

    from servers import Json

    sdk_env.script(lambda request: Json({"jsonrpc": "2.0", "id": 1, "result": {}}))

    def agent(number: int = 1, trace: str = "00-aa-bb-01", name: str = "add") -> int:
        meta = {"traceparent": trace, "progressToken": number}
        call = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": name, "_meta": meta}}
        return httpx.post(f"{sdk_env.url}/mcp", json=call).status_code

    cassette = tmp_path / "run.yaml"
    record(cassette, agent)
    replay(cassette, lambda: agent(7, "00-cc-dd-01"))
    assert run(cassette, lambda: agent(7, "00-cc-dd-01", "subtract")).failure is not None
    assert run(cassette, lambda: agent(7, "00-cc-dd-01"), exact=["stack"]).failure is not None


def test_environment_names_the_ports_of_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_spanchain import _fresh

    monkeypatch.setenv("SHOP_URL", "http://127.0.0.1:45123/api")
    assert _fresh.context().has("port", "45123")
    assert _fresh.context().has("pid", str(os.getpid()))


def test_long_blobs_cost_nothing_and_are_left_alone() -> None:
    blob = "QUJD2026-11-21" * 100_000
    assert translated([blob, "2026-11-21"], [blob.replace("Q", "q"), "2027-03-05"]) == [
        blob.replace("Q", "q"),
        "2026-11-21",
    ]
    assert [piece.shape for piece in tokens.pieces(f"see {blob}")] == [tokens.LITERAL]
    assert coarse(blob, known={}) == blob


@pytest.mark.parametrize("mode", ["none", "rewrite"])
def test_a_cassette_with_a_bad_context_is_refused_and_can_be_replaced(
    mode: str, sdk_env: ModelServer, tmp_path: Path
) -> None:
    from builders import sample_document
    from project import echo
    from pytest_spanchain import CassetteBroken as Broken
    from pytest_spanchain import _codec

    sdk_env.script(echo)
    cassette = tmp_path / "run.yaml"
    document = sample_document(nodeid="run.yaml", recorder={"plugin": "0", "python": "3", "scopes": [], "context": 3})
    cassette.write_bytes(_codec.dumps(document))
    if mode == "none":
        with pytest.raises(Broken, match="no context of a run"):
            run(cassette, lambda: agents.ask("hello"))
    else:
        assert "could not be compared with" in record(cassette, lambda: agents.ask("hello")).verdict.notes[0]


def test_tests_own_directories_elsewhere_are_known_without_a_marked_test(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(
        """
import os
from pytest_spanchain import use_cassette

def test_it(tmp_path):
    with use_cassette("kept.yaml", mode=os.environ["KEPT"]):
        assert ask(f"read {tmp_path}/notes.txt").startswith("You said: read /")
"""
    )
    here = project.pytester.path
    (here / "system").mkdir()
    monkeypatch.setenv("TMPDIR", str(here / "system"))
    for mode, place in (("once", "one"), ("none", "two"), ("none", "three")):
        monkeypatch.setenv("KEPT", mode)
        where = ["--basetemp", str(here / place)] if place != "three" else []
        (here / "three").mkdir(exist_ok=True)
        monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(here / "three"))
        result = project.run(*where, process=True)
        assert result.outcomes == {"passed": 1}, result.out
    assert project.requests == 1
