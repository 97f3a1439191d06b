"""Trackers: real TensorBoard events read back, the other services by stand-ins for what accelerate calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from accelerate import PartialState

from medcli.errors import RunFailure, UsageProblem
from medcli.runs.directory import RunDirectory
from medcli.settings.resolve import Resolved
from medcli.training.progress import NoProgress
from medcli.training.trackers import refuse_missing, tracked

SETTINGS = Resolved("train", "resnet18", {"lr": 0.01, "epochs": 2, "step_at": (0.5, 0.75), "weights": None}, {})
EPOCH: dict[str, Any] = {"monitor": "auc", "best": True, "seconds": 1.5, "images_per_second": 10.0}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    PartialState(cpu=True)
    yield
    os.environ.clear()
    os.environ.update(before)


def learn(run: Path, *names: str) -> None:
    with tracked(NoProgress(), names, RunDirectory(run), SETTINGS) as progress:
        progress.start(epochs=2, steps=1, images=1, first_epoch=0)
        progress.epoch(epoch=0, metrics={"train_loss": 0.7, "val_auc": 0.5}, **EPOCH)
        progress.epoch(epoch=1, metrics={"train_loss": 0.6, "val_auc": float("nan")}, **EPOCH)
        progress.finish()


def test_without_a_tracker_nothing_changes(tmp_path: Path) -> None:
    watcher = NoProgress()
    with tracked(watcher, (), RunDirectory(tmp_path), SETTINGS) as progress:
        assert progress is watcher
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_settings_and_figures(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    learn(tmp_path, "tensorboard")
    events = reader.EventAccumulator(str(tmp_path / "tracking" / "tensorboard"))
    events.Reload()
    assert [(one.step, round(one.value, 4)) for one in events.Scalars("train_loss")] == [(1, 0.7), (2, 0.6)]
    assert [one.step for one in events.Scalars("val_auc")] == [1]
    (settings,) = (tmp_path / "tracking" / "tensorboard").rglob("hparams.yml")
    text = settings.read_text()
    assert "architecture: resnet18" in text
    assert "lr: 0.01" in text


class Recorder(ModuleType):
    """A service as accelerate calls it: what reaches it is kept."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any, Any]] = []
        self.config = SimpleNamespace(update=lambda values, **more: self.calls.append(("config", values, more)))
        self.utils = SimpleNamespace(
            validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
        )
        self.where: dict[str, str] = {}

    def init(self, **options: Any) -> Any:
        sys.stdout.write("welcome to the service\n")
        self.where = {name: os.environ.get(name, "") for name in ("WANDB_MODE", "TRACKIO_DIR", "MLFLOW_TRACKING_URI")}
        self.calls.append(("init", options, {}))
        return SimpleNamespace(
            log=lambda values, **more: self.calls.append(("log", values, more)),
            finish=lambda: self.calls.append(("finish", {}, {})),
        )

    def search_experiments(self, **options: Any) -> list[Any]:
        return []

    def create_experiment(self, **options: Any) -> str:
        return "1"

    def start_run(self, **options: Any) -> Any:
        return self.init(**options)

    def log_params(self, values: dict[str, Any]) -> None:
        self.calls.append(("config", values, {}))

    def log_metrics(self, values: dict[str, Any], **more: Any) -> None:
        self.calls.append(("log", values, more))

    def end_run(self) -> None:
        self.calls.append(("finish", {}, {}))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Recorder:
    fake = Recorder(request.param)
    monkeypatch.setitem(sys.modules, request.param, fake)
    return fake


@pytest.mark.parametrize("service", ["wandb", "mlflow", "trackio"], indirect=True)
def test_a_service_gets_settings_and_figures_and_is_ended(
    service: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_MODE", "TRACKIO_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    learn(tmp_path / "run", service.__name__)
    kinds = [kind for kind, _, _ in service.calls]
    assert kinds == ["init", "config", "log", "log", "finish"]
    assert service.calls[1][1]["lr"] == 0.01
    assert service.calls[2][1] == {"train_loss": 0.7, "val_auc": 0.5, "seconds": 1.5, "images_per_second": 10.0}
    assert service.calls[3][2]["step"] == 2
    assert "val_auc" not in service.calls[3][1]
    variable, kept = {
        "wandb": ("WANDB_MODE", "offline"),
        "mlflow": ("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/run/tracking/mlflow.db"),
        "trackio": ("TRACKIO_DIR", f"{tmp_path}/run/tracking/trackio"),
    }[service.__name__]
    assert service.where[variable] == kept
    said = capsys.readouterr()
    assert "welcome" in said.err
    assert not said.out


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_the_users_own_mode_counts(service: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    learn(tmp_path, "wandb")
    assert service.where["WANDB_MODE"] == "online"


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_a_service_that_fails_is_named(service: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "init", lambda **options: 1 / 0)
    with pytest.raises(RunFailure, match="tracker wandb failed") as caught:
        learn(tmp_path, "wandb")
    assert "metrics.jsonl" in str(caught.value.hint)


def test_a_missing_package_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcli.training.trackers.find_spec", lambda name: None)
    with pytest.raises(UsageProblem) as caught:
        refuse_missing(("mlflow",))
    assert "pip install 'medcli[mlflow]'" in str(caught.value.hint)
