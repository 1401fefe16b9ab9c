"""How fast spans are recorded, against the OpenTelemetry SDK alone.

    python -m benchmarks.spans --agents 1000 --spans 10 --rounds 5

Many asyncio agents open spans at the same time. One process runs them with the SDK and a processor that does nothing,
and never imports pytest-spanchain; another runs them in a recording run. They take turns, so that whatever slows the
machine down slows both; the first turn of each is not counted. The figures are medians of the rounds, the ratios
medians of the ratios within a round. Cassettes go to a temporary directory.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Tracer

from .measure import Row, row


@dataclass(frozen=True)
class Turn:
    """What one turn took.

    Args:
        run: seconds in which the agents ran.
        save: seconds that the recording then took to become a file; 0 without recording.
        size: bytes of that file.
    """

    run: float
    save: float = 0.0
    size: int = 0


async def agent(tracer: Tracer, *, number: int, spans: int) -> None:
    """One agent: a span, and the others one after another below it, with a pause in each."""
    with tracer.start_as_current_span("invoke_agent", attributes={"agent": number}):
        for step in range(1, spans):
            with tracer.start_as_current_span("step", attributes={"agent": number, "step": step}):
                await asyncio.sleep(0)


async def crowd(tracer: Tracer, *, agents: int, spans: int) -> float:
    """All agents at once.

    Returns:
        Seconds from the first task to the end of the last.
    """
    start = time.perf_counter()
    await asyncio.gather(*(agent(tracer, number=number, spans=spans) for number in range(agents)))
    return time.perf_counter() - start


def bare(provider: TracerProvider, *, agents: int, spans: int) -> Turn:
    """The SDK alone."""
    return Turn(asyncio.run(crowd(provider.get_tracer("crowd"), agents=agents, spans=spans)))


def recording(provider: TracerProvider, *, agents: int, spans: int) -> Turn:
    """The SDK, and a run that records."""
    from pytest_spanchain import use_cassette

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "crowd.yaml"
        with use_cassette(path, mode="once") as cassette:
            run = asyncio.run(crowd(provider.get_tracer("crowd"), agents=agents, spans=spans))
            start = time.perf_counter()
        save = time.perf_counter() - start
        if (heard := len(cassette.live) - 1) != agents * spans:
            raise AssertionError(f"{heard} spans were recorded, not {agents * spans}")
        return Turn(run, save, path.stat().st_size)


SIDES: dict[str, Callable[..., Turn]] = {"bare": bare, "recording": recording}


def serve(pipe: Connection, side: str, agents: int, spans: int) -> None:
    """A process of one side: takes a turn whenever it is told to, until it is told ``False``."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    while pipe.recv():
        pipe.send(SIDES[side](provider, agents=agents, spans=spans))


@contextmanager
def worker(side: str, *, agents: int, spans: int) -> Iterator[Callable[[], Turn]]:
    """A process of one side, as a function that lets it take a turn."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, side, agents, spans), daemon=True)
    process.start()
    there.close()

    def take_turn() -> Turn:
        here.send(True)
        turn: Turn = here.recv()  # EOFError if the process has failed; its traceback is on stderr
        return turn

    try:
        yield take_turn
        here.send(False)
        process.join()
    finally:
        here.close()
        process.terminate()
        process.join()


def measure(*, agents: int, spans: int, rounds: int) -> list[tuple[Turn, Turn]]:
    """Turns of both sides, round by round, without the first of each."""
    with ExitStack() as stack:
        turns = [stack.enter_context(worker(side, agents=agents, spans=spans)) for side in SIDES]
        return [(turns[0](), turns[1]()) for _ in range(rounds + 1)][1:]


def table(results: Sequence[tuple[Turn, Turn]], *, agents: int, spans: int) -> str:
    """The report."""
    count = agents * spans

    def row(name: str, seconds: Callable[[tuple[Turn, Turn]], float]) -> str:
        rate = count / median(map(seconds, results))
        ratio = median(both[0].run / seconds(both) for both in results)
        return f"{name:<34}{rate:>12,.0f} spans/s{1e6 / rate:>10.1f} us/span{ratio:>8.2f}"

    versions = f"CPython {platform.python_version()}, opentelemetry-sdk {metadata.version('opentelemetry-sdk')}"
    size = median(recorded.size for _, recorded in results)
    return "\n".join(
        [
            f"{agents:,} agents x {spans:,} spans, median of {len(results)} rounds taken in turns; {versions}",
            f"{'':<34}{'':>12}        {'':>10}        {'of (a)':>8}",
            row("(a) SDK, no-op processor", lambda both: both[0].run),
            row("(b) SDK and recording", lambda both: both[1].run),
            row("(c) redact, seal, write, read back", lambda both: both[1].save),
            row("(b) and (c)", lambda both: both[1].run + both[1].save),
            f"cassette: {size / 1e6:.2f} MB, {size / count:,.0f} bytes/span",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast spans are recorded, against the OpenTelemetry SDK alone.")
    for name, default, what in (
        ("agents", 1000, "agents at the same time"),
        ("spans", 10, "spans of each agent"),
        ("rounds", 5, "rounds to take the median of"),
    ):
        parser.add_argument(f"--{name}", type=positive, default=default, help=f"{what} (default: {default})")
    given = parser.parse_args(arguments)
    results = measure(agents=given.agents, spans=given.spans, rounds=given.rounds)
    print(table(results, agents=given.agents, spans=given.spans))


def rows(*, agents: int, spans: int, rounds: int) -> Iterator[Row]:
    """The rows of the common table: what recording adds to the SDK, and what it comes to."""
    results = measure(agents=agents, spans=spans, rounds=rounds)
    label = f"{agents:,} agents x {spans:,} spans"
    bare_ms, ours_ms = ([1e3 * both[side].run for both in results] for side in (0, 1))
    yield row("recording spans", label, "the SDK alone", ours_ms, bare_ms)
    per_second = agents * spans / 10_000 * 1e3
    yield row("recording spans", label, "10,000 spans/s", ours_ms, [per_second] * len(ours_ms), target=1.0)


def positive(text: str) -> int:
    """A whole number from 1.

    Raises:
        ValueError: it is something else.
    """
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
