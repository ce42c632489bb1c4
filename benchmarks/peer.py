"""galatea against medigan's own way: images per CPU-second and peak memory.

Run it from the root of the source tree, with the extras ``serve`` and ``export`` installed, on a
machine that does nothing else and has 16 GB of memory; it takes about ten minutes, and one more
the first time, when it installs medigan into an environment of its own (:mod:`peer_environment`)::

    python benchmarks/peer.py --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import peer_environment
import peer_report
from callers import Caller
from contenders import DCGAN, FAMILY, full_width
from galatea_exporter.export import export
from galatea_server.server import EmbeddedServer
from measure import Contender, interleave, machine, note, play, versions
from peer_report import DEFAULT, GALATEA, MEDIGAN, Ready, Result, server_peak
from report import deliver

TITLE = "Against medigan"
PACKAGES = ("galatea", "onnxruntime", "nvidia-pytriton", "tritonclient", "numpy", "Pillow")
COMPARED = 100  # images of each library, before anything is measured
ALIKE = 0.9  # correlation of their mean images
CALLS = count()  # each has a folder of its own


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        sizes: images a call, from the smallest: a caller's peak is that of its largest call so far.
        callers: at once.
        rounds, seconds: of each contender.
        many: where all callers together make so many images in one call, one round must do.
    """

    sizes: tuple[int, ...] = (1, 10, 100, 1000)
    callers: tuple[int, ...] = (1, 16)
    rounds: int = 3
    seconds: float = 2.0
    many: int = 1000


QUICK = Plan(sizes=(1, 10, 100), callers=(1, 4), rounds=1, seconds=0.5, many=200)


@dataclass(frozen=True)
class Users:
    """Processes that use one library in one way.

    Attributes:
        name: of the library, and how it is used.
        files: they write PNG files; otherwise images stay arrays.
        servers: that work for them.
    """

    name: str
    files: bool
    callers: list[Caller]
    servers: tuple[int, ...] = ()

    def contender(self, n: int, number: int, folder: Path) -> Contender:
        """The first `number` of them, `n` images a call, a new folder for each call."""
        callers = self.callers[:number]

        def call(caller: int) -> int:
            target = folder / str(next(CALLS)) if self.files else None
            return callers[caller].make(n, target)

        pids = tuple(caller.pid for caller in callers)
        return Contender(self.name, number, call, (*pids, *self.servers))


@dataclass(frozen=True)
class Contest:
    """Everything that is ready to be measured, and a folder for images."""

    users: list[Users]
    ready: dict[str, Ready]
    server: EmbeddedServer
    images: Path
    peer: dict[str, str]  # distribution → version in medigan's environment


@contextlib.contextmanager
def contest(callers: int) -> Iterator[Contest]:
    """Exports the full-width DCGAN, serves it, and starts as many callers of each library."""
    python = peer_environment.environment()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galatea-peer-")))
        note("exporting the full-width DCGAN")
        checkpoint = full_width(folder)
        export(FAMILY, checkpoint, name=DCGAN, repository=folder / "repository")
        server = stack.enter_context(EmbeddedServer(folder / "repository"))
        workspace = peer_environment.workspace(folder / "medigan", checkpoint)
        seeds = count(0, 2**32)

        def galatea() -> Caller:
            arguments = [server.grpc_url, DCGAN, str(next(seeds))]
            return Caller(Path(sys.executable), "callers.from_galatea", arguments, folder)

        def medigan(variables: Mapping[str, str]) -> Caller:
            arguments = [peer_environment.MODEL]
            return Caller(python, "callers.from_medigan", arguments, workspace, variables)

        starters: dict[str, Callable[[], Caller]] = {
            GALATEA: galatea,
            MEDIGAN: lambda: medigan({"OMP_NUM_THREADS": "1"}),
            DEFAULT: lambda: medigan({}),
        }
        trials = {name: trial(start, folder / name) for name, start in starters.items()}
        check_alike([images for _, images in trials.values()])
        ready = {name: cost for name, (cost, _) in trials.items()}

        def users(name: str, files: bool, number: int) -> Users:
            started = [stack.enter_context(starters[name]()) for _ in range(number)]
            for caller in started:
                caller.wait_until_ready()
            return Users(name, files, started, (server.pid,) if name == GALATEA else ())

        note(f"starting {callers} callers of each library")
        everyone = [users(GALATEA, True, callers), users(MEDIGAN, True, callers)]
        everyone += [users(DEFAULT, True, 1), users(GALATEA, False, 1), users(MEDIGAN, False, 1)]
        images = folder / "images"
        yield Contest(everyone, ready, server, images, peer_environment.told(python))


