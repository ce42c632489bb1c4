"""Checks manifests against the schemas of one version of Kubernetes, strictly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate.utils import all_versions, major_minor

from galatea.errors import InvalidInput
from galatea_server.deploy.manifests import Fault, Manifest, name_of

__all__ = ["VERSION", "check_schema", "extensions"]

VERSION = "1.36"  # of Kubernetes
EXTENSIONS = Path(__file__).with_name("extensions.yaml")
LONGEST = 200  # letters of an error; some quote all of an object
FIELDS = {"apiVersion", "kind", "metadata", "spec"}


def check_schema(manifests: Iterable[Manifest], version: str = VERSION) -> list[Fault]:
    """All faults; a kind that is not known is one.

    Args:
        manifests: the objects.
        version: of Kubernetes, as 1.36.

    Raises:
        InvalidInput: there are no schemas of that version.
    """
    known = [major_minor(found) for found in all_versions()]
    if version not in known:
        raise InvalidInput(
            f"there are no schemas of Kubernetes {version}", f"name one of: {', '.join(known)}"
        )
    return sorted(fault for manifest in manifests for fault in _check(manifest, version))


@cache
def extensions() -> dict[str, Any]:
    """Schemas of kinds that are no part of Kubernetes, by apiVersion/kind."""
    data = yaml.safe_load(EXTENSIONS.read_text("utf-8"))
    return {
        kind: {"$defs": data["$defs"], "type": "object", "additionalProperties": False, **schema}
        for kind, schema in data["kinds"].items()
    }


def _check(manifest: Manifest, version: str) -> Iterator[Fault]:
    kind = f"{manifest['apiVersion']}/{manifest['kind']}"
    if kind in extensions():
        for key in sorted(manifest.keys() - FIELDS):
            yield Fault(name_of(manifest), key, "is no field of it", "leave it out")
        validator = jsonschema.Draft202012Validator(extensions()[kind])
        for error in validator.iter_errors(manifest.get("spec")):
            yield _fault(manifest, ["spec", *error.path], error.message)
        return
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        yield Fault(
            name_of(manifest), "kind", f"{kind} is not known to Kubernetes {version}",
            f"name a kind of that version, or one of: {', '.join(extensions())}",
        )  # fmt: skip
    except kubernetes_validate.ValidationError as error:
        yield _fault(manifest, list(error.path), error.message)


def _fault(manifest: Manifest, path: list[Any], message: str) -> Fault:
    field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
    return Fault(
        name_of(manifest), field or "as a whole", f"does not fit the schema: {message}",
        f"see: kubectl explain {manifest['kind'].lower()}{'.' + field if field else ''}",
    )  # fmt: skip
