"""The project's documents taken apart: code blocks, tables and links, and who checks which block.

A block is marked by an HTML comment right before it. Every block has a mark, every mark is checked by a test that says
so with ``checks``, or excused in ``EXCUSED`` with its reason; ``test_docs`` insists on both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING, EXAMPLES, FORMAT = "README.md", "CONTRIBUTING.md", "examples/README.md", "docs/format.md"
CHANGELOG = "CHANGELOG.md"
ADRS = tuple(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/adr").glob("*.md")))
_NAMED = (README, CONTRIBUTING, EXAMPLES, CHANGELOG, FORMAT, *ADRS)
_FOUND = (path.relative_to(ROOT).as_posix() for name in ("docs", "examples") for path in (ROOT / name).rglob("*.md"))
DOCUMENTS = (*_NAMED, *sorted(set(_FOUND) - set(_NAMED)))

EXCUSED = {
    (README, "skip: not on PyPI before the first release"),
    (CONTRIBUTING, "skip: makes an environment and downloads"),
    (README, "ci: test"),  # this very suite
}

CHECKED: set[tuple[str, str]] = set()

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
# Whatever else Markdown takes for a block: fences that are indented, quoted, longer or of tildes, and indentation.
_OTHER_BLOCK = re.compile(r"^[ >]*(?:```|~~~)|(?<=\n\n)(?: {4}|\t)(?![-*+] |\d+\. )\S", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        document: path of the document below the root.
        mark: text of the comment before the block, empty if there is none.
        language: what follows the opening fence.
        text: the content.
    """

    document: str
    mark: str
    language: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """Document and mark."""
        return self.document, self.mark

    @property
    def commands(self) -> list[str]:
        """What is to be typed: lines without prompt and comment; of a console, only those with a prompt."""
        lines = self.text.splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [re.split(r"\s+#\s", line)[0].strip() for line in lines]


def text_of(document: str) -> str:
    """The text of a document."""
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """All blocks of a document, in order."""
    return taken_apart(text_of(document), document=document)


def taken_apart(text: str, *, document: str) -> list[Block]:
    """All blocks of a text; what looks like a block and cannot be read as one is a block without a mark."""
    found = [Block(document, one["mark"] or "", one["language"], one["text"]) for one in _BLOCK.finditer(text)]
    return found + [Block(document, "", "", one.group()) for one in _OTHER_BLOCK.finditer(_BLOCK.sub("", text))]


def block(document: str, mark: str) -> Block:
    """The one block with this mark."""
    (found,) = (one for one in blocks(document) if one.mark == mark)
    return found


def checks(document: str, *marks: str) -> Callable[[F], F]:
    """Say that a test checks the blocks with these marks."""
    CHECKED.update((document, mark) for mark in marks)
    return lambda test: test


def prose(document: str) -> str:
    """A document without its blocks."""
    return _BLOCK.sub("", text_of(document))


def table(document: str, first: str, *, number: int = 0) -> list[list[str]]:
    """Rows of cells of the table (of several the ``number``-th) whose first column has this heading."""
    tables = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[ |-]*\n((?:\|.*\n)+)", prose(document), re.MULTILINE)
    # A bar inside code is content.
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in tables[number].splitlines()]


def code(cell: str) -> list[str]:
    """The words in backticks."""
    return _CODE.findall(cell)


def links(document: str) -> list[str]:
    """Targets of all links that lead into the repository."""
    return [target for target in _LINK.findall(prose(document)) if "://" not in target]


def anchors(document: str) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
