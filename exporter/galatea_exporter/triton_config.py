"""``config.pbtxt`` of stages and ensembles, and their named variants.

Triton reads ``configs/<variant>.pbtxt`` when it is started with ``--model-config-name=<variant>``.
The GPU variants are written to the documentation of Triton's ONNX Runtime backend and of ONNX
Runtime's TensorRT execution provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from galatea.card import CARD_PARAMETER, Input, ModelCard
from galatea_exporter.stages import Axis, Stage, TensorSpec

VARIANTS = ("cpu", "cuda", "tensorrt", "tensorrt-fp16")
DEFAULT_VARIANT = "cpu"

# Where TensorRT engines are kept on a server; a folder of its own for every set of weights.
ENGINE_CACHE = "/var/cache/galatea/tensorrt"
WORKSPACE_BYTES = 4 << 30
GPU_QUEUE_DELAY_US = 500

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
    card: ModelCard | None = None,
) -> Any:
    """The configuration of one stage in one variant.

    Args:
        model: the stage's name in Triton.
        version: the one version that is served.
        max_batch: largest batch of one request and of one run.
        variant: one of :data:`VARIANTS`; stages that are not accelerated stay on the CPU.
        graph_sha256: digest of the ONNX file, weights included.
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
    config.dynamic_batching.SetInParent()
    # A graph with free axes has no size to warm up for but the smallest.
    free = any(spec.axes for spec in stage.inputs)
    warm = (1,) if free else (1, max_batch)
    config.model_warmup.extend(_warmup(stage.inputs, batch) for batch in sorted(set(warm)))
    on_gpu = stage.accelerated and variant != "cpu"
    if card is not None:
        config.parameters[CARD_PARAMETER].string_value = card.to_json()
    group = config.instance_group.add(count=1)
    group.kind = pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU
    if not stage.accelerated:
        # A graph of tiny operators: a second thread costs more than it brings.
        config.parameters["intra_op_thread_count"].string_value = "1"
    if on_gpu:
        config.dynamic_batching.max_queue_delay_microseconds = GPU_QUEUE_DELAY_US
    if on_gpu and variant.startswith("tensorrt"):
        _accelerate(config, stage, version, max_batch, variant, graph_sha256)
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
    config.output.extend(
        pb.ModelOutput(
            name=output.name, data_type=_CARD_TYPE[output.dtype], dims=list(output.shape)
        )
        for output in card.outputs
    )
    for model, stage in stages:
        step = config.ensemble_scheduling.step.add(model_name=model, model_version=card.version)
        for spec in stage.inputs:
            step.input_map[spec.name] = spec.name
        for spec in stage.outputs:
            step.output_map[spec.name] = spec.name
    config.parameters[CARD_PARAMETER].string_value = card.to_json()
    return config


def to_text(config: Any) -> bytes:
    """``config.pbtxt`` of a configuration; equal bytes for equal configurations."""
    text: str = text_format.MessageToString(config, as_utf8=True)
    return text.encode()


def _public_input(entry: Input) -> Any:
    return pb.ModelInput(name=entry.name, data_type=_CARD_TYPE[entry.dtype], dims=list(entry.shape))


def _warmup(inputs: Sequence[TensorSpec], batch: int) -> Any:
    warmup = pb.ModelWarmup(name=f"batch {batch}", batch_size=batch, count=1)
    for spec in inputs:
        entry = warmup.inputs[spec.name]
        entry.data_type = _TYPE[spec.dtype]
        entry.dims.extend(size.smallest if isinstance(size, Axis) else size for size in spec.shape)
        entry.zero_data = True
    return warmup


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
