"""What the tests share: a repository with small generators, a real server on it, a client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from galatea import Client
from galatea_exporter.export import Facts, export
from galatea_exporter.family import families
from galatea_server.server import EmbeddedServer
from support import GOLDEN, ROOT, save_state

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
        name: save_state(family, family.example(), folder / name)
        for name, family in families().items()
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
    phantom = ROOT / "examples" / "phantom"
    export(
        "dcgan_mammo", phantom / "phantom_cdcgan.pt",
        name="phantom", repository=root, facts=Facts.read(phantom / "card.toml"),
    )  # fmt: skip
    return root


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository) as running:
        yield running


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected
