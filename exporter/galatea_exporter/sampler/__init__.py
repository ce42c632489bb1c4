"""Sampling of diffusion models without torch: schedules, samplers and the engine that runs them.

An export copies these files into the version folder of a Triton model, where they lie beside one
another in no package, and NumPy and Python 3.10 are all there is. So they import nothing but NumPy
and the standard library, and only ``model.py`` and ``tickets.py``, Triton's, import one another.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from galatea_exporter.sampler.contexts import TOKENIZER

if TYPE_CHECKING:
    from galatea_exporter.stages import Sampling


def engine_files(sampling: Sampling) -> dict[str, bytes]:
    """What lies in the version folder of a diffusion generator's public model, by file name."""
    names = sorted(entry.name for entry in files(__name__).iterdir() if entry.is_file())
    made = {name: (files(__name__) / name).read_bytes() for name in names if name != "__init__.py"}
    if sampling.tokenizer:
        made[TOKENIZER] = sampling.tokenizer.encode()
    return made
