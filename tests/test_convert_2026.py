"""`copgen convert` of COP-GEN (2026): its network and ten autoencoders, as released, into a folder that samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_models import (
    compvis_names,
    tiny_autoencoder,
    tiny_copgen_2026,
    tiny_raster_autoencoder,
    tiny_transformer,
)
from typer.testing import CliRunner

from copgen_cli.app import app
from copgen_cli.errors import BrokenInputError, CopgenError, MismatchError, UsageError
from copgen_cli.modalities import COPGEN_2026, Modality, Role, encode_place, modalities_in
from copgen_cli.model.autoencoder import fingerprint
from copgen_cli.pipeline.conversion import convert, read_manifest
from copgen_cli.pipeline.sources import find_parts
from copgen_cli.records import SampleRequest
from copgen_cli.sampling.generation import PictureGenerator, Task
from copgen_cli.sampling.models import load_model

MODALITIES = modalities_in(COPGEN_2026)
RASTERS = [modality for modality in MODALITIES if not modality.spec.is_scalar]
SCALES = (0.404247, 0.464794, 0.633804, 0.565812, 0.772514, 0.765817, 0.557045, 0.571367, 0.853416, 0.567267)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A folder as the releases come: a state dict, and a folder of autoencoders in folders of their published names."""
    folder = tmp_path_factory.mktemp("released")
    torch.save(tiny_copgen_2026(1).state_dict(), folder / "copgen_base.pth")
    for seed, modality in enumerate(RASTERS):
        place = folder / "vaes" / modality.spec.autoencoder.rpartition("/")[2]
        place.mkdir(parents=True)
        tensors = compvis_names(tiny_raster_autoencoder(modality, seed), levels=4)
        torch.save(tensors | {"loss.logvar": torch.zeros(1)}, place / "model-50-ema.pth")
    return folder


@pytest.fixture(scope="module")
def made(released):
    convert(
        released / "copgen_base.pth",
        released / "made",
        family="copgen-2026",
        num_heads=2,
        vae_dir=released / "vaes",
    )
    return released / "made"


def run(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_the_command_makes_a_whole_model_of_the_release(released, tmp_path):
    options = ["--family", "copgen-2026", "--num-heads", 2, "--vae-dir", released / "vaes", "--json"]

    result = run(released / "copgen_base.pth", tmp_path / "made", *options)

    told = json.loads(result.stdout)
    assert (told["written"], list(told["vaes"])) == (True, list(map(str, RASTERS)))
    files = {
        file.relative_to(tmp_path / "made").as_posix() for file in (tmp_path / "made").rglob("*") if file.is_file()
    }
    weights = "diffusion_pytorch_model.safetensors"
    parts = ["transformer", *(f"vaes/{modality}" for modality in RASTERS)]
    assert files == set(told["files"])
    assert files == {"copgen_convert.json", "model_index.json", "scheduler/scheduler_config.json"} | {
        f"{part}/{name}" for part in parts for name in ("config.json", weights)
    }
    index = json.loads((tmp_path / "made/model_index.json").read_text())
    assert [spec["name"] for spec in index["modalities"]] == list(map(str, MODALITIES))


def test_the_family_is_recognised_by_the_tensors(released, made, tmp_path):
    convert(released / "copgen_base.pth", tmp_path / "made", num_heads=2, vae_dir=released / "vaes")

    assert read_manifest(tmp_path / "made").same_model_as(read_manifest(made))


def test_what_is_made_is_loaded_with_its_twelve_modalities_and_the_scales_of_the_table(made):
    loaded = load_model(str(made), device=torch.device("cpu"), dtype=torch.float32)

    assert loaded.modalities == MODALITIES
    assert {modality: loaded.autoencoders.scale_of(modality) for modality in RASTERS} == dict(
        zip(RASTERS, SCALES, strict=True)
    )
    assert set(find_parts(made).vaes) == set(RASTERS)
    weights = tiny_copgen_2026(1).state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.net.state_dict().items())
    for seed, modality in enumerate(RASTERS):
        expected = tiny_raster_autoencoder(modality, seed)
        expected.register_to_config(scaling_factor=modality.spec.scale_factor)
        assert loaded.autoencoders.of[modality].fingerprint == fingerprint(expected)
        assert read_manifest(made).vaes[modality] == fingerprint(expected)


