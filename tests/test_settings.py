"""Settings: every knob once, merged by a stated precedence, with errors that name source, key and nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from copgen_cli.errors import UsageError
from copgen_cli.modalities import as_modality
from copgen_cli.settings.loading import load_settings, load_settings_with_origins
from copgen_cli.settings.presets import Preset
from copgen_cli.settings.sections import PUBLIC_ENDPOINT


@pytest.fixture(autouse=True)
def clean_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


def settings_file(text: str) -> Path:
    file = Path("copgen.toml")
    file.write_text(text)
    return file


def test_the_command_line_beats_the_environment_which_beats_the_file_which_beats_the_default(monkeypatch):
    assert load_settings().prepare.seed == 42
    settings_file("[prepare]\nseed = 1\n")
    assert load_settings().prepare.seed == 1
    monkeypatch.setenv("COPGEN_PREPARE__SEED", "2")
    assert load_settings().prepare.seed == 2
    assert load_settings(prepare={"seed": 3}).prepare.seed == 3


def test_a_named_file_takes_the_place_of_the_one_in_the_folder(tmp_path):
    settings_file("[prepare]\nseed = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[prepare]\nseed = 9\n")

    assert load_settings(other).prepare.seed == 9


def test_an_option_that_was_not_given_leaves_what_the_file_says():
    settings_file("[prepare]\nseed = 1\ntrain_ratio = 0.5\n")

    prepare = load_settings(prepare={"seed": None, "train_ratio": 0.75}).prepare

    assert (prepare.seed, prepare.train_ratio) == (1, 0.75)


def test_every_value_knows_where_it_came_from(monkeypatch):
    settings_file("[prepare]\nseed = 1\n")
    monkeypatch.setenv("COPGEN_PACK__DTYPE", "float16")

    loaded = load_settings_with_origins(data_dir=Path("d"))

    assert loaded.origin_of(("data_dir",)) == "command line"
    assert loaded.origin_of(("pack", "dtype")) == "environment"
    assert loaded.origin_of(("prepare", "seed")) == "copgen.toml"
    assert loaded.origin_of(("regions", "rome", "bbox")) == "built in"
    assert loaded.origin_of(("encode", "device")) == "default"


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("[prepare]\ntrain_rato = 0.5\n", "prepare.train_rato", "prepare.train_ratio"),
        ("data_dri = 'x'\n", "data_dri", "data_dir"),
        ("[regions.mine]\nbbox = [0, 0, 1, 1]\ncloud_cove = [0, 1]\n", "regions.mine.cloud_cove", "cloud_cover"),
    ],
)
def test_a_misspelt_key_is_refused_with_file_key_and_nearest_key(text, key, nearest):
    settings_file(text)

    with pytest.raises(UsageError, match="Unknown key") as caught:
        load_settings()

    assert key in str(caught.value)
    assert "copgen.toml" in str(caught.value)
    assert nearest in caught.value.hint


def test_a_misspelt_variable_is_refused_with_the_nearest(monkeypatch):
    monkeypatch.setenv("COPGEN_PREPAER__SEED", "1")

    with pytest.raises(UsageError, match="COPGEN_PREPAER__SEED") as caught:
        load_settings()

    assert "COPGEN_PREPARE" in caught.value.hint


def test_a_variable_that_can_not_be_read_is_named(monkeypatch):
    monkeypatch.setenv("COPGEN_DOWNLOAD__WORKERS", "4")
    monkeypatch.setenv("COPGEN_DOWNLOAD__SOURCES", "dem,s1_rtc")

    with pytest.raises(UsageError, match=r"^COPGEN_DOWNLOAD__SOURCES in the environment") as caught:
        load_settings()

    assert "JSON" in caught.value.hint


def test_a_tilde_is_the_home_folder_though_no_shell_reads_it(monkeypatch):
    monkeypatch.setenv("COPGEN_RUNS_DIR", "~/runs")
    settings_file('data_dir = "~/data"\n')

    assert load_settings().data_dir == Path.home() / "data"
    assert load_settings().runs_dir == Path.home() / "runs"


def test_a_variable_below_a_setting_that_has_nothing_below_it_is_refused(monkeypatch):
    monkeypatch.setenv("COPGEN_REGION__NAME", "alps")

    with pytest.raises(UsageError, match="COPGEN_REGION__NAME"):
        load_settings()


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [("train", {"lr": float("inf")}, "finite"), ("sample", {"steps": 1000, "solver": "dpm++2m"}, "at most 999 steps")],
)
def test_values_that_would_fail_far_into_the_work_are_refused_at_once(section, values, told):
    with pytest.raises(UsageError, match=told):
        load_settings(**{section: values})


def test_the_reference_solver_takes_any_number_of_steps():
    assert load_settings(sample={"steps": 1000, "solver": "reference"}).sample.steps == 1000


@pytest.mark.parametrize(
    ("region", "complaint"),
    [
        ("bbox = [13, 41, 12, 42]", "swapped"),
        ("bbox = [12, 42, 13, 41]", "south is less than north"),
        ("bbox = [12, 41, 13, 95]", "degrees"),
        ("bbox = [12, 41, 13, 42]\ncloud_cover = [20, 10]", "MIN <= MAX"),
        ("bbox = [12, 41, 13, 42]\nstart_date = 2020-01-02\nend_date = 2020-01-01", "after the end date"),
        ("seed = 1", "bbox is missing"),
    ],
)
def test_a_region_that_makes_no_sense_is_refused(region, complaint):
    settings_file(f"[regions.mine]\n{region}\n")

    with pytest.raises(UsageError, match=complaint):
        load_settings()


def test_a_region_can_not_leave_the_data_folder():
    with pytest.raises(UsageError, match="folder"):
        load_settings(region="../elsewhere")


def test_a_region_that_is_on_disk_needs_no_settings():
    Path("data/majorTOM/romme").mkdir(parents=True)

    assert load_settings(region="romme").workspace.subset.name == "romme"


def test_an_unknown_region_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="romme"):
        _ = load_settings(region="romme").workspace
    with pytest.raises(UsageError, match="romme") as caught:
        load_settings(region="romme").region_settings()

    assert "'rome'" in caught.value.hint


def test_a_value_that_is_not_on_its_list_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"sample.solver \(command line\) 'unip'") as caught:
        load_settings(sample={"solver": "unip"})

    assert "'unipc'" in caught.value.hint


def test_the_beginning_of_a_name_is_nearer_than_one_of_like_length():
    with pytest.raises(UsageError) as caught:
        as_modality("s1")

    assert "'s1_rtc'" in caught.value.hint


def test_the_hubs_own_variables_are_heeded_below_ours(monkeypatch):
    assert load_settings().download.endpoint == PUBLIC_ENDPOINT
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.test")
    monkeypatch.setenv("HF_TOKEN", "hidden-word")
    assert load_settings().download.endpoint == "http://mirror.test"
    monkeypatch.setenv("COPGEN_DOWNLOAD__ENDPOINT", "http://ours.test")
    assert load_settings().download.endpoint == "http://ours.test"


@pytest.mark.parametrize("value", ["hidden-word\n", " hidden-word\r\n"])
def test_a_token_is_taken_without_the_end_of_its_line(monkeypatch, value):
    monkeypatch.setenv("HF_TOKEN", value)
    token = load_settings().download.token
    assert token is not None
    assert token.get_secret_value() == "hidden-word"


@pytest.mark.parametrize("value", ["hidden\nword", "hidden word", "hidden-w\u00f6rd"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_quoted(monkeypatch, value):
    monkeypatch.setenv("HF_TOKEN", value)
    with pytest.raises(UsageError, match="check --token or HF_TOKEN") as refused:
        load_settings()
    assert "hidden" not in f"{refused.value} {refused.value.hint}"


def test_a_token_is_never_printed(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hidden-word")

    settings = load_settings()

    assert settings.download.token is not None
    assert "hidden-word" not in settings.model_dump_json() + repr(settings)


def test_a_file_that_is_not_toml_or_not_there_is_refused():
    with pytest.raises(UsageError, match="no settings file"):
        load_settings(Path("absent.toml"))
    settings_file("= 3")
    with pytest.raises(UsageError, match="not valid TOML"):
        load_settings()


def test_settings_never_change_after_loading():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().prepare.seed = 3


def test_a_preset_lies_below_the_file_and_above_the_defaults():
    settings_file('[train]\npreset = "base"\nlr = 0.5\n')

    loaded = load_settings_with_origins()

    assert (loaded.settings.train.batch_size, loaded.settings.train.lr) == (512, 0.5)
    assert loaded.origin_of(("train", "batch_size")) == "preset base"
    assert loaded.origin_of(("train", "lr")) == "copgen.toml"
    assert loaded.origin_of(("train", "seed")) == "default"
    assert load_settings(train={"preset": "tiny"}).train.batch_size == 4


@pytest.mark.parametrize("preset", list(Preset))
def test_every_preset_fits_the_settings(preset):
    assert load_settings(train={"preset": preset}).train.preset == preset


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="smal") as caught:
        load_settings(train={"preset": "smal"})

    assert "'small'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("45m", 2700), ("1.5h", 5400), ("2d", 172800), ("1-01:00:05", 90005)]
)
def test_a_duration_is_read_as_people_and_slurm_write_it(text, seconds):
    assert load_settings(train={"max_time": text}).train.max_time == seconds


def test_a_duration_that_is_none_is_refused():
    with pytest.raises(UsageError, match="no duration"):
        load_settings(train={"max_time": "soon"})


@pytest.mark.parametrize("how", ["file", "variable"])
def test_an_empty_path_is_refused_wherever_it_is_set(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    if how == "file":
        Path("copgen.toml").write_text('data_dir = ""\n')
    else:
        monkeypatch.setenv("COPGEN_DATA_DIR", "")

    with pytest.raises(UsageError, match="empty"):
        load_settings()


def test_a_settings_file_from_windows_is_read():
    text = 'region = "oslo"\n\n[train]\nsteps = 7\n\n[regions.oslo]\nbbox = [10, 59, 11, 60]\n'
    Path("copgen.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())

    settings = load_settings()

    assert (settings.region, settings.train.steps) == ("oslo", 7)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_settings_file_in_utf_16_is_named_as_such(encoding):
    Path("copgen.toml").write_bytes('region = "oslo"\n'.encode(encoding))

    with pytest.raises(UsageError, match=r"copgen.toml is text in UTF-16"):
        load_settings()
