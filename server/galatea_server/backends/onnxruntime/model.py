"""Triton backend ``onnxruntime`` in Python: serves ``model.onnx`` as NVIDIA's C++ backend does.

Triton starts one process for each model instance and calls the class below. The same keys of
``config.pbtxt`` are honoured: instance kind and count, ``intra_op_thread_count``,
``inter_op_thread_count``, ``execution_mode``, ``optimization.graph.level``, the GPU execution
accelerators ``cuda`` and ``tensorrt``, and ``cudnn_conv_algo_search``, ``arena_extend_strategy``,
``gpu_mem_limit`` and ``do_copy_in_default_stream``. This file stands alone: it imports nothing of
galatea.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Triton's stub knows no virtual environment and takes no notice of PYTHONPATH.
sys.path[:0] = os.environ.get("GALATEA_SERVER_SITE", "").split(os.pathsep)

import numpy as np  # noqa: E402 - found by the line above
import onnxruntime as ort  # noqa: E402 - likewise
import triton_python_backend_utils as pb_utils  # noqa: E402 - likewise

CPU = "CPUExecutionProvider"

Feed = dict[str, "np.ndarray[Any, Any]"]

ONNX_TYPE = {
    "TYPE_BOOL": "tensor(bool)", "TYPE_UINT8": "tensor(uint8)", "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)", "TYPE_UINT64": "tensor(uint64)", "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)", "TYPE_INT32": "tensor(int32)", "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)", "TYPE_FP32": "tensor(float)", "TYPE_FP64": "tensor(double)",
    "TYPE_STRING": "tensor(string)",
}  # fmt: skip

# Triton's optimization level → ONNX Runtime's.
GRAPH_LEVEL = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

# Options of the CUDA provider that are parameters of the model, as Triton's C++ backend wants them,
# and the names of their numbers. Others are keys of the accelerator "cuda", handed on as they are.
CUDA_PARAMETERS: dict[str, dict[str, str]] = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
    "gpu_mem_limit": {},
    "do_copy_in_default_stream": {},
}

# Keys of the accelerator "tensorrt" that have another name as options of the execution provider;
# those that begin with trt_ are handed on as they are.
TENSORRT_OPTION = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
# Options that the C++ backend takes as 1 or true, and ONNX Runtime's Python API as True only.
TENSORRT_SWITCHES = {
    "trt_build_heuristics_enable", "trt_context_memory_sharing_enable", "trt_cuda_graph_enable",
    "trt_detailed_build_log", "trt_dla_enable", "trt_dump_ep_context_model", "trt_dump_subgraphs",
    "trt_engine_cache_enable", "trt_force_sequential_engine_build", "trt_force_timing_cache",
    "trt_int8_use_native_calibration_table", "trt_layer_norm_fp32_fallback",
    "trt_sparsity_enable", "trt_timing_cache_enable",
}  # fmt: skip
TENSORRT_PRECISION = {"FP32": None, "FP16": "trt_fp16_enable", "INT8": "trt_int8_enable"}


class TritonPythonModel:
    """One instance of one model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the graph.

        Raises:
            pb_utils.TritonModelException: it does not agree with ``config.pbtxt``, or ONNX Runtime
                refuses it; Triton then refuses the model with this sentence.
        """
        self.config = json.loads(args["model_config"])
        self.batched = self.config["max_batch_size"] > 0
        name = self.config.get("default_model_filename") or "model.onnx"
        path = os.path.join(args["model_repository"], args["model_version"], name)
        if not os.path.isfile(path):
            raise pb_utils.TritonModelException(f"{path} does not exist")
        providers = _providers(self.config, args)
        try:
            self.session = ort.InferenceSession(path, _options(self.config), providers)
            self.split = self._splitter(path, providers)
        except Exception as error:
            raise pb_utils.TritonModelException(f"ONNX Runtime refuses {path}: {error}") from error
        first = providers[0][0]
        if first not in self.session.get_providers():  # ONNX Runtime fell back to the CPU
            there = ort.get_available_providers()
            raise pb_utils.TritonModelException(
                f"onnxruntime {ort.__version__} cannot start {first} on this machine"
                if first in there
                else f"{first} is not in onnxruntime {ort.__version__}, which has "
                f"{', '.join(there)}"
            )
        self.inputs = _agreed(self.config["input"], self.session.get_inputs(), self.batched)
        undeclared = {entry.name for entry in self.session.get_inputs()} - set(self.inputs)
        if undeclared:
            raise pb_utils.TritonModelException(
                f"config.pbtxt lacks the graph's inputs {', '.join(sorted(undeclared))}"
            )
        self.outputs = _agreed(self.config["output"], self.session.get_outputs(), self.batched)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers requests; those of one shape go through the graph together.

        A request that cannot be answered gets an error of its own and spoils no other.
        """
        responses: list[Any] = [None] * len(requests)
        groups: dict[Any, list[tuple[int, Feed]]] = {}
        for i, request in enumerate(requests):
            try:
                feed = self._feed(request)
            except ValueError as error:
                responses[i] = _failed(str(error), pb_utils.TritonError.INVALID_ARG)
                continue
            shapes = tuple(array.shape[1:] if self.batched else i for array in feed.values())
            groups.setdefault(shapes, []).append((i, feed))
        for group in groups.values():
            for i, response in self._run(group, requests):
                responses[i] = response
        return responses

    def _splitter(self, path: str, providers: list[tuple[str, dict[str, str]]]) -> Any:
        """A session with one thread a run, for batches that are split over the cores; or None.

        Rows that are computed side by side use the cores better than threads within an operator.
        """
        parameters = self.config.get("parameters", {})
        given = int(parameters.get("intra_op_thread_count", {}).get("string_value", 0))
        self.cores = len(os.sched_getaffinity(0))
        if given or not self.batched or self.cores == 1 or providers[0][0] != CPU:
            return None
        self.pool = ThreadPoolExecutor(self.cores, "rows")
        options = _options(self.config)
        options.intra_op_num_threads = 1
        return ort.InferenceSession(path, options, providers)

    def _compute(self, names: list[str], feed: Feed) -> list[Any]:
        rows = len(next(iter(feed.values()))) if self.batched else 0
        if self.split is None or rows < self.cores:
            outputs: list[Any] = self.session.run(names, feed)
            return outputs
        parts = {name: np.array_split(array, self.cores) for name, array in feed.items()}
        feeds = [{name: part[k] for name, part in parts.items()} for k in range(self.cores)]
        results = self.pool.map(lambda part: self.split.run(names, part), feeds)
        return [np.concatenate(output) for output in zip(*results, strict=True)]

    def _feed(self, request: Any) -> Feed:
        """The request's arrays by name.

        Raises:
            ValueError: an input is missing or of the wrong rank.
        """
        feed = {}
        for name, dims in self.inputs.items():
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise ValueError(f"input {name!r} is missing")
            array = tensor.as_numpy()
            expected = ([None] if self.batched else []) + dims
            if len(expected) != array.ndim or any(
                want not in (None, -1, got) for want, got in zip(expected, array.shape, strict=True)
            ):
                raise ValueError(
                    f"input {name!r} has the shape {list(array.shape)}, not {expected}"
                )
            feed[name] = array
        if self.batched and len({len(array) for array in feed.values()}) > 1:
            raise ValueError("the inputs do not have the same batch size")
        return feed

    def _run(self, group: list[tuple[int, Feed]], requests: list[Any]) -> list[tuple[int, Any]]:
        """(index, response) for requests of equal shapes, in one run if that goes well."""
        wanted = {i: list(requests[i].requested_output_names()) for i, _ in group}
        names = [name for name in self.outputs if any(name in some for some in wanted.values())]
        feeds = [feed for _, feed in group]
        merged = feeds[0]
        if len(feeds) > 1:
            merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in merged}
        try:
            results = dict(zip(names, self._compute(names, merged), strict=True))
        except Exception as error:  # ONNX Runtime raises classes of its own for every status
            if len(group) == 1:
                reason = f"ONNX Runtime: {error}"
                return [(group[0][0], _failed(reason, pb_utils.TritonError.INTERNAL))]
            return [answer for single in group for answer in self._run([single], requests)]
        answers, start = [], 0
        for i, feed in group:
            rows = slice(start, start + len(next(iter(feed.values())))) if self.batched else ...
            # Fresh arrays: memory that belongs to the session arrives empty on the other side.
            tensors = [
                pb_utils.Tensor(name, np.array(results[name][rows]))
                for name in wanted[i]
                if name in results
            ]
            answers.append((i, pb_utils.InferenceResponse(tensors)))
            start = rows.stop if isinstance(rows, slice) else 0
        return answers


