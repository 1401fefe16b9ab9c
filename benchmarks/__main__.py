"""All benchmarks in one run: ``python -m benchmarks``; a quick one that only shows that they run: ``--smoke``.

Writes ``benchmarks/results/results.json`` and ``results.md`` (or where ``--to`` says) and prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from . import files, scaling, spans, suites
from .measure import Row

RESULTS = Path(__file__).with_name("results")
DISTRIBUTIONS = ("cassetter", "vcrpy", "pytest-recording", "pytest", "opentelemetry-sdk", "PyYAML", "httpx2")


def rows(*, smoke: bool, seed: int) -> Iterator[Row]:
    """Every figure, the quick ones first."""
    rounds = 1 if smoke else 7
    yield from files.measure(sizes=(10,) if smoke else (10, 100, 1_000), rounds=rounds, seed=seed)
    yield from suites.replays(tests=3 if smoke else 500, rounds=1 if smoke else 3, seed=seed)
    yield from suites.unused(rounds=1 if smoke else 7)
    yield from scaling.chain(entries=100 if smoke else 10_000, rounds=rounds)
    yield from scaling.comparison(spans=100 if smoke else 10_000, rounds=rounds)
    yield from scaling.matching(few=10, many=20 if smoke else 10_000, rounds=1 if smoke else 3, seed=seed)
    yield from scaling.memory(megabytes=0.5 if smoke else 30, seed=seed)
    yield from spans.rows(agents=20 if smoke else 1_000, spans=10, rounds=1 if smoke else 5)


def table(found: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| what | on | against | ours | theirs | ratio (quartiles) | target |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for one in found:
        target = "" if one.target is None else f"{one.target:g} {'✓' if one.ratio <= one.target else '✗'}"
        ratio = f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f})"
        lines.append(
            f"| {one.what} | {one.corpus} | {one.against} | {one.ours:,.3g} | {one.theirs:,.3g} | {ratio} | {target} |"
        )
    return "\n".join(lines) + "\n"


def conditions(seed: int) -> dict[str, object]:
    """On what the figures were measured."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "load": [round(load, 2) for load in os.getloadavg()],
        "seed": seed,
        "versions": {name: metadata.version(name) for name in DISTRIBUTIONS},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios against peers in the same run.")
    parser.add_argument("--smoke", action="store_true", help="a few exchanges, to see that it runs")
    parser.add_argument("--seed", type=int, default=1, help="of the corpora (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=RESULTS, help="directory of the results (default: %(default)s)")
    given = parser.parse_args(arguments)
    before = conditions(given.seed)
    found = []
    for one in rows(smoke=given.smoke, seed=given.seed):
        print(f"{one.ratio:6.2f}  {one.what}, {one.corpus}, against {one.against}", flush=True)
        found.append(one)
    given.to.mkdir(parents=True, exist_ok=True)
    result = {"before": before, "after": conditions(given.seed), "rows": [asdict(one) for one in found]}
    (given.to / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.to / "results.md").write_text(table(found))
    print(f"\n{table(found)}")


if __name__ == "__main__":
    main()
