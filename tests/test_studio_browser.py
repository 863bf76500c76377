"""The page of `copgen studio` in a real browser, which reaches nothing but the studio."""

from __future__ import annotations

import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from sample_commands import call_copgen, one_thread, save_picture
from studio_servers import CELL, PATCH, Client, Workplace, make_workplace, studio

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
]
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

    def says(self, selector: str, words: str | re.Pattern[str]) -> None:
        """Wait until it does."""
        playwright.expect(self.tab.locator(selector)).to_contain_text(words, timeout=PATIENCE)

    def text(self, selector: str) -> str:
        return self.tab.locator(selector).inner_text()


def test_from_a_click_on_the_map_to_a_geotiff_in_its_place_and_the_command_that_makes_it_again(
    browser, client, tmp_path, monkeypatch, capsys
):
    with Page(browser, client) as page:
        page.click_map("#cell")
        assert page.tab.eval_on_selector("#cell", "list => list.value") == CELL
        page.tab.select_option("#patch", PATCH)
        page.roles(s1_rtc="given", dem="wanted", s2_l2a="wanted")
        page.tab.fill("#n_samples", "2")
        page.draw()

        assert page.tab.locator("#pictures img").count() == 4
        assert "synthetic" in page.text(".banner")
        page.tab.focus("#swipe-at")
        before = page.tab.eval_on_selector("#over", "image => getComputedStyle(image).clipPath")
        page.tab.keyboard.press("End")
        assert page.tab.eval_on_selector("#over", "image => getComputedStyle(image).clipPath") != before
        page.tab.wait_for_selector("#scores tbody tr")
        assert page.tab.locator("#scores tbody tr").count() == 4
        with page.tab.expect_download() as started:
            page.tab.locator("#files a", has_text="GeoTIFF").first.click()
        fetched = Path(started.value.path()).read_bytes()
        command = shlex.split(page.text("#command"))
        assert page.foreign == page.errors == []

    monkeypatch.chdir(tmp_path)
    assert call_copgen(capsys, *command[1:]).code == 0
    with (
        rasterio.open(io.BytesIO(fetched)) as ours,
        rasterio.open(tmp_path / f"outputs/from-studio/dem/{PATCH}_v1.tif") as theirs,
    ):
        assert ours.crs == theirs.crs
        assert ours.transform == theirs.transform
        assert (ours.read() == theirs.read()).all()


def test_a_file_of_ones_own_is_drawn_from_and_a_broken_one_is_told_so(browser, client, tmp_path):
    radar = save_picture(tmp_path / "radar.png", seed=8)
    broken = tmp_path / "broken.png"
    broken.write_bytes(radar.read_bytes()[:500])
    with Page(browser, client) as page:
        choose = page.tab.locator("tr[data-modality=s1_rtc] input[type=file]")
        assert page.tab.is_disabled("#role-s1_rtc-given")

        choose.set_input_files(broken)
        page.says("#message", "no readable picture")
        choose.set_input_files(radar)
        page.tab.wait_for_selector("#role-s1_rtc-given:checked")
        page.roles(dem="wanted")
        page.draw()

        page.tab.select_option("#left", "given/s1_rtc")
        shown = page.tab.get_attribute("#under", "src")
        assert page.foreign == page.errors == []
    with Image.open(io.BytesIO(client.get(f"/{shown}").content)) as given, Image.open(radar) as original:
        assert (np.asarray(given.convert("RGB")) == np.asarray(original)).all()


def test_a_page_that_is_loaded_again_goes_on_where_it_was_and_two_tabs_wait_in_turn(browser, client):
    with Page(browser, client) as page, Page(browser, client) as other:
        for tab, seed in ((page, "1"), (other, "2")):
            tab.tab.click("#ask summary")
            tab.tab.fill("#n_samples", "16")
            tab.tab.fill("#steps-number", "999")
            tab.tab.fill("#seed", seed)
            tab.tab.click("#draw")
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


def test_a_studio_that_is_gone_is_waited_for_and_a_new_one_does_not_know_the_request(browser, place, tmp_path):
    with one_thread():
        with studio(place, tmp_path / "first", most_steps=999) as client:
            port = int(client.url.rpartition(":")[2])
            page = Page(browser, client)
            page.tab.click("#ask summary")
            page.tab.fill("#n_samples", "16")
            page.tab.fill("#steps-number", "999")
            page.tab.click("#draw")
            page.says("#status", DRAWING)
            name = page.tab.evaluate("location.hash.split('=')[1]")
            page.tab.route("**/api/requests/*", lambda route: route.abort())  # it dies before it can say so
            page.tab.route("**/events", lambda route: route.abort())
            page.tab.reload()
            page.says("#message", "does not answer")
        with page, studio(place, tmp_path / "second", port=port) as client:
            assert client.get(f"/api/requests/{name}").status_code == 404
            page.tab.unroute("**/api/requests/*")
            page.tab.unroute("**/events")
            page.says("#message", "does not know")
            assert page.tab.is_hidden("#see")


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
