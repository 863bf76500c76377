"""A packed store in shards: how it is written, that it reads like a single file, and its copies on a local disk."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from copgen_processes import running
from killed_runs import Moment, forked_and_killed_at
from sample_commands import call_copgen, one_thread
from test_training_resume import SETTINGS, everything, go_on, stop_at
from tiny_models import tiny_autoencoder
from tiny_stores import tiny_shards, tiny_store
from tiny_subsets import tree, write_moments, write_patches
from torch.utils.data import DataLoader

from copgen_cli.errors import EXIT_FAILED, EXIT_PARTLY, EXIT_USAGE, BrokenInputError, CopgenError, MismatchError
from copgen_cli.inputs.records import choose_data
from copgen_cli.latents import packing
from copgen_cli.latents.published.published_store import PublishedStore
from copgen_cli.latents.sharded import store as sharded_store
from copgen_cli.latents.sharded.index import INDEX_FILE
from copgen_cli.latents.sharded.store import ShardedStore, open_store
from copgen_cli.latents.store import LatentStore, keep_batch
from copgen_cli.latents.store_cache import HeldCopy, StoreCache
from copgen_cli.layout import Workspace, patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.records import LatentSpec
from copgen_cli.stages.process_group import World
from copgen_cli.training.run import open_data
from copgen_cli.training.setup import prepare_run

NAMES = [f"{row}U_{100 + row % 3}R_{k}" for row in (463, 464) for k in range(16)]
SORTED = sorted(NAMES)
BOTH = (Modality.DEM, Modality.S2L2A)


@pytest.fixture
def pack(tmp_path, monkeypatch, capsys):
    """`copgen pack` of `npy` to `store`, both below an empty folder, in this process; several units a shard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packing, "RECORDS_PER_UNIT", 3)

    def pack(*options: object, path: Path | str = "npy", output: str = "store"):
        return call_copgen(capsys, "pack", "--input-dir", path, "--output-dir", output, "--workers", 1, *options)

    return pack


@pytest.fixture
def npy(tmp_path) -> Path:
    write_moments(tmp_path / "npy", NAMES[:3], splits=[Split.TEST], modalities=BOTH, shape=(8, 4, 4))
    return write_moments(tmp_path / "npy", NAMES, modalities=BOTH, shape=(8, 4, 4))


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("single") / "store", train=10)


@pytest.fixture(scope="module")
def shards(single, tmp_path_factory) -> Path:
    return tiny_shards(single, tmp_path_factory.mktemp("shards") / "store", shards=3)


def index_in(folder: Path | str) -> dict:
    return json.loads(Path(folder, INDEX_FILE).read_text())


# -- packing ---------------------------------------------------------------------------------------------------------


def test_records_lie_in_contiguous_ranges_each_a_store_that_the_index_describes(pack, npy):
    assert pack("--shards", 5).code == 0
    assert pack(output="whole").code == 0

    index, whole = index_in("store/train"), LatentStore(Path("whole/train"))
    assert [shard["records"] for shard in index["shards"]] == [6, 6, 7, 6, 7]
    start = 0
    for shard in index["shards"]:
        file = Path("store/train", shard["file"])
        own = LatentStore(file.parent)
        assert list(own.names) == SORTED[start : start + len(own)]
        assert (own.names[0], own.names[-1], own.metadata.source) == (shard["first"], shard["last"], shard["source"])
        assert (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()) == (shard["bytes"], shard["sha256"])
        start += len(own)
    store = open_store(Path("store/train"))
    assert store.metadata == whole.metadata
    for i in range(len(whole)):
        assert store[i][0] == whole[i][0]
        assert torch.equal(store[i][1], whole[i][1])
    assert len(index_in("store/test")["shards"]) == 1  # of three records, which fit one of the others' size


def test_a_size_says_how_many_records_a_shard_has_and_a_second_run_writes_nothing(pack, npy):
    assert pack("--shard-bytes", "96KiB").code == 0

    sizes = [file.stat().st_size for file in Path("store/train").glob("*/data.mdb")]
    assert len(sizes) > 2
    assert 48 << 10 < max(sizes) <= 96 << 10
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in Path("store").rglob("*")}
    again = pack("--shard-bytes", "96KiB")
    assert "Nothing to do" in again.err
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in Path("store").rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--shards", 2, "--shard-bytes", "1GB"), "give one of them"),
        (("--shards", 33), "Ask for at most 32"),
        (("--shard-bytes", "2kB"), "some gigabytes are usual"),
        (("--shard-bytes", "many"), "shard_bytes"),
    ],
)
def test_what_can_not_be_dealt_is_wrong_usage_and_writes_nothing(pack, npy, options, told):
    refused = pack(*options)

    assert refused.code == EXIT_USAGE
    assert told in refused.err
    assert not Path("store").exists()


