"""HTML from Python, escaped unless it is HTML already."""

from __future__ import annotations

from html import escape

__all__ = ["Html", "page", "tag"]

VOID = {"br", "img", "input", "link", "meta"}  # elements that have no end


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | None


def tag(name: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Html:
    """An element.

    Args:
        name: of the element.
        content: texts, which are escaped, and elements; None is nothing.
        attributes: ``for_`` and ``class_`` are written without their underscore, others with a
            hyphen for it; False and None leave one out, True writes its name alone.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    inside = joined(*content)
    return Html(f"<{name}{written}>" + ("" if name in VOID else f"{inside}</{name}>"))


def joined(*content: Content) -> Html:
    """Texts and elements one after the other."""
    return Html(
        "".join(
            entry if isinstance(entry, Html) else escape(str(entry))
            for entry in content
            if entry is not None
        )
    )


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def page(title: str, *content: Content, version: str) -> str:
    """A whole page.

    Args:
        title: of the window.
        content: of ``main``.
        version: of the style and the script, so that they may be kept for ever.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href=f"/static/galatea.svg?{version}"),
        tag("link", rel="stylesheet", href=f"/static/galatea.css?{version}"),
        tag("script", src=f"/static/galatea.js?{version}", defer=True),
    )
    top = tag("header", tag("a", "galatea", href="/"), tag("span", "synthetic images, no patients"))
    body = tag("body", top, tag("main", *content))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"
