"""Pictures as people hand them over, to the bytes that the autoencoder takes, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from copgen_cli.errors import UsageError
from copgen_cli.model.autoencoder import to_uint8
from copgen_cli.rasters import decode_upright, values_beyond_8_bits

Pictures = Image.Image | np.ndarray | Tensor | Sequence[Image.Image | np.ndarray | Tensor]
"""One picture or several: PIL; uint8 arrays (H, W), (H, W, 3) or (B, H, W, 3); tensors (3, H, W) or (B, 3, H, W),
floats in [0, 1] or uint8; or a list of PIL images, arrays and tensors."""


def as_bytes(pictures: Pictures, *, name: str, side: int) -> Tensor:
    """(B, 3, side, side) uint8 on the CPU, or on the tensor's device. Floats are rounded to bytes; grey is repeated.

    Args:
        pictures: see `Pictures`.
        name: what they are, for messages.
        side: height and width that the model takes, in pixels.

    Raises:
        UsageError: they are of another form or size, or there are none.
    """
    if isinstance(pictures, Tensor):
        images = _from_tensor(pictures, name)
    elif isinstance(pictures, np.ndarray) and pictures.ndim == 4:
        images = torch.cat([_from_array(array, name) for array in pictures]) if len(pictures) else torch.empty(0)
    else:
        several = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
        images = torch.cat([_from_one(picture, name, side) for picture in several]) if several else torch.empty(0)
    if not len(images):
        raise UsageError(f"No pictures are given for {name}.", hint="Give at least one, or leave the modality out.")
    _check_size(images.shape[-1], images.shape[-2], name, side)
    return images


def as_pil(images: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [0, 1] to PIL images."""
    arrays = to_uint8(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def _from_one(picture: object, name: str, side: int) -> Tensor:
    if isinstance(picture, Image.Image):
        _check_size(*picture.size, name, side)  # before conversion decodes what may be huge
        beyond = values_beyond_8_bits(picture)
        if beyond is not None:  # which conversion would cut off
            raise _unknown_form(name, f"a picture with {beyond}")
        return _from_array(decode_upright(picture), name)
    if isinstance(picture, np.ndarray):
        return _from_array(picture, name)
    if isinstance(picture, Tensor):
        return _from_tensor(picture, name)
    raise _unknown_form(name, type(picture).__name__)


def _from_array(array: np.ndarray, name: str) -> Tensor:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise _unknown_form(name, f"{array.dtype} array {array.shape}")
    colour = np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
    return torch.from_numpy(np.require(colour, requirements=["C", "W"])).permute(2, 0, 1)[None]


def _from_tensor(tensor: Tensor, name: str) -> Tensor:
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise _unknown_form(name, f"tensor {tuple(tensor.shape)}")
    if batch.dtype == torch.uint8:
        return batch
    if not batch.is_floating_point():
        raise _unknown_form(name, f"{tensor.dtype} tensor")
    if len(batch) and not (batch.min() >= 0 and batch.max() <= 1):  # written so that NaN fails too
        raise UsageError(
            f"The values for {name} are not all within [0, 1].", hint="Scale them to [0, 1], or give uint8 in 0..255."
        )
    return to_uint8(batch.float())


def _check_size(width: int, height: int, name: str, side: int) -> None:
    if (width, height) != (side, side):
        raise UsageError(
            f"The pictures for {name} are {width} x {height} px, the model takes {side} x {side}.",
            hint="Crop or resize them first; a pixel is 10 m on the ground.",
        )


def _unknown_form(name: str, form: str) -> UsageError:
    return UsageError(
        f"Pictures for {name} can't be given as {form}.",
        hint="Give PIL images, uint8 arrays (H, W, 3), or tensors (B, 3, H, W) of floats in [0, 1].",
    )
