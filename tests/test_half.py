"""Graphs in float16: what they hold, how far they are from PyTorch, and when they are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from galatea import ExportError
from galatea.repository import find
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.export import Exported, export
from galatea_exporter.family import Family, families, find_family
from galatea_exporter.float16 import in_half, rehearsal
from galatea_exporter.graph import example_inputs, export_stage, open_session, serialise, stored
from galatea_exporter.layers.instance_norm import InstanceNorm
from galatea_exporter.stages import Stage, TensorSpec

SIDE = 12


class Network(nn.Module):
    """Features between two convolutions, and a picture of one channel; float32 [N, 8, H, W]."""

    def __init__(self, *between: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, second = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.layers = nn.Sequential(first, *between, second, nn.Conv2d(8, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.layers(features * 0.5)
        return made.tanh()


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        return features * self.factor


def graph(*between: nn.Module) -> tuple[Stage, Any]:
    """A stage with these modules between its convolutions, and its graph in float32."""
    given = TensorSpec("features", "float32", (8, SIDE, SIDE))
    made = TensorSpec("image", "float32", (1, SIDE, SIDE))
    stage = Stage("synthesis", Network(*between).eval(), (given,), (made,))
    return stage, export_stage(stage)


def types(model: Any) -> dict[str, set[int]]:
    """By operator, the types of what it makes."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    of = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    of |= {value.name: value.type.tensor_type.elem_type for value in inferred.output}
    found: dict[str, set[int]] = {}
    for node in inferred.node:
        found.setdefault(node.op_type, set()).update(of[name] for name in node.output)
    return found


def run(graph: Any, features: Tensor) -> Any:
    return open_session(serialise(graph)).run(None, {"features": features.numpy()})[0]


def test_convolutions_are_float16_and_statistics_and_the_picture_are_not() -> None:
    _, whole = graph(InstanceNorm(), nn.LeakyReLU(0.2))
    half = stored(in_half(whole, Path()))
    made = types(half)
    assert made["Conv"] == {TensorProto.FLOAT16, TensorProto.FLOAT}
    assert made["LeakyRelu"] == {TensorProto.FLOAT16}
    assert made["ReduceMean"] == made["Tanh"] == {TensorProto.FLOAT}
    weights = {t.name: t.data_type for t in half.graph.initializer if len(t.dims) == 4}
    assert sorted(weights.values()) == [TensorProto.FLOAT, *[TensorProto.FLOAT16] * 2]
    for end in ("input", "output"):
        assert getattr(half.graph, end) == getattr(whole.graph, end)
    onnx.checker.check_model(half, full_check=True)


