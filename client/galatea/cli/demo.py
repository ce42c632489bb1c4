"""``galatea demo``: the whole way on this machine, from a checkpoint to a picture."""

from __future__ import annotations

import time
from pathlib import Path

import click

from galatea.cli._output import emit, output_options, progress, say, steps
from galatea.client import Client
from galatea.errors import MachineError
from galatea.extras import needs_extra

IMAGES = 64
SEED = 7


@click.command()
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
def demo(examples: Path, repository: Path, output: Path) -> None:
    """Export the phantom generator, serve it, sample 64 images and make a picture of them."""
    checkpoint = examples / "phantom" / "phantom_cdcgan.pt"
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
        facts = Facts.read(examples / "phantom" / "card.toml")
        done = export("dcgan_mammo", checkpoint, name="phantom", repository=repository,
                      facts=facts, progress=step)  # fmt: skip
        step("starting Triton")
        start = time.perf_counter()
        server = EmbeddedServer(repository)
        server.start()
    ready = time.perf_counter() - start
    say(f"Triton is ready at {server.grpc_url} after {ready:.1f} s")
    with server, Client(server.grpc_url) as client, progress(IMAGES, "sampling") as bar:
        start = time.perf_counter()
        half = IMAGES // 2
        samples = client.sample(
            "phantom", IMAGES, seed=SEED, label=[0] * half + [1] * half,
            progress=lambda images: bar.advance(bar.tasks[0].id, images),
        )  # fmt: skip
        seconds = time.perf_counter() - start
    picture = output / "grid.png"
    try:
        output.mkdir(parents=True, exist_ok=True)
        samples.grid(8, outline=True).save(picture)
    except OSError as error:
        raise MachineError(
            f"{picture}: cannot be written: {error.strerror or error}", "choose another --output"
        ) from error
    report = {
        "picture": str(picture),
        "version": done.card.version,
        "images": IMAGES,
        "images_per_second": round(IMAGES / seconds, 1),
        "seeds": [int(samples.seeds[0]), int(samples.seeds[-1])],
        "ready_seconds": round(ready, 2),
    }

    def human() -> None:
        click.echo(
            f"{picture}: {IMAGES} synthetic masses, benign above and malignant below, outlined in "
            f"red as the generator's own mask says\n"
            f"{IMAGES / seconds:.0f} images/s; seeds {samples.seeds[0]}–{samples.seeds[-1]} give "
            "the same images again:\n"
            f"  galatea serve --repository {repository}\n"
            f"  galatea sample phantom -n {half} --seed {SEED} --label benign\n"
            f"  galatea sample phantom -n {half} --seed {SEED + half} --label malignant"
        )

    emit(report, human)
