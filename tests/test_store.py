"""The packed store: its bytes, its builder, the Dataset over it, and the import of a published database."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import shutil
import struct
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from tiny_subsets import moments_of, tree
from torch.utils.data import DataLoader

from copgen_cli.errors import BrokenInputError, BusyError, DiskFullError, MismatchError, MissingInputError
from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.published.published_store import PublishedStore, parse_value
from copgen_cli.latents.store import LatentStore, MomentsBatch, keep_batch
from copgen_cli.latents.store_builder import PAGE, StoreBuilder, store_bytes
from copgen_cli.latents.store_format import METADATA_KEY, NAMES_KEY, StoreMetadata
from copgen_cli.modalities import PUBLISHED, Modality, Split

SHAPE = (4, 8, 4, 4)
NAMES = sorted(f"{row}U_{100 + row % 3}R_{k}" for row in (463, 464) for k in range(16))
FACTS = AutoencoderFacts("some/autoencoder", "ab" * 32, 0.5)
UNIT = 5


def record(name: str, dtype: str = "float32") -> np.ndarray:
    return np.stack([moments_of(f"{name} {modality}", SHAPE[1:]) for modality in PUBLISHED]).astype(dtype)


def metadata(count: int, dtype: str = "float32") -> StoreMetadata:
    return StoreMetadata(tuple(PUBLISHED), SHAPE, dtype, count, FACTS, source="some source")


def builder(folder: Path, names=NAMES, dtype: str = "float32", source: str = "some source") -> StoreBuilder:
    size = metadata(0, dtype).record_bytes
    return StoreBuilder(folder, source=source, unit_records=UNIT, records=len(names), record_bytes=size)


def append_units(building: StoreBuilder, names=NAMES, dtype: str = "float32", until: int | None = None) -> None:
    units = [names[i : i + UNIT] for i in range(0, len(names), UNIT)]
    for unit in units[building.units_done : until]:
        building.append(unit, np.stack([record(name, dtype) for name in unit]))


def build(folder: Path, names=NAMES, dtype: str = "float32") -> Path:
    building = builder(folder.with_name(folder.name + ".building"), names, dtype)
    append_units(building, names, dtype)
    building.finish(lambda count: metadata(count, dtype))
    building.move_to(folder)
    return folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("store") / "train")


# -- format ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_record_is_the_raw_little_endian_array_under_its_name_and_no_pickle(tmp_path, dtype):
    folder = build(tmp_path / "train", dtype=dtype)

    assert os.listdir(folder) == ["data.mdb"]
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        entries = dict(transaction.cursor())
    described = json.loads(entries.pop(METADATA_KEY))
    block = entries.pop(NAMES_KEY)
    assert list(entries) == [name.encode() for name in NAMES]
    for name in NAMES:
        code = {"float32": "<512f", "float16": "<512e"}[dtype]
        assert entries[name.encode()] == struct.pack(code, *record(name, dtype).ravel().tolist())
    assert described == {
        "format": "copgen latent store",
        "version": 1,
        "modalities": ["dem", "s1_rtc", "s2_l1c", "s2_l2a"],
        "shape": [4, 8, 4, 4],
        "dtype": {"float32": "<f4", "float16": "<f2"}[dtype],
        "channels": "mean, then log-variance",
        "count": len(NAMES),
        "autoencoder": {"id": "some/autoencoder", "fingerprint": "ab" * 32, "scale_factor": 0.5},
        "source": "some source",
    }
    width = len(block) // len(NAMES)
    assert [block[i : i + width].rstrip(b"\0").decode() for i in range(0, len(block), width)] == NAMES


def test_the_expected_size_is_that_of_the_file(tmp_path):
    names = [f"{i:05}" for i in range(200)]
    size = os.path.getsize(build(tmp_path / "train", names) / "data.mdb")

    assert abs(size - store_bytes(len(names), metadata(0).record_bytes)) <= 0.02 * size


# -- reading ---------------------------------------------------------------------------------------------------------


def test_the_dataset_gives_names_and_moments_in_order(stored):
    store = LatentStore(stored)

    assert list(store.names) == NAMES
    assert list(store.names[3:5]) == NAMES[3:5]
    assert store.metadata == metadata(len(NAMES))
    assert len(store) == len(NAMES)
    for i in (0, 7, len(NAMES) - 1, -1):
        name, moments = store[i]
        assert name == NAMES[i]
        torch.testing.assert_close(moments, torch.from_numpy(record(name)), rtol=0, atol=0)


def test_what_is_no_index_is_not_called_damage(stored):
    with pytest.raises(TypeError):
        LatentStore(stored)[0:2]


def test_torchs_own_collation_gives_names_and_moments(stored):
    names, moments = next(iter(DataLoader(LatentStore(stored), batch_size=4)))

    assert list(names) == NAMES[:4]
    torch.testing.assert_close(moments[3], torch.from_numpy(record(NAMES[3])), rtol=0, atol=0)


def test_modalities_are_chosen_by_name_and_never_by_position(stored):
    store = LatentStore(stored).select(["s2_l2a", "dem"])

    assert store.modalities == (Modality.S2L2A, Modality.DEM)
    torch.testing.assert_close(store[4][1], torch.from_numpy(record(NAMES[4])[[3, 0]]), rtol=0, atol=0)
    assert LatentStore(str(stored))[0][1].shape == SHAPE
    again = store.select([Modality.DEM, Modality.S1RTC])  # of what the store holds, not of the selection before
    torch.testing.assert_close(again[4][1], torch.from_numpy(record(NAMES[4])[:2]), rtol=0, atol=0)


def test_a_modality_that_the_store_lacks_is_named(tmp_path):
    two = StoreMetadata((Modality.DEM, Modality.S1RTC), (2, 8, 4, 4), "float32", 0, FACTS, "x")
    building = StoreBuilder(tmp_path / "b", source="x", unit_records=1, records=1, record_bytes=two.record_bytes)
    building.append(["464U_102R_0"], record("x")[None, :2].copy())
    building.finish(lambda count: StoreMetadata(two.modalities, two.shape, two.dtype, count, FACTS, "x"))
    building.move_to(tmp_path / "train")

    with pytest.raises(MismatchError, match="no s2_l2a; it has dem, s1_rtc"):
        LatentStore(tmp_path / "train").select(["dem", "s2_l2a"])


def test_another_autoencoder_is_refused_where_the_store_knows_its_own(stored):
    store = LatentStore(stored)
    store.require_autoencoder(Modality.DEM, "ab" * 32, "some/autoencoder")

    with pytest.raises(MismatchError, match="some/autoencoder"):
        store.require_autoencoder(Modality.DEM, "cd" * 32, "other/autoencoder")


def epoch(store: LatentStore, **options) -> dict[str, torch.Tensor]:
    loader = DataLoader(
        store, batch_size=7, shuffle=True, collate_fn=keep_batch, generator=torch.Generator().manual_seed(0), **options
    )
    seen: dict[str, torch.Tensor] = {}
    for batch in loader:
        assert isinstance(batch, MomentsBatch)
        seen |= zip(batch.names, batch.moments, strict=True)
    return seen


@pytest.mark.parametrize("opened_before", [True, False])
@pytest.mark.parametrize("workers", [{"num_workers": 0}, {"num_workers": 2, "multiprocessing_context": "fork"}])
def test_workers_read_the_same_records_wherever_the_store_was_opened(stored, workers, opened_before):
    store = LatentStore(stored)
    if opened_before:
        assert store[0][0] == NAMES[0]

    for _ in range(2):
        seen = epoch(store, **workers)
        assert sorted(seen) == NAMES
        for name, moments in seen.items():
            torch.testing.assert_close(moments, torch.from_numpy(record(name)), rtol=0, atol=0)


def test_spawned_workers_open_the_file_themselves(stored):
    store = LatentStore(stored).select(["s1_rtc"])
    sent = pickle.dumps(store)
    assert len(sent) < 5000  # no map of the file, no moments

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        name, moments = pool.apply(store.__getitem__, (9,))
    assert name == NAMES[9]
    torch.testing.assert_close(moments, torch.from_numpy(record(name)[1:2]), rtol=0, atol=0)


def open_descriptors() -> int:
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":  # of a loader that has ended: it closes two pipes as its last act
            thread.join()
    return len(os.listdir("/proc/self/fd"))


def test_epochs_leave_no_file_descriptor_open(stored):
    store = LatentStore(stored)
    epoch(store, num_workers=2, multiprocessing_context="fork")
    before = open_descriptors()
    for _ in range(5):
        epoch(store, num_workers=2, multiprocessing_context="fork")
    assert open_descriptors() <= before


def test_several_datasets_share_one_open_file_in_a_process(stored):
    first, second = LatentStore(stored), LatentStore(stored)
    assert first[0][0] == second[0][0]
    del first
    assert second[1][0] == NAMES[1]


def test_a_read_only_folder_will_do_and_nothing_is_written_beside_the_data(tmp_path):
    folder = build(tmp_path / "train")
    before = tree(tmp_path)
    for place, mode in ((folder / "data.mdb", 0o444), (folder, 0o555), (tmp_path, 0o555)):
        place.chmod(mode)
    try:
        assert sorted(epoch(LatentStore(folder))) == NAMES
    finally:
        tmp_path.chmod(0o755)
        folder.chmod(0o755)
    assert tree(tmp_path) == before


def test_a_store_that_is_replaced_while_it_is_open_keeps_giving_what_it_gave(tmp_path):
    folder = build(tmp_path / "train")
    old = LatentStore(folder)
    build(tmp_path / "other", NAMES[:3])
    os.replace(tmp_path / "other/data.mdb", folder / "data.mdb")

    assert len(old) == len(NAMES)
    assert old[20][0] == NAMES[20]
    assert list(LatentStore(folder).names) == NAMES[:3]


# -- what is no sound store ------------------------------------------------------------------------------------------


def changed(stored: Path, folder: Path, changes: dict[bytes, bytes | None]) -> Path:
    """A copy of a store with some entries replaced or removed."""
    shutil.copytree(stored, folder)
    with lmdb.open(str(folder), map_size=1 << 26, lock=False) as env, env.begin(write=True) as transaction:
        for key, value in changes.items():
            transaction.delete(key) if value is None else transaction.put(key, value)
    return folder


def described(**changes) -> bytes:
    return json.dumps(json.loads(metadata(len(NAMES)).as_json()) | changes).encode()


BAD_METADATA = {
    "no JSON": b"\xff\x00",
    "a list": b"[]",
    "nested too deep": b"[" * 100_000,
    "another format": described(format="something"),
    "an unknown modality": described(modalities=["dem", "s1_rtc", "s2_l1c", "s5p"]),
    "a modality twice": described(modalities=["dem", "dem", "s2_l1c", "s2_l2a"]),
    "fewer modalities than the shape": described(modalities=["dem"]),
    "a shape that is none": described(shape=[4, 8, 4]),
    "an odd number of channels": described(shape=[4, 7, 4, 4]),
    "a huge shape": described(shape=[4, 8, 1 << 20, 1 << 20]),
    "an unknown type": described(dtype="|O"),
    "a count that is no number": described(count="many"),
    "a count that the names deny": described(count=31),
    "a negative count": described(count=-1),
    "no autoencoder": described(autoencoder=None),
}


@pytest.mark.parametrize("data", BAD_METADATA.values(), ids=BAD_METADATA)
def test_a_damaged_metadata_record_is_broken_input(stored, tmp_path, data):
    with pytest.raises(BrokenInputError, match=r"data\.mdb"):
        LatentStore(changed(stored, tmp_path / "bad", {METADATA_KEY: data}))


def test_another_version_says_so(stored, tmp_path):
    with pytest.raises(MismatchError, match=r"version 3; this copgen reads versions 1 and 2"):
        LatentStore(changed(stored, tmp_path / "new", {METADATA_KEY: described(version=3)}))


def test_a_database_of_another_program_is_told_how_to_be_imported(stored, tmp_path):
    with pytest.raises(BrokenInputError) as caught:
        LatentStore(changed(stored, tmp_path / "foreign", {METADATA_KEY: None}))
    assert "--input-type lmdb" in caught.value.hint


def test_a_record_that_is_missing_or_of_another_size_is_named(stored, tmp_path):
    store = LatentStore(changed(stored, tmp_path / "bad", {NAMES[3].encode(): b"short", NAMES[5].encode(): None}))

    assert store[4][0] == NAMES[4]
    with pytest.raises(BrokenInputError, match=rf"{NAMES[3]} is 5 bytes long, not 2,048"):
        store[3]
    with pytest.raises(BrokenInputError, match=rf"{NAMES[5]} is missing"):
        store[5]


def test_a_store_that_was_cut_short_is_refused_before_it_is_mapped(stored, tmp_path):
    data = (stored / "data.mdb").read_bytes()
    for kept in (0, 100, PAGE, 2 * PAGE, len(data) // 2, len(data) - 1):
        folder = tmp_path / str(kept)
        folder.mkdir()
        (folder / "data.mdb").write_bytes(data[:kept])
        with pytest.raises(BrokenInputError, match=r"data\.mdb"):
            LatentStore(folder)


def leaf_nodes(data: bytes) -> list[int]:
    """Where nodes of leaves lie in a database, of those too that a later transaction gave up."""
    nodes = []
    for page in range(2, len(data) // PAGE):
        start = page * PAGE
        if struct.unpack_from("<Q", data, start)[0] == page and struct.unpack_from("<H", data, start + 10)[0] == 2:
            end = struct.unpack_from("<H", data, start + 12)[0]
            nodes += [start + place for (place,) in struct.iter_unpack("<H", data[start + 16 : start + end])]
    return nodes


@pytest.mark.parametrize("damage", ["size", "page", "zeros", "odd"])
def test_a_tree_that_leads_out_of_the_file_is_refused_instead_of_killing_the_process(tmp_path, damage):
    names = [f"{i:05}" for i in range(9)]
    shape = (4, 8, 32, 32)  # records that have pages of their own
    large = StoreMetadata(tuple(PUBLISHED), shape, "float32", 9, FACTS, "x")
    building = StoreBuilder(tmp_path / "b", source="x", unit_records=9, records=9, record_bytes=large.record_bytes)
    building.append(names, np.zeros((9, *shape), np.float32))
    building.finish(lambda _: large)
    building.move_to(tmp_path / "train")
    data = bytearray((tmp_path / "train/data.mdb").read_bytes())
    for node in leaf_nodes(data):
        key = struct.unpack_from("<H", data, node + 6)[0]
        if damage == "size":
            struct.pack_into("<HH", data, node, 0xFFFF, 0x7FFF)
        elif damage == "page":
            struct.pack_into("<Q", data, node + 8 + key, len(data) // PAGE - 1)
        elif damage == "odd":
            struct.pack_into("<H", data, node // PAGE * PAGE + 12, 17)
        else:
            data[node // PAGE * PAGE : (node // PAGE + 1) * PAGE] = bytes(PAGE)
    (tmp_path / "train/data.mdb").write_bytes(data)

    with pytest.raises(BrokenInputError, match=r"train/data\.mdb is damaged"):
        LatentStore(tmp_path / "train")


def test_no_store_says_what_to_run(tmp_path):
    with pytest.raises(MissingInputError) as caught:
        LatentStore(tmp_path)
    assert "copgen pack" in caught.value.hint


# -- building --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped_after", [0, 1, 3, 7])
def test_a_builder_goes_on_where_it_was_and_ends_with_the_same_bytes(stored, tmp_path, stopped_after):
    append_units(builder(tmp_path / "b"), until=stopped_after)

    again = builder(tmp_path / "b")
    assert again.units_done == stopped_after
    append_units(again)
    again.finish(metadata)
    again.move_to(tmp_path / "train")

    assert tree(tmp_path) == {"train/data.mdb": (stored / "data.mdb").read_bytes()}


def test_a_transaction_that_a_kill_tore_leaves_no_trace(stored, tmp_path):
    append_units(builder(tmp_path / "b"), until=2)
    child = multiprocessing.get_context("fork").Process(target=_die_within_a_transaction, args=(tmp_path / "b",))
    child.start()
    child.join()
    assert child.exitcode == -9

    again = builder(tmp_path / "b")
    assert again.units_done == 2
    append_units(again)
    again.finish(metadata)
    assert again.file.read_bytes() == (stored / "data.mdb").read_bytes()


def _die_within_a_transaction(folder: Path) -> None:
    building = builder(folder)
    with building._writing() as transaction:
        for name in NAMES[10:13]:
            transaction.put(name.encode(), record(name).tobytes(), append=True)
        os.kill(os.getpid(), 9)


def test_a_finished_store_that_was_not_moved_yet_is_found_finished(tmp_path):
    first = builder(tmp_path / "b")
    append_units(first)
    first.finish(metadata)

    assert builder(tmp_path / "b").finished


@pytest.mark.parametrize(("source", "unit"), [("another source", UNIT), ("some source", UNIT + 1)])
def test_another_source_or_other_units_begin_anew(tmp_path, source, unit):
    append_units(builder(tmp_path / "b"), until=3)
    (tmp_path / "b/000000001.part").write_bytes(b"of the old source")

    size = metadata(0).record_bytes
    other = StoreBuilder(tmp_path / "b", source=source, unit_records=unit, records=32, record_bytes=size)

    assert other.units_done == 0
    assert not (tmp_path / "b/000000001.part").exists()


@pytest.mark.parametrize(("free", "error"), [(100, DiskFullError), (1 << 40, lmdb.Error)])
def test_a_disk_that_takes_only_part_of_a_unit_is_full_if_it_has_no_room_else_broken(
    stored, tmp_path, monkeypatch, free, error
):
    building = builder(tmp_path / "b")
    append_units(building, until=2)
    monkeypatch.setattr("copgen_cli.latents.store_builder.free_space", lambda path: free)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # ends a write in the middle, as a disk does that fills up
    resource.setrlimit(resource.RLIMIT_FSIZE, (building.size + 3 * PAGE // 2, limits[1]))
    try:
        with pytest.raises(error):
            append_units(building)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    again = builder(tmp_path / "b")
    assert again.units_done == 2
    append_units(again)
    again.finish(metadata)
    assert again.file.read_bytes() == (stored / "data.mdb").read_bytes()


def test_two_builders_at_once_do_not_mix_their_units(stored, tmp_path):
    # a lock on the output keeps them apart; on file systems where locks do nothing this is what is left
    one, other = builder(tmp_path / "b"), builder(tmp_path / "b")
    append_units(one, until=2)
    append_units(other, until=4)
    append_units(one)
    append_units(other)
    one.finish(metadata)
    assert one.file.read_bytes() == (stored / "data.mdb").read_bytes()

    one.move_to(tmp_path / "train")
    with pytest.raises(BusyError):
        other.finish(metadata)


def test_records_out_of_order_are_a_bug(tmp_path):
    building = builder(tmp_path / "b")
    building.append(NAMES[5:10], np.stack([record(name) for name in NAMES[5:10]]))

    with pytest.raises(ValueError, match="does not come after"):
        building.append(NAMES[:1], record(NAMES[0])[None])


# -- the published database ------------------------------------------------------------------------------------------


def read(store: PublishedStore, split: Split, name: str) -> np.ndarray:
    out = np.empty((len(store.modalities), *store.shapes[0]), np.float32)
    store.read_into(out, split, name)
    return out


def test_the_published_database_is_read_as_recorded(shared):
    expected = np.load(shared / "golden/reference_lmdb_expected.npz", allow_pickle=False)

    store = PublishedStore(shared / "golden/reference_lmdb")

    assert store.names(Split.TRAIN) == list(expected["names"])
    assert [modality.spec.folder for modality in store.modalities] == list(expected["modalities"])
    for name, moments in zip(expected["names"], expected["moments"], strict=True):
        np.testing.assert_array_equal(read(store, Split.TRAIN, str(name)), moments)


def published(folder: Path, records: dict[str, object]) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value if isinstance(value, bytes) else pickle.dumps(value, protocol=4))
    return folder


def value_of(name: str) -> dict[str, bytes]:
    folders = ("S2L2A_thumbnail", "DEM_thumbnail")  # the order of a directory, which says nothing
    return {folder: moments_of(f"{name} {folder}", (8, 32, 32)).tobytes() for folder in folders}


def test_modalities_of_a_published_database_are_told_by_folder_and_not_by_position(tmp_path):
    published(tmp_path / "db/test", {"464U_102R_0.npy": value_of("a"), "notes.txt": b"?"})

    store = PublishedStore(tmp_path / "db")

    assert store.modalities == (Modality.DEM, Modality.S2L2A)
    assert (store.names(Split.TRAIN), store.names(Split.TEST)) == ([], ["464U_102R_0"])
    got = read(store, Split.TEST, "464U_102R_0")
    np.testing.assert_array_equal(got[1], moments_of("a S2L2A_thumbnail", (8, 32, 32)))


class Malicious:
    """What an attacker would put into a database."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(tmp_path, protocol):
    for evil in (Malicious(tmp_path / "pwned"), {"DEM_thumbnail": Malicious(tmp_path / "pwned")}):
        with pytest.raises(BrokenInputError, match="refused"):
            parse_value(pickle.dumps(evil, protocol=protocol), "463U_102R_0")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b".",
        pickle.dumps([b"x"]),
        pickle.dumps({"a": [b"x"]}),
        pickle.dumps({"a": 1}),
        pickle.dumps({1: b"x"}),
        pickle.dumps({"a": {"b": b"x"}}),
        pickle.dumps({"a": b"x"})[:-3],
        b"\x80\x04r\xff\xff\xff\x7f.",  # a memo index that would make the standard reader take gigabytes
        b"\x80\x04}(h\x05h\x06u.",
        b"\x80\x04" + b"}" * 5000 + b".",
    ],
)
def test_values_that_are_no_dict_of_text_to_bytes_are_refused(value):
    with pytest.raises(BrokenInputError):
        parse_value(value, "463U_102R_0")


