"""Two small models and what asks them, for tests of the server alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper

Floats = NDArray[np.float32]

CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: -1 }}
input {{ name: "row" data_type: TYPE_INT64 dims: 1 }}
output {{ name: "double" data_type: TYPE_FP32 dims: -1 }}
output {{ name: "picked" data_type: TYPE_FP32 dims: 1 }}
instance_group {{ count: {instances} kind: KIND_CPU }}
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""


def write_model(root: Path, name: str, *, delay: int = 0, instances: int = 1) -> Path:
    """double = 2 x, of any length; picked = the row-th of five numbers, an error above 4."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["double"]),
            helper.make_node("Gather", ["table", "row"], ["picked"], axis=0),
        ],
        "test",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "n"]),
            helper.make_tensor_value_info("row", TensorProto.INT64, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("double", TensorProto.FLOAT, ["batch", "n"]),
            helper.make_tensor_value_info("picked", TensorProto.FLOAT, ["batch", 1]),
        ],
        [helper.make_tensor("table", TensorProto.FLOAT, [5], [10.0, 11.0, 12.0, 13.0, 14.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder = root / name
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")
    text = CONFIG.format(instances=instances, delay=delay)
    (folder / "config.pbtxt").write_text(text)
    return folder


def numbers(start: int, rows: int, length: int = 3) -> Floats:
    return np.arange(start, start + rows * length, dtype=np.float32).reshape(rows, length)


def ask(
    wire: triton.InferenceServerClient,
    x: Floats,
    row: int = 0,
    model: str = "collects",
    outputs: tuple[str, ...] = ("double", "picked"),
) -> triton.InferResult:
    first = triton.InferInput("x", x.shape, "FP32")
    first.set_data_from_numpy(x)
    second = triton.InferInput("row", (len(x), 1), "INT64")
    second.set_data_from_numpy(np.full((len(x), 1), row, np.int64))
    wanted = [triton.InferRequestedOutput(name) for name in outputs]
    return wire.infer(model, [first, second], outputs=wanted)


def start(repository: Path) -> subprocess.Popen[str]:
    """``galatea serve`` in a process of its own."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    return subprocess.Popen(
        [sys.executable, "-m", "galatea", "serve", "--repository", str(repository), *ports,
         "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    text = " ".join((thread / "children").read_text() for thread in threads)
    return sorted(int(child) for child in text.split())


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
