"""The numbers of `copgen evaluate` for one result: each sample beside the truth of its place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from copgen_cli.errors import CopgenError
from copgen_cli.inputs import Frame
from copgen_cli.metrics import QUANTITIES, confusion_matrix, judge_classes, judge_values, pairwise
from copgen_cli.modalities import Kind, Modality
from copgen_cli.outputs import read_provenance
from copgen_cli.rasters import find_values, read_values
from copgen_cli.studio.generation import Kept
from copgen_cli.studio.results.pictures import read_view, values_of
from copgen_cli.studio.schemas import QuantityInfo, SampleScores, Scores


def scores_of(kept: Kept, frame: Frame) -> Scores:
    """Every sample that has a truth, judged.

    SSIM needs scikit-image; without it, a note says so.
    """
    notes: list[str] = []
    structure = True
    try:
        pairwise.require_ssim()
    except CopgenError as problem:
        notes, structure = [f"{problem} {problem.hint}"], False
    rows = []
    for picture, file in zip(kept.result.pictures, kept.files, strict=True):
        modality = Modality(picture.modality)
        if picture.kind == "sample" and modality in kept.truths:
            found = _judge(file, kept.truths[modality], modality, frame, structure=structure)
            values = {key: value if math.isfinite(value) else None for key, value in found.items()}
            rows.append(SampleScores(modality=picture.modality, name=picture.name, values=values))
    keys = {key for row in rows for key in row.values}
    quantities = {
        key: QuantityInfo(title=one.title, unit=one.unit, better=str(one.better))
        for key, one in QUANTITIES.items()
        if key in keys
    }
    return Scores(quantities=quantities, samples=rows, notes=notes)


def _judge(sample: Path, truth: Path, modality: Modality, frame: Frame, *, structure: bool) -> dict[str, float]:
    drawn = values_of(sample, read_provenance(sample))
    if modality.spec.is_picture:
        true = read_view(truth, modality, frame).conditions[modality].pixels
        assert true is not None
        return _judge_pictures(frame.cut_back(true), drawn, structure=structure)
    true, _ = read_values(find_values([truth]))
    if modality.spec.kind is Kind.CLASSES:
        confusion = confusion_matrix(true, drawn, modality.spec.class_values)
        found = judge_classes(confusion)
    else:
        found = judge_values(true[None], drawn[None], spec=modality.spec, structure=structure)
    return {key: judged.value for key, judged in found.items() if key in QUANTITIES}


def _judge_pictures(truth: np.ndarray, drawn: np.ndarray, *, structure: bool) -> dict[str, float]:
    found = {"psnr": pairwise.psnr(truth, drawn)}
    if structure:
        found["ssim"] = pairwise.ssim(truth, drawn)
    if pairwise.is_grey(truth):
        found["correlation"] = pairwise.correlation(truth, drawn)
    return found
