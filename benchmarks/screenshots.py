"""Pictures of the studio's page for README and docs/studio.md, of what `copgen quickstart` leaves:

    copgen quickstart && python benchmarks/screenshots.py copgen-quickstart

It opens a studio there, asks for samples of one patch, and writes what the page shows to docs/studio*.jpg, each below
150 kB.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from studio import chromium, running_studio

DOCS = Path(__file__).parents[1] / "docs"
MOST_BYTES = 150_000
CELL, PATCH = "507U_65R", "507U_65R_7"
"""Of the cells that the tour simulates: woods, bare ground and a lake."""


def take(browser: Any, url: str, name: str, *, width: int, height: int, scheme: str, show: str) -> None:
    """A picture of the page after a request, scrolled to an element."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, locale="en", reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    page.select_option("#cell", CELL)
    page.wait_for_selector("#patch option:nth-child(3)", state="attached")
    page.select_option("#patch", PATCH)
    for role in ("s2_l1c-given", "s2_l2a-wanted", "dem-wanted"):
        page.check(f"#role-{role}")
    page.check("#spread")
    page.fill("#n_samples", "3")
    page.click("#draw")
    page.wait_for_selector("#scores tbody tr", timeout=600_000)
    page.click("#pictures button[aria-label*='L2A']")
    page.locator(show).evaluate("element => scrollTo(0, element.getBoundingClientRect().top + scrollY - 12)")
    box = page.locator("#under").bounding_box()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.3 * box["height"])
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # until the map has drawn the picture
    save(page.screenshot(), DOCS / f"{name}.jpg")
    context.close()


def save(screenshot: bytes, file: Path) -> None:
    """As good as the limit allows."""
    with Image.open(io.BytesIO(screenshot)) as shown:
        picture = shown.convert("RGB")
    for quality in range(90, 40, -5):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True, progressive=True)
        if len(stream.getvalue()) <= MOST_BYTES:
            break
    file.write_bytes(stream.getvalue())
    print(f"{file}: {picture.width} x {picture.height} px, {len(stream.getvalue()) / 1000:.0f} kB, quality {quality}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workplace", type=Path, help="the folder that `copgen quickstart` left")
    data = parser.parse_args().workplace / "data"
    with tempfile.TemporaryDirectory() as drawn:
        arguments = ["--model", "copgen-sim", "--region", "simulated", "--data-dir", str(data), "--output", drawn]
        with running_studio(arguments) as (url, _), chromium() as browser:
            take(browser, url, "studio", width=1300, height=900, scheme="light", show="#see")
            take(browser, url, "studio-dark", width=1300, height=900, scheme="dark", show="h3[data-text=compare]")
            take(browser, url, "studio-phone", width=390, height=800, scheme="light", show="h3[data-text=compare]")


if __name__ == "__main__":
    main()
