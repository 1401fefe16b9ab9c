"""Which of the calls that a model has asked for a tool's call is, and what is left undone."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_spanchain._genai import ToolCall
from pytest_spanchain._tool_calls import ToolCalls, is_asked


def asked(*arguments: Any, name: str = "move") -> ToolCalls:
    """What a model has asked of one tool; the ids are ``0``, ``1`` and so on."""
    calls = ToolCalls()
    calls.ask(tuple(ToolCall(str(index), name, given) for index, given in enumerate(arguments)))
    return calls


def test_a_call_is_the_one_with_the_same_names_and_values() -> None:
    calls = asked({"of": "a", "to": "b"}, {"of": "b", "to": "a"})
    assert calls.done("move", {"self": None, "to": "a", "of": "b", "quietly": False}) == "1"
    assert calls.done("move", {"to": "b", "of": "a"}) == "0"
    assert not calls.undone


def test_a_function_may_have_names_of_its_own() -> None:
    """It is recorded because a model waits for exactly this call; so nobody waits for it any more."""
    calls = asked({"order": "1412"}, {"order": "1413"})
    assert calls.waits_for("move", {"number": "1413"})
    assert calls.done("move", {"number": "1413"}) == "1"
    assert not calls.waits_for("move", {"number": "1413"})
    assert calls.done("move", {"given": {"order": "1412"}}) == "0"
    assert not calls.wanted("move")


def test_what_cannot_be_told_apart_is_left() -> None:
    calls = asked({"of": "a", "to": "b"}, {"of": "b", "to": "a"})
    assert calls.done("move", {"source": "b", "target": "a"}) == ""
    assert len(calls.undone) == 2
    twice = asked({"of": "a"}, {"of": "a"})
    assert [twice.done("move", {"source": "a"}) for _ in range(3)] == ["0", "1", ""]


def test_the_only_one_is_meant_however_it_is_called() -> None:
    calls = asked({"of": "a"})
    assert calls.done("copy", {"of": "a"}) == ""
    assert calls.done("move", {"of": "changed"}) == "0"


def test_one_that_is_met_is_not_undone_and_still_wanted() -> None:
    calls = asked({"of": "a"}, {"of": "a"})
    calls.met(ToolCall("1", "move", {"of": "other"}))
    assert [call.id for call in calls.undone] == ["0"]
    calls.met(ToolCall("", "move", {"of": "a"}))
    assert not calls.undone
    assert len(calls.wanted("move")) == 2
    assert calls.done("move", {"of": "a"}) == "0"


@pytest.mark.parametrize(
    ("given", "found"),
    [({"a": 1, "b": 2}, True), ({"x": 1, "y": 2}, True), ({"x": {"a": 1, "b": 2}}, True), ({"a": 1}, False)],
)
def test_what_counts_as_asked_for(given: dict[str, Any], found: bool) -> None:
    assert is_asked({"a": 1, "b": 2}, given) is found
