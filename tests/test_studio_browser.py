"""The page of `copgen studio` in a real browser, which reaches nothing but the studio."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from copgen_processes import copgen
from PIL import Image
from rasterio.warp import transform_bounds
from sample_commands import call_copgen, one_thread, save_picture
from studio_servers import CELL, PATCH, REGION, Client, Workplace, make_workplace, png_of_80_megapixels, studio

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no name leads anywhere
]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
DRAWING = re.compile("Drawing: [1-9]")
PATIENCE = 60_000
"""Milliseconds; a page that is well answers in a fraction."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def client(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with one_thread(), studio(place, tmp_path_factory.mktemp("output"), most_steps=999) as client:
        yield client


def unlike(one: np.ndarray, other: np.ndarray) -> float:
    """Grey levels by which screenshots differ on average; an edge may fall on the one or the other side of a pixel."""
    height, width = np.minimum(one.shape, other.shape)[:2]
    return float(np.abs(one[:height, :width].astype(float) - other[:height, :width]).mean())


class Page:
    """A tab that is open at a studio, and what went wrong in it."""

    def __init__(self, browser, client: Client, address: str = "/", **options) -> None:
        self.context = browser.new_context(locale="en", **options)
        self.context.set_default_timeout(PATIENCE)
        self.tab = self.context.new_page()
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.context.route(lambda url: not url.startswith((client.url, "blob:", "data:")), self._refuse)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda said: self.errors.append(said.text) if "Content Security" in said.text else None)
        self.tab.goto(client.url + address)
        self.tab.wait_for_selector("html[data-ready]")

    def _refuse(self, route) -> None:
        self.foreign.append(route.request.url)
        route.abort()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def click_map(self, list_: str) -> None:
        """Near the middle of the map, once what is there has been drawn, until it chooses something of a list."""
        box = self.tab.locator("#map").bounding_box()
        assert box is not None
        for _ in range(30):
            self.tab.mouse.click(box["x"] + box["width"] / 2 + 25, box["y"] + box["height"] / 2 + 25)
            if self.tab.eval_on_selector(list_, "list => list.value"):
                return
            self.tab.wait_for_timeout(500)
        raise AssertionError(f"no click on the map chose anything of {list_}")

    def roles(self, **roles: str) -> None:
        for modality, role in roles.items():
            self.tab.check(f"#role-{modality}-{role}")

    def draw(self) -> None:
        self.tab.click("#draw")
        self.tab.wait_for_selector("#result:not([hidden]) img")

    def ask_for_long(self, steps: int = 999) -> None:
        """Far from done when the next line of a test runs."""
        self.tab.click("#ask summary")
        self.tab.fill("#n_samples", "16")
        self.tab.fill("#steps-number", str(steps))
        self.tab.click("#draw")

    def drop(self, file: Path, modality: str) -> None:
        self.drop_on(f"tr[data-modality={modality}]", file)

    def drop_on(self, selector: str, file: Path) -> None:
        """As from a window of files: through the browser's own handling of input."""
        line = self.tab.locator(selector)
        line.scroll_into_view_if_needed()
        box = line.bounding_box()
        assert box is not None
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        session = self.context.new_cdp_session(self.tab)
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
        session.detach()

    def download(self, words: str) -> bytes:
        """By the first link of these words."""
        with self.tab.expect_download() as started:
            self.tab.locator("#files a", has_text=words).first.click()
        return Path(started.value.path()).read_bytes()

    def tab_to(self, selector: str) -> None:
        """Press Tab until the focus is there."""
        for _ in range(60):
            if self.tab.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            self.tab.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {selector}")

    def map_at_rest(self, other_than: np.ndarray | None = None) -> np.ndarray:
        """Pixels of the map, once three looks in a row show the same, and not what it was before."""
        last, same = None, 0
        for _ in range(100):
            with Image.open(io.BytesIO(self.tab.locator("#map canvas").screenshot())) as shown:
                now = np.asarray(shown.convert("RGB"))
            same = same + 1 if last is not None and unlike(now, last) == 0 else 0
            if same == 2 and (other_than is None or unlike(now, other_than) > 1):
                return now
            last = now
            self.tab.wait_for_timeout(100)
        raise AssertionError("the map does not come to rest")

    def says(self, selector: str, words: str | re.Pattern[str]) -> None:
        """Wait until it does."""
        playwright.expect(self.tab.locator(selector)).to_contain_text(words, timeout=PATIENCE)

    def text(self, selector: str) -> str:
        return self.tab.locator(selector).inner_text()


