"""``galatea serve`` and ``galatea doctor``."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from galatea.cli._output import emit, output_options, say, table, wants_json
from galatea.cli.config import config, print_settings, settings_in_force
from galatea.errors import GalateaError, RepositoryError
from galatea.extras import needs_extra
from galatea_server.log import LEVELS, shown

if TYPE_CHECKING:
    from galatea_server.container import ContainerServer
    from galatea_server.server import EmbeddedServer


@click.command()
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"),
    show_default=True, help="Triton model repository.",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--http-port", default=8000, show_default=True, help="0 takes a free one.")
@click.option("--grpc-port", default=8001, show_default=True, help="0 takes a free one.")
@click.option("--metrics-port", default=8002, show_default=True, help="0 takes a free one.")
@click.option(
    "--model-config", metavar="VARIANT",
    help="Variant of the models' configurations: cpu, cuda, cuda-fp16, tensorrt, tensorrt-fp16, "
    "or one that galatea tune or galatea engine build has added.",
)  # fmt: skip
@click.option(
    "--exit-timeout", default=30, show_default=True,
    help="Seconds that requests under way get to finish at the end.",
)  # fmt: skip
@click.option("--verify/--no-verify", default=True, help="Compare all files with their manifests.")
@click.option(
    "--log", "level", type=click.Choice(list(LEVELS)), default="warning", show_default=True,
    help="What of Triton's log goes to stderr.",
)  # fmt: skip
@click.option(
    "--log-format", type=click.Choice(["default", "iso8601"]), default="default",
    show_default=True, help="How Triton writes it; iso8601 with dates.",
)  # fmt: skip
@click.option(
    "--restrict/--no-restrict",
    help="Refuse shared memory and changes of traces and of the log over the wire.",
)
@click.option(
    "--triton", multiple=True, metavar="FLAG",
    help="A further flag of tritonserver, as --name=value.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["embedded", "docker"]), default="embedded", show_default=True,
    help="Run Triton on this machine as it is, or in a container.",
)  # fmt: skip
@click.option(
    "--image", metavar="REF",
    help="Of the container; default is galatea-server-cpu, or galatea-server with --gpus.",
)  # fmt: skip
@click.option("--gpus", metavar="all|N|0,2", help="GPUs of the container; implies cuda.")
@output_options
def serve(
    repository: Path,
    host: str,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    model_config: str | None,
    exit_timeout: int,
    verify: bool,
    level: str,
    log_format: str,
    restrict: bool,
    triton: tuple[str, ...],
    engine: str,
    image: str | None,
    gpus: str | None,
) -> None:
    """Serve a model repository with Triton on this machine.

    Stops on Ctrl-C or SIGTERM: requests under way may finish, then Triton's exit status is
    returned.
    """
    address: dict[str, Any] = {
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
    }
    if engine == "docker":
        options: dict[str, Any] = {
            "model-config": model_config or ("cuda" if gpus else None),
            "verify": verify,
            "log": level,
            # What is not asked for here is as the image has it.
            "log-format": None if log_format == "default" else log_format,
            "restrict": restrict or None,
            "triton": triton,
        }
        status = _run(_container(repository, image, gpus, options, exit_timeout, address))
    elif image or gpus:
        raise click.UsageError("--image and --gpus are for --engine docker")
    else:
        from galatea_server.server import EmbeddedServer

        if verify and repository.is_dir():
            _verify(repository, model_config)
        with tempfile.TemporaryFile() as log:
            server = EmbeddedServer(
                repository,
                model_config=model_config,
                exit_timeout=exit_timeout,
                restrict=restrict,
                verbose=level == "verbose",
                log_format=log_format.upper() if log_format == "iso8601" else log_format,
                further=triton,
                log=log,
                **address,
            )
            with shown(log, level):
                status = _run(server)
        say(f"Triton ended with status {status}")
    sys.exit(status if status >= 0 else 128 - status)


@click.command()
@click.option("--http-port", default=8000, show_default=True, help="Port that should be free.")
@click.option("--grpc-port", default=8001, show_default=True, help="Port that should be free.")
@click.option("--metrics-port", default=8002, show_default=True, help="Port that should be free.")
@output_options
@click.pass_context
def doctor(ctx: click.Context, http_port: int, grpc_port: int, metrics_port: int) -> None:
    """Tell what this machine lacks to serve and export, and how to mend it.

    And what the settings are, as galatea config does.
    """
    from galatea_server.doctor import examine

    findings = examine({"http": http_port, "grpc": grpc_port, "metrics": metrics_port})
    settings = settings_in_force(config.make_context("config", [], parent=ctx.find_root()))

    def human() -> None:
        table(
            ("CHECK", "", "FOUND"),
            ((finding.check, finding.state, finding.fact) for finding in findings),
        )
        for finding in findings:
            if finding.state != "ok":
                click.echo(f"{finding.check}: {finding.remedy}")
        click.echo()
        print_settings(settings)

    emit(
        {
            "checks": [asdict(finding) for finding in findings],
            "settings": [asdict(setting) for setting in settings],
        },
        human,
    )
    sys.exit(1 if any(finding.state == "fail" for finding in findings) else 0)


def _container(
    repository: Path,
    image: str | None,
    gpus: str | None,
    options: dict[str, Any],
    exit_timeout: int,
    address: dict[str, Any],
) -> ContainerServer:
    """The server in a container, with memory for the repository's largest answers."""
    with needs_extra("docker"):
        from galatea_server.container import ContainerServer
    from galatea_server.installation import cache_folder
    from galatea_server.preflight import check_repository
    from galatea_server.sizing import shared_memory

    check_repository(repository, options["model-config"])
    tensorrt = str(options["model-config"]).startswith("tensorrt")
    name = "galatea-server" if gpus else "galatea-server-cpu"
    return ContainerServer(
        repository,
        image or f"{name}:{version('galatea')}",
        options=options,
        shm_bytes=shared_memory(repository, options["model-config"]),
        gpus=gpus,
        engines=cache_folder() / "engines" if tensorrt else None,
        exit_timeout=exit_timeout,
        **address,
    )


