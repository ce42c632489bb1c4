"""The picture page in a browser: headless Chromium, driven by Playwright.

With ``GALATEA_SCREENSHOTS`` set to a folder, its pictures for the documentation go there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from galatea_server.server import EmbeddedServer
from support import wait_until
from ui_pages import add_models, page_of

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def server(
    phantom_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    root = tmp_path_factory.mktemp("browser") / "models"
    with EmbeddedServer(add_models(phantom_repository, root)) as running:
        yield running


@pytest.fixture(scope="module")
def address(server: EmbeddedServer) -> Iterator[str]:
    with page_of([server.grpc_url], patience=0, told=[]) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # As root, which runs the tests of containers, Chromium has no sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What a test may not leave behind: requests to other origins, and words on the console."""
    return []


@pytest.fixture
def visit(chromium: Any, address: str, complaints: list[str]) -> Iterator[Callable[..., Any]]:
    """Opens a page; what is not in order is collected."""
    contexts = []

    def open_page(path: str, **settings: Any) -> Any:
        context = chromium.new_context(viewport={"width": 1280, "height": 860}, **settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on(
            "request",
            lambda request: complaints.extend(
                [] if request.url.startswith(address) else [request.url]
            ),
        )
        tab.goto(f"{address}{path}")
        tab.wait_for_load_state("networkidle")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def settled(tab: Any) -> None:
    """Waits until the page has followed its form, and all pictures are there."""
    tab.wait_for_timeout(200)  # longer than the page waits for a further change
    tab.wait_for_load_state("networkidle")
    there = (
        "!document.querySelector('#shown[aria-busy]') && "
        "[...document.querySelectorAll('#shown img')].every(i => i.complete && i.naturalWidth)"
    )
    # Playwright's own waiting would eval, which the page's policy forbids.
    wait_until(lambda: bool(tab.evaluate(there)))


def pixels(tab: Any, k: int = 0) -> list[int]:
    """What the browser shows of a picture, as RGBA."""
    shown: list[int] = tab.evaluate(
        """k => {
          const img = document.querySelectorAll('#shown img')[k];
          const canvas = new OffscreenCanvas(img.naturalWidth, img.naturalHeight);
          const context = canvas.getContext('2d');
          context.drawImage(img, 0, 0);
          return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
        }""",
        k,
    )
    return shown


def slide(tab: Any, name: str, value: str) -> None:
    tab.locator(f"input[name={name}]").evaluate(
        "(field, value) => { field.value = value;"
        " field.dispatchEvent(new Event('input', { bubbles: true }));"
        " field.dispatchEvent(new Event('change', { bubbles: true })); }",
        value,
    )
    settled(tab)


def keep(tab: Any, name: str) -> None:
    """A picture for the documentation, where they are wanted."""
    if folder := os.environ.get("GALATEA_SCREENSHOTS"):
        path = Path(folder) / f"{name}.png"
        tab.screenshot(path=path)
        with Image.open(path) as shot:
            shot.convert("RGB").quantize(64).save(path, optimize=True)


def test_sliders_change_the_pixels_and_the_address_brings_them_back(
    visit: Callable[..., Any],
) -> None:
    tab = visit("/models/phantom?seed=3&n=4")
    still = pixels(tab)
    for name, value in (("d1", "2.5"), ("window", "90"), ("mask", "0.5")):
        before = pixels(tab)
        slide(tab, name, value)
        assert pixels(tab) != before, name
        assert f"{name}={value}" in tab.url
    assert "n=4&d1=2.5&window=90&mask=0.5" in tab.url
    again = visit(tab.url[tab.url.index("/models") :])
    assert again.url == tab.url
    assert pixels(again) == pixels(tab)
    for name, value in (("d1", "0"), ("window", "255"), ("mask", "0")):
        slide(again, name, value)
    assert pixels(again) == still


def test_labels_and_the_command_line_follow(visit: Callable[..., Any]) -> None:
    tab = visit("/models/phantom?seed=0&n=6")
    assert tab.locator("figcaption >> text=benign").count() == 3
    tab.select_option("select[name=label]", "malignant")
    settled(tab)
    assert tab.locator("figcaption >> text=malignant").count() == 6
    assert "--label=malignant" in tab.locator("#line").inner_text()
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("ArrowRight")
    settled(tab)
    assert "seed=6" in tab.url
    assert tab.locator("input[name=seed]").input_value() == "6"
    tab.go_back()
    settled(tab)
    assert "seed=0" in tab.url


def test_a_dropped_picture_is_translated(visit: Callable[..., Any], tmp_path: Path) -> None:
    scan = np.random.default_rng(5).integers(0, 256, (32, 32), np.uint8)
    Image.fromarray(scan).save(tmp_path / "scan.png")
    tab = visit("/models/negative")
    tab.set_input_files("#drop input[type=file]", tmp_path / "scan.png")
    tab.wait_for_url("**source=*")
    settled(tab)
    assert tab.locator("#shown img").count() == 2
    source, result = (np.array(pixels(tab, k)).reshape(32, 32, 4)[:, :, 0] for k in (0, 1))
    assert (source == scan).all()
    assert np.abs(result - (255 - scan)).max() <= 1


def test_without_a_script_forms_and_links_do(visit: Callable[..., Any], tmp_path: Path) -> None:
    tab = visit("/models/phantom?seed=0&n=4", java_script_enabled=False)
    tab.fill("input[name=seed]", "9")
    tab.select_option("select[name=label]", "benign")
    tab.click("#controls button")
    tab.wait_for_load_state("networkidle")
    assert re.search(r"\?seed=9&n=4&label=benign$", tab.url)
    tab.click("text=next")
    assert "seed=13" in tab.url
    Image.new("L", (32, 32)).save(tmp_path / "black.png")
    other = visit("/models/negative", java_script_enabled=False)
    other.set_input_files("#drop input[type=file]", tmp_path / "black.png")
    other.click("text=Translate")
    other.wait_for_load_state("networkidle")
    assert "source=" in other.url


@pytest.mark.parametrize(
    "path", ["/", "/models/phantom", "/models/phantom?mode=walk", "/models/negative"]
)
def test_pages_fit_wide_and_narrow_light_and_dark(visit: Callable[..., Any], path: str) -> None:
    tab = visit(path)
    for width in (1280, 360):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        ground, ink = tab.evaluate(
            "['backgroundColor', 'color'].map(k => getComputedStyle(document.body)[k]"
            ".match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + +b, 0))"
        )
        assert (ground > ink) == (scheme == "light")


def test_screenshots_of_the_documentation_are_made(visit: Callable[..., Any]) -> None:
    keep(visit("/?words=breast"), "pictures-home")
    tab = visit("/models/phantom?seed=0&n=12&mask=0.4")
    settled(tab)
    keep(tab, "pictures-seeds")
    tab = visit("/models/phantom?mode=walk&seeds=3,5,9&frames=12&label=malignant",
                color_scheme="dark")  # fmt: skip
    settled(tab)
    keep(tab, "pictures-walk")


def test_a_server_that_dies_is_told_of_on_the_page(
    visit: Callable[..., Any], server: EmbeddedServer, complaints: list[str]
) -> None:
    tab = visit("/models/phantom?seed=0&n=2")
    server.stop()
    tab.fill("input[name=seed]", "77")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".problem[role=alert]")
    assert server.grpc_url in tab.locator(".problem").inner_text()
    assert tab.locator("#shown img").count() == 2  # what was there stays
    # The browser itself tells of the status 503.
    assert all("503" in text for text in complaints)
    complaints.clear()
