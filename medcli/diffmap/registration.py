"""Lays the earlier image over the later one, and says how well that went.

Coarse rigid search, then affine, then, only if asked for, a B-spline whose displacement is bounded, so that it cannot
squeeze a lesion away. One thread and no random sampling: the same images give the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, gaussian_filter

from medcli.diffmap.agreement import correlation, detail, mutual_information
from medcli.diffmap.alignment import Alignment, Image, Mask, Quality
from medcli.errors import UsageProblem
from medcli.registry.layout import install_line

if TYPE_CHECKING:
    import SimpleITK

__all__ = ["HOW", "Alignment", "How", "Quality", "Registered", "load_simpleitk", "register", "rough_agreement"]

How = Literal["none", "affine", "bspline"]
HOW: tuple[How, ...] = ("none", "affine", "bspline")

COARSE = 64  # side of the images of the rigid search
JUDGED = 256  # side at which agreement is measured; local detail costs seconds at full size
FINE, BENT = 192, 128  # side of the images that the affine and the B-spline are fitted on; finer ones move nothing
MESH = 5  # B-spline cells per side
LIMIT = 0.03  # most a B-spline may displace a point along an axis, as a share of the side
# Outside of these an alignment is refused: films of one patient are never turned or scaled that much.
MOST_TURN, SCALES, LEAST_OVERLAP = 30.0, (0.6, 1.67), 0.5
LEAST_AGREEMENT = 0.25  # no pair of one patient out of 95 lies below
TURNS, ZOOMS = (-16.0, -8.0, 0.0, 8.0, 16.0), (0.88, 1.0, 1.14)  # grid of the rigid search, degrees and factors


@dataclass(frozen=True)
class Registered:
    """The baseline in follow-up coordinates.

    Args:
        warped: float32 [H, W], 0 outside `valid`.
        valid: bool [H, W]: both images show something there.
        transform: how it got there.
        quality: how well.
    """

    warped: Image
    valid: Mask
    transform: Alignment
    quality: Quality


def load_simpleitk() -> Any:
    """The SimpleITK module.

    Raises:
        UsageProblem: not installed.
    """
    try:
        import SimpleITK
    except ModuleNotFoundError:
        raise UsageProblem(
            "aligning two images needs SimpleITK, which is not installed",
            where="--register",
            hint=install_line(("medcli[diffmap]",)),
            code="missing-extra",
        ) from None
    return SimpleITK


def register(
    baseline: Image,
    followup: Image,
    how: How = "affine",
    *,
    baseline_valid: Mask | None = None,
    followup_valid: Mask | None = None,
) -> Registered:
    """Lay the baseline over the follow-up.

    Args:
        baseline: float32 [H, W], finite.
        followup: float32 [H, W] of the same shape.
        how: `none` keeps the pixels where they are, `affine`, or `bspline` on top of it.
        baseline_valid: bool [H, W], pixels that show something.
        followup_valid: bool [H, W] likewise.

    Raises:
        UsageProblem: SimpleITK is missing, or `how` is unknown.
        ValueError: shapes differ.
    """
    if baseline.shape != followup.shape or baseline.ndim != 2:
        raise ValueError(f"two images of one shape are needed, not {baseline.shape} and {followup.shape}")
    if how not in HOW:
        raise UsageProblem(f"`{how}` is none of {', '.join(HOW)}", where="--register", code="unknown-registration")
    shape = (followup.shape[0], followup.shape[1])
    fixed_valid = np.ones(shape, bool) if followup_valid is None else followup_valid
    moving_valid = np.ones(shape, bool) if baseline_valid is None else baseline_valid
    identity = Alignment(np.eye(2, 3), None, shape)
    if how == "none" or not (_shows(baseline, moving_valid) and _shows(followup, fixed_valid)):
        return _judged(baseline, followup, moving_valid, fixed_valid, identity, None)
    affine = _affine(baseline, followup, moving_valid, fixed_valid)
    if how == "affine":
        return _judged(baseline, followup, moving_valid, fixed_valid, affine, None)
    bent = _bent(baseline, followup, moving_valid, fixed_valid, affine)
    return _judged(baseline, followup, moving_valid, fixed_valid, bent, affine)


def rough_agreement(
    baseline: Image, followup: Image, baseline_valid: Mask, followup_valid: Mask, *, refined: bool = True
) -> float:
    """How well local detail agrees after a rigid search at 64 pixels, -1 to 1: cheap enough to try a mirrored image.

    Args:
        baseline: see `register`.
        followup: likewise.
        baseline_valid: likewise.
        followup_valid: likewise.
        refined: whether SimpleITK goes on from the best place of the grid (50 ms), or that is enough (10 ms).
    """
    centre = ((followup.shape[1] - 1) / 2, (followup.shape[0] - 1) / 2)
    fixed, fixed_mask, step = _small(followup, followup_valid, COARSE)
    moving, moving_mask, _ = _small(baseline, baseline_valid, COARSE)
    if refined:
        found = _coarse(load_simpleitk(), fixed, moving, fixed_mask, moving_mask, step, centre)
        return _agreement(_matrix(found), fixed, moving, fixed_mask, moving_mask, step)
    turn, scale, shift = _best_start(fixed, moving, step)
    linear, middle = _turned(turn, scale), np.array(centre[::-1])
    places = (np.eye(2, 3), np.column_stack([linear, middle - linear @ middle + shift[::-1]]))
    return max(_agreement(place, fixed, moving, fixed_mask, moving_mask, step) for place in places)


def _turned(turn: float, scale: float) -> npt.NDArray[np.float64]:
    """[2, 2] on (row, column): x and y turn the other way round."""
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[cosine, sine], [-sine, cosine]])


def _shows(image: Image, valid: Mask) -> bool:
    return bool(valid.any()) and float(np.ptp(image[valid])) > 1e-6


def _small(image: Image, valid: Mask, side: int) -> tuple[Image, Image, float]:
    """Both at about `side` pixels, and the factor from small to full pixels."""
    step = max(1, round(max(image.shape) / side))
    if step == 1:
        return detail(image, valid), valid.astype(np.float32), 1.0
    height, width = (length // step * step for length in image.shape)
    blocks = (height // step, step, width // step, step)
    shrunk = image[:height, :width].reshape(blocks).mean(axis=(1, 3))
    kept = valid[:height, :width].reshape(blocks).mean(axis=(1, 3)) > 0.99
    return detail(shrunk.astype(np.float32), kept), kept.astype(np.float32), float(step)


def _as_itk(itk: Any, values: Image, step: float) -> SimpleITK.Image:
    """An image whose physical coordinates are full-size pixels (x = column, y = row)."""
    image = itk.GetImageFromArray(values)
    image.SetSpacing((step, step))
    image.SetOrigin(((step - 1) / 2, (step - 1) / 2))
    return image


def _method(itk: Any, fixed_mask: SimpleITK.Image, moving_mask: SimpleITK.Image) -> SimpleITK.ImageRegistrationMethod:
    method = itk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums over threads differ in their last digits
    # Of details in units of their spread, so squares are as good as a correlation; ITK squares the latter, and then an
    # inverted image fits as well as the right one.
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(itk.Cast(fixed_mask, itk.sitkUInt8))
    method.SetMetricMovingMask(itk.Cast(moving_mask, itk.sitkUInt8))
    method.SetInterpolator(itk.sitkLinear)
    return method


def _affine(baseline: Image, followup: Image, moving_valid: Mask, fixed_valid: Mask) -> Alignment:
    itk = load_simpleitk()
    shape = (followup.shape[0], followup.shape[1])
    centre = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    fixed, fixed_mask, step = _small(followup, fixed_valid, COARSE)
    moving, moving_mask, _ = _small(baseline, moving_valid, COARSE)
    rigid = _coarse(itk, fixed, moving, fixed_mask, moving_mask, step, centre)
    affine = itk.AffineTransform(2)
    affine.SetCenter(centre)
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    for side in (COARSE * 3 // 2, FINE):
        fixed, fixed_mask, step = _small(followup, fixed_valid, side)
        moving, moving_mask, _ = _small(baseline, moving_valid, side)
        start = _agreement(_matrix(affine), fixed, moving, fixed_mask, moving_mask, step)
        method = _method(itk, _as_itk(itk, fixed_mask, step), _as_itk(itk, moving_mask, step))
        if side == FINE and start > 0.3:
            method.SetMetricAsCorrelation()  # near the optimum its square does no harm, and it is the truer measure
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=step, minStep=0.01, numberOfIterations=60, relaxationFactor=0.6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        trial = itk.AffineTransform(affine)
        method.SetInitialTransform(trial, inPlace=True)
        _execute(method, _as_itk(itk, fixed, step), _as_itk(itk, moving, step))
        if _agreement(_matrix(trial), fixed, moving, fixed_mask, moving_mask, step) > start:
            affine = trial
    return Alignment(_matrix(affine), None, shape)


def _coarse(
    itk: Any,
    fixed: Image,
    moving: Image,
    fixed_mask: Image,
    moving_mask: Image,
    step: float,
    centre: tuple[float, float],
) -> SimpleITK.Similarity2DTransform:
    """The best similarity out of two starts: where the images are, and the best of a grid of turns and scales."""
    best: Any = None
    highest = -np.inf
    for turn, scale, shift in ((0.0, 1.0, (0.0, 0.0)), _best_start(fixed, moving, step)):
        transform = itk.Similarity2DTransform(scale, turn, shift, centre)
        method = _method(itk, _as_itk(itk, fixed_mask, step), _as_itk(itk, moving_mask, step))
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=2 * step, minStep=0.05, numberOfIterations=60, relaxationFactor=0.6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        _execute(method, _as_itk(itk, fixed, step), _as_itk(itk, moving, step))
        value = _agreement(_matrix(transform), fixed, moving, fixed_mask, moving_mask, step)
        if value > highest:
            best, highest = transform, value
    return best


def _best_start(fixed: Image, moving: Image, step: float) -> tuple[float, float, tuple[float, float]]:
    """Turn in radians, scale and (x, y) shift in full pixels at which local detail correlates best."""
    height, width = fixed.shape
    size = (2 * height, 2 * width)
    wanted = np.conj(np.fft.rfft2(fixed, size))
    rows = np.fft.fftfreq(size[0], 1 / size[0])[:, None]
    columns = np.fft.fftfreq(size[1], 1 / size[1])[None, :]
    # A third of the image at most: farther away there is too little overlap to tell.
    near = (np.abs(rows) <= height / 3) & (np.abs(columns) <= width / 3)
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    best, highest = (0.0, 1.0, (0.0, 0.0)), -np.inf
    for turn in np.radians(TURNS):
        for scale in ZOOMS:
            linear = _turned(turn, scale)
            turned = affine_transform(moving, linear, middle - linear @ middle, order=1, mode="constant")
            norm = float(np.sqrt((turned * turned).sum())) + 1e-9
            surface = np.where(near, np.fft.irfft2(np.fft.rfft2(turned, size) * wanted, size), -np.inf) / norm
            row, column = np.unravel_index(int(np.argmax(surface)), surface.shape)
            if surface[row, column] > highest:
                highest = surface[row, column]
                away = linear @ np.array([rows[row, 0], columns[0, column]]) * step
                best = (float(turn), float(scale), (float(away[1]), float(away[0])))
    return best


def _agreement(
    matrix: npt.NDArray[np.float64], fixed: Image, moving: Image, fixed_mask: Image, moving_mask: Image, step: float
) -> float:
    """Correlation of detail at the size of the small images, less where little of them overlaps."""
    to_full = np.array([step, step])
    offset = (matrix[:, :2] @ np.full(2, (step - 1) / 2) + matrix[:, 2] - (step - 1) / 2) / to_full
    laid, seen = (
        affine_transform(part, matrix[:, :2], offset, order=1, mode="constant") for part in (moving, moving_mask)
    )
    valid = (seen > 0.99) & (fixed_mask > 0)
    overlap = float(valid.sum() / max(1.0, float(fixed_mask.sum())))
    return correlation(laid, fixed, valid) * min(1.0, overlap / 0.7)


def _execute(method: SimpleITK.ImageRegistrationMethod, fixed: SimpleITK.Image, moving: SimpleITK.Image) -> float:
    """The final metric; infinity where the images have lost each other."""
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # ITK raises when no point of one image maps into the other
        return float("inf")
    return float(method.GetMetricValue())


def _matrix(affine: SimpleITK.AffineTransform) -> npt.NDArray[np.float64]:
    """[2, 3] on (row, column, 1) of an ITK transform on (x, y)."""
    origin = np.array(affine.TransformPoint((0.0, 0.0)))
    along_x = np.array(affine.TransformPoint((1.0, 0.0))) - origin
    along_y = np.array(affine.TransformPoint((0.0, 1.0))) - origin
    return np.array([[along_y[1], along_x[1], origin[1]], [along_y[0], along_x[0], origin[0]]])


def _bent(baseline: Image, followup: Image, moving_valid: Mask, fixed_valid: Mask, affine: Alignment) -> Alignment:
    itk = load_simpleitk()
    halfway, halfway_valid = affine.apply(baseline, moving_valid)
    fixed, fixed_mask, step = _small(followup, fixed_valid, BENT)
    moving, moving_mask, _ = _small(halfway, halfway_valid, BENT)
    target = _as_itk(itk, fixed, step)
    # Wider than the image by a pixel: outside its domain a spline displaces nothing, which would tear the border.
    spline = itk.BSplineTransformInitializer(itk.ConstantPad(target, (1, 1), (1, 1)), (MESH, MESH), order=3)
    limit = LIMIT * max(followup.shape)
    method = _method(itk, _as_itk(itk, fixed_mask, step), _as_itk(itk, moving_mask, step))
    # A B-spline lies within its coefficients, so bounding these bounds the displacement everywhere.
    method.SetOptimizerAsLBFGSB(
        gradientConvergenceTolerance=1e-4,
        numberOfIterations=15,
        maximumNumberOfFunctionEvaluations=40,
        lowerBound=-limit,
        upperBound=limit,
    )
    method.SetInitialTransform(spline, inPlace=True)
    if not np.isfinite(_execute(method, target, _as_itk(itk, moving, step))):
        return affine
    height, width = affine.shape
    field = itk.TransformToDisplacementField(spline, itk.sitkVectorFloat64, (width, height), (0, 0), (1, 1))
    bend = itk.GetArrayFromImage(field)[..., ::-1].transpose(2, 0, 1)  # (x, y) last -> (row, column) first
    # The spline moves points of the follow-up before the affine does.
    linear = affine.matrix[:, :2]
    turned = np.tensordot(linear, bend, axes=1).astype(np.float32)
    return Alignment(affine.matrix, turned, affine.shape)


def _judged(
    baseline: Image,
    followup: Image,
    moving_valid: Mask,
    fixed_valid: Mask,
    alignment: Alignment,
    straight: Alignment | None,
) -> Registered:
    warped, seen = alignment.apply(baseline, moving_valid)
    valid = seen & fixed_valid
    both = moving_valid & fixed_valid
    linear = alignment.matrix[:, :2]
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    turn = float(np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])))
    centre = np.array([(side - 1) / 2 for side in alignment.shape])
    moved = linear @ centre + alignment.matrix[:, 2] - centre
    at = alignment.coordinates()
    away = np.hypot(*(at - np.mgrid[: alignment.shape[0], : alignment.shape[1]]))[valid if valid.any() else ...]
    area = _jacobian(at)
    overlap = float(valid.sum() / max(1, fixed_valid.sum()))
    before, after = _alike(baseline, followup, both), _alike(warped, followup, valid)
    failures = []
    if after < LEAST_AGREEMENT:
        failures.append(f"the images agree too little ({after:.2f})")
    if after < before - 0.02:
        failures.append(f"agreement fell from {before:.2f} to {after:.2f}")
    if abs(turn) > MOST_TURN:
        failures.append(f"a turn of {abs(turn):.0f}°")
    if not SCALES[0] <= scale <= SCALES[1]:
        failures.append(f"a scale of {scale:.2f}")
    if overlap < LEAST_OVERLAP:
        failures.append(f"only {overlap:.0%} of the image overlaps")
    folding = float((area <= 0).mean())
    if folding > 0:
        failures.append(f"{folding:.1%} of the pixels fold")
    quality = Quality(
        ncc_before=before,
        ncc_after=after,
        mi_before=mutual_information(baseline, followup, both),
        mi_after=mutual_information(warped, followup, valid),
        overlap=overlap,
        turn=turn,
        scale=scale,
        shift=(float(moved[0]), float(moved[1])),
        displacement=tuple(float(value) for value in np.percentile(away, (50, 95, 100))),  # type: ignore[arg-type]
        jacobian_min=float(area.min()),
        folding=folding,
        absorbed=0.0 if straight is None else _absorbed(baseline, followup, moving_valid, valid, straight, warped),
        failures=tuple(failures),
    )
    return Registered(warped, valid, alignment, quality)


def _alike(first: Image, second: Image, valid: Mask) -> float:
    a, kept, _ = _small(first, valid, JUDGED)
    b, _, _ = _small(second, valid, JUDGED)
    return correlation(a, b, kept > 0)


def _jacobian(at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    (a, b), (c, d) = (np.gradient(part) for part in at)
    return np.asarray(a * d - b * c)


def _absorbed(
    baseline: Image, followup: Image, moving_valid: Mask, valid: Mask, straight: Alignment, bent: Image
) -> float:
    """Share of the large-scale difference left by the affine alignment that the B-spline took away."""
    flat, seen = straight.apply(baseline, moving_valid)
    common = valid & seen
    if not common.any():
        return 0.0
    sigma = max(followup.shape) / 32
    before, after = (
        np.abs(gaussian_filter(np.where(common, followup - other, 0), sigma))[common].sum() for other in (flat, bent)
    )
    return float(max(0.0, 1 - after / before)) if before > 0 else 0.0
