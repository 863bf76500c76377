"""The page that quickstart leaves: what each picture shows, the report's numbers, and lines that work."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape

import pytest
from tiny_subsets import patch_pixels, picture_bytes

from copgen_cli.app import command_line
from copgen_cli.evaluation import NUMBERS_FILE
from copgen_cli.quickstart import steps, write_page
from copgen_cli.quickstart_page import NEXT

SCORES = [
    {"condition": "s2_l1c", "target": "s2_l2a", "metric": "psnr", "title": "PSNR", "unit": "dB", "better": "higher",
     "value": 27.1234, "low": 25.5, "high": 28.25, "n": 8},
    {"condition": "s2_l2a", "target": "dem", "metric": "psnr", "title": "PSNR", "unit": "dB", "better": "higher",
     "value": None, "low": None, "high": None, "n": 0},
    {"condition": "", "target": "dem", "metric": "reconstruction", "title": "PSNR", "unit": "dB", "better": "higher",
     "value": 33.4, "low": 30.0, "high": 36.0, "n": 8},
    {"condition": "s2_l1c", "target": "s2_l2a", "metric": "frechet", "title": "AE-FD", "unit": "", "better": "lower",
     "value": 95.9, "low": 0.0, "high": 377.0, "n": 8},
]  # fmt: skip


@pytest.fixture
def tour(tmp_path):
    """A folder with a picture of each question, and a report."""
    for name in ("nothing", "s1_rtc", "dem-s1_rtc", "s2_l1c"):
        file = tmp_path / "pictures" / name / "grid_0001.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(picture_bytes(patch_pixels(name, grey=False)))
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / NUMBERS_FILE).write_text(json.dumps({"scores": SCORES, "facts": {"patches": 8, "cells": 2}}))
    return tmp_path


def page_of(tour):
    return write_page(tour, steps(6, 60, 0)).read_text(encoding="utf-8")


def test_each_picture_has_a_sentence_of_what_it_shows(tour):
    captions = [unescape(text) for text in re.findall("<figcaption>(.*?)</figcaption>", page_of(tour))]

    assert len(captions) == 4
    assert "does not exist" in captions[0]
    assert "Sentinel-1 RTC, which was given" in captions[1]
    assert "2 answers of the model and the truth" in captions[1]
    assert "Elevation (hillshade) and Sentinel-1 RTC" in captions[2]


def test_each_step_says_what_it_is_for_before_its_picture(tour):
    sections = re.findall("<section>.*?</section>", page_of(tour), flags=re.DOTALL)
    silent = [
        re.search("<h2>(.*?)</h2>", part)[1] for part in sections if "<figure>" not in part and "<p class" not in part
    ]

    assert silent == ["Where to go next"]


def test_numbers_are_those_of_translations_that_one_understands(tour):
    page = page_of(tour)

    assert "AE-FD" not in page
    assert "33.4" not in page  # of the autoencoder alone
    assert "8 grey levels of 255" in page
    assert "8 patches in 2 cells" in page


def test_the_page_has_the_numbers_of_the_report_that_are_known(tour):
    page = page_of(tour)

    assert "Sentinel-2 L2A from Sentinel-2 L1C" in page
    assert "27.1" in page
    assert "25.5 to 28.2" in page
    assert "None" not in re.sub(r"data:[^\"]*", "", page)
    assert 'href="report/report.html"' in page


@pytest.mark.parametrize("content", [None, "no json", '{"scores": [3]}', "[]"])
def test_a_report_that_can_not_be_read_leaves_a_page_without_numbers(tour, content):
    file = tour / "report" / NUMBERS_FILE
    file.unlink() if content is None else file.write_text(content)

    assert 'href="report/report.html"' in page_of(tour)


def test_the_page_needs_nothing_from_elsewhere(tour):
    page = page_of(tour)

    assert "<script" not in page
    links = {address for address in re.findall(r'(?:src|href)="([^"]*)"', page) if not address.startswith("data:")}
    pictures = {file.relative_to(tour).as_posix() for file in tour.glob("pictures/*/*.png")}
    assert links == {"report/report.html", *pictures}


@pytest.mark.parametrize("line", [line for _, line in NEXT])
def test_what_comes_next_are_command_lines_with_options_that_there_are(line):
    command = command_line()
    for part in (words := shlex.split(line))[1:]:
        if part.startswith("-"):
            break
        command = command.commands[part]

    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
