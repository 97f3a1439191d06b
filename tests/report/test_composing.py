"""How a report names its subject and sets its numbers, without writing a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from medcli.evaluation.clinical import Request
from medcli.report.compose import compose
from medcli.report.escaping import html_text
from medcli.report.subject import Way, run_predictions, subject_of_run
from medcli.runs.members import Ensemble, Member
from medcli.settings.groups import EvaluationSettings

WAY = Way(EvaluationSettings(bootstrap=0), Request())


class Silent:
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


def test_an_ensemble_is_named_by_its_members(toy: SimpleNamespace, tmp_path: Path) -> None:
    run = toy.make_run(tmp_path / "run", [toy.binary()])
    stored = run_predictions(str(run.path), raw=False, on=None, teller=Silent())
    subject = subject_of_run(str(run.path), WAY, stored, Silent())
    assert subject.facts is not None
    (run.path / "x").mkdir()
    members = [Member(str(one), "x", name, one, "completed") for one, name in enumerate(["medcli/resnet18"] * 3)]
    for extra, expected in (
        ((), "ensemble of 3 (resnet18) on toy"),
        ((Member("4", "x", "timm/vit", 4, "completed"),), "ensemble of 4 (resnet18, timm/vit) on toy"),
        ((Member("4", "x", "timm/vit", 4, "failed"),), "ensemble of 3 (resnet18) on toy"),
    ):
        facts = replace(subject.facts, ensemble=Ensemble("trained", (*members, *extra)))
        document = compose(replace(subject, facts=facts), "none")
        assert document.title == expected
        (absent,) = [one for section in document.sections for one in section.absences if one.what == "explanations"]
        assert f"medcli explain {run.path}/x --save 12" in absent.why
        assert not absent.command


def test_numbers_stay_with_their_intervals_and_commands_as_they_are() -> None:
    gap = "\N{NO-BREAK SPACE}"
    assert html_text("0.8 [0.7, 0.9] and 12 % of 5") == f"0.8 [0.7,{gap}0.9] and 12{gap}% of 5"
    assert html_text("0.1 → 0.2, p < 0.001") == f"0.1 →{gap}0.2, p{gap}&lt;{gap}0.001"
    assert html_text("a 0.9, b -3.8") == f"a{gap}0.9, b{gap}-3.8"
    assert html_text("`a [0, 1] <b>` <c>") == "<code>a [0, 1] &lt;b&gt;</code> &lt;c&gt;"
