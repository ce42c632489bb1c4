"""Files and folders are translated from the command line, and as the documentation shows."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from galatea import Client, pictures, shapes
from galatea_server.server import EmbeddedServer
from support import ROOT

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (20, 17, 22), dtype=np.uint8)


@pytest.fixture
def server(translators: EmbeddedServer) -> EmbeddedServer:
    """The server that the client of these tests talks to."""
    return translators


def galatea(
    *arguments: object, url: str | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", *map(str, arguments)]
    if url is not None:
        command += ["--url", url]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of pictures of several kinds, in folders."""
    (tmp_path / "scans" / "a").mkdir(parents=True)
    for k in range(3):
        Image.fromarray(GREY[k]).save(tmp_path / "scans" / "a" / f"{k}.png")
    np.save(tmp_path / "scans" / "stack.npy", GREY[:2, :8])
    file = Path(str(get_testdata_file("MR_small.dcm", download=False)))
    (tmp_path / "scans" / "mr.dcm").write_bytes(file.read_bytes())
    return tmp_path / "scans"


def test_a_folder_is_translated_into_a_folder(
    server: EmbeddedServer, scans: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = galatea("translate", "negative", scans, "-o", output, url=server.grpc_url)
    assert done.returncode == 0, done.stderr
    assert "6 pictures translated by negative version 1" in done.stdout
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.*"))
    assert names == [
        "a/0-negative-v1.png",
        "a/1-negative-v1.png",
        "a/2-negative-v1.png",
        "mr-negative-v1.png",
        "stack-000000-negative-v1.png",
        "stack-000001-negative-v1.png",
    ]
    with Image.open(output / "a" / "2-negative-v1.png") as image:
        assert np.array_equal(np.asarray(image), 255 - GREY[2, :16, :20])
    (mr,) = pictures.read(scans / "mr.dcm")
    with Image.open(output / "mr-negative-v1.png") as image:
        assert np.array_equal(np.asarray(image), 255 - mr.to_levels())


def test_what_an_earlier_run_has_translated_can_be_skipped(
    server: EmbeddedServer, scans: Path, tmp_path: Path
) -> None:
    arguments = ["translate", "older", scans, "-o", tmp_path / "out", "--seed", 3, "--json"]
    first = json.loads(galatea(*arguments, url=server.grpc_url).stdout)
    assert (first["n"], first["skipped"], first["seeds"]) == (6, 0, [3, 8])
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    victims = sorted(path for path in files if path.suffix == ".npy")[2:4]
    for victim in victims:
        victim.unlink()
    again = json.loads(galatea(*arguments, "--skip-existing", url=server.grpc_url).stdout)
    assert (again["n"], again["skipped"]) == (2, 4)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == files


def test_slices_of_a_volume_are_translated(server: EmbeddedServer, tmp_path: Path) -> None:
    from nibabel.testing import data_path

    volume = Path(str(data_path)) / "anatomical.nii"
    done = galatea("translate", "negative", volume, "--axis", "coronal", "--slice", "20:22",
                   "-o", tmp_path, "--json", url=server.grpc_url)  # fmt: skip
    assert json.loads(done.stdout)["n"] == 2, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "anatomical-coronal-020-negative-v1.png",
        "anatomical-coronal-021-negative-v1.png",
    ]


