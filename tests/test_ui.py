"""The picture page over HTTP, on a real server: what an address says is what is shown."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread

from galatea import AsyncClient, Client, Input, InvalidInput
from galatea.evaluation import Memorisation, Pair, Report, Served
from galatea.ui import application
from galatea.ui._query import Query
from galatea.ui._studio import while_asked
from galatea.ui._view import View
from galatea_exporter.export import Facts, export
from galatea_exporter.family import find_family
from galatea_server.server import EmbeddedServer
from support import INTERRUPTIBLE
from ui_pages import add_models, page_of

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def server(
    phantom_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    root = tmp_path_factory.mktemp("ui") / "models"
    with EmbeddedServer(add_models(phantom_repository, root, "stylegan2")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected


@pytest.fixture(scope="module")
def web(server: EmbeddedServer) -> Iterator[httpx.Client]:
    with (
        page_of([server.grpc_url]) as address,
        httpx.Client(base_url=address, timeout=60, headers=HTML) as browser,
    ):
        yield browser


def images_of(page: str) -> list[str]:
    """Addresses of the pictures of a page."""
    return [unescape(src) for src in re.findall(r'<img src="([^"]+)"', page)]


def links_of(page: str, text: str) -> list[str]:
    return [unescape(href) for href in re.findall(rf'href="([^"]+)"[^>]*>{text}</a>', page)]


def page(web: httpx.Client, address: str) -> str:
    answer = web.get(address, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    return answer.text


def picture(web: httpx.Client, address: str) -> NDArray[np.uint8]:
    answer = web.get(address)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_the_home_page_shows_what_is_served_and_what_is_known(web: httpx.Client) -> None:
    home = page(web, "/")
    for text in ("Phantom breast masses with masks", "Apache-2.0", "stylegan2", "negative",
                 "galatea import 00001_DCGAN_MMG_CALC_ROI", "FID 67.6"):  # fmt: skip
        assert text in home, text
    assert len(images_of(home)) == 8  # of the two models that make images of seeds
    found = page(web, "/?words=calcifications&licence=MIT")
    assert "00001_DCGAN" in found
    assert "nothing that is served matches" in found
    assert web.get("/", params={"size": "huge"}).status_code == 400


def test_a_grid_shows_the_images_that_the_client_samples(web: httpx.Client, client: Client) -> None:
    expected = client.sample("phantom", 3, seed=7)
    tiles = images_of(page(web, "/models/phantom?seed=7&n=3"))
    assert len(tiles) == 3
    for tile, image in zip(tiles, expected.images, strict=True):
        assert (picture(web, tile) == image[:, :, 0]).all()


def test_labels_and_truncation_are_those_that_were_asked_for(
    web: httpx.Client, client: Client
) -> None:
    expected = client.sample("stylegan2", 2, seed=4, labels=1, truncation=0.5)
    tiles = images_of(page(web, "/models/stylegan2?seed=4&n=2&label=class+1&truncation=0.50"))
    assert all("label=class+1&truncation=0.5" in tile for tile in tiles)
    for tile, image in zip(tiles, expected.images, strict=True):
        assert (picture(web, tile) == image).all()


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ("/models/phantom", "/models/phantom/1?seed=0&n=12"),
        ("/models/phantom/1?mask=0.50&label=1&n=03&seed=7&level=127.5&nonsense=1",
         "/models/phantom/1?seed=7&n=3&label=malignant&mask=0.5"),
        ("/models/stylegan2/1?label=&truncation=1&d3=0.0&d1=1.50",
         "/models/stylegan2/1?seed=0&n=12&d1=1.5"),
        ("/models/stylegan2/1?mode=mixing&seeds=3+4",
         "/models/stylegan2/1?mode=mixing&seeds=3,4&columns=3,4&layers=4-7"),
    ],
)  # fmt: skip
def test_one_state_has_one_address(web: httpx.Client, asked: str, there: str) -> None:
    answer = web.get(asked, follow_redirects=True)
    assert urljoin(str(web.base_url), there) == str(answer.url)


def test_a_tile_never_changes_under_its_address(web: httpx.Client) -> None:
    (tile,) = images_of(page(web, "/models/phantom?n=1"))
    first = web.get(tile)
    assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
    again = web.get(tile, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert web.get(tile).content == first.content
    name, release = tile.split("/")[2:4]
    stale = web.get(tile.replace(release, "1-000000000000"))
    assert stale.status_code == 404
    assert f"open /models/{name}" in stale.text


def test_window_channel_and_mask_are_shown_as_chosen(web: httpx.Client, client: Client) -> None:
    sampled = client.sample("phantom", 1, seed=3, labels="malignant")
    assert sampled.masks is not None
    grey, mask = sampled.images[0, :, :, 0].astype(float), sampled.masks[0, :, :, 0] > 0
    base = "/models/phantom?seed=3&n=1&label=malignant"
    (tile,) = images_of(page(web, f"{base}&level=100&window=50"))
    expected = np.rint(((grey - 75) / 50).clip(0, 1) * 255)
    assert np.abs(picture(web, tile) - expected).max() <= 1
    (tile,) = images_of(page(web, f"{base}&mask=1"))
    shown = picture(web, tile)
    assert (shown[mask] == (255, 80, 60)).all()
    assert (shown[~mask] == grey[~mask][:, None]).all()
    colours = client.sample("stylegan2", 1, seed=3, labels=0).images[0]
    (tile,) = images_of(page(web, "/models/stylegan2?seed=3&n=1&label=class+0&channel=2"))
    assert (picture(web, tile) == colours[:, :, 2]).all()


def test_downloads_are_the_files_of_galatea_sample(
    web: httpx.Client, client: Client, tmp_path: Path
) -> None:
    sampled = client.sample("phantom", 1, seed=7, labels="malignant")
    (path,) = sampled.save(tmp_path)
    shown = page(web, "/models/phantom?seed=7&n=1&label=malignant&mask=1&window=20")
    (file,), (mask,), (dicom,) = (links_of(shown, text) for text in ("file", "mask", "DICOM"))
    answer = web.get(file)
    assert answer.content == path.read_bytes()
    assert path.name in answer.headers["content-disposition"]
    assert web.get(mask).content == path.with_name(f"{path.stem}-mask.png").read_bytes()
    content = web.get(dicom).content
    assert content == web.get(dicom).content
    dataset = dcmread(io.BytesIO(content))
    assert dataset.SyntheticData == "YES"
    assert (dataset.pixel_array == sampled.images[0, :, :, 0]).all()


def test_the_command_line_of_a_view_makes_its_images(web: httpx.Client, tmp_path: Path) -> None:
    shown = page(web, "/models/stylegan2?seed=-5&n=2&truncation=0.7&label=class+1")
    (line,) = re.findall(r'<code id="line">(.*?)</code>', shown)
    command, *words = shlex.split(unescape(line))
    assert command == "galatea"
    subprocess.run([sys.executable, "-m", "galatea", *words], cwd=tmp_path, check=True)
    made = sorted(path.read_bytes() for path in (tmp_path / "samples").iterdir())
    assert made == sorted(web.get(file).content for file in links_of(shown, "file"))


def test_a_walk_is_that_of_the_client(web: httpx.Client, client: Client) -> None:
    keys = client.latent("stylegan2", [1, 2, 3], space="w", label=1)
    expected = client.synthesise("stylegan2", keys.interpolate(5))
    shown = page(web, "/models/stylegan2?mode=walk&seeds=1,2,3&frames=5&label=class+1")
    for tile, image in zip(images_of(shown), expected.images, strict=True):
        assert (picture(web, tile) == image).all()
    line = "galatea interpolate stylegan2 --seeds=1,2,3 --frames 5 --space w '--label=class 1'"
    assert line in unescape(shown)


def test_styles_are_mixed_in_rows_and_columns(web: httpx.Client, client: Client) -> None:
    keys = client.latent("stylegan2", [1, 2, 9], space="w", label=0)
    mixed = keys[[0, 1]].mix(keys[[2]], range(4, 8))
    expected = client.synthesise("stylegan2", mixed)
    shown = page(web, "/models/stylegan2?mode=mixing&seeds=1,2&columns=9&layers=4-7")
    tiles = [tile for tile in images_of(shown) if "layers=" in tile]
    for tile, image in zip(tiles, expected.images, strict=True):
        assert (picture(web, tile) == image).all()
    assert len(images_of(shown)) == 2 + 2 + 1  # with those of the seeds themselves


@pytest.mark.parametrize("name", ["phantom", "stylegan2"])
def test_directions_move_images_and_nothing_moves_them_back(web: httpx.Client, name: str) -> None:
    def shown(query: str) -> NDArray[np.uint8]:
        (tile,) = images_of(page(web, f"/models/{name}?seed=1&n=1{query}"))
        return picture(web, tile).astype(int)

    still = shown("")
    near, far = (np.abs(shown(f"&d1={k}") - still).mean() for k in (0.5, 3))
    assert 0 < near < far
    # The first direction changes more than a later one.
    assert far > np.abs(shown("&d8=3") - still).mean()
    assert "No single command" in page(web, f"/models/{name}?d1=3")


def test_two_models_show_the_same_seeds_side_by_side(web: httpx.Client) -> None:
    tiles = images_of(page(web, "/models/phantom?seed=5&n=2&with=stylegan2&label=malignant"))
    assert [tile.split("/")[2] for tile in tiles] == ["phantom", "stylegan2"] * 2
    assert [tile.split("/")[4].partition(".")[0] for tile in tiles] == ["5", "5", "6", "6"]
    assert all(web.get(tile).status_code == 200 for tile in tiles)


def test_a_picture_is_translated_and_shown_beside_its_result(web: httpx.Client) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 20), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    files = {"file": ("../a scan.png", buffer.getvalue())}
    answer = web.post("/models/negative/1/source", files=files, follow_redirects=True)
    assert answer.status_code == 200
    source, result = images_of(answer.text)
    assert (picture(web, source) == pixels).all()
    assert np.abs(picture(web, result).astype(int) - (255 - pixels)).max() <= 1
    wrong = web.post("/models/negative/1/source", files={"file": ("a.png", b"nothing")})
    assert wrong.status_code == 400
    assert "a.png" in wrong.text
    assert "galatea-ui-" not in wrong.text
    gone = web.get(result.replace("source=", "source=0"))
    assert gone.status_code == 400
    assert "drop its file again" in gone.text


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/models/phantom/1?label=huge", 400, "benign (0), malignant (1)"),
        ("/models/stylegan2/1?truncation=9", 400, "at most 2"),
        ("/models/phantom/1?seed=x", 400, "whole number"),
        ("/models/phantom/1?n=1000", 400, "from 1 to 64"),
        ("/models/phantom/1?mode=mixing", 400, "grid, walk"),
        ("/models/stylegan2/1?mode=mixing&layers=8", 400, "0-7"),
        ("/models/phantom/1?d1=nan", 400, "number"),
        ("/models/phantom/1?seed=<script>", 400, "&lt;script&gt;"),
        ("/models/phantom/7", 404, "version 1"),
        ("/models/nobody", 404, "phantom"),
        ("/static/../pyproject.toml", 404, "no such page"),
        ("/nowhere", 404, "no such page"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(
    web: httpx.Client, address: str, status: int, words: str
) -> None:
    answer = web.get(address, follow_redirects=True)
    assert answer.status_code == status
    assert words in answer.text
    assert "This did not work" in answer.text
    assert "<script>" not in answer.text


def test_without_a_token_only_addresses_of_this_machine_and_no_other_site_get_in(
    web: httpx.Client,
) -> None:
    port = web.base_url.port
    for host, status in (("localhost", 200), ("evil.example", 421), ("127.0.0.1.evil", 421)):
        assert web.get("/", headers={"Host": f"{host}:{port}"}).status_code == status, host
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert web.get("/models/phantom/1", headers=image).status_code == 403
    led = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert web.get("/", headers=led).status_code == 200
    foreign = {"Origin": "http://evil.example"}
    assert web.post("/models/negative/1/source", headers=foreign).status_code == 403


def test_every_answer_keeps_foreign_content_out(web: httpx.Client) -> None:
    for address in ("/", "/nowhere", "/models/phantom", "/static/galatea.css"):
        policy = web.get(address).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert web.get(address).headers["x-content-type-options"] == "nosniff"
    home = page(web, "/")
    assert not re.search(r"\sstyle=|\son[a-z]+=|<script>|https?://", home.split("<main>")[0])


def test_with_a_token_nobody_else_gets_in(server: EmbeddedServer) -> None:
    token = hashlib.sha256(b"a test").hexdigest()
    with (
        page_of([server.grpc_url], token=token) as address,
        httpx.Client(base_url=address, headers={"Host": "a-node:80"}) as browser,
    ):
        for wrong in ("/", "/?token=wrong", "/static/galatea.css"):
            assert browser.get(wrong).status_code == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert browser.get("/", headers=bearer).status_code == 200
        opened = browser.get(f"/models/phantom/1?token={token}&n=2")
        assert (opened.status_code, opened.headers["location"]) == (303, "/models/phantom/1?n=2")
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        seen = {"Cookie": cookie.partition(";")[0]}
        assert browser.get("/", headers=seen).status_code == 200
        assert browser.get("/", headers={"Cookie": "galatea_token=wrong"}).status_code == 401


def test_two_versions_on_two_servers_show_the_same_seeds_and_one_that_dies_is_told_of(
    server: EmbeddedServer, client: Client, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    masses = find_family("dcgan_mammo")
    facts = Facts(options={"labels": ["benign", "malignant"], "mask_channel": 1})
    path = masses.save(masses.example(), tmp_path / "checkpoint")
    export(masses.name, path, name="phantom", version=2, repository=root, facts=facts)
    with (
        EmbeddedServer(root) as other,
        page_of([server.grpc_url], beside=[other.grpc_url], patience=0) as address,
        httpx.Client(base_url=address, timeout=60, headers=HTML) as browser,
    ):
        shown = page(browser, "/models/phantom?seed=3&n=2")
        (name,) = re.findall(r'value="(phantom@2-[0-9a-f]{12})"', shown)
        assert "phantom version 2, other server" in shown
        here = f"/models/phantom/1?seed=3&n=2&label=malignant&with={name}"
        tiles = images_of(page(browser, here))
        assert [tile.split("/")[3][:2] for tile in tiles] == ["1-", "2-", "1-", "2-"]
        with Client(other.grpc_url) as second:
            for which, places in ((client, (0, 2)), (second, (1, 3))):
                expected = which.sample("phantom", 2, seed=3, labels="malignant").images
                for place, image in zip(places, expected, strict=True):
                    assert (picture(browser, tiles[place]) == image.squeeze()).all()
        other.stop()
        assert browser.get("/models/phantom/1?seed=3&n=2").status_code == 200
        gone = browser.get(tiles[1].replace("/3.png", "/99.png"))
        assert gone.status_code == 503
        assert other.grpc_url in gone.text


def test_a_server_that_is_gone_is_told_of(phantom_repository: Path) -> None:
    with (
        EmbeddedServer(phantom_repository) as server,
        page_of([server.grpc_url], patience=0) as address,
    ):
        grid = httpx.get(f"{address}/models/phantom/1?seed=0&n=1", headers=HTML).text
        server.stop()
        for path in ("/", *images_of(grid)):
            answer = httpx.get(f"{address}{path}", timeout=60)
            assert answer.status_code == 503
            assert server.grpc_url in answer.text


def test_a_condition_with_the_name_of_a_control_has_an_address_of_its_own(client: Client) -> None:
    opacity = Input("mask", "FP32", default=0.0, minimum=0.0, maximum=1.0)
    card = replace(client.model("phantom"), inputs=(opacity,))
    view = View.read(card, Query({"set.mask": "0.50", "mask": "0.25"}), {})
    assert view.settings == {"mask": 0.5}
    assert view.look.mask == 0.25
    assert view.address().endswith("&set.mask=0.5&mask=0.25")


def test_an_image_that_nobody_waits_for_is_given_up() -> None:
    async def nobody_waits() -> bool:
        begun = asyncio.Event()
        work = asyncio.create_task(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(begun.set)

        async def gone() -> None:
            await begun.wait()

        return await while_asked(gone(), work) is None and work.cancelled()

    assert asyncio.run(nobody_waits())


def test_nearest_training_images_are_those_of_the_report(
    server: EmbeddedServer, client: Client, tmp_path: Path
) -> None:
    sampled = client.sample("phantom", 6, seed=3)
    Image.fromarray(sampled.images[1, :, :, 0]).save(tmp_path / "scan.png")
    card = client.model("phantom")
    pairs = tuple(
        Pair(f"seed {seed}", name, 0.5, 0.1, seed == 4) for seed, name in ((4, "scan"), (6, "gone"))
    )
    facts = Served(client, "phantom", 6, 3).facts()
    train = {"kind": "folder", "path": str(tmp_path), "axis": "axial"}
    verdict = Memorisation("an-extractor", "levels", 1, 100, 6, 5.0, 4.0, 1, pairs)
    report = Report("phantom", "", "", {}, facts, train, train, (), {}, (), (verdict,))
    (tmp_path / "report.json").write_bytes(report.to_json())
    with (
        page_of([server.grpc_url], reports=[tmp_path]) as address,
        httpx.Client(base_url=address, headers=HTML) as browser,
    ):
        assert links_of(page(browser, "/models/phantom"), "Nearest real images")
        shown = page(browser, f"/models/phantom/{card.version}/nearest")
        assert "1 of 6 images are memorised" in shown
        synthetic, training, _, missing = images_of(shown)
        # The class is that of the image's place in the evaluation.
        assert (picture(browser, synthetic) == sampled.images[1, :, :, 0]).all()
        assert (picture(browser, training) == picture(browser, synthetic)).all()
        assert browser.get(missing).status_code == 400
        assert browser.get("/models/stylegan2/1/nearest").status_code == 404
    (tmp_path / "report.json").write_bytes(replace(report, memorisation=()).to_json())
    with pytest.raises(InvalidInput, match="no nearest images"):
        application(lambda: AsyncClient(server.grpc_url), reports=[tmp_path])


def test_the_command_prints_the_address_and_ends_on_ctrl_c(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    command = [*INTERRUPTIBLE, "ui", "--port", "0", "--url", server.grpc_url]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        url = json.loads("".join(lines))["url"]
        assert "Phantom" in httpx.get(url).text
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
    token = tmp_path / "token"
    token.write_text("short")
    for extra, code in ((["--page-token", str(token)], 5), (["--host", "203.0.113.1"], 1)):
        done = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
