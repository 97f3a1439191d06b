"""Several views of one picture, one answer: the network sees crops of a larger picture, probabilities are averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from medcli.data.target import Target, side_names
from medcli.errors import UsageProblem
from medcli.models.build import LoadedModel

__all__ = ["TenCrop", "with_ten_crop"]

# The picture is resized to 256 where the network sees 224, as in the evaluation of AlexNet (Krizhevsky et al. 2012)
# and of the published CheXNet.
ENLARGED = 256 / 224


class TenCrop(nn.Module):
    """Corners and centre, each also mirrored, through one network; mean of the ten probabilities.

    Args:
        network: images [B, C, S, S] -> stored logits [B, *target.logits_shape].
        target: what is predicted.
        size: S.
    """

    def __init__(self, network: nn.Module, decode: Callable[[torch.Tensor], torch.Tensor], target: Target, size: int):
        super().__init__()
        self.network = network
        self.decode = decode
        self.target = target
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, R, R] with R >= S -> logits whose sigmoid or softmax is the mean of ten."""
        crops = self._crops(images)
        views = [view for crop in crops for view in (crop, crop.flip(-1))]
        logits = [self.decode(self.network(view)).float() for view in views]
        if self.target.task == "multilabel":
            mean = torch.stack([torch.sigmoid(one) for one in logits]).mean(0)
            # Ten sigmoids that all round to 0 or 1 would give infinite logits.
            return torch.logit(mean.clamp(1e-12, 1 - 1e-7))
        mean = torch.stack([F.softmax(one, dim=-1) for one in logits]).mean(0)
        padding = logits[0].isneginf()
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log().masked_fill(padding, float("-inf"))

    def _crops(self, images: torch.Tensor) -> list[torch.Tensor]:
        height, width, size = images.shape[-2], images.shape[-1], self.size
        bottom, right = height - size, width - size
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
        return [images[..., top : top + size, left : left + size] for top, left in places]


def with_ten_crop(loaded: LoadedModel) -> LoadedModel:
    """The same model, asked for ten views of every picture; its answers are logits already.

    Raises:
        UsageProblem: a label names a side of the body, which mirroring would turn into the other.
    """
    target, how = loaded.spec.target, loaded.preprocessing
    named = side_names(target)
    if named:
        raise UsageProblem(
            f"`--ten-crop` mirrors the picture, and {', '.join(f'`{name}`' for name in named[:4])} name a side",
            where="--ten-crop",
            hint="leave it out",
            code="flip-breaks-labels",
        )
    views = TenCrop(loaded.classifier, loaded.classifier.decode, target, how.image_size)
    return replace(
        loaded,
        views=views.eval(),
        spec=replace(loaded.spec, head_kind="linear"),
        preprocessing=replace(how, image_size=round(how.image_size * ENLARGED)),
    )
