"""A publication goes to stores, registries and archives, signed or not, and comes back whole."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from data_sets import files
from galatea.errors import InvalidInput, MachineError, RepositoryError
from galatea.repository import find, verify
from galatea_exporter.publishing.checks import CHECKS, Problem
from galatea_exporter.publishing.gate import Verdict
from galatea_exporter.publishing.golden import compute
from galatea_exporter.publishing.places import open_place
from galatea_exporter.publishing.publishing import publish
from galatea_exporter.publishing.pulling import pull
from publications import Depositions, registry
from support import ROOT


@pytest.fixture(scope="module")
def verdict(phantom_repository: Path) -> Verdict:
    """The demo generator, as if it had passed all checks."""
    release = find(phantom_repository, "phantom")
    card = release.card()
    passed: dict[str, list[Problem]] = {rule.name: [] for rule in CHECKS}
    return Verdict(release, card, None, passed, compute(release, card))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket in the S3-compatible server of ``s3_server.py``."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "s3_server.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
        for key, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(key, value)
        yield "s3://bucket"
        process.kill()


def goes_there_and_back(verdict: Verdict, url: str, folder: Path) -> None:
    """Publishes, pulls, and finds the same; nothing else can be published at that place."""
    assert publish(verdict, url).new
    assert not publish(verdict, url).new
    assert pull(url, folder / "models")[1]
    assert verify(folder / "models") == []
    assert files(folder / "models") == files(verdict.release.root)
    release = verdict.release
    file = next(iter(release.files))
    other = dataclasses.replace(release, files={**release.files, file: (1, "")})
    with pytest.raises(RepositoryError, match="publications never change"):
        publish(dataclasses.replace(verdict, release=other), url)
    assert open_place(url).read("nothing.json") is None


def test_an_object_store_keeps_a_publication(verdict: Verdict, bucket: str, tmp_path: Path) -> None:
    goes_there_and_back(verdict, f"{bucket}/models/phantom-1", tmp_path)


def test_a_registry_keeps_a_publication(verdict: Verdict, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        goes_there_and_back(verdict, f"oci://{address}/models/phantom:1", tmp_path)
        with pytest.raises(RepositoryError, match="nothing is published there"):
            pull(f"oci://{address}/models/phantom:2", tmp_path / "models")


def test_a_draft_on_zenodo_holds_the_publication_in_an_archive(
    verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zenodo = Depositions(token="t0ken")
    with zenodo.served() as address:
        monkeypatch.setenv("ZENODO_TOKEN", "wrong")
        with pytest.raises(MachineError, match="with 401"):
            publish(verdict, f"zenodo://{address}", creators=["Doe, Jane"])
        monkeypatch.setenv("ZENODO_TOKEN", "t0ken")
        with pytest.raises(InvalidInput, match="needs a creator"):
            publish(verdict, f"zenodo://{address}")
        done = publish(verdict, f"zenodo://{address}", creators=["Doe, Jane"])
    assert done.place == f"http://{address}/deposit/17"
    assert not zenodo.published
    assert zenodo.metadata["creators"] == [{"name": "Doe, Jane"}]
    assert zenodo.metadata["license"] == "apache-2.0"
    assert sorted(zenodo.files) == ["README.md", "check.json", "phantom-1.zip", "samples.png"]
    with zipfile.ZipFile(io.BytesIO(zenodo.files["phantom-1.zip"])) as archive:
        archive.extractall(tmp_path / "unzipped")
    assert pull(tmp_path / "unzipped", tmp_path / "models")[1]
    assert files(tmp_path / "models") == files(verdict.release.root)


def key_pair(folder: Path) -> tuple[Path, Path]:
    """A new private key on an elliptic curve and its public counterpart, as PEM."""
    private, public = folder / "key.pem", folder / "public.pem"
    made = generate_private_key(SECP256R1())
    private.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_a_signature_tells_who_published_it(verdict: Verdict, tmp_path: Path) -> None:
    for who in ("own", "other"):
        (tmp_path / who).mkdir()
    private, public = key_pair(tmp_path / "own")
    _, other = key_pair(tmp_path / "other")
    publish(verdict, tmp_path / "signed", key=private)
    publish(verdict, tmp_path / "unsigned")
    models = tmp_path / "models"
    with pytest.raises(RepositoryError, match="the signature does not hold"):
        pull(tmp_path / "signed", models, key=other)
    with pytest.raises(RepositoryError, match=r"model\.sig is missing"):
        pull(tmp_path / "unsigned", models, key=public)
    assert list(models.iterdir()) == []
    assert pull(tmp_path / "signed", models, key=public)[1]
    assert verify(models) == []
    (tmp_path / "signed" / "README.md").write_text("Good for diagnosis.")
    with pytest.raises(RepositoryError, match="the signature does not hold"):
        pull(tmp_path / "signed", models, key=public)
    with pytest.raises(InvalidInput, match="nothing can be signed with it"):
        publish(verdict, tmp_path / "third", key=tmp_path / "signed" / "README.md")


@pytest.mark.parametrize(
    "url",
    [
        "oci://registry/phantom",
        "zenodo://zenodo.org",
        "hf://a/b/c",
        "hf://",
        "nowhere://x/y",
        "s3://",
    ],
)
def test_what_is_no_place_is_refused_with_what_is(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"give .*(oci|hf|s3)://|unzip"):
        open_place(url)
