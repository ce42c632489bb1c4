"""``galatea engine``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from galatea.cli._complete import complete_release
from galatea.cli._output import emit, output_options, steps
from galatea.cli.repo import repository_option
from galatea.errors import InvalidInput, RepositoryError
from galatea.local_variants import check_name, check_writable
from galatea.repository import find, verify


@click.group()
def engine() -> None:
    """Build TensorRT engines for the GPUs of a node."""


@engine.command()
@click.argument("name", shell_complete=complete_release)
@repository_option
@click.option("--version", type=int, help="Default is the active one.")
@click.option("--fp16", is_flag=True, help="Let the engine compute in float16.")
@click.option("--cuda-graphs", is_flag=True, help="Capture CUDA graphs of batch 1 and the largest.")
@click.option(
    "--as", "called", default="engine", show_default=True, help="Name of the variant to write."
)
@click.option("--dry-run", is_flag=True, help="Tell what would be built; needs no GPU.")
@output_options
def build(
    name: str,
    repository: Path,
    version: int | None,
    fp16: bool,
    cuda_graphs: bool,
    called: str,
    dry_run: bool,
) -> None:
    """Build a TensorRT engine of the heaviest stage of NAME, for the GPU of this machine.

    It is compared with the ONNX graph, then added to the release as a variant:
    galatea serve --model-config engine, with NVIDIA's Triton.
    """
    from galatea_server.engines import building
    from galatea_server.engines.recipe import recipe, release_engine

    release = find(repository, name, version)
    check_name(called, release.variants())
    problems = verify(repository, name, variant="")
    if problems:
        raise RepositoryError(
            f"{repository}: {problems[0]}", f"see: galatea repo verify --repository {repository}"
        )
    card = release.card()
    if fp16 and card.parity_fp16 is None:
        raise InvalidInput(
            f"{name} has no figure of float16 in its card to hold an engine to",
            "export it with --fp16, or build without",
        )
    made = recipe(release, fp16=fp16)
    told = {
        "name": name, "version": release.version, "stage": made.model, "variant": called,
        "profile": {key: list(map(list, shapes)) for key, shapes in made.profile.items()},
    }  # fmt: skip
    if dry_run:
        file = made.file("X.Y", "VERSION")
        emit(
            {**told, "file": file},
            lambda: click.echo(f"{made.model}: {_profiles(made.profile)} → {file}"),
        )
        return
    check_writable(repository, name, release.version)
    gpu, tensorrt = building.machine()
    from galatea_server.engines import checking

    with steps() as step:
        step(f"building {made.model} for {gpu.name} with TensorRT {tensorrt}")
        plan = building.build(made)
        step("comparing it with the ONNX graph")
        feeds = list(checking.inputs(made))
        checking.check(card, made, checking.reference(made, feeds), building.run(made, plan, feeds))
        noted = made.engine(gpu, tensorrt)
        added = release_engine(made, noted, plan, called, cuda_graphs=cuda_graphs)
    emit(
        {**told, "engine": asdict(noted), "written": sorted(added.files)},
        lambda: click.echo(f"{noted.file}\ntry: galatea serve --model-config {called}"),
    )


def _profiles(profile: Mapping[str, tuple[tuple[int, ...], ...]]) -> str:
    return ", ".join(
        f"{name} {' … '.join('×'.join(map(str, shape)) for shape in (shapes[0], shapes[-1]))}"
        for name, shapes in profile.items()
    )
