"""Every family of the registry: golden checkpoints, export, serving; a new one adds no code."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from galatea import Client, ExportError, InvalidInput, ModelCard
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.family import Family, Options, families, find_family, parse_options
from galatea_exporter.graph import export_stage, serialise
from galatea_exporter.stages import StagedGenerator
from support import GOLDEN

FAMILIES = list(families().values())
NAMES = {name for family in FAMILIES for name in (family.name, *family.aliases)}

# Arrays of a golden case that show what upstream computes when it forgets eval().
NO_TARGET = ("trainmode", "bn_batchstats")


def golden_cases() -> list[Path]:
    """Cases of the families that are registered."""
    folders = sorted(path.parent for path in GOLDEN.glob("*/meta.json"))
    return [folder for folder in folders if meta(folder)["family"] in NAMES]


def meta(case: Path) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads((case / "meta.json").read_text())
    return plain


def load(case: Path) -> StagedGenerator:
    facts = meta(case)
    family = find_family(facts["family"])
    known = {entry.name for entry in fields(family.options)}
    given = {k: str(v) for k, v in facts["constructor_args"].items() if k in known}
    checkpoint = read_checkpoint(case / facts["checkpoint_file"])
    return family.load(checkpoint, parse_options(family.options, given))


def compute(
    generator: StagedGenerator, case: Path
) -> tuple[list[Any], list[Any], Mapping[str, Any]]:
    """Inputs of the last stage from the case's arrays, in their order, and the expected outputs."""
    stage = generator.stages[-1]
    arrays = np.load(case / "inputs.npz")
    names = [name for name in meta(case)["inputs"] if name in arrays]
    inputs = [
        torch.from_numpy(arrays[name]).reshape(len(arrays[name]), *spec.shape)
        for name, spec in zip(names, stage.inputs, strict=True)
    ]
    expected = np.load(case / "expected.npz")
    targets = [name for name in expected if not any(word in name for word in NO_TARGET)]
    return inputs, targets, expected


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden cases: set GALATEA_GOLDEN")
@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.name)
def test_golden_checkpoints_load_strictly_and_match(case: Path) -> None:
    generator = load(case)
    stage = generator.stages[-1]
    inputs, targets, expected = compute(generator, case)
    with torch.no_grad():
        outputs = stage.module(*inputs)[len(stage.outputs) :]
    session = onnxruntime.InferenceSession(serialise(export_stage(stage)))
    feed = {spec.name: t.numpy() for spec, t in zip(stage.inputs, inputs, strict=True)}
    onnx_outputs = session.run([spec.name for spec in stage.probes], feed)
    for name, ours, theirs in zip(targets, outputs, onnx_outputs, strict=True):
        assert np.abs(ours.numpy() - expected[name]).max() <= 1e-4
        assert np.abs(theirs - expected[name]).max() <= generator.tolerance


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_exports_within_tolerance(family: Family, repository: Path) -> None:
    from galatea.repository import find

    card = find(repository, family.name).card()
    assert card.family == family.name
    assert card.parity is not None
    assert card.parity.batches == (1, 2, 3, 8)
    assert card.parity.max_abs <= card.parity.tolerance
    assert card.parity.max_levels <= 1
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_served_and_sampled_twice_with_equal_bytes(
    family: Family, client: Client
) -> None:
    first, second = (client.sample(family.name, 11, seed=5) for _ in range(2))
    assert first.images.shape == (11, *first.card.image.shape)
    assert first.images.tobytes() == second.images.tobytes()
    assert len({image.tobytes() for image in first.images}) == 11


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_refuses_checkpoints_of_the_others(
    family: Family, checkpoints: dict[str, Path]
) -> None:
    for other, path in checkpoints.items():
        if other != family.name:
            with pytest.raises(ExportError, match=family.name) as refused:
                family.load(read_checkpoint(path), family.options())
            assert other in refused.value.remedy


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_tensor_that_is_left_over_is_named(
    family: Family, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    state, _ = read_checkpoint(checkpoints[family.name]).state(family.containers)
    torch.save({**state, "surprise.weight": torch.ones(2)}, tmp_path / "model.pt")
    with pytest.raises(ExportError, match=r"left over: surprise\.weight"):
        family.load(read_checkpoint(tmp_path / "model.pt"), family.options())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_tensor_that_is_used_must_be_there(
    family: Family, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(checkpoints[family.name])
    state, _ = checkpoint.state(family.containers)
    ignored = {
        entry.partition(":")[0] for entry in family.load(checkpoint, family.options()).ignored
    }
    for victim in set(state) - ignored:
        torch.save({k: v for k, v in state.items() if k != victim}, tmp_path / "model.pt")
        with pytest.raises(ExportError):
            family.load(read_checkpoint(tmp_path / "model.pt"), family.options())


def test_an_unknown_family_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="dcgan_alyafi, dcgan_mammo"):
        find_family("dcgam")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("low", "dark"), ("rounding", "up"), ("mask_channel", "1.5"), ("colour", "blue")],
)
def test_an_option_that_is_not_valid_is_named(setting: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=setting):
        parse_options(Options, {setting: value})


def test_options_are_read_from_texts() -> None:
    options = parse_options(
        Options, {"low": "0", "rounding": "nearest", "mask_channel": "none", "labels": "a, b"}
    )
    assert options == Options(low=0.0, rounding="nearest", mask_channel=None, labels=("a", "b"))


def test_aliased_layers_that_differ_are_refused(tmp_path: Path) -> None:
    family = find_family("dcgan_mammo")
    state = family.example()
    state["first_layers.0.weight"] = state["first_layers.0.weight"] + 1
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ExportError, match=r"first_layers\.0\.weight"):
        family.load(read_checkpoint(tmp_path / "model.pt"), family.options())
