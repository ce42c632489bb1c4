"""How good synthetic images are: distances with their floors and errors, coverage, memorisation.

>>> from galatea import Client, evaluation
>>> with Client("localhost:8001") as client:
...     done = evaluation.evaluate(
...         client,
...         evaluation.Served(client, "phantom", 2000, seed=0),
...         evaluation.open_source("real/"),
...         extractors=["inception-fid-tf1"],
...         intensities=["levels"],
...     )
...     evaluation.write(done, Path("evaluation"))

Features are made by served models of the task "extractor". Nothing here needs PyTorch.
"""

from galatea.evaluation._compare import compare
from galatea.evaluation._features import Cache, Extractor, Features, default_cache
from galatea.evaluation._frechet import Moments, frechet_distance
from galatea.evaluation._html import to_html, write
from galatea.evaluation._inception import inception_score
from galatea.evaluation._intensity import Intensity
from galatea.evaluation._kernel import KernelDistance, kernel_distance
from galatea.evaluation._neighbours import Manifold, nearest, prdc
from galatea.evaluation._report import Figure, Memorisation, Pair, Report, Row
from galatea.evaluation._run import Evaluation, evaluate
from galatea.evaluation._sources import DataSet, Folder, Item, Served, Source, open_source

__all__ = [
    "Cache",
    "DataSet",
    "Evaluation",
    "Extractor",
    "Features",
    "Figure",
    "Folder",
    "Intensity",
    "Item",
    "KernelDistance",
    "Manifold",
    "Memorisation",
    "Moments",
    "Pair",
    "Report",
    "Row",
    "Served",
    "Source",
    "compare",
    "default_cache",
    "evaluate",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "nearest",
    "open_source",
    "prdc",
    "to_html",
    "write",
]
