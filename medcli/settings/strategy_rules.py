"""Rules between a strategy and what it leaves to learn, and when; part of `settings.rules`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from medcli.settings.fields import all_fields, fields_of
from medcli.settings.groups import TrainingSettings

if TYPE_CHECKING:
    from medcli.settings.rules import Complaint, Situation

__all__ = ["STRATEGY_RULES"]


def _joining(now: Situation) -> Iterator[Complaint]:
    epochs = now.values["unfreeze_at"]
    if now.values["strategy"] != "gradual":
        return
    if any(later <= earlier for earlier, later in pairwise(epochs)):
        yield "the epochs of `--unfreeze-at` must rise", ("unfreeze_at",), "--unfreeze-at 1,10,20"
    # A recipe's epochs are clipped to the run and that is said; what the user typed is not changed silently.
    late = [epoch for epoch in epochs if epoch >= now.values["epochs"]]
    if late and now.typed("unfreeze_at"):
        last = now.values["epochs"] - 1
        message = (
            f"`--unfreeze-at` names epoch {late[0]}, and the last of `--epochs {last + 1}` is {last} (counted from 0)"
        )
        yield message, ("unfreeze_at", "epochs"), f"leave it out, or train longer: `--epochs {late[-1] + 1}`"


def _rates(now: Situation) -> Iterator[Complaint]:
    if now.values["strategy"] == "layerwise" and now.values["stage_lr"] and now.typed("layer_decay"):
        yield (
            "`--stage-lr` and `--layer-decay` exclude each other: both say the rates of the stages",
            ("stage_lr",),
            None,
        )


def _probe(now: Situation) -> Iterator[Complaint]:
    if now.values["strategy"] == "lp-ft" and now.values["probe_epochs"] >= now.values["epochs"]:
        probe, epochs = now.values["probe_epochs"], now.values["epochs"]
        message = f"`--probe-epochs {probe}` leaves no epoch of `--epochs {epochs}` for the rest"
        yield message, ("probe_epochs", "epochs"), None


_LEARNT = ("resume", "extend", "init_from", "accept_data_change", "monitor")
"""Settings of training that act without any training."""

_INERT_PARTS: Mapping[str, tuple[str, ...]] = {
    "frozen": ("drop_path", "freeze_layers", "grad_checkpointing"),
    "knn": (
        *(field.name for field in fields_of(TrainingSettings) if field.name not in _LEARNT),
        *("dropout", "drop_path", "processes"),
    ),
}
"""What a strategy leaves nothing to do for: `frozen` never learns in the backbone, `knn` never learns at all."""


def _nothing_to_do(now: Situation) -> Iterator[Complaint]:
    strategy = now.values["strategy"]
    for setting in _INERT_PARTS.get(strategy, ()):
        if setting not in now.values or not now.typed(setting):
            continue
        if now.origins["strategy"].rank <= now.origins[setting].rank:
            why = "nothing is trained" if strategy == "knn" else "the backbone does not learn"
            flag = all_fields()[setting].flag
            yield f"`{flag}` does nothing with `--strategy {strategy}`: {why}", (setting,), "leave it out"


STRATEGY_RULES = (
    (("strategy", "unfreeze_at", "epochs"), _joining),
    (("strategy", "stage_lr", "layer_decay"), _rates),
    (("strategy", "probe_epochs", "epochs"), _probe),
    (("strategy",), _nothing_to_do),
)
"""The settings of each rule, and the rule."""
