"""``galatea serve`` and ``galatea doctor``."""

from __future__ import annotations

import json
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import click

from galatea.cli._output import emit, json_option, say, table, wants_json
from galatea.errors import GalateaError, RepositoryError

LEVELS = {"error": "E", "warning": "EW", "info": "EWI", "verbose": "EWI"}
POLL_SECONDS = 0.2


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
    help="Variant of the models' configurations: cpu, cuda, tensorrt, tensorrt-fp16.",
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
@json_option
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
) -> None:
    """Serve a model repository with Triton on this machine.

    Stops on Ctrl-C or SIGTERM: requests under way may finish, then Triton's exit status is
    returned.
    """
    from galatea_server.server import EmbeddedServer

    if verify and repository.is_dir():
        _verify(repository)
    server = EmbeddedServer(
        repository,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        model_config=model_config,
        exit_timeout=exit_timeout,
        verbose=level == "verbose",
    )
    asked = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        asked.set()
        server.signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        server.start()
    except GalateaError:
        if asked.is_set():  # stopped while it was loading
            sys.exit(0)
        raise
    threading.Thread(
        target=_follow, args=(server.log_file, LEVELS[level]), daemon=True, name="log"
    ).start()
    _announce(server)
    status = server.wait()
    assert status is not None
    server.stop()
    say(f"Triton ended with status {status}")
    sys.exit(status if status >= 0 else 128 - status)


@click.command()
@click.option("--http-port", default=8000, show_default=True, help="Port that should be free.")
@click.option("--grpc-port", default=8001, show_default=True, help="Port that should be free.")
@click.option("--metrics-port", default=8002, show_default=True, help="Port that should be free.")
@json_option
def doctor(http_port: int, grpc_port: int, metrics_port: int) -> None:
    """Tell what this machine lacks to serve and export, and how to mend it."""
    from galatea_server.doctor import examine

    findings = examine({"http": http_port, "grpc": grpc_port, "metrics": metrics_port})

    def human() -> None:
        table(
            ("CHECK", "", "FOUND"),
            ((finding.check, finding.state, finding.fact) for finding in findings),
        )
        for finding in findings:
            if finding.state != "ok":
                click.echo(f"{finding.check}: {finding.remedy}")

    emit([asdict(finding) for finding in findings], human)
    sys.exit(1 if any(finding.state == "fail" for finding in findings) else 0)


def _verify(repository: Path) -> None:
    from galatea.repository import verify

    problems = verify(repository)
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise RepositoryError(
            f"{repository}: {problems[0]}{more}",
            f"see all: galatea repo verify --repository {repository}; serve all the same: "
            "--no-verify",
        )


def _announce(server: object) -> None:
    from galatea.client import Client
    from galatea_server.server import EmbeddedServer

    assert isinstance(server, EmbeddedServer)
    with Client(server.grpc_url) as client:
        cards = client.models()
    urls = {
        "grpc": server.grpc_url,
        "http": f"http://{server.http_url}",
        "metrics": f"http://{server.metrics_url}/metrics",
    }
    if wants_json():
        models = [{"name": card.name, "version": card.version} for card in cards]
        click.echo(json.dumps({**urls, "pid": server.pid, "models": models}))
        sys.stdout.flush()
        return
    click.echo(f"Triton serves {len(cards)} generators; stop with Ctrl-C")
    for protocol, url in urls.items():
        click.echo(f"  {protocol:<8} {url}")
    for card in cards:
        click.echo(f"  {card.name} version {card.version}: {card.title or card.task}")
    if cards:
        click.echo(f"try: galatea sample {cards[0].name} -n 8 --url {server.grpc_url}")
    sys.stdout.flush()


def _follow(log: Path, letters: str) -> None:
    """Copies new lines of the log to stderr, those of the chosen levels."""
    import time

    with log.open("r", encoding="utf-8", errors="replace") as file:
        shown = False
        while log.exists():
            line = file.readline()
            if not line:
                time.sleep(POLL_SECONDS)
                continue
            # A line that begins with a level and a digit is a new message, any other goes on.
            if line[:1] in "EWIF" and line[1:2].isdigit():
                shown = line[0] in letters
            if shown:
                sys.stderr.write(line)
                sys.stderr.flush()
