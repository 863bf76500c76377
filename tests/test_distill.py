"""Students: what a teacher sets them to tell, runs that train them, and what is sampled with them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_pipeline, tiny_transformer
from tiny_stores import tiny_store
from torch import Tensor, nn
from typer.testing import CliRunner

from copgen_cli import CopGenPipeline
from copgen_cli.app import app
from copgen_cli.errors import CopgenError, MismatchError
from copgen_cli.latents.store import LatentStore
from copgen_cli.modalities import Modality, Split
from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.diffusion import SCHEDULE_ENDING_IN_NOISE, TimestepLaw, add_noise, draw_timesteps
from copgen_cli.model.sampler import sample_latents
from copgen_cli.model.solvers import made_for, steps_from_noise
from copgen_cli.records import LatentSpec, Solver
from copgen_cli.settings import DistillSettings, StudentSettings, TrainSettings
from copgen_cli.settings.sections import NetworkSettings
from copgen_cli.stages.process_group import World
from copgen_cli.training.data_order import TrainBatch
from copgen_cli.training.distillation.loss import Distillation, Questions, clean_targets
from copgen_cli.training.distillation.walk import Walk, teachers_walk
from copgen_cli.training.loop import train
from copgen_cli.training.new_network import make_network
from copgen_cli.training.setup import prepare_run

T = SCHEDULE_ENDING_IN_NOISE.steps
VELOCITIES = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
GIVEN, GENERATED, LEFT_OUT = range(3)


class GaussianTeacher(nn.Module):
    """The exact network of data N(0, s^2), with s = 0.6 where the first modality is given clean, and 1.5 elsewhere.

    Its reverse process is known: x / sqrt(alpha^2 s^2 + sigma^2) stays what it is.
    """

    config = SimpleNamespace(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    SPREADS = (0.6, 1.5)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[Tensor], list[Tensor]]] = []

    def forward(self, latents, timesteps):
        self.calls.append((list(latents), list(timesteps)))
        variance = torch.where(timesteps[GIVEN] == 0, *(s**2 for s in self.SPREADS))
        return [self.velocity(x, n, variance) for x, n in zip(latents, timesteps, strict=True)]

    @staticmethod
    def velocity(x, n, variance):
        signal, spread = SCHEDULE_ENDING_IN_NOISE.amplitudes(n.double(), torch.float64)
        clean = signal * variance / (signal**2 * variance + spread**2)
        factor = (signal - clean) / spread.clamp(min=1e-9)
        return (factor[:, None, None, None] * x.double()).float()


def batch_of(start: int, *, given: bool = True, size: int = 2) -> TrainBatch:
    """Three modalities: given (or left out), generated from a step on, left out."""
    generator = torch.Generator().manual_seed(start)
    latents, noise = (tuple(torch.randn(size, 1, 4, 4, generator=generator) for _ in range(3)) for _ in range(2))
    timesteps = torch.tensor([0 if given else T, start, T])[:, None].expand(3, size)
    return TrainBatch(latents, noise, timesteps.contiguous())


def walk_of(calls: int, teacher_calls: int) -> Walk:
    return teachers_walk(calls, teacher_calls).to(torch.device("cpu"))


def levels(n: int | None) -> tuple[float, float]:
    """Amplitudes of signal and noise; None is clean."""
    left = 1.0 if n is None else float(SCHEDULE_ENDING_IN_NOISE.abar[n])
    return math.sqrt(left), math.sqrt(1 - left)


def one_step(x: Tensor, clean: Tensor, start: int, end: int | None) -> Tensor:
    """DDIM's step from one step to another, or to clean."""
    (a, s), (a_end, s_end) = levels(start), levels(end)
    return a_end * clean + s_end * (x - a * clean) / s


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_a_student_that_tells_its_target_lands_where_the_exact_solution_does(calls):
    teacher, walk = GaussianTeacher(), walk_of(calls, 48)
    grid = steps_from_noise(SCHEDULE_ENDING_IN_NOISE, calls)

    for start, end in zip(grid, [*grid[1:], None], strict=True):
        asked = Questions.of(batch_of(start), walk)
        target = clean_targets(teacher, asked, walk)[GENERATED]

        x, variance = asked.states[GENERATED], teacher.SPREADS[0] ** 2
        (a, s), (a_end, s_end) = levels(start), levels(end)
        exact = x * math.sqrt((a_end**2 * variance + s_end**2) / (a**2 * variance + s**2))
        torch.testing.assert_close(one_step(x, target, start, end), exact, rtol=0, atol=4e-3)


