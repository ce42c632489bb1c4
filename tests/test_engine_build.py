"""``galatea engine build`` up to TensorRT, and the options that GPUs are served with.

No engine is built here, which takes a GPU; its file is some bytes.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from galatea.errors import ExportError
from galatea.local_variants import LocalVariant
from galatea.repository import find, verify
from galatea.tensorrt_engines import Engine, Gpu, engines_of, misfit
from galatea_exporter.export import export
from galatea_exporter.family import find_family
from galatea_server.engines.checking import check, inputs, reference
from galatea_server.engines.recipe import Recipe, recipe, release_engine
from support import ROOT

STAGE = "masses.synthesis"
H100, A100 = Gpu("NVIDIA H100", "9.0"), Gpu("NVIDIA A100", "8.0")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a small generator."""
    root = tmp_path_factory.mktemp("engines")
    family = find_family("dcgan_mammo")
    torch.save({family.containers[0]: family.example()}, root / "masses.pt")
    export(family.name, root / "masses.pt", name="masses", repository=root / "models", max_batch=8)
    return root / "models"


@pytest.fixture
def made(exported: Path, tmp_path: Path) -> Recipe:
    return recipe(find(shutil.copytree(exported, tmp_path / "models"), "masses"))


def built(made: Recipe, gpu: Gpu, tensorrt: str, plan: bytes = b"plan") -> LocalVariant:
    return release_engine(made, made.engine(gpu, tensorrt), plan, "engine")


