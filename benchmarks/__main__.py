"""All benchmarks in one run: ``python -m benchmarks``; a quick one that only shows that they run: ``--smoke``.

Writes ``benchmarks/results/results.json``, ``results.md`` and ``readme.md``, the rows that README quotes (or where
``--to`` says), and prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from . import files, scaling, spans, suites
from .measure import Row

RESULTS = Path(__file__).with_name("results")
UNUSED_SEED = 20_261_122
"""Of corpora that nothing was tuned on: nobody runs them but here."""
DISTRIBUTIONS = ("cassetter", "vcrpy", "pytest-recording", "pytest", "opentelemetry-sdk", "PyYAML", "httpx2")


def groups(*, smoke: bool, seed: int) -> dict[str, Callable[[], Iterable[Row]]]:
    """Every figure, by group, the quick ones first."""
    rounds = 1 if smoke else 7
    few = rounds if smoke else 3
    found: dict[str, Callable[[], Iterable[Row]]] = {
        "files": lambda: files.measure(size=10, rounds=rounds, seed=seed),
        "replays": lambda: suites.replays(tests=3 if smoke else 500, rounds=few, seed=seed),
        "unused": lambda: suites.unused(rounds=rounds),
        "chain": lambda: scaling.chain(entries=100 if smoke else 10_000, rounds=rounds),
        "comparison": lambda: scaling.comparison(spans=100 if smoke else 10_000, rounds=rounds),
        "spans": lambda: spans.rows(agents=20 if smoke else 1_000, spans=10, rounds=rounds),
        "matching": lambda: scaling.matching(few=10, many=20 if smoke else 10_000, rounds=few, seed=seed),
        "memory": lambda: scaling.memory(megabytes=0.5 if smoke else 30, seed=seed),
    }
    larger: dict[str, Callable[[], Iterable[Row]]] = {
        "hundreds": lambda: files.measure(size=100, rounds=rounds, seed=seed),
        "unseen": lambda: files.measure(size=100, rounds=rounds, seed=UNUSED_SEED, note=" (unused seed)"),
        "thousands": lambda: files.measure(size=1_000, rounds=1, seed=seed),
    }
    return found if smoke else found | larger


def table(found: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| what | on | against | ours | theirs | ratio (quartiles) | target |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for one in found:
        if one.ratio is None:
            theirs, ratio, target = "", one.instead, ""
        else:
            theirs, ratio = _figure(one.theirs), f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f})"
            target = "" if one.target is None else f"{one.target:g} {'✓' if one.ratio <= one.target else '✗'}"
        lines.append(
            f"| {one.what} | {one.corpus} | {one.against} | {_figure(one.ours)} | {theirs} | {ratio} | {target} |"
        )
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def quoted(found: Sequence[Row]) -> list[Row]:
    """The rows that README quotes, of one size and the seed that was tuned on: aims, and what files and chains take."""
    others = (", 10", ", 1,000", "(unused seed)")
    more = (("load and verify", "cassetter"), (scaling.WHOLE, scaling.HASHING))
    wanted = [one for one in found if one.target is not None or (one.what, one.against) in more]
    return [one for one in wanted if not one.corpus.endswith(others)]


def _preface(on: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    return (
        "Written by `python -m benchmarks`. Figures are milliseconds of CPU, or bytes where the row says so: medians of"
        " turns that both sides took one after the other; the ratio is the median of the ratios within a round, with"
        " its quartiles. Ours includes the verification of the whole chain, theirs includes none; where both load a"
        " file, ours begins without what it remembers of others, as with the first cassette of a session.\n\n"
        f"Python {on['python']}, {on['machine']}, seed {on['seed']}; {versions}."
    )


def conditions(seed: int) -> dict[str, Any]:
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
    parser.add_argument(
        "--only", nargs="+", metavar="GROUP", help="measure these, and keep what is there of the others"
    )
    given = parser.parse_args(arguments)
    known = groups(smoke=given.smoke, seed=given.seed)
    if unknown := set(given.only or ()) - known.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}: {', '.join(known)}")
    given.to.mkdir(parents=True, exist_ok=True)
    file = given.to / "results.json"
    kept = json.loads(file.read_text()) if given.only and file.exists() else {}
    on: dict[str, Any] = kept.get("conditions", {})
    found = {name: [Row(**row) for row in rows] for name, rows in kept.get("rows", {}).items()}
    for name in given.only or known:
        before, found[name] = conditions(given.seed), []
        for one in known[name]():
            ratio = one.instead if one.ratio is None else f"{one.ratio:6.4}"
            print(f"{ratio}  {one.what}, {one.corpus}, against {one.against}", flush=True)
            found[name].append(one)
            on[name] = {"before": before, "after": conditions(given.seed)}
            rows = {group: [asdict(row) for row in found[group]] for group in known if group in found}
            file.write_text(json.dumps({"conditions": on, "rows": rows}, indent=1) + "\n")
            all_rows = [row for group in known for row in found.get(group, ())]
            (given.to / "results.md").write_text(f"{_preface(before)}\n\n{table(all_rows)}")
            (given.to / "readme.md").write_text(table(quoted(all_rows)))
    print(f"\n{table(all_rows)}")


if __name__ == "__main__":
    main()
