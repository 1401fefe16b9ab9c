"""What the documents say is so: their code runs, their output is what is printed, their tables are the code's."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import anthropic
import benchmarks.__main__ as benchmarks
import openai
import pytest
from benchmarks.measure import Row

import agents
import documents
import pytest_spanchain
from documents import ADRS, CONTRIBUTING, DOCUMENTS, EXAMPLES, FORMAT, README, ROOT, block, checks, code, table
from model_replies import answer
from project import Project
from pytest_spanchain import _settings, cli, hookspecs
from servers import CountingListener, Json, ModelServer, Reply, Request


def paris(request: Request) -> Reply:
    return answer(request, "The capital of France is Paris.")


@pytest.fixture
def project(pytester: pytest.Pytester, sdk_env: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(pytester, sdk_env, monkeypatch)
    sdk_env.script(paris)
    return made


@pytest.fixture
def reader(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of somebody who has done all that README says, up to the first replay."""
    for mark in ("tests/test_agent.py", "tests/test_tools.py", "tests/test_trace.py"):
        path = project.path / mark
        # Our own suite has modules of these names, and the project is run in this process.
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
        path.parent.mkdir(exist_ok=True)
        path.write_text(block(README, f"example: {mark}").text)
    record, replay = block(README, "run: record, then replay").commands
    assert project.run(*shlex.split(record)[1:]).counts == {"replayed": 0, "recorded": 3, "live": 3, "unverified": 0}
    project.server.close()
    assert replay == "pytest"
    assert project.run().counts == {"replayed": 3, "recorded": 0, "live": 0, "unverified": 0}
    return project


