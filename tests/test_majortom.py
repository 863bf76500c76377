"""The Major TOM archive: which rows a region consists of, and how their pictures come out of the parts."""

from __future__ import annotations

import contextlib
import io
import random
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st
from PIL import Image
from tiny_archive import Archive, Row, part_row, rome_kept, rome_rows, write_archive, write_part

from copgen_cli.archive.index import WorldIndex
from copgen_cli.archive.opening import FolderArchive, FolderFile
from copgen_cli.archive.parquet_pages import PageError, unpacked_size
from copgen_cli.archive.parquet_ranges import LARGEST_CHUNK, PartReader, merge_ranges
from copgen_cli.archive.products import Bands, OpenParts, Order, fetch_product, interleave, part_path, plan_orders
from copgen_cli.archive.remote import Traffic
from copgen_cli.archive.selection import NoCommonCellsError, compact_times, select, take_rows
from copgen_cli.errors import BrokenInputError, UnknownNameError
from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.rasters.integrity import check_thumbnail
from copgen_cli.records import Product
from copgen_cli.settings.loading import load_settings
from copgen_cli.settings.sections import RegionSettings
from copgen_cli.stages.atomic import Place
from copgen_cli.stages.work_items import WorkItem

NO_BANDS = Bands.parse("none")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    return write_archive(tmp_path_factory.mktemp("archive"), rome_rows())


@pytest.fixture
def rome() -> RegionSettings:
    return load_settings(regions={"rome": {"n_samples": 1000}}).region_settings("rome")


def tables(archive: Archive, modalities=tuple(PUBLISHED)) -> dict[Modality, Path]:
    return {modality: archive.table(modality) for modality in modalities}


# -- selection ---------------------------------------------------------------------------------------------------------


def test_rome_is_the_cells_that_pass_every_filter_in_every_source(archive, rome):
    selection = select(tables(archive), rome)

    assert selection.cells == ("464U_102R", "465U_103R", "466U_104R")
    for modality in PUBLISHED:
        chosen = take_rows(archive.table(modality), selection.rows[modality]).to_pylist()
        expected = [row for row in rome_kept() if row.modality is modality]
        assert [row["grid_cell"] for row in chosen] == [row.cell for row in expected]
        if modality.source.has_product:
            assert [row["product_id"] for row in chosen] == [row.pid for row in expected]  # the latest of two dates
        assert {row["crs"] for row in chosen} == {"EPSG:32633"}


@pytest.mark.parametrize(
    "types",
    [
        {"crs": pa.large_string(), "parquet_url": pa.large_string(), "product_id": pa.large_string()},
        {"crs": pa.string_view(), "timestamp": pa.string_view(), "grid_cell": pa.string_view()},
        {"crs": pa.dictionary(pa.int32(), pa.string()), "product_id": pa.dictionary(pa.int16(), pa.large_string())},
        {"timestamp": pa.timestamp("us")},
        {"timestamp": pa.date32()},
        {"crs": pa.int64(), "grid_row_u": pa.int16(), "nodata": pa.float32()},
    ],
    ids=["pandas 3", "polars", "categories", "timestamps", "days", "numbers"],
)
def test_an_index_that_another_tool_wrote_gives_the_same_cells(archive, rome, tmp_path, types):
    files = {}
    for modality in PUBLISHED:
        table = pq.read_table(archive.table(modality))
        for name in set(types) & set(table.column_names):
            table = table.set_column(table.column_names.index(name), name, as_type(table[name], name, types[name]))
        files[modality] = tmp_path / f"{modality}.parquet"
        pq.write_table(table, files[modality])

    selection = select(files, rome)

    assert selection.cells == select(tables(archive), rome).cells
    for modality in PUBLISHED:
        rows = take_rows(files[modality], selection.rows[modality])
        assert set(rows["crs"].to_pylist()) == {"EPSG:32633"}
        for column in ("parquet_url", "parquet_row", "grid_cell"):
            assert rows[column].equals(take_rows(archive.table(modality), selection.rows[modality])[column])


