"""Golden cases: upstream's checkpoints with inputs and expected outputs, against our generators.

How an array of a case is to be reached is told here once for all families: the names of the inputs
and of the targets have a meaning each, and a target may belong to other options or controls than
the default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.family import Family, Options, families, find_family, parse_options
from galatea_exporter.graph import TORCH_DTYPE, export_stage, serialise
from galatea_exporter.sampler.samplers import Settings, start
from galatea_exporter.stages import Stage, StagedGenerator, TensorSpec
from support import GOLDEN

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Stage, list[Tensor]], dict[str, Tensor]]

FLOATS = "floats"  # the first probe of every last stage: the network's own output


@dataclass(frozen=True)
class Loop:
    """A sampling from its first noise to the last step.

    Attributes:
        first: the array of the noise that it starts from.
        added: the array of what its steps add, in their order.
        sampler: the one that a request would name; None is the schedule's own.
        prompt: which of the two rows of the context is the prompt's.
    """

    first: str
    added: str = ""
    sampler: str | None = None
    prompt: int = 0


@dataclass(frozen=True)
class Target:
    """How an expected array is made.

    Attributes:
        tensor: the output or probe to compare.
        settings: family options that differ from the case's.
        controls: values of inputs that differ from their defaults.
        silent: whether the noise beside the latent is all zeros.
        source: the array that is the picture to translate.
        stage: the stage that makes it from arrays of the case alone, by the names of `ARRAYS`.
        sample: the array that the decoder takes.
        scaled: whether that is a sample as the sampler leaves it, not yet in the decoder's scale.
        loop: how the sampler calls the stage.
    """

    tensor: str = FLOATS
    settings: Mapping[str, str] = field(default_factory=dict)
    controls: Mapping[str, float] = field(default_factory=dict)
    silent: bool = False
    source: str = "image"
    stage: str = ""
    sample: str = ""
    scaled: bool = True
    loop: Loop | None = None


TARGETS = {
    "image": Target(),
    "image_1": Target(source="image_1"),
    "map": Target("map"),
    "image_sigmoid": Target(),
    "logits": Target(settings={"activation": "none"}),
    "image_zero_noise": Target(silent=True),
    "image_g_ema_zero_noise": Target(settings={"weights": "g_ema"}, silent=True),
    "image_gen_shadow_ema": Target(settings={"weights": "gen_shadow"}),
    "ws": Target("ws"),
    "ws_psi0.7": Target("ws", controls={"truncation": 0.7}),
    "ws_psi0.5_cutoff4": Target("ws", controls={"truncation": 0.5, "truncation_cutoff": 4}),
    "image_const": Target(),
    "image_none": Target(settings={"noise_mode": "none"}),
    "image_const_psi0.7": Target(controls={"truncation": 0.7}),
    **{f"scale{n}_out": Target(f"scale{n}_out") for n in range(5)},
    **{
        name: Target(name, source="brain_F_T1_T1c_T2")
        for name in ("tumor_shape_out", "tumor_grade_out", "inp_gen_out", "final")
    },
    "text_embeddings": Target("context", stage="text"),
    "unet_out": Target("prediction", stage="unet"),
    "model_out": Target("prediction", stage="unet"),
    "vae_decoded": Target(stage="vae", sample="vae_latent", scaled=False),
    "vae_decoded_of_latent": Target(stage="vae", sample="latent", scaled=False),
    "decoded": Target(stage="vae", sample="final_latent"),
    "pipeline_final_latents": Target(stage="unet", loop=Loop("latents")),
    "final_latent": Target(stage="unet", loop=Loop("latent", prompt=1)),
    "p_sample_loop": Target(
        stage="unet", loop=Loop("x_T", "step_noises_in_call_order", sampler="ddpm")
    ),
    "ddim_eta0": Target(stage="unet", loop=Loop("x_T", sampler="ddim")),
}

# What a stage of a diffusion generator takes, and the names that cases have for it.
ARRAYS = {
    "tokens": ("input_ids",),
    "x": ("unet_sample", "unet_x", "x"),
    "t": ("unet_t", "t"),
    "context": ("text_embeddings", "context"),
    "label": ("y",),
}

CIRCLE = ("circle_x", "circle_y", "radius_1", "radius_2", "radius_3")


@dataclass(frozen=True)
class Case:
    """One checkpoint of a golden case; some cases hold the same weights in several files."""

    folder: Path
    checkpoint: Path

    def __str__(self) -> str:
        several = len(checkpoints(self.folder)) > 1
        return self.folder.name + (f"-{self.checkpoint.suffix[1:]}" if several else "")

    @property
    def meta(self) -> dict[str, Any]:
        """Facts of the case."""
        plain: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        return plain

    @property
    def family(self) -> Family:
        """The family that reads it."""
        return find_family(self.meta["family"])

    def targets(self) -> Iterator[tuple[str, Target]]:
        """The expected arrays that we reach, by name."""
        known = {entry.name for entry in fields(self.family.options)}
        with np.load(self.folder / "expected.npz") as expected:
            for name in expected:
                target = TARGETS.get(name)
                if target is not None and set(target.settings) <= known:
                    yield name, target

    def expected(self, name: str) -> NDArray[Any]:
        """An expected array."""
        with np.load(self.folder / "expected.npz") as expected:
            array: NDArray[Any] = expected[name]
        return array

    def all_expected(self) -> Arrays:
        """The expected arrays by name, which may be the inputs of others."""
        with np.load(self.folder / "expected.npz") as expected:
            return dict(expected)

    def inputs(self) -> Arrays:
        """The case's inputs by name."""
        with np.load(self.folder / "inputs.npz") as inputs:
            return dict(inputs)


