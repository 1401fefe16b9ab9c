"""What a served child has yet to do: chunks and ends in their outlets, the rest in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from .... import _body
from . import _turns as turns
from ._pipes import STDERR, STDOUT, Outlet


class Script:
    """One recording, as it is played; its user holds a lock.

    Args:
        recorded: the response.
        played: what its turns say.
        sinks: where output goes; ours to close.
    """

    def __init__(self, recorded: Mapping[str, Any], played: turns.Played, sinks: Mapping[str, int]) -> None:
        self.outputs = {name: Outlet(sinks.get(name)) for name in (STDOUT, STDERR)}
        self.rest: deque[tuple[int, turns.Needs, str]] = deque()
        """Place in the recording, what it waits for, and the word, of what is no output."""
        chunks = {name: deque(_body.chunks_of(recorded[name])) for name in self.outputs}
        for place, step in enumerate(played.steps):
            name = turns.OUTPUTS.get(step.word)
            if name is not None:
                if chunks[name]:
                    self.outputs[name].queue.append((place, chunks[name].popleft(), step.needs))
            elif step.word in turns.ENDS:
                self.outputs[turns.ENDS[step.word]].queue.append((place, None, step.needs))
            else:
                self.rest.append((place, step.needs, step.word))

    @property
    def has_output(self) -> bool:
        """Whether something has yet to come out, if only an end."""
        return any(output.queue for output in self.outputs.values())

    def waits_for(self) -> Iterator[turns.Needs]:
        """What the next steps wait for."""
        yield from [output.queue[0][2] for output in self.outputs.values() if output.queue]
        yield from [self.rest[0][1]] if self.rest else []

    def shut(self) -> None:
        """Nothing more comes out."""
        for output in self.outputs.values():
            output.shut()

    def drop(self) -> None:
        """Nothing more is done."""
        for output in self.outputs.values():
            output.queue.clear()
        self.rest.clear()
        self.shut()