def config(made: Recipe, model: str = STAGE, path: str = "configs/engine.pbtxt") -> Any:
    text = (made.release.root / model / path).read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def galatea(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", "engine", "build"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_what_would_be_built_is_told_without_a_gpu(exported: Path) -> None:
    done = galatea("masses", "--repository", exported, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["stage"] == STAGE
    assert told["profile"] == {
        "latent": [[1, 16], [8, 16], [8, 16]], "label": [[1, 1], [8, 1], [8, 1]]
    }  # fmt: skip
    assert told["file"] == f"{STAGE}/1/model.smXY-trtVERSION.plan"


def test_a_machine_that_cannot_build_is_told_all_that_it_lacks(exported: Path) -> None:
    done = galatea("masses", "--repository", exported)
    assert done.returncode == 1
    assert "a GPU that nvidia-smi finds" in done.stderr
    assert "tensorrt" in done.stderr
    assert "pip install 'galatea[engine]'" in done.stderr
    assert verify(exported) == []


def test_float16_needs_a_figure_in_the_card(exported: Path) -> None:
    done = galatea("masses", "--repository", exported, "--fp16", "--dry-run")
    assert done.returncode == 5
    assert "no figure of float16" in done.stderr


def test_an_engine_lies_beside_its_graph_under_its_gpu_and_tensorrt(made: Recipe) -> None:
    built(made, H100, "10.4.0")
    root = made.release.root
    assert (root / STAGE / "1" / "model.sm90-trt10.4.0.plan").read_bytes() == b"plan"
    served = config(made)
    assert (served.backend, served.platform) == ("tensorrt", "tensorrt_plan")
    assert dict(served.cc_model_filenames) == {"9.0": "model.sm90-trt10.4.0.plan"}
    assert served.default_model_filename == ""
    assert not served.optimization.execution_accelerators.gpu_execution_accelerator
    assert config(made, "masses").platform == "ensemble"
    released = config(made, path="config.pbtxt")
    assert (served.input, served.output) == (released.input, released.output)
    assert verify(root) == []


def test_engines_of_several_gpus_lie_side_by_side_and_an_old_one_goes(made: Recipe) -> None:
    built(made, A100, "10.4.0", b"for 8.0")
    built(made, H100, "10.4.0", b"old")
    added = built(made, H100, "10.11.0", b"for 9.0")
    assert [engine.tensorrt for engine in engines_of(added)] == ["10.4.0", "10.11.0"]
    assert dict(config(made).cc_model_filenames) == {
        "8.0": "model.sm80-trt10.4.0.plan", "9.0": "model.sm90-trt10.11.0.plan",
    }  # fmt: skip
    plans = sorted(path.name for path in (made.release.root / STAGE / "1").glob("*.plan"))
    assert plans == ["model.sm80-trt10.4.0.plan", "model.sm90-trt10.11.0.plan"]
    assert verify(made.release.root) == []


def test_cuda_graphs_are_captured_of_one_sample_and_of_a_whole_batch(made: Recipe) -> None:
    engine = made.engine(H100, "10.4.0")
    graphs = made.configs([engine], cuda_graphs=True)[STAGE].optimization.cuda
    assert graphs.graphs
    assert [spec.batch_size for spec in graphs.graph_spec] == [1, 8]
    assert list(graphs.graph_spec[0].input["latent"].dim) == [16]


@pytest.mark.parametrize(
    ("change", "finding"),
    [(Path.unlink, "is missing"), (lambda path: path.write_bytes(b"PLAN"), "was changed")],
)
def test_a_changed_engine_is_found(
    made: Recipe, change: Callable[[Path], None], finding: str
) -> None:
    built(made, H100, "10.4.0")
    change(made.release.root / STAGE / "1" / "model.sm90-trt10.4.0.plan")
    assert finding in verify(made.release.root)[0]


@pytest.mark.parametrize(
    ("gpus", "tensorrt", "reason"),
    [
        ((H100,), "10.4.0.26", None),
        ((H100, H100), None, None),
        ((A100,), "10.4.0", "built for compute capability 9.0, and this machine's NVIDIA A100 has"),
        ((H100, A100), "10.4.0", "NVIDIA A100 has 8.0"),
        ((H100,), "10.5.0", "was built by TensorRT 10.4.0, and this machine has 10.5.0"),
        ((), "10.4.0", "this machine has none"),
    ],
)
def test_an_engine_of_another_machine_is_refused(
    gpus: tuple[Gpu, ...], tensorrt: str | None, reason: str | None
) -> None:
    told = misfit([Engine("x.plan", "9.0", "10.4.0", "NVIDIA H100")], gpus, tensorrt)
    assert (told is None) if reason is None else reason in str(told)


def test_an_engine_is_not_served_where_there_is_no_gpu(made: Recipe) -> None:
    built(made, H100, "10.4.0")
    root = made.release.root
    assert verify(root) == []  # a repository may be kept, and served otherwise, on any machine
    assert verify(root, variant="cpu") == []
    (problem,) = verify(root, variant="engine")
    assert "needs a GPU" in problem
    assert "serve another variant" in problem


def test_an_engine_is_asked_what_the_stage_gets_in_production(made: Recipe) -> None:
    feeds = list(inputs(made))
    assert [len(feed["latent"]) for feed in feeds] == [1, 2, 8]
    noise = onnxruntime.InferenceSession(made.release.root / "masses.noise" / "1" / "model.onnx")
    (latent,) = noise.run(["latent"], {"seed": np.arange(8).reshape(8, 1)})
    assert np.array_equal(feeds[2]["latent"], latent)
    assert set(feeds[2]["label"].ravel()) == {0, 1}


def test_an_engine_that_is_not_its_graph_is_refused(made: Recipe) -> None:
    card, feeds = made.release.card(), list(inputs(made))
    wanted = list(reference(made, feeds))
    check(card, made, wanted, reference(made, feeds))
    other = [{name: 255 - array for name, array in outputs.items()} for outputs in wanted]
    with pytest.raises(ExportError, match="is not its graph, at batch 1: image differs by"):
        check(card, made, wanted, other)
    with pytest.raises(ExportError, match="no figure of float16"):
        check(card, replace(made, fp16=True), wanted, wanted)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The backend's file, with the one class of Triton's that its options need."""
    utilities = types.ModuleType("triton_python_backend_utils")
    utilities.TritonModelException = ValueError  # type: ignore[attr-defined]  # made here
    monkeypatch.setitem(sys.modules, utilities.__name__, utilities)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = ROOT / "server" / "galatea_server" / "backends" / "onnxruntime" / "model.py"
    spec = importlib.util.spec_from_file_location("backend", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def providers(backend: Any, made: Recipe, variant: str) -> dict[str, dict[str, str]]:
    """Options by execution provider, from the configuration as Triton hands it over."""
    text = config(made, path=f"configs/{variant}.pbtxt")
    accelerators = text.optimization.execution_accelerators.gpu_execution_accelerator
    plain = {
        "parameters": {k: {"string_value": v.string_value} for k, v in text.parameters.items()},
        "optimization": {
            "execution_accelerators": {
                "gpu_execution_accelerator": [
                    {"name": entry.name, "parameters": dict(entry.parameters)}
                    for entry in accelerators
                ]
            }
        },
    }
    arguments = {"model_instance_kind": "GPU", "model_instance_device_id": "1"}
    return dict(backend._providers(plain, arguments))


def test_cuda_is_told_by_the_names_of_onnx_runtime(backend: Any, made: Recipe) -> None:
    cuda = {
        "device_id": "1", "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested", "do_copy_in_default_stream": "1",
        "cudnn_conv_use_max_workspace": "1", "use_tf32": "0",
    }  # fmt: skip
    assert providers(backend, made, "cuda") == {
        "CUDAExecutionProvider": cuda, "CPUExecutionProvider": {},
    }  # fmt: skip
    tensorrt = providers(backend, made, "tensorrt")
    assert list(tensorrt) == [
        "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider",
    ]  # fmt: skip
    assert tensorrt["CUDAExecutionProvider"] == cuda
    assert (
        tensorrt["TensorrtExecutionProvider"]["trt_profile_max_shapes"] == "latent:8x16,label:8x1"
    )


def test_a_limit_of_gpu_memory_is_handed_on_and_a_wrong_number_refused(backend: Any) -> None:
    assert backend._cuda({"gpu_mem_limit": {"string_value": "4294967296"}}) == {
        "gpu_mem_limit": "4294967296"
    }
    with pytest.raises(ValueError, match=r"cudnn_conv_algo_search '9' is none of 0 \(EXHAUSTIVE\)"):
        backend._cuda({"cudnn_conv_algo_search": {"string_value": "9"}})
