"""From a loaded model and pictures to explanations: one method for all of them, a bad picture costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medcli.data.dataset import ImageSource, Picture
from medcli.data.decode import UnreadableImage
from medcli.data.resize import normalise, to_tensor
from medcli.errors import RunFailure, UsageProblem
from medcli.explain.methods import Explainer, choose_method
from medcli.explain.questions import Asked, Question, ask
from medcli.models.build import LoadedModel
from medcli.models.device import choose_device

__all__ = ["Case", "Explained", "Explaining"]


@dataclass(frozen=True)
class Case:
    """A picture to explain.

    Args:
        name: how the answer calls it.
        images: where it lies.
        index: its position there.
        questions: what is asked; None for what `Explaining` was told to ask.
        label: its label as in `Samples`, or None.
        kind: `example`, `worst-error`, or empty for a picture the user named.
    """

    name: str
    images: ImageSource
    index: int
    questions: tuple[Question, ...] | None = None
    label: npt.NDArray[Any] | None = None
    kind: str = ""


@dataclass(frozen=True)
class Explained:
    """One explanation.

    Args:
        case: the picture.
        picture: as decoded.
        inputs: what the network saw, [1, C, S, S], normalised.
        question: what was asked.
        grid: the map over the network's input, float32 [h, w], >= 0.
        probability: of the class, in the network's own scores or calibrated.
        answer: whether this class is what the model answers.
    """

    case: Case
    picture: Picture
    inputs: Tensor
    question: Question
    grid: Tensor
    probability: float
    answer: bool

    @property
    def truth(self) -> str:
        """The true class, `yes` or `no` for a label, or empty."""
        return "" if self.case.label is None else self.question.label_of(self.case.label)

    @property
    def empty(self) -> bool:
        """Whether nothing in the picture speaks for the class."""
        return not bool(self.grid.max() > 0)


class Explaining:
    """A model made ready to be explained.

    Args:
        loaded: the model; its parameters take no gradients from here on.
        asked: from `parse_targets`; empty for what the model answers.
        method: `--method`, or None.
        layer: `--layer`, or None.
        device: `--device`.
        batch_size: changed pictures per pass, where the picture is changed.
        calibrate: stored logits [1, ...] to those of calibrated probabilities.

    Raises:
        UsageProblem: no such device; a model that is asked several times per picture.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        asked: Sequence[Asked] = (),
        *,
        method: str | None = None,
        layer: str | None = None,
        device: str = "auto",
        batch_size: int = 32,
        calibrate: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda logits: logits,
    ) -> None:
        if loaded.views is not None:
            raise UsageProblem(
                "this model is several networks or views at once, and an explanation is of one network",
                hint="explain one of its members",
                code="several-networks",
            )
        self.loaded = loaded
        self.asked = tuple(asked)
        self.classifier = loaded.classifier.to(choose_device(device)).eval()
        for parameter in self.classifier.parameters():
            parameter.requires_grad_(False)
        self.explainer: Explainer | None = None
        self._method, self._layer, self._batch_size, self._calibrate = method, layer, batch_size, calibrate

    def explain(
        self, cases: Sequence[Case], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[Explained | tuple[Case, str]]:
        """Explanations in order; for a picture that cannot be read, (case, reason)."""
        for done, case in enumerate(cases, start=1):
            try:
                picture = case.images.read(case.index)
            except UnreadableImage as problem:
                yield case, str(problem.reason)
            else:
                yield from self._one(case, picture)
            if progress is not None:
                progress(done)

    def _one(self, case: Case, picture: Picture) -> Iterator[Explained]:
        how = self.loaded.preprocessing
        device = next(self.classifier.parameters()).device
        inputs = normalise(to_tensor(picture, how)[None].to(device), how)
        with torch.no_grad():
            logits = self.classifier.decode(self.classifier(inputs)).cpu().numpy()
        if np.isnan(logits).any():
            raise RunFailure(f"the network's output for `{case.name}` is not a number", code="not-finite")
        target = self.loaded.spec.target
        scores = np.asarray(self._calibrate(logits))[0]
        answers = {one.name for one in ask(target, (), scores)}
        for question in case.questions or ask(target, self.asked, scores):
            if self.explainer is None:
                self.explainer = choose_method(
                    self.classifier,
                    inputs,
                    question,
                    method=self._method,
                    layer=self._layer,
                    batch_size=self._batch_size,
                )
            grid = self.explainer(self.classifier, inputs, question)
            chance = question.probability(scores)
            answered = chance > 0.5 if target.task == "multilabel" else question.name in answers
            yield Explained(case, picture, inputs, question, grid, chance, answered)
