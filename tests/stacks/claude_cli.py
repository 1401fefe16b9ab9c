"""A command line that speaks the frames of Claude Code's, for tests of the SDK above it; what it does is in the prompt.

It is run as a program. The first argument of each line of a prompt says what to do, so that a test can be read in one
place: ``say TEXT``, ``tool NAME JSON``, ``may TOOL JSON``, ``hook EVENT``, and so on (see ``Turn``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SESSION = "5e551011-0000-4000-8000-000000000001"


def send(frame: dict[str, Any]) -> None:
    """A frame to the SDK."""
    sys.stdout.write(json.dumps(frame, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def frames() -> Iterator[dict[str, Any]]:
    """Frames of the SDK."""
    for line in sys.stdin:
        yield json.loads(line)


class Cli:
    """One run of the program."""

    def __init__(self) -> None:
        self.incoming = frames()
        self.asked = 0
        self.greeted = False
        self.queued: list[dict[str, Any]] = []
        self.hooks: dict[str, list[str]] = {}
        self.model = "claude-sonnet-5"
        self.did(f"start {' '.join(word for word in sys.argv[1:] if word.startswith('--'))}"[:60])

    def did(self, what: str) -> None:
        """Write down that it happened."""
        if path := os.environ.get("CLAUDE_LEDGER"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(what + "\n")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask the SDK, and wait for what it answers."""
        self.asked += 1
        request_id = f"cli-{os.getpid()}-{self.asked}"
        send({"type": "control_request", "request_id": request_id, "request": request})
        return self.answer_to(request_id)

    def answer_to(self, request_id: str) -> dict[str, Any]:
        """What the SDK answers to one of our requests; what else comes is done meanwhile."""
        for frame in self.incoming:
            if frame["type"] == "control_response" and frame["response"]["request_id"] == request_id:
                return dict(frame["response"])
            if frame["type"] == "user":
                self.queued.append(frame)  # a turn of its own, later
            else:
                self.take(frame)
        sys.exit(0)

    def take(self, frame: dict[str, Any]) -> None:
        """Do what a frame says."""
        if frame["type"] == "user":
            content = frame["message"]["content"]
            Turn(self).play(content if isinstance(content, str) else content[0]["text"])
        elif frame["type"] == "control_request":
            self.control(frame["request_id"], frame["request"])

    def control(self, request_id: str, request: dict[str, Any]) -> None:
        """Answer a control request."""
        self.did(f"control {request['subtype']}")
        response: dict[str, Any] = {}
        if request["subtype"] == "initialize":
            for event, matchers in (request["hooks"] or {}).items():
                self.hooks[event] = [one for matcher in matchers for one in matcher["hookCallbackIds"]]
            response = {
                "commands": [{"name": "compact", "description": "short"}],
                "output_style": "default",
                "pid": os.getpid(),
            }
        elif request["subtype"] == "set_model":
            self.model = request["model"]
            twice = {"subtype": "success", "request_id": request_id, "response": {"twice": True}}
            send({"type": "control_response", "response": twice})
            send({"type": "control_response", "response": {**twice, "request_id": "nobody's"}})
        elif request["subtype"] == "set_permission_mode" and request["mode"] == "plan":
            error = {"subtype": "error", "request_id": request_id, "error": "plan is not allowed"}
            send({"type": "control_response", "response": error})
            return
        send(
            {
                "type": "control_response",
                "response": {"subtype": "success", "request_id": request_id, "response": response},
            }
        )

    def run(self) -> None:
        """Until the input ends."""
        for frame in self.incoming:
            self.take(frame)
            while self.queued:
                self.take(self.queued.pop(0))