@given(st.binary(max_size=60), st.integers(0, 60))
def test_mutated_values_raise_nothing_else(noise, at):
    good = pickle.dumps({"DEM_thumbnail": b"0123456789", "S1RTC_thumbnail": b"abc"}, protocol=4)
    try:
        value = parse_value(good[:at] + noise + good[at + len(noise) :], "463U_102R_0")
    except BrokenInputError:
        return
    assert all(isinstance(key, str) and isinstance(data, bytes) for key, data in value.items())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"DEM_thumbnail": value_of("a")["DEM_thumbnail"]}, "has DEM_thumbnail"),
        (value_of("a") | {"DEM_thumbnail": b"short"}, "32,768 bytes"),
    ],
)
def test_a_record_that_differs_from_the_first_is_refused_alone(tmp_path, bad, reason):
    store = PublishedStore(published(tmp_path / "db", {"1.npy": value_of("a"), "2.npy": bad, "3.npy": value_of("b")}))

    np.testing.assert_array_equal(read(store, Split.TRAIN, "3")[0], moments_of("b DEM_thumbnail", (8, 32, 32)))
    with pytest.raises(BrokenInputError, match=reason):
        read(store, Split.TRAIN, "2")


def test_a_database_with_a_damaged_tree_is_refused_before_it_is_mapped(tmp_path):
    folder = published(tmp_path / "db", {f"{i}.npy": value_of(str(i)) for i in range(3)})
    data = bytearray((folder / "data.mdb").read_bytes())
    node = leaf_nodes(data)[0]
    key = struct.unpack_from("<H", data, node + 6)[0]
    struct.pack_into("<Q", data, node + 8 + key, 1 << 40)
    (folder / "data.mdb").write_bytes(data)

    with pytest.raises(BrokenInputError, match="no sound LMDB"):
        PublishedStore(folder)


def test_no_published_database_is_missing_input(tmp_path):
    with pytest.raises(MissingInputError):
        PublishedStore(tmp_path)
