"""What the configuration of a MONAI bundle tells beside its weights.

A bundle is a folder with ``models/`` and ``configs/inference.json``. The configuration holds
expressions in Python: none is executed, but for numbers it is searched where bundles write them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from galatea.errors import ExportError
from galatea_exporter.scheduler_config import CLASSES

BETAS = {"linear": "linear_beta", "scaled_linear": "scaled_linear_beta"}  # diffusers' names
UNET = ("norm_num_groups", "norm_eps", "num_head_channels")
SCHEDULER = ("num_train_timesteps", "beta_start", "beta_end", "prediction_type", "clip_sample")


def read_bundle(models: Path) -> dict[str, Any]:
    """The options of a latent diffusion model that its bundle tells; what it does not is left out.

    Args:
        models: the bundle's folder ``models``; without a ``configs/inference.json`` beside it there
            are none.

    Raises:
        ExportError: the configuration can't be read.
    """
    path = models.parent / "configs" / "inference.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: {error}", "mend it, or move it away and set options") from error
    if not isinstance(config, dict):
        raise ExportError(f"{path}: holds no names", "mend it, or move it away and set options")
    unet, scheduler = _definition(config, "DiffusionModelUNet"), _definition(config, "Scheduler")
    found = {key: unet.get(key) for key in UNET} | {key: scheduler.get(key) for key in SCHEDULER}
    betas = scheduler.get("schedule", scheduler.get("beta_schedule"))
    found |= {
        "schedule": BETAS.get(str(betas), betas),
        "sampler": CLASSES.get(str(scheduler.get("_target_")).rpartition(".")[2]),
        "steps": _number(config.get("set_timesteps"), r"num_inference_steps=(\d+)"),
        "guidance": config.get("guidance_scale"),
        "latent_size": _latent_size(config),
        "conditions": _conditions(config),
    }
    # What begins with one of these is a reference or an expression.
    return {
        key: value
        for key, value in found.items()
        if value is not None and not str(value).startswith(("@", "$"))
    }


def _definition(config: dict[str, Any], ending: str) -> dict[str, Any]:
    """The arguments of the first class whose name ends so."""
    for entry in config.values():
        if isinstance(entry, dict) and str(entry.get("_target_")).endswith(ending):
            return entry
    return {}


def _number(expression: Any, pattern: str) -> int | None:
    found = re.search(pattern, str(expression))
    return int(found[1]) if found else None


def _latent_size(config: dict[str, Any]) -> list[int] | None:
    """The sizes without batch and channels, from a list or from the shape of the first noise."""
    shape = config.get("latent_shape")
    if isinstance(shape, list):
        return [size for size in shape[1:] if isinstance(size, int)] or None
    shape = re.search(r"randn\(+([\d\s,]+)\)", str(config.get("noise")))
    return [int(size) for size in shape[1].split(",") if size.strip()][2:] if shape else None


def _conditions(config: dict[str, Any]) -> list[str] | None:
    """The names of the numbers that the expression ``conditioning`` joins."""
    names = re.findall(r"@(\w+)", str(config.get("conditioning")))
    return [name for name in names if isinstance(config.get(name), int | float)] or None
