"""The sun, the air and the clouds between the ground and Sentinel-2.

Single scattering in a plane-parallel atmosphere (after Vermote et al. 1997, doi:10.1109/36.581987): what a satellite
sees is the light of the path plus the ground's light, dimmed on the way down and up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from copgen_cli.simulation.bands.spectra import BANDS, CLOUD
from copgen_cli.simulation.noise import Float32, generator_of, resized

_CLOUD_TYPES = ((2.6, 1.0), (1.3, 0.95), (0.5, 0.55))  # cumulus, stratus, cirrus: how steep at the edge, how opaque
_CIRRUS = 2
CLOUD_EDGE = 0.08
"""Opacity where a cloud begins: the share of a picture above it is its cloud cover."""


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the sun stands; radians."""

    elevation: float
    azimuth: float
    """Clockwise from north."""

    @property
    def direction(self) -> tuple[float, float, float]:
        """Unit vector towards it: east, north, up."""
        flat = math.cos(self.elevation)
        return flat * math.sin(self.azimuth), flat * math.cos(self.azimuth), math.sin(self.elevation)


@dataclass(frozen=True, slots=True)
class Air:
    """What scatters."""

    aerosol: float
    """Optical thickness at 0.55 micrometres."""
    angstrom: float
    """Exponent by which it falls with the wavelength: 1.3 for smoke and towns, 0.4 for dust."""


@dataclass(frozen=True, slots=True)
class Clouds:
    """Clouds of one pass, (size, size) each."""

    opacity: Float32
    """0 clear, 1 opaque."""
    shadow: Float32
    """Share of sunlight that they take from the ground."""
    is_cirrus: bool
    """High and icy."""


def sun_at(lat: float, when: datetime, solar_hour: float = 10.5) -> Sun:
    """The sun over a latitude at a local solar hour; Sentinel-2 comes at about half past ten.

    Declination by Cooper 1969, off by up to 1.3 degrees in autumn.
    """
    day = when.timetuple().tm_yday
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day) / 365)
    phi, hour = math.radians(lat), math.radians(15 * (solar_hour - 12))
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour)
    elevation = math.asin(sine)
    east = -math.cos(declination) * math.sin(hour)
    north = math.sin(declination) * math.cos(phi) - math.cos(declination) * math.sin(phi) * math.cos(hour)
    return Sun(elevation, math.atan2(east, north) % (2 * math.pi))


def at_top_of_atmosphere(ground: Float32, sun: Sun, air: Air) -> Float32:
    """Reflectance above the air from reflectance below it.

    rho_toa = Tg (rho_path + T rho / (1 - S rho)), with Rayleigh thickness 0.00877 lambda^-4.05
    (Dutton et al. 1994, as Bodhaine et al. 1999 cite it).

    Args:
        ground: (bands, size, size) surface reflectance in as many of `BANDS`, from the first.
    """
    bands = list(BANDS.values())[: len(ground)]
    wavelengths = np.array([band.wavelength for band in bands])
    rayleigh = 0.00877 * wavelengths**-4.05
    aerosol = air.aerosol * (wavelengths / 0.55) ** -air.angstrom
    mu = max(math.sin(sun.elevation), 0.1)
    phase = 0.75 * (1 + mu**2)  # Rayleigh at the scattering angle of a nadir view, cos = -mu
    backscatter = 0.28  # of aerosols, times their albedo: hazier than Henyey-Greenstein's 0.13 to 0.22 (g = 0.65)
    path = (rayleigh * phase + aerosol * backscatter) / (4 * mu)
    dimming = np.exp(-(0.52 * rayleigh + 0.17 * aerosol) * (1 / mu + 1))
    albedo = 0.9 * rayleigh / (1 + rayleigh) + 0.2 * aerosol
    top = np.empty_like(ground)
    for number, band in enumerate(bands):
        seen = ground[number] * np.float32(dimming[number])
        seen /= 1 - np.float32(albedo[number]) * ground[number]
        seen += np.float32(path[number])
        np.multiply(seen, np.float32(band.transmittance), out=top[number])
    return top


def cirrus_reflectance(size: int, clouds: Clouds | None) -> Float32:
    """What B10 sees, (size, size): vapour hides the ground and all but the highest clouds at 1.375 micrometres."""
    seen = np.full((size, size), 0.0012, np.float32)
    if clouds is not None:
        seen += clouds.opacity * np.float32(0.12 if clouds.is_cirrus else 0.003)
    return seen


def clouds_over(size: int, pixel: float, cover: float, sun: Sun, *words: str | int) -> Clouds | None:
    """Clouds that cover a given share of a picture, with the shadows that they throw away from the sun.

    Args:
        cover: share of the picture, 0 to 1; None comes back for a clear sky.
        words: of the random generator.
    """
    if cover <= 0:
        return None
    coarse = max(size // 4, 32)
    generator = generator_of(*words)
    field = _billows(coarse, generator)
    threshold = float(np.quantile(field, 1 - cover))
    kind = int(generator.integers(len(_CLOUD_TYPES)))
    steep, thickest = _CLOUD_TYPES[kind]
    opacity = np.clip((field - threshold) * np.float32(steep) + np.float32(CLOUD_EDGE), 0, thickest).astype(np.float32)
    height = generator.uniform(800, 2600)  # metres above the ground
    reach = height / max(math.tan(sun.elevation), 0.2) / (pixel * size / coarse)
    east, north, _ = sun.direction
    flat = math.hypot(east, north)
    shift = (north / flat * reach, -east / flat * reach)  # rows fall southwards; a shadow lies opposite the sun
    shadow = ndimage.shift(opacity, shift, order=1, mode="nearest")
    shade = resized(shadow.astype(np.float32), size) * np.float32(0.7)
    return Clouds(resized(opacity, size), shade, is_cirrus=kind == _CIRRUS)


def veiled(ground: Float32, clouds: Clouds | None) -> Float32:
    """Reflectance (bands, size, size) with cloud shadows on the ground and clouds above it."""
    if clouds is None:
        return ground
    clear = 1 - clouds.opacity
    shade = 1 - clouds.shadow * clear
    glow = np.float32(0.55) + np.float32(0.45) * clouds.opacity
    seen = np.empty_like(ground)
    for band, white in enumerate(CLOUD[: len(ground)]):
        seen[band] = ground[band] * shade * clear + np.float32(white) * clouds.opacity * glow
    return seen


def _billows(size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Fractal noise whose amplitude falls with frequency to the power 1.75, by filtering white noise."""
    white = generator.standard_normal((size, size), dtype=np.float32)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(white) * np.maximum(frequency, 4 / size) ** -1.75
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (size, size)).astype(np.float32)
    return field / field.std()
