"""How much a model knows of the places it was trained on that it does not know of others.

    python benchmarks/learned_by_heart.py --model copgen-sim --trained TRAIN --held-out TEST

TRAIN and TEST are folders of patches as `copgen prepare` writes them, such as `.../rome_thumbnail_png/train`. Of one
modality given, and nothing else, a network tells the mean of each other one at the last timestep in a single call. That
mean is correlated with the true latents, after the mean of each patch and channel is taken off: what is left is the
layout. What is not given is noise alone, as in sampling: the schedule would leave 7 % of the signal at the last
timestep, and a network that reads it would seem to know what it is shown. A mean that is right on places of the
training and wrong on others was learned by heart, and more places would teach the network more than more steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from copgen_cli.modalities import Modality
from copgen_cli.model.autoencoder import ImageAutoencoder
from copgen_cli.model.diffusion import SCHEDULE, noise_from, prediction_of
from copgen_cli.model.sampler import sample_noise
from copgen_cli.model.transformer import CopGenTransformer
from copgen_cli.pipeline.sources import find_parts
from copgen_cli.rasters.pictures import read_colour

AT_A_TIME = 8
DRAWS = 2
"""Draws of the noise that the mean is asked from; it should not depend on them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="copgen-sim", help="folder or built-in name of a pipeline")
    parser.add_argument("--trained", type=Path, required=True, help="folder of patches that it was trained on")
    parser.add_argument("--held-out", type=Path, required=True, help="folder of patches that it was not")
    parser.add_argument("--places", type=int, default=96, help="of each, evenly over their order")
    options = parser.parse_args()

    parts = find_parts(options.model)
    net = parts.load_transformer()
    autoencoder = ImageAutoencoder(parts.load_vae())
    modalities = [Modality(name) for name in net.config.modalities]
    found = {
        name: correlations(net, latents_of(folder, modalities, autoencoder, options.places))
        for name, folder in (("held out", options.held_out), ("trained on", options.trained))
    }
    print(f"{'given':8} {'target':8} held out  trained on")
    for given in range(len(modalities)):
        for target in range(len(modalities)):
            if given != target:
                one, other = (found[name][given][target] for name in ("held out", "trained on"))
                print(f"{modalities[given]:8} {modalities[target]:8} {one:8.2f} {other:11.2f}")


@torch.inference_mode()
def latents_of(folder: Path, modalities: Sequence[Modality], autoencoder: ImageAutoencoder, count: int) -> list[Tensor]:
    """Mean latents, scaled, (count, C, h, w) of each modality, of places that all have."""
    there = [{file.name for file in (folder / modality.spec.folder).glob("*.png")} for modality in modalities]
    names = sorted(set.intersection(*there))
    chosen = [names[i] for i in np.linspace(0, len(names), min(count, len(names)), endpoint=False).astype(int)]
    latents = []
    for modality in modalities:
        means = []
        for name in chosen:
            pixels = torch.from_numpy(read_colour(folder / modality.spec.folder / name).copy())
            means.append(autoencoder.moments(pixels.permute(2, 0, 1)[None]).chunk(2, dim=1)[0])
        latents.append(autoencoder.scale_factor * torch.cat(means))
    return latents


@torch.inference_mode()
def correlations(net: CopGenTransformer, latents: Sequence[Tensor]) -> list[list[float]]:
    """Of the network's mean with the truth, by what is given and by target."""
    last, count = SCHEDULE.steps, len(latents[0])
    signal, noise_level = (float(x) for x in SCHEDULE.amplitudes(torch.tensor(last), torch.float64))
    rows = []
    for given in range(len(latents)):
        means = [torch.zeros_like(latent) for latent in latents]
        for draw in range(DRAWS):
            noises = [
                sample_noise(draw, [str(i) for i in range(count)], str(m), tuple(latent.shape[1:]))
                for m, latent in enumerate(latents)
            ]
            for start in range(0, count, AT_A_TIME):
                part = slice(start, start + AT_A_TIME)
                when = [torch.full((len(latent[part]),), 0 if m == given else last) for m, latent in enumerate(latents)]
                noisy = [
                    (latent if m == given else noise)[part]
                    for m, (latent, noise) in enumerate(zip(latents, noises, strict=True))
                ]
                for m, output in enumerate(net(noisy, when)):
                    told = noise_from(output, noisy[m], last, prediction_of(net))
                    means[m][part] += (noisy[m] - noise_level * told) / signal / DRAWS
        rows.append([_correlation(mean, latent) for mean, latent in zip(means, latents, strict=True)])
    return rows


def _correlation(one: Tensor, other: Tensor) -> float:
    centred = [(x - x.mean(dim=(2, 3), keepdim=True)).double() for x in (one, other)]
    return float((centred[0] * centred[1]).sum() / (centred[0].norm() * centred[1].norm()))


if __name__ == "__main__":
    main()
