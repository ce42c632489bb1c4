"""Nothing is published before it is complete, correct and allowed; what was comes back whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from huggingface_hub import metadata_load
from PIL import Image

from data_sets import files, galatea
from evaluation_models import inception_state, sha256
from galatea import Client
from galatea.card import Parity
from galatea.errors import RepositoryError
from galatea.evaluation import Report, Served, evaluate
from galatea.repository import find, verify
from galatea_exporter.export import Facts, export
from galatea_exporter.extractors.release import import_extractor
from galatea_exporter.publishing import licences, privacy
from galatea_exporter.publishing.checks import CHECKS, Candidate, Limits, Problem
from galatea_exporter.publishing.gate import Verdict, check
from galatea_exporter.publishing.golden import SEEDS, compute
from galatea_exporter.publishing.publishing import publish
from galatea_exporter.publishing.pulling import pull
from galatea_server.server import EmbeddedServer
from support import ROOT

N = 24  # images of the evaluation


@pytest.fixture(scope="module")
def models(phantom_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo generator, the diffusion demo, and a small extractor."""
    folder = tmp_path_factory.mktemp("publishing")
    root, example = folder / "models", ROOT / "examples" / "phantom_diffusion"
    shutil.copytree(phantom_repository, root)
    export(
        "guided_diffusion", example / "phantom_diffusion.pt", name="phantom_diffusion",
        repository=root, facts=Facts.read(example / "card.toml"), max_batch=8,
    )  # fmt: skip
    weights = folder / "inception.pth"
    torch.save(inception_state(), weights)
    import_extractor(
        weights, arch="inception-fid", sha256=sha256(weights), name="inception",
        repository=root, resize="tf1", max_batch=8,
    )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def served(models: Path) -> Any:
    with EmbeddedServer(models) as running, Client(running.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def report(served: Client) -> Report:
    return evaluate(
        served, Served(served, "phantom", N), Served(served, "phantom", N, seed=1000),
        extractors=["inception"], intensities=["levels"], repeats=2,
    ).report  # fmt: skip


@pytest.fixture(scope="module")
def verdict(models: Path, report: Report) -> Verdict:
    return check(find(models, "phantom"), report=report)


@pytest.fixture
def published(verdict: Verdict, tmp_path: Path) -> Path:
    assert publish(verdict, tmp_path / "phantom-1").new
    return tmp_path / "phantom-1"


def test_what_is_published_comes_back_to_the_byte(
    published: Path, models: Path, verdict: Verdict, tmp_path: Path
) -> None:
    assert not publish(verdict, published).new  # it is there already
    done = galatea("repo", "pull", published, "--repository", tmp_path / "elsewhere", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"]
    assert verify(tmp_path / "elsewhere") == []
    there = files(tmp_path / "elsewhere")
    assert there == {path: digest for path, digest in files(models).items() if path in there}
    assert len(there) == len(list(models.glob("phantom*/**/*.*"))) - len(
        list(models.glob("phantom_diffusion*/**/*.*"))
    )
    assert pull(published, tmp_path / "elsewhere")[1] is False


def test_a_publication_tells_people_and_hubs_what_it_is(published: Path) -> None:
    facts = metadata_load(published / "README.md")
    assert facts is not None
    assert facts["license"] == "apache-2.0"
    assert facts["pipeline_tag"] == "unconditional-image-generation"
    text = (published / "README.md").read_text()
    assert "Demonstrating and testing galatea" in text
    assert "Memorisation of training images: not assessed." in text
    told = json.loads((published / "check.json").read_text())
    assert [entry["passed"] for entry in told["checks"]] == [True] * len(CHECKS)
    assert told["evaluation"]["rows"][0]["figures"]["KID"]["floor"] is not None
    assert told["golden"]["equal_bytes"]
    with Image.open(published / "samples.png") as sheet:
        assert sheet.size == (4 * 130 - 2, 2 * 130 - 2)


@pytest.mark.parametrize(("name", "steps"), [("phantom", None), ("phantom_diffusion", 4)])
def test_golden_samples_are_what_a_server_makes(
    models: Path, served: Client, name: str, steps: int | None
) -> None:
    golden = compute(find(models, name), served.model(name), steps=steps)
    controls: dict[str, Any] = {} if steps is None else {"steps": steps}
    labels = golden.inputs["label"][:, 0].tolist()
    batch = served.sample(name, len(SEEDS), seed=SEEDS[0], labels=labels, **controls)
    assert batch.masks is not None
    for outputs in (golden.alone, golden.together):
        np.testing.assert_array_equal(outputs["image"], batch.images)
        np.testing.assert_array_equal(outputs["mask"], batch.masks)
    assert golden.seconds > 0
    assert golden.memory is None or golden.memory > 0


def found(candidate: Candidate, name: str) -> str:
    """The problems that one check finds, in a text."""
    (rule,) = (rule for rule in CHECKS if rule.name == name)
    return "\n".join(problem.what for problem in rule.find(candidate))


@pytest.fixture
def candidate(verdict: Verdict, tmp_path: Path) -> Candidate:
    """The release in a repository that may be broken."""
    root = shutil.copytree(verdict.release.root, tmp_path / "models")
    return Candidate(
        replace(verdict.release, root=root), verdict.card, Limits(), verdict.report, verdict.golden
    )


def test_a_release_that_is_well_has_no_problem(candidate: Candidate) -> None:
    assert {rule.name: [*rule.find(candidate)] for rule in CHECKS if [*rule.find(candidate)]} == {}


@pytest.mark.parametrize(
    ("name", "facts", "finding"),
    [
        ("card", {"limitations": " "}, "has no limitations"),
        ("licence", {"licence": "as is"}, "no SPDX expression"),
        ("parity", {"parity": None}, "no parity"),
        ("parity", {"parity": Parity(1, 1e-4, 0, 0.0, (1,), "")}, "beyond 0.0001"),
        ("parity", {"graphs": {"synthesis": "0" * 64}}, "not the one that was compared"),
        ("evaluation", {"checkpoint_sha256": "0" * 64}, "not of these graphs and weights"),
    ],
)
def test_a_card_that_lacks_or_denies_something_is_refused(
    candidate: Candidate, name: str, facts: dict[str, Any], finding: str
) -> None:
    assert finding in found(replace(candidate, card=replace(candidate.card, **facts)), name)


def test_files_that_a_server_would_execute_are_refused(candidate: Candidate) -> None:
    root, release = candidate.release.root, candidate.release
    pickle, config = "phantom/1/weights.pt", "phantom.synthesis/1/config.pbtxt"
    (root / pickle).write_bytes(b"\x80\x04.")
    more = replace(release, files={**release.files, pickle: (3, "")})
    assert f"{pickle}: belongs to no release" in found(replace(candidate, release=more), "files")
    text = (root / config).read_text()
    for added, finding in (
        ('model_operations { op_library_filename: "x.so" }', "loads a library of operators"),
        ('backend: "sh"', "asks for the backend 'sh'"),
    ):
        (root / config).write_text(text.replace('backend: "onnxruntime"', "") + added)
        assert finding in found(candidate, "files")
        assert f"{config}: was changed" in found(candidate, "digests")


def test_graphs_that_triton_would_refuse_or_that_hold_texts_are_found(
    candidate: Candidate,
) -> None:
    path = candidate.release.root / "phantom.synthesis/1/model.onnx"
    model = onnx.load(path)
    model.ir_version = 11
    model.opset_import[0].version = 22
    model.opset_import.add(domain="com.example", version=1)
    model.metadata_props.add(key="made by", value="ada@example.org in /home/ada/models")
    path.write_bytes(model.SerializeToString())
    problems = found(candidate, "graphs")
    assert "IR version 11" in problems
    assert "opset 22" in problems
    assert "operators of 'com.example'" in problems
    problems = found(candidate, "privacy")
    assert "an e-mail address: 'ada@example.…'" in problems
    assert "a folder of a person" in problems


@pytest.mark.parametrize(
    ("change", "name", "finding"),
    [
        (lambda images: images * 0, "images", "one value everywhere"),
        (lambda images: images[[0] * 8], "images", "are the same"),
        (lambda images: images.astype(np.float32), "images", "the card says uint8"),
        (lambda images: images ^ 2, "golden", "differs from batch 1"),
    ],
)
def test_samples_that_are_no_samples_are_found(
    candidate: Candidate, change: Callable[[Any], Any], name: str, finding: str
) -> None:
    golden = candidate.golden
    assert golden is not None
    alone = {**golden.alone, "image": change(golden.alone["image"])}
    assert finding in found(replace(candidate, golden=replace(golden, alone=alone)), name)


def test_budgets_are_kept(candidate: Candidate) -> None:
    problems = found(replace(candidate, limits=Limits(size=10**6, seconds=1e-6)), "budgets")
    assert "allowed are 1\n" in problems
    assert "a sample takes" in problems


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("Apache-2.0", None),
        ("cc-by-nc-sa-4.0", None),
        ("MIT AND CC-BY-4.0", None),
        ("", "no licence is told"),
        ("CC-BY-NC-ND-4.0", "no derivatives"),
        ("MIT OR CC-BY-ND-3.0", "no derivatives"),
        ("LicenseRef-hospital", "a licence of one's own"),
        ("free for research", "no SPDX expression"),
    ],
)
def test_a_licence_must_let_others_redistribute(licence: str, reason: str | None) -> None:
    objection = licences.objection(licence)
    assert objection is None if reason is None else reason in str(objection)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("10.5281/zenodo.1234, 128 × 128 @ 1.5 mm, https://host:8001/v2", []),
        ("PatientName=DOE^JANE", ["an attribute of a patient"]),
        ("-----BEGIN RSA PRIVATE KEY-----", ["a private key"]),
        ("https://ada:secret@host/x", ["a password in an address"]),
        ("AKIAIOSFODNN7EXAMPLE", ["a key of a cloud"]),
        ("hf_" + "a" * 34, ["an access token"]),
        (r"C:\\Users\\ada\\model.pt", ["a folder of a person"]),
    ],
)
def test_traces_of_people_and_keys_are_told_from_facts(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in privacy.traces(text)] == kinds