def run_again(command: list[str], folder: Path, monkeypatch, capsys) -> Path:
    """Run a told command line in a folder; where it put its pictures."""
    monkeypatch.chdir(folder)
    assert command[0] == "copgen"
    assert call_copgen(capsys, *command[1:]).code == 0
    return folder / "outputs/from-studio"


def test_from_a_click_on_the_map_to_a_geotiff_in_its_place_and_the_command_that_makes_it_again(
    browser, client, tmp_path, monkeypatch, capsys
):
    with Page(browser, client, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.click_map("#cell")
        assert page.tab.eval_on_selector("#cell", "list => list.value") == CELL
        page.tab.select_option("#patch", PATCH)
        page.roles(s1_rtc="given", dem="wanted", s2_l2a="wanted")
        page.tab.fill("#n_samples", "2")
        page.tab.check("#spread")
        page.draw()

        assert page.tab.locator("#pictures img").count() == 8  # two samples, mean and deviation, of each
        assert "synthetic" in page.text(".banner")
        page.tab.focus("#swipe-at")
        before = page.tab.eval_on_selector("#over", "image => getComputedStyle(image).clipPath")
        page.tab.keyboard.press("End")
        assert page.tab.eval_on_selector("#over", "image => getComputedStyle(image).clipPath") != before
        page.tab.eval_on_selector("#under", "image => image.decode()")
        page.tab.hover("#swipe", position={"x": 9, "y": 9})
        page.says("#pixel", re.compile(r"Column \d+, row \d+: left \d+, right \d+$"))
        page.tab.wait_for_selector("#scores tbody tr")
        assert page.tab.locator("#scores tbody tr").count() == 4
        fetched = page.download("GeoTIFF")
        item = json.loads(page.download("STAC"))
        page.tab.click("[data-copy=command]")
        page.says("[data-copy=command]", "Copied")
        command = shlex.split(page.tab.evaluate("navigator.clipboard.readText()"))
        assert page.foreign == page.errors == []

    again = run_again(command, tmp_path, monkeypatch, capsys) / f"dem/{PATCH}_v1.tif"
    with rasterio.open(io.BytesIO(fetched)) as ours, rasterio.open(again) as theirs:
        assert ours.crs == theirs.crs
        assert ours.transform == theirs.transform
        assert (ours.read() == theirs.read()).all()
        bounds = transform_bounds(ours.crs, "EPSG:4326", *ours.bounds)
    (patch,) = [
        one["properties"]
        for one in client.get(f"/api/regions/{REGION}/cells/{CELL}/patches").json()["features"]
        if one["properties"]["patch"] == PATCH
    ]
    (west, south), (east, north) = np.min(patch["corners"], axis=0), np.max(patch["corners"], axis=0)
    assert west < bounds[0] < bounds[2] < east
    assert south < bounds[1] < bounds[3] < north
    assert item["bbox"] == pytest.approx(bounds, abs=1e-4)


def test_the_deviation_of_the_samples_lies_over_the_picture_on_the_map(browser, client):
    with Page(browser, client) as page:
        page.tab.select_option("#cell", CELL)
        page.tab.select_option("#patch", PATCH)
        page.roles(s1_rtc="given", dem="wanted")
        page.tab.check("#spread")
        before = page.map_at_rest()
        page.draw()
        plain = page.map_at_rest(other_than=before)

        page.tab.check("#deviation")
        veiled = page.map_at_rest(other_than=plain)
        page.tab.uncheck("#deviation")

        assert unlike(page.map_at_rest(other_than=veiled), plain) < 0.1
        assert page.foreign == page.errors == []


def test_a_box_that_is_drawn_on_the_map_becomes_a_map(browser, client):
    with Page(browser, client) as page:
        page.tab.select_option("#cell", CELL)
        page.map_at_rest()
        page.tab.click("#box summary")
        page.tab.click("#box-draw")
        box = page.tab.locator("#map").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.tab.mouse.move(x, y)
        page.tab.mouse.down()
        page.tab.mouse.move(x + 9, y + 9, steps=3)
        page.tab.mouse.up()
        page.says("#place-words", "as a map")
        west, south, east, north = (
            float(page.tab.input_value(f"#{edge}")) for edge in ("west", "south", "east", "north")
        )
        page.roles(s1_rtc="given", dem="wanted")
        page.tab.fill("#n_samples", "1")
        page.tab.click("#ask summary")
        page.tab.fill("#steps-number", "1")
        page.draw()

        bbox = json.loads(page.download("STAC"))["bbox"]
        assert page.foreign == page.errors == []
    assert bbox[0] <= west < east <= bbox[2]
    assert bbox[1] <= south < north <= bbox[3]


def test_a_dropped_picture_is_drawn_from_and_the_told_command_makes_the_same_pixels(
    browser, client, tmp_path, monkeypatch, capsys
):
    radar = save_picture(tmp_path / "radar.png", seed=8)
    with Page(browser, client) as page:
        assert page.tab.is_disabled("#role-s1_rtc-given")
        page.drop(radar, "s1_rtc")
        page.tab.wait_for_selector("#role-s1_rtc-given:checked")
        page.roles(dem="wanted")
        page.draw()

        page.tab.select_option("#left", "given/s1_rtc")
        shown = page.tab.get_attribute("#under", "src")
        fetched = page.download("GeoTIFF")
        command = shlex.split(page.text("#command"))
        assert page.foreign == page.errors == []
    with Image.open(io.BytesIO(client.get(f"/{shown}").content)) as given, Image.open(radar) as original:
        assert (np.asarray(given.convert("RGB")) == np.asarray(original)).all()
    (again,) = (run_again(command, tmp_path, monkeypatch, capsys) / "dem").glob("*_v1.tif")
    with rasterio.open(io.BytesIO(fetched)) as ours, rasterio.open(again) as theirs:
        assert (ours.read() == theirs.read()).all()


def test_a_dropped_file_that_is_broken_or_a_bomb_is_told_so_and_changes_nothing(browser, client, tmp_path):
    picture = save_picture(tmp_path / "radar.png", seed=8)
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:500])
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_of_80_megapixels())
    with Page(browser, client) as page:
        for file, told in ((broken, "no readable picture"), (bomb, "10,000 x 8,000 pixels")):
            page.drop(file, "s1_rtc")
            page.says("#message", told)
            assert page.tab.is_disabled("#role-s1_rtc-given")

        page.drop_on("h1", picture)
        page.says("#message", "on the row")

        page.drop(picture, "s1_rtc")
        page.tab.wait_for_selector("#role-s1_rtc-given:checked")
        assert page.tab.is_hidden("#message")
        assert page.errors == []


