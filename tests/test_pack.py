"""`copgen pack`, from moments, patches or a published database to one store per split."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest
from killed_runs import Moment, forked_and_killed_at
from sample_commands import call_copgen, one_thread
from tiny_models import tiny_autoencoder
from tiny_subsets import moments_of, tree, write_moments, write_patches

from copgen_cli.errors import EXIT_FAILED, EXIT_PARTLY, EXIT_USAGE, BrokenInputError
from copgen_cli.latents import packing
from copgen_cli.latents.moments import NpyMoments, parse_npy
from copgen_cli.latents.store import LatentStore
from copgen_cli.latents.store_builder import as_stored
from copgen_cli.layout import patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.stages.driver import StageRun

NAMES = [f"{row}U_{100 + row % 3}R_{k}" for row in (463, 464) for k in range(16)]
SORTED = sorted(NAMES)
BOTH = (Modality.DEM, Modality.S2L2A)


@pytest.fixture
def pack(tmp_path, monkeypatch, capsys):
    """`copgen pack` of `npy` to `store`, both below an empty folder; small units, so that there are several."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packing, "RECORDS_PER_UNIT", 5)

    def pack(*options: object, path: Path | str = "npy", output: str = "store"):
        return call_copgen(capsys, "pack", "--input-dir", path, "--output-dir", output, *options)

    return pack


@pytest.fixture
def npy(tmp_path) -> Path:
    return write_moments(tmp_path / "npy", NAMES, modalities=BOTH)


def file_of(name: str, modality: Modality = Modality.DEM, folder: Path = Path("npy")) -> Path:
    return patch_file(folder, Split.TRAIN, modality, name, ".npy")


def record(name: str, split: Split = Split.TRAIN) -> np.ndarray:
    return np.stack([moments_of(f"{split} {modality} {name}") for modality in BOTH])


# -- what is written -------------------------------------------------------------------------------------------------


def test_every_complete_patch_is_a_record(pack, npy):
    write_moments(npy, NAMES[:3], splits=[Split.TEST], modalities=BOTH)

    run = pack("--json")

    assert run.code == 0
    reported = json.loads(run.out)
    assert (reported["train_records"], reported["test_records"]) == (32, 3)
    assert sorted(tree(Path("store"))) == ["copgen_pack.json", "copgen_pack.jsonl", "test/data.mdb", "train/data.mdb"]
    for split, names in ((Split.TRAIN, SORTED), (Split.TEST, sorted(NAMES[:3]))):
        store = LatentStore(Path("store", split))
        assert list(store.names) == names
        assert store.modalities == BOTH
        for name, values in store:
            np.testing.assert_array_equal(values, record(name, split))


def test_fewer_records_than_a_unit_are_all_packed(pack, tmp_path):
    write_moments(tmp_path / "npy", NAMES[:1], modalities=BOTH)

    assert pack().code == 0
    assert len(LatentStore(Path("store/train"))) == 1


def test_half_precision_halves_the_store_and_loses_little(pack, tmp_path):
    write_moments(tmp_path / "npy", NAMES, modalities=BOTH, shape=(8, 32, 32))
    pack(output="whole")
    assert pack("--dtype", "float16", output="half").code == 0

    half, whole = LatentStore(Path("half/train")), LatentStore(Path("whole/train"))
    assert str(half[0][1].dtype) == "torch.float16"
    for i in range(len(half)):
        np.testing.assert_allclose(half[i][1].float(), whole[i][1], rtol=1e-3, atol=1e-6)
    sizes = [os.path.getsize(f"{name}/train/data.mdb") for name in ("half", "whole")]
    assert sizes[0] < 0.56 * sizes[1]  # pages are whole: 9 of 4 KiB instead of 17


def test_a_region_has_its_folders_and_a_second_run_writes_nothing(tmp_path, capsys):
    write_moments(tmp_path / "rome/rome_thumbnail_npy", NAMES, modalities=BOTH)
    assert call_copgen(capsys, "pack", "--data-dir", tmp_path).code == 0
    store = tmp_path / "rome/rome_thumbnail_npy_lmdb"
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*")}

    again = call_copgen(capsys, "pack", "--data-dir", tmp_path)

    assert "Nothing to do" in again.err
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*")} == before
    assert len(LatentStore(store / "train")) == 32


