"""How a model is asked: once, for ten crops, with dropout sampled, or for several looks at a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcli.data.target import side_names
from medcli.errors import MedcliError, UsageProblem
from medcli.models.build import LoadedModel
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.records import read_config
from medcli.settings.groups import ComputeSettings

__all__ = ["Asking", "asking_from", "onnx_compute"]


@dataclass(frozen=True)
class Asking:
    """A way to ask a model; at most one of the first three.

    Args:
        ten_crop: average ten views of an enlarged picture.
        mc_dropout: passes with dropout; 0 for none.
        tta: ask for the looks that the kind of picture bears.
        modality: that kind; None where nobody said.
        seed: of what is drawn at random.
    """

    ten_crop: bool = False
    mc_dropout: int = 0
    tta: bool = False
    modality: str | None = None
    seed: int = 0

    @property
    def several(self) -> bool:
        """Whether each case gets several answers, which are kept beside their mean."""
        return bool(self.mc_dropout or self.tta)

    def of(self, loaded: LoadedModel, member: int = 0) -> LoadedModel:
        """The model, asked this way.

        Args:
            loaded: as it comes from its file.
            member: its place in an ensemble, so that members do not drop the same units.

        Raises:
            UsageProblem: this model cannot be asked so.
        """
        if self.ten_crop:
            from medcli.prediction.views import with_ten_crop

            return with_ten_crop(loaded)
        if self.mc_dropout:
            from medcli.prediction.mc_dropout import with_mc_dropout

            return with_mc_dropout(loaded, self.mc_dropout, self.seed + 1_000_003 * member)
        if self.tta:
            from medcli.prediction.tta import with_tta

            return with_tta(loaded, self.modality)
        return loaded

    def sentences(self, loaded: LoadedModel) -> list[str]:
        """What the user should know of it.

        Args:
            loaded: a model asked this way.
        """
        if self.mc_dropout:
            from medcli.prediction.mc_dropout import dropout_layers

            return [dropout_layers(loaded.classifier).sentence(self.mc_dropout)]
        if self.tta and self.modality is not None:
            from medcli.prediction.tta import looks_for

            target = loaded.spec.target
            names = ", ".join(look.name for look in looks_for(self.modality, target))
            told = [f"each picture is looked at in the ways that `{self.modality}` bears: {names}"]
            if side_names(target):
                told.append("no look is mirrored or turned by quarters, because labels name a side of the body")
            return told
        return []


def asking_from(values: Mapping[str, Any], source: str) -> Asking:
    """The way to ask that the settings of `evaluate` or `predict` name.

    Args:
        values: of the command, by field name.
        source: run or architecture as typed; a run says for what kind of picture it was trained.

    Raises:
        UsageProblem: two ways at once, or `--modality` without effect.
    """
    given = {
        "--ten-crop": bool(values.get("ten_crop")),
        "--mc-dropout": values.get("mc_dropout") is not None,
        "--tta": bool(values.get("tta")),
    }
    asked = [flag for flag, on in given.items() if on]
    if len(asked) > 1:
        raise UsageProblem(
            f"`{asked[0]}` and `{asked[1]}` exclude each other: a model is asked in one way at a time",
            where=", ".join(asked),
            code="one-way-of-asking",
        )
    modality = values.get("modality")
    if modality is not None and not given["--tta"]:
        raise UsageProblem(
            "`--modality` says which looks at a picture are safe, and `--tta` is not asked for",
            where="--modality",
            hint="add `--tta`",
            code="idle-flag",
        )
    if given["--tta"] and modality is None:
        modality = _modality_of(source)
    return Asking(
        ten_crop=given["--ten-crop"],
        mc_dropout=int(values.get("mc_dropout") or 0),
        tta=given["--tta"],
        modality=modality,
        seed=int(values.get("seed") or 0),
    )


def onnx_compute(compute: ComputeSettings, asking: Asking) -> ComputeSettings:
    """Where and with what numbers ONNX Runtime works: on the CPU, in single precision.

    Raises:
        UsageProblem: another wish, or passes with dropout, which a graph does not have.
    """
    if asking.mc_dropout:
        raise UsageProblem(
            "`--mc-dropout` drops units inside the network, and its graph has no dropout",
            where="--runtime",
            hint="leave `--runtime onnx` out",
            code="no-dropout",
        )
    if compute.device not in {"auto", "cpu"} or compute.precision not in {"auto", "fp32"}:
        flag = "--device" if compute.device not in {"auto", "cpu"} else "--precision"
        raise UsageProblem(
            f"`--runtime onnx` works on the CPU in single precision, so `{flag}` has no other choice",
            where=flag,
            hint=f"leave `{flag}` or `--runtime onnx` out",
            code="contradiction",
        )
    return replace(compute, device="cpu", precision="fp32")


def _modality_of(source: str) -> str | None:
    """The kind of picture a run was trained for, where it says so."""
    if not Path(source).is_dir():
        return None
    run: RunDirectory = open_run(source)
    try:
        found = read_config(run).values.get("modality")
    except MedcliError:
        return None
    return None if found is None else str(found)
