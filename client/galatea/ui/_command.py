"""The command line that makes what a page shows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from galatea._conditions import needs_seed
from galatea.client import DEFAULT_URL
from galatea.latents._latents import ranges
from galatea.ui import _settings
from galatea.ui._view import View

__all__ = ["line"]

NAMED = ("label", "prompt", "negative_prompt", "steps")  # have an option of their own


def line(view: View, urls: Sequence[str] = ()) -> str:
    """The line for a view; "" where no command makes it.

    Args:
        urls: of the servers; not told where they are what the command takes anyway.
    """
    name = view.card.name
    if view.moves or (view.mode == "mixing" and view.columns != view.seeds):
        return ""
    seeds = ",".join(map(str, view.seeds))
    options = _conditions(view)
    if view.mode == "translate":
        words = ["translate", name, "FILE"]
        words += [f"--seed={view.seed}"] if needs_seed(view.card, view.settings) else []
        words += [*options, "-o", "translated"]
    elif view.mode == "walk":
        words = ["interpolate", name, f"--seeds={seeds}", "--frames", str(view.frames)]
        words += ["--space", "w"] if view.space == "w" else []
        words += [*options, "-o", "walk.png"]
    elif view.mode == "mixing":
        words = ["interpolate", name, f"--seeds={seeds}", "--mix-layers", ranges(view.layers)]
        words += [*options, "-o", "sheet.png"]
    else:
        words = ["sample", name, "-n", str(view.n), f"--seed={view.seed}", *options]
        words += ["-o", "samples"]
    if urls and list(urls) != [DEFAULT_URL]:
        words += ["--url", ",".join(urls)]
    return shlex.join(["galatea", *words])


def _conditions(view: View) -> list[str]:
    settings = dict(view.settings)
    if view.mode in ("walk", "mixing"):
        settings = _settings.of_place(view.card, settings, 0)  # as on the page, all of one class
    named = NAMED if view.mode == "grid" else ("label",)
    words: list[str] = []
    for entry in _settings.choosable(view.card):
        if entry.name in settings:
            value = _settings.written(settings[entry.name])
            flag = f"--{entry.name.replace('_', '-')}={value}"
            words += [flag] if entry.name in named else ["--set", f"{entry.name}={value}"]
    return words
