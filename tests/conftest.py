"""What the tests share: a repository with small generators, a real server on it, a client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import tritonclient.grpc as triton

from galatea import Client
from galatea_exporter.export import Facts, export
from galatea_exporter.family import families, find_family
from galatea_server.server import EmbeddedServer
from packages import NAME, Record, pack, weights
from plain_models import write_model
from support import GOLDEN, ROOT
from translators import TRANSLATORS, FormulaFamily

MAX_BATCH = 8


@pytest.fixture(scope="session")
def golden() -> Path:
    if not GOLDEN.is_dir():
        pytest.skip("no golden cases: set GALATEA_GOLDEN to their folder")
    return GOLDEN


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small checkpoint of every family, by the family's name."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        name: family.save(family.example(), folder / name) for name, family in families().items()
    }


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Path:
    """A repository with small generators.

    Every family by its name; ``masses``, random weights with two classes and a mask; and
    ``phantom``, the trained demo generator.
    """
    root = tmp_path_factory.mktemp("repository") / "models"
    for name, path in checkpoints.items():
        export(name, path, name=name, repository=root, max_batch=MAX_BATCH)
    facts = Facts(
        title="Masses",
        licence="CC0-1.0",
        options={"labels": ["benign", "malignant"], "mask_channel": 1},
    )
    export(
        "dcgan_mammo", checkpoints["dcgan_mammo"],
        name="masses", repository=root, facts=facts, max_batch=MAX_BATCH,
    )  # fmt: skip
    _export_phantom(root)
    return root


@pytest.fixture(scope="session")
def phantom_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the trained demo generator alone, which anybody may read."""
    root = tmp_path_factory.mktemp("phantom") / "models"
    _export_phantom(root)
    root.chmod(0o755)
    return root


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository) as running:
        yield running


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of two models that collect requests for 200 ms and run them together."""
    root = tmp_path_factory.mktemp("plain")
    write_model(root, "collects", delay=200_000)
    write_model(root, "twice", instances=2)
    with EmbeddedServer(root) as running:
        yield running


@pytest.fixture
def wire(plain: EmbeddedServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(plain.grpc_url) as client:
        yield client


@pytest.fixture(scope="session")
def translators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server with the translators of ``translators.py`` and ``masses``, which takes seeds."""
    root = tmp_path_factory.mktemp("translators")
    torch.save({"weight": torch.ones(1)}, root / "weight.pt")
    repository = root / "models"
    masses = find_family("dcgan_mammo")
    torch.save({masses.containers[0]: masses.example()}, root / "masses.pt")
    export(masses.name, root / "masses.pt", name="masses", repository=repository)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("galatea_exporter.export.find_family", FormulaFamily)
        for name in TRANSLATORS:
            export(name, root / "weight.pt", name=name, repository=repository)
    with EmbeddedServer(repository) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache and settings of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    """The record of a package of 3 MB."""
    content = pack(tmp_path / NAME, weights(), padding=3 << 20).read_bytes()
    (tmp_path / NAME).unlink()
    with Record(NAME, content).served() as served:
        yield served


def _export_phantom(repository: Path) -> None:
    folder = ROOT / "examples" / "phantom"
    export(
        "dcgan_mammo", folder / "phantom_cdcgan.pt",
        name="phantom", repository=repository, facts=Facts.read(folder / "card.toml"),
    )  # fmt: skip
