"""Training adapters: how one gets into the network before the first step, what of it is kept, and how it comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medcli.errors import UsageProblem
from medcli.models.adapted import add_adapter, build_base, continue_adapter, is_adapted, store
from medcli.models.adapter_file import About, describe_adapter, read_adapter
from medcli.models.base import Origin
from medcli.models.classifier import Classifier
from medcli.models.lora import LoraOptions
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.records import read_config
from medcli.training.frozen import learner
from medcli.training.plan import Plan

__all__ = ["LearntPart", "adapt", "checkpointed", "keep_adapter", "run_origin", "settings_of_adapter", "take_base"]

_DIGEST = "base_digest"


def take_base(classifier: Classifier, plan: Plan, run: Path) -> str:
    """Set the backbone to the one that an adapter run was trained on. Returns what was done.

    Raises:
        UsageProblem: no such run, another architecture, or a base that is no longer there.
    """
    about = describe_adapter(open_run(run).path)
    if about.spec.architecture != plan.spec.architecture or about.base is None:
        raise UsageProblem(
            f"`{run}` adapts a `{about.spec.architecture}`, not a `{plan.spec.architecture}`",
            hint=f"`medcli lora {run} …`",
            code="other-architecture",
        )
    base = build_base(about.spec, about.base, run)
    classifier.backbone.load_state_dict(base.backbone.state_dict())
    classifier.origin = base.origin
    return f"weights: those that {run} adapts, {about.base.sentence()}"


def adapt(classifier: Classifier, plan: Plan, frozen_stages: int) -> tuple[str, ...]:
    """Put the adapter of a plan into a classifier whose base weights are in place.

    Args:
        classifier: gets the adapter; from then on it and the head learn, and nothing else.
        plan: with `lora`.
        frozen_stages: stages that get no adapters, from the input.

    Returns:
        sentences the user should read.

    Raises:
        UsageProblem: what was asked for cannot be adapted, or would never learn.
    """
    lora, start = plan.lora, plan.training.init_from
    if lora is None:
        return ()
    if classifier.origin is not None and classifier.origin.kind != "run":
        # What a weight file does not hold was drawn just now, from the training's seed.
        classifier.origin = replace(classifier.origin, seed=plan.compute.seed)
    source = lora.adapter or (start if start and is_adapted(Path(start)) else None)
    if source is not None:
        notes = continue_adapter(classifier, Path(source), dropout=lora.lora_dropout)
    else:
        left_out = _modules_of_stages(classifier, frozen_stages)
        options = LoraOptions(lora.rank, lora.lora_alpha, lora.lora_dropout, lora.targets, lora.variant)
        add_adapter(classifier, options, without=left_out)
        notes = ()
    assert classifier.adapters is not None
    counts, modules = classifier.parameter_counts(), classifier.adapters.modules
    config = classifier.adapters.config()
    kind = "dora" if config["use_dora"] else "rslora" if config["use_rslora"] else lora.variant
    shown = modules[0] if len(modules) == 1 else f"{modules[0]} … {modules[-1]}"
    told = (
        f"adapters: {kind}, rank {classifier.adapters.rank}, alpha {classifier.adapters.alpha:g}, in {len(modules)} "
        f"module{'s' if len(modules) > 1 else ''} ({shown})",
        f"{counts.trainable:,} of {counts.total:,} parameters learn ({counts.trainable / counts.total:.2%})",
    )
    return (*notes, *told)


def settings_of_adapter(run: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run's adapter brings when a copy of it goes on learning.

    Raises:
        UsageProblem: a flag that would change them.
    """
    fixed = ("rank", "lora_alpha", "targets", "variant", "adapter", "image_size")
    for name in fixed:
        if given.get(name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageProblem(
                f"`{flag}` is settled by the adapter of `{run}`, which goes on learning",
                where=flag,
                hint="leave it out, or begin a new adapter: `medcli lora ARCH --weights …`",
                code="fixed-by-run",
            )
    config = read_adapter(run).config
    variant = "dora" if config.use_dora else "rslora" if config.use_rslora else "lora"
    targets = read_config(open_run(run)).values.get("targets")
    return {"rank": config.r, "lora_alpha": float(config.lora_alpha), "variant": variant, "targets": targets}


def checkpointed(plan: Plan, network: nn.Module) -> nn.Module:
    """The part of a classifier that a checkpoint holds: all that its training can change."""
    adapters = network.adapters if plan.lora is not None and isinstance(network, Classifier) else None
    if adapters is None or adapters.base is None:
        return learner(plan, network)
    return LearntPart(network, adapters.base.state)


def keep_adapter(
    run: RunDirectory,
    plan: Plan,
    classifier: Classifier,
    network: nn.Module,
    extra: Mapping[str, Any],
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the adapter and its head into a run, with what is needed to find the base again.

    Args:
        classifier: the one that trains.
        network: whose numbers are kept: itself or its moving average.
        extra: further facts, plain JSON.
        state: the network's state where it lies on several devices.

    Raises:
        RunFailure: it cannot be written.
    """
    store(run.adapter, classifier, network, About(plan.spec, None, plan.preprocessing), extra, state=state)


class LearntPart(nn.Module):
    """What of an adapted network a checkpoint holds: adapter, head, and the digest of the base they belong to.

    Args:
        network: the classifier, or its moving average.
        base: digest of the base weights.
    """

    def __init__(self, network: nn.Module, base: str) -> None:
        super().__init__()
        self.network = (network,)  # a tuple, so that it is no submodule
        self.base = torch.frombuffer(bytearray.fromhex(base), dtype=torch.uint8)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """Tensors that learn, by the network's own names, and the digest."""
        state = self.network[0].state_dict()
        return {**{name: value for name, value in state.items() if _learns(name)}, _DIGEST: self.base}

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> Any:
        """Put them back.

        Raises:
            UsageProblem: the base is not the one the checkpoint was written beside.
        """
        own = dict(state_dict)
        digest = own.pop(_DIGEST, None)
        if digest is None or not torch.equal(digest.cpu(), self.base):
            raise UsageProblem(
                "the weights that the run adapts have changed since it began",
                hint="put the file back; the run's `config.toml` names it",
                code="other-base",
            )
        expected = {name for name in self.network[0].state_dict() if _learns(name)}
        if expected != own.keys():
            raise UsageProblem("the checkpoint belongs to other adapters", code="bad-checkpoint")
        return self.network[0].load_state_dict(own, strict=False)


def run_origin(plan: Plan, run: Path) -> Origin:
    """The origin of a backbone that was copied from a run with a whole model."""
    file = open_run(run).model_file if run.is_dir() else run
    return Origin(plan.spec, "run", str(run), file)


def _learns(name: str) -> bool:
    return ".lora_" in name or name.startswith("medcli_head.")


def _modules_of_stages(classifier: Classifier, count: int) -> tuple[str, ...]:
    """Modules within the backbone that belong to the first stages.

    Raises:
        UsageProblem: there are fewer.
    """
    stages = classifier.stages()
    if count > stages:
        raise UsageProblem(
            f"{count} stages cannot be frozen: this backbone has {stages}, the stem included",
            where="--freeze-layers",
            code="bad-stages",
        )
    groups = [group for group in classifier.layer_groups() if group.stage < count]
    return tuple(name.removeprefix("backbone.") for group in groups for name in group.modules)
