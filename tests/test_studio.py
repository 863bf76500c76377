"""`copgen studio`: what a browser may ask, what it gets, and what it is refused. All on a server of the loopback."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import requests
from copgen_processes import copgen, running
from PIL import Image
from sample_commands import call_copgen, one_thread, save_picture
from studio_servers import CELL, PATCH, REGION, Client, Workplace, make_workplace, png_of_80_megapixels, studio

from copgen_cli.app import main
from copgen_cli.inputs import Frame
from copgen_cli.modalities import Modality
from copgen_cli.outputs import read_provenance
from copgen_cli.studio.generation import Kept
from copgen_cli.studio.results.points import values_at

PLACE = {"region": REGION, "patch": PATCH}
LONG = {"steps": 200, "n_samples": 16, "condition": ["s1_rtc"], "place": PLACE}
"""Far from done when the next line of a test runs."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def client(place: Workplace, tmp_path_factory: pytest.TempPathFactory):
    with one_thread(), studio(place, tmp_path_factory.mktemp("output")) as client:
        yield client


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_patch_on_the_map_becomes_pictures_at_its_place_that_the_told_command_makes_again(
    client: Client, tmp_path, monkeypatch, capsys
):
    (region,) = client.get("/api/regions").json()
    cells = client.get(f"/api/regions/{REGION}/cells").json()["features"]
    patches = client.get(f"/api/regions/{REGION}/cells/{CELL}/patches").json()["features"]
    assert (region["name"], region["patches"], len(cells), len(patches)) == (REGION, 16, 1, 16)
    assert cells[0]["properties"]["split"] in ("train", "test")
    patch = next(one["properties"] for one in patches if one["properties"]["patch"] == PATCH)

    wanted = {"generate": ["dem", "s2_l2a"], "condition": ["s1_rtc"], "place": PLACE, "n_samples": 2, "seed": 7}
    done = client.result(**wanted)

    assert done["state"] == "done", done["problem"]
    pictures = done["result"]["pictures"]
    assert [(p["modality"], p["name"]) for p in pictures] == [
        (modality, f"{PATCH}_v{k}") for modality in ("dem", "s2_l2a") for k in (1, 2)
    ]
    inner, outer = np.array(pictures[0]["corners"]), np.array(patch["corners"])
    assert np.allclose(inner.mean(axis=0), outer.mean(axis=0), atol=1e-6)
    assert np.allclose(np.ptp(inner, axis=0), np.ptp(outer, axis=0) / 4, rtol=1e-2)  # 64 px of 256
    monkeypatch.chdir(tmp_path)
    command = shlex.split(done["result"]["lines"]["command"])
    assert call_copgen(capsys, *command[1:]).code == 0
    for picture in pictures:
        shown = client.get(f"/api/requests/{done['id']}/pictures/{picture['number']}.png")
        fetched = client.get(f"/api/requests/{done['id']}/pictures/{picture['number']}.tif")
        again = tmp_path / "outputs/from-studio" / picture["modality"] / f"{picture['name']}.tif"
        with rasterio.open(io.BytesIO(fetched.content)) as ours, rasterio.open(again) as theirs:
            assert ours.crs.is_projected
            assert ours.transform == theirs.transform
            assert (ours.read() == theirs.read()).all()
            assert (pixels(shown.content).transpose(2, 0, 1) == theirs.read()).all()
        (tmp_path / "shown.png").write_bytes(shown.content)
        assert read_provenance(tmp_path / "shown.png").recipe.request.seed == 7


def test_the_told_lines_of_python_make_the_same_pixels(client: Client):
    done = client.result(generate=["s2_l2a"], condition=["dem"], place=PLACE, n_samples=2, seed=3)

    lines = done["result"]["lines"]["python"].replace(".show()", "")
    names: dict = {}
    exec(compile(lines, "lines", "exec"), names)

    for picture in done["result"]["pictures"]:
        shown = client.get(f"/api/requests/{done['id']}/pictures/{picture['number']}.png").content
        assert (pixels(shown) == np.asarray(names["out"].images["s2_l2a"][picture["number"]])).all()