def test_other_shards_need_overwrite_which_leaves_none_of_before(pack, npy):
    pack("--shards", 4)
    refused = pack("--shards", 2)
    assert (refused.code, "shards was 4, and is now 2" in refused.err) == (EXIT_FAILED, True)

    assert pack("--shards", 2, "--overwrite").code == 0
    pack("--shards", 2, output="fresh")
    assert tree(Path("store")) == tree(Path("fresh"))
    assert pack("--overwrite").code == 0
    pack(output="single")
    assert tree(Path("store")) == tree(Path("single"))


def test_a_broken_record_is_left_out_of_its_shard_until_it_is_mended(pack, npy):
    file = patch_file(Path("npy"), Split.TRAIN, Modality.DEM, SORTED[9], ".npy")
    sound = file.read_bytes()
    file.write_bytes(b"broken")

    run = pack("--shards", 4, "--json")
    assert run.code == EXIT_PARTLY
    assert list(json.loads(run.out)["failed"]) == [f"train/{SORTED[9]}"]
    assert list(open_store(Path("store/train")).names) == [name for name in SORTED if name != SORTED[9]]
    others = [Path("store/train", shard["file"]).stat().st_ino for shard in index_in("store/train")["shards"]]

    file.write_bytes(sound)
    assert pack("--shards", 4).code == 0
    assert list(open_store(Path("store/train")).names) == SORTED
    now = [Path("store/train", shard["file"]).stat().st_ino for shard in index_in("store/train")["shards"]]
    assert [a == b for a, b in zip(others, now, strict=True)] == [True, False, True, True]


def test_a_shard_that_is_lost_is_made_again_and_no_other(pack, npy):
    pack("--shards", 4)
    before = tree(Path("store"))
    kept = Path("store/train/shard-00001/data.mdb").stat().st_ino
    Path("store/train/shard-00002/data.mdb").unlink()

    assert pack("--shards", 4).code == 0

    assert tree(Path("store")) == before
    assert Path("store/train/shard-00001/data.mdb").stat().st_ino == kept


def test_workers_leave_the_bytes_of_one_process(pack, npy, monkeypatch):
    monkeypatch.setattr(packing, "RECORDS_PER_UNIT", 256)
    pack("--shards", 3)
    assert pack("--shards", 3, "--workers", 2, output="workers").code == 0
    assert tree(Path("workers")) == tree(Path("store"))


def test_a_published_database_goes_to_shards_also_from_workers(pack, shared):
    folder = shared / "golden/reference_lmdb"
    assert pack("--input-type", "lmdb", path=folder, output="whole").code == 0
    assert pack("--input-type", "lmdb", "--shards", 2, path=folder).code == 0
    whole, store = LatentStore(Path("whole/train")), open_store(Path("store/train"))
    assert list(store.names) == list(whole.names)
    assert all(torch.equal(store[i][1], whole[i][1]) for i in range(len(whole)))

    reader = pickle.loads(pickle.dumps(PublishedStore(folder).reader()))  # noqa: S301 (our own, just made)
    out = [np.empty((8, 32, 32), np.float32) for _ in whole.modalities]
    reader.read_into(out, Split.TRAIN, whole.names[1])
    np.testing.assert_array_equal(np.stack(out), whole[1][1])


@pytest.mark.parametrize("kill", [None, (Moment.UNIT, 3), (Moment.NOTE, 1)])
def test_patches_straight_through_the_autoencoder_give_the_records_of_a_single_file(pack, tmp_path, kill):
    two_patches = "[encode]\nbatch_size = 4\n"  # so that one batch lies across the edge
    (tmp_path / "copgen.toml").write_text(two_patches)  # a process forked from a server has not this one's variables
    with one_thread():
        tiny_autoencoder(channels=(4, 4, 4, 4)).save_pretrained(tmp_path / "vae")
        write_patches(tmp_path / "png", NAMES[:7], modalities=BOTH)
        call = ("--input-type", "png", "--vae", tmp_path / "vae")
        assert pack(*call, path="png", output="whole").code == 0
        sharded = ("pack", "--input-dir", "png", *call, "--shards", 2, "--output-dir")
        if kill:
            assert forked_and_killed_at(*kill, *sharded, tmp_path / "store") == -9
        assert pack(*call, "--shards", 2, path="png").code == 0

    whole, store = LatentStore(Path("whole/train")), open_store(Path("store/train"))
    assert [shard["records"] for shard in index_in("store/train")["shards"]] == [3, 4]
    assert list(store.names) == list(whole.names)
    assert all(torch.equal(store[i][1], whole[i][1]) for i in range(len(whole)))


