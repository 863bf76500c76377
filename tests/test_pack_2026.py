"""`copgen pack --input-type lmdb` of a merged database of COP-GEN (2026): read as data, never unpickled."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, strategies as st
from typer.testing import CliRunner

from copgen_cli.app import app
from copgen_cli.errors import BrokenInputError, MissingInputError
from copgen_cli.latents.published.merged_store import MergedStore
from copgen_cli.latents.published.pickles import parse_arrays
from copgen_cli.latents.published.scalars import PlaceCache, TimeCache
from copgen_cli.latents.store import LatentStore
from copgen_cli.modalities import COPGEN_2026, Modality, modalities_in

RASTERS = [modality for modality in modalities_in(COPGEN_2026) if not modality.spec.is_scalar]
CELLS = ("454U_120R", "8D_1933R")
HINT = "Export it again."


def moments_of(name: str, modality: Modality) -> np.ndarray:
    channels, height, width = modality.spec.latent
    seed = sum(f"{name} {modality}".encode())
    return np.random.default_rng(seed).standard_normal((2 * channels, height, width)).astype(np.float32)


def value_of(name: str) -> dict[str, np.ndarray]:
    return {modality.spec.published: moments_of(name, modality) for modality in reversed(RASTERS)}


def write(folder: Path, records: dict[str, object], protocol: int = 4) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return folder


@pytest.fixture(params=[4, 5], ids=["protocol 4", "protocol 5"])
def merged(request, tmp_path):
    records = {f"{cell}_patch_{k}": value_of(f"{cell}_{k}") for cell in CELLS for k in (0, 5, 35)}
    write(tmp_path / "merged/train", records | {"_cache_x": b"?", "1U_1R_patch_36": b"?"}, request.param)
    write(tmp_path / "merged/test", {"7U_7L_patch_1": value_of("7U_7L_1")}, request.param)
    return tmp_path / "merged"


@pytest.fixture
def caches(tmp_path):
    """Of the two cells of train alone."""
    folder = tmp_path / "latlon"
    folder.mkdir()
    np.save(folder / "cells.npy", np.array(CELLS))
    np.save(folder / "latlon_patches.npy", np.arange(2 * 36 * 3, dtype=np.float32).reshape(2, 6, 6, 3) / 216)
    (folder / "meta.json").write_text(json.dumps({"side": 6, "format": "npy", "vec_dim": 3}))
    times = {cell: np.array([i, 0.5, -0.5], np.float32) for i, cell in enumerate(CELLS)}
    (tmp_path / "times.pkl").write_bytes(pickle.dumps(times))
    return folder, tmp_path / "times.pkl"


def run(merged, *options):
    arguments = ["--input-type", "lmdb", "--input-dir", merged, "--output-dir", merged.parent / "store", *options]
    return CliRunner().invoke(app, ["pack", *map(str, arguments)])


def test_a_merged_database_becomes_a_store_in_the_order_of_the_family(merged):
    assert run(merged).exit_code == 0

    store = LatentStore(merged.parent / "store/train")
    assert list(store.metadata.modalities) == RASTERS
    assert list(store.names) == sorted((f"{cell}_{k}" for cell in CELLS for k in (0, 5, 35)), key=str.encode)
    assert json.loads(store.metadata.as_json())["version"] == 2
    for part, modality in zip(store.metadata.parts, RASTERS, strict=True):
        assert part.shape == (16, *modality.spec.latent[1:])
        assert part.autoencoder.id == modality.spec.autoencoder
        assert part.autoencoder.scale_factor == modality.spec.scale_factor
    assert_holds(store, "8D_1933R_35", RASTERS, [moments_of("8D_1933R_35", modality) for modality in RASTERS])
    assert list(LatentStore(merged.parent / "store/test").names) == ["7U_7L_1"]


def assert_holds(store, name, modalities, expected):
    _, raw = store[list(store.names).index(name)]
    assert list(store.metadata.modalities) == list(modalities)
    np.testing.assert_array_equal(raw.numpy(), np.concatenate([array.ravel() for array in expected]))


def test_places_and_times_of_the_caches_become_modalities_and_cells_without_them_are_left_out(merged, caches):
    place, time = caches

    result = run(merged, "--place-cache", place, "--time-cache", time)

    assert result.exit_code == 3  # the cell of test is in neither cache
    assert "7U_7L_1" in result.output
    store = LatentStore(merged.parent / "store/train")
    name, k, row = "8D_1933R_5", 5, 1
    vector = np.arange(216, dtype=np.float32).reshape(2, 6, 6, 3)[row, k // 6, k % 6] / 216
    nothing = np.full(3, -30, np.float32)
    expected = [vector, nothing, *(moments_of(name, modality) for modality in RASTERS), [1, 0.5, -0.5], nothing]
    assert_holds(store, name, modalities_in(COPGEN_2026), list(map(np.asarray, expected)))


def test_packing_again_does_nothing_and_other_caches_pack_anew(merged, caches):
    place, time = caches
    run(merged, "--place-cache", place, "--time-cache", time)
    database = merged.parent / "store/train/data.mdb"
    stamp = database.stat().st_mtime_ns

    run(merged, "--place-cache", place, "--time-cache", time)
    assert database.stat().st_mtime_ns == stamp

    time.write_bytes(pickle.dumps(dict.fromkeys(CELLS, np.array([7, 8, 9], np.float32))))
    run(merged, "--place-cache", place, "--time-cache", time)
    assert database.stat().st_mtime_ns != stamp


def test_caches_go_with_a_merged_database_alone(tmp_path, caches):
    for kind in ("npy", "png"):
        arguments = ["pack", "--input-type", kind, "--input-dir", str(tmp_path), "--place-cache", str(caches[0])]
        result = CliRunner().invoke(app, arguments)
        assert "go with a merged database" in str(result.exception)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"DEM_DEM": moments_of("a", Modality("dem_m"))}, "has DEM_DEM"),
        (value_of("a") | {"DEM_DEM": np.zeros((16, 8, 9), np.float32)}, r"dem_m is \(16, 8, 9\)"),
        (value_of("a") | {"DEM_DEM": np.zeros((16, 8, 8), np.float64)}, "refused"),
    ],
    ids=["fewer modalities", "another shape", "another type"],
)
def test_a_record_that_differs_is_refused_alone(tmp_path, bad, reason):
    records = {"1U_1R_patch_0": value_of("x"), "1U_1R_patch_1": bad}
    result = run(write(tmp_path / "merged", records))

    assert result.exit_code == 3
    assert list(LatentStore(tmp_path / "store/train").names) == ["1U_1R_0"]
    assert re.search(reason, result.output)


def test_a_database_of_unknown_modalities_is_refused(tmp_path):
    folder = write(tmp_path / "merged", {"1U_1R_patch_0": {"GOOGLE_EMBEDS": np.zeros((16, 2, 2), np.float32)}})

    with pytest.raises(BrokenInputError, match="holds GOOGLE_EMBEDS"):
        MergedStore(folder, {})


# -- arrays as data ---------------------------------------------------------------------------------------------------


def as_numpy_1(data: bytes) -> bytes:
    """The same pickle as NumPy 1 writes it, whose inner package has no underscore."""
    for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = module.replace(b"_core", b"core")
        data = data.replace(bytes([len(module)]) + module, bytes([len(old)]) + old)
    frame = data.index(b"\x95")
    return data[:frame] + data[frame + 9 :]  # its length is another; frames may be left out


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("numpy_1", [False, True], ids=["numpy 2", "numpy 1"])
def test_arrays_come_out_as_they_went_in(protocol, numpy_1):
    step = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
    arrays = {"a": step, "b": step[:, ::2], "c": np.frombuffer(step.tobytes(), np.float32), "d": step}
    data = pickle.dumps(arrays, protocol)

    found = parse_arrays(as_numpy_1(data) if numpy_1 else data, "x", hint=HINT)

    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.dtype("<f4")


class Malicious:
    """What an attacker would put into a database."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def array_pickle(**changes: object) -> bytes:
    """A pickled dict of one array, with some of its bytes exchanged."""
    data = pickle.dumps({"a": np.zeros((2, 3), np.float32)}, 4)
    for old, new in changes.values():
        assert old in data
        data = data.replace(old, new)
    frame = data.index(b"\x95")
    return data[:frame] + data[frame + 9 :]