def cases() -> list[Case]:
    """Every checkpoint of every case whose family is registered."""
    names = {name for family in families().values() for name in (family.name, *family.aliases)}
    folders = sorted(path.parent for path in GOLDEN.glob("*/meta.json"))
    return [
        Case(folder, checkpoint)
        for folder in folders
        if json.loads((folder / "meta.json").read_text())["family"] in names
        for checkpoint in checkpoints(folder)
    ]


@cache
def checkpoints(folder: Path) -> list[Path]:
    """The case's checkpoint, and the same weights in other containers beside it."""
    meta = json.loads((folder / "meta.json").read_text())
    if not isinstance(meta["checkpoint_file"], str):
        return [folder]
    first = folder / meta["checkpoint_file"]
    others = [folder / meta["pkl"]] if "pkl" in meta else []
    return [first, *others, *sorted(folder.glob("*.safetensors"))]


@cache
def load(case: Case, settings: tuple[tuple[str, str], ...] = ()) -> StagedGenerator:
    """Our generator with the case's weights and the options that its constructor had."""
    family = case.family
    checkpoint = read_checkpoint(case.checkpoint, family.files, family.modules)
    # Names that all families share mean something else in upstream's constructors: "channels".
    known = {e.name for e in fields(family.options)} - {e.name for e in fields(Options)}
    given = {k: v for k, v in _flat(case.meta).items() if k in known}
    if "text_encoder" in known:  # another case's stands for the one that this case does not hold
        given["text_encoder"] = case.folder.parent / "sd_diffusers" / "pipeline"
    if "latent_size" in known:
        given["latent_size"] = case.inputs()["latent"].shape[2:]
    told = {k: _text(v) for k, v in {**given, **family.arguments(checkpoint)}.items()}
    return family.load(checkpoint, parse_options(family.options, {**told, **dict(settings)}))


def compute(case: Case, target: Target, *, onnx: bool) -> NDArray[Any]:
    """The array of a target, in PyTorch or in ONNX Runtime."""
    generator = load(case, tuple(target.settings.items()))
    if target.stage:
        return _alone(case, target, generator, _in_onnx if onnx else _in_torch)
    tensors = _given(case, target)
    batch = len(next(iter(tensors.values())))
    for stage in generator.stages:
        if stage.name == "noise":
            continue
        bare = _bare(stage)
        feed = [
            tensors[spec.name] if spec.name in tensors else _control(spec, target, generator, batch)
            for spec in bare.inputs
        ]
        tensors.update(_in_onnx(bare, feed) if onnx else _in_torch(bare, feed))
        if target.tensor in tensors:
            break
    return tensors[target.tensor].numpy()


def _alone(case: Case, target: Target, generator: StagedGenerator, run: Run) -> NDArray[Any]:
    """What one stage of a diffusion generator makes of arrays of the case."""
    stage = next(stage for stage in generator.stages if stage.name == target.stage)
    arrays = {**case.inputs(), **case.all_expected()}
    if target.loop is not None:
        return _sampled(case, target.loop, generator, arrays, lambda feed: run(stage, feed))
    if not target.scaled:
        # The network that layers.latents.Rescaled holds, in the Picture that the stage is.
        stage = replace(stage, module=stage.module.get_submodule("network.network"), outputs=())
    names = {name: next((n for n in known if n in arrays), "") for name, known in ARRAYS.items()}
    names["sample"] = target.sample
    given = [arrays[names[spec.name]] for spec in stage.inputs]
    rows = min(map(len, given))  # of a context, what belongs to no other input is left out
    feed = [_fitting(spec, array[:rows]) for spec, array in zip(stage.inputs, given, strict=True)]
    return run(stage, feed)[target.tensor].numpy()