def as_type(values: pa.ChunkedArray, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    if name == "crs" and kind == pa.int64():
        return pc.utf8_slice_codeunits(values, -5).cast(kind)
    if name == "timestamp" and kind in (pa.timestamp("us"), pa.date32()):
        return pc.strptime(values, format="%Y%m%dT%H%M%S", unit="us").cast(kind, safe=False)
    return values.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else values.cast(kind)


def test_an_index_with_other_values_in_a_column_is_refused_by_its_name(archive, rome, tmp_path):
    table = pq.read_table(archive.table(Modality.DEM))
    odd = tmp_path / "odd.parquet"
    words = pa.array(["north"] * len(table))
    pq.write_table(table.set_column(table.column_names.index("centre_lat"), "centre_lat", words), odd)

    with pytest.raises(BrokenInputError, match="centre_lat") as caught:
        select({Modality.DEM: odd}, rome)
    assert "Remove" not in caught.value.hint


def test_a_box_across_the_antimeridian_holds_cells_of_both_sides(tmp_path):
    cells = ("184D_1911R", "184D_1912L", "184D_0R")
    archive = write_archive(tmp_path, [Row(cell, modality) for cell in cells for modality in PUBLISHED])
    region = RegionSettings(bbox=(179.0, -17.0, -179.0, -16.0))

    assert set(select(tables(archive), region).cells) == {"184D_1911R", "184D_1912L"}


def test_the_shared_sample_gives_the_cells_and_rows_of_its_manifest(shared, rome):
    import json

    root = shared / "sample_data/majortom"
    expected = json.loads((root / "manifest.json").read_text())["rome"]
    files = {m: root / f"datasets/Major-TOM/{m.source.name}/resolve/main/metadata.parquet" for m in PUBLISHED}
    selection = select(files, rome)

    assert sorted(selection.cells) == expected["common_cells"]
    for modality, file in files.items():
        places = {row["grid_cell"]: row["places"] for row in expected["rows"][modality.source.name]}
        for row in take_rows(file, selection.rows[modality]).to_pylist():
            assert [row["parquet_url"], row["parquet_row"]] in places[row["grid_cell"]]


@pytest.mark.parametrize(
    ("change", "cells"),
    [
        ({"cloud_cover": (0.0, 10.5)}, {"467U_104R"}),  # bounds are inclusive
        ({"start_date": date(2016, 12, 31)}, {"468U_103R"}),
        ({"end_date": date(2016, 12, 31), "start_date": date(2016, 1, 1)}, None),  # 23:59:59 is after midnight
        ({"bbox": (12.2, 41.6, 13.0, 42.4)}, {"470U_103R"}),
    ],
)
def test_each_filter_lets_through_what_it_should(archive, rome, change, cells):
    region = rome.model_copy(update=change)
    if cells is None:
        with pytest.raises(NoCommonCellsError):
            select(tables(archive), region)
        return
    wider = set(select(tables(archive), region).cells)
    assert wider - set(select(tables(archive), rome).cells) == cells


def test_without_radar_the_cell_that_radar_lacks_is_kept(archive, rome):
    others = tuple(modality for modality in PUBLISHED if modality is not Modality.S1RTC)
    assert "467U_103R" in select(tables(archive, others), rome).cells


def test_no_common_cells_says_how_many_each_source_had_after_each_filter(archive, rome):
    with pytest.raises(NoCommonCellsError) as caught:
        select(tables(archive), rome.model_copy(update={"cloud_cover": (50.0, 60.0)}))
    assert "Core-S2L2A: 9 rows, 8 in the box, 7 in the dates, 0 with so little cloud" in caught.value.hint
    assert "Core-DEM: 8 rows, 7 in the box, 6 without missing pixels, 6 cells" in caught.value.hint


def test_the_draw_is_the_published_one(tmp_path, rome):
    cells = [f"{row}U_{column}R" for row in range(464, 468) for column in range(102, 107)]
    archive = write_archive(tmp_path, [Row(cell, modality) for cell in cells for modality in PUBLISHED], size=6)

    drawn = select(tables(archive), rome.model_copy(update={"n_samples": 7, "seed": 3})).cells

    assert set(drawn) == set(random.Random(3).sample(sorted(cells), 7))


def test_of_rows_that_are_equally_late_the_first_of_the_first_part_is_taken(archive, rome):
    selection = select(tables(archive), rome)
    chosen = take_rows(archive.table(Modality.S1RTC), selection.rows[Modality.S1RTC]).to_pylist()[2]
    same = [row for row in pq.read_table(archive.table(Modality.S1RTC)).to_pylist() if row["grid_cell"] == "466U_104R"]
    assert len(same) == 2
    assert (chosen["parquet_url"], chosen["parquet_row"]) == min((r["parquet_url"], r["parquet_row"]) for r in same)


@pytest.mark.parametrize("row_group_size", [3, 1_000])
def test_a_selection_does_not_depend_on_row_groups_or_the_order_of_rows(archive, tmp_path, rome, row_group_size):
    shuffled = {}
    for modality, file in tables(archive).items():
        table = pq.read_table(file)
        order = np.random.default_rng(1).permutation(len(table))
        shuffled[modality] = tmp_path / f"{modality}.parquet"
        pq.write_table(table.take(pa.array(order)), shuffled[modality], row_group_size=row_group_size)
    expected, got = select(tables(archive), rome), select(shuffled, rome)

    assert got.cells == expected.cells
    for modality, file in shuffled.items():
        assert take_rows(file, got.rows[modality]).equals(take_rows(archive.table(modality), expected.rows[modality]))


@pytest.mark.parametrize("as_times", [pa.timestamp("ns"), "ISO with T", "ISO with space"], ids=str)
def test_times_may_be_text_or_timestamps(archive, tmp_path, rome, as_times):
    file = archive.table(Modality.S2L2A)
    table = pq.read_table(file)
    texts = table["timestamp"].to_pylist()
    iso = [f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[9:11]}:{t[11:13]}:{t[13:]}.024000" for t in texts]
    values = pa.array(iso) if isinstance(as_times, str) else pa.array(iso).cast(as_times)
    if as_times == "ISO with space":
        values = pa.array([text.replace("T", " ") for text in iso])
    other = tmp_path / "other.parquet"
    pq.write_table(table.set_column(table.column_names.index("timestamp"), "timestamp", values), other)

    assert compact_times(pq.read_table(other)["timestamp"]).to_pylist() == texts
    files = tables(archive) | {Modality.S2L2A: other}
    assert np.array_equal(select(files, rome).rows[Modality.S2L2A], select(tables(archive), rome).rows[Modality.S2L2A])


@pytest.mark.parametrize("column", ["nodata", "parquet_row", "centre_lon", "timestamp"])
def test_an_index_without_a_column_is_a_clear_error(tmp_path, rome, column):
    present = [row for row in rome_rows() if row.modality is Modality.S2L2A]
    archive = write_archive(tmp_path, present, drop_columns=[])
    file = archive.table(Modality.S2L2A)
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    with pytest.raises(BrokenInputError, match=f"has no column {column}"):
        select({Modality.S2L2A: file}, rome)


def test_an_index_that_is_no_table_is_a_clear_error(tmp_path, rome):
    file = tmp_path / "metadata.parquet"
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(BrokenInputError, match="can not be read"):
        select({Modality.DEM: file}, rome)


# -- what an index may not make us do ----------------------------------------------------------------------------------


@pytest.mark.parametrize("product_id", ["../../etc", "a/b", "..", "a\x07b", "", "a\\b", ".hidden"])
def test_a_product_id_that_is_no_folder_name_is_refused_and_the_rest_goes_on(tmp_path, rome, product_id):
    bad = Row("465U_103R", Modality.S2L2A, product_id=product_id)
    rows = [Row("464U_102R", Modality.S2L2A), bad]
    index = WorldIndex(Modality.S2L2A, write_archive(tmp_path, rows).table(Modality.S2L2A), None, current=True)
    plan = plan_orders({Modality.S2L2A: index}, select({Modality.S2L2A: index.file}, rome), NO_BANDS)

    assert [unit.item.product.cell for unit in plan.units] == ["464U_102R"]
    assert plan.tables[Modality.S2L2A]["grid_cell"].to_pylist() == ["464U_102R"]
    assert "can not be the name of a folder" in plan.refused["Core-S2L2A/465U_103R"]


@pytest.mark.parametrize("cell", ["../464U_102R", "464U_102R/..", "nowhere", "464U_1\x0002R"])
def test_a_cell_that_is_not_the_one_of_its_row_and_column_is_refused(tmp_path, rome, cell):
    index = WorldIndex(
        Modality.DEM,
        write_archive(tmp_path, [Row(cell, Modality.DEM)]).table(Modality.DEM) if "/" not in cell else tmp_path / "x",
        None,
        current=True,
    )
    if "/" in cell:  # the archive's generator could not write it below its own folder
        archive = write_archive(tmp_path, [Row("464U_102R", Modality.DEM)])
        table = pq.read_table(archive.table(Modality.DEM))
        pq.write_table(table.set_column(0, "grid_cell", pa.array([cell])), index.file)
    plan = plan_orders({Modality.DEM: index}, select({Modality.DEM: index.file}, rome), NO_BANDS)
    assert plan.units == ()
    assert list(plan.refused) == ["Core-DEM/464U_102R"]


@pytest.mark.parametrize(("column", "value"), [("parquet_row", None), ("parquet_row", -1), ("crs", None)])
def test_a_row_that_says_nothing_usable_is_refused(tmp_path, rome, column, value):
    file = write_archive(tmp_path, [Row("464U_102R", Modality.DEM)]).table(Modality.DEM)
    table = pq.read_table(file)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array([value], table.schema.field(column).type)), file)
    index = WorldIndex(Modality.DEM, file, None, current=True)
    plan = plan_orders({Modality.DEM: index}, select({Modality.DEM: file}, rome), NO_BANDS)
    assert (plan.units, list(plan.refused)) == ((), ["Core-DEM/464U_102R"])


