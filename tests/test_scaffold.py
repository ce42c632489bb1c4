"""A new family begins with the names and shapes of its checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from galatea.errors import ExportError, InvalidInput, MachineError
from galatea_exporter.scaffold import scaffold
from support import ROOT

STATE = {
    "stem.weight": torch.zeros(8, 16, 4, 4),
    "body.0.norm.weight": torch.zeros(8),
    "head.weight": torch.zeros(1, 8, 3, 3),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "exporter" / "galatea_exporter" / "families").mkdir(parents=True)
    return tmp_path / "tree"


@pytest.mark.parametrize("translates", [False, True])
@pytest.mark.parametrize("container", ["", "netG"])
def test_the_files_are_python_in_the_house_style(
    translates: bool, container: str, tree: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.pt"
    torch.save({container: STATE, "epoch": 3} if container else STATE, path)
    family, card, golden = scaffold("knee_gan", path, tree, translates=translates)
    text = family.read_text()
    assert "stem.weight (8, 16, 4, 4)" in text
    assert "class KneeGan(Family):" in text
    assert (f'containers = ("{container}",)' if container else "containers = ()") in text
    assert "title" in card.read_text()
    for file in (family, golden):
        compile(file.read_text(), file, "exec")
    config = str(ROOT / "pyproject.toml")
    style = [sys.executable, "-m", "ruff", "format", "--check", "--config", config, str(family)]
    assert subprocess.run(style, check=False, capture_output=True).returncode == 0

    with pytest.raises(MachineError, match="there already"):
        scaffold("knee_gan", path, tree, translates=translates)


def test_what_cannot_begin_is_refused(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(STATE, path)
    with pytest.raises(InvalidInput, match="no name"):
        scaffold("Knee GAN", path, tree, translates=False)
    with pytest.raises(InvalidInput, match="no source tree"):
        scaffold("knee_gan", path, tmp_path, translates=False)
    with pytest.raises(InvalidInput, match="fastgan is there already"):
        scaffold("fastgan", path, tree, translates=False)
    with pytest.raises(InvalidInput, match="dcgan_mammo is there already"):
        scaffold("other", ROOT / "examples/phantom/phantom_cdcgan.pt", tree, translates=False)
    torch.save([1, 2], path)
    with pytest.raises(ExportError, match="holds a list"):
        scaffold("knee_gan", path, tree, translates=False)
    assert not list(tree.rglob("*.py"))
