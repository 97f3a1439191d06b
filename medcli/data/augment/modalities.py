"""What each kind of picture bears: the safe changes of `--augment modality`, and which operations of a policy remain.

A change is safe when the same patient, photographed again, could have given that picture with the same label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from medcli.data.augment.strengths import Strength
from medcli.errors import UsageProblem, nearest

__all__ = ["MODALITIES", "Modality", "modality_named"]


@dataclass(frozen=True)
class Modality:
    """What one kind of picture bears.

    Args:
        safe: ranges of `--augment modality`; its rotation, shear and shift also bound every policy.
        operations: the operations of RandAugment and AutoAugment that remain, by their published names.
        enhance: largest change of brightness, contrast, colour and sharpness in a policy, as a share.
    """

    safe: Strength
    operations: frozenset[str]
    enhance: float = 0.3


_PLACE = frozenset({"Identity", "TranslateX", "TranslateY", "Rotate"})
_SHEAR = frozenset({"ShearX", "ShearY"})
_LIGHT = frozenset({"Brightness", "Contrast", "Sharpness"})
# Both stretch values by the picture's own extremes. Where grey is an exposure this is what a console does; where values
# are measured (CT) it would destroy them, and on colours, each channel by itself, it would change the hue.
_STRETCH = frozenset({"AutoContrast", "Equalize"})

_RADIOGRAPH = Modality(
    Strength(shift=0.05, rotate=10, scale=0.10, gamma=0.15, contrast=0.15, noise=0.01),
    _PLACE | _LIGHT | _STRETCH,
)

# Posterise, solarise and invert remain nowhere: they undo the order of the grey values, which is the finding.
MODALITIES: Mapping[str, Modality] = MappingProxyType(
    {
        # No mirroring: it would move the heart to the right.
        "chest-xray": _RADIOGRAPH,
        "xray": _RADIOGRAPH,
        "mammography": _RADIOGRAPH,
        # A disc on black: any rotation is a camera held otherwise, and black is what lies outside. No contrast about
        # grey, which would lift that black.
        "fundus": Modality(
            Strength(
                shift=0.03,
                rotate=180,
                scale=0.08,
                gamma=0.15,
                gain=0.10,
                hue=3,
                saturation=0.15,
                fill="zeros",
                flip="horizontal",
            ),
            _PLACE | _LIGHT - {"Contrast"} | {"Color"},
            enhance=0.2,
        ),
        # No `Color` and no stretching of channels: colour is part of the diagnosis.
        "dermoscopy": Modality(
            Strength(
                shift=0.05,
                rotate=15,
                scale=0.10,
                shear=8,
                contrast=0.10,
                brightness=0.05,
                hue=3,
                saturation=0.10,
                turns=True,
                fill="reflection",
                flip="both",
            ),
            _PLACE | _SHEAR | _LIGHT,
            enhance=0.2,
        ),
        # No change of size: magnification is signal.
        "histology": Modality(
            Strength(
                shift=0.03,
                rotate=10,
                stain=0.05,
                contrast=0.08,
                brightness=0.03,
                turns=True,
                fill="reflection",
                flip="both",
            ),
            _PLACE | _LIGHT,
            enhance=0.2,
        ),
        # Size and colour of a stained cell name its kind.
        "blood": Modality(
            Strength(
                shift=0.05,
                rotate=15,
                contrast=0.10,
                brightness=0.05,
                hue=3,
                saturation=0.10,
                turns=True,
                fill="reflection",
                flip="both",
            ),
            _PLACE | _LIGHT,
            enhance=0.2,
        ),
        # No equalising: it makes a picture of the noise between bright cells.
        "tissue": Modality(
            Strength(
                shift=0.05,
                rotate=15,
                gamma=0.15,
                contrast=0.15,
                noise=0.01,
                turns=True,
                fill="reflection",
                flip="both",
            ),
            _PLACE | _LIGHT | {"AutoContrast"},
        ),
        # Upside down the layers of the retina would be in the wrong order.
        "oct": Modality(
            Strength(shift=0.05, rotate=10, scale=0.05, gamma=0.10, contrast=0.10, speckle=0.10, flip="horizontal"),
            _PLACE | _LIGHT,
        ),
        # Contrast and brightness together are another window (width and level). No mirroring: organs have sides.
        "ct": Modality(
            Strength(shift=0.05, rotate=10, scale=0.10, contrast=0.15, brightness=0.05, noise=0.01),
            _PLACE | {"Brightness", "Contrast"},
            enhance=0.2,
        ),
        "mri": Modality(
            Strength(shift=0.05, rotate=10, scale=0.10, gamma=0.15, contrast=0.15, brightness=0.05, noise=0.01),
            _PLACE | _LIGHT | {"AutoContrast"},
        ),
        # Upside down the sound would come from below. Black wedges at the edge would look like shadows.
        "ultrasound": Modality(
            Strength(
                shift=0.05,
                rotate=10,
                scale=0.10,
                gamma=0.15,
                gain=0.10,
                speckle=0.10,
                fill="reflection",
                flip="horizontal",
            ),
            _PLACE | _LIGHT,
        ),
    }
)


def modality_named(name: str) -> Modality:
    """What a kind of picture bears.

    Raises:
        UsageProblem: no such kind, with the nearest one.
    """
    if name in MODALITIES:
        return MODALITIES[name]
    close = nearest(name.lower(), MODALITIES, limit=1)
    known = ", ".join(f"`{one}`" for one in MODALITIES)
    raise UsageProblem(
        f"`{name}` is no kind of picture whose safe changes are known",
        where="--modality",
        hint=(f"did you mean `{close[0]}`? " if close else "") + f"known are {known}",
        code="unknown-modality",
    )
