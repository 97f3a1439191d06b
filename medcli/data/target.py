"""What is predicted: the shapes of labels and logits follow from one small value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["TASKS", "Output", "Target", "Task"]

Task = Literal["binary", "multiclass", "ordinal", "multilabel", "multioutput"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True)
class Output:
    """One label column of a multioutput target.

    Args:
        name: the column.
        classes: class names in label order, without the ignored one.
        ordinal: whether the classes are ordered grades.
    """

    name: str
    classes: tuple[str, ...]
    ordinal: bool = False


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Labels: binary, multiclass and ordinal int64 [n] in 0..K-1; multilabel float32 [n, L] with 0, 1 or NaN (missing);
    multioutput int64 [n, O] with -1 for missing or ignored.

    Args:
        task: one of `TASKS`.
        class_names: K class names; for multilabel the L label names; empty for multioutput.
        outputs: for multioutput, one per label column.
        positive: for binary, the class that counts as the finding (1 unless the user says otherwise).
    """

    task: Task
    class_names: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    positive: int = 1

    @property
    def num_classes(self) -> int:
        """K, L, or the largest number of classes of any output."""
        return max((len(output.classes) for output in self.outputs), default=len(self.class_names))

    @property
    def logits_shape(self) -> tuple[int, ...]:
        """Shape of one case's stored logits: (K,), (L,) or (O, Kmax)."""
        return (len(self.outputs), self.num_classes) if self.task == "multioutput" else (self.num_classes,)
