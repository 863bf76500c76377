"""How many pictures a second an autoencoder encodes and decodes: in which memory layout, arithmetic and batch.

    python benchmarks/autoencoder.py                           # the autoencoder in the package
    python benchmarks/autoencoder.py --size published          # one of the published size, with random weights
    python benchmarks/autoencoder.py --threads 2 --batch 8

Ours keeps weights and pictures channels-last; the other manner keeps them as torch does by itself. Manners take turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measuring import clock_of, keep_rows, machine, print_heads, print_row, print_title, take_turns
from torch import Tensor

from copgen_cli.model import BUNDLED_NAME, ImageAutoencoder, read_autoencoder
from copgen_cli.model.autoencoder import to_unit

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
PUBLISHED = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
"""Of diffusers' AutoencoderKL, as in stabilityai/sd-vae-ft-ema."""


class Contiguous(ImageAutoencoder):
    """Weights and pictures as torch lays them out by itself: channel after channel."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.model.to(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def encode(self, signed: Tensor) -> Tensor:
        with self._autocast():
            return self.model.encode(signed.to(self.model.dtype).contiguous()).latent_dist.parameters.float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        unscaled = latents.to(self.device, self.model.dtype) / self.scale_factor
        with self._autocast():
            return to_unit(self.model.decode(unscaled.contiguous()).sample.float())


def manners_of(size: str, device: torch.device, halves: list[str]) -> dict[str, ImageAutoencoder]:
    def network() -> object:
        if size != "published":
            return read_autoencoder(BUNDLED_NAME)
        from diffusers import AutoencoderKL

        torch.manual_seed(0)
        return AutoencoderKL(**PUBLISHED)

    manners: dict[str, ImageAutoencoder] = {"contiguous, float32": Contiguous(network(), device=device)}
    manners |= {f"ours, {name}": ImageAutoencoder(network(), device=device, dtype=HALVES[name]) for name in halves}
    return manners | {"ours, float32": ImageAutoencoder(network(), device=device)}


def report(manners: dict[str, ImageAutoencoder], batch: int, side: int, repeats: int, clock_kind: str) -> None:
    device = manners["ours, float32"].device
    clock = clock_of(clock_kind, device)
    images = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8).to(device)
    latents = manners["ours, float32"].moments(images).chunk(2, dim=1)[0]
    print_title(f"pictures of {side} px, {batch} at a time, {repeats} turns; the last column is float32, channels-last")
    print_heads(list(manners))
    for name, runs in {
        "encode": {name: lambda a=a: a.moments(images) for name, a in manners.items()},
        "decode": {name: lambda a=a: a.decode(latents) for name, a in manners.items()},
    }.items():
        seconds = take_turns(runs, repeats, clock, warm_up=True)
        print_row(f"{name}, ms a picture", {m: 1000 * s / batch for m, s in seconds.items()}, ".2f", fast="low")
        print_row(f"{name}, pictures a second", {m: batch / s for m, s in seconds.items()}, ".1f")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--size", choices=["package", "published"], default="package")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64] if cuda else [1, 8])
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--halves", nargs="*", choices=HALVES, default=list(HALVES) if cuda else [])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    keep_rows(options.json)
    print(machine(device, options.threads, options.clock))
    manners = manners_of(options.size, device, options.halves)
    apart = manners["contiguous, float32"].decode(torch.ones(1, 4, 8, 8)) - manners["ours, float32"].decode(
        torch.ones(1, 4, 8, 8)
    )
    print(f"{options.size} size; a decoded value differs by {apart.abs().max().item():.1e} at most between layouts")
    for batch in options.batch:
        report(manners, batch, options.side, options.repeats, options.clock)


if __name__ == "__main__":
    main()
