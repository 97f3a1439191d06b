"""What a benchmark leaves: `results.json`, `results.csv`, `results.md` and the picture, made anew from its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medcli.benchmark.protocol import protocol_of
from medcli.benchmark.rows import row_to_json
from medcli.benchmark.table import csv_text, front_of, markdown_text
from medcli.runs.directory import replace_text

if TYPE_CHECKING:
    from medcli.benchmark.session import BenchmarkResult

__all__ = ["SCHEMA", "result_to_json", "write_results"]

SCHEMA = "medcli-benchmark/1"


def result_to_json(result: BenchmarkResult) -> dict[str, Any]:
    """Everything, as plain JSON types; `--compare-to` reads it back."""
    size = result.plan.speed.batch_sizes[0]
    against, front = front_of(result.rows, size)
    return {
        "schema": SCHEMA,
        "protocol": protocol_of(result.plan),
        "rows": [row_to_json(row) for row in result.rows],
        "failed": [row.item.label for row in result.failed],
        "pareto": {"batch_size": size, "against": against, "front": sorted(front)},
    }


def write_results(result: BenchmarkResult) -> None:
    """Write the tables and draw the picture.

    Raises:
        RunFailure: they cannot be written.
    """
    import json

    from medcli.benchmark.picture import draw_latency

    folder = result.run.path
    replace_text(folder / "results.json", json.dumps(result_to_json(result), indent=1, allow_nan=False) + "\n")
    replace_text(folder / "results.csv", csv_text(result.rows))
    replace_text(folder / "results.md", markdown_text(result.rows))
    for size in result.plan.speed.batch_sizes:
        draw_latency(result.rows, size, result.run.plots / f"latency-batch{size}.png")
