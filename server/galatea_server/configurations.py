"""The configurations of a release, variant by variant, as Triton would read them."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from galatea._pbtxt import read_config
from galatea.errors import RepositoryError
from galatea.repository import Release

__all__ = ["CPU", "CUDA", "configurations", "heavy"]

CPU = "cpu"  # the variant that needs no GPU; others are named after what they need
CUDA = "cuda"


def configurations(release: Release, variant: str) -> dict[str, Any]:
    """The release's ModelConfig of each Triton model in one variant, as Triton would choose it.

    Raises:
        RepositoryError: one cannot be read.
    """
    configs = {}
    for model in release.models:
        folder = release.root / model / str(release.version)
        path = folder / "configs" / f"{variant}.pbtxt"
        path = path if path.is_file() else folder / "config.pbtxt"
        try:
            configs[model] = read_config(path)
        except (OSError, ValueError) as error:
            raise RepositoryError(
                f"{path}: cannot be read: {error}",
                f"run: galatea repo verify --repository {release.root}",
            ) from error
    return configs


def heavy(release: Release) -> tuple[str, ...]:
    """The Triton models that compute most: those that the release would put on a GPU."""
    gpu = pb.ModelInstanceGroup.KIND_GPU
    return tuple(
        model
        for model, config in configurations(release, CUDA).items()
        if any(group.kind == gpu for group in config.instance_group)
    )
