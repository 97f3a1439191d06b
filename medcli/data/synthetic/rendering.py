"""From a phantom patient to a radiograph: first the attenuation along every ray, then the film.

The two steps are apart so that the attenuation of the same patient with and without a finding can be subtracted, and
one exposure can be applied to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from medcli.data.synthetic.anatomy import Floats
from medcli.data.synthetic.devices import Device
from medcli.data.synthetic.findings import HEALTHY, Findings, Pneumothorax
from medcli.data.synthetic.frame import Frame, ramp
from medcli.data.synthetic.shapes import (
    collapsed,
    congestion,
    drawn_device,
    ellipsoid,
    fluid_cover,
    heart_cover,
    opacities,
    splat,
)

__all__ = ["Exposure", "attenuation", "develop", "draw_exposure"]

CORE = 0.66  # solid tissue instead of lung, through the whole chest
RIBS = 10


@dataclass(frozen=True)
class Exposure:
    """How a film is made of attenuation.

    Args:
        black: attenuation shown black.
        white: attenuation shown white.
        curve: exponent of the display curve; below 1 is brighter.
        scatter: share of the detected radiation that comes from elsewhere.
        dose: photons per pixel of a 256-pixel image, in units in which noise is 1 / sqrt(dose).
        unsharpness: of the detector, in half fields of view.
        side_marker: letter at the patient's left shoulder.
        seed: of the noise.
    """

    black: float
    white: float
    curve: float = 1.0
    scatter: float = 0.25
    dose: float = 4000.0
    unsharpness: float = 0.0045
    side_marker: bool = True
    seed: tuple[int, ...] = (0,)


def draw_exposure(rng: np.random.Generator, image: Floats, seed: tuple[int, ...]) -> Exposure:
    """What a detector's automatic ranging would choose, with the spread of different rooms.

    Ranging follows the image's own histogram, so its overall brightness says nothing about findings.
    """
    low, high = np.quantile(image[image > 0.05 * float(image.max())], (0.04, 0.96))
    span = float(high - low)
    return Exposure(
        black=float(low) - span * float(rng.uniform(0.10, 0.26)),
        white=float(high) + span * float(rng.uniform(0.04, 0.24)),
        curve=float(np.exp(rng.uniform(-0.22, 0.22))),
        scatter=float(rng.uniform(0.15, 0.35)),
        dose=float(np.exp(rng.uniform(np.log(2500), np.log(20000)))),
        unsharpness=float(rng.uniform(0.003, 0.007)),
        side_marker=bool(rng.random() < 0.7),
        seed=seed,
    )


def attenuation(frame: Frame, findings: Findings = HEALTHY, devices: Sequence[Device] = ()) -> Floats:
    """Line integrals through the patient.

    Args:
        frame: patient, pose and grid.
        findings: what is wrong.
        devices: lines and boxes in or on the patient.

    Returns:
        float32 [S, S], 0 in air, about 0.5 over lung and 1.1 over the heart.
    """
    anatomy = frame.anatomy
    aerated = frame.lung * (1 - np.float32(0.93) * heart_cover(frame, findings.heart))
    tissue = np.float32(anatomy.lung_density) * frame.depth
    vessels = _vessels(frame)
    if findings.congestion:
        vessels = vessels + congestion(frame, vessels, findings.congestion)
    if findings.pneumothorax is not None:
        tissue, vessels = _collapse(frame, findings.pneumothorax, tissue, vessels)
    body, chord, below = _body(frame)
    for effusion in findings.effusions:
        fluid = fluid_cover(frame, effusion)
        aerated *= 1 - fluid
        # As dense as what lies under the diaphragm, whose outline it hides.
        below = np.maximum(below, fluid * frame.lung)
    upper = np.float32(0.55) + np.float32(0.45) * ramp(frame.y + np.float32(0.55), 0.5)
    core = np.float32(CORE) * upper * chord + np.float32(0.10) * below
    image = np.float32(anatomy.thickness) * (np.float32(0.55) + np.float32(0.45) * chord) * upper
    image += core * (1 - aerated)
    image += aerated * (tissue + vessels + opacities(frame, findings))
    image += _bones(frame) + _airways_and_gas(frame, below)
    if anatomy.breast:
        image += _breasts(frame)
    image = image * body
    for device in devices:
        image = image + drawn_device(frame, device)
    return np.asarray(np.maximum(image, 0), dtype=np.float32)


def develop(image: Floats, exposure: Exposure) -> Floats:
    """Scatter, unsharpness, noise and the display curve.

    Args:
        image: attenuation [S, S].
        exposure: how.

    Returns:
        float32 [S, S] in [0, 1]; bone is bright.
    """
    size = len(image)
    passed = np.exp(np.float32(-2.2) * image)
    coarse = max(1, size // 16)
    small = passed[: size // coarse * coarse, : size // coarse * coarse]
    small = small.reshape(size // coarse, coarse, size // coarse, coarse).mean(axis=(1, 3))
    spread = zoom(gaussian_filter(small, len(small) / 9, mode="nearest"), size / len(small), order=1, mode="nearest")
    passed = gaussian_filter(passed, exposure.unsharpness * size / 2, mode="nearest", truncate=3)
    passed = (1 - np.float32(exposure.scatter)) * passed + np.float32(exposure.scatter) * spread[:size, :size]
    rng = np.random.default_rng(exposure.seed)
    # A larger pixel collects more photons; the detector's own blur correlates neighbours.
    photons = exposure.dose * (256 / size) ** 2
    noise = gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), 0.6, mode="nearest", truncate=2) * 1.9
    seen = np.log(passed + noise * np.sqrt(passed / np.float32(photons)) + np.float32(1e-3)) / np.float32(-2.2)
    # The range was chosen on attenuation without scatter, which lifts what lies in shadow.
    shown = np.clip((seen - exposure.black) / (exposure.white - exposure.black), 0, 1) ** np.float32(exposure.curve)
    if exposure.side_marker:
        _mark(shown)
    return np.asarray(shown, dtype=np.float32)


def _body(frame: Frame) -> tuple[Floats, Floats, Floats]:
    """Silhouette, thickness profile (0 to 1), and where the abdomen is."""
    anatomy, y, away = frame.anatomy, frame.y, frame.away
    half = anatomy.width + anatomy.wall + np.float32(0.55) * ramp(np.float32(-0.42) - y, 0.55)
    slope = np.float32(-1.03) + np.float32(0.32) * np.maximum(away - np.float32(0.20), 0)
    silhouette = ramp(half - away, 0.03) * np.maximum(ramp(y - slope, 0.05), ramp(np.float32(0.21) - away, 0.05))
    share = away / half
    chord = np.sqrt(np.maximum(1 - share * share, 0))
    return silhouette, chord, ramp(y - frame.diaphragm, 0.25)


def _vessels(frame: Frame) -> Floats:
    vessels = frame.anatomy.vessels
    total = np.zeros_like(frame.x)
    limits = (0.0, 0.0055, 0.0105, 1.0)
    for thinnest, thickest in pairwise(limits):
        chosen = (vessels.radius > thinnest) & (vessels.radius <= thickest)
        radius = vessels.radius[chosen]
        if len(radius):
            # A cylinder's cross-section spread over its length; attenuation 4.6 per unit of blood.
            mass = np.float32(4.6 * np.pi) * radius * radius * vessels.step[chosen]
            total += splat(frame, vessels.x[chosen], vessels.y[chosen], mass, 0.6 * float(radius.mean()))
    hilum = ((frame.away - np.float32(0.185)) / np.float32(0.055)) ** 2 + (
        (frame.y + np.where(frame.left, np.float32(0.05), np.float32(0.01))) / np.float32(0.10)
    ) ** 2
    return total + np.float32(0.13) * np.exp(-hilum)


def _tube(distance: Floats, radius: float) -> Floats:
    """A bone seen from the side: a dense shell around a lighter core, 1 at its brightest."""
    share = (distance / np.float32(radius)) ** 2
    outer = np.sqrt(np.maximum(1 - share, 0))
    inner = np.sqrt(np.maximum(1 - share * np.float32(1.55), 0))
    return np.asarray(np.float32(1.5) * (outer - np.float32(0.55) * inner), dtype=np.float32)


def _collapse(frame: Frame, one: Pneumothorax, tissue: Floats, vessels: Floats) -> tuple[Floats, Floats]:
    """Lung tissue and vessels with one lung retracted from the chest wall, and the pleural line at its border."""
    inside, line = collapsed(frame, one)
    # The same tissue in less room is denser.
    denser = np.where(frame.left == one.left, np.float32(1 + 0.9 * one.gap), np.float32(1))
    return tissue * inside * denser + np.float32(0.055) * line, vessels * inside


def _bones(frame: Frame) -> Floats:
    anatomy, x, y, away, across = frame.anatomy, frame.x, frame.y, frame.away, frame.across
    q = np.minimum(across, np.float32(1.02))
    inside = ramp(np.float32(1.03) - across, 0.03) * (y < np.float32(anatomy.widest + 0.5))
    # The side of the cage is seen edge on: longer paths through bone.
    edge_on = np.float32(0.8) + np.float32(0.7) * q**4
    steep = 1 / np.maximum(frame.lateral, np.float32(0.2))
    back = np.float32(anatomy.rib_drop) * q**1.5
    slope = np.float32(1.5 * anatomy.rib_drop) * np.sqrt(q) * steep
    ribs = _rib_set(frame, y - back, slope) * (away > 0.05) * edge_on
    rest = np.maximum(1 - q, 0)
    front = np.float32(anatomy.rib_drop) + np.float32(anatomy.rib_fall) * rest**0.8
    slope = np.float32(0.8 * anatomy.rib_fall) * steep
    # Cartilage does not show: anterior ribs fade towards the midline.
    seen = ramp(across - np.float32(0.48), 0.22) * np.float32(0.62)
    ribs += _rib_set(frame, y - front, slope) * seen * edge_on
    total = np.float32(anatomy.rib_density) * ribs * inside
    total += _clavicles(frame) + _scapulae(frame)
    amplitude, phase = anatomy.scoliosis
    spine = (
        x - np.float32(amplitude) * np.sin(np.float32(2.2) * y + np.float32(phase)) + np.float32(0.6 * frame.pose.turn)
    )
    column = ramp(np.float32(0.085) - np.abs(spine), 0.03)
    turn = (y / np.float32(anatomy.vertebra)) % 1
    disc = np.float32(0.72) + np.float32(0.28) * ramp(np.abs(turn - np.float32(0.5)) * -1 + np.float32(0.38), 0.12)
    pedicle = ((np.abs(spine) - np.float32(0.055)) / np.float32(0.018)) ** 2 + (
        (turn - np.float32(0.35)) / np.float32(0.16)
    ) ** 2
    process = (spine / np.float32(0.014)) ** 2 + ((turn - np.float32(0.75)) / np.float32(0.2)) ** 2
    return np.asarray(
        total + column * (np.float32(0.085) * disc + np.float32(0.045) * ((pedicle < 1) | (process < 1))),
        dtype=np.float32,
    )


def _rib_set(frame: Frame, level: Floats, slope: Floats) -> Floats:
    """All ribs of one course at once: they repeat along the spine, so one modulo finds each pixel's nearest rib."""
    anatomy = frame.anatomy
    phase = (level - np.float32(anatomy.rib_first)) * np.float32(1 / anatomy.rib_spacing)
    number = np.rint(phase)
    distance = (phase - number) * np.float32(anatomy.rib_spacing) / np.sqrt(1 + slope * slope)
    return np.asarray(_tube(distance, anatomy.rib_radius) * ((number >= 0) & (number < RIBS)), dtype=np.float32)


