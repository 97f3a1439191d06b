"""Rules between settings that need no data: contradictions, and settings that could not act as things stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.settings.balance_rules import BALANCE_RULES, REDUCED_BY_MODALITY
from medcli.settings.fields import all_fields
from medcli.settings.layers import Origin
from medcli.settings.strategy_rules import STRATEGY_RULES

__all__ = ["Situation", "broken_rules"]


@dataclass(frozen=True)
class Situation:
    """All a rule may look at.

    Args:
        values: field name -> typed value, of one command.
        origins: field name -> where it came from.
        saved: fields whose value a run's own file supplies.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, Origin]
    saved: Collection[str] = ()

    def typed(self, name: str) -> bool:
        """Whether the user asked for this value, rather than a default, a recipe, a preset or a saved run."""
        layer = self.origins[name].layer
        return layer in ("variable", "flag") or (layer.endswith("file") and name not in self.saved)

    def where(self, *names: str) -> str:
        """The origins of some settings, for a message."""
        return ", ".join(dict.fromkeys(str(self.origins[name]) for name in names))


Complaint = tuple[str, tuple[str, ...], str | None]
"""A message, the settings it is about, and a hint."""

Check = Callable[[Situation], Iterator[Complaint]]


def broken_rules(situation: Situation, invalid: Collection[str] = ()) -> list[MedcliError]:
    """What contradicts what. Rules over a setting in `invalid` are not asked."""
    return [
        UsageProblem(message, where=situation.where(*about), hint=hint, code="contradiction")
        for names, check in _RULES
        if all(name in situation.values and name not in invalid for name in names)
        for message, about, hint in check(situation)
    ]


_NEEDS: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("focal_gamma", "loss", ("focal",)),
    ("modality", "augment", REDUCED_BY_MODALITY),
    ("ema_decay", "ema", (True,)),
    ("step_at", "scheduler", ("step",)),
    ("step_gamma", "scheduler", ("step", "plateau")),
    ("min_lr", "scheduler", ("cosine", "plateau")),
    ("layer_decay", "strategy", ("layerwise",)),
    ("decay_by", "strategy", ("layerwise",)),
    ("stage_lr", "strategy", ("layerwise",)),
    ("unfreeze_at", "strategy", ("gradual",)),
    ("unfreeze_groups", "strategy", ("gradual",)),
    ("probe_epochs", "strategy", ("lp-ft",)),
    ("feature_views", "strategy", ("frozen",)),
    ("nearest", "strategy", ("knn",)),
    ("adversarial_weight", "adversarial", (True,)),
    ("adversarial_from", "adversarial", (True,)),
    ("discriminator_lr", "adversarial", (True,)),
    ("changed_weight", "loss", ("weighted-l1-l2", None)),
    ("order_swap", "register", ("affine", "bspline")),
    ("mask_ratio", "mask_mode", ("random",)),
    ("head_lr", "strategy", ("layerwise", "gradual", "full", "lp-ft")),
)
"""A setting, the setting it depends on, and the values under which it acts."""


def _inert(setting: str, needed: str, values: tuple[Any, ...]) -> Check:
    flag, other = all_fields()[setting].flag, all_fields()[needed].flag
    wanted = " or ".join(other if value is True else f"{other} {value}" for value in values if value is not None)

    def check(now: Situation) -> Iterator[Complaint]:
        # A file may hold `focal_gamma` for the day the loss is focal; a flag beside another loss is a mistake.
        outranked = now.origins[needed].rank > now.origins[setting].rank
        if now.values[needed] not in values and now.typed(setting) and not outranked:
            yield f"`{flag}` acts only with `{wanted}`", (setting,), f"add `{wanted}` or leave `{flag}` out"

    return check


TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")

_EXCLUSIVE = (
    ("freeze_backbone", "freeze_layers", "the first already keeps every stage as it is"),
    ("resume", "init_from", "one continues a run, the other starts a new one from its weights"),
    ("pretrained", "weights", "both say which weights the network starts from"),
    ("init_from", "weights", "both say which weights the network starts from"),
    ("init_from", "pretrained", "both say which weights the network starts from"),
    ("random_weights", "weights", "both say which weights the network starts from"),
    ("random_weights", "pretrained", "both say which weights the network starts from"),
    ("random_weights", "init_from", "both say which weights the network starts from"),
    ("yes", "no_input", "one answers every question, the other forbids them"),
    ("quiet", "verbose", "say more or say less"),
)
"""Two settings of which one at most is given, and why."""


def _exclusive(first: str, second: str, why: str) -> Check:
    def check(now: Situation) -> Iterator[Complaint]:
        if now.values[first] and now.values[second]:
            one, other = all_fields()[first].flag, all_fields()[second].flag
            yield f"`{one}` and `{other}` exclude each other: {why}", (first, second), None

    return check


_ONLY_WITH = (
    ("extend", "resume", "name the run to go on with: `--resume RUN`"),
    ("accept_data_change", "resume", "name the run to go on with: `--resume RUN`"),
)
"""A setting, another that it needs, and what to do."""


