"""How long `copgen --help` takes, in a pipe and on a terminal, against `python -c pass` in the same run; and with
`--sampling` how long `copgen sample` takes to its first call of the transformer, against `import torch`."""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import take_turns

COPGEN = str(Path(sys.executable).with_name("copgen"))
PASS = (sys.executable, "-c", "pass")
HELP = (COPGEN, "--help")
TORCH = (sys.executable, "-c", "import torch")
FIRST_CALL = """
import os, sys
from copgen_cli.__main__ import main
from copgen_cli.model.transformer import CopGenTransformer
CopGenTransformer.forward = lambda *_, **__: os._exit(0)
sys.argv = ["copgen", "sample", "--model", "copgen-sim", "--generate", "dem", "--overwrite", "--output", sys.argv[1]]
main()
raise SystemExit("the transformer was not called")
"""
"""Ends where `copgen sample` calls its transformer first."""


def in_a_pipe(command: Sequence[str]) -> None:
    subprocess.run(command, capture_output=True, check=True)


def on_a_terminal(command: Sequence[str]) -> None:
    master, terminal = pty.openpty()
    with subprocess.Popen(command, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # the other end is closed
            while os.read(master, 1 << 16):
                pass
    os.close(master)
    if process.returncode:
        raise RuntimeError(f"{command} ended with code {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=21, help="of each, in turns")
    parser.add_argument("--sampling", action="store_true", help="to the first call of the transformer")
    options = parser.parse_args()
    runs = options.runs
    if options.sampling:
        with tempfile.TemporaryDirectory() as folder:
            first_call = (sys.executable, "-c", FIRST_CALL, folder)
            sampling = {"import torch": lambda: in_a_pipe(TORCH), "first call": lambda: in_a_pipe(first_call)}
            told = take_turns(sampling, runs, time.perf_counter, warm_up=True)
        print(
            f"import torch: {told['import torch']:.2f} s; `copgen sample` to its first call: {told['first call']:.2f} s"
        )
        print(f"{told['first call'] / told['import torch']:.1f} times")
        return
    ways = {
        "python -c pass": lambda: in_a_pipe(PASS),
        "plain": lambda: in_a_pipe(HELP),
        "panels": lambda: on_a_terminal(HELP),
    }
    medians = take_turns(ways, runs, time.perf_counter, warm_up=True)
    for name, median in medians.items():
        print(f"{name}: {1000 * median:.0f} ms, {median / medians['python -c pass']:.1f} times")


if __name__ == "__main__":
    main()
