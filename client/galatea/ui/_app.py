"""The ASGI application: which address is answered by what."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from galatea.aio import AsyncClient
from galatea.card import ModelCard
from galatea.errors import (
    DeadlineExceeded,
    GalateaError,
    InvalidInput,
    MachineError,
    ModelUnavailable,
    ServerUnreachable,
)
from galatea.extras import needs_extra
from galatea.ui._files import written
from galatea.ui._home import home_page
from galatea.ui._html import page, tag
from galatea.ui._model import model_page
from galatea.ui._nearest import Evaluated, load, nearest_page, of
from galatea.ui._query import Query, address
from galatea.ui._security import App, Guard
from galatea.ui._sources import LARGEST, Sources
from galatea.ui._studio import Studio, while_asked
from galatea.ui._tile import Tile
from galatea.ui._view import View

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["application"]

FOR_EVER = "public, max-age=31536000, immutable"
STATUS: dict[type[GalateaError], int] = {
    InvalidInput: 400, ModelUnavailable: 404, MachineError: 500, ServerUnreachable: 503,
    DeadlineExceeded: 504,
}  # fmt: skip
TYPES = {
    "png": "image/png", "css": "text/css", "js": "text/javascript", "dcm": "application/dicom",
    "npy": "application/octet-stream", "gz": "application/gzip", "svg": "image/svg+xml",
}  # fmt: skip


def application(
    connect: Callable[[], AsyncClient],
    *,
    beside: Sequence[Callable[[], AsyncClient]] = (),
    token: str | None = None,
    urls: Sequence[str] = (),
    reports: Iterable[Path] = (),
) -> App:
    """The page as an ASGI application.

    Args:
        connect: makes the client that it asks for images, in the event loop that serves it.
        beside: the same for further servers, whose images may stand beside those of the first.
        token: that a visitor must have; without one the page is for addresses of this machine.
        urls: of the servers, for the command lines that it shows.
        reports: evaluations whose nearest images are shown.

    Raises:
        InvalidInput: a report cannot be read, or has no nearest images.
        MachineError: the extra ``ui`` is missing.
    """
    with needs_extra("ui"):
        from starlette.applications import Starlette
        from starlette.routing import Route

    pages = _Pages(urls, load(reports))

    @asynccontextmanager
    async def connected(_: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as open_clients:
            first, *others = [
                await open_clients.enter_async_context(made()) for made in (connect, *beside)
            ]
            pages.studio = Studio(first, others, Sources())
            yield

    routes = [
        Route("/", pages.home),
        Route("/models/{name}", pages.newest),
        Route("/models/{name}/{version:int}", pages.model),
        Route("/models/{name}/{version:int}/source", pages.source, methods=["POST"]),
        Route("/models/{name}/{version:int}/nearest", pages.nearest),
        Route("/nearest/{report:int}/{verdict:int}/{pair:int}", pages.training),
        Route("/tiles/{name}/{release}/{seeds}.png", pages.tile),
        Route("/files/{name}/{release}/{seeds}/{kind}", pages.file),
        Route("/static/{name}", pages.static),
    ]
    handlers: Any = {GalateaError: _failed, 404: _nothing}
    return Guard(Starlette(routes=routes, lifespan=connected, exception_handlers=handlers), token)


@dataclass
class _Pages:
    """The handlers; `studio` is there while the application runs."""

    urls: Sequence[str]
    reports: Sequence[Evaluated]
    studio: Studio | None = None

    async def home(self, request: Request) -> Response:
        cards = await self._studio.client.models()
        return _html(home_page(cards, _query(request), _version()))

    async def newest(self, request: Request) -> Response:
        card = await self._studio.newest(request.path_params["name"])
        return _see(address(("models", card.name, card.version), request.query_params.items()))

    async def model(self, request: Request) -> Response:
        view, cards = await self._view(request)
        there = view.address()
        if there != f"{request.url.path}{'?' if request.url.query else ''}{request.url.query}":
            return _see(there)  # one state has one address
        judged = of(view.card, self.reports) is not None
        return _html(model_page(view, cards, self.urls, _version(), judged=judged))

    async def nearest(self, request: Request) -> Response:
        card = await self._served(request)
        place = of(card, self.reports)
        if place is None:
            return await _nothing(request, None)
        return _html(nearest_page(card, self.reports[place], place, _version()))

    async def training(self, request: Request) -> Response:
        told = request.path_params
        if told["report"] >= len(self.reports):
            return await _nothing(request, None)
        content = await self.reports[told["report"]].picture(told["verdict"], told["pair"])
        answer = _bytes(content, "png")
        answer.headers["Cache-Control"] = "no-store"  # nothing in its address says of which report
        return answer

    async def source(self, request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            raise InvalidInput("the file is too large", f"give one of at most {LARGEST} bytes")
        async with request.form(max_files=1) as sent:
            file = sent.get("file")
            if file is None or isinstance(file, str):
                raise InvalidInput("there is no file", "choose a picture")
            digest = await self._studio.sources.add(file.filename or "picture", await file.read())
        card = await self._studio.newest(request.path_params["name"])
        return _see(address(("models", card.name, card.version), [("source", digest)]))

    async def tile(self, request: Request) -> Response:
        tile = await self._tile(request)
        content = await while_asked(_gone(request), self._studio.drawn(tile))
        return _bytes(b"", "png", 499) if content is None else _kept(request, content, "png")

    async def file(self, request: Request) -> Response:
        tile = await self._tile(request)
        samples = await self._studio.made(tile)
        kind = request.path_params["kind"]
        name, content = await asyncio.to_thread(written, samples, tile, kind)
        answer = _kept(request, content, name.rpartition(".")[2])
        answer.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
        return answer

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _static():
            return await _nothing(request, None)
        return _kept(request, _static()[name], name.rpartition(".")[2])

    @property
    def _studio(self) -> Studio:
        assert self.studio is not None
        return self.studio

    async def _view(self, request: Request) -> tuple[View, dict[str, ModelCard]]:
        card = await self._served(request)
        cards = await self._studio.comparable()
        return View.read(card, _query(request), cards), cards

    async def _served(self, request: Request) -> ModelCard:
        """The card of the model that an address names, in this version."""
        name, version = request.path_params["name"], request.path_params["version"]
        card = await self._studio.newest(name)
        if card.version != version:
            raise ModelUnavailable(
                f"{name} version {version} is not served, but version {card.version}",
                f"open /models/{name}",
            )
        return card

    async def _tile(self, request: Request) -> Tile:
        told = request.path_params
        card = await self._studio.card(told["name"], told["release"])
        return Tile.read(card, told["release"], told["seeds"], _query(request))


def _query(request: Request) -> Query:
    return Query(request.query_params)


async def _gone(request: Request) -> None:
    """Returns when the browser does not wait for the answer any more."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _html(text: str, status: int = 200) -> Response:
    from starlette.responses import HTMLResponse

    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def _see(there: str) -> Response:
    from starlette.responses import RedirectResponse

    return RedirectResponse(there, 303, {"Cache-Control": "no-store"})


