"""Pickled modules are read as data; whatever asks for code or claims the impossible is refused."""

import importlib
import io
import os
import pickle
import resource
import struct
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from galatea import ExportError
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.pickles import PickledModule

MODULES = ("upstream.*",)
TENSOR = torch.arange(6.0).reshape(2, 3)
TEN_GB = 10 * 10**9


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


SOURCE = """
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.extra = None
"""


@pytest.fixture
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[types.ModuleType]:
    """Somebody's project with a network, importable while the test saves it.

    Its source lies in a file, so that the format before 1.6 embeds it.
    """
    folder = tmp_path_factory.mktemp("project")
    (folder / "upstream.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("upstream")
    sys.path.remove(str(folder))
    del sys.modules["upstream"]


def nvlabs(content: dict[str, Any]) -> bytes:
    """A snapshot as NVlabs' persistence writes it; unpickled as usual it would run its source."""

    class Persistent:
        def __init__(self, meta: dict[str, Any]) -> None:
            self.meta = meta

        def __reduce__(self) -> Any:
            return _reconstruct_persistent_obj, (self.meta,)

    meta = {
        "type": "class", "version": 6, "module_src": "import os; os.system('touch executed')",
        "class_name": "Generator", "state": content,
    }  # fmt: skip
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined] # a module made here
    sys.modules["torch_utils"] = types.ModuleType("torch_utils")
    sys.modules["torch_utils.persistence"] = module
    try:
        return pickle.dumps({"G_ema": Persistent(meta), "training_set_kwargs": {"path": "x"}})
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("upstream's own function must never be called")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def save_snapshot(content: Any, path: Path) -> None:
    path.write_bytes(nvlabs({"_parameters": {"weight": content}}))


CONTAINERS: list[Callable[[Any, Path], None]] = [save_zip, save_legacy, save_pickle, save_snapshot]


@pytest.mark.parametrize("modules", [(), MODULES], ids=["plain", "with modules"])
@pytest.mark.parametrize("save", CONTAINERS, ids=lambda save: save.__name__)
def test_code_is_refused_in_every_container_and_never_executed(
    tmp_path: Path, save: Callable[[Any, Path], None], modules: tuple[str, ...]
) -> None:
    mark, path = tmp_path / "executed", tmp_path / "model.pt"
    save({"generator": {"a": TENSOR}, "extra": [Bomb(mark)]}, path)
    with pytest.raises(ExportError):
        read_checkpoint(path, (), modules)
    assert not mark.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("save", CONTAINERS, ids=lambda save: save.__name__)
def test_the_code_that_was_asked_for_is_named(
    tmp_path: Path, save: Callable[[Any, Path], None]
) -> None:
    path = tmp_path / "model.pt"
    save([Bomb(tmp_path / "executed")], path)
    with pytest.raises(ExportError, match=r"asks for posix\.system, which is code"):
        read_checkpoint(path, (), MODULES)


@pytest.mark.parametrize("save", [save_zip, save_legacy], ids=lambda save: save.__name__)
def test_whole_modules_are_read_as_their_tensors(
    tmp_path: Path, upstream: types.ModuleType, save: Callable[[Any, Path], None]
) -> None:
    path = tmp_path / "Gs.pth"
    blocks = [upstream.Block(), nn.Sequential(upstream.Block())]
    save(blocks, path)
    assert (b"class Block" in path.read_bytes()) == (save is save_legacy)
    read = read_checkpoint(path, (), MODULES).content
    assert all(isinstance(module, PickledModule) for module in read)
    for module, block in zip(read, blocks, strict=True):
        state = dict(module.state_dict())
        assert set(state) == set(block.state_dict())
        assert all(torch.equal(state[key], value) for key, value in block.state_dict().items())


def test_modules_of_other_projects_are_refused(tmp_path: Path, upstream: types.ModuleType) -> None:
    path = tmp_path / "Gs.pth"
    torch.save(upstream.Block(), path)
    with pytest.raises(ExportError, match=r"asks for upstream\.Block, which is code"):
        read_checkpoint(path, (), ("another.*",))