def test_a_walk_of_more_calls_comes_closer_in_second_order():
    def error(teacher_calls: int) -> float:
        walk = walk_of(2, teacher_calls)
        start = int(walk.starts[1])
        asked = Questions.of(batch_of(start), walk)
        told = clean_targets(GaussianTeacher(), asked, walk)[GENERATED]
        (a, s), c = levels(start), GaussianTeacher.SPREADS[0]
        return float((told - asked.states[GENERATED] * c / math.sqrt(a**2 * c**2 + s**2)).abs().max())

    assert error(33) < error(17) / 3


@pytest.mark.parametrize("given", [True, False])
def test_a_student_that_is_its_teacher_has_no_loss_where_the_teacher_calls_once(given):
    teacher = tiny_transformer(
        sample_size=4, in_channels=1, patch_size=2, modalities=("dem", "s1_rtc", "s2_l2a"), **VELOCITIES
    )
    walk = walk_of(4, 1)
    for start in walk.starts.tolist():
        parts = Distillation(teacher, walk)(teacher, batch_of(start, given=given))
        torch.testing.assert_close(parts, torch.zeros_like(parts), rtol=0, atol=1e-9)
        other = Distillation(GaussianTeacher(), walk)(teacher, batch_of(start, given=given))
        generated = [start == T and not given, True, start == T]
        assert (other[torch.tensor(generated)] > 1e-2).all()
        assert (other[~torch.tensor(generated)] == 0).all()


def test_what_is_given_and_left_out_is_held_while_the_rest_walks():
    teacher, walk = GaussianTeacher(), walk_of(4, 3)
    start = int(walk.starts[1])
    batch = batch_of(start)

    clean_targets(teacher, Questions.of(batch, walk), walk, guidance_scale=0.7)

    assert len(teacher.calls) == 3
    for call, (latents, timesteps) in enumerate(teacher.calls):
        with_it, without = (slice(0, 2), slice(2, 4))
        assert torch.equal(latents[GIVEN][with_it], batch.latents[GIVEN])
        assert torch.equal(latents[GIVEN][without], batch.noise[GIVEN]), "noise stands for what is given"
        assert timesteps[GIVEN].tolist() == [0, 0, T, T]
        left_out = add_noise(
            batch.latents[LEFT_OUT], batch.noise[LEFT_OUT], batch.timesteps[LEFT_OUT], SCHEDULE_ENDING_IN_NOISE
        )
        assert torch.equal(latents[LEFT_OUT], left_out.repeat(2, 1, 1, 1))
        assert timesteps[LEFT_OUT].tolist() == [T] * 4
        assert timesteps[GENERATED].tolist() == pytest.approx([float(walk.n[1, call])] * 4)
    assert not torch.equal(teacher.calls[0][0][GENERATED], teacher.calls[1][0][GENERATED])


def test_in_noise_alone_all_that_is_not_given_walks_together():
    teacher, walk = GaussianTeacher(), walk_of(4, 2)

    clean_targets(teacher, Questions.of(batch_of(T), walk), walk)

    _, timesteps = teacher.calls[1]
    assert timesteps[GIVEN].tolist() == [0, 0]
    assert timesteps[GENERATED].tolist() == timesteps[LEFT_OUT].tolist() == pytest.approx([float(walk.n[0, 1])] * 2)