def test_a_page_that_is_loaded_again_goes_on_where_it_was_and_two_tabs_wait_in_turn(browser, client):
    with Page(browser, client) as page, Page(browser, client) as other:
        for tab, seed in ((page, "1"), (other, "2")):
            tab.tab.fill("#seed", seed)
            tab.ask_for_long()
        page.says("#status", DRAWING)
        other.says("#status", "Waiting; 1")

        page.tab.reload()

        page.says("#status", "Drawing")
        page.tab.click("#cancel")
        other.says("#status", "Drawing")
        other.tab.click("#cancel")
        for tab in (page, other):
            tab.says("#status", "Cancelled.")
            assert tab.errors == []


def test_a_studio_that_is_stopped_in_the_middle_says_so_on_the_page(browser, place, tmp_path):
    with one_thread(), contextlib.ExitStack() as at_the_end:
        with studio(place, tmp_path, most_steps=999) as client:
            page = at_the_end.enter_context(Page(browser, client))
            page.ask_for_long()
            page.says("#status", DRAWING)
        page.says("#status", "The studio was stopped.")
        page.tab.click("#draw")
        page.says("#message", "does not answer")


def test_a_studio_that_is_killed_is_waited_for_and_the_next_one_draws(browser, place, tmp_path):
    radar = save_picture(tmp_path / "radar.png", seed=9)
    command = ["studio", "--no-browser", "--device", "cpu", "--model", str(place.model)]
    command += ["--data-dir", str(place.data_dir), "--output", str(tmp_path / "output"), "--port"]
    with contextlib.ExitStack() as at_the_end:
        with copgen(*command, "0", environment=ONE_THREAD) as first:
            client = Client(first.wait_for("address:").split()[-1].rstrip("/"), None)
            page = at_the_end.enter_context(Page(browser, client))
            page.drop(radar, "s1_rtc")
            page.tab.wait_for_selector("#role-s1_rtc-given:checked")
            page.roles(dem="wanted")
            page.ask_for_long(steps=200)
            page.says("#status", DRAWING)
            first.process.kill()
            page.says("#message", "does not answer")
        with copgen(*command, client.url.rpartition(":")[2], environment=ONE_THREAD) as second:
            second.wait_for("address:")
            page.says("#message", "does not know")
            assert page.tab.is_hidden("#see")

            page.tab.fill("#steps-number", "2")
            page.tab.fill("#n_samples", "1")
            page.draw()  # the file is handed in once more

            assert page.tab.locator("#pictures img").count() == 1
            assert page.tab.is_hidden("#message")


