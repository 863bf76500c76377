"""The page for those who come from the published workflow names commands, options and settings that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sample_commands import call_copgen

from copgen_cli.settings.loading import Settings

PAGE = (Path(__file__).parents[1] / "docs/migrating.md").read_text(encoding="utf-8")
PUBLISHED = {
    "download": "--data-dir --bbox --sources --subset-name --start-date --end-date --cloud-cover --criteria "
    "--n-samples --seed --preview --mode --delete-parquets --download-workers --revalidate",
    "prepare": "--subset_path --output_dir --bands --ratio_train_test --flip --visualize --seed --center_crop",
    "encode": "--path --resolution --output_dir",
    "pack": "--input-img-dir --output-dir --input-type --batch-size",
    "train": "--config --mixed_precision --num_processes",
    "sample": "--config --data_path --data_type --nnet_path --output_path --n_mod --n_samples --generate --condition "
    "--save_as --resolution --seed",
}
"""Options of the published scripts, by the command that takes their place."""
KEYS = (
    "seed pred z_shape autoencoder.pretrained_path train.n_steps train.batch_size train.mode train.log_interval "
    "train.eval_interval train.save_interval train.multi_modal optimizer.name optimizer.lr optimizer.weight_decay "
    "optimizer.betas lr_scheduler.warmup_steps nnet.img_size nnet.in_chans nnet.patch_size nnet.embed_dim "
    "nnet.depth nnet.num_heads nnet.mlp_ratio nnet.qkv_bias nnet.pos_drop_rate nnet.drop_rate nnet.attn_drop_rate "
    "nnet.mlp_time_embed nnet.num_modalities nnet.use_checkpoint dataset.path dataset.cfg dataset.p_uncond "
    "sample.sample_steps sample.n_samples sample.mini_batch_size sample.algorithm sample.scale "
)
"""Of the published configuration."""


def rows(section: str) -> list[tuple[str, str]]:
    """What stands left and right in the tables of a section."""
    body = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [part for part in body if f"`copgen {section}" in part.partition("\n\n")[0] + part.partition("|")[0]]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [(left, right) for left, right in cells if left != "theirs"]


def named(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z_-]*", text))


@pytest.mark.parametrize("command", PUBLISHED)
def test_every_published_option_has_its_row(command):
    left = " ".join(left for left, _ in rows(command))

    assert set(PUBLISHED[command].split()) <= named(left)


@pytest.mark.parametrize("command", PUBLISHED)
def test_what_takes_its_place_is_there(capsys, command):
    right = " ".join(right for _, right in rows(command))

    known = named(call_copgen(capsys, command, "--help").out) | {"--preview"}
    assert named(right) - known == set()


def test_every_published_key_has_its_row_and_every_setting_named_is_one():
    table = rows("train")
    left = set(re.findall(r"`([a-z_.]+)", " ".join(left for left, _ in table)))
    assert set(KEYS.split()) <= left
    for _, right in table:
        for path in re.findall(r"`((?:train|sample|encode)\.[a-z_.]+)", right):
            model = Settings
            for key in path.split("."):
                assert key in model.model_fields, path
                model = model.model_fields[key].annotation


def test_the_alias_of_dry_run_works(capsys, tmp_path):
    (tmp_path / "archive").mkdir()
    call = call_copgen(capsys, "download", "--preview", "--endpoint", f"file://{tmp_path}/archive")

    assert "No such option" not in call.err
