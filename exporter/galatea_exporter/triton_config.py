"""``config.pbtxt`` of stages and of what joins them, and their named variants.

Triton reads ``configs/<variant>.pbtxt`` when it is started with ``--model-config-name=<variant>``.
The GPU variants are written to the documentation of Triton's ONNX Runtime backend and of ONNX
Runtime's TensorRT execution provider.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from galatea.card import CARD_PARAMETER, Input, ModelCard, Output
from galatea_exporter.sampler.jobs import TOLD
from galatea_exporter.stages import Axis, Sampling, Stage, TensorSpec

VARIANTS = ("cpu", "cuda", "cuda-fp16", "tensorrt", "tensorrt-fp16")
DEFAULT_VARIANT = "cpu"

# Where TensorRT engines are kept on a server; a folder of its own for every set of weights.
ENGINE_CACHE = "/var/cache/galatea/tensorrt"
WORKSPACE_BYTES = 4 << 30
GPU_QUEUE_DELAY_US = 500

# Options of ONNX Runtime's CUDA provider. Triton's backend reads some from the model's parameters
# alone, and puts its own defaults over them where they stand in the accelerator.
CUDA_PARAMETERS = {
    "cudnn_conv_algo_search": "1",  # heuristic: measured, kernels and bits would change by chance
    "arena_extend_strategy": "1",  # as requested: the next power of two wastes memory
    "do_copy_in_default_stream": "1",
}
CUDA_OPTIONS = {
    "cudnn_conv_use_max_workspace": "1",
    "use_tf32": "0",  # 10 bits of mantissa in place of 23, which parity was measured with
}

# Rows of one step of a diffusion network, and of one call, which parts no sample's two rows. On a
# CPU each row costs the same, and in calls of its own a sample's bits do not depend on neighbours:
# some of ONNX Runtime's operators share out a batch to threads otherwise than a single row. A GPU
# computes many in little more time than one.
MAX_ROWS = {"cpu": 8}
CALL_ROWS = {"cpu": 1}
MAX_ROWS_GPU = 16
MAX_SAMPLES = 256  # that a sampler holds at a time; more are told to come again
STREAM = "stream"  # the decoupled twin of a sampler

_TYPE = {"int64": pb.TYPE_INT64, "float32": pb.TYPE_FP32, "uint8": pb.TYPE_UINT8}
_CARD_TYPE = {
    "INT64": pb.TYPE_INT64, "INT32": pb.TYPE_INT32, "FP32": pb.TYPE_FP32,
    "BYTES": pb.TYPE_STRING, "UINT8": pb.TYPE_UINT8, "UINT16": pb.TYPE_UINT16,
}  # fmt: skip


def stage_config(
    model: str,
    stage: Stage,
    *,
    version: int,
    max_batch: int,
    variant: str,
    graph_sha256: str,
    graph_fp16: str | None = None,
    card: ModelCard | None = None,
) -> Any:
    """The configuration of one stage in one variant.

    Args:
        model: the stage's name in Triton.
        version: the one version that is served.
        max_batch: largest batch of one request and of one run.
        variant: one of :data:`VARIANTS`; stages that are not accelerated stay on the CPU.
        graph_sha256: digest of the ONNX file, weights included.
        graph_fp16: name of the graph in float16, where there is one.
        card: of the model whose only stage this is.

    Returns:
        ModelConfig protobuf.
    """
    config = pb.ModelConfig(
        name=model,
        backend="onnxruntime",
        default_model_filename="model.onnx",
        max_batch_size=max_batch,
        input=[
            pb.ModelInput(name=spec.name, data_type=_TYPE[spec.dtype], dims=spec.dims)
            for spec in stage.inputs
        ],
        output=[
            pb.ModelOutput(name=spec.name, data_type=_TYPE[spec.dtype], dims=spec.dims)
            for spec in stage.outputs
        ],
    )
    config.version_policy.specific.versions.append(version)
    if stage.batched:
        config.dynamic_batching.SetInParent()
    # A graph with free axes has no size to warm up for but the smallest, and an engine's batches
    # are small on a CPU.
    free = any(spec.axes for spec in stage.inputs)
    alone = free or (not stage.batched and variant == "cpu")
    warm = (1,) if alone else (1, max_batch)
    config.model_warmup.extend(_warmup(stage.inputs, batch) for batch in sorted(set(warm)))
    on_gpu = stage.accelerated and variant != "cpu"
    if variant == "cuda-fp16" and graph_fp16 is not None:
        config.default_model_filename = graph_fp16
    if card is not None:
        config.parameters[CARD_PARAMETER].string_value = card.to_json()
    group = config.instance_group.add(count=1)
    group.kind = pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU
    if not stage.accelerated:
        # A graph of tiny operators: a second thread costs more than it brings.
        config.parameters["intra_op_thread_count"].string_value = "1"
    if on_gpu and stage.batched:
        config.dynamic_batching.max_queue_delay_microseconds = GPU_QUEUE_DELAY_US
    if on_gpu and variant.startswith("tensorrt"):
        _accelerate(config, stage, version, max_batch, variant, graph_sha256)
    if on_gpu:
        _on_cuda(config)
    return config


def ensemble_config(card: ModelCard, stages: Sequence[tuple[str, Stage]], max_batch: int) -> Any:
    """The public model that joins the stages; it carries the card.

    Every step names the version of its stage, so that an incomplete repository is refused at load
    and weights of two releases are never mixed.

    Args:
        card: the model card.
        stages: pairs of the stage's name in Triton and the stage, in the order of the data.
        max_batch: largest batch of one request.

    Returns:
        ModelConfig protobuf.
    """
    config = pb.ModelConfig(name=card.name, platform="ensemble", max_batch_size=max_batch)
    config.version_policy.specific.versions.append(card.version)
    config.input.extend(_public_input(entry) for entry in card.inputs)
    config.output.extend(map(_public_output, card.outputs))
    for model, stage in stages:
        step = config.ensemble_scheduling.step.add(model_name=model, model_version=card.version)
        for spec in stage.inputs:
            step.input_map[spec.name] = spec.name
        for spec in stage.outputs:
            step.output_map[spec.name] = spec.name
    config.parameters[CARD_PARAMETER].string_value = card.to_json()
    return config


def sampler_config(
    card: ModelCard,
    sampling: Sampling,
    *,
    max_batch: int,
    rows: int,
    variant: str,
    stream: bool = False,
) -> Any:
    """The public model of a diffusion generator, or its decoupled twin.

    Args:
        card: the model card; the twin carries none.
        sampling: how the engine joins the stages.
        max_batch: largest batch of one request.
        rows: largest batch of a call of a stage.
        variant: decides how many rows a call has.
        stream: the twin, which tells besides the images how far they are.

    Returns:
        ModelConfig protobuf.
    """
    config = pb.ModelConfig(
        name=f"{card.name}.{STREAM}" if stream else card.name,
        backend="python",
        max_batch_size=max_batch,
    )
    config.version_policy.specific.versions.append(card.version)
    for entry in card.inputs:
        config.input.add().CopyFrom(_public_input(entry))
        config.input[-1].optional = entry.default is not None
    config.output.extend(map(_public_output, card.outputs))
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    if stream:
        config.model_transaction_policy.decoupled = True
        config.input.add(name="preview_every", data_type=pb.TYPE_INT32, dims=[1], optional=True)
        config.output.extend(
            pb.ModelOutput(name=name, data_type=pb.TYPE_INT32, dims=[1]) for name in TOLD
        )
    else:
        config.parameters[CARD_PARAMETER].string_value = card.to_json()
    settings = {
        "schedule": asdict(sampling.schedule),
        "shape": sampling.shape,
        "network": f"{card.name}.unet",
        "decoder": f"{card.name}.{sampling.decoder}",
        "text": f"{card.name}.text" if sampling.tokenizer else None,
        "conditions": sampling.conditions,
        "unconditional": sampling.unconditional,
        "defaults": {
            "guidance": 1.0,
            **{entry.name: entry.default for entry in card.inputs if entry.default is not None},
        },
        "limits": {
            entry.name: [0, len(entry.labels) - 1] if entry.labels
            else [entry.minimum, entry.maximum]
            for entry in card.inputs
            if entry.dtype != "BYTES" and entry.name != "seed"
        },
        "max_rows": MAX_ROWS.get(variant, MAX_ROWS_GPU),
        "call_rows": min(CALL_ROWS.get(variant, MAX_ROWS_GPU), rows),
        "max_samples": MAX_SAMPLES,
    }  # fmt: skip
    config.parameters["sampler"].string_value = json.dumps(settings, sort_keys=True)
    return config


def _public_input(entry: Input) -> Any:
    return pb.ModelInput(name=entry.name, data_type=_CARD_TYPE[entry.dtype], dims=list(entry.shape))


def _public_output(output: Output) -> Any:
    data_type = _CARD_TYPE[output.dtype]
    return pb.ModelOutput(name=output.name, data_type=data_type, dims=list(output.shape))


def _warmup(inputs: Sequence[TensorSpec], batch: int) -> Any:
    warmup = pb.ModelWarmup(name=f"batch {batch}", batch_size=batch, count=1)
    for spec in inputs:
        entry = warmup.inputs[spec.name]
        entry.data_type = _TYPE[spec.dtype]
        entry.dims.extend(size.smallest if isinstance(size, Axis) else size for size in spec.shape)
        entry.zero_data = True
    return warmup


def _on_cuda(config: Any) -> None:
    """ONNX Runtime's CUDA provider, which also takes what TensorRT leaves."""
    for name, value in CUDA_PARAMETERS.items():
        config.parameters[name].string_value = value
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    accelerator = accelerators.add(name="cuda")
    for name, value in CUDA_OPTIONS.items():
        accelerator.parameters[name] = value


