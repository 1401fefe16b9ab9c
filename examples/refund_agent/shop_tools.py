"""What the agent can do: look an order up, and give the money back."""

from __future__ import annotations

import os
from typing import Any

ORDERS = {
    "1412": {"item": "espresso cups", "price": 24.0, "state": "delivered"},
    "2077": {"item": "coffee grinder", "price": 89.5, "state": "delivered"},
    "3003": {"item": "gift card", "price": 50.0, "state": "redeemed"},
}


def lookup_order(order_id: str) -> dict[str, Any]:
    """Find an order by its number."""
    order = ORDERS.get(order_id)
    return {"order_id": order_id, **order} if order else {"order_id": order_id, "state": "unknown"}


def refund_order(order_id: str, amount: float) -> dict[str, Any]:
    """Pay an amount back for an order.

    This one has a side effect: it books a line in the file that ``SHOP_LEDGER`` names. While a cassette replays,
    nothing is booked.
    """
    with open(os.environ["SHOP_LEDGER"], "a", encoding="utf-8") as ledger:
        ledger.write(f"refund {order_id} {amount:.2f}\n")
    return {"order_id": order_id, "refunded": amount}
