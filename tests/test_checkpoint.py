"""Checkpoints are read without executing anything, and every refusal says why."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from galatea import ExportError
from galatea_exporter.checkpoint import read_checkpoint

STATE = {"main.0.weight": torch.arange(6.0).reshape(2, 3), "main.0.bias": torch.ones(2)}


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "executed", tmp_path / "model.pt"
    torch.save(
        {"generator": STATE, "extra": Bomb(mark)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ExportError, match=r"posix\.system.*nothing was executed"):
        read_checkpoint(path)
    assert not mark.exists()


def test_code_in_a_bare_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ExportError):
        read_checkpoint(path)
    assert not mark.exists()


def test_a_whole_module_is_refused_as_code(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ExportError, match=r"torch\.nn\.modules\.linear\.Linear, which is code"):
        read_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ExportError, match="damaged, truncated, or no PyTorch"):
        read_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"nowhere\.pt: No such file"):
        read_checkpoint(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_both_formats_and_the_parallel_prefix_are_read(
    tmp_path: Path, prefix: str, zipped: bool
) -> None:
    path = tmp_path / "model.pt"
    named = {prefix + key: value for key, value in STATE.items()}
    torch.save({"g": named, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    state, beside = read_checkpoint(path).state(("generator", "g"))
    assert beside == ("epoch",)
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_safetensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    state, beside = read_checkpoint(path).state()
    assert beside == ()
    assert set(state) == set(STATE)


def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, path)
    with pytest.raises(ExportError, match="under 'generator'; the file holds epoch, optimizer"):
        read_checkpoint(path).state(("generator",))
