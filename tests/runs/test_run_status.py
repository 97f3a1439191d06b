"""How a run stands, and that two processes never share one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory, claim_run
from medcli.runs.status import Status, held, now, read_status, write_status

WRONG_TYPE = json.dumps(
    {"schema": "medcli-status/1", "state": "failed", "command": "x", "started": "", "updated": "", "epoch": "3"}
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    claim_run(directory, command="train")
    return directory


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_status_comes_back(run: RunDirectory) -> None:
    status = Status("completed", "train", now(), now(), 3, 5, {"epoch": 2, "monitor": "auc", "value": 0.9}, "")
    write_status(run, status)
    assert read_status(run) == status


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"schema": "other/1", "state": "running"}',
        '{"schema": "medcli-status/1", "state": "odd"}',
        WRONG_TYPE,
    ],
)
def test_a_damaged_status_is_refused(run: RunDirectory, text: str) -> None:
    run.status_file.write_text(text)
    with pytest.raises(UsageProblem, match="cannot be read") as caught:
        read_status(run)
    assert caught.value.where == str(run.status_file)


def test_a_run_without_a_status_did_not_start(run: RunDirectory) -> None:
    with pytest.raises(UsageProblem, match="its start did not finish"):
        read_status(run)


def test_a_running_run_whose_process_is_gone_has_failed(run: RunDirectory) -> None:
    write_status(run, Status("running", "train", now(), now()))
    assert read_status(run).state == "failed"
    assert read_status(run).error == "the process ended unexpectedly"
    with held(run):
        assert read_status(run).state == "running"


def test_the_lock_keeps_a_second_one_out(run: RunDirectory) -> None:
    with (
        held(run),
        pytest.raises(UsageProblem, match=f"process {os.getpid()} on") as caught,
        held(run),
    ):
        pass
    assert caught.value.code == "run-busy"
    with held(run):
        pass
    assert not (run.path / "lock").exists()


def test_the_lock_is_given_back_after_an_error(run: RunDirectory) -> None:
    with pytest.raises(RuntimeError), held(run):
        raise RuntimeError
    assert not (run.path / "lock").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": "x", "host": 1}'])
def test_a_damaged_lock_holds_nobody(run: RunDirectory, text: str) -> None:
    (run.path / "lock").write_text(text)
    with held(run):
        pass


def test_a_lock_of_a_dead_process_is_taken_over(run: RunDirectory) -> None:
    (run.path / "lock").write_text(json.dumps({"pid": dead_process(), "host": socket.gethostname()}))
    with held(run):
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="process start times are read from /proc")
def test_a_process_number_that_was_used_again_holds_nothing(run: RunDirectory) -> None:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "began": "1"}
    (run.path / "lock").write_text(json.dumps(owner))
    with held(run):
        pass


def test_a_lock_of_another_machine_counts(run: RunDirectory) -> None:
    (run.path / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere.invalid"}))
    with pytest.raises(UsageProblem) as caught, held(run):
        pass
    assert "remove" in (caught.value.hint or "")


def test_another_process_is_kept_out(run: RunDirectory) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom medcli.runs.directory import RunDirectory\n"
        "from medcli.runs.status import held\nfrom medcli.errors import UsageProblem\n"
        "try:\n    with held(RunDirectory(Path(sys.argv[1]))): pass\n"
        "except UsageProblem as problem:\n    sys.exit(problem.code)\n"
    )
    with held(run):
        done = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "run-busy"
