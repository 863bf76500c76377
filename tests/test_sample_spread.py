"""Mean and deviation over samples, as pictures."""

from __future__ import annotations

import numpy as np
import pytest

from copgen_cli.outputs.spread import STD_GAIN, mean_picture, std_picture


def picture(*colour: int) -> np.ndarray:
    return np.full((2, 3, 3), colour, np.uint8)


def test_the_mean_is_rounded_half_up():
    assert (mean_picture([picture(10, 0, 255), picture(13, 0, 255)]) == (12, 0, 255)).all()


def test_the_deviation_is_the_root_of_the_mean_variance_of_the_channels():
    pictures = [picture(100, 100, 100), picture(106, 108, 100)]  # variances 9, 16 and 0

    expected = round(STD_GAIN * ((9 + 16 + 0) / 3) ** 0.5)
    assert (std_picture(pictures) == expected).all()


def test_equal_samples_have_no_deviation_and_far_ones_do_not_overflow():
    assert (std_picture([picture(7, 8, 9)] * 3) == 0).all()
    assert (std_picture([picture(0, 0, 0), picture(255, 255, 255)]) == 255).all()


def test_one_sample_has_no_spread():
    with pytest.raises(ValueError, match="at least two"):
        std_picture([picture(1, 2, 3)])
