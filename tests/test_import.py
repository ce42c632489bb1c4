"""From a published package to a release with the facts and on the terms of the catalogue."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from galatea import GalateaError, InvalidInput
from galatea.catalogue import find
from galatea.repository import releases, verify
from galatea_exporter.importing.licences import require_acceptance
from galatea_exporter.importing.run import import_entry
from packages import CALCIFICATIONS, Record, pack, weights

pytestmark = pytest.mark.usefixtures("home")


def test_terms_are_shown_and_accepted_once(tmp_path: Path) -> None:
    require_acceptance(CALCIFICATIONS, accept=False)
    restricted = find("00021")
    with pytest.raises(InvalidInput) as refused:
        require_acceptance(restricted, accept=False)
    assert restricted.terms in refused.value.problem
    assert "--accept-licence" in refused.value.remedy
    require_acceptance(restricted, accept=True)
    require_acceptance(restricted, accept=False)
    with pytest.raises(InvalidInput):
        require_acceptance(find("00022"), accept=False)
    changed = replace(restricted, terms="Nobody may use them.")
    with pytest.raises(InvalidInput, match="Nobody may use them"):
        require_acceptance(changed, accept=False)
    assert [path.name for path in (tmp_path / "config" / "galatea").iterdir()] == ["licences.json"]


def test_a_damaged_list_of_accepted_terms_has_accepted_nothing(tmp_path: Path) -> None:
    (tmp_path / "config" / "galatea").mkdir(parents=True)
    (tmp_path / "config" / "galatea" / "licences.json").write_text("[")
    with pytest.raises(InvalidInput):
        require_acceptance(find("00021"), accept=False)
    require_acceptance(find("00021"), accept=True)
    require_acceptance(find("00021"), accept=False)


def test_a_model_is_imported_from_its_record_with_the_facts_of_the_catalogue(
    record: Record, tmp_path: Path
) -> None:
    record.cut = [1 << 20]
    entry = record.entry()
    done = import_entry(entry, repository=tmp_path / "models", max_batch=2)
    (release,) = releases(tmp_path / "models")
    card = release.card()
    assert done.written
    assert card.name == "00001_dcgan_mmg_calc_roi"
    assert card.catalogue_id == "00001_DCGAN_MMG_CALC_ROI"
    for fact in ("title", "description", "modality", "organ", "generates", "tags", "year", "doi",
                 "training_dataset", "licence", "citation", "source", "metrics"):  # fmt: skip
        assert getattr(card, fact) == getattr(entry, fact), fact
    assert verify(tmp_path / "models") == []


def test_the_configuration_is_the_catalogues_and_the_users_wins(tmp_path: Path) -> None:
    path = pack(tmp_path / "package.zip", weights(), name="500.pt")
    done = import_entry(
        find("00005"), str(path), repository=tmp_path / "models", name="mine", max_batch=1,
        settings={"rounding": "nearest", "low": "-0.5"}, dry_run=True,
    )  # fmt: skip
    assert done.card.name == "mine"
    assert done.card.configuration["high"] == 0.0
    assert done.card.configuration["low"] == -0.5
    assert done.card.configuration["rounding"] == "nearest"
    assert not (tmp_path / "models").exists()


def test_a_restricted_model_tells_its_terms_on_the_card(tmp_path: Path) -> None:
    restricted = replace(CALCIFICATIONS, licence="NOASSERTION", terms="Ask the authors.")
    path = pack(tmp_path / "package.zip", weights())
    given: dict[str, Any] = {"repository": tmp_path / "models", "max_batch": 1, "dry_run": True}
    with pytest.raises(InvalidInput, match="Ask the authors"):
        import_entry(restricted, str(path), **given)
    done = import_entry(restricted, str(path), accept_licence=True, **given)
    assert done.card.licence == "NOASSERTION"
    assert done.card.description.endswith("Ask the authors.")


def galatea(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", "import", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_package_is_imported_on_the_command_line(tmp_path: Path) -> None:
    path = pack(tmp_path / "package.zip", weights("dcgan_alyafi"), name="malign_mass_gen")
    done = galatea("00002", "--from", path, "--repository", tmp_path / "models",
                   "--max-batch", 2, "--name", "masses")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "released masses version 1" in done.stdout
    assert "licence MIT" in done.stderr
    assert not path.with_suffix(".trap").exists()
    wrong = galatea("00001", "--from", path, "--repository", tmp_path / "models")
    assert wrong.returncode == 5
    assert "package/malign_mass_gen" in wrong.stderr


def test_weights_that_are_not_what_the_catalogue_says_are_noticed(tmp_path: Path) -> None:
    path = pack(tmp_path / "package.zip", weights())
    done = galatea("00001", "--from", path, "--repository", tmp_path, "--max-batch", 1, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "says that the task is unconditional, it is class-conditional" in done.stderr
    assert "the image is [128, 128, 1], it is [64, 64, 2]" in done.stderr


@pytest.mark.parametrize(
    ("id_", "given", "words"),
    [
        ("00019", {}, "import 00020_PGGAN_CHEST_XRAY"),
        ("00019", {"source": "model.pt"}, "nobody knows the network"),
        ("00001", {"source": "nothing.zip"}, "nothing.zip: no such file or folder"),
        ("00001", {"member": "2"}, "there is only one"),
        ("00001", {"settings": {"colour": "blue"}}, "no option 'colour'"),
        ("00001", {"name": "A B", "source": "DCGAN.pt"}, "'A B' is no model name"),
        ("aidotse", {"accept_licence": True}, "cannot be downloaded by a program"),
        ("akbar-stylegan1", {"accept_licence": True}, "a TensorFlow pickle"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_what_to_try(
    id_: str, given: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DCGAN.pt").write_bytes(weights())
    with pytest.raises(GalateaError) as refused:
        import_entry(find(id_), repository=tmp_path / "models", **given)
    assert words in str(refused.value)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["00019"], "import 00020_PGGAN_CHEST_XRAY"),
        (["00024"], "the catalogue has no '00024'"),
        (["00021", "--set", "low"], "has no value"),
        (["00021"], "restricts use. Licence: NOASSERTION."),
    ],
)
def test_a_refusal_has_its_exit_code(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = galatea(*arguments, "--repository", tmp_path / "models")
    assert done.returncode == 5
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "models").exists()