def test_what_is_made_samples_bands_from_a_place_and_radar(made):
    loaded = load_model(str(made), device=torch.device("cpu"), dtype=torch.float32)
    place, radar, bands, when = map(Modality, ("place", "s1_db", "s2_l2a_10m", "time"))
    roles = {place: Role.CONDITION, radar: Role.CONDITION, bands: Role.GENERATE, when: Role.GENERATE}
    vector = torch.from_numpy(encode_place(41.9, 12.5))
    given = {
        place: torch.stack([vector[None], torch.full((1, 3), -30.0)]),
        radar: torch.randn(16, 24, 24, generator=torch.Generator().manual_seed(0)),
    }
    generator = PictureGenerator(
        loaded.net, loaded.modalities, loaded.autoencoders, None, SampleRequest(roles, steps=2, seed=3)
    )

    (one,) = generator.generate([Task("a", "a", given)])
    (other,) = generator.generate([Task("a", "a", given | {radar: -given[radar]})])

    assert {modality: values.shape for modality, values in one.items()} == {bands: (4, 192, 192), when: (3,)}
    assert all(np.isfinite(values).all() for values in one.values())
    assert not np.allclose(one[bands], other[bands])


def test_running_again_does_nothing_and_other_autoencoders_make_another_model(released, made, tmp_path):
    stamps = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    other = tmp_path / "vaes"
    other.mkdir()
    for modality in RASTERS:  # under short and long names, as files and folders
        source = released / "vaes" / modality.spec.autoencoder.rpartition("/")[2]
        name = modality.spec.published if modality == "dem_m" else str(modality)
        (other / name).symlink_to(source)
    (other / "s1_db").unlink()
    tensors = compvis_names(tiny_raster_autoencoder(Modality("s1_db"), 99), levels=4)
    torch.save(tensors, other / "s1_db.pth")
    again = {"num_heads": 2, "family": "copgen-2026"}

    assert not convert(released / "copgen_base.pth", made, vae_dir=released / "vaes", **again)
    with pytest.raises(MismatchError, match="holds another model"):
        convert(released / "copgen_base.pth", made, vae_dir=other, **again)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == stamps

    convert(released / "copgen_base.pth", tmp_path / "made", vae_dir=released / "vaes", **again)
    (tmp_path / "made/notes.txt").write_text("mine")
    with pytest.raises(MismatchError, match=r"notes.txt was not written by copgen"):
        convert(released / "copgen_base.pth", tmp_path / "made", vae_dir=other, overwrite=True, **again)
    (tmp_path / "made/notes.txt").unlink()
    assert convert(released / "copgen_base.pth", tmp_path / "made", vae_dir=other, overwrite=True, **again)
    before, after = read_manifest(made).vaes, read_manifest(tmp_path / "made").vaes
    assert [modality for modality in RASTERS if before[modality] != after[modality]] == ["s1_db"]


def test_a_model_that_is_made_can_be_converted_on_with_its_own_autoencoders(made, tmp_path):
    convert(made, tmp_path / "half", dtype=torch.bfloat16)

    assert read_manifest(tmp_path / "half").vaes == read_manifest(made).vaes


