"""Ranks architectures by the rules and settles their settings. The same situation always gives the same answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medcli.errors import UsageProblem
from medcli.recommend.candidates import Candidate
from medcli.recommend.commands import Typed, baseline_command, training_command
from medcli.recommend.memory import Batch, estimate, largest_batch
from medcli.recommend.rules import Contradiction, Limit, Rules
from medcli.recommend.situation import Situation
from medcli.registry.layout import install_line

__all__ = ["Advice", "LeftOut", "Reason", "Recommendation", "Setting", "recommend"]

SHOWN = 3
RESTRICTED = re.compile(r"\bnc\b|non-?commercial|research")
SMALLEST_BATCH = 4
CPU_GMACS = 5.0
TINY_SIDE, TINY_SIZE = 64, 128
CHECKED_IN_ORDER = ("strategy", "weights", "image_size", "loss", "focal_gamma", "class_weights", "augment", "flip")


@dataclass(frozen=True)
class Reason:
    """Why something is recommended: the points it adds, a sentence, and the key of its source."""

    points: int
    why: str
    source: str


@dataclass(frozen=True)
class Setting:
    """One chosen setting with its reason and source; an empty source is ours."""

    value: Any
    why: str
    source: str


@dataclass(frozen=True)
class Recommendation:
    """One architecture, ranked.

    Args:
        rank: from 1.
        candidate: the architecture.
        score: sum of the points.
        reasons: best first.
        settings: strategy, weights, image_size, loss, augment and so on.
        batch: images per batch.
        command: what to type, or None where a plugin has to be installed first.
        baseline: the frozen probe to hold it against; None where it is one itself, or has no trained weights.
        install: the line that installs the plugin, or empty.
        cautions: what to know before using it.
    """

    rank: int
    candidate: Candidate
    score: int
    reasons: tuple[Reason, ...]
    settings: Mapping[str, Setting]
    batch: Batch
    command: Typed | None
    baseline: Typed | None
    install: str = ""
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """An architecture that rules favour and that the situation forbids."""

    name: str
    why: str


@dataclass(frozen=True)
class Advice:
    """Everything that is recommended in a situation."""

    situation: Situation
    recommendations: tuple[Recommendation, ...]
    contradictions: tuple[Contradiction, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """A candidate with settled settings, before it has a rank."""

    candidate: Candidate
    reasons: tuple[Reason, ...]
    settings: dict[str, Setting]

    @property
    def score(self) -> int:
        return sum(reason.points for reason in self.reasons)


def recommend(now: Situation, offered: Sequence[Candidate], rules: Rules, *, asked: bool = False) -> Advice:
    """The best architectures for a situation.

    Args:
        now: the situation.
        offered: what can be recommended.
        rules: what is known.
        asked: whether the user named the candidates: then each is judged, points or none, and an impossible one is an
            error.

    Raises:
        UsageProblem: nothing can be recommended, or an architecture that was asked for cannot do what is wanted.
    """
    plans, left_out = [], []
    for candidate in offered:
        if not asked and _other_modality(candidate, now):
            continue
        reasons = _reasons(candidate, now, rules)
        if not reasons and not asked:
            continue
        settings = _settings(candidate, now, rules)
        fault = _fault(candidate, settings, now, rules)
        if fault and asked:
            raise _impossible(candidate, fault, now)
        if fault:
            left_out.append(LeftOut(candidate.label, fault))
        else:
            plans.append(_Plan(candidate, reasons, settings))
    if not plans:
        raise UsageProblem(
            f"nothing can be recommended for goal `{now.goal}` on this machine",
            hint="; ".join(f"`{one.name}`: {one.why}" for one in left_out[:SHOWN]) or None,
            code="nothing-to-recommend",
        )
    # Equal points: the smaller network first, then by name, so that the order never depends on what is installed.
    plans.sort(key=lambda plan: (-plan.score, plan.candidate.card.params or 0, plan.candidate.name))
    chosen = plans if asked else plans[:SHOWN]
    found = tuple(_recommendation(rank, plan, now, rules) for rank, plan in enumerate(chosen, start=1))
    names = [one.candidate.name for one in found]
    said = tuple(
        one
        for one in rules.contradictions
        if one.when.holds(now) and (not one.when.architectures or any(map(one.when.names, names)))
    )
    return Advice(now, found, said, tuple(left_out), _notes(now, rules, found))


def _other_modality(candidate: Candidate, now: Situation) -> bool:
    """Whether it was made for other pictures; where the kind is not known, what is special is not recommended."""
    return bool(candidate.modalities) and now.modality not in candidate.modalities


def _reasons(candidate: Candidate, now: Situation, rules: Rules) -> tuple[Reason, ...]:
    packaged = {package.distribution for package in rules.packages.values()}
    unnamed = candidate.distribution not in packaged and now.modality in candidate.modalities
    found = [
        Reason(rule.points, rule.why, rule.source)
        for rule in rules.preferences
        if rule.when.holds(now)
        and (unnamed if rule.when.card_modality else rule.when.architectures and rule.when.names(candidate.name))
    ]
    # What was measured is said before what is advised.
    order = {"evidence": 0, "document": 1, "practice": 2}
    return tuple(sorted(found, key=lambda one: (order[rules.sources[one.source].kind], -one.points)))


def _settings(candidate: Candidate, now: Situation, rules: Rules) -> dict[str, Setting]:
    card = candidate.card
    chosen: dict[str, Setting] = {}
    for rule in rules.choices:
        if rule.when.holds(now) and rule.when.names(candidate.name):
            for name, value in rule.set.items():
                chosen.setdefault(name, Setting(value, rule.why, rule.source))
    if not card.weights and not candidate.modalities and chosen["strategy"].value != "scratch":
        chosen["strategy"] = Setting("scratch", "its card names no published weights", "")
    tag = chosen.get("weights")
    if tag and (chosen["strategy"].value != "frozen" or card.weight(tag.value) is None):
        del chosen["weights"]
    if chosen.get("loss") and chosen["loss"].value != "focal":
        chosen.pop("focal_gamma", None)
    if now.sided and chosen.get("flip", Setting("none", "", "")).value in {"horizontal", "both"}:
        chosen["flip"] = Setting("none", "labels name left and right", "")
    chosen["image_size"] = _image_size(candidate, chosen.get("image_size"), now)
    if chosen["strategy"].value not in {"scratch", "frozen"} and not now.cpu:
        _retreat(candidate, chosen, now, rules)
    return {name: chosen[name] for name in CHECKED_IN_ORDER if name in chosen}


def _image_size(candidate: Candidate, wanted: Setting | None, now: Situation) -> Setting:
    """A size that the network can take, near the one wanted."""
    card = candidate.card
    own = card.input_size or 224
    special = bool(candidate.modalities)
    if wanted is None and now.side is not None and now.side <= TINY_SIDE and own > TINY_SIZE and not special:
        wanted = Setting(TINY_SIZE, f"the pictures have {now.side} px; more would only enlarge them", "")
    if wanted is None or not wanted.value:
        why = wanted.why if wanted else "its own size"
        return Setting(card.size.nearest(own), why, wanted.source if wanted else "")
    # Smaller than asked where the network was made for less, as a stand-in for tests is.
    return Setting(card.size.nearest(min(own, wanted.value)), wanted.why, wanted.source)


def _retreat(candidate: Candidate, chosen: dict[str, Setting], now: Situation, rules: Rules) -> None:
    """Where training all of it does not fit, train less of it."""
    size = chosen["image_size"].value
    for strategy in (chosen["strategy"].value, "lora", "frozen"):
        if strategy == "lora" and not candidate.card.lora_targets and candidate.installed:
            continue
        fits = estimate(candidate.card, strategy, size, now.gpu_gb, rules)
        if fits is None or fits >= SMALLEST_BATCH:
            break
    if strategy != chosen["strategy"].value:
        why = f"training all of it does not fit into {now.gpu_gb:g} GB by our estimate"
        chosen["strategy"] = Setting(strategy, why, "")


def _fault(candidate: Candidate, settings: Mapping[str, Setting], now: Situation, rules: Rules) -> str:
    """Why an architecture cannot do what is wanted, or nothing."""
    card, size = candidate.card, settings["image_size"].value
    over = _over(candidate, rules.limits.get(now.goal))
    if over:
        return over
    if now.cpu and card.gmacs and card.input_size:
        gmacs = card.gmacs * (size / card.input_size) ** 2
        if gmacs > CPU_GMACS:
            return f"{gmacs:.0f} G multiply-adds a picture are too many without a GPU"
    if not now.cpu:
        fits = estimate(card, settings["strategy"].value, size, now.gpu_gb, rules)
        if fits is not None and fits < SMALLEST_BATCH:
            return f"does not fit into {now.gpu_gb:g} GB by our estimate"
    return ""


def _over(candidate: Candidate, limit: Limit | None) -> str:
    card = candidate.card
    if limit is None:
        return ""
    if limit.params is not None and card.params is not None and card.params > limit.params:
        return f"{card.params / 1e6:.0f} M parameters are too many for {limit.why}"
    if limit.gmacs is not None and card.gmacs is not None and card.gmacs > limit.gmacs:
        return f"{card.gmacs:.1f} G multiply-adds are too many for {limit.why}"
    return ""


def _impossible(candidate: Candidate, fault: str, now: Situation) -> UsageProblem:
    words = f"medcli models recommend --goal {now.goal}"
    words += "" if now.gpu_assumed else f" --gpu-memory {now.gpu_gb:g}"
    return UsageProblem(
        f"`{candidate.label}` cannot be recommended for goal `{now.goal}`: {fault}",
        where="ARCH",
        hint=f"`{words}` ranks what can",
        code="impossible-request",
    )


def _recommendation(rank: int, plan: _Plan, now: Situation, rules: Rules) -> Recommendation:
    candidate, settings = plan.candidate, plan.settings
    strategy, size = settings["strategy"].value, settings["image_size"].value
    batch = largest_batch(candidate.card, strategy, size, now, rules)
    values = {name: one.value for name, one in settings.items() if name not in {"strategy", "weights"}}
    values["batch_size"] = batch.size
    weights = settings["weights"].value if "weights" in settings else ""
    command = baseline = None
    if candidate.installed:
        command = training_command(candidate, strategy, weights, values, now)
        # What stands in for LoRA today is a frozen probe already.
        if strategy not in {"scratch", "frozen"} and command.lacking != "lora":
            probe = {**values, "batch_size": largest_batch(candidate.card, "frozen", size, now, rules).size}
            baseline = baseline_command(candidate, weights, probe, now)
    install = "" if candidate.installed else install_line((candidate.distribution,))
    return Recommendation(
        rank, candidate, plan.score, plan.reasons, settings, batch, command, baseline, install, _cautions(plan, now)
    )


def _cautions(plan: _Plan, now: Situation) -> tuple[str, ...]:
    card = plan.candidate.card
    tag = plan.settings["weights"].value if "weights" in plan.settings else card.default_weights
    weights = card.weight(tag) or (card.weights[0] if card.weights else None)
    said = []
    if weights is None and plan.candidate.modalities and plan.candidate.installed:
        said.append(f"its weights come from a file: `medcli models show {plan.candidate.label}` says which")
    if weights and weights.gated:
        said.append(f"its weights need a registration: `medcli models show {plan.candidate.label}` says where")
    if now.goal == "production" and weights and RESTRICTED.search(weights.licence.lower()):
        said.append(f"the licence of its weights restricts their use: `{weights.licence}`")
    return tuple(said)


def _notes(now: Situation, rules: Rules, found: Sequence[Recommendation]) -> tuple[str, ...]:
    notes = [*now.notes]
    known = rules.sets.get(now.known_set or "")
    if known and known.note:
        notes.append(known.note)
    if now.modality is None:
        kinds = ", ".join(f"`{name}`" for name in ("chest-xray", "fundus", "oct", "dermoscopy", "histology", "ct"))
        notes.append(f"the kind of picture is not known, so no specialist is offered: `--modality` {kinds}, …")
    if now.images is None:
        notes.append("how many images there are is not known: `--images N` or `--data PATH`")
    if now.gpu_assumed:
        notes.append(f"a GPU of {now.gpu_gb:g} GB is assumed: `--gpu-memory GB`, 0 for none")
    if now.goal == "competition" and len(found) > 1:
        notes.append("an ensemble of all of these is advised for competitions (architecture comparison)")
    if any({"class_weights", "focal_gamma"} & set(one.settings) for one in found):
        notes.append("class weights and focal loss distort probabilities: calibrate on validation data before use")
    notes += _missing_strategies(found)
    if any(one.command and one.command.cached for one in found):
        notes.append(_weights_note())
    return tuple(notes)


def _missing_strategies(found: Sequence[Recommendation]) -> list[str]:
    """One line for each command that stands in for one that does not exist yet."""
    together: dict[tuple[str, str], dict[str, None]] = {}
    for one in found:
        if one.command and one.command.lacking:
            names = together.setdefault((one.command.lacking, one.command.instead), {})
            names[f"`{one.settings['strategy'].value}`"] = None
    return [
        f"strategy {', '.join(names)} comes with `medcli {lacking}`; until then the command {instead}"
        for (lacking, instead), names in together.items()
    ]


def _weights_note() -> str:
    from medcli.settings.commands import COMMANDS

    if "models fetch" in COMMANDS:
        return "trained weights are taken from the local cache: `medcli models fetch ARCH` puts them there"
    return "trained weights are taken from the local cache, or with `--weights FILE` from a file"
