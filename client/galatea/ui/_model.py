"""The page of a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence

from galatea import _png
from galatea._conditions import needs_seed
from galatea.card import ModelCard
from galatea.ui import _settings
from galatea.ui._command import line
from galatea.ui._controls import form
from galatea.ui._facts import facts, summary
from galatea.ui._html import Html, page, tag
from galatea.ui._tile import Tile
from galatea.ui._view import View, modes

__all__ = ["model_page"]

DTYPES = {"UINT8": "uint8", "UINT16": "uint16", "FP32": "float32"}
TITLES = {"grid": "Seeds", "walk": "Interpolation", "mixing": "Style mixing"}


def model_page(
    view: View,
    cards: Mapping[str, ModelCard],
    urls: Sequence[str],
    version: str,
    *,
    judged: bool = False,
) -> str:
    """HTML of a view.

    Args:
        cards: of the models that may stand beside this one.
        urls: of the servers.
        version: of the style and the script.
        judged: there is a page with the nearest training images.
    """
    card = view.card
    return page(
        f"{card.name} – galatea",
        tag("h1", card.title or card.name),
        tag("p", f"{card.name} version {card.version} · {summary(card)}", class_="note"),
        _tabs(view, judged),
        tag("div", form(view, cards), tag("div", *_bench(view, urls)), class_="bench"),
        tag("details", tag("summary", "Model card"), facts(card)),
        version=version,
    )


def _tabs(view: View, judged: bool) -> Html | None:
    names = modes(view.card)
    if len(names) < 2 and not judged:
        return None
    links = [
        tag("a", TITLES[mode], href=view.in_mode(mode),
            aria_current="page" if mode == view.mode else None)
        for mode in names
    ]  # fmt: skip
    if judged:
        there = f"/models/{view.card.name}/{view.card.version}/nearest"
        links.append(tag("a", "Nearest real images", href=there))
    return tag("nav", *links, class_="tabs", aria_label="What is shown")


def _bench(view: View, urls: Sequence[str]) -> Iterator[Html]:
    if view.mode == "translate":
        yield _drop(view)
    yield tag("div", *_shown(view, urls), id="shown")


def _shown(view: View, urls: Sequence[str]) -> Iterator[Html]:
    """What changes with the form."""
    if needed := _settings.missing(view.card, view.settings):
        names = ", ".join(entry.name.replace("_", " ") for entry in needed)
        yield tag("p", f"Choose first: {names}.", role="status")
        return
    if view.mode == "mixing":
        yield _sheet(view)
    else:
        across = "pairs" if view.other is not None else "tiles"
        yield tag("div", *(_figure(tile, view) for tile in view.tiles()), class_=across)
    earlier, later = view.turned(-1), view.turned(1)
    if earlier and later:
        yield tag(
            "nav",
            tag("a", "← previous", href=earlier, rel="prev"),
            tag("a", "next →", href=later, rel="next"),
            aria_label="Seeds",
        )
    command = line(view, urls)
    why = "No single command makes these images; their PNG files tell how they were made."
    yield (
        tag("p", "The same on the command line: ", tag("code", command, id="line"))
        if command
        else tag("p", why, class_="note")
    )


def _drop(view: View) -> Html:
    """Where a file is given to a model that translates pictures."""
    here = f"/models/{view.card.name}/{view.card.version}/source"
    source = view.card.source_picture
    assert source is not None
    wanted = ", ".join(source.channels) or "one channel"
    return tag(
        "form",
        tag("label", tag("span", f"Drop a picture here, or choose a file ({wanted})"),
            tag("input", type="file", name="file", required=True)),
        tag("button", "Translate"),
        tag("p", role="status"),
        id="drop", method="post", enctype="multipart/form-data", action=here,
    )  # fmt: skip


def _sheet(view: View) -> Html:
    """A table: in each row the image of a seed with some styles of the column's."""
    tiles = iter(view.tiles())

    def alone(seed: int) -> Html:
        settings = _settings.of_place(view.card, view.settings, 0)
        return _picture(Tile(view.card, (seed,), settings, look=view.look))

    head = [tag("th", tag("span", f"{seed}"), alone(seed), scope="col") for seed in view.columns]
    rows = [
        tag(
            "tr",
            tag("th", tag("span", f"{seed}"), alone(seed), scope="row"),
            *(tag("td", _picture(next(tiles))) for _ in view.columns),
        )
        for seed in view.seeds
    ]
    top = tag("tr", tag("th", "rows with styles of columns"), *head)
    return tag("div", tag("table", top, *rows), class_="sheet")


def _figure(tile: Tile, view: View) -> Html:
    if tile.shows_source:
        return tag("figure", _picture(tile), tag("figcaption", "as the model took it"))
    links = [tag("a", "file", href=tile.file("image"), download=True)]
    if tile.card.mask is not None:
        links.append(tag("a", "mask", href=tile.file("mask"), download=True))
    if _is_dicom(tile):
        links.append(tag("a", "DICOM", href=tile.file("dicom"), download=True))
    name = f"{tile.card.name} version {tile.card.version}, " if view.other is not None else ""
    caption = tag("figcaption", tag("span", name, _told(tile)), *links)
    return tag("figure", _picture(tile), caption)


def _picture(tile: Tile) -> Html:
    height, width = (side if side > 0 else None for side in tile.card.image.shape[:2])
    flat = len(tile.card.image.shape) == 3 and len(tile.card.image.channels) in (1, 3)
    sized = {"width": width, "height": height} if flat else {}
    alt = f"synthetic image of {tile.card.name}: {_told(tile)}"
    return tag("img", src=tile.address(), alt=alt, **sized)


def _told(tile: Tile) -> str:
    if tile.frames:
        return f"{tile.frame + 1} of {tile.frames}"
    if tile.layers:
        return f"seed {tile.seeds[0]} with styles of {tile.seeds[1]}"
    label = tile.settings.get("label")
    seeded = not tile.source or needs_seed(tile.card, tile.settings)
    parts = ["translated" if tile.source else "", f"seed {tile.seeds[0]}" if seeded else ""]
    parts.append("" if label is None else str(label))
    return " · ".join(part for part in parts if part)


def _is_dicom(tile: Tile) -> bool:
    """Whether the image can be kept as DICOM, here: it is of one seed, and pydicom is there."""
    image = tile.card.image
    fits = len(image.shape) == 3 and _png.fits(DTYPES[image.dtype], image.shape[-1])
    plain = not (tile.frames or tile.layers or tile.source or any(tile.moves))
    return fits and plain and importlib.util.find_spec("highdicom") is not None
