"""The studio on the loopback: first paint and bytes of its page in Chromium, fifty requests at once, and its memory.

`--model` and `--data-dir` are those of `copgen studio`; the page is measured with what they hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import requests

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
"""A map needs WebGL, which is computed on the CPU here."""
PAINTS = """async () => {
  const first = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  const entries = await new Promise((done) => new PerformanceObserver((list) => done(list.getEntries()))
    .observe({ type: "largest-contentful-paint", buffered: true }));
  return { first, largest: entries.at(-1).startTime };
}"""
PAGE = Path(__file__).parents[1] / "copgen_cli/studio/page"


@contextlib.contextmanager
def running_studio(options: Sequence[str]) -> Iterator[tuple[str, psutil.Process]]:
    """`copgen studio` in a process of its own: its address, and the process."""
    command = [sys.executable, "-m", "copgen_cli", "studio", "--no-browser", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "address:" in line), None)
            if line is None:
                raise RuntimeError("copgen studio did not start")
            yield line.split()[-1].rstrip("/"), psutil.Process(process.pid)
        finally:
            process.terminate()


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The distribution's browser, by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield browser
        browser.close()


def load_page(browser: Any, url: str) -> dict[str, float]:
    """Milliseconds to the first and largest contentful paint, and to a map that can be clicked, in a fresh profile."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    ready = page.evaluate("performance.now()")
    paints = page.evaluate(PAINTS)
    context.close()
    return {**paints, "ready": ready}


def bytes_of_page(url: str) -> tuple[int, int]:
    """Of all files that the browser may load, as sent and plain."""
    sent = plain = 0
    for file in PAGE.rglob("*"):
        if file.is_file() and file.suffix != ".txt":
            with requests.get(f"{url}/{file.relative_to(PAGE)}", stream=True, timeout=60) as answer:
                sent += len(answer.raw.read(decode_content=False))
            plain += file.stat().st_size
    return sent, plain


def ask(url: str, seed: int) -> tuple[int, str, float]:
    """Post a request and follow its events to the end: status of the answer, last state, seconds to the answer."""
    started = time.perf_counter()
    body: dict[str, Any] = {"generate": ["dem"], "steps": 1, "n_samples": 1, "seed": seed}
    answer = requests.post(f"{url}/api/requests", json=body, timeout=600)
    seconds = time.perf_counter() - started
    if answer.status_code != 202:
        return answer.status_code, f"told when to come back: {answer.headers.get('retry-after')} s", seconds
    last: dict[str, Any] = {}
    with requests.get(f"{url}/api/requests/{answer.json()['id']}/events", stream=True, timeout=600) as stream:
        for line in stream.iter_lines():
            if line.startswith(b"data: "):
                last = json.loads(line[6:])
    return 202, last.get("state", "lost"), seconds


class Watch(threading.Thread):
    """The most memory that a process holds while it is watched, in MB."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.most, self.over = process, 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.most = max(self.most, megabytes(self.process))


def megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="copgen-sim")
    parser.add_argument("--data-dir")
    parser.add_argument("--runs", type=int, default=5, help="loads of the page")
    parser.add_argument("--requests", type=int, default=50, help="at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--model", options.model, "--output", folder, "--device", "cpu"]
        arguments += ["--data-dir", options.data_dir] if options.data_dir else []
        with running_studio(arguments) as (url, process):
            sent, plain = bytes_of_page(url)
            print(f"page: {sent / 1e6:.2f} MB as sent, {plain / 1e6:.2f} MB plain")
            if CHROMIUM:
                report_page(url, options.runs)
            else:
                print("no Chromium: the page is not measured")
            report_load(url, process, options.requests)


def report_page(url: str, runs: int) -> None:
    with chromium() as browser:
        load_page(browser, url)  # starts what a browser starts once
        loads = [load_page(browser, url) for _ in range(runs)]
    for name, key in (("first contentful paint", "first"), ("largest", "largest"), ("map and all", "ready")):
        values = [one[key] for one in loads]
        print(f"{name}: {statistics.median(values):.0f} ms, {min(values):.0f} to {max(values):.0f}, of {runs} loads")


def report_load(url: str, process: psutil.Process, count: int) -> None:
    ask(url, 1_000_000)  # what is loaded once is loaded
    before = megabytes(process)
    watch = Watch(process)
    watch.start()
    started = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        ends = list(pool.map(lambda seed: ask(url, seed), range(count)))
    seconds = time.perf_counter() - started
    watch.over.set()
    watch.join()
    states = Counter(f"{status} {state}" for status, state, _ in ends)
    slowest = max(wait for _, _, wait in ends)
    print(f"{count} requests at once: {dict(states)} in {seconds:.1f} s; the slowest first answer took {slowest:.2f} s")
    after = megabytes(process)
    print(f"memory of the server: {before:.0f} MB before, {watch.most:.0f} MB at most, {after:.0f} MB after")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
