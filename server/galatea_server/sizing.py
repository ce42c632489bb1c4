"""How much memory the models of a repository need to pass their tensors on."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from galatea._pbtxt import read_config
from galatea.errors import RepositoryError

__all__ = ["LEAST_SHARED_MEMORY", "shared_memory"]

LEAST_SHARED_MEMORY = 256 << 20  # bytes
FREE_AXIS = 1024  # pixels that an axis of pictures of any size is taken for
START = 16 << 20  # bytes that each instance takes at first

_BYTES = {
    pb.TYPE_BOOL: 1, pb.TYPE_UINT8: 1, pb.TYPE_INT8: 1, pb.TYPE_UINT16: 2, pb.TYPE_INT16: 2,
    pb.TYPE_FP16: 2, pb.TYPE_BF16: 2, pb.TYPE_UINT64: 8, pb.TYPE_INT64: 8, pb.TYPE_FP64: 8,
}  # fmt: skip


def shared_memory(repository: Path, variant: str | None = None) -> int:
    """Bytes of /dev/shm that serving a repository with the Python backend takes at most.

    Each instance passes its inputs and outputs through memory of its own, which grows to the
    largest batch and never shrinks. Twice that is needed while it grows; when there is no room,
    requests fail although the server is ready.

    Args:
        variant: named configuration that is served where a model has it.

    Raises:
        RepositoryError: there is no such folder, or a configuration cannot be read.
    """
    if not repository.is_dir():
        raise RepositoryError(f"{repository}: no such folder", "name a model repository")
    needed = 0
    for path in repository.glob("*/config.pbtxt"):
        chosen = path.parent / "configs" / f"{variant}.pbtxt"
        needed += _instances_need(_read(chosen if chosen.is_file() else path))
    return max(LEAST_SHARED_MEMORY, needed)


def _read(path: Path) -> Any:
    try:
        return read_config(path)
    except (OSError, ValueError) as error:
        raise RepositoryError(f"{path}: cannot be read: {error}", "export it again") from error


def _instances_need(config: Any) -> int:
    if config.platform == "ensemble":  # whose stages pass the tensors
        return 0
    instances = sum(group.count or 1 for group in config.instance_group) or 1
    sample = sum(
        prod(FREE_AXIS if size < 0 else size for size in tensor.dims)
        * _BYTES.get(tensor.data_type, 4)
        for tensor in (*config.input, *config.output)
    )
    largest = max(sample * max(1, config.max_batch_size), _steps_need(config))
    return int(instances * max(START, 2 * largest))


def _steps_need(config: Any) -> int:
    """Bytes that the sampler of a diffusion generator passes to its network and gets, in a step."""
    if "sampler" not in config.parameters:
        return 0
    settings = json.loads(config.parameters["sampler"].string_value)
    learned = settings["schedule"].get("variance") == "learned_range"
    row: int = 4 * prod(settings["shape"]) * (3 if learned else 2)
    return row * max(2, int(settings["call_rows"]))  # a call parts no sample's two rows
