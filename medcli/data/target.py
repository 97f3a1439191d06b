"""What is predicted: the shapes of labels and logits follow from one small value, kept as JSON in every file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = ["TASKS", "Output", "Target", "Task", "side_names", "target_from_dict", "target_to_dict"]

Task = Literal["binary", "multiclass", "ordinal", "multilabel", "multioutput"]
TASKS: tuple[Task, ...] = get_args(Task)

_SIDES = frozenset({"left", "right", "laterality", "od", "os"})


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


def side_names(target: Target) -> tuple[str, ...]:
    """Classes and outputs that name a side of the body, so that a mirrored picture would belong to another label."""
    names = [*target.class_names]
    for output in target.outputs:
        names += [output.name, *output.classes]
    return tuple(name for name in names if set(name.lower().replace("-", "_").replace(" ", "_").split("_")) & _SIDES)


def target_to_dict(target: Target) -> dict[str, Any]:
    """A target as plain JSON values; `target_from_dict` reads it back."""
    return {
        "task": target.task,
        "class_names": list(target.class_names),
        "outputs": [
            {"name": output.name, "classes": list(output.classes), "ordinal": output.ordinal}
            for output in target.outputs
        ],
        "positive": target.positive,
    }


def target_from_dict(values: Mapping[str, Any]) -> Target:
    """The target written by `target_to_dict`.

    Raises:
        ValueError: with what is wrong, when the values are no target.
    """
    task = values.get("task")
    if task not in TASKS:
        raise ValueError(f"its task is `{task}`, not one of {', '.join(TASKS)}")
    names = values.get("class_names", [])
    outputs = values.get("outputs", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class names are no list of names")
    if not isinstance(outputs, list):
        raise ValueError("its outputs are no list")
    try:
        parsed = tuple(
            Output(str(one["name"]), tuple(str(name) for name in one["classes"]), bool(one.get("ordinal", False)))
            for one in outputs
        )
        positive = int(values.get("positive", 1))
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError("its outputs lack names or classes") from problem
    if task == "multioutput" and not parsed:
        raise ValueError("it is multioutput but names no outputs")
    if task != "multioutput" and not names:
        raise ValueError("it names no classes")
    if task == "binary" and (len(names) != 2 or positive not in (0, 1)):
        raise ValueError("it is binary but has not two classes and a positive one")
    return Target(task=task, class_names=tuple(names), outputs=parsed, positive=positive)
