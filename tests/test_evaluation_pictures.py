"""Which pictures are judged, and by what: names of metrics and pairs, folders, and the choice of places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from copgen_cli.errors import BrokenInputError, CopgenError, MismatchError, UnknownNameError, UsageError
from copgen_cli.evaluation.pairs import parse_pairs
from copgen_cli.evaluation.pictures import choose_places, read_folders, read_training
from copgen_cli.metrics.catalogue import QUANTITIES, Metric, parse_metrics
from copgen_cli.modalities import PUBLISHED

DEM, S1, L1C, L2A = PUBLISHED


def save(file: Path, grey: int, side: int = 16) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), grey, np.uint8)).save(file)


def read(real: Path, generated: Path, limit: int | None = None, notes: list[str] | None = None):
    return read_folders(real, generated, limit=limit, seed=0, note=[].append if notes is None else notes.append)


def test_metrics_are_read_in_the_order_of_the_report():
    assert parse_metrics("ssim, psnr") == (Metric.PSNR, Metric.SSIM)


def test_an_unknown_metric_is_refused_and_the_nearest_named():
    with pytest.raises(UnknownNameError) as refused:
        parse_metrics("psnr,frechte")

    assert "'frechet'" in refused.value.hint


def test_an_empty_list_of_metrics_is_refused():
    with pytest.raises(UsageError):
        parse_metrics(" , ")


def test_every_metric_that_reports_a_number_says_what_it_means():
    explained = {quantity.metric for quantity in QUANTITIES.values() if quantity.meaning}

    assert explained == set(Metric) - {Metric.CYCLE}  # a cycle reports the numbers of others


def test_single_pairs_of_four_modalities_are_twelve_and_of_two_are_two():
    assert len(parse_pairs("single", list(PUBLISHED))) == 12
    assert [pair.text for pair in parse_pairs("single", (S1, L2A))] == ["s1_rtc:s2_l2a", "s2_l2a:s1_rtc"]


def test_groups_and_pairs_are_read_together_and_once_each():
    pairs = parse_pairs("rest,unconditional,dem+s1_rtc:s2_l2a,:dem,:dem", (DEM, S1, L2A))

    assert [pair.text for pair in pairs] == [
        "s1_rtc+s2_l2a:dem",
        "dem+s2_l2a:s1_rtc",
        "dem+s1_rtc:s2_l2a",
        ":dem+s1_rtc+s2_l2a",
        ":dem",
    ]


def test_joint_pairs_generate_all_others_at_once():
    assert [pair.text for pair in parse_pairs("joint", (DEM, S1, L2A))][1] == "s1_rtc:dem+s2_l2a"


@pytest.mark.parametrize("text", ["s1_rtc:", "dem:dem", "", "dem+s1_rtc:s1_rtc+s2_l2a"])
def test_a_pair_that_generates_nothing_or_what_is_given_is_refused(text):
    with pytest.raises(UsageError):
        parse_pairs(text, list(PUBLISHED))


@pytest.mark.parametrize("text", ["sngle", "dem:s2_l2b", "dem:s2_l1c"])
def test_a_group_or_modality_that_is_not_there_is_refused(text):
    with pytest.raises(UnknownNameError):
        parse_pairs(text, (DEM, S1, L2A))


def test_places_come_from_all_cells_before_a_second_patch_of_any():
    names = [f"{cell}U_1R_{k}" for cell in (1, 2, 3) for k in range(16)]

    chosen = choose_places(names, 3, seed=5)

    assert {name.split("_")[0] for name in chosen} == {"1U", "2U", "3U"}
    assert chosen == choose_places(list(reversed(names)), 3, seed=5)
    assert chosen != choose_places(names, 3, seed=6)
    assert len(choose_places(names, 1000, seed=5)) == 48


def test_flat_folders_are_matched_by_name_and_the_rest_is_left_out(tmp_path):
    for name, grey in (("a", 1), ("b", 2), ("only_real", 3)):
        save(tmp_path / "real" / f"{name}.png", grey)
    for name, grey in (("b", 12), ("a", 11), ("only_generated", 9)):
        save(tmp_path / "made" / f"{name}.png", grey)

    notes: list[str] = []
    (found,) = read(tmp_path / "real", tmp_path / "made", notes=notes)

    assert found.names == found.truth_names == ("a", "b")
    assert found.truth[:, 0, 0, 0].tolist() == [1, 2]
    assert found.samples[:, 0, 0, 0, 0].tolist() == [11, 12]
    assert notes == ["Left out of pictures, having no partner: 1 true (only_real), 1 generated (only_generated)."]


def test_the_samples_of_a_place_are_put_in_the_order_of_their_numbers(tmp_path):
    save(tmp_path / "real" / "454U_120R_7.png", 1)
    for number in (10, 9, 1):
        save(tmp_path / "made" / f"454U_120R_7_v{number}.png", number)

    (found,) = read(tmp_path / "real", tmp_path / "made")

    assert found.samples.shape == (1, 3, 16, 16, 3)
    assert found.samples[0, :, 0, 0, 0].tolist() == [1, 9, 10]


def test_a_real_picture_that_is_itself_called_v1_is_not_taken_for_a_sample(tmp_path):
    save(tmp_path / "real" / "tile_v1.png", 1)
    save(tmp_path / "made" / "tile_v1.png", 2)

    (found,) = read(tmp_path / "real", tmp_path / "made")

    assert found.names == ("tile_v1",)


def test_folders_of_modalities_are_matched_under_either_name_and_the_test_split_is_taken(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / "patches" / split / "DEM_thumbnail" / "1U_1R_0.png", 5 if split == "test" else 99)
        save(tmp_path / "patches" / split / "S1RTC_thumbnail" / "1U_1R_0.png", 6)
    save(tmp_path / "made" / "dem" / "1U_1R_0_v1.png", 7)

    (found,) = read(tmp_path / "patches", tmp_path / "made")

    assert found.target == "dem"
    assert found.truth[0, 0, 0, 0] == 5
    assert read_training(tmp_path / "patches", dict.fromkeys(["dem", "s2_l2a"], (16, 16)), 0)["dem"][0, 0, 0, 0] == 99


def test_training_pictures_of_another_size_than_the_samples_are_refused(tmp_path):
    save(tmp_path / "train" / "a.png", 1, side=24)

    with pytest.raises(MismatchError, match=r"24 x 24 px.* 16 x 16"):
        read_training(tmp_path, {"pictures": (16, 16)}, 0)


def test_real_pictures_with_a_train_split_alone_are_refused(tmp_path):
    save(tmp_path / "patches" / "train" / "DEM_thumbnail" / "a.png", 1)
    save(tmp_path / "made" / "dem" / "a.png", 1)

    with pytest.raises(UsageError, match="no test split"):
        read(tmp_path / "patches", tmp_path / "made")


def test_where_no_name_matches_the_folders_are_still_compared_as_sets(tmp_path):
    for name in "abc":
        save(tmp_path / "real" / f"{name}.png", 1)
    save(tmp_path / "made" / "sample_1.png", 2)

    (found,) = read(tmp_path / "real", tmp_path / "made")

    assert not found.matched
    assert len(found.truth) == 3
    assert len(found.samples) == 1


def test_a_limit_keeps_some_places_of_both(tmp_path):
    for name in "abcd":
        save(tmp_path / "real" / f"{name}.png", 1)
        save(tmp_path / "made" / f"{name}.png", 2)

    (found,) = read(tmp_path / "real", tmp_path / "made", limit=3)

    assert found.matched
    assert len(found.names) == 3


def test_samples_beyond_the_smallest_number_of_any_place_are_left_out_with_a_note(tmp_path):
    for name in "ab":
        save(tmp_path / "real" / f"{name}.png", 1)
    for name in ("a_v1", "a_v2", "a_v3", "b_v1", "b_v2"):
        save(tmp_path / "made" / f"{name}.png", 2)

    notes: list[str] = []
    (found,) = read(tmp_path / "real", tmp_path / "made", notes=notes)

    assert found.samples.shape[:2] == (2, 2)
    assert notes == ["Only 2 per place of the samples of pictures are judged, as b has no more; left out: 1."]


def test_modalities_on_one_side_alone_are_left_out_with_a_note(tmp_path):
    for folder in ("real/dem", "real/s1_rtc", "made/dem", "made/s2_l2a"):
        save(tmp_path / folder / "a.png", 1)

    notes: list[str] = []
    read(tmp_path / "real", tmp_path / "made", notes=notes)

    assert notes == [
        f"Left out, being in {tmp_path / 'real'} alone: s1_rtc.",
        f"Left out, being in {tmp_path / 'made'} alone: s2_l2a.",
    ]


@pytest.mark.parametrize("truth", ["a", "b"], ids=["matched", "sets"])
def test_mean_and_deviation_of_samples_are_no_samples(tmp_path, truth):
    save(tmp_path / "real" / f"{truth}.png", 1)
    for name in ("a_v1", "a_mean", "a_std"):
        save(tmp_path / "made" / f"{name}.png", 2)

    (found,) = read(tmp_path / "real", tmp_path / "made")

    assert found.names == ("a",)
    assert found.samples.shape[:2] == (1, 1)


def test_a_folder_of_means_alone_holds_no_samples(tmp_path):
    save(tmp_path / "real" / "a.png", 1)
    save(tmp_path / "made" / "a_mean.png", 1)

    with pytest.raises(CopgenError, match="no samples"):
        read(tmp_path / "real", tmp_path / "made")


def test_a_folder_of_pages_is_refused_with_how_to_draw_single_pictures(tmp_path):
    save(tmp_path / "real" / "dem" / "a.png", 1)
    save(tmp_path / "made" / "grid_0001.png", 1)

    with pytest.raises(CopgenError, match="nothing to compare") as refused:
        read(tmp_path / "real", tmp_path / "made")

    assert "--save-as pngs" in refused.value.hint


def test_folders_that_share_no_modality_are_refused(tmp_path):
    save(tmp_path / "real" / "dem" / "a.png", 1)
    save(tmp_path / "made" / "s1_rtc" / "a.png", 1)

    with pytest.raises(CopgenError, match="nothing to compare"):
        read(tmp_path / "real", tmp_path / "made")


def test_pictures_of_other_sizes_are_refused(tmp_path):
    save(tmp_path / "real" / "a.png", 1)
    save(tmp_path / "made" / "a.png", 1, side=8)

    with pytest.raises(MismatchError, match=r"16 x 16 px .* 8 x 8"):
        read(tmp_path / "real", tmp_path / "made")


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "made" / "a.png", 1)

    with pytest.raises(CopgenError, match="no pictures"):
        read(tmp_path / "empty", tmp_path / "made")
    with pytest.raises(CopgenError, match="no folder"):
        read(tmp_path / "missing", tmp_path / "made")


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    save(tmp_path / "made" / "a.png", 1)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"not a picture")

    with pytest.raises(BrokenInputError):
        read(tmp_path / "real", tmp_path / "made")
