"""What a set of maps is worth beside the truth: every figure as a function of how often each pair counts.

So that one set of resampled patients gives the interval of every figure, and of its difference between two models, at
the cost of a few matrix products. Pairs where nothing changed never enter Dice or precision, where an empty map would
count as perfect; they have figures of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medcli.diffmap.froc import RATES, Froc
from medcli.diffmap.metrics import CHANGED, is_changed
from medcli.diffmap.pixel_ranks import PixelRanks
from medcli.errors import UsageProblem
from medcli.evaluation.figures import Figure
from medcli.evaluation.resampling import bootstrap_interval, clusters_of, resample_weights
from medcli.registry.layout import install_line

__all__ = ["CONVENTIONS", "DATA_RANGE", "HEADLINES", "MapSet", "Scores", "figures_with_intervals"]

DATA_RANGE = 2.0  # of maps in [-1, 1], for PSNR and SSIM
SSIM_WINDOW = 7
SIDES: Mapping[str, int] = {"positive": 1, "negative": -1}
HEADLINES = ("auprc", "auprc_positive", "auprc_negative", "nuisance_area", "sign_accuracy", "cpm")
Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.floating]

CONVENTIONS: Mapping[str, str] = {
    "auprc": "pixels of all changed pairs together, mean of both signs; chance is their prevalence",
    "auprc_positive": "the same for new or increased opacity against all other pixels",
    "auprc_negative": "the same for vanished or decreased opacity against all other pixels",
    "auroc_positive": "area under the ROC curve over the pixels of all changed pairs, new or increased opacity",
    "auroc_negative": "the same for vanished or decreased opacity",
    "auroc_any": "the same for any change, of a map without signs",
    "dice": "of |map| at the threshold, mean over changed pairs; a map without any finding counts 0",
    "dice_positive": "of new or increased opacity, mean over the pairs that have any",
    "dice_negative": "of vanished or decreased opacity, mean over the pairs that have any",
    "iou": "intersection over union, as `dice`",
    "sign_accuracy": "share of all changed pixels where the map has the sign of the truth; 0 is neither",
    "correlation": "Pearson, over all changed pixels of all pairs together",
    "mae_changed": "mean absolute error of all changed pixels",
    "rmse_changed": "root of the mean squared error of all changed pixels",
    "mae": "mean absolute error of all valid pixels; a map of zeros does well",
    "psnr": "dB, of the mean squared error of all valid pixels, data range 2; a map of zeros does well",
    "ssim": "mean over the valid pixels, then over pairs, 7-pixel window, data range 2; a map of zeros does well",
    "nuisance_area": "mean share of valid pixels at or above the threshold in pairs where nothing changed",
    "nuisance_components": "mean number of findings in pairs where nothing changed",
    "cpm": f"mean component sensitivity at {', '.join(f'{rate:g}' for rate in RATES)} false findings per image",
    **{f"froc_{rate:g}": f"component sensitivity at up to {rate:g} false findings per image" for rate in RATES},
    "pointing_positive": "share of pairs with new or increased opacity whose highest pixel lies in it",
    "pointing_negative": "share of pairs with vanished or decreased opacity whose lowest pixel lies in it",
    "pointing_any": "share of changed pairs whose highest pixel lies in the change, of a map without signs",
    "image_auroc": "of the largest |map| in a pair, for whether anything changed in it",
}


@dataclass(frozen=True)
class MapSet:
    """Maps beside the truth.

    Args:
        ids: of the pairs.
        patients: str [n], empty where unknown.
        maps: float32 [n, H, W].
        truths: float32 [n, H, W], NaN where nothing is known; of a map of magnitudes 0 and above.
        signed: whether maps have signs.
    """

    ids: tuple[str, ...]
    patients: npt.NDArray[np.str_]
    maps: Maps
    truths: Maps
    signed: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sides(self) -> Mapping[str, int]:
        """Names and signs that are told apart."""
        return SIDES if self.signed else {"any": 1}


class Scores:
    """What every pair adds to every figure.

    Args:
        maps: with their truth.
        threshold: of |map|.
        above: a pixel has changed where the truth is further from 0.
        min_area: of a finding, in pixels.
    """

    def __init__(self, maps: MapSet, *, threshold: float, above: float = CHANGED, min_area: int = 1) -> None:
        self.maps, self.threshold, self.above, self.min_area = maps, threshold, above, min_area
        self.known = np.array([not np.isnan(truth).all() for truth in maps.truths], dtype=np.bool_)
        self.changed = np.array([is_changed(truth, above) for truth in maps.truths], dtype=np.bool_)
        self.froc = Froc(list(maps.maps), list(maps.truths), threshold=threshold, above=above, min_area=min_area)
        self._columns: dict[str, Floats] = {}
        self._peaks = np.zeros(len(maps))
        for number in np.flatnonzero(self.known).tolist():
            self._add(number)
        self.ranks = {name: self._ranks(sign) for name, sign in maps.sides.items()}

    @property
    def quiet(self) -> npt.NDArray[np.bool_]:
        """Pairs where nothing changed."""
        return self.known & ~self.changed

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Every figure, each [r], for weights of pairs [n, r]; NaN where undefined."""
        sums = {name: values @ weights for name, values in self._columns.items()}
        nothing = np.zeros(weights.shape[1])

        def ratio(above: str, below: str) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                share: Floats = sums.get(above, nothing) / sums.get(below, nothing)
            return share

        out: dict[str, Floats] = {}
        areas = {}
        for name, ranks in self.ranks.items():
            out[f"auprc_{name}"], areas[name] = ranks(weights)
        out = {"auprc": _mean(list(out.values())), **out}
        out |= {f"auroc_{name}": area for name, area in areas.items()}
        for name in ("", *(f"_{side}" for side in self.maps.sides)):
            out[f"dice{name}"] = ratio(f"dice{name}", f"pairs{name}")
        out["iou"] = ratio("iou", "pairs")
        out["sign_accuracy"] = ratio("right", "pixels_changed")
        out["correlation"] = _correlation(sums, nothing)
        out["mae_changed"] = ratio("absolute_changed", "pixels_changed")
        out["rmse_changed"] = np.sqrt(ratio("square_changed", "pixels_changed"))
        out["nuisance_area"] = ratio("false_share", "quiet")
        out["nuisance_components"] = ratio("false_components", "quiet")
        froc = self.froc(weights)
        out["cpm"] = froc.mean(axis=0)
        out |= {f"froc_{rate:g}": row for rate, row in zip(RATES, froc, strict=True)}
        for name in self.maps.sides:
            out[f"pointing_{name}"] = ratio(f"pointed_{name}", f"pairs_{name}")
        out["image_auroc"] = self._image_area(weights)
        out["mae"] = ratio("absolute", "pixels")
        with np.errstate(divide="ignore"):
            out["psnr"] = 10 * np.log10(DATA_RANGE**2 / ratio("square", "pixels"))
        out["ssim"] = ratio("ssim", "measured")
        if not self.maps.signed:
            doubled = ("auprc_any", "sign_accuracy", "dice_any")
            out = {name: value for name, value in out.items() if name not in doubled}
        return out

    def values(self) -> dict[str, float]:
        """Every figure of all pairs alike."""
        return {name: float(value[0]) for name, value in self(np.ones((len(self.maps), 1))).items()}

    def _put(self, name: str, number: int, value: float) -> None:
        self._columns.setdefault(name, np.zeros(len(self.maps)))[number] = value

    def _add(self, number: int) -> None:
        found, truth = self.maps.maps[number].astype(np.float64), self.maps.truths[number].astype(np.float64)
        valid = ~np.isnan(truth)
        pixels, wanted = found[valid], truth[valid]
        self._peaks[number] = np.abs(pixels).max()
        error = pixels - wanted
        self._put("pixels", number, len(error))
        self._put("absolute", number, float(np.abs(error).sum()))
        self._put("square", number, float((error**2).sum()))
        if min(truth.shape) >= SSIM_WINDOW:
            self._put("measured", number, 1)
            self._put("ssim", number, _similarity(found, truth, valid))
        if not self.changed[number]:
            self._put("quiet", number, 1)
            self._put("false_share", number, float((np.abs(pixels) >= self.threshold).mean()))
            self._put("false_components", number, self.froc.counts[number])
            return
        region = np.abs(wanted) > self.above
        inside, real = pixels[region], wanted[region]
        self._put("pixels_changed", number, len(real))
        self._put("absolute_changed", number, float(np.abs(error[region]).sum()))
        self._put("square_changed", number, float((error[region] ** 2).sum()))
        self._put("right", number, int((inside * real > 0).sum()))
        moments = {"x": inside, "y": real, "xx": inside**2, "yy": real**2, "xy": inside * real}
        for name, values in moments.items():
            self._put(name, number, float(values.sum()))
        self._overlaps(number, "", np.abs(pixels) >= self.threshold, region)
        for name, sign in self.maps.sides.items():
            there = sign * wanted > self.above
            if there.any():
                self._overlaps(number, f"_{name}", sign * pixels >= self.threshold, there)
                best = int((sign * pixels).argmax())
                self._put(f"pointed_{name}", number, float(sign * pixels[best] > 0 and there[best]))

    def _overlaps(self, number: int, side: str, got: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_]) -> None:
        both, either = int((got & there).sum()), int((got | there).sum())
        self._put(f"pairs{side}", number, 1)
        self._put(f"dice{side}", number, 2 * both / (both + either))
        self._put(f"iou{side}", number, both / either)

    def _ranks(self, sign: int) -> PixelRanks:
        scores, wanted = [], []
        for one, truth, counts in zip(self.maps.maps, self.maps.truths, self.changed, strict=True):
            valid = ~np.isnan(truth) if counts else np.zeros(truth.shape, dtype=np.bool_)
            strength = sign * one[valid] if self.maps.signed else np.abs(one[valid])
            scores.append(strength)
            wanted.append(sign * truth[valid] > self.above)
        return PixelRanks(scores, wanted)

    def _image_area(self, weights: Floats) -> Floats:
        changed, quiet = np.flatnonzero(self.changed), np.flatnonzero(self.quiet)
        if not len(changed) or not len(quiet):
            return np.full(weights.shape[1], np.nan)
        order = self._peaks[changed][:, None] - self._peaks[quiet][None]
        wins = (order > 0) + 0.5 * (order == 0)
        heavy, light = weights[changed], weights[quiet]
        with np.errstate(invalid="ignore", divide="ignore"):
            area: Floats = np.einsum("ir,ij,jr->r", heavy, wins, light, optimize=True)
            share: Floats = area / (heavy.sum(axis=0) * light.sum(axis=0))
        return share