@checks(README, *(f"example: tests/test_{name}.py" for name in ("agent", "tools", "trace")), "run: record, then replay")
@checks(README, 'output: the system prompt says "Answer in two sentences."', "run: commands")
def test_the_first_cassette_and_what_it_says_of_a_change(
    reader: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (reader.path / "ledger.txt").read_text() == "1412 24.0\n", "the tool ran once, while it was recorded"
    monkeypatch.chdir(reader.path)
    for command in block(README, "run: commands").commands:
        program, *arguments = shlex.split(command)
        assert (program, cli.main(arguments)) == ("spanchain", 0)
    changed = reader.path / "tests/test_agent.py"
    changed.write_text(changed.read_text().replace("Answer in one sentence.", "Answer in two sentences."))
    result = reader.run()
    assert result.outcomes == {"passed": 2, "failed": 1}
    assert block(README, 'output: the system prompt says "Answer in two sentences."').text in result.out


@checks(README, "example: tests/test_facts.py")
def test_a_session_fixture_has_a_cassette_of_its_own(project: Project) -> None:
    project.write(block(README, "example: tests/test_facts.py").text, "tests/test_facts.py")
    counts = {"replayed": 0, "recorded": 2, "live": 2, "unverified": 0}
    assert project.run("--record-mode=once").counts == counts
    project.server.close()
    assert project.run().counts == {"replayed": 2, "recorded": 0, "live": 0, "unverified": 0}


@checks(README, "example: tests/test_child.py")
def test_an_agent_in_another_process(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="the extra gateway is not installed: nox runs this where it is")
    project.write(block(README, "example: tests/test_child.py").text, "tests/test_child.py")
    node = project.path / "bin" / "node"  # the block is about any program; that of the stacks' tests is Node.js' own
    node.parent.mkdir()
    child = "import agents; print(agents.ask('What is the capital of France?'))"
    path = [Path(agents.__file__).parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    node.write_text(f"#!{sys.executable}\nimport sys\nsys.path[:0] = {[str(one) for one in path]}\n{child}\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{node.parent}{os.pathsep}{os.environ['PATH']}")
    assert project.run("--record-mode=once").counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    project.server.close()
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}


SHOP_SERVER = """
try:
    from mcp.server.mcpserver import MCPServer
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("shop")


@server.tool()
def price(order: str) -> str:
    return f"{order} costs 24.00"


server.run("stdio")
"""


@checks(README, "example: tests/test_price.py")
def test_an_mcp_server_that_is_gone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mcp", reason="mcp is not installed: nox runs this where it is")
    project.write(block(README, "example: tests/test_price.py").text, "tests/test_price.py")
    server = project.path / "shop_server.py"
    server.write_text(SHOP_SERVER, encoding="utf-8")
    monkeypatch.chdir(project.path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert project.run("--record-mode=once").counts["recorded"] == 1
    server.unlink()
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}


@checks(README, "example: tests/test_commands.py")
def test_a_child_process_that_is_recorded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(block(README, "example: tests/test_commands.py").text, "tests/test_commands.py")
    assert project.run("--record-mode=once").counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    monkeypatch.setenv("PATH", str(project.path))
    assert shutil.which("git") is None
    assert project.run().counts == {"replayed": 1, "recorded": 0, "live": 0, "unverified": 0}


def test_the_matrix_is_of_the_stacks_that_are_tested() -> None:
    """Its figures are of the last run that wrote it; what it says of a stack is what the stack's tests say."""
    shown = {row[0]: row[2] for row in table("docs/matrix.md", "stack")}
    limits = documents.text_of("docs/matrix.md")
    found = {}
    for path in (ROOT / "tests" / "stacks").glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "STACK":
                assert isinstance(node.value, ast.Call)
                said = {one.arg: ast.literal_eval(one.value) for one in node.value.keywords}
                found[said["name"]] = said["records"]
                for limit in said.get("limits", ()):
                    assert f"- {limit}" in limits
    assert shown == found


@checks(README, "script")
def test_the_script_without_pytest(sdk_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_env.script(paris)
    monkeypatch.chdir(tmp_path)
    source = compile(block(README, "script").text, "README.md", "exec")
    exec(source, {})
    assert len(sdk_env.requests) == 1
    sdk_env.close()
    exec(source, {})
    assert cli.main(["verify", "run.yaml"]) == 0


@checks(README, "example: pytest.ini")
def test_the_ini_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = "asyncio_default_fixture_loop_scope = function\n"  # else pytest-asyncio warns
    (project.path / "pytest.ini").write_text(block(README, "example: pytest.ini").text + loop)
    project.write("", "shop/__init__.py")
    project.write("def refund():\n    return 1\n\n\ndef lookup():\n    return 2\n", "shop/tools.py")
    project.write(
        "import os\n\nimport httpx2\nfrom shop import tools\n\n\n@pytest.mark.cassette\ndef test_it(spanchain):\n"
        "    assert tools.refund() + tools.lookup() == 3\n"
        "    drawn = os.urandom(4).hex()\n"
        "    metadata = {'run_id': drawn, 'customer_email': 'ann@example.org'}\n"
        "    body = {'metadata': metadata, 'text': f'of session-{drawn}'}\n"
        "    httpx2.post(os.environ['ASKED'], json=body, verify=False)\n"
        "    assert [span.kind for span in spanchain.live][1:] == ['tool', 'tool', 'http']\n"
        "    socket = __import__('socket').create_connection(('127.0.0.1', int(os.environ['ALLOWED'])))\n"
        "    socket.close()\n"
    )
    project.pytester.syspathinsert()
    project.server.script(lambda request: Json({}))
    monkeypatch.setenv("ASKED", project.server.url)
    with CountingListener() as listener:
        monkeypatch.setenv("ALLOWED", str(listener.port))
        project.record()
        (cassette,) = project.cassettes()
        assert "ann@example.org" not in cassette.read_text(encoding="utf-8")
        requests = project.requests
        assert project.run().counts["replayed"] == 1
        assert (project.requests, listener.connections) == (requests, 2)


def test_the_decorator_and_registered_types_as_readme_spells_them(tmp_path: Path) -> None:
    import pytest_spanchain as spanchain

    class Receipt:
        def __init__(self, amount: float) -> None:
            self.amount = amount

    ran = []

    @spanchain.tool
    def pay(amount: float) -> object:
        ran.append(amount)
        return hidden(amount)

    def hidden(amount: float) -> object:
        return made[0](amount)

    made: list[type[Receipt]] = [Receipt]
    spanchain.register_type(Receipt)
    for mode in ("once", "none"):
        with spanchain.use_cassette(tmp_path / "run.yaml", mode=mode):
            receipt = pay(24.0)
        assert type(receipt) is Receipt
        assert receipt.amount == 24.0
    assert ran == [24.0]


def test_the_sdks_insist_on_a_key_as_readme_says(monkeypatch: pytest.MonkeyPatch, sdk_env: ModelServer) -> None:
    said = " ".join(documents.prose(README).split())
    assert "OpenAI's client cannot be made without one, Anthropic's not be used" in said
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(openai.OpenAIError):
        openai.OpenAI()
    client = anthropic.Anthropic()
    with pytest.raises(TypeError, match="authentication"):
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "hi"}])
    sdk_env.script(paris)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "any text")
    assert "Paris" in agents.ask("hi")
    assert "Paris" in agents.claude_tool_loop("hi")


