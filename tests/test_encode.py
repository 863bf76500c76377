"""`copgen encode`, from patches to moments in files or straight in a store."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from copgen_processes import ranks
from killed_runs import Moment, forked_and_killed_at
from sample_commands import call_copgen, one_thread
from tiny_models import tiny_autoencoder
from tiny_subsets import patch_pixels, picture_bytes, tree, write_moments, write_patches

from copgen_cli.errors import EXIT_FAILED, EXIT_PARTLY, EXIT_USAGE
from copgen_cli.latents.batches import PatchBatch, encode_batches, plan_batches
from copgen_cli.latents.encoders import Encoders
from copgen_cli.latents.store import LatentStore
from copgen_cli.layout import patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.model.autoencoder import load_autoencoder
from copgen_cli.patches.tree import read_tree
from copgen_cli.stages.driver import StageRun
from copgen_cli.stages.manifest import Journal, Outcome, read_header

NAMES = ("464U_102R_0", "464U_102R_1", "464U_102R_10", "464U_102R_2", "465U_103R_0")  # sorted by bytes
BOTH = (Modality.DEM, Modality.S2L2A)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with patches of two modalities and a random autoencoder; nobody writes to it."""
    folder = tmp_path_factory.mktemp("made")
    tiny_autoencoder(channels=(4, 4, 4, 4)).save_pretrained(folder / "vae")
    write_patches(folder / "png", NAMES, modalities=BOTH)
    return folder


@pytest.fixture
def encode(tmp_path, monkeypatch, capsys, made):
    """`copgen encode` of these patches to `npy` below an empty folder."""
    monkeypatch.chdir(tmp_path)

    def encode(*options: object, path: Path = made / "png", output: str = "npy"):
        return call_copgen(capsys, *arguments(made, path, output), *options)

    return encode


def arguments(made: Path, path: Path, output: Path | str) -> tuple[object, ...]:
    call = ("encode", "--path", path, "--output-dir", output, "--vae", made / "vae", "--device", "cpu")
    return (*call, "--batch-size", "4")  # two patches of two modalities at a time


def moments(made: Path, *pixels: np.ndarray) -> torch.Tensor:
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return load_autoencoder(made / "vae").moments(images)


# -- what is written -------------------------------------------------------------------------------------------------


def test_every_patch_and_modality_gets_its_moments(encode, made):
    assert encode().code == 0

    for modality in BOTH:
        for name in NAMES:
            values = np.load(patch_file(Path("npy"), Split.TRAIN, modality, name, ".npy"), allow_pickle=False)
            assert (values.shape, values.dtype) == ((8, 32, 32), np.float32)
            pixels = patch_pixels(f"train {modality} {name}", grey=modality.spec.grey)
            np.testing.assert_allclose(values, moments(made, pixels)[0], atol=1e-5)
    assert len([file for file in Path("npy").rglob("*") if file.is_file()]) == 2 * len(NAMES) + 2


def test_the_manifest_names_the_autoencoder_its_weights_and_its_scale(encode, made):
    run = encode("--json")

    assert json.loads(run.out)["done"] == len(NAMES)
    header = read_header(Path("npy"), "encode")
    assert header is not None
    autoencoder = load_autoencoder(made / "vae")
    assert header.settings == {
        "modalities": ["dem", "s2_l2a"],
        "autoencoder": {"id": str(made / "vae"), "fingerprint": autoencoder.fingerprint, "scale_factor": 0.7},
        "shape": [8, 32, 32],
        "arithmetic": "float32",
    }


def test_half_precision_moments_are_float32_and_near(encode, made):
    assert encode("--dtype", "bfloat16").code == 0

    file = patch_file(Path("npy"), Split.TRAIN, Modality.S2L2A, NAMES[0], ".npy")
    values = np.load(file, allow_pickle=False)
    assert values.dtype == np.float32
    exact = moments(made, patch_pixels(f"train s2_l2a {NAMES[0]}", grey=False))[0].numpy()
    assert 0 < np.abs(values - exact).mean() < 0.1 * exact.std()


def test_a_second_run_does_no_work_and_needs_no_autoencoder(encode, made, tmp_path):
    shutil.copytree(made / "vae", tmp_path / "vae")
    moved = ("--vae", tmp_path / "vae")
    encode(*moved)
    before = {file: file.stat().st_mtime_ns for file in Path("npy").rglob("*")}
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").unlink()

    again = encode(*moved)

    assert again.code == 0
    assert "Nothing to do" in again.err
    assert {file: file.stat().st_mtime_ns for file in Path("npy").rglob("*")} == before


def test_a_region_has_its_folders(tmp_path, capsys, made):
    shutil.copytree(made / "png", tmp_path / "rome/rome_thumbnail_png")

    run = call_copgen(capsys, "encode", "--data-dir", tmp_path, "--vae", made / "vae", "--batch-size", "16")

    assert run.code == 0
    assert len(list((tmp_path / "rome/rome_thumbnail_npy/train").rglob("*.npy"))) == 10