def test_the_teachers_guidance_goes_into_what_the_student_is_to_tell():
    walk = walk_of(4, 1)
    asked = Questions.of(batch_of(int(walk.starts[2])), walk)
    free = Questions.of(batch_of(int(walk.starts[2]), given=False), walk)

    guided = clean_targets(GaussianTeacher(), asked, walk, guidance_scale=0.7)[GENERATED]

    given = clean_targets(GaussianTeacher(), asked, walk)[GENERATED]
    without = clean_targets(GaussianTeacher(), free, walk)[GENERATED]
    far = 1.7 * given - 0.7 * without
    (deviation, mean), (wanted, aim) = (torch.std_mean(x, dim=(2, 3), keepdim=True) for x in (far, given))
    tamed = 0.3 * far + 0.7 * ((far - mean) * wanted / deviation + aim)
    torch.testing.assert_close(guided, tamed, rtol=0, atol=1e-4)
    assert (guided - given).abs().max() > 0.01


def test_a_batch_off_the_grid_is_refused():
    walk = walk_of(4, 2)
    with pytest.raises(ValueError, match="are not all among"):
        Questions.of(batch_of(500), walk)


def test_on_a_grid_what_is_generated_is_drawn_at_its_steps_alone_and_all_of_them():
    grid = tuple(steps_from_noise(SCHEDULE_ENDING_IN_NOISE, 4))
    law = TimestepLaw("roles", one_given=0.5, grid=grid)

    drawn = draw_timesteps(400, 3, law=law, generator=torch.Generator().manual_seed(0))

    assert set(drawn.unique().tolist()) == {0, *grid}
    start = torch.where(drawn == 0, T, drawn).amin(0)
    counts = [int((start == step).sum()) for step in grid]
    assert min(counts) > 60


PAIR = (Modality.DEM, Modality.S1RTC)
SPEC = LatentSpec.alike(PAIR, 4, 8, "absent", None, 0.5)
RUN = {
    "batch_size": 8, "warmup": 0, "lr": 2e-3, "betas": (0.9, 0.99), "ema_decay": 0.9, "mixed_precision": "no",
    "seed": 1, "validate_every": 0, "preview_every": 0,
}  # fmt: skip
CPU = World(torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("data") / "store", train=40, modalities=PAIR)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    tiny_transformer(sample_size=8, patch_size=4, modalities=PAIR, **VELOCITIES).save_pretrained(folder)
    return folder


def train_to(settings: TrainSettings, data: Path, checkpoints: Path) -> Path:
    """The last checkpoint of a run."""
    splits = [LatentStore(data / split) for split in (Split.TRAIN, Split.TEST)]
    prepared = prepare_run(*splits, SPEC, settings, checkpoints, CPU)
    *_, last = train(prepared.run, prepared.state, lambda: None)
    assert last.checkpoint is not None
    return last.checkpoint


def a_students(teacher: Path, **settings) -> TrainSettings:
    asked = {"calls": 2, "teacher_calls": 4} | settings.pop("distill", {})
    return StudentSettings.of(TrainSettings(**RUN | settings), DistillSettings(teacher=str(teacher), **asked))


