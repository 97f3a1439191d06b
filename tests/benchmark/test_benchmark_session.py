"""Limits, failures, interruption and resumption, with a worker that plays the networks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medcli.benchmark.items import Item
from medcli.benchmark.plan import BenchmarkPlan, Course, Speed, read_plan, write_plan
from medcli.benchmark.report import write_results
from medcli.benchmark.rows import Row, failed, merge, read_rows
from medcli.benchmark.session import BenchmarkResult, Watch, carry_out, is_done
from medcli.benchmark.table import failures
from medcli.errors import UsageProblem
from medcli.registry.children import child_environment
from medcli.runs.directory import open_run
from medcli.training.interruption import Interrupted

SPEED = Speed((1, 4), 1.0, None, "cpu", "fp32", "auto", False, None, "torch", 2, None, None)


def plan(*names: str, course: Course | None = None, **limits: Any) -> BenchmarkPlan:
    items = tuple(Item("architecture", f"medcli/{name}", name, "medcli 1") for name in names)
    return BenchmarkPlan(items, SPEED, course, limits.get("time_limit"), limits.get("memory_limit"))


def watch(heard: list[Any] | None = None) -> Watch:
    told: list[Any] = [] if heard is None else heard
    return Watch(
        lambda *begun: told.append(("begun", *begun)),
        lambda text: told.append(("stage", text)),
        lambda *finished: told.append(("finished", *finished)),
        lambda question: True,
    )


def requests(log: Path) -> list[tuple[str, str, Sequence[int] | None]]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [(line["task"], line["name"], line["sizes"]) for line in lines]


def states(result: BenchmarkResult) -> dict[str, list[str]]:
    return {row.item.label: [one.state for one in row.timings] for row in result.rows}


def test_what_fails_stays_in_the_table_with_its_reason(stub_worker: Path, tmp_path: Path) -> None:
    heard: list[Any] = []
    wanted = plan("good", "raiser", "quitter", "large", "fine")
    result = carry_out(wanted, watch(heard), out=str(tmp_path / "b"), finish=write_results)
    assert states(result) == {
        "good": ["measured"] * 2,
        "raiser": ["failed"] * 2,
        "quitter": ["failed"] * 2,
        "large": ["measured", "out-of-memory"],
        "fine": ["measured"] * 2,
    }
    assert failures(result.rows) == [
        "raiser, batch 1, 4: ValueError: no such luck",
        "quitter, batch 1, 4: the process ended with status 7, having said: a last word",
        "large, batch 4: out of memory",
    ]
    assert [row.item.label for row in result.failed] == ["raiser", "quitter", "large"]
    table = (tmp_path / "b/results.md").read_text(encoding="utf-8")
    assert "raiser" in table
    assert "ValueError: no such luck" in table
    csv = (tmp_path / "b/results.csv").read_text(encoding="utf-8").splitlines()
    assert len(csv) == 1 + 5 * 2
    ends = [event for event in heard if event[0] == "finished"]
    assert [event[1:3] for event in ends] == [(number, 5) for number in range(1, 6)]
    # Of the whole job, and nothing is left after the last row.
    assert all(event[4] is not None for event in ends)
    assert ends[-1][4] == 0
    assert json.loads((tmp_path / "b/status.json").read_text(encoding="utf-8"))["state"] == "completed"


def test_time_and_memory_limits_end_the_process_and_nothing_else(stub_worker: Path, tmp_path: Path) -> None:
    wanted = plan("sleeper", "halfway", "good", time_limit=1.0)
    result = carry_out(wanted, watch(), out=str(tmp_path / "time"))
    # What was known before the time was up is kept.
    assert states(result) == {
        "sleeper": ["timed-out"] * 2,
        "halfway": ["measured", "timed-out"],
        "good": ["measured"] * 2,
    }
    assert "within 1 s (`--time-limit`)" in failures(result.rows)[0]
    result = carry_out(plan("hog", "good", memory_limit=0.2), watch(), out=str(tmp_path / "memory"))
    assert states(result) == {"hog": ["out-of-memory"] * 2, "good": ["measured"] * 2}
    assert "more than 0.2 GiB of memory (`--memory-limit`)" in failures(result.rows)[0]
    pids = [json.loads(line)["pid"] for line in stub_worker.read_text(encoding="utf-8").splitlines()]
    assert not any(_lives(pid) for pid in pids)


def test_resume_redoes_what_is_missing_or_failed_and_nothing_else(stub_worker: Path, tmp_path: Path) -> None:
    wanted = plan("good", "raiser", "large")
    carry_out(wanted, watch(), out=str(tmp_path / "b"))
    run = open_run(tmp_path / "b")
    assert not is_done(wanted, run)
    (stub_worker.parent / "mended").touch()
    stub_worker.write_text("", encoding="utf-8")
    result = carry_out(read_plan(run, (), {}), watch(), run=run, finish=write_results)
    assert requests(stub_worker) == [("speed", "raiser", [1, 4]), ("speed", "large", [4])]
    assert states(result) == {name: ["measured"] * 2 for name in ("good", "raiser", "large")}
    assert is_done(wanted, run)
    stub_worker.write_text("", encoding="utf-8")
    again = carry_out(read_plan(run, (), {}), watch(), run=run)
    assert again.rows == result.rows
    assert not requests(stub_worker)


def test_killed_halfway_and_resumed_the_table_is_whole(stub_worker: Path, tmp_path: Path) -> None:
    wanted = plan("good", "sleeper", "fine")
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "import medcli.benchmark.process as process, medcli.benchmark.session as session\n"
        "process.WORKER = 'benchmark_stub'\n"
        "from test_benchmark_session import plan, watch\n"
        "session.carry_out(plan('good', 'sleeper', 'fine'), watch(), out=sys.argv[1])\n"
    )
    here = str(Path(__file__).parent)
    words = [sys.executable, "-c", script, str(tmp_path / "b"), here, str(stub_worker.parent)]
    parent = subprocess.Popen(words, env=child_environment())
    _wait_for(lambda: stub_worker.exists() and "sleeper" in stub_worker.read_text(encoding="utf-8"))
    parent.kill()
    parent.wait()
    # The real worker ends itself when its parent is gone (see `test_benchmark_command`); the stub does not.
    os.kill(json.loads(stub_worker.read_text(encoding="utf-8").splitlines()[-1])["pid"], signal.SIGKILL)
    run = open_run(tmp_path / "b")
    assert list(read_rows(run.path / "results.jsonl")) == ["architecture medcli/good"]
    # A machine that goes down may leave half a line.
    with (run.path / "results.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"schema": "medcli-bench')
    (stub_worker.parent / "mended").touch()
    stub_worker.write_text("", encoding="utf-8")
    result = carry_out(read_plan(run, (), {}), watch(), run=run)
    assert [name for _, name, _ in requests(stub_worker)] == ["sleeper", "fine"]
    assert states(result) == {name: ["measured"] * 2 for name in ("good", "sleeper", "fine")}
    assert len((run.path / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    assert wanted.items == result.plan.items


def test_ctrl_c_keeps_the_rows_and_names_the_command_that_goes_on(stub_worker: Path, tmp_path: Path) -> None:
    def stage(text: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    wanted = plan("good", "sleeper", "fine")
    seen = replace(watch(), stage=stage)
    with pytest.raises(Interrupted) as stopped:
        carry_out(wanted, seen, out=str(tmp_path / "b"), finish=write_results)
    assert stopped.value.exit_code == 130
    assert f"medcli benchmark --resume {tmp_path / 'b'}" in (stopped.value.hint or "")
    assert "1 of 3 rows" in stopped.value.message
    assert json.loads((tmp_path / "b/status.json").read_text(encoding="utf-8"))["state"] == "interrupted"
    # The tables hold what there is, and say what was not reached.
    assert "not reached" in (tmp_path / "b/results.md").read_text(encoding="utf-8")
    assert list(read_rows(tmp_path / "b/results.jsonl")) == ["architecture medcli/good"]


def test_a_training_that_failed_is_redone_without_measuring_speed_again(stub_worker: Path, tmp_path: Path) -> None:
    course = Course("scratch", {"epochs": 1}, False, 0)
    wanted = plan("good", "stubborn", "stranger", course=course)
    result = carry_out(wanted, watch(), out=str(tmp_path / "b"), finish=write_results)
    learnt = {row.item.label: (row.learning.state, row.learning.reason) for row in result.rows if row.learning}
    assert learnt["good"] == ("measured", "")
    assert learnt["stubborn"] == ("failed", "it learns nothing")
    # Figures of other splits do not belong into one table.
    assert learnt["stranger"][0] == "failed"
    assert "no longer those" in learnt["stranger"][1]
    assert len(result.failed) == 2
    assert "0.800 [0.700, 0.900]" in (tmp_path / "b/results.md").read_text(encoding="utf-8")
    (stub_worker.parent / "mended").touch()
    stub_worker.write_text("", encoding="utf-8")
    run = open_run(tmp_path / "b")
    again = carry_out(read_plan(run, (), {}), watch(), run=run)
    assert [request[:2] for request in requests(stub_worker)] == [("learning", "stubborn"), ("learning", "stranger")]
    assert not again.failed


def test_an_item_that_lacks_a_package_is_a_row_without_a_process(stub_worker: Path, tmp_path: Path) -> None:
    wanted = plan("good")
    missing = replace(wanted.items[0], name="a/b", label="b", fault="needs `x>=2`, which is not installed")
    result = carry_out(replace(wanted, items=(missing, *wanted.items)), watch(), out=str(tmp_path / "b"))
    assert failures(result.rows) == ["b, batch 1, 4: needs `x>=2`, which is not installed"]
    assert [name for _, name, _ in requests(stub_worker)] == ["good"]


def test_resume_refuses_to_change_what_is_measured(tmp_path: Path) -> None:
    from medcli.runs.directory import RunDirectory, claim_run

    run = RunDirectory(tmp_path / "b")
    claim_run(run, command="benchmark")
    with pytest.raises(UsageProblem) as problem:
        read_plan(run, (), {})
    assert problem.value.code == "not-a-benchmark"
    write_plan(run, plan("good"))
    assert read_plan(run, (), {"time_limit": 9.0, "json": True}).time_limit == 9.0
    for words, given in ((("resnet18",), {}), ((), {"batch_sizes": (2,)})):
        with pytest.raises(UsageProblem) as problem:
            read_plan(run, words, given)
        assert problem.value.code == "resume-changes-settings"
    (run.path / "plan.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageProblem) as problem:
        read_plan(run, (), {})
    assert problem.value.code == "bad-run-file"


def test_a_later_failure_never_hides_what_was_measured(stub_worker: Path, tmp_path: Path) -> None:
    result = carry_out(plan("good"), watch(), out=str(tmp_path / "b"))
    (measured,) = result.rows
    worse = Row(measured.item, timings=tuple(replace(one, state="failed", reason="x") for one in measured.timings))
    assert merge(measured, worse).timings == measured.timings
    assert not failed(merge(worse, measured), (1, 4))


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text('{"schema": "other"}\n{}\n', encoding="utf-8")
    with pytest.raises(UsageProblem) as problem:
        read_rows(file)
    assert problem.value.where == f"{file}:1"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def _wait_for(condition: Any) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