def test_a_place_with_truth_is_judged_by_the_numbers_of_evaluate(client: Client):
    done = client.result(generate=["dem"], condition=["s1_rtc"], place=PLACE, seed=4)

    scores = client.get(f"/api/requests/{done['id']}/scores").json()
    truth = pixels(client.get(f"/api/requests/{done['id']}/truth/dem.png").content).astype(float)
    drawn = pixels(client.get(f"/api/requests/{done['id']}/pictures/0.png").content).astype(float)

    psnr = 10 * np.log10(255**2 / np.square(truth - drawn).mean())
    assert scores["samples"][0]["values"]["psnr"] == pytest.approx(psnr)
    assert scores["quantities"]["psnr"]["unit"] == "dB"


def test_a_picture_of_a_patch_has_a_stac_item_with_its_place_and_its_time(client: Client):
    import pystac
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    done = client.result(generate=["dem"], condition=["s1_rtc"], place=PLACE, n_samples=2, seed=9)
    path = f"/api/requests/{done['id']}/pictures/1"
    answer = client.get(f"{path}.json")
    item = answer.json()

    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0", "item.json")
    tif = client.get(f"{path}.tif")
    assert f'filename="{Path(item["assets"]["data"]["href"]).name}"' in tif.headers["content-disposition"]
    with rasterio.open(io.BytesIO(tif.content)) as made:
        assert item["properties"]["proj:transform"] == list(made.transform)
        assert item["properties"]["proj:shape"] == list(made.shape)
    facts = item["properties"]
    assert (facts["synthetic"], facts["copgen:sample"], facts["copgen:seed"]) == (True, 2, 9)
    table = pq.read_table(next(client.app.state.studio.settings.data_dir.rglob("t*_metadata.parquet"))).to_pylist()
    seen = next(row["s1_rtc_timestamp"] for row in table if row["patch"] == PATCH)
    assert datetime.fromisoformat(facts["datetime"]) == datetime.fromisoformat(seen).replace(tzinfo=UTC)
    assert str(client.app.state.studio.settings.data_dir) not in answer.text.replace(facts["copgen:model"]["id"], "")


def test_a_file_without_a_place_has_no_item(client: Client, tmp_path):
    taken = client.upload(save_picture(tmp_path / "radar.png", seed=6)).json()
    done = client.result(generate=["dem"], uploads={"s1_rtc": taken["id"]})

    assert client.get(f"/api/requests/{done['id']}/pictures/0.json").status_code == 404


def test_values_under_the_pointer_are_those_of_the_files(client: Client):
    done = client.result(
        generate=["dem", "s2_l2a"], condition=["s1_rtc"], place=PLACE, n_samples=2, spread=True, seed=9
    )
    path = f"/api/requests/{done['id']}"
    numbers = {(p["modality"], p["kind"]): p["number"] for p in done["result"]["pictures"]}
    names = [
        f"pictures/{numbers['s2_l2a', 'sample']}",
        f"pictures/{numbers['dem', 'std']}",
        "truth/dem",
        "given/s1_rtc",
    ]

    told = client.get(f"{path}/values", params={"of": names, "across": 0.5, "down": 0.25}).json()

    at = [pixels(client.get(f"{path}/{name}.png").content)[16, 32] for name in names]
    assert [(one["column"], one["row"]) for one in told] == [(32, 16)] * 4
    assert told[0]["values"] == list(at[0])
    assert (told[0]["bands"], told[0]["unit"]) == (["red", "green", "blue"], "")
    assert (told[1]["values"], told[1]["unit"]) == ([at[1][0] / 4], "grey levels")  # its picture is brightened fourfold
    assert told[2]["values"] == [at[2][0]]
    assert told[3]["values"] == list(at[3])
    for wrong in ("pictures/99", "truth/s1_rtc", "given/dem"):
        assert client.get(f"{path}/values", params={"of": wrong, "across": 0, "down": 0}).status_code == 404
    for wrong in ("pictures/../../x", "x/dem"):
        assert client.get(f"{path}/values", params={"of": wrong, "across": 0, "down": 0}).status_code == 422
    assert client.get(f"{path}/values", params={"of": names[0], "across": 1, "down": 0}).status_code == 422


