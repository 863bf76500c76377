"""How long `copgen --help` takes, in a pipe and on a terminal, against `python -c pass` in the same run."""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import take_turns

COPGEN = str(Path(sys.executable).with_name("copgen"))
PASS = (sys.executable, "-c", "pass")
HELP = (COPGEN, "--help")


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
    runs = parser.parse_args().runs
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
