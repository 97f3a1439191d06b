"""`medcli benchmark`: speed and memory of architectures, and what they learn from the same short training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medcli.cli.display import duration
from medcli.cli.options import Flags, MeasuredItems
from medcli.cli.output import Output
from medcli.errors import ExitCode

if TYPE_CHECKING:
    from medcli.benchmark.compare import Comparison
    from medcli.benchmark.items import Item
    from medcli.benchmark.rows import Row
    from medcli.benchmark.session import BenchmarkResult
    from medcli.registry.discovery import Registry

__all__ = ["benchmark"]


def benchmark(sources: MeasuredItems, flags: Flags) -> ExitCode | None:
    """Measure speed and memory of architectures, runs and bundles, each in a process of its own.

    For every batch size the median and 90th percentile of a pass, images per second and peak memory; parameters, MACs,
    bytes of weights and start-up beside them. Rows are written as soon as they are known, so that `--resume` measures
    only what is missing or failed. What fails, takes too long or too much memory stays in the table with its reason,
    and the command ends with status 3. A batch size is never changed.

    With `--data` every architecture goes through the same short training as well: the same splits, epochs, batch size
    and seed, each at the learning rate of its recipe unless `--lr` names one. `--strategy frozen` trains the heads
    alone on features computed once, which a laptop finishes for all of them.

    Examples:
        medcli benchmark --all --list
        medcli benchmark --all --batch-sizes 1
        medcli benchmark resnet18 mobilenet --batch-sizes 1,8,32 --runtime onnx
        medcli benchmark runs/NAME --batch-sizes 1,32
        medcli benchmark --filter 'timm/resnet*' --memory-limit 8 --time-limit 300
        medcli benchmark custom1 --compare-to baseline/results.json --max-slowdown 0.2
        medcli benchmark resnet18 densenet121 --data breastmnist.npz --epochs 5 --image-size 64
        medcli benchmark --all --data breastmnist.npz --strategy frozen --image-size 64
        medcli benchmark --resume runs/20261121T101500Z-benchmark-custom1-1a2b --time-limit 1200
    """
    from medcli.registry.discovery import discover

    settings = flags.output()
    output = Output(settings, "benchmark")
    given = flags.given
    registry = discover()
    if given.get("list"):
        _list(output, registry, sources, flags)
        return None
    from medcli.benchmark.compare import read_earlier
    from medcli.benchmark.plan import plan_benchmark, read_plan
    from medcli.benchmark.report import write_results
    from medcli.benchmark.session import Watch, carry_out
    from medcli.runs.directory import open_run
    from medcli.settings.resolve import resolve

    earlier = read_earlier(given["compare_to"]) if given.get("compare_to") else None
    resolved = resolve("benchmark", given)
    run = open_run(given["resume"]) if given.get("resume") else None
    plan = plan_benchmark(registry, sources, resolved) if run is None else read_plan(run, sources, given)
    _say_problems(output, registry)
    show = _Progress(output)
    watch = Watch(show.begun, show.stage, show.finished, output.confirm)
    result = carry_out(
        plan,
        watch,
        resolved=resolved,
        out=settings.out,
        overwrite=settings.overwrite,
        run=run,
        finish=write_results,
    )
    comparison = None
    if earlier is not None:
        from medcli.benchmark.compare import compare_rows

        name, tolerance = str(given["compare_to"]), float(resolved.values["max_slowdown"])
        comparison = compare_rows(result.rows, earlier, name=name, tolerance=tolerance)
    return _say(output, result, comparison)


def _list(output: Output, registry: Registry, sources: Sequence[str], flags: Flags) -> None:
    from medcli.benchmark.items import choose_items, item_to_json

    given = flags.given
    items = choose_items(registry, sources, every=bool(given.get("all")), patterns=given.get("filter", ()))
    _say_problems(output, registry)
    output.answer(
        {"items": [item_to_json(item) for item in items]},
        lambda: _listing(output, items),
        identifier="\n".join(item.label for item in items),
    )


def _listing(output: Output, items: Sequence[Item]) -> str:
    rows = [
        (
            item.label,
            _KINDS[item.kind],
            item.family or None,
            None if item.params is None else round(item.params / 1e6, 1),
            item.gmacs,
            item.image_size,
            item.origin or None,
            item.fault or None,
        )
        for item in items
    ]
    columns = ["name", "kind", "family", "M params", "GMACs", "px", "from", "cannot be measured"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]  # type: ignore[misc]
    count = f"{len(items)} to measure" if len(items) != 1 else "1 to measure"
    return f"{output.table(columns, rows)}\n\n{count}; without `--list` this is done"


_KINDS = {"architecture": "architecture", "difference": "difference model", "run": "run", "bundle": "bundle"}


def _say_problems(output: Output, registry: Registry) -> None:
    for problem in registry.problems:
        error = problem.as_error()
        output.warn(f"{error.where}: {error.message}")


class _Progress:
    """What is done now and how much is left: a line that is overwritten on a terminal, a line per row elsewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._live = output.live_line()
        self._head = ""

    def begun(self, position: int, total: int, item: Item, left: float | None) -> None:
        rest = "" if left is None else f"  {duration(left)} left of {total} rows"
        self._head = f"{position}/{total}  {item.label}{rest}"
        self._live(self._head)

    def stage(self, text: str) -> None:
        self._live(f"{self._head}  {text}")

    def finished(self, position: int, total: int, row: Row, left: float | None) -> None:
        self._live("")
        rest = f"  {duration(left)} left of {total} rows" if left is not None and position < total else ""
        self._output.note(f"{position}/{total}  {row.item.label}  {_summary(row)}{rest}")


