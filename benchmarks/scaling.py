"""How galatea's throughput grows with the batch, with the callers, and with instances and threads.

Run it from the root of the source tree, with the extras ``serve`` and ``export`` installed, on a
machine that does nothing else; it takes half an hour::

    python benchmarks/scaling.py --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engines import RUNTIME, SERVED, Make, Subject, chained, heavy, in_onnxruntime, through_galatea
from galatea import Client
from galatea._pbtxt import config_text, read_config
from galatea_exporter.export import Exported, export
from galatea_exporter.family import find_family
from galatea_server.server import EmbeddedServer
from measure import (
    CORES,
    Contender,
    Round,
    Spread,
    interleave,
    machine,
    note,
    ratios,
    table,
    versions,
)
from report import deliver

TITLE = "Scaling"
FAMILIES = ("dcgan_mammo", "stylegan2", "pix2pix_unet")
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CALLERS = (1, 2, 4, 8, 16, 32, 64)
FULL = 32  # images a request that the callers are compared with
BAR_CALLERS, BAR = 16, 0.9
PACKAGES = ("galatea", "onnxruntime", "nvidia-pytriton", "numpy")

HOW = """\
Full-width networks with random weights on the embedded server, from seeds or pictures to arrays in
the caller's hands. Callers are threads with a connection each, in closed loops. *{runtime}* is a
session on the released graph in the caller's process with a thread for each core. Rounds are
interleaved within a table; figures are medians, with the range of the rounds in brackets."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 2.0
    published: bool = True


QUICK = Plan(rounds=1, seconds=0.2, published=False)


@dataclass(frozen=True)
class Exhibit:
    """A generator that is served, and the same in this process."""

    done: Exported
    subject: Subject
    bare: Make


def prepare(name: str, folder: Path, plan: Plan) -> Exhibit:
    """Exports a family."""
    note(f"{name}: exporting")
    family = find_family(name)
    checkpoint = family.save(family.example(published=plan.published), folder / "checkpoint")
    done = export(name, checkpoint, name="x", repository=folder / "models")
    subject = Subject(heavy(family, checkpoint, 256), done.release)
    return Exhibit(done, subject, chained(subject, in_onnxruntime()))


def served(exhibit: Exhibit, callers: int, stack: ExitStack) -> tuple[list[Make], tuple[int, ...]]:
    """A server, and a client of each caller."""
    server = stack.enter_context(EmbeddedServer(exhibit.done.release.root))
    clients = [stack.enter_context(Client(server.grpc_url)) for _ in range(callers)]
    makes = [through_galatea(client, exhibit.done.card, exhibit.subject) for client in clients]
    return makes, (server.pid,)


def by_batch(exhibit: Exhibit, plan: Plan) -> Iterator[list[str]]:
    """Rows: one caller with larger and larger requests."""
    with ExitStack() as stack:
        [make], pids = served(exhibit, 1, stack)
        for batch in BATCHES:
            note(f"batch {batch}")
            ours = Contender(SERVED, 1, lambda _, batch=batch: make(batch), pids)  # type: ignore[misc] # mypy cannot infer a default's type
            bare = Contender(RUNTIME, 1, lambda _, batch=batch: exhibit.bare(batch))  # type: ignore[misc] # likewise
            played = interleave([ours, bare], plan.rounds, plan.seconds)
            share = ratios(played[ours], played[bare], rate)
            yield [str(batch), *(f"{median(played[one]):.4g}" for one in (bare, ours)), told(share)]


def by_callers(exhibit: Exhibit, plan: Plan) -> Iterator[list[str]]:
    """Rows: more and more callers with one image each, by one caller with full requests."""
    with ExitStack() as stack:
        makes, pids = served(exhibit, max(CALLERS), stack)
        full = Contender("full", 1, lambda _: makes[0](FULL), pids)
        several = [Contender(str(n), n, lambda k: makes[k](1), pids) for n in CALLERS]
        note("callers")
        played = interleave([full, *several], plan.rounds, plan.seconds)
        for contender in several:
            share = ratios(played[contender], played[full], rate)
            met = ""
            if contender.callers == BAR_CALLERS:
                met = "yes" if share.median >= BAR else "**no**"
            yield [contender.name, f"{median(played[contender]):.4g}", told(share), met]


