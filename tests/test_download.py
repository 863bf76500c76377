"""`copgen download`, from the command line to the tree on disk."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pyarrow.parquet as pq
import pytest
from copgen_processes import running
from tiny_archive import Archive, Row, part_row, rome_kept, rome_rows, write_archive, write_part
from tiny_hub import REVISION, Fault, Request, TinyHub, scripted, status
from way_of_commands import run_in

from copgen_cli.app import main
from copgen_cli.errors import EXIT_FAILED, EXIT_PARTLY, EXIT_USAGE
from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.stages.manifest import read_outcomes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    return write_archive(tmp_path_factory.mktemp("archive"), rome_rows())


@pytest.fixture
def hub(archive) -> Iterator[TinyHub]:
    with TinyHub(archive.root) as hub:
        yield hub


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Run:
    """The command line in this process and an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    for variable in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["copgen", *map(str, arguments)])
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as left:
            main()
        signal.signal(signal.SIGTERM, before)
        shown = capsys.readouterr()
        return int(left.value.code or 0), shown.out, shown.err

    return run


def thumbnails(subset: Path) -> dict[str, str]:
    """Path to SHA-256 of every thumbnail of a subset."""
    return {
        file.relative_to(subset).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in subset.rglob("thumbnail.png")
    }


def tree(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


ROME = Path("data/majorTOM/rome")


def test_rome_is_downloaded_byte_for_byte_and_nothing_else(run, hub, archive):
    code, out, _ = run("download", "--region", "rome", "--endpoint", hub.endpoint)

    assert code == 0
    assert thumbnails(ROME) == archive.files_of(rome_kept())
    assert "done now: 12" in out
    for modality in PUBLISHED:
        source = modality.source.name
        assert (ROME.parent / source / "metadata.parquet").read_bytes() == archive.table(modality).read_bytes()
        chosen = pq.read_table(ROME / source / "metadata.parquet")
        assert chosen["grid_cell"].to_pylist() == ["464U_102R", "465U_103R", "466U_104R"]
    assert not list(Path().rglob(".copgen"))


def test_a_file_endpoint_leaves_the_same_thumbnails(run, archive):
    assert run("download", "--endpoint", archive.endpoint)[0] == 0
    assert thumbnails(ROME) == archive.files_of(rome_kept())


def test_each_table_and_part_is_resolved_once_at_one_revision(run, hub):
    run("download", "--endpoint", hub.endpoint)

    resolved = [request.path for request in hub.requests if request.kind == "resolve"]
    assert len(resolved) == len(set(resolved))
    assert all(f"/resolve/{REVISION}/" in path for path in resolved if "part_" in path)


def test_a_second_run_asks_only_for_the_revision_of_the_tables_and_says_that_nothing_was_to_do(run, hub):
    run("download", "--endpoint", hub.endpoint)
    before, asked = tree(Path()), len(hub.requests)

    code, _, err = run("download", "--endpoint", hub.endpoint)

    assert code == 0
    assert "Nothing to do" in err
    assert tree(Path()) == before
    assert [request.kind for request in hub.requests[asked:]] == ["resolve"] * 4


def test_a_table_that_was_damaged_on_disk_is_fetched_again(run, hub, archive):
    run("download", "--endpoint", hub.endpoint)
    table = ROME.parent / "Core-S1RTC/metadata.parquet"
    damaged = bytearray(table.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    table.write_bytes(damaged)
    asked = len(hub.requests)

    assert run("download", "--endpoint", hub.endpoint)[0] == 0

    assert table.read_bytes() == archive.table(Modality.S1RTC).read_bytes()
    assert [r.path.split("/")[4] for r in hub.requests[asked:] if r.kind == "cdn"] == ["Core-S1RTC"]


def test_a_source_added_later_is_all_that_is_fetched(run, hub, archive):
    run("download", "--endpoint", hub.endpoint, "--sources", "s1_rtc,s2_l2a")
    asked = len(hub.requests)
    _, out, _ = run("download", "--endpoint", hub.endpoint, "--sources", "dem,s1_rtc,s2_l2a", "--json")

    assert json.loads(out)["done"] == 3
    assert {request.path.split("/")[4] for request in hub.requests[asked:] if request.kind == "cdn"} == {"Core-DEM"}
    assert len(thumbnails(ROME)) == 9


def test_a_source_left_out_later_leaves_the_subset_but_need_not_be_fetched_again(run, hub):
    run("download", "--endpoint", hub.endpoint)
    assert "Nothing to do" in run("download", "--endpoint", hub.endpoint, "--sources", "dem,s1_rtc,s2_l2a")[2]
    assert not (ROME / "Core-S2L1C/metadata.parquet").exists()
    assert "Nothing to do" in run("download", "--endpoint", hub.endpoint)[2]
    assert len(list(ROME.glob("*/metadata.parquet"))) == 4


def test_bands_added_later_are_all_that_is_fetched(run, hub, archive):
    run("download", "--endpoint", hub.endpoint)
    before = {file: file.stat().st_mtime_ns for file in ROME.rglob("thumbnail.png")}
    _, out, _ = run("download", "--endpoint", hub.endpoint, "--bands", "B04,vv", "--json")

    assert json.loads(out)["done"] == 9  # the DEM has neither
    assert {file.name for file in ROME.rglob("*.tif")} == {"B04.tif", "vv.tif"}
    assert {file: file.stat().st_mtime_ns for file in ROME.rglob("thumbnail.png")} == before

    run("download", "--endpoint", hub.endpoint, "--bands", "all")
    assert len(list(ROME.rglob("*.tif"))) == 3 * (2 + 2 + 14 + 13)
    assert "Nothing to do" in run("download", "--endpoint", hub.endpoint, "--bands", "all")[2]
    assert "Nothing to do" in run("download", "--endpoint", hub.endpoint)[2]  # and none are lost


def test_thumbnails_stay_when_bands_can_not_be_had_and_are_not_fetched_twice(run, tmp_path):
    row = Row("464U_102R", Modality.S1RTC)
    archive = write_archive(tmp_path / "served", [row], parts=1)
    honest = part_row(row, archive, size=24, band_bytes=50_000)
    write_part(archive.part(row.modality), row.modality, [honest | {"vv": b"no TIFF"}])
    arguments = ("download", "--endpoint", archive.endpoint, "--sources", "s1_rtc", "--json")
    run(*arguments)
    for _ in range(2):
        assert run(*arguments, "--bands", "vv")[0] == EXIT_PARTLY
        assert thumbnails(ROME) == archive.files_of([row])
    assert json.loads(run(*arguments, "--bands", "vh")[1])["done"] == 1
    assert json.loads(run(*arguments, "--overwrite")[1])["done"] == 1
    assert thumbnails(ROME) == archive.files_of([row])


def test_verify_finds_a_changed_file_and_mends_it(run, hub, archive):
    run("download", "--endpoint", hub.endpoint)
    victim = next(ROME.rglob("thumbnail.png"))
    changed = bytearray(victim.read_bytes())
    changed[-1] ^= 1
    victim.write_bytes(changed)

    assert "Nothing to do" in run("download", "--endpoint", hub.endpoint)[2]
    assert "done now: 1" in run("download", "--endpoint", hub.endpoint, "--verify")[1]
    assert thumbnails(ROME) == archive.files_of(rome_kept())


@pytest.mark.parametrize("option", ["--dry-run", "--preview"])
def test_a_dry_run_says_cells_requests_and_bytes_and_writes_nothing(run, hub, option):
    code, out, _ = run("download", "--endpoint", hub.endpoint, option, "--json")

    outlook = json.loads(out)
    assert code == 0
    assert (outlook["cells"], outlook["products"], outlook["parts"]) == (3, 12, 4)
    assert outlook["requests"] > 12
    assert outlook["bytes_over_wire"] > outlook["bytes_on_disk"] > 0
    assert list(Path().iterdir()) == []


def test_a_box_of_ones_own_needs_a_name(run, hub):
    box = ("--bbox", 12.2, 41.6, 13.0, 42.4)
    assert run("download", "--endpoint", hub.endpoint, *box)[0] == EXIT_USAGE
    assert run("download", "--endpoint", hub.endpoint, *box, "--region", "rome")[0] == EXIT_USAGE
    assert run("download", "--endpoint", hub.endpoint, *box, "--subset-name", "lazio")[0] == 0
    assert len(thumbnails(Path("data/majorTOM/lazio"))) == 4 * 4


def test_regions_of_ones_own_come_from_the_settings_file(run, hub):
    Path("copgen.toml").write_text("[regions.north]\nbbox = [12.2, 42.1, 13.0, 42.4]\ncloud_cover = [0, 100]\n")
    assert run("download", "--endpoint", hub.endpoint, "--region", "north")[0] == 0
    assert {Path(path).parts[2] for path in thumbnails(Path("data/majorTOM/north"))} == {"470U_103R"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--region", "romme"], EXIT_USAGE, "Did you mean 'rome'?"),
        (["--sources", "dem,s2_l3"], EXIT_USAGE, "Did you mean 's2_l2a'?"),
        (["--bands", "B4"], EXIT_USAGE, "B04"),
        (["--start-date", "2020-13-01"], EXIT_USAGE, "start_date"),
        (["--start-date", "2024-01-01", "--end-date", "2023-01-01"], EXIT_USAGE, "after the end date"),
        (["--cloud-cover", "20", "10"], EXIT_USAGE, "cloud cover is a range MIN MAX"),
        (["--bbox", "13", "41", "12", "42", "--subset-name", "x"], EXIT_USAGE, "swapped"),
        (["--criteria", "first"], EXIT_USAGE, "criteria"),
        (["--endpoint", "ftp://host"], EXIT_USAGE, "is no endpoint"),
        (["--endpoint", "file://earth"], EXIT_USAGE, "'file://earth' is no endpoint"),
        (["--endpoint", "http://127.0.0.1:1"], EXIT_FAILED, "No answer from http://127.0.0.1:1"),
        (["--cloud-cover", "90", "99"], EXIT_FAILED, "Core-S2L1C: 9 rows, 8 in the box"),
    ],
)
def test_a_mistake_gets_one_clear_answer_and_leaves_nothing(run, hub, monkeypatch, arguments, code, message):
    monkeypatch.setattr("copgen_cli.archive.retry_policy.FIRST_PAUSE", 0.01)
    given = arguments if "--endpoint" in arguments else [*arguments, "--endpoint", hub.endpoint]
    got, out, err = run("download", *given)

    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not ROME.exists()


def test_tables_are_used_as_they_are_when_the_endpoint_does_not_answer(run, hub, monkeypatch):
    monkeypatch.setattr("copgen_cli.archive.retry_policy.FIRST_PAUSE", 0.01)
    run("download", "--endpoint", hub.endpoint)
    code, _, err = run("download", "--endpoint", "http://127.0.0.1:1")
    assert code == 0
    assert "may be out of date" in err
    assert "Nothing to do" in err


def test_a_table_that_changed_at_the_endpoint_is_fetched_again(run, tmp_path):
    archive = write_archive(tmp_path / "served", [r for r in rome_rows() if r.cell != "466U_104R"])
    run("download", "--endpoint", archive.endpoint)
    assert len(thumbnails(ROME)) == 2 * 4
    write_archive(tmp_path / "served", rome_rows())
    run("download", "--endpoint", archive.endpoint)
    assert len(thumbnails(ROME)) == 3 * 4


def test_the_token_reaches_the_endpoint_alone_and_no_file(run, archive, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with TinyHub(archive.root, token="hf_secret") as hub:
        code, out, err = run("--verbose", "download", "--endpoint", hub.endpoint)
    assert code == 0
    assert {request.authorization for request in hub.requests if request.kind == "cdn"} == {None}
    assert "hf_secret" not in out + err
    assert not [path for path, data in tree(Path()).items() if b"hf_secret" in data]


def test_a_server_without_ranges_works_too(run, archive):
    with TinyHub(archive.root, ranges=False) as hub:
        assert run("download", "--endpoint", hub.endpoint)[0] == 0
    assert thumbnails(ROME) == archive.files_of(rome_kept())
    assert not list(Path().rglob(".copgen"))


def test_faults_on_the_way_leave_no_trace_in_the_tree(run, hub, archive, monkeypatch):
    monkeypatch.setattr("copgen_cli.archive.retry_policy.FIRST_PAUSE", 0.01)
    bad = [status(503), Fault(cut=0.5), None, Fault(reset=True), Fault(ignore_range=True), status(416), Fault(flip=9)]
    hub.faults = scripted("cdn", bad * 4, path="part_")
    code, _, _ = run("download", "--endpoint", hub.endpoint)
    assert code == 0
    assert thumbnails(ROME) == archive.files_of(rome_kept())


def test_what_is_broken_is_set_aside_listed_and_tried_again(run, tmp_path):
    row = Row("464U_102R", Modality.S2L2A)
    archive = write_archive(tmp_path / "served", [row, Row("465U_103R", Modality.S2L2A)], parts=1)
    honest = [part_row(other, archive, size=24, band_bytes=50) for other in archive.rows]
    write_part(archive.part(Modality.S2L2A), Modality.S2L2A, [honest[0] | {"thumbnail": b"no picture"}, honest[1]])
    arguments = ("download", "--endpoint", archive.endpoint, "--sources", "s2_l2a")

    code, _, err = run(*arguments)
    assert code == EXIT_PARTLY
    assert "is no whole JPEG or PNG" in err
    missing = json.loads((ROME / "copgen_download.json").read_text())["missing"]
    assert [item["key"] for item in missing] == [row.folder]

    write_part(archive.part(Modality.S2L2A), Modality.S2L2A, honest)
    code, out, _ = run(*arguments)
    assert (code, "done now: 1" in out) == (0, True)
    assert thumbnails(ROME) == archive.files_of(archive.rows)


def test_a_full_disk_is_said_before_anything_is_fetched(run, hub, monkeypatch):
    monkeypatch.setattr("copgen_cli.stages.atomic.free_space", lambda path: 1_000_000)
    code, _, err = run("download", "--endpoint", hub.endpoint)
    assert code == EXIT_FAILED
    assert "bytes are needed, 1,000,000 are free" in err
    assert not thumbnails(ROME)


def test_the_manifest_names_revision_settings_and_every_file(run, hub):
    run("download", "--endpoint", hub.endpoint)
    manifest = json.loads((ROME / "copgen_download.json").read_text())
    assert manifest["inputs"] == {modality.source.name: REVISION for modality in PUBLISHED}
    assert manifest["settings"]["bbox"] == [12.2, 41.6, 13.0, 42.2]
    assert {file.path: file.sha256 for o in read_outcomes(ROME, "download") for file in o.files} == thumbnails(ROME)


def test_a_second_download_of_the_region_is_told_of_the_first(run, archive, tmp_path):
    program = (
        "import sys, pathlib; from copgen_cli.stages.driver import StageRun\n"
        f"with StageRun('download', pathlib.Path({str(ROME)!r}), settings={{}}): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        code, _, err = run("download", "--endpoint", archive.endpoint)
        assert code == EXIT_FAILED
        assert f"process {holder.pid} on " in err
        holder.communicate("\n")


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGKILL] * 3, -signal.SIGKILL), ([signal.SIGTERM], 143), ([signal.SIGINT], 130)],
    ids=["SIGKILL", "SIGTERM", "SIGINT"],
)
def test_stopped_at_any_moment_it_continues_to_the_undisturbed_tree(run, hub, tmp_path, signals, code):
    run("download", "--endpoint", hub.endpoint, "--data-dir", "undisturbed")
    fetched: list[str] = []
    for signal_ in signals:
        assert stopped(hub, tmp_path, signal_, "--data-dir", "stopped") == code
        fetched += [file.as_posix() for file in Path("stopped").rglob("thumbnail.png")]

    times = {file: file.stat().st_mtime_ns for file in map(Path, fetched)}
    assert run("download", "--endpoint", hub.endpoint, "--data-dir", "stopped")[0] == 0

    assert tree(Path("stopped")) == tree(Path("undisturbed"))
    again = [file for file, time in times.items() if file.stat().st_mtime_ns != time]
    assert len(again) <= 1  # of a file in place, whose line in the journal was still missing


def test_fewer_sources_after_a_killed_run_leave_no_index_of_the_others(run, hub, tmp_path):
    assert stopped(hub, tmp_path, signal.SIGKILL) == -signal.SIGKILL
    assert (ROME / "Core-S2L2A/metadata.parquet").exists()

    assert run("download", "--endpoint", hub.endpoint, "--sources", "dem,s1_rtc")[0] == 0

    assert sorted(file.parent.name for file in ROME.glob("*/metadata.parquet")) == ["Core-DEM", "Core-S1RTC"]


def stopped(hub: TinyHub, folder: Path, number: int, *options: str) -> int:
    """Download in a process of its own, and send it a signal at the 11th request for a part, which gets no answer.

    Returns:
        Its exit code.
    """
    reached, answer, before = Event(), Event(), hub.count("cdn", "part_")

    def hold(request: Request) -> Fault | None:
        if hub.count("cdn", "part_") - before >= 11:
            reached.set()
            return Fault(stall=answer)
        return None

    hub.faults = hold
    with running(run_in, folder, "download", "--endpoint", hub.endpoint, *options) as process:
        assert reached.wait(20)
        hub.faults = lambda request: None
        os.kill(process.process.pid, number)
        return process.end()
