"""What may be wrong in a phantom chest: findings as values, drawn apart from the patient and from the exposure.

Each finding changes the attenuation where the anatomy puts it, so that the same finding can be drawn in another pose,
or left out of one of two images of the same patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medcli.data.synthetic.anatomy import Anatomy, Floats

__all__ = [
    "FINDINGS",
    "HEALTHY",
    "Consolidation",
    "Effusion",
    "Findings",
    "Nodule",
    "Pneumothorax",
    "draw_findings",
]

FINDINGS = ("opacity", "effusion", "pneumothorax", "enlarged heart")


@dataclass(frozen=True)
class Consolidation:
    """A patchy opacity: a cloud of points in patient coordinates.

    Args:
        x: float32 [n].
        y: float32 [n].
        weight: float32 [n], sums to 1.
        radius: half width of the whole.
        grain: standard deviation of each point's spot.
        density: attenuation in the middle.
    """

    x: Floats
    y: Floats
    weight: Floats
    radius: float
    grain: float
    density: float


@dataclass(frozen=True)
class Nodule:
    """A round opacity of even density."""

    x: float
    y: float
    radius: float
    density: float


@dataclass(frozen=True)
class Effusion:
    """Fluid in one pleural space.

    Args:
        left: the patient's left side.
        height: how far the fluid reaches above the costophrenic angle at the side.
        meniscus: share of that height which is only reached at the chest wall.
        density: share of the lung's depth that the fluid fills.
    """

    left: bool
    height: float
    meniscus: float
    density: float


@dataclass(frozen=True)
class Pneumothorax:
    """Air in one pleural space.

    Args:
        left: the patient's left side.
        gap: distance between chest wall and lung at the apex.
        base: share of that distance left at the base.
    """

    left: bool
    gap: float
    base: float


@dataclass(frozen=True)
class Findings:
    """Everything wrong in one image.

    Args:
        consolidations: patchy opacities.
        nodules: round opacities.
        effusions: at most one per side.
        pneumothorax: or None.
        heart: factor on the heart's breadth; 1 is this patient's own heart.
        congestion: fluid overload from 0 (none) to 1 (oedema): full vessels, haze around the hila, thick septa.
    """

    consolidations: tuple[Consolidation, ...] = ()
    nodules: tuple[Nodule, ...] = ()
    effusions: tuple[Effusion, ...] = ()
    pneumothorax: Pneumothorax | None = None
    heart: float = 1.0
    congestion: float = 0.0


HEALTHY = Findings()


def draw_findings(rng: np.random.Generator, present: frozenset[str], anatomy: Anatomy) -> Findings:
    """Draw size, place and density of the findings named.

    Args:
        rng: drawn from in a fixed order, so that adding one finding does not move another.
        present: names out of `FINDINGS`.
        anatomy: the patient; lesions lie in its lungs.
    """
    streams = rng.spawn(len(FINDINGS))
    opacity, effusion, pneumothorax, heart = streams
    consolidations: tuple[Consolidation, ...] = ()
    nodules: tuple[Nodule, ...] = ()
    if "opacity" in present:
        if opacity.random() < 0.65:
            consolidations = tuple(_consolidation(opacity, anatomy) for _ in range(1 + int(opacity.random() < 0.3)))
        else:
            nodules = tuple(_nodule(opacity, anatomy) for _ in range(1 + int(opacity.random() < 0.3)))
    return Findings(
        consolidations,
        nodules,
        _effusions(effusion) if "effusion" in present else (),
        _pneumothorax(pneumothorax) if "pneumothorax" in present else None,
        # Breadth of the heart over the thorax: about 0.47 in health, above 0.55 when enlarged.
        float(heart.uniform(1.16, 1.42)) if "enlarged heart" in present else 1.0,
    )


def _place(rng: np.random.Generator, anatomy: Anatomy) -> tuple[float, float]:
    side = -1.0 if rng.random() < 0.5 else 1.0
    y = float(rng.uniform(anatomy.apex + 0.22, anatomy.domes[0] - 0.10))
    # Clear of the heart below the hilum on the patient's left.
    nearest = 0.26 if y < 0.0 or side < 0 else 0.44
    along = np.clip((y - anatomy.apex) / (anatomy.widest - anatomy.apex), 0, 1)
    farthest = anatomy.apex_x + (anatomy.width - anatomy.apex_x) * (1 - (1 - along) ** anatomy.shoulder) ** 0.55
    return side * float(rng.uniform(nearest, max(nearest + 0.02, farthest - 0.13))), y


def _consolidation(rng: np.random.Generator, anatomy: Anatomy) -> Consolidation:
    x, y = _place(rng, anatomy)
    radius = float(rng.uniform(0.09, 0.19))
    count = int(rng.integers(30, 60))
    angle, away = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count)) * radius
    slant, squeeze = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
    a, b = away * np.cos(angle), away * np.sin(angle) * squeeze
    weight = rng.uniform(0.3, 1.0, count)
    return Consolidation(
        (x + a * np.cos(slant) - b * np.sin(slant)).astype(np.float32),
        (y + a * np.sin(slant) + b * np.cos(slant)).astype(np.float32),
        (weight / weight.sum()).astype(np.float32),
        radius,
        float(rng.uniform(0.030, 0.046)),
        float(rng.uniform(0.11, 0.30)),
    )


def _nodule(rng: np.random.Generator, anatomy: Anatomy) -> Nodule:
    x, y = _place(rng, anatomy)
    return Nodule(x, y, float(rng.uniform(0.045, 0.09)), float(rng.uniform(0.12, 0.26)))


def _effusions(rng: np.random.Generator) -> tuple[Effusion, ...]:
    left = bool(rng.random() < 0.5)
    sides = (left, not left) if rng.random() < 0.25 else (left,)
    return tuple(
        Effusion(
            side, float(0.19 + 0.42 * rng.random() ** 1.7), float(rng.uniform(0.4, 0.7)), float(rng.uniform(0.88, 1.0))
        )
        for side in sides
    )


def _pneumothorax(rng: np.random.Generator) -> Pneumothorax:
    return Pneumothorax(
        bool(rng.random() < 0.5), float(0.055 + 0.20 * rng.random() ** 1.6), float(rng.uniform(0.25, 0.6))
    )