def figures_with_intervals(
    scores: Sequence[Scores], *, resamples: int, seed: int
) -> tuple[list[dict[str, Figure]], list[dict[str, Figure]]]:
    """Figures of several sets of maps of the same pairs, and the first one minus each other, on the same resamples.

    Args:
        scores: of the same pairs in the same order.
        resamples: bootstrap resamples of patients; 0 for none.
        seed: of the resamples.
    """
    clusters = clusters_of(scores[0].maps.patients, len(scores[0].maps))
    values = [one.values() for one in scores]
    blocks: list[list[dict[str, Floats]]] = [[] for _ in scores]
    for weights in resample_weights(clusters, resamples, seed) if resamples else ():
        of_pairs = weights[clusters.index]
        for held, one in zip(blocks, scores, strict=True):
            held.append(one(of_pairs))
    draws = [
        {name: np.concatenate([block[name] for block in held]) if held else np.zeros(0) for name in own}
        for held, own in zip(blocks, values, strict=True)
    ]
    figures = [
        {name: _figure(name, value, held[name]) for name, value in own.items()}
        for own, held in zip(values, draws, strict=True)
    ]
    differences = [
        {
            name: _figure(name, values[0][name] - value, draws[0][name] - held[name])
            for name, value in own.items()
            if name in values[0]
        }
        for own, held in zip(values[1:], draws[1:], strict=True)
    ]
    return figures, differences


