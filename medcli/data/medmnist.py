"""Facts about the twelve two-dimensional MedMNIST sets, which their .npz files do not hold (MedMNIST v2, CC BY 4.0)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MedMnist", "known_set"]

ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip


@dataclass(frozen=True)
class MedMnist:
    """One set.

    Args:
        task: as in `medcli.data.target.TASKS`.
        classes: names in label order.
        positive: for binary, the class that is the finding.
        caution: what whoever reports figures on this set should know.
    """

    task: str
    classes: tuple[str, ...]
    positive: str | None = None
    caution: str = ""


SETS = {
    "pathmnist": MedMnist(
        "multiclass",
        ("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
         "cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    ),
    "chestmnist": MedMnist(
        "multilabel",
        ("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
         "consolidation", "edema", "emphysema", "fibrosis", "pleural thickening", "hernia"),
    ),
    "dermamnist": MedMnist(
        "multiclass",
        ("actinic keratoses", "basal cell carcinoma", "benign keratosis-like lesions", "dermatofibroma", "melanoma",
         "melanocytic nevi", "vascular lesions"),
        caution="886 of the 2005 test images of DermaMNIST show a lesion that is in train too (Abhishek et al. 2025)",
    ),
    "octmnist": MedMnist("multiclass", ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal")),
    "pneumoniamnist": MedMnist("binary", ("normal", "pneumonia"), "pneumonia"),
    "retinamnist": MedMnist("ordinal", ("0", "1", "2", "3", "4")),
    "breastmnist": MedMnist("binary", ("malignant", "normal or benign"), "malignant"),
    "bloodmnist": MedMnist(
        "multiclass",
        ("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil",
         "platelet"),
    ),
    "tissuemnist": MedMnist(
        "multiclass",
        ("collecting duct or connecting tubule", "distal convoluted tubule", "glomerular endothelial cells",
         "interstitial endothelial cells", "leukocytes", "podocytes", "proximal tubule segments",
         "thick ascending limb"),
    ),
    "organamnist": MedMnist("multiclass", ORGANS),
    "organcmnist": MedMnist("multiclass", ORGANS),
    "organsmnist": MedMnist("multiclass", ORGANS),
}  # fmt: skip


def known_set(path: str) -> MedMnist | None:
    """The set that a file is called after: `breastmnist.npz`, `breastmnist_224.npz`, any case."""
    match = re.fullmatch(r"([a-z]+mnist)(?:_(?:28|64|128|224))?", Path(path).stem.lower())
    return SETS.get(match[1]) if match else None
