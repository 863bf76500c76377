"""How large and how fast files of patches are: GeoTIFF compressed as it is, or by differences, and NumPy's own.

    python benchmarks/patch_files.py --patches DIR

DIR is what `copgen prepare --family copgen-2026` wrote.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from copgen_cli.rasters import encode_geotiff, find_values, read_values

MODALITIES = ("s1_db", "s2_l2a_10m", "s2_l2a_60m", "land_cover")
FORMATS = {"GeoTIFF, LZW": False, "GeoTIFF, differences and deflate": True, "npz": None}


def measure(arrays: list[np.ndarray], differences: bool | None) -> tuple[float, float, float]:
    """kB, and ms to write and to read, of one file."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.npz" for number in range(len(arrays))]
        started = time.process_time()
        for file, values in zip(files, arrays, strict=True):
            if differences is None:
                np.savez_compressed(file, values)
            else:
                file.write_bytes(encode_geotiff(values, None, differences=differences))
        written = time.process_time() - started
        size = sum(file.stat().st_size for file in files)
        started = time.process_time()
        for file in files:
            if differences is None:
                np.load(file, allow_pickle=False)["arr_0"]
            else:
                read_values(find_values([file]))
        read = time.process_time() - started
    return size / len(files) / 1e3, 1e3 * written / len(files), 1e3 * read / len(files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=Path, required=True)
    parser.add_argument("--files", type=int, default=24, help="of each modality")
    arguments = parser.parse_args()
    print("| modality | file | kB | ms to write | ms to read |\n| --- | --- | --- | --- | --- |")
    for modality in MODALITIES:
        files = sorted((arguments.patches / "train" / modality).glob("*.tif"))[: arguments.files]
        arrays = [read_values(find_values([file]))[0] for file in files]
        for name, differences in FORMATS.items():
            size, written, read = measure(arrays, differences)
            print(f"| {modality} | {name} | {size:.1f} | {written:.2f} | {read:.2f} |")


if __name__ == "__main__":
    main()