def _options(config: dict[str, Any]) -> Any:
    options = ort.SessionOptions()
    parameters = {key: entry["string_value"] for key, entry in config.get("parameters", {}).items()}
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    # A core that spins for more work is taken from Triton and from the other instances.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    if parameters.get("execution_mode") == "1":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    options.graph_optimization_level = GRAPH_LEVEL[int(level)]
    return options


def _providers(config: dict[str, Any], args: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Execution providers with their options, the preferred one first."""
    cpu: tuple[str, dict[str, str]] = (CPU, {})
    if args["model_instance_kind"] != "GPU":
        return [cpu]
    device = args["model_instance_device_id"]
    accelerators = (
        config.get("optimization", {})
        .get("execution_accelerators", {})
        .get("gpu_execution_accelerator", [])
    )
    by_name = {entry["name"]: entry.get("parameters", {}) for entry in accelerators}
    cuda = {"device_id": device, **by_name.get("cuda", {}), **_cuda(config.get("parameters", {}))}
    providers = [("CUDAExecutionProvider", cuda), cpu]
    if "tensorrt" in by_name:
        options = {"device_id": device, **_tensorrt(by_name["tensorrt"])}
        providers.insert(0, ("TensorrtExecutionProvider", options))
    return providers


def _cuda(parameters: dict[str, dict[str, str]]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, names in CUDA_PARAMETERS.items():
        if key not in parameters:
            continue
        value = parameters[key]["string_value"]
        if names and value not in names:
            raise pb_utils.TritonModelException(
                f"{key} {value!r} is none of {', '.join(f'{k} ({v})' for k, v in names.items())}"
            )
        options[key] = names.get(value, value)
    return options


def _tensorrt(parameters: dict[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parameters.items():
        if key == "precision_mode":
            if value not in TENSORRT_PRECISION:
                raise pb_utils.TritonModelException(
                    f"precision_mode {value!r} is none of {', '.join(TENSORRT_PRECISION)}"
                )
            switch = TENSORRT_PRECISION[value]
            options.update({switch: "True"} if switch else {})
        else:
            option = TENSORRT_OPTION.get(key, key)
            is_on = value.lower() in ("1", "true")
            options[option] = str(is_on) if option in TENSORRT_SWITCHES else value
    return options


def _agreed(
    declared: list[dict[str, Any]], actual: list[Any], batched: bool
) -> dict[str, list[int]]:
    """Name → dims without batch, where ``config.pbtxt`` and the graph agree.

    Raises:
        pb_utils.TritonModelException: they do not.
    """
    graph = {entry.name: entry for entry in actual}
    agreed = {}
    for entry in declared:
        name, dims = entry["name"], [int(size) for size in entry["dims"]]
        if name not in graph:
            raise pb_utils.TritonModelException(
                f"config.pbtxt names {name!r}, the graph has {', '.join(graph)}"
            )
        there = graph[name]
        shape = [size if isinstance(size, int) else -1 for size in there.shape]
        if ONNX_TYPE[entry["data_type"]] != there.type:
            raise pb_utils.TritonModelException(
                f"{name!r} is {entry['data_type']} in config.pbtxt, {there.type} in the graph"
            )
        if batched and (not shape or shape[0] != -1):
            raise pb_utils.TritonModelException(
                f"{name!r} has a fixed batch in the graph, but max_batch_size is above 0"
            )
        inner = shape[1:] if batched else shape
        if len(inner) != len(dims) or any(
            -1 not in (a, b) and a != b for a, b in zip(inner, dims, strict=True)
        ):
            raise pb_utils.TritonModelException(
                f"{name!r} has the dims {dims} in config.pbtxt, {inner} in the graph"
            )
        agreed[name] = dims
    return agreed


def _failed(reason: str, code: int) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(reason, code))