def test_a_part_is_looked_for_below_the_endpoint_in_use_at_the_pinned_revision():
    url = "https://huggingface.co/datasets/Major-TOM/Core-DEM/resolve/main/images/part_00001.parquet?download=true"
    assert part_path(url, None) == "/datasets/Major-TOM/Core-DEM/resolve/main/images/part_00001.parquet"
    assert part_path(url, "abc") == "/datasets/Major-TOM/Core-DEM/resolve/abc/images/part_00001.parquet"


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/datasets/Major-TOM/Core-DEM/resolve/main/../../../../../etc/passwd.parquet",
        "https://huggingface.co/datasets/Major-TOM/Core-DEM/resolve/main/%2e%2e/secret.parquet",
        "file:///etc/passwd",
        "",
    ],
)
def test_an_address_that_is_no_part_is_refused(url):
    with pytest.raises(BrokenInputError):
        part_path(url, None)


# -- parts -------------------------------------------------------------------------------------------------------------


def reader_of(file: Path) -> tuple[PartReader, Traffic]:
    traffic = Traffic()
    return PartReader(FolderFile(file, traffic), file.name), traffic


def test_of_a_part_with_large_bands_only_footer_and_thumbnail_are_read(tmp_path):
    rows = [Row(f"464U_{column}R", Modality.S2L2A) for column in range(102, 110)]
    archive = write_archive(tmp_path, rows, parts=1, size=300, band_bytes=50_000)
    part, traffic = reader_of(archive.part(Modality.S2L2A))
    footer = traffic.bytes
    wanted = 0
    for number, row in enumerate(rows):
        values = part.read_row(number, ["product_id", "grid_cell", "thumbnail"])
        assert (values["grid_cell"], values["thumbnail"]) == (row.cell, archive.thumbnails[row])
        wanted += len(archive.thumbnails[row])

    size = archive.part(Modality.S2L2A).stat().st_size
    assert traffic.bytes - footer < wanted + len(rows) * 1_000
    assert traffic.bytes < size / 50
    assert traffic.requests == 2 + len(rows)  # two for the tail


