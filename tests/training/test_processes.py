"""The process that starts the others: signals, exit codes, and whose words are heard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.errors import ExitCode, RunFailure, UsageProblem
from medcli.training import processes
from medcli.training.processes import Ended, Place, place, run_processes

Start = Callable[[str], Ended]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Two processes of a script that knows its `rank`."""

    def call(body: str, count: int = 2) -> Ended:
        script = tmp_path / "one.py"
        head = "import os, signal, sys, time\nrank = int(os.environ['RANK'])\n"
        script.write_text(head + textwrap.dedent(body), encoding="utf-8")
        return run_processes(count, [sys.executable, str(script)])

    return call


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 130, 143])
def test_the_exit_status_of_the_processes_is_that_of_the_command(start: Start, code: int) -> None:
    assert start(f"sys.exit({code})") == Ended(code, "")


def test_every_process_knows_its_place(start: Start, tmp_path: Path) -> None:
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR OMP_NUM_THREADS"
    start(f"open(r'{tmp_path}/' + str(rank), 'w').write(' '.join(os.environ[n] for n in '{names}'.split()))")
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, processes.cores() // 2)))
    for rank in range(2):
        assert (tmp_path / str(rank)).read_text() == f"{rank} {rank} 2 2 127.0.0.1 {threads}"


def test_the_words_of_another_process_that_fails_are_kept(start: Start) -> None:
    ended = start("sys.exit('only here' if rank else 75)")
    assert ended == Ended(1, "only here")


def test_what_the_first_process_has_said_is_not_said_again(start: Start) -> None:
    assert start("sys.exit(2) if rank == 0 else sys.exit('the same')") == Ended(2, "")


def test_a_process_that_waits_for_a_dead_one_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.5)
    began = time.monotonic()
    assert start("time.sleep(60) if rank == 0 else sys.exit('gone')") == Ended(1, "gone")
    assert time.monotonic() - began < 20


def test_a_killed_process_is_named(start: Start) -> None:
    with pytest.raises(RunFailure, match="process 2 of 2 was killed by signal 9") as caught:
        start("os.kill(os.getpid(), signal.SIGKILL) if rank else sys.exit(75)")
    assert "memory" in str(caught.value.hint)


def test_processes_that_only_lost_each_other_say_so(start: Start) -> None:
    with pytest.raises(RunFailure, match="lost each other"):
        start(f"sys.exit({int(ExitCode.LOST)})")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_once(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "one.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, pathlib, signal, sys, time
            here, rank = pathlib.Path(r'{tmp_path}'), os.environ['RANK']
            def note(number, frame):
                with (here / f'heard{{rank}}').open('a') as file:
                    file.write(f'{{number}} ')
            signal.signal({int(number)}, note)
            (here / f'ready{{rank}}').touch()
            while not (here / f'heard{{rank}}').exists():
                time.sleep(0.05)
            time.sleep(0.5)
            sys.exit(128 + {int(number)})
            """
        ),
        encoding="utf-8",
    )
    starter = (
        f"import sys; from medcli.training.processes import run_processes as r; c = [sys.executable, {str(script)!r}]"
    )
    parent = subprocess.Popen([sys.executable, "-c", f"{starter}; sys.exit(r(2, c).code)"], start_new_session=True)
    while not all((tmp_path / f"ready{rank}").exists() for rank in range(2)):
        time.sleep(0.05)
    # As a terminal does it: to the whole group, of which the processes are no part.
    os.killpg(parent.pid, number)
    assert parent.wait(30) == 128 + number
    assert [(tmp_path / f"heard{rank}").read_text() for rank in range(2)] == [f"{int(number)} "] * 2


def test_more_processes_than_cores_are_refused(start: Start) -> None:
    with pytest.raises(UsageProblem, match="cores"):
        run_processes(processes.cores() + 1, ["false"])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Place()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Place()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Place(3, 4, 1, 2)),
    ],
)
def test_a_launcher_is_recognised(variables: dict[str, str], expected: Place) -> None:
    assert place(variables) == expected


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "x"}, {"WORLD_SIZE": "2", "RANK": "2"}])
def test_half_a_launcher_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(UsageProblem):
        place(variables)
