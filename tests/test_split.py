"""Which split a cell belongs to depends on its name, the seed and the ratio, and on nothing else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from copgen_cli.archive.grid import Cell, columns_of_row, parse_cell
from copgen_cli.errors import BrokenInputError, UsageError
from copgen_cli.modalities import Split
from copgen_cli.patches.split import SplitRule, neighbours, read_hold_out, split_of

CELLS = [f"{row}U_{col}R" for row in range(400, 440) for col in range(100, 140)]
RULE = SplitRule(ratio=0.95, seed=42)

some_cells = st.builds(Cell, st.integers(-900, 900), st.integers(-300, 300))


def test_the_split_of_a_cell_never_changes():
    # recorded: whoever has trained on a split must find it again in every later version
    assert split_of("467U_102R", RULE) is Split.TEST
    assert [split_of(f"{row}U_102R", RULE) for row in (463, 464, 465, 466)] == [Split.TRAIN] * 4
    assert split_of("467U_102R", SplitRule(ratio=0.95, seed=43)) is Split.TRAIN


def test_processes_with_other_hash_seeds_agree():
    program = (
        "from copgen_cli.patches.split import SplitRule, split_of\n"
        "cells = {f'{row}U_{col}R' for row in range(400, 440) for col in range(100, 140)}\n"
        "for rule in (SplitRule(0.95, 42), SplitRule(0.8, 7, block=4)):\n"
        "    print(sorted((cell, str(split_of(cell, rule))) for cell in cells))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (0, 1, 4_000_000_000)
    }
    assert len(said) == 1
    assert "('400U_100R', 'train')" in said.pop()


def test_the_order_and_the_company_of_cells_do_not_matter():
    alone = {cell: split_of(cell, RULE) for cell in CELLS[:50]}
    shuffled = random.Random(0).sample(CELLS, len(CELLS))

    together = {cell: split_of(cell, RULE) for cell in shuffled}

    assert {cell: together[cell] for cell in alone} == alone


@pytest.mark.parametrize("seed", [0, 42, -1])
@pytest.mark.parametrize("ratio", [0.5, 0.95])
def test_the_share_of_train_is_the_ratio(ratio, seed):
    counts = Counter(split_of(cell, SplitRule(ratio, seed)) for cell in CELLS)

    assert counts[Split.TRAIN] / len(CELLS) == pytest.approx(ratio, abs=0.03)


def test_ratios_of_nought_and_one_leave_one_split_empty():
    assert {split_of(cell, SplitRule(0.0, 42)) for cell in CELLS} == {Split.TEST}
    assert {split_of(cell, SplitRule(1.0, 42)) for cell in CELLS} == {Split.TRAIN}


@given(some_cells, st.floats(0, 1), st.floats(0, 1), st.integers())
def test_a_higher_ratio_only_moves_cells_from_test_to_train(cell, one, other, seed):
    low, high = sorted((one, other))

    if split_of(cell.name, SplitRule(low, seed)) is Split.TRAIN:
        assert split_of(cell.name, SplitRule(high, seed)) is Split.TRAIN


def test_blocks_go_to_one_split_together_and_train_and_test_do_not_touch():
    rule = SplitRule(ratio=0.7, seed=3, block=6)
    splits = {cell: split_of(cell, rule) for cell in CELLS}

    assert {*splits.values()} == {Split.TRAIN, Split.TEST, None}
    for cell, split in splits.items():
        place = parse_cell(cell)
        if split is Split.TEST:
            assert Split.TRAIN not in {splits.get(beside.name) for beside in neighbours(place)}
        if split is Split.TRAIN:
            corner = Cell(place.row // 6 * 6, place.col // 6 * 6).name
            assert splits.get(corner, Split.TRAIN) is Split.TRAIN


@given(some_cells)
def test_neighbours_are_mutual_and_touch(cell):
    if not -columns_of_row(cell.row) // 2 <= cell.col < columns_of_row(cell.row) // 2:
        return
    west = cell.corner[1]
    for beside in neighbours(cell):
        assert cell in {*neighbours(beside)}
        assert abs(beside.row - cell.row) <= 1
        apart = (beside.corner[1] - west + 180) % 360 - 180
        assert abs(apart) <= 360 / columns_of_row(cell.row) + 360 / columns_of_row(beside.row)


def test_cells_on_both_sides_of_the_date_line_are_neighbours():
    columns = columns_of_row(10)
    last = Cell(10, (columns - 1) // 2)

    assert Cell(10, -(columns // 2)) in {*neighbours(last)}


def test_a_list_of_held_out_cells_takes_the_place_of_the_rule(tmp_path):
    (tmp_path / "hold_out.txt").write_text("467U_102R\n\n8D_1933R\r\n")

    rule = SplitRule(0.5, 42, block=6, held_out=read_hold_out(tmp_path / "hold_out.txt"))

    cells = ["467U_102R", "8D_1933R", "467U_103R", "468U_102R", "8D_1933L"]
    assert [split_of(cell, rule) for cell in cells] == [Split.TEST] * 2 + [Split.TRAIN] * 3


def test_a_list_of_something_else_is_refused(tmp_path):
    (tmp_path / "odd.txt").write_text("467U_102R\nRome\n")
    (tmp_path / "odd.bin").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(BrokenInputError, match="'Rome' is no cell"):
        read_hold_out(tmp_path / "odd.txt")
    with pytest.raises(BrokenInputError, match="is no text"):
        read_hold_out(tmp_path / "odd.bin")
    with pytest.raises(UsageError, match="No such file"):
        read_hold_out(tmp_path / "nothing.txt")
