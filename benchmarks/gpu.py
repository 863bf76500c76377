"""The parts of `benchmarks/gpu.sh`: one after the other, each in its time, each result written at once.

Run it through gpu.sh, which puts the environment together.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gpu_parts import Part, parts

ROOT = Path(__file__).resolve().parents[1]
TAIL = 12
"""Lines of a part's output that are kept with its result."""
WORTH_STARTING = 10
"""Seconds; a part that has less is left out."""


@dataclass
class Result:
    """What became of a part."""

    title: str
    state: str
    seconds: float = 0.0
    rows: list[dict] = field(default_factory=list)
    """As `measuring.keep_rows` writes them; those of a part that was stopped as far as it came."""
    scores: list[dict] = field(default_factory=list)
    """As `copgen evaluate` writes them."""
    tail: list[str] = field(default_factory=list)


def missing_requirements() -> list[str]:
    """What pyproject.toml asks for and this Python does not have, or not in that version."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    missing = []
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        wanted = Requirement(text)
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            found = None
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            missing.append(f"{text} (here: {found})")
    return missing


def machine_facts() -> dict[str, object]:
    import torch

    facts: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "gpu": None,
    }
    if torch.cuda.is_available():
        of_gpu = torch.cuda.get_device_properties(0)
        facts |= {"gpu": of_gpu.name, "gpu_memory_gib": round(of_gpu.total_memory / 2**30), "cuda": torch.version.cuda}
    return facts


def run_part(part: Part, seconds: float, work: Path, log: Path) -> Result:
    """Its commands one after the other, until one fails or the time is up."""
    folder = work / part.name
    folder.mkdir()
    if part.settings is not None:
        (folder / "copgen.toml").write_text(part.settings.replace("FOLDER", str(folder.absolute())))
    started = time.monotonic()
    state, tail = "done", []
    for number, command in enumerate(part.commands):
        left = seconds - (time.monotonic() - started)
        rows = folder / f"{number}.json"
        words = [word.format(rows=rows, left=max(int(left - part.after_training), 5)) for word in command]
        code, said = run_command(words, left, folder, part.environment)
        with log.open("a") as file:
            file.write(f"\n$ {' '.join(words)}\n{said}\n[{'time was up' if code is None else f'exit code {code}'}]\n")
        tail += said.splitlines()[-TAIL:]
        if code is None or code not in (0, *part.also_fine):
            state = (
                "stopped: its time was up" if code is None else f"failed: exit code {code} of {' '.join(words[1:5])}"
            )
            break
    kept = [row for file in sorted(folder.glob("[0-9]*.json")) for row in json.loads(file.read_text())]
    metrics = folder / "report" / "metrics.json"
    scores = json.loads(metrics.read_text())["scores"] if metrics.is_file() else []
    return Result(part.title, state, round(time.monotonic() - started, 1), kept, scores, tail)


def run_command(words: list[str], seconds: float, folder: Path, environment: dict[str, str]) -> tuple[int | None, str]:
    """Exit code, None where the time was up, and all that the command and its children said."""
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            words,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | environment,
            start_new_session=True,
        )
        try:
            code = process.wait(max(seconds, 1))
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
    return code, output.read_text(errors="replace")


def write_results(output: Path, facts: dict[str, object], results: list[Result]) -> None:
    """results.json and results.md, each whole."""
    told = {"machine": facts, "parts": [asdict(result) for result in results]}
    for name, text in {"results.json": json.dumps(told, indent=1), "results.md": as_markdown(facts, results)}.items():
        beside = output / f".{name}"
        beside.write_text(text)
        beside.replace(output / name)


def as_markdown(facts: dict[str, object], results: list[Result]) -> str:
    lines = ["# " + ("Measured on a GPU" if facts["gpu"] and not facts["rehearsal"] else "Rehearsed on a CPU"), ""]
    lines += [", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    lines += ["| part | seconds | |", "| --- | --- | --- |"]
    lines += [f"| {result.title} | {result.seconds:.0f} | {result.state} |" for result in results]
    for result in results:
        if result.seconds:
            lines += ["", f"## {result.title}", *_tables(result.rows), *_scores(result.scores)]
            if result.state != "done" or not (result.rows or result.scores):
                lines += ["", "```", *result.tail, "```"]
    return "\n".join(lines) + "\n"


def _tables(rows: list[dict]) -> list[str]:
    """A table for each set of columns in turn."""
    lines, heads = [], None
    for row in rows:
        columns = (row["table"], *row["shown"])
        if columns != heads:
            heads = columns
            lines += ["", f"{row['table']}:", "", f"| | {' | '.join(row['shown'])} | last, times as fast |"]
            lines += ["| --- " * (len(columns) + 1) + "|"]
        ratios = " / ".join(f"{ratio:.2f}" for ratio in row["times_as_fast"])
        lines.append(f"| {row['row']} | {' | '.join(row['shown'].values())} | {ratios} |")
    return lines


def _scores(scores: list[dict]) -> list[str]:
    lines = ["", "| given | generated | | |", "| --- | --- | --- | --- |"] if scores else []
    for score in scores:
        if score.get("value") is not None:
            value = f"{score['value']:.4g}"
            lines.append(f"| {score['condition']} | {score['target']} | {score['title']} | {value} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder, for what is not kept")
    parser.add_argument("--seconds", type=float, help="for all parts together; 450, of a rehearsal 2400")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in tiny sizes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a part that is under way is ended too
    started = time.monotonic()
    seconds = options.seconds or (2400 if options.rehearse else 450)
    if missing := missing_requirements():
        sys.exit(
            f"gpu.sh: this Python lacks {', '.join(missing)}. Carry their wheels along; the head of gpu.sh says how."
        )
    facts = machine_facts() | {"rehearsal": options.rehearse}
    if facts["gpu"] is None and not options.rehearse:
        sys.exit("gpu.sh: torch sees no GPU here. --rehearse runs everything on the CPU, in tiny sizes.")
    output = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    log = output / "log.txt"
    log.write_text("")
    todo = parts(ROOT, rehearse=options.rehearse)
    results = [Result(part.title, "left out for time") for part in todo]
    for number, part in enumerate(todo):
        left = min(part.seconds, seconds - (time.monotonic() - started))
        if left >= WORTH_STARTING:
            print(f"{part.title}: {left:.0f} s at most", flush=True)
            try:
                results[number] = run_part(part, left, options.work, log)
            except Exception as error:  # the next part goes on
                results[number] = Result(part.title, f"failed: {error!r}", 0.1)
            print(f"  {results[number].state}, {results[number].seconds:.0f} s", flush=True)
        write_results(output, facts, results)
    print(f"\n{'part':48}{'seconds':>8}")
    for result in results:
        print(f"{result.title:48}{result.seconds:>8.0f}  {result.state}")
    print(f"{output}/results.md")
    sys.exit(0 if all(result.state == "done" for result in results) else 3)


if __name__ == "__main__":
    main()
