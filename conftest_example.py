"""A conftest.py to copy: every setting of pytest-spanchain that a project may want to share between its tests.

You need none of it to start. A test with ``@pytest.mark.cassette`` records with ``pytest --record-mode=once`` and
replays with plain ``pytest``; keys and other credentials are redacted without being asked. Copy this file to
``tests/conftest.py`` when several tests need the same settings, and delete what you don't use.
"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def spanchain_config() -> dict[str, Any]:
    """Settings for every marked test that sees this fixture.

    The lists add to those of the marker and the ini file. A misspelt name is an error, never ignored. Like any
    fixture, it can be overridden in the conftest of a directory or in a test module.
    """
    return {
        # Functions whose calls are recorded, and which are not run again in replay: "module:function",
        # "module:Class.method" or "module:*". Name all that have side effects or read from outside.
        "tools": [
            # "my_agent.tools:refund_order",
            # "my_agent.tools:Crm.find_customer",
        ],
        # Parts of a request that may differ from run to run: JSON paths below the request, or patterns for any text.
        # The ports of servers on this machine are taken care of; this is for what only you can know.
        "ignore": [
            # "body.json.user",
            # r"re:session-[0-9a-f]{8}",
        ],
        # Span attributes that are not worth a red test.
        "ignore_attributes": [
            # "my_agent.build_number",
        ],
        # Hosts that may be reached in replay all the same, such as a database behind HTTP. Everything else fails
        # the test. "localhost" stands for loopback in all its spellings.
        "allow_hosts": [
            # "localhost",
        ],
        # What must never reach a cassette, beyond the credentials that are always redacted: key names, JSON paths
        # (they have a dot) or patterns.
        "redact": [
            # "customer_email",
            # "body.json.metadata.account",
            # r"re:\bIBAN [A-Z]{2}\d{2}[0-9A-Z ]+",
        ],
    }


# A single test can say more in its marker:
#
#     @pytest.mark.cassette(tools=["my_agent.tools:send_mail"], ignore=["body.json.metadata.run"])
#     async def test_refund():
#         assert "refunded" in await run_agent("Refund order 1412")