def test_values_of_measurements_have_their_unit_and_classes_their_name(tmp_path):
    heights, cover = Modality("dem_m"), Modality("land_cover")
    files = {}
    for modality, values in ((heights, np.float32(412.25)), (cover, np.uint8(cover.spec.classes[1].value))):
        files[modality] = tmp_path / f"{modality}.tif"
        side, size = modality.spec.side, modality.spec.pixel_size
        with rasterio.open(
            files[modality], "w", driver="GTiff", width=side, height=side, count=1, dtype=modality.spec.dtype,
            crs="EPSG:32633", transform=rasterio.Affine(size, 0, 0, 0, -size, 0),
        ) as file:  # fmt: skip
            file.write(np.full((1, side, side), values))
    kept = Kept(None, tmp_path, (), inputs=files, truths={}, documents=())

    told = [values_at(kept, f"given/{modality}", (0.5, 0.5), Frame(64, 64)) for modality in files]

    assert (told[0].values, told[0].unit) == ([412.25], "m")
    assert told[1].meaning == cover.spec.classes[1].name


def test_an_area_becomes_maps_with_their_catalogue_that_the_told_command_makes_again(
    client: Client, tmp_path, monkeypatch, capsys
):
    (cell,) = client.get(f"/api/regions/{REGION}/cells").json()["features"]
    lon, lat = np.mean(cell["properties"]["corners"], axis=0)
    area = {"region": REGION, "bbox": [lon - 0.004, lat - 0.003, lon + 0.004, lat + 0.003]}

    done = client.result(generate=["dem"], condition=["s1_rtc"], area=area, n_samples=2, steps=1, spread=True, seed=6)

    assert done["state"] == "done", done["problem"]
    path, pictures = f"/api/requests/{done['id']}", done["result"]["pictures"]
    assert [picture["kind"] for picture in pictures] == ["sample", "sample", "mean", "std", "q10", "q50", "q90"]
    assert np.allclose(np.mean(pictures[0]["corners"], axis=0), (lon, lat), atol=1e-3)
    assert done["result"]["documents"][0] == "collection.json"
    assert client.get(f"{path}/documents/0.json").json()["type"] == "Collection"
    with Image.open(io.BytesIO(client.get(f"{path}/pictures/0.png").content)) as shown:
        assert shown.info["Synthetic"] == "true"
        assert shown.size == (pictures[0]["width"], pictures[0]["height"])
    monkeypatch.chdir(tmp_path)
    assert call_copgen(capsys, *shlex.split(done["result"]["lines"]["command"])[1:]).code == 0
    fetched = client.get(f"{path}/pictures/0.tif").content
    with rasterio.open(io.BytesIO(fetched)) as ours, rasterio.open("outputs/scene-from-studio/dem_v1.tif") as theirs:
        assert ours.transform == theirs.transform
        assert (ours.read() == theirs.read()).all()


def test_an_area_that_is_too_large_is_refused_before_it_waits(client: Client):
    answer = client.ask(area={"region": REGION, "cell": CELL}, condition=["s1_rtc"], n_samples=16)

    assert answer.status_code == 422
    assert "windows" in answer.json()["error"]
    assert client.ask(area={"region": "..", "cell": CELL}).status_code == 404


