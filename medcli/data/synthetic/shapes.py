"""The shapes of findings and devices on a frame: shared by drawn films and by findings drawn into real ones."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from medcli.data.synthetic.anatomy import Floats
from medcli.data.synthetic.devices import Device
from medcli.data.synthetic.findings import Consolidation, Effusion, Findings, Nodule, Pneumothorax
from medcli.data.synthetic.frame import Frame, ramp

__all__ = [
    "collapsed",
    "congestion",
    "congestion_reach",
    "consolidated",
    "drawn_device",
    "ellipsoid",
    "fluid_cover",
    "heart_cover",
    "opacities",
    "round_opacity",
    "splat",
]


def ellipsoid(x: Floats, y: Floats, a: float, b: float) -> Floats:
    """Thickness of an ellipsoid, 1 in the middle."""
    return np.sqrt(np.maximum(1 - (x / np.float32(a)) ** 2 - (y / np.float32(b)) ** 2, 0))


def heart_cover(frame: Frame, breadth: float) -> Floats:
    """How far heart and great vessels replace the lung, 0 to 1."""
    anatomy, pose = frame.anatomy, frame.pose
    x = frame.x - np.float32(1.2 * pose.turn)
    cx, cy, length, thick, tilt = anatomy.heart
    # A deep breath lets the heart hang longer and narrower; an enlarged one grows to both sides, mostly to the left.
    breath = 1 - 1.0 * pose.inspiration
    cy += 0.7 * pose.inspiration
    cx *= 1 + 0.9 * (breadth - 1)
    length *= breadth * breath
    thick *= (0.4 + 0.6 * breadth) * (2 - breath)
    dx, dy = x - np.float32(cx), frame.y - np.float32(cy)
    cosine, sine = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    ventricles = ellipsoid(cosine * dx + sine * dy, cosine * dy - sine * dx, length, thick)
    ax, ay, ra, rb = anatomy.atrium
    atrium = ellipsoid(x - np.float32(ax), frame.y - np.float32(ay), ra * (0.5 + 0.5 * breadth), rb)
    kx, ky, radius = anatomy.knob
    knob = ellipsoid(x - np.float32(kx), frame.y - np.float32(ky), radius, radius)
    trunk = ellipsoid(x - np.float32(0.085), frame.y + np.float32(0.08), 0.125, 0.26)
    solid = np.maximum(np.maximum(ventricles, atrium), np.maximum(knob * np.float32(0.8), trunk * np.float32(0.65)))
    # Soft tissue soon dominates: the border is steep, the inside flat.
    return np.asarray(1 - (1 - solid) ** 2, dtype=np.float32)


def splat(frame: Frame, x: Floats, y: Floats, mass: Floats, sigma: float) -> Floats:
    """Points as Gaussian spots, `mass` their integral in patient units; [S, S]."""
    size = len(frame.x)
    column, row = frame.to_pixels(x, y)
    inside = (column > 0) & (column < size - 1) & (row > 0) & (row < size - 1)
    column, row, mass = column[inside], row[inside], mass[inside]
    left, top = column.astype(np.int64), row.astype(np.int64)
    right, down = column - left, row - top
    base = top * size + left
    at = np.concatenate([base, base + 1, base + size, base + size + 1])
    share = np.concatenate([(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down])
    sums = np.bincount(at, weights=share * np.tile(mass, 4), minlength=size * size)
    grid = (sums / frame.pixel**2).astype(np.float32).reshape(size, size)
    return np.asarray(gaussian_filter(grid, sigma / frame.pixel, mode="constant", truncate=2.5))


def congestion(frame: Frame, vessels: Floats, amount: float) -> Floats:
    """What fluid overload adds to the lung: fuller vessels, most above the hila, and haze that spares the rim."""
    above = np.float32(0.6) + np.float32(0.6) * ramp(np.float32(-0.05) - frame.y, 0.5)
    haze = np.float32(0.15) * congestion_reach(frame)
    return np.asarray(np.float32(amount) * (np.float32(0.7) * above * vessels + haze), dtype=np.float32)


def congestion_reach(frame: Frame) -> Floats:
    """How much of it each place gets, 0 to 1: the wings of a butterfly."""
    reach = ((frame.away - np.float32(0.27)) / np.float32(0.30)) ** 2 + (
        (frame.y - np.float32(0.05)) / np.float32(0.42)
    ) ** 2
    return np.asarray(np.exp(-(reach**1.5)), dtype=np.float32)


def opacities(frame: Frame, findings: Findings) -> Floats | float:
    total: Floats | float = 0.0
    for one in findings.consolidations:
        total = total + consolidated(frame, one)
    for nodule in findings.nodules:
        total = total + round_opacity(frame, nodule)
    return total


def consolidated(frame: Frame, one: Consolidation) -> Floats:
    # Mass such that the cloud's mean density over its disc is `density`.
    mass = one.weight * np.float32(one.density * np.pi * one.radius**2 * 0.8)
    return splat(frame, one.x, one.y, mass, one.grain)


def round_opacity(frame: Frame, one: Nodule) -> Floats:
    round_ = ellipsoid(frame.x - np.float32(one.x), frame.y - np.float32(one.y), one.radius, one.radius)
    return np.float32(one.density) * round_


def fluid_cover(frame: Frame, one: Effusion) -> Floats:
    """Share of the lung's depth that fluid fills."""
    # At the side, the costophrenic angle is about this far below the dome.
    bottom = frame.anatomy.domes[int(one.left)] + frame.pose.inspiration + 0.20
    rise = np.float32(one.meniscus) * np.clip(frame.across, 0, 1) ** 3 + np.float32(1 - one.meniscus)
    top = np.float32(bottom) - np.float32(one.height) * rise
    fill = ramp(frame.y - top, 0.14) * np.float32(one.density)
    return np.where(frame.left == one.left, fill, np.float32(0))


