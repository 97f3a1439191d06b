"""One call of `explain`: pictures the user named and examples of the run's own data, explained, checked and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from medcli.errors import RunFailure, UsageProblem
from medcli.explain.engine import Case, Explained, Explaining
from medcli.explain.examples import choose_examples, own_samples
from medcli.explain.methods import Explainer
from medcli.explain.questions import parse_targets
from medcli.explain.sanity import SHUFFLES, SanityCheck, check_sanity, shown_steps, stages_of
from medcli.explain.sheet import draw_sheet
from medcli.explain.written import FOLDER, Entry, describe, draw, file_names, write_index, write_maps
from medcli.models.build import LoadedModel, load_run
from medcli.prediction.files import list_inputs
from medcli.prediction.run_calibration import calibrated_scores
from medcli.prediction.sources import stored_predictions
from medcli.runs.directory import RunDirectory, open_run, writing
from medcli.runs.members import is_ensemble, read_ensemble

__all__ = ["Outcome", "Teller", "Wishes", "explain_run"]

SHEET = "sanity.png"
MOST_CHECKED = 6
"""Pictures of a sanity check: each is explained again for every stage of the network."""


class Teller(Protocol):
    """Whoever passes sentences and progress on to the user."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, what: str, total: int) -> Callable[[int], None]: ...