class White:
    """32 samples without any structure: their ODE only scales noise, which a narrow network learns soon."""

    names = tuple(map(str, range(32)))

    def __init__(self) -> None:
        mean = torch.randn(32, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        self.moments = torch.cat([mean, torch.full_like(mean, -6)], dim=2)

    def select(self, modalities):
        return self

    def __getitems__(self, indices):
        chosen = self.moments[indices]
        return SimpleNamespace(moments=chosen, by_modality=lambda: chosen.unbind(1))


def test_a_student_comes_closer_to_its_teachers_long_way_than_the_teacher_in_as_few_calls(tmp_path):
    spec = LatentSpec.alike(PAIR, 4, 4, "absent", None, 0.5)

    def trained(settings: TrainSettings, folder: Path) -> Path:
        prepared = prepare_run(White(), None, spec, settings.model_copy(update={"lr": 5e-3}), folder, CPU)
        *_, last = train(prepared.run, prepared.state, lambda: None)
        return last.checkpoint / "ema"

    sizes = NetworkSettings(patch_size=2, hidden_size=32, depth=2, num_heads=2, **VELOCITIES)
    teacher = trained(
        TrainSettings(model=sizes, steps=100, timesteps="roles", min_snr_gamma=5, **RUN), tmp_path / "teacher"
    )
    start, student = map(load_transformer, (teacher, trained(a_students(teacher, steps=80), tmp_path / "student")))
    noise = torch.randn(2, 32, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert student.config.distilled_steps == 2
    assert start.config.distilled_steps is None

    for generate, given in (([0, 1], {}), ([0], {1: noise[1] / 2}), ([0], {})):

        def draw(net, *way, generate=generate, given=given):
            return torch.stack([*sample_latents(net, generate, given, noise[: len(generate)], *way).values()])

        long = draw(start, 24, "dpm++2m")
        before, after = ((draw(net, 2, "ddim") - long).square().mean() for net in (start, student))
        assert after < 0.7 * before, (float(before), float(after))


def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(teacher, data, tmp_path):
    settings = a_students(teacher, steps=4, save_every=2, distill={"guidance_scale": 0.5}, validate_every=2)
    whole = train_to(settings, data, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole/step-00000002", tmp_path / "stopped/step-00000002")

    resumed = train_to(settings, data, tmp_path / "stopped")

    for name in (
        "transformer/diffusion_pytorch_model.safetensors",
        "ema/diffusion_pytorch_model.safetensors",
        "optimizer.safetensors",
    ):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    others = {
        "go on with a student of 4 calls": a_students(teacher, steps=4, distill={"calls": 4}),
        "go on with no student": TrainSettings(init_from=str(teacher), **RUN),
    }
    for told, other in others.items():
        with pytest.raises(MismatchError, match=f"trains a student of 2 calls, and can not {told}"):
            train_to(other, data, tmp_path / "stopped")


def test_validation_tells_the_students_own_loss(teacher, data, tmp_path):
    splits = [LatentStore(data / split) for split in (Split.TRAIN, Split.TEST)]
    one_call = a_students(teacher, distill={"teacher_calls": 1})
    prepared = prepare_run(*splits, SPEC, one_call, tmp_path, CPU)

    report = prepared.run.validate(prepared.state, lambda: False)

    assert report.loss == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "predicts noise"),
        ({"prediction_type": "v_prediction"}, "does not end in noise alone"),
        ({**VELOCITIES, "distilled_steps": 4}, "is itself a student, of 4 calls"),
        ({**VELOCITIES, "modalities": PAIR[::-1]}, "--modalities|knows s1_rtc,dem"),
    ],
)
def test_what_can_not_be_a_teacher_is_refused(config, told, data, tmp_path):
    tiny_transformer(sample_size=8, patch_size=4, **{"modalities": PAIR} | config).save_pretrained(tmp_path / "net")

    with pytest.raises(CopgenError, match=told):
        train_to(a_students(tmp_path / "net"), data, tmp_path / "run")


def test_a_student_takes_from_training_all_but_its_start_and_its_steps():
    train = TrainSettings(
        init_from="another",
        timesteps="uniform",
        timestep_shift=3,
        pure_last_step=True,
        lr=3e-4,
        model={"prediction_type": "v_prediction"},
    )

    student = StudentSettings.of(train, DistillSettings(teacher="it", calls=3))

    assert (student.init_from, student.timesteps, student.timestep_shift) == ("it", "roles", 1)
    assert not student.pure_last_step
    assert student.lr == 3e-4
    assert student.model.model_fields_set == {"prediction_type"}  # a checkpoint is held against these alone
    assert student.student.calls == 3
    assert train.student is None


