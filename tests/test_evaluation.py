"""Evaluating a served model with served extractors, from the command line to the report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from data_sets import galatea
from evaluation_models import inception_state, make_repository
from galatea import Client, datasets
from galatea.errors import InvalidInput
from galatea.evaluation import (
    Cache,
    Evaluation,
    Extractor,
    Intensity,
    Item,
    Report,
    Served,
    Source,
    compare,
    evaluate,
    open_source,
    to_html,
)
from galatea.pictures import Picture
from galatea.repository import find, verify
from galatea_exporter.extractors.archs import find_arch
from galatea_exporter.extractors.resize import Resize
from galatea_server.server import EmbeddedServer

N = 60


@pytest.fixture(scope="module")
def repository_of_masses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def served(repository_of_masses: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository_of_masses) as running:
        yield running


@pytest.fixture
def client(served: EmbeddedServer) -> Iterator[Client]:
    with Client(served.grpc_url) as connected:
        yield connected


@pytest.fixture(scope="module")
def folders(served: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of images in folders by class: ``real``, ``train``, ``heldout``, and ``copies``.

    ``copies`` has new images and, with a little noise, three of those in ``train``.
    """
    root = tmp_path_factory.mktemp("folders")
    with Client(served.grpc_url) as client:
        for i, kind in enumerate(("real", "train", "heldout", "copies")):
            made = client.sample("masses", N, seed=1000 * (i + 1))
            for k, image in enumerate(made.images):
                path = root / kind / str(made.label_name(k)) / f"{k:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[:, :, 0]).save(path)
    random = np.random.default_rng(0)
    for path in sorted((root / "train" / "benign").iterdir())[:3]:
        noisy = np.asarray(Image.open(path)) + random.integers(-1, 2, (64, 64))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
            root / "copies" / "benign" / f"copy-of-{path.name}"
        )
    return root


def run(client: Client, folders: Path, **given: Any) -> Evaluation:
    arguments: dict[str, Any] = {
        "extractors": ["inception"], "intensities": ["levels"], "repeats": 4, **given,
    }  # fmt: skip
    synthetic = arguments.pop("synthetic", None) or Served(client, "masses", N, seed=0)
    return evaluate(client, synthetic, open_source(folders / "real"), **arguments)


def test_extractors_are_no_generators(client: Client) -> None:
    assert [card.name for card in client.models()] == ["masses"]
    with pytest.raises(InvalidInput, match="makes features of images"):
        client.sample("inception")


