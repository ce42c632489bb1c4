"""Diffusion: the engine against a bare loop in ONNX Runtime, and against diffusers in PyTorch.

Run it from the root of the source tree, with the extras ``serve`` and ``diffusion`` installed, on a
machine that does nothing else::

    python benchmarks/diffusion.py --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_rivals import DIFFUSERS, MEDIUM, PROMPT, BareLoop, Diffusers, Make, checkpoint
from galatea import Client
from galatea_exporter.export import export
from galatea_exporter.families.stable_diffusion import SMALL
from galatea_server.server import EmbeddedServer
from measure import Contender, Spread, interleave, machine, note, ratios, table, versions
from report import deliver

TITLE = "Diffusion"
PACKAGES = ("galatea", "torch", "diffusers", "onnxruntime", "nvidia-pytriton", "numpy")
SERVED, BARE = "galatea", "ONNX Runtime loop"
CALLERS = 16
MIXED = (10, 10, 10, 50)  # steps of one request after another
LOAD = 0.8  # of what the bare loop makes at most
GUIDANCE = 7.5

HOW = """\
Made by `python benchmarks/diffusion.py`.

A latent diffusion model in the layout of Stable Diffusion with small widths ({parameters:.1f} M
parameters in its network, latents 4×32×32, images 128×128), random weights, sampled with DDIM and
guidance {guidance}, so that each image has two rows a step. The rivals run in this process with all
cores: a loop around ONNX Runtime sessions on the released graphs, and diffusers' own network,
scheduler and decoder in eager PyTorch, as its pipeline calls them. All make the same images, within
one uint8 level. galatea's backend computes the two rows of a sample side by side, one a core, where
a session in the loop gives all cores to one operator after another.
"""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 6.0
    pairs: int = 21
    requests: int = 96


QUICK = Plan(rounds=1, seconds=1.0, pairs=3, requests=16)


def one_caller(url: str, pid: int, rivals: dict[str, Make], plan: Plan) -> Iterator[list[str]]:
    """Rows of a table: a caller that has its next request when it has the answer."""
    seeds = count(0, 64)
    with Client(url) as client:

        def served(seed: int, n: int, steps: int) -> NDArray[Any]:
            return client.sample("medium", n, prompt=PROMPT, seed=seed, steps=steps).images

        makes: dict[str, Make] = {SERVED: served, **rivals}
        for batch, steps in ((1, 20), (8, 20)):
            note(f"one caller, batch {batch}")

            def caller(make: Make, n: int = batch, steps: int = steps) -> Callable[[int], int]:
                return lambda _: len(make(next(seeds), n, steps))

            contenders = [
                Contender(name, 1, caller(make), (pid,) if name == SERVED else ())
                for name, make in makes.items()
            ]
            played = interleave(contenders, plan.rounds, plan.seconds)
            ours = played[contenders[0]]
            for contender, rounds in played.items():
                rate = Spread.of(entry.rate for entry in rounds)
                ratio = ratios(ours, rounds, lambda entry: entry.rate)
                told = f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
                yield [contender.name, str(batch), f"{rate.median:.2f}", told]


def overhead(url: str, bare: Make, plan: Plan, steps: int = 50) -> Spread:
    """Milliseconds that a step of the small network takes more than in the bare loop, at batch 1.

    Pairs of requests; the decoder and the way to the server are taken off by requests of one step.
    """
    found = []
    with Client(url) as client:

        def served(seed: int, n: int, steps: int) -> object:
            return client.sample("small", n, prompt=PROMPT, seed=seed, steps=steps, guidance=1.0)

        for pair in range(plan.pairs):
            times = [
                [_seconds(make, pair, length) for length in (steps, 1)] for make in (served, bare)
            ]
            (ours, ours_one), (theirs, theirs_one) = times
            found.append(1000 * ((ours - ours_one) - (theirs - theirs_one)) / (steps - 1))
    return Spread.of(found)


def _seconds(make: Callable[[int, int, int], object], seed: int, steps: int) -> float:
    begin = time.perf_counter()
    make(seed, 1, steps)
    return time.perf_counter() - begin


def poisson(make: Callable[[int, int, int], object], rate: float, plan: Plan) -> dict[str, float]:
    """Requests of one image that arrive by chance, with mixed steps, from as many callers.

    Returns:
        Quantiles of the seconds from arrival to answer, and images a second.
    """
    chance = random.Random(0)
    arrivals = np.cumsum([chance.expovariate(rate) for _ in range(plan.requests)])
    begin = time.perf_counter()

    def ask(number: int) -> tuple[int, float]:
        time.sleep(max(0.0, begin + arrivals[number] - time.perf_counter()))
        steps = MIXED[number % len(MIXED)]
        make(number, 1, steps)
        return steps, time.perf_counter() - begin - float(arrivals[number])

    with ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(ask, range(plan.requests)))
    elapsed = time.perf_counter() - begin
    short = sorted(seconds for steps, seconds in answers if steps == min(MIXED))
    everything = sorted(seconds for _, seconds in answers)
    return {
        "p50": statistics.median(everything),
        "p95": everything[int(0.95 * len(everything))],
        "short": statistics.median(short),
        "rate": plan.requests / elapsed,
    }


def one_at_a_time(make: Make) -> Make:
    """What a service around a script does: requests wait for one another."""
    lock = threading.Lock()

    def turn(seed: int, n: int, steps: int) -> NDArray[Any]:
        with lock:
            return make(seed, n, steps)

    return turn


@contextmanager
def serving(repository: Path, step: int, call: int) -> Iterator[EmbeddedServer]:
    """A server whose engine has so many rows a step and a call."""
    config = repository / "medium" / "config.pbtxt"
    text = config.read_text()
    for name, rows in (("max_rows", step), ("call_rows", call)):
        text = re.sub(rf'{name}\\": \d+', rf'{name}\\": {rows}', text)
    config.write_text(text)
    with EmbeddedServer(repository) as server:
        yield server


def rows_per_call(server: EmbeddedServer) -> float:
    """How well the engine has merged its requests."""
    time.sleep(4)  # the metrics follow
    text = urllib.request.urlopen(f"http://{server.metrics_url}/metrics").read().decode()
    rows, calls = (
        float(re.findall(rf'galatea_sampler_{name}_total{{model="medium"}} (\S+)', text)[0])
        for name in ("rows", "calls")
    )
    return rows / calls


def crowd(repository: Path, rivals: dict[str, Make], plan: Plan) -> Iterator[list[str]]:
    """Rows of a table: many callers with mixed steps."""
    bare = rivals[BARE]
    begin = time.perf_counter()
    for steps in MIXED:
        bare(0, 1, steps)
    rate = LOAD * len(MIXED) / (time.perf_counter() - begin)

    def row(name: str, rows: str, made: dict[str, float]) -> list[str]:
        figures = [f"{made[key]:.2f}" for key in ("p50", "p95", "short", "rate")]
        return [name, *figures, rows]

    for step, call in ((2, 1), (8, 1), (32, 1), (8, 8), (32, 32)):
        note(f"{CALLERS} callers, {step} rows a step, {call} a call")
        with serving(repository, step, call) as server, Client(server.grpc_url) as client:

            def served(seed: int, n: int, steps: int, client: Client = client) -> object:
                return client.sample("medium", n, prompt=PROMPT, seed=seed, steps=steps)

            served(0, 1, 1)
            made = poisson(served, rate, plan)
            merged = rows_per_call(server)
        yield row(f"{SERVED}, max_rows {step}, call_rows {call}", f"{merged:.1f}", made)
    for name, make in rivals.items():
        note(f"{CALLERS} callers, {name}")
        yield row(f"{name}, one request at a time", "2.0", poisson(one_at_a_time(make), rate, plan))


def check(url: str, rivals: dict[str, Make]) -> None:
    """All make the same images."""
    with Client(url) as client:
        ours = client.sample("medium", 2, prompt=PROMPT, seed=3, steps=10).images
    for name, make in rivals.items():
        apart = np.abs(ours.astype(int) - make(3, 2, 10))
        assert apart.max() <= 1, f"{name} makes other images"
    assert ours.std() > 1


def measure(folder: Path, plan: Plan) -> str:
    """The report."""
    repository = folder / "models"
    settings = {"sampler": "ddim", "guidance": str(GUIDANCE)}
    loops = {}
    for name, configs in (("medium", MEDIUM), ("small", SMALL)):
        note(f"exporting the {name} model")
        pipeline = checkpoint(configs, folder / name)
        export("stable_diffusion", pipeline, name=name, repository=repository, settings=settings)
        guidance = GUIDANCE if name == "medium" else 1.0
        loops[name] = BareLoop(repository, name, pipeline, guidance)
    theirs = Diffusers(folder / "medium", GUIDANCE)
    rivals: dict[str, Make] = {BARE: loops["medium"], DIFFUSERS: theirs}
    with serving(repository, 8, 1) as server:
        check(server.grpc_url, rivals)
        alone = list(one_caller(server.grpc_url, server.pid, rivals, plan))
        note("overhead")
        apart = overhead(server.grpc_url, loops["small"], plan)
    mixed = list(crowd(repository, rivals, plan))
    facts = {**machine(), **versions(*PACKAGES)}
    return "\n".join(
        [
            HOW.format(parameters=theirs.parameters / 1e6, guidance=GUIDANCE),
            *(f"- {name}: {fact}" for name, fact in facts.items()),
            "",
            "## One caller, 20 steps",
            "",
            table(["", "images a request", "images/s", "galatea by it"], alone, left=[0]),
            "",
            f"A step of a network that computes next to nothing takes {apart.median:.2f} ms "
            f"({apart.low:.2f}–{apart.high:.2f}) more in the engine than in the loop, at batch 1.",
            "",
            f"## {CALLERS} callers with {', '.join(map(str, MIXED))} steps in turn",
            "",
            f"Requests of one image arrive by chance, {LOAD:.0%} of what the loop makes at most. "
            "Seconds from arrival to answer.",
            "",
            table(
                ["", "p50", "p95", f"p50 of {min(MIXED)} steps", "images/s", "rows a call"],
                mixed,
                left=[0],
            ),
            "",
        ]
    )


def main() -> None:
    """Measures everything and prints or writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", type=Path, help="Markdown file whose section is replaced.")
    parser.add_argument("--quick", action="store_true", help="A trial of few requests.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = measure(Path(folder), QUICK if arguments.quick else Plan())
    deliver(arguments.write, TITLE, text)


if __name__ == "__main__":
    main()
