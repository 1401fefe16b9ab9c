"""An MCP server that uses all that a server may say, on whichever release of the SDK there is.

    python mcp_everything.py LEDGER [stdio | sse PORT | streamable-http PORT]

It writes a line to LEDGER each time that it starts or that something of it runs.
"""

# Two releases of one library: what is not there in the one is there in the other.
# mypy: disable-error-code="call-overload"
# mypy: disable-error-code="import-not-found, import-untyped, attr-defined, no-redef, untyped-decorator, unused-ignore"

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel

try:
    from mcp.server.mcpserver import Context, MCPServer
    from mcp_types import ModelHint, ModelPreferences, SamplingMessage, TextContent

    FIRST = False
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer
    from mcp.types import ModelHint, ModelPreferences, SamplingMessage, TextContent

    FIRST = True

warnings.simplefilter("ignore")  # some of this is on its way out

server = MCPServer("everything", log_level="ERROR")


def ledger(line: str) -> None:
    """Something really ran."""
    with Path(os.environ["MCP_LEDGER"]).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


class Size(BaseModel):
    """What is asked of the user."""

    size: str


@server.tool()
def add(a: int, b: int) -> int:
    """The sum."""
    ledger(f"add {a} {b}")
    return a + b


@server.tool()
async def late(answer: int, after: float) -> int:
    """An answer that takes its time."""
    ledger(f"late {answer}")
    await asyncio.sleep(after)
    return answer


@server.tool()
async def steps(count: int, ctx: Context) -> str:
    """Tells how far it is, and logs at the end."""
    ledger(f"steps {count}")
    for number in range(count):
        await ctx.report_progress(number, count, f"step {number}")
    await ctx.session.send_log_message(level="info", data={"did": count}, related_request_id=ctx.request_id)
    return "all done"


@server.tool()
def fails(reason: str) -> str:
    """Raises."""
    ledger(f"fails {reason}")
    raise ValueError(reason)


@server.tool()
async def asks_model(question: str, ctx: Context) -> str:
    """Lets the client's model answer."""
    ledger(f"asks_model {question}")
    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    hints = ModelPreferences(hints=[ModelHint(name="small")])
    answer = await ctx.session.create_message(
        messages=[message], max_tokens=10, model_preferences=hints, related_request_id=ctx.request_id
    )
    return f"the model said: {answer.content.text}"


@server.tool()
async def asks_user(ctx: Context) -> str:
    """Lets the user choose."""
    ledger("asks_user")
    answer = await ctx.elicit(message="Which size?", schema=Size)
    return f"{answer.action}: {answer.data.size if answer.action == 'accept' else None}"


@server.tool()
async def lists_roots(ctx: Context) -> list[str]:
    """Asks where it may work."""
    ledger("lists_roots")
    return [str(root.uri) for root in (await ctx.session.list_roots()).roots]


@server.tool()
async def waits(ctx: Context) -> str:
    """Never answers."""
    ledger("waits")
    await asyncio.sleep(60)
    return "too late"


@server.tool()
async def changes(ctx: Context) -> str:
    """Tells that the server's tools and a resource have changed."""
    ledger("changes")
    await ctx.session.send_tool_list_changed()
    await ctx.session.send_resource_updated("shop://orders/7")
    return "changed"


@server.tool()
def dies() -> str:
    """Ends the server's process in the middle of a call."""
    ledger("dies")
    os._exit(3)


@server.resource("shop://orders/{number}")
def order(number: str) -> str:
    """An order."""
    ledger(f"order {number}")
    return f"order {number}: two pieces"


@server.prompt()
def greet(name: str) -> str:
    """A greeting."""
    ledger(f"greet {name}")
    return f"Say hello to {name}"


def main(path: str, transport: str = "stdio", port: str = "0") -> Any:
    """Serve until somebody ends it."""
    os.environ["MCP_LEDGER"] = path
    ledger(f"started {transport}")
    if FIRST:
        server.settings.port = int(port)
        return server.run(transport)
    return server.run(transport, **({} if transport == "stdio" else {"port": int(port)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