def _only_with(setting: str, needed: str, hint: str) -> Check:
    def check(now: Situation) -> Iterator[Complaint]:
        if now.values[setting] and not now.values[needed]:
            one, other = all_fields()[setting].flag, all_fields()[needed].flag
            yield f"`{one}` needs `{other}`", (setting,), hint

    return check


def _overwrite_what(now: Situation) -> Iterator[Complaint]:
    # Some commands write to several places; others have no such setting.
    places = ("out", "save_predictions", "save_maps", "figure")
    if now.values["overwrite"] and not any(now.values.get(name) for name in places):
        yield "`--overwrite` needs `--out`", ("overwrite",), "name what may be replaced: `--out PATH`"


def _resume_stays(now: Situation) -> Iterator[Complaint]:
    if now.values["resume"] and now.values["out"]:
        yield (
            "a resumed run stays in its own directory",
            ("out",),
            "leave `--out` out, or start anew with `--init-from`",
        )


def _shares(now: Situation) -> Iterator[Complaint]:
    split = now.values["split"]
    if len(split) != 3:
        yield f"`--split` needs three shares (train, val, test), not {len(split)}", ("split",), "--split 0.7,0.15,0.15"
    elif abs(sum(split) - 1) > 1e-6:
        yield f"the shares of `--split` sum to {sum(split):g}, not to 1", ("split",), "--split 0.7,0.15,0.15"
    elif split[0] == 0:
        yield "`--split` leaves no images to train on", ("split",), "--split 0.7,0.15,0.15"


def _one_split(now: Situation) -> Iterator[Complaint]:
    if now.values["split_column"] and now.typed("split") and now.typed("split_column"):
        yield "`--split` and `--split-column` exclude each other: the column already splits", ("split",), None


def _channels(now: Situation) -> Iterator[Complaint]:
    if now.values["in_channels"] not in (None, 1, 3):
        yield f"`--in-channels` must be 1 or 3, not `{now.values['in_channels']}`", ("in_channels",), None


def _normalisation(now: Situation) -> Iterator[Complaint]:
    mean, std, channels = now.values["mean"], now.values["std"], now.values["in_channels"]
    if bool(mean) != bool(std):
        given, absent = ("mean", "std") if mean else ("std", "mean")
        yield f"`--{given}` needs `--{absent}`", (given,), f"add `--{absent}`"
        return
    if len({len(mean), len(std)} - {1}) > 1:
        yield f"`--mean` has {len(mean)} values and `--std` {len(std)}", ("mean", "std"), "give one, or one per channel"
        return
    allowed = (0, 1) if channels == 1 else (0, 1, 3)
    wrong = tuple(name for name, values in (("mean", mean), ("std", std)) if len(values) not in allowed)
    if wrong:
        flags, count = " and ".join(f"`--{name}`" for name in wrong), len(now.values[wrong[0]])
        counts = "one value" if channels == 1 else "one value or three"
        yield f"{flags} {'takes' if len(wrong) == 1 else 'take'} {counts}, not {count}", wrong, None


def _window(now: Situation) -> Iterator[Complaint]:
    text = now.values["window"]
    if text not in ("auto", "full"):
        numbers = _numbers(text)
        if numbers is None or len(numbers) != 2 or numbers[1] <= 0:
            message = f"`--window` must be `auto`, `full` or CENTRE,WIDTH with a width above 0, not `{text}`"
            yield message, ("window",), "--window 40,400"


def _device(now: Situation) -> Iterator[Complaint]:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", now.values["device"]):
        message = f"`--device` must be `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, not `{now.values['device']}`"
        yield message, ("device",), None


def _pattern(now: Situation) -> Iterator[Complaint]:
    text = now.values["patient_pattern"]
    if text is None:
        return
    try:
        groups = re.compile(text).groups
    except re.error as error:
        message = f"`--patient-pattern` is no regular expression: {error.msg} at character {(error.pos or 0) + 1}"
        yield message, ("patient_pattern",), None
        return
    if groups < 1:
        hint = "put the part that names the patient in parentheses, as in `'(p[0-9]+)_'`"
        yield "`--patient-pattern` has no group that captures the patient", ("patient_pattern",), hint


def _patients(now: Situation) -> Iterator[Complaint]:
    columns = [column for column in now.values["patient_column"] if "=" not in column]
    if columns and now.values["patient_pattern"]:
        message = "`--patient-column` and `--patient-pattern` exclude each other: both say where the patient stands"
        yield message, ("patient_column", "patient_pattern"), None


def _ordinal(now: Situation) -> Iterator[Complaint]:
    typed = now.values["label_column"]
    labels = {*typed, *(column.partition("=")[2] for column in typed)}
    # Whether `A,B` is one column or two only the table knows: here either reading will do.
    labels |= {part.strip() for names in tuple(labels) for part in names.split(",")}
    for column in now.values["ordinal_column"]:
        if typed and column not in labels and not labels.issuperset(map(str.strip, column.split(","))):
            yield f"`--ordinal-column {column}` is none of the label columns", ("ordinal_column",), None


