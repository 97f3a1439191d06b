"""What is known to limit these results: sentences that follow from the run and its predictions, none of them typed."""

from __future__ import annotations

from medcli.evaluation.figures import Evaluation
from medcli.report.subject import Subject

__all__ = ["FEWEST_CASES", "FEWEST_EVENTS", "limits_of"]

FEWEST_CASES = 200
FEWEST_EVENTS = 20
"""Below either, intervals are so wide that a figure says little; TRIPOD's advice for validation is five times more."""


def limits_of(subject: Subject) -> tuple[str, ...]:
    """One sentence each, the gravest first."""
    found: list[str] = []
    facts, judged = subject.facts, subject.judged
    if facts is not None and not facts.finished:
        found.append(f"The training is {facts.summary.state}; these are not the results of a finished model.")
    if judged is None:
        return (*found, "There are no predictions, so nothing is known about how well it answers.")
    evaluation = judged.evaluation
    if judged.on_val:
        found.append("The judged cases chose the best epoch, so the figures are better than those of new cases.")
    found += _sizes(evaluation)
    if evaluation.patients is None:
        found.append(
            "No patients are known. Where one patient has several images, splits may share patients, which flatters "
            "the figures, and intervals are too narrow."
        )
    if facts is not None:
        found.append(
            "Training and test cases come from one data set: nothing is known about other hospitals or devices."
        )
    else:
        found.append("Whether the model has learnt from these cases cannot be seen from predictions.")
    if not judged.predictions.calibrated and judged.calibration.before is None:
        found.append("Scores are not calibrated: they rank cases, and are no probabilities.")
    causes = [] if facts is None else facts.environment.get("probabilities_distorted_by") or []
    if causes and not judged.predictions.calibrated:
        found.append(f"Scores are distorted by {', '.join(map(str, causes))}.")
    if judged.section("subgroups") is None:
        found.append("Performance for groups of people, such as by sex, age or device, was not examined.")
    if facts is not None and facts.data.get("skipped"):
        found.append(f"{len(facts.data['skipped'])} images could not be read and were left out.")
    found += _licences(subject)
    found.append(
        "Intervals tell what chance in these cases explains; they do not cover another population or practice."
    )
    return tuple(found)


def _sizes(evaluation: Evaluation) -> list[str]:
    found = []
    if evaluation.n < FEWEST_CASES:
        found.append(f"Only {evaluation.n} labelled cases were judged, so every figure is uncertain.")
    rows = [(row.name, row) for row in evaluation.classes]
    for output, one in evaluation.outputs.items():
        rows += [(f"{output}: {row.name}", row) for row in one.classes]
    never = [name for name, row in rows if not row.positives]
    few = [name for name, row in rows if 0 < row.positives < FEWEST_EVENTS]
    if never:
        found.append(f"No case at all, so nothing is known about: {_listed(never)}.")
    if few:
        found.append(f"Fewer than {FEWEST_EVENTS} cases, so little is known about: {_listed(few)}.")
    return found


def _licences(subject: Subject) -> list[str]:
    """Where the starting weights of the card say that they may not be used freely."""
    facts = subject.facts
    if facts is None or facts.card is None or facts.saved is None:
        return []
    tag = facts.saved.values.get("weights")
    if tag is None and facts.saved.values.get("pretrained"):
        tag = facts.card.default_weights
    weights = facts.card.weight(tag) if isinstance(tag, str) else None
    if weights is None or not (weights.licence or weights.gated):
        return []
    gated = "; the publisher asks for a registration" if weights.gated else ""
    return [f"It began from published weights under the licence `{weights.licence or 'not stated'}`{gated}."]


def _listed(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
