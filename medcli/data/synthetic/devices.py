"""What is in or on a phantom patient without being the patient: tubes, lines, leads and boxes, as polylines.

They differ between two images of one patient although nothing has changed in the lungs, which is why a map of changes
must leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medcli.data.synthetic.anatomy import Anatomy, Floats

__all__ = ["DEVICES", "Device", "draw_device"]

DEVICES = ("central line", "tracheal tube", "stomach tube", "ECG leads", "pacemaker", "chest drain")


@dataclass(frozen=True)
class Device:
    """One line or box in patient coordinates.

    Args:
        name: out of `DEVICES`.
        points: (x, y) of the corners of a smooth curve.
        radius: half the thickness of the line.
        density: attenuation at its middle.
        filled: share of `density` inside a closed outline; 0 for lines.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    radius: float
    density: float
    filled: float = 0.0

    def beads(self) -> tuple[Floats, Floats]:
        """Points half a radius apart along the curve."""
        corners = np.asarray(self.points, dtype=np.float64)
        dense = _smooth(corners)
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(dense, axis=0).T))])
        at = np.arange(0.0, along[-1], self.radius / 2)
        return (
            np.interp(at, along, dense[:, 0]).astype(np.float32),
            np.interp(at, along, dense[:, 1]).astype(np.float32),
        )


def draw_device(rng: np.random.Generator, name: str, anatomy: Anatomy, *, left: bool) -> tuple[Device, ...]:
    """Place one device; some consist of several lines.

    Args:
        rng: of the exact place, which differs from image to image.
        name: out of `DEVICES`.
        anatomy: the patient, whose midline and ribs the device follows.
        left: on the patient's left, for devices that have a side.
    """
    shake = rng.normal(0, 0.015, 12)
    side = 1.0 if left else -1.0
    low = anatomy.domes[0]
    course: tuple[tuple[float, float], ...]
    if name == "central line":
        course = ((side * 0.26, -1.05), (side * 0.20, -0.70), (-0.09, -0.42), (-0.10, -0.05 + 3 * shake[0]))
        return (Device(name, course, 0.007, 0.22),)
    if name == "tracheal tube":
        end = -0.30 + 2.5 * shake[1]
        return tuple(
            Device(name, ((edge + shake[2], -1.1), (edge, -0.7), (edge, end)), 0.005, 0.16) for edge in (-0.022, 0.022)
        )
    if name == "stomach tube":
        course = (
            (0.02, -1.1),
            (0.015 + shake[3], -0.4),
            (0.03, 0.25),
            (0.12, low + 0.12),
            (0.30, low + 0.22 + shake[4]),
        )
        return (Device(name, course, 0.008, 0.15),)
    if name == "pacemaker":
        x, y = side * (0.50 + shake[5]), -0.52 + shake[6]
        angle = np.linspace(0, 2 * np.pi, 13)
        box = tuple((float(x + 0.085 * np.cos(a)), float(y + 0.07 * np.sin(a))) for a in angle)
        lead = ((x, y - 0.06), (side * 0.25, -0.62), (-0.08, -0.40), (-0.07, 0.05), (0.10 + shake[7], 0.34 + shake[8]))
        return (Device(name, box, 0.008, 0.40, 0.9), Device(name, lead, 0.006, 0.28))
    if name == "chest drain":
        x = side * (anatomy.width - 0.03)
        course = (
            (side * 1.05, 0.45 + 2 * shake[9]),
            (x, 0.22),
            (x - side * 0.10, -0.15),
            (side * 0.40, -0.50 + 3 * shake[10]),
        )
        return (Device(name, course, 0.012, 0.17),)
    parts: list[Device] = []
    for number, (x, y) in enumerate(((-0.55, -0.55), (0.55, -0.55), (0.45, 0.40))):
        x, y = x + 2 * float(shake[2 * number]), y + 2 * float(shake[2 * number + 1])
        angle = np.linspace(0, 2 * np.pi, 9)
        disc = tuple((float(x + 0.022 * np.cos(a)), float(y + 0.022 * np.sin(a))) for a in angle)
        parts.append(Device(name, disc, 0.006, 0.30, 0.8))
        parts.append(Device(name, ((x, y), (0.75 * x, y + 0.25), (0.5 * x, 1.05)), 0.004, 0.13))
    return tuple(parts)


def _smooth(corners: Floats) -> Floats:
    """A Catmull-Rom curve through all corners, 24 points per piece."""
    padded = np.concatenate([2 * corners[:1] - corners[1:2], corners, 2 * corners[-1:] - corners[-2:-1]])
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*pieces, corners[-1:]])