def test_ranges_that_lie_close_are_asked_for_together():
    assert merge_ranges([range(50, 60), range(10), range(12, 20)], 4) == [range(20), range(50, 60)]


@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "none"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_values_come_out_whatever_the_pages_are_like(tmp_path, compression, dictionary, version):
    file = tmp_path / "part.parquet"
    schema = pa.schema([("grid_cell", pa.string()), ("thumbnail", pa.large_binary())])
    options = {"compression": compression, "use_dictionary": dictionary, "data_page_version": version}
    with pq.ParquetWriter(file, schema, **options) as writer:
        for number in range(3):
            row = {"grid_cell": [f"c{number}"], "thumbnail": [bytes([number]) * 5000]}
            writer.write_table(pa.table(row, schema=schema))
    part, _ = reader_of(file)
    assert part.binary_columns == ("thumbnail",)
    assert part.read_row(1, ["grid_cell", "thumbnail"]) == {"grid_cell": "c1", "thumbnail": b"\x01" * 5000}


def test_a_footer_that_lies_is_refused(archive, tmp_path):
    whole = archive.part(Modality.DEM).read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    lies = {
        "cut": whole[:-100],
        "longer than the file": whole[:-8] + (len(whole) * 2).to_bytes(4, "little") + b"PAR1",
        "shorter than it is": whole[:-8] + (footer // 2).to_bytes(4, "little") + b"PAR1",
        "empty": whole[:-8] + (0).to_bytes(4, "little") + b"PAR1",
        "of noise": whole[: -8 - footer] + random.Random(0).randbytes(footer) + whole[-8:],
        "of the data of another file": b"PAR1" + whole[-8 - footer :],
    }
    for data in lies.values():
        file = tmp_path / "part.parquet"
        file.write_bytes(data)
        with pytest.raises(BrokenInputError):
            reader_of(file)[0].read_row(0, ["grid_cell", "thumbnail"])


def test_text_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "part.parquet"
    table = pa.table({"product_id": ["S2A_MSIL2A"]})
    pq.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)
    file.write_bytes(file.read_bytes().replace(b"S2A_MSIL2A", b"S2\xc1_MSIL2A"))

    with pytest.raises(BrokenInputError, match="row 0 can not be decoded"):
        reader_of(file)[0].read_row(0, ["product_id"])


