"""How the model came about: network, strategy, settings that somebody chose, time, hardware, history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from medcli.report.document import Absent, Block, Facts, Gallery, Heading, Notice, Section, Table, Text, cells
from medcli.report.facts import RunFacts
from medcli.report.pictures import history_pictures
from medcli.report.subject import Subject
from medcli.report.tables import duration, moment, number_cell

__all__ = ["training_section"]

_SHOWN_BLOCKS = 40


def training_section(subject: Subject) -> Section:
    """From the run's own records; named as absent for predictions of another tool."""
    facts = subject.facts
    if facts is None:
        absent = Absent("the training", "predictions say nothing about how their model was trained")
        return Section("training", "Training", (absent,))
    blocks: list[Block] = [Facts(_facts(facts))]
    if facts.summary.state != "completed":
        blocks.append(Notice(_state(facts), "warning"))
    blocks += _distortions(facts.environment)
    blocks += _settings(facts)
    blocks += _groups(facts.groups)
    blocks += _members(facts) if facts.ensemble is not None else _history(facts)
    return Section("training", "Training", tuple(blocks))


def _facts(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    one, environment, model = facts.summary, facts.environment, facts.model
    rows = [("architecture", one.architecture)]
    if facts.card is not None:
        rows.append(("network", facts.card.summary))
    if model is not None:
        lora = not facts.run.model_file.is_file()
        what = "in the adapter and head that were learnt" if lora else "with the head"
        rows.append(("parameters", f"{model.parameters:,} {what} ({model.bytes / 2**20:.1f} MiB)"))
        rows += _input(model.preprocessing, model.spec)
    strategy = _value(facts, "strategy")
    rows += [
        ("made by", f"`medcli {one.command}`" + (f", strategy `{strategy}`" if strategy else "")),
        ("starting weights", str(environment["weights"] or "random") if "weights" in environment else ""),
        ("seed", str(environment.get("seed", ""))),
        ("started", moment(one.started)),
        ("took", _time(facts)),
    ]
    if one.epochs:
        best = f"; epoch {one.best_epoch} kept ({one.monitor} {one.value:.4f} on validation)" if one.best_epoch else ""
        rows.append(("epochs", f"{one.epoch} of {one.epochs}{best}"))
    rows += [("resumed", f"{moment(row.time)}, after epoch {row.after_epoch}") for row in facts.resumed]
    rows.append(("hardware", _hardware(environment)))
    return tuple((name, text) for name, text in rows if text)


def _input(preprocessing: Mapping[str, Any], spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not preprocessing:
        return []
    side, fit = preprocessing.get("image_size"), preprocessing.get("fit")
    how = {"squash": "stretched", "pad": "padded", "crop": "cropped"}.get(str(fit), str(fit))
    mean, std = preprocessing.get("mean"), preprocessing.get("std")
    text = f"{side} x {side} pixels, {preprocessing.get('channels')} channels, {how} to a square"
    text += f" ({preprocessing.get('interpolation')}); normalised by mean {mean}, standard deviation {std}"
    rows = [("input", text)]
    head = [f"dropout {spec['dropout']}" if spec.get("dropout") else "", "LayerNorm" if spec.get("head_norm") else ""]
    if any(head):
        rows.append(("head", ", ".join(part for part in head if part)))
    return rows


def _value(facts: RunFacts, name: str) -> Any:
    return None if facts.saved is None else facts.saved.values.get(name)


def _time(facts: RunFacts) -> str:
    spent = sum(row["seconds"] for row in facts.epochs if isinstance(row.get("seconds"), int | float))
    parts = []
    if spent:
        parts.append(f"{duration(spent)} in {len(facts.epochs)} epoch{'s' if len(facts.epochs) != 1 else ''}")
    try:
        whole = datetime.fromisoformat(facts.summary.updated) - datetime.fromisoformat(facts.summary.started)
        parts.append(f"{duration(whole.total_seconds())} from start to end")
    except ValueError:
        pass
    return ", ".join(parts)


def _hardware(environment: Mapping[str, Any]) -> str:
    device = environment.get("gpu") or environment.get("device")
    cores, threads = environment.get("cores"), environment.get("threads")
    parts = [
        str(device) if device else "",
        f"{environment['precision']}" if environment.get("precision") else "",
        f"{cores} cores{f', {threads} threads' if threads else ''}" if cores else "",
        str(environment.get("platform", "")),
    ]
    return "; ".join(part for part in parts if part)


def _state(facts: RunFacts) -> str:
    one = facts.summary
    why = f": {one.problem}" if one.problem else ""
    go_on = ""
    if facts.run.checkpoint_file.is_file() and one.state != "running":
        go_on = f" `medcli {one.command} --resume {one.path}` continues it."
    return f"This training is {one.state}{why}. It has finished {one.epoch} of {one.epochs} epochs.{go_on}"


def _distortions(environment: Mapping[str, Any]) -> list[Block]:
    causes = environment.get("probabilities_distorted_by")
    if not isinstance(causes, list) or not causes:
        return []
    text = f"Scores are distorted by {', '.join(map(str, causes))}; only calibration on untouched data mends that."
    return [Notice(text, "warning")]


def _settings(facts: RunFacts) -> list[Block]:
    if facts.saved is None:
        return [Absent("the settings", "the run holds no readable `config.toml`")]
    saved = facts.saved
    rows = tuple(
        cells(f"`{name}`", _text(saved.values[name]), str(saved.origins[name]))
        for name in saved.values
        if name in saved.origins
    )
    hidden = len(saved.values) - len(rows)
    note = f"{hidden} more settings have their defaults; `config.toml` in the run lists them all."
    return [
        Heading("Settings that differ from the defaults"),
        Table("Each with its origin", ("setting", "value", "origin"), rows, (0, 1, 2), note)
        if rows
        else Text("Every setting has its default."),
    ]


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "(none)"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _groups(groups: Any) -> list[Block]:
    """What each block of layers learnt at, where a strategy made them differ."""
    blocks = groups.get("blocks") if isinstance(groups, dict) else None
    if not isinstance(blocks, list) or not blocks:
        return []
    rows = []
    try:
        for block in blocks[:_SHOWN_BLOCKS]:
            rates = "; ".join(
                f"{rate['lr']:.3g}" + (f" from epoch {int(rate['from_epoch']) + 1}" if rate["from_epoch"] else "")
                for rate in block["rates"]
            )
            rows.append(
                cells(str(block["name"]), str(block["stage"]), f"{int(block['parameters']):,}", rates or "frozen")
            )
    except (KeyError, TypeError, ValueError):
        return []
    more = len(blocks) - _SHOWN_BLOCKS
    note = f"{more} more blocks in `groups.json`." if more > 0 else ""
    return [
        Heading("Which layers learnt, and how fast"),
        Table(
            "Peak learning rate by block", ("block", "stage", "parameters", "learning rate"), tuple(rows), (0, 3), note
        ),
    ]


def _members(facts: RunFacts) -> list[Block]:
    """Who answers together; each one's own history is in its own run."""
    assert facts.ensemble is not None
    rows = [
        cells(
            one.name,
            one.architecture or "-",
            "-" if one.seed is None else str(one.seed),
            one.state + (f": {one.error}" if one.error else ""),
            number_cell(one.weight),
            one.place,
        )
        for one in facts.ensemble.members
    ]
    columns = ("member", "architecture", "seed", "state", "weight", "where")
    note = f"Weights by `{facts.ensemble.weights_by}`. `medcli report` of a member's own run shows its history."
    return [Heading("Members"), Table("Members of the ensemble", columns, tuple(rows), (0, 1, 3, 5), note)]


def _history(facts: RunFacts) -> list[Block]:
    if not facts.epochs:
        return [Absent("the training history", "no epoch has been recorded")]
    return [
        Heading("History"),
        Gallery(history_pictures(facts.epochs, facts.summary.monitor or "loss")),
    ]
