"""Random changes of training images: general levels, the safe changes of a kind of picture, published policies."""

from medcli.data.augment.augmentation import Augmentation, Kind
from medcli.data.augment.modalities import MODALITIES, Modality, modality_named
from medcli.data.augment.strengths import LEVELS, Flip, Level, Strength

__all__ = ["LEVELS", "MODALITIES", "Augmentation", "Flip", "Kind", "Level", "Modality", "Strength", "modality_named"]