def test_no_byte_of_a_footer_can_end_the_process(tmp_path):
    """Some that Arrow can make no sense of end it where it is asked for the description of a column."""
    file = tmp_path / "part.parquet"
    pq.write_table(pa.table({"grid_cell": ["c0"], "thumbnail": [b"abc"]}), file)
    whole = file.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for place in range(len(whole) - 8 - footer, len(whole) - 8):
        for bit in (1, 4):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                reader_of(file)[0].read_row(0, ["grid_cell", "thumbnail"])
            except BrokenInputError:
                refused += 1
    assert refused > 100


def test_a_row_that_is_not_there_and_a_row_group_of_two_are_refused(archive, tmp_path):
    part, _ = reader_of(archive.part(Modality.DEM))
    with pytest.raises(BrokenInputError, match="row 99 is not among them"):
        part.read_row(99, ["thumbnail"])
    with pytest.raises(BrokenInputError, match="no column 'B99'"):
        part.read_row(0, ["B99"])
    file = tmp_path / "two.parquet"
    pq.write_table(pa.table({"grid_cell": ["a", "b"], "thumbnail": [b"a", b"b"]}), file)
    with pytest.raises(BrokenInputError, match="has 2 rows, not 1"):
        reader_of(file)[0].read_row(0, ["thumbnail"])


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_page_that_would_unpack_to_more_than_any_picture_has_is_refused_unopened(tmp_path, compression):
    file = tmp_path / "bomb.parquet"
    values = {"grid_cell": ["a"], "thumbnail": [bytes(LARGEST_CHUNK + 1)]}
    pq.write_table(pa.table(values), file, compression=compression)
    part, _ = reader_of(file)
    with pytest.raises(BrokenInputError, match="over"):
        part.read_row(0, ["thumbnail"])

    small = tmp_path / "small.parquet"  # whose footer says nothing of the kind
    pq.write_table(pa.table(values | {"thumbnail": [bytes(1000)]}), small, compression=compression)
    chunk = pq.ParquetFile(small).metadata.row_group(0).column(1)
    start = chunk.dictionary_page_offset
    whole = small.read_bytes()[start : start + chunk.total_compressed_size]
    assert 1000 < unpacked_size(whole) < 1100
    with pytest.raises(PageError):
        unpacked_size(whole[:-1])