_EMPTY = (  # what makes an array, and nothing that fills it
    b"\x80\x04}\x8c\x01a\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93"
    b"\x8c\x05numpy\x8c\x07ndarray\x93K\x00\x85C\x01b\x87Rs."
)
REFUSED = {
    "an object array": pickle.dumps({"a": np.array([{}, None], object)}),
    "doubles": pickle.dumps({"a": np.zeros(3)}),
    "big endian": pickle.dumps({"a": np.zeros(3, ">f4")}),
    "fortran order": pickle.dumps({"a": np.zeros((3, 2), np.float32, order="F")}, 4),
    "fortran order, protocol 5": pickle.dumps({"a": np.zeros((3, 2), np.float32, order="F")}, 5),
    "a structure": pickle.dumps({"a": np.zeros(2, [("x", "<f4")])}),
    "a subclass": pickle.dumps({"a": np.zeros((2, 2), np.float32).view(np.matrix)}),
    "a number": pickle.dumps({"a": np.float32(3)}),
    "no array": pickle.dumps({"a": 3}),
    "bytes": pickle.dumps({"a": b"x"}),
    "a list": pickle.dumps([np.zeros(3, np.float32)]),
    "an old protocol": pickle.dumps({"a": np.zeros(3, np.float32)}, 2),
    "a shape that does not fit": array_pickle(shape=(b"K\x02K\x03\x86", b"K\x02K\x04\x86")),
    "a negative shape": array_pickle(shape=(b"K\x02K\x03\x86", b"J\xfe\xff\xff\xffJ\xfd\xff\xff\xff\x86")),
    "another name of numpy": array_pickle(name=(b"\x8c\x07ndarray", b"\x8c\x07memmap_")),
    "another module": array_pickle(name=(b"\x8c\x05numpy", b"\x8c\x05posix")),
    "contents that never come": _EMPTY,
    "cut short": array_pickle()[:-5],
    "nothing": b"",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_dict_of_plain_float32_arrays_is_refused(what):
    with pytest.raises(BrokenInputError):
        parse_arrays(REFUSED[what], "x", hint=HINT)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(tmp_path, protocol):
    evil = Malicious(tmp_path / "pwned")
    for value in (evil, {"DEM_DEM": evil}, {"a": np.zeros(3, np.float32), "b": evil}, {"a": np.array([evil])}):
        data = pickle.dumps(value, protocol)
        with pytest.raises(BrokenInputError, match="refused"):
            parse_arrays(data, "x", hint=HINT)
        (tmp_path / "times.pkl").write_bytes(data)
        with pytest.raises(BrokenInputError):
            TimeCache(tmp_path / "times.pkl")
    assert not (tmp_path / "pwned").exists()


@given(st.binary(max_size=40), st.integers(0, 330), st.sampled_from([4, 5]))
def test_mutated_pickles_raise_nothing_else(noise, at, protocol):
    good = pickle.dumps({"a": np.zeros((2, 3), np.float32), "b": np.ones(3, np.float32)}, protocol)
    try:
        found = parse_arrays(good[:at] + noise + good[at + len(noise) :], "x", hint=HINT)
    except BrokenInputError:
        return
    assert all(isinstance(key, str) and array.dtype == np.float32 for key, array in found.items())


def test_a_table_of_many_cells_is_read(tmp_path):
    times = {f"{i}U_{i}R": np.array([i, 0, 1], np.float32) for i in range(2500)}
    (tmp_path / "times.pkl").write_bytes(pickle.dumps(times))

    cache = TimeCache(tmp_path / "times.pkl")

    assert cache.find("2400U_2400R", 3).tolist() == [2400, 0, 1]
    assert cache.find("2500U_2500R", 3) is None


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("cells.npy", np.array(["a", {}], object)),
        ("cells.npy", np.array(["a"])),
        ("latlon_patches.npy", np.zeros((2, 36, 3), np.float32)),
        ("latlon_patches.npy", np.zeros((2, 6, 6, 3))),
    ],
    ids=["pickled cells", "fewer cells", "another shape", "doubles"],
)
def test_a_cache_of_places_that_is_something_else_is_refused(caches, file, array):
    np.save(caches[0] / file, array, allow_pickle=True)

    with pytest.raises(BrokenInputError, match="no cache of places"):
        PlaceCache(caches[0])


def test_a_cache_that_is_not_there_is_named(caches):
    (caches[0] / "meta.json").unlink()

    with pytest.raises(MissingInputError, match=r"meta\.json"):
        PlaceCache(caches[0])
    with pytest.raises(MissingInputError, match="cache of times"):
        TimeCache(caches[0] / "nothing.pkl")
