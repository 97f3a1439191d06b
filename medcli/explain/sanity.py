"""Does an explanation depend on what the network learned? Cascading randomisation (Adebayo et al. 2018).

The weights are destroyed from the answer down to the input, stage by stage, and the explanation is made again each
time. One that hardly changes shows the picture, as an edge detector would, and not the model.

A stage is destroyed by shuffling the numbers within every one of its tensors: nothing that was learned is left, and
activations keep their size, which a fresh start under old batch statistics would not. Batch statistics are then counted
again on the pictures at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from medcli.errors import RunFailure
from medcli.explain.geometry import enlarged
from medcli.explain.methods import MapOf
from medcli.explain.questions import Question
from medcli.models.classifier import Classifier

__all__ = [
    "LIMIT",
    "SanityCheck",
    "Stage",
    "Step",
    "check_sanity",
    "rank_correlation",
    "shown_steps",
    "similarity",
    "stages_of",
]

Floats = npt.NDArray[np.float64]

LIMIT = 0.5
"""Rank correlation or SSIM from which on two maps count as alike; an edge detector's are 1, unrelated maps' near 0."""

MOST_STEPS = 8
SHUFFLES = 3
_SIDE = 64


@dataclass(frozen=True)
class Stage:
    """Part of a network that is destroyed at once."""

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What is left of the explanations once everything from the answer down to `name` is random.

    Args:
        name: the lowest stage destroyed so far.
        stages: how many are.
        rank: mean over pictures and shuffles of Spearman's correlation with the trained network's map.
        ssim: mean of the structural similarity, maps scaled to [0, 1].
        flat: maps that have become constant; they count as 0 in both.
    """

    name: str
    stages: int
    rank: float
    ssim: float
    flat: int

    @property
    def alike(self) -> bool:
        """Whether the maps still look like those of the trained network."""
        return self.rank >= LIMIT or self.ssim >= LIMIT


@dataclass(frozen=True)
class SanityCheck:
    """The outcome.

    Args:
        steps: from the answer downwards; the last one has no learned weight left.
        pictures: how many were explained.
        maps: per picture, the trained network's map and then that of every step of the first shuffle, [h, w].
        shuffles: how often all of it was done; one alone may give a likeness by chance.
    """

    steps: tuple[Step, ...]
    pictures: int
    maps: tuple[tuple[Tensor, ...], ...]
    shuffles: int = 1

    @property
    def outcome(self) -> str:
        """`passed`, `doubtful` where only the lower half of the network decides about the map, or `failed`."""
        if self.steps[-1].alike:
            return "failed"
        stages = self.steps[-1].stages
        half = next(step for step in self.steps if 2 * step.stages >= stages)
        return "doubtful" if half.alike else "passed"

    @property
    def verdict(self) -> str:
        """One sentence."""
        end = self.steps[-1]
        figures = f"with all weights shuffled, rank correlation {end.rank:.2f} and SSIM {end.ssim:.2f}, limit {LIMIT:g}"
        if self.outcome == "failed":
            return f"FAILED: the explanation hardly depends on what was learned ({figures})"
        if self.outcome == "passed":
            return f"passed: the explanation depends on what was learned ({figures})"
        late = [step for step in self.steps if step.alike][-1]
        return (
            f"doubtful: the explanation stays alike (rank correlation {late.rank:.2f}) until more than {late.stages} "
            f"of {end.stages} stages are shuffled from the answer down, so it says little about the answer ({figures})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "outcome": self.outcome,
            "verdict": self.verdict,
            "pictures": self.pictures,
            "shuffles": self.shuffles,
            "limit": LIMIT,
            "steps": [
                {"down_to": one.name, "stages": one.stages, "rank": one.rank, "ssim": one.ssim, "flat": one.flat}
                for one in self.steps
            ],
        }


def check_sanity(
    classifier: Classifier,
    explain: MapOf,
    images: Sequence[Tensor],
    questions: Sequence[Question],
    *,
    seed: int = 0,
    shuffles: int = SHUFFLES,
    progress: Callable[[int], None] | None = None,
) -> SanityCheck:
    """Explain pictures again and again while the network is destroyed; it is whole again afterwards.

    Args:
        classifier: in eval mode.
        explain: the method.
        images: [1, C, S, S] each, normalised.
        questions: one per picture.
        seed: of the shuffling.
        shuffles: how often all of it is done.
        progress: told the number of steps done.

    Raises:
        RunFailure: the trained network's own maps are constant, so that there is nothing to compare.
    """
    pairs = list(zip(images, questions, strict=True))
    original = [explain(classifier, image, question) for image, question in pairs]
    if all(_is_flat(one) for one in original):
        raise RunFailure(
            "the maps of the trained network are the same everywhere, so there is nothing to check",
            hint="try another `--method`, another `--layer` or other pictures",
            code="flat-maps",
        )
    stages = stages_of(classifier)
    counts = shown_steps(len(stages))
    found: dict[int, list[list[Tensor]]] = {count: [] for count in counts}
    for shuffle in range(shuffles):
        generator = torch.Generator().manual_seed(seed * 1000 + shuffle)
        with _restored(classifier):
            for count, stage in enumerate(stages, start=1):
                _destroy(classifier, stage, generator)
                if count not in found:
                    continue
                _count_again(classifier, stages[:count], images)
                found[count].append([explain(classifier, image, question) for image, question in pairs])
                if progress is not None:
                    progress(sum(map(len, found.values())))
    steps = [_compared(stages[count - 1].name, count, original, found[count]) for count in counts]
    maps = [(one, *(found[count][0][at] for count in counts)) for at, one in enumerate(original)]
    return SanityCheck(tuple(steps), len(pairs), tuple(maps), shuffles)


