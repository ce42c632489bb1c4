"""One generator in all its forms: behind client and server, in ONNX Runtime, in eager PyTorch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from galatea import Client
from galatea._pbtxt import read_config
from galatea.card import ModelCard
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.export import Facts, export
from galatea_exporter.families.dcgan_mammo import Generator, upstream_state
from galatea_exporter.family import find_family
from galatea_server.server import EmbeddedServer
from measure import CORES, Contender

FAMILY = "dcgan_mammo"
MAX_BATCH = 32
DCGAN, DEMO = "dcgan", "phantom"  # names in Triton
PIPELINE = 8  # requests of one call that keeps several on their way
SERVED, PIPELINED, EAGER = "galatea", f"galatea, {PIPELINE} requests a call", "eager PyTorch"
BARE, BARE_ALONE = "ONNX Runtime", "ONNX Runtime, 1 thread a call"

Make = Callable[[int, int], NDArray[np.uint8]]  # first seed, number of images → images


@dataclass(frozen=True)
class Subject:
    """A generator in all its forms.

    Attributes:
        card: its card; the name is the model's in `repository`.
        title: what it is called in the report.
        eager: stages as PyTorch modules.
    """

    card: ModelCard
    title: str
    repository: Path
    eager: tuple[nn.Module, ...]

    def conditions(self, n: int) -> dict[str, NDArray[np.int64]]:
        """Labels as the client deals them out, int64 [n, 1]."""
        return {
            entry.name: (np.arange(n) % len(entry.labels))[:, None]
            for entry in self.card.inputs
            if entry.labels
        }


def full_width(folder: Path) -> Path:
    """A checkpoint of a DCGAN as wide as published ones (nz 100, ngf 64, 128×128), random weights.

    BatchNorm gets the statistics of a batch of noise: the images are nonsense, but not all grey.
    """
    torch.manual_seed(0)
    generator = Generator(100, 64, 1, 128)
    for layer in generator.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean of all batches, which is one
    with torch.no_grad():
        generator(torch.randn(64, 100))
    path = folder / "dcgan.pt"
    torch.save({"generator": upstream_state(generator)}, path)
    return path


def prepare(checkpoint: Path, name: str, title: str, repository: Path, facts: Facts) -> Subject:
    """Exports a checkpoint and loads it into PyTorch."""
    exported = export(FAMILY, checkpoint, name=name, repository=repository, facts=facts)
    family = find_family(FAMILY)
    options = family.options(**exported.card.configuration)
    stages = family.load(read_checkpoint(checkpoint), options).stages
    eager = tuple(stage.module.eval() for stage in stages)
    return Subject(exported.card, title, repository, eager)


def flops(subject: Subject) -> int:
    """Floating-point operations of one image, counted from the shapes; two a multiply-add."""
    with FlopCounterMode(display=False) as counter:
        in_torch(subject)(0, 1)
    total: int = counter.get_total_flops()
    return total


def in_torch(subject: Subject) -> Make:
    """Eager PyTorch; threads as PyTorch takes them."""
    noise, synthesis = subject.eager

    def make(seed: int, n: int) -> NDArray[np.uint8]:
        with torch.inference_mode():
            latent = noise(torch.arange(seed, seed + n)[:, None])
            given = [torch.from_numpy(values) for values in subject.conditions(n).values()]
            outputs: list[NDArray[np.uint8]] = [
                tensor.numpy() for tensor in synthesis(latent, *given)
            ]
            return outputs[0]

    return make


def in_onnxruntime(subject: Subject, threads: int) -> Make:
    """Sessions on the released graphs, in this process.

    Args:
        threads: of the synthesis; 0 is one for each core. The noise is computed as it is served.
    """
    name, version = subject.card.name, str(subject.card.version)
    sessions = []
    for stage, number in (("noise", service(subject, "noise").threads), ("synthesis", threads)):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = number
        path = subject.repository / f"{name}.{stage}" / version / "model.onnx"
        sessions.append(
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        )
    noise, synthesis = sessions

    def make(seed: int, n: int) -> NDArray[np.uint8]:
        seeds = np.arange(seed, seed + n, dtype=np.int64)[:, None]
        [latent] = noise.run(["latent"], {"seed": seeds})
        outputs: list[NDArray[np.uint8]]
        outputs = synthesis.run(None, {"latent": latent, **subject.conditions(n)})
        return outputs[0]

    return make


@dataclass(frozen=True)
class Service:
    """How a stage is served: that many instances, each with so many threads."""

    instances: int
    threads: int


def service(subject: Subject, stage: str) -> Service:
    """From ``config.pbtxt``; without ``intra_op_thread_count`` an instance takes every core."""
    path = subject.repository / f"{subject.card.name}.{stage}" / "config.pbtxt"
    config = read_config(path)
    instances = sum(group.count for group in config.instance_group)
    threads = int(config.parameters["intra_op_thread_count"].string_value or 0)
    return Service(instances, threads or CORES)


@contextlib.contextmanager
def contest(subject: Subject, callers: Sequence[int]) -> Iterator[Callable[[int], list[Contender]]]:
    """Starts a server and makes every contender ready.

    Args:
        callers: the numbers of concurrent callers.

    Yields:
        Batch → contenders, each with each number of callers.
    """
    name, seeds = subject.card.name, count(0, PIPELINE * MAX_BATCH)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer(subject.repository))
        # Callers are users of their own, so each has a connection of its own.
        clients = [stack.enter_context(Client(server.grpc_url)) for _ in range(max(callers))]
        rivals = _rivals(subject)
        images = clients[0].sample(name, MAX_BATCH, seed=7).images
        for rival, make in rivals.items():
            _check_equal(images, make(7, MAX_BATCH), 1 if rival == EAGER else 0)

        def served(n: int) -> Callable[[int], int]:
            return lambda caller: len(clients[caller].sample(name, n, seed=next(seeds)))

        def local(make: Make, n: int) -> Callable[[int], int]:
            return lambda caller: len(make(next(seeds), n))

        def contenders(batch: int) -> list[Contender]:
            made = []
            for number in callers:
                made.append(Contender(SERVED, number, served(batch), (server.pid,)))
                if number == 1 and batch == MAX_BATCH:
                    several = served(PIPELINE * batch)
                    made.append(Contender(PIPELINED, number, several, (server.pid,)))
                for rival, make in rivals.items():
                    made.append(Contender(rival, number, local(make, batch)))
            return made

        yield contenders


def _rivals(subject: Subject) -> dict[str, Make]:
    """Every rival by name; the sessions with all cores, with one and with the served threads."""
    threads = service(subject, "synthesis").threads
    rivals = {BARE: in_onnxruntime(subject, 0), BARE_ALONE: in_onnxruntime(subject, 1)}
    if threads not in (1, CORES):
        rivals[f"{BARE}, {threads} threads a call"] = in_onnxruntime(subject, threads)
    return {**rivals, EAGER: in_torch(subject)}


def _check_equal(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], levels: int) -> None:
    """Exits unless the two differ by at most `levels`, and are pictures at all."""
    assert ours.shape == theirs.shape
    apart = int(np.abs(ours.astype(np.int16) - theirs).max())
    if apart > levels or ours.std() < 1:
        sys.exit(f"the contenders do not make the same images: {apart} levels apart")
