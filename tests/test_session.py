"""What a session knows beside its tests, while threads of fixtures go on."""

from __future__ import annotations

import threading

import pytest

from pytest_spanchain import _session
from pytest_spanchain._options import Said


def test_a_fixture_may_be_over_while_a_thread_of_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread's request goes out as ever; what it comes to is nobody's error."""
    session = _session.Session(Said())

    def over(host: str) -> bool:
        ending = threading.Thread(target=session.leave, args=("server",))
        ending.start()
        ending.join()
        return False

    monkeypatch.setattr(_session, "is_loopback", over)
    session.enter("server")
    session.met("api.example.com")
    assert session.take() == []


def test_calls_are_those_of_the_innermost_fixture() -> None:
    session = _session.Session(Said())
    session.enter("outer")
    session.enter("inner")
    session.met("api.example.com")
    session.met("127.0.0.1")
    session.leave("inner")
    session.leave("inner")
    session.met("api.example.com")
    session.met("api.example.com")
    notes = [note for counted in session.take() for note in counted["notes"]]
    assert [note.split(":")[0] for note in notes] == ["fixture inner made 1 call outside of every cassette", *OUTER]


OUTER = ["fixture outer made 2 calls outside of every cassette"]
