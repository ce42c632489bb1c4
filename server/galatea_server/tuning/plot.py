"""A picture of what was measured: images a second against p95 latency."""

from __future__ import annotations

from pathlib import Path

from galatea.errors import MachineError
from galatea_server.tuning.result import Tuned

__all__ = ["draw"]


def draw(outcome: Tuned, path: Path) -> None:
    """Writes the points of a tuning, the frontier joined, the baseline apart. Needs matplotlib.

    Raises:
        MachineError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for label, chosen in (
        ("as released", [p for p in outcome.points if p.settings == outcome.baseline]),
        ("candidates", [p for p in outcome.points if p.settings != outcome.baseline]),
    ):
        axes.scatter([p.p95_ms for p in chosen], [p.images_per_second for p in chosen], label=label)
    best = sorted((p.p95_ms, p.images_per_second) for p in outcome.points if p.best)
    axes.plot([x for x, _ in best], [y for _, y in best], drawstyle="steps-post", label="frontier")
    axes.set(
        xscale="log", ylim=(0, None), xlabel="p95 latency of a request, ms", ylabel="images/s",
        title=f"{outcome.name} version {outcome.version}",
    )  # fmt: skip
    axes.legend()
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: a format that it does not know
        raise MachineError(
            f"{path}: the plot cannot be written: {error}", "choose a file that ends in .png"
        ) from error
