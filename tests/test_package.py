"""Of a foreign package only the weights are taken, and a hostile one leaves nothing."""

from __future__ import annotations

import stat
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from galatea import ExportError, GalateaError, InvalidInput
from galatea.catalogue import find
from galatea_exporter.importing import package
from galatea_exporter.importing.run import default_name, import_entry
from packages import CALCIFICATIONS, pack, weights


@pytest.mark.parametrize("form", ["zip", "folder", "checkpoint"])
def test_the_weights_are_found_in_whatever_is_given(tmp_path: Path, form: str) -> None:
    content = weights()
    path = pack(tmp_path / "package.zip", content)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    source = {
        "zip": path,
        "folder": tmp_path / "unpacked",
        "checkpoint": tmp_path / "unpacked" / "package" / "DCGAN.pt",
    }[form]
    with package.checkpoint(source, CALCIFICATIONS) as found:
        assert found.name == "DCGAN.pt"
        assert torch.load(found, weights_only=True).keys() == {"generator"}


def test_a_member_of_a_package_is_chosen(tmp_path: Path) -> None:
    density = find("00013")
    path = tmp_path / "density.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("latest_net_G_A.pth", "low to high")
        archive.writestr("latest_net_G_B.pth", "high to low")
    for member, text in ((None, "low to high"), ("high_to_low", "high to low")):
        with package.checkpoint(path, density, member) as found:
            assert found.read_text() == text
    assert default_name(density, "low_to_high") == "00013_cyclegan_mmg_density_optimam_mlo"
    assert default_name(density, "high_to_low").endswith("optimam_mlo-high_to_low")
    with pytest.raises(InvalidInput, match="choose one of: low_to_high, high_to_low"):
        density.weights.member_files("sideways")
    with pytest.raises(InvalidInput, match="there is only one"):
        CALCIFICATIONS.weights.member_files("1")


def test_one_folder_of_a_thousand_is_taken(tmp_path: Path) -> None:
    polyps = find("00011")
    assert len(polyps.weights.member_names()) == 1000
    path = tmp_path / "polyps.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member in ("1", "17", "170"):
            for name in ("Gs", "NoiseAmp", "reals", "Zs"):
                archive.writestr(f"p/SinGAN/TrainedModels_1_clean/{member}/{name}.pth", member)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    for source in (path, tmp_path / "unpacked"):
        with package.checkpoint(source, polyps, "17") as folder:
            assert {file.name: file.read_text() for file in folder.iterdir()} == dict.fromkeys(
                ("Gs.pth", "NoiseAmp.pth", "reals.pth"), "17"
            )
    with pytest.raises(InvalidInput, match="choose one of: 1 … 1000"):
        polyps.weights.member_files("1001")


def test_a_checkpoint_of_several_files_may_be_named_by_one_of_them(tmp_path: Path) -> None:
    brain = find("00007")
    (tmp_path / "inp_gen.pth").write_text("")
    (tmp_path / "renamed.pth").write_text("")
    with package.checkpoint(tmp_path / "inp_gen.pth", brain) as path:
        assert path == tmp_path / "inp_gen.pth"
    with (
        pytest.raises(InvalidInput, match=r"consists of tumor_shape\.pth, .*give the folder"),
        package.checkpoint(tmp_path / "renamed.pth", brain),
    ):
        pass


def with_member(change: Callable[[zipfile.ZipInfo], None]) -> Callable[[Path], None]:
    """Writes a package and changes what its directory says of the weights."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("DCGAN.pt", b"weights" * 100)
            change(archive.getinfo("DCGAN.pt"))

    return write


def beside(name: str) -> Callable[[Path], None]:
    """A package with a further file of this name."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("DCGAN.pt", b"weights")
            archive.writestr(name, b"import os")

    return write


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def claim(size: int) -> Callable[[zipfile.ZipInfo], None]:
    return lambda info: setattr(info, "file_size", size)


