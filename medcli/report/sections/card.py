"""The model card: what it is, what it is for and not for, what limits it. What only its authors know is asked for."""

from __future__ import annotations

from medcli.report.document import Block, Bullets, Facts, Heading, Notice, Section, Text
from medcli.report.limits import limits_of
from medcli.report.subject import Subject

__all__ = ["RESEARCH_ONLY", "card_section", "limits_section", "model_facts"]

RESEARCH_ONLY = (
    "For research only. This model is no medical device, and nothing here is fit to decide about the care of a person."
)

_FOR_AUTHORS = (
    "intended population, care setting and users",
    "what the answer is to change, and what happens to cases it is unsure of",
    "how images were acquired and labels determined",
    "people, devices and findings it was never tried on",
    "who maintains it, and whom to tell about errors",
)


def card_section(subject: Subject) -> Section:
    """Facts about the model, intended use, and what its authors have to add."""
    blocks: list[Block] = [
        Facts(model_facts(subject)),
        Heading("Intended use"),
        Notice(RESEARCH_ONLY, "warning"),
        Text("It answers for images like those it was judged on, and for no others."),
        Heading("For its authors to add"),
        Bullets(_FOR_AUTHORS),
    ]
    references = [] if subject.facts is None or subject.facts.card is None else subject.facts.card.references
    if references:
        texts = []
        for one in references:
            others = " et al." if len(one.authors) > 1 else ""
            place = f"{one.venue} {one.year}" if one.venue else str(one.year)
            first = one.authors[0].partition(",")[0] if one.authors else ""
            texts.append(f"{first}{others}: {one.title}. {place}. {one.url}")
        blocks += [Heading("References"), Bullets(tuple(texts))]
    return Section("model-card", "Model card", tuple(blocks))


def limits_section(subject: Subject) -> Section:
    """What is known to limit the results."""
    return Section("limits", "Limits", (Bullets(limits_of(subject)),))


def model_facts(subject: Subject) -> tuple[tuple[str, str], ...]:
    """What the model is, as far as it is known."""
    facts, judged = subject.facts, subject.judged
    rows: list[tuple[str, str]] = []
    if facts is not None:
        rows.append(("model", facts.summary.architecture))
        if facts.card is not None:
            kinds = ", ".join(facts.card.modalities)
            rows += [("network", facts.card.summary), ("made for", kinds), ("licence of its code", facts.card.licence)]
            rows.append(("good to know", facts.card.note))
        if facts.model is not None:
            rows.append(("parameters", f"{facts.model.parameters:,}"))
        rows.append(("trained on", facts.summary.data))
    else:
        rows.append(("model", "not known: these are predictions of another tool, or outside their run"))
    if judged is not None:
        target = judged.predictions.target
        names = target.class_names or tuple(output.name for output in target.outputs)
        rows.append(("answers", f"{target.task}: {', '.join(names)}"))
        rows.append(("scores", judged.predictions.calibrated or "the model's own, not calibrated by medcli"))
    return tuple(row for row in rows if row[1])
