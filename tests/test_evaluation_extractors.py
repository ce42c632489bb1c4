"""Extractors: their networks, their resizing, and what an import refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from evaluation_models import inception_state, radimagenet_state, sha256
from galatea.errors import ExportError, InvalidInput
from galatea.repository import releases, verify
from galatea_exporter.extractors.archs import find_arch
from galatea_exporter.extractors.inception import Inception
from galatea_exporter.extractors.release import import_extractor
from galatea_exporter.extractors.resize import Resize
from support import ROOT

SIZES = [(64, 97), (299, 299), (700, 333), (30, 20)]
OTHER = "0" * 64


def picture(height: int, width: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(height)
    return random.integers(0, 256, (height, width, 3), np.uint8)


def resized(pixels: NDArray[np.uint8], size: int, rule: str) -> NDArray[np.float32]:
    resize = Resize(size, "clean" if rule == "clean" else "tf1")
    made: NDArray[np.float32] = resize(torch.from_numpy(pixels)[None])[0].permute(1, 2, 0).numpy()
    return made


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clean_resizing_is_that_of_pillow(height: int, width: int) -> None:
    pixels = picture(height, width)
    want = [
        np.asarray(
            Image.fromarray(pixels[:, :, c].astype(np.float32)).resize(
                (112, 112), Image.Resampling.BICUBIC
            )
        ).clip(0, 255)
        for c in range(3)
    ]
    np.testing.assert_allclose(resized(pixels, 112, "clean"), np.stack(want, -1), atol=8e-3)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tf1_resizing_is_bilinear_without_centres(height: int, width: int) -> None:
    pixels = picture(height, width).astype(np.float64)
    for axis, length in ((0, height), (1, width)):
        places = np.arange(112) * (length / 112)
        low = np.floor(places).astype(int)
        share = (places - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, length - 1)
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(high, axis) * share
    got = resized(picture(height, width), 112, "tf1")
    np.testing.assert_allclose(got, pixels, atol=2e-2)


def test_the_inception_has_the_layout_of_the_published_weights() -> None:
    state = Inception().state_dict()
    lines = sorted(f"{key} {list(value.shape)}" for key, value in state.items())
    want = json.loads((ROOT / "tests" / "data" / "evaluation.json").read_text())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == want["inception_layout"]


@pytest.mark.parametrize("keras", [True, False])
def test_radimagenet_is_read_in_both_layouts(keras: bool, tmp_path: Path) -> None:
    loaded = find_arch("radimagenet-resnet50").load(radimagenet_state(keras=keras), tmp_path)
    assert loaded.outputs == {"features": 128}
    assert ("BGR" in loaded.normalisation) == keras
    assert loaded.network(torch.zeros(1, 3, 224, 224)).shape == (1, 128)


def test_importing_the_same_weights_again_makes_no_new_version(tmp_path: Path) -> None:
    path, root = tmp_path / "weights.pth", tmp_path / "models"
    torch.save({"state_dict": radimagenet_state(keras=False)}, path)
    done, again = (
        import_extractor(path, arch="radimagenet-resnet50", sha256=sha256(path).upper(),
                         name="features", repository=root, max_batch=2)
        for _ in range(2)
    )  # fmt: skip
    assert (done.written, again.written) == (True, False)
    assert verify(root) == []
    card = releases(root)[0].card()
    assert (card.task, card.family) == ("extractor", "radimagenet-resnet50")
    assert card.configuration["resize"] == "clean"
    assert card.configuration["normalisation"] == "(RGB - 127.5) / 127.5"
    assert {output.name: output.shape for output in card.outputs} == {"features": (128,)}


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(inception_state(), path)
    given: dict[str, Any] = {"name": "x", "repository": tmp_path / "models"}
    with pytest.raises(ExportError, match=f"has the sha256 {sha256(path)}, not {OTHER}"):
        import_extractor(path, arch="inception-fid", sha256=OTHER, **given)
    digest = sha256(path)
    with pytest.raises(ExportError, match="no weights of radimagenet-resnet50"):
        import_extractor(path, arch="radimagenet-resnet50", sha256=digest, **given)
    with pytest.raises(InvalidInput, match="choose one of: inception-fid, radimagenet-resnet50"):
        import_extractor(path, arch="resnet", sha256=digest, **given)
    with pytest.raises(InvalidInput, match="choose one of: tf1, clean"):
        import_extractor(path, arch="inception-fid", sha256=digest, resize="pil", **given)
    state = inception_state()
    del state["Mixed_7c.branch_pool.conv.weight"]
    torch.save(state, path)
    with pytest.raises(ExportError, match=r"is missing: Mixed_7c\.branch_pool\.conv\.weight"):
        import_extractor(path, arch="inception-fid", sha256=sha256(path), **given)
    assert not (tmp_path / "models").exists()