def by_instances(exhibit: Exhibit, plan: Plan) -> Iterator[list[str]]:
    """Rows: instances of the accelerated stages, and threads of each; 0 threads share the batch."""
    counts = sorted({1, CORES, 2 * CORES})
    for instances in counts:
        for threads in (0, 1, CORES):
            note(f"{instances} instances, {threads} threads")
            configure(exhibit.subject, instances, threads)
            with ExitStack() as stack:
                makes, pids = served(exhibit, BAR_CALLERS, stack)
                loads = [
                    Contender("1", 1, lambda _, makes=makes: makes[0](1), pids),  # type: ignore[misc] # mypy cannot infer a default's type
                    Contender("full", 1, lambda _, makes=makes: makes[0](FULL), pids),  # type: ignore[misc] # likewise
                    Contender("crowd", BAR_CALLERS, lambda k, makes=makes: makes[k](1), pids),  # type: ignore[misc] # likewise
                ]
                played = interleave(loads, plan.rounds, plan.seconds)
                rates = [f"{median(played[load]):.4g}" for load in loads]
            yield [str(instances), str(threads) if threads else "shared", *rates]


def configure(subject: Subject, instances: int, threads: int) -> None:
    """Sets both in the configurations that the next server reads."""
    for stage in subject.stages:
        path = subject.graph(stage).parents[1] / "config.pbtxt"
        config = read_config(path)
        for group in config.instance_group:
            group.count = instances
        config.parameters["intra_op_thread_count"].string_value = str(threads)
        path.write_bytes(config_text(config))


def rate(played: Round) -> float:
    """Images a second."""
    return played.rate


def median(rounds: Sequence[Round]) -> float:
    """Of the rates."""
    return Spread.of(map(rate, rounds)).median


def told(share: Spread) -> str:
    """A ratio with its range."""
    return f"{share.median:.2f} [{share.low:.2f}–{share.high:.2f}]"


def report(name: str, plan: Plan) -> Iterator[str]:
    """The parts of one family."""
    parts: dict[tuple[str, ...], Callable[[Exhibit, Plan], Iterator[list[str]]]] = {
        ("images a request", f"{RUNTIME} images/s", f"{SERVED} images/s", "ratio"): by_batch,
        ("callers", "images/s", f"by one caller with {FULL} a request", f"≥ {BAR}"): by_callers,
        ("instances", "threads of each", "1 caller of 1", f"1 caller of {FULL}",
         f"{BAR_CALLERS} callers of 1"): by_instances,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="galatea-benchmark-") as folder:
        exhibit = prepare(name, Path(folder), plan)
        image = "×".join(map(str, exhibit.done.card.image.shape))
        yield f"## `{name}`, {image}".replace("-1×-1", "256×256")
        for heads, part in parts.items():
            yield table(heads, list(part(exhibit, plan)))


def main() -> None:
    """Measures the families and prints or writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family", nargs="*", help=f"by default {', '.join(FAMILIES)}")
    parser.add_argument("--quick", action="store_true", help="a smoke run with small networks")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else Plan()
    place = {**machine(), **versions(*PACKAGES), "rounds": f"{plan.rounds} of {plan.seconds:g} s"}
    head = [
        "Made by `python benchmarks/scaling.py`.",
        "\n".join(f"- {name}: {fact}" for name, fact in place.items()),
        textwrap.fill(HOW.format(runtime=RUNTIME), 100),
    ]
    parts = [part for name in chosen.family or FAMILIES for part in report(name, plan)]
    text = "\n\n".join([*head, *parts])
    deliver(chosen.write, TITLE, text)


if __name__ == "__main__":
    main()
