"""Pages of the site that are not written in docs/: made from the program, or taken from elsewhere in the repository.

MkDocs calls `on_files` before it reads pages, and `on_page_markdown` for each. The documents are written so that they
read well in the repository; their links are turned here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mkdocs.structure.files import File, Files  # noqa: E402

from documentation.commands import commands_page  # noqa: E402
from documentation.extras import extras_page  # noqa: E402
from documentation.settings import settings_page  # noqa: E402

TAKEN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/results/gpu-rehearsal.md": "benchmarks-gpu-rehearsal.md",
    "copgen_cli/assets/copgen-sim/README.md": "model-card.md",
    "examples/cloud_removal.md": "cloud-removal.md",
}
"""Documents of the repository, and where they stand on the site."""
COPIED = (
    "examples/cluster_local.sh",
    "examples/cluster_slurm.py",
    "examples/quicktour.ipynb",
    "examples/scene_tour.ipynb",
    "examples/train.sbatch",
)
"""Files that documents link to, which the site gives as they are."""
MADE = {
    "reference/commands.md": commands_page,
    "reference/settings.md": settings_page,
    "reference/extras.md": extras_page,
}
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that do not lie in docs/."""
    for source, page in TAKEN.items():
        text = _FRONT_MATTER.sub("", (ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for source in COPIED:
        files.append(File.generated(config, source, content=(ROOT / source).read_text(encoding="utf-8")))
    for page, make in MADE.items():
        files.append(File.generated(config, page, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links of the repository to links of the site; MkDocs says which lead nowhere."""
    here = page.file.src_uri
    source = next((source for source, target in TAKEN.items() if target == here), f"docs/{here}")

    def turned(link: re.Match[str]) -> str:
        before, target, after = link.groups()
        if re.match(r"[a-z]+:", target):
            return link[0]
        whole = normpath(str(PurePosixPath(source).parent / target))
        if whole == "benchmarks":
            whole = "benchmarks/README.md"
        on_site = TAKEN.get(whole, whole.removeprefix("docs/"))
        return f"{before}{relpath(on_site, str(PurePosixPath(here).parent))}{after}"

    return _LINK.sub(turned, markdown)
