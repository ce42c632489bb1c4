"""``galatea deploy``: manifests for Kubernetes, rendered and checked without a cluster."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from galatea.cli._output import emit, output_options, say, wants_json
from galatea.errors import InvalidInput, MachineError
from galatea.extras import needs_extra
from galatea_server.deploy.jobs import job

if TYPE_CHECKING:
    from galatea_server.deploy.kustomize import Sizes
    from galatea_server.deploy.manifests import Fault, Manifest

ROOM = 256 << 20  # bytes of a server besides its stages and /dev/shm: 113 MB with phantom
PER_BYTE = 3  # bytes of memory for a byte of a graph: as it is read, its weights, what is computed
PER_STAGE = 128 << 20  # bytes of the process that runs a stage: 74 and 109 MB with phantom


class Assignment(click.ParamType[tuple[str, str]]):
    """``NAME=VALUE``."""

    name = "assignment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, content = str(value).partition("=")
        if not (key and equals and content):
            self.fail(f"{value!r} is no assignment: write NAME=VALUE", param, ctx)
        return key, content


def complete_overlay(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of overlays, for a shell."""
    return _beginning(ctx, "overlays", incomplete)


def complete_component(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of components, for a shell."""
    return _beginning(ctx, "components", incomplete)


# Eager: completing another argument needs it.
k8s_option = click.option(
    "--k8s", is_eager=True, type=click.Path(path_type=Path), default=Path("k8s"), show_default=True,
    help="Folder with base, components and overlays.",
)  # fmt: skip


@click.group()
def deploy() -> None:
    """Render and check manifests for Kubernetes."""


@deploy.command()
@click.argument("overlay", shell_complete=complete_overlay)
@click.option(
    "--component", "components", multiple=True, metavar="NAME", shell_complete=complete_component,
    help="A further component; of several that bring the models, the last one counts.",
)  # fmt: skip
@click.option("--namespace", help="Namespace of all objects.")
@click.option(
    "--image", "images", multiple=True, type=Assignment(), metavar="NAME=REFERENCE",
    help="Another image, as galatea-server=registry.example.org/galatea-server:0.1.0.",
)  # fmt: skip
@click.option("--replicas", type=click.IntRange(min=0), help="How many servers.")
@click.option(
    "--set", "settings", multiple=True, type=Assignment(), metavar="GALATEA_SERVE_X=VALUE",
    help="A knob of the servers; see k8s/README.md.",
)  # fmt: skip
@click.option(
    "--repository", type=click.Path(path_type=Path),
    help="Model repository; /dev/shm and memory are made large enough for it.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file, not stdout.")
@k8s_option
@output_options
def render(
    overlay: str,
    components: tuple[str, ...],
    namespace: str | None,
    images: tuple[tuple[str, str], ...],
    replicas: int | None,
    settings: tuple[tuple[str, str], ...],
    repository: Path | None,
    output: Path | None,
    k8s: Path,
) -> None:
    """Render an overlay, a name in k8s/overlays or a folder, and check it.

    The same options give the same bytes. Nothing is written when there is a fault.
    """
    with needs_extra("deploy"):
        from galatea_server.deploy import kustomize
        from galatea_server.deploy.manifests import dump
        from galatea_server.deploy.rules import check as check_rules

    order = kustomize.Order(
        _folder(overlay, k8s / "overlays"),
        [_folder(name, k8s / "components") for name in components],
        namespace=namespace,
        images=dict(images),
        replicas=replicas,
        settings=dict(settings),
        sizes=None if repository is None else _sizes(repository),
    )
    manifests = kustomize.render(order)
    _refuse(check_rules(manifests), overlay)
    text = dump(manifests)
    if output is not None:
        try:
            output.write_text(text, "utf-8")
        except OSError as error:
            raise MachineError(
                f"{output}: cannot be written: {error.strerror or error}", "name another file"
            ) from error
        say(f"{output}: {len(manifests)} objects; apply them: kubectl apply -f {output}")
    if wants_json():
        emit(manifests, lambda: None)
    elif output is None:
        click.echo(text, nl=False)


@deploy.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE|FOLDER|OVERLAY...")
@click.option("--kubernetes", metavar="VERSION", help="Version of the schemas, as 1.36.")
@k8s_option
@output_options
def check(sources: tuple[str, ...], kubernetes: str | None, k8s: Path) -> None:
    """Check manifests against schemas and rules; exit code 5 if anything is wrong.

    A source is a file with rendered manifests, a folder that kustomize renders, or the name of an
    overlay. The rules are about what no schema sees: whether selectors, ports, volumes, claims,
    probes, memory, GPUs, autoscalers and policies fit together, and Pod Security "restricted".
    """
    with needs_extra("deploy"):
        from galatea_server.deploy.rules import check as check_rules
        from galatea_server.deploy.schema import VERSION, check_schema

    version = kubernetes or VERSION
    report, told, objects = [], [], 0
    for source in sources:
        manifests = _manifests(source, k8s)
        faults = [*check_schema(manifests, version), *check_rules(manifests)]
        objects += len(manifests)
        told += [f"{source}: {fault}" for fault in faults]
        report.append(
            {
                "source": source,
                "kubernetes": version,
                "objects": len(manifests),
                "faults": [asdict(fault) for fault in faults],
            }
        )

    def human() -> None:
        for line in told:
            click.echo(line)
        if not told:
            click.echo(f"{objects} objects, no faults (Kubernetes {version})")

    emit(report, human)
    sys.exit(InvalidInput.exit_code if told else 0)


def _manifests(source: str, k8s: Path) -> list[Manifest]:
    from galatea_server.deploy import kustomize
    from galatea_server.deploy.manifests import load

    path = Path(source)
    if not path.is_file():
        return kustomize.render(kustomize.Order(_folder(source, k8s / "overlays")))
    try:
        return load(path.read_text("utf-8"), source)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{source}: cannot be read ({error})", "name a YAML file") from error


def _folder(name: str, root: Path) -> Path:
    """A folder by its name in `root`, or by its path."""
    for folder in (root / name, Path(name)):
        if (folder / "kustomization.yaml").is_file():
            return folder
    if not root.is_dir():
        raise InvalidInput(f"{root}: no such folder", "name galatea's folder k8s: --k8s FOLDER")
    raise InvalidInput(
        f"{name}: neither in {root} nor a folder with a kustomization.yaml",
        f"name one of: {', '.join(_names(root))}",
    )


def _names(root: Path) -> list[str]:
    """What can be rendered, or put on it, in a folder."""
    return sorted(
        str(path.parent.relative_to(root))
        for path in root.rglob("kustomization.yaml")
        if (path.parent / "README.md").is_file() or root.name == "overlays"
    )


def _beginning(ctx: click.Context, folder: str, incomplete: str) -> list[str]:
    names = _names(ctx.params.get("k8s", Path("k8s")) / folder)
    return [name for name in names if name.startswith(incomplete)]


def _sizes(repository: Path) -> Sizes:
    from galatea_server.deploy.kustomize import Sizes
    from galatea_server.sizing import shared_memory

    shm = shared_memory(repository)
    graphs = [path.stat().st_size for path in repository.glob("*/*/*.onnx*")]
    stages = len(list(repository.glob("*/*/model.onnx")))
    return Sizes(shm, shm + ROOM + PER_STAGE * stages + PER_BYTE * sum(graphs))


def _refuse(faults: list[Fault], overlay: str) -> None:
    if faults:
        more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
        raise InvalidInput(
            f"{overlay}: {faults[0].object}: {faults[0].field} {faults[0].problem}{more}",
            faults[0].remedy,
        )


deploy.add_command(job)
