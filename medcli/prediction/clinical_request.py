"""From flags to what is asked of predictions: which cases choose thresholds, and which table says who is who."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from medcli.bundles.manifest import Manifest
from medcli.data.tables import Table, is_table, read_table
from medcli.errors import UsageProblem
from medcli.evaluation.clinical import Reference, Request
from medcli.evaluation.operating import parse_rule
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.evaluation.referral import parse_deferral
from medcli.prediction.foreign import Columns
from medcli.prediction.run_calibration import calibrated_judgement
from medcli.prediction.sources import Judgement
from medcli.prediction.tables import read_any
from medcli.runs.directory import open_run
from medcli.settings.groups import ClinicalSettings

__all__ = ["read_wishes", "request_for"]


class Teller(Protocol):
    """Whoever passes sentences on to the user."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def read_wishes(settings: ClinicalSettings) -> Request:
    """The rules alone, before anything is read or predicted.

    Raises:
        UsageProblem: a rule that is none, or a flag that could not act.
    """
    bad = [value for value in settings.prevalence if not 0 < value < 1]
    if bad:
        raise UsageProblem(f"a prevalence of {bad[0]:g} leaves nothing to tell", where="--prevalence", code="bad-value")
    if settings.prevalence and not settings.operating_point:
        raise UsageProblem(
            "PPV and NPV at a prevalence belong to an operating point, and there is none",
            where="--prevalence",
            hint="`--operating-point sens=0.95 --prevalence 0.01`",
            code="idle-flag",
        )
    if settings.by_table and not settings.by:
        raise UsageProblem(
            "a table of subgroups needs a column", where="--by-table", hint="`--by COLUMN`", code="idle-flag"
        )
    rules = tuple(dict.fromkeys(parse_rule(text) for text in settings.operating_point))
    deferrals = tuple(dict.fromkeys(parse_deferral(text) for text in settings.defer))
    if settings.choose_on and not any(_needs(one) for one in (*rules, *deferrals)):
        raise UsageProblem(
            "nothing is to be chosen on other cases",
            where="--choose-on",
            hint="`--operating-point sens=0.95` or `--defer budget=0.2` would be",
            code="idle-flag",
        )
    return Request(rules, None, settings.prevalence, deferrals)


def request_for(
    wishes: Request,
    settings: ClinicalSettings,
    predictions: Predictions,
    source: str,
    columns: Columns,
    teller: Teller,
    *,
    raw: bool = False,
    bundle: Manifest | None = None,
) -> Request:
    """Complete the wishes with the cases that choose thresholds and the columns of subgroups.

    Args:
        wishes: of `read_wishes`.
        settings: where both are to be found.
        predictions: what is judged.
        source: run, file or architecture as typed.
        columns: how the columns of a table are called.
        teller: told what the user should know.
        raw: whether a run's calibrator is left aside.
        bundle: what a bundle that is judged brings along, its own thresholds among it.

    Raises:
        UsageProblem: an unreadable file, an unknown column, a table whose identifiers do not fit.
    """
    if bundle is not None and not settings.choose_on:
        # Those of calibrated scores mean nothing for the network's own.
        frozen = {} if raw and bundle.calibrated else {(one.name, one.rule): one.value for one in bundle.thresholds}
        groups = _groups(settings, predictions, source, columns, teller)
        return replace(wishes, groups=groups, frozen=frozen, frozen_on=f"validation cases of `{bundle.name}`")
    reference = _reference(settings, source, columns, teller, raw) if _chooses(wishes) else None
    if reference is not None:
        reference = replace(reference, same=_same(reference.predictions, predictions))
    return replace(wishes, reference=reference, groups=_groups(settings, predictions, source, columns, teller))


def _needs(rule: Any) -> bool:
    return getattr(rule, "kind", "") not in {"score", "below"}


def _chooses(wishes: Request) -> bool:
    return any(_needs(one) for one in (*wishes.rules, *wishes.deferrals))


def _reference(
    settings: ClinicalSettings, source: str, columns: Columns, teller: Teller, raw: bool
) -> Reference | None:
    if settings.choose_on:
        path = settings.choose_on
        if Path(path).is_dir():
            raise UsageProblem(
                f"`{path}` is a folder, and thresholds are chosen on a predictions file",
                where="--choose-on",
                hint=f"`--choose-on {Path(path) / 'predictions' / 'val.npz'}`",
                code="not-a-file",
            )
        found = read_any(path, columns if is_table(path) else Columns()).predictions
        return Reference(found, Path(path).name)
    if not Path(source).is_dir():
        return None
    run = open_run(source)
    stored = run.predictions("val")
    if not stored.is_file():
        return None
    judged = Judgement(None, (load_predictions(stored),))
    (found,) = (judged if raw else calibrated_judgement(run, judged, teller)).others
    return Reference(found, "the run's val cases")


def _same(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.logits, other.logits)


def _groups(
    settings: ClinicalSettings, predictions: Predictions, source: str, columns: Columns, teller: Teller
) -> Mapping[str, Sequence[str]]:
    if not settings.by:
        return {}
    if settings.by_table is None:
        if not (Path(source).is_file() and is_table(source)):
            raise UsageProblem(
                f"`--by {settings.by[0]}`: what is judged here holds no further columns",
                where="--by",
                hint="`--by-table TABLE.csv` names a table that does, joined by identifier",
                code="no-subgroups",
            )
        table = read_table(source)
        return {name: table.column(name, "--by") for name in table.named(settings.by)}
    table = read_table(settings.by_table)
    # The judged table may call its identifiers otherwise than the joined one.
    name = columns.identifier if columns.identifier in table.columns else "id"
    place = _places(table, name)
    rows = [place.get(one, -1) for one in predictions.ids.tolist()]
    absent = rows.count(-1)
    if rows and absent == len(rows):
        raise UsageProblem(
            f"no case is in column `{name}` of `{settings.by_table}`: they are called like `{predictions.ids[0]}`, its "
            f"rows like `{next(iter(place))}`",
            where="--by-table",
            hint="`--id-column COLUMN` names the column with the identifiers",
            code="unknown-cases",
        )
    if absent:
        teller.note(
            f"note: {absent} of {len(rows)} cases are not in `{settings.by_table}`, so their group is not known"
        )
    found = {column: table.column(column, "--by") for column in table.named(settings.by)}
    return {column: tuple(cells[row] if row >= 0 else "" for row in rows) for column, cells in found.items()}


def _places(table: Table, name: str) -> dict[str, int]:
    place: dict[str, int] = {}
    for row, cell in enumerate(table.column(name, "--id-column")):
        if cell in place:
            raise UsageProblem(
                f"`{cell}` is in column `{name}` twice", where=table.where(row), code="duplicate-identifier"
            )
        place[cell] = row
    return place