def shown_steps(stages: int) -> tuple[int, ...]:
    """After how many destroyed stages explanations are made again: at most eight times, always at the end."""
    return tuple(sorted({round(float(at)) for at in np.linspace(1, stages, min(MOST_STEPS, stages))}))


def stages_of(classifier: Classifier) -> list[Stage]:
    """The head, then the backbone's stages from the last to the stem; stages without weights are left out."""
    found = []
    for _, members in groupby(classifier.layer_groups(), key=lambda group: group.stage):
        groups = list(members)
        parameters = tuple(name for group in groups for name in group.parameters)
        modules = tuple(name for group in groups for name in group.modules)
        name = groups[0].name if len(groups) == 1 else _common(groups[0].name, groups[-1].name)
        found.append(Stage("head" if name == "medcli_head" else name, parameters, modules))
    return found[::-1]


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation of two maps [h, w]; 0 where one of them is constant."""
    if _is_flat(one) or _is_flat(other):
        return 0.0
    return float(spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic)


def similarity(one: Tensor, other: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) of two maps [h, w] scaled to [0, 1]; 0 where one of them is constant.

    Gaussian windows of sigma 1.5 px on maps enlarged to 64 x 64 px, constants .01 and .03 squared.
    """
    if _is_flat(one) or _is_flat(other):
        return 0.0
    a, b = (_scaled(enlarged(values, _SIDE)) for values in (one, other))
    return _ssim(a, b)


def _ssim(a: Floats, b: Floats) -> float:
    def mean(values: Floats) -> Floats:
        smooth: Floats = gaussian_filter(values, sigma=1.5, truncate=3.5)
        return smooth

    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    inner = (top / bottom)[5:-5, 5:-5]
    return float(inner.mean())


def _scaled(values: Tensor) -> Floats:
    plain: Floats = values.double().numpy()
    return np.asarray((plain - plain.min()) / (plain.max() - plain.min()))


def _is_flat(values: Tensor) -> bool:
    low, high = values.min(), values.max()
    return not bool(high - low > 1e-6 * high.abs())


def _compared(name: str, count: int, original: Sequence[Tensor], shuffled: Sequence[Sequence[Tensor]]) -> Step:
    pairs = [(old, new) for found in shuffled for old, new in zip(original, found, strict=True) if not _is_flat(old)]
    ranks = [rank_correlation(old, new) for old, new in pairs]
    alike = [similarity(old, new) for old, new in pairs]
    flat = sum(_is_flat(new) for _, new in pairs)
    return Step(name, count, float(np.mean(ranks)), float(np.mean(alike)), flat)


@contextmanager
def _restored(classifier: Classifier) -> Iterator[None]:
    """Parameters and buffers are afterwards what they were."""
    tensors = [*classifier.parameters(), *classifier.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    mode = classifier.training
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in zip(tensors, before, strict=True):
                tensor.copy_(values)
        classifier.train(mode)


def _destroy(classifier: Classifier, stage: Stage, generator: torch.Generator) -> None:
    parameters = dict(classifier.named_parameters())
    modules = dict(classifier.named_modules())
    tensors = [parameters[name] for name in stage.parameters]
    for name in stage.modules:
        if isinstance(modules[name], nn.modules.batchnorm._BatchNorm):
            continue
        tensors += [buffer for buffer in modules[name].buffers(recurse=False) if buffer.is_floating_point()]
    with torch.no_grad():
        for tensor in tensors:
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))


def _count_again(classifier: Classifier, stages: Sequence[Stage], images: Sequence[Tensor]) -> None:
    """Batch statistics of the destroyed stages, from these pictures."""
    modules = dict(classifier.named_modules())
    norms = [modules[name] for stage in stages for name in stage.modules]
    norms = [one for one in norms if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.track_running_stats]
    if not norms:
        return
    momenta = [one.momentum for one in norms]
    for one in norms:
        one.reset_running_stats()
        one.momentum = None
        one.train()
    try:
        with torch.no_grad():
            classifier(torch.cat(list(images)))
    except ValueError:
        # One value per channel has no variance: the statistics stay those of nothing seen, mean 0 and variance 1.
        for one in norms:
            one.reset_running_stats()
    finally:
        for one, momentum in zip(norms, momenta, strict=True):
            one.momentum = momentum
            one.eval()


def _common(first: str, last: str) -> str:
    """What two dotted names have in common, or the first where that is nothing."""
    parts = []
    for one, other in zip(first.split("."), last.split("."), strict=False):
        if one != other:
            break
        parts.append(one)
    return ".".join(parts) or first