def test_a_modality_without_an_autoencoder_is_named_with_what_to_do(released, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "vaes").mkdir()
    for modality in RASTERS[:4]:
        name = modality.spec.autoencoder.rpartition("/")[2]
        (tmp_path / "vaes" / name).symlink_to(released / "vaes" / name)

    for folder, missing in ((None, "dem_m"), (tmp_path / "vaes", "s2_l1c_10m")):
        with pytest.raises(CopgenError, match=f"no autoencoder for {missing}") as caught:
            convert(released / "copgen_base.pth", tmp_path / "made", num_heads=2, vae_dir=folder)
        assert "hf download mespinosami/copgen-vaes --local-dir DIR" in caught.value.hint
        assert "--vae-dir DIR" in caught.value.hint
    assert not (tmp_path / "made").exists()


def test_without_a_folder_the_published_autoencoders_are_fetched(released, made, monkeypatch, tmp_path):
    asked = []

    def fetch(repository, patterns, hub):
        asked.append((repository, patterns[0]))
        return released / "vaes"

    monkeypatch.setattr("copgen_cli.model.autoencoder.fetch_from_hub", fetch)

    convert(released / "copgen_base.pth", tmp_path / "made", num_heads=2)

    assert read_manifest(tmp_path / "made").vaes == read_manifest(made).vaes
    assert asked[0] == ("mespinosami/copgen-vaes", "DEM_64x64_DEM_latent_8/model-50-ema.pth")
    assert len(asked) == 10


def test_a_network_of_another_family_is_one_line(released, tmp_path):
    beta = tiny_transformer(0, sample_size=8)
    torch.save(beta.state_dict(), tmp_path / "beta.pth")

    with pytest.raises(MismatchError, match=r"holds no network of the family copgen-2026: its 4 modalities"):
        convert(tmp_path / "beta.pth", tmp_path / "made", num_heads=2, family="copgen-2026", vae_dir=tmp_path)
    with pytest.raises(MismatchError, match=r"holds no network of the family beta: its 12 modalities"):
        convert(released / "copgen_base.pth", tmp_path / "made", num_heads=2, family="beta")
    assert not (tmp_path / "made").exists()


def test_an_autoencoder_that_is_another_modalitys_is_refused(released, tmp_path):
    for modality in RASTERS:
        name = modality.spec.autoencoder.rpartition("/")[2]
        (tmp_path / str(modality)).symlink_to(released / "vaes" / name)
    (tmp_path / "s2_l2a_60m").unlink()
    (tmp_path / "s2_l2a_60m").symlink_to(tmp_path / "s2_l1c_60m")
    with pytest.raises(MismatchError, match="s2_l2a_60m takes 3 channels, and s2_l2a_60m has 2"):
        convert(released / "copgen_base.pth", tmp_path / "made", num_heads=2, vae_dir=tmp_path)

    (tmp_path / "s2_l2a_60m").unlink()
    four = tiny_autoencoder(0, channels=(32, 32), in_channels=2, out_channels=2, norm_num_groups=32)
    four.save_pretrained(tmp_path / "s2_l2a_60m")
    with pytest.raises(MismatchError, match=r"makes latents of 4 x 16 px .* the network takes 8 x 4 px"):
        convert(released / "copgen_base.pth", tmp_path / "made", num_heads=2, vae_dir=tmp_path)

    (tmp_path / "land_cover").unlink()
    (tmp_path / "land_cover").mkdir()
    (tmp_path / "land_cover/model-50-ema.pth").write_bytes(b"cut")
    with pytest.raises(BrokenInputError, match=r"model-50-ema\.pth is not a file of PyTorch weights"):
        convert(released / "copgen_base.pth", tmp_path / "made", num_heads=2, vae_dir=tmp_path)


def test_an_autoencoder_that_the_model_has_no_use_for_is_refused(released, tmp_path):
    torch.save(tiny_transformer(0, sample_size=8).state_dict(), tmp_path / "beta.pth")

    with pytest.raises(UsageError, match="no rasters"):
        convert(tmp_path / "beta.pth", tmp_path / "made", num_heads=2, vae_dir=released / "vaes")
    with pytest.raises(UsageError, match="no pictures"):
        convert(released / "copgen_base.pth", tmp_path / "made", num_heads=2, vae=tmp_path)