def test_a_dry_run_gives_totals_and_writes_nothing(pack, tmp_path):
    write_moments(tmp_path / "npy", NAMES, modalities=BOTH, shape=(8, 32, 32))
    file_of(NAMES[0]).unlink()
    told = json.loads(pack("--dry-run", "--json").out)

    assert (told["records"], told["done_before"], told["incomplete"]) == (31, 0, 1)
    pack()
    assert abs(told["bytes"] - os.path.getsize("store/train/data.mdb")) < 0.1 * told["bytes"]
    assert json.loads(pack("--dry-run", "--json").out)["records"] == 0


def test_the_autoencoder_of_the_moments_goes_with_them(pack, npy, tmp_path):
    facts = {"id": "some/autoencoder", "fingerprint": "ab" * 32, "scale_factor": 0.5}
    with StageRun("encode", npy, settings={"autoencoder": facts}) as run:
        run.finish()
    pack()
    store = LatentStore(Path("store/train"))
    assert store.metadata.autoencoder.id == "some/autoencoder"
    assert store.metadata.autoencoder.fingerprint == "ab" * 32

    contradicted = pack("--vae", "other/autoencoder", output="other")
    assert contradicted.code == EXIT_FAILED
    assert "not by other/autoencoder" in contradicted.err


def test_moments_of_the_published_workflow_are_taken_for_those_of_its_autoencoder(pack, npy):
    pack()
    facts = LatentStore(Path("store/train")).metadata.autoencoder
    assert (facts.id, facts.fingerprint, facts.scale_factor) == ("stabilityai/sd-vae-ft-ema", None, 0.18215)

    pack("--vae", "my/autoencoder", output="named")
    assert LatentStore(Path("named/train")).metadata.autoencoder.id == "my/autoencoder"


def test_patches_are_encoded_on_the_way(pack, tmp_path):
    with one_thread():
        tiny_autoencoder(channels=(4, 4, 4, 4)).save_pretrained(tmp_path / "vae")
        write_patches(tmp_path / "png", NAMES[:2], modalities=BOTH)
        run = pack("--input-type", "png", "--vae", tmp_path / "vae", path="png")

    assert run.code == 0
    store = LatentStore(Path("store/train"))
    assert list(store.names) == sorted(NAMES[:2])
    assert store.metadata.shape == (2, 8, 32, 32)
    assert len(store.metadata.autoencoder.fingerprint) == 64


# -- import ----------------------------------------------------------------------------------------------------------


def test_the_published_database_becomes_a_store(pack, shared):
    expected = np.load(shared / "golden/reference_lmdb_expected.npz", allow_pickle=False)

    assert pack("--input-type", "lmdb", path=shared / "golden/reference_lmdb").code == 0

    store = LatentStore(Path("store/train"))
    assert list(store.names) == sorted(expected["names"])
    for name, moments in zip(expected["names"], expected["moments"], strict=True):
        np.testing.assert_array_equal(store[list(store.names).index(name)][1], moments)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_malicious_record_is_set_aside_and_the_rest_imported(pack, tmp_path):
    (tmp_path / "db").mkdir()
    sound = {modality.spec.folder: moments_of(modality, (8, 32, 32)).tobytes() for modality in BOTH}
    with lmdb.open("db", map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"463U_101R_0.npy", pickle.dumps(sound))
        transaction.put(b"463U_101R_1.npy", pickle.dumps({"DEM_thumbnail": Malicious()}))

    run = pack("--input-type", "lmdb", "--json", path="db")

    assert run.code == EXIT_PARTLY
    assert "refused" in json.loads(run.out)["failed"]["train/463U_101R_1"]
    assert list(LatentStore(Path("store/train")).names) == ["463U_101R_0"]
    assert not Path("pwned").exists()


@pytest.mark.parametrize("source", ["db", "db/train"])
def test_an_import_never_goes_over_its_source(pack, shared, tmp_path, source):
    shutil.copytree(shared / "golden/reference_lmdb", tmp_path / "db/train")
    run = pack("--input-type", "lmdb", "--overwrite", path=source, output="db")
    assert run.code == EXIT_USAGE
    assert Path("db/train/data.mdb").is_file()
    assert "--output-dir" in run.err


