"""`models recommend`: what to try first, why, and the command for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medcli.cli.options import ConsideredArchitectures, Flags
from medcli.cli.output import Output

if TYPE_CHECKING:
    from medcli.recommend.engine import Advice, Recommendation, Setting
    from medcli.recommend.rules import Rules
    from medcli.recommend.situation import Situation

__all__ = ["recommend_models"]

REASONS = 3


def recommend_models(architectures: ConsideredArchitectures, flags: Flags) -> None:
    """Recommend architectures, with reasons and the command to type.

    Ranks three by goal, number of images, GPU memory and kind of picture; `--data` reads what it can from the data
    itself and says what it cannot. Every reason names who says it: published measurements outrank the documents that
    contradict them, and the contradiction is shown. Named architectures are judged instead of ranked ones. Plugins that
    would fit are named even before they are installed. Nothing is downloaded.

    Examples:
        medcli models recommend --images 5000 --gpu-memory 8 --modality chest-xray
        medcli models recommend --goal edge --gpu-memory 0
        medcli models recommend --data breastmnist.npz --goal prototype
        medcli models recommend densenet121 vit_base_patch16_224 --images 90000 --json
    """
    from medcli.recommend.candidates import candidates
    from medcli.recommend.engine import recommend
    from medcli.recommend.request import situation
    from medcli.recommend.rules import rules
    from medcli.registry.discovery import discover

    output = Output(flags.output(), "models recommend")
    known, registry = rules(), discover()
    now = situation(flags.given, candidates(registry, known), known)
    offered = candidates(registry, known, only=architectures)
    advice = recommend(now, offered, known, asked=bool(architectures))
    output.answer(
        _result(advice, known),
        lambda: _text(advice, known),
        identifier="\n".join(one.candidate.label for one in advice.recommendations),
    )


def _result(advice: Advice, rules: Rules) -> dict[str, Any]:
    def source(key: str) -> dict[str, str]:
        known = rules.sources.get(key)
        return {"source": known.text if known else key or "medcli", "kind": known.kind if known else "practice"}

    return {
        "situation": {
            name: value for name, value in vars(advice.situation).items() if name not in {"typed", "notes", "sided"}
        },
        "recommendations": [
            {
                "rank": one.rank,
                "architecture": one.candidate.label,
                "distribution": one.candidate.distribution,
                "installed": one.candidate.installed,
                "params": one.candidate.card.params,
                "score": one.score,
                "reasons": [
                    {"why": reason.why, "points": reason.points, **source(reason.source)} for reason in one.reasons
                ],
                "settings": {
                    name: {"value": setting.value, "why": setting.why, **source(setting.source)}
                    for name, setting in one.settings.items()
                },
                "batch": one.batch,
                "command": one.command.text if one.command else None,
                "baseline": one.baseline.text if one.baseline else None,
                "install": one.install or None,
                "cautions": one.cautions,
            }
            for one in advice.recommendations
        ],
        "contradictions": [
            {
                "id": one.id,
                "document": rules.sources[one.document].text,
                "says": one.says,
                "evidence": rules.sources[one.evidence].text,
                "but": one.but,
            }
            for one in advice.contradictions
        ],
        "left_out": advice.left_out,
        "notes": advice.notes,
    }


def _text(advice: Advice, rules: Rules) -> str:
    lines = [_heading(advice.situation)]
    shared = _shared(advice.recommendations)
    if shared:
        lines.append(f"for all: {'; '.join(_settings(shared, rules))}")
    for one in advice.recommendations:
        own = {name: setting for name, setting in one.settings.items() if name not in shared}
        lines += ["", *_block(one, own, rules)]
    if advice.contradictions:
        lines += ["", "where published evidence contradicts a document"]
        lines += [
            f"- {rules.short(one.document)}: {one.says}; but {rules.short(one.evidence)}: {one.but}"
            for one in advice.contradictions
        ]
    notes = [*advice.notes]
    if advice.left_out:
        notes.append("left out: " + "; ".join(f"{one.name}: {one.why}" for one in advice.left_out))
    if notes:
        lines += ["", "notes", *(f"- {note}" for note in notes)]
    return "\n".join(lines)


def _heading(now: Situation) -> str:
    parts = [f"goal {now.goal}"]
    if now.images is not None:
        parts.append(f"{now.images:,} training images")
    if now.task:
        of = f", {now.classes} {_noun(now)}" if now.classes and now.task != "binary" else ""
        parts.append(f"{now.task}{of}")
    if now.imbalance is not None:
        parts.append(f"largest to smallest class {now.imbalance:.1f}:1")
    if now.channels:
        parts.append("grey" if now.channels == 1 else "colour")
    if now.side:
        parts.append(f"{now.side} px")
    parts.append(now.modality or "kind of picture not known")
    parts.append("no GPU" if now.cpu else f"GPU of {now.gpu_gb:g} GB{' (assumed)' if now.gpu_assumed else ''}")
    return " · ".join(parts)


def _noun(now: Situation) -> str:
    return {"multilabel": "labels", "multioutput": "outputs"}.get(now.task or "", "classes")


def _shared(recommendations: Sequence[Recommendation]) -> dict[str, Setting]:
    """The settings that are the same, for the same reason, in several recommendations: said once."""
    first, *others = recommendations
    if not others:
        return {}
    return {
        name: setting
        for name, setting in first.settings.items()
        if all(one.settings.get(name) == setting for one in others)
    }


def _block(one: Recommendation, own: Mapping[str, Setting], rules: Rules) -> list[str]:
    card = one.candidate.card
    size = f"  {card.params / 1e6:.1f} M parameters" if card.params else ""
    lines = [f"{one.rank}. {one.candidate.label}{size}"]
    lines += [_row("why", f"{reason.why} [{rules.short(reason.source)}]") for reason in one.reasons[:REASONS]]
    if not one.reasons:
        lines.append(_row("why", "no document or comparison speaks for it here"))
    if own:
        lines.append(_row("how", "; ".join(_settings(own, rules))))
    lines.append(_row("batch", f"{one.batch.size} ({one.batch.why})"))
    lines += [_row("mind", caution) for caution in one.cautions]
    if one.install:
        lines.append(_row("first", f"{one.install}   (not installed; then ask again for the command)"))
    if one.command:
        lines.append(_row("run", one.command.text))
    if one.baseline:
        lines.append(_row("probe", one.baseline.text))
    return lines


def _settings(settings: Mapping[str, Setting], rules: Rules) -> list[str]:
    """Settings with the reason, those that one rule sets together."""
    together: dict[tuple[str, str], list[str]] = {}
    for name, setting in settings.items():
        together.setdefault((setting.why, setting.source), []).append(_setting(name, setting))
    return [f"{', '.join(names)} ({_because(why, source, rules)})" for (why, source), names in together.items()]


def _setting(name: str, setting: Setting) -> str:
    if name == "strategy":
        return "from random weights" if setting.value == "scratch" else f"strategy {setting.value}"
    return f"{setting.value} px" if name == "image_size" else f"{name.replace('_', ' ')} {setting.value}"


def _because(why: str, source: str, rules: Rules) -> str:
    return f"{why}: {rules.short(source)}" if source else why


def _row(name: str, text: str) -> str:
    return f"   {name:<6}{text}"
