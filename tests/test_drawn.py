"""What servers draw anew for their answers: told by its place, one for one, and never what a model says."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_spanchain._volatile.drawn import Drawn

OLD, NEW = "call_0123456789", "call_9876543210"


def answered(golden: Any, live: Any, *, sent: str = "") -> tuple[Any, Drawn]:
    drawn = Drawn()
    one, other = ({"status": 200, "body": {"json": value, "layout": ""}} for value in (golden, live))
    return drawn.answer(one, other, sent=sent)["body"]["json"], drawn


@pytest.mark.parametrize(
    ("golden", "live", "kinds"),
    [
        ({"id": OLD}, {"id": NEW}, ["id"]),
        ({"created": 1}, {"created": 2}, ["time"]),
        ({"created_at": "2026-01-01T00:00:00Z"}, {"created_at": "2026-02-01T00:00:00Z"}, ["time"]),
        ({"content": [{"type": "tool_use", "id": OLD}]}, {"content": [{"type": "tool_use", "id": NEW}]}, ["id"]),
        ({"id": OLD}, {"id": OLD}, []),
    ],
)
def test_the_envelope_is_translated(golden: Any, live: Any, kinds: list[str]) -> None:
    found, drawn = answered(golden, live)
    assert found == golden
    assert [one.kind for one in drawn.made] == kinds


@pytest.mark.parametrize(
    ("golden", "live"),
    [
        ({"input": {"id": OLD}}, {"input": {"id": NEW}}),
        ({"args": {"created": 1}}, {"args": {"created": 2}}),
        ({"function": {"arguments": f'{{"id": "{OLD}"}}'}}, {"function": {"arguments": f'{{"id": "{NEW}"}}'}}),
        ({"content": OLD}, {"content": NEW}),
        ({"id": 1}, {"id": 2}),
        ({"id": OLD}, {"id": ""}),
        ({"created": 1}, {"created": "1"}),
        ({"created": True}, {"created": 1}),
        ({"model": "a"}, {"model": "b"}),
        ({"usage": {"output_tokens": 1}}, {"usage": {"output_tokens": 2}}),
    ],
)
def test_what_is_said_stays_what_it_is(golden: Any, live: Any) -> None:
    found, drawn = answered(golden, live)
    assert found == live
    assert not drawn.made


def test_what_went_out_before_was_not_drawn_for_this_answer() -> None:
    found, drawn = answered({"id": OLD}, {"id": NEW}, sent=f"about {NEW}")
    assert (found, drawn.made) == ({"id": NEW}, [])


def test_an_id_stands_for_one() -> None:
    drawn = Drawn()
    assert drawn.answer({"id": OLD}, {"id": NEW}, sent="") == {"id": OLD}
    assert drawn.answer({"id": "call_another1"}, {"id": NEW}, sent="") == {"id": NEW}
    assert drawn.answer({"id": OLD}, {"id": "call_another2"}, sent="") == {"id": "call_another2"}


def test_ids_follow_their_answer_wherever_they_come_back() -> None:
    _, drawn = answered({"id": OLD, "items": [{"id": "c1"}]}, {"id": NEW, "items": [{"id": "d1"}]})
    said = {"tool_call_id": NEW, "text": f"see {NEW}, not {NEW}0", "id": "d1", "word": "d1", "n": [NEW, 1, None]}
    assert drawn.follow(said) == {
        "tool_call_id": OLD,
        "text": f"see {OLD}, not {NEW}0",
        "id": "c1",
        "word": "d1",
        "n": [OLD, 1, None],
    }
    assert Drawn().follow(said) is said


def test_a_stream_whose_message_is_unknown_is_compared_as_it_is() -> None:
    golden, live = ({"status": 200, "body": {"text": text, "chunks": [1], "message": None}} for text in "ab")
    assert Drawn().answer(golden, live, sent="") == live