@pytest.mark.parametrize("packed_before", [False, True])
def test_a_published_database_is_kept_with_overwrite_and_without(pack, npy, shared, packed_before):
    if packed_before:
        pack()
    for split in Split:
        shutil.rmtree(f"store/{split}", ignore_errors=True)
        shutil.copytree(shared / "golden/reference_lmdb", f"store/{split}")
    before = tree(Path("store"))

    refused = pack()
    assert refused.code == EXIT_FAILED
    for told in ("store holds files", "--input-type lmdb", "another output folder"):
        assert told in refused.err
    assert tree(Path("store")) == before
    if not packed_before:
        for options in (("--dry-run",), ("--overwrite",)):
            assert pack(*options).code == EXIT_FAILED
        assert tree(Path("store")) == before


def test_a_store_without_its_manifest_is_no_split_of_another(pack, npy):
    pack(output="other")
    Path("store").mkdir()
    Path("other/train").rename("store/test")

    assert pack().code == EXIT_FAILED
    assert pack("--overwrite").code == EXIT_FAILED
    assert Path("store/test").exists()


# -- bad input -------------------------------------------------------------------------------------------------------


def test_incomplete_patches_are_listed_and_the_others_packed_whichever_modality_lacks_them(pack, npy):
    write_moments(npy, ["470U_100R_0"], modalities=[Modality.DEM])
    write_moments(npy, ["470U_100R_1"], modalities=[Modality.S2L2A])

    run = pack("--json")

    assert run.code == EXIT_PARTLY
    assert json.loads(run.out)["failed"] == {
        "train/470U_100R_0": "incomplete: no S2L2A_thumbnail",
        "train/470U_100R_1": "incomplete: no DEM_thumbnail",
    }
    assert list(LatentStore(Path("store/train")).names) == SORTED


def npy_of(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=True)
    return buffer.getvalue()


BROKEN = {
    "empty": (b"", "no npy file"),
    "cut short": (npy_of(moments_of("x"))[:-100], "no npy file"),
    "a header that never ends": (npy_of(moments_of("x")).replace(b"4, 4),", b"4, (4)", 1), "no npy file"),
    "objects": (npy_of(np.array([Malicious()] * 2, dtype=object)), "no npy file"),
    "an archive": (b"PK\x03\x04" + bytes(100), "no npy file"),
    "another shape": (npy_of(np.zeros((8, 2, 2), np.float32)), r"shape \(8, 2, 2\), not \(8, 4, 4\)"),
    "no numbers": (npy_of(np.zeros((8, 0, 0), np.float32)), "not moments"),
    "integers": (npy_of(np.zeros((8, 4, 4), np.int64)), "int64"),
    "not finite": (npy_of(np.full((8, 4, 4), np.inf, np.float32)), "not finite"),
}