@pytest.mark.parametrize("row", table(README, "mode"), ids=lambda row: code(row[0])[0])
def test_the_table_of_modes_is_what_happens(row: list[str], project: Project) -> None:
    names, without, with_one = row
    project.write("@pytest.mark.cassette\ndef test_it():\n    ask('one')\n")
    for mode in code(names):
        shutil.rmtree(project.path / "cassettes", ignore_errors=True)
        result = project.run(f"--record-mode={mode}")
        if without == "records":
            assert result.counts["recorded"] == 1
        else:
            assert without == "fails, and says how to record"
            assert result.outcomes == {"failed": 1}
            assert "record it: pytest test_it.py::test_it --record-mode=once" in result.out
            project.record()
        result = project.run(f"--record-mode={mode}")
        replays = with_one.startswith("replays")
        assert result.counts == {"replayed": replays, "recorded": not replays, "live": not replays, "unverified": 0}


def test_rewrite_prints_what_changed_and_new_episodes_records_the_rest(project: Project) -> None:
    project.write("@pytest.mark.cassette\ndef test_it():\n    ask('one')\n")
    project.record()
    project.write("@pytest.mark.cassette\ndef test_it():\n    ask('two')\n")
    result = project.run("--record-mode=rewrite")
    assert (result.counts["recorded"], "input_changed" in result.out) == (1, True)
    project.write("@pytest.mark.cassette\ndef test_it():\n    ask('two')\n    ask('three')\n")
    before = project.requests
    assert project.run("--record-mode=new_episodes").counts["recorded"] == 1
    assert project.requests == before + 1
    assert project.run().outcomes == {"passed": 1}


def test_tables_and_lists_are_those_of_the_code() -> None:
    settings = [code(row[0])[0] for row in table(README, "setting")]
    assert sorted(settings) == sorted(_settings.SETTING_NAMES)
    assert [code(row[0])[1:] for row in table(README, "setting") if code(row[0])[0] == "mode"] == [
        ["spanchain_record_mode"]
    ]
    assert {mode for row in table(README, "mode") for mode in code(row[0])} == set(_settings.RECORD_MODES)
    assert [row[0] for row in table(README, "mode") if "default" in row[0]] == [
        f"`{_settings.Settings().mode}` (default)"
    ]
    hooks = {name for name in vars(hookspecs) if name.startswith("pytest_spanchain_")}
    assert set(re.findall(r"`(pytest_spanchain_\w+)`", documents.prose(README))) == hooks
    said = re.search(r"unless another plugin owns that name\. It has(.*?)\.\n", documents.prose(README), re.DOTALL)
    assert said is not None
    held = {name for name in vars(pytest_spanchain.CassetteHandle) if not name.startswith("_")}
    assert {name.partition("(")[0] for name in code(said[1])} == held
    assert table(README, "level") == table(FORMAT, "level")
    extras = metadata.metadata("pytest-spanchain").get_all("Provides-Extra") or []
    for document in DOCUMENTS:
        for named in re.findall(r"""pip install -e ['"]?\.\[([\w,]+)\]""", documents.text_of(document)):
            assert set(named.split(",")) <= set(extras), document