def encrypt(info: zipfile.ZipInfo) -> None:
    info.flag_bits |= 1


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("DCGAN.pt", bytes(50 << 20))


def squeezed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("DCGAN.pt", bytes(1000))


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("DCGAN.pt", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("DCGAN.pt", b"other")


def in_two_places(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/DCGAN.pt", b"one")
        archive.writestr("b/dcgan.pt", b"other")


def truncated(path: Path) -> None:
    pack(path, weights(), padding=100_000)
    path.write_bytes(path.read_bytes()[:60_000])


def flipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("DCGAN.pt", b"weights" * 100)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def another(path: Path) -> None:
    pack(path, b"weights", name="malign_mass_gen")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def malicious_pickle(path: Path) -> None:
    trap = str(path.with_suffix(".trap"))
    pack(path, f"cposix\nsystem\n(V touch '{trap}'\ntR.".encode())


HOSTILE = {
    "zip slip": (beside("../../evil.py"), "a path out of its folder; nothing was unpacked"),
    "backslashes": (beside("..\\evil.py"), "a path out of its folder"),
    "absolute": (beside("/tmp/evil.py"), "a path out of its folder"),
    "drive": (beside("C:\\evil.py"), "a path out of its folder"),
    "link": (with_member(link), "is a link or a special file"),
    "claims 10 GB": (with_member(claim(10 << 30)), "claims 10737418240 bytes"),
    "claims less": (with_member(claim(10)), "damaged"),
    "claims more": (with_member(claim(5000)), "damaged"),
    "encrypted": (with_member(encrypt), "is encrypted"),
    "bomb": (bomb, "claims to become"),
    "unusual compression": (squeezed, "is compressed in an unusual way"),
    "the same name twice": (twice, "holds DCGAN.pt 2 times"),
    "in two places": (in_two_places, "2 times: b/dcgan.pt, a/DCGAN.pt"),
    "truncated": (truncated, "damaged, truncated"),
    "flipped bit": (flipped, "damaged, truncated"),
    "another package": (another, "hostile/malign_mass_gen"),
    "empty": (empty, "damaged, truncated"),
    "pickle with os.system": (malicious_pickle, "asks for posix.system, which is code"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_package_is_refused_in_a_sentence_and_leaves_nothing(
    kind: str, tmp_path: Path
) -> None:
    write, words = HOSTILE[kind]
    path = tmp_path / "inbox" / "hostile.zip"
    path.parent.mkdir()
    write(path)
    before = set(Path(tempfile.gettempdir()).glob("galatea-import-*"))
    with pytest.raises(GalateaError) as refused:
        import_entry(CALCIFICATIONS, str(path), repository=tmp_path / "models")
    assert words in refused.value.problem
    assert refused.value.problem.startswith(str(path))
    assert "galatea-import-" not in refused.value.problem
    assert refused.value.remedy
    assert set(Path(tempfile.gettempdir()).glob("galatea-import-*")) <= before
    assert [file.name for file in tmp_path.iterdir()] == ["inbox"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert not Path("/tmp/evil.py").exists()


def test_a_link_out_of_an_unpacked_package_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "DCGAN.pt").symlink_to(tmp_path / "secret")
    with (
        pytest.raises(ExportError, match=r"holds no DCGAN\.pt; it holds nothing"),
        package.checkpoint(folder, CALCIFICATIONS),
    ):
        pass


def test_a_file_larger_than_any_checkpoint_of_the_model_is_not_read(tmp_path: Path) -> None:
    small = replace(CALCIFICATIONS, weights=replace(CALCIFICATIONS.weights, largest=100))
    path = pack(tmp_path / "package.zip", weights())
    for source in (path, tmp_path / "model.pt"):
        (tmp_path / "model.pt").write_bytes(bytes(200))
        with pytest.raises(ExportError), package.checkpoint(source, small):
            pass
