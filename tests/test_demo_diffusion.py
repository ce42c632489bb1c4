"""The diffusion demo: a picture by one command, of masses of the shape and size asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from galatea import Client
from galatea_server.server import EmbeddedServer
from support import ROOT

NAMES = ("benign small", "benign large", "malignant small", "malignant large")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``galatea demo diffusion`` left its repository, its picture and its report."""
    root = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-W", "error", "-m", "galatea", "demo", "diffusion", "--json"]
    command += ["--examples", str(ROOT / "examples"), "--repository", str(root / "models")]
    done = subprocess.run([*command, "-o", str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (root / "report.json").write_text(done.stdout)
    return root


def thin(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of each mask that a morphological opening with a 3 × 3 square removes."""

    def spread(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
        shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        grown: NDArray[np.bool_] = np.any([np.roll(pixels, s, (1, 2)) for s in shifts], axis=0)
        return grown

    core = spread(~spread(~masks))
    share: NDArray[np.float64] = 1 - core.sum((1, 2)) / masks.sum((1, 2))
    return share


def test_one_command_makes_a_picture_with_a_row_for_each_label(shown: Path) -> None:
    report = json.loads((shown / "report.json").read_text())
    assert report["picture"] == str(shown / "diffusion.png")
    assert report["seeds"] == [7, 38]
    with Image.open(report["picture"]) as picture:
        width, height = picture.size
    assert width > 8 * 48
    assert 4 * 48 < height < width


def test_shape_and_size_of_the_masses_follow_the_label(shown: Path) -> None:
    with EmbeddedServer(shown / "models") as server, Client(server.grpc_url) as client:
        samples = client.sample("phantom_diffusion", 32, seed=100, labels="balanced")
    assert samples.labels is not None
    assert samples.masks is not None
    masks = samples.masks[..., 0] > 0
    large = masks.mean((1, 2)) > 0.055
    malignant = thin(masks) > 0.25
    right = (large == samples.labels % 2) & (malignant == samples.labels // 2)
    assert right.sum() >= 28
    assert samples.class_names == NAMES