def _classes(now: Situation) -> Iterator[Complaint]:
    names = now.values["class_names"]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield f"`--class-names` names `{twice[0]}` twice", ("class_names",), None
    elif len(names) == 1:
        yield "`--class-names` needs at least two names", ("class_names",), "--class-names normal,pneumonia"


def _positive(now: Situation) -> Iterator[Complaint]:
    positive, names = now.values["positive_class"], now.values["class_names"]
    if positive is not None and names and positive not in names:
        yield f"`--positive-class {positive}` is none of the class names", ("positive_class", "class_names"), None


def _options(now: Situation) -> Iterator[Complaint]:
    keys = []
    for item in now.values["arch_opt"]:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            yield f"`--arch-opt {item}` is not KEY=VALUE", ("arch_opt",), "`medcli models show ARCH` lists the options"
        keys.append(key)
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        yield f"`--arch-opt` sets `{key}` twice", ("arch_opt",), None


def _weights(now: Situation) -> Iterator[Complaint]:
    text = now.values["class_weights"]
    if text in ("none", "balanced", "sqrt", "effective"):
        return
    numbers = _numbers(text)
    if numbers is None or len(numbers) < 2 or min(numbers) < 0 or max(numbers) == 0:
        message = (
            f"`--class-weights` must be `none`, `balanced`, `sqrt`, `effective` or one weight per class, not `{text}`"
        )
        yield message, ("class_weights",), "--class-weights 1,1,0.3"


def _drops(now: Situation) -> Iterator[Complaint]:
    shares = now.values["step_at"]
    if any(later <= earlier for earlier, later in pairwise(shares)):
        yield "the shares of `--step-at` must rise", ("step_at",), "--step-at 0.5,0.75"


def _rank(now: Situation) -> Iterator[Complaint]:
    if now.values["rank"] < 1:
        yield f"`--rank {now.values['rank']}` is no rank: it must be at least 1", ("rank",), "--rank 8"


def _of_adapter(now: Situation) -> Iterator[Complaint]:
    path = now.values["adapter"]
    typed = [name for name in ("rank", "lora_alpha", "targets", "variant") if now.origins[name].layer == "flag"]
    if path is not None and typed:
        flags = ", ".join(f"`{all_fields()[name].flag}`" for name in typed)
        verb = "is" if len(typed) == 1 else "are"
        yield (
            f"{flags} {verb} settled by the adapter `{path}`",
            tuple(typed),
            f"leave {'it' if len(typed) == 1 else 'them'} out",
        )


def _warm_up(now: Situation) -> Iterator[Complaint]:
    # Defaults and recipes are made for long runs; training shortens them. What the user typed is not changed silently.
    if now.typed("warmup_epochs") and now.values["warmup_epochs"] >= now.values["epochs"] > 0:
        message = (
            f"`--warmup-epochs {now.values['warmup_epochs']:g}` leaves no epoch of `--epochs {now.values['epochs']}`"
        )
        yield message, ("warmup_epochs", "epochs"), None


def _trackers(now: Situation) -> Iterator[Complaint]:
    for name in now.values["log_with"]:
        if name not in TRACKERS:
            close = nearest(name, TRACKERS, 1)
            hint = f"--log-with {close[0]}" if close else f"one of {', '.join(f'`{one}`' for one in TRACKERS)}"
            yield f"`--log-with {name}`: there is no such tracker", ("log_with",), hint


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(piece) for piece in text.split(",")]
    except ValueError:
        return None
    return numbers if all(abs(number) < float("inf") for number in numbers) else None


_RULES: tuple[tuple[tuple[str, ...], Check], ...] = (
    *((needs[:2], _inert(*needs)) for needs in _NEEDS),
    *((pair[:2], _exclusive(*pair)) for pair in _EXCLUSIVE),
    *((pair[:2], _only_with(*pair)) for pair in _ONLY_WITH),
    (("overwrite", "out"), _overwrite_what),
    (("resume", "out"), _resume_stays),
    (("split",), _shares),
    (("split", "split_column"), _one_split),
    (("in_channels",), _channels),
    (("mean", "std", "in_channels"), _normalisation),
    (("window",), _window),
    (("device",), _device),
    (("patient_pattern",), _pattern),
    (("patient_column", "patient_pattern"), _patients),
    (("ordinal_column", "label_column"), _ordinal),
    (("class_names",), _classes),
    (("positive_class", "class_names"), _positive),
    (("arch_opt",), _options),
    (("class_weights",), _weights),
    (("step_at",), _drops),
    (("warmup_epochs", "epochs"), _warm_up),
    (("rank",), _rank),
    (("adapter", "rank", "lora_alpha", "targets", "variant"), _of_adapter),
    (("log_with",), _trackers),
    *STRATEGY_RULES,
    *BALANCE_RULES,
)
"""Each rule with the settings it looks at; it is asked only where a command has them all and each is valid."""
