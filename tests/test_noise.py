"""Noise v1 has the same bits in NumPy, PyTorch, ONNX Runtime and through Triton."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import tritonclient.grpc as triton
from numpy.typing import NDArray

from galatea_exporter.graph import export_stage, serialise
from galatea_exporter.noise_graph import Noise
from galatea_exporter.sampler.noise import noise_v1, quantiles, threefry2x32
from galatea_exporter.stages import Stage, TensorSpec
from galatea_server.server import EmbeddedServer

SEEDS = np.array([0, 1, 7, 2**32 - 1, 2**40 + 7, 2**62, 2**63 - 1, -1, -(2**63)], np.int64)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers_of_random123(
    counter: tuple[int, int], key: tuple[int, int], words: tuple[int, int]
) -> None:
    def word(value: int) -> NDArray[np.uint32]:
        return np.array([value], np.uint32)

    got = threefry2x32((word(key[0]), word(key[1])), (word(counter[0]), word(counter[1])))
    assert (int(got[0][0]), int(got[1][0])) == words


def test_latents_equal_the_golden_ones_to_the_bit(golden: Path) -> None:
    case = np.load(golden / "noise_v1.npz")
    assert quantiles().tobytes() == case["table"].tobytes()
    assert noise_v1(case["seeds"], case["z"].shape[1]).tobytes() == case["z"].tobytes()


@pytest.mark.parametrize("size", [1, 2, 101])
@pytest.mark.parametrize("stream", [0, 3])
def test_the_graph_equals_numpy_to_the_bit(size: int, stream: int) -> None:
    stage = Stage(
        "noise", Noise(size, stream), (TensorSpec("seed", "int64", (1,)),),
        (TensorSpec("latent", "float32", (size,)),),
    )  # fmt: skip
    expected = noise_v1(SEEDS, size, stream).tobytes()
    with torch.no_grad():
        assert stage.module(torch.from_numpy(SEEDS[:, None])).numpy().tobytes() == expected
    session = onnxruntime.InferenceSession(serialise(export_stage(stage)))
    assert session.run(None, {"seed": SEEDS[:, None]})[0].tobytes() == expected


def test_triton_equals_numpy_to_the_bit(server: EmbeddedServer) -> None:
    tensor = triton.InferInput("seed", (8, 1), "INT64")
    tensor.set_data_from_numpy(SEEDS[:8, None])
    with triton.InferenceServerClient(server.grpc_url) as wire:
        latent = wire.infer("masses.noise", [tensor]).as_numpy("latent")
    assert latent.tobytes() == noise_v1(SEEDS[:8], latent.shape[1]).tobytes()


def test_noise_is_standard_normal() -> None:
    values = noise_v1(np.arange(1000, dtype=np.int64), 1000)
    assert abs(values.mean()) < 4e-3
    assert abs(values.std() - 1) < 4e-3
    assert abs((np.abs(values) > 1.959964).mean() - 0.05) < 1e-3


def test_streams_of_one_seed_are_independent() -> None:
    first, second = (noise_v1(SEEDS, 1000, stream) for stream in (0, 1))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
