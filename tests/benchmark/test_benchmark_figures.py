"""Clock, quantiles, Pareto front, comparison and tables against values that are known without them."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.benchmark.clock import quantile
from medcli.benchmark.compare import compare_rows, read_earlier
from medcli.benchmark.front import pareto_front
from medcli.benchmark.items import Item
from medcli.benchmark.picture import draw_latency
from medcli.benchmark.rows import Facts, Learning, Row, Timing, append_row, row_from_json, row_to_json, timing_from_json
from medcli.benchmark.table import csv_text, front_of, legend_text, table_text
from medcli.benchmark.turns import Bench, measure_in_turns
from medcli.errors import UsageProblem

FACTS = Facts(
    224, 3, 11_000_000, 10_000_000, 1_800_000_000, 44_000_000, 2.0, 1.5, 0.3, 0.2, 10**8,
    "cpu", "fp32", "channels-last", 1, "torch 2", 0.0,
)  # fmt: skip


def row(name: str, median: float, *, params: int = 11_000_000, auc: float | None = None, size: int = 1) -> Row:
    learning = Learning(figures={"auc": {"value": auc, "low": auc - 0.1, "high": auc + 0.1}}) if auc else None
    timing = Timing(
        size,
        "measured",
        "",
        median,
        1.2 * median,
        1e3 * size / median,
        9,
        10,
        None,
        5 * 10**8,
        turns_ms=(median, 1.1 * median),
    )
    return Row(Item("architecture", f"medcli/{name}", name), replace(FACTS, parameters=params), (timing,), learning)


def lost(name: str) -> Row:
    return Row(Item("architecture", f"medcli/{name}", name), None, (Timing(1, "timed-out", "too slow"),))


class Clock:
    """Time that passes only in passes and pauses; between two instants a pass takes longer, as on a busy machine."""

    def __init__(self, seconds: float, busy: tuple[float, float] = (0.0, 0.0), slower: float = 1.0) -> None:
        self.now, self.seconds, self.passes = 0.0, seconds, 0
        self.busy, self.slower, self.waits, self.starts = busy, slower, 0, []

    def __call__(self) -> float:
        return self.now

    def run(self, size: int = 1) -> None:
        self.passes += 1
        self.starts.append((size, self.now))
        slower = self.slower if self.busy[0] <= self.now < self.busy[1] else 1.0
        self.now += size * self.seconds * slower * (1 + (self.passes % 3) / 10)

    def wait(self) -> None:
        self.waits += 1

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def measure(self, *sizes: int, box: float, repeats: int | None = None) -> tuple[dict[int, list[Timing]], list[str]]:
        """The timings told of each batch size, in order, and the stages."""
        told: list[Any] = []
        bench = Bench(lambda size: lambda: self.run(size), self.wait, clock=self, sleep=self.sleep)
        measure_in_turns(sizes, bench, told.append, box=box, repeats=repeats)
        timings = [timing_from_json(event["timing"]) for event in told if "timing" in event]
        stages = [event["stage"] for event in told if "stage" in event]
        return {size: [one for one in timings if one.batch_size == size] for size in sizes}, stages


@pytest.mark.parametrize(
    ("seconds", "box", "repeats", "warmups", "passes"),
    [
        (0.01, 1.0, None, 13, range(85, 97)),  # as many as fit, and one more warm-up before each later turn
        (1.0, 3.0, None, 4, range(5, 6)),  # slow ones: at least five, and warm-ups end with the box
        (60.0, 3.0, None, 2, range(5, 6)),
        (1e-6, 3.0, None, 13, range(1000, 1001)),
        (0.01, 1.0, 7, 13, range(7, 8)),  # exactly as asked
        (0.01, 1.0, 2, 12, range(2, 3)),
        (0.01, 1.0, 1, 11, range(1, 2)),
    ],
)
def test_passes_fill_the_time_box(seconds: float, box: float, repeats: int | None, warmups: int, passes: range) -> None:
    clock = Clock(seconds)
    timings, _ = clock.measure(1, box=box, repeats=repeats)
    found = timings[1][-1]
    assert found.warmups == warmups
    assert found.passes in passes
    assert len(found.turns_ms) == min(3, repeats or 3)
    assert len(timings[1]) == (3 if repeats is None else 1)
    # Before and after every timed pass, and after each warm-up.
    assert clock.waits == warmups + 2 * found.passes
    assert clock.passes == warmups + found.passes
    assert found.median_ms == pytest.approx(1e3 * seconds * 1.1, rel=0.1)


@pytest.mark.parametrize("busy", [(0.0, 0.6), (0.8, 1.6), (1.7, 9.0), (0.0, 1.2)])
def test_a_slow_spell_does_not_change_the_median(busy: tuple[float, float]) -> None:
    steady = Clock(0.01).measure(1, box=1.0)[0][1][-1]
    found = Clock(0.01, busy, slower=1.5).measure(1, box=1.0)[0][1][-1]
    assert found.median_ms == pytest.approx(steady.median_ms, rel=0.02)
    assert max(found.turns_ms) > 1.3 * min(found.turns_ms)
    assert max(steady.turns_ms) < 1.05 * min(steady.turns_ms)


def test_a_machine_slow_throughout_is_said_as_it_is() -> None:
    found = Clock(0.01, (0.0, 99.0), slower=1.5).measure(1, box=1.0)[0][1][-1]
    assert found.median_ms == pytest.approx(16.5, rel=0.02)


def test_batch_sizes_take_turns_that_lie_apart() -> None:
    clock = Clock(0.01)
    timings, stages = clock.measure(4, 1, box=0.9)
    order = ["batches of 1", "batches of 4"]
    assert stages == [*order, *(f"{one}, turn {turn} of 3" for turn in (2, 3) for one in order)]
    assert timings[4][-1].median_ms == pytest.approx(4 * timings[1][-1].median_ms, rel=0.01)
    for size in (1, 4):
        starts = [start for passed, start in clock.starts if passed == size]
        assert sum(later - earlier > 0.3 for earlier, later in itertools.pairwise(starts)) == 2
    alone = Clock(0.01)
    alone.measure(1, box=0.9)
    starts = [start for _, start in alone.starts]
    assert sum(later - earlier >= 0.5 for earlier, later in itertools.pairwise(starts)) == 2


def test_what_does_not_fit_is_said_once_and_larger_ones_are_not_tried() -> None:
    def prepare(size: int) -> Callable[[], object]:
        if size > 2:
            raise MemoryError
        return lambda: None

    told: list[Any] = []
    measure_in_turns([1, 2, 4, 8], Bench(prepare), told.append, box=0.001, repeats=3)
    timings = [event["timing"] for event in told if "timing" in event]
    assert [(one["batch_size"], one["state"]) for one in timings] == [
        (4, "out-of-memory"),
        (8, "out-of-memory"),
        (1, "measured"),
        (2, "measured"),
    ]
    assert "a batch of 4 did not fit" in timings[1]["reason"]
    assert all(one["peak_bytes"] > 0 for one in timings[2:])


def test_quantiles_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(size=37).tolist()
    for share in (0, 0.5, 0.9, 1):
        assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)))


@pytest.mark.parametrize("higher", [True, False])
def test_the_front_is_what_nothing_dominates(higher: bool) -> None:
    random = np.random.default_rng(1)
    points = [(float(a), float(b)) for a, b in random.integers(0, 8, (40, 2))]
    sign = 1 if higher else -1

    def dominated(one: tuple[float, float]) -> bool:
        return any(other[0] <= one[0] and sign * other[1] >= sign * one[1] and other != one for other in points)

    assert pareto_front(points, higher_is_better=higher) == {
        index for index, one in enumerate(points) if not dominated(one)
    }


def test_the_front_takes_auc_where_it_is_known_and_leaves_difference_models_out() -> None:
    rows = [row("a", 10, params=5), row("b", 20, params=4), row("c", 30, params=6), lost("d")]
    assert front_of(rows, 1) == ("parameters", {"architecture medcli/a", "architecture medcli/b"})
    change = row("e", 1, params=1)
    change = replace(change, item=replace(change.item, kind="difference"))
    assert "difference medcli/e" not in front_of([*rows, change], 1)[1]
    assert legend_text(rows) == "* no other row is at once faster (batch 1) and has fewer parameters"
    assert "a *" in table_text(rows)
    assert not legend_text(rows[:1])
    toy = replace(change, item=replace(change.item, kind="architecture", toy=True))
    assert front_of([*rows, toy], 1) == front_of(rows, 1)
    judged = [row("a", 10, auc=0.8), row("b", 20, auc=0.7), row("c", 30, auc=0.9)]
    assert front_of(judged, 1) == ("auc", {"architecture medcli/a", "architecture medcli/c"})
    # One run among architectures would stand alone in the picture.
    figures = {"auc": {"value": 0.8}}
    trained = [replace(one, facts=replace(FACTS, figures=figures)) for one in rows[:2]]
    assert front_of([*rows[1:], trained[0]], 1)[0] == "parameters"
    assert front_of([*rows[2:], *trained], 1)[0] == "auc"
    change = replace(change, item=replace(change.item, kind="run", pairs=True))
    assert front_of([*rows, change], 1) == front_of(rows, 1)


def test_rows_survive_json() -> None:
    for one in (row("a", 10, auc=0.8), lost("b")):
        assert row_from_json(json.loads(json.dumps(row_to_json(one)))) == one


def test_a_slower_or_larger_or_lost_row_is_worse_and_other_conditions_are_not_compared(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for one in (row("same", 10), row("slow", 10), row("fast", 10), row("gone", 10), row("other", 10), row("old", 10)):
        append_row(file, one)
    earlier = read_earlier(str(tmp_path))
    assert read_earlier(str(file)) == earlier
    document = tmp_path / "results.json"
    document.write_text(json.dumps({"rows": [row_to_json(one) for one in earlier.values()]}), encoding="utf-8")
    assert read_earlier(str(document)) == earlier
    other = row("other", 50)
    other = replace(other, facts=replace(FACTS, threads=8))
    now = [row("same", 11), row("slow", 12), row("fast", 5), lost("gone"), other, row("new", 1)]
    found = compare_rows(now, earlier, name="x", tolerance=0.15)
    assert [(one.label, one.figure) for one in found.worse] == [("slow", "median_ms"), ("gone", "state")]
    assert "10 ms -> 12 ms (+20%)" in found.worse[0].sentence()
    assert "too slow" in found.worse[1].sentence()
    assert [one.label for one in found.changes if one.verdict == "better"] == ["fast"]
    assert found.apart == (("other", "threads 1 -> 8"),)
    assert (found.only_now, found.only_then) == (("new",), ("old",))
    assert not found.met
    assert compare_rows([row("slow", 12)], earlier, name="x", tolerance=0.25).met
    larger = row("same", 10)
    larger = replace(larger, timings=(replace(larger.timings[0], peak_bytes=10**9),))
    assert [one.figure for one in compare_rows([larger], earlier, name="x", tolerance=0.15).worse] == ["peak_bytes"]
    # Where nothing can be compared nothing is shown to be as it was.
    assert not compare_rows([other], earlier, name="x", tolerance=0.15).met


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"rows": [1]}', encoding="utf-8")
    for name, code in (("absent.json", "no-results"), ("bad.json", "bad-results"), ("", "no-results")):
        with pytest.raises(UsageProblem) as problem:
            read_earlier(str(tmp_path / name))
        assert problem.value.code == code


def test_the_table_is_as_wide_as_the_terminal_and_keeps_what_matters() -> None:
    rows = [row("a-network-with-a-long-name", 10, auc=0.8), lost("late")]
    whole = table_text(rows)
    for heading in ("M params", "GMACs", "start-up s", "p90 ms", "peak MiB", "AUC [95 %]"):
        assert heading in whole
    assert "timed-out" in whole
    for width in (60, 80, 120):
        narrow = table_text(rows, width=width)
        assert max(map(len, narrow.splitlines())) <= width
        for heading in ("model", "batch", "median ms", "state"):
            assert heading in narrow
    assert "AUC [95 %]" in table_text(rows, width=100)
    assert "\x1b[" not in whole
    assert "\x1b[31m" in table_text(rows, colour=True)


def test_csv_holds_every_row_with_plain_numbers() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text([row("a", 10, auc=0.8), lost("b")]))))
    assert [(line["label"], line["state"], line["reason"]) for line in lines] == [
        ("a", "measured", ""),
        ("b", "timed-out", "too slow"),
    ]
    assert float(lines[0]["median_ms"]) == 10
    assert lines[0]["turns_ms"] == "10 11"
    assert float(lines[0]["auc_high"]) == pytest.approx(0.9)
    assert lines[1]["parameters"] == ""


def test_the_picture_is_drawn_where_there_is_something_to_draw(tmp_path: Path) -> None:
    assert draw_latency([row("a", 10), row("b", 20, params=5), lost("c")], 1, tmp_path / "a.png")
    assert draw_latency([row("a", 10, auc=0.7), row("b", 20, auc=0.9)], 1, tmp_path / "b.png")
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("a.png", "b.png"))
    assert not draw_latency([lost("c")], 1, tmp_path / "c.png")
