"""How many cells of the simulated Earth a core makes in a second, all four modalities and their encoding included.

    OMP_NUM_THREADS=1 python benchmarks/simulation.py                # 12 cells from all over the world
    OMP_NUM_THREADS=1 python benchmarks/simulation.py --cells 40

Counts the processor's time, of all threads, so that others on the machine matter less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise

from copgen_cli.modalities.render import as_jpeg, as_png, hillshade
from copgen_cli.simulation.world import (
    cells_of_region,
    optical_pass_of,
    radar_pass_of,
    truth_of,
    view_optical,
    view_radar,
)

STAGES = ("ground", "optical", "radar", "encoding")


def seconds_of_cell(cell: str, seed: int) -> list[float]:
    """Processor seconds of each stage for one cell of real size."""
    marks = [time.process_time()]
    truth = truth_of(cell, seed)
    marks.append(time.process_time())
    optical = view_optical(truth, optical_pass_of(truth.cell, truth.place, seed), seed)
    marks.append(time.process_time())
    radar = view_radar(truth, radar_pass_of(truth.cell, seed), seed)
    marks.append(time.process_time())
    for encoded in (as_png(hillshade(truth.height)), as_png(radar.picture), as_jpeg(optical.l1c), as_jpeg(optical.l2a)):
        assert encoded
    marks.append(time.process_time())
    return [after - before for before, after in pairwise(marks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cells = cells_of_region((-180, -56, 180, 75), options.cells, options.seed)
    seconds_of_cell(cells[0], options.seed)  # fills tables and caches
    times = [seconds_of_cell(cell, options.seed) for cell in cells]
    for number, stage in enumerate(STAGES):
        print(f"{stage:9} {1000 * statistics.median(cell[number] for cell in times):6.0f} ms")
    total = statistics.median(sum(cell) for cell in times)
    print(f"{'a cell':9} {1000 * total:6.0f} ms, {1 / total:.2f} cells a second")


if __name__ == "__main__":
    main()