def _run(server: EmbeddedServer | ContainerServer) -> int:
    """Serves until a signal comes or Triton ends; Triton's exit status."""
    asked = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        server.signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        server.start()
    except GalateaError:
        if asked:  # Triton was stopped while it loaded
            return 0
        raise
    try:
        if asked:  # before there was a Triton to stop
            server.signal(signal.SIGTERM)
        else:
            _announce(server)
        status = server.wait()
        assert status is not None
        return status
    finally:
        server.stop()


def _verify(repository: Path, variant: str | None) -> None:
    from galatea.repository import verify

    problems = verify(repository, variant=variant or "")
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise RepositoryError(
            f"{repository}: {problems[0]}{more}",
            f"see all: galatea repo verify --repository {repository}; serve all the same: "
            "--no-verify",
        )


def _announce(server: EmbeddedServer | ContainerServer) -> None:
    from galatea.client import Client

    with Client(server.grpc_url) as client:
        cards = client.models()
    names = {card.name for card in cards}
    # Any other model of the repository; a stage has its generator's name before the dot.
    others = [entry for entry in server.models() if entry[0].partition(".")[0] not in names]
    urls = {
        "grpc": server.grpc_url,
        "http": f"http://{server.http_url}",
        "metrics": f"http://{server.metrics_url}/metrics",
    }
    if wants_json():
        served = [*((card.name, card.version) for card in cards), *others]
        models = [{"name": name, "version": version} for name, version in served]
        click.echo(json.dumps({**urls, "pid": server.pid, "models": models}))
        sys.stdout.flush()
        return
    click.echo(f"Triton serves {len(cards) + len(others)} models; stop with Ctrl-C")
    for protocol, url in urls.items():
        click.echo(f"  {protocol:<8} {url}")
    for card in cards:
        click.echo(f"  {card.name} version {card.version}: {card.title or card.task}")
    for name, number in others:
        click.echo(f"  {name} version {number}: no generator of galatea")
    if cards:
        name, url = cards[0].name, server.grpc_url
        if cards[0].source_picture is not None:
            click.echo(f"try: galatea translate {name} pictures/ --url {url}")
        else:
            click.echo(f"try: galatea sample {name} -n 8 --url {url}")
    sys.stdout.flush()
