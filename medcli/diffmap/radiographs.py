"""Pairs made from real radiographs: one film shown twice, with findings drawn into it and with other pose and exposure.

A phantom is fitted to each film, which says where lungs, heart and pleura lie; its findings are then painted in the
film's own grey values. The map follows the same rule as for phantoms: later film minus what it would be without change.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

from medcli.data.synthetic.anatomy import Anatomy, draw_anatomy
from medcli.data.synthetic.devices import Device
from medcli.data.synthetic.findings import Findings
from medcli.data.synthetic.frame import FRONTAL, Frame, make_frame
from medcli.data.synthetic.rendering import Exposure, attenuation, develop
from medcli.data.synthetic.shapes import (
    collapsed,
    congestion_reach,
    consolidated,
    drawn_device,
    fluid_cover,
    heart_cover,
    round_opacity,
)
from medcli.diffmap.nuisance import Film, Warp, draw_film, draw_warp, exposed
from medcli.diffmap.pairs import Drawn
from medcli.diffmap.phantom import TRIES, DrawnPair, cleaned, draw_devices, visible
from medcli.diffmap.reading import squared_image
from medcli.diffmap.registration import register, rough_agreement
from medcli.diffmap.story import Story, draw_story

__all__ = ["Fitted", "draw_radiograph_pair", "fit_phantom"]

LEAST_FIT = 0.5  # correlation of local detail between film and phantom; other views, a collapsed lung stay below
MODELS = (0, 3, 7)  # phantoms to try: their chests are narrow, middling and broad
FIT_SIZE = 256
Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fitted:
    """A film with the phantom that lies under it.

    Args:
        image: float32 [S, S] in [0, 1].
        valid: bool [S, S].
        anatomy: of the phantom.
        frame: the phantom's own grid at S pixels.
        at: float32 [2, S, S], phantom pixel (row, column) of each film pixel.
        air: grey value of the film's lungs.
        solid: grey value of its heart and mediastinum.
        agreement: of film and phantom.
    """

    image: Image
    valid: Mask
    anatomy: Anatomy
    frame: Frame
    at: Image
    air: float
    solid: float
    agreement: float

    def laid(self, cover: npt.NDArray[Any]) -> Image:
        """Something drawn on the phantom's grid, on the film's."""
        return _moved(np.asarray(cover, np.float32), self.at)


@lru_cache(maxsize=8)
def fit_phantom(path: str, size: int) -> Fitted | None:
    """Fit a phantom to a film; None where none fits.

    Raises:
        RunFailure: the file cannot be read.
    """
    coarse, coarse_valid, _ = squared_image(path, FIT_SIZE)
    if not coarse_valid.any() or float(np.ptp(coarse[coarse_valid])) < 0.05:
        return None
    everything = np.ones((FIT_SIZE, FIT_SIZE), dtype=bool)
    tried = []
    for number in MODELS:
        anatomy = draw_anatomy(0, number)
        film = develop(attenuation(make_frame(anatomy, FRONTAL, FIT_SIZE)), _PLAIN)
        tried.append((rough_agreement(film, coarse, everything, coarse_valid), number, film))
    _, number, film = max(tried, key=lambda one: one[0])
    anatomy = draw_anatomy(0, number)
    found = register(film, coarse, "bspline", followup_valid=coarse_valid)
    quality = found.quality
    if quality.ncc_after < LEAST_FIT or not 0.5 < quality.scale < 2.0 or abs(quality.turn) > 20:
        return None
    image, valid, _ = squared_image(path, size)
    factor = size / FIT_SIZE
    at = found.transform.coordinates()
    rows = (np.arange(size) + 0.5) / factor - 0.5
    grid = np.stack(np.meshgrid(rows, rows, indexing="ij"))
    full = np.stack([(map_coordinates(part, grid, order=1, mode="nearest") + 0.5) * factor - 0.5 for part in at])
    fitted = Fitted(
        image, valid, anatomy, make_frame(anatomy, FRONTAL, size), full.astype(np.float32), 0, 1, quality.ncc_after
    )
    heart = fitted.laid(heart_cover(fitted.frame, 1.0))
    lung = fitted.laid(fitted.frame.lung) * (1 - heart)
    lungs, solid = image[(lung > 0.9) & valid], image[(heart > 0.8) & valid]
    if lungs.size < 100 or solid.size < 50:
        return None
    dark, bright = float(np.percentile(lungs, 35)), float(np.median(solid))
    if bright < dark + 0.04:
        return None  # no lungs darker than the heart: not a frontal chest, or black and white exchanged
    return replace(fitted, air=dark, solid=bright)


def draw_radiograph_pair(drawn: Drawn, fitted: Fitted, story: Story | None = None) -> DrawnPair:
    """One film as a pair.

    Args:
        drawn: which; its size is the fitted film's.
        fitted: the film.
        story: what happens, in place of the one that the seed would draw.
    """
    size = len(fitted.image)
    nuisance, tale, chance = np.random.default_rng([drawn.seed, drawn.number, 8]).spawn(3)
    first, second, wired, film = nuisance.spawn(4)
    warps = tuple(draw_warp(stream, drawn.nuisance) for stream in (first, second))
    devices = draw_devices(wired, fitted.anatomy, drawn.nuisance)
    films = tuple(
        draw_film(stream, drawn.nuisance, (drawn.seed, drawn.number, 9, k)) for k, stream in enumerate(film.spawn(2))
    )
    quiet = bool(chance.random() < drawn.quiet_share)
    for stream in tale.spawn(TRIES):
        told = story or draw_story(stream, fitted.anatomy, quiet=quiet)
        pair = _render(drawn, fitted, told, warps, devices, films, size)
        if story is not None or told.nuisance_only or visible(pair.target):
            break
    return pair


_PLAIN = Exposure(black=0.15, white=1.35, scatter=0.2, dose=float("inf"), side_marker=False)


def _render(
    drawn: Drawn,
    fitted: Fitted,
    story: Story,
    warps: tuple[Warp, ...],
    devices: tuple[tuple[Device, ...], tuple[Device, ...]],
    films: tuple[Film, ...],
    size: int,
) -> DrawnPair:
    before, after = (_painted(fitted, findings) for findings in (story.prior, story.current))
    at = [warp.coordinates(size) for warp in warps]
    prior = exposed(_moved(_wired(fitted, before, devices[0]), at[0]), films[0])
    current = exposed(_moved(_wired(fitted, after, devices[1]), at[1]), films[1])
    target = np.zeros((size, size), np.float32)
    if not story.nuisance_only:
        clean = replace(films[1], noise=0.0)
        with_change, without = _moved(after, at[1]), _moved(before, at[1])
        target = cleaned(exposed(with_change, clean) - exposed(without, clean), np.abs(with_change - without) > 0.004)
    shown = map_coordinates(fitted.valid.astype(np.float32), at[1], order=1, mode="constant") > 0.99
    valid = shown & warps[0].shows(at[1], size)
    target[~valid] = 0
    parameters = {
        "source": "radiograph",
        **asdict(drawn),
        "nuisance_only": story.nuisance_only,
        "changes": [change.describe() for change in story.changes],
        "poses": [asdict(warp) for warp in warps],
        "exposures": [asdict(film) for film in films],
        "devices": [sorted({device.name for device in part}) for part in devices],
        "phantom_agreement": round(fitted.agreement, 4),
    }
    return DrawnPair(prior, current, target, valid, story.nuisance_only, parameters)


def _moved(image: Image, at: Image) -> Image:
    return np.asarray(map_coordinates(image, at, order=1, mode="constant", output=np.float32), dtype=np.float32)


def _painted(fitted: Fitted, findings: Findings) -> Image:
    """The film with findings: each covers what is darker than itself and hides the detail below it."""
    frame, image = fitted.frame, fitted.image
    size = len(image)
    contrast = fitted.solid - fitted.air
    clear = np.ones_like(image)
    heart = heart_cover(frame, findings.heart)
    lung = fitted.laid(frame.lung)
    for one in findings.consolidations:
        clear *= 1 - np.clip(fitted.laid(consolidated(frame, one)) * np.float32(2.0), 0, 0.75) * lung
    for nodule in findings.nodules:
        clear *= 1 - np.clip(fitted.laid(round_opacity(frame, nodule)) * np.float32(2.2), 0, 0.75) * lung
    for effusion in findings.effusions:
        clear *= 1 - np.float32(0.92) * fitted.laid(fluid_cover(frame, effusion) * frame.lung)
    if findings.heart > 1:
        clear *= 1 - np.float32(0.95) * fitted.laid(heart * frame.lung)
    if findings.congestion:
        clear *= 1 - np.float32(0.38 * findings.congestion) * fitted.laid(congestion_reach(frame)) * lung
    smooth = gaussian_filter(image, size / 36, mode="nearest")
    fine = image - smooth
    vessels = np.clip(gaussian_filter(image, size / 400, mode="nearest") - gaussian_filter(image, size / 60), 0, None)
    out = image
    if findings.congestion:
        out = out + np.float32(0.8 * findings.congestion) * vessels * fitted.laid(congestion_reach(frame)) * lung
    cover = 1 - clear
    out = out + cover * np.maximum(np.float32(fitted.solid) - smooth, 0) - np.float32(0.55) * cover * fine
    if findings.pneumothorax is not None:
        inside, line = collapsed(frame, findings.pneumothorax)
        air = fitted.laid((1 - inside) * frame.lung) * clear
        # No lung: no vessels and no tissue, while ribs and wall stay.
        out = out - air * (np.float32(0.28 * contrast) + np.float32(0.55) * vessels)
        out = out + np.float32(0.12 * contrast) * fitted.laid(line * frame.lung) * clear
    return np.where(fitted.valid, np.clip(out, 0, 1), image).astype(np.float32)


def _wired(fitted: Fitted, image: Image, devices: tuple[Device, ...]) -> Image:
    if not devices:
        return image
    drawn = sum((drawn_device(fitted.frame, device) for device in devices), np.zeros_like(fitted.frame.x))
    strength = np.float32(max(0.25, 1.4 * (fitted.solid - fitted.air)))
    return np.where(fitted.valid, np.clip(image + strength * fitted.laid(drawn), 0, 1), image).astype(np.float32)
