"""Spectra: what each kind of ground, snow and cloud reflects in the bands of Sentinel-2.

Rows are in the order of `BANDS`. Red, green and blue decide the pictures; the other bands follow the shapes of spectra
in the ECOSTRESS library (Meerdink et al. 2019, doi:10.1016/j.rse.2019.05.015), rounded: leaves rise tenfold over the
red edge and fall with their water at 1.6 and 2.2 micrometres, soil and stone rise slowly up to 1.6, water absorbs all
beyond 0.7, snow is white up to 0.9 and dark beyond 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copgen_cli.simulation.landcover import Cover

Spectrum = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """One band of Sentinel-2's MSI."""

    wavelength: float
    """Its middle in micrometres."""
    transmittance: float
    """Share of the light that the gases of the air let pass on the way down and up, ozone and water vapour above all;
    in B09 at about 1.5 cm of water."""
    metres: int
    """Ground size of a pixel."""


BANDS = {
    "B04": Band(0.665, 0.97, 10),
    "B03": Band(0.560, 0.95, 10),
    "B02": Band(0.490, 0.985, 10),
    "B01": Band(0.443, 0.99, 60),
    "B05": Band(0.705, 0.96, 20),
    "B06": Band(0.740, 0.96, 20),
    "B07": Band(0.783, 0.98, 20),
    "B08": Band(0.842, 0.95, 10),
    "B8A": Band(0.865, 0.99, 20),
    "B09": Band(0.945, 0.35, 60),
    "B11": Band(1.610, 0.97, 20),
    "B12": Band(2.190, 0.93, 20),
}
"""All that see the ground, red, green and blue first; the remaining one, B10, sees cirrus alone."""
COLOURS = 3
"""How many of them a true-colour picture takes."""
CIRRUS_METRES = 60
"""Ground size of a pixel of B10."""


# B04, B03, B02, B01, B05, B06, B07, B08, B8A, B09, B11, B12
MOIST = {
    Cover.WATER: (0.014, 0.024, 0.030, 0.029, 0.011, 0.008, 0.007, 0.006, 0.006, 0.004, 0.003, 0.002),
    Cover.WETLAND: (0.040, 0.055, 0.034, 0.027, 0.070, 0.155, 0.185, 0.200, 0.210, 0.200, 0.110, 0.055),
    Cover.CONIFER: (0.017, 0.027, 0.017, 0.013, 0.042, 0.135, 0.165, 0.180, 0.190, 0.185, 0.078, 0.035),
    Cover.BROADLEAF: (0.022, 0.043, 0.021, 0.016, 0.072, 0.260, 0.330, 0.350, 0.370, 0.355, 0.155, 0.065),
    Cover.SHRUB: (0.050, 0.060, 0.035, 0.027, 0.088, 0.180, 0.215, 0.230, 0.245, 0.245, 0.200, 0.115),
    Cover.GRASS: (0.045, 0.075, 0.034, 0.026, 0.105, 0.280, 0.345, 0.370, 0.385, 0.375, 0.215, 0.105),
    Cover.BARE: (0.150, 0.120, 0.090, 0.075, 0.167, 0.183, 0.200, 0.215, 0.228, 0.232, 0.290, 0.240),
    Cover.ROCK: (0.130, 0.122, 0.110, 0.102, 0.136, 0.142, 0.148, 0.153, 0.158, 0.160, 0.190, 0.165),
    Cover.SAND: (0.330, 0.290, 0.220, 0.185, 0.345, 0.363, 0.380, 0.390, 0.400, 0.405, 0.460, 0.420),
    Cover.ICE: (0.720, 0.755, 0.790, 0.800, 0.690, 0.650, 0.610, 0.550, 0.510, 0.420, 0.060, 0.050),
    Cover.ROAD: (0.130, 0.122, 0.110, 0.102, 0.134, 0.139, 0.144, 0.149, 0.153, 0.155, 0.175, 0.160),
    Cover.HEDGE: (0.028, 0.044, 0.023, 0.018, 0.075, 0.220, 0.270, 0.285, 0.300, 0.292, 0.160, 0.075),
    Cover.STREET: (0.105, 0.100, 0.085, 0.078, 0.115, 0.148, 0.162, 0.170, 0.178, 0.178, 0.170, 0.145),
}
DRY = {
    Cover.WETLAND: (0.075, 0.075, 0.045, 0.036, 0.108, 0.168, 0.192, 0.206, 0.217, 0.215, 0.200, 0.115),
    Cover.BROADLEAF: (0.048, 0.056, 0.030, 0.023, 0.085, 0.200, 0.245, 0.263, 0.280, 0.275, 0.200, 0.105),
    Cover.SHRUB: (0.115, 0.100, 0.065, 0.052, 0.145, 0.193, 0.217, 0.233, 0.250, 0.253, 0.290, 0.205),
    Cover.GRASS: (0.165, 0.140, 0.088, 0.068, 0.195, 0.235, 0.260, 0.277, 0.297, 0.300, 0.360, 0.265),
    Cover.BARE: (0.235, 0.190, 0.135, 0.112, 0.260, 0.280, 0.300, 0.315, 0.330, 0.335, 0.400, 0.345),
    Cover.ROCK: (0.175, 0.155, 0.130, 0.118, 0.183, 0.191, 0.198, 0.204, 0.210, 0.212, 0.250, 0.225),
    Cover.SAND: (0.385, 0.315, 0.225, 0.185, 0.410, 0.432, 0.450, 0.460, 0.472, 0.477, 0.545, 0.500),
    Cover.ROAD: (0.215, 0.185, 0.150, 0.132, 0.228, 0.242, 0.253, 0.261, 0.270, 0.273, 0.310, 0.280),
    Cover.HEDGE: (0.055, 0.058, 0.033, 0.026, 0.090, 0.190, 0.225, 0.240, 0.255, 0.255, 0.210, 0.115),
    Cover.STREET: (0.190, 0.165, 0.130, 0.114, 0.203, 0.223, 0.238, 0.246, 0.255, 0.257, 0.270, 0.240),
}

