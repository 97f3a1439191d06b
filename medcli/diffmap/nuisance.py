"""What differs between two films of an unchanged patient, for real radiographs: the pose and the exposure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

__all__ = ["Film", "Warp", "draw_film", "draw_warp", "exposed"]

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Warp:
    """Another pose: film coordinates -> source coordinates, both from -1 to 1 (y down).

    Args:
        angle: radians.
        shift: (x, y).
        zoom: above 1 shows less.
        stretch: height against width, as breathing changes it.
        waves: (amplitude, phase along y, phase along x, rate) of smooth displacements, two along y and two along x.
    """

    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    stretch: float = 1.0
    waves: tuple[tuple[float, float, float, float], ...] = ()

    def coordinates(self, size: int) -> Image:
        """float32 [2, S, S]: source pixel (row, column) of each film pixel."""
        centre = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
        y, x = np.meshgrid(centre, centre, indexing="ij")
        matrix = self._matrix()
        source_y = matrix[0, 0] * y + matrix[0, 1] * x - self.shift[1]
        source_x = matrix[1, 0] * y + matrix[1, 1] * x - self.shift[0]
        for number, (amplitude, phase_y, phase_x, rate) in enumerate(self.waves):
            wave = np.float32(amplitude) * np.sin(rate * y + phase_y) * np.sin(rate * x + phase_x)
            if number % 2:
                source_x = source_x + wave
            else:
                source_y = source_y + wave
        return np.stack([(part + 1) * (size / 2) - 0.5 for part in (source_y, source_x)]).astype(np.float32)

    def shows(self, at: Image, size: int) -> npt.NDArray[np.bool_]:
        """Which source pixels `at` lie on this film; the waves, a hundredth of the side, are left out."""
        y, x = ((part + 0.5) * (2 / size) - 1 for part in at)
        inverse = np.linalg.inv(self._matrix())
        film_y = inverse[0, 0] * (y + self.shift[1]) + inverse[0, 1] * (x + self.shift[0])
        film_x = inverse[1, 0] * (y + self.shift[1]) + inverse[1, 1] * (x + self.shift[0])
        return np.asarray((np.abs(film_y) <= 1) & (np.abs(film_x) <= 1))

    def _matrix(self) -> npt.NDArray[np.float64]:
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cosine / self.stretch, sine], [-sine, cosine]]) / self.zoom


@dataclass(frozen=True)
class Film:
    """Another exposure.

    Args:
        curve: exponent of the grey scale.
        contrast: factor about mid grey.
        brightness: added.
        gradient: (across, down), brightness from edge to edge.
        blur: in half fields of view.
        noise: standard deviation of the grain at 256 pixels.
        seed: of the noise.
    """

    curve: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    gradient: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    noise: float = 0.0
    seed: tuple[int, ...] = (0,)


def draw_warp(rng: np.random.Generator, amount: float) -> Warp:
    """A pose; `amount` scales every deviation."""
    wild = np.clip(rng.standard_normal(6), -2, 2) * amount
    waves = tuple(
        (
            float(0.006 * amount * size),
            float(rng.uniform(-np.pi, np.pi)),
            float(rng.uniform(-np.pi, np.pi)),
            float(rng.uniform(1, 3)),
        )
        for size in rng.uniform(0.3, 1, 4)
    )
    return Warp(
        float(0.03 * wild[0]),
        (float(0.035 * wild[1]), float(0.035 * wild[2])),
        float(np.exp(0.03 * wild[3])),
        float(np.exp(0.02 * wild[4])),
        waves,
    )


def draw_film(rng: np.random.Generator, amount: float, seed: tuple[int, ...]) -> Film:
    """An exposure; `amount` scales every deviation."""
    wild = np.clip(rng.standard_normal(5), -2, 2) * amount
    return Film(
        float(np.exp(0.12 * wild[0])),
        float(np.exp(0.08 * wild[1])),
        float(0.03 * wild[2]),
        (float(0.04 * wild[3]), float(0.04 * wild[4])),
        float(rng.uniform(0.0, 0.004) * min(1.0, amount)),
        float(rng.uniform(0.003, 0.012) * min(1.0, amount)),
        seed,
    )


def exposed(image: Image, film: Film) -> Image:
    """The image on another film (float32 [S, S] in [0, 1])."""
    size = len(image)
    ramp = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size - np.float32(0.5)
    out = np.power(np.clip(image, 0, 1), np.float32(film.curve))
    out = (out - np.float32(0.5)) * np.float32(film.contrast) + np.float32(0.5 + film.brightness)
    out = out + np.float32(film.gradient[0]) * ramp[None, :] + np.float32(film.gradient[1]) * ramp[:, None]
    if film.blur:
        out = gaussian_filter(out, film.blur * size / 2, mode="nearest", truncate=3)
    if film.noise:
        grain = np.random.default_rng(film.seed).standard_normal((size, size), dtype=np.float32)
        out = out + np.float32(film.noise * size / 256) * gaussian_filter(grain, 0.6, mode="nearest", truncate=2) * 1.9
    return np.clip(out, 0, 1).astype(np.float32)
