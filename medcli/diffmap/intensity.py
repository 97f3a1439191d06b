"""Makes two films comparable: the grey scale of one brought to that of the other, and slow exposure gradients removed.

A large finding changes an image's grey values too, so both steps are robust: percentiles for the scale, and for the
gradient a quadratic surface from which pixels that do not follow it are left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["match", "surface"]

KNOTS = (1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0)
SAMPLE = 64  # the surface has six numbers; a grid of 64 x 64 pixels fixes them
ROUNDS = 8
TUKEY = 4.0  # residuals beyond this many spreads count nothing
Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def match(baseline: Image, followup: Image, valid: Mask) -> Image:
    """The baseline with the follow-up's grey scale and exposure gradient.

    Args:
        baseline: float32 [H, W], already in follow-up coordinates.
        followup: float32 [H, W].
        valid: bool [H, W], where both show something (narrow it to the lungs where they are known).

    Returns:
        float32 [H, W], clipped to [0, 1]; unchanged where there is too little to go by.
    """
    if valid.sum() < 16:
        return baseline
    source, wanted = (np.percentile(image[valid], KNOTS) for image in (baseline, followup))
    if source[-1] - source[0] < 1e-4:
        return baseline
    # Equal knots (large black areas) would make the curve jump.
    source = np.maximum.accumulate(source + np.arange(len(source)) * 1e-6)
    scaled = np.interp(baseline, source, wanted).astype(np.float32)
    # Beyond the outer knots the curve goes on with its overall slope, so that metal stays brighter than bone.
    slope = float((wanted[-1] - wanted[0]) / (source[-1] - source[0]))
    scaled += np.float32(slope) * (np.minimum(baseline - source[0], 0) + np.maximum(baseline - source[-1], 0))
    scaled += surface(followup - scaled, valid)
    return np.clip(scaled, 0, 1).astype(np.float32)


def surface(difference: Image, valid: Mask) -> Image:
    """The quadratic surface under a difference of two films (float32 [H, W]), blind to what sticks out of it."""
    height, width = difference.shape
    step = max(1, round(max(height, width) / SAMPLE))
    row, column = (np.linspace(-1, 1, length, dtype=np.float64) for length in (height, width))
    y, x = np.meshgrid(row[::step], column[::step], indexing="ij")
    chosen = valid[::step, ::step]
    if chosen.sum() < 24:
        return np.zeros_like(difference)
    terms = _terms(y[chosen], x[chosen])
    values = difference[::step, ::step][chosen].astype(np.float64)
    weight = np.ones_like(values)
    fitted = np.zeros(6)
    for _ in range(ROUNDS):
        # A little ridge keeps the surface flat where pixels lie on one side only.
        normal = (terms * weight[:, None]).T @ terms + 1e-3 * weight.sum() * np.diag([0, 1, 1, 1, 1, 1])
        fitted = np.linalg.solve(normal, (terms * weight[:, None]).T @ values)
        left = values - terms @ fitted
        spread = 1.4826 * float(np.median(np.abs(left))) + 1e-6
        weight = np.clip(1 - (left / (TUKEY * spread)) ** 2, 0, None) ** 2
    full_y, full_x = row[:, None], column[None, :]
    constant, up, across, up2, across2, both = fitted
    shape = constant + up * full_y + across * full_x + up2 * full_y**2 + across2 * full_x**2 + both * full_y * full_x
    return np.asarray(shape, dtype=np.float32)


def _terms(y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.stack([np.ones_like(y), y, x, y * y, x * x, y * x], axis=1)
