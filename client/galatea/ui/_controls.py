"""The form of a model's page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from galatea.card import Input, ModelCard
from galatea.latents._latents import ranges
from galatea.ui import _settings
from galatea.ui._html import Html, tag
from galatea.ui._look import full
from galatea.ui._query import shortest
from galatea.ui._tile import FARTHEST, SLIDERS, depth, has_latents
from galatea.ui._view import MOST, View, modes

__all__ = ["form"]

STEPS = 200  # of a slider


def form(view: View, cards: Mapping[str, ModelCard]) -> Html:
    """Everything that can be chosen; without a script the button takes it."""
    groups = [
        _group("Images", *_images(view, cards)),
        _group("Conditions", *(_condition(view, i) for i in _settings.choosable(view.card))),
        _group("Shown as", *_look(view)),
    ]
    if view.mode == "grid" and has_latents(view.card):
        where = "styles w" if depth(view.card) else "latents z"
        note = tag("p", f"In standard deviations, along principal directions of the {where}.")
        groups.append(_group("Directions", note, *_directions(view)))
    usual = view.mode == modes(view.card)[0]
    return tag(
        "form",
        None if usual else tag("input", type="hidden", name="mode", value=view.mode),
        *[group for group in groups if group is not None],
        tag("input", type="hidden", name="source", value=view.source) if view.source else None,
        tag("button", "Show"),
        id="controls", method="get", action=f"/models/{view.card.name}/{view.card.version}",
    )  # fmt: skip


def _group(title: str, *fields: Html) -> Html | None:
    return tag("fieldset", tag("legend", title), *fields) if fields else None


def _images(view: View, cards: Mapping[str, ModelCard]) -> Iterator[Html]:
    if view.mode == "walk":
        yield _text("seeds", "Seeds", ",".join(map(str, view.seeds)))
        yield _number("frames", "Images", view.frames, 2, MOST)
        if depth(view.card):
            spaces = [("w", "straight, in styles w"), ("z", "on arcs, in latents z")]
            yield _select("space", "Way", view.space, spaces)
    elif view.mode == "mixing":
        yield _text("seeds", "Rows: seeds", ",".join(map(str, view.seeds)))
        yield _text("columns", "Columns: styles of seeds", ",".join(map(str, view.columns)))
        hint = f"Layers, of 0-{depth(view.card) - 1}"
        yield _text("layers", hint, ranges(view.layers))
    elif view.mode == "translate":
        if any(entry.name == "seed" for entry in view.card.inputs):
            yield _number("seed", "First seed", view.seed)
            yield _number("n", "Number", view.n, 1, MOST)
    else:
        yield _number("seed", "First seed", view.seed)
        yield _number("n", "Number", view.n, 1, MOST)
        others = [
            (name, f"{card.name} version {card.version}" + (", other server" * ("@" in name)))
            for name, card in cards.items()
            if name != view.card.name
        ]
        if others:
            yield _select("with", "Beside", view.beside, [("", "no other model"), *others])


def _condition(view: View, entry: Input) -> Html:
    name, title = _settings.key(entry.name), entry.name.replace("_", " ")
    given = view.settings.get(entry.name)
    if entry.labels:
        first = ("", "in turn" if view.mode == "grid" else f"the first: {entry.labels[0]}")
        classes = [(label, label) for label in entry.labels]
        return _select(name, title, "" if given is None else str(given), [first, *classes])
    if entry.choices:
        options = [(choice, choice) for choice in entry.choices]
        return _select(name, title, str(given or entry.default or entry.choices[0]), options)
    if entry.dtype == "BYTES":
        return _text(name, title, str(given or ""), placeholder=str(entry.default or ""))
    value = entry.default if given is None else given
    low, high = entry.minimum, entry.maximum
    if entry.dtype == "FP32" and None not in (low, high, value):
        return _condition_range(name, title, float(value or 0), float(low or 0), float(high or 0))
    step = "any" if entry.dtype == "FP32" else "1"
    hint = "drawn by the seed" if low is not None and high is not None else ""
    return _number(name, title, value, low, high, step, hint)


def _condition_range(name: str, title: str, value: float, low: float, high: float) -> Html:
    step = (high - low) / STEPS
    # A browser would move a value that lies between two steps.
    fits = step > 0 and abs((value - low) / step - round((value - low) / step)) < 1e-6
    return _range(name, title, value, low, high, shortest(step) if fits else "any")


def _look(view: View) -> Iterator[Html]:
    card, look = view.card, view.look
    channels = card.image.channels
    if len(channels) > 1:
        options = [("", "all"), *((str(k), name) for k, name in enumerate(channels))]
        chosen = "" if look.channel is None else str(look.channel)
        yield _select("channel", "Channel", chosen, options)
    top = full(card)
    level = top / 2 if look.level is None else look.level
    yield _range("level", "Level", level, 0, top, "any" if top <= 1 else "0.5")
    window = top if look.window is None else look.window
    yield _range("window", "Window", window, top / 255, top, "any" if top <= 1 else "1")
    if card.mask is not None:
        yield _range("mask", "Mask", look.mask, 0, 1, "0.05")


def _directions(view: View) -> Iterator[Html]:
    for k in range(SLIDERS):
        value = view.moves[k] if k < len(view.moves) else 0.0
        yield _range(f"d{k + 1}", f"Direction {k + 1}", value, -FARTHEST, FARTHEST, "0.1")


def _text(name: str, title: str, value: str, placeholder: str = "") -> Html:
    field = tag("input", type="text", name=name, value=value, placeholder=placeholder or None)
    return tag("label", tag("span", title), field)


def _number(
    name: str,
    title: str,
    value: float | int | str | None,
    low: float | None = None,
    high: float | None = None,
    step: str = "1",
    placeholder: str = "",
) -> Html:
    field = tag(
        "input", type="number", name=name, value=value, min=low, max=high, step=step,
        placeholder=placeholder or None,
    )  # fmt: skip
    return tag("label", tag("span", title), field)


def _range(name: str, title: str, value: float, low: float, high: float, step: str) -> Html:
    field = tag(
        "input", type="range", name=name, value=shortest(value), min=shortest(low),
        max=shortest(high), step=step,
    )  # fmt: skip
    return tag("label", tag("span", title), tag("output", shortest(value)), field)


def _select(name: str, title: str, chosen: str, options: Sequence[tuple[str, str]]) -> Html:
    entries = [
        tag("option", text, value=value, selected=value == chosen) for value, text in options
    ]
    return tag("label", tag("span", title), tag("select", *entries, name=name))