# of 3 shards of 2 units each: amid the first and the last; one complete, not in place, and in place, not noted;
# before the names, the index, the list of units and the manifest go to their places
KILLS = [
    *((Moment.UNIT, n) for n in (2, 6)),
    *((Moment.STORE, n) for n in (1, 3)),
    *((Moment.NOTE, n) for n in (1, 3)),
    *((Moment.FILE, n) for n in (2, 3, 4, 5)),
]


def test_killed_runs_end_with_the_tree_of_an_undisturbed_one(tmp_path, capsys):
    names = [f"{400 + i // 16}U_100R_{i % 16}" for i in range(3 * packing.RECORDS_PER_UNIT + 9)]
    write_moments(tmp_path / "npy", names, modalities=BOTH[:1], shape=(2, 1, 1))
    patch_file(tmp_path / "npy", Split.TRAIN, BOTH[0], names[3], ".npy").write_bytes(b"broken")
    call = ("pack", "--input-dir", tmp_path / "npy", "--shards", 3, "--workers", 1, "--output-dir")
    assert call_copgen(capsys, *call, tmp_path / "undisturbed").code == EXIT_PARTLY
    expected = tree(tmp_path / "undisturbed")

    for number, kill in enumerate(KILLS):
        output = tmp_path / str(number)
        assert forked_and_killed_at(*kill, *call, output) == -9, kill
        for file in output.glob("train/*/data.mdb"):  # whole or absent
            assert file.read_bytes() == expected[file.relative_to(output).as_posix()]
        assert (output / "train" / INDEX_FILE).exists() == (kill in KILLS[-2:])
        assert call_copgen(capsys, *call, output).code == EXIT_PARTLY
        assert tree(output) == expected, kill


# -- reading ---------------------------------------------------------------------------------------------------------


def epoch(store: LatentStore, **options) -> list[tuple[tuple[str, ...], torch.Tensor]]:
    order = torch.Generator().manual_seed(0)
    loader = DataLoader(store, batch_size=4, shuffle=True, collate_fn=keep_batch, generator=order, **options)
    return [(batch.names, batch.moments) for batch in loader]


@pytest.mark.parametrize("opened_before", [True, False])
@pytest.mark.parametrize("workers", [{"num_workers": 0}, {"num_workers": 2, "multiprocessing_context": "fork"}])
@pytest.mark.parametrize("most", [1, 128])
def test_an_epoch_is_that_of_the_single_file(single, shards, monkeypatch, most, workers, opened_before):
    monkeypatch.setattr(sharded_store, "MOST_OPEN", most)
    store = open_store(shards / "train")
    if opened_before:
        assert store[5][0] == "train_0005"

    expected, seen = epoch(LatentStore(single / "train")), epoch(store, **workers)

    assert [names for names, _ in seen] == [names for names, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(seen, expected, strict=True))


def test_shards_are_opened_when_they_are_read_and_few_at_a_time(shards, monkeypatch):
    monkeypatch.setattr(sharded_store, "MOST_OPEN", 2)
    store = ShardedStore(shards / "train" / INDEX_FILE)
    opened = store._open
    assert len(opened) == 0
    assert store.__getitems__([0, 1]).names == ("train_0000", "train_0001")
    assert len(opened) == 1

    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert store.__getitems__([9, 0, 4, 8, 1]).names[0] == "train_0009"
        assert len(opened) == 2
    assert len(os.listdir("/proc/self/fd")) == descriptors + 1


def test_a_selection_negative_places_and_pickled_stores_read_the_same(single, shards):
    whole, store = (s.select(["s2_l2a", "dem"]) for s in (LatentStore(single / "train"), open_store(shards / "train")))
    assert store.modalities == whole.modalities
    assert torch.equal(store[-1][1], whole[-1][1])
    with pytest.raises(IndexError):
        store[10]
    sent = pickle.dumps(store)
    assert len(sent) < 8000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        name, moments = pool.apply(store.__getitem__, (7,))
    assert (name, torch.equal(moments, whole[7][1])) == ("train_0007", True)


