"""Which pictures belong together: those of one name, once the modality is taken off it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sample_commands import save_picture

from copgen_cli.errors import UnknownNameError, UsageError
from copgen_cli.inputs.conditions import open_pictures, parse_inputs
from copgen_cli.inputs.names import modality_in, place_of
from copgen_cli.inputs.pictures import Frame
from copgen_cli.modalities import Modality

FRAME = Frame(64, 64)


@pytest.mark.parametrize(
    ("file", "modality", "place"),
    [
        ("rome_s1_rtc.png", Modality.S1RTC, "rome"),
        ("rome_S2L2A.webp", Modality.S2L2A, "rome"),
        ("dem-7.tif", Modality.DEM, "7"),
        ("north.s2_l1c_thumbnail.png", Modality.S2L1C, "north"),
        ("471U_85R_3.png", None, "471U_85R_3"),
        ("Core-DEM.png", Modality.DEM, "tile"),
        ("s1_rtc.png", Modality.S1RTC, "tile"),
        ("mademoiselle.png", None, "mademoiselle"),
    ],
)
def test_a_name_tells_the_modality_and_the_place(file, modality, place):
    path = Path("tile") / file

    assert modality_in(path.stem) is modality
    assert place_of(path) == place


def test_pictures_of_several_folders_are_matched_by_name_and_the_rest_is_listed(tmp_path):
    for name in ("a", "b", "c"):
        save_picture(tmp_path / "radar" / f"{name}_s1_rtc.png")
    for name in ("b", "c", "d"):
        save_picture(tmp_path / "height" / f"{name}.webp")

    found = open_pictures({Modality.DEM: tmp_path / "height", Modality.S1RTC: tmp_path / "radar"}, FRAME)

    assert list(found.names) == ["b", "c"]
    assert found.lacking == {"a": "no dem of that name", "d": "no s1_rtc of that name"}


def test_a_folder_that_mixes_modalities_is_told_apart_by_names(tmp_path):
    for modality in ("s1_rtc", "dem", "s2_l2a"):
        save_picture(tmp_path / "tile" / f"{modality}.png")
    (tmp_path / "tile" / "notes.txt").write_text("not a picture")

    found = open_pictures({Modality.DEM: tmp_path / "tile", Modality.S1RTC: tmp_path / "tile"}, FRAME)

    assert list(found.names) == ["tile"]
    assert found.conditions[Modality.DEM]["tile"].name == "dem.png"
    assert found.conditions[Modality.S1RTC]["tile"].name == "s1_rtc.png"


def test_single_files_make_one_record_whatever_they_are_called(tmp_path):
    radar, height = save_picture(tmp_path / "radar.png"), save_picture(tmp_path / "height.tif")

    found = open_pictures({Modality.DEM: height, Modality.S1RTC: radar}, FRAME)

    assert len(found.names) == 1
    assert set(found.read(found.names[0]).conditions) == {Modality.DEM, Modality.S1RTC}


def test_two_pictures_of_one_name_in_a_folder_are_refused(tmp_path):
    save_picture(tmp_path / "a.png")
    save_picture(tmp_path / "a.webp")

    with pytest.raises(UsageError, match="both called a"):
        open_pictures({Modality.DEM: tmp_path}, FRAME)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no picture for dem"):
        open_pictures({Modality.DEM: tmp_path}, FRAME)


def test_an_input_is_a_modality_and_a_path_that_is_there(tmp_path):
    file = save_picture(tmp_path / "a=b.png")

    assert parse_inputs([f"s1_rtc={file}"]) == {Modality.S1RTC: file}
    for text, message in (
        (str(file.name), "unknown modality"),
        ("s1_rtc=", "MODALITY=IMAGE_OR_FOLDER"),
        ("radar", "MODALITY=IMAGE_OR_FOLDER"),
        (f"s1_rtc={tmp_path / 'absent.png'}", "no picture or folder"),
    ):
        with pytest.raises(UsageError, match=f"(?i){message}"):
            parse_inputs([text])
    with pytest.raises(UnknownNameError, match="s1_rct"):
        parse_inputs([f"s1_rct={file}"])
    with pytest.raises(UsageError, match="twice"):
        parse_inputs([f"dem={file}", f"dem={file}"])


def test_a_file_whose_name_is_not_utf_8_is_set_aside_and_the_others_are_read(tmp_path):
    save_picture(tmp_path / "a.png")
    os.rename(save_picture(tmp_path / "b.png"), os.fsencode(tmp_path) + b"/caf\xe9.png")

    source = open_pictures({Modality.DEM: tmp_path}, FRAME)

    assert source.names == ["a"]
    assert source.lacking == {"caf\ufffd": "the name of its file is not UTF-8: rename it"}


def test_a_single_file_whose_name_is_not_utf_8_is_wrong_usage(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.png")
    os.rename(save_picture(tmp_path / "a.png"), file)

    with pytest.raises(UsageError, match="is not UTF-8"):
        open_pictures({Modality.DEM: file}, FRAME)
