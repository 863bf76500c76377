"""LPIPS, the learned perceptual distance (Zhang et al. 2018, arXiv:1801.03924)."""

from __future__ import annotations

from urllib.error import URLError

import torch

from copgen_cli.errors import CopgenError
from copgen_cli.metrics.extras import require
from copgen_cli.metrics.pairwise import Compare, Picture
from copgen_cli.model import to_signed


def load_lpips(device: str | torch.device = "cpu") -> Compare:
    """The distance on AlexNet, version 0.1, as a function of a true and a generated picture.

    Raises:
        CopgenError: lpips is not installed, or the weights of AlexNet can not be had.
    """
    require("lpips", extra="lpips", purpose="LPIPS")
    from lpips import LPIPS

    try:
        network = LPIPS(net="alex", verbose=False).to(device)
    except (URLError, OSError) as error:
        raise CopgenError(
            f"The weights of AlexNet, which LPIPS needs, can not be had: {error}.",
            hint="torchvision fetches them once; try again with a connection, or leave out lpips.",
        ) from error

    @torch.no_grad()
    def compare(truth: Picture, generated: Picture) -> float:
        pictures = (torch.from_numpy(p).permute(2, 0, 1)[None].to(device) for p in (truth, generated))
        return float(network(*map(to_signed, pictures)))

    return compare