@given(st.binary(max_size=200))
def test_noise_in_the_place_of_pages_is_an_error_or_a_size(noise):
    with contextlib.suppress(PageError):
        assert unpacked_size(noise) >= 0


def test_where_pages_have_checksums_no_flipped_bit_passes(tmp_path):
    archive = write_archive(tmp_path, [Row("464U_102R", Modality.S2L2A)], parts=1, checksums=True)
    file = archive.part(Modality.S2L2A)
    whole, right = bytearray(file.read_bytes()), archive.thumbnails[archive.rows[0]]
    caught = 0
    for place in range(4, len(right), 7):  # the columns before the thumbnail, and most of it
        whole[place] ^= 4
        file.write_bytes(whole)
        try:
            assert reader_of(file)[0].read_row(0, ["thumbnail"])["thumbnail"] == right
        except BrokenInputError:
            caught += 1
        whole[place] ^= 4
    assert caught > 20


# -- products ----------------------------------------------------------------------------------------------------------


def order_of(archive: Archive, row: Row, *, bands: str = "none", part_row: int = 0) -> Order:
    url = f"https://huggingface.co/{archive.part(row.modality).relative_to(archive.root).as_posix()}"
    product = Product(
        row.modality, row.cell, row.pid, None, None, centre_lon=12.5, centre_lat=41.8,
        crs="EPSG:32633", part_url=url, part_row=part_row,
    )  # fmt: skip
    return Order(product, part_path(url, None), Bands.parse(bands))


def fetch(archive: Archive, order: Order, output: Path):
    (output / "tmp").mkdir(parents=True, exist_ok=True)
    parts = OpenParts(FolderArchive(archive.root), [order])
    return fetch_product(order, parts=parts, place=Place(output, output / "tmp"))


def one_row_archive(root: Path, row: Row, **values) -> Archive:
    """An archive of one row whose part says something else than its index."""
    archive = write_archive(root, [row], parts=1)
    honest = part_row(row, archive, size=24, band_bytes=50)
    write_part(archive.part(row.modality), row.modality, [honest | values])
    return archive


def test_a_thumbnail_is_written_byte_for_byte_and_bands_beside_it(tmp_path):
    row = Row("464U_102R", Modality.S1RTC)
    archive = write_archive(tmp_path / "archive", [row], parts=1)
    result = fetch(archive, order_of(archive, row, bands="vv,B04"), tmp_path / "out")

    assert [file.path for file in result.files] == [f"{row.folder}/thumbnail.png", f"{row.folder}/vv.tif"]
    assert (tmp_path / "out" / row.folder / "thumbnail.png").read_bytes() == archive.thumbnails[row]
    assert (tmp_path / "out" / row.folder / "vv.tif").read_bytes()[:4] == b"II*\0"


def test_several_parts_are_read_side_by_side_and_never_more_than_that(archive):
    def order(part: str, row: int) -> WorkItem[Order]:
        return WorkItem(f"{part}{row}", replace(order_of(archive, archive.rows[0], part_row=row), path=part))

    units = [order(part, row) for part in "abc" for row in range(3 if part == "a" else 2)]
    assert [unit.key for unit in interleave(units, 2)] == ["a0", "b0", "a1", "b1", "a2", "c0", "c1"]


