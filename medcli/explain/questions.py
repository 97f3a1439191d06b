"""What an explanation explains: one number that the network gives out, and the words for it.

The number is the stored logit of a class or label. Of two classes it is the difference of their logits, because what
both logits share decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medcli.data.target import Target
from medcli.errors import UsageProblem, nearest
from medcli.evaluation.scores import sigmoid, softmax

__all__ = ["Question", "ask", "parse_targets", "predicted"]


@dataclass(frozen=True)
class Question:
    """Why this class?

    Args:
        target: what the model predicts.
        chosen: position of the class or label; within its output for a multioutput target.
        output: position of the output, 0 where there is but one.
    """

    target: Target
    chosen: int
    output: int = 0

    @property
    def name(self) -> str:
        """Such as `PNEUMONIA`, or `dr_grade/3` where there are several outputs."""
        if self.target.outputs:
            output = self.target.outputs[self.output]
            return f"{output.name}/{output.classes[self.chosen]}"
        return self.target.class_names[self.chosen]

    def score(self, logits: Tensor) -> Tensor:
        """Stored logits [B, *target.logits_shape] -> the number that is explained, [B]."""
        if self.target.task == "multioutput":
            return logits[:, self.output, self.chosen]
        if self.target.task == "binary":
            return logits[:, self.chosen] - logits[:, 1 - self.chosen]
        return logits[:, self.chosen]

    def probability(self, logits: npt.NDArray[Any]) -> float:
        """Of one case's logits [*target.logits_shape]."""
        if self.target.task == "multilabel":
            return float(sigmoid(logits)[self.chosen])
        return float(softmax(logits)[(self.output, self.chosen) if self.target.outputs else self.chosen])

    def label_of(self, label: npt.NDArray[Any] | float | int) -> str:
        """The truth about this question in a label of `Samples`: a class name, `yes` or `no`; empty where unknown."""
        values = np.asarray(label)
        if self.target.task == "multilabel":
            value = values[self.chosen]
            return "" if np.isnan(value) else "yes" if value else "no"
        names = self.target.outputs[self.output].classes if self.target.outputs else self.target.class_names
        own = int(values[self.output]) if self.target.outputs else int(values)
        return "" if own < 0 else names[own]


def predicted(target: Target, logits: npt.NDArray[Any]) -> tuple[Question, ...]:
    """What the model itself answers for one case: its class, its most likely label, or the class of every output."""
    if target.outputs:
        return tuple(
            Question(target, int(np.argmax(logits[position, : len(output.classes)])), position)
            for position, output in enumerate(target.outputs)
        )
    return (Question(target, int(np.argmax(logits))),)


Asked = tuple[int, int | None]


def parse_targets(target: Target, wanted: Sequence[str]) -> tuple[Asked, ...]:
    """Names of `--target` as (output, class); a class of None is the predicted one of that output.

    Args:
        target: what the model predicts.
        wanted: classes, labels, `OUTPUT` or `OUTPUT/CLASS`; empty for what the model predicts.

    Raises:
        UsageProblem: no such class.
    """
    return tuple(_parse(target, name) for name in wanted)


def ask(target: Target, asked: Sequence[Asked], logits: npt.NDArray[Any]) -> tuple[Question, ...]:
    """The questions about one case.

    Args:
        target: what the model predicts.
        asked: from `parse_targets`.
        logits: of the case, [*target.logits_shape].
    """
    if not asked:
        return predicted(target, logits)
    answers = predicted(target, logits)
    return tuple(answers[output] if chosen is None else Question(target, chosen, output) for output, chosen in asked)


def _parse(target: Target, name: str) -> Asked:
    known: dict[str, Asked] = {}
    for position, output in enumerate(target.outputs):
        known[output.name] = (position, None)
        known |= {f"{output.name}/{label}": (position, place) for place, label in enumerate(output.classes)}
    known |= {label: (0, place) for place, label in enumerate(target.class_names)}
    if name in known:
        return known[name]
    plain = {word.casefold(): word for word in known}
    close = [plain[word] for word in nearest(name.casefold(), plain)] or list(known)
    kind = "label" if target.task == "multilabel" else "output or class" if target.outputs else "class"
    listed = ", ".join(f"`{word}`" for word in close[:12]) + (" …" if len(close) > 12 else "")
    raise UsageProblem(
        f"the model has no {kind} `{name}`", where="--target", hint=f"one of {listed}", code="unknown-target"
    )
