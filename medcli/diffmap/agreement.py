"""How alike two images are, by measures that a different exposure leaves alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

__all__ = ["correlation", "detail", "mutual_information", "smooth_within"]

BINS = 32
Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def smooth_within(image: Image, valid: Mask, sigma: float) -> Image:
    """A Gaussian mean over valid pixels only (float32 [H, W]); 0 where none is near."""
    weight = valid.astype(np.float32)
    total = gaussian_filter(np.where(valid, image, np.float32(0)).astype(np.float32), sigma, mode="constant")
    near = gaussian_filter(weight, sigma, mode="constant")
    return np.asarray(np.where(near > 1e-3, total / np.maximum(near, np.float32(1e-3)), 0), dtype=np.float32)


def detail(image: Image, valid: Mask) -> Image:
    """Local contrast in units of its own local spread, cut at ±3: edges of lungs and ribs, whatever the film.

    Args:
        image: float32 [H, W].
        valid: bool [H, W]; elsewhere the result is 0.
    """
    sigma = max(image.shape) / 14
    fine = image - smooth_within(image, valid, sigma)
    spread = np.sqrt(smooth_within(fine * fine, valid, 1.5 * sigma))
    floor = 0.05 * float(spread[valid].mean()) + 1e-6 if valid.any() else 1.0
    return np.where(valid, np.clip(fine / (spread + np.float32(floor)), -3, 3), 0).astype(np.float32)


def correlation(first: Image, second: Image, valid: Mask) -> float:
    """Pearson's r over valid pixels; 0 where one of them is flat."""
    if valid.sum() < 2:
        return 0.0
    a, b = first[valid].astype(np.float64), second[valid].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale > 1e-12 else 0.0


def mutual_information(first: Image, second: Image, valid: Mask) -> float:
    """Of the grey values over valid pixels, in nats, from a 32 x 32 histogram."""
    if valid.sum() < 2:
        return 0.0
    counts, _, _ = np.histogram2d(first[valid], second[valid], bins=BINS)
    joint = counts / counts.sum()
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / product[filled])).sum())
