"""Pairs of phantom radiographs with the true map between them, drawn from a seed and a number.

The map is the later image minus what it would have been without the change: same pose, same exposure, no noise and no
devices. So it is signed, lies in follow-up coordinates, and is exactly zero where only nuisance differs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.synthetic.anatomy import Anatomy, Floats, draw_anatomy
from medcli.data.synthetic.devices import DEVICES, Device, draw_device
from medcli.data.synthetic.frame import Pose, draw_pose, make_frame
from medcli.data.synthetic.rendering import Exposure, attenuation, develop, draw_exposure
from medcli.diffmap.pairs import Drawn
from medcli.diffmap.story import Story, draw_story

__all__ = ["TRIES", "DrawnPair", "cleaned", "draw_devices", "draw_phantom_pair", "patient_name", "visible"]

FLOOR = 0.015  # smaller differences are the grey scale's, not the patient's
SMALLEST = 50 / 512**2  # share of the image; specks below come from where two findings overlap
SEEN = 0.001  # share of the image that a change must fill, as much as a nodule of an eighth of a lung's width
TRIES = 20


@dataclass(frozen=True)
class DrawnPair:
    """A pair as drawn.

    Args:
        prior: float32 [S, S] in [0, 1].
        current: float32 [S, S] in [0, 1].
        target: float32 [S, S] in [-1, 1].
        valid: bool [S, S]: the prior's film shows this place too.
        parameters: everything that was drawn, for params.json.
    """

    prior: npt.NDArray[np.float32]
    current: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    nuisance_only: bool
    parameters: dict[str, Any]


def patient_name(number: int) -> str:
    """Of the phantom in the pair with this number: every pair has a patient of its own."""
    return f"p{number:05d}"


def draw_phantom_pair(drawn: Drawn, story: Story | None = None) -> DrawnPair:
    """Draw one pair.

    Args:
        drawn: which.
        story: what happens, in place of the one that the seed would draw.
    """
    anatomy = draw_anatomy(drawn.seed, drawn.number)
    nuisance, tale, chance = np.random.default_rng([drawn.seed, drawn.number, 5]).spawn(3)
    poses = _poses(nuisance, drawn.nuisance)
    devices = draw_devices(nuisance, anatomy, drawn.nuisance)
    films = nuisance.spawn(3)
    quiet = bool(chance.random() < drawn.quiet_share)
    # A change may hide behind the heart or be too faint to see: then another one happens.
    for stream in tale.spawn(TRIES):
        told = story or draw_story(stream, anatomy, quiet=quiet)
        pair = _render(drawn, anatomy, told, poses, devices, films)
        if story is not None or told.nuisance_only or visible(pair.target):
            break
        films = nuisance.spawn(3)
    return pair


def visible(target: npt.NDArray[np.float32]) -> bool:
    """Whether a change is large enough to be asked for."""
    return float((target != 0).mean()) >= SEEN


def cleaned(difference: Floats, changed: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """A difference of two noise-free images as a target: small values, far effects (scatter) and specks are zero.

    Args:
        difference: [S, S].
        changed: bool [S, S], where the patient itself differs.
    """
    from scipy.ndimage import binary_dilation, label

    size = len(difference)
    near = binary_dilation(changed, iterations=max(1, size // 128))
    kept = near & (np.abs(difference) >= FLOOR)
    out = np.zeros_like(difference, dtype=np.float32)
    for sign in (1, -1):
        parts, count = label(kept & (sign * difference > 0))
        if count:
            areas = np.bincount(parts.ravel())
            areas[0] = 0
            chosen = (areas >= max(2.0, SMALLEST * size * size))[parts]
            out[chosen] = difference[chosen]
    return np.clip(out, -1, 1)


def _render(
    drawn: Drawn,
    anatomy: Anatomy,
    story: Story,
    poses: tuple[Pose, Pose],
    devices: tuple[tuple[Device, ...], tuple[Device, ...]],
    films: list[np.random.Generator],
) -> DrawnPair:
    size = drawn.size
    before, after = (make_frame(anatomy, pose, size) for pose in poses)
    earlier = attenuation(before, story.prior, devices[0])
    later = attenuation(after, story.current, devices[1])
    exposures = _exposures(films, earlier, later, drawn)
    prior, current = develop(earlier, exposures[0]), develop(later, exposures[1])
    target = np.zeros_like(current)
    if not story.nuisance_only:
        clean = replace(exposures[1], dose=float("inf"))
        with_change, without = attenuation(after, story.current), attenuation(after, story.prior)
        target = cleaned(develop(with_change, clean) - develop(without, clean), np.abs(with_change - without) > 0.004)
    column, row = before.to_pixels(after.x, after.y)
    valid = (column >= -0.5) & (column <= size - 0.5) & (row >= -0.5) & (row <= size - 0.5)
    parameters = {
        "source": "phantom",
        **asdict(drawn),
        "nuisance_only": story.nuisance_only,
        "changes": [change.describe() for change in story.changes],
        "poses": [asdict(pose) for pose in poses],
        "exposures": [asdict(exposure) for exposure in exposures],
        "devices": [sorted({device.name for device in part}) for part in devices],
    }
    return DrawnPair(prior, current, target, valid, story.nuisance_only, parameters)


def _poses(rng: np.random.Generator, amount: float) -> tuple[Pose, Pose]:
    first, second, third = rng.spawn(3)
    own = draw_pose(first, 0.6)  # how this patient is imaged, both times
    return _moved(own, draw_pose(second, 0.8 * amount)), _moved(own, draw_pose(third, 0.8 * amount))


def _moved(own: Pose, by: Pose) -> Pose:
    return Pose(
        own.angle + by.angle,
        (own.shift[0] + by.shift[0], own.shift[1] + by.shift[1]),
        own.zoom * by.zoom,
        own.turn + by.turn,
        own.inspiration + by.inspiration,
    )


def draw_devices(
    rng: np.random.Generator, anatomy: Anatomy, amount: float
) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
    """Devices in the earlier and in the later image; `amount` scales how likely each is."""
    earlier: list[Device] = []
    later: list[Device] = []
    for name, stream in zip(DEVICES, rng.spawn(len(DEVICES)), strict=True):
        if stream.random() >= min(0.6, 0.16 * amount):
            continue
        left = bool(stream.random() < 0.4)
        first, second = (draw_device(stream, name, anatomy, left=left) for _ in range(2))
        fate = stream.random()
        # Half stay but lie a little elsewhere, a quarter are new, a quarter are gone.
        earlier += first if fate < 0.75 else ()
        later += second if fate < 0.5 or fate >= 0.75 else ()
    return tuple(earlier), tuple(later)


def _exposures(films: list[np.random.Generator], earlier: Floats, later: Floats, drawn: Drawn) -> tuple[Exposure, ...]:
    """Both films: the room's own way, and each film's deviation from it scaled by the nuisance."""
    room, first, second = films
    shared = draw_exposure(room, later, (drawn.seed, drawn.number, 6, 0))
    out = []
    for study, (stream, image) in enumerate(((first, earlier), (second, later))):
        own = draw_exposure(stream, image, (drawn.seed, drawn.number, 6, study))
        out.append(_between(shared, own, min(1.0, drawn.nuisance), max(1.0, drawn.nuisance)))
    return tuple(out)


def _between(shared: Exposure, own: Exposure, share: float, beyond: float) -> Exposure:
    def mix(name: str) -> float:
        start, end = float(getattr(shared, name)), float(getattr(own, name))
        return start + (end - start) * share

    return replace(
        own,
        black=mix("black"),
        white=mix("white"),
        curve=float(np.exp(np.log(mix("curve")) * beyond)),
        scatter=mix("scatter"),
        unsharpness=mix("unsharpness"),
        side_marker=shared.side_marker,
        dose=shared.dose,
    )
