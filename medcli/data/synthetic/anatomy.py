"""A phantom patient: the numbers that stay the same in every image of that patient.

Lengths are in half fields of view: x runs from -1 (image left, the patient's right) to 1, y from -1 (top) to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Anatomy", "Floats", "Vessels", "draw_anatomy"]

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Vessels:
    """Lung vessels as points, each with the radius of its branch.

    Args:
        x: float32 [n].
        y: float32 [n].
        radius: float32 [n].
        step: float32 [n], the length of branch that a point stands for.
    """

    x: Floats
    y: Floats
    radius: Floats
    step: Floats


@dataclass(frozen=True)
class Anatomy:
    """One phantom patient.

    Args:
        width: half width of the rib cage where it is widest.
        asymmetry: how much wider the right half is, as a share.
        apex: y of the lung apices.
        apex_x: distance of the apices from the midline.
        widest: y where the rib cage is widest.
        shoulder: exponent of the rib cage's curve; larger is boxier.
        domes: y of the right and left diaphragm domes at mean inspiration.
        dome_curve: how steeply the domes fall off.
        medial: half width of the upper mediastinum.
        heart: centre x, centre y, half length, half breadth of the ventricles, and their tilt in radians.
        atrium: centre x, centre y, radii of the right heart border.
        knob: centre x, centre y, radius of the aortic knob.
        rib_first: y of the first posterior rib at the spine.
        rib_spacing: between posterior ribs.
        rib_drop: how far a posterior rib falls from spine to side.
        rib_fall: how far an anterior rib falls from the side to its end.
        rib_radius: half the height of a rib.
        rib_density: attenuation of a rib.
        clavicle: y of the medial ends, rise towards the shoulder, S-bend.
        scoliosis: sideways amplitude and phase of the spine's curve.
        vertebra: height of a vertebra.
        thickness: of the soft tissue in front of and behind everything.
        wall: thickness of the chest wall at the side.
        breast: density of breast shadows; 0 for none.
        breast_at: distance from the midline, y, radius.
        bubble: size of the gas bubble of the stomach; 0 for none.
        lung_density: of the lung tissue itself.
        wobble: amplitudes and phases [2, 3, 4] of a smooth irregular warp.
        vessels: of both lungs.
    """

    width: float
    asymmetry: float
    apex: float
    apex_x: float
    widest: float
    shoulder: float
    domes: tuple[float, float]
    dome_curve: float
    medial: float
    heart: tuple[float, float, float, float, float]
    atrium: tuple[float, float, float, float]
    knob: tuple[float, float, float]
    rib_first: float
    rib_spacing: float
    rib_drop: float
    rib_fall: float
    rib_radius: float
    rib_density: float
    clavicle: tuple[float, float, float]
    scoliosis: tuple[float, float]
    vertebra: float
    thickness: float
    wall: float
    breast: float
    breast_at: tuple[float, float, float]
    bubble: float
    lung_density: float
    wobble: Floats
    vessels: Vessels


@lru_cache(maxsize=64)
def draw_anatomy(seed: int, patient: int) -> Anatomy:
    """The patient with this number; the same for the same seed."""
    rng = np.random.default_rng([seed, patient, 1])

    def about(mean: float, spread: float) -> float:
        """Normal, cut at two standard deviations: nobody is impossible."""
        return mean + spread * float(np.clip(rng.standard_normal(), -2, 2))

    width = about(0.80, 0.035)
    right_dome = about(0.46, 0.05)
    female = rng.random() < 0.5
    heart_scale = about(1.0, 0.06)
    return Anatomy(
        width=width,
        asymmetry=about(0.01, 0.012),
        apex=about(-0.80, 0.03),
        apex_x=about(0.33, 0.025),
        widest=about(0.38, 0.05),
        shoulder=about(2.1, 0.15),
        domes=(right_dome, right_dome + about(0.055, 0.02)),
        dome_curve=about(1.25, 0.15),
        medial=about(0.135, 0.012),
        heart=(
            about(0.125, 0.015),
            about(0.265, 0.02),
            about(0.370, 0.018) * heart_scale,
            about(0.270, 0.014) * heart_scale,
            about(0.70, 0.09),
        ),
        atrium=(about(-0.075, 0.01), about(0.23, 0.02), about(0.165, 0.01) * heart_scale, about(0.235, 0.015)),
        knob=(about(0.095, 0.010), about(-0.31, 0.025), about(0.100, 0.012)),
        rib_first=about(-0.84, 0.02),
        rib_spacing=about(0.148, 0.008),
        rib_drop=about(0.25, 0.035),
        rib_fall=about(0.40, 0.05),
        rib_radius=about(0.032, 0.003),
        rib_density=about(0.125, 0.018),
        clavicle=(about(-0.60, 0.02), about(0.17, 0.035), about(0.030, 0.008)),
        scoliosis=(about(0.0, 0.014), float(rng.uniform(-2, 2))),
        vertebra=about(0.128, 0.006),
        thickness=about(0.42, 0.05),
        wall=about(0.11, 0.025),
        breast=about(0.10, 0.025) if female else 0.0,
        breast_at=(about(0.42, 0.03), about(0.30, 0.05), about(0.30, 0.03)),
        bubble=max(0.0, about(0.07, 0.04)),
        lung_density=about(0.13, 0.02),
        wobble=np.stack(
            [
                rng.normal(0, 0.004, (2, 3)),
                *(rng.uniform(-np.pi, np.pi, (2, 3)) for _ in range(2)),
                rng.uniform(1, 4, (2, 3)),
            ],
            axis=-1,
        ).astype(np.float32),
        vessels=_draw_vessels(rng, width),
    )


def _draw_vessels(rng: np.random.Generator, width: float) -> Vessels:
    """Both lungs' vessels: main branches fan out from each hilum and divide, thinner and shorter every time."""
    parts: list[npt.NDArray[np.float64]] = []
    for side in (-1.0, 1.0):
        hilum = np.array([0.15 * side, -0.02 - 0.03 * (side > 0)])
        main = 8
        # From straight up to steeply down; lower branches are larger (blood falls, in who stands).
        angle = np.linspace(-1.35, 1.45, main) + rng.normal(0, 0.10, main)
        start = np.repeat(hilum[None], main, axis=0) + np.stack(
            [rng.normal(0.02 * side, 0.02, main), np.linspace(-0.09, 0.12, main)], axis=-1
        )
        radius = np.linspace(0.013, 0.020, main) * rng.uniform(0.8, 1.2, main)
        length = rng.uniform(0.13, 0.20, main) * (width / 0.8)
        for _ in range(6):
            steps = np.linspace(0, 1, 10)[None, :]
            bend = rng.normal(0, 0.35, len(angle))[:, None] * steps
            heading = angle[:, None] + bend
            pace = (length / steps.shape[1])[:, None]
            x = start[:, :1] + side * np.cumsum(np.cos(heading) * pace, axis=1)
            y = start[:, 1:] + np.cumsum(np.sin(heading) * pace, axis=1)
            taper = radius[:, None] * (1 - 0.28 * steps)
            parts.append(np.stack([x, y, taper, np.broadcast_to(pace, x.shape)], axis=-1).reshape(-1, 4))
            ends = np.stack([x[:, -1], y[:, -1]], axis=-1)
            spread = rng.uniform(0.22, 0.55, len(angle))
            angle = np.concatenate([heading[:, -1] - spread, heading[:, -1] + spread * rng.uniform(0.5, 1, len(angle))])
            start = np.concatenate([ends, ends])
            radius = np.concatenate(
                [radius * rng.uniform(0.62, 0.8, len(radius)), radius * rng.uniform(0.5, 0.72, len(radius))]
            )
            length = np.concatenate([length, length]) * rng.uniform(0.6, 0.95, 2 * len(length))
            alive = (radius > 0.0025) & (np.abs(start[:, 0]) < width)
            angle, start, radius, length = angle[alive], start[alive], radius[alive], length[alive]
    points = np.concatenate(parts).astype(np.float32)
    return Vessels(points[:, 0], points[:, 1], points[:, 2], points[:, 3])
