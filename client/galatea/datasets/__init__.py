"""Data sets of synthetic images: made once, resumed, shared by workers, checked, made again.

>>> from galatea import Client, datasets
>>> with Client("localhost:8001") as client:
...     done = datasets.generate(client, "phantom", 2000, "phantoms", seed=0, format="webdataset")
>>> done.manifest.classes
{'benign': 1000, 'malignant': 1000}
>>> datasets.verify("phantoms")
[]
"""

from galatea.datasets._check import Status, info, read_manifest, verify
from galatea.datasets._generate import Outcome, generate
from galatea.datasets._job import Job
from galatea.datasets._manifest import Manifest, ShardEntry, ShardIndex
from galatea.datasets._merge import merge
from galatea.datasets._regenerate import Regenerated, regenerate
from galatea.datasets.formats import FORMATS

__all__ = [
    "FORMATS",
    "Job",
    "Manifest",
    "Outcome",
    "Regenerated",
    "ShardEntry",
    "ShardIndex",
    "Status",
    "generate",
    "info",
    "merge",
    "read_manifest",
    "regenerate",
    "verify",
]
