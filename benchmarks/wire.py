"""The wire alone: GB/s of images from a model that computes nothing, into the caller's arrays.

Run it from the root of the source tree, with the extras ``serve`` and ``export`` installed, on a
machine that does nothing else; it takes two or three minutes::

    python benchmarks/wire.py --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np

from galatea import Client
from galatea_exporter.export import export
from galatea_exporter.family import register
from galatea_server.server import EmbeddedServer
from measure import Contender, Round, Spread, interleave, machine, note, ratios, table, versions
from report import deliver
from wire_model import BATCH, SHAPE, PassThrough, pictures
from wire_plain import Make, over_grpc, over_shared_memory

TITLE = "The wire"
PACKAGES = ("galatea", "tritonclient", "grpcio", "protobuf", "nvidia-pytriton", "numpy")
MODEL = "pass-through"
IMAGE_BYTES = int(np.prod(SHAPE))
CALL = 16  # batches of one call

GRPC, SHM = "galatea, gRPC, stream", "galatea, shared memory, stream"
PLAIN, PLAIN_SHM = "tritonclient, gRPC", "tritonclient, shared memory"
MEMCPY = "memcpy"
BARS = ((GRPC, PLAIN, 1.0), (SHM, GRPC, 2.5))

HOW = """\
A model that looks images of 256×256×3 uint8 up in a table by their seed is served by the embedded
server on this machine, in a process for each core; requests are of {batch} images,
{megabytes:.1f} MB, and a call is of {call} requests. GB/s are bytes of images in arrays that the
caller owns and may write to, 10⁹ a second.
*galatea* is one `Client`: `stream` yields batches, each of which is let go when the next is there,
and `sample` makes one new array of the whole call, whose pages the kernel must clear first.
*tritonclient* yields batches too and is what one writes without galatea: `async_infer` with as many
requests on their way, `as_numpy` and a copy, because what it returns are read-only views; with
shared memory a registered region for each request, and a copy out of it. *memcpy* copies a batch
from one array to another, in one thread. All make the same images from the same seeds; this is
checked first. Client and server share the cores. Rounds are interleaved; figures are medians, with
the range of the rounds in brackets, and ratios are taken round by round. CPU is that of all
processes, for a GB. Rounds that other processes disturbed were played again: in those that count
they used {median:.1%} of the machine in the median, {high:.0%} at most."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 3.0


QUICK = Plan(rounds=1, seconds=0.5)


@contextlib.contextmanager
def contest() -> Iterator[list[Contender]]:
    """Serves the model and makes every contender ready."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galatea-wire-")))
        family = register(PassThrough)()
        checkpoint = family.save(family.example(), folder / "checkpoint")
        export(family.name, checkpoint, name=MODEL, repository=folder / "models", max_batch=BATCH)
        config = folder / "models" / MODEL / "config.pbtxt"
        text = config.read_text()
        config.write_text(text.replace("count: 1", f"count: {os.cpu_count()}"))
        assert config.read_text() != text
        server = stack.enter_context(EmbeddedServer(folder / "models"))
        url = server.grpc_url
        grpc = stack.enter_context(Client(url, transport="grpc"))
        shared = stack.enter_context(Client(url, transport="shm"))
        makers: dict[str, Make] = {
            GRPC: streamed(grpc),
            GRPC.replace("stream", "sample"): sampled(grpc),
            PLAIN: stack.enter_context(over_grpc(url, MODEL)),
            SHM: streamed(shared),
            SHM.replace("stream", "sample"): sampled(shared),
            PLAIN_SHM: stack.enter_context(over_shared_memory(url, MODEL)),
        }
        for name, make in makers.items():
            check(name, make)
        contenders = [
            Contender(name, 1, caller(make), (server.pid,)) for name, make in makers.items()
        ]
        yield [*contenders, Contender(MEMCPY, 1, memcpy())]


def streamed(client: Client) -> Make:
    """Batch by batch."""
    return lambda seed, batches: (
        batch.images for batch in client.stream(MODEL, batches * BATCH, seed=seed)
    )


def sampled(client: Client) -> Make:
    """All batches as one."""
    return lambda seed, batches: iter([client.sample(MODEL, batches * BATCH, seed=seed).images])


def memcpy() -> Callable[[int], int]:
    """Copies a batch between two arrays that are there, as often as a call has batches."""
    source = pictures(np.arange(BATCH))
    target = source.copy()

    def call(caller: int) -> int:
        for _ in range(CALL):
            np.copyto(target, source)
        return CALL * BATCH

    return call


def caller(make: Make) -> Callable[[int], int]:
    """A contender's call: every batch is let go when the next one is there."""
    seeds = count(0, CALL * BATCH)
    return lambda caller: sum(len(images) for images in make(next(seeds), CALL))