def _clavicles(frame: Frame) -> Floats:
    start, rise, bend = frame.anatomy.clavicle
    along = (frame.away - np.float32(0.075)) * np.float32(1 / 0.72)
    side_turn = np.where(frame.left, np.float32(frame.pose.turn), np.float32(-frame.pose.turn))
    along = along - side_turn
    course = np.float32(start) - np.float32(rise) * along + np.float32(bend) * np.sin(np.float32(2 * np.pi) * along)
    thick = np.float32(1) + np.float32(0.45) * np.maximum(1 - along * 5, 0)
    bone = _tube((frame.y - course) / thick, 0.036)
    return np.float32(0.19) * bone * ramp(along, 0.05) * ramp(np.float32(1.15) - along, 0.05)


def _scapulae(frame: Frame) -> Floats:
    border = np.float32(0.70) - np.float32(0.16) * (frame.y + np.float32(0.1))
    blade = ramp(frame.away - border, 0.03) * ramp(frame.y + np.float32(0.66), 0.2)
    blade *= ramp(np.float32(0.06) - frame.y, 0.25)
    rim = np.exp(-(((frame.away - border - np.float32(0.02)) / np.float32(0.018)) ** 2))
    return np.asarray(np.float32(0.055) * blade * (1 + np.float32(0.8) * rim), dtype=np.float32)