def test_the_five_steps_can_be_walked_by_keys_alone(browser, client):
    with Page(browser, client) as page:
        keys = page.tab.keyboard
        keys.press("Tab")
        keys.press("Enter")  # past the map
        page.tab_to("#cell")
        keys.type(CELL)
        page.tab.wait_for_selector("#patch option:nth-child(3)", state="attached")
        page.tab_to("#patch")
        keys.type(PATCH)
        page.tab_to("[name=role-dem]")
        keys.press("ArrowLeft")
        assert page.tab.is_checked("#role-dem-given")
        page.tab_to("[name=role-s2_l2a]")
        keys.press("ArrowLeft")
        assert page.tab.is_checked("#role-s2_l2a-wanted")
        page.tab_to("#n_samples")
        keys.press("Control+a")
        keys.type("2")
        page.tab_to("#draw")
        keys.press("Enter")
        page.tab.wait_for_selector("#result:not([hidden]) img")
        page.tab_to("[data-number='1']")
        keys.press("Enter")
        assert page.tab.get_attribute("[data-number='1']", "aria-pressed") == "true"
        page.tab_to("#swipe-at")
        keys.press("Home")
        assert page.tab.input_value("#swipe-at") == "0"
        page.tab_to("#files a")
        with page.tab.expect_download() as started:
            keys.press("Enter")
        assert started.value.suggested_filename == f"s2_l2a_{PATCH}_v1.tif"
        page.tab_to("[data-copy=command]")
        keys.press("Enter")
        page.says("[data-copy=command]", "Copied")
        page.says("#scores", "PSNR")
        assert page.errors == []


def test_axe_finds_nothing_serious_by_day_and_night(browser, client):
    """Not even in what is folded away."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    with Page(browser, client, color_scheme="light", bypass_csp=True) as page:
        page.tab.select_option("#cell", CELL)
        page.tab.select_option("#patch", PATCH)
        page.roles(s1_rtc="given", dem="wanted")
        page.tab.check("#spread")
        page.draw()
        page.tab.wait_for_selector("#scores tbody tr")
        page.tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

        for scheme in ("light", "dark"):
            page.tab.emulate_media(color_scheme=scheme)
            found = axe.Axe().run(page.tab).response["violations"]
            grave = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [(scheme, one["id"], [node["target"] for node in one["nodes"]]) for one in grave] == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1300, "dark")])
def test_the_page_is_no_wider_than_its_window_and_speaks_german(browser, client, width, scheme):
    with Page(browser, client, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        page.tab.select_option("#language", "de")

        assert page.text("#draw") == "Zeichnen"
        assert page.tab.evaluate("document.documentElement.lang") == "de"
        assert page.tab.evaluate("document.documentElement.scrollWidth") == width
        nameless = page.tab.evaluate(
            "[...document.querySelectorAll('input, select, button')]"
            ".filter(one => !(one.labels?.length || one.ariaLabel || one.textContent)).map(one => one.id)"
        )
        assert nameless == []
