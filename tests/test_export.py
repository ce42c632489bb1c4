"""A release is deterministic, checked against PyTorch, and written whole or not at all."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from galatea import Client, ExportError, InvalidInput, MachineError, RepositoryError
from galatea.repository import find, releases, verify
from galatea_exporter.export import Exported, Facts, export
from galatea_exporter.family import find_family
from galatea_server.server import EmbeddedServer


def run(checkpoints: dict[str, Path], repository: Path, **changes: object) -> Exported:
    arguments = {"name": "masses", "repository": repository, "max_batch": 4, **changes}
    return export("dcgan_mammo", checkpoints["dcgan_mammo"], **arguments)  # type: ignore[arg-type] # mixed types


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_exporting_twice_gives_the_same_bytes(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        run(checkpoints, tmp_path / folder)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert verify(tmp_path / "one") == []


def test_exporting_the_same_again_makes_no_new_version(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    assert run(checkpoints, tmp_path).written
    before = contents(tmp_path)
    again = run(checkpoints, tmp_path)
    assert not again.written
    assert again.card.version == 1
    assert contents(tmp_path) == before


def test_versions_lie_side_by_side_and_the_newest_is_served(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    run(checkpoints, tmp_path)
    first = contents(tmp_path / "masses.synthesis" / "1")
    second = run(checkpoints, tmp_path, settings={"rounding": "nearest"})
    assert second.card.version == 2
    assert contents(tmp_path / "masses.synthesis" / "1") == first
    assert [(r.version, r.active) for r in releases(tmp_path)] == [(1, False), (2, True)]
    assert verify(tmp_path) == []


def test_a_released_version_never_changes(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    run(checkpoints, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RepositoryError, match="version 1 of 'masses' is already released"):
        run(checkpoints, tmp_path, version=1, settings={"rounding": "nearest"})
    assert contents(tmp_path) == before


def test_a_dry_run_writes_nothing(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    done = run(checkpoints, tmp_path / "models", dry_run=True)
    assert not done.written
    assert done.card.parity is not None
    assert not list(tmp_path.iterdir())


def test_graphs_are_what_nvidias_build_reads(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    run(checkpoints, tmp_path)
    for path in tmp_path.glob("*/1/model.onnx"):
        graph = onnx.load(path)
        assert graph.ir_version <= 10
        assert [(entry.domain, entry.version <= 21) for entry in graph.opset_import] == [("", True)]
        assert "floats" not in {output.name for output in graph.graph.output}
        assert not [node for node in graph.graph.node if "Random" in node.op_type]


def test_nothing_of_the_machine_is_in_a_release(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    run(checkpoints, tmp_path)
    for name, data in contents(tmp_path).items():
        for trace in (str(Path.home()), str(tmp_path), "site-packages", ".py"):
            assert trace.encode() not in data, f"{trace} in {name}"


@pytest.mark.parametrize("rounding", ["truncate", "nearest"])
def test_pixels_follow_the_value_range_of_the_card(
    checkpoints: dict[str, Path], tmp_path: Path, rounding: str
) -> None:
    settings = {"low": "-0.5", "high": "0.25", "rounding": rounding, "mask_channel": "1",
                "mask_threshold": "0.1"}  # fmt: skip
    run(checkpoints, tmp_path, settings=settings)
    session = onnxruntime.InferenceSession(tmp_path / "masses.synthesis" / "1" / "model.onnx")
    state = torch.load(checkpoints["dcgan_mammo"], weights_only=True)["generator"]
    family = find_family("dcgan_mammo")
    network = family.build(state, family.options(), Path()).stages[1].module.network
    latent, label = torch.randn(4, 16), torch.tensor([[0], [1], [0], [1]])
    with torch.no_grad():
        floats = network(latent, label).numpy()  # type: ignore[operator] # nn.Module attribute
    image, mask = session.run(None, {"latent": latent.numpy(), "label": label.numpy()})
    levels = np.clip((floats[:, 0] + 0.5) / 0.75 * 255, 0, 255)
    levels = np.round(levels) if rounding == "nearest" else np.floor(levels)
    assert np.abs(image[..., 0] - levels).max() <= 1
    assert (image[..., 0] != levels).mean() < 1e-3
    assert ((mask[..., 0] == 255) != (floats[:, 1] > 0.1)).mean() < 1e-3


def test_an_export_out_of_tolerance_is_refused_and_nothing_is_written(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    state = torch.load(checkpoints["dcgan_mammo"], weights_only=True)["generator"]
    weights = state["main.12.weight"].clone()
    weights[0, 0, 0, 0] = float("nan")
    torch.save({"generator": {**state, "main.12.weight": weights}}, tmp_path / "nan.pt")
    with pytest.raises(ExportError, match=r"'synthesis', image, batch 1: max abs .* is inf"):
        export("dcgan_mammo", tmp_path / "nan.pt", name="nan", repository=tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["", "a.b", "../up", "UPPER", "-x", "a/b", "a" * 64])
def test_a_name_that_triton_or_the_disk_could_misread_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match="is no model name"):
        run(checkpoints, tmp_path, name=name)


def test_a_repository_that_cannot_be_written_is_named(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"file.*cannot be written"):
        run(checkpoints, tmp_path / "file" / "models")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_the_repository_as_it_was(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(MachineError, match="No space left on device; free some space"):
            run(checkpoints, tmp_path / "models")
        assert contents(tmp_path) == {}
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from galatea_exporter import release
from galatea_exporter.export import export

step = int(sys.argv[3])
real = os.rename
def rename(*paths):
    global step
    step -= 1
    if step < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*paths)
release.os.rename = rename
export("dcgan_mammo", Path(sys.argv[1]), name="masses", repository=Path(sys.argv[2]), max_batch=4)
"""


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_killed_export_publishes_nothing_and_the_next_one_completes(
    checkpoints: dict[str, Path], tmp_path: Path, step: int
) -> None:
    root = tmp_path / "models"
    arguments = [sys.executable, "-c", KILLED, str(checkpoints["dcgan_mammo"]), str(root)]
    done = subprocess.run([*arguments, str(step)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert releases(root) == []
    assert len(verify(root)) == step
    run(checkpoints, root)
    assert verify(root) == []
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_facts_come_from_a_table_and_unknown_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text('title = "Masses"\n[options]\nlabels = ["benign", "malignant"]\n')
    assert Facts.read(path).options == {"labels": ["benign", "malignant"]}
    path.write_text('titel = "Masses"\n')
    with pytest.raises(InvalidInput, match="no field 'titel'"):
        Facts.read(path)


def test_the_gpu_variants_say_what_their_documentation_asks_for(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    card = run(checkpoints, tmp_path).card

    def config(variant: str, stage: str = "synthesis") -> model_config_pb2.ModelConfig:
        text = (tmp_path / f"masses.{stage}" / "configs" / f"{variant}.pbtxt").read_text()
        return text_format.Parse(text, model_config_pb2.ModelConfig())

    kind = model_config_pb2.ModelInstanceGroup
    for variant in ("cuda", "tensorrt", "tensorrt-fp16"):
        assert [group.kind for group in config(variant).instance_group] == [kind.KIND_GPU]
        assert [group.kind for group in config(variant, "noise").instance_group] == [kind.KIND_CPU]
    assert [group.kind for group in config("cpu").instance_group] == [kind.KIND_CPU]
    caches = set()
    for variant, precision in (("tensorrt", "FP32"), ("tensorrt-fp16", "FP16")):
        accelerators = config(variant).optimization.execution_accelerators
        accelerator, fallback = accelerators.gpu_execution_accelerator
        assert fallback.name == "cuda"
        parameters = dict(accelerator.parameters)
        assert accelerator.name == "tensorrt"
        assert parameters["precision_mode"] == precision
        assert parameters["trt_profile_min_shapes"] == "latent:1x16,label:1x1"
        assert parameters["trt_profile_opt_shapes"] == "latent:4x16,label:4x1"
        assert parameters["trt_profile_max_shapes"] == "latent:4x16,label:4x1"
        for key in ("trt_engine_cache_path", "trt_engine_cache_prefix"):
            assert f"masses.synthesis-1-{card.graphs['synthesis'][:16]}" in parameters[key]
        caches.add(parameters["trt_engine_cache_prefix"])
    assert len(caches) == 2


def test_two_checkpoints_of_one_architecture_never_share_an_engine_cache(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    state = torch.load(checkpoints["dcgan_mammo"], weights_only=True)["generator"]
    torch.save({**state, "main.12.weight": state["main.12.weight"] * 1.01}, tmp_path / "other.pt")
    paths = []
    for folder, checkpoint in (("a", checkpoints["dcgan_mammo"]), ("b", tmp_path / "other.pt")):
        export("dcgan_mammo", checkpoint, name="same", repository=tmp_path / folder, max_batch=4)
        text = (tmp_path / folder / "same.synthesis" / "configs" / "tensorrt.pbtxt").read_text()
        paths += re.findall(r'"trt_engine_cache_path"\s+value: "([^"]+)"', text)
    assert len(set(paths)) == 2


def test_the_card_says_where_the_model_comes_from(repository: Path) -> None:
    card = find(repository, "masses").card()
    assert (card.title, card.licence, card.task) == ("Masses", "CC0-1.0", "class-conditional")
    assert [output.name for output in card.outputs] == ["image", "mask"]
    assert card.image.shape == (64, 64, 1)
    assert card.label is not None
    assert card.label.labels == ("benign", "malignant")
    assert len(card.checkpoint_sha256) == 64
    assert set(card.graphs) == {"noise", "synthesis"}
    assert card.exporter.startswith("galatea ")


def test_weights_too_large_for_a_graph_lie_beside_it(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(checkpoints, tmp_path / "within")
    monkeypatch.setattr("galatea_exporter.graph.LARGEST_WEIGHTS", 10_000)
    for folder in ("beside", "again"):
        run(checkpoints, tmp_path / folder)
    assert contents(tmp_path / "beside") == contents(tmp_path / "again")
    assert verify(tmp_path / "beside") == []
    release = find(tmp_path / "beside", "masses")
    graph, weights = (f"masses.synthesis/1/{name}" for name in ("model.onnx", "model.onnx.data"))
    assert release.files[weights][0] > 10 * release.files[graph][0]
    made = []
    for folder in ("within", "beside"):
        with EmbeddedServer(tmp_path / folder) as server, Client(server.grpc_url) as client:
            made.append(client.sample("masses", 4, seed=1).images)
    assert made[0].tobytes() == made[1].tobytes()
