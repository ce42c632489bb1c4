"""What synthetic images are worth in training: real ones alone, synthetic ones alone, and both.

>>> from galatea import Client
>>> from galatea.evaluation import Intensity, utility
>>> design = utility.Design("segment", Intensity.parse("levels"))
>>> with Client("localhost:8001") as client:
...     synthetic = utility.from_model(client, "phantom", 400, seed=0)
>>> report = utility.study(design, synthetic, utility.from_table(Path("real")))
>>> [(result.arm, result.score.value) for result in report.results]

Regressions and networks need the extra "utility"; a runner of one's own needs nothing.
"""

from galatea.evaluation.utility._cases import (
    Case,
    Cases,
    from_data_set,
    from_model,
    from_table,
)
from galatea.evaluation.utility._design import Design
from galatea.evaluation.utility._report import COLUMNS, Result, Utility, cells
from galatea.evaluation.utility._run import study
from galatea.evaluation.utility._scores import Estimate

__all__ = [
    "COLUMNS",
    "Case",
    "Cases",
    "Design",
    "Estimate",
    "Result",
    "Utility",
    "cells",
    "from_data_set",
    "from_model",
    "from_table",
    "study",
]