def test_a_folder_and_its_index_are_the_same_store(single, shards):
    for path in (shards / "train", shards / "train" / INDEX_FILE):
        assert len(open_store(path)) == 10
    assert type(open_store(single / "train")) is LatentStore
    for path in (shards, shards / "train" / INDEX_FILE):
        train, test, _ = open_data(path)
        assert (len(train), len(test)) == (10, 3)
    assert choose_data(shards, Workspace(Path(), "x")).folder == shards / "test"
    assert choose_data(shards / "train" / INDEX_FILE, Workspace(Path(), "x")).folder == shards / "train"


@pytest.mark.parametrize("stops", [(), (7,), (5, 6)])
def test_training_on_shards_with_a_cache_goes_as_on_the_single_file_and_resumes_in_mid_epoch(
    single, shards, tmp_path, stops
):
    def prepare(store: Path, run: str, cache: StoreCache | None = None):
        train, test = (open_store(store / split, cache) for split in (Split.TRAIN, Split.TEST))
        spec = LatentSpec.alike(train.modalities, 4, 8, "absent", "f" * 64, 0.5)
        world = World(torch.device("cpu"))
        return prepare_run(train, test, spec, SETTINGS, tmp_path / run / "checkpoints", world)

    whole = prepare(single, "single")
    expected = list(go_on(whole, stop_at()))
    reports = []
    for _ in range(len(stops) + 1):
        prepared = prepare(shards, "shards", StoreCache(tmp_path / "cache"))
        reports += go_on(prepared, stop_at(*(step for step in stops if step > prepared.state.step)))

    assert [report.names for report in reports] == [report.names for report in expected]
    assert [report.loss for report in reports] == [report.loss for report in expected]
    own, final = everything(prepared), everything(whole)
    assert [name for name in final if not torch.equal(own[name], final[name])] == []


# -- what is no sound store ------------------------------------------------------------------------------------------


def changed(shards: Path, folder: Path, /, **values: object) -> Path:
    """A copy of the train split, whose index says something else."""
    shutil.copytree(shards / "train", folder)
    (folder / INDEX_FILE).write_text(json.dumps(index_in(folder) | values))
    return folder


def test_an_index_of_a_newer_format_says_which_copgen_reads_it(shards, tmp_path):
    with pytest.raises(MismatchError, match="index of version 2; this copgen reads version 1") as caught:
        open_store(changed(shards, tmp_path / "x", version=2))
    assert "newer" in caught.value.hint


@pytest.mark.parametrize("path", ["../elsewhere/data.mdb", "/etc/data.mdb", "shard-00000/../../data.mdb"])
def test_an_index_does_not_lead_out_of_its_folder(shards, tmp_path, path):
    listed = index_in(shards / "train")["shards"]
    listed[1]["file"] = path

    with pytest.raises(BrokenInputError, match="no path inside a folder"):
        open_store(changed(shards, tmp_path / "x", shards=listed))


@pytest.mark.parametrize(
    "values",
    [
        {"format": "x"},
        {"shards": []},
        {"shards": [{}]},
        {"names": {"file": "names.bin"}},
        {"metadata": {}},
        {"shards": 3},
    ],
    ids=str,
)
def test_an_index_that_contradicts_itself_is_damaged(shards, tmp_path, values):
    with pytest.raises(BrokenInputError, match=r"index\.json") as caught:
        open_store(changed(shards, tmp_path / "x", **values))
    assert "copgen pack" in caught.value.hint


def damage_missing(file: Path, other: Path) -> None:
    file.unlink()


def damage_cut_short(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4096])


def damage_another(file: Path, other: Path) -> None:
    size = file.stat().st_size
    file.write_bytes(other.read_bytes())
    assert file.stat().st_size == size


