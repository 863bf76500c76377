"""What the documents for developers point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "copgen_cli"
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_files_and_rooms_of_the_map_exist():
    named = set(re.findall(r"`([a-z_]+/(?:[a-z_]+\.py)?)`", ARCHITECTURE)) - {"copgen_cli/"}

    assert len(named) > 40
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_every_room_is_on_the_map():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    loose = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py", "_version.py"}
    table = ARCHITECTURE.partition("## The walk")[0]

    assert {f"{room}/" for room in rooms} | loose <= set(re.findall(r"`([a-z_]+(?:/|\.py))`", table))


@pytest.mark.parametrize(
    ("name", "file"), re.findall(r"`([A-Za-z_.]+)`(?:,| in) `([a-z_/]+\.py)`", ARCHITECTURE.partition("## The walk")[2])
)
def test_names_of_the_map_stand_in_their_files(name, file):
    text = (PACKAGE / file).read_text(encoding="utf-8")

    assert all(re.search(rf"\b(?:def|class) {part}\b", text) for part in name.removesuffix("()").split("."))


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]

    local = [target for target in targets if target and not target.startswith(("http", "mailto"))]
    assert [target for target in local if not ((ROOT / document).parent / target).exists()] == []


def test_the_files_that_contributing_names_exist():
    named = set(re.findall(r"`((?:copgen_cli|tests|benchmarks|docs)/[a-z_/]+\.(?:py|md))`", CONTRIBUTING))

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
