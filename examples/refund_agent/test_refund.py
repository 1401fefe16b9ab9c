"""Golden-trace tests of the shop's agent: the marker is all that they add to a plain test.

pytest examples/refund_agent --record-mode=once    # talks to the model and the tools, writes cassettes
pytest examples/refund_agent                       # replays them: no model, no tools, no network
"""

from __future__ import annotations

import asyncio

import pytest
from shop_agent import run_agent, stream_answer

TOOLS = ["shop_tools:lookup_order", "shop_tools:refund_order"]


@pytest.mark.cassette(tools=TOOLS)
async def test_refund() -> None:
    """The agent looks the order up, then refunds it: three model calls, two tool calls."""
    assert "order 1412 is refunded (24.00)" in await run_agent("Refund order 1412")


@pytest.mark.cassette(tools=TOOLS)
async def test_redeemed_gift_card_is_not_refunded() -> None:
    """The agent stops after the look-up."""
    answer = await run_agent("Please refund order 3003.")
    assert "refunded" not in answer
    assert "order 3003 is redeemed" in answer


@pytest.mark.cassette
async def test_streamed_answer() -> None:
    """A replayed stream arrives in the same pieces as the recorded one."""
    pieces = [piece async for piece in stream_answer("When are you open?")]
    assert len(pieces) > 1
    assert "nine to five" in "".join(pieces)


@pytest.mark.cassette(tools=TOOLS)
async def test_two_customers_at_once() -> None:
    """Each of two conversations in flight gets its own answers back, whichever asks first."""
    first, second = await asyncio.gather(run_agent("Refund order 1412"), run_agent("Refund order 2077"))
    assert "order 1412 is refunded (24.00)" in first
    assert "order 2077 is refunded (89.50)" in second