# what is added where nothing grows: twigs and litter for leaves, straw for grass
LEAFLESS = np.array([0.045, 0.022, 0.026, 0.022, 0.045, -0.080, -0.130, -0.140, -0.148, -0.140, 0.055, 0.060])
WITHERED = np.array([0.050, 0.012, 0.022, 0.018, 0.040, -0.055, -0.085, -0.095, -0.095, -0.090, 0.060, 0.060])

# soil in the dry, in the moist, in the tropics; and what the tables of bare ground above were made on
PALE_SOIL = np.array([0.290, 0.235, 0.175, 0.145, 0.315, 0.340, 0.360, 0.375, 0.390, 0.395, 0.460, 0.400])
BROWN_SOIL = np.array([0.125, 0.098, 0.075, 0.064, 0.140, 0.156, 0.171, 0.184, 0.198, 0.203, 0.255, 0.210])
RED_SOIL = np.array([0.200, 0.115, 0.075, 0.062, 0.233, 0.253, 0.264, 0.274, 0.285, 0.290, 0.350, 0.290])
USUAL_SOIL = np.array([0.200, 0.160, 0.115, 0.096, 0.221, 0.241, 0.257, 0.270, 0.284, 0.289, 0.345, 0.290])

RIPE = np.array([0.235, 0.195, 0.115, 0.090, 0.268, 0.290, 0.306, 0.320, 0.338, 0.342, 0.400, 0.290])
LEAST_CROP_COLOUR, MOST_CROP_COLOUR = (0.018, 0.050, 0.016), (0.055, 0.085, 0.036)
DENSE_CROP = np.array([0.016, 0.085, 0.320, 0.430, 0.460, 0.480, 0.465, 0.190, 0.080])
"""Beyond the three colours, where red is least; `SPARSE_CROP` where it is most."""
SPARSE_CROP = np.array([0.027, 0.115, 0.250, 0.300, 0.318, 0.335, 0.330, 0.230, 0.125])

# tiles, concrete, bright metal, dark roofs, gardens
ROOFS = np.array(
    [
        [0.190, 0.115, 0.085, 0.074, 0.222, 0.247, 0.264, 0.277, 0.290, 0.294, 0.340, 0.305],
        [0.170, 0.165, 0.155, 0.149, 0.174, 0.179, 0.184, 0.188, 0.193, 0.195, 0.210, 0.195],
        [0.420, 0.420, 0.410, 0.405, 0.420, 0.420, 0.420, 0.415, 0.412, 0.410, 0.400, 0.380],
        [0.085, 0.085, 0.085, 0.084, 0.087, 0.089, 0.091, 0.093, 0.095, 0.096, 0.110, 0.105],
        [0.050, 0.065, 0.035, 0.028, 0.090, 0.200, 0.240, 0.255, 0.270, 0.268, 0.190, 0.110],
    ]
)

SNOW = (0.66, 0.69, 0.73, 0.745, 0.645, 0.625, 0.605, 0.575, 0.545, 0.475, 0.090, 0.070)
CLOUD = (0.74, 0.76, 0.79, 0.80, 0.735, 0.73, 0.73, 0.725, 0.72, 0.70, 0.48, 0.36)
SEDIMENT = (0.75, 1.0, 0.8, 0.62, 0.60, 0.25, 0.22, 0.18, 0.14, 0.08, 0.01, 0.01)
"""What shallow and murky water adds, relative to green."""


def fill_in(covers: Mapping[Cover, Sequence[float]], table: Spectrum) -> None:
    """Put the spectra of kinds of ground into the rows of a table (surfaces, bands)."""
    for cover, spectrum in covers.items():
        table[cover] = spectrum


def crop_leaves(colour: Spectrum) -> Spectrum:
    """Spectra (kinds, bands) of crops from red, green and blue (kinds, 3): the darker in red, the denser the leaves."""
    red, least, most = colour[:, :1], LEAST_CROP_COLOUR[0], MOST_CROP_COLOUR[0]
    density = np.clip((most - red) / (most - least), 0, 1)
    return np.concatenate([colour, SPARSE_CROP + (DENSE_CROP - SPARSE_CROP) * density], axis=1)
