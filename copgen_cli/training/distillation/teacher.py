"""Which model can be a teacher, and the loss that it sets its student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from copgen_cli.errors import MismatchError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.model import (
    SCHEDULE_ENDING_IN_NOISE,
    CopGenTransformer,
    TimestepLaw,
    load_transformer,
    modalities_of,
    prediction_of,
    schedule_of,
    steps_from_noise,
)
from copgen_cli.records import Prediction, TimestepDraw
from copgen_cli.settings import DistillSettings, TrainSettings
from copgen_cli.training.distillation.loss import Distillation
from copgen_cli.training.distillation.walk import teachers_walk


def begin_distillation(
    settings: TrainSettings, modalities: Sequence[Modality], device: torch.device, dtype: torch.dtype
) -> Distillation | None:
    """The loss that the model `init_from` sets its student of these modalities, with that model on the device in
    `dtype`; None where the run trains no student.

    Raises:
        MismatchError: the model is of other modalities, predicts noise, or its schedule does not end in noise.
        UsageError: it is a student itself.
        CopgenError: there is no such model.
    """
    source, distill = settings.init_from, settings.student
    if distill is None:
        return None
    assert source is not None  # `StudentSettings.of` sees to it
    teacher = load_transformer(source)
    _check_teacher(teacher, source, modalities)
    nn.Module.to(teacher, device, dtype)  # the method of diffusers warns of modules to keep in float32; this has none
    teacher.eval().requires_grad_(False)
    if settings.compile:
        teacher.compile()
    walk = teachers_walk(distill.calls, distill.teacher_calls).to(device)
    return Distillation(teacher, walk, distill.guidance_scale, settings.min_snr_gamma)


def law_of_students(law: TimestepLaw, settings: DistillSettings) -> TimestepLaw:
    """A law among `ROLES`, its generated steps those at which the student is called."""
    assert law.distribution == TimestepDraw.ROLES
    grid = tuple(steps_from_noise(SCHEDULE_ENDING_IN_NOISE, settings.calls))
    return TimestepLaw(law.distribution, one_given=law.one_given, given_odds=law.given_odds, grid=grid)


def _check_teacher(teacher: CopGenTransformer, name: str, modalities: Sequence[Modality]) -> None:
    if prediction_of(teacher) is not Prediction.VELOCITY:
        raise MismatchError(
            f"{name} predicts noise, and a student is made of a model that predicts velocities.",
            hint='Train it on with prediction_type = "v_prediction" under [train.model], and distil what comes of it.',
        )
    if schedule_of(teacher) is not SCHEDULE_ENDING_IN_NOISE:
        raise MismatchError(
            f"The noise schedule of {name} does not end in noise alone, where a student's first call begins.",
            hint="Train it on with rescale_betas_zero_snr = true under [train.model], and distil what comes of it.",
        )
    if teacher.config.distilled_steps is not None:
        raise UsageError(
            f"{name} is itself a student, of {teacher.config.distilled_steps} calls.",
            hint="Name the model that it was made of.",
        )
    if tuple(modalities_of(teacher)) != tuple(modalities):
        known = ",".join(modalities_of(teacher))
        raise MismatchError(
            f"{name} knows {known}, and its student would know {','.join(modalities)}.",
            hint=f"Give the teacher's: --modalities {known}.",
        )