def test_a_model_is_evaluated_by_one_command(
    served: EmbeddedServer, folders: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report"
    arguments = [
        "evaluate", "run", "masses", "--real", folders / "real", "-n", N, "--seed", 7,
        "--extractor", "inception", "--extractor", "radimagenet", "--intensity", "levels",
        "--intensity", "minmax", "--repeats", 4, "--cache", tmp_path / "cache",
        "--train", folders / "train", "--heldout", folders / "heldout",
        "--url", served.grpc_url,
    ]  # fmt: skip
    done = galatea(*arguments, "-o", output, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    settings = [(row["extractor"], row["intensity"], row["label"]) for row in told["rows"]]
    assert settings == [
        (extractor, rule, label)
        for extractor in ("inception", "radimagenet")
        for rule in ("levels", "minmax")
        for label in ("", "benign", "malignant")
    ]
    assert told["synthetic"]["seeds"] == [7, 7 + N - 1]
    assert told["rows"][0]["headline"] == "KID"
    for row in told["rows"]:
        names = [figure["name"] for figure in row["figures"]]
        inception = ["IS"] if row["extractor"] == "inception" else []
        assert names == ["KID", "FD", "precision", "recall", "density", "coverage", *inception]
        # One law made both kinds: what is measured is the floor.
        kernel, frechet = row["figures"][:2]
        assert abs(kernel["value"]) < 4 * kernel["error"]
        assert 0.1 < row["real_real_ratio"] < 10
        assert row["real_real_ratio"] == pytest.approx(frechet["floor"] / frechet["at_floor"])
    assert [verdict["memorised"] for verdict in told["memorisation"]] == [0] * 4

    page = (output / "report.html").read_text()
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []
    assert page.count("data:image/png") == 2 + 4  # images of two kinds, and pairs of each judgement
    report = Report.read(output)
    again = galatea(*arguments, "-o", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert "memorised, by inception, levels: 0 of 60" in again.stdout
    other = Report.read(tmp_path / "again")
    assert (other.rows, other.memorisation) == (report.rows, report.memorisation)


def test_features_that_are_kept_are_not_made_again(
    client: Client, folders: Path, tmp_path: Path
) -> None:
    made: list[int] = []
    for expected in (2 * N, 0):
        made.clear()
        done = run(client, folders, cache=Cache(tmp_path), progress=lambda _, n: made.append(n))
        assert sum(made) == expected
    assert to_html(done) == to_html(run(client, folders))


def test_memorised_images_are_named_with_what_they_were_copied_from(
    client: Client, folders: Path
) -> None:
    train, heldout = open_source(folders / "train"), open_source(folders / "heldout")
    done = run(
        client, folders, synthetic=open_source(folders / "copies"), train=train, heldout=heldout
    )
    (verdict,) = done.report.memorisation
    found = {pair.synthetic: pair.training for pair in verdict.pairs if pair.memorised}
    assert verdict.memorised == 3
    assert found == {f"benign/copy-of-{Path(name).name}": name for name in found.values()}
    page = to_html(done)
    assert "3 of 63 images are memorised" in page
    with pytest.raises(InvalidInput, match="cannot be judged without both"):
        run(client, folders, train=train)
    with pytest.raises(InvalidInput, match="held-out images are in the training data"):
        run(client, folders, train=train, heldout=train)


def test_reports_are_compared_where_everything_but_the_model_is_the_same(
    client: Client, folders: Path, tmp_path: Path
) -> None:
    whole = run(client, folders).report
    other = run(client, folders, synthetic=Served(client, "masses", N, seed=500)).report
    table = compare([whole, other])
    assert list(table) == [("inception", "levels", label) for label in ("", "benign", "malignant")]
    fewer = replace(whole, rows=tuple(replace(row, n_synthetic=40) for row in whole.rows))
    with pytest.raises(InvalidInput, match=r"differ in the number of synthetic images: 60 and 40"):
        compare([whole, fewer])
    stretched = replace(whole, rows=tuple(replace(row, intensity="minmax") for row in whole.rows))
    with pytest.raises(InvalidInput, match="differ in the intensities"):
        compare([whole, stretched])
    for name, report in (("a", whole), ("b", other), ("c", fewer)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_bytes(report.to_json())
    done = galatea("evaluate", "compare", tmp_path / "a", tmp_path / "b", "--json")
    assert [row["title"] for row in json.loads(done.stdout)] == ["masses version 1"] * 6
    assert galatea("evaluate", "compare", tmp_path / "a", tmp_path / "c").returncode == 5


@pytest.mark.parametrize("form", ["png", "npz", "webdataset", "parquet", "dicom", "nifti"])
def test_a_data_set_gives_the_images_that_it_was_made_of(
    client: Client, form: str, tmp_path: Path
) -> None:
    datasets.generate(client, "masses", 10, tmp_path, seed=3, format=form, shard_size=4)
    want = client.sample("masses", 10, seed=3)
    found = [*open_source(tmp_path).items()]
    assert [item.label for item in found] == [want.label_name(i) for i in range(10)]
    for i, item in enumerate(found):
        levels = Intensity.parse("levels").apply(item.picture)
        np.testing.assert_array_equal(levels[:, :, :1], want.images[i])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["masses", "--extractor", "masses"], "makes images"),
        (["inception", "--extractor", "inception"], "makes no images of seeds"),
        (["masses", "--extractor", "inception", "-n", 5], "are too few"),
        (["masses", "--extractor", "inception", "--intensity", "raw"], "no rule for intensities"),
        (["/nowhere/", "--extractor", "inception"], "no such file or folder"),
        (["masses", "--extractor", "inception", "--train", "."], "both training and held-out"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    served: EmbeddedServer, folders: Path, given: list[Any], words: str, tmp_path: Path
) -> None:
    done = galatea("evaluate", "run", *given, "--real", folders / "real", "--intensity", "levels",
                   "-o", tmp_path / "out", "--no-cache", "--url", served.grpc_url)  # fmt: skip
    assert done.returncode == 5
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("height", "width"), [(64, 97), (299, 299), (500, 333), (30, 20)])
def test_a_served_extractor_gives_the_features_of_its_network(
    client: Client, height: int, width: int
) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    extractor = Extractor(client, "inception")
    assert extractor.facts()["configuration"] == {
        "resize": "tf1", "size": 299, "normalisation": "(RGB - 128) / 128",
    }  # fmt: skip
    found = extractor.extract(Pixels(pixels), Intensity.parse("levels"))
    network = find_arch("inception-fid").load(inception_state(), Path("x")).network
    with torch.no_grad():
        want = network(Resize(299, "tf1")(torch.from_numpy(pixels)[None]))
    assert found.logits is not None
    np.testing.assert_allclose(found.features, want[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.logits, want[1].numpy(), atol=1e-4)
    assert Extractor(client, "radimagenet").extract(
        Pixels(pixels[:, :, :1]), Intensity.parse("levels")
    ).features.shape == (1, 128)  # grey


class Pixels(Source):
    """One picture in memory."""

    title, digest = "pixels", ""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels

    def facts(self) -> dict[str, Any]:
        return {}

    def items(self) -> Iterator[Item]:
        yield Item(Picture("pixels", self._pixels))


def test_figures_go_into_the_card_of_a_new_version(
    client: Client, folders: Path, repository_of_masses: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(repository_of_masses, tmp_path / "models")
    report = run(client, folders).report
    (tmp_path / "report.json").write_bytes(report.to_json())
    before = find(root, "masses")
    done = galatea("figures", "masses", tmp_path, "--repository", root)
    assert done.returncode == 0, done.stderr
    assert verify(root) == []
    after = find(root, "masses")
    assert (after.version, after.active) == (2, True)
    assert after.card().graphs == before.card().graphs
    (kernel,) = (metric for metric in after.card().metrics if metric.name == "KID")
    figure = report.rows[0].figure("KID")
    assert figure is not None
    assert (kernel.value, kernel.n, kernel.normalisation) == (figure.value, N, "levels")
    other = galatea("figures", "inception", tmp_path, "--repository", root)
    assert other.returncode == 5
    assert "the report is of masses version 1" in other.stderr
    with EmbeddedServer(root) as running, Client(running.grpc_url) as second:
        want = client.sample("masses", 3, seed=1).images
        np.testing.assert_array_equal(second.sample("masses", 3, seed=1).images, want)