def test_exit_statuses_of_verify(reader: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    good = str(reader.cassettes()[0])
    broken, unreadable = reader.path / "broken.yaml", reader.path / "unreadable.yaml"
    broken.write_text(Path(good).read_text().replace("Paris", "Rome"))
    unreadable.write_text("a: *x")
    assert cli.main(["verify", good]) == 0
    assert cli.main(["verify", good, str(broken)]) == 1
    assert cli.main(["verify", str(unreadable)]) == 3
    assert cli.main(["show", good]) == 0
    assert cli.main(["diff", good, good]) == 0
    with pytest.raises(SystemExit) as usage:
        cli.main(["verify"])
    assert usage.value.code == 2
    assert cli.main(["verify", str(reader.path / "gone.yaml")]) == 3


def test_show_and_diff_print_what_readme_says(
    reader: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, tools, _ = map(str, reader.cassettes())
    capsys.readouterr()
    assert cli.main(["show", agent]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"chat gpt-5\.4-mini .*tok", shown), shown
    assert re.search(r"\d ?m?s\b", shown), shown
    assert re.search(r"\d ?k?B\b", shown), shown
    assert cli.main(["diff", agent, tools]) == 1
    assert "deviation point" in capsys.readouterr().out


def test_verify_never_imports_the_projects_code(reader: Project) -> None:
    for name in ("conftest.py", "tests/conftest.py", "tests/test_agent.py", "tests/test_tools.py", "test_tools.py"):
        (reader.path / name).write_text("raise SystemExit('imported')")
    script = "import sys; from pytest_spanchain.cli import main; status = main(['verify', 'cassettes'])\n"
    script += "sys.exit(status or len({'pytest', 'openai', 'httpx2', 'test_tools'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=reader.path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# --- the example agents ------------------------------------------------------------------------------------------


@pytest.fixture
def examples(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A copy of the examples and their cassettes, to run and to change."""
    for name in ("examples", "cassettes"):
        shutil.copytree(ROOT / name, pytester.path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "SHOP_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    with ModelServer() as server:
        yield Project(pytester, server, monkeypatch)


@checks(README, "ci: try", "output: the first command")
@checks(CONTRIBUTING, "commands: of the gate")
@checks(EXAMPLES, "commands: replay, then record")
def test_the_examples_replay_and_record(examples: Project) -> None:
    (line,) = block(README, "ci: try").commands
    command = shlex.split(line.rpartition("&&")[2])
    assert command == ["pytest", "examples/refund_agent"]
    assert block(README, "output: the first command").text in examples.run(*command[1:]).out
    assert examples.run("examples").counts == {"replayed": 7, "recorded": 0, "live": 0, "unverified": 0}
    install, replay, record = block(EXAMPLES, "commands: replay, then record").commands
    assert (install, replay) == ("pip install -e '.[examples]'", shlex.join(command))
    for _ in range(2):  # customers are served side by side, and in what order is nobody's choice
        again = examples.run(*shlex.split(record)[1:])
        assert again.counts["recorded"] == 4
        assert "golden trace" not in again.out, again.out
    gate = (ROOT / ".ci/run").read_text().splitlines()
    for given in block(CONTRIBUTING, "commands: of the gate").commands:
        assert given in ("pytest", "pytest examples") or set(given.split(" && ")) <= set(gate), given


def test_what_the_examples_invite_to_try(examples: Project) -> None:
    agent, tools, test = (
        examples.path / f"examples/refund_agent/{name}.py" for name in ("shop_agent", "shop_tools", "test_refund")
    )
    examples.edit(agent, "small shop", "large shop")
    assert examples.run("examples/refund_agent").outcomes == {"failed": 4}
    examples.edit(agent, "large shop", "small shop")

    examples.edit(tools, '"price": 24.0', '"price": 25.0')
    assert examples.run("examples/refund_agent").outcomes == {"passed": 4}
    kept = {path: path.read_bytes() for path in examples.cassettes() if "test_refund-" in path.name}
    one = ["examples/refund_agent/test_refund.py::test_refund", "--record-mode=rewrite"]
    assert examples.run(*one).outcomes == {"failed": 1}
    assert {path: path.read_bytes() for path in kept} == kept
    examples.edit(test, "(24.00)", "(25.00)")
    assert examples.run(*one).counts["recorded"] == 1

    (cassette,) = kept
    cassette.write_text(cassette.read_text().replace("is refunded (25.00)", "is refunded (99.00)"))
    result = examples.run(one[0])
    assert (result.outcomes, "does not hash to its sha256_hash" in result.out) == ({"failed": 1}, True)


@checks(EXAMPLES, "commands: start the stand-in", "commands: ask the agent")
def test_the_agents_without_pytest(tmp_path: Path) -> None:
    start, ask = block(EXAMPLES, "commands: start the stand-in"), block(EXAMPLES, "commands: ask the agent")
    change, serve = start.commands
    directory = ROOT / change.removeprefix("cd ")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, *shlex.split(serve)[1:]], cwd=directory, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline().strip()
            shown = start.text.splitlines()[-1]
            assert re.sub(r":\d+/", ":0/", line) == re.sub(r":\d+/", ":0/", shown)
            exported = dict(pair.split("=", 1) for pair in shlex.split(line)[1:])
            exported["SHOP_LEDGER"] = str(tmp_path / exported["SHOP_LEDGER"])
            (command,) = ask.commands
            said = subprocess.run(
                [sys.executable, *shlex.split(command)[1:]],
                cwd=directory,
                env={**environment, **exported},
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
            assert said.stdout == ask.text.splitlines()[-1] + "\n"
        finally:
            server.kill()


@pytest.mark.parametrize("everything", [False, True], ids=["as it is", "everything switched on"])
def test_the_example_conftest(everything: bool, project: Project) -> None:
    source = (ROOT / "conftest_example.py").read_text()
    (marker,) = re.findall(r"^#     (@.*)\n#     async def", source, re.MULTILINE)
    if everything:
        source, count = re.subn(r'^( {12})# (r?".*",)$', r"\1\2", source, flags=re.MULTILINE)
        assert count == 9
    project.write(source, "conftest.py")
    project.write("", "my_agent/__init__.py")
    functions = "def refund_order():\n    return 2\n\n\ndef send_mail():\n    return 3\n"
    project.write(f"class Crm:\n    def find_customer(self):\n        return 1\n\n\n{functions}", "my_agent/tools.py")
    project.pytester.syspathinsert()
    project.write(
        f"from my_agent import tools\n\n\n{marker}\ndef test_it(spanchain):\n"
        "    tools.Crm().find_customer()\n    tools.refund_order()\n    tools.send_mail()\n"
        f"    assert len(spanchain.live) == 1 + {3 if everything else 1}\n"
    )
    project.record()
    assert project.run().counts["replayed"] == 1


@checks(CONTRIBUTING, "script")
def test_the_model_in_two_lines() -> None:
    namespace: dict[str, Any] = {"ModelServer": ModelServer, "answer": answer, "OpenAI": openai.OpenAI}
    question = 'client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])'
    exec(block(CONTRIBUTING, "script").text + f"    said = {question}\n", namespace)
    assert namespace["said"].choices[0].message.content == "hello"


# --- all of them -------------------------------------------------------------------------------------------------


@checks(README, "file: .gitattributes")
def test_what_readme_says_of_git_is_what_we_do() -> None:
    assert block(README, "file: .gitattributes").text in (ROOT / ".gitattributes").read_text()


def test_every_block_is_checked_or_excused() -> None:
    import test_docs_format  # noqa: F401 - says what it checks when it is imported

    found = [one.key for document in DOCUMENTS for one in documents.blocks(document)]
    assert len(found) == len(set(found)), "a mark names one block of a document"
    assert set(found) == documents.CHECKED | documents.EXCUSED
    assert not documents.CHECKED & documents.EXCUSED


@pytest.mark.parametrize(
    "text",
    [
        "text\n```python\n1 / 0\n```\n",
        "text\n\n```\n1 / 0\n```\n",
        "text\n~~~python\n1 / 0\n~~~\n",
        "- item\n  ```python\n  1 / 0\n  ```\n",
        "> ```python\n> 1 / 0\n> ```\n",
        "````python\n1 / 0\n````\n",
        "```python title=x\n1 / 0\n```\n",
        "text\n\n    1 / 0\n",
        "<!-- example: x -->\n\n```python\n1 / 0\n```\n",
        "<!-- example: x -->\n```python\n1 / 0\n```\nand\n```python\n1 / 0\n```\n",
    ],
)
def test_a_block_without_a_mark_is_seen_however_it_is_written(text: str) -> None:
    assert "" in {one.mark for one in documents.taken_apart(text, document=README)}


def test_the_gate_finds_the_commands_it_runs() -> None:
    gate = (ROOT / ".ci/run").read_text()
    for name in ("try", "test"):
        assert f"$(command_of {name})" in gate
        assert len(block(README, f"ci: {name}").commands) == 1, "the gate takes the line after the fence"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in documents.links(document):
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        if anchor:
            assert anchor in documents.anchors(file.resolve().relative_to(ROOT).as_posix()), target


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != README])
def test_modules_that_are_named_exist(document: str) -> None:
    for name in re.findall(r"`([\w/]+\.py)`", documents.prose(document)):
        # A path from the root, or the end of one below the root.
        assert (ROOT / name).is_file() or list(ROOT.glob(f"[!.]*/**/{name}")), name


def test_decisions_are_numbered_and_say_why() -> None:
    assert [int(Path(adr).name[:4]) for adr in ADRS] == list(range(1, len(ADRS) + 1))
    for number, adr in enumerate(ADRS, start=1):
        headings = re.findall(r"^(#.*)$", documents.text_of(adr), re.MULTILINE)
        assert headings[0].startswith(f"# {number}. ")
        assert headings[1:4] == ["## Context", "## Decision", "## Consequences"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_words_that_claim_too_much_are_not_used(document: str) -> None:
    words = r"tamper-?proof|immutable|non-repudiation|compliant"
    # CONTRIBUTING lists them in order to forbid them.
    text = documents.prose(document).partition("Never\nwrite tamper-proof")
    rest = text[2].partition("\n")[2] if text[1] else ""
    assert not re.search(words, (text[0] + rest).replace("compliant.", ""), re.IGNORECASE)


def test_exported_names_are_what_can_be_imported() -> None:
    exported = pytest_spanchain.__all__
    assert exported == sorted(exported, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert set(exported) == set(pytest_spanchain._HOME_OF) == set(dir(pytest_spanchain))
    namespace: dict[str, Any] = {}
    exec("from pytest_spanchain import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(exported)
    for name in exported:
        assert name.isupper() or namespace[name].__name__ == name
        assert namespace[name].__doc__, f"{name} is public and says nothing of itself"
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        pytest_spanchain.Nonsense  # noqa: B018


def test_readme_quotes_what_the_benchmarks_measured() -> None:
    results = ROOT / "benchmarks" / "results"
    groups = json.loads((results / "results.json").read_text())["rows"]
    assert groups.keys() == benchmarks.groups(smoke=False, seed=1).keys()
    rows = [Row(**row) for group in benchmarks.groups(smoke=False, seed=1) for row in groups[group]]
    assert len(rows) > 100
    assert (results / "results.md").read_text().endswith(f"\n\n{benchmarks.table(rows)}")
    assert (results / "readme.md").read_text() == benchmarks.table(benchmarks.quoted(rows))
    assert (results / "readme.md").read_text() in (ROOT / README).read_text()