def test_a_file_is_taken_shown_as_the_model_sees_it_and_used(client: Client, tmp_path):
    file = save_picture(tmp_path / "radar.png", size=(80, 70), seed=5)

    taken = client.upload(file)
    done = client.result(generate=["dem"], uploads={"s1_rtc": taken.json()["id"]})

    assert taken.status_code == 201
    shown = pixels(client.get(f"/api/uploads/{taken.json()['id']}.png").content)
    assert (shown == pixels(file.read_bytes())[3:67, 8:72]).all()
    assert done["state"] == "done"
    assert done["result"]["given"] == ["s1_rtc"]
    assert done["result"]["pictures"][0]["corners"] is None
    assert (pixels(client.get(f"/api/requests/{done['id']}/given/s1_rtc.png").content) == shown).all()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello", "no PNG, JPEG, WebP or TIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no readable picture"),
        (png_of_80_megapixels(), "10,000 x 8,000 pixels"),
        (b"", "no PNG"),
    ],
    ids=["no picture", "damaged", "80 megapixels", "empty"],
)
def test_a_file_that_is_no_picture_gets_one_line_and_leaves_nothing(client: Client, content, told):
    folder = client.app.state.studio.uploads.folder
    before = set(folder.iterdir()) if folder.is_dir() else set()

    answer = client.call("POST", "/api/uploads?modality=s1_rtc", data=content)

    assert answer.status_code == 422
    problem = answer.json()
    assert told in problem["error"]
    assert "\n" not in problem["error"]
    assert str(folder) not in problem["error"] + problem["hint"]
    assert set(folder.iterdir()) == before
    assert client.get("/healthz").status_code == 200


def test_uploads_make_room_for_newer_ones_those_of_an_earlier_studio_first(place, tmp_path):
    files = [save_picture(tmp_path / f"{seed}.png", seed=seed) for seed in range(3)]
    with studio(place, tmp_path / "output") as client:
        client.upload(files[0])
    with studio(place, tmp_path / "output", uploads=2) as client:
        names = [client.upload(file).json()["id"] for file in files[1:]]

        assert {file.stem for file in (tmp_path / "output/uploads").iterdir()} == set(names)
        again = client.upload(files[0]).json()["id"]
        assert [client.get(f"/api/uploads/{name}.png").status_code for name in (*names, again)] == [404, 200, 200]


def test_files_of_other_origin_in_the_folder_of_the_studio_stay(place, tmp_path):
    mine = [tmp_path / "output/uploads/mine.png", tmp_path / "output/results/mine/notes.txt"]
    for file in mine:
        save_picture(file.with_suffix(".png")).rename(file)
        os.utime(file.parent, (1, 1))
    with studio(place, tmp_path / "output", uploads=1, results=1) as client:
        for seed in range(2):
            client.upload(save_picture(tmp_path / "radar.png", seed=seed))
            client.result(seed=seed)

    assert all(file.is_file() for file in mine)
    assert len(list((tmp_path / "output/uploads").iterdir())) == len(list((tmp_path / "output/results").iterdir())) == 2


def test_a_file_of_too_many_bytes_is_not_read_to_its_end(place, tmp_path):
    with studio(place, tmp_path, upload_bytes=1000) as client:
        answer = client.call("POST", "/api/uploads?modality=s1_rtc", data=iter([b"x" * 600] * 3))

        assert answer.status_code == 413
        assert not list(client.app.state.studio.uploads.folder.iterdir())


@pytest.mark.parametrize(
    ("wishes", "status", "told"),
    [
        ({"generate": []}, 422, "generate"),
        ({"generate": ["sar"]}, 422, "modality of this model 'sar'"),
        ({"generate": ["dem"], "condition": ["dem"], "place": PLACE}, 422, "dem"),
        ({"condition": ["s1_rtc"]}, 422, "nothing says what it is"),
        ({"condition": ["s1_rtc"], "place": PLACE | {"patch": "../../model"}}, 404, "patch"),
        ({"condition": ["s1_rtc"], "place": PLACE | {"region": ".."}}, 404, "region"),
        ({"uploads": {"s1_rtc": "../../../etc/passwd"}}, 404, "upload"),
        ({"n_samples": 17}, 422, "17 samples"),
        ({"steps": 201}, 422, "201 steps"),
        ({"steps": "many"}, 422, "steps"),
        ({"guidance_scale": -1}, 422, "guidance_scale"),
        ({"solver": "euler"}, 422, "solver"),
        ({"model": "/etc/passwd"}, 422, "model"),
    ],
)
def test_what_does_not_go_together_is_told_in_words_and_waits_for_nothing(client: Client, wishes, status, told):
    answer = client.ask(**wishes)

    assert answer.status_code == status
    assert told in answer.json()["error"]
    assert answer.json()["hint"]