def collapsed(frame: Frame, one: Pneumothorax) -> tuple[Floats, Floats]:
    """Where lung is left beside a pneumothorax (0 to 1), and the pleural line at its border (0 to 1)."""
    anatomy = frame.anatomy
    along = np.clip((frame.y - anatomy.apex) / (anatomy.domes[int(one.left)] - anatomy.apex), 0, 1)
    gap = np.float32(one.gap) * (1 - np.float32(1 - one.base) * along)
    # The lung sinks from the apex as it retracts from the side.
    border = frame.lateral_at(frame.y - np.float32(0.9) * gap * (1 - along)) - gap
    border = np.where(frame.y < np.float32(anatomy.apex + 0.9 * one.gap), np.float32(0), border)
    side = frame.left == one.left
    inside = np.where(side, ramp(border - frame.away, frame.edge), np.float32(1))
    line = np.exp(-(((border - frame.away) / np.float32(max(0.008, 0.5 * frame.pixel))) ** 2))
    return inside, np.where(side & (border > 0.05), line, np.float32(0))


def drawn_device(frame: Frame, device: Device) -> Floats:
    # A line as beads half a radius apart; the sum over them is the line's own profile.
    x, y = device.beads()
    step = device.radius / 2
    mass = np.full(len(x), device.density * 2.5 * device.radius * step, dtype=np.float32)
    drawn = splat(frame, x, y, mass, max(device.radius, 0.7 * frame.pixel))
    if device.filled:
        left, top, right, bottom = x.min(), y.min(), x.max(), y.max()
        round_ = ellipsoid(
            frame.x - np.float32((left + right) / 2),
            frame.y - np.float32((top + bottom) / 2),
            float(right - left) / 2,
            float(bottom - top) / 2,
        )
        drawn = drawn + np.float32(device.density * device.filled) * np.minimum(round_ * 4, 1)
    return drawn
