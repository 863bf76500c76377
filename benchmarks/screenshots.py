"""Pictures of the studio's page for README and docs/studio.md: simulates a region, opens a studio, and looks at it.

Takes some minutes, and writes docs/studio*.png, each below 150 kB.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from studio import chromium, running_studio

DOCS = Path(__file__).parents[1] / "docs"
MOST_BYTES = 150_000
COLOURS = (128, 96, 64, 48)


def make_region(folder: Path) -> None:
    """Cells of the simulated Earth, cut to patches, unless they are there."""
    data = ["--data-dir", str(folder / "data")]
    copgen("simulate", "--region", "rome", "--cells", "4", "--no-gaps", "--output", str(folder / "earth"))
    copgen("download", "--region", "rome", "--endpoint", (folder / "earth").absolute().as_uri(), *data)
    copgen("prepare", "--region", "rome", *data)


def copgen(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "copgen_cli", *arguments], check=True)


def take(browser: Any, url: str, name: str, *, width: int, height: int, scheme: str, show: str) -> None:
    """A picture of the page after a request, scrolled to an element."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, locale="en", reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    page.select_option("#cell", index=1)
    page.wait_for_selector("#patch option:nth-child(3)", state="attached")
    page.select_option("#patch", index=6)
    for role in ("s2_l1c-given", "s2_l2a-wanted", "dem-wanted"):
        page.check(f"#role-{role}")
    page.check("#spread")
    page.fill("#n_samples", "3")
    page.click("#draw")
    page.wait_for_selector("#scores tbody tr", timeout=600_000)
    page.click("#pictures button[aria-label*='L2A']")
    page.locator(show).evaluate("element => scrollTo(0, element.getBoundingClientRect().top + scrollY - 12)")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)  # until the map has drawn the picture
    if width > 1000:
        page.hover("#under")
        page.wait_for_selector("#pixel:has-text('Column')")
    save(page.screenshot(), DOCS / f"{name}.png")
    context.close()


def save(screenshot: bytes, file: Path) -> None:
    """With as many colours as the limit allows."""
    with Image.open(io.BytesIO(screenshot)) as shown:
        picture = shown.convert("RGB")
    for colours in COLOURS:
        stream = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        if len(stream.getvalue()) <= MOST_BYTES:
            break
    file.write_bytes(stream.getvalue())
    print(f"{file}: {picture.width} x {picture.height} px, {len(stream.getvalue()) / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workplace", type=Path, help="folder with data/, kept; else one is made and removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.workplace or Path(folder)
        if not (place / "data").is_dir():
            make_region(place)
        arguments = [
            "--model",
            "copgen-sim",
            "--data-dir",
            str(place / "data"),
            "--output",
            str(Path(folder) / "drawn"),
        ]
        with running_studio(arguments) as (url, _), chromium() as browser:
            take(browser, url, "studio", width=1300, height=900, scheme="light", show="#see")
            take(browser, url, "studio-dark", width=1300, height=900, scheme="dark", show="#take")
            take(browser, url, "studio-phone", width=390, height=800, scheme="light", show="#see")


if __name__ == "__main__":
    main()