def trial(start: Callable[[], Caller], folder: Path) -> tuple[Ready, NDArray[np.uint8]]:
    """What it costs to start a caller, and images uint8 [n, 128, 128] from the files it writes."""
    begin = time.perf_counter()
    with start() as caller:
        caller.wait_until_ready()
        ready = Ready(time.perf_counter() - begin, caller.cpu, caller.peak)
        caller.make(COMPARED, folder)
    pictures = [Image.open(file) for file in sorted(folder.glob("*.png"))]
    assert len(pictures) == COMPARED, f"{len(pictures)} files in {folder}"
    assert {(picture.mode, picture.size) for picture in pictures} == {("L", (128, 128))}
    return ready, np.stack([np.asarray(picture) for picture in pictures])


def check_alike(images: list[NDArray[np.uint8]]) -> None:
    """Exits unless all make images of the same network.

    Their noise differs, so their mean images are compared: a network with other weights has
    another one.
    """
    alike = float(np.corrcoef([stack.mean(axis=0).ravel() for stack in images]).min())
    if alike < ALIKE:
        sys.exit(f"the libraries do not make the same images: correlation {alike:.2f}")


def measure(contestants: Contest, plan: Plan) -> Iterator[Result]:
    """Every library with every size of a call and number of callers."""
    for n in plan.sizes:
        for number in plan.callers:
            note(f"{n} images a call, {number} callers")
            users = [users for users in contestants.users if len(users.callers) >= number]
            contenders = [entry.contender(n, number, contestants.images) for entry in users]
            if n * number >= plan.many:
                played = {contender: [play(contender, 0)] for contender in contenders}
            else:
                played = interleave(contenders, plan.rounds, plan.seconds)
            for entry, rounds in zip(users, played.values(), strict=True):
                peak = max(caller.peak for caller in entry.callers[:number])
                served = server_peak(contestants.server.pid) if entry.servers else None
                yield Result(n, number, entry.name, entry.files, rounds, peak, served)
            shutil.rmtree(contestants.images)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute or two")
    return parser.parse_args()


def main() -> None:
    """Measures everything and prints or writes the report."""
    chosen = arguments()
    plan = QUICK if chosen.quick else Plan()
    place = {**machine(), **versions(*PACKAGES)}
    with contest(max(plan.callers)) as contestants:
        results = list(measure(contestants, plan))
    place["in medigan's environment"] = ", ".join(f"{k} {v}" for k, v in contestants.peer.items())
    place["rounds"] = f"{plan.rounds} of {plan.seconds:g} s"
    lines = ["Made by `python benchmarks/peer.py`.\n"]
    if chosen.quick:
        lines.append("A smoke run (`--quick`): these figures are not to be quoted.\n")
    lines += [f"- {name}: {fact}" for name, fact in place.items()]
    lines.append(f"\n{peer_report.how(results, plan.many)}")
    lines.append(f"\n## Images per CPU-second\n\n{peer_report.throughput_table(results)}")
    lines.append(f"\n## Peak memory, MB\n\n{peer_report.memory_table(results)}")
    lines.append(f"\n## Until a caller is ready\n\n{peer_report.ready_table(contestants.ready)}")
    lines.append(f"\n## Requirements\n\n{peer_report.requirements_table(results)}")
    text = "\n".join(lines)
    deliver(chosen.write, TITLE, text)
    if chosen.json is not None:
        raw = {"place": place, "results": [asdict(result) for result in results]}
        chosen.json.write_text(json.dumps(raw, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
