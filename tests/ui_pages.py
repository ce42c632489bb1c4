"""A picture page on a real server, for the tests of what it shows."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
import uvicorn

from galatea import AsyncClient
from galatea.ui import application
from galatea_exporter.export import export
from galatea_exporter.family import find_family
from support import wait_until
from translators import FormulaFamily


def add_models(phantom: Path, root: Path, *families: str) -> Path:
    """A repository with the phantom, the translator ``negative``, and examples of families."""
    shutil.copytree(phantom, root)
    for name in families:
        family = find_family(name)
        path = family.save(family.example(), root.parent / name)
        export(name, path, name=name, repository=root, max_batch=8)
    torch.save({"weight": torch.ones(1)}, root.parent / "weight.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("galatea_exporter.export.find_family", FormulaFamily)
        export("negative", root.parent / "weight.pt", name="negative", repository=root)
    return root


@contextmanager
def page_of(
    urls: Sequence[str],
    *,
    token: str | None = None,
    patience: float = 20.0,
    told: Sequence[str] | None = None,
    reports: Sequence[Path] = (),
    beside: Sequence[str] = (),
) -> Iterator[str]:
    """The address of a page of these servers, which uvicorn serves.

    Args:
        told: addresses of servers in the command lines, where they are others.
        reports: evaluations with nearest images.
        beside: further servers, to compare with.
    """

    def connect(addresses: Sequence[str] = urls) -> AsyncClient:
        return AsyncClient(addresses, patience=patience)

    shown = urls if told is None else told
    others = [partial(connect, [url]) for url in beside]
    app = application(connect, beside=others, token=token, urls=shown, reports=reports)
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
