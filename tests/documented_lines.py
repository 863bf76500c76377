"""The command lines, settings and snippets of the documents, as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "docs/reference/*.md", "examples/*.md", "copgen_cli/assets/*/README.md")
    for path in ROOT.glob(pattern)
)
SCRIPTS = sorted(str(path.relative_to(ROOT)) for kind in ("*.sh", "*.sbatch") for path in ROOT.glob(f"examples/{kind}"))
LAUNCHERS = {"srun"}
"""Programs that start another, whose command line stands behind them."""
_ENDS = {";", ";;", "&", "&&", "|", "||", "(", ")"}
_OPENERS = {"do", "then", "else", "{"}
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z_0-9]*=")
_HEREDOC = re.compile(r"<<(END)$")


@dataclass(frozen=True, slots=True)
class Line:
    """One call of `copgen`, and where it stands."""

    document: str
    number: int
    words: tuple[str, ...]
    """What stands behind `copgen`."""

    def __str__(self) -> str:
        return f"{self.document}:{self.number}: copgen {' '.join(self.words)}"


def blocks(document: str, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in found]


def shell_lines(document: str) -> Iterator[Line]:
    """Every call of `copgen` in the blocks for the shell."""
    for first, text in blocks(document, "bash"):
        yield from _calls(document, first, text)


def script_lines(script: str) -> Iterator[Line]:
    """Every call in a script of the examples."""
    yield from _calls(script, 1, (ROOT / script).read_text(encoding="utf-8"))


def inline_lines(document: str) -> Iterator[Line]:
    """Those in running text, between backticks, which may leave out what an option takes."""
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    for code in re.finditer(r"(?<!`)`copgen ([^`]+)`", text):
        yield Line(document, text.count("\n", 0, code.start()) + 1, tuple(shlex.split(code[1])))


def settings_files(document: str) -> list[tuple[int, str]]:
    """The blocks of TOML, and the settings files that lines of the shell write."""
    written = re.compile(r"\.toml <<END\n(.*?)^END$", re.DOTALL | re.MULTILINE)
    shell = blocks(document, "bash")
    return [*blocks(document, "toml"), *((first, body) for first, text in shell for body in written.findall(text))]


def _calls(document: str, first: int, text: str) -> Iterator[Line]:
    lines = iter(enumerate(text.splitlines(), start=first))
    for number, line in lines:
        while line.endswith("\\"):
            line = f"{line[:-1]} {next(lines)[1]}"
        if here := _HEREDOC.search(line):
            while next(lines)[1] != here[1]:
                pass
        for words in _simple_commands(line):
            if (behind := _behind_copgen(words)) is not None:
                yield Line(document, number, tuple(behind))


def _simple_commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();&|")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word in _ENDS:
            yield words
            words = []
        else:
            words.append(word)
    yield words


def _behind_copgen(words: list[str]) -> list[str] | None:
    """What stands behind `copgen` or `-m copgen_cli`, whatever starts it; None where neither is called."""
    while words and (words[0] in _OPENERS or _ASSIGNMENT.match(words[0])):
        words = words[1:]
    if "copgen_cli" in words and words[words.index("copgen_cli") - 1] == "-m":
        return words[words.index("copgen_cli") + 1 :]
    for position, word in enumerate(words):
        if word.rpartition("/")[2] == "copgen" and (position == 0 or words[0] in LAUNCHERS):
            return words[position + 1 :]
    return None