def _accelerate(
    config: Any, stage: Stage, version: int, max_batch: int, variant: str, graph_sha256: str
) -> None:
    """TensorRT inside ONNX Runtime.

    ONNX Runtime finds a cached engine by names and versions, not by weights: two checkpoints of one
    architecture would get each other's images. Path and prefix therefore carry model, version and
    the digest of the graph.
    """
    key = f"{config.name}-{version}-{graph_sha256[:16]}"
    cache = f"{ENGINE_CACHE}/{key}"

    def shapes(batch: int, smallest: bool = False) -> str:
        def length(size: int | Axis) -> int:
            if not isinstance(size, Axis):
                return size
            return size.smallest if smallest else size.nominal

        return ",".join(
            f"{spec.name}:{'x'.join(str(size) for size in (batch, *map(length, spec.shape)))}"
            for spec in stage.inputs
        )

    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(
        name="tensorrt"
    )
    parameters = {
        "precision_mode": "FP16" if variant.endswith("fp16") else "FP32",
        "max_workspace_size_bytes": str(WORKSPACE_BYTES),
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": cache,
        "trt_engine_cache_prefix": f"{key}-{variant}",
        "trt_timing_cache_enable": "true",
        "trt_timing_cache_path": cache,
        "trt_profile_min_shapes": shapes(1, smallest=True),
        "trt_profile_opt_shapes": shapes(max_batch),
        "trt_profile_max_shapes": shapes(max_batch),
    }
    for name, value in parameters.items():
        accelerator.parameters[name] = value