def test_a_dry_run_gives_totals_and_writes_nothing(encode):
    run = encode("--dry-run", "--json")

    expected = {"dry_run": True, "patches": 5, "done_before": 0, "bytes": 5 * 2 * 8 * 32 * 32 * 4}
    assert json.loads(run.out) == expected
    assert not Path("npy").exists()


def test_straight_into_the_store_are_the_moments_of_the_files(encode, made):
    encode()
    run = encode("--to", "lmdb", output="store")

    assert run.code == 0
    assert sorted(tree(Path("store"))) == ["copgen_pack.json", "copgen_pack.jsonl", "train/data.mdb"]
    store = LatentStore(Path("store/train"))
    assert list(store.names) == list(NAMES)
    assert store.modalities == BOTH
    assert store.metadata.autoencoder.fingerprint == load_autoencoder(made / "vae").fingerprint
    for name, values in store:
        for modality, got in zip(BOTH, values, strict=True):
            file = patch_file(Path("npy"), Split.TRAIN, modality, name, ".npy")
            np.testing.assert_array_equal(got, np.load(file, allow_pickle=False))
    assert "Nothing to do" in encode("--to", "lmdb", output="store").err


# -- batches ---------------------------------------------------------------------------------------------------------


def test_batches_follow_from_the_list_of_patches_alone():
    assert [batch.names for batch in plan_batches(NAMES, Split.TRAIN, 2, 4)] == [NAMES[:2], NAMES[2:4], NAMES[4:]]
    assert [len(batch.names) for batch in plan_batches(NAMES, Split.TRAIN, 4, 3)] == [1] * 5


def test_batches_come_in_order_with_broken_patches_named(made, tmp_path):
    shutil.copytree(made / "png", tmp_path / "png")
    patch_file(tmp_path / "png", Split.TRAIN, Modality.DEM, NAMES[1], ".png").write_bytes(b"no picture")
    tree = read_tree(tmp_path / "png", None, what="patches", written_by="prepare")
    sources = dict.fromkeys(tree.modalities, str(made / "vae"))
    encoders = Encoders(tree.modalities, sources, device=torch.device("cpu"), dtype=torch.float32, known=None)
    batches = [PatchBatch(Split.TRAIN, 1, NAMES[3:]), PatchBatch(Split.TRAIN, 0, NAMES[:3])]

    first, second = encode_batches(batches, tree, encoders, batch_size=3)

    assert (first.batch, second.batch) == tuple(batches)
    assert (set(first.moments), first.failed) == (set(NAMES[3:]), {})
    assert (set(second.moments), set(second.failed)) == ({NAMES[0], NAMES[2]}, {NAMES[1]})


# -- several processes, and interruptions ----------------------------------------------------------------------------


def test_two_processes_share_the_work_and_leave_what_one_leaves(encode, made, tmp_path):
    encode(output="one")
    encode("--to", "lmdb", output="one_store")
    for output, options in (("two", ()), ("two_store", ("--to", "lmdb"))):
        with ranks(2, *arguments(made, made / "png", tmp_path / output), *options) as processes:
            assert [process.end() for process in processes] == [0, 0], [process.said for process in processes]

    assert tree(Path("two")) == tree(Path("one"))
    assert tree(Path("two_store")) == tree(Path("one_store"))


def test_killed_runs_continue_to_the_undisturbed_tree(encode, made, tmp_path):
    encode(output="undisturbed")
    noted: list[Outcome] = []
    for file in (4, 6, 2):
        call = arguments(made, made / "png", tmp_path / "npy")
        assert forked_and_killed_at(Moment.FILE, file, *call) == -9
        now = list(Journal(tmp_path / "npy/.copgen/encode.journal").read())
        assert noted == now[: len(noted)]
        noted = now
    assert encode().code == 0

    assert tree(Path("npy")) == tree(Path("undisturbed"))


def test_killed_runs_into_a_store_continue_to_the_undisturbed_tree(encode, made, tmp_path):
    encode("--to", "lmdb", output="undisturbed")
    call = (*arguments(made, made / "png", tmp_path / "store"), "--to", "lmdb")
    for moment, number in ((Moment.UNIT, 2), (Moment.FILE, 2), (Moment.FILE, 1)):
        assert forked_and_killed_at(moment, number, *call) == -9
    assert encode("--to", "lmdb", output="store").code == 0

    assert tree(Path("store")) == tree(Path("undisturbed"))


def test_patches_cut_anew_are_encoded_anew_and_those_gone_leave(encode, made, tmp_path):
    patches = tmp_path / "png"
    shutil.copytree(made / "png", patches)
    encode(path=patches)
    changed = patch_file(patches, Split.TRAIN, Modality.DEM, NAMES[0], ".png")
    changed.write_bytes(picture_bytes(np.zeros((256, 256), np.uint8)))
    for modality in BOTH:
        patch_file(patches, Split.TRAIN, modality, NAMES[4], ".png").unlink()

    assert "done now: 1" in encode(path=patches).out
    assert {file.stem for file in Path("npy").rglob("*.npy")} == set(NAMES[:4])


