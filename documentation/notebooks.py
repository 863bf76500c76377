"""The notebooks of the examples, made from their texts here and run: `python documentation/notebooks.py [NAME ...]`.

A text is a Python file whose cells begin with `# %%`, those of words with `# %% [markdown]`; a line `# !copgen ...` is
one for the shell. What the notebook shows comes from running it in an empty folder.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {name: ROOT / f"examples/{name}.ipynb" for name in ("quicktour", "scene_tour")}
"""Name of the text beside this file, and the notebook that it becomes."""
_CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def cells_of(text: str) -> list[tuple[str, str]]:
    """Kind ("markdown" or "code") and source of each cell."""
    _, *parts = _CELL.split(text)
    cells = []
    for mark, source in zip(parts[::2], parts[1::2], strict=True):
        if mark:
            cells.append(("markdown", re.sub(r"^# ?", "", source.strip(), flags=re.MULTILINE)))
        else:
            cells.append(("code", re.sub(r"^# !", "!", source.strip(), flags=re.MULTILINE)))
    return cells


def executed(text: str, folder: Path) -> Any:
    """The notebook, run in a folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbclient
    import nbformat.v4 as nb

    make = {"markdown": nb.new_markdown_cell, "code": nb.new_code_cell}
    cells = [make[kind](source, id=f"cell-{number}") for number, (kind, source) in enumerate(cells_of(text))]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nb.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=place).execute()
    for cell in cells:
        cell.metadata.clear()  # when each cell ran
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return notebook


def main() -> None:
    import nbformat

    for name in sys.argv[1:] or NOTEBOOKS:
        target = NOTEBOOKS[name]
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"), Path(folder))
            told = nbformat.writes(notebook).replace(folder, "tour")
        target.write_text(told + "\n", encoding="utf-8")
        sys.stdout.write(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
