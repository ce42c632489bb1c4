"""Latents: the stages between a seed and its image, and ways through their spaces."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from galatea import Client, InvalidInput, ModelUnavailable
from galatea.latents import Latents, style_mixing, truncation_sweep, walk
from galatea.latents._paths import positions, slerp
from galatea_exporter.family import families
from galatea_exporter.sampler.noise import noise_v1
from galatea_server.server import EmbeddedServer
from support import ROOT

STYLED = ("stylegan1", "stylegan2", "stylegan3")


@pytest.mark.parametrize("name", families())
def test_a_latent_gives_the_bytes_that_its_seed_gives(client: Client, name: str) -> None:
    card = client.model(name)
    if card.source_picture is not None or card.steps is not None:
        with pytest.raises(InvalidInput, match=r"makes (pictures of|its images in steps)"):
            client.latent(name, [0])
        return
    expected = client.sample(name, 5, seed=40)
    made = client.synthesise(name, client.latent(name, range(40, 45)))
    assert made.images.tobytes() == expected.images.tobytes()
    assert made.seeds.tolist() == expected.seeds.tolist()
    assert {key: values.tolist() for key, values in made.conditions.items()} == {
        key: values.tolist() for key, values in expected.conditions.items()
    }
    assert made.provenance(3) == expected.provenance(3)
    assert made.filename(3) == expected.filename(3)


def test_masks_come_with_the_images(client: Client) -> None:
    expected = client.sample("masses", 20, seed=7)
    made = client.synthesise("masses", client.latent("masses", range(7, 27)))
    assert expected.masks is not None
    assert made.masks is not None
    assert made.masks.tobytes() == expected.masks.tobytes()


@pytest.mark.parametrize("name", STYLED)
def test_styles_give_the_bytes_that_their_seeds_give(client: Client, name: str) -> None:
    expected = client.sample(name, 5, seed=-3, truncation=0.7)
    styles = client.latent(name, range(-3, 2), space="w", truncation=0.7)
    assert styles.ws is not None
    assert styles.ws.shape[0] == 5
    made = client.synthesise(name, styles)
    assert made.images.tobytes() == expected.images.tobytes()
    assert made.provenance(4) == expected.provenance(4)


def test_the_latent_is_noise_v1(client: Client) -> None:
    seeds = np.array([7, -1, 2**63 - 1])
    latents = client.latent("fastgan", seeds)
    assert latents.z is not None
    assert latents.noise is not None
    assert latents.z.tobytes() == noise_v1(seeds, latents.z.shape[1]).tobytes()
    assert latents.noise.tobytes() == noise_v1(seeds, latents.noise.shape[1], 1).tobytes()
    assert client.latent("masses", 7).seeds.tolist() == [7]


def test_an_image_depends_on_its_latent_and_not_on_its_place(client: Client) -> None:
    latents = client.latent("masses", range(6))
    whole = client.synthesise("masses", latents)
    part = client.synthesise("masses", latents[[3, 3, 0]])
    assert part.images.tobytes() == whole.images[[3, 3, 0]].tobytes()
    assert part.labels is not None
    assert part.labels.tolist() == [1, 1, 0]
    assert [part.filename(i) for i in range(3)] == [
        f"frame-{i:04d}-masses-v1.png" for i in range(3)
    ]
    listed = client.synthesise("masses", latents[3:5], label=["benign", 1])
    assert listed.labels is not None
    assert listed.labels.tolist() == [0, 1]


def test_an_arc_keeps_length_and_pace() -> None:
    a, b = np.zeros((5, 8), np.float32), np.zeros((5, 8), np.float32)
    a[:, 0], b[:, 0], b[:, 1] = 2, -1.2, 1.6  # both of length 2
    made = slerp(a, b, np.linspace(0, 1, 5))
    assert np.array_equal(made[0], a[0])
    assert np.array_equal(made[4], b[4])
    assert np.linalg.norm(made, axis=1) == pytest.approx(2)
    turns = np.arccos((made[1:] * made[:-1]).sum(axis=1) / 4)
    assert turns == pytest.approx(np.arccos(-0.6) / 4, rel=1e-5)


@pytest.mark.parametrize("factor", [1, 3, 1 + 1e-7, 0, -1])
def test_vectors_in_line_are_joined_by_a_straight_line(factor: float) -> None:
    a = noise_v1(np.array([0]), 16)
    b = (a * factor).astype(np.float32)
    assert slerp(a, b, np.array([0.0])) == pytest.approx(a)
    assert slerp(a, b, np.array([1.0])) == pytest.approx(b)
    half = slerp(a, b, np.array([0.5]))
    assert np.isfinite(half).all()
    assert half == pytest.approx((a + b) / 2, rel=1e-6) or factor == 0


def test_steps_are_even_and_points_are_hit() -> None:
    before, behind, share = positions(3, 5, closed=False)
    assert (before + share).tolist() == [0, 0.5, 1, 1.5, 2]
    before, behind, share = positions(3, 6, closed=True)
    assert (before + share).tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert behind.tolist() == [1, 1, 2, 2, 0, 0]


def test_a_walk_leads_over_the_images_of_its_seeds(client: Client) -> None:
    seeds = [5, 90, -7]
    frames = walk(client, "phantom", seeds, 9, label="malignant")
    for at, seed in ((0, 5), (4, 90), (8, -7)):
        expected = client.sample("phantom", seed=seed, label="malignant")
        assert frames.images[at].tobytes() == expected.images.tobytes()
        assert frames.origins[at] == f"z({seed})"
    assert len({image.tobytes() for image in frames}) == 9
    assert frames.origins[3] == "slerp(z(5), z(90), 0.75)"
    facts = frames.provenance(3)
    assert facts["galatea:latent"] == "slerp(z(5), z(90), 0.75)"
    assert facts["galatea:label_name"] == "malignant"
    assert "galatea:seed" not in facts
    assert frames.seeds.tolist() == []
    assert frames.filename(3) == "frame-0003-phantom-v1.png"


def test_a_closed_walk_returns_without_repeating_its_first_step(client: Client) -> None:
    between = client.latent("masses", [0, 1]).interpolate(8, closed=True)
    assert between.values[2] == pytest.approx(between.values[6], abs=1e-6)
    assert between.told(4) == "z(1)"
    assert between.told(7) == "slerp(z(1), z(0), 0.75)"


def test_a_walk_has_the_noise_and_the_class_of_its_first_seed(client: Client) -> None:
    keys = client.latent("fastgan", [3, 4])
    between = keys.interpolate(3)
    assert keys.noise is not None
    assert between.noise is not None
    assert np.array_equal(between.noise, keys.noise[[0, 0, 0]])
    made = client.synthesise("fastgan", between)
    assert made.images[0].tobytes() == client.sample("fastgan", seed=3).images.tobytes()
    assert made.images[2].tobytes() != client.sample("fastgan", seed=4).images.tobytes()
    assert made.origins[2] == "z(4) with noise(3)"
    labels = walk(client, "masses", [8, 9], 3).labels
    assert labels is not None
    assert labels.tolist() == [0, 0, 0]


def test_styles_of_two_classes_are_joined_by_straight_lines(client: Client) -> None:
    styles = client.latent("stylegan2", [1, 2], space="w", label=[0, 1])
    between = styles.interpolate(3)
    assert styles.ws is not None
    assert between.ws is not None
    assert between.ws[1] == pytest.approx(styles.ws.mean(axis=0), rel=1e-5, abs=1e-6)
    made = walk(client, "stylegan2", [1, 2], 3, space="w", label=[0, 1])
    assert made.images.tobytes() == client.synthesise("stylegan2", between).images.tobytes()
    assert made.labels is None
    assert "w(1, label=0, truncation=1.0," in made.origins[1]
    assert "w(2, label=1, truncation=1.0," in made.origins[1]
    assert made.provenance(1)["galatea:truncation"] == "1.0"
    last = client.sample("stylegan2", seed=2, label=1)
    assert made.images[2].tobytes() == last.images.tobytes()


@pytest.mark.parametrize("name", STYLED)
def test_truncation_draws_all_seeds_to_one_image(client: Client, name: str) -> None:
    swept = truncation_sweep(client, name, [4, 9], [0, 0.5, 1])
    assert swept.seeds.tolist() == [4, 4, 4, 9, 9, 9]
    assert swept.conditions["truncation"].tolist() == [0, 0.5, 1] * 2
    if "label" in swept.conditions:
        assert swept.conditions["label"].tolist() == [0, 0, 0, 1, 1, 1]
    if name != "stylegan1":  # whose noise differs
        assert swept.images[0].tobytes() == swept.images[3].tobytes()
    assert swept.images[2].tobytes() == client.sample(name, seed=4).images.tobytes()
    assert swept.images[5].tobytes() != swept.images[2].tobytes()


def test_style_mixing_takes_layers_from_each_other_seed(client: Client) -> None:
    mixed = style_mixing(client, "stylegan2", [1, 2], range(4, 8), label=0)
    own = client.synthesise("stylegan2", client.latent("stylegan2", [1, 2]), label=0)
    assert mixed.images[[0, 3]].tobytes() == own.images.tobytes()
    assert len({image.tobytes() for image in mixed}) == 4
    assert mixed.origins[1].endswith("layers 4-7)")
    assert mixed.labels is not None
    assert mixed.labels.tolist() == [0] * 4
    # With all layers changed, only the noise of the first is left, and this model has none.
    swapped = style_mixing(client, "stylegan2", [1, 2], range(8), label=0)
    assert swapped.images[[2, 1]].tobytes() == own.images.tobytes()


def test_vectors_of_ones_own_are_told_by_their_digest(client: Client) -> None:
    latents = client.latent("masses", [0, 1])
    assert latents.z is not None
    moved = latents.moved_to(latents.z.astype(np.float64) * 0.5)
    made = client.synthesise("masses", moved)
    assert made.images.tobytes() != client.synthesise("masses", latents).images.tobytes()
    assert re.fullmatch(r"z\(sha256:[0-9a-f]{64}\)", made.provenance(1)["galatea:latent"])
    assert made.seeds.tolist() == []


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda c: c.latent("masses", []), "there are no seeds"),
        (lambda c: c.latent("masses", [0.5]), r"seed 0\.5 is no whole number"),
        (lambda c: c.latent("masses", [2**63]), "leaves the 64-bit integers"),
        (lambda c: c.latent("masses", [1], space="v"), "there is no space 'v'"),
        (lambda c: c.latent("masses", [1], space="w"), "masses has no mapping stage"),
        (lambda c: c.latent("masses", [1], label=0), "label acts behind the latents of space z"),
        (lambda c: c.latent("masses", [1], tone=0), "no condition 'tone'; it has: label"),
        (lambda c: c.latent("stylegan3", [1], space="w", rotate=9), "rotate acts behind"),
        (
            lambda c: c.synthesise(
                "stylegan3", c.latent("stylegan3", [1], space="w"), truncation=0.5
            ),
            "truncation is in the styles already",
        ),
        (lambda c: c.synthesise("masses", c.latent("masses", [1]), label=2), "no label 2"),
        (lambda c: c.synthesise("masses", c.latent("phantom", [1])), "do not belong to masses"),
        (lambda c: c.latent("masses", [1]).interpolate(5), "give at least 2 seeds"),
        (lambda c: c.latent("masses", [1, 2]).interpolate(1), "frames is 1"),
        (lambda c: c.latent("masses", [1]).moved_to(np.zeros((1, 3))), r"\(1, 3\) cannot stand in"),
        (
            lambda c: c.latent("masses", [1]).moved_to(c.latent("masses", [1]).z * np.nan),
            "not finite",
        ),
        (lambda c: truncation_sweep(c, "masses", [1], [0, 1]), "no condition 'truncation'"),
        (lambda c: truncation_sweep(c, "stylegan2", [1], []), "there are no truncations"),
        (lambda c: style_mixing(c, "fastgan", [1, 2], [0]), "fastgan has no mapping stage"),
        (lambda c: style_mixing(c, "stylegan2", [1, 2], [8]), r"no layers \[8\]"),
        (lambda c: style_mixing(c, "stylegan2", [1, 2], []), r"no layers \[\]"),
    ],
)
def test_a_mistake_is_told_with_what_is_right(client: Client, call: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        call(client)


def test_a_wrong_model_is_answered_with_the_nearest_name(client: Client) -> None:
    with pytest.raises(ModelUnavailable, match="did you mean 'masses'"):
        client.latent("mases", [1])


def test_latents_of_another_version_are_refused(client: Client) -> None:
    latents = client.latent("masses", [1])
    older = replace(latents, card=replace(latents.card, version=7))
    with pytest.raises(InvalidInput, match="version 7 do not belong to masses version 1"):
        client.synthesise("masses", older)


def test_a_vector_of_the_wrong_length_is_refused_by_the_model(client: Client) -> None:
    latents = client.latent("masses", [1])
    short: Latents = replace(latents, z=np.zeros((1, 3), np.float32))
    with pytest.raises(InvalidInput, match="latent"):
        client.synthesise("masses", short)


def interpolate(*arguments: object, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", "interpolate"]
    return subprocess.run(
        [*command, *map(str, arguments), "--url", url],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_shows_the_frames_of_a_walk(
    server: EmbeddedServer, client: Client, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"walk{suffix}"
    done = interpolate("phantom", "--seeds", "1,2", "--frames", 5, "--label", "malignant",
                       "-o", path, "--json", url=server.grpc_url, folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 5
    expected = walk(client, "phantom", [1, 2], 5, label=1)
    with Image.open(path) as animation:
        told = animation.info.get("comment") or animation.getexif()[0x010E]
        facts = json.loads(told)
        assert animation.n_frames == 5  # type: ignore[attr-defined] # of files with several
        for i, image in enumerate(expected):
            animation.seek(i)
            assert np.array_equal(np.asarray(animation.convert("L")), image[:, :, 0])
    assert facts["galatea:synthetic"] == "true"
    assert facts["galatea:seeds"] == "1, 2"
    assert facts["galatea:label_name"] == "malignant"


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["phantom", "--frames", 6, "--closed"], (3 * 130 - 2, 2 * 130 - 2)),
        (["stylegan2", "--truncation", "0,0.5,1"], None),
        (["stylegan2", "--mix-layers", "4-5,7"], None),
        (["stylegan2", "--space", "w", "--label", "0,1", "--frames", 4], (2 * 34 - 2, 2 * 34 - 2)),
    ],
)
def test_a_sheet_carries_its_provenance(
    server: EmbeddedServer, tmp_path: Path, arguments: list[object], size: tuple[int, int] | None
) -> None:
    done = interpolate(*arguments, "--seeds", "1,-2", "-o", "sheet.png",
                       url=server.grpc_url, folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert isinstance(sheet, Image.Image)
        sheet.load()
        assert size in (None, sheet.size)
        assert sheet.info["galatea:seeds"] == "1, -2"
        assert sheet.info["galatea:model"] == arguments[0]


def test_the_heads_of_a_mixing_sheet_are_the_images_of_its_seeds(
    server: EmbeddedServer, client: Client, tmp_path: Path
) -> None:
    done = interpolate("stylegan2", "--seeds", "1,2", "--mix-layers", "4-7", "--label", 0,
                       "-o", "mix.png", url=server.grpc_url, folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "mix.png") as sheet:
        pixels = np.asarray(sheet)
    factor = -(-pixels.shape[0] // (3 * 34 + 28))  # small images are enlarged
    own = client.synthesise("stylegan2", client.latent("stylegan2", [1, 2]), label=0)
    side = 32 * factor
    for k in range(2):
        large = own.images[k].repeat(factor, 0).repeat(factor, 1)
        bottom, right = (pixels.shape[axis] - (1 - k) * (side + 2) for axis in (0, 1))
        left = pixels.shape[1] - 2 * (side + 2) - side
        assert np.array_equal(pixels[bottom - side : bottom, left : left + side], large)
        assert np.array_equal(pixels[bottom - side : bottom, right - side : right], large)


def test_frames_are_files_in_a_folder(
    server: EmbeddedServer, client: Client, tmp_path: Path
) -> None:
    done = interpolate("masses", "--seeds", "1,2", "--frames", 3, "-o", "frames",
                       url=server.grpc_url, folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    paths = sorted((tmp_path / "frames").glob("*v1.png"))
    assert len(paths) == 3
    with Image.open(paths[1]) as image:
        assert isinstance(image, Image.Image)
        assert image.info["galatea:latent"] == "slerp(z(1), z(2), 0.5)"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["masses", "--seeds", "1,x"], 2, "write numbers with commas"),
        (["masses", "--seeds", "1,2", "-o", "walk.jpg"], 2, "ends in .gif, .png, .webp"),
        (["masses", "--seeds", "1,2", "--truncation", "0", "-o", "a.gif"], 2, "ends in .png"),
        (["masses", "--seeds", "1,2", "--truncation", "0", "--frames", 3], 2, "not of a sheet"),
        (["masses", "--seeds", "1,2", "--truncation", "0", "--mix-layers", 1], 2, "not both"),
        (["masses", "--seeds", "1,2", "--mix-layers", "3-1"], 2, "'3-1' is empty"),
        (["masses", "--seeds", "1,2", "--mix-layers", "a-b"], 2, "no range of layers"),
        (["masses", "--seeds", "1,2", "--mix-layers", "1"], 5, "masses has no mapping stage"),
        (["masses", "--seeds", "1,2", "--space", "w"], 5, "masses has no mapping stage"),
        (["masses", "--seeds", "1"], 5, "give at least 2 seeds"),
        (["mases", "--seeds", "1,2"], 4, "did you mean 'masses'?"),
        (["masses", "--seeds", "1,2", "-o", "/proc/no/walk.gif"], 1, "cannot be written"),
    ],
)
def test_a_failure_has_its_exit_code_and_a_sentence(
    server: EmbeddedServer, tmp_path: Path, arguments: list[object], code: int, words: str
) -> None:
    done = interpolate(*arguments, url=server.grpc_url, folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_documentation_shows_what_happens(client: Client) -> None:
    text = (ROOT / "docs" / "latents.md").read_text()
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert blocks
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for k, block in enumerate(blocks):
        test = parser.get_doctest(block, {"client": client}, f"block {k}", "docs/latents.md", 0)
        assert test.examples
        runner.run(test)
    assert runner.summarize().failed == 0
