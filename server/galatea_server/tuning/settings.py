"""What can be chosen of how a generator is served, and the configurations that follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from galatea_server.configurations import CUDA

__all__ = ["Settings", "delays", "grid", "released", "tuned"]

THREADS = "intra_op_thread_count"
GPU_INSTANCES = (1, 2, 3)  # of a stage on one GPU; more compete for the same multiprocessors
DELAYS_US = (0, 500, 2000)
NHWC = "prefer_nhwc"  # of ONNX Runtime's CUDA provider, from 1.20 on


@dataclass(frozen=True, order=True)
class Settings:
    """How the stages that compute most are served.

    Attributes:
        variant: of the release's configurations, the one that the rest is changed of.
        instances: of each of these stages.
        threads: of an instance; 0 leaves it to the backend, which splits batches over the cores.
        delay_us: microseconds that a request may wait for others to join its batch.
        nhwc: on a GPU, have convolutions computed channels last.
    """

    variant: str
    instances: int
    threads: int
    delay_us: int
    nhwc: bool = False

    def __str__(self) -> str:
        plural = "s" if self.instances > 1 else ""
        threads = f"{self.threads or 'any'} thread{'' if self.threads == 1 else 's'}"
        nhwc = ", channels last" if self.nhwc else ""
        return (
            f"{self.variant}, {self.instances} instance{plural} of {threads}, "
            f"delay {self.delay_us} µs{nhwc}"
        )


def released(configs: Mapping[str, Any], stages: Sequence[str], variant: str) -> Settings:
    """What a variant of the release has, read from the first of its heavy stages."""
    config = configs[stages[0]]
    threads = config.parameters[THREADS].string_value if THREADS in config.parameters else "0"
    return Settings(
        variant,
        config.instance_group[0].count,
        int(threads),
        config.dynamic_batching.max_queue_delay_microseconds,
    )


def tuned(configs: Mapping[str, Any], stages: Sequence[str], settings: Settings) -> dict[str, Any]:
    """The configurations with `settings` in the heavy stages.

    Args:
        configs: of the settings' variant; they stay as they are.
        stages: names of the heavy stages.
    """
    made = {}
    for model, config in configs.items():
        made[model] = pb.ModelConfig()
        made[model].CopyFrom(config)
    for stage in stages:
        _set(made[stage], settings)
    return made


def grid(base: Settings, cores: int, *, on_gpu: bool) -> list[Settings]:
    """Instances and threads to try beside those of a variant as released.

    On a CPU, threads that are set share the cores out among the instances; more of them than there
    are cores only wait for each other.

    Args:
        base: of the variant as released.
        cores: that the server may use.
    """
    if on_gpu:
        plain = {replace(base, instances=instances) for instances in GPU_INSTANCES}
        both = {replace(settings, nhwc=True) for settings in plain if base.variant.startswith(CUDA)}
        return sorted((plain | both) - {base})
    found = set()
    for instances in _powers(cores):
        for threads in {0, 1, cores // instances}:
            if threads * instances <= cores:
                found.add(replace(base, instances=instances, threads=threads))
    return sorted(found - {base})


def delays(best: Settings) -> list[Settings]:
    """Other queue delays for the best settings so far."""
    return [
        replace(best, delay_us=microseconds)
        for microseconds in DELAYS_US
        if microseconds != best.delay_us
    ]


def _powers(cores: int) -> Iterator[int]:
    """1, 2, 4 … below a number of cores, and that number."""
    instances = 1
    while instances < cores:
        yield instances
        instances *= 2
    yield cores


def _set(config: Any, settings: Settings) -> None:
    config.instance_group[0].count = settings.instances
    if settings.threads:
        config.parameters[THREADS].string_value = str(settings.threads)
    else:
        config.parameters.pop(THREADS, None)
    if config.HasField("dynamic_batching"):
        config.dynamic_batching.max_queue_delay_microseconds = settings.delay_us
    if settings.nhwc:
        _accelerator(config).parameters[NHWC] = "1"


def _accelerator(config: Any) -> Any:
    """The CUDA accelerator of a configuration; added where there is none."""
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    for accelerator in accelerators:
        if accelerator.name == CUDA:
            return accelerator
    return accelerators.add(name=CUDA)
