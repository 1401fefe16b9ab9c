"""What a library raised is raised again as the same class with the same words."""

from __future__ import annotations

import httpx
import httpx2
import pytest

from pytest_spanchain.boundaries.clients._raised import raised_again


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("no such shop"),
        ValueError(),
        ConnectionResetError(104, "Connection reset by peer"),
        FileNotFoundError(2, "No such file or directory", "shop.db"),
        httpx.ReadError("cut"),
        # A server that dies in an answer: httpx wants a text, even one without words.
        httpx.ReadError(""),
        httpx2.ReadError(""),
    ],
    ids=repr,
)
def test_the_same_class_with_the_same_words(raised: Exception) -> None:
    again = raised_again({"type": type(raised).__name__, "message": str(raised)})
    assert type(again).__name__ == type(raised).__name__
    assert repr(again) == repr(raised)
    assert str(again) == str(raised)


def test_a_class_that_its_words_do_not_make_is_its_kin() -> None:
    again = raised_again({"type": "UnicodeDecodeError", "message": ""})
    assert repr(again) == "ConnectionError('UnicodeDecodeError: ')"