def _bytes(content: bytes, ending: str, status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(content, status, media_type=TYPES[ending])


def _kept(request: Request, content: bytes, ending: str) -> Response:
    """An answer that stays the same for ever under its address."""
    tag_ = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    same = tag_ in request.headers.get("if-none-match", "")
    answer = _bytes(b"" if same else content, ending, 304 if same else 200)
    answer.headers["ETag"], answer.headers["Cache-Control"] = tag_, FOR_EVER
    return answer


async def _failed(request: Request, error: Any) -> Response:
    """A galatea error, for a person or for the script."""
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 502)
    return _told(request, status, error.problem, error.remedy)


async def _nothing(request: Request, _: Any) -> Response:
    return _told(request, 404, "there is no such page", "begin at /")


def _told(request: Request, status: int, problem: str, remedy: str) -> Response:
    from starlette.responses import PlainTextResponse

    if "text/html" not in request.headers.get("accept", ""):
        text = f"{problem}; {remedy}"
        return PlainTextResponse(text, status, {"Cache-Control": "no-store"})
    words = tag("p", problem, class_="problem", role="alert"), tag("p", "Try: ", remedy)
    again = tag("p", tag("a", "All models", href="/"))
    return _html(page("galatea", tag("h1", "This did not work"), *words, again,
                      version=_version()), status)  # fmt: skip


@cache
def _static() -> dict[str, bytes]:
    folder = resources.files("galatea.ui") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@cache
def _version() -> str:
    """Of the style and the script."""
    content = b"".join(_static()[name] for name in sorted(_static()))
    return hashlib.sha256(content).hexdigest()[:12]