def _airways_and_gas(frame: Frame, below: Floats) -> Floats:
    x = frame.x - np.float32(0.8 * frame.pose.turn) - np.float32(0.012) * (frame.y + np.float32(0.5))
    fork = np.float32(-0.17)
    spread = np.maximum(frame.y - fork, 0)
    centre = np.float32(0.85) * spread
    apart = np.minimum(np.abs(x - centre), np.abs(x + centre * np.float32(0.8)))
    inside = ramp(np.float32(0.06) - frame.y, 0.1)
    tube = np.sqrt(np.maximum(1 - (apart / np.float32(0.048)) ** 2, 0))
    air: Floats = np.float32(-0.17) * tube * inside * ramp(frame.y + np.float32(1.3), 0.3)
    if frame.anatomy.bubble:
        level = frame.anatomy.domes[1] + frame.pose.inspiration + 0.14
        size = frame.anatomy.bubble
        gas = ellipsoid(frame.x - np.float32(0.36), frame.y - np.float32(level), 0.09 + size, 0.05 + 0.5 * size)
        air = air - np.float32(0.28) * gas * below
    return air


def _breasts(frame: Frame) -> Floats:
    x, y, radius = frame.anatomy.breast_at
    round_ = ellipsoid(frame.away - np.float32(x), frame.y - np.float32(y), 1.05 * radius, 0.9 * radius)
    return np.float32(frame.anatomy.breast) * np.sqrt(round_)


_LETTER = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]], dtype=bool)


def _mark(shown: Floats) -> None:
    """The letter L of lead at the patient's left shoulder, written into the image."""
    size = len(shown)
    cell = max(1, size // 96)
    letter = np.kron(_LETTER, np.ones((cell, cell), dtype=bool))
    top, left = size // 24, size - size // 24 - letter.shape[1]
    shown[top : top + letter.shape[0], left : left + letter.shape[1]][letter] = 1.0