def damage_one_bit(file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-2000] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "told", "cached_only"),
    [
        (damage_missing, "is missing", False),
        (damage_cut_short, "bytes, not", False),
        (damage_another, "another than the index tells|not those that the index tells", False),
        (damage_one_bit, "not those that the index tells", True),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_a_shard_that_is_not_what_the_index_says_is_one_error_with_a_hint(
    shards, tmp_path, damage, told, cached_only, cached
):
    folder = changed(shards, tmp_path / "x")
    damage(folder / "shard-00001/data.mdb", folder / "shard-00000/data.mdb")
    store = open_store(folder, StoreCache(tmp_path / "cache") if cached else None)

    assert store[0][0] == "train_0000"
    if cached_only and not cached:
        return  # what a single file does not notice either
    with pytest.raises(BrokenInputError, match=told) as caught:
        store[4]
    assert "shard-00001" in str(caught.value)
    assert "copgen pack" in caught.value.hint
    assert list((tmp_path / "cache").rglob("under-way/*")) == []


@pytest.mark.parametrize("data", [None, b"", b"x" * 100])
def test_names_that_are_lost_or_others_are_named(shards, tmp_path, data):
    folder = changed(shards, tmp_path / "x")
    (folder / "names.bin").unlink() if data is None else (folder / "names.bin").write_bytes(data)
    with pytest.raises(BrokenInputError, match=r"names\.bin"):
        open_store(folder)


def test_a_damaged_shard_ends_training_with_one_line(shards, tmp_path, capsys):
    shutil.copytree(shards, tmp_path / "x")
    (tmp_path / "x/train/shard-00001/data.mdb").unlink()
    call = ("train", "--data", tmp_path / "x", "--preset", "tiny", "--device", "cpu", "--steps", 4, "--batch-size", 8)

    run = call_copgen(capsys, *call, "--preview-every", 0, "--validate-every", 0, "--workdir", tmp_path / "run")

    assert run.code == EXIT_FAILED
    assert "shard-00001/data.mdb is missing" in run.err
    assert "Traceback" not in run.err


# -- copies on a local disk ------------------------------------------------------------------------------------------


class Sources:
    """Files of 1,000 bytes, and how often each was copied."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.opened = folder, 0

    def hold(self, cache: StoreCache, name: str) -> HeldCopy | None:
        data = name.encode() * 1000
        (self.folder / name).write_bytes(data)
        outer = self

        class Remote:
            """What behaves like a path of another machine in these two respects, and no other."""

            def open(self, mode: str):
                outer.opened += 1
                return (outer.folder / name).open(mode)

            def stat(self):
                return (outer.folder / name).stat()

        return cache.hold(Remote(), 1000, hashlib.sha256(data).hexdigest())


@pytest.fixture
def sources(tmp_path) -> Sources:
    (tmp_path / "remote").mkdir()
    return Sources(tmp_path / "remote")


def cached(cache: StoreCache) -> set[str]:
    return {file.read_bytes()[:1].decode() for file in cache.folder.glob("*/*/data.mdb")}


def test_what_was_used_longest_ago_goes_when_the_limit_is_reached(tmp_path, sources):
    cache = StoreCache(tmp_path / "cache", limit=3500)
    for name in "abcabac":
        sources.hold(cache, name).release()
    assert (cached(cache), sources.opened) == ({"a", "b", "c"}, 3)
    for file in cache.folder.glob("*/*/data.mdb"):  # as if some hours lay between the uses
        os.utime(file, ns=(0, "bac".index(file.read_bytes()[:1].decode()) * 10**12))

    sources.hold(cache, "d").release()
    assert cached(cache) == {"a", "c", "d"}
    sources.hold(cache, "a").release()
    sources.hold(cache, "e").release()
    assert cached(cache) == {"a", "d", "e"}


def test_what_is_in_use_is_never_removed_and_what_finds_no_room_is_told_so(tmp_path, sources):
    cache = StoreCache(tmp_path / "cache", limit=2000)
    first, second = sources.hold(cache, "a"), sources.hold(cache, "b")
    again = sources.hold(cache, "a")

    assert sources.hold(cache, "c") is None
    first.release()
    assert sources.hold(cache, "c") is None  # it is held twice
    assert cached(cache) == {"a", "b"}
    again.release()
    third = sources.hold(cache, "c")
    assert cached(cache) == {"b", "c"}
    for held in (second, third):
        held.release()


def hold_and_wait(folder: Path, source: Path, sha256: str) -> None:
    held = StoreCache(folder, limit=1500).hold(source, 1000, sha256)
    assert held is not None
    sys.stdout.write("held\n")
    sys.stdout.flush()
    threading.Event().wait()


def test_a_copy_that_another_process_uses_stays_until_that_is_gone(tmp_path, sources):
    cache = StoreCache(tmp_path / "cache", limit=1500)
    (tmp_path / "remote/a").write_bytes(b"a" * 1000)
    with running(hold_and_wait, cache.folder, tmp_path / "remote/a", hashlib.sha256(b"a" * 1000).hexdigest()) as other:
        other.wait_for("held")
        assert sources.hold(cache, "b") is None
        other.process.kill()
        other.end()
    held = sources.hold(cache, "b")
    assert cached(cache) == {"b"}
    held.release()


def hold_counted(folder: Path, source: Path, sha256: str, log: Path) -> None:
    class Counted(type(source)):  # type: ignore[misc]
        def open(self, *arguments, **options):
            with log.open("a") as stream:
                stream.write("x")
            return super().open(*arguments, **options)

    held = StoreCache(folder).hold(Counted(source), 4 << 20, sha256)
    assert held is not None
    assert hashlib.sha256((held.folder / "data.mdb").read_bytes()).hexdigest() == sha256


def test_several_processes_at_once_share_one_copy(tmp_path):
    source, log = tmp_path / "source", tmp_path / "log"
    source.write_bytes(os.urandom(4 << 20))
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    arguments = (hold_counted, tmp_path / "cache", source, sha256, log)

    with running(*arguments) as a, running(*arguments) as b, running(*arguments) as c:
        assert [process.end() for process in (a, b, c)] == [0, 0, 0], a.said + b.said + c.said

    assert log.read_text() == "x"
    assert len(list((tmp_path / "cache").rglob("data.mdb"))) == 1


def die_while_copying(folder: Path, source: Path) -> None:
    class Fatal(type(source)):  # type: ignore[misc]
        def open(self, *arguments, **options):
            os._exit(9)

    StoreCache(folder, limit=1500).hold(Fatal(source), 1000, hashlib.sha256(b"a" * 1000).hexdigest())


def test_a_copy_that_a_kill_cut_short_is_made_again_and_takes_no_room(tmp_path, sources):
    cache = StoreCache(tmp_path / "cache", limit=1500)
    (tmp_path / "remote/a").write_bytes(b"a" * 1000)
    with running(die_while_copying, cache.folder, tmp_path / "remote/a") as other:
        assert other.end() == 9
    assert len(list(cache.folder.glob("under-way/*"))) == 1

    held = sources.hold(cache, "a")

    assert (cached(cache), list(cache.folder.glob("under-way/*"))) == ({"a"}, [])
    held.release()


def test_a_copy_of_another_size_is_made_again(tmp_path, sources):
    cache = StoreCache(tmp_path / "cache")
    sources.hold(cache, "a").release()
    next(cache.folder.glob("*/*/data.mdb")).write_bytes(b"short")

    sources.hold(cache, "a").release()

    assert next(cache.folder.glob("*/*/data.mdb")).read_bytes() == b"a" * 1000


@pytest.mark.parametrize("workers", [{"num_workers": 0}, {"num_workers": 2, "multiprocessing_context": "fork"}])
def test_an_epoch_through_a_cache_for_two_shards_is_that_of_the_single_file(single, shards, tmp_path, workers):
    size = max(file.stat().st_size for file in shards.rglob("data.mdb"))
    cache = StoreCache(tmp_path / "cache", limit=2 * size + 100)
    expected, seen = epoch(LatentStore(single / "train")), epoch(open_store(shards / "train", cache), **workers)

    assert [names for names, _ in seen] == [names for names, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(seen, expected, strict=True))
    assert sum(file.stat().st_size for file in cache.folder.rglob("data.mdb")) <= cache.limit


class Elsewhere:
    """A folder of another machine: its files can be opened for a cache, and not be mapped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __truediv__(self, path: str) -> Path:
        return self._folder / path


def test_what_finds_no_room_is_read_where_it_is_or_else_in_the_room_of_what_was_open(single, shards, tmp_path):
    small = StoreCache(tmp_path / "small", limit=1000)
    assert open_store(shards / "train", small)[0][0] == "train_0000"

    remote = open_store(shards / "train", small)
    remote._open._folder = Elsewhere(shards / "train")
    with pytest.raises(CopgenError, match="no room for a shard") as caught:
        remote[0]
    assert "cache_bytes" in caught.value.hint

    one = StoreCache(tmp_path / "one", limit=100_000)
    remote = open_store(shards / "train", one)
    remote._open._folder = Elsewhere(shards / "train")
    expected = epoch(LatentStore(single / "train"))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(epoch(remote), expected, strict=True))
    assert len(list(one.folder.rglob("data.mdb"))) == 1


def test_the_settings_name_the_cache_of_a_run(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("copgen.toml").write_text('[data]\ncache_dir = "cache"\ncache_bytes = "1GB"\n')
    call = ("train", "--data", shards, "--preset", "tiny", "--device", "cpu", "--steps", 2, "--batch-size", 10)

    assert call_copgen(capsys, *call, "--preview-every", 0, "--validate-every", 0, "--workdir", "run").code == 0

    assert len(list(Path("cache").glob("*/*/data.mdb"))) == 3
