"""A run that was stopped goes on as if it never had been: the same samples, and every number the same, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_stores import tiny_store

from copgen_cli.errors import BrokenInputError, MismatchError, NotFiniteError, UsageError
from copgen_cli.latents.store import LatentStore
from copgen_cli.modalities import Modality, Split
from copgen_cli.records import LatentSpec, Optimizer, StopReason, TrainReport
from copgen_cli.settings.sections import NetworkSettings, TrainSettings
from copgen_cli.stages.process_group import World
from copgen_cli.training.data_order import DrawnSamples, Plan, epoch_order, load_batches, sample_at
from copgen_cli.training.loop import train
from copgen_cli.training.optimisers import LossScale
from copgen_cli.training.setup import Prepared, prepare_run

SAMPLES = 10  # of which a step takes 4, so that an epoch ends in the middle of a batch
SETTINGS = TrainSettings(
    model=NetworkSettings(patch_size=4, hidden_size=16, depth=2, num_heads=2),
    steps=14, batch_size=4, micro_batch=2, warmup=3, lr=1e-3, ema_decay=0.9, save_every=1000, keep_last=100,
    validate_every=0, device="cpu", mixed_precision="no",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("data") / "store", train=SAMPLES)


def prepare(store: Path, run: Path, settings: TrainSettings = SETTINGS, **changes) -> Prepared:
    data = LatentStore(store / Split.TRAIN)
    spec = LatentSpec.alike(data.modalities, 4, 8, "absent", "f" * 64, 0.5)
    return prepare_run(
        data,
        LatentStore(store / Split.TEST),
        spec,
        settings.model_copy(update=changes),
        run / "checkpoints",
        World(torch.device("cpu")),
    )


def stop_at(*steps: int) -> Callable[[Prepared], Callable[[], StopReason | None]]:
    """Asks to stop as soon as one of these steps is done."""
    return lambda prepared: lambda: StopReason.SIGTERM if prepared.state.step in steps else None


def go_on(prepared: Prepared, stop: Callable[[Prepared], Callable[[], StopReason | None]]) -> Iterator[TrainReport]:
    return train(prepared.run, prepared.state, stop(prepared))


def everything(prepared: Prepared) -> dict[str, torch.Tensor]:
    state = prepared.state
    named = list(state.net.named_parameters())
    tensors: dict[str, torch.Tensor] = dict(named)
    tensors |= {f"average {name}": value for (name, _), value in zip(named, state.average.values, strict=True)}
    for name, parameter in named:
        tensors |= {f"{kind} {name}": value for kind, value in state.optimizer.state[parameter].items()}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory) -> tuple[list[TrainReport], dict[str, torch.Tensor]]:
    prepared = prepare(store, tmp_path_factory.mktemp("unbroken"))
    return list(go_on(prepared, stop_at())), everything(prepared)


@pytest.mark.parametrize(
    "stops",
    [(1,), (7,), (3,), (5, 6), (1, 7, 12), (2, 3, 4)],
    ids=["first step", "seventh", "mid-epoch", "epoch's edge", "three times", "three times in a row"],
)
def test_a_run_that_was_stopped_ends_bit_for_bit_like_one_that_was_not(store, tmp_path, unbroken, stops):
    reports: list[TrainReport] = []
    for _ in range(len(stops) + 1):
        prepared = prepare(store, tmp_path)
        reports += go_on(prepared, stop_at(*(step for step in stops if step > prepared.state.step)))

    expected, final = unbroken
    assert [report.names for report in reports] == [report.names for report in expected]
    assert [report.loss for report in reports] == [report.loss for report in expected]
    own = everything(prepared)
    assert [name for name in final if not torch.equal(own[name], final[name])] == []


def test_a_run_with_muon_goes_on_bit_for_bit_too(store, tmp_path):
    whole = prepare(store, tmp_path / "whole", optimizer=Optimizer.MUON)
    expected = [report.loss for report in go_on(whole, stop_at())]
    first = prepare(store, tmp_path / "halves", optimizer=Optimizer.MUON)
    losses = [report.loss for report in go_on(first, stop_at(7))]
    second = prepare(store, tmp_path / "halves", optimizer=Optimizer.MUON)
    losses += [report.loss for report in go_on(second, stop_at())]

    assert losses == expected
    own, final = everything(second), everything(whole)
    assert own.keys() == final.keys()
    assert [name for name in final if not torch.equal(own[name], final[name])] == []


def test_a_run_does_not_go_on_with_another_optimiser(store, tmp_path):
    list(go_on(prepare(store, tmp_path), stop_at(2)))

    with pytest.raises(MismatchError, match="trained with adamw, and can not go on with muon") as caught:
        prepare(store, tmp_path, optimizer=Optimizer.MUON)
    assert caught.value.hint is not None
    assert 'train.optimizer = "adamw"' in caught.value.hint


def test_muon_is_refused_where_matrices_are_cut(store, tmp_path):
    class Sharding:
        distributed_type = "FSDP"

    data = LatentStore(store / Split.TRAIN)
    spec = LatentSpec.alike(data.modalities, 4, 8, "absent", "f" * 64, 0.5)
    world = World(torch.device("cpu"), accelerator=Sharding())  # type: ignore[arg-type]
    settings = SETTINGS.model_copy(update={"optimizer": Optimizer.MUON, "resume": "none"})

    with pytest.raises(UsageError, match="Muon needs whole matrices"):
        prepare_run(data, None, spec, settings, tmp_path / "checkpoints", world)


def test_a_run_that_was_killed_loses_what_came_after_its_last_checkpoint_and_nothing_else(store, tmp_path, unbroken):
    first = prepare(store, tmp_path, save_every=3)
    for report in go_on(first, stop_at()):
        if report.step == 8:  # as a kill would: nothing is written any more
            break

    second = prepare(store, tmp_path, save_every=3)
    rest = list(go_on(second, stop_at()))

    expected, final = unbroken
    assert rest[0].step == 7
    assert [report.loss for report in rest] == [report.loss for report in expected[6:]]
    own = everything(second)
    assert [name for name in final if not torch.equal(own[name], final[name])] == []


def test_a_step_is_recorded_before_its_checkpoint_is_written(store, tmp_path):
    prepared = prepare(store, tmp_path, steps=3, save_every=1)
    recorded: list[tuple[int, bool]] = []

    def record(report: TrainReport) -> None:
        assert report.checkpoint is not None
        recorded.append((report.step, report.checkpoint.exists()))

    for report in train(replace(prepared.run, record=record), prepared.state, lambda: None):
        assert report.checkpoint is not None
        assert report.checkpoint.exists()

    assert recorded == [(1, False), (2, False), (3, False)]


def test_a_validation_that_fails_does_not_cost_the_checkpoint(store, tmp_path):
    prepared = prepare(store, tmp_path, save_every=3, validate_every=3)

    def fail(*_):
        raise ValueError("no memory left")

    with pytest.raises(ValueError, match="no memory left"):
        list(train(replace(prepared.run, validate=fail), prepared.state, lambda: None))

    assert prepare(store, tmp_path).state.step == 3


def test_a_stop_in_mid_accumulation_finishes_the_step(store, tmp_path, unbroken):
    prepared = prepare(store, tmp_path)
    asked: list[StopReason] = []
    read = DrawnSamples.__getitems__

    class Asking(DrawnSamples):
        """Asks to stop while the second micro-batch of step 5 is read."""

        def __getitems__(self, slots):
            if slots[0].step == 5 and slots[0].slot == 2:
                asked.append(StopReason.SIGTERM)
            return read(self, slots)

    samples = prepared.run.samples
    run = replace_samples(prepared, Asking(samples.moments, samples.scales, samples.seed))

    reports = list(train(run, prepared.state, lambda: asked[0] if asked else None))

    expected, _ = unbroken
    assert reports[-1].step == 5
    assert reports[-1].stopped is StopReason.SIGTERM
    assert [report.loss for report in reports] == [report.loss for report in expected[:5]]
    assert prepare(store, tmp_path).state.step == 5


def replace_samples(prepared: Prepared, samples: DrawnSamples):
    from dataclasses import replace

    return replace(prepared.run, samples=samples)


def test_every_epoch_visits_every_sample_once_in_an_order_of_its_own():
    plan = Plan(seed=3, size=10, batch_size=4, micro_batch=4)
    visited = [index for position in range(0, 60, 4) for index in plan.indices(position)]

    epochs = [visited[start : start + 10] for start in range(0, 60, 10)]

    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert epochs[2] == epoch_order(3, 2, 10).tolist() == [sample_at(3, 20 + place, 10) for place in range(10)]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_global_order_does_not_depend_on_the_number_of_processes(processes):
    taken = [
        slot
        for rank in range(processes)
        for cut in Plan(1, 10, 8, micro_batch=3, rank=rank, processes=processes).slots(1, 5, position=0)
        for slot in cut
    ]

    alone = [slot for cut in Plan(1, 10, 8, micro_batch=8).slots(1, 5, position=0) for slot in cut]
    assert sorted(taken, key=lambda slot: (slot.step, slot.slot)) == alone


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_drawn_does_not_depend_on_the_number_of_loader_workers(store, workers):
    data = LatentStore(store / Split.TRAIN)
    samples = DrawnSamples(data, (0.5,) * len(data.modalities), seed=7)
    plan = Plan(7, SAMPLES, batch_size=4, micro_batch=3)

    def drawn(workers: int) -> list[torch.Tensor]:
        batches = load_batches(samples, plan.slots(1, 5, position=0), workers=workers, pin_memory=False)
        return [
            tensor for batch in batches for tensor in (*map(torch.stack, (batch.latents, batch.noise)), batch.timesteps)
        ]

    alone = drawn(0)
    assert all(torch.equal(a, b) for a, b in zip(alone, drawn(workers), strict=True))
    assert len({tuple(timesteps.flatten().tolist()) for timesteps in alone[2::3]}) == len(alone) / 3


def test_other_seeds_draw_other_orders_noise_and_weights(store, tmp_path):
    one, other = (next(go_on(prepare(store, tmp_path / str(s), seed=s), stop_at())) for s in (1, 2))

    assert one.names != other.names
    assert one.loss != other.loss


def test_the_counters_and_the_loss_scale_are_part_of_the_state(store, tmp_path):
    prepared = prepare(store, tmp_path, mixed_precision="fp16")
    prepared.state.loss_scale = LossScale(value=8.0, calm=2)
    prepared.state.skipped = 5
    list(go_on(prepared, stop_at(2)))

    state = prepare(store, tmp_path, mixed_precision="fp16").state

    assert (state.step, state.position, state.skipped) == (2, 8, 5)
    assert state.loss_scale == LossScale(value=8.0, calm=4)


def test_a_run_gives_up_after_so_many_skipped_steps_in_a_row_and_leaves_its_last_checkpoint(store, tmp_path):
    prepared = prepare(store, tmp_path, save_every=2, stop_after_skipped=3)
    reports = go_on(prepared, stop_at())
    assert [next(reports).step for _ in range(4)] == [1, 2, 3, 4]
    with torch.no_grad():
        prepared.state.net.norm.weight.fill_(torch.nan)

    with pytest.raises(NotFiniteError, match="3 steps in a row up to step 7"):
        list(reports)

    assert prepare(store, tmp_path).resumption.folder.name == "step-00000004"


def test_a_damaged_checkpoint_is_passed_over_with_the_reason_and_the_one_before_is_taken(store, tmp_path):
    list(go_on(prepare(store, tmp_path, save_every=2, steps=6), stop_at()))
    damaged = tmp_path / "checkpoints" / "step-00000006" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (tmp_path / "checkpoints" / "step-00000004" / "manifest.json").unlink()

    prepared = prepare(store, tmp_path)

    assert prepared.state.step == 2
    reasons = {passed.folder.name: passed.reason for passed in prepared.resumption.passed}
    assert "optimizer.safetensors is damaged" in reasons["step-00000006"]
    assert "no manifest.json" in reasons["step-00000004"]


def test_where_no_checkpoint_is_whole_the_run_does_not_silently_begin_again(store, tmp_path):
    list(go_on(prepare(store, tmp_path), stop_at(1)))
    (tmp_path / "checkpoints" / "step-00000001" / "state.json").unlink()

    with pytest.raises(BrokenInputError, match=r"No checkpoint .* is whole") as caught:
        prepare(store, tmp_path)

    assert "--overwrite" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": NetworkSettings(patch_size=4, hidden_size=32, depth=2, num_heads=2)}, "hidden_size 16 there, 32"),
        ({"modalities": (Modality.DEM, Modality.S2L2A)}, "num_modalities 4 there, 2 here"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_with_what_differs(store, tmp_path, changes, told):
    list(go_on(prepare(store, tmp_path), stop_at(1)))

    with pytest.raises(MismatchError, match="another configuration") as caught:
        prepare(store, tmp_path, **changes)

    assert told in str(caught.value)


def test_a_setting_that_changes_the_course_of_a_run_is_told(store, tmp_path):
    list(go_on(prepare(store, tmp_path), stop_at(1)))

    assert prepare(store, tmp_path, lr=5e-4, steps=20, save_every=2, micro_batch=1).changed == {"lr": (1e-3, 5e-4)}


def test_resume_none_refuses_to_begin_where_there_are_checkpoints(store, tmp_path):
    list(go_on(prepare(store, tmp_path), stop_at(1)))

    with pytest.raises(UsageError, match="holds checkpoints"):
        prepare(store, tmp_path, resume="none")


def test_a_named_checkpoint_can_start_another_run_but_not_rewind_its_own(store, tmp_path, unbroken):
    first = tmp_path / "first"
    list(go_on(prepare(store, first, save_every=4, steps=8), stop_at()))
    named = str(first / "checkpoints" / "step-00000004")

    with pytest.raises(UsageError, match="goes on to step-00000008"):
        prepare(store, first, resume=named)
    branch = prepare(store, tmp_path / "second", resume=named)

    assert [r.loss for r in go_on(branch, stop_at())] == [r.loss for r in unbroken[0][4:]]


def test_a_damaged_checkpoint_of_a_later_step_does_not_cost_the_one_that_is_written(store, tmp_path):
    settings = {"save_every": 1, "keep_last": 1}
    list(go_on(prepare(store, tmp_path, steps=4, milestone_every=2, **settings), stop_at()))
    (tmp_path / "checkpoints/step-00000004/manifest.json").unlink()

    list(go_on(prepare(store, tmp_path, steps=3, **settings), stop_at()))

    assert (tmp_path / "checkpoints/step-00000003").is_dir()


def test_only_the_last_checkpoints_and_milestones_are_kept(store, tmp_path):
    list(go_on(prepare(store, tmp_path, steps=10, save_every=1, keep_last=2, milestone_every=4), stop_at()))

    assert sorted(path.name[-2:] for path in (tmp_path / "checkpoints").iterdir()) == ["04", "08", "09", "10"]