class Turn:
    """What one prompt makes it do, line by line."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.said = ""
        self.blocks = 0

    def play(self, prompt: str) -> None:
        """Every line of a prompt, and the result."""
        self.cli.did(f"prompt {prompt.splitlines()[0]}")
        send(
            {
                "type": "system",
                "subtype": "init",
                "session_id": SESSION,
                "model": self.cli.model,
                "claude_code_version": "2.1.300",
            }
        )
        for line in prompt.splitlines():
            verb, _, rest = line.partition(" ")
            getattr(self, f"do_{verb}", self.do_say)(rest)
        self.result()

    def result(self, **more: Any) -> None:
        """The end of the turn."""
        send(
            {
                "type": "result", "subtype": "success", "duration_ms": 12, "duration_api_ms": 9, "is_error": False,
                "num_turns": self.blocks, "session_id": SESSION, "total_cost_usd": 0.0125, "result": self.said,
                "usage": {"input_tokens": 11, "cache_read_input_tokens": 4, "output_tokens": 7},
                "uuid": f"u-{time.time_ns()}", **more,
            }
        )  # fmt: skip

    def message(self, *content: dict[str, Any]) -> None:
        """A message of the model's."""
        self.blocks += 1
        said = {"model": self.cli.model, "role": "assistant", "content": list(content), "id": f"msg_{self.blocks}"}
        send({"type": "assistant", "message": said, "parent_tool_use_id": None, "session_id": SESSION})

    def do_say(self, text: str) -> None:
        self.said = text.upper()
        self.message({"type": "text", "text": self.said})

    def do_stream(self, text: str) -> None:
        for word in text.split():
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            send(
                {
                    "type": "stream_event",
                    "uuid": word,
                    "session_id": SESSION,
                    "event": delta,
                    "parent_tool_use_id": None,
                }
            )
        self.do_say(text)

    def do_tool(self, rest: str) -> None:
        """Call a tool of the SDK's own server ``shop``."""
        name, _, given = rest.partition(" ")
        arguments = json.loads(given)
        use = {"type": "tool_use", "id": f"toolu_{self.blocks}", "name": f"mcp__shop__{name}", "input": arguments}
        self.message(use)
        self.greet()
        answer = self.mcp(2 + self.blocks, "tools/call", {"name": name, "arguments": arguments})
        self.tool_result(use["id"], answer)

    def greet(self) -> None:
        """Shake hands with the server, once."""
        if not self.cli.greeted:
            self.cli.greeted = True
            client = {"name": "claude-code", "version": "2"}
            self.mcp(0, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
            self.mcp(None, "notifications/initialized", {})
            self.mcp(1, "tools/list", {})

    def do_tools(self, rest: str) -> None:
        """Call a tool twice at once."""
        self.greet()
        name, *numbers = rest.split()
        ids = []
        for number in numbers:
            self.cli.asked += 1
            ids.append(f"cli-{os.getpid()}-{self.cli.asked}")
            call = {"jsonrpc": "2.0", "id": 100 + int(number), "method": "tools/call"}
            call["params"] = {"name": name, "arguments": {"number": int(number)}}
            request = {"subtype": "mcp_message", "server_name": "shop", "message": call}
            send({"type": "control_request", "request_id": ids[-1], "request": request})
        answers: dict[str, Any] = {}
        while len(answers) < len(ids):
            frame = next(self.cli.incoming)
            answers[frame["response"]["request_id"]] = frame["response"]["response"]["mcp_response"]
        for request_id in ids:
            self.tool_result(request_id.rpartition("-")[2], answers[request_id])

    def mcp(self, number: int | None, method: str, params: dict[str, Any]) -> Any:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if number is not None:
            message["id"] = number
        response = self.cli.ask(subtype="mcp_message", server_name="shop", message=message)
        return response["response"]["mcp_response"]

    def tool_result(self, use: str, answer: Any) -> None:
        self.cli.did(f"got {json.dumps(answer.get('result', answer.get('error')), sort_keys=True)}"[:90])
        block = {"type": "tool_result", "tool_use_id": use, "content": json.dumps(answer.get("result"))}
        send({"type": "user", "message": {"role": "user", "content": [block]}, "session_id": SESSION})

    def do_may(self, rest: str) -> None:
        """Ask for a permission."""
        name, _, given = rest.partition(" ")
        answer = self.cli.ask(subtype="can_use_tool", tool_name=name, input=json.loads(given), tool_use_id="toolu_9")
        said = answer.get("error") or f"{answer['response']['behavior']} {json.dumps(answer['response'])}"
        self.do_say(f"permission {said}")

    def do_hook(self, event: str) -> None:
        """Call the hooks of an event."""
        for callback in self.cli.hooks[event]:
            given = {
                "hook_event_name": event,
                "tool_name": "Bash",
                "tool_input": {"command": "ls"},
                "session_id": SESSION,
            }
            answer = self.cli.ask(subtype="hook_callback", callback_id=callback, input=given, tool_use_id="toolu_3")
            self.do_say(f"hook {answer.get('error') or json.dumps(answer['response'])}")

    def do_cancelled(self, rest: str) -> None:
        """Ask for a permission, and think better of it."""
        self.cli.asked += 1
        request_id = f"cli-{os.getpid()}-{self.cli.asked}"
        request = {"subtype": "can_use_tool", "tool_name": "Slow", "input": {}}
        send({"type": "control_request", "request_id": request_id, "request": request})
        time.sleep(0.2)
        send({"type": "control_cancel_request", "request_id": request_id})

    def do_secret(self, rest: str) -> None:
        sys.stderr.write(f"key is {os.environ.get('SHOP_API_KEY')}\n")
        sys.stderr.flush()
        time.sleep(0.1)
        self.message({"type": "text", "text": f"key {os.environ.get('SHOP_API_KEY')}"})

    def do_complain(self, rest: str) -> None:
        sys.stderr.write("".join(f"{rest} {number}\n" for number in range(3)))
        sys.stderr.flush()
        time.sleep(0.1)

    def do_noise(self, rest: str) -> None:
        sys.stdout.write("[SandboxDebug] not a frame\n\n")

    def do_endless(self, rest: str) -> None:
        """Go on until it is interrupted."""
        self.do_say("working")
        frame = next(self.cli.incoming)
        self.cli.take(frame)
        self.result(subtype="error_during_execution", is_error=False)
        self.cli.run()
        sys.exit(0)

    def do_wait(self, rest: str) -> None:
        self.do_say("waiting")
        for _ in self.cli.incoming:
            pass
        sys.exit(0)

    def do_half(self, rest: str) -> None:
        sys.stdout.write('{"type":"assistant","mess')
        sys.stdout.flush()
        sys.exit(int(rest))

    def do_broken(self, rest: str) -> None:
        sys.stdout.write('{"type":"assistant","mess\n')
        sys.stdout.flush()

    def do_die(self, rest: str) -> None:
        sys.exit(int(rest))

    def do_fail(self, rest: str) -> None:
        self.result(subtype="error_max_turns", is_error=True, errors=["too many turns"])
        sys.exit(1)


if __name__ == "__main__":
    Cli().run()
