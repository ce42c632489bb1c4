"""Every family of the registry: golden checkpoints, export, serving; a new one adds no code."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from galatea import Client, ExportError, InvalidInput, ModelCard
from galatea.repository import find
from galatea_exporter.checkpoint import Checkpoint, read_checkpoint
from galatea_exporter.family import Family, Options, families, find_family, parse_options
from galatea_exporter.stages import StagedGenerator
from golden import Case, cases, compute, load
from support import GOLDEN
from tensorrt_operators import obstacles

FAMILIES = list(families().values())
MOST = 60  # tensors that are taken away, one after the other

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def read(family: Family, path: Path) -> Checkpoint:
    return read_checkpoint(path, family.files, family.modules)


def build(family: Family, path: Path) -> StagedGenerator:
    return family.load(read(family, path), family.options())


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden cases: set GALATEA_GOLDEN")
@pytest.mark.parametrize("case", cases(), ids=str)
def test_golden_checkpoints_load_strictly_and_match(case: Case) -> None:
    targets = list(case.targets())
    assert targets
    for name, target in targets:
        expected = case.expected(name)
        ours, theirs = (compute(case, target, onnx=onnx) for onnx in (False, True))
        assert np.abs(ours - expected).max() <= 1e-4, name
        assert np.abs(theirs - expected).max() <= load(case).tolerance, name


@every_family
def test_a_family_exports_within_tolerance(family: Family, repository: Path) -> None:
    card = find(repository, family.name).card()
    assert card.family == family.name
    assert card.parity is not None
    assert card.parity.batches == (1, 2, 3, 8)
    assert card.parity.max_abs <= card.parity.tolerance
    assert card.parity.max_levels <= 1
    assert ModelCard.from_json(card.to_json()) == card


@every_family
def test_a_family_is_served_and_sampled_twice_with_equal_bytes(
    family: Family, client: Client
) -> None:
    card = client.model(family.name)
    first, second = (ask(client, card, 11, batch_size=8) for _ in range(2))
    assert first.shape == (11, *first.shape[1:-1], card.image.shape[-1])
    assert first.tobytes() == second.tobytes()
    assert len({image.tobytes() for image in first}) == 11


@every_family
def test_a_familys_images_do_not_depend_on_their_batch(family: Family, client: Client) -> None:
    card = client.model(family.name)
    singly, by_three, together = (ask(client, card, 8, batch_size=size) for size in (1, 3, 8))
    assert singly.tobytes() == by_three.tobytes() == together.tobytes()


def ask(client: Client, card: ModelCard, n: int, batch_size: int) -> NDArray[Any]:
    """Images of any model: from seeds and a text in few steps, or from small random pictures."""
    source = card.source_picture
    if source is None:
        asked: dict[str, Any] = {"steps": 3, "prompt": "effusion"}
        known = {entry.name: asked[entry.name] for entry in card.inputs if entry.name in asked}
        batches = client.stream(card.name, n, seed=5, batch_size=batch_size, **known)
    else:
        sides = (size if size > 0 else 64 + 32 * i for i, size in enumerate(source.shape[:2]))
        shape = (n, *sides, source.shape[2])
        pictures = np.random.default_rng(5).integers(0, 256, shape).astype(np.uint8)
        batches = client.translate_stream(card.name, pictures, seed=5, batch_size=batch_size)
    return np.concatenate([batch.images for batch in batches])


@every_family
def test_a_familys_graphs_are_made_of_what_tensorrt_runs(
    family: Family, checkpoints: dict[str, Path], repository: Path
) -> None:
    generator = build(family, checkpoints[family.name])
    light = [stage.name for stage in generator.stages if not stage.accelerated]
    assert light in ([], ["noise"], ["pixels"])
    for stage in generator.stages:
        if stage.accelerated:
            model = family.name + (f".{stage.name}" if len(generator.stages) > 1 else "")
            graph = onnx.load(repository / model / "1" / "model.onnx")
            assert sorted(set(obstacles(graph))) == [], stage.name


@every_family
def test_a_familys_graphs_carry_no_dead_weights(family: Family, repository: Path) -> None:
    for path in find(repository, family.name).files:
        if path.endswith(".onnx"):
            graph = onnx.load(repository / path).graph
            used = {name for node in graph.node for name in node.input}
            assert {tensor.name for tensor in graph.initializer} <= used
            outputs = {value.name for value in graph.output}
            assert all((used | outputs) & set(node.output) for node in graph.node)
            large = [t.raw_data for t in graph.initializer if len(t.raw_data) > 4096]
            assert len(set(large)) == len(large), "the same weights twice"


@every_family
def test_a_family_refuses_checkpoints_of_the_others(
    family: Family, checkpoints: dict[str, Path]
) -> None:
    for other in FAMILIES:
        if other != family:
            with pytest.raises(ExportError) as refused:
                build(family, checkpoints[other.name])
            if not family.files and not other.files:
                assert f"it looks like: {other.name}" in refused.value.remedy


@every_family
def test_a_tensor_that_is_left_over_is_named(
    family: Family, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    state, _ = family.state(read(family, checkpoints[family.name]), family.options())
    stem = f"{Path(family.files[0]).stem}." if family.files else ""
    surplus = {**state, f"{stem}surprise.weight": torch.ones(2)}
    with pytest.raises(ExportError, match=r"left over: .*surprise\.weight"):
        build(family, family.save(surplus, tmp_path))


@every_family
def test_every_tensor_that_is_used_must_be_there(
    family: Family, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = read(family, checkpoints[family.name])
    state, _ = family.state(checkpoint, family.options())
    ignored = {
        entry.partition(":")[0] for entry in family.load(checkpoint, family.options()).ignored
    }
    used = sorted(set(state) - ignored)
    for victim in random.Random(0).sample(used, min(len(used), MOST)):
        partial = {k: v for k, v in state.items() if k != victim}
        with pytest.raises(ExportError):
            build(family, family.save(partial, tmp_path))


def test_an_unknown_family_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=", ".join(families())):
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