def _figure(name: str, value: float, draws: Floats) -> Figure:
    found = bootstrap_interval(name, value, draws)
    return Figure.of(name, value, found, CONVENTIONS[name], headline=name in HEADLINES)


def _mean(rows: Sequence[Floats]) -> Floats:
    """Of both signs; of one where the other is nowhere."""
    table = np.stack(rows)
    there = ~np.isnan(table)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(there, table, 0).sum(axis=0) / there.sum(axis=0)
    return mean


def _correlation(sums: Mapping[str, Floats], nothing: Floats) -> Floats:
    count, x, y, xx, yy, xy = (sums.get(name, nothing) for name in ("pixels_changed", "x", "y", "xx", "yy", "xy"))
    spread = (count * xx - x**2) * (count * yy - y**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding alone gives a constant map a spread; what it is worth is undefined.
        flat = spread <= 1e-12 * (count * xx) * (count * yy)
        return np.where(flat, np.nan, (count * xy - x * y) / np.sqrt(np.where(flat, 1, spread)))


def _similarity(found: Floats, truth: Floats, valid: npt.NDArray[np.bool_]) -> float:
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError:
        raise UsageProblem(
            "SSIM needs scikit-image", hint=install_line(("medcli[diffmap]",)), code="missing-extra"
        ) from None
    images = (np.where(valid, found, 0.0), np.where(valid, truth, 0.0))
    _, everywhere = structural_similarity(*images, data_range=DATA_RANGE, win_size=SSIM_WINDOW, full=True)
    return float(everywhere[valid].mean())