def test_the_command_lists_what_is_to_be_mended_and_publishes_nothing(
    models: Path, report: Report, tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_bytes(report.to_json())
    local = ("--repository", models, "--evaluation", tmp_path)
    target = tmp_path / "out"
    done = galatea("publish", "phantom", "--to", target, *local, "--max-size", "1", "--json")
    assert done.returncode == 5
    told = json.loads(done.stdout)
    assert [entry["name"] for entry in told["checks"] if not entry["passed"]] == ["budgets"]
    assert json.loads(done.stderr)["remedy"] == "allow more with --max-size"
    assert not target.exists()
    done = galatea("publish", "phantom", "--check", *local)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[: len(CHECKS)] == [f"ok  {rule.name}" for rule in CHECKS]
    assert galatea("publish", "phantom", *local).returncode == 2
    assert galatea("publish", "inception", "--check", *local).returncode == 5


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "change", "finding"),
    [
        ("phantom.synthesis/1/model.onnx", flip, "was changed after it was published"),
        ("phantom.synthesis/1/model.onnx", Path.unlink, "is missing"),
        ("phantom/1/manifest.json", flip, "not the one that was checked"),
        ("check.json", Path.unlink, "nothing is published there"),
        ("check.json", lambda path: path.write_text("{}"), "not that of a publication"),
    ],
)
def test_what_was_changed_on_the_way_is_not_taken_over(
    published: Path, tmp_path: Path, file: str, change: Callable[[Path], None], finding: str
) -> None:
    change(published / file)
    with pytest.raises(RepositoryError, match=finding):
        pull(published, tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").glob("*")) == []
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["elsewhere", "phantom-1"],
        ["phantom-1"],
    )


