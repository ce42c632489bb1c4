"""A publication as a draft of a record on Zenodo, in one archive with its card and samples beside.

Written to the documentation of Zenodo's REST API for depositions. The draft is not published: a DOI
cannot be taken back, so a person looks at it first.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from galatea.card import ModelCard
from galatea.errors import InvalidInput, MachineError, ServerUnreachable
from galatea_exporter.publishing.publication import CHECK, README, SAMPLES
from galatea_exporter.release import Content

__all__ = ["TOKEN", "deposit"]

TOKEN = "ZENODO_TOKEN"  # noqa: S105 - the name of a variable
HERE = ("localhost", "127.0.0.1")  # spoken to without TLS
TIMEOUT = httpx.Timeout(30.0, write=None)
DATE = (1980, 1, 1, 0, 0, 0)  # of every file in the archive: equal releases give equal archives


def deposit(
    host: str, card: ModelCard, files: Mapping[str, Content], creators: Sequence[str]
) -> str:
    """Makes a draft with the files of a publication.

    Args:
        host: such as ``zenodo.org`` or ``sandbox.zenodo.org``.
        creators: names of those who made the model, ``Family, Given``.

    Returns:
        The address where a person looks at the draft and publishes it.

    Raises:
        InvalidInput: no creator, or no token in ``ZENODO_TOKEN``.
        MachineError: Zenodo refuses something.
        ServerUnreachable: it does not answer.
    """
    token = os.environ.get(TOKEN)
    if not creators or not token:
        raise InvalidInput(
            f"a draft on {host} needs a creator and a token",
            f"name creators with --creator 'Family, Given', and put a token into {TOKEN}",
        )
    scheme = "http" if host.partition(":")[0] in HERE else "https"
    headers = {"Authorization": f"Bearer {token}"}
    with _told(host), httpx.Client(headers=headers, timeout=TIMEOUT) as client:
        address = f"{scheme}://{host}/api/deposit/depositions"
        draft = _answer(client.post(address, json={}))
        bucket = draft["links"]["bucket"]
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / f"{card.name}-{card.version}.zip"
            _pack(archive, files)
            beside = {name: files[name] for name in (README, SAMPLES, CHECK)}
            contents: dict[str, Content] = {archive.name: archive, **beside}
            for name, content in contents.items():
                _answer(client.put(f"{bucket}/{name}", content=_stream(content)))
        metadata = {"metadata": _metadata(card, creators)}
        _answer(client.put(f"{address}/{draft['id']}", json=metadata))
        return str(draft["links"]["html"])


def _metadata(card: ModelCard, creators: Sequence[str]) -> dict[str, Any]:
    told = {
        "": card.description,
        "Intended use: ": card.intended_use,
        "Limitations: ": card.limitations,
        "Training data: ": card.training_dataset,
        "Citation: ": card.citation,
    }
    facts = {
        "title": card.title,
        "upload_type": "software",
        "description": "".join(f"<p>{key}{_plain(text)}</p>" for key, text in told.items() if text),
        "creators": [{"name": name} for name in creators],
        "access_right": "open",
        "license": card.licence.lower(),
        "version": str(card.version),
        "keywords": ["synthetic medical images", "ONNX", card.modality, card.organ, *card.tags],
    }
    if card.doi:
        facts["related_identifiers"] = [{"identifier": card.doi, "relation": "isDerivedFrom"}]
    return facts


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _pack(archive: Path, files: Mapping[str, Content]) -> None:
    with zipfile.ZipFile(archive, "x") as packed:
        for path, content in files.items():
            with packed.open(zipfile.ZipInfo(path, DATE), "w", force_zip64=True) as target:
                for part in _stream(content):
                    target.write(part)


def _stream(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while part := file.read(1 << 20):
            yield part


def _answer(response: httpx.Response) -> Any:
    response.raise_for_status()
    return response.json()


@contextmanager
def _told(host: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        answer = error.response
        raise MachineError(
            f"{host}: refuses {answer.request.method} {answer.request.url.path} with "
            f"{answer.status_code}: {answer.text[:200]}",
            f"check the token in {TOKEN}, and remove the unfinished draft on the site",
        ) from error
    except httpx.TransportError as error:
        raise ServerUnreachable(f"{host}: does not answer: {error}", "check its name") from error
    except (KeyError, TypeError, ValueError) as error:
        raise MachineError(
            f"{host}: answers what is not Zenodo's API ({error})", "check its name"
        ) from error