def test_a_snapshot_is_read_without_running_the_source_it_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("snapshot.pkl").write_bytes(
        nvlabs({"_parameters": {"weight": TENSOR}, "_init_kwargs": {"z_dim": 3}})
    )
    checkpoint = read_checkpoint(Path("snapshot.pkl"), (), MODULES)
    state, beside = checkpoint.state(("G_ema",))
    assert torch.equal(state["weight"], TENSOR)
    assert beside == ("training_set_kwargs",)
    assert checkpoint.content["G_ema"].arguments == {"z_dim": 3}
    assert not Path("executed").exists()


def claims_in_a_pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", TEN_GB) + b"x")


def claims_in_an_array(path: Path) -> None:
    class Array:
        def __reduce__(self) -> Any:
            return np.empty(0).__reduce__()[0], (np.ndarray, (TEN_GB,), b"b")

    path.write_bytes(pickle.dumps(Array()))


def claims_in_a_zip(path: Path) -> None:
    torch.save({"a": TENSOR}, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith("data/0"))
    for signature, offset in ((b"PK\x03\x04", 18), (b"PK\x01\x02", 20)):
        start = data.index(entry.filename.encode(), data.index(signature))
        start = data.rindex(signature, 0, start)
        data[start + offset : start + offset + 8] = struct.pack("<II", TEN_GB >> 2, TEN_GB >> 2)
    path.write_bytes(data)


def claims_by_compression(path: Path) -> None:
    torch.save({"a": TENSOR}, path)
    plain = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in plain.namelist():
            long = bytes(10**8) if name.endswith("data/0") else plain.read(name)
            archive.writestr(name, long)


def claims_in_a_storage(path: Path) -> None:
    """Six values on the disk; the pickle before them says two and a half thousand million."""
    torch.save({"a": TENSOR}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    said = b"K\x06N"  # the storage's length, and no view
    assert said in data
    path.write_bytes(data.replace(said, b"\x8a\x05" + struct.pack("<Q", TEN_GB // 4)[:5] + b"N"))


def claims_in_safetensors(path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[2500000000],"data_offsets":[0,10000000000]}}'
    path.with_suffix(".safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


CLAIMS: list[Callable[[Path], None]] = [
    claims_in_a_pickle, claims_in_an_array, claims_in_a_zip, claims_by_compression,
    claims_in_a_storage, claims_in_safetensors,
]  # fmt: skip


@pytest.mark.parametrize("modules", [(), MODULES], ids=["plain", "with modules"])
@pytest.mark.parametrize("write", CLAIMS, ids=lambda write: write.__name__)
def test_a_file_that_claims_to_be_huge_is_refused_without_the_memory(
    tmp_path: Path, write: Callable[[Path], None], modules: tuple[str, ...]
) -> None:
    write(tmp_path / "model.pt")
    (path,) = tmp_path.iterdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ExportError, match="damaged, truncated, or no PyTorch"):
        read_checkpoint(path, (), modules)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**6  # KiB


@pytest.mark.parametrize("modules", [(), MODULES], ids=["plain", "with modules"])
def test_a_tar_archive_is_refused(tmp_path: Path, modules: tuple[str, ...]) -> None:
    path = tmp_path / "model.pt"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ExportError, match="damaged, truncated, or no PyTorch"):
        read_checkpoint(path, (), modules)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, for saving the archive
@pytest.mark.parametrize("modules", [(), MODULES], ids=["plain", "with modules"])
def test_a_torchscript_archive_is_refused(tmp_path: Path, modules: tuple[str, ...]) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(ExportError):
        read_checkpoint(path, (), modules)


@pytest.mark.parametrize("depth", [100_000])
def test_a_pickle_that_nests_without_end_is_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    with pytest.raises(ExportError):
        read_checkpoint(path, (), MODULES).state()


def test_a_checkpoint_of_several_files_is_a_folder_or_any_of_them(tmp_path: Path) -> None:
    for name in ("one.pth", "two.pth"):
        torch.save({"a": TENSOR, "n": 3}, tmp_path / name)
    files = ("one.pth", "two.pth")
    by_folder, by_file = (read_checkpoint(path, files) for path in (tmp_path, tmp_path / files[1]))
    assert by_folder.sha256 == by_file.sha256
    assert by_folder.path == by_file.path == tmp_path
    assert set(by_folder.flat()) == {"one.a", "one.n", "two.a", "two.n"}
    (tmp_path / "two.pth").unlink()
    with pytest.raises(ExportError, match=r"two\.pth: No such file"):
        read_checkpoint(tmp_path, files)
