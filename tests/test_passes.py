"""Passes over exported graphs: the same function in fewer operations, and only where it pays."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galatea_exporter.graph import export_stage, open_session, serialise
from galatea_exporter.passes import PASSES
from galatea_exporter.passes.resized import LEAST_CHANNELS
from galatea_exporter.stages import Axis, Stage, TensorSpec
from tensorrt_operators import obstacles


class Chain(nn.Sequential):
    """Layers between an activation before and one behind; float32 [N, C, …] → [N, C', …]."""

    def __init__(self, *layers: nn.Module) -> None:
        torch.manual_seed(0)
        super().__init__(nn.ReLU(), *layers, nn.LeakyReLU(0.2))


def doubled(kernel: int, c_in: int = LEAST_CHANNELS, mode: str = "nearest") -> list[nn.Module]:
    conv = nn.Conv2d(c_in, 4, kernel, padding=kernel // 2)
    return [nn.Upsample(scale_factor=2, mode=mode), conv]


def volume() -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), nn.Conv3d(2, 3, 3, padding=1, bias=False)]


def transposed(kernel: int, c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(c_in, c_out, kernel, 2, (kernel - 1) // 2, kernel % 2)]


def stage(layers: list[nn.Module], *shape: int | Axis) -> Stage:
    module = Chain(*layers).eval()
    example = torch.zeros(2, *(size if isinstance(size, int) else 8 for size in shape))
    made = module(example).shape[1:]
    free = any(isinstance(size, Axis) for size in shape)
    specs = TensorSpec("x", "float32", shape), TensorSpec("y", "float32", tuple(made))
    if free:
        specs = specs[0], TensorSpec("y", "float32", (made[0], *shape[1:]))
    return Stage("stage", module, (specs[0],), (specs[1],))


def operators(graph: Any) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def run(graph: Any, x: Tensor) -> NDArray[Any]:
    made: NDArray[Any] = open_session(serialise(graph)).run(None, {"x": x.numpy()})[0]
    return made


@pytest.mark.parametrize(
    ("layers", "shape", "expected"),
    [
        (doubled(3), (LEAST_CHANNELS, 6, 5), {"ConvTranspose": 1}),
        (doubled(5), (LEAST_CHANNELS, 6, 5), {"ConvTranspose": 1}),
        (doubled(7, 512), (512, 128, 128), {"Conv": 1, "DepthToSpace": 1, "Slice": 1}),
        (volume(), (2, 4, 5, 6), {"ConvTranspose": 1}),
        (transposed(4, 128, 64), (128, 64, 64), {"Conv": 1, "DepthToSpace": 1, "Slice": 1}),
        (doubled(3, 64), (64, 6, 5), {"Resize": 1, "Conv": 1}),
        (doubled(3, mode="bilinear"), (LEAST_CHANNELS, 6, 5), {"Resize": 1, "Conv": 1}),
        (transposed(4, 64, 8), (64, 16, 16), {"ConvTranspose": 1}),
        (transposed(3, 256, 64), (256, 64, 64), {"ConvTranspose": 1}),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)  # fmt: skip
def test_a_pass_changes_operators_where_it_pays_and_never_the_function(
    layers: list[nn.Module], shape: tuple[int, ...], expected: dict[str, int]
) -> None:
    subject = stage(layers, *shape)
    graph = export_stage(subject)
    assert operators(graph) == {"Relu": 1, "LeakyRelu": 1, **expected}
    assert not list(obstacles(graph))
    x = torch.randn(3, *shape)
    with torch.no_grad():
        want = subject.module(x).numpy()
    made = run(graph, x)
    assert np.abs(made - want).max() <= 1e-5 * max(1, np.abs(want).max())
    assert np.array_equal(run(graph, x[:1]), made[:1])


def test_a_map_of_a_free_size_keeps_its_transposed_convolution() -> None:
    free = Axis("height", 1, 4, 64), Axis("width", 1, 4, 64)
    layers = [nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.AvgPool2d(2)]
    assert operators(export_stage(stage(layers, 128, *free)))["ConvTranspose"] == 1


def test_without_passes_a_graph_is_as_the_exporter_of_pytorch_makes_it() -> None:
    subject = stage(doubled(3), LEAST_CHANNELS, 4, 4)
    plain = export_stage(subject, passes=())
    assert operators(plain)["Resize"] == 1
    x = torch.randn(2, LEAST_CHANNELS, 4, 4)
    assert np.abs(run(plain, x) - run(export_stage(subject), x)).max() < 1e-5
    assert len(PASSES) == 2
