"""The report as one file: no script, nothing from elsewhere, readable without a server."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from galatea._files import write_atomically
from galatea.errors import MachineError
from galatea.evaluation import _gallery, _plots
from galatea.evaluation._report import Figure, Memorisation, Report, Row
from galatea.evaluation._run import Evaluation

__all__ = ["to_html", "write"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2126; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .8rem 0; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #dde1e6;
         vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; height: auto; } .bad { color: #b3402a; font-weight: 600; }
code { overflow-wrap: anywhere; font-size: .85em; } .note { color: #565d66; }
"""

NOTES = {
    "KID": "kernel distance; 0 where nothing differs, and may be below",
    "FD": "Fréchet distance; depends on n: compare with the floor alone",
    "precision": "synthetic images that look like real ones",
    "recall": "real images that the generator could have made",
    "density": "as precision, less swayed by outliers; may be above 1",
    "coverage": "real images that have a synthetic neighbour",
    "IS": "Inception score; says nothing of the real images",
}


def write(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Writes ``report.html`` and ``report.json``; returns their paths.

    Raises:
        MachineError: the folder cannot be written, or the extra ``eval`` is missing.
        InvalidInput, ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError: images to
            be shown cannot be had any more.
    """
    files = {
        folder / "report.html": to_html(evaluation).encode(),
        folder / "report.json": evaluation.report.to_json(),
    }
    for path, content in files.items():
        try:
            write_atomically(path, content)
        except OSError as error:
            raise MachineError(
                f"{path}: cannot be written: {error.strerror or error}",
                "choose a folder that you may write to",
            ) from error
    return list(files)


def to_html(evaluation: Evaluation) -> str:
    """The whole page."""
    report = evaluation.report
    parts = [
        f"<h1>Evaluation of {escape(report.title)}</h1>",
        _verdict(report),
        *_memorisation(evaluation),
        *(part for row in report.rows for part in _row(row)),
        "<h2>Distances and their floors</h2>",
        *_distances(report.rows),
        "<h2>Images</h2>",
        *(
            f"<p>{escape(kind)}</p>{_image(_gallery.samples(evaluation, kind), f'{kind} images')}"
            for kind in ("real", "synthetic")
        ),
        "<h2>How to get the same</h2>",
        *_origins(report),
    ]
    head = f'<meta charset="utf-8"><title>{escape(report.title)}</title><style>{STYLE}</style>'
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    body = "\n".join(parts)
    page = f"<head>{meta}{head}</head><body>\n{body}\n</body>"
    return f'<!doctype html>\n<html lang="en">{page}</html>\n'


def _verdict(report: Report) -> str:
    row = report.rows[0]
    figure = row.figure(row.headline)
    assert figure is not None
    return (
        f"<p>{escape(row.headline)} <b>{_number(figure)}</b> by {escape(row.extractor)}, "
        f"{escape(row.intensity)}, {row.n_synthetic} synthetic against {row.n_real} real images; "
        f"real against real at n = {row.floor_n}: {figure.floor:.4g}.</p>"
        '<p class="note">No single figure ranks generators: distances by different extractors '
        "disagree. These are synthetic images; they diagnose nothing.</p>"
    )


def _row(row: Row) -> Iterable[str]:
    title = ", ".join(part for part in (row.extractor, row.intensity, row.label) if part)
    yield f"<h2>{escape(title)}</h2>"
    yield (
        f"<p>{row.n_real} real and {row.n_synthetic} synthetic images; the floor and what is "
        f"beside it at n = {row.floor_n} of each. ± is one standard error.</p>"
    )
    columns = ("", "value", "at the floor's n", "floor: real – real", "better", "")
    yield _table(columns, [_cells(figure) for figure in row.figures])
    ratio = next((figure.ratio for figure in row.figures if figure.ratio is not None), None)
    if ratio is not None:
        yield f"<p>Real–real to real–synthetic ratio of FD: {ratio:.3f} (1 is best).</p>"
    yield _image(_plots.manifold(row), "precision, recall, density and coverage", "svg+xml")


def _cells(figure: Figure) -> list[str]:
    at, low = ("" if value is None else f"{value:.4g}" for value in (figure.at_floor, figure.floor))
    better = "higher" if figure.higher_is_better else "lower"
    return [figure.name, _number(figure), at, low, better, NOTES[figure.name]]


def _distances(rows: Sequence[Row]) -> Iterable[str]:
    for extractor in dict.fromkeys(row.extractor for row in rows):
        own = [row for row in rows if row.extractor == extractor]
        for name in ("FD", "KID"):
            yield _image(_plots.floors(own, name), f"{name} and its floor", "svg+xml")


def _memorisation(evaluation: Evaluation) -> Iterable[str]:
    verdicts = evaluation.report.memorisation
    yield "<h2>Memorisation</h2>"
    if not verdicts:
        yield (
            "<p>Not judged: that needs the training images and others that were held out of the "
            "training (<code>--train</code>, <code>--heldout</code>).</p>"
        )
    for k, (verdict, apart) in enumerate(zip(verdicts, evaluation.distances, strict=True)):
        yield _judgement(verdict)
        yield _image(_plots.distances(verdict, *apart), "distances to training images", "svg+xml")
        yield "<p>The closest pairs: synthetic images above, training images below.</p>"
        yield _image(_gallery.pairs(evaluation, k), "closest pairs")
        columns = ("synthetic", "nearest training image", "distance", "of held-out", "")
        yield _table(
            columns,
            [
                [
                    pair.synthetic, pair.training, f"{pair.distance:.4g}", f"{pair.ratio:.3f}",
                    "memorised" if pair.memorised else "",
                ]
                for pair in verdict.pairs
            ],
        )  # fmt: skip


def _judgement(verdict: Memorisation) -> str:
    mark = ' class="bad"' if verdict.memorised else ""
    return (
        f"<p{mark}>{verdict.memorised} of {verdict.n_synthetic} images are memorised by "
        f"{escape(verdict.extractor)}, {escape(verdict.intensity)}: nearer to one of "
        f"{verdict.n_train} training images than {verdict.threshold:.4g}, where "
        f"{verdict.n_heldout} held-out images begin at {verdict.nearest_heldout:.4g}.</p>"
    )


def _origins(report: Report) -> Iterable[str]:
    if report.command:
        yield f"<p><code>{escape(report.command)}</code></p>"
    for kind in ("synthetic", "real", "train", "heldout"):
        facts = getattr(report, kind)
        if facts is not None:
            yield f"<p>{kind}</p>" + _table(("", ""), [[k, str(v)] for k, v in facts.items()])
    for extractor in report.extractors:
        yield "<p>extractor</p>" + _table(("", ""), [[k, str(v)] for k, v in extractor.items()])
    settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
    yield f'<p class="note">galatea {escape(report.galatea)}; {escape(settings)}</p>'


def _number(figure: Figure) -> str:
    error = "" if figure.error is None else f" ± {figure.error:.2g}"
    return f"{figure.value:.5g}{error}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{_kind(cell)}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _kind(cell: str) -> str:
    return ' class="n"' if cell[:1].isdigit() or cell[:2].lstrip("-").isdigit() else ""


def _image(content: bytes, text: str, kind: str = "png") -> str:
    data = base64.b64encode(content).decode()
    return f'<p><img alt="{escape(text)}" src="data:image/{kind};base64,{data}"></p>'
