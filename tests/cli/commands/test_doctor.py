"""`doctor` as a user types it, well and ill."""

from __future__ import annotations

import pytest

from medcli.registry.children import Ended
from medcli.testing.command import RunCli


def test_a_machine_that_works(run_cli: RunCli) -> None:
    outcome = run_cli("doctor", "--json")
    document = outcome.json()
    findings = {one["name"]: one for one in document["result"]["findings"]}
    assert outcome.code == 0, outcome.stdout
    assert document["schema"] == "medcli/doctor/1"
    assert "cores" in findings["processor"]["value"]
    assert findings["train, export, compare"]["status"] == "ok"
    assert float(findings["train, export, compare"]["value"].rpartition(" ")[2]) < 1e-4
    assert str(run_cli.directory) not in outcome.stdout


def test_a_machine_whose_torch_crashes(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    from medcli.cli.commands import doctor

    monkeypatch.setattr(
        doctor,
        "run_jobs",
        lambda module, jobs, **rest: iter([Ended("look", None, "the process was killed by SIGILL", 0.1)]),
    )
    outcome = run_cli("doctor", in_process=True)
    assert outcome.code == 4
    assert "cannot be imported: the process was killed by SIGILL  [PROBLEM]" in outcome.stdout
    assert outcome.stdout.rstrip().endswith("2 problems")
