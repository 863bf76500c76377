"""The site: all commands, options and settings are in its reference, links lead somewhere, no other host is needed."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from copgen_cli.app import command_line
from copgen_cli.settings.loading import Settings

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; the build itself refuses what it warns of, links and anchors that lead nowhere among it."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (pip install 'copgen[docs]')")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed (pip install 'copgen[docs]')")
    pytest.importorskip("material", reason="mkdocs-material is not installed (pip install 'copgen[docs]')")
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    build = subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert build.returncode == 0, build.stdout + build.stderr
    yield folder
    shutil.rmtree(folder)


def codes(page: Path) -> set[str]:
    """What a page shows as code."""
    return {html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", page.read_text(encoding="utf-8"))}


def test_every_command_and_option_is_in_the_reference(site):
    page = (site / "reference/commands.html").read_text(encoding="utf-8")
    shown = codes(site / "reference/commands.html")
    headings = {re.sub(r"<.*?>|&para;", "", text).strip() for text in re.findall(r"<h2.*?>(.*?)</h2>", page)}

    def walk(name, command):
        assert name in headings, name
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                assert {*parameter.opts, *parameter.secondary_opts} <= shown, (name, parameter.name)
        for part, child in getattr(command, "commands", {}).items():
            walk(f"{name} {part}", child)

    walk("copgen", command_line())
    assert len(headings) > 15


def test_every_setting_is_in_the_reference_with_what_it_is(site):
    page = site / "reference/settings.html"
    shown, text = codes(page), html.unescape(page.read_text(encoding="utf-8"))
    missing, unsaid = [], []
    for name, field in Settings.model_fields.items():
        inner = field.annotation
        is_section = isinstance(inner, type) and issubclass(inner, BaseModel)
        for key, own in inner.model_fields.items() if is_section else [("", field)]:
            whole = f"{name}.{key}" if key else name
            known = whole in shown or any(code.startswith(f"{whole}.") for code in shown)
            missing += [] if known else [whole]
            unsaid += [] if own.description else [whole]

    assert missing == []
    assert unsaid == []
    assert "Least and most cloud in percent." in text
    assert "train.steps" in shown


def test_every_extra_is_in_the_reference_with_what_it_brings(site):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = re.findall(r"<tr>(.*?)</tr>", (site / "reference/extras.html").read_text(encoding="utf-8"), re.DOTALL)
    shown = {found[1]: row for row in rows if (found := re.search(r"<td><code>(.*?)</code></td>", row))}

    assert shown.keys() == project["optional-dependencies"].keys()
    for name, packages in project["optional-dependencies"].items():
        assert all(html.escape(package, quote=False) in shown[name] for package in packages)
        assert re.search(r"<td>\w.*?</td>", shown[name]), f"{name} is for nothing that is said"


def test_the_python_reference_shows_docstrings(site):
    page = (site / "reference/python.html").read_text(encoding="utf-8")

    assert "CopGenPipeline" in page
    assert "num_inference_steps" in page


def test_pages_load_nothing_from_other_hosts(site):
    pages = list(site.rglob("*.html"))

    loaded = {
        address
        for page in pages
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text(encoding="utf-8"))
        if 'rel="canonical"' not in tag
        for address in re.findall(r"(?:src|href)=\"?((?:https?:)?//[^\" >]+)", tag)
    }

    assert len(pages) > 15
    assert loaded == set()


def test_every_page_of_docs_is_in_the_navigation(site):
    home = (site / "index.html").read_text(encoding="utf-8")

    pages = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in ROOT.glob("docs/**/*.md")]
    assert [str(page) for page in pages if f'href="{page}"' not in home] == []


def test_pages_show_pictures_and_files_that_are_there(site):
    """Strict builds check links of Markdown; files that the site takes as they are stand beside them."""
    assert {file.name for file in (site / "examples").iterdir()} == {
        file.name for file in (ROOT / "examples").iterdir() if file.suffix != ".md"
    }
