"""`medcli runs show`: one run with its figures, its settings and where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from medcli.cli.commands.runs import number_text, summary_facts, time_text
from medcli.cli.options import Flags, RunArgument
from medcli.cli.output import Output
from medcli.errors import MedcliError
from medcli.runs.advice import Advice, advise
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.listing import Resumption, Summary, read_figures, resumptions, summarise
from medcli.runs.members import Member, is_ensemble, read_ensemble
from medcli.runs.records import read_metrics
from medcli.settings.toml_files import read_toml

if TYPE_CHECKING:
    from medcli.settings.saved import SavedConfig

__all__ = ["show_run"]

SPLITS = ("test", "val")
TRAININGS = ("train", "finetune", "lora")
SHOWN = 5
"""Left-out images that are named before the rest is counted."""


def show_run(run: RunArgument, flags: Flags) -> None:
    """Show one run: how it stands, its figures, its settings and where they came from.

    `-v` also shows the settings that stayed at their defaults.

    Examples:
        medcli runs show runs/20261121T101500Z-train-resnet18-1a2b
        medcli runs show runs/20261121T101500Z-train-resnet18-1a2b --json
    """
    settings = flags.output()
    output = Output(settings, "runs show")
    directory = open_run(run)
    summary = summarise(directory)
    saved, problem = _saved(directory)
    if summary.problem and summary.state == "broken":
        output.warn(summary.problem)
    elif problem:
        output.warn(problem)
    figures = _all_figures(directory)
    data = _data_facts(directory)
    resumed = resumptions(directory)
    members = read_ensemble(directory).members if is_ensemble(directory.path) else ()
    advice = _advice(directory, saved, summary)
    result = {
        **summary_facts(summary),
        "advice": advice,
        "data": data,
        "resumed": resumed,
        "evaluation": figures,
        "members": [asdict(member) for member in members],
        "settings": {}
        if saved is None
        else {
            name: {
                "value": value,
                "layer": saved.origins[name].layer if name in saved.origins else "default",
                "where": saved.origins[name].where if name in saved.origins else "",
            }
            for name, value in saved.values.items()
        },
    }

    def text() -> str:
        parts = [
            _head(summary, data, resumed),
            _members(output, members),
            _figure_table(output, figures),
            _settings(output, saved, settings.verbose),
        ]
        return "\n\n".join(part for part in parts if part)

    output.answer(result, text, identifier=str(directory.path), run_dir=str(directory.path))
    for hint in (*map(str, advice), *_next_steps(summary)):
        output.hint(hint)


def _advice(run: RunDirectory, saved: SavedConfig | None, summary: Summary) -> tuple[Advice, ...]:
    """What its curves say, once it has finished; nothing where they cannot be read."""
    if (
        saved is None
        or summary.state != "completed"
        or summary.command not in TRAININGS
        or not run.metrics_file.is_file()
    ):
        return ()
    try:
        rows = read_metrics(run)
    except MedcliError:
        return ()
    epochs = saved.values.get("epochs")
    early = isinstance(epochs, int) and len(rows) < epochs
    return advise(rows, saved.values, command=summary.command, run=str(run.path), stopped_early=early)


def _head(one: Summary, data: Mapping[str, Any], resumed: Sequence[Resumption]) -> str:
    best = f"{one.monitor} {number_text(one.value)}" if one.monitor else ""
    # A search counts trials where a training counts epochs, and an ensemble its members.
    unit = {"search": "trial", "ensemble": "member"}.get(one.command, "epoch")
    at = f" in {unit} {one.best_epoch}" if one.best_epoch else ""
    unnamed = len(data.get("skipped", ())) - SHOWN
    rows = [
        ("run", str(one.path)),
        ("state", one.state + (f": {one.problem}" if one.problem else "")),
        ("architecture", one.architecture),
        ("made by", f"medcli {one.command}" if one.command else ""),
        ("started", time_text(one.started) + " UTC" if one.started else ""),
        ("updated", time_text(one.updated) + " UTC" if one.updated else ""),
        (unit + "s", f"{one.epoch} of {one.epochs}" if one.epochs else ""),
        ("best on val", best and best + at),
        ("data", data.get("text", "")),
        *(("left out", f"{name}: {reason}") for name, reason in data.get("skipped", ())[:SHOWN]),
        ("left out", f"{unnamed} more images, named in data.json" if unnamed > 0 else ""),
        *(("resumed", _resumption(row)) for row in resumed),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows if value)


def _members(output: Output, members: Sequence[Member]) -> str:
    rows = [
        (
            one.name,
            one.architecture or "-",
            "-" if one.seed is None else str(one.seed),
            f"{one.weight:.3f}",
            one.state + (f": {one.error}" if one.error else ""),
            one.place,
        )
        for one in members
    ]
    return output.table(("member", "architecture", "seed", "weight", "state", "place"), rows) if rows else ""


def _resumption(one: Resumption) -> str:
    longer = f", to train {one.extend} more" if one.extend else ""
    changes = f", with changed data: {'; '.join(one.data_changes)}" if one.data_changes else ""
    return f"{time_text(one.time)} UTC after epoch {one.after_epoch}{longer}{changes}"


def _data_facts(run: RunDirectory) -> dict[str, Any]:
    from medcli.runs.records import read_data

    try:
        record = read_data(run)
        counts = {split: int(part["count"]) for split, part in record["splits"].items()}
        target = record["target"]
        classes = target["class_names"] or [output["name"] for output in target["outputs"]]
        named = f": {', '.join(map(str, classes))}" if classes else ""
        text = f"{record['name']} ({record['origin']}), {target['task']}{named}"
        skipped = [(str(name), str(reason)) for name, reason in record.get("skipped", ())]
    except (MedcliError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    parts = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    return {
        "name": record["name"],
        "origin": record["origin"],
        "counts": counts,
        "skipped": skipped,
        "text": f"{text}; {parts}",
    }


def _all_figures(run: RunDirectory) -> dict[str, dict[str, Any]]:
    held: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        try:
            held[split] = dict(read_figures(run, split)["figures"])
        except MedcliError:
            continue
    return held


def _figure_table(output: Output, figures: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for split in figures.values() for name, one in split.items() if one.get("headline")]
    rows = [
        (name, *(_with_interval(figures[split].get(name, {})) for split in figures)) for name in dict.fromkeys(names)
    ]
    return output.table(("figure", *figures), rows) if rows else ""


def _with_interval(figure: Mapping[str, Any]) -> str:
    if figure.get("value") is None:
        return "-"
    interval = ""
    if figure.get("low") is not None and figure.get("high") is not None:
        interval = f" [{figure['low']:.4f}, {figure['high']:.4f}]"
    return f"{figure['value']:.4f}{interval}"


def _saved(run: RunDirectory) -> tuple[SavedConfig | None, str]:
    from medcli.runs.records import read_config

    try:
        return read_config(run), ""
    except MedcliError as problem:
        return None, str(problem).partition("\nhint:")[0].replace("\n", " ")


def _settings(output: Output, saved: SavedConfig | None, every: bool) -> str:
    from medcli.cli.commands.config import value_text

    if saved is None:
        return ""
    rows = [
        (name, value_text(value), str(saved.origins[name]) if name in saved.origins else "default")
        for name, value in saved.values.items()
        if every or name in saved.origins
    ]
    hidden = len(saved.values) - len(rows)
    note = f"{hidden} more settings have their defaults (`-v` shows them)" if hidden else ""
    table = output.table(("setting", "value", "origin"), rows) if rows else ""
    return "\n".join(part for part in (table, note) if part)


def _next_steps(one: Summary) -> tuple[str, ...]:
    if one.command == "search":
        return _after_search(one)
    if one.command == "ensemble":
        return _after_ensemble(one)
    again = f"`medcli {one.command or 'train'} --resume {one.path}"
    # A run that trained nothing (`--strategy knn`) has nothing to go on from.
    goes_on = RunDirectory(one.path).checkpoint_file.is_file()
    if one.state == "completed":
        if one.command.startswith("diffmap"):
            return (_after_diffmap(one), f"{again} --extend 10` trains 10 epochs longer")
        use = f"`medcli evaluate {one.path}` shows every figure; `medcli predict {one.path} IMAGES` uses the model"
        return (use, f"{again} --extend 10` trains 10 epochs longer") if goes_on else (use,)
    if one.state in ("interrupted", "failed") and goes_on:
        return (f"{again}` continues it",)
    return ()


def _after_diffmap(one: Summary) -> str:
    if one.command == "diffmap pretrain":
        from medcli.cli.commands.diffmap_train import after_pretraining

        saved = _saved(RunDirectory(one.path))[0]
        model, values = (saved.architecture, saved.values) if saved else (None, {})
        return after_pretraining(model, values, str(one.path))
    return f"`{one.path / 'plots' / 'examples.png'}` shows maps of validation pairs beside the truth"


def _after_ensemble(one: Summary) -> tuple[str, ...]:
    missing = f"`medcli ensemble --resume {one.path}` trains the members that are missing"
    if one.state != "completed":
        return (missing,)
    use = f"`medcli calibrate {one.path}` turns its scores into probabilities; `medcli evaluate {one.path}` shows all"
    return (use, missing) if one.epoch < one.epochs else (use,)


def _after_search(one: Summary) -> tuple[str, ...]:
    best = one.path / "best.toml"
    more = f" --trials {2 * one.epochs}" if one.state == "completed" else ""
    go_on = f"`medcli search --resume {one.path}{more}`"
    steps = [f"`{one.path / 'trials.txt'}` lists the trials; {go_on} goes on with them"]
    if best.is_file():
        trained_by = read_toml(best).values.get("command", "train")
        steps.insert(0, f"`medcli {trained_by} --config {best}` trains with the best settings")
    return tuple(steps)