@dataclass(frozen=True)
class Wishes:
    """What was asked for; see the flags of `medcli explain`."""

    method: str | None = None
    layer: str | None = None
    targets: tuple[str, ...] = ()
    sanity: bool = False
    save: int | None = None
    out: str | None = None
    overwrite: bool = False
    window: str | None = None
    data: tuple[str, ...] = ()
    image_dir: tuple[str, ...] = ()
    weights: str | None = None
    raw: bool = False
    device: str = "auto"
    batch_size: int = 32
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Args:
        rows: one per explanation, files as a user finds them.
        failures: (image, reason) of those that could not be read.
        method, layer, title, why: which method, and why this one.
        calibrated: how scores became probabilities, or empty.
        sanity: the check, or None.
        sheet: its picture, or empty.
        place: where everything was written.
    """

    rows: tuple[Entry, ...]
    failures: tuple[tuple[str, str], ...]
    method: str
    layer: str
    title: str
    why: str
    calibrated: str
    sanity: SanityCheck | None
    sheet: str
    place: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "method": self.method,
            "layer": self.layer or None,
            "why": self.why,
            "calibrator": self.calibrated or None,
            "explanations": [asdict(row) for row in self.rows],
            "sanity": None if self.sanity is None else {**self.sanity.to_dict(), "sheet": self.sheet},
            "failures": [{"image": name, "reason": reason} for name, reason in self.failures],
            "place": self.place,
        }


def explain_run(source: str, inputs: Sequence[str], wishes: Wishes, teller: Teller) -> Outcome:
    """Explain images that were named, and with `save` examples of the run's own test data.

    Args:
        source: the run directory.
        inputs: files, folders, archives.
        wishes: how.
        teller: told the choice of method, what to be careful about, and progress.

    Raises:
        UsageProblem: no such run, class, layer or image; a method the network does not offer; nothing written then.
        RunFailure: a file cannot be written, an output is no number.
    """
    run = open_run(source)
    if is_ensemble(run.path):
        member = next((run.path / one.place for one in read_ensemble(run).ready), None)
        raise UsageProblem(
            f"`{source}` is an ensemble, and an explanation is of one network",
            hint=f"explain one of its members: `medcli explain {member} …`" if member else None,
            code="several-networks",
        )
    loaded = load_run(run, weights=wishes.weights)
    if loaded.caution:
        teller.warn(loaded.caution)
    target = loaded.spec.target
    asked = parse_targets(target, wishes.targets)
    calibrate, calibrated = _calibration(run, loaded, raw=wishes.raw)
    named = [
        Case(entry.name, entry.images, entry.index)
        for entry in list_inputs(inputs, wishes.window or loaded.preprocessing.window)
    ]
    own = _own_cases(run, wishes, teller) if wishes.save else []
    out = _destination(wishes) if named else None
    explaining = Explaining(
        loaded,
        asked,
        method=wishes.method,
        layer=wishes.layer,
        device=wishes.device,
        batch_size=wishes.batch_size,
        calibrate=calibrate,
    )
    cases = [*own, *named]
    found: list[Explained] = []
    failures: list[tuple[str, str]] = []
    for one in explaining.explain(cases, progress=teller.progress("images explained", len(cases))):
        if isinstance(one, Explained):
            found.append(one)
        else:
            failures.append((one[0].name, one[1]))
    explainer = explaining.explainer
    if explainer is None:
        return Outcome((), tuple(failures), "", "", "", "", calibrated, None, "", "")
    teller.note(f"{explainer.title}: {explainer.why}")
    for one in found:
        if one.empty:
            teller.warn(f"{one.case.name}: nothing in the picture speaks for `{one.question.name}` by this method")
    word = "probability" if calibrated else "score"
    rows: list[Entry] = []
    kept = [one for one in found if one.case.kind]
    shown = [one for one in found if not one.case.kind]
    sanity = _checked(explaining, explainer, found, wishes, teller) if wishes.sanity else None
    sheet, place = "", ""
    if out is not None and out.suffix.lower() != ".npz":
        _refuse_taken(out, shown, explainer, wishes)
    if wishes.save:
        folder = run.path / FOLDER
        entries = _drawn(kept, explainer, loaded, folder, word)
        sheet = _sheet(sanity, found, explainer, folder)
        write_index(run, entries, _facts(run, explainer, calibrated, sanity, sheet))
        rows += [replace(entry, file=str(folder / entry.file)) for entry in entries]
        sheet, place = (str(folder / sheet) if sheet else ""), str(folder)
    if out is not None:
        more, sheet_of_inputs = _written(shown, explainer, loaded, out, word, None if sheet else sanity, found)
        rows += more
        sheet, place = sheet or sheet_of_inputs, str(out)
    return Outcome(
        tuple(rows),
        tuple(failures),
        explainer.method,
        explainer.layer,
        explainer.title,
        explainer.why,
        calibrated,
        sanity,
        sheet,
        place,
    )


def _calibration(
    run: RunDirectory, loaded: LoadedModel, *, raw: bool
) -> tuple[Callable[[npt.NDArray[Any]], npt.NDArray[Any]], str]:
    import numpy as np

    target = loaded.spec.target
    _, how = calibrated_scores(run, np.zeros((1, *target.logits_shape)), target)
    if raw or not how:
        return lambda logits: logits, ""
    return lambda logits: calibrated_scores(run, logits, target)[0], how


def _own_cases(run: RunDirectory, wishes: Wishes, teller: Teller) -> list[Case]:
    stored = stored_predictions(run)
    if stored.split != "test":
        teller.warn(f"the run has no test predictions: examples are of `{stored.split}`, which chose its best epoch")
    samples, rows = own_samples(run, stored, wishes.data, wishes.image_dir)
    examples = choose_examples(stored, wishes.save or 0)
    cases = []
    for example in examples:
        name = str(stored.ids[example.row])
        label = stored.labels[example.row]
        cases.append(Case(name, samples.images, rows[name], (example.question,), label, example.kind))
    for kind, what in (("example", "no right answer"), ("worst-error", "no error")):
        if not any(case.kind == kind for case in cases):
            teller.note(f"there is {what} among the {len(stored)} `{stored.split}` cases to show")
    if not cases:
        raise RunFailure(
            f"none of the {len(stored)} `{stored.split}` cases has a label, so there is no example to show",
            code="no-labels",
        )
    return cases


def _destination(wishes: Wishes) -> Path:
    """Where named images go: a folder, or one `.npz` of bare maps."""
    out = Path(wishes.out or FOLDER)
    if out.suffix.lower() == ".npz":
        if out.is_dir() or (out.exists() and not wishes.overwrite):
            raise UsageProblem(
                f"`{out}` exists already", where="--out", hint="`--overwrite` replaces it", code="out-occupied"
            )
    elif out.is_file() or out.suffix.lower() in {".png", ".jpg", ".jpeg", ".pdf", ".csv", ".json"}:
        raise UsageProblem(
            f"`{out}` names a file; pictures go into a folder",
            where="--out",
            hint=f"`--out {out.with_suffix('')}`, or `--out FILE.npz` for the bare maps",
            code="not-a-folder",
        )
    return out


def _refuse_taken(out: Path, shown: Sequence[Explained], explainer: Explainer, wishes: Wishes) -> None:
    """Refuse to write over pictures; which they are is known once the model has answered."""
    names = file_names([(one.case.name, one.question.name) for one in shown], explainer.method)
    if wishes.sanity and not wishes.save:
        names.append(SHEET)
    taken = [name for name in names if (out / name).exists()]
    if taken and not wishes.overwrite:
        raise UsageProblem(
            f"`{out / taken[0]}` exists already" + (f", and {len(taken) - 1} more" if len(taken) > 1 else ""),
            where="--out",
            hint="`--overwrite` replaces them, `--out DIR` names another folder",
            code="out-occupied",
        )


def _written(
    shown: Sequence[Explained],
    explainer: Explainer,
    loaded: LoadedModel,
    out: Path,
    word: str,
    sanity: SanityCheck | None,
    found: Sequence[Explained],
) -> tuple[list[Entry], str]:
    if out.suffix.lower() == ".npz":
        if shown:
            write_maps(out, shown, explainer)
        return [describe(one, explainer, str(out), scores=word) for one in shown], ""
    entries = _drawn(shown, explainer, loaded, out, word)
    sheet = _sheet(sanity, found, explainer, out)
    rows = [replace(entry, file=str(out / entry.file)) for entry in entries]
    return rows, str(out / sheet) if sheet else ""


def _drawn(
    explained: Sequence[Explained], explainer: Explainer, loaded: LoadedModel, folder: Path, word: str
) -> list[Entry]:
    names = file_names([(one.case.name, one.question.name) for one in explained], explainer.method)
    entries = []
    for one, name in zip(explained, names, strict=True):
        draw(one, explainer, loaded.preprocessing, folder / name, scores=word)
        entries.append(describe(one, explainer, name, scores=word))
    return entries


def _checked(
    explaining: Explaining, explainer: Explainer, found: Sequence[Explained], wishes: Wishes, teller: Teller
) -> SanityCheck:
    some, classifier = _some(found), explaining.classifier
    return check_sanity(
        classifier,
        explainer,
        [one.inputs for one in some],
        [one.question for one in some],
        seed=wishes.seed,
        progress=teller.progress("steps of the sanity check", SHUFFLES * len(shown_steps(len(stages_of(classifier))))),
    )


def _some(found: Sequence[Explained]) -> list[Explained]:
    """At most six explanations, spread over all."""
    count = min(MOST_CHECKED, len(found))
    return [found[int((number + 0.5) * len(found) / count)] for number in range(count)]


def _sheet(sanity: SanityCheck | None, found: Sequence[Explained], explainer: Explainer, folder: Path) -> str:
    if sanity is None:
        return ""
    path = folder / SHEET
    with writing(path):
        draw_sheet(sanity, [one.picture for one in _some(found)], explainer.title, path)
    return SHEET


def _facts(
    run: RunDirectory, explainer: Explainer, calibrated: str, sanity: SanityCheck | None, sheet: str
) -> dict[str, Any]:
    stored = stored_predictions(run)
    return {
        "method": explainer.method,
        "layer": explainer.layer,
        "why": explainer.why,
        "data": stored.data_name,
        "split": stored.split,
        "calibrator": calibrated,
        "sanity": None if sanity is None else sanity.to_dict(),
        "sheet": sheet,
    }