def test_moments_of_another_origin_are_refused_with_overwrite_and_without(encode, tmp_path):
    write_moments(tmp_path / "npy", ["999U_999R_0"], splits=[Split.TEST], modalities=BOTH)

    for options in ((), ("--dry-run",), ("--overwrite",)):
        refused = encode(*options)
        assert refused.code == EXIT_FAILED
        assert "npy holds files" in refused.err
    assert {file.stem for file in Path("npy").rglob("*.npy")} == {"999U_999R_0"}


def test_a_run_that_ends_within_its_first_batch_is_continued(encode, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StageRun, "record", interrupted)  # the files of the batch are in place by then
        assert encode().code != 0
    assert list(Path("npy").rglob("*.npy"))

    assert encode().code == 0
    encode(output="undisturbed")
    assert tree(Path("npy")) == tree(Path("undisturbed"))


def test_straight_into_the_store_a_published_database_is_refused(encode, shared):
    shutil.copytree(shared / "golden/reference_lmdb", "store/train")

    refused = encode("--to", "lmdb", output="store")
    assert refused.code == EXIT_FAILED
    assert "--input-type lmdb" in refused.err


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["npy", "lmdb"])
def test_a_broken_patch_is_set_aside_and_tried_again_when_mended(encode, made, tmp_path, to):
    patches = tmp_path / "png"
    shutil.copytree(made / "png", patches)
    file = patch_file(patches, Split.TRAIN, Modality.S2L2A, NAMES[2], ".png")
    sound = file.read_bytes()
    for bad, reason in (
        (sound[:200], "no readable picture"),
        (picture_bytes(np.zeros((128, 256, 3), np.uint8)), "256 x 128 px, not 256 x 256"),
    ):
        file.write_bytes(bad)
        run = encode("--to", to, "--json", path=patches)
        assert run.code == EXIT_PARTLY
        assert reason in json.loads(run.out)["failed"][f"train/{NAMES[2]}"]

    file.write_bytes(sound)
    assert encode("--to", to, path=patches).code == 0
    if to == "lmdb":
        assert list(LatentStore(Path("npy/train")).names) == list(NAMES)
    else:
        assert len(list(Path("npy").rglob("*.npy"))) == 10


def test_files_of_other_kinds_are_left_alone(encode, made, tmp_path):
    patches = tmp_path / "png"
    shutil.copytree(made / "png", patches)
    for stray in ("train/notes.txt", "train/DEM_thumbnail/Thumbs.db", "train/DEM_thumbnail/.hidden.png", "other/1.png"):
        (patches / stray).parent.mkdir(exist_ok=True)
        (patches / stray).write_bytes(b"stray")

    assert encode(path=patches).code == 0
    assert len(list(Path("npy").rglob("*.npy"))) == 10


def test_no_patches_name_the_command_to_run(encode, tmp_path):
    run = encode(path=tmp_path / "nowhere")
    assert run.code == EXIT_FAILED
    assert "copgen prepare" in run.err


def test_another_autoencoder_needs_overwrite(encode, made, tmp_path):
    encode()
    tiny_autoencoder(seed=1, channels=(4, 4, 4, 4)).save_pretrained(tmp_path / "vae")

    refused = encode("--vae", tmp_path / "vae")
    assert refused.code == EXIT_FAILED
    assert "autoencoder was" in refused.err
    assert encode("--vae", tmp_path / "vae", "--overwrite").code == 0


@pytest.mark.parametrize("missing", [True, False], ids=["one to encode", "nothing to encode"])
def test_weights_that_changed_under_the_same_name_are_noticed(encode, made, tmp_path, missing):
    shutil.copytree(made / "vae", tmp_path / "vae")
    encode("--vae", tmp_path / "vae")
    tiny_autoencoder(seed=1, channels=(4, 4, 4, 4)).save_pretrained(tmp_path / "vae")
    if missing:
        next(Path("npy").rglob("*.npy")).unlink()

    refused = encode("--vae", tmp_path / "vae")
    assert refused.code == EXIT_FAILED
    assert "have changed" in refused.err


def test_a_missing_autoencoder_and_a_bad_choice_are_clear_errors(encode, tmp_path):
    missing = encode("--vae", tmp_path / "nowhere")
    assert missing.code == EXIT_FAILED
    assert "nowhere" in missing.err
    assert not Path("npy").exists()
    assert encode("--to", "zip").code == EXIT_USAGE
    assert encode("--batch-size", "0").code == EXIT_USAGE


def test_a_folder_that_another_run_writes_is_refused_with_its_name(encode, tmp_path):
    with StageRun("encode", tmp_path / "npy", settings={"autoencoder": {"id": "another"}}):
        run = encode()
    assert run.code == EXIT_FAILED
    assert f"process {os.getpid()}" in run.err
