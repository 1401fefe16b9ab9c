"""The order in which a child process and the agent took turns: what replay waits for before it lets something out.

Written as words, in the order in which they happened: ``>BYTES:LINES`` for input (``~`` follows if it did not end with
a line), ``|`` for its end, ``s`` if the child stopped reading it, ``c`` if it did and what else the agent would have
written is not known, ``kN`` for signal N, ``<`` and ``!`` for chunks of output and of errors (``<3``: three of them),
``o`` and ``e`` for their ends, ``x`` for the exit. Input after ``s`` or ``x`` was meant for it, and nobody took it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

OUTPUTS = {"<": "stdout", "!": "stderr"}
ENDS = {"o": "stdout", "e": "stderr"}


class Turns:
    """Writes down what happens; its user holds a lock."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._input = [0, 0]
        self._whole = True

    def input(self, data: bytes) -> None:
        """Something was written to the child."""
        self._input[0] += len(data)
        self._input[1] += data.count(b"\n")
        self._whole = data.endswith(b"\n")

    def add(self, word: str) -> None:
        """Something else happened."""
        self._flush()
        last = self._words[-1] if self._words else ""
        if word in OUTPUTS and last.startswith(word):
            self._words[-1] = f"{word}{int(last[1:] or 1) + 1}"
        else:
            self._words.append(word)

    def all_is_known(self) -> None:
        """What the agent gave is known, however the child took it."""
        self._flush()
        self._words = ["s" if word == "c" else word for word in self._words]
        if "x" in self._words and not {"|", "s"}.intersection(self._words):
            self._words.insert(self._words.index("x"), "s")

    def text(self) -> str:
        """All of it, on one line."""
        self._flush()
        return " ".join(self._words)

    def _flush(self) -> None:
        if self._input[0]:
            self._words.append(f">{self._input[0]}:{self._input[1]}{'' if self._whole else '~'}")
            self._input = [0, 0]


@dataclass(frozen=True)
class Needs:
    """What the agent had done before something came out.

    Args:
        size: bytes that it had written.
        lines: lines of them, if they ended with a line; a changed input is waited for by lines.
        closed: whether it had ended the input.
        signals: the signals that it had sent.
    """

    size: int = 0
    lines: int | None = 0
    closed: bool = False
    signals: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """Something that a child did.

    Args:
        word: ``<``, ``!``, ``o``, ``e``, ``s``, ``c`` or ``x``.
        needs: what it waited for.
    """

    word: str
    needs: Needs


@dataclass(frozen=True)
class Played:
    """What a text of turns says.

    Args:
        steps: what the child did.
        all: everything that the agent did.
        cut: whether the agent may have meant to write more than is known.
    """

    steps: tuple[Step, ...]
    all: Needs
    cut: bool


def read(text: str) -> Played:
    """Take turns apart.

    Raises:
        ValueError: a word that no turn has.
    """
    steps: list[Step] = []
    needs, total, cut, stopped = Needs(), 0, False, False
    for word in text.split():
        mark = word[0]
        if mark == ">":
            size, _, lines = word[1:].partition(":")
            total += int(lines.rstrip("~"))
            known = None if lines.endswith("~") else total
            needs = Needs(needs.size + int(size), known, needs.closed, needs.signals)
        elif word == "|":
            needs = Needs(needs.size, needs.lines, True, needs.signals)
        elif mark == "k":
            needs = Needs(needs.size, needs.lines, needs.closed, (*needs.signals, int(word[1:])))
        else:
            steps += _steps(word, needs)
            stopped = stopped or word == "s"
            cut = cut or word == "c" or (word == "x" and not needs.closed and not stopped)
    return Played(tuple(steps), needs, cut)


def _steps(word: str, needs: Needs) -> Iterator[Step]:
    mark, count = word[0], word[1:]
    if mark in OUTPUTS:
        yield from [Step(mark, needs)] * int(count or 1)
    elif word in ("o", "e", "s", "c", "x"):
        yield Step(word, needs)
    else:
        raise ValueError(f"no turn of a process: {word!r}")
