"""What the help desk can do: search the manual, and open a ticket for a human."""

from __future__ import annotations

import os

MANUAL = {
    "descale": "Fill the tank with descaler, hold the steam button for five seconds, then rinse twice.",
    "warranty": "The warranty lasts two years from the day of purchase.",
}


def search_manual(topic: str) -> str:
    """Find what the manual says on a topic."""
    return MANUAL.get(topic, "nothing found")


def open_ticket(summary: str) -> str:
    """Hand the case to a human.

    This one has a side effect: it appends the case to the file that ``DESK_TICKETS`` names. While a cassette replays,
    no ticket is opened.
    """
    with open(os.environ["DESK_TICKETS"], "a", encoding="utf-8") as tickets:
        tickets.write(f"{summary}\n")
    return "ticket opened"