def test_a_region_that_is_misspelt_is_answered_with_where_their_names_are(client: Client):
    answer = client.ask(condition=["s1_rtc"], place=PLACE | {"region": "romme"})

    assert answer.status_code == 404
    assert answer.json()["hint"].startswith("/api/regions lists")


@pytest.mark.parametrize(
    "path",
    [
        "/api/requests/0123456789",
        "/api/requests/0123456789/events",
        "/api/requests/0123456789/pictures/0.png",
        "/api/uploads/0123456789.png",
        "/api/regions/..%2f..%2fetc/cells",
        f"/api/regions/{REGION}/patches/..%2f..%2fmodel/dem.png",
        "/api/nothing",
        "/..%2f..%2fapp.py",
    ],
)
def test_an_unknown_id_is_told_so_and_a_path_is_no_id(client: Client, path):
    answer = client.get(path)

    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "hint"}


def test_an_equal_request_is_answered_at_once_by_the_same_pictures(client: Client):
    first = client.result(seed=11)

    again = client.ask(seed=11).json()

    assert first["result"]["cached"] is False
    assert (again["state"], again["result"]["cached"]) == ("done", True)
    assert again["id"] != first["id"]
    for name in (first["id"], again["id"]):
        assert client.get(f"/api/requests/{name}/pictures/0.tif").status_code == 200
    assert client.ask(seed=12).json()["state"] != "done"


def test_results_make_room_for_newer_ones(place, tmp_path):
    with studio(place, tmp_path, results=2) as client:
        names = [client.result(seed=seed)["id"] for seed in range(3)]

        assert len(list((tmp_path / "results").iterdir())) == 2
        assert [client.get(f"/api/requests/{n}/pictures/0.png").status_code for n in names] == [404, 200, 200]
        assert client.result(seed=0)["result"]["cached"] is False


def test_a_request_can_be_called_off_while_it_waits_and_while_it_is_drawn(client: Client):
    running = client.ask(**LONG, seed=20).json()["id"]
    waiting = client.ask(**LONG, seed=21).json()
    states = client.states(running)
    assert next(state for state in states if state["step"] > 0)["state"] == "running"
    assert client.get(f"/api/requests/{waiting['id']}").json()["position"] == 1

    client.call("DELETE", f"/api/requests/{waiting['id']}")
    client.call("DELETE", f"/api/requests/{running}")

    assert list(states)[-1]["state"] == "cancelled"
    assert client.get(f"/api/requests/{waiting['id']}").json()["state"] == "cancelled"
    assert client.result(seed=22)["state"] == "done"


def test_fifty_at_once_are_all_told_their_place_and_answered(client: Client):
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda seed: client.ask(seed=seed, steps=1), range(100, 150)))
        assert {answer.status_code for answer in answers} == {202}
        names = [answer.json()["id"] for answer in answers]
        ends = list(pool.map(lambda name: list(client.states(name))[-1], names))

    assert len(set(names)) == 50
    assert {end["state"] for end in ends} == {"done"}
    assert client.get("/healthz").json()["waiting"] == 0


def test_a_full_queue_says_when_to_come_back(place, tmp_path):
    with studio(place, tmp_path, queue=2) as client:
        first = client.ask(**LONG).json()["id"]
        assert next(state for state in client.states(first) if state["state"] == "running")
        held = [client.ask(**LONG, seed=seed) for seed in (1, 2)]

        refused = client.ask(**LONG, seed=3)

        assert [answer.json()["position"] for answer in held] == [1, 2]
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1


def test_a_bug_in_the_work_fails_one_request_alone(client: Client, monkeypatch):
    monkeypatch.setattr("copgen_cli.studio.generation.plan_job", lambda *_: 1 / 0)
    failed = client.result(seed=30)
    monkeypatch.undo()

    assert failed["state"] == "failed"
    assert "went wrong" in failed["problem"]["error"]
    assert client.result(seed=30)["state"] == "done"


