"""Building an engine with Polygraphy, and running it to compare.

Needs a GPU and ``galatea[engine]``. Written to Polygraphy's documentation, and not run yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.errors import ExportError, MachineError
from galatea.tensorrt_engines import Gpu, gpus_here
from galatea_server.engines.recipe import Recipe

__all__ = ["build", "machine", "run"]

Arrays = dict[str, NDArray[Any]]

PACKAGES = ("tensorrt", "polygraphy", "onnxruntime")
WORKSPACE_BYTES = 4 << 30


def machine() -> tuple[Gpu, str]:
    """The first GPU, and the version of TensorRT.

    Raises:
        MachineError: this machine cannot build engines; all that it lacks is named.
    """
    gpus = gpus_here()
    missing = [package for package in PACKAGES if find_spec(package) is None]
    lacks = [*(["a GPU that nvidia-smi finds"] if not gpus else []), *missing]
    if lacks:
        raise MachineError(
            f"an engine is built on a GPU like those that run it; this machine lacks: "
            f"{', '.join(lacks)}",
            "on a GPU node run: pip install 'galatea[engine]', or serve with "
            "--model-config tensorrt, where ONNX Runtime builds its engines itself",
        )
    import tensorrt

    return gpus[0], str(tensorrt.__version__)


def build(recipe: Recipe) -> bytes:
    """The serialised engine. It takes minutes.

    Raises:
        ExportError: TensorRT cannot build it.
    """
    import tensorrt
    from polygraphy.backend.trt import (
        CreateConfig,
        EngineBytesFromNetwork,
        NetworkFromOnnxPath,
        Profile,
    )
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    profile = Profile()
    for name, (smallest, best, largest) in recipe.profile.items():
        profile.add(name, min=smallest, opt=best, max=largest)
    config = CreateConfig(
        tf32=False,  # 10 bits of mantissa in place of 23, which parity was measured with
        fp16=recipe.fp16,
        profiles=[profile],
        memory_pool_limits={tensorrt.MemoryPoolType.WORKSPACE: WORKSPACE_BYTES},
    )
    network = NetworkFromOnnxPath(str(recipe.graph))
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):  # the rest would go to stdout
            return bytes(EngineBytesFromNetwork(network, config=config)())
    except PolygraphyException as error:
        raise ExportError(
            f"TensorRT cannot build an engine of {recipe.model}: {error}",
            "serve it with --model-config cuda, or see docs/exporting.md for TensorRT's operators",
        ) from error


def run(recipe: Recipe, plan: bytes, feeds: Iterable[Arrays]) -> Iterator[Arrays]:
    """The outputs of an engine for each of the inputs.

    Raises:
        ExportError: TensorRT cannot run it.
    """
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL), TrtRunner(EngineFromBytes(plan)) as runner:
            for feed in feeds:
                # The runner uses its output buffers again.
                yield {name: np.array(array) for name, array in runner.infer(feed).items()}
    except PolygraphyException as error:
        raise ExportError(
            f"TensorRT cannot run the engine that it built of {recipe.model}: {error}",
            "nothing was released; serve it with --model-config cuda",
        ) from error
