"""``galatea demo``: the whole way on this machine, from a checkpoint to a picture."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import click

from galatea.cli._output import emit, output_options, progress, say, steps
from galatea.client import Client
from galatea.errors import MachineError
from galatea.extras import needs_extra

SEED = 7
COLUMNS = 8


@dataclass(frozen=True)
class Demo:
    """A generator of the source tree, and how it is shown.

    Attributes:
        family: of its checkpoint.
        checkpoint: file below the examples; its ``card.toml`` is beside it.
        model: the name it gets; also that of the folder.
        rows: of the picture, for each label.
        picture: name of the file.
        shown: what the picture shows.
    """

    family: str
    checkpoint: str
    model: str
    rows: int
    picture: str
    shown: str


DEMOS = {
    "phantom": Demo(
        "dcgan_mammo", "phantom_cdcgan.pt", "phantom", 4, "grid.png",
        "benign above and malignant below",
    ),
    "diffusion": Demo(
        "guided_diffusion", "phantom_diffusion.pt", "phantom_diffusion", 1, "diffusion.png",
        "benign above and malignant below, of each a row of small and a row of large ones",
    ),
}  # fmt: skip


@click.command()
@click.argument("which", type=click.Choice(list(DEMOS)), default="phantom")
@click.option(
    "--examples", type=click.Path(path_type=Path), default=Path("examples"), show_default=True,
    help="Folder with the demo's checkpoint, as in the source tree.",
)  # fmt: skip
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"),
    show_default=True, help="Triton model repository to release into.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
    help="Folder for the picture.",
)  # fmt: skip
@output_options
def demo(which: str, examples: Path, repository: Path, output: Path) -> None:
    """Export a generator of phantom masses, serve it, sample images and make a picture of them.

    phantom is a GAN, the default; diffusion makes its images in steps.
    """
    shown = DEMOS[which]
    checkpoint = examples / shown.model / shown.checkpoint
    if not checkpoint.is_file():
        raise MachineError(
            f"{checkpoint}: the demo's checkpoint is not here",
            "run this in galatea's source tree, or name its examples with --examples",
        )
    with needs_extra("export"):
        from galatea_exporter.export import Facts, export
    with needs_extra("serve"):
        from galatea_server.server import EmbeddedServer
    with steps() as step:
        facts = Facts.read(checkpoint.with_name("card.toml"))
        card = export(shown.family, checkpoint, name=shown.model, repository=repository,
                      facts=facts, progress=step).card  # fmt: skip
        step("starting Triton")
        start = time.perf_counter()
        server = EmbeddedServer(repository)
        server.start()
    ready = time.perf_counter() - start
    say(f"Triton is ready at {server.grpc_url} after {ready:.1f} s")
    names = card.label.labels if card.label else ()
    each = shown.rows * COLUMNS
    labels = [label for label in range(len(names)) for _ in range(each)]
    with server, Client(server.grpc_url) as client, progress(len(labels), "sampling") as bar:
        task = bar.tasks[0].id

        def on_step(calls: int, of: int) -> None:
            bar.update(task, completed=calls, total=of, description="model calls")

        def on_images(images: int) -> None:
            bar.advance(task, images)

        told = {"on_step": on_step} if card.steps else {"progress": on_images}
        start = time.perf_counter()
        samples = client.sample(shown.model, len(labels), seed=SEED, label=labels, **told)
        seconds = time.perf_counter() - start
    picture = output / shown.picture
    try:
        output.mkdir(parents=True, exist_ok=True)
        samples.grid(COLUMNS, outline=True).save(picture)
    except OSError as error:
        raise MachineError(
            f"{picture}: cannot be written: {error.strerror or error}", "choose another --output"
        ) from error
    report = {
        "picture": str(picture),
        "version": card.version,
        "images": len(labels),
        "images_per_second": round(len(labels) / seconds, 1),
        "seeds": [int(samples.seeds[0]), int(samples.seeds[-1])],
        "ready_seconds": round(ready, 2),
    }

    def human() -> None:
        again = [
            f"  galatea sample {shown.model} -n {each} --seed {SEED + k * each} "
            f"--label {shlex.quote(name)}"
            for k, name in enumerate(names)
        ]
        click.echo(
            f"{picture}: {len(labels)} synthetic masses, {shown.shown}, outlined in red as the "
            "generator's own mask says\n"
            f"{report['images_per_second']} images/s; seeds {samples.seeds[0]}–{samples.seeds[-1]} "
            "give the same images again:\n"
            f"  galatea serve --repository {repository}\n" + "\n".join(again)
        )

    emit(report, human)