def _summary(row: Row) -> str:
    parts = [
        f"batch {one.batch_size}: {one.median_ms:.3g} ms" if one.median_ms is not None else
        f"batch {one.batch_size}: {one.state}"
        for one in row.timings
    ]  # fmt: skip
    if row.learning is not None:
        auc = row.value("auc")
        found = "" if auc is None else f", AUC {auc:.3f}"
        parts.append(f"training: {row.learning.state}{found}".replace(": measured,", ":"))
    return ", ".join(parts)


def _say(output: Output, result: BenchmarkResult, comparison: Comparison | None) -> ExitCode:
    from medcli.benchmark.report import result_to_json
    from medcli.benchmark.table import conditions_text, failures, legend_text, table_text

    run = str(result.run.path)
    status = ExitCode.PARTIAL if result.failed else ExitCode.DONE
    if comparison is not None and not comparison.met:
        status = ExitCode.LIMIT
    document: dict[str, Any] = result_to_json(result)
    if comparison is not None:
        document["comparison"] = comparison.to_json()

    def text() -> str:
        lines = [table_text(result.rows, width=output.answer_width(), colour=output.answer_colour()), ""]
        lost = failures(result.rows)
        if lost:
            lines += ["not measured:", *(f"  {sentence}" for sentence in lost), ""]
        lines += [text for text in (legend_text(result.rows), conditions_text(result.rows)) if text]
        if comparison is not None:
            lines += ["", *_compared(comparison)]
        return "\n".join([*(line for line in lines), f"results: {run}"])

    output.answer(document, text, identifier=run, run_dir=run, status=status)
    busy = sorted(row.facts.busy for row in result.rows if row.facts is not None and row.facts.busy is not None)
    if busy and busy[len(busy) // 2] > 0.25:
        output.warn(
            f"others kept {busy[len(busy) // 2]:.1f} processors busy beside the typical row: "
            "these times are not those of a quiet machine"
        )
    if result.failed:
        output.hint(f"`medcli benchmark --resume {run}` tries the rows again that are missing")
    return status


def _compared(comparison: Comparison) -> list[str]:
    lines = [f"against {comparison.earlier}, tolerance {comparison.tolerance:.0%}:"]
    lines += [f"  worse: {change.sentence()}" for change in comparison.worse]
    lines += [f"  better: {change.sentence()}" for change in comparison.changes if change.verdict == "better"]
    same = sum(change.verdict == "same" for change in comparison.changes)
    lines.append(f"  {same} of {len(comparison.changes)} figures within the tolerance")
    lines += [f"  not comparable: {label} ({reason})" for label, reason in comparison.apart]
    if comparison.only_now:
        lines.append(f"  only here: {', '.join(comparison.only_now)}")
    if comparison.only_then:
        lines.append(f"  only there: {', '.join(comparison.only_then)}")
    if not comparison.changes:
        lines.append("  nothing could be compared, so nothing is shown to have stayed as it was")
    return lines