@pytest.mark.parametrize("column", ["product_id", "grid_cell"])
def test_a_row_that_is_another_than_the_index_says_is_refused(tmp_path, column):
    row = Row("464U_102R", Modality.S2L2A)
    archive = one_row_archive(tmp_path / "archive", row, **{column: "another"})
    with pytest.raises(BrokenInputError, match=r"another.*and the index says"):
        fetch(archive, order_of(archive, row), tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.png")) == []


def broken_pictures() -> dict[str, bytes]:
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture = Image.effect_noise((64, 64), 50).convert("RGB")
    picture.save(png, "PNG")
    picture.save(jpeg, "JPEG")
    flipped = bytearray(png.getvalue())
    flipped[len(flipped) // 2] ^= 1
    bomb = io.BytesIO()
    Image.new("1", (40_000, 40_000)).save(bomb, "PNG")
    gif = io.BytesIO()
    picture.save(gif, "GIF")
    return {
        "empty": b"",
        "noise": random.Random(0).randbytes(1000),
        "a cut PNG": png.getvalue()[:-200],
        "a cut JPEG": jpeg.getvalue()[:-200],
        "a PNG with a flipped bit": bytes(flipped),
        "a bomb": bomb.getvalue(),
        "a GIF": gif.getvalue(),
    }


@pytest.mark.parametrize("data", broken_pictures().values(), ids=broken_pictures().keys())
def test_a_thumbnail_that_is_no_whole_picture_is_never_stored(tmp_path, data):
    row = Row("464U_102R", Modality.S2L2A)
    archive = one_row_archive(tmp_path / "archive", row, thumbnail=data)
    with pytest.raises(BrokenInputError):
        fetch(archive, order_of(archive, row), tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.*")) == []


def test_pictures_of_either_kind_pass(archive):
    for row, data in archive.thumbnails.items():
        check_thumbnail(data, row.folder)


def test_a_band_that_is_no_tiff_is_refused(tmp_path):
    row = Row("464U_102R", Modality.S1RTC)
    archive = one_row_archive(tmp_path / "archive", row, vv=b"<html>")
    with pytest.raises(BrokenInputError, match="is no TIFF"):
        fetch(archive, order_of(archive, row, bands="all"), tmp_path / "out")


def test_what_is_there_already_is_not_fetched_again(tmp_path):
    row = Row("464U_102R", Modality.S1RTC)
    archive = write_archive(tmp_path / "archive", [row], parts=1, band_bytes=40_000)
    first = fetch(archive, order_of(archive, row), tmp_path / "out")
    order = replace(order_of(archive, row, bands="vh"), kept=first.files)
    source = FolderArchive(archive.root)
    result = fetch_product(order, parts=OpenParts(source, [order]), place=Place(tmp_path / "out", tmp_path / "out/tmp"))

    assert [Path(file.path).name for file in result.files] == ["thumbnail.png", "vh.tif"]
    assert source.traffic.bytes < 40_000 + 5_000


def test_a_column_whose_name_is_more_than_a_word_is_no_band(tmp_path):
    row = Row("464U_102R", Modality.DEM)
    archive = write_archive(tmp_path / "archive", [row], parts=1)
    file = archive.part(row.modality)
    table = pq.read_table(file).append_column("../../escaped", pa.array([b"II*\0 and more"]))
    pq.write_table(table, file)
    result = fetch(archive, order_of(archive, row, bands="all"), tmp_path / "out")
    assert {Path(file.path).name for file in result.files} == {"thumbnail.png", "compressed.tif", "DEM.tif"}
    assert result.facts == {"all_bands": True}


def test_band_names_are_checked_with_a_suggestion():
    assert Bands.parse("B04, vv").of(Modality.S1RTC) == ("vv",)
    with pytest.raises(UnknownNameError) as caught:
        Bands.parse("B4")
    assert "B04" in caught.value.hint
