"""The plots of a report, as SVG with equal bytes for equal reports."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from galatea.evaluation._frechet import Floats
from galatea.evaluation._report import Memorisation, Row
from galatea.extras import needs_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["distances", "floors", "manifold"]

REAL, SYNTHETIC, GATE = "#8a8f98", "#2f6f9f", "#b3402a"
STYLE: Any = {  # matplotlib's type of it names each of its 300 settings
    "svg.hashsalt": "galatea", "svg.fonttype": "none", "font.size": 9.0,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip
METADATA = {"Date": None, "Creator": None}  # neither a time nor a version
WIDTH = 7.2  # inches


def floors(rows: list[Row], name: str) -> bytes:
    """A distance of each row beside its floor, at the same n."""
    with _axes(0.5 + 0.42 * len(rows)) as (axes, buffer):
        place = np.arange(len(rows))
        figures = [figure for row in rows if (figure := row.figure(name)) is not None]
        axes.barh(place - 0.2, [f.at_floor or 0 for f in figures], 0.38, color=SYNTHETIC,
                  label="real – synthetic")  # fmt: skip
        axes.barh(place + 0.2, [f.floor or 0 for f in figures], 0.38, color=REAL,
                  label="real – real: the floor")  # fmt: skip
        axes.set_yticks(place, [_title(row) for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel(f"{name} at equal n")
        axes.legend(frameon=False)
    return buffer.getvalue()


def manifold(row: Row) -> bytes:
    """Precision, recall, density and coverage with two standard errors, and their floors."""
    names = ("precision", "recall", "density", "coverage")
    figures = [figure for name in names if (figure := row.figure(name)) is not None]
    with _axes(1.9) as (axes, buffer):
        place = np.arange(len(figures))
        errors = [2 * (figure.error or 0) for figure in figures]
        axes.bar(place, [f.value for f in figures], 0.5, yerr=errors, color=SYNTHETIC, capsize=3)
        axes.scatter(place, [f.floor or 0 for f in figures], marker="_", s=600, color=REAL,
                     label="real – real", zorder=3)  # fmt: skip
        axes.set_xticks(place, names)
        axes.set_title(_title(row), fontsize=9)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return buffer.getvalue()


def distances(verdict: Memorisation, synthetic: Floats, heldout: Floats) -> bytes:
    """How far synthetic and held-out images are from the training images."""
    with _axes(2.2) as (axes, buffer):
        edges = np.linspace(0, float(max(synthetic.max(), heldout.max())), 61).tolist()
        for values, colour, label in (
            (heldout, REAL, "held-out images"), (synthetic, SYNTHETIC, "synthetic images"),
        ):  # fmt: skip
            share = np.full(len(values), 1 / len(values))
            axes.hist(values, edges, weights=share, color=colour, alpha=0.6, label=label)
        axes.axvline(verdict.threshold, color=GATE, label="memorised below")
        axes.set_xlabel(f"distance to the nearest training image ({verdict.extractor})")
        axes.set_ylabel("share")
        axes.legend(frameon=False)
    return buffer.getvalue()


def _title(row: Row) -> str:
    return ", ".join(part for part in (row.extractor, row.intensity, row.label) if part)


@contextmanager
def _axes(height: float) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes to draw on, and the file that they are in afterwards."""
    with needs_extra("eval"):
        import matplotlib
        from matplotlib.figure import Figure
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, height), layout="constrained")
        yield figure.add_subplot(), buffer
        figure.savefig(buffer, format="svg", metadata=METADATA)
