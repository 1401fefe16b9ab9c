"""Golden-trace tests of the help desk: every answer is streamed, and tools are called between the streams.

pytest examples/anthropic_agent --record-mode=once    # talks to the model and the tools, writes cassettes
pytest examples/anthropic_agent                       # replays them: no model, no tools, no network
"""

from __future__ import annotations

import pytest
from desk_agent import run_agent, stream_agent

TOOLS = ["desk_tools:search_manual", "desk_tools:open_ticket"]


@pytest.mark.cassette(tools=TOOLS)
async def test_answer_from_the_manual() -> None:
    """The agent searches the manual and passes on what it says."""
    assert "hold the steam button" in await run_agent("How do I descale the machine?")


@pytest.mark.cassette(tools=TOOLS)
async def test_words_arrive_as_they_are_written() -> None:
    """A replayed stream arrives in the same pieces as the recorded one."""
    pieces = [piece async for piece in stream_agent("How long is the warranty?")]
    assert pieces[:3] == ["Let ", "me ", "look. "]
    assert "two years" in "".join(pieces)


@pytest.mark.cassette(tools=TOOLS)
async def test_ticket_when_the_manual_has_no_answer() -> None:
    """Two tools in a row; the second has a side effect, which a replay does not repeat."""
    assert "a colleague will get in touch" in await run_agent("My grinder makes a strange noise.")