def check(name: str, make: Make) -> None:
    """Fails unless the images are those of their seeds and the caller's own."""
    seed = 3
    for images in make(seed, 2):
        assert images.flags.writeable, f"{name}: the caller cannot write to its images"
        assert np.array_equal(images, pictures(np.arange(seed, seed + len(images)))), name
        seed += len(images)
    assert seed == 3 + 2 * BATCH, f"{name}: {seed - 3} images"


def gigabytes(played: Round) -> float:
    """GB of images a second."""
    return played.rate * IMAGE_BYTES / 1e9


def throughput_table(results: Mapping[str, list[Round]]) -> str:
    """GB/s of every contender, by plain gRPC and by memcpy."""
    rows = []
    for name, rounds in results.items():
        rate = Spread.of(map(gigabytes, rounds))
        cpu = Spread.of(1e9 / (played.frugality * IMAGE_BYTES) for played in rounds)
        against = [_range(ratios(rounds, results[other], gigabytes)) for other in (PLAIN, MEMCPY)]
        rows.append((name, _range(rate), *against, f"{cpu.median:.2f}"))
    heads = "contender", "GB/s", f"× {PLAIN}", "× memcpy", "CPU-s/GB"
    return table(heads, rows, left=(0,))


def requirements_table(results: Mapping[str, list[Round]]) -> str:
    """The requirements that these measurements decide."""
    rows = []
    for ours, theirs, bar in BARS:
        share = ratios(results[ours], results[theirs], gigabytes)
        met = "yes" if share.median >= bar else "**no**"
        rows.append((ours, f"≥ {bar} × {theirs}", _range(share), met))
    return table(("requirement", "bar", "measured", "met"), rows, left=(0, 1, 2, 3))


def how(results: Mapping[str, list[Round]]) -> str:
    """How it was measured."""
    others = Spread.of(turn.disturbance for rounds in results.values() for turn in rounds)
    size = BATCH * IMAGE_BYTES / 1e6
    facts = {"batch": BATCH, "megabytes": size, "call": CALL}
    return textwrap.fill(HOW.format(**facts, median=others.median, high=others.high), 100)


def _range(figures: Spread) -> str:
    return f"{figures.median:.2f} [{figures.low:.2f}–{figures.high:.2f}]"


def main() -> None:
    """Measures everything and prints or writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    parser.add_argument("--quick", action="store_true", help="a smoke run of half a minute")
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else Plan()
    place = {**machine(), **versions(*PACKAGES), "rounds": f"{plan.rounds} of {plan.seconds:g} s"}
    note("serving the pass-through model")
    with contest() as contenders:
        note("measuring")
        played = interleave(contenders, plan.rounds, plan.seconds)
    results = {contender.name: rounds for contender, rounds in played.items()}
    lines = ["Made by `python benchmarks/wire.py`.\n"]
    if chosen.quick:
        lines.append("A smoke run (`--quick`): these figures are not to be quoted.\n")
    lines += [f"- {name}: {fact}" for name, fact in place.items()]
    lines += [f"\n{how(results)}", f"\n{throughput_table(results)}"]
    lines.append(f"\n## Requirements\n\n{requirements_table(results)}")
    text = "\n".join(lines)
    deliver(chosen.write, TITLE, text)
    if chosen.json is not None:
        raw = {name: [asdict(turn) for turn in rounds] for name, rounds in results.items()}
        chosen.json.write_text(
            json.dumps({"place": place, "rounds": raw}, indent=1) + "\n", "utf-8"
        )


if __name__ == "__main__":
    main()