def test_code_of_others_is_not_taken_over(models: Path, tmp_path: Path) -> None:
    root = shutil.copytree(models, tmp_path / "models")
    release = find(root, "phantom_diffusion")
    file = f"phantom_diffusion/{release.version}/model.py"
    (root / file).write_text("import os")
    digest = (len("import os"), sha256(root / file))
    foreign = replace(release, files={**release.files, file: digest})
    card = release.card()
    passed: dict[str, list[Problem]] = {rule.name: [] for rule in CHECKS}
    golden = compute(release, card, steps=2)
    publish(Verdict(foreign, card, None, passed, golden), tmp_path / "published")
    with pytest.raises(RepositoryError, match="not the sampler of this galatea"):
        pull(tmp_path / "published", tmp_path / "elsewhere")
    assert pull(tmp_path / "published", tmp_path / "elsewhere", any_sampler=True)[1]


@pytest.mark.parametrize("model", ["other", "../other", "other.noise"])
def test_a_publication_cannot_replace_other_models(
    verdict: Verdict, tmp_path: Path, model: str
) -> None:
    mine = tmp_path / "elsewhere" / "models" / model / "1" / "model.onnx"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    release = verdict.release
    greedy = replace(release, models=(model, *release.models))
    publish(replace(verdict, release=greedy), tmp_path / "published")
    with pytest.raises(RepositoryError, match="would write"):
        pull(tmp_path / "published", tmp_path / "elsewhere" / "models")
    assert mine.read_bytes() == b"mine"


def test_a_place_with_something_else_is_left_alone(published: Path, verdict: Verdict) -> None:
    head = json.loads((published / "check.json").read_text())
    (published / "check.json").write_text(json.dumps({**head, "manifest": "0" * 64}))
    with pytest.raises(RepositoryError, match="publications never change"):
        publish(verdict, published)
    with pytest.raises(RepositoryError, match="is no publication"):
        publish(verdict, published.parent)