@pytest.mark.parametrize(("data", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_sets_its_patch_aside_until_it_is_mended(pack, npy, data, reason):
    file = file_of(NAMES[7], Modality.S2L2A)
    sound = file.read_bytes()
    file.write_bytes(data)

    run = pack("--json")
    assert run.code == EXIT_PARTLY
    assert re.search(reason, json.loads(run.out)["failed"][f"train/{NAMES[7]}"])
    assert list(LatentStore(Path("store/train")).names) == [name for name in SORTED if name != NAMES[7]]
    assert not Path("pwned").exists()

    file.write_bytes(sound)
    assert pack().code == 0
    assert list(LatentStore(Path("store/train")).names) == SORTED


def test_other_spellings_of_the_same_numbers_are_read(pack, npy):
    values = moments_of(f"train dem {NAMES[0]}")
    for other in (values.astype(np.float64), np.asfortranarray(values), values.astype(">f4")):
        file_of(NAMES[0]).write_bytes(npy_of(other))
        assert pack("--overwrite").code == 0
        np.testing.assert_array_equal(LatentStore(Path("store/train"))[SORTED.index(NAMES[0])][1][0], values)


def test_what_float16_can_not_hold_is_set_aside(pack, npy):
    file_of(NAMES[3]).write_bytes(npy_of(np.full((8, 4, 4), 1e6, np.float32)))

    run = pack("--dtype", "float16", "--json")
    assert run.code == EXIT_PARTLY
    assert "beyond float16" in json.loads(run.out)["failed"][f"train/{NAMES[3]}"]
    negative = as_stored(["name"], np.full((1, 2), -1e5, np.float32), "float16", {})
    assert negative.failed == {"name": "it holds values beyond float16"}


def test_no_moments_name_the_command_to_run(pack, tmp_path):
    run = pack(path="nowhere")
    assert run.code == EXIT_FAILED
    assert "copgen encode" in run.err
    assert not Path("store").exists()


def test_a_tree_without_one_readable_file_is_an_error_that_names_one(tmp_path):
    write_moments(tmp_path, NAMES[:1], modalities=[Modality.DEM])
    file_of(NAMES[0], folder=tmp_path).write_bytes(b"")
    with pytest.raises(BrokenInputError, match=NAMES[0]):
        NpyMoments(tmp_path)


def test_npy_files_never_unpickle(tmp_path):
    with pytest.raises(BrokenInputError):
        parse_npy(npy_of(np.array(Malicious(), dtype=object)), tmp_path / "x.npy")
    with pytest.raises(BrokenInputError):
        parse_npy(pickle.dumps(Malicious()), tmp_path / "x.npy")
    assert not Path("pwned").exists()


def test_other_settings_need_overwrite(pack, npy):
    pack()
    refused = pack("--dtype", "float16")
    assert refused.code == EXIT_FAILED
    assert "dtype" in refused.err
    assert pack("--dtype", "float16", "--overwrite").code == 0
    assert LatentStore(Path("store/train")).metadata.dtype == "float16"
    assert pack("--input-type", "zip").code == EXIT_USAGE


def test_a_folder_that_another_run_writes_is_refused_with_its_name(pack, npy, tmp_path):
    with StageRun("pack", tmp_path / "store", settings={}):
        run = pack()
    assert run.code == EXIT_FAILED
    assert f"process {os.getpid()}" in run.err


def test_more_patches_later_are_in_the_next_store_and_those_gone_are_not(pack, npy):
    pack()
    write_moments(npy, ["470U_100R_0"], modalities=BOTH)
    for modality in BOTH:
        file_of(NAMES[0], modality).unlink()

    assert pack().code == 0
    assert list(LatentStore(Path("store/train")).names) == [
        *(name for name in SORTED if name != NAMES[0]),
        "470U_100R_0",
    ]


def test_a_split_that_is_gone_leaves_no_store_behind(pack, npy):
    write_moments(npy, NAMES[:3], splits=[Split.TEST], modalities=BOTH)
    pack()
    shutil.rmtree(npy / "test")

    assert pack().code == 0
    assert not Path("store/test").exists()


# -- interruptions ---------------------------------------------------------------------------------------------------


def test_killed_runs_continue_to_the_undisturbed_tree_with_one_unit_done_twice_at_most(tmp_path, capsys):
    names = [f"{400 + i // 16}U_100R_{i % 16}" for i in range(2 * packing.RECORDS_PER_UNIT + 9)]
    write_moments(tmp_path / "npy", names, modalities=BOTH, shape=(2, 1, 1))
    file_of(names[3], folder=tmp_path / "npy").write_bytes(b"broken")
    call = ("pack", "--input-dir", tmp_path / "npy", "--output-dir")
    assert call_copgen(capsys, *call, tmp_path / "undisturbed").code == EXIT_PARTLY

    for _ in range(2):  # in all, two of three units are in the store
        assert forked_and_killed_at(Moment.UNIT, 2, *call, tmp_path / "store") == -9
    assert forked_and_killed_at(Moment.UNIT, 2, *call, tmp_path / "store") == EXIT_PARTLY  # only one was left

    assert tree(tmp_path / "store") == tree(tmp_path / "undisturbed")


def test_a_store_in_place_that_a_kill_kept_from_the_manifest_is_taken_for_what_it_is(pack, npy, tmp_path):
    call = ("pack", "--input-dir", npy, "--output-dir")
    assert forked_and_killed_at(Moment.FILE, 1000, *call, tmp_path / "undisturbed") == 0
    # the first file to go to its place is the journal, the second the manifest
    assert forked_and_killed_at(Moment.FILE, 2, *call, tmp_path / "store") == -9
    store = Path("store/train/data.mdb")
    before = store.stat().st_ino
    assert not Path("store/copgen_pack.json").exists()

    assert pack().code == 0

    assert store.stat().st_ino == before
    assert tree(Path("store")) == tree(Path("undisturbed"))