def test_what_is_set_for_students_leaves_ordinary_training_as_it_is(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copgen.toml").write_text("[distill]\ncalls = 2\n[train]\ntimestep_shift = 2\n")
    words = ["train", "--data", str(data), "--preset", "tiny", "--device", "cpu", "--steps", "1", "--workdir", "run"]

    run = CliRunner().invoke(app, words)

    assert run.exit_code == 0, run.output
    assert load_transformer(tmp_path / "run/model").config.distilled_steps is None


def test_a_student_is_trained_further_as_an_ordinary_model(tmp_path):
    tiny_transformer(sample_size=8, patch_size=4, modalities=PAIR, distilled_steps=4, **VELOCITIES).save_pretrained(
        tmp_path
    )

    assert load_transformer(tmp_path).config.distilled_steps == 4
    assert make_network(SPEC, TrainSettings(init_from=str(tmp_path))).config.distilled_steps is None


@pytest.fixture(scope="module")
def students_pipeline(tmp_path_factory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("student") / "model", sample_size=8, distilled_steps=3, **VELOCITIES)


def test_a_pipeline_takes_the_calls_that_its_model_is_made_for(students_pipeline, tmp_path):
    pipe = CopGenPipeline.from_pretrained(students_pipeline)
    pipe.set_progress_bar_config(disable=True)
    asked = {"generate": ["dem"], "output_type": "latent", "seed": 0}
    calls: list[int] = []

    own = pipe(**asked, callback=lambda call, of, clean: calls.append(of)).latents["dem"]

    assert calls == [3, 3, 3]
    assert torch.equal(own, pipe(**asked, num_inference_steps=3, solver="ddim").latents["dem"])
    assert pipe.scheduler.config.solver_order == 1
    with pytest.warns(UserWarning, match="distilled to sample in 3 calls of ddim; 5 of ddim"):
        assert not torch.equal(own, pipe(**asked, num_inference_steps=5).latents["dem"])
    ordinary = CopGenPipeline.from_pretrained(tiny_pipeline(tmp_path / "ordinary", sample_size=8))
    assert ordinary.scheduler.config.solver_order == 2
    assert made_for(ordinary.transformer) == (15, Solver.DPM_2M)


def test_a_command_takes_the_calls_that_its_model_is_made_for_and_says_so(students_pipeline, tmp_path):
    def sample(*options: str) -> tuple[dict, str]:
        output = tmp_path / "-".join(options or ("own",))
        words = [
            "sample",
            "--model",
            str(students_pipeline),
            "--generate",
            "dem",
            "--device",
            "cpu",
            "--save-as",
            "pngs",
        ]
        run = CliRunner().invoke(app, [*words, "--output", str(output), *options])
        assert run.exit_code == 0, run.output
        return json.loads((output / "samples.json").read_text())["settings"], run.output

    own, said = sample()
    assert (own["steps"], own["solver"]) == (3, "ddim")
    assert "distilled" not in said
    other, said = sample("--steps", "5")
    assert (other["steps"], other["solver"]) == (5, "ddim")
    assert "distilled to sample in 3 calls of ddim; 5 of ddim" in " ".join(said.split())


def test_the_command_trains_a_student_that_samples(data, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["distill", "--data", str(data), "--teacher", str(teacher), "--preset", "tiny", "--device", "cpu"]

    run = CliRunner().invoke(app, [*words, "--steps", "2", "--calls", "3", "--json"])

    assert run.exit_code == 0, run.output
    student = load_transformer(tmp_path / "runs/rome-tiny-student/model")
    assert student.config.distilled_steps == 3
    facts = json.loads((tmp_path / "runs/rome-tiny-student/checkpoints/step-00000002/state.json").read_text())
    assert facts["settings"]["distill"] == {
        "teacher": str(teacher), "calls": 3, "teacher_calls": 4, "guidance_scale": 0.0
    }  # fmt: skip
    without = CliRunner().invoke(app, ["distill", "--data", str(data)])
    assert isinstance(without.exception, CopgenError)
    assert "needs a teacher" in str(without.exception)
    assert without.exception.exit_code == 2
