"""``galatea figures``: the figures of an evaluation in the card of a new version of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from galatea._pbtxt import config_text, read_config
from galatea.card import CARD_PARAMETER, Metric, ModelCard
from galatea.cli._complete import complete_release
from galatea.cli._output import emit, output_options, say
from galatea.cli.repo import repository_option
from galatea.errors import InvalidInput
from galatea.evaluation import Report
from galatea.repository import Release, find
from galatea_exporter import release as releasing
from galatea_exporter.release import Content

__all__ = ["figures", "with_figures"]


@click.command()
@click.argument("name", shell_complete=complete_release)
@click.argument("report", type=click.Path(path_type=Path))
@repository_option
@output_options
def figures(name: str, report: Path, repository: Path) -> None:
    """Release NAME again with the figures of REPORT in its card.

    REPORT is report.json of galatea evaluate run, or the folder with it. The graphs stay the same.
    """
    made, card = with_figures(repository, name, Report.read(report))
    data = {"name": name, "version": made.version, "card": card.to_dict()}
    emit(data, lambda: click.echo(f"released {name} version {made.version} in {repository}"))
    say("restart the server to serve it")


def with_figures(root: Path, name: str, report: Report) -> tuple[Release, ModelCard]:
    """Releases the active version of a model again, its card with the figures of all images.

    Figures of equal name, extractor and intensities are replaced, others stay.

    Raises:
        InvalidInput: the report is of other weights.
        RepositoryError, MachineError: there is no such release, or the next cannot be written.
    """
    old = find(root, name)
    card = old.card()
    weights = f"sha256:{card.checkpoint_sha256}"
    if report.synthetic.get("weights") != weights:
        raise InvalidInput(
            f"the report is of {report.title}, whose weights are "
            f"{report.synthetic.get('weights', 'not told')}, and {name} has {weights}",
            f"evaluate it first: galatea evaluate run {name} …",
        )
    fresh = {_what(metric): metric for metric in _metrics(report)}
    kept = [metric for metric in card.metrics if _what(metric) not in fresh]
    version = releasing.newest(root, name) + 1
    card = replace(card, version=version, metrics=(*kept, *fresh.values()))
    files = dict(_files(old, version, card))
    made = releasing.draft(root, old.models, version, files)
    releasing.write(made, files)
    return made, card


def _metrics(report: Report) -> Iterable[Metric]:
    seeds = report.synthetic.get("seeds", [])
    source = f"galatea {report.galatea}, real images {report.real['digest'][:16]}, seeds {seeds}"
    for row in report.rows:
        for figure in row.figures if not row.label else ():
            yield Metric(
                figure.name, figure.value, figure.higher_is_better, row.extractor, row.intensity,
                row.n_synthetic, source,
            )  # fmt: skip


def _what(metric: Metric) -> tuple[str, str, str]:
    return metric.name, metric.extractor, metric.normalisation


def _files(old: Release, version: int, card: ModelCard) -> Iterable[tuple[str, Content]]:
    """The files of a release under another version, their configurations adapted to it."""
    for path in old.files:
        model, _, rest = path.split("/", 2)
        content: Content = old.root / path
        if path.endswith(".pbtxt"):
            content = _configuration(old.root / path, old.version, version, card)
        yield f"{model}/{version}/{rest}", content


def _configuration(path: Path, old: int, version: int, card: ModelCard) -> bytes:
    config = read_config(path)
    config.version_policy.specific.versions[:] = [version]
    for step in config.ensemble_scheduling.step:
        step.model_version = version
    if CARD_PARAMETER in config.parameters:
        config.parameters[CARD_PARAMETER].string_value = card.to_json()
    # A cache of engines is named after model, version and weights.
    for accelerator in config.optimization.execution_accelerators.gpu_execution_accelerator:
        for key, value in accelerator.parameters.items():
            before, after = f"{config.name}-{old}-", f"{config.name}-{version}-"
            accelerator.parameters[key] = value.replace(before, after)
    return config_text(config)