def _fitting(spec: TensorSpec, array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array).to(TORCH_DTYPE[spec.dtype]).reshape(len(array), *spec.dims)


def _sampled(
    case: Case,
    loop: Loop,
    generator: StagedGenerator,
    arrays: Arrays,
    network: Callable[[list[Tensor]], dict[str, Tensor]],
) -> NDArray[Any]:
    """The end of a loop that our sampler runs, with guidance where the case has it."""
    meta, sampling = case.meta, generator.sampling
    assert sampling is not None
    steps = meta.get("num_inference_steps") or meta["timestep_respacing"]
    context = next((arrays[name] for name in ARRAYS["context"] if name in arrays), None)
    rows = 1 if context is None else 2
    run = start(
        Settings(steps, loop.sampler),
        sampling.schedule,
        sampling.shape,
        lambda stream: arrays[loop.added][stream - 1][0] if stream else arrays[loop.first][0],
    )
    while not run.finished:
        x, t = run.row()
        feed = [torch.from_numpy(np.stack([x] * rows)), torch.full((rows, 1), t)]
        feed += [] if context is None else [torch.from_numpy(context)]
        prediction = network(feed)["prediction"].numpy()
        if context is not None:
            ours, without = prediction[loop.prompt], prediction[1 - loop.prompt]
            prediction = without[None] + np.float32(meta["guidance_scale"]) * (ours - without)
        run.advance(prediction[0])
    return run.sample[None]


def _given(case: Case, target: Target) -> dict[str, Tensor]:
    arrays = {name: torch.from_numpy(array) for name, array in case.inputs().items()}
    given: dict[str, Tensor] = {}
    noise = [array.flatten(1) for name, array in arrays.items() if name.startswith("noise")]
    if "z" in arrays:
        given["latent"] = arrays["z"].flatten(1)
    if noise:
        joined = torch.cat(noise, dim=1)
        given["noise" if "z" in arrays else "latent"] = joined * (0 if target.silent else 1)
    if target.source in arrays:
        given["source"] = arrays[target.source]
    if "c" in arrays:
        given["label"] = arrays["c"].argmax(dim=1, keepdim=True)
    circle = arrays.get("circle_params_xc_yc_r1_r2_r3", torch.zeros(0))
    for name, value in zip(CIRCLE, circle, strict=False):
        given[name] = value.reshape(1, 1)
    for name in ("condition", "age_delta"):
        if name in arrays:
            public = "label" if not arrays[name].is_floating_point() else name
            given[public] = arrays[name].reshape(-1, 1)
    return given


def _control(spec: TensorSpec, target: Target, generator: StagedGenerator, batch: int) -> Tensor:
    entry = next(entry for entry in generator.inputs if entry.name == spec.name)
    value = target.controls.get(spec.name, entry.default)
    dtype = torch.int64 if spec.dtype == "int64" else torch.float32
    return torch.full((batch, 1), value, dtype=dtype)  # type: ignore[arg-type] # a number here


def _bare(stage: Stage) -> Stage:
    """The stage without the scaling of a request's picture: cases give what the network takes."""
    if stage.name != "translation":
        return stage
    source, *conditions = stage.inputs
    network = stage.module.get_submodule("network.network")
    *size, channels = source.shape
    picture = TensorSpec("source", "float32", (channels, *size))
    return Stage("bare", network, (picture, *conditions), stage.probes)


def _in_torch(stage: Stage, feed: list[Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        made = stage.module(*feed)
    return dict(zip(_made(stage), made if isinstance(made, tuple) else (made,), strict=True))


def _in_onnx(stage: Stage, feed: list[Tensor]) -> dict[str, Tensor]:
    given = {spec.name: t.numpy() for spec, t in zip(stage.inputs, feed, strict=True)}
    arrays = _session(stage).run(_made(stage), given)
    return {name: torch.from_numpy(a) for name, a in zip(_made(stage), arrays, strict=True)}


@cache
def _session(stage: Stage) -> Any:
    return onnxruntime.InferenceSession(serialise(export_stage(stage)))


def _made(stage: Stage) -> list[str]:
    return [spec.name for spec in (*stage.outputs, *stage.probes)]


def _flat(meta: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a case, those in groups also by the name of their group.

    guided-diffusion's ``steps`` are those of the training: ``diffusion_steps`` on its command line.
    """
    arguments = meta["constructor_args"]
    flat = {**meta, **arguments}
    for group in ("synthesis_kwargs", "gen_params", "scheduler", "autoencoder", "diffusion"):
        flat |= arguments.get(group, {})
        flat |= {f"{group}_{key}": value for key, value in arguments.get(group, {}).items()}
    told = dict(meta.get("diffusion_args", {}))
    return flat | ({"diffusion_steps": told.pop("steps"), **told} if told else {})


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
