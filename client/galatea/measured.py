"""What was measured of a served generator, travelling beside its card.

``galatea tune`` puts it into the configuration it writes, as the JSON text of the parameter
``galatea.measured``; :meth:`galatea.Client.measured` reads it, and ``galatea plan`` counts with it.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import galatea
from galatea.card import from_plain
from galatea.errors import InvalidInput

if TYPE_CHECKING:
    from galatea.load import Load

__all__ = ["MEASURED_PARAMETER", "Measured"]

MEASURED_PARAMETER = "galatea.measured"
SCHEMA = 1


@dataclass(frozen=True)
class Measured:
    """How fast one server makes images of one version of a generator.

    Attributes:
        model, version: the generator.
        images_per_second: of the whole server, with `batch` images a request and `callers` callers.
        p50_ms, p95_ms: latency of a request then.
        device: what it was measured on, in words: a CPU and its cores, or a GPU.
        gpus: that the server used; 0 on a CPU.
        cores: that the server could use; 0 is not known.
        instances: of the model, of the stage that computes most; None is not known.
        threads: of an instance; None is the runtime's own choice, or not known.
        variant: named configuration, such as "cuda"; "" is ``config.pbtxt`` or not known.
        wire_bytes: bytes of an image on a network, framing included.
        date: ISO 8601, UTC.
        galatea, server: versions; "" is not known.
    """

    model: str
    version: int
    images_per_second: float
    batch: int
    callers: int | None
    p50_ms: float
    p95_ms: float
    device: str
    gpus: int
    cores: int
    wire_bytes: int
    instances: int | None = None
    threads: int | None = None
    variant: str = ""
    date: str = ""
    galatea: str = ""
    server: str = ""
    schema: int = SCHEMA

    @classmethod
    def of(
        cls,
        load: Load,
        *,
        device: str,
        gpus: int = 0,
        cores: int = 0,
        instances: int | None = None,
        threads: int | None = None,
        variant: str = "",
        server: str = "",
        servers: int = 1,
    ) -> Measured:
        """What a load has shown, now, by this version of galatea.

        Args:
            servers: that it was spread over; the figures are those of one.

        Other arguments are attributes.
        """
        return cls(
            load.model, load.version, load.images_per_second / servers, load.batch, load.callers,
            load.p50_ms, load.p95_ms, device, gpus, cores, load.wire_bytes, instances, threads,
            variant, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            galatea.__version__, server,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON types."""
        return asdict(self)

    def to_json(self) -> str:
        """The figures as one line of JSON, equal bytes for equal figures."""
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_dict(cls, plain: Any) -> Measured:
        """Figures from plain JSON types.

        Raises:
            InvalidInput: they are none, or of a schema that this version of galatea does not know.
        """
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if schema != SCHEMA:
            raise InvalidInput(
                f"the measured figures have schema {schema!r}, this galatea reads {SCHEMA}",
                "measure again, or run: pip install --upgrade galatea",
            )
        try:
            return from_plain(cls, plain)
        except TypeError as error:
            raise InvalidInput(
                f"the measured figures cannot be read: {error}", "measure again: galatea tune"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> Measured:
        """Figures from :meth:`to_json`.

        Raises:
            InvalidInput: as :meth:`from_dict`.
        """
        try:
            plain = json.loads(text)
        except ValueError as error:
            raise InvalidInput(
                f"the measured figures are no JSON: {error}", "measure again: galatea tune"
            ) from error
        return cls.from_dict(plain)