FOREIGN = [
    {"Origin": "https://example.org"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_origin_changes_nothing(client: Client, headers):
    for method, path in (
        ("POST", "/api/requests"),
        ("POST", "/api/uploads?modality=dem"),
        ("DELETE", "/api/requests/1"),
    ):
        assert client.call(method, path, json={"generate": ["dem"]}, headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "192.168.0.1:7860", ""])
def test_a_name_that_was_made_to_point_here_is_refused(client: Client, host):
    assert client.get("/api/model", headers={"Host": host}).status_code == 421


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(client: Client):
    for path in ("/", "/openapi.json", "/api/model", "/api/nothing"):
        answer = client.get(path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    assert "Ask" in client.get("/openapi.json").json()["components"]["schemas"]


def test_the_page_has_every_text_that_it_uses_in_both_languages(client: Client):
    texts = client.get("/texts.json").json()
    files = "".join(client.get(f"/{name}").text for name in ("index.html", "main.js", "result.js"))
    used = set(re.findall(r'data-(?:text|label)="(\w+)"|\btext\("(\w+)"', files))

    assert len(used) > 40
    for language in ("en", "de"):
        assert {key for pair in used for key in pair if key} <= texts[language].keys()
    assert texts["en"].keys() == texts["de"].keys()


def test_a_public_studio_wants_its_token(place, tmp_path):
    with studio(place, tmp_path, token="secret") as client:
        assert client.get("/healthz").status_code == 200
        for told in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "copgen_studio=wrong"}):
            assert client.get("/api/model", headers=told).status_code == 401
            assert client.get("/", headers=told).status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/api/model?token=secret").status_code == 401
        assert client.get("/api/model", headers={"Authorization": "Bearer secret"}).status_code == 200

        browser = requests.Session()
        assert browser.get(f"{client.url}/?token=secret", timeout=60).url == f"{client.url}/"
        assert browser.get(f"{client.url}/api/model", timeout=60).status_code == 200
        foreign = browser.delete(f"{client.url}/api/requests/1", headers=FOREIGN[0], timeout=60)
        assert foreign.status_code == 403


def test_a_body_without_end_is_refused(client: Client):
    huge = {"generate": ["dem"], "condition": ["x" * 200] * 10_000}
    assert client.call("POST", "/api/requests", json=huge).status_code == 413
    pieces = (b" " * 100_000 for _ in range(30))
    assert client.call("POST", "/api/requests", data=pieces).status_code in (400, 413, 422)
    assert client.get("/healthz").status_code == 200


def test_a_studio_that_is_stopped_tells_who_waits_and_ends_in_order(place, tmp_path):
    command = ["studio", "--no-browser", "--port", "0", "--device", "cpu"]
    command += ["--model", str(place.model), "--data-dir", str(place.data_dir), "--output", str(tmp_path)]
    with copgen(*command) as run:
        client = Client(run.wait_for("address:").split()[-1].rstrip("/"), None)
        states = client.states(client.ask(**LONG).json()["id"])
        assert next(state for state in states if state["step"] > 0)
        run.process.terminate()
        last = list(states)[-1]
        code = run.end()

    assert (last["state"], last["problem"]["error"]) == ("failed", "The studio was stopped.")
    assert code == 143


def _without_fastapi() -> None:
    sys.modules["fastapi"] = None  # type: ignore[assignment]
    sys.argv = ["copgen", "studio"]
    main()


def test_without_its_packages_the_extra_is_named():
    with running(_without_fastapi) as run:
        assert run.end() == 1
        assert "copgen[studio]" in run.said
        assert "Traceback" not in run.said


def test_an_address_beyond_this_machine_gets_a_token_and_loopback_none():
    from copgen_cli.studio import listen

    for host, has_token in (("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)):
        bound, address = listen(host, 0)
        bound.close()
        assert (address.token is not None) is has_token
        assert ("?token=" in address.url) is has_token


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(capsys, client: Client):
    port = client.url.rpartition(":")[2]

    call = call_copgen(capsys, "studio", "--no-browser", "--port", port)

    assert call.code == 2
    assert "Nothing can listen" in call.err
