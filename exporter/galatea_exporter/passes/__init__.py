"""What is done to a graph between PyTorch's exporter and the release, to make it faster.

Each pass takes an ``onnxscript.ir.Graph``, changes it and returns in how many places. A pass is
here because it makes families faster and none slower, which ``benchmarks/graph_passes.py``
measures; what it makes is compared with PyTorch like any graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from galatea_exporter.passes.phases import in_phases
from galatea_exporter.passes.resized import join_resized

__all__ = ["PASSES", "Pass"]

Pass = Callable[[Any], int]

# In this order: what a doubling and a convolution become may be worth phases.
PASSES: tuple[Pass, ...] = (join_resized, in_phases)