def test_each_channel_comes_from_its_own_files(server: EmbeddedServer, tmp_path: Path) -> None:
    channels = RANDOM.integers(0, 4096, (2, 4, 16, 16), dtype=np.uint16)
    arguments = []
    for k, name in enumerate(("flair", "t1", "t1c", "t2")):
        (tmp_path / name).mkdir()
        for patient in range(2):
            Image.fromarray(channels[patient, k]).save(tmp_path / name / f"{patient}{name}.png")
        arguments += ["--channel", f"{name.upper()}={tmp_path / name}"]
    done = galatea("translate", "banded", *arguments, "--set", "circle_x=5", "-o",
                   tmp_path / "out", url=server.grpc_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = np.load(tmp_path / "out" / "1flair-banded-v1.npy")
    for k in range(4):
        low, high = int(channels[1, k].min()), int(channels[1, k].max())
        assert np.abs(made[:, :, k] - (channels[1, k] - float(low)) / (high - low)).max() < 1e-6
    few = galatea("translate", "banded", *arguments[:-2], url=server.grpc_url)
    assert few.returncode == 5
    assert "banded takes the channel 't2' too" in few.stderr


def test_shapes_are_drawn_and_translated(server: EmbeddedServer, tmp_path: Path) -> None:
    for name in ("inside", "outside"):
        Image.fromarray(RANDOM.integers(0, 256, (40, 40), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    arguments = ["translate", "tinted", "--shapes", "oval", "-n", 4, "--seed", 3, "--label",
                 "negative", "--texture-inside", tmp_path / "inside.png", "--texture-outside",
                 tmp_path / "outside.png", "-o", tmp_path / "out"]  # fmt: skip
    done = galatea(*arguments, url=server.grpc_url)
    assert done.returncode == 0, done.stderr
    assert "seeds 3–6" in done.stdout
    images = sorted((tmp_path / "out").glob("*-v1.png"))
    assert [path.name for path in images] == [
        f"oval-{seed:012d}-tinted-v1.png" for seed in range(3, 7)
    ]
    inside, outside = pictures.read([tmp_path / "inside.png", tmp_path / "outside.png"])
    mask = shapes.masks(1, 32, "oval", 4)[0]
    expected = 255 - shapes.textured(mask, inside, outside, seed=4)
    with Image.open(images[1]) as image, Image.open(
        images[1].with_name(f"{images[1].stem}-mask.png")
    ) as beside:  # fmt: skip
        assert np.array_equal(np.asarray(image)[:, :, 0], expected)
        assert np.array_equal(np.asarray(beside), mask)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["negative"], 2, "give INPUTS, or --channel, or --shapes"),
        (["negative", "x.png", "--shapes", "oval"], 2, "give INPUTS"),
        (["negative", "x.png", "-n", "3"], 2, "go with --shapes"),
        (["negative", "--shapes", "oval", "--texture-inside", "x"], 2, "go together"),
        (["negative", "--shapes", "square"], 2, "'square' is not one of 'oval', 'lobulated'"),
        (["negative", "x.nii", "--slice", "4:2"], 2, "'4:2' holds no slice"),
        (["negative", "x.nii", "--slice", "a"], 2, "write K or FROM:TO"),
        (["negative", "x.png"], 5, "x.png: no such file"),
        (["negative", "--channel", "flair=x"], 5, "the channels of negative are: intensity"),
        (["masses", "--shapes", "oval"], 5, "run: galatea sample masses"),
        (["banded", "--shapes", "oval"], 5, "takes 4: flair, t1, t1c, t2"),
        (["negatve", "x.png"], 4, "did you mean 'negative'?"),
    ],
)
def test_a_failure_has_its_exit_code_and_a_sentence(
    server: EmbeddedServer, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = galatea("translate", *arguments, url=server.grpc_url, folder=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "module", "extra"), [("dcm", "pydicom", "dicom"), ("nii", "nibabel", "nifti")]
)
def test_a_missing_extra_is_named_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str, module: str, extra: str
) -> None:
    from galatea import MachineError

    (tmp_path / f"scan.{suffix}").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MachineError, match=rf"pip install 'galatea\[{extra}\]'"):
        list(pictures.read(tmp_path))


def test_the_documentation_shows_what_happens(
    client: Client, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scans.parent)
    blocks = re.findall(
        r"^```pycon\n(.*?)^```$",
        (ROOT / "docs" / "client.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert blocks
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for k, block in enumerate(blocks):
        test = parser.get_doctest(block, {"client": client}, f"block {k}", "docs/client.md", 0)
        assert test.examples
        runner.run(test)
    assert runner.summarize().failed == 0