def test_what_a_threshold_inside_of_a_network_is_taken_of_stays_float32() -> None:
    class Above(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return (features > 0.1).float()

    half = stored(in_half(graph(Above(), nn.Conv2d(8, 8, 1))[1], Path()))
    weights = {t.name: t.data_type for t in half.graph.initializer if len(t.dims) == 4}
    assert list(weights.values()).count(TensorProto.FLOAT16) == 2
    assert weights["module.layers.0.weight"] == TensorProto.FLOAT


def test_a_rehearsal_computes_what_rounding_every_result_gives() -> None:
    stage, whole = graph(nn.LeakyReLU(0.2))
    features = torch.randn(2, 8, SIDE, SIDE)

    def rounded(tensor: Tensor) -> Tensor:
        return tensor.half().float()

    first, leaky, second, last = cast(nn.Sequential, stage.module.layers)
    for convolution in (first, second):
        for parameter in convolution.parameters():
            parameter.data = rounded(parameter.data)
    with torch.no_grad():
        inside = rounded(leaky(rounded(first(rounded(features * 0.5)))))
        expected = last(rounded(second(inside))).tanh()
    made = run(stored(rehearsal(in_half(whole, Path()))), features)
    assert np.abs(made - expected.numpy()).max() < 2e-3  # a sum that falls to the other side
    assert np.median(np.abs(made - expected.numpy())) < 1e-6


def test_a_rehearsal_overflows_where_a_gpu_would_and_this_cpu_does_not() -> None:
    _, whole = graph(
        *(layer for factor in (1e4, 1e4, 1e-8) for layer in (nn.LeakyReLU(0.2), Times(factor)))
    )
    half = in_half(whole, Path())
    features = torch.randn(2, 8, SIDE, SIDE)
    assert np.isfinite(run(stored(half), features)).all()
    assert not np.isfinite(run(stored(rehearsal(half)), features)).all()


@pytest.fixture(scope="module")
def repository_fp16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    """A repository with a generator of three stages, in float16 too."""
    folder = tmp_path_factory.mktemp("fp16")
    family = find_family("stylegan2")
    checkpoint = family.save(family.example(), folder / "checkpoint")
    root = folder / "models"
    done = export(family.name, checkpoint, name="faces", repository=root, max_batch=4, fp16=True)
    return root, done


def test_float16_lies_beside_float32_and_has_a_variant(
    repository_fp16: tuple[Path, Exported],
) -> None:
    root, done = repository_fp16
    assert set(done.card.graphs) == {"noise", "mapping", "synthesis", "synthesis.fp16"}
    for stage in ("noise", "mapping", "synthesis"):
        folder, halved = root / f"faces.{stage}" / "1", stage == "synthesis"
        assert (folder / "model.fp16.onnx").exists() == halved
        variants = {path.stem: path.read_text() for path in folder.parent.glob("configs/*.pbtxt")}
        named = {variant for variant, text in variants.items() if "model.fp16.onnx" in text}
        assert named == ({"cuda-fp16"} if halved else set())
    sizes = [(root / "faces.synthesis" / "1" / f"{name}.onnx").stat().st_size
             for name in ("model.fp16", "model")]  # fmt: skip
    assert sizes[0] < 0.8 * sizes[1]
    half = onnx.load(root / "faces.synthesis" / "1" / "model.fp16.onnx")
    assert {output.name for output in half.graph.output} == {"image"}
    assert half.ir_version <= 10


def test_the_card_says_how_far_float16_is_from_pytorch(
    repository_fp16: tuple[Path, Exported],
) -> None:
    root, _ = repository_fp16
    figures = find(root, "faces").card().parity_fp16
    assert figures is not None
    assert figures.batches == (4,)
    assert 0 < figures.max_abs <= figures.tolerance
    assert figures.max_levels <= 8
    assert 0 < figures.share_differing < 0.2
    assert figures.psnr is not None
    assert figures.psnr >= 50


def test_weights_too_large_for_a_graph_lie_beside_it_in_float16_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("galatea_exporter.graph.LARGEST_WEIGHTS", 10_000)
    family = find_family("dcgan_mammo")
    checkpoint = family.save(family.example(), tmp_path / "checkpoint")
    export(family.name, checkpoint, name="large", repository=tmp_path / "models", fp16=True)
    folder = tmp_path / "models" / "large.synthesis" / "1"
    whole, half = (folder / f"{name}.onnx.data" for name in ("model", "model.fp16"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    for graph in ("model", "model.fp16"):
        assert (folder / f"{graph}.onnx").stat().st_size < 10_000


def test_an_export_whose_float16_overflows_is_refused_with_the_figure(tmp_path: Path) -> None:
    family = find_family("dcgan_mammo")
    state = family.example()
    loud = 6e4 / state["main.6.weight"].abs().max()  # a weight still fits, their sums do not
    for key, factor in (("main.7.weight", loud), ("main.9.weight", 1 / loud)):
        state[key] = factor * state[key]
    checkpoint = family.save(state, tmp_path / "checkpoint")
    arguments: dict[str, Any] = {"name": "loud", "repository": tmp_path / "models", "max_batch": 4}
    with pytest.raises(ExportError, match=r"'synthesis' in float16: max abs difference is"):
        export(family.name, checkpoint, fp16=True, **arguments)
    assert not (tmp_path / "models").exists()
    assert export(family.name, checkpoint, dry_run=True, **arguments).card.parity_fp16 is None


@pytest.mark.parametrize("family", families().values(), ids=lambda family: family.name)
def test_a_familys_images_are_the_same_in_float16(
    family: Family, checkpoints: dict[str, Path], repository: Path
) -> None:
    checkpoint = read_checkpoint(checkpoints[family.name], family.files, family.modules)
    options = replace(family.options(), **family.arguments(checkpoint))
    generator = family.load(checkpoint, options)
    for stage in generator.stages:
        if stage.halved and any(spec.name == "image" for spec in stage.outputs):
            name = family.name + (f".{stage.name}" if len(generator.stages) > 1 else "")
            whole = onnx.load(repository / name / "1" / "model.onnx")
            half = in_half(whole, Path())
            if half is None:  # no layer has 8 channels
                continue
            feed = {
                spec.name: tensor.numpy()
                for spec, tensor in zip(stage.inputs, example_inputs(stage, 2), strict=True)
            }
            want, released, rehearsed = (
                open_session(serialise(graph)).run(["image"], feed)[0].astype(np.float64)
                for graph in (whole, stored(half), stored(rehearsal(half)))
            )
            peak = 255 if generator.outputs[0].dtype == "UINT8" else 1
            for made in (released, rehearsed):
                assert np.square((made - want) / peak).mean() < 1e-4
