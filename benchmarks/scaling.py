"""What grows with a cassette: matching, verifying, comparing, memory."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .corpora import Exchange, single_turns, small
from .measure import Row, in_turns, row
from .server import serving
from .sides import OURS, send

_PEAK = """
import re, sys
from pathlib import Path
from pytest_spanchain import _store
def peak():  # of getrusage, a process has what its parent had
    return 1024 * int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
start = peak()
cassette = _store.load(Path(sys.argv[1]), deferred=True)
assert len(cassette.tree) > 1
print(peak() - start)
"""


WHOLE, HASHING = "… and shapes, tree, summary, spans", "SHA-256 of the same bytes"


def chain(*, entries: int, rounds: int) -> Iterator[Row]:
    """Verification of a chain from text in memory, against hashing the same bytes; and of all else that is verified."""
    from pytest_spanchain import _chain, _codec

    data = _codec.dumps(_document(entries))
    parsed = _codec.loads(data)

    def hashed() -> None:
        for text in parsed.texts:
            hashlib.sha256(text).hexdigest()

    def linked() -> None:
        broken = _chain.unlinked(parsed.document["header"], parsed.document["entries"], parsed.texts)
        assert broken is None

    ways = {"chain": linked, "whole": lambda: _chain.verify(parsed), "hash": hashed}
    taken = in_turns(ways, rounds=rounds)
    label = f"{entries:,} entries"
    yield row("chain verification", label, HASHING, taken["chain"], taken["hash"], target=3)
    yield row(WHOLE, label, HASHING, taken["whole"], taken["hash"])


def comparison(*, spans: int, rounds: int) -> Iterator[Row]:
    """Comparing equal trees, against loading one of them."""
    from pytest_spanchain import _chain, _codec
    from pytest_spanchain._compare import compare

    data = _codec.dumps(_document(spans))
    golden, live = (_chain.verify(_codec.loads(data)).tree for _ in range(2))
    turns = {
        "compare": lambda: compare(golden, live, ignored_attributes=frozenset()),
        "load": lambda: _chain.verify(_codec.loads(data)),
    }
    taken = in_turns(turns, rounds=rounds)
    yield row("compare, equal", f"{spans:,} spans", "loading them", taken["compare"], taken["load"], target=1)


def matching(*, few: int, many: int, rounds: int, seed: int) -> Iterator[Row]:
    """A replayed exchange in a large cassette, against one in a small one; loading is not counted."""
    taken: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        places = {size: _recorded(Path(directory), small(size, seed)) for size in (few, many)}
        for _ in range(rounds):
            for size, (path, url) in places.items():
                again = max(1, many // size // 10)
                taken.setdefault(size, []).append(
                    median(_replayed(path, url, small(size, seed)) for _ in range(again)) / size
                )
    label = f"{many:,} exchanges"
    yield row("a replayed exchange", label, f"of {few:,}", taken[many], taken[few], target=1.2)


def _replayed(path: Path, url: str, corpus: Sequence[Exchange]) -> float:
    with OURS.cassette(path, False):
        start = time.process_time()
        send(url, corpus)
        return 1e3 * (time.process_time() - start)


def memory(*, megabytes: float, seed: int) -> Iterator[Row]:
    """Peak memory of loading a large cassette, against the size of its file."""
    with tempfile.TemporaryDirectory() as directory:
        # Of sessions, whose history is written once, so large a cassette would hold more values than it may.
        path, _ = _recorded(Path(directory), single_turns(100, seed))
        size = int(100 * megabytes * 1e6 / path.stat().st_size)
        path, _ = _recorded(Path(directory), single_turns(size, seed))
        done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
        peak, file = float(done.stdout), float(path.stat().st_size)
    yield row("peak memory of loading (bytes)", f"single turns, {size:,}", "its file", [peak], [file], target=5)


def _recorded(directory: Path, corpus: Sequence[Exchange]) -> tuple[Path, str]:
    """A cassette of a corpus, and the URL that it was recorded at."""
    path = directory / f"{len(corpus)}.yaml"
    with serving(corpus) as url, OURS.cassette(path, True):
        send(url, corpus)
    return path, url


def _document(entries: int) -> dict[str, Any]:
    """A sealed document of small spans."""
    from pytest_spanchain import _chain
    from pytest_spanchain._model import Header, Span, SpanTree

    spans = tuple(
        Span(
            span_id=f"{number + 1:016x}",
            parent_span_id=f"{1:016x}" if number else None,
            name=f"step {number % 7}" if number else "agent",
            attributes={"agent": number // 10, "step": number % 10},
            start_ns=1_790_000_000_000_000_000 + 1_000 * number,
            duration_ns=500,
        )
        for number in range(entries)
    )
    header = Header(
        nodeid="benchmark", eval_id="", recorded_at="2026-01-01T00:00:00Z", recorder={}, redaction={}, provenance={}
    )
    return _chain.seal(header, SpanTree(spans), trace_id="1" * 32, outcome="passed")
