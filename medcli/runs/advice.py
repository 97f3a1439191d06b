"""What the curves of a finished training say: the one or two things that matter, each with the flag to try.

Trends only: with mixing, smoothing or augmentation the training loss is not on the scale of the validation loss, so the
two are never compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Advice", "advise"]

SHOWN = 2
LEAST_EPOCHS = 4
LAST = 3
# Shares of change that a reader of the curves would call a rise, a fall, a jump, and no change.
RISE, FALL, JUMP, STILL = 1.15, 0.8, 2.0, 0.02
CHANCE_AUC = 0.6
GAIN = 0.005
SLOW_IMAGES, SLOW_SECONDS = 25.0, 1800.0


@dataclass(frozen=True)
class Advice:
    """One thing the curves say.

    Args:
        code: a stable slug.
        seen: what the figures show, with the figures.
        advice: what to try, with the flag.
    """

    code: str
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"{self.seen}: {self.advice}"


def advise(
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    command: str = "train",
    run: str = "RUN",
    stopped_early: bool = False,
) -> tuple[Advice, ...]:
    """At most two pieces of advice, the weightiest first; none for a training too short to judge.

    Args:
        rows: the rows of `metrics.jsonl`, one per epoch.
        settings: the run's resolved settings.
        command: what made the run: `train`, `finetune` or `lora`.
        run: its path, for the commands named.
        stopped_early: whether patience ended it.
    """
    if len(rows) < LEAST_EPOCHS:
        return ()
    train, val = _curve(rows, "train_loss"), _curve(rows, "val_loss")
    found = [
        *_one_class(rows, settings),
        *_not_learning(rows, train, settings, command),
        *_unstable(train, settings),
        *_over_fitting(train, val, settings, command),
        *_not_finished(rows, train, settings, command, run, stopped_early),
        *_slow(rows),
    ]
    return tuple(found[:SHOWN])


def _curve(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    values = [row.get(name) for row in rows]
    return [float(value) if isinstance(value, int | float) else math.nan for value in values]


def _one_class(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Iterator[Advice]:
    """A balanced accuracy of exactly one over a whole number is what naming one class for everything gives."""
    last = rows[-1].get("val_balanced_accuracy")
    if not isinstance(last, float) or not 0 < last <= 0.5 or abs(1 / last - round(1 / last)) > 1e-9:
        return
    if settings.get("class_weights", "none") == "none" and settings.get("sampler") != "balanced":
        yield Advice(
            "one-class",
            f"every validation image got the same class (balanced accuracy {last:.3f})",
            "`--class-weights balanced` or `--sampler balanced` makes the rare classes count",
        )


def _not_learning(
    rows: Sequence[Mapping[str, Any]], train: Sequence[float], settings: Mapping[str, Any], command: str
) -> Iterator[Advice]:
    lowest = min(train)
    hardly = train[0] - lowest < STILL * abs(train[0])
    areas = [value for value in _curve(rows, "val_auc") if not math.isnan(value)]
    best = max(areas, default=1.0)
    by_chance = best < CHANCE_AUC
    if not hardly and not (by_chance and command != "lora"):
        return
    seen = (
        f"the training loss hardly moved ({train[0]:.3f} to {lowest:.3f})"
        if hardly
        else f"the validation AUC never left chance (best {best:.3f})"
    )
    rate = settings.get("lr")
    higher = f"`--lr {rate * 10:g}`" if isinstance(rate, float) and rate < 1e-2 else "another `--lr`"
    if command == "lora":
        rank = settings.get("rank") or 8
        yield Advice("underfitting", seen, f"more capacity: `--rank {rank * 2} --targets all-linear`, or {higher}")
    elif settings.get("strategy") == "frozen":
        yield Advice("underfitting", seen, f"let the backbone learn too: `--strategy layerwise`, or try {higher}")
    else:
        yield Advice(
            "not-learning", seen, f"`--overfit-batch` tells whether it can learn at all; then {higher}, or check labels"
        )


def _unstable(train: Sequence[float], settings: Mapping[str, Any]) -> Iterator[Advice]:
    # Small losses jitter, most of all with mixing; a step that was too large goes back to where it all began.
    jumps = [i for i in range(1, len(train)) if train[i] > JUMP * train[i - 1] and train[i] > FALL * train[0]]
    if not jumps:
        return
    rate = settings.get("lr")
    lower = f"`--lr {rate / 3:.1g}`" if isinstance(rate, float) else "a lower `--lr`"
    warm = " or `--warmup-epochs 3`" if not settings.get("warmup_epochs") else ""
    first = jumps[0]
    yield Advice(
        "unstable",
        f"the training loss jumped from {train[first - 1]:.3f} to {train[first]:.3f} in epoch {first + 1}",
        f"{lower}{warm} is steadier",
    )


def _over_fitting(
    train: Sequence[float], val: Sequence[float], settings: Mapping[str, Any], command: str
) -> Iterator[Advice]:
    if any(math.isnan(value) for value in val):
        return
    best = min(range(len(val)), key=val.__getitem__)
    last = sum(val[-LAST:]) / LAST
    if best >= len(val) - LAST or last < RISE * val[best] or train[-1] > FALL * train[best]:
        return
    tries = []
    if settings.get("augment", "none") in {"none", "light"}:
        tries.append("`--augment medium`")
    if (settings.get("dropout") or 0.0) < 0.3:
        tries.append("`--dropout 0.5`")
    if (settings.get("weight_decay") or 0.0) < 0.01:
        tries.append("`--weight-decay 0.05`")
    if command == "train" and not settings.get("pretrained") and not settings.get("weights"):
        tries.append("pretrained weights (`medcli finetune`)")
    elif settings.get("strategy") in {"full", "layerwise"}:
        tries.append("fewer weights that learn (`--strategy frozen`, or `medcli lora`)")
    if not tries:
        tries.append(f"fewer epochs (`--epochs {best + 2}`)" if not settings.get("patience") else "more images")
    yield Advice(
        "over-fitting",
        f"the validation loss rose from {val[best]:.3f} (epoch {best + 1}) to {last:.3f} while the training loss fell",
        f"it learns the training images by heart; try {' or '.join(tries[:2])}",
    )


def _not_finished(
    rows: Sequence[Mapping[str, Any]],
    train: Sequence[float],
    settings: Mapping[str, Any],
    command: str,
    run: str,
    stopped_early: bool,
) -> Iterator[Advice]:
    """Still better at the very end: the best epoch is the last or last but one, and a quarter of the run gained."""
    best = max((index for index, row in enumerate(rows) if row.get("best")), default=-1)
    quarter = max(1, len(rows) // 4)
    if stopped_early or best < len(rows) - 2 or train[-1] > train[-1 - quarter] * (1 - GAIN):
        return
    epochs = len(rows)
    # A schedule that ends with the run has brought its rate to nothing; going on from there would learn nothing more.
    if settings.get("scheduler") in {"onecycle", "cosine"}:
        yield Advice("not-finished", "it was still getting better at the end", f"`--epochs {epochs * 2}`")
    else:
        yield Advice(
            "not-finished",
            "it was still getting better at the end",
            f"`medcli {command} --resume {run} --extend {max(5, epochs // 2)}`",
        )


def _slow(rows: Sequence[Mapping[str, Any]]) -> Iterator[Advice]:
    rates = [value for value in _curve(rows, "images_per_second")[1:] if not math.isnan(value)]
    seconds = sum(value for value in _curve(rows, "seconds") if not math.isnan(value))
    if not rates or seconds < SLOW_SECONDS or sorted(rates)[len(rates) // 2] > SLOW_IMAGES:
        return
    way = "`medcli finetune ARCH --strategy frozen` reads every image once"
    yield Advice(
        "slow",
        f"{sorted(rates)[len(rates) // 2]:.0f} images/s for {seconds / 60:.0f} minutes",
        f"{way}; a smaller `--image-size` or network helps too (`medcli models recommend --goal speed`)",
    )
